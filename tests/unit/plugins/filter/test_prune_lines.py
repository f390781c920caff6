# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.prune_lines import FilterModule, prune_lines

PRUNED = {"removed": ["/b/1.db", "/b/2.db"], "kept": [{"path": "/b/3.db", "by": ["last"]}], "untouched": ["/b/x", "/b/y", "/b/z"], "freed": 2097152}
PRUNED["locked"] = []


def test_each_removed_snapshot_has_a_line_and_the_last_line_is_a_sum():
    assert prune_lines(PRUNED, "/b", False) == [
        "/b/1.db: removed",
        "/b/2.db: removed",
        "/b: 1 stay, 2 removed (2.00 MB), 3 are not verified or of another cluster, and were left alone",
    ]
    assert FilterModule().filters() == {"prune_lines": prune_lines}


def test_check_mode_removes_nothing():
    lines = prune_lines(PRUNED, "far:x", True)
    assert lines[0] == "/b/1.db: would be removed" and lines[-1].startswith("far:x: 1 stay, 2 would be removed (2.00 MB), ")


def test_held_snapshots_are_counted():
    kept = [*PRUNED["kept"], {"path": "/b/0.db", "by": ["hold"]}]
    assert prune_lines(dict(PRUNED, kept=kept), "/b", False)[-1].startswith("/b: 2 stay, 1 of them held, 2 removed (2.00 MB), ")


def test_what_is_locked_is_reported_with_its_end():
    until = ["2026-02-0%dT00:00:00Z" % day for day in (3, 1, 2)]
    for locked, words in (
        (until, "3 are locked, the first until 2026-02-01T00:00:00Z, the last until 2026-02-03T00:00:00Z"),
        (until[:1] * 2, "2 are locked until 2026-02-03T00:00:00Z"),
        (until[:1], "1 is locked until 2026-02-03T00:00:00Z"),
    ):
        found = prune_lines(dict(PRUNED, locked=[{"path": "x", "until": one} for one in locked]), "/b", False)[-1]
        assert found.startswith("/b: 1 stay, 2 removed (2.00 MB), %s and stay as long, 3 are not verified" % words)


def test_no_surplus_snapshot():
    assert prune_lines(dict(PRUNED, removed=[], freed=0), "/b", False)[0].startswith("/b: 1 stay, 0 removed (0.00 Bytes), ")
