# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

DOCUMENTATION = r"""
name: browse_report
short_description: Says how to read a snapshot that is served
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.etcd_browse#role).
positional: _input, host, snapshot
options:
  _input:
    description: What M(k8s_dr.etcd.kube_snapshot_server) returned.
    type: dict
    required: true
  host:
    description: Name of the host that serves it.
    type: str
    required: true
  snapshot:
    description: Name of the snapshot.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say how to read the snapshot
  ansible.builtin.debug:
    msg: "{{ served | k8s_dr.etcd.browse_report(inventory_hostname, '/var/backups/etcd/etcd-cp1-20260102T030405Z.db') }}"
"""

RETURN = r"""
_value:
  description: Lines of text.
  type: list
  elements: str
"""


def browse_report(result, host, snapshot):
    if result.get("revision") is None:
        lines = ["%s would be served on %s, which has all that this needs." % (snapshot, host)]
        return lines + (["It would end what is served there now, with the SHA-256 %s." % result["replaced"]] if result.get("replaced") else [])
    lines = [
        "%s, revision %s, is served read-only on %s by kube-apiserver %s until %s. As root on %s:"
        % (snapshot, result["revision"], host, result["kubernetes_version"], result["expires"], host),
        "kubectl --kubeconfig %s get all -n default" % result["kubeconfig"],
    ]
    if result.get("replaced"):
        lines.append("Another run served a snapshot here until now, with the SHA-256 %s. It was ended for this one." % result["replaced"])
    if result.get("completed"):
        lines.append(
            "The snapshot lacks objects that this kube-apiserver needs, as one of an older Kubernetes does. It has completed APIServices, FlowSchemas, "
            "PriorityLevelConfigurations, PriorityClasses, ServiceCIDRs and IPAddresses: those with a resourceVersion above %s are not of the snapshot."
            % result["revision"]
        )
    objects = result.get("objects")
    if objects:
        lines.append("%s objects of %s resources were listed and decoded." % (objects["objects"], objects["resources"]))
        if objects["unserved"]:
            unserved = ", ".join("%d %s" % (number, name) for name, number in sorted(objects["unserved"].items()))
            lines.append("It has no API for %s, which are in the snapshot all the same." % unserved)
    if result.get("unreadable"):
        # what it quotes may hold braces, which up to ansible-core 2.18 would be taken for a template
        words = re.sub(r"\{(?=[{%#])", "{ ", str(result["unreadable"]))
        lines.append(
            "Not all objects can be read (%s). Give the EncryptionConfiguration that the snapshot was written with: "
            "-e etcd_browse_encryption_config=PATH" % words
        )
    return lines


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.browse_report."""

    def filters(self):
        return {"browse_report": browse_report}
