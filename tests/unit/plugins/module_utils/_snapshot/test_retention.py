# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import re
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import retention
from hypothesis import given, strategies as st

HOSTS = ("cp1", "cp2")
CAS = ("aa", "bb", None)


@st.composite
def listings(draw):
    """(what list_snapshots may return, the newest of them)"""
    count = draw(st.integers(1, 12))
    snapshots = []
    for number in range(count):
        snapshot = {
            "path": "/b/%02d.db" % number,
            "verified": draw(st.booleans()),
            "created": draw(st.sampled_from(["2026-01-01T00:00:%02dZ" % second for second in range(6)])),
            "host": draw(st.sampled_from(HOSTS)),
            "fingerprints": {"etcd_ca": draw(st.sampled_from(CAS))},
        }
        if draw(st.integers(0, 5)) == 0:
            # a file without a manifest, as it is listed
            snapshot = {"path": snapshot["path"], "verified": False, "problem": "it has no manifest"}
        snapshots.append(snapshot)
    newest = {
        "path": "/b/new.db",
        "verified": True,
        "created": draw(st.sampled_from(["2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z"])),
        "host": "cp1",
        "fingerprints": {"etcd_ca": "aa"},
    }
    return snapshots, newest


def own(snapshots, newest):
    return [one for one in snapshots if one["verified"] and retention.lineage(one) == retention.lineage(newest)]


@given(listings(), st.integers(0, 6), st.booleans())
def test_only_surplus_verified_snapshots_of_the_lineage_are_removed(listing, keep, listed):
    snapshots, newest = listing
    gone = retention.to_remove(snapshots + ([newest] if listed else []), keep, newest)
    by_path = {one["path"]: one for one in snapshots}
    assert newest["path"] not in gone
    assert len(gone) == len(set(gone))
    for path in gone:
        assert by_path[path]["verified"] is True
        assert retention.lineage(by_path[path]) == retention.lineage(newest)
    candidates = own(snapshots, newest)
    assert len(gone) == (max(0, len(candidates) + 1 - keep) if keep else 0)
    left = [one for one in candidates if one["path"] not in gone]
    # whatever goes is no younger than whatever stays
    assert all(by_path[path]["created"] <= one["created"] for path in gone for one in left)


@given(listings(), st.integers(1, 6))
def test_retention_removes_nothing_a_second_time(listing, keep):
    snapshots, newest = listing
    gone = retention.to_remove(snapshots, keep, newest)
    assert retention.to_remove([one for one in snapshots if one["path"] not in gone], keep, newest) == []


@given(listings(), st.integers(0, 6))
def test_an_unverified_snapshot_removes_no_other(listing, keep):
    snapshots, newest = listing
    assert retention.to_remove(snapshots, keep, dict(newest, verified=False)) == []


def test_a_clock_that_was_set_back_does_not_remove_the_new_snapshot():
    old = [
        {"path": "/b/%d.db" % year, "verified": True, "created": "%d-01-01T00:00:00Z" % year, "host": "cp1", "fingerprints": {"etcd_ca": "aa"}}
        for year in (2030, 2031)
    ]
    new = {"path": "/b/1970.db", "verified": True, "created": "1970-01-01T00:00:00Z", "host": "cp1", "fingerprints": {"etcd_ca": "aa"}}
    assert retention.to_remove(old + [new], 2, new) == ["/b/2030.db"]
    assert retention.to_remove(old + [new], 1, new) == ["/b/2031.db", "/b/2030.db"]


NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
RULES = st.dictionaries(st.sampled_from(retention.RULES), st.integers(0, 5))


@st.composite
def years(draw):
    """Snapshots of one host over a year, some of them a minute apart, some of no use."""
    hours = draw(st.lists(st.integers(0, 24 * 400), max_size=40))
    return [
        {
            "path": "/b/%03d.db" % number,
            "verified": draw(st.integers(0, 4)) > 0,
            "created": (NOW - datetime.timedelta(hours=hour, minutes=draw(st.integers(0, 59)))).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "host": "cp1",
            "fingerprints": {"etcd_ca": "aa"},
        }
        for number, hour in enumerate(hours)
    ]


def verdicts(snapshots, keep):
    return {snapshot["path"]: reasons for snapshot, reasons in retention.judge(snapshots, keep, NOW.timestamp())}


@given(years(), RULES)
def test_rules_keep_the_newest_of_each_period_and_the_newest_of_all(snapshots, keep):
    found = verdicts(snapshots, keep)
    verified = {one["path"]: one for one in snapshots if one["verified"]}
    assert set(found) == set(verified)
    stays = {path for path, reasons in found.items() if reasons}
    if verified:
        assert retention.newest_first(verified.values())[0]["path"] in stays
    if not any(keep.values()):
        assert stays == set(verified)
        return
    for name, number in keep.items():
        kept = [verified[path] for path, reasons in found.items() if name in reasons]
        if name == "last":
            assert len(kept) == min(number, len(verified))
            continue
        # written independently: how people read a calendar
        part = {"hourly": 13, "daily": 10, "monthly": 7, "yearly": 4}

        def period(snapshot, name=name, part=part):
            if name == "weekly":
                return datetime.date(*map(int, snapshot["created"][:10].split("-"))).isocalendar()[:2]
            return snapshot["created"][: part[name]]

        newest = {}
        for snapshot in retention.newest_first(verified.values()):
            newest.setdefault(period(snapshot), snapshot["path"])
        assert [snapshot["path"] for snapshot in retention.newest_first(kept)] == list(newest.values())[:number]
    for path in set(verified) - stays:
        assert not found[path]


@given(years(), RULES)
def test_judging_again_what_stays_changes_nothing(snapshots, keep):
    stays = {path for path, reasons in verdicts(snapshots, keep).items() if reasons}
    left = [one for one in snapshots if one["path"] in stays or not one["verified"]]
    assert {path for path, reasons in verdicts(left, keep).items() if reasons} == stays


@given(years(), RULES)
def test_one_rule_more_never_costs_a_snapshot(snapshots, keep):
    if not any(keep.values()):
        return
    stays = {path for path, reasons in verdicts(snapshots, keep).items() if reasons}
    more = {name: number + 1 for name, number in keep.items()}
    assert stays <= {path for path, reasons in verdicts(snapshots, dict(more, daily=7)).items() if reasons}


@given(years(), RULES)
def test_the_snapshot_that_was_just_taken_stays_by_the_same_rules(snapshots, keep):
    newest = taken("2026-01-01T00:00:00Z")
    gone = set(retention.to_remove([*snapshots, newest], keep, newest))
    assert gone == {path for path, reasons in verdicts([*snapshots, newest], keep).items() if not reasons}


def taken(created, host="cp1", authority="aa", **more):
    known = {"verified": True, "created": created, "host": host, "fingerprints": {"etcd_ca": authority}}
    return dict(known, path="/b/%s-%s-%s.db" % (authority, host, created), **more)


def test_a_snapshot_dated_in_the_future_does_not_replace_the_newest():
    future, newest, older = taken("2027-01-01T00:00:00Z"), taken("2025-12-31T00:00:00Z"), taken("2025-12-30T00:00:00Z")
    found = verdicts([future, newest, older], 1)
    assert found[newest["path"]] == ["last"]
    assert found[older["path"]] == []


def test_off_site_all_hosts_of_a_cluster_are_one():
    snapshots = [taken("2025-12-0%dT00:00:00Z" % day, host) for day, host in enumerate(("cp1", "cp2", "cp1", "cp3"), 1)]
    snapshots.append(taken("2025-12-01T00:00:00Z", "cp1", "bb"))
    now = NOW.timestamp()
    each = [one["path"] for one, reasons in retention.judge(snapshots, 1, now) if reasons]
    together = [one["path"] for one, reasons in retention.judge(snapshots, 1, now, shared=True) if reasons]
    assert each == [snapshots[number]["path"] for number in (3, 2, 1, 4)]
    assert together == [snapshots[number]["path"] for number in (3, 4)]


def test_leftovers_of_a_removal_are_removed_and_lost_snapshots_stay_listed():
    now = NOW.timestamp()
    there = [taken("2025-12-31T00:00:00Z"), taken("2025-12-30T00:00:00Z")]
    surplus = taken("2025-12-01T00:00:00Z", verified=False)
    wanted = taken("2025-12-30T12:00:00Z", verified=False)
    last_of_another = taken("2025-12-01T00:00:00Z", authority="bb", verified=False)
    lost = [surplus, wanted, last_of_another]
    assert retention.left_over(lost, [*there, *lost], {"daily": 2}, now, shared=True) == [surplus]


@pytest.mark.parametrize("keep", [1, 3, 0, {"last": 2, "daily": 3}, {"weekly": 2, "monthly": 1}])
@pytest.mark.parametrize("shared", [False, True])
def test_each_leftover_is_judged_as_if_it_alone_were_there(keep, shared):
    """Among them ones of the same time as another, of a time to come, and of lineages in which nothing else is."""
    times = ["2025-12-%02dT%02d:00:00Z" % (day, hour) for day in (1, 8, 9, 30, 31) for hour in (3, 12)] + ["2026-06-01T00:00:00Z"]
    there = [taken(time, host) for time in times[::2] for host in ("cp1", "cp2")] + [taken("2026-07-01T00:00:00Z", "cp3")]
    lost = [taken(time, host, verified=False) for time in times[1::2] + times[:1] for host in ("cp1", "cp3", "cp4")]
    lost += [taken(times[3], authority="bb", verified=False), taken("2026-08-01T00:00:00Z", "cp3", verified=False)]
    lost = [one for one in lost if one["path"] not in {other["path"] for other in there}]
    expected = []
    for manifest in lost:
        own = retention.lineage(manifest, shared)
        verdicts = retention.judge([*there, dict(manifest, verified=True)], keep, NOW.timestamp(), shared)
        alone = all(retention.lineage(one, shared) != own for one in there)
        if not alone and (dict(manifest, verified=True), []) in verdicts:
            expected.append(manifest)
    assert retention.left_over(lost, [*there, *lost], keep, NOW.timestamp(), shared) == expected


def test_many_leftovers_take_no_longer_than_as_many_snapshots():
    hours = [(NOW - datetime.timedelta(hours=number)).strftime("%Y-%m-%dT%H:%M:%SZ") for number in range(2000)]
    there = [taken(one) for one in hours[::2]]
    lost = [taken(one, verified=False) for one in hours[1::2]]
    start = time.process_time()
    assert len(retention.left_over(lost, there, {"last": 5, "daily": 3}, NOW.timestamp())) > 900
    # it took seven seconds when all snapshots were judged again for each of them
    assert time.process_time() - start < 3


HOLD = {"reason": "before the upgrade", "by": "alice", "at": "2025-12-02T00:00:00Z"}


@given(years(), RULES, st.data())
def test_a_held_snapshot_stays_and_counts_for_no_rule(snapshots, keep, data):
    held = [dict(one, hold=HOLD) if data.draw(st.booleans()) else one for one in snapshots]
    found = verdicts(held, keep)
    assert all(found[one["path"]] == ["hold"] for one in held if "hold" in one and one["verified"])
    # all others are judged as if the held ones were not there
    others = [one for one in held if "hold" not in one]
    assert {path: reasons for path, reasons in found.items() if reasons != ["hold"]} == verdicts(others, keep)
    newest = taken("2026-01-01T00:00:00Z")
    gone = set(retention.to_remove([*held, newest], keep, newest))
    assert gone == set(retention.to_remove([*others, newest], keep, newest))
    assert not gone & {one["path"] for one in held if "hold" in one}


def test_a_released_snapshot_is_judged_again():
    snapshots = [taken("2025-12-0%dT00:00:00Z" % day) for day in (1, 2, 3)]
    held = [dict(snapshots[0], hold=HOLD), *snapshots[1:]]
    assert verdicts(held, 1) == {snapshots[0]["path"]: ["hold"], snapshots[1]["path"]: [], snapshots[2]["path"]: ["last"]}
    assert verdicts([dict(snapshots[0], hold=None), *snapshots[1:]], 1) == verdicts(snapshots, 1)
    # a damaged manifest keeps the snapshot
    assert verdicts([dict(snapshots[0], hold="yes"), *snapshots[1:]], 1)[snapshots[0]["path"]] == ["hold"]


def test_the_manifest_of_a_held_snapshot_that_is_lost_stays():
    lost = taken("2025-12-01T00:00:00Z", verified=False)
    there = [taken("2025-12-31T00:00:00Z")]
    assert retention.left_over([lost], there, 1, NOW.timestamp()) == [lost]
    assert retention.left_over([dict(lost, hold=HOLD)], there, 1, NOW.timestamp()) == []


def test_a_hold_in_words():
    assert retention.hold_words({"hold": HOLD}) == "held since 2025-12-02T00:00:00Z by alice: before the upgrade"
    assert retention.hold_words({"hold": dict(HOLD, reason="")}) == "held since 2025-12-02T00:00:00Z by alice"
    assert [retention.hold_words(one) for one in ({}, {"hold": None}, {"hold": True})] == ["", "", "held"]


def test_the_last_verified_snapshot_of_a_lineage():
    one, two = taken("2025-12-01T00:00:00Z"), taken("2025-12-02T00:00:00Z", "cp2")
    damaged = taken("2025-12-03T00:00:00Z", verified=False)
    other = taken("2025-12-01T00:00:00Z", authority="bb")
    assert retention.is_last(one, [one, two, damaged, other]) and not retention.is_last(one, [one, two, damaged, other], shared=True)
    assert retention.is_last(two, [two, damaged, other], shared=True)
    # what is not verified is the last of nothing
    assert not retention.is_last(damaged, [one, damaged])


@pytest.mark.parametrize(
    ("keep", "rules"),
    [
        (7, {"last": 7}),
        ("7", {"last": 7}),
        (0, {}),
        ({"daily": "14", "weekly": 0}, {"daily": 14}),
        ('{"hourly": 24}', {"hourly": 24}),
        ({}, {}),
    ],
)
def test_what_an_operator_may_write(keep, rules):
    assert retention.rules(keep) == rules


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (-1, "`keep` is -1"),
        ({"daily": -2}, "`keep.daily` is -2"),
        ({"dayly": 7}, "`keep` has the rule dayly; the rules are: last, hourly, daily, weekly, monthly, yearly"),
        ("seven", "`keep` should be a number"),
        (True, "`keep` should be a number"),
        (1.5, "`keep` should be a number"),
        ({"daily": [1]}, "`keep` should be a number"),
        ([7], "`keep` should be a number"),
        (None, "`keep` should be a number"),
        ("{daily: 7}", "`keep` should be a number"),
    ],
)
def test_an_invalid_rule_is_reported(keep, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        retention.rules(keep)
