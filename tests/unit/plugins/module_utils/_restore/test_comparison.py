# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import collections
import json
import os
import time
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import comparison as restore_comparison
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolResult
from hypothesis import given, strategies as st

# Few bytes, so that keys are often prefixes of each other and equal on both sides.
KEYS = st.lists(st.sampled_from([b"\0", b"/", b"a", b"b", b"\x7f", b"\xff"]), min_size=1, max_size=5).map(b"".join)
SIDES = st.dictionaries(KEYS, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)), max_size=30)


@given(SIDES, SIDES)
def test_the_comparison_equals_that_of_sets(snapshot, live):
    found = list(restore_comparison.compare(snapshot, live))
    assert [key for _state, key in found] == sorted(key for _state, key in found)
    by_state = {state: {key for other, key in found if other == state} for state in restore_comparison.STATES}
    assert by_state[restore_comparison.VANISH] == set(live) - set(snapshot)
    assert by_state[restore_comparison.REAPPEAR] == set(snapshot) - set(live)
    assert by_state[restore_comparison.CHANGE] == {key for key in set(snapshot) & set(live) if snapshot[key] != live[key]}
    assert len(found) == sum(len(keys) for keys in by_state.values())


def test_what_restores_left_is_no_difference():
    votes = restore_comparison.commit_vote.PREFIX.encode() + b"1/decision"
    assert list(restore_comparison.compare({votes: (1, 1, 1), b"a": (1, 1, 1)}, {b"b": (1, 1, 1)})) == [("reappear", b"a"), ("vanish", b"b")]


class Server:
    """Answers as etcdctl does, from a dictionary; `compacted` is the number of the question from which on its first revision is gone."""

    binary = "etcdctl"
    cwd = "/"

    def __init__(self, side, compacted=None):
        self.side = side
        self.compacted = compacted
        self.now = 7
        self.asked = []
        self.ended = 0

    def status(self):
        return {"revision": self.now, "db_size_in_use": 1, "db_size": 1, "version": "3.6.16"}

    def argv(self, *args, **_options):
        return list(args)

    def start(self, argv, **_options):
        number = len(self.asked)
        place = argv.index("--")
        start, end = (os.fsencode(argv[place + 1 :][0]), os.fsencode(argv[place + 2]) if len(argv) > place + 2 else None)
        assert b"\0" not in start + (end or b"") and ("--from-key" in argv) == (end is None) and (start or end is None)
        flags = dict(arg[2:].split("=") for arg in argv[:place] if "=" in arg)
        self.asked.append((start, end, int(flags["limit"]), int(flags["rev"])))
        if number == self.compacted:
            self.now = 9
        return types.SimpleNamespace(finish=lambda *_args, **_options: self.answer(argv, *self.asked[number]), end=self.count_end)

    def count_end(self):
        self.ended += 1

    def answer(self, argv, start, end, limit, revision):
        if revision < self.now and self.compacted is not None:
            return ToolResult(argv, 1, "", "Error: etcdserver: mvcc: required revision has been compacted")
        keys = sorted(key for key in self.side if key >= start and (end is None or key < end))
        kvs = [
            {"key": base64.b64encode(key).decode(), "create_revision": self.side[key][0], "mod_revision": self.side[key][1], "version": self.side[key][2]}
            for key in keys[:limit]
        ]
        answer = {"kvs": kvs, "count": len(keys)} if kvs else {}
        if len(keys) > limit:
            answer["more"] = True
        return ToolResult(argv, 0, json.dumps(answer), "")


class File(restore_comparison.FileKeys):
    """The keys of a snapshot from a dictionary."""

    def __init__(self, side):
        self._file = {key: side[key] for key in sorted(side)}
        self.seen = 0


def compared(snapshot, server, size):
    """(differences, LiveKeys, windows) by windows of this size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_comparison, "_WINDOWS", (size, size))
        patch.setattr(restore_comparison, "StartedTool", server.start)
        live = restore_comparison.LiveKeys(server, time.monotonic() + 60)
        windows = list(File(snapshot).windows(live.window))
        return list(restore_comparison.differences(windows, live)), live, windows


@given(SIDES, SIDES, st.integers(1, 4))
def test_windows_hold_every_key_once_whatever_is_in_it(snapshot, live, size):
    server = Server(live)
    found, keys, windows = compared(snapshot, server, size)
    assert found == list(restore_comparison.compare(snapshot, live))
    assert (keys.seen, keys.revision, keys.moved) == (len(live), 7, False)
    assert {key: numbers for window in windows for key, numbers in window[2].items()} == snapshot
    assert [window[0] for window in windows] == [b""] + [window[1] for window in windows[:-1]] and windows[-1][1] is None


@given(SIDES, SIDES, st.integers(1, 4), st.integers(1, 8))
def test_a_compaction_meanwhile_moves_on_to_the_newest_revision(snapshot, live, size, compacted):
    server = Server(live, compacted)
    found, keys, _windows = compared(snapshot, server, size)
    assert found == list(restore_comparison.compare(snapshot, live))
    assert (keys.seen, keys.revision, keys.moved) == ((len(live), 9, True) if len(server.asked) > compacted else (len(live), 7, False))


def test_etcd_is_asked_for_as_many_keys_as_the_snapshot_has_there():
    """It counts all keys of a range, so that a range without an end costs as much as all keys behind it."""
    side = {b"/registry/pods/a/%04d" % number: (1, 1, 1) for number in range(1000)}
    server = Server(side)
    assert compared(side, server, 100)[0] == []
    starts = sorted(side)[100::100]
    # the lowest key has a NUL, and no command line can hold it
    assert [asked[:2] for asked in server.asked[2:]] == list(zip(starts, starts[1:] + [None]))
    assert server.asked[1] == (b"", None, 113, 7)


def test_what_was_asked_for_ahead_is_ended():
    side = {b"%04d" % number: (1, 1, 1) for number in range(1000)}
    server = Server(side)

    def stopped():
        yield from list(File(side).windows(100))[:2]
        raise restore_comparison.OutOfTime

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore_comparison, "StartedTool", server.start)
        with pytest.raises(restore_comparison.OutOfTime):
            list(restore_comparison.differences(stopped(), restore_comparison.LiveKeys(server, time.monotonic() + 60)))
    assert server.ended == 2


def test_kinds_are_counted_on_the_way_and_to_the_end():
    side = {b"/registry/pods/default/%d" % number: (1, 1, 1) for number in range(3)}
    side.update({b"/registry/minions/a": (1, 1, 1), b"other": (1, 1, 1), restore_comparison.commit_vote.PREFIX.encode() + b"1/votes/a": (1, 1, 1)})
    file = File(side)
    counted = restore_comparison.Counted(file.windows(1), "/registry/")
    next(iter(counted))
    assert not counted.whole
    counted.finish()
    assert (counted.whole, counted.kinds, file.seen) == (True, {"pods": 3, "nodes": 1, "other keys": 1}, 6)


PATHS = st.lists(st.sampled_from(["registry", "services", "specs", "endpoints", "pods", "a.b", "x", "", "\x00"]), min_size=1, max_size=6)


@given(st.sets(PATHS.map(lambda parts: ("/" + "/".join(parts)).encode()), max_size=40), st.integers(1, 5))
def test_kinds_are_those_of_every_key(keys, size):
    counted = restore_comparison.Counted(File(dict.fromkeys(keys, (1, 1, 1))).windows(size), "/registry/")
    counted.finish()
    assert counted.kinds == collections.Counter(restore_comparison.describe(key, "/registry/")[0] for key in keys)


def test_what_ends_early_is_not_counted_as_whole():
    def windows():
        yield b"", None, {b"/registry/pods/default/1": (1, 1, 1)}
        raise restore_comparison.OutOfTime

    counted = restore_comparison.Counted(windows(), "/registry/")
    with pytest.raises(restore_comparison.OutOfTime):
        list(counted)
    counted.finish()
    assert not counted.whole


def test_no_question_is_asked_when_the_time_is_over():
    with pytest.raises(restore_comparison.OutOfTime):
        restore_comparison.LiveKeys(Server({}), time.monotonic() - 1)


@pytest.mark.parametrize(
    "size, keys, version, expected",
    [
        (0, 0, "3.5.35", 14000), (4 * 10**6, 1000, "3.5.35", 8000), (8 * 10**9, 10**6, "3.6.16", 4000), (10**9, 100, "", 500), (10**9, 10**6, "3.4.23", 14000),
        # it does not read the values
        (8 * 10**9, 10**6, "3.7.0", 14000),
    ],
)  # fmt: skip
def test_a_window_holds_a_bounded_number_of_bytes(size, keys, version, expected):
    assert restore_comparison.window_size(size, keys, version) == expected


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
