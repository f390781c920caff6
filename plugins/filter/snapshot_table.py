# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import calendar
import time

from ansible_collections.k8s_dr.etcd.plugins.filter.snapshot_summary import size_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.member_selection import text_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.retention import hold_words

DOCUMENTATION = r"""
name: snapshot_table
short_description: Formats a table of the snapshots on hosts and in off-site storage
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Sorts what M(k8s_dr.etcd.etcd_snapshot_list) found in several places, the newest first, and says of each how old it is, whether it is verified,
    its verification level, and whether it is held.
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
positional: _input, now
options:
  _input:
    description: By place, a host or a place off-site, the snapshots that were found there.
    type: dict
    required: true
  now:
    description: The time in seconds since the epoch, for the ages. That of the controller when not given.
    type: float
"""

EXAMPLES = r"""
- name: Show what cp1 has
  ansible.builtin.debug:
    msg: "{{ ({'cp1': found.snapshots} | k8s_dr.etcd.snapshot_table).lines }}"
"""

RETURN = r"""
_value:
  description: >-
    V(snapshots), with V(where), V(file), V(path), V(created), V(age) in seconds, V(host), V(revision), V(size) in bytes, V(level), V(packing), V(verified)
    and V(problem) of each, V(null) where it is not known, and V(held), why it is held or an empty text; V(lines), the same as a table.
  type: dict
"""

COLUMNS = ("age", "revision", "size", "level", "packing", "where", "snapshot")


def age_of(seconds):
    """Two digits of it, as far as there are two."""
    if seconds is None:
        return "?"
    if seconds < 0:
        return "in %s" % age_of(-seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return "%d %s" % (seconds // length, unit)
    return "%d s" % seconds


def packing_of(snapshot):
    """What a file is packed with, or an empty text."""
    packing = snapshot.get("packing") if isinstance(snapshot.get("packing"), dict) else {}
    return "+".join(str(packing[part]) for part in ("compression", "encryption") if packing.get(part) not in (None, "none"))


def snapshot_table(found, now=None):
    """See RETURN."""
    now = time.time() if now is None else now
    rows = []
    for where, snapshots in found.items():
        for snapshot in snapshots:
            created = snapshot.get("created")
            row = {name: snapshot.get(name) for name in ("file", "path", "created", "host", "revision", "size", "level", "problem")}
            row["age"] = int(now - calendar.timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ"))) if created else None
            row.update(where=where, verified=snapshot.get("verified") is True, packing=packing_of(snapshot))
            rows.append(dict(row, held=text_of(hold_words(snapshot))))
    rows.sort(key=lambda row: (row["created"] or "", row["file"] or ""), reverse=True)
    cells = [COLUMNS]
    for row in rows:
        size = size_of(row["size"]) if row["size"] is not None else "?"
        proven = (row["level"] or "yes") if row["verified"] else "NO"
        revision = "?" if row["revision"] is None else str(row["revision"])
        cells.append((age_of(row["age"]), revision, size, proven, row["packing"] or "-", row["where"], row["file"] + (" (held)" if row["held"] else "")))
    widths = [max(len(line[number]) for line in cells) for number in range(len(COLUMNS))]
    lines = ["  ".join("%-*s" % pair for pair in zip(widths, line)).rstrip() for line in cells]
    lines += ["%s: %s" % (row["where"], row["problem"]) for row in rows if row["problem"]]
    lines += ["%s: %s is %s" % (row["where"], row["file"], row["held"]) for row in rows if row["held"]]
    good = [row for row in rows if row["verified"]]
    lines.append("%d snapshots, %d of them verified%s" % (len(rows), len(good), ", the newest %s old" % age_of(good[0]["age"]) if good else ""))
    return {"snapshots": rows, "lines": lines}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.snapshot_table."""

    def filters(self):
        return {"snapshot_table": snapshot_table}
