# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: rollback_target
short_description: Chooses the restore of etcd that a host rolls back
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - That is the newest unfinished restore. When asked, it is the newest finished one, and only that, so that the same command run again does not undo
    another generation. A host that took no part in the newest finished one stays as it is.
  - A finished restore is undone on all of its hosts together. So is an unfinished one where an undo is asked for, since hosts that have voted to keep its
    data do not wait for the others then.
  - An undo is refused where the hosts would undo different restores, and where the cluster has members that the restore was not of. These joined after it,
    so they would go on without the host, and it without them.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, host, undo, lost
options:
  _input:
    description: >-
      For each host its name in the inventory, what M(k8s_dr.etcd.etcd_restore_info) said of it (empty when it could not be read), and what
      M(k8s_dr.etcd.etcd_restore_transaction) said when it was rolled back (empty before that).
    type: list
    elements: list
    required: true
  host:
    description: The host that rolls back.
    type: str
    required: true
  undo:
    description: Whether a finished restore may be undone.
    type: bool
    default: false
  lost:
    description: Hosts that are gone for good.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Say what would be rolled back
  ansible.builtin.debug:
    msg: "{{ ([['cp1', found.restore, {}]] | k8s_dr.etcd.rollback_target('cp1')).message }}"
"""

RETURN = r"""
_value:
  description: >-
    V(target), the restore, empty when there is none; V(refusal), why it is not undone, empty when it can be; V(serving), why a retired host must not start
    as long as restored ones have not rolled back, empty when it may; V(message), what is found, in words.
  type: dict
"""


def _candidate(node, undo):
    """The restore that this host alone would roll back."""
    unfinished = [one for one in node.get("unfinished") or [] if undo or one["state"] != "rejoining"]
    if unfinished:
        return unfinished[-1]
    finished = [one for one in node.get("transactions") or [] if one["finished"]]
    return finished[-1] if undo and finished and finished[-1]["state"] in ("committed", "rejoined") else {}


def _nothing(host, node, undo, other):
    finished = [one for one in node.get("transactions") or [] if one["finished"]]
    # only the newest one that was finished can be undone
    committed = [one for one in finished[-1:] if one["state"] == "committed"]
    text = host + " has no unfinished restore"
    if undo and other:
        text += ", and took no part in the newest one (%s)" % other
    elif undo and finished:
        text += ", and its newest finished one was rolled back already"
    text += ": nothing was done."
    return text if undo or not committed else text + " To undo the finished one of %s, add -e etcd_restore_undo=true." % committed[-1]["since"]


def _rolled_back(identity, node, result):
    done = (result or {}).get("transaction") or {}
    states = [one["state"] for one in (node or {}).get("transactions") or [] if one["id"] == identity]
    return "rolled-back" in states or (done.get("state") == "rolled-back" and done.get("id") == identity)


def _joined(node, together, known):
    """Names of the members of the cluster as etcd's data on this host has them, without those of the hosts of a restore."""
    own = [known.get(name, ({}, {}))[0].get("etcd") or {} for name in together] + [node.get("etcd") or {}]
    names, urls = {one.get("name") for one in own} | set(together), {url for one in own for url in one.get("peer_urls") or []}
    others = [one for one in node.get("members_on_disk") or [] if one.get("name") not in names and not urls & set(one.get("peer_urls") or [])]
    return sorted(one.get("name") or one["id"] for one in others)


def _left_behind(host, target, node, together, known, lost):
    """Why an undo would make two clusters of one; "" where it would not."""
    joined = [name for name in _joined(node, together, known) if name not in lost]
    if not joined:
        return ""
    return (
        "%s became members after the restore %s. With its previous data %s would leave them, and both would take writes, or lose the quorum. Nothing was done. "
        "To go back all the same, stop the control planes of these members first and name them in etcd_restore_lost_members. To have an earlier state of "
        "the whole cluster, restore a snapshot" % (", ".join(joined), target["id"], host)
    )


def _several(targets):
    """Why hosts must not undo different restores in one run; "" where they do not."""
    chosen = {name: one["id"] for name, one in targets.items() if one}
    if len(set(chosen.values())) < 2:
        return ""
    each = ", ".join("%s of %s" % (identity, name) for name, identity in sorted(chosen.items()))
    return (
        "The hosts would undo different restores (%s), and then serve data that does not belong together. Nothing was done. Undo the newest one first, "
        "with -l on the hosts that took part in it" % each
    )


def rollback_target(hosts, host, undo=False, lost=()):
    """See RETURN."""
    try:
        known = {str(name): (node or {}, result or {}) for name, node, result in hosts}
    except (TypeError, ValueError) as exc:
        raise AnsibleFilterError("rollback_target needs a list of hosts with what is known of each, not %r" % (hosts,)) from exc
    lost, gone = set(lost or []), "Run it on all of them (drop the -l), or name those that are gone for good in etcd_restore_lost_members."
    candidates = {name: _candidate(node, undo) for name, (node, dummy) in known.items()}
    # also one that only some of the hosts have finished, and rolled back since
    finished = [one["id"] for node, dummy in known.values() for one in node.get("transactions") or [] if one["finished"]]
    newest = max([one["id"] for one in candidates.values() if one] + finished, default="")
    targets = {name: {} if one and one["ended"] and one["id"] != newest else one for name, one in candidates.items()}
    target = targets[host]
    answer = {"target": target, "refusal": "", "serving": "", "message": ""}
    if not target:
        own = [one["id"] for one in known[host][0].get("transactions") or []]
        answer["message"] = _nothing(host, known[host][0], undo, "" if newest in own else newest)
        return answer
    together = list(target.get("hosts") or []) + list(target.get("retired") or [])
    absent = [name for name in together if name not in lost and not known.get(name, ({}, {}))[0]]
    if undo and absent:
        answer["refusal"] = (
            "The restore %s was of %s together, and this run does not reach %s: some would have the previous data and some the restored data. "
            "Nothing was done. %s" % (target["id"], ", ".join(together), ", ".join(absent), gone)
        )
    if undo and not answer["refusal"]:
        # the data of an unfinished one may still be the previous data, with members that are lost
        joined = _left_behind(host, target, known[host][0], together, known, lost) if target["ended"] else ""
        answer["refusal"] = _several(targets) or joined
    serving = [name for name in target.get("hosts") or [] if name not in lost and not _rolled_back(target["id"], *known.get(name, ({}, {})))]
    # a single restored member would serve its data beside what this one would serve
    if target["kind"] == "retire" and serving:
        answer["serving"] = "%s stays stopped: %s, restored without it, did not roll back in this run and may serve beside it. %s" % (
            host, ", ".join(serving), gone,
        )  # fmt: skip
    answer["message"] = "restore %s on %s (it was %s%s)" % (target["id"], host, target["state"], " since " + target["since"] if target["since"] else "")
    return answer


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.rollback_target."""

    def filters(self):
        return {"rollback_target": rollback_target}
