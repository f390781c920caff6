# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.states import RESUMABLE, in_words

DOCUMENTATION = r"""
name: unfinished_restore
short_description: Decides whether an unfinished restore of etcd is refused, finished or rolled back
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - A restore can be finished when every host still holds the same one, with its data staged, and none has begun to roll back. All hosts that get the
    snapshot, and those that are retired, must be in the run. A host that an earlier restore retired takes no part. Where a quorum was not stopped yet, etcd
    must not have written so much since that the staged revision would no longer be above it.
  - A run that is to finish a restore rolls it back where it cannot be finished, so that it begins anew. It is refused where a host of the restore is not in
    the run, and where the restored data was validated.
  - What is finished is what was recorded when the restore began. Options of this run that name something else are refused, and so is a run that is to
    finish a restore where none is unfinished.
  - A restore that a host has committed counts as unfinished there while other hosts have not committed it.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, host, options
options:
  _input:
    description: For each host its name in the inventory, and what M(k8s_dr.etcd.etcd_restore_info) said of it.
    type: list
    elements: list
    required: true
  host:
    description: The host that is decided about.
    type: str
    required: true
  options:
    description: >-
      Options of the run without their prefix V(etcd_restore_): V(unfinished), V(members), V(lost_members), V(snapshot), V(off_site) and
      V(bump_revision); and V(check), whether this is check mode.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Decide about an unfinished restore
  ansible.builtin.debug:
    msg: "{{ [['cp1', found.restore]] | k8s_dr.etcd.unfinished_restore('cp1', {'unfinished': 'resume'}) }}"
"""

RETURN = r"""
_value:
  description: >-
    V(left), the unfinished restore of the host, empty where there is none; V(resumed), whether it is finished now, the same for every host;
    V(about), the record of the restore, empty without one; V(refusal), a sentence, empty where the run goes on; V(take_back), whether the host rolls
    back first; V(ends), whether check mode cannot go on from there; V(message), what is done about it, empty where nothing is; V(members), the hosts that
    the record names when the restore is finished now, or begun anew because it cannot be, else those of the options.
  type: dict
"""

# The database on the disk is behind its etcd by what one batch holds (3.5.35 to 3.7.3: backend.go, defaultBatchLimit, 10000), and etcd goes on until it is
# stopped.
_WRITTEN_MEANWHILE = 100000
# Nothing of a node was stopped.
_STILL_SERVING = ("begun", "staged")
_VALIDATED = ("committing", "committed")


def _outrun(hosts):
    """Whether etcd, which went on serving, has come near the revision that the staged data has."""
    left = [left for dummy, left, dummy2 in hosts if left]
    about = next((one["about"] for one in left if one.get("about")), {})
    bump, snapshot = int(about.get("bump") or 0), int((about.get("snapshot") or {}).get("revision") or 0)
    # where it was not raised, nothing is promised about it, and without a quorum nothing is written
    serving = [one for one in left if one["state"] in _STILL_SERVING]
    if not bump or not snapshot or 2 * len(serving) <= len(left):
        return False
    return max(int(node.get("revision_on_disk") or 0) for dummy, dummy2, node in hosts) + _WRITTEN_MEANWHILE > snapshot + bump


def _possible(hosts):
    found = [left for dummy, left, dummy2 in hosts if left]
    if not found:
        return False
    if any(not left and not node.get("retired") for dummy, left, node in hosts):
        return False
    # what salvage.yml or rejoin.yml left is of no host that gets a snapshot
    restored = found[0].get("hosts") or []
    together = {*restored, *(found[0].get("retired") or [])}
    # a node that is to be retired has nothing to stage
    states = {"staged" if left.get("kind") == "retire" and left["state"] == "begun" else left["state"] for left in found}
    return (
        bool(restored)
        and together <= {host for host, dummy, dummy2 in hosts}
        and len({left["id"] for left in found}) == 1
        and states <= set(RESUMABLE)
    )


def _names(value):
    """Names of an option; None where it is no list of them."""
    return None if isinstance(value, (str, dict)) or not hasattr(value, "__iter__") else [str(name) for name in value]


def _same_file(given, recorded):
    # the record has a path of the controller without links in it
    return os.path.normpath(given) == os.path.normpath(recorded) or os.path.realpath(os.path.expanduser(given)) == recorded


def _conflicts(hosts, about, options):
    """What is given and contradicts the record.  What has its default was not given, and what is recorded is used."""
    found = []

    def conflict(option, recorded, given):
        found.append({"option": "etcd_restore_" + option, "recorded": recorded, "given": given})

    def quoted(names):
        return json.dumps(sorted(names))

    own = {(node.get("etcd") or {}).get("name"): host for host, dummy, node in hosts}
    given = options.get("members") or []
    if given:
        names = _names(given)
        if names is None or {own.get(name, name) for name in names} != set(about.get("hosts") or []):
            conflict("members", quoted(about.get("hosts") or []), str(given) if names is None else quoted(names))
    given = options.get("lost_members") or []
    if given and about.get("lost") is not None:
        names = _names(given)
        if names is None or set(names) != {str(name) for name in about["lost"]}:
            conflict("lost_members", quoted(about["lost"]), str(given) if names is None else quoted(names))
    label, off_site = str(about.get("label") or (about.get("snapshot") or {}).get("path") or ""), str(about.get("off_site") or "")
    given = str(options.get("off_site") or "")
    if given and given.rstrip("/") != off_site.rstrip("/"):
        conflict("off_site", off_site or "(none)", given)
    given = str(options.get("snapshot") or "")
    if given and label and not (off_site and given == "latest"):
        same = os.path.basename(given) == os.path.basename(label) if off_site else _same_file(given, label)
        if not same:
            conflict("snapshot", label, given)
    raised = int(about.get("bump") or 0)
    if raised and str(options.get("bump_revision", True)).lower() in ("false", "no", "off", "0", "n", "f"):
        conflict("bump_revision", "true (by %d)" % raised, "false")
    return found


def _left(node, unfinished):
    """The restore that this node has not finished, or has committed, as its newest one, while other nodes have not."""
    own = node.get("unfinished") or []
    ahead = [one for one in (node.get("transactions") or [])[-1:] if one["id"] in unfinished and one["state"] == "committed"]
    return (own or ahead or [{}])[-1]


def _state(left):
    return "its state is %s since %s" % (in_words(left["state"]), left.get("since") or "its beginning")


def _refused(host, left, lefts, cannot):
    """The sentences that refuse to begin anything beside an unfinished restore.  cannot: why it cannot be finished, "" where it can."""
    decided = [name for name, other in lefts.items() if other.get("state") == "committed"]
    resume = "un this again with -e etcd_restore_unfinished=resume to "
    finish = resume + "finish it."
    absent = _absent(left, lefts)
    if absent:
        finish = "un this again on %s as well, with -e etcd_restore_unfinished=resume to finish it." % " and ".join(absent)
    if left["state"] == "rejoining":
        advice = "Return the node with: ansible-playbook k8s_dr.etcd.rejoin -l " + host
    elif decided:
        advice = "All nodes keep its data, because %s committed it. R%s" % (", ".join(decided), finish)
    elif left["state"] == "committing":
        several = len(lefts) > 1 or len((left.get("hosts") or []) + (left.get("retired") or [])) > 1
        only = " only while the nodes have not decided to keep the data" if several else ", with all that was written since"
        advice = "The restored data was validated: r%s rollback.yml rolls it back%s." % (finish, only)
    else:
        if cannot and not absent:
            finish = resume + "roll it back and begin it anew, because %s." % cannot
        advice = "Roll it back with: ansible-playbook k8s_dr.etcd.rollback -l %s. Or r%s" % (",".join(lefts), finish)
    return "On %s the restore %s is unfinished: %s. Nothing was done. %s" % (host, left["id"], _state(left), advice)


def _absent(left, hosts):
    """The hosts of a restore that a run does not have."""
    return sorted({*(left.get("hosts") or []), *(left.get("retired") or [])} - set(hosts))


def _not_finished(host, left, lefts):
    """Why a run that is to finish a restore must not roll it back instead; "" where it may."""
    absent = _absent(left, lefts)
    if absent:
        why = "it is of %s as well, which this run does not have. Nothing was done. Run this again on all of them (drop the -l)" % " and ".join(absent)
        hint = ". If a host has another name in the inventory now, give it that one again for this run"
    elif any(other.get("state") in _VALIDATED for other in lefts.values()):
        why = "a node of it has begun to roll back, although its data was validated. Nothing was done. Each node asks what all have decided, and does it, with"
        hint = ": ansible-playbook k8s_dr.etcd.rollback -l %s" % ",".join(lefts)
    else:
        return ""
    return "On %s the restore %s cannot be finished: %s%s" % (host, left["id"], why, hint)


def _nothing_to_finish(host, node, hosts):
    """Whoever asks to finish a restore does not want another one, of the newest snapshot."""
    last = ([{}] + (node.get("transactions") or []))[-1]
    ended = " The last restore of %s, %s, has ended: %s." % (host, last["id"], _state(last)) if last else ""
    return (
        "No restore is unfinished on %s, so none can be finished.%s Nothing was done. Validate the cluster with: "
        "ansible-playbook k8s_dr.etcd.validate -l %s. To begin a new restore, run this again without etcd_restore_unfinished"
        % (", ".join(hosts), ended, ",".join(hosts))
    )


def _contradicted(about, conflicts, lefts):
    return (
        "The restore %s of %s was begun with other options than this run has: %s. Nothing was done. To finish it as it was begun, run this again without "
        "%s. To restore with these options instead, first roll it back with: ansible-playbook k8s_dr.etcd.rollback -l %s"
        % (
            next(left["id"] for left in lefts.values() if left),
            ", ".join(about.get("hosts") or []),
            "; ".join("%s was %s and is %s" % (one["option"], one["recorded"], one["given"]) for one in conflicts),
            " and ".join(one["option"] for one in conflicts),
            ",".join(lefts),
        )
    )


def _beside(host, left, hosts):
    """A retired member must not start while restored ones may serve; those of this run roll back before it."""
    return (
        "%s stays stopped: %s were restored without it and may serve the restored data, and this run does not reach all of them. Nothing was done. "
        "Run it on all of them (drop the -l)." % (host, ", ".join(left["hosts"]))
        if left["kind"] == "retire" and set(left.get("hosts") or []) - set(hosts)
        else ""
    )


def unfinished_restore(hosts, host, options=None):
    """See RETURN."""
    options = options or {}
    try:
        nodes = {str(name): node or {} for name, node in hosts}
        # what a rejoin has to finish is no decision of the other nodes
        unfinished = {one["id"] for node in nodes.values() for one in node.get("unfinished") or [] if one["state"] != "rejoining"}
    except (TypeError, ValueError) as exc:
        raise AnsibleFilterError("unfinished_restore needs a list of hosts with what is known of each, not %r" % (hosts,)) from exc
    lefts = {name: _left(node, unfinished) for name, node in nodes.items()}
    known = [(name, lefts[name], node) for name, node in nodes.items()]
    left, mode, check = lefts[host], options.get("unfinished") or "refuse", options.get("check")
    possible = _possible(known)
    outrun = possible and _outrun(known)
    possible = possible and not outrun
    cannot = "" if possible else "etcd has written too much since it was staged" if outrun else "it cannot be finished on all nodes"
    # the same on all nodes but for what it was live before
    about = next((other["about"] for other in lefts.values() if other.get("about")), {})
    answer = {"left": left, "about": about, "resumed": mode == "resume" and possible, "take_back": False, "ends": False, "refusal": "", "message": ""}
    given = options.get("members") or []
    # whoever is to finish it wants its members, also where it has to begin anew
    as_recorded = "hosts" in about and (answer["resumed"] or (mode == "resume" and not given and set(about["hosts"]) <= set(nodes)))
    answer["members"] = about["hosts"] if as_recorded else given
    conflicts = _conflicts(known, about, options) if answer["resumed"] and about else []
    if conflicts:
        answer["refusal"] = _contradicted(about, conflicts, lefts)
    elif left and not answer["resumed"]:
        # the control plane that a rejoin has stopped belongs to no restore of this run
        if left["state"] == "rejoining" or (mode == "refuse" and not left.get("untouched")):
            answer["refusal"] = _refused(host, left, lefts, cannot)
        else:
            answer["refusal"] = (mode == "resume" and _not_finished(host, left, lefts)) or _beside(host, left, nodes)
    elif mode == "resume" and not any(lefts.values()):
        answer["refusal"] = _nothing_to_finish(host, nodes[host], lefts)
    if answer["refusal"] or not left:
        return answer
    if answer["resumed"]:
        answer["message"] = "RESUME of restore %s of %s on %s: %s. It continues from there." % (
            left["id"], (about.get("snapshot") or {}).get("path", ""), host, _state(left),
        )  # fmt: skip
        return answer
    answer["take_back"] = True
    answer["ends"] = bool(check and not left.get("untouched"))
    why = {"resume": ", and " + cannot, "refuse": ", and no run has continued it for 15 minutes"}.get(mode, "")
    after = "Check mode ends here: what a new restore would do is known after the rollback." if answer["ends"] else "Afterwards a new restore begins."
    answer["message"] = "ROLL BACK of restore %s on %s: %s%s. %s" % (left["id"], host, _state(left), why, after)
    return answer


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.unfinished_restore."""

    def filters(self):
        return {"unfinished_restore": unfinished_restore}
