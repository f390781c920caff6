# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import comparison as restore_comparison
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolResult
from hypothesis import given, strategies as st

# Few bytes, so that keys are often prefixes of each other and equal on both sides.
KEYS = st.lists(st.sampled_from([b"\0", b"/", b"a", b"b", b"\x7f", b"\xff"]), min_size=1, max_size=5).map(b"".join)
SIDES = st.dictionaries(KEYS, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)), max_size=30)


def in_order(side):
    return [(key,) + side[key] for key in sorted(side)]


@given(SIDES, SIDES)
def test_the_comparison_equals_that_of_sets(snapshot, live):
    found = list(restore_comparison.merge(in_order(snapshot), in_order(live)))
    assert [key for _state, key in found] == sorted(key for _state, key in found)
    by_state = {state: {key for other, key in found if other == state} for state in restore_comparison.STATES}
    assert by_state[restore_comparison.VANISH] == set(live) - set(snapshot)
    assert by_state[restore_comparison.REAPPEAR] == set(snapshot) - set(live)
    assert by_state[restore_comparison.CHANGE] == {key for key in set(snapshot) & set(live) if snapshot[key] != live[key]}
    assert len(found) == sum(len(keys) for keys in by_state.values())


class Server:
    """Answers as etcdctl does, from a dictionary; `page` keys at most, whatever was asked."""

    binary = "etcdctl"
    cwd = "/"

    def __init__(self, side):
        self.side = side
        self.asked = []

    def status(self):
        return {"revision": 7, "db_size_in_use": 1, "db_size": 1}

    def argv(self, *args, **_options):
        return list(args)

    def run_tool(self, argv, _timeout, **_options):
        start = argv[-1].encode("utf-8", "surrogateescape")
        assert b"\0" not in start
        limit = next((int(arg.partition("=")[2]) for arg in argv if arg.startswith("--limit=")), 0)
        assert argv[-2] == "--" and limit
        self.asked.append((start, limit))
        keys = sorted(key for key in self.side if key >= start)
        kvs = [
            {"key": base64.b64encode(key).decode(), "create_revision": self.side[key][0], "mod_revision": self.side[key][1], "version": self.side[key][2]}
            for key in keys[:limit]
        ]
        answer = {"kvs": kvs, "count": len(keys)}
        if len(keys) > limit:
            answer["more"] = True
        return ToolResult(argv, 0, json.dumps(answer), "")


@given(SIDES, st.integers(1, 4))
def test_pages_hold_every_key_once_whatever_is_in_it(side, page):
    server = Server(side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_comparison, "_PAGES", (page, page))
        patch.setattr(restore_comparison, "run_tool", server.run_tool)
        keys = restore_comparison.Keys(server, time.monotonic() + 60)
        assert list(keys) == in_order(side)
    assert (keys.total, keys.seen, keys.revision, keys.moved) == (len(side), len(side), 7, False)


def test_kinds_are_counted_on_the_way_and_to_the_end():
    entries = [(b"/registry/pods/default/%d" % number, 1, 1, 1) for number in range(3)] + [(b"/registry/minions/a", 1, 1, 1), (b"other", 1, 1, 1)]
    counted = restore_comparison.Counted(iter(entries), "/registry/")
    assert next(iter(counted)) == entries[0]
    assert not counted.whole
    counted.finish()
    assert (counted.whole, counted.kinds) == (True, {"pods": 3, "nodes": 1, "other keys": 1})


def test_what_ends_early_is_not_counted_as_whole():
    def entries():
        yield b"/registry/pods/default/1", 1, 1, 1
        raise restore_comparison.OutOfTime

    counted = restore_comparison.Counted(entries(), "/registry/")
    with pytest.raises(restore_comparison.OutOfTime):
        list(counted)
    counted.finish()
    assert not counted.whole


def test_no_question_is_asked_when_the_time_is_over():
    with pytest.raises(restore_comparison.OutOfTime):
        restore_comparison.Keys(Server({}), time.monotonic() - 1)


@pytest.mark.parametrize(
    "size, keys, expected",
    [(0, 0, 20000), (4 * 10**6, 1000, 8000), (8 * 10**9, 1000000, 4000), (10**9, 100, 500), (10**9, 10**6, 20000)],
)
def test_a_page_holds_a_bounded_number_of_bytes(size, keys, expected):
    assert restore_comparison.page_size(size, keys) == expected


@pytest.mark.parametrize(
    "key, expected",
    [
        (b"/registry/minions/cp1", ("nodes", "", "cp1")),
        (b"/registry/nodes/cp1", ("nodes", "", "cp1")),
        (b"/registry/services/specs/shop/web", ("services", "shop", "web")),
        (b"/registry/example.org/widgets/shop/w", ("widgets.example.org", "shop", "w")),
        (b"/registry/pods/shop/\xff\x1b[2J", ("pods", "shop", "\\xff\\x1b[2J")),
        (b"/registry/health", ("other keys", "", "/registry/health")),
        (b"compact_rev_key", ("other keys", "", "compact_rev_key")),
        (b"/other/a/b/c/d", ("other keys", "", "/other/a/b/c/d")),
        (b"\0\n", ("other keys", "", "\\x00\\n")),
    ],
)
def test_a_key_is_described_and_harmless(key, expected):
    assert restore_comparison.describe(key, "/registry/") == expected


def test_groups_are_counted_with_their_first_names_and_unimportant_ones_come_last():
    groups = restore_comparison.Groups(2)
    for name in ("b/1", "a/1", "a/2", "a/3"):
        groups.add("pods", *name.split("/"))
    for kind, namespace, name in (("events", "a", "x"), ("events", "b", "y"), ("leases", "k", "z")):
        groups.add(kind, namespace, name)
    groups.add("other keys", "", "compact_rev_key")
    groups.add("zebras", "", "one")
    assert groups.as_list() == [
        {"kind": "pods", "namespace": "a", "count": 3, "names": ["1", "2"]},
        {"kind": "pods", "namespace": "b", "count": 1, "names": ["1"]},
        {"kind": "zebras", "namespace": "", "count": 1, "names": ["one"]},
        {"kind": "other keys", "namespace": "", "count": 1, "names": ["compact_rev_key"]},
        {"kind": "events", "namespace": "", "count": 2, "names": ["a/x", "b/y"]},
        {"kind": "leases", "namespace": "", "count": 1, "names": ["k/z"]},
    ]
    assert (groups.count, groups.objects) == (9, 5)


@pytest.mark.parametrize("number", [0, 1])
def test_groups_are_bounded_and_lose_no_count(number):
    groups = restore_comparison.Groups(1)
    for index in range(5000):
        groups.add(*(("pods", "ns-%d" % index, "x"), ("kind-%d" % index, "", "x"))[number])
    found = groups.as_list()
    assert len(found) <= 2001
    assert sum(group["count"] for group in found) == groups.count == 5000


def group(kind, namespace, count, *names):
    return {"kind": kind, "namespace": namespace, "count": count, "names": list(names)}


def test_the_table_is_aligned_and_ends_with_unimportant_groups():
    differences = {
        "vanish": [group("pods", "default", 12, "a", "b"), group("nodes", "", 1, "cp2"), group("events", "", 100, "d/e")],
        "reappear": [group("secrets", "shop", 1, "token")],
        "change": [group("leases", "", 3)],
    }
    assert restore_comparison.table(differences) == [
        "vanish     12  pods     default  a, b, ...",
        "vanish      1  nodes    -        cp2",
        "reappear    1  secrets  shop     token",
        "vanish    100  events   -        d/e, ...",
        "change      3  leases   -",
    ]


def test_a_long_table_keeps_the_largest_and_says_what_is_left_out():
    many = [group("pods", "ns-%d" % number, number, "x") for number in range(1, 10)]
    differences = {"vanish": many, "reappear": [], "change": [group("events", "", 1, "e")]}
    lines = restore_comparison.table(differences, limit=2)
    assert [line.split()[:4] for line in lines[:2]] == [["vanish", "8", "pods", "ns-8"], ["vanish", "9", "pods", "ns-9"]]
    assert lines[2] == "vanish: 28 more in 7 other kinds and namespaces"
    assert len(lines) == 4


def test_no_difference_is_no_line():
    assert restore_comparison.table({"vanish": [], "reappear": [], "change": []}) == []
