# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.member_selection import mapping, text_of

DOCUMENTATION = r"""
name: snapshot_summary
short_description: Summarizes the result of a snapshot run for each cluster
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - A cluster is called as the inventory group that holds its hosts and no others of the play, or by its hosts where there is no such group.
  - Hosts that belong to no cluster that answers are reported by group as well.
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
positional: _input
options:
  _input:
    description: What is known of all hosts and of the inventory's groups, as P(k8s_dr.etcd.snapshot_known#filter) puts it together.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say which clusters have one
  ansible.builtin.debug:
    msg: "{{ (ansible_play_hosts_all | k8s_dr.etcd.snapshot_known(hostvars) | k8s_dr.etcd.snapshot_summary).lines }}"
"""

RETURN = r"""
_value:
  description: >-
    V(clusters), with V(name), V(hosts), V(ok), V(problem), and of the one that took it V(host), V(path), V(revision), V(size) and V(seconds);
    V(lines), one of text for each, those that failed last, and a sum;
    V(ok) and V(failed), how many there are of each.
  type: dict
"""

# What every host is in says nothing of its cluster.
COMMON = ("all", "ungrouped", "control_plane")


def size_of(number):
    return "%.2f GB" % (number / 1e9) if number >= 1e9 else "%.2f MB" % (number / 1e6)


def name_of(hosts, play, groups):
    """The group of exactly these hosts, as far as they are in the play."""
    fitting = [name for name, found in groups.items() if name not in COMMON and set(found) & play == set(hosts)]
    return min(fitting, key=lambda name: (len(groups[name]), name)) if fitting else ", ".join(hosts)


def apart(hosts, play, groups):
    """Hosts that no cluster is known of, by the smallest group that holds none but such."""
    left, found = list(hosts), []
    while left:
        own = [one for name, one in groups.items() if name not in COMMON and left[0] in one and set(one) & play <= set(hosts)]
        together = [host for host in left if host in max(own, key=len)] if own else left[:1]
        found.append(together)
        left = [host for host in left if host not in together]
    return found


def snapshot_summary(known_of_all):
    """See RETURN."""
    choice, taken, groups = (known_of_all[name] for name in ("choice", "taken", "groups"))
    problems = {host: text_of(problem) for host, problem in known_of_all["problems"].items()}
    known = [list(cluster["hosts"]) for cluster in choice["clusters"]]
    play = {host for hosts in known for host in hosts} | set(choice["refused"])
    stray = [host for host in choice["refused"] if not any(host in hosts for hosts in known)]
    rows = []
    for hosts in known + apart(stray, play, groups):
        taker = next((host for host in hosts if mapping(mapping(taken.get(host)).get("snapshot"))), None)
        snapshot = taken[taker]["snapshot"] if taker else {}
        problem = next((problems[host] for host in hosts if problems.get(host)), "")
        if not taker and not problem:
            problem = "No snapshot was taken."
        row = {"name": name_of(hosts, play, groups), "hosts": hosts, "ok": not problem, "problem": problem, "host": taker}
        row.update({name: snapshot.get(name) for name in ("path", "revision", "size")})
        row["seconds"] = round(sum(mapping(taken[taker].get("seconds")).values()), 2) if taker else None
        rows.append(row)
    width = max((len(row["name"]) for row in rows), default=0)
    lines = []
    for row in sorted(rows, key=lambda one: not one["ok"]):
        words = "%-*s  %s" % (width, row["name"], "ok    " if row["ok"] else "FAILED")
        if row["host"]:
            words += "  %s:%s, revision %s, %s, %.1f s" % (row["host"], row["path"], row["revision"], size_of(row["size"] or 0), row["seconds"])
        lines.append(words + ("  " + row["problem"] if row["problem"] else ""))
    ok = len([row for row in rows if row["ok"]])
    lines.append("%d of %d clusters are backed up, %d are not" % (ok, len(rows), len(rows) - ok))
    return {"clusters": rows, "lines": lines, "ok": ok, "failed": len(rows) - ok}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.snapshot_summary."""

    def filters(self):
        return {"snapshot_summary": snapshot_summary}
