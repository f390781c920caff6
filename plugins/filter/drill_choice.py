# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import random

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: drill_choice
short_description: Chooses one stored snapshot of each cluster for a drill
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Snapshots are of one cluster when they have the fingerprint of the same etcd CA. A file without a manifest is of none.
  - One that is damaged is chosen like any other, for a drill is to find that.
  - Used by the role P(k8s_dr.etcd.etcd_drill#role).
positional: _input, listed, pick, seed
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  listed:
    description: For each of them what M(k8s_dr.etcd.etcd_snapshot_list) returned there.
    type: list
    elements: dict
    required: true
  pick:
    description: V(newest), or V(random) for any but the newest when there are others.
    type: str
    choices: [newest, random]
    default: newest
  seed:
    description: The same number on every host, so that all make the same choice.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Say which snapshot would be drilled
  ansible.builtin.debug:
    msg: "{{ [inventory_hostname] | k8s_dr.etcd.drill_choice([kept], 'random', 7) }}"
"""

RETURN = r"""
_value:
  description: V(host), V(path) and V(file) of one snapshot of each cluster.
  type: list
  elements: dict
"""


def drill_choice(hosts, listed, pick="newest", seed=0):
    if pick not in ("newest", "random"):
        raise AnsibleFilterError("k8s_dr.etcd.drill_choice: `pick` is newest or random, not %r" % (pick,))
    clusters = {}
    for host, found in zip(hosts, listed):
        for snapshot in found.get("snapshots") or []:
            if snapshot.get("created"):
                cluster = str((snapshot.get("fingerprints") or {}).get("etcd_ca") or "")
                entry = (str(snapshot["created"]), str(host), str(snapshot["path"]), str(snapshot.get("file", "")))
                clusters.setdefault(cluster, []).append(entry)
    chosen = []
    for _cluster, entries in sorted(clusters.items()):
        entries.sort()
        newest = entries[-1]
        # a copy of the newest on another host is no older one
        older = [entry for entry in entries if entry[0] < newest[0]]
        found = random.Random(int(seed)).choice(older) if pick == "random" and older else newest  # noqa: S311
        chosen.append({"host": found[1], "path": found[2], "file": found[3]})
    return chosen


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.drill_choice."""

    def filters(self):
        return {"drill_choice": drill_choice}
