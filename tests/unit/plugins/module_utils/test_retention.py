# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils import _retention
from hypothesis import given
from hypothesis import strategies as st

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
    return [one for one in snapshots if one["verified"] and _retention.lineage(one) == _retention.lineage(newest)]


@given(listings(), st.integers(0, 6), st.booleans())
def test_only_surplus_verified_ones_of_the_lineage_go(listing, keep, listed):
    snapshots, newest = listing
    gone = _retention.to_remove(snapshots + ([newest] if listed else []), keep, newest)
    by_path = {one["path"]: one for one in snapshots}
    assert newest["path"] not in gone
    assert len(gone) == len(set(gone))
    for path in gone:
        assert by_path[path]["verified"] is True
        assert _retention.lineage(by_path[path]) == _retention.lineage(newest)
    candidates = own(snapshots, newest)
    assert len(gone) == (max(0, len(candidates) + 1 - keep) if keep else 0)
    left = [one for one in candidates if one["path"] not in gone]
    # whatever goes is no younger than whatever stays
    assert all(by_path[path]["created"] <= one["created"] for path in gone for one in left)


@given(listings(), st.integers(1, 6))
def test_it_has_nothing_to_do_a_second_time(listing, keep):
    snapshots, newest = listing
    gone = _retention.to_remove(snapshots, keep, newest)
    assert _retention.to_remove([one for one in snapshots if one["path"] not in gone], keep, newest) == []


@given(listings(), st.integers(-1, 6))
def test_nothing_goes_for_one_that_is_not_proven(listing, keep):
    snapshots, newest = listing
    assert _retention.to_remove(snapshots, keep, dict(newest, verified=False)) == []


def test_a_clock_that_went_back_does_not_cost_the_new_one():
    old = [
        {"path": "/b/%d.db" % year, "verified": True, "created": "%d-01-01T00:00:00Z" % year, "host": "cp1", "fingerprints": {"etcd_ca": "aa"}}
        for year in (2030, 2031)
    ]
    new = {"path": "/b/1970.db", "verified": True, "created": "1970-01-01T00:00:00Z", "host": "cp1", "fingerprints": {"etcd_ca": "aa"}}
    assert _retention.to_remove(old + [new], 2, new) == ["/b/2030.db"]
    assert _retention.to_remove(old + [new], 1, new) == ["/b/2031.db", "/b/2030.db"]
