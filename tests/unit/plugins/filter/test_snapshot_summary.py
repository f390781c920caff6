# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.snapshot_summary import FilterModule, snapshot_summary

TAKEN = {"snapshot": {"path": "/b/etcd-a2.db", "revision": 7, "size": 1570000}, "seconds": {"save": 0.2, "verify": 0.4}}
GROUPS = {
    "all": ["a1", "a2", "b1", "c1", "c2", "x9"],
    "control_plane": ["a1", "a2", "b1", "c1", "c2"],
    "west": ["a1", "a2"],
    "west_and_more": ["a1", "a2", "x9"],
    "south": ["c1", "c2"],
}


def choice(**more):
    found = {"clusters": [{"hosts": ["a1", "a2"], "candidates": ["a2"]}, {"hosts": ["b1"], "candidates": ["b1"]}], "refused": {}}
    return dict(found, **more)


def summary(choice, taken, problems, groups):
    return snapshot_summary({"choice": choice, "taken": taken, "problems": problems, "groups": groups})


def test_each_cluster_has_a_line_and_those_that_failed_come_last():
    found = summary(choice(), {"a2": TAKEN, "b1": {}, "a1": {}}, {"b1": "b1: its disk is full {{ x }}."}, GROUPS)
    assert (found["ok"], found["failed"]) == (1, 1)
    rows = {row["name"]: row for row in found["clusters"]}
    assert rows["west"] == {
        "name": "west", "hosts": ["a1", "a2"], "ok": True, "problem": "", "host": "a2", "path": "/b/etcd-a2.db", "revision": 7, "size": 1570000, "seconds": 0.6,
    }
    assert not rows["b1"]["ok"] and rows["b1"]["path"] is None and "{{" not in rows["b1"]["problem"]
    assert found["lines"][0] == "west  ok      a2:/b/etcd-a2.db, revision 7, 1.57 MB, 0.6 s"
    assert found["lines"][1].startswith("b1    FAILED  b1: its disk is full") and found["lines"][-1] == "1 of 2 clusters are backed up, 1 are not"


def test_a_snapshot_that_is_missing_in_one_place_is_reported_and_fails():
    found = summary(choice(), {"a2": TAKEN, "b1": TAKEN}, {"a2": "It is not off-site."}, GROUPS)
    row = next(row for row in found["clusters"] if row["name"] == "west")
    assert not row["ok"] and row["path"] and "FAILED  a2:/b/etcd-a2.db" in found["lines"][1] and found["lines"][1].endswith("It is not off-site.")


def test_a_cluster_without_a_snapshot_fails_also_when_no_host_says_why():
    found = summary(choice(), {"a2": TAKEN}, {}, GROUPS)
    assert {row["name"]: row["problem"] for row in found["clusters"]} == {"west": "", "b1": "No snapshot was taken."} and found["failed"] == 1


def test_hosts_of_no_cluster_are_reported_by_group():
    silent = dict.fromkeys(("c1", "c2"), "they are silent")
    found = summary(choice(refused=silent), {"a2": TAKEN, "b1": TAKEN}, silent, GROUPS)
    assert [row["name"] for row in found["clusters"]] == ["west", "b1", "south"] and found["failed"] == 1
    nobody = dict.fromkeys(("a1", "a2", "b1", "c1", "c2"), "nobody answers")
    found = summary({"clusters": [], "refused": nobody}, {}, nobody, GROUPS)
    assert sorted(row["name"] for row in found["clusters"]) == ["b1", "south", "west"] and found["ok"] == 0
    assert summary({"clusters": [], "refused": {}}, {}, {}, {})["clusters"] == []
    assert list(FilterModule().filters()) == ["snapshot_summary"]
