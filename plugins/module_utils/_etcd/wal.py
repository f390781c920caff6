# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The write-ahead log of a copied data directory.  Private to this collection.

A member writes how far the cluster has agreed (the commit index) together with whatever it writes next, so that on the disk of
one that was killed it is behind what clients were told.  An election among the members makes up for that.  Where they are not to
be had, `--force-new-cluster` believes the log, and throws away what is behind that index ("discarding uncommitted WAL entries": 3.4.45 and 3.5.35,
etcdserver/raft.go; 3.6.16 and 3.7.3, etcdserver/bootstrap.go).  docs/quorum-loss.md has how often writes were among that.

A log is a row of segments, each a row of frames, each a length of 8 bytes (in its topmost byte the number of bytes that fill it
up to 8), a record and the filling.  A record has a type, a checksum that runs over all data of the log, and data.
"""

from __future__ import annotations

import os
import re
import struct

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.crc32c import checksum
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.protobuf import encoded, message

_METADATA, _ENTRY, _STATE, _SNAPSHOT = 1, 2, 3, 5
_SEGMENT = re.compile(r"^[0-9a-f]{16}-[0-9a-f]{16}\.wal$")


class WalError(Exception):
    """What is wrong with the log."""


def _message(data):
    try:
        return message(data)
    except ValueError as exc:
        raise WalError("a record %s" % exc) from exc


def _records(stream):
    """(offset behind it, record) of every frame that is whole."""
    at, size = 0, os.fstat(stream.fileno()).st_size
    while at + 8 <= size:
        stream.seek(at)
        length = struct.unpack("<Q", stream.read(8))[0]
        filling = length >> 56 & 7 if length >> 63 else 0
        length &= (1 << 56) - 1
        behind = at + 8 + length + filling
        if length == 0 or behind > size:
            return
        try:
            record = _message(stream.read(length))
        except (IndexError, WalError):
            # what a power cut left
            return
        yield behind, record
        at = behind


class _End:
    """The end of the log in a directory: its last `entry` and `state`; `newest` of commit_all(); `metadata`; index of a later `snapshot`, or 0."""

    def __init__(self, directory):
        self.entry = self.state = self.newest = None
        self.metadata, self.snapshot = b"", 0
        for name in sorted((name for name in os.listdir(directory) if _SEGMENT.match(name)), reverse=True):
            self._read(os.path.join(directory, name))
            if self.entry and self.state:
                break
        if not (self.newest and self.entry and self.state):
            raise WalError("there is nothing in it")

    def _read(self, path):
        # entry and state so far, offset behind the last record, checksum there
        now = before = (None, None, 0, 0)
        last_data = b""
        with open(path, "rb") as stream:
            for behind, record in _records(stream):
                data = record.get(3, b"")
                entry, hard_state = now[:2]
                if record.get(1) == _ENTRY:
                    entry = _message(data)
                elif record.get(1) == _STATE:
                    hard_state = _message(data)
                elif record.get(1) == _METADATA:
                    self.metadata = data
                elif record.get(1) == _SNAPSHOT:
                    self.snapshot = max(self.snapshot, _message(data).get(1, 0))
                now, before = (entry, hard_state, behind, record.get(2, 0)), now
                last_data = data
        if self.newest is None and now[2]:
            # What a power cut left of the last one was never whole, so nobody was told of it.
            if last_data and checksum(before[3], last_data) != now[3]:
                now = before
            self.newest = (path, now[2], now[3])
        self.entry, self.state = self.entry or now[0], self.state or now[1]


def end(directory):
    """(index of the last thing in the log, id of the member, id of the cluster), the ids in hexadecimal; raises WalError and OSError."""
    found = _End(directory)
    metadata = _message(found.metadata)
    ids = ("%x" % metadata.get(field, 0) for field in (1, 2))
    return (max(found.entry.get(3, 0), found.snapshot), *ids)


def commit_all(directory):
    """Have the log in `directory` say that all it holds is committed; returns the index of its last entry.

    What this member had, and had not heard to be agreed on, is then kept as well: it may be more than clients were told, not less.
    """
    found = _End(directory)
    index = found.entry.get(3, 0)
    if found.state.get(3, 0) < index:
        _append_state(found.newest, found.state, index)
    return index


def _append_state(newest, state, index):
    path, end, crc = newest
    data = b"\x08" + encoded(state.get(1, 0)) + b"\x10" + encoded(state.get(2, 0)) + b"\x18" + encoded(index)
    record = b"\x08" + encoded(_STATE) + b"\x10" + encoded(checksum(crc, data)) + b"\x1a" + encoded(len(data)) + data
    filling = -len(record) % 8
    length = len(record) | ((0x80 | filling) << 56 if filling else 0)
    with open(path, "r+b") as stream:
        stream.seek(end)
        # behind it a length of zero, so that the log ends there
        stream.write(struct.pack("<Q", length) + record + b"\0" * filling + b"\0" * 8)
