# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verification of a file, on snapshots that are made here byte by byte."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import SnapshotFile
from hypothesis import given, settings, strategies as st

PAGE = 4096
BRANCH, LEAF, META, FREE = 1, 2, 4, 16


def fnv1a(data):
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return value


def meta_page(number, txid, root, high_water, page_size=PAGE):
    body = struct.pack("=IIIIQQQQQ", 0xED0CDAED, 2, page_size, 0, root, 0, 2, high_water, txid)
    return (struct.pack("=QHHI", number, META, 0, 0) + body + struct.pack("=Q", fnv1a(body))).ljust(page_size, b"\0")


def leaf_page(number, elements, length=PAGE, overflow=0):
    """elements: (key, value) or (key, value, True) for a bucket."""
    at, table, data = 16, b"", b""
    for element in elements:
        key, value = element[:2]
        table += struct.pack("=IIII", int(len(element) > 2), 16 * len(elements) - len(table) + len(data), len(key), len(value))
        data += key + value
    page = struct.pack("=QHHI", number, LEAF, len(elements), overflow) + table + data
    assert at and len(page) <= (length or len(page))
    return page.ljust(length, b"\0")


def branch_page(number, elements):
    """elements: (key, page)."""
    table, data = b"", b""
    for key, page in elements:
        table += struct.pack("=IIQ", 16 * len(elements) - len(table) + len(data), len(key), page)
        data += key
    return (struct.pack("=QHHI", number, BRANCH, len(elements), 0) + table + data).ljust(PAGE, b"\0")


def bucket(root):
    return struct.pack("=QQ", root, 0)


def inline(elements):
    return bucket(0) + leaf_page(0, elements, length=0)


def revision(main, sub=0, deleted=False):
    return struct.pack(">Q", main) + b"_" + struct.pack(">Q", sub) + (b"t" if deleted else b"")


def revisions(first, count):
    return [(revision(number), b"value %d" % number) for number in range(first, first + count)]


ROOT = [(b"cluster", inline([]), True), (b"key", bucket(4), True), (b"meta", inline([(b"storageVersion", b"3.6.0"), (b"term", b"2")]), True)]


def database(replace=None, root=3):
    """Eight pages: two meta, the free list, the root, and bucket `key` as a branch with three leaves, one of them with overflow."""
    made = [
        meta_page(0, 10, root, 9),
        meta_page(1, 9, root, 9),
        struct.pack("=QHHI", 2, FREE, 0, 0).ljust(PAGE, b"\0"),
        leaf_page(3, ROOT),
        branch_page(4, [(revision(2), 5), (revision(12), 6), (revision(22), 7)]),
        leaf_page(5, revisions(2, 10)),
        leaf_page(6, revisions(12, 10)),
        leaf_page(7, [(revision(22), b"x" * 5000), (revision(23, 1, True), b"y")], length=2 * PAGE, overflow=1),
    ]
    for number, page in (replace or {}).items():
        made[number] = page
    return b"".join(made)


def with_checksum(data):
    return data + hashlib.sha256(data).digest()


def prove(tmp_path, data, everything=False, **kwargs):
    path = tmp_path / "file.db"
    path.write_bytes(data)
    with SnapshotFile(str(path), **kwargs) as opened:
        return opened.prove(everything)


def test_sound_snapshot(tmp_path):
    data = with_checksum(database())
    proof = prove(tmp_path, data)
    assert proof.problems == []
    assert proof.integrity == "ok"
    assert (proof.revision, proof.storage_version) == (23, "3.6.0")
    assert (proof.size, proof.database_size) == (len(data), len(data) - 32)
    assert proof.sha256 == hashlib.sha256(data).hexdigest()
    assert not proof.locked


def test_a_snapshot_that_was_verified_is_not_read_again_for_its_checksum(tmp_path):
    """Unless it was written to since."""
    path = tmp_path / "file.db"
    path.write_bytes(database() + b"x" * 32)
    with SnapshotFile(str(path), hashed=boltdb.verified_before(str(path))) as opened:
        assert opened.prove_bytes()[1] and opened.proof.problems == []
    before = boltdb.verified_before(str(path))
    path.write_bytes(database() + b"y" * 32)
    os.utime(path, (1, 1))
    with SnapshotFile(str(path), hashed=before) as opened:
        assert "do not match the SHA-256" in opened.prove().problems[0]
    assert boltdb.verified_before(str(tmp_path / "absent")) is None


@pytest.mark.parametrize("keys", [inline([]), inline(revisions(2, 3))])
def test_fresh_cluster(tmp_path, keys):
    proof = prove(tmp_path, with_checksum(database({3: leaf_page(3, [(b"key", keys, True)])})))
    assert proof.problems == []
    assert proof.revision == (4 if len(keys) > 32 else 0)
    assert proof.storage_version is None


@pytest.mark.parametrize("page_size", [1024, 16384, 65536])
def test_page_size_of_another_host(tmp_path, page_size):
    data = (
        meta_page(0, 10, 3, 4, page_size)
        + meta_page(1, 11, 3, 4, page_size)
        + struct.pack("=QHHI", 2, FREE, 0, 0).ljust(page_size, b"\0")
        + leaf_page(3, [(b"key", inline(revisions(2, 1)), True)], length=page_size)
    )
    assert prove(tmp_path, with_checksum(data)).problems == []
    # With the first meta page gone, the second one is still found.
    proof = prove(tmp_path, with_checksum(bytes(page_size) + data[page_size:]))
    assert (proof.integrity, proof.revision) == ("ok", 2)


GOOD = with_checksum(database())
SIZES = [
    (-1, "truncated"),
    (-16, "truncated"),
    (-31, "truncated"),
    (-32, "missing"),
    (-33, "truncated"),
    (-PAGE, "truncated"),
    (-PAGE - 32, "truncated"),
    (+1, "too_long"),
    (+32, "too_long"),
    (+480, "missing"),
    (+512, "too_long"),
    (+PAGE, "too_long"),
]


@pytest.mark.parametrize(("change", "word"), SIZES)
@pytest.mark.parametrize("everything", [False, True])
def test_wrong_length(tmp_path, change, word, everything):
    data = GOOD[:change] if change < 0 else GOOD + bytes(change)
    proof = prove(tmp_path, data, everything)
    assert proof.integrity == word
    assert len(proof.problems) == 1
    assert str(tmp_path / "file.db") in proof.problems[0]
    assert proof.sha256 == (hashlib.sha256(data).hexdigest() if everything else None)


def test_wrong_checksum(tmp_path):
    for data in (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), GOOD[:9000] + b"!" + GOOD[9001:], database() + bytes(32)):
        proof = prove(tmp_path, data)
        assert (proof.integrity, len(proof.problems)) == ("mismatch", 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"x", "no valid database header"),
        (bytes(PAGE), "no valid database header"),
        (b"\x1f\x8b" + GOOD, "compressed with gzip, not a snapshot"),
        (b"\x28\xb5\x2f\xfd" + GOOD, "compressed with zstd, not a snapshot"),
        (b"\xfd7zXZ\x00" + GOOD, "compressed with xz, not a snapshot"),
        (b"age-encryption.org/v1\n" + GOOD, "encrypted with age, not a snapshot"),
        (b"-----BEGIN PGP MESSAGE-----\n", "encrypted with GnuPG, not a snapshot"),
        (b"Salted__" + GOOD, "encrypted with openssl, not a snapshot"),
        (meta_page(0, 1, 3, 8, page_size=PAGE)[:79], "no valid database header"),
        (with_checksum(database({0: bytes(PAGE), 1: bytes(PAGE)})), "no valid database header"),
    ],
)
def test_no_database(tmp_path, data, words):
    proof = prove(tmp_path, data)
    assert proof.integrity == ("not_a_database" if data else "empty")
    assert words in proof.problems[0]
    assert prove(tmp_path, data, everything=True).integrity == proof.integrity


@pytest.mark.parametrize(
    ("bucket_name", "replace", "root", "expected"),
    [
        (b"meta", {}, 3, (LEAF, 2)),
        (b"cluster", {}, 3, (LEAF, 0)),
        (b"key", {}, 3, (BRANCH, 3)),
        (b"members", {}, 3, None),
        # of a database with so many buckets that their root is a branch
        (b"meta", {2: branch_page(2, [(b"cluster", 3)])}, 2, (LEAF, 2)),
    ],
)
def test_where_a_bucket_begins(tmp_path, bucket_name, replace, root, expected):
    path = tmp_path / "file.db"
    path.write_bytes(database(replace, root))
    with SnapshotFile(str(path)) as opened:
        found = opened.page_of(bucket_name)
    assert (found and found[1:]) == expected
    if found:
        assert struct.unpack_from("=QHHI", path.read_bytes(), found[0])[1:3] == expected


def archive(kind, name, content):
    """What others store a snapshot in: k3s and RKE2 a zip with one file."""
    if kind == "gz":
        return gzip.compress(content)
    if kind in ("zstd", "xz", "bzip2"):
        return subprocess.run([kind, "-c"], input=content, capture_output=True, check=True).stdout
    target = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=target, mode="w:gz" if kind == "tar.gz" else "w") as packed:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return target.getvalue()


@pytest.mark.parametrize("kind", ["zip", "gz", "tar", "tar.gz", "zstd", "xz", "bzip2"])
def test_the_command_that_is_named_unpacks_what_others_took(tmp_path, kind):
    """Whatever the file is called, and wherever it is."""
    there = tmp_path / "it's here"
    there.mkdir()
    path = there / "snapshot.db"
    path.write_bytes(archive(kind, "etcd-snapshot-cp1-1700000000", GOOD))
    with SnapshotFile(str(path)) as opened:
        (problem,) = opened.prove().problems
    assert problem.startswith("%s is " % path) and ", not a snapshot; unpack it with `umask 077; " in problem
    command = re.search("`(.+)`", problem).group(1)
    environment = dict(os.environ, PATH=os.path.dirname(sys.executable) + ":" + os.environ["PATH"])
    subprocess.run(["sh", "-c", command], check=True, cwd="/", capture_output=True, env=environment)
    (found,) = [one for one in there.rglob("*") if one.is_file() and one != path]
    assert found.read_bytes() == GOOD
    assert not found.parent.samefile(there) or found.stat().st_mode & 0o077 == 0
    with SnapshotFile(str(found)) as opened:
        assert opened.prove().integrity == "ok"
    assert ("OpenShift" in problem) is kind.startswith("tar")


def big_endian(data):
    """The header as another kind of processor writes it, which etcd's tools here do not read either."""
    words = struct.unpack("=QHHIIIIIQQQQQQ", data[:80])
    return struct.pack((">" if sys.byteorder == "little" else "<") + "QHHIIIIIQQQQQQ", *words) + data[80:]


def test_database_of_another_byte_order(tmp_path):
    data = with_checksum(database({0: big_endian(meta_page(0, 10, 3, 9)), 1: big_endian(meta_page(1, 9, 3, 9))}))
    assert prove(tmp_path, data).integrity == "not_a_database"


CONTRADICTIONS = {
    "a page that is another": ({5: leaf_page(6, revisions(2, 10))}, "page 5 is not a page of a bucket"),
    "a page of no known kind": ({5: struct.pack("=QHHI", 5, 3, 0, 0).ljust(PAGE, b"\0")}, "page 5 is not a page of a bucket"),
    "an empty page": ({6: bytes(PAGE)}, "page 6 is not a page of a bucket"),
    "a page used twice": ({4: branch_page(4, [(revision(2), 5), (revision(12), 5)])}, "page 5 is used twice"),
    "a page that leads back": ({4: branch_page(4, [(revision(2), 4)])}, "page 4 is used twice"),
    "a page beyond the end": ({4: branch_page(4, [(revision(2), 5), (revision(12), 900)])}, "page 900 is out of range"),
    "a meta page as a leaf": ({4: branch_page(4, [(revision(2), 1)])}, "page 1 is out of range"),
    "an overflow beyond the end": ({5: leaf_page(5, revisions(2, 10), overflow=9)}, "page 5 reaches beyond the end"),
    "an overflow over another page": ({5: leaf_page(5, revisions(2, 10), overflow=1)}, "page 6 is used twice"),
    "a branch without children": ({4: branch_page(4, [])}, "branch page 4 is empty"),
    "more elements than fit": ({5: struct.pack("=QHHI", 5, LEAF, 60000, 0).ljust(PAGE, b"\0")}, "counts more elements"),
    "an element beyond its page": (
        {5: struct.pack("=QHHIIIII", 5, LEAF, 1, 0, 0, 4000, 17, 100).ljust(PAGE, b"\0")},
        "page 5 has an element that reaches beyond it",
    ),
    "elements that cannot all be there": (
        {5: (struct.pack("=QHHI", 5, LEAF, 9, 0) + struct.pack("=IIII", 0, 200, 17, 3000) * 9).ljust(PAGE, b"\0")},
        "page 5 has an element that reaches beyond it",
    ),
    "a key beyond a branch": ({4: struct.pack("=QHHIIIQ", 4, BRANCH, 1, 0, 4000, 200, 5).ljust(PAGE, b"\0")}, "reaches beyond it"),
    "keys out of order": ({5: leaf_page(5, revisions(2, 10)[::-1])}, "page 5 has keys out of order"),
    "a key twice": ({5: leaf_page(5, revisions(2, 1) * 2)}, "page 5 has keys out of order"),
    "children out of order": ({4: branch_page(4, [(revision(12), 6), (revision(2), 5)])}, "page 4 has keys out of order"),
    "keys below their branch": ({6: leaf_page(6, revisions(11, 5))}, "page 6 has keys that belong elsewhere"),
    "keys of the next page": ({5: leaf_page(5, revisions(2, 11))}, "page 5 has keys that belong elsewhere"),
    "a key that is not a revision": ({5: leaf_page(5, [(revision(2) + b"/registry", b"")])}, "not a revision"),
    "a bucket without a header": ({3: leaf_page(3, [(b"key", b"short", True)])}, "bucket without a header"),
    "an inline bucket that is cut off": ({3: leaf_page(3, [(b"key", bucket(0) + b"x", True)])}, "bucket key is cut off"),
    "an inline bucket of branches": ({3: leaf_page(3, [(b"key", bucket(0) + branch_page(0, [])[:16], True)])}, "bucket key is damaged"),
    "an inline bucket that counts wrong": ({3: leaf_page(3, [(b"key", bucket(0) + struct.pack("=QHHI", 0, LEAF, 5, 0), True)])}, "bucket key is damaged"),
    "a bucket within an inline bucket": (
        {3: leaf_page(3, [(b"key", inline([(b"a", bucket(0), True)]), True)])},
        "holds a bucket where none can be",
    ),
}


@pytest.mark.parametrize("name", sorted(CONTRADICTIONS))
def test_contradictions_behind_a_right_checksum(tmp_path, name):
    replace, words = CONTRADICTIONS[name]
    proof = prove(tmp_path, with_checksum(database(replace)))
    assert proof.integrity == "corrupt"
    assert words in proof.problems[0]
    assert "damaged before the snapshot was taken" in proof.problems[0]


def test_database_of_another_program(tmp_path):
    for root in ([], [(b"jobs", inline([]), True)], [(b"key", b"a value, not a bucket")]):
        proof = prove(tmp_path, with_checksum(database({3: leaf_page(3, root)})))
        assert (proof.integrity, proof.revision) == ("no_key_bucket", None)


def test_looking_on_finds_what_a_copied_data_file_holds(tmp_path):
    proof = prove(tmp_path, database(), everything=True)
    assert (proof.integrity, proof.revision) == ("missing", 23)
    proof = prove(tmp_path, database({5: bytes(PAGE)}), everything=True)
    assert [word for word, _sentence in proof.findings] == ["missing", "corrupt"]
    assert "contradict each other" in proof.problems[1]


def test_file_that_changes_meanwhile(tmp_path, monkeypatch):
    path = tmp_path / "file.db"

    def append(_self):
        with open(path, "ab") as out:
            out.write(b"x")

    def replace(_self):
        (tmp_path / "new").write_bytes(GOOD)
        os.replace(tmp_path / "new", path)

    def remove(_self):
        path.unlink()

    real = SnapshotFile._hash
    for meddle in (append, replace, remove):
        monkeypatch.setattr(SnapshotFile, "_hash", lambda self, meddle=meddle: (meddle(self), real(self))[1])
        path.write_bytes(GOOD)
        with SnapshotFile(str(path)) as opened:
            proof = opened.prove()
        assert proof.integrity == "changed"
        assert "while it was checked" in proof.problems[0]
        opened.check_unchanged()
        assert len([word for word, _sentence in proof.findings if word == "changed"]) == 1


def test_file_that_cannot_be_opened_or_read(tmp_path, monkeypatch):
    def refuse(*_args):
        raise PermissionError(errno.EACCES, "Permission denied")

    def fail(*_args):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(boltdb.os, "open", refuse)
        proof = prove(tmp_path, GOOD)
    assert (proof.integrity, proof.size) == ("unreadable", None)
    with monkeypatch.context() as patch:
        patch.setattr(boltdb.os, "preadv", fail)
        proof = prove(tmp_path, GOOD)
    assert proof.integrity == "unreadable"
    assert "Input/output error" in proof.problems[0]


def test_locks_that_a_file_system_does_not_know(tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(boltdb.fcntl, "flock", fail)
    proof = prove(tmp_path, GOOD)
    assert (proof.integrity, proof.locked) == ("ok", False)


def test_time_is_bounded(tmp_path):
    proof = prove(tmp_path, GOOD, deadline=time.monotonic() - 1)
    assert proof.integrity == "unproven"
    assert "raise `timeout`" in proof.problems[0]


def test_memory_is_bounded_and_sparse_files_are_refused_at_once(tmp_path):
    """A terabyte that says it is a database is refused by its size; 200 MB are read in pieces."""
    path = tmp_path / "huge.db"
    path.write_bytes(database())
    os.truncate(path, 1 << 40)
    started = time.monotonic()
    with SnapshotFile(str(path)) as opened:
        assert opened.prove().integrity == "missing"
    assert time.monotonic() - started < 1
    size = 200 * 1000 * 1000 // PAGE
    path.write_bytes(database({0: meta_page(0, 10, 3, size), 1: meta_page(1, 9, 3, size)}))
    os.truncate(path, size * PAGE + 32)
    script = (
        "import re, sys\n"
        "from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import SnapshotFile\n"
        "with SnapshotFile(sys.argv[1]) as opened: print(opened.prove(everything=True).integrity)\n"
        # not ru_maxrss, which begins with what the parent of a vfork had
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))\n"
    )
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    out = subprocess.run([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=env, check=True).stdout.split()
    assert out[0] == b"mismatch"
    assert int(out[1]) < 64 * 1024


@settings(max_examples=150)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=64)), min_size=1, max_size=4),
    cut=st.integers(0, 200),
    more=st.binary(max_size=64),
)
def test_no_damage_is_accepted(tmp_path_factory, edits, cut, more):
    data = GOOD
    for at, new in edits:
        data = data[:at] + new + data[at + len(new) :]
    data = data[: len(data) - cut] + more
    proof = prove(tmp_path_factory.mktemp("fuzz"), data)
    assert (proof.integrity == "ok") == (data == GOOD)


@settings(max_examples=300)
@given(edits=st.lists(st.tuples(st.integers(0, len(GOOD) - 40), st.binary(min_size=1, max_size=16)), min_size=1, max_size=6))
def test_walk_ends_whatever_the_pages_say(tmp_path_factory, edits):
    data = database()
    for at, new in edits:
        data = data[:at] + new[: len(data) - at] + data[at + len(new) :]
    assert prove(tmp_path_factory.mktemp("walk"), with_checksum(data), everything=True).integrity


def glance(tmp_path, data):
    path = tmp_path / "file.db"
    path.write_bytes(data)
    with SnapshotFile(str(path)) as opened:
        return opened.glance((b"meta",), last=(b"key",))


def test_a_glance_reads_small_buckets_and_the_end_of_large_ones(tmp_path):
    # what is not on the way to it may be damaged
    data = database({5: bytes(PAGE)})
    assert glance(tmp_path, data) == {
        b"meta": {b"storageVersion": b"3.6.0", b"term": b"2"},
        b"key": {revision(22): b"", revision(23, 1, True): b""},
    }


@pytest.mark.parametrize("data", [b"", b"x" * 20000, database()[: 2 * PAGE], database({7: bytes(2 * PAGE)}), database({3: bytes(PAGE)})])
def test_a_glance_at_what_is_no_database(tmp_path, monkeypatch, data):
    monkeypatch.setattr(boltdb, "_BETWEEN_GLANCES", 0)
    assert glance(tmp_path, data) is None


def test_a_glance_during_a_commit_is_repeated(tmp_path, monkeypatch):
    path = tmp_path / "file.db"
    path.write_bytes(database())
    whole, asked = SnapshotFile._meta, []

    def meta(self):
        asked.append(1)
        if len(asked) == 2:
            path.write_bytes(database({1: meta_page(1, 11, 3, 9)}))
        return whole(self)

    monkeypatch.setattr(SnapshotFile, "_meta", meta)
    with SnapshotFile(str(path)) as opened:
        assert opened.glance((b"meta",)) == {b"meta": {b"storageVersion": b"3.6.0", b"term": b"2"}}
    assert len(asked) == 4


class Writer:
    """Writes a file as etcdctl does: under another name, from front to back, and renames it."""

    def __init__(self, directory, data):
        self.part, self.path, self.data = directory / "file.db.part", directory / "file.db", data
        self.stream = self.part.open("wb", buffering=0)

    def write(self, until):
        self.stream.write(self.data[self.stream.tell() : until])

    def rename(self):
        self.stream.close()
        # the clock of files has ticks
        time.sleep(0.02)
        self.part.rename(self.path)

    def growing(self):
        return boltdb.GrowingFile(str(self.path), str(self.part))


def soon():
    return time.monotonic() + 60


@pytest.mark.parametrize("looks", [[], [0, 1, 5000], [len(GOOD) - 33, len(GOOD) - 32, len(GOOD) - 31], [len(GOOD)], [20, 4096, len(GOOD) - 1, len(GOOD)]])
def test_a_file_is_hashed_while_it_is_written(tmp_path, looks):
    writer = Writer(tmp_path, GOOD)
    with writer.growing() as growing:
        growing.look()
        for until in looks:
            writer.write(until)
            growing.look()
        writer.write(None)
        writer.rename()
        hashed = growing.finish(soon())
    assert hashed == boltdb.hash_file(str(writer.path))
    assert hashed.whole and hashed.sha256 == hashlib.sha256(GOOD).hexdigest()
    with SnapshotFile(str(writer.path), hashed=hashed) as opened:
        assert opened.prove().integrity == "ok"


def test_what_is_written_over_after_it_was_hashed_is_read_again(tmp_path):
    writer = Writer(tmp_path, GOOD)
    with writer.growing() as growing:
        writer.write(None)
        growing.look()
        writer.rename()
        with writer.path.open("r+b") as stream:
            stream.seek(5 * PAGE + 3000)
            stream.write(b"x")
        hashed = growing.finish(soon())
    with SnapshotFile(str(writer.path), hashed=hashed) as opened:
        assert opened.prove().integrity == "mismatch"


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:20], lambda data: b"", lambda data: data + b"x", lambda data: data[:PAGE] * 3])
def test_a_file_that_does_not_end_in_its_checksum_is_read_again(tmp_path, change):
    writer = Writer(tmp_path, change(GOOD))
    with writer.growing() as growing:
        writer.write(5000)
        growing.look()
        writer.write(None)
        writer.rename()
        assert growing.finish(soon()) is None


def test_a_growing_file_that_is_replaced_cut_or_late_is_read_again(tmp_path):
    writer = Writer(tmp_path, GOOD)
    with writer.growing() as growing:
        writer.write(None)
        writer.rename()
        assert growing.finish(time.monotonic() - 1) is None
    # etcdctl began anew, and the name leads to another file
    other = tmp_path / "other.db"
    with boltdb.GrowingFile(str(writer.path)) as growing:
        growing.look()
        other.write_bytes(GOOD)
        other.rename(writer.path)
        hashed = growing.finish(soon())
        with SnapshotFile(str(writer.path), hashed=hashed) as opened:
            assert opened.prove().sha256 == hashlib.sha256(GOOD).hexdigest()
    with boltdb.GrowingFile(str(writer.path)) as growing:
        growing.look()
        os.truncate(writer.path, 4000)
        assert growing.finish(soon()) is None
    with boltdb.GrowingFile(str(tmp_path / "absent")) as growing:
        growing.look()
        assert growing.finish(soon()) is None


def test_a_database_is_written_as_a_snapshot(tmp_path):
    database, target = tmp_path / "db", tmp_path / "snapshot.db"
    # bolt makes its file longer than what it uses
    database.write_bytes(GOOD[:-32] + bytes(64 * PAGE))
    hashed = boltdb.write_snapshot(str(database), str(target))
    assert target.read_bytes() == GOOD and target.stat().st_mode & 0o777 == 0o600
    assert hashed == boltdb.hash_file(str(target))
    database.write_bytes(GOOD[: -32 - PAGE])
    with pytest.raises(boltdb.Corrupt, match=r"has \d+ of \d+ bytes"):
        boltdb.write_snapshot(str(database), str(tmp_path / "other.db"))
