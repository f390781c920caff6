# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import yaml
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.plan import Plan
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.preflight import refusal

DOCUMENTATION = r"""
name: rebuild_plan
short_description: Decides how a cluster is rebuilt, and whether it may be
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Makes the configuration that kubeadm is given, from that of the snapshot. Says which files go where, which nodes are removed, and what stands in the
    way.
  - Used by the role P(k8s_dr.etcd.cluster_rebuild#role), twice. First without, then with what kubeadm would write with that configuration.
positional: _input, machine, options
options:
  _input:
    description: C(source) as M(k8s_dr.etcd.kube_rebuild_source) returned it.
    type: dict
    required: true
  machine:
    description: C(machine) as M(k8s_dr.etcd.kube_rebuild_machine) returned it.
    type: dict
    required: true
  options:
    description: The options of the role, without its name in theirs.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the configuration for kubeadm
  ansible.builtin.debug:
    msg: "{{ (looked.source | k8s_dr.etcd.rebuild_plan(seen.machine, options)).configuration }}"
"""

RETURN = r"""
_value:
  description: >-
    V(refusal), empty when nothing stands in the way; V(configuration), YAML for kubeadm; V(files), each with V(src), V(dest) and V(mode); V(signed), the
    files that kubeadm signs; V(name), V(address), V(endpoint), V(server) and V(moved) (whether the URL of the API is another one than before); V(remove),
    the nodes to remove; V(stay), the others; V(etcd), how its data is restored; V(places), where machines from before would answer; V(record); V(paths),
    files that must be on the machine; V(follow), what an operator does for the nodes that stay; V(lines), the plan in words.
  type: dict
"""


def parsed(text):
    """The document of kubeadm's configuration that is a ClusterConfiguration; {} for a text without one."""
    try:
        found = [one for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    except yaml.YAMLError:
        return {}
    return next((one for one in found if one.get("kind") == "ClusterConfiguration"), found[0] if found else {})


def rebuild_plan(source, machine, options):
    # what Ansible marks in its values is nothing that can be written as YAML
    source, machine, options = json.loads(json.dumps([source, machine, options]))
    plan = Plan({"source": source, "machine": machine, "options": options, "cluster": parsed(source["cluster_configuration"])})
    # the first look at the machine is for the questions of the second one
    if plan.preview:
        plan.check_machine(machine["state"])
    documents = [yaml.safe_dump(document, default_flow_style=False) for document in plan.documents()]
    if source["kubelet_configuration"].strip():
        documents.append(source["kubelet_configuration"].strip() + "\n")
    etcd = plan.preview.get("etcd") or {}
    found = {
        "refusal": refusal([("", problem, advice) for problem, advice in plan.refusals]),
        "configuration": "---\n".join(documents),
        "files": plan.files,
        "signed": plan.signed,
        "name": plan.name,
        "address": plan.address,
        "version": plan.version,
        "endpoint": plan.endpoint,
        "server": plan.server,
        "moved": plan.changed,
        "remove": plan.remove,
        "stay": plan.stay,
        "pki_dir": plan.pki_dir,
        "data_dir": plan.data_dir,
        "etcd": {
            "image": etcd.get("image", ""),
            "version": etcd.get("version", ""),
            "initial_cluster": "%s=%s" % (plan.name, plan.peer_url),
            "peer_urls": plan.peer_url,
        },
        "places": plan.places(),
        "names": dict(source["names"], **({"nodes": [plan.name, *plan.stay]} if source["names"].get("nodes") else {})),
        "follow": follow(plan),
        "record": plan.record,
        "paths": plan.paths,
        "lines": lines(plan),
    }
    # Braces in what a snapshot holds are no template of this controller (up to ansible-core 2.18 they could become one).
    return wrap_var(found)


def lines(plan):
    """What an operator reads before saying yes."""
    source = plan.source
    if plan.drill:
        return drill_lines(plan)
    found = [
        "%s becomes the control plane of the cluster of this snapshot: taken %s of etcd %s, revision %s. Nodes in it: %d."
        % (plan.name, source["created"] or "at an unknown time", source["etcd_version"] or "of an unknown version", source["revision"], len(source["nodes"])),
        "Its address is %s, the API is at %s%s. Kubernetes is %s."
        % (plan.address, plan.server, " (before: %s)" % (", ".join(source["servers"]) or "not known") if plan.changed else ", as before", plan.version),
        "Keys and files that are put on the machine: %s." % ", ".join(one["dest"] for one in plan.files),
    ]
    if plan.kept:
        found.append("The manifests from before have settings that ClusterConfiguration lacks. It gets them: %s." % "; ".join(plan.kept))
    found.append("Node objects that are removed: %s." % (", ".join(plan.remove) or "none"))
    if plan.stay:
        found.append("Node objects that stay: %s. -e cluster_rebuild_remove_nodes=all removes them, too." % ", ".join(plan.stay))
    if source["other_pods"]:
        found.append("Static Pods of others are not put back: %s." % ", ".join(source["other_pods"]))
    found += ["Warning: %s." % warning for warning in plan.warnings]
    return [*found, "If it fails or is interrupted, run the same command again: it goes on where it stopped."]


def drill_lines(plan):
    """The same of a drill."""
    return [
        "The cluster of this snapshot, taken %s, revision %s, is rebuilt as %s with Kubernetes %s, in a network of its own."
        % (plan.source["created"] or "at an unknown time", plan.source["revision"], plan.name, plan.version),
        "Neither controllers nor Pods of the cluster run. All of it is removed again.",
        *["Warning: %s." % warning for warning in plan.warnings],
    ]


def follow(plan):
    """What an operator does for the nodes that stay."""
    if not plan.stay:
        return []
    if not plan.changed:
        return ["Nodes that still run find the API where it was: %s." % ", ".join(plan.stay)]
    return [
        "Nodes that still run (%s) have to be told where the API is now. On each of them: sed -i 's#server: https://.*#server: %s#' "
        "/etc/kubernetes/kubelet.conf && systemctl restart kubelet" % (", ".join(plan.stay), plan.server)
    ]


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.rebuild_plan."""

    def filters(self):
        return {"rebuild_plan": rebuild_plan}
