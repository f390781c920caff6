# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: restore_resume
short_description: Decides whether an unfinished restore of etcd can be finished, and which options contradict it
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Every host must still hold the same restore, with its data staged, and none may have begun to roll back. All hosts that get the snapshot must be in
    the run. A host that an earlier restore retired takes no part.
  - What a resume restores is what was recorded when the restore began. Options of the resume that name something else are conflicts.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, options
options:
  _input:
    description: >-
      For each host its name in the inventory, its unfinished restore or an empty dictionary, and its control plane, both as
      M(k8s_dr.etcd.etcd_restore_info) returns them.
    type: list
    elements: list
    required: true
  options:
    description: >-
      Options of the run without their prefix V(etcd_restore_): V(members), V(lost_members), V(snapshot), V(off_site) and V(bump_revision).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Say whether it can be finished
  ansible.builtin.debug:
    msg: "{{ ([['cp1', found.restore.unfinished | last, found.restore]] | k8s_dr.etcd.restore_resume).possible }}"
"""

RETURN = r"""
_value:
  description: >-
    V(possible), whether it can be finished; V(about), the record of the restore, empty without one; V(conflicts), each with V(option), V(recorded) and
    V(given), which are empty where the restore cannot be finished, since a new one takes the options as they are.
  type: dict
"""

# From where a restore can be finished: its data is staged, and nobody began to go back.
RESUMABLE = (
    "staged", "stopping", "stopped", "swapping", "swapped", "starting-etcd", "etcd-started", "starting", "started", "committing", "committed",
)  # fmt: skip


def _possible(hosts):
    found = [left for dummy, left, dummy2 in hosts if left]
    if not found:
        return False
    if any(not left and not node.get("retired") for dummy, left, node in hosts):
        return False
    # what salvage.yml or rejoin.yml left is of no host that gets a snapshot
    restored = found[0].get("hosts") or []
    # a node that is to be retired has nothing to stage
    states = {"staged" if left.get("kind") == "retire" and left["state"] == "begun" else left["state"] for left in found}
    return (
        bool(restored)
        and set(restored) <= {host for host, dummy, dummy2 in hosts}
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


def restore_resume(hosts, options=None):
    """See RETURN."""
    try:
        hosts = [(str(name), left or {}, node or {}) for name, left, node in hosts]
    except (TypeError, ValueError) as exc:
        raise AnsibleFilterError("restore_resume needs a list of hosts with what is known of each, not %r" % (hosts,)) from exc
    possible = _possible(hosts)
    # the same on all nodes but for what it was live before
    about = next((left["about"] for dummy, left, dummy2 in hosts if left.get("about")), {})
    return {"possible": possible, "about": about, "conflicts": _conflicts(hosts, about, options or {}) if possible and about else []}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_resume."""

    def filters(self):
        return {"restore_resume": restore_resume}
