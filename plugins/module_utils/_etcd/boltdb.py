# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof that a file is a snapshot of etcd, without etcd's tools.  Private to this collection.

A snapshot is a bolt database followed by the SHA-256 of it.  `snapshot status` never looks at that checksum, and
`snapshot restore` looks at nothing else, so both the checksum and the structure are verified here.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import hashlib
import operator
import os
import shlex
import stat
import struct
import time
import zlib

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import begin_writing

# Where etcd's database is in the directory `member` of its data.
DATABASE = os.path.join("snap", "db")
TRAILER = hashlib.sha256().digest_size
BLOCK = 1024 * 1024
# Bytes that go to the disk together while more is written.
_STRETCH = 32 * BLOCK

# bolt writes the structures of its host as they are in memory, hence native byte order.
META = struct.Struct("=IIIIQQQQQQ")
Meta = collections.namedtuple("Meta", "magic format page_size flags root sequence freelist high_water txid checksum")
PAGE = struct.Struct("=QHHI")
Page = collections.namedtuple("Page", "number flags count overflow")
BRANCH_ELEMENT = struct.Struct("=IIQ")
LEAF_ELEMENT = struct.Struct("=IIII")
BUCKET = struct.Struct("=QQ")
MAGIC = 0xED0CDAED
FORMAT = 2
BRANCH, LEAF, META_PAGE = 1, 2, 4
BUCKET_ELEMENT = 1
# A leaf page, or what stands for one of a small bucket: buffer[at:] is what was read of it, and buffer[0] is at `base` in the file.  Its keys must be
# from `low` on, and below `high`.
Leaf = collections.namedtuple("Leaf", "where count at length buffer base low high")
# A running etcd commits every 0.1 s.
_GLANCES = 20
_BETWEEN_GLANCES = 0.02
# Pages of a walk between two looks at the time, and the bytes that are read of pages which follow each other.
_PAGES_AT_ONCE = 256
_AHEAD = 128 * 1024

# What a file may be that is no database, whatever it is called: offset, what is there, in words, and how the snapshot is got out of it. k3s and RKE2 store zip.
_FILE = "%s {0} >{0}.db"
PACKED = (
    (0, b"PK\x03\x04", "a zip archive", "python3 -m zipfile -e {0} {0}.d"),
    (257, b"ustar", "a tar archive", "mkdir {0}.d && tar -xf {0} -C {0}.d"),
    (0, b"\x1f\x8b", "compressed with gzip", _FILE % "gzip -dc"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _FILE % "zstd -dc"),
    (0, b"\xfd7zXZ\x00", "compressed with xz", _FILE % "xz -dc"),
    (0, b"BZh", "compressed with bzip2", _FILE % "bzip2 -dc"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", _FILE % "lz4 -dc"),
    (0, b"age-encryption.org/", "encrypted with age", _FILE % "age -d -i KEYFILE"),
    (0, b"-----BEGIN AGE ENCRYPTED FILE", "encrypted with age", _FILE % "age -d -i KEYFILE"),
    (0, b"-----BEGIN PGP MESSAGE", "encrypted with GnuPG", _FILE % "gpg -d"),
    (0, b"Salted__", "encrypted with openssl", "openssl enc -d -in {0} -out {0}.db -CIPHER"),
)
_TAR, _GZIP = PACKED[1:3]
_HEAD = 64 * 1024


# What tells one state of a file from another, the SHA-256 of all of it, and whether it ends in the SHA-256 of the rest.
Hashed = collections.namedtuple("Hashed", "facts sha256 whole")


class Corrupt(Exception):
    """The database contradicts itself."""


class OutOfTime(Exception):
    """The file could not be read before the deadline."""


class Proof:
    """What was found.  `integrity` is one word, `problems` are sentences; a file is sound when there are none."""

    def __init__(self, path):
        self.path = path
        self.size = None
        self.sha256 = None
        self.database_size = None
        self.revision = None
        self.storage_version = None
        self.locked = False
        self.findings = []

    @property
    def integrity(self):
        return self.findings[0][0] if self.findings else "ok"

    @property
    def problems(self):
        return [sentence for _word, sentence in self.findings]

    def found(self, word, sentence):
        self.findings.append((word, "%s %s" % (self.path, sentence)))


class _Hashing:
    """The SHA-256 of an open file from its beginning to `offset`, and in the end whether its last bytes are the SHA-256 of all others."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.offset = 0
        self._digest = hashlib.sha256()
        self._buffer = memoryview(bytearray(BLOCK))

    def read(self, end, check_time=None):
        """Read on to the offset `end`, or as far as there is something."""
        while self.offset < end:
            if check_time:
                check_time()
            count = os.preadv(self.descriptor, [self._buffer[: min(BLOCK, end - self.offset)]], self.offset)
            if count == 0:
                break
            self._digest.update(self._buffer[:count])
            self.offset += count

    def finish(self, size, check_time=None):
        """(SHA-256 of all, whether it ends in that of the rest) of the file, which has this size."""
        body = size - TRAILER
        self.read(body, check_time)
        inner = self._digest.digest() if self.offset == body else None
        trailer = os.pread(self.descriptor, min(size, TRAILER), self.offset)
        self._digest.update(trailer)
        return self._digest.hexdigest(), trailer == inner


class GrowingFile:
    """A snapshot that another process writes from front to back and then renames, hashed while that goes on; a context.

    paths: the names that it may have meanwhile.  One look takes some hundredths of a second.
    """

    def __init__(self, *paths):
        self._paths = paths
        self._hashing = None

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self._hashing:
            os.close(self._hashing.descriptor)

    def look(self):
        """Hash what there is more of it by now, and have it written to the disk.  Never raises."""
        with contextlib.suppress(OSError):
            hashing = self._opened()
            if hashing:
                start = hashing.offset
                # the last bytes may be the checksum
                hashing.read(min(os.fstat(hashing.descriptor).st_size - TRAILER, start + _STRETCH))
                if hashing.offset > start:
                    # whoever writes it waits for the disk in the end
                    begin_writing(hashing.descriptor, start, hashing.offset - start)

    def finish(self, deadline):
        """Hashed of the file, which is complete now; None when all of it is still to be read.  deadline: of time.monotonic().  Never raises."""

        def check_time():
            if time.monotonic() > deadline:
                raise OutOfTime()

        with contextlib.suppress(OSError, OutOfTime):
            hashing = self._opened()
            if hashing:
                found = os.fstat(hashing.descriptor)
                # the rename sets the one, writing sets both: what was written since the rename may not have been read
                if found.st_mtime_ns >= found.st_ctime_ns:
                    return None
                sha256, whole = hashing.finish(found.st_size, check_time)
                # one that does not end in its checksum may have been written in another order
                return Hashed(_facts(found), sha256, whole) if whole else None
        return None

    def _opened(self):
        for path in self._paths if self._hashing is None else ():
            with contextlib.suppress(FileNotFoundError):
                self._hashing = _Hashing(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
                break
        return self._hashing


class SnapshotFile:
    """An open snapshot file.  It is opened once, so that everything that is read is read from one and the same file."""

    def __init__(self, path, deadline=None, hashed=None, beside=None):
        """path: absolute.  deadline: of time.monotonic().  A file that cannot be opened is a finding, not an exception.

        hashed: what hash_file() returned; as long as the file is the same it is not read again for its hash.
        beside: is called every few milliseconds while the file is read, and must not raise.
        """
        self.proof = Proof(path)
        self.deadline = deadline
        self.hashed = hashed
        self.beside = beside
        self.fd = None
        self.before = None
        # the meta page, what the walk found, and what it raised, when walk_early() has been there
        self._walked = None
        try:
            # A FIFO would block open() and a device may act on it, so look first; O_NONBLOCK is for what changes in between.
            if stat.S_ISREG(os.stat(path).st_mode):
                self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
                self.before = os.fstat(self.fd)
        except FileNotFoundError:
            dangling = " (it is a symbolic link to nothing)" if os.path.islink(path) else ""
            self.proof.found("absent", "does not exist on this host%s" % dangling)
            return
        except OSError as exc:
            self.proof.found("unreadable", "cannot be opened: %s" % exc.strerror)
            return
        if self.before is None or not stat.S_ISREG(self.before.st_mode):
            self.proof.found("not_a_file", "is not a regular file")
            return
        self.proof.size = self.before.st_size
        self.proof.locked = self._is_locked()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.fd is not None:
            os.close(self.fd)

    def _is_locked(self):
        """Whether another process locks the file, as a running etcd does; opening it with bolt then waits for ever."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        except OSError as exc:
            # Some network file systems know no locks; then there is none.
            return exc.errno in (errno.EWOULDBLOCK, errno.EACCES)
        return False

    def prove(self, everything=False):
        """Find the first problem, or with `everything` all there are; returns the Proof."""
        if self.proof.findings:
            return self.proof
        try:
            self._prove(everything)
        except OutOfTime:
            self.proof.found("unproven", "could not be read in the time given; raise `timeout` or find out why the disk is so slow")
        except OSError as exc:
            self.proof.found("unreadable", "cannot be read: %s; copy it again, or use another snapshot" % exc.strerror)
        self.check_unchanged()
        return self.proof

    def _prove(self, everything):
        meta, appended = self.prove_bytes(everything)
        if meta is None:
            return
        try:
            self._walk_once(meta)
        except (Corrupt, struct.error) as exc:
            cause = "its checksum is right, so the database was damaged before the snapshot was taken" if appended else "its pages contradict each other"
            self.proof.found("corrupt", "holds a damaged database (%s): %s; use another snapshot" % (exc, cause))

    def walk_early(self):
        """Check the pages while the checksum is not known yet, so that prove() is done when that is right.  Never raises."""
        meta = self._meta() if self.proof.size and not self.proof.findings else None
        if meta is None or meta.high_water * meta.page_size + TRAILER != self.proof.size:
            return
        raised = None
        try:
            self._walk(meta)
        except (Corrupt, struct.error, OutOfTime, OSError) as exc:
            raised = exc
        # a checksum that is wrong is said first
        self._walked = (meta, list(self.proof.findings), raised)
        self.proof.findings.clear()

    def _walk_once(self, meta):
        """Walk, or do as if, when walk_early() has."""
        if self._walked is None or self._walked[0] != meta:
            self._walk(meta)
            return
        self.proof.findings += self._walked[1]
        if self._walked[2]:
            raise self._walked[2]

    def prove_bytes(self, everything=False):
        """Prove size and checksum alone, which is all that `snapshot restore` looks at.

        Returns the meta page, or None when nothing more is to be read, and whether the checksum is right.  Raises OutOfTime and OSError.
        """
        proof = self.proof
        if not proof.size:
            proof.found("empty", "is empty; take the snapshot again")
            return None, False
        meta = self._meta()
        if meta is None:
            self._no_database()
        else:
            proof.database_size = meta.high_water * meta.page_size
            self._check_size()
        if proof.findings and not everything:
            return None, False
        appended = self.hash().whole
        if not proof.findings and not appended:
            proof.found(
                "mismatch",
                "is damaged: its contents do not match the SHA-256 at its end; copy it again from where it was taken, or use another snapshot",
            )
        if meta is None or proof.database_size > proof.size or (proof.findings and not everything):
            return None, appended
        return meta, appended

    def check_unchanged(self):
        """Note it when the file is no longer the one that was opened: then nothing that was found can be trusted."""
        if self.before is None or self.proof.integrity == "changed":
            return
        if self.proof.locked and self.proof.integrity == "missing":
            # A running etcd writes to its database all the time; that is said already, and better.
            return
        try:
            now = (os.fstat(self.fd), os.stat(self.proof.path))
        except OSError:
            now = ()
        if not now or any(_facts(self.before) != _facts(one) for one in now):
            sentence = "%s was written to, replaced or removed while it was checked; wait until it is complete and check it again" % self.proof.path
            self.proof.findings.insert(0, ("changed", sentence))

    def head(self):
        """How the file begins; b"" when it could not be opened."""
        return self._read(0, _HEAD) if self.proof.size else b""

    def _no_database(self):
        self.proof.found(
            "not_a_database", packed(self.head(), self.proof.path) or "is not a snapshot of etcd: it has no valid database header; use another snapshot"
        )

    def _check_size(self):
        proof, whole = self.proof, self.proof.database_size + TRAILER
        if proof.size < proof.database_size:
            proof.found("truncated", "was cut off: it has %d of %d bytes; copy it again, or use another snapshot" % (proof.size, whole))
        elif proof.size % 512 == 0:
            if proof.locked:
                proof.found("missing", "is the database of a running etcd and not a snapshot of it; take one with `etcdctl snapshot save`")
            else:
                proof.found(
                    "missing",
                    "lacks the SHA-256 that `etcdctl snapshot save` appends: it is a copy of a data file or was cut off; take the snapshot again",
                )
        elif proof.size < whole:
            proof.found("truncated", "was cut off within the SHA-256 at its end: it has %d of %d bytes; copy it again" % (proof.size, whole))
        elif proof.size > whole:
            proof.found(
                "too_long",
                "is %d bytes longer than the snapshot in it: something was appended, or files were joined; copy it again, or use another snapshot"
                % (proof.size - whole),
            )

    def _read(self, offset, length):
        """Exactly so many bytes, or fewer at the end of the file."""
        data = os.pread(self.fd, length, offset)
        while 0 < len(data) < length:
            more = os.pread(self.fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _check_time(self):
        if self.beside:
            self.beside()
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime()

    def hash(self):
        """Read it all once, unless that was done before; returns what hash_file() does."""
        facts = _facts(self.before)
        if self.hashed is None or self.hashed.facts != facts:
            whole = self._hash()
            self.hashed = Hashed(facts, self.proof.sha256, whole)
        self.proof.sha256 = self.hashed.sha256
        return self.hashed

    def _hash(self):
        """Read it all once, for the SHA-256 of the file; returns whether its last bytes are the SHA-256 of all others."""
        self.proof.sha256, whole = _Hashing(self.fd).finish(self.proof.size, self._check_time)
        return whole

    def _meta(self):
        """The newest valid one of the two meta pages, or None.  The second lies at a place that only the page size tells."""
        metas = []
        for offset in [0] + [1 << power for power in range(9, 25)]:
            data = self._read(offset, PAGE.size + META.size)
            if len(data) < PAGE.size + META.size:
                break
            meta = Meta._make(META.unpack_from(data, PAGE.size))
            if meta.magic != MAGIC or meta.format != FORMAT or meta.checksum != _fnv1a(data[PAGE.size : PAGE.size + META.size - 8]):
                continue
            size = meta.page_size
            if Page._make(PAGE.unpack_from(data)).flags & META_PAGE and 512 <= size <= 1 << 24 and size & (size - 1) == 0 and offset in (0, size):
                metas.append(meta)
            if offset:
                break
        return max(metas, key=lambda meta: meta.txid) if metas else None

    def used(self):
        """Bytes of the file that belong to the database; 0 when there is none."""
        meta = self._meta() if self.proof.size else None
        return meta.high_water * meta.page_size if meta else 0

    def glance(self, small, last=()):
        """{name: {key: value}} of the buckets `small`, and of the last leaf of the buckets `last`, without the rest of the database.

        An etcd may write to it meanwhile.  None when nothing whole was to be read; never raises.
        """
        for dummy in range(_GLANCES if self.proof.size else 0):
            try:
                meta = self._meta()
                if meta is None:
                    return None
                found = {}
                for bucket, keys, values in _Tree(self._read, meta.page_size, meta.high_water).leaves(meta.root, tuple(small) + tuple(last), last):
                    # of the bucket that is only looked at the values may be large
                    found.setdefault(bucket[0], {}).update((key, values(key) if bucket[0] in small else b"") for key in keys)
                # bolt writes over what a commit freed in the commit after it; as long as there was none, all of this was of one
                if self._meta() == meta:
                    return found
            except (Corrupt, struct.error, OSError, MemoryError):
                pass
            time.sleep(_BETWEEN_GLANCES)
        return None

    def others(self, bucket, most):
        """{name: [(key, value)]} of all buckets of the top level but one, in order; None for more than `most` bytes, or when nothing whole was read.

        An etcd may write to it meanwhile.
        """
        for dummy in range(_GLANCES if self.proof.size else 0):
            try:
                meta = self._meta()
                if meta is None:
                    return None
                found, size = {}, 0
                for names, keys, values in _Tree(self._read, meta.page_size, meta.high_water).leaves(meta.root, without=(bucket,)):
                    pairs = [(key, values(key)) for key in keys]
                    size += sum(len(key) + len(value) for key, value in pairs)
                    if len(names) > 1 or size > most:
                        return None
                    found.setdefault(names[0], []).extend(pairs)
                if self._meta() == meta:
                    return found
            except (Corrupt, struct.error, OSError, MemoryError):
                pass
            time.sleep(_BETWEEN_GLANCES)
        return None

    def page_of(self, bucket):
        """(offset in the file, flags, number of elements) of the page that a bucket of the top level begins with; None without one."""
        meta = self._meta()
        return _Tree(self._read, meta.page_size, meta.high_water).page_of(meta.root, bucket) if meta else None

    def _walk(self, meta):
        """Follow every page of every bucket, as `snapshot status` does; raises Corrupt.  Notes the revision and the storage version."""
        for leaf in self._walk_to_records(meta):
            self._check_records(leaf)

    def _walk_to_records(self, meta, share=None):
        """The same without the records of etcd: yields every Leaf of bucket `key` in order, of which a caller checks the elements.

        share: is called as share(tree, children) where that bucket begins with a branch page, and returns the children that are followed here.
        """
        tree, there = _Tree(self._read, meta.page_size, meta.high_water), False
        for number, (bucket, keys, values) in enumerate(tree.leaves(meta.root, unread=(b"key",), share=share)):
            if number % _PAGES_AT_ONCE == 0:
                self._check_time()
            if bucket == (b"key",):
                there = True
                yield keys
            elif bucket == (b"meta",) and b"storageVersion" in keys:
                self.proof.storage_version = values(b"storageVersion")[:64].decode("ascii", "replace")
        if not there:
            self.proof.found("no_key_bucket", "is a database, but not one of etcd 3: it has no bucket `key`; use another snapshot")

    def _walk_children(self, tree, children):
        """Yield every Leaf below the children that share() did not return."""
        for number, (_bucket, leaf, _values) in enumerate(tree.visit(children[::-1], unread=(b"key",))):
            if number % _PAGES_AT_ONCE == 0:
                self._check_time()
            yield leaf

    def _check_records(self, leaf):
        """Check the elements of a Leaf of bucket `key`; raises Corrupt.  The keys of this bucket are revisions: 8 bytes, an underscore, 8 bytes, and a t
        for a deletion.
        """
        keys = elements_of(leaf, self._read)[0]
        if not set(map(len, keys)) <= {17, 18}:
            raise Corrupt("bucket `key` holds a key that is not a revision")
        self.proof.revision = max(self.proof.revision or 0, int.from_bytes(keys[-1][:8], "big") if keys else 0)


def database_path(data_dir):
    """Where etcd keeps its database in a data directory, whether there is one or not."""
    return os.path.join(data_dir, "member", DATABASE)


def write_snapshot(database, target):
    """Write the database of an etcd that has ended as a snapshot, as etcd sends it; returns its Hashed.  Raises Corrupt and OSError.

    All pages that bolt uses and their SHA-256 (3.7.3: server/etcdserver/api/v3rpc/maintenance.go, Snapshot; bbolt 1.5.0: tx.go, WriteTo).
    """
    digest, offset, buffer = hashlib.sha256(), 0, memoryview(bytearray(BLOCK))
    with SnapshotFile(database) as source, open(target, "xb") as out:
        os.fchmod(out.fileno(), 0o600)
        size = source.used()
        while offset < size:
            count = os.preadv(source.fd, [buffer[: min(BLOCK, size - offset)]], offset)
            if count == 0:
                break
            digest.update(buffer[:count])
            out.write(buffer[:count])
            offset += count
            if offset % _STRETCH == 0:
                out.flush()
                begin_writing(out.fileno(), offset - _STRETCH, _STRETCH)
        if not size or offset < size:
            raise Corrupt("%s has %d of %d bytes" % (database, offset, size) if size else "%s is no database" % database)
        trailer = digest.digest()
        digest.update(trailer)
        out.write(trailer)
        out.flush()
        os.fsync(out.fileno())
        return Hashed(_facts(os.fstat(out.fileno())), digest.hexdigest(), True)


def hash_file(path, beside=None):
    """Hashed of any regular file, read once.  beside: as SnapshotFile has it.  Raises OSError."""
    with SnapshotFile(path, beside=beside) as opened:
        if opened.fd is None:
            # what the reason is, as an exception
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return opened.hash()


def verified_before(path):
    """Hashed of a snapshot of which something else has proved the checksum, so that it is not read for that; None when it is not there."""
    with contextlib.suppress(OSError):
        return Hashed(_facts(os.stat(path)), None, True)
    return None


def _facts(status):
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def packed_file(path):
    """One sentence when a file is something that snapshots are packed into; None for others, and for what cannot be read. Never raises."""
    words = None
    with contextlib.suppress(OSError), SnapshotFile(path) as opened:
        words = packed(opened.head(), path)
    return "%s %s" % (path, words) if words else None


def packed(head, path):
    """What a file is, by how it begins, that may have a snapshot in it, and how to get that out; None for anything else."""
    found = next((one for one in PACKED if head.startswith(one[1], one[0])), None)
    if found is None:
        return None
    _offset, magic, what, command = found
    if magic == _GZIP[1]:
        with contextlib.suppress(zlib.error):
            if zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 512).startswith(_TAR[1], _TAR[0]):
                what, command = "a tar archive, " + what, _TAR[3]
    where = "the file that this writes"
    if "tar -xf" in command:
        # OpenShift's cluster-backup.sh makes static_kuberesources_*.tar.gz, which has none, and snapshot_*.db
        where = "the snapshot in it (in a backup of OpenShift that is snapshot_*.db, beside the archive)"
    elif "zipfile" in command:
        where = "the snapshot in it"
    # it holds every Secret of the cluster
    return "is %s, not a snapshot; unpack it with `umask 077; %s`, and give the path of %s" % (what, command.format(shlex.quote(path)), where)


class _Tree:
    """The buckets of a bolt database, read page by page; no more than one page's elements and keys are held."""

    # Of a page with overflow the values fill most, and they need not be read.
    WINDOW = 64 * 1024

    def __init__(self, read, page_size, high_water):
        self.read = read
        self.page_size = page_size
        self.high_water = high_water
        self.seen = bytearray(high_water)
        # what was read last, from where, and where the page behind the last one begins
        self._buffer, self._base, self._next = b"", 0, 0

    def leaves(self, root, only=None, last=(), without=(), unread=(), share=None):
        """(names of the bucket, its keys on this page, a function that reads the value of a key) of every leaf page.

        only: names of the buckets to open, instead of all but those in `without`.  last: names of those of which the last leaf does.
        unread: names of those of which (names of the bucket, a Leaf, None) is yielded instead.  share: as _walk_to_records() has it, for them.
        """
        return self.visit([((), root, None, None)], only, last, without, unread, share)

    def visit(self, todo, only=None, last=(), without=(), unread=(), share=None):
        """The same from what is still to be visited, the next at the end: bucket, page, the lowest key it may hold, and the key that its keys are below."""
        while todo:
            bucket, page, low, high = todo.pop()
            flags, *where = self._page(page)
            leaf = Leaf("page %d" % page, *where, low, high)
            if flags & BRANCH:
                children = self._children(bucket, leaf)
                if share and bucket and bucket[0] in unread:
                    children, share = share(self, children), None
                todo.extend(children[-1:] if bucket and bucket[0] in last else reversed(children))
            elif bucket and bucket[0] in unread:
                yield bucket, leaf, None
            else:
                keys, values, buckets = elements_of(leaf, self.read, self.page_size)
                if not bucket:
                    buckets = [name for name in buckets if name not in without and (only is None or name in only)]
                todo.extend(self._open(bucket, buckets, values))
                if bucket:
                    yield bucket, keys, values
                for key, inline in self._inline(bucket, buckets, values):
                    if not bucket and key in unread:
                        yield (key,), inline, None
                        continue
                    yield (bucket + (key,), *elements_of(inline, self.read)[:2])

    def page_of(self, root, bucket):
        """What SnapshotFile.page_of returns."""
        todo = [root]
        while todo:
            number = todo.pop()
            kind, count, begin, length, buffer, base = self._page(number)
            if kind & BRANCH:
                todo.extend(child[1] for child in self._children((), Leaf("", count, begin, length, buffer, base, None, None)))
                continue
            for at in range(begin + PAGE.size, begin + PAGE.size + count * LEAF_ELEMENT.size, LEAF_ELEMENT.size):
                flags, position, key_size, _value_size = LEAF_ELEMENT.unpack_from(buffer, at)
                start = at + position
                if flags & BUCKET_ELEMENT and _bytes(self.read, buffer, base, start, start + key_size) == bucket:
                    value = base + start + key_size
                    child = BUCKET.unpack(self.read(value, BUCKET.size))[0]
                    if child >= self.high_water:
                        raise Corrupt("page %d is out of range" % child)
                    # one without a page of its own lies in the value, behind its header
                    page = child * self.page_size if child else value + BUCKET.size
                    head = Page._make(PAGE.unpack(self.read(page, PAGE.size)))
                    return page, head.flags, head.count
        return None

    def _page(self, number):
        """(flags, number of elements, and at, length, buffer and base of a Leaf)"""
        if not 2 <= number < self.high_water:
            raise Corrupt("page %d is out of range" % number)
        size, begin = self.page_size, number * self.page_size
        at = begin - self._base
        if not 0 <= at <= len(self._buffer) - size:
            # most pages follow the one before
            self._load(begin, max(size, _AHEAD) if begin == self._next else size)
            at = 0
            if len(self._buffer) < size:
                raise Corrupt("page %d is not there" % number)
        own_number, flags, count, overflow = PAGE.unpack_from(self._buffer, at)
        if own_number != number or flags not in (BRANCH, LEAF):
            raise Corrupt("page %d is not a page of a bucket" % number)
        end = number + overflow + 1
        if end > self.high_water:
            raise Corrupt("page %d reaches beyond the end" % number)
        if self.seen.find(1, number, end) >= 0:
            raise Corrupt("page %d is used twice" % number)
        self.seen[number:end] = b"\1" * (end - number)
        length = (overflow + 1) * size
        used = PAGE.size + count * LEAF_ELEMENT.size
        if used > length:
            raise Corrupt("page %d counts more elements than it can hold" % number)
        wanted = min(length, max(self.WINDOW, used))
        if at + wanted > len(self._buffer):
            self._load(begin, max(wanted, _AHEAD) if begin == self._next else wanted)
            at = 0
        self._next = end * size
        return flags, count, at, length, self._buffer, self._base

    def _load(self, begin, size):
        self._buffer, self._base = self.read(begin, size), begin

    def _children(self, bucket, leaf):
        at, children, keys = leaf.at + PAGE.size, [], []
        if not leaf.count:
            raise Corrupt("branch %s is empty" % leaf.where)
        stop = leaf.at + leaf.length
        for position, key_size, child in BRANCH_ELEMENT.iter_unpack(leaf.buffer[at : at + leaf.count * BRANCH_ELEMENT.size]):
            start, end = at + position, at + position + key_size
            if end > stop or key_size > 1 << 15:
                raise Corrupt("%s has an element that reaches beyond it" % leaf.where)
            keys.append(_bytes(self.read, leaf.buffer, leaf.base, start, end))
            children.append(child)
            at += BRANCH_ELEMENT.size
        _check_order(leaf.where, keys, leaf.low, leaf.high)
        return [(bucket, child, key, after) for child, key, after in zip(children, keys, keys[1:] + [leaf.high])]

    @staticmethod
    def _open(bucket, buckets, values):
        """What to visit for the buckets on a leaf that have pages of their own."""
        for key in buckets:
            root = BUCKET.unpack_from(values(key))[0]
            if root:
                yield bucket + (key,), root, None, None

    def _inline(self, bucket, buckets, values):
        """Small buckets lie within the value of their element, as a page without a number."""
        for key in buckets:
            data = values(key)
            if BUCKET.unpack_from(data)[0]:
                continue
            page = data[BUCKET.size :]
            where = "bucket %s" % b"/".join(bucket + (key,)).decode("ascii", "replace")
            if len(page) < PAGE.size:
                raise Corrupt("%s is cut off" % where)
            head = Page._make(PAGE.unpack_from(page))
            if head.flags != LEAF or head.overflow or PAGE.size + head.count * LEAF_ELEMENT.size > len(page):
                raise Corrupt("%s is damaged" % where)
            yield key, Leaf(where, head.count, 0, len(page), page, 0, None, None)


def _bytes(read, buffer, base, start, end):
    return buffer[start:end] if end <= len(buffer) else read(base + start, end - start)


def elements_of(leaf, read, page_size=0):
    """(keys, a function that reads a value, keys of the elements that are buckets) of a Leaf.  Raises Corrupt.

    read: is called with an offset of the file and a number of bytes.  page_size: the most bytes of a bucket in its element; 0 where none can be.
    """
    where, count, begin, length, buffer, base, low, high = leaf
    at, keys, buckets = begin + PAGE.size, [], []
    stop, size, used = begin + length, len(buffer), at + count * LEAF_ELEMENT.size
    for flags, position, key_size, value_size in LEAF_ELEMENT.iter_unpack(buffer[at:used]):
        start = at + position
        end = start + key_size
        used += key_size + value_size
        if end + value_size > stop or key_size > 1 << 15 or used > stop:
            raise Corrupt("%s has an element that reaches beyond it" % where)
        key = buffer[start:end] if end <= size else read(base + start, key_size)
        keys.append(key)
        if flags & BUCKET_ELEMENT:
            if not page_size:
                raise Corrupt("%s holds a bucket where none can be" % where)
            if not BUCKET.size <= value_size <= page_size:
                raise Corrupt("%s has a bucket without a header" % where)
            buckets.append(key)
        at += LEAF_ELEMENT.size
    _check_order(where, keys, low, high)

    def value(key):
        at = begin + PAGE.size + keys.index(key) * LEAF_ELEMENT.size
        position, key_size, value_size = LEAF_ELEMENT.unpack_from(buffer, at)[1:]
        start = at + position + key_size
        return _bytes(read, buffer, base, start, start + value_size)

    return keys, value, buckets


def _check_order(where, keys, low, high):
    if not all(map(operator.lt, keys, keys[1:])):
        raise Corrupt("%s has keys out of order" % where)
    if keys and ((low is not None and keys[0] < low) or (high is not None and keys[-1] >= high)):
        raise Corrupt("%s has keys that belong elsewhere" % where)


def _fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
