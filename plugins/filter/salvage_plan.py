# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.common.text.formatters import bytes_to_human

DOCUMENTATION = r"""
name: salvage_plan
short_description: Says how the data of an etcd member without a quorum is salvaged, or why it must not be
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Judges what is known so far. What the cluster says is left out where it was not asked yet.
  - Used by the entry point C(salvage) of the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, node
options:
  _input:
    description: >-
      V(host); V(hosts), all of the run; V(membership), what P(k8s_dr.etcd.restore_members#filter) says; V(answering), members that answer and are not in
      the run; V(manifests_dir); V(snapshot_dir); V(rollback_after), seconds of the timer that starts the node again.
    type: dict
    required: true
  node:
    description: What M(k8s_dr.etcd.etcd_restore_info) says of the host.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say what is in the way of a salvage
  ansible.builtin.debug:
    msg: "{{ ({'host': 'cp1', 'hosts': ['cp1']} | k8s_dr.etcd.salvage_plan(found.restore)).refusals }}"
"""

RETURN = r"""
_value:
  description: V(stop), whether the control plane has to be stopped; V(refusals), sentences; V(message), what is done, in words.
  type: dict
"""


def _node(known, node, stop):
    """What is in the way on the node itself."""
    host, found = known["host"], []
    if node["unfinished"]:
        return [
            "On %s the restore %s is unfinished. Roll it back first: ansible-playbook k8s_dr.etcd.rollback -l %s"
            % (host, node["unfinished"][-1]["id"], ",".join(known["hosts"]))
        ]
    if not node["database_bytes"]:
        retired = (node.get("retired") or {}).get("path")
        where = "A restore of other members retired it, and its previous data is in %s/old" % retired if retired else (
            "Look on the other control plane nodes, and in %s" % node["transactions_dir"]
        )  # fmt: skip
        return ["%s has no database in %s, so there is nothing to salvage. %s" % (host, node["data_dir"], where)]
    if node["data_in_use"] and not stop:
        why = "it has no manifest in %s" % known.get("manifests_dir") if node["kubelet_running"] else "no kubelet runs that would stop it"
        found.append("An etcd uses the data of %s, and %s. Start kubelet on the node, or end that etcd, and run this again" % (host, why))
    if stop:
        found += ["On %s %s" % (host, sentence.rstrip(".")) for sentence in node["obstacles"]]
        if not node["complete"]:
            found.append(
                "On %s there is no manifest of %s in %s: put it back, or stop kubelet and run this again"
                % (host, ", ".join(node["missing"]), known.get("manifests_dir"))
            )
        if not node["runtime"]["running"]:
            found.append("On %s the container runtime does not answer: start it" % host)
        if not node["systemd"] and int(known.get("rollback_after") or 0) > 0:
            found.append(
                "On %s there is no systemd, and so no timer that starts etcd again when the controller does not: add "
                "-e etcd_restore_rollback_after=0 to continue without it" % host
            )
    if node.get("signing_key_problem"):
        found.append("On %s %s. Or add -e etcd_snapshot_signing_key= to salvage without a signature" % (host, node["signing_key_problem"].rstrip(".")))
    # as much as the data, another database, and the logs of the etcd that serves the copy
    room = int(node["data_bytes"]) + int(node["database_bytes"]) + 192 * 1048576
    if int(node["free_bytes"]) < room:
        found.append(
            "%s has %s free in the file system of %s, and needs %s there for a copy of its data. Make room there"
            % (host, bytes_to_human(int(node["free_bytes"])), node["data_dir"], bytes_to_human(room))
        )
    return found


def salvage_plan(known, node):
    """See RETURN."""
    members, answering = known.get("membership") or {}, known.get("answering") or []
    # What kubelet would start has to be kept from it; what it does not start lies still.
    stop = bool(node["kubelet_running"] and "etcd" not in node["missing"])
    labels = ", ".join(members.get("labels") or [])
    if members.get("quorum"):
        # then there is nothing to salvage, and nothing else matters
        text = "The etcd of this cluster has a quorum (%s), so it gives out all that it holds. Take a snapshot: ansible-playbook k8s_dr.etcd.snapshot"
        refusals = [text % labels]
    else:
        refusals = _node(known, node, stop)
    if answering:
        refusals.append(
            "%s answers %s and is not in this run: it may hold more, or be part of a quorum. Include it in the play, or switch it off"
            % (", ".join(dict.fromkeys(answering)), known["host"])
        )
    how = "Its control plane is stopped, a copy of the data is made into a verified snapshot in %s, and the control plane is started again."
    if not stop:
        how = "No etcd runs here, so a copy of the data as it lies is made into a verified snapshot in %s."
    message = "SALVAGE of %s on %s: revision %s and what its write-ahead log holds besides; members %s. %s" % (
        node["data_dir"], known["host"], node.get("revision_on_disk", 0), labels, how % known.get("snapshot_dir"),
    )  # fmt: skip
    return {"stop": stop, "refusals": refusals, "message": message}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.salvage_plan."""

    def filters(self):
        return {"salvage_plan": salvage_plan}
