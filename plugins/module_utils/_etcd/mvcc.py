# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys that an etcd would serve of a snapshot, read from the file without an etcd.  Private to this collection.

Bucket `key` has a record of every change since the last compaction, in the order of revisions: 8 bytes, an underscore, 8 bytes for the place in a
transaction, and a `t` where it deletes.  A record is a KeyValue of protobuf.  An etcd that starts reads all of them, and serves the last of each key
unless that deletes (3.4.23, 3.4.45, 3.5.33, 3.6.14 and 3.7.3: mvcc/kvstore.go, restore and restoreIntoIndex).  Nothing else decides what it serves:

- A compaction that was under way goes on when it starts, and removes nothing that is current (as above, compactLockfree).
- `snapshot restore` replaces members and indexes, and no key, unless that has the name of a member's id in 3.4 (snapshot/v3_snapshot.go, saveDB).
- No lease has expired by then: its time begins when a leader is elected, anew or with what the last checkpoint left (lease/lessor.go, initAndRecover
  and Promote).  So keys of a lease that has expired since are served at the revision of the snapshot.

Revisions are not in the order of keys, so the keys are sorted: in parts that fit into memory, which are written to one temporary file, and then merged.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import functools
import itertools
import os
import re
import struct
import tempfile

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.forked import Forked, Lost, TimeIsUp
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage

# Bytes of a revision, and of one that deletes.
_PUT, _DELETE = 17, 18
# In bucket `meta`.  The newest revisions may have been deletions, which a compaction removes.
_COMPACTED = (b"finishedCompactRev", b"scheduledCompactRev")
# api/mvccpb/kv.proto (3.4.23 to 3.7.3): key, create_revision, mod_revision, version, value, lease, in this order and without what is empty.
_KEY = 0x0A
_NUMBER = rb"[\x80-\xff]{0,8}[\x00-\x7f]"
_REVISIONS = re.compile(rb"\x10(%b)\x18(%b)\x20(%b)(?:\x2a(%b))?" % ((_NUMBER,) * 4))
_LEASE = re.compile(rb"\x30[\x80-\xff]{0,9}[\x00-\x7f]")
# Of a record that is not read at once: its beginning, what may be before the value besides a key, and the most that a key may have.
_BEGINNING, _HEAD, _LONGEST_KEY = 64 * 1024, 128, 8 * 1024 * 1024
_DELETED = (0, 0, 0)
# Where what was judged of a value begins in the number of the version, and the longest value that is judged.
_JUDGED = 56
_LONGEST_VALUE = 8 * 1024 * 1024

# Bytes of memory: of a key besides its name (measured), and of all keys of a part.
_PER_KEY = 270
_PART_BYTES = 12 * 1024 * 1024
# From so many bytes on two processors read it where there are two, each with less memory, if the page that bucket `key` begins with has so many children.
_SHARED_BYTES, _SHARED_PART_BYTES, _LEAST_CHILDREN = 64 * 1024 * 1024, 10 * 1024 * 1024, 4
# While parts are merged each has a block in memory: of so many keys, or of fewer that have about so many bytes.
_BLOCK_KEYS, _BLOCK_BYTES = 256, 24 * 1024
# About so many keys are merged at once: where the keys of all parts lie between each other, whole blocks of them would take more memory than the blocks.
_MERGED_KEYS = 32 * 1024
# Beside so many parts the last changes are written as well.
_MANY_PARTS = 32
# More of them are merged into one first, which takes a pass over all keys; ten million keys are 260 parts.
_MOST_PARTS = 384
_BLOCK = struct.Struct("=II")
# What is left free for the etcd that has its data there.
_SPARE = 160 * 1024 * 1024


class Unreadable(Exception):
    """The file holds something that this collection does not understand: one sentence without a capital and a full stop."""


class Contradiction(Unreadable):
    """A record that no etcd writes: one sentence without a capital and a full stop."""


class NoRoom(Exception):
    """The keys cannot be sorted: one sentence without a capital and a full stop."""


class SnapshotKeys(boltdb.SnapshotFile):
    """The live keys of a snapshot in their order, as (key, create revision, mod revision, version); values are skipped.

        with SnapshotKeys(path, directory, deadline) as snapshot:
            revision = snapshot.read()
            for entry in snapshot: ...

    directory: where keys are sorted that do not fit into memory.  deadline: in time.monotonic().  hashed, beside: as SnapshotFile has them.
    judge: is called as judge(key, data, start, end) for each value, data[start:end], and returns a number below 128.  The one of the value
    that a key has in the end is in the highest bits of its version; see judged().
    Only read() and finish() raise Unreadable and NoRoom; OutOfTime of boltdb and OSError come from the iteration as well.
    """

    def __init__(self, path, directory, deadline=None, hashed=None, judge=None, beside=None):
        super().__init__(path, deadline, hashed, beside)
        self.revision = None
        # bytes of all keys and values of bucket `key`
        self.volume = 0
        self._judge = judge
        # why records cannot be read although the database is whole
        self._trouble = None
        self._parts = _Parts(directory, self._check_time)
        self._part_bytes = _PART_BYTES
        # a Forked that reads the second half of the records, with the tree and its pages that were seen by then
        self._second, self._tree, self._seen = None, None, b""

    def close(self):
        """Remove the sorted keys, and close the file."""
        self._parts.close()
        super().__exit__()

    def __exit__(self, *_exc):
        self.close()

    def leave_free(self, size=0):
        """Leave so many bytes free in the directory, besides those for an etcd that has its data there."""
        self._parts.spare = _SPARE + size

    def __iter__(self):
        return ((key, *numbers) for key, numbers in self._parts.merged())

    def items(self):
        """The same as (key, (create revision, mod revision, version))."""
        return self._parts.merged()

    def read(self):
        """Read all records; returns the revision of the snapshot."""
        self._check_findings()
        try:
            # This reads the file from front to back, so that its pages are in memory afterwards.
            self._prove(False)
        except OSError as exc:
            raise Unreadable("%s cannot be read: %s" % (self.proof.path, exc.strerror)) from exc
        self.check_unchanged()
        self._check_findings()
        return self.finish()

    def finish(self):
        """The same after prove(), which reads the records too; `proof` must have no findings."""
        if self._trouble:
            raise self._trouble
        self.revision = max(self.proof.revision, self._compacted(), 1)
        self.check_unchanged()
        self._check_findings()
        return self.revision

    def _check_findings(self):
        if self.proof.findings:
            raise Unreadable(self.proof.problems[0])

    def _compacted(self):
        found = self.glance((b"meta",))
        if found is None:
            raise Unreadable("bucket `meta` of %s cannot be read" % self.proof.path)
        return max(int.from_bytes(found.get(b"meta", {}).get(name, b"")[:8], "big") for name in _COMPACTED)

    def _walk(self, meta):
        """Check all pages, and read the records on them."""
        share = self._share if self._judge is None and self.proof.size >= _SHARED_BYTES and len(os.sched_getaffinity(0)) > 1 else None
        try:
            with contextlib.ExitStack() as stack:
                newest = self._read_records(self._walk_to_records(meta, share and functools.partial(share, stack)))
                if self._second:
                    newest = self._join() or newest
            self.proof.revision = int.from_bytes(newest[:8], "big")
        except (Unreadable, NoRoom, OSError, IndexError) as exc:
            self._trouble = Unreadable("%s holds a record that is cut off" % self.proof.path) if isinstance(exc, IndexError) else exc
            super()._walk(meta)

    def _share(self, stack, tree, children):
        """Have a copy of this process read the second half of the records."""
        if len(children) < _LEAST_CHILDREN:
            return children
        half = len(children) // 2
        self._part_bytes = _SHARED_PART_BYTES
        self._parts.prepare_later()
        self._tree, self._seen = tree, bytes(tree.seen)
        try:
            self._second = stack.enter_context(Forked(functools.partial(self._read_second, children[half:])))
        except Lost:
            # it takes longer
            return children
        return children[:half]

    def _read_second(self, children):
        self.beside = None
        self._parts.begin_later()
        newest = self._read_records(self._walk_children(self._tree, children))
        return newest, self.volume, self._parts.end_later(), bytes(self._tree.seen)

    def _join(self):
        """Add what the copy of this process has read; returns the newest revision that it found."""
        try:
            newest, volume, parts, seen = self._second.result(self.deadline)
        except TimeIsUp:
            raise boltdb.OutOfTime from None
        except Lost as exc:
            raise Unreadable(str(exc)) from exc
        first, second, before = (int.from_bytes(pages, "big") for pages in (self._tree.seen, seen, self._seen))
        if first & second != before:
            raise boltdb.Corrupt("a page is used twice")
        self._tree, self._seen = None, b""
        self.volume += volume
        self._parts.later = parts
        return newest

    def _read_records(self, leaves):
        """Sort the keys of all records; returns the newest revision.  The time goes into this loop, so it calls little."""
        changes, weight, newest, volume, judge = {}, 0, b"", 0, self._judge
        element, header, revisions, numbers = boltdb.LEAF_ELEMENT, boltdb.PAGE.size, _REVISIONS.match, int.from_bytes
        for leaf in leaves:
            _where, count, at, length, buffer, base, low, high = leaf
            stop, size, at = at + length, len(buffer), at + header
            # bolt writes what elements are of without gaps, behind all elements
            next_one = at + count * element.size
            if low is not None and buffer[next_one : next_one + _DELETE] < low:
                raise self._odd(leaf)
            for flags, position, key_size, value_size in element.iter_unpack(buffer[at:next_one]):
                start = at + position
                at += element.size
                record = start + key_size
                end = record + value_size
                if start != next_one or flags or end > stop or not _PUT <= key_size <= _DELETE:
                    raise self._odd(leaf)
                next_one, data, origin = end, buffer, base
                if end > size:
                    # of a page with overflow only the beginning was read
                    origin = base + start
                    data = self._beginning(origin, key_size, value_size)
                    start, record, end = 0, key_size, key_size + value_size
                revision = data[start:record]
                if revision <= newest:
                    raise self._odd(leaf)
                newest = revision
                volume += end - start
                if not value_size:
                    # `snapshot restore --bump-revision` puts it at the new revision, of no key (3.5.35 to 3.7.3: etcdutl, snapshot/v3_snapshot.go,
                    # unsafeBumpRevision and unsafeBumpBucketsRevision)
                    continue
                length, first = data[record + 1], record + 2
                if length > 0x7F:
                    length, first = _number_at(data, record + 1)
                behind = first + length
                if data[record] != _KEY or not length or behind > end:
                    raise self._unknown(revision)
                key = data[first:behind]
                weight += length
                if key_size == _DELETE:
                    if revision[_PUT:] != b"t" or behind != end:
                        raise self._unknown(revision)
                    changes[key] = _DELETED
                    continue
                found = revisions(data, behind, end)
                if not found:
                    raise self._unknown(revision)
                created, modified, version, value = found.groups()
                behind = stored = found.end()
                if value:
                    # most of these numbers have one byte or two
                    behind += value[0] if value[0] < 128 else value[0] & 0x7F | value[1] << 7 if value[1] < 128 else _number(value)
                if behind != end:
                    lease = data[behind:end] if end <= len(data) or behind > end else self._read(origin + behind, min(end - behind, 16))
                    if not _LEASE.fullmatch(lease):
                        raise self._unknown(revision)
                mod = _number(modified)
                version = version[0] if version[0] < 128 else _number(version)
                if judge:
                    if version >> _JUDGED or behind - stored > _LONGEST_VALUE:
                        raise self._unknown(revision)
                    if mod != numbers(revision[:8], "big"):
                        raise Contradiction("revision %d of it says that it is revision %d" % (numbers(revision[:8], "big"), mod))
                    if behind > len(data):
                        data, stored, behind = self._read(origin + stored, behind - stored), 0, behind - stored
                    version |= judge(key, data, stored, behind) << _JUDGED
                changes[key] = mod if created == modified else _number(created), mod, version
            if high is not None and newest >= high:
                raise self._odd(leaf)
            if weight + len(changes) * _PER_KEY > self._part_bytes:
                self._parts.add(changes)
                changes, weight = {}, 0
        self._parts.add(changes, last=True)
        self.volume = volume
        return newest

    def _odd(self, leaf):
        """What is wrong with a Leaf that is not as bolt and etcd write it, as an exception."""
        self._check_records(leaf)
        return Unreadable("%s of %s is not as etcd writes it" % (leaf.where, self.proof.path))

    def _beginning(self, offset, key_size, value_size):
        """The element at `offset`, at least up to its value."""
        size = key_size + value_size
        data = self._read(offset, min(size, _BEGINNING))
        length, first = _number_at(data, key_size + 1)
        if length > _LONGEST_KEY:
            raise self._unknown(data[:key_size])
        needed = min(size, first + length + _HEAD)
        return data if needed <= len(data) else self._read(offset, needed)

    def _unknown(self, revision):
        return Unreadable("revision %d of %s has a record that this collection does not understand" % (int.from_bytes(revision[:8], "big"), self.proof.path))


def _number(data):
    """The number that these bytes encode, 7 bits in each, the lowest first."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
    return value


def _number_at(data, at):
    """(the number at `at`, the place behind it)"""
    behind = at + 1
    while data[behind - 1] > 0x7F and behind < at + 10:
        behind += 1
    return _number(data[at:behind]), behind


def judged(version):
    """(version, what was judged of the value)"""
    return version & (1 << _JUDGED) - 1, version >> _JUDGED


class _Parts:
    """Changes by key, sorted in parts of one file.  Later changes replace earlier ones."""

    def __init__(self, directory, check_time):
        self._directory = directory
        self._check_time = check_time
        self.spare = None
        # It has no name, so that it is gone when this process is.
        self._file = None
        # (offset, end) of each part, the oldest first
        self._written = []
        self._last = {}
        # the same of another file, which a copy of this process has written, and all of them later
        self._later_file, self.later = None, []

    def close(self):
        for file in (self._file, self._later_file):
            if file:
                file.close()

    def prepare_later(self):
        """Make the file for what a copy of this process will read."""
        self._later_file = tempfile.TemporaryFile(dir=self._directory)

    def begin_later(self):
        """In that copy, write to that file."""
        self._file, self._written, self._last = self._later_file, [], {}

    def end_later(self):
        """The parts that it wrote."""
        last, self._last = self._last, {}
        if last:
            self.add(last)
        return self._written

    def add(self, changes, last=False):
        """changes: {key: (create revision, mod revision, version)}, later than all before.  The last ones stay in memory where there is room."""
        if not changes or (last and len(self._written) < _MANY_PARTS):
            self._last = changes
            return
        if len(self._written) == _MOST_PARTS:
            self._written = [self._write(self._blocks())]
        keys = sorted(changes)
        count = max(1, min(_BLOCK_KEYS, _BLOCK_BYTES * len(keys) // sum(map(len, keys))))
        self._written.append(self._write((keys[at : at + count], changes) for at in range(0, len(keys), count)))

    def merged(self):
        """(key, (create revision, mod revision, version)) of every key that was not deleted, in order."""
        for keys, changes in self._blocks():
            for key in keys:
                numbers = changes[key]
                if numbers[2]:
                    yield key, numbers

    def _blocks(self):
        """(keys, changes) of all parts together, in order."""
        parts = [_Part(self._file.fileno(), start, end) for start, end in self._written]
        if self._last:
            parts.append(_Part(changes=self._last))
        parts += [_Part(self._later_file.fileno(), start, end) for start, end in self.later]
        while parts:
            self._check_time()
            # No part has a key up to here that is not in memory.
            bound = min(part.keys[-1] for part in parts)
            concerned = [part for part in parts if part.first <= bound]
            if len(concerned) * _BLOCK_KEYS > _MERGED_KEYS:
                step = max(1, _MERGED_KEYS // len(concerned))
                bound = min(part.key_behind(step) for part in concerned)
            changes = {}
            for part in concerned:
                part.take(bound, changes)
            yield sorted(changes), changes
            parts = [part for part in parts if part.keys]

    def _write(self, blocks):
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory)
        start = self._file.seek(0, os.SEEK_END)
        for number, (keys, changes) in enumerate(blocks):
            if number % 64 == 0:
                self._check_time()
                short = shortage(self._directory, _SPARE if self.spare is None else self.spare, "sorting the keys of the snapshot")
                if short:
                    raise NoRoom(short)
            lengths, names, numbers = array.array("I", map(len, keys)), b"".join(keys), _numbers_of(keys, changes)
            self._file.write(b"".join((_BLOCK.pack(len(keys), len(names)), lengths.tobytes(), numbers.tobytes(), names)))
        self._file.flush()
        return start, self._file.tell()


class _Part:
    """A block of one part in memory: its `keys`, or none at the end of the part, and the `first` of them that was not taken yet."""

    def __init__(self, descriptor=None, start=0, end=0, changes=None):
        self._descriptor, self._next, self._end = descriptor, start, end
        self._at = 0
        self.keys = sorted(changes or ())
        # three of each key, which take less memory than a tuple
        self._numbers = _numbers_of(self.keys, changes)
        self.first = self.keys[0] if self.keys else None
        if not self.keys:
            self._load()

    def key_behind(self, step):
        """The last one of so many keys in memory that were not taken yet, or of fewer."""
        return self.keys[min(self._at + step, len(self.keys)) - 1]

    def take(self, bound, changes):
        """Put those up to the key `bound` into `changes`."""
        keys, at = self.keys, self._at
        if self.first > bound:
            return
        behind = bisect.bisect_right(keys, bound, at)
        numbers = iter(self._numbers[3 * at : 3 * behind])
        changes.update(zip(keys[at:behind], zip(numbers, numbers, numbers)))
        self._at = behind
        if behind == len(keys):
            self._load()
        else:
            self.first = keys[behind]

    def _load(self):
        self.keys, self._numbers, self._at = [], array.array("Q"), 0
        if self._next >= self._end:
            return
        count, size = _BLOCK.unpack(os.pread(self._descriptor, _BLOCK.size, self._next))
        lengths, numbers = array.array("I"), self._numbers
        data = os.pread(self._descriptor, count * (lengths.itemsize + 3 * numbers.itemsize) + size, self._next + _BLOCK.size)
        self._next += _BLOCK.size + len(data)
        names = count * (lengths.itemsize + 3 * numbers.itemsize)
        lengths.frombytes(data[: count * lengths.itemsize])
        numbers.frombytes(data[count * lengths.itemsize : names])
        for length in lengths:
            self.keys.append(data[names : names + length])
            names += length
        self.first = self.keys[0]


def _numbers_of(keys, changes):
    return array.array("Q", itertools.chain.from_iterable(map(changes.__getitem__, keys))) if keys else array.array("Q")
