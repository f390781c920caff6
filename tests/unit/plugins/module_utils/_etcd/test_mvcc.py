# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of a snapshot, of files that are made here byte by byte.  tests/integration/test_snapshot_keys.py has files that etcds wrote."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import subprocess
import sys
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.forked import Forked, Lost
from hypothesis import HealthCheck, example, given, settings, strategies as st

PAGE = 4096
BRANCH, LEAF, META, FREE = 1, 2, 4, 16


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def record(key, create=0, mod=0, version=0, value=b"", lease=0, more=b""):
    """A KeyValue as etcd writes it."""
    numbers = ((0x10, create), (0x18, mod), (0x20, version))
    text = b"\x0a" + varint(len(key)) + key + b"".join(bytes([tag]) + varint(number) for tag, number in numbers if number)
    return text + (b"\x2a" + varint(len(value)) + value if value else b"") + (b"\x30" + varint(lease) if lease else b"") + more


def revision(main, sub=0, deleted=False):
    return struct.pack(">Q", main) + b"_" + struct.pack(">Q", sub) + (b"t" if deleted else b"")


def leaf(number, elements, size=None):
    """elements: (key, value) or (key, value, True) for a bucket.  size: of an inline one, which is not filled up."""
    table, data = b"", b""
    for element in elements:
        key, value = element[:2]
        table += struct.pack("=IIII", int(len(element) > 2), 16 * len(elements) - len(table) + len(data), len(key), len(value))
        data += key + value
    used = 16 + len(table) + len(data)
    pages = -(-used // PAGE)
    return (struct.pack("=QHHI", number, LEAF, len(elements), pages - 1) + table + data).ljust(0 if size == 0 else pages * PAGE, b"\0")


def branch(number, elements):
    """elements: (key, page)."""
    table, data = b"", b""
    for key, page in elements:
        table += struct.pack("=IIQ", 16 * len(elements) - len(table) + len(data), len(key), page)
        data += key
    page = (struct.pack("=QHHI", number, BRANCH, len(elements), 0) + table + data).ljust(PAGE, b"\0")
    assert len(page) == PAGE
    return page


def inline(elements):
    return struct.pack("=QQ", 0, 0) + leaf(0, elements, size=0)


def meta_page(number, high_water):
    body = struct.pack("=IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, 3, 0, 2, high_water, 10 - number)
    checksum = 14695981039346656037
    for byte in body:
        checksum = (checksum ^ byte) * 1099511628211 % (1 << 64)
    return (struct.pack("=QHHI", number, META, 0, 0) + body + struct.pack("=Q", checksum)).ljust(PAGE, b"\0")


def snapshot(elements, meta=(), per_page=3, small=False):
    """A file with these (revision, record) in bucket `key`: in leaves of `per_page` below one branch, or with `small` within the root page."""
    leaves, number = [], 5
    for at in range(0, len(elements), per_page):
        leaves.append((elements[at][0], number, leaf(number, elements[at : at + per_page])))
        number += len(leaves[-1][2]) // PAGE
    leaves = leaves or [(b"", 5, leaf(5, []))]
    key = inline(elements) if small else struct.pack("=QQ", 4, 0)
    root = [(b"key", key, True), (b"meta", inline(sorted(meta)), True)]
    pages = [struct.pack("=QHHI", 2, FREE, 0, 0).ljust(PAGE, b"\0"), leaf(3, root)]
    if not small:
        pages += [branch(4, [(first, page) for first, page, _data in leaves])] + [data for _first, _page, data in leaves]
    high_water = 2 + sum(map(len, pages)) // PAGE
    data = b"".join([meta_page(0, high_water), meta_page(1, high_water)] + pages)
    return data + hashlib.sha256(data).digest()


def changes(*steps):
    """(elements as etcd writes them, {key: (create revision, mod revision, version)}) of steps, each a list of (key, value or None to delete, lease)."""
    elements, live = [], {}
    for main, step in enumerate(steps, 2):
        for sub, (key, value, lease) in enumerate(step):
            if value is None:
                elements.append((revision(main, sub, True), record(key)))
                live.pop(key, None)
            else:
                created, _mod, version = live.get(key, (main, 0, 0))
                live[key] = (created, main, version + 1)
                elements.append((revision(main, sub), record(key, created, main, version + 1, value, lease)))
    return elements, live


def read(directory, data, deadline=None):
    """(revision, entries in their order)"""
    path = directory / "file.db"
    path.write_bytes(data)
    try:
        with mvcc.SnapshotKeys(str(path), str(directory), deadline) as opened:
            return opened.read(), list(opened)
    finally:
        path.unlink()
        assert list(directory.iterdir()) == []


def in_order(live):
    return [(key,) + live[key] for key in sorted(live)]


def put(key, value=b"v", lease=0):
    return key, value, lease


def delete(key):
    return key, None, 0


# Few keys, so that many changes are of the same ones; some are prefixes of others, and long ones have a length of two bytes and of three.
KEYS = st.sampled_from([b"a", b"a\0", b"a\0\xff", b"\0", b"\xff", b"/registry/pods/default/web", b"b" * 127, b"b" * 128, b"c" * 20000, b"d"])
VALUES = st.sampled_from([b"", b"v", b"x" * 127, b"x" * 200, b"x" * 20000, b"x" * 70000]) | st.none()
LEASES = st.sampled_from([0, 1, 1 << 62])
STEPS = st.lists(st.lists(st.tuples(KEYS, VALUES, LEASES), min_size=1, max_size=3), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    steps=STEPS,
    per_page=st.integers(1, 5),
    part=st.sampled_from([0, 3000, 1 << 30]),
    block=st.integers(1, 4),
    most=st.integers(1, 3),
    ahead=st.sampled_from([1, 3 * PAGE, 1 << 20]),
    shared=st.booleans(),
)
@example(steps=[], per_page=1, part=0, block=1, most=1, ahead=1, shared=True)
def test_last_change_of_each_key_in_order_of_keys(tmp_path, monkeypatch, steps, per_page, part, block, most, ahead, shared):
    """However little memory there is: parts of one page, blocks of one key, parts that are merged before all are there, and pages that are read one by one.

    And whether one process reads it or two.
    """
    elements, live = changes(*steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mvcc, "_SHARED_BYTES", 0 if shared else 1 << 60)
        patch.setattr(mvcc, "_SHARED_PART_BYTES", part)
        patch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
        patch.setattr(boltdb, "_AHEAD", ahead)
        patch.setattr(mvcc, "_PART_BYTES", part)
        patch.setattr(mvcc, "_BLOCK_KEYS", block)
        patch.setattr(mvcc, "_MOST_PARTS", most)
        assert read(tmp_path, snapshot(elements, per_page=per_page)) == (len(steps) + 1, in_order(live))


@pytest.mark.parametrize("interleaved", [True, False])
def test_few_keys_of_many_parts_are_merged_at_once(tmp_path, monkeypatch, interleaved):
    """Keys of all parts that lie between each other would else be as many at once as all blocks have."""
    monkeypatch.setattr(mvcc, "_MERGED_KEYS", 1000)
    parts, size = 50, 600
    found = mvcc._Parts(str(tmp_path), lambda: None)
    for part in range(parts):
        keys = (number * parts + part if interleaved else part * size + number for number in range(size))
        found.add({b"%08d" % key: (1, 2, 1) for key in keys})
    found.add({b"%08d" % 0: (1, 3, 2)}, last=True)
    # beside so many parts they are written, unless there are none
    assert found._last == {}
    found.add({}, last=True)
    rounds = [len(changes) for dummy, changes in found._blocks()]
    assert sum(rounds) == parts * size and max(rounds) <= 2000
    # a part after the other is not read key by key
    assert interleaved or len(rounds) < 6 * parts * size / mvcc._BLOCK_KEYS
    merged = list(found.merged())
    assert [key for key, dummy in merged] == [b"%08d" % key for key in range(parts * size)] and merged[0][1] == (1, 3, 2)
    found.close()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_bucket_within_the_page_that_names_it(tmp_path, count):
    elements, live = changes(*[[put(b"key %d" % number)] for number in range(count)])
    assert read(tmp_path, snapshot(elements, small=True)) == (count + 1, in_order(live))


@pytest.mark.parametrize("size", [60000, 64 * 1024 - 40, 64 * 1024, 70000, 1500000])
@pytest.mark.parametrize("lease", [0, 77])
def test_records_of_which_only_the_beginning_is_read(tmp_path, size, lease):
    steps = [[put(b"a" * size, b"v" * 100, lease)], [put(b"b", b"v" * size, lease)], [put(b"c" * size, b"", lease)], [put(b"d" * size), delete(b"d" * size)]]
    elements, live = changes(*steps)
    assert read(tmp_path, snapshot(elements, per_page=2)) == (5, in_order(live))


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, 3),
        ({b"finishedCompactRev": revision(2), b"scheduledCompactRev": revision(2)}, 3),
        ({b"finishedCompactRev": revision(9), b"scheduledCompactRev": revision(9)}, 9),
        # one that was under way, of revisions that were deletions
        ({b"finishedCompactRev": revision(2), b"scheduledCompactRev": revision(7)}, 7),
    ],
)
def test_revision_is_at_least_that_of_the_last_compaction(tmp_path, meta, expected):
    elements = changes([put(b"a")], [put(b"b")])[0]
    assert read(tmp_path, snapshot(elements, meta=meta.items()))[0] == expected


def test_record_of_no_key_by_which_a_restore_has_raised_the_revision(tmp_path):
    elements, live = changes([put(b"a")])
    assert read(tmp_path, snapshot([*elements, (revision(1000002), b"")])) == (1000002, in_order(live))


def test_deletion_whose_puts_were_compacted(tmp_path):
    assert read(tmp_path, snapshot([(revision(7, 0, True), record(b"a")), (revision(8), record(b"b", 3, 8, 5))])) == (8, [(b"b", 3, 8, 5)])


GOOD = record(b"a", 2, 2, 1, b"v")
BROKEN = {
    "a field of a later etcd": record(b"a", 2, 2, 1, b"v", more=b"\x38\x01"),
    "a field of a later etcd behind a lease": record(b"a", 2, 2, 1, b"v", 77, b"\x38\x01"),
    "fields in another order": b"\x10\x02" + record(b"a") + b"\x18\x02\x20\x01",
    "no key": record(b"", 2, 2, 1)[2:],
    "an empty key": record(b"", 2, 2, 1),
    "a key that reaches beyond it": b"\x0a\x7fa",
    "a key whose length is not a number": b"\x0a" + b"\xff" * 20,
    "no version": record(b"a", 2, 2),
    "no revision": record(b"a"),
    "a number that is cut off": record(b"a", 2, 2) + b"\x20\x80",
    "a number that is negative": record(b"a", 2, (1 << 64) - 5, 1),
    "a value that reaches beyond it": record(b"a", 2, 2, 1) + b"\x2a\x05vvvv",
    "a value that is cut off": record(b"a", 2, 2, 1) + b"\x2a",
    "two leases": record(b"a", 2, 2, 1, b"", 5, b"\x30\x05"),
    "one byte": b"\x0a",
}


@pytest.mark.parametrize("name", sorted(BROKEN))
@pytest.mark.parametrize("before", [[], [(revision(1), record(b"0", 1, 1, 1, b"v" * 70000))]])
def test_record_that_is_not_known(tmp_path, name, before):
    """Also one that lies where a page is not read at once."""
    words = r"^(revision 2 of \S+ has a record that this collection does not understand|\S+ holds a record that is cut off)$"
    with pytest.raises(mvcc.Unreadable, match=words):
        read(tmp_path, snapshot(before + [(revision(2), BROKEN[name])]))


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ([(revision(2, 0, True), GOOD)], "revision 2 of .* has a record that this collection does not understand"),
        ([(revision(2)[:-1] + b"\0x", record(b"a"))], "revision 2 of .* has a record that this collection does not understand"),
        ([(revision(3), GOOD), (revision(2), GOOD)], "out of order"),
        ([(revision(2), GOOD), (revision(2), GOOD)], "out of order"),
        ([(b"2", GOOD)], "a key that is not a revision"),
        ([(revision(2) + b"/registry", GOOD)], "a key that is not a revision"),
        ([(revision(2), GOOD, True)], "a bucket where none can be"),
    ],
)
@pytest.mark.parametrize("small", [False, True])
def test_element_that_is_no_record(tmp_path, elements, words, small):
    with pytest.raises(mvcc.Unreadable, match=words):
        read(tmp_path, snapshot(elements, small=small))


WHOLE = snapshot(changes([put(b"a"), put(b"b")], [delete(b"a")], [put(b"c", b"v" * 9000, 5)])[0])


def test_file_that_snapshot_restore_would_refuse(tmp_path):
    for data, words in (
        (b"", "is empty"),
        (b"x" * 5000, "is not a snapshot"),
        (WHOLE[:-32], "lacks the SHA-256"),
        (WHOLE[:-5000], "was cut off"),
        (WHOLE[:9000] + b"!" + WHOLE[9001:], "do not match the SHA-256"),
    ):
        with pytest.raises(mvcc.Unreadable, match=words):
            read(tmp_path, data)
    with mvcc.SnapshotKeys(str(tmp_path / "absent"), str(tmp_path)) as opened, pytest.raises(mvcc.Unreadable, match="does not exist"):
        opened.read()


def test_database_without_keys(tmp_path):
    pages = [meta_page(0, 4), meta_page(1, 4), struct.pack("=QHHI", 2, FREE, 0, 0).ljust(PAGE, b"\0"), leaf(3, [(b"jobs", inline([]), True)])]
    data = b"".join(pages)
    with pytest.raises(mvcc.Unreadable, match="has no bucket `key`"):
        read(tmp_path, data + hashlib.sha256(data).digest())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(at=st.integers(2 * PAGE, len(WHOLE) - 33), bit=st.integers(0, 7))
def test_damage_behind_a_right_checksum_is_one_error(tmp_path, at, bit):
    """Or none, where it is in a value or in a name."""
    data = bytearray(WHOLE[:-32])
    data[at] ^= 1 << bit
    try:
        read(tmp_path, bytes(data) + hashlib.sha256(data).digest())
    except mvcc.Unreadable as exc:
        assert str(tmp_path) in str(exc)


def test_file_that_is_written_to_meanwhile(tmp_path, monkeypatch):
    path = tmp_path / "file.db"

    def append(self):
        with open(path, "ab") as stream:
            stream.write(b"x")
        return real(self)

    real = mvcc.SnapshotKeys._compacted
    monkeypatch.setattr(mvcc.SnapshotKeys, "_compacted", append)
    with pytest.raises(mvcc.Unreadable, match="was written to, replaced or removed"):
        read(tmp_path, WHOLE)


def test_time_that_is_over(tmp_path, monkeypatch):
    with pytest.raises(boltdb.OutOfTime):
        read(tmp_path, WHOLE, time.monotonic() - 1)
    (tmp_path / "file.db").write_bytes(WHOLE)
    monkeypatch.setattr(mvcc, "_PART_BYTES", 0)
    with mvcc.SnapshotKeys(str(tmp_path / "file.db"), str(tmp_path), time.monotonic() + 60) as opened:
        opened.read()
        opened.deadline = time.monotonic() - 1
        with pytest.raises(boltdb.OutOfTime):
            list(opened)


def test_disk_that_is_full(tmp_path, monkeypatch):
    assert read(tmp_path, WHOLE)[0] == 4
    monkeypatch.setattr(mvcc, "_PART_BYTES", 0)
    monkeypatch.setattr(mvcc, "_SPARE", 1 << 60)
    with pytest.raises(mvcc.NoRoom, match="free and sorting the keys of the snapshot needs"):
        read(tmp_path, WHOLE)


def test_records_that_cannot_be_read_are_no_damage_of_the_database(tmp_path, monkeypatch):
    """The pages are checked without the records, and damage of a page is an error."""
    elements = changes(*[[put(b"key %d" % number)] for number in range(20)])[0]
    strange = [*elements[:5], (elements[5][0], b"strange"), *elements[6:]]
    path = tmp_path / "file.db"
    path.write_bytes(snapshot(strange))
    with mvcc.SnapshotKeys(str(path), str(tmp_path)) as opened:
        assert (opened.prove().integrity, opened.proof.revision) == ("ok", 21)
        with pytest.raises(mvcc.Unreadable, match="does not understand"):
            opened.finish()
    path.write_bytes(snapshot([*strange[:15], strange[16], strange[15], *strange[17:]]))
    with mvcc.SnapshotKeys(str(path), str(tmp_path)) as opened:
        assert (opened.prove().integrity, "out of order" in opened.proof.problems[0]) == ("corrupt", True)
    monkeypatch.setattr(mvcc, "_PART_BYTES", 0)
    monkeypatch.setattr(mvcc, "_SPARE", 1 << 60)
    path.write_bytes(snapshot(elements))
    with mvcc.SnapshotKeys(str(path), str(tmp_path)) as opened:
        assert opened.prove().integrity == "ok"
        with pytest.raises(mvcc.NoRoom):
            opened.finish()


def test_something_else_runs_beside_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(mvcc, "_PART_BYTES", 0)
    (tmp_path / "file.db").write_bytes(WHOLE)
    looks = []
    with mvcc.SnapshotKeys(str(tmp_path / "file.db"), str(tmp_path), beside=lambda: looks.append(1)) as opened:
        opened.hash()
        hashed = len(looks)
        opened.read()
        walked = len(looks)
        assert list(opened) and 0 < hashed < walked < len(looks)


def test_no_value_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(mvcc, "_PART_BYTES", 0)
    path = tmp_path / "file.db"
    path.write_bytes(snapshot(changes(*[[put(b"key %d" % number, b"secret %d" % number)] for number in range(20)])[0]))
    with mvcc.SnapshotKeys(str(path), str(tmp_path)) as opened:
        opened.read()
        written = os.pread(opened._parts._file.fileno(), 1 << 20, 0)
    assert b"key 1" in written and b"secret" not in written


def test_memory_does_not_grow_with_the_number_of_keys(tmp_path):
    """Ten million took 36 MB, with all that a module imports."""
    program = """
import sys
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import mvcc
with mvcc.SnapshotKeys(sys.argv[1], sys.argv[2]) as opened:
    opened.read()
    count = sum(1 for dummy in opened)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(count, peak.split()[1])
"""
    peaks = []
    for count in (1000, 300000):
        elements = [
            (revision(number), record(b"/registry/pods/namespace-%02d/pod-%06d" % (number % 40, number), number, number, 1, b"v"))
            for number in range(2, count + 2)
        ]
        (tmp_path / "file.db").write_bytes(snapshot(elements, per_page=2500))
        argv = [sys.executable, "-c", program, str(tmp_path / "file.db"), str(tmp_path)]
        found, peak = subprocess.run(argv, capture_output=True, check=True, text=True).stdout.split()
        assert int(found) == count
        peaks.append(int(peak) * 1024)
    assert peaks[1] - peaks[0] < 30 * 1024 * 1024, peaks


# ---- two processes


@pytest.fixture
def shared(monkeypatch):
    """Whatever has several leaves is read by two processes; has what each second one was called with."""
    calls = []

    def fork(function):
        calls.append(function)
        return Forked(function)

    monkeypatch.setattr(mvcc, "_SHARED_BYTES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setattr(mvcc, "Forked", fork)
    return calls


MANY = changes(*[[put(b"key %d" % (number % 7))] for number in range(40)])


def test_a_second_process_reads_half_of_it(tmp_path, shared, monkeypatch):
    assert read(tmp_path, snapshot(MANY[0])) == (41, in_order(MANY[1]))
    assert len(shared) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert read(tmp_path, snapshot(MANY[0])) == (41, in_order(MANY[1]))
    assert len(shared) == 1


def test_without_a_second_process_one_reads_all_of_it(tmp_path, shared, monkeypatch):
    def refuse(_function):
        raise Lost("no second process can read it")

    monkeypatch.setattr(mvcc, "Forked", refuse)
    assert read(tmp_path, snapshot(MANY[0])) == (41, in_order(MANY[1]))


@pytest.mark.parametrize("number", [3, 20, 21, 39])
def test_what_is_wrong_in_either_half_is_found(tmp_path, shared, number):
    elements = list(MANY[0])
    elements[number] = (elements[number][0], b"strange")
    with pytest.raises(mvcc.Unreadable, match=r"revision %d of .* does not understand" % (number + 2)):
        read(tmp_path, snapshot(elements))
    assert shared


def test_page_that_both_halves_use(tmp_path, shared):
    data = bytearray(snapshot(MANY[0]))
    # the last element of the branch names the first leaf, whose number is made that of a leaf which follows no other
    at = 4 * PAGE + 16 + 16 * (struct.unpack_from("=QHHI", data, 4 * PAGE)[2] - 1)
    struct.pack_into("=Q", data, at + 8, 5)
    data = bytes(data[:-32])
    with pytest.raises(mvcc.Unreadable, match=r"used twice|belong elsewhere"):
        read(tmp_path, data + hashlib.sha256(data).digest())
    assert shared


def test_second_process_that_is_killed(tmp_path, shared, monkeypatch):
    monkeypatch.setattr(mvcc.SnapshotKeys, "_read_second", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(mvcc.Unreadable, match="ended without a result"):
        read(tmp_path, snapshot(MANY[0]))


def test_second_process_that_takes_too_long(tmp_path, shared, monkeypatch):
    monkeypatch.setattr(mvcc.SnapshotKeys, "_read_second", lambda *_: time.sleep(60))
    began = time.monotonic()
    with pytest.raises(boltdb.OutOfTime):
        read(tmp_path, snapshot(MANY[0]), began + 0.3)
    assert time.monotonic() - began < 10


# ---- values that are judged


def judged(tmp_path, data, judge):
    path = tmp_path / "file.db"
    path.write_bytes(data)
    with mvcc.SnapshotKeys(str(path), str(tmp_path), None, None, judge) as opened:
        opened.read()
        return opened, [(key, mvcc.judged(version)) for key, _created, _mod, version in opened]


@pytest.mark.parametrize("part", [0, 1 << 30])
def test_the_last_value_of_each_key_is_judged(tmp_path, monkeypatch, part):
    monkeypatch.setattr(mvcc, "_PART_BYTES", part)
    values = {b"a": b"", b"b": b"x" * 5000, b"c": b"y" * 200000, b"d": b"last"}
    steps = [[put(b"d", b"first", 7)], [put(key, value, 5) for key, value in values.items()], [put(b"gone")], [delete(b"gone")]]
    elements = changes(*steps)[0]
    seen = []

    def judge(key, data, start, end):
        seen.append((key, data[start:end]))
        return 127 if end - start == 4 else min(end - start, 100)

    opened, found = judged(tmp_path, snapshot(elements), judge)
    assert found == [(b"a", (1, 0)), (b"b", (1, 100)), (b"c", (1, 100)), (b"d", (2, 127))]
    assert seen == [(b"d", b"first")] + list(values.items()) + [(b"gone", b"v")]
    assert opened.volume == sum(len(key) + len(value) for key, value in elements)


def test_a_record_of_another_revision_contradicts_itself(tmp_path):
    for mod in (4, 6):
        with pytest.raises(mvcc.Contradiction, match="revision 5 of it says that it is revision %d" % mod):
            judged(tmp_path, snapshot([(revision(5), record(b"a", 1, mod, 1))]), lambda *_: 1)


def test_what_cannot_be_judged_is_not_readable(tmp_path, monkeypatch):
    for version in (1 << 56, (1 << 62) + 1):
        with pytest.raises(mvcc.Unreadable):
            judged(tmp_path, snapshot([(revision(5), record(b"a", 1, 5, version))]), lambda *_: 1)
    monkeypatch.setattr(mvcc, "_LONGEST_VALUE", 10)
    with pytest.raises(mvcc.Unreadable):
        judged(tmp_path, snapshot([(revision(5), record(b"a", 1, 5, 1, b"v" * 11))]), lambda *_: 1)


@pytest.mark.parametrize("small", [False, True])
def test_all_other_buckets(tmp_path, small):
    path = tmp_path / "file.db"
    meta = [(b"a", b"1"), (b"finishedCompactRev", revision(3))]
    path.write_bytes(snapshot(changes([put(b"a"), put(b"b")])[0], meta, small=small))
    with boltdb.SnapshotFile(str(path)) as opened:
        assert opened.others(b"key", 100) == {b"meta": meta}
        assert opened.others(b"key", 10) is None
        assert sorted(opened.others(b"meta", 1000)) == [b"key"]
    path.write_bytes(b"")
    with boltdb.SnapshotFile(str(path)) as opened:
        assert opened.others(b"key", 100) is None


def test_a_file_is_hashed_once(tmp_path, monkeypatch):
    path = tmp_path / "file.db"
    path.write_bytes(snapshot(changes([put(b"a")])[0]))
    hashed = boltdb.hash_file(str(path))
    assert (hashed.sha256, hashed.whole) == (hashlib.sha256(path.read_bytes()).hexdigest(), True)
    read_again = []
    real = boltdb.SnapshotFile._hash
    monkeypatch.setattr(boltdb.SnapshotFile, "_hash", lambda self: read_again.append(1) or real(self))
    with boltdb.SnapshotFile(str(path), hashed=hashed) as opened:
        assert opened.prove().integrity == "ok" and opened.proof.sha256 == hashed.sha256 and not read_again
    # another file under its name
    path.unlink()
    path.write_bytes(snapshot(changes([put(b"a")], [put(b"b")])[0])[:-1] + b"x")
    with boltdb.SnapshotFile(str(path), hashed=hashed) as opened:
        assert opened.prove().integrity == "mismatch" and read_again
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError):
            boltdb.hash_file(str(missing))
