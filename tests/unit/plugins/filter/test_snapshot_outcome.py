# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.snapshot_outcome import FilterModule, snapshot_outcome

SNAPSHOT = {
    "path": "/b/etcd-cp2.db", "revision": 7, "total_keys": 486, "size": 1490000, "sha256": "2c06958e4a7f" + "0" * 52, "etcd_version": "3.6.4",
}
TAKEN = {"snapshot": SNAPSHOT, "seconds": {"save": 0.2, "verify": 0.14}, "removed": ["a"]}
LINE = "/b/etcd-cp2.db: revision 7, 486 keys, 1.42 MB, sha256 2c06958e4a7f, taken and verified in 0.3 s, 1 older removed."
CLUSTER = {
    "hosts": ["cp1", "cp2"],
    "candidates": ["cp2", "cp1"],
    "labels": {"cp1": "cp1", "cp2": "cp2 (etcd member two)"},
    "why": "it is caught up",
    "warnings": [],
}
CHOICE = {"clusters": [CLUSTER], "refused": {"cp9": "cp9 was left out {{ x }}."}}
WHY = "cp2 (etcd member two) takes the snapshot: it is caught up."
# as where nothing is configured besides the node
NOTHING = {
    "directory": "/b", "predicted": False, "check_mode": False, "off_site": [], "at": [], "fetch": "", "is_fetched": False,
    "fetch_problem": "", "metrics": {},
}


def outcome(host="cp2", taken=None, tried=None, choice=CHOICE, off_site="", uploaded=None, pruned=None, **more):
    """off_site: one place, with what was done there; or all of them with `at`."""
    if isinstance(off_site, str) and off_site:
        more = dict(more, off_site=[off_site], at=[{"remote": off_site, "problem": "", "uploaded": uploaded or {}, "pruned": pruned or {}}])
    elif off_site:
        more = dict(more, off_site=off_site)
    return snapshot_outcome(dict(NOTHING, host=host, choice=choice, taken={"cp2": TAKEN} if taken is None else taken, tried=tried or {}, **more))


def test_a_snapshot_on_the_node():
    found = outcome()
    del found["artifacts"]
    assert found == {"problem": "", "lines": [WHY, LINE], "warnings": [], "ok": True, "is_off_site": False, "refused": False, "seconds": pytest.approx(0.34)}
    assert outcome("cp1")["lines"] == [] and outcome("cp1")["ok"]
    assert FilterModule().filters() == {"snapshot_outcome": snapshot_outcome}


def test_what_a_job_hands_on():
    found = outcome()["artifacts"]
    assert found["etcd_snapshots"] == [found["etcd_snapshot"]] and found["etcd_snapshot_warnings"] == []
    one = found["etcd_snapshot"]
    assert (one["host"], one["path"], one["revision"], one["off_site"]) == ("cp2", "/b/etcd-cp2.db", 7, "")
    assert outcome(off_site="s3:dr", uploaded={"uploaded": []})["artifacts"]["etcd_snapshot"]["off_site"] == "s3:dr"
    # lost on the way
    assert outcome(off_site="s3:dr", uploaded={})["artifacts"]["etcd_snapshot"]["off_site"] == ""
    assert outcome("cp1")["artifacts"] == {}


def test_an_encrypted_snapshot_without_a_count_of_keys():
    line = outcome(taken={"cp2": dict(TAKEN, snapshot=dict(SNAPSHOT, packing={}, total_keys=None))})["lines"][1]
    assert ", ? keys," in line and "taken, verified and packed in 0.3 s" in line


def test_a_host_that_is_refused():
    found = outcome("cp9")
    assert found["problem"] == "cp9 was left out { { x }}." and found["refused"] and not found["ok"] and found["lines"] == []


def test_when_a_candidate_fails_the_next_one_takes_the_snapshot():
    found = outcome("cp1", {"cp1": TAKEN, "cp2": {}}, {"cp2": "its disk is full.", "cp1": ""})
    warning = "No snapshot was taken on cp2 (etcd member two): its disk is full."
    assert found["ok"] and found["warnings"] == [warning] and found["lines"] == [LINE, "WARNING: " + warning]


def test_no_candidate_takes_it():
    found = outcome("cp1", {}, {"cp2": "its disk is full", "cp1": "so is this one."})
    assert found["problem"] == "No snapshot was taken. cp2 (etcd member two): its disk is full. cp1: so is this one."
    assert found["refused"] and found["lines"] == []
    # the choice says it of each host where there is no candidate
    assert outcome("cp1", {}, choice={"clusters": [dict(CLUSTER, candidates=[])], "refused": {}})["ok"]
    assert outcome("cp7")["ok"]


def test_warnings_are_shown_where_the_snapshot_was_taken():
    choice = dict(CHOICE, clusters=[dict(CLUSTER, warnings=["cp3 was left out."])])
    assert outcome(choice=choice)["lines"] == [WHY, LINE, "WARNING: cp3 was left out."]
    assert outcome("cp1", choice=choice)["lines"] == []


SHIPPED = {"uploaded": [{"seconds": 1.5}]}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"off_site": "far:x", "uploaded": SHIPPED}, "It is off-site at far:x, and was verified there."),
        (
            {"off_site": "far:x", "uploaded": {"uploaded": [{"seconds": 1}] * 3}, "pruned": {"removed": ["a", "b"]}},
            "It is off-site at far:x, and was verified there, as 2 of earlier runs; 2 older were removed there.",
        ),
        ({"fetch": "/here", "is_fetched": True}, "It is in /here on the controller."),
        (
            {"off_site": "far:x", "uploaded": SHIPPED, "fetch": "/here", "is_fetched": True},
            "It is off-site at far:x, and was verified there. It is in /here on the controller.",
        ),
    ],
)
def test_each_place_is_reported(more, line):
    found = outcome(**more)
    assert found["ok"] and found["lines"] == [WHY, LINE, line]


def test_the_time_of_the_upload_counts():
    assert outcome(off_site="far:x", uploaded=SHIPPED)["seconds"] == pytest.approx(1.84)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"metrics": {"msg": "no such directory."}}, "no such directory."),
        ({"off_site": "far:x", "uploaded": {"msg": "wrong credentials {{ x }}"}}, "wrong credentials { { x }}."),
        ({"off_site": "far:x"}, "the snapshot is not at far:x, since the connection to this host was lost; the snapshot is complete on it."),
        ({"off_site": "far:x", "uploaded": {"uploaded": [], "msg": "lost"}}, "lost."),
        (
            {"off_site": "far:x", "uploaded": SHIPPED, "pruned": {"msg": "denied"}},
            "the snapshot is off-site, and those that are surplus there could not be removed: denied.",
        ),
        (
            {"fetch": "/here"},
            "the snapshot could not be fetched to /here on the controller: the host was lost; it is complete on the host that took it.",
        ),
        (
            {"fetch": "/here", "fetch_problem": "no room", "off_site": "far:x", "uploaded": {"msg": "denied."}},
            "denied. the snapshot could not be fetched to /here on the controller: no room; it is complete on the host that took it.",
        ),
    ],
)
def test_a_copy_that_is_missing_fails_the_host_that_took_the_snapshot(more, problem):
    found = outcome(**more)
    assert found["problem"] == problem and not found["ok"] and not found["refused"]
    if "metrics" not in more and "pruned" not in more:
        assert outcome("cp1", **more)["ok"]


BOTH = ["far:x", "near:y"]


def at(remote, uploaded=None, pruned=None, problem=""):
    return {"remote": remote, "problem": problem, "uploaded": uploaded or {}, "pruned": pruned or {}}


def test_several_places():
    found = outcome(off_site=BOTH, at=[at("far:x", SHIPPED), at("near:y", {"uploaded": [{"seconds": 2}] * 2}, {"removed": ["a"]})])
    assert found["ok"] and found["is_off_site"] and found["seconds"] == pytest.approx(5.84)
    assert found["lines"][2] == (
        "It is off-site at far:x, and was verified there. It is off-site at near:y, and was verified there, as 1 of earlier runs; 1 older were removed there."
    )
    handed = found["artifacts"]["etcd_snapshot"]
    assert (handed["off_site"], handed["off_site_places"]) == ("far:x", BOTH)


@pytest.mark.parametrize(
    ("away", "problem"),
    [
        (at("far:x", {"msg": "far:x cannot be listed: it cannot be reached."}), "far:x cannot be listed: it cannot be reached."),
        (
            at("far:x", problem="the off-site place far:x is listed twice"),
            "the off-site place far:x is listed twice. Nothing is lost: /b/etcd-cp2.db is complete on this host, and the next run uploads it.",
        ),
        (
            at("far:x", problem="is /r.conf a file on the controller?"),
            "is /r.conf a file on the controller? Nothing is lost: /b/etcd-cp2.db is complete on this host, and the next run uploads it.",
        ),
        (None, "the snapshot is not at far:x, since the connection to this host was lost; the snapshot is complete on it."),
    ],
)
def test_a_place_that_is_away_fails_the_host_and_not_the_other_place(away, problem):
    found = outcome(off_site=BOTH, at=[one for one in (away, at("near:y", SHIPPED)) if one])
    assert found["problem"] == problem and not found["ok"] and not found["is_off_site"]
    assert found["lines"][2] == "It is off-site at near:y, and was verified there."
    handed = found["artifacts"]["etcd_snapshot"]
    assert (handed["off_site"], handed["off_site_places"]) == ("near:y", ["near:y"])


def test_check_mode():
    found = outcome(check_mode=True, off_site="far:x", fetch="/here")
    assert found["ok"] and found["lines"] == [
        WHY, "A snapshot of etcd 3.6.4 would be taken into /b, and 1 older removed.", "It would be sent to far:x.",
    ]
    assert outcome(check_mode=True, off_site=BOTH)["lines"][-1] == "It would be sent to far:x and to near:y."
    found = outcome("cp7", check_mode=True, predicted=True)
    assert found["ok"] and found["lines"][0].startswith("This host has no etcd tools yet.") and "into /b if" in found["lines"][0]
