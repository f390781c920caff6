# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import wal

METADATA, ENTRY, STATE, CRC, SNAPSHOT = 1, 2, 3, 4, 5


def number(field, value):
    return wal.encoded(field << 3) + wal.encoded(value)


def entry(index, term=2, data=b"x"):
    return ENTRY, number(1, 0) + number(2, term) + number(3, index) + b"\x22" + wal.encoded(len(data)) + data


def state(commit, term=2, vote=2**64 - 1):
    return STATE, number(1, term) + number(2, vote) + number(3, commit)


def segment(crc, records):
    """(bytes, checksum at the end) of a segment that goes on where one with the checksum `crc` ended."""
    out = b""
    for kind, data in [(CRC, b"")] + records:
        crc = wal.checksum(crc, data)
        record = number(1, kind) + number(2, crc) + (b"\x1a" + wal.encoded(len(data)) + data if data else b"")
        filling = -len(record) % 8
        out += struct.pack("<Q", len(record) | ((0x80 | filling) << 56 if filling else 0)) + record + b"\0" * filling
    return out, crc


def write(directory, *segments, **options):
    crc = 0
    for index, records in enumerate(segments):
        data, crc = segment(crc, records)
        (directory / ("%016x-%016x.wal" % (index, index * 10))).write_bytes(data + options.get("behind", b"\0" * 512))


def read(directory):
    """Every record of the whole log, each with its checksum verified."""
    found, crc = [], 0
    for path in sorted(directory.glob("*.wal")):
        with path.open("rb") as stream:
            for _behind, record in wal._records(stream):
                crc = wal.checksum(crc, record.get(3, b""))
                assert record.get(2, 0) == crc
                found.append((record[1], wal._message(record.get(3, b"")) if record[1] in (ENTRY, STATE) else None))
    return found


def test_the_checksum_is_castagnoli_s():
    assert wal.checksum(0, b"123456789") == 0xE3069283
    assert wal.checksum(wal.checksum(0, b"1234"), b"56789") == 0xE3069283


def test_all_entries_are_committed(tmp_path):
    write(tmp_path, [(METADATA, b"m"), state(3), entry(4), entry(5), state(4), entry(6)])
    before = read(tmp_path)
    assert wal.commit_all(str(tmp_path)) == 6
    after = read(tmp_path)
    assert after[:-1] == before
    assert after[-1] == (STATE, {1: 2, 2: 2**64 - 1, 3: 6})
    assert wal.commit_all(str(tmp_path)) == 6
    assert read(tmp_path) == after


def test_the_last_entry_may_be_in_an_earlier_segment(tmp_path):
    write(tmp_path, [(METADATA, b"m"), state(3), entry(4), entry(5)], [(METADATA, b"m"), state(3)])
    assert wal.commit_all(str(tmp_path)) == 5
    assert read(tmp_path)[-1] == (STATE, {1: 2, 2: 2**64 - 1, 3: 5})


def test_a_log_without_room_behind_it_grows(tmp_path):
    write(tmp_path, [(METADATA, b"m"), state(3), entry(4)], behind=b"")
    assert wal.commit_all(str(tmp_path)) == 4
    assert read(tmp_path)[-1][1][3] == 4


def test_the_remains_of_a_power_cut_are_overwritten(tmp_path):
    torn, _crc = segment(0, [entry(5, data=b"y" * 100)])
    write(tmp_path, [(METADATA, b"m"), state(3), entry(4)], behind=torn[16:60] + b"\0" * 512)
    assert wal.commit_all(str(tmp_path)) == 4
    assert read(tmp_path)[-1] == (STATE, {1: 2, 2: 2**64 - 1, 3: 4})


def test_an_entry_that_replaces_others_is_the_last(tmp_path):
    write(tmp_path, [(METADATA, b"m"), state(3), entry(4), entry(5), entry(6), entry(5, term=3)])
    assert wal.commit_all(str(tmp_path)) == 5


@pytest.mark.parametrize("records", [[], [(METADATA, b"m")], [state(1)]])
def test_a_log_that_says_nothing(tmp_path, records):
    write(tmp_path, records)
    with pytest.raises(wal.WalError):
        wal.commit_all(str(tmp_path))


def test_a_last_entry_that_was_cut_off_does_not_count(tmp_path):
    write(tmp_path, [(METADATA, b"m"), state(3), entry(4), entry(5, data=b"abcdefgh")])
    path = next(tmp_path.glob("*.wal"))
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcd\0\0\0\0"))
    assert wal.commit_all(str(tmp_path)) == 4
    assert read(tmp_path)[-1] == (STATE, {1: 2, 2: 2**64 - 1, 3: 4})


def test_where_a_log_ends_and_whose_it_is(tmp_path):
    whose = (METADATA, number(1, 0xA1) + number(2, 0xC1))
    write(tmp_path, [whose, state(3), entry(4), entry(5)], [whose, state(5)])
    assert wal.end(str(tmp_path)) == (5, "a1", "c1")
    # what was received as a whole, and is not in the database before the next start
    write(tmp_path, [whose, state(3), entry(4)], [whose, (SNAPSHOT, number(1, 900) + number(2, 2)), state(900)])
    assert wal.end(str(tmp_path)) == (900, "a1", "c1")
    write(tmp_path, [(METADATA, b"m"), state(3), entry(4)], [])
    with pytest.raises(wal.WalError):
        wal.end(str(tmp_path))
