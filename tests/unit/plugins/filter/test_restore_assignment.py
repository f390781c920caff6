# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts of a restore get the snapshot."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.restore_assignment import FilterModule, restore_assignment

LOOKS = [["cp1", {"etcd": {"name": "one"}, "retired": []}], ["cp2", {"etcd": {"name": "two"}, "retired": []}], ["cp3", {"etcd": None}]]


def test_all_hosts_get_the_snapshot_where_none_is_named():
    every = ["cp1", "cp2", "cp3"]
    assert restore_assignment(LOOKS, []) == {"hosts": every, "retired": [], "voters": every, "first": "cp1"}
    assert list(FilterModule().filters()) == ["restore_assignment"]


def test_a_host_is_named_by_itself_or_by_its_member():
    expected = {"hosts": ["cp2"], "retired": ["cp1", "cp3"], "voters": ["cp2", "cp1", "cp3"], "first": "cp2"}
    assert restore_assignment(LOOKS, ["cp2"]) == expected
    assert restore_assignment(LOOKS, ["two"]) == expected
    # in the order of the play, whatever the order of the names
    assert restore_assignment(LOOKS, ["cp3", "one"])["hosts"] == ["cp1", "cp3"]


def test_a_node_that_an_earlier_restore_retired_does_not_take_part():
    looks = [LOOKS[0], ["cp2", {"etcd": {"name": "two"}, "retired": ["20261130T000000Z-0000"]}]]
    assert restore_assignment(looks, ["cp1"])["voters"] == ["cp1"]
    # when it gets the snapshot, it does
    assert restore_assignment(looks, [])["voters"] == ["cp1", "cp2"]


def test_no_host_gets_the_snapshot_when_none_has_the_name():
    assert restore_assignment(LOOKS, ["cp9"]) == {"hosts": [], "retired": ["cp1", "cp2", "cp3"], "voters": ["cp1", "cp2", "cp3"], "first": "cp1"}
