# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.drill_choice import FilterModule as Choice
from ansible_collections.k8s_dr.etcd.plugins.filter.drill_report import FilterModule as Report

drill_choice = Choice().filters()["drill_choice"]
drill_report = Report().filters()["drill_report"]


def snapshot(number, cluster="a", **more):
    return dict(more, path="/b/%d.db" % number, file="%d.db" % number, created="2026-01-%02dT00:00:00Z" % number, fingerprints={"etcd_ca": cluster})


def test_the_newest_of_each_cluster_wherever_it_is():
    listed = [{"snapshots": [snapshot(1), snapshot(3), {"path": "/b/found.db"}]}, {"snapshots": [snapshot(2)]}, {"skipped": True}]
    assert drill_choice(["cp1", "cp2", "cp3"], listed) == [{"host": "cp1", "path": "/b/3.db", "file": "3.db"}]
    listed[2] = {"snapshots": [snapshot(2, "b")]}
    found = drill_choice(["cp1", "cp2", "cp3"], listed)
    assert found == [{"host": "cp1", "path": "/b/3.db", "file": "3.db"}, {"host": "cp3", "path": "/b/2.db", "file": "2.db"}]
    # damage is what a drill is to find
    listed[1]["snapshots"].append(snapshot(9, verified=False, problem="it has 1 byte"))
    assert drill_choice(["cp1", "cp2", "cp3"], listed)[0] == {"host": "cp2", "path": "/b/9.db", "file": "9.db"}
    assert drill_choice([], []) == []


def test_a_random_one_is_older_and_the_same_for_all_who_ask():
    listed = [{"snapshots": [snapshot(number) for number in range(1, 9)]}, {"snapshots": [snapshot(8)]}]
    found = [drill_choice(["cp1", "cp2"], listed, "random", seed) for seed in range(200)]
    assert found == [drill_choice(["cp1", "cp2"], listed, "random", seed) for seed in range(200)]
    assert {one[0]["path"] for one in found} == {"/b/%d.db" % number for number in range(1, 8)}
    assert drill_choice(["cp1"], [{"snapshots": [snapshot(1)]}], "random", 1) == [{"host": "cp1", "path": "/b/1.db", "file": "1.db"}]
    with pytest.raises(AnsibleFilterError):
        drill_choice(["cp1"], listed, "oldest")


def test_a_report():
    levels = {
        "restore": {"tool": "etcdutl 3.5.16", "seconds": 0.4},
        "drill": {"etcd_version": "3.5.16", "seconds": 0.9, "revision": 7, "keys": 6, "objects": 5, "resources": 4, "secrets": 3},
    }
    good = {"item": "/b/1.db", "snapshot": {"path": "/b/1.db", "level": "drill", "levels": levels, "notes": ["by the way"], "seconds": 1.5}}
    lower = {"item": "/b/2.db", "snapshot": {"path": "/b/2.db", "level": "status", "levels": {}, "seconds": 0.2}}
    gone = {"item": "/b/3.db", "snapshot": {"path": "/b/3.db", "level": None, "levels": {}, "gone": True}}
    found = drill_report([good, lower, gone], "cp1")
    assert found["problem"] == ""
    assert [one["ok"] for one in found["snapshots"]] == [True] * 3
    served = "restored by etcdutl 3.5.16 in 0.4 s, served by etcd 3.5.16 and checked in 0.9 s: revision 7, 6 keys, 5 objects of 4 kinds, 3 Secrets."
    assert found["lines"] == [
        "/b/1.db: %s (by the way.)" % served,
        "/b/2.db: status in 0.2 s.",
        "/b/3.db was removed meanwhile.",
    ]
    levels["objects"] = {"objects": 5, "resources": 4, "kubernetes_version": "1.37.2", "seconds": 3.1, "unserved": {}}
    shown = "; 5 objects of 4 resources shown by kube-apiserver 1.37.2 in 3.1 s"
    assert drill_report([good], "cp1")["lines"] == ["/b/1.db: %s%s. (by the way.)" % (served[:-1], shown)]
    levels["objects"]["unserved"] = {"gadgets": 2}
    assert "%s, which has no API for 2 gadgets." % shown in drill_report([good], "cp1")["lines"][0]
    damaged = {"item": "/b/4.db", "snapshot": {"path": "/b/4.db", "level": None, "failed": "checksum", "problem": "/b/4.db has {{ 3 }} bytes", "levels": {}}}
    crashed = {"item": "/b/5.db", "msg": "Task failed: Module failed: no space"}
    found = drill_report([good, damaged, crashed], "cp1")
    assert found["problem"] == "2 of 3 snapshots on cp1 were not verified. /b/4.db has { { 3 }} bytes. Module failed: no space."
    assert [line.split()[0] for line in found["lines"]] == ["/b/1.db:", "DAMAGED", "NOT"]
    assert [one["failed"] for one in found["snapshots"]] == [None, "checksum", None]
    assert drill_report([], "cp1") == {"snapshots": [], "lines": [], "problem": ""}
