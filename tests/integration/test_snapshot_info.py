# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""etcd_snapshot_info judges files of real etcds: no good one is refused, and none is accepted that `snapshot restore` refuses."""

from __future__ import annotations

import fcntl
import functools
import gzip
import hashlib
import os
import pathlib
import random
import struct
import subprocess
import threading
import time
import zipfile

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import SnapshotFile
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import Tool, offline_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import status as snapshot_status

NEWEST_DEFAULT = "3.5"
PAGE = 4096


@functools.lru_cache(maxsize=None)
def tools_of(version):
    """(etcdctl, etcdutl) as Tool or None, and nothing that is installed on this host."""
    paths = harness.tools(version)
    return tuple(Tool(paths[name]) if name in paths else None for name in ("etcdctl", "etcdutl"))


def examine(path, version=NEWEST_DEFAULT, **more):
    etcdctl, etcdutl = tools_of(version) if version else (None, None)
    return snapshot_status.examine(str(path), etcdctl, etcdutl, **more)


def with_checksum(data):
    """The contents with a SHA-256 that fits them, as only an attacker or a damaged server makes it."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def facts(path):
    """All of a file that a reader must not change."""
    info = os.stat(path)
    return info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, path.read_bytes()


# ---- good snapshots


@pytest.mark.parametrize("tool_version", harness.VERSIONS)
def test_good_snapshot_by_tools_of_every_version(snapshot, etcd, tool_version):
    found = examine(snapshot, tool_version)
    assert found["problems"] == []
    assert found["integrity"] == "ok"
    assert found["undetermined"] == []
    said = snapshot_status.run_status(offline_tool("status", *tools_of(tool_version)), str(snapshot), 10)
    # Only tools from 3.6 on read the storage version; the file itself shows it to all.
    assert said["storage_version"] in (None, found["storage_version"])
    assert bool(found["storage_version"]) is not etcd.version.startswith(("3.4", "3.5"))
    reference = examine(snapshot, etcd.version)
    assert {key: found[key] for key in ("hash", "revision", "total_size", "sha256", "size", "storage_version")} == {
        key: reference[key] for key in ("hash", "revision", "total_size", "sha256", "size", "storage_version")
    }
    assert len(found["hash"]) == 8
    assert found["total_size"] == found["size"] - 32
    assert found["sha256"] == hashlib.sha256(snapshot.read_bytes()).hexdigest()
    assert found["revision"] > 40
    assert found["total_keys"] > 30


def test_good_snapshot_without_any_tool(snapshot, etcd):
    found, reference = examine(snapshot, None), examine(snapshot, etcd.version)
    assert found["integrity"] == "ok"
    assert (found["hash"], found["total_keys"], found["tool"]) == (None, None, None)
    assert found["revision"] == reference["revision"]
    assert found["total_size"] == reference["total_size"]
    assert "etcdutl" in found["undetermined"][0]


def test_module_returns_what_a_good_snapshot_holds_and_leaves_it_alone(snapshot, etcd, tmp_path):
    path = harness.copy(snapshot, tmp_path / "good.db")
    path.chmod(0o400)
    before = facts(path)
    rc, result = harness.run_module("etcd_snapshot_info", path=path, **harness.tools(etcd.version))
    assert rc == 0, result
    assert result["changed"] is False
    assert result["snapshot"] == examine(path, etcd.version)
    assert result["snapshot"]["tool"]["name"] == ("etcdctl" if etcd.version.startswith("3.4") else "etcdutl")
    assert facts(path) == before
    rc, checked = harness.run_module("etcd_snapshot_info", check_mode=True, path=path, **harness.tools(etcd.version))
    assert (rc, checked["snapshot"]) == (0, result["snapshot"])


def test_what_the_manifest_records_of_the_same_bytes_is_believed(etcd, tmp_path):
    options = {"directory": str(tmp_path / "backups"), "manifests_dir": "/nonexistent", "pki_dir": "/nonexistent", "host": "cp1"}
    rc, taken = harness.run_module("etcd_snapshot", **{**options, **etcd.connection, **harness.tools(etcd.version)})
    assert rc == 0, taken
    path = pathlib.Path(taken["snapshot"]["path"])

    def look(**more):
        return harness.run_module("etcd_snapshot_info", path=path, **harness.tools(etcd.version), **more)

    rc, asked = look()
    assert rc == 0 and asked["snapshot"]["tool"]["path"]
    rc, believed = look(recorded=True)
    assert rc == 0 and believed["snapshot"] == dict(asked["snapshot"], tool=dict(asked["snapshot"]["tool"], path=None))
    # another value, with a checksum that is right: these bytes are asked about
    data = bytearray(path.read_bytes())
    data[data.index(b"k8s\0") + 20] ^= 1
    path.write_bytes(with_checksum(bytes(data)))
    rc, changed = look(recorded=True, verify=False)
    assert rc == 0 and changed["manifest"] is None and changed["snapshot"]["tool"]["path"], changed


def test_snapshot_of_a_fresh_cluster_has_revision_0_and_is_good(version, tmp_path):
    with harness.Etcd(version, tmp_path) as fresh:
        path = fresh.save(tmp_path / "fresh.db")
    found = examine(path, version)
    assert found["problems"] == []
    assert found["revision"] == 0
    assert examine(path, None)["revision"] == 0
    assert harness.restore(version, path, tmp_path / "restored").returncode == 0


def test_snapshots_of_a_large_and_busy_cluster_are_good(version, tmp_path):
    """Branch pages, pages with overflow, free pages, compaction, defragmentation, and writes while the snapshot is taken."""
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put_all({"/registry/configmaps/default/config-%05d" % number: os.urandom(random.randrange(1, 900)) for number in range(6000)})
        etcd.put_all({"/registry/configmaps/default/config-%05d" % number: b"again" for number in range(0, 6000, 3)})
        for number in range(3):
            etcd.put("/registry/secrets/default/large-%d" % number, os.urandom(1300 * 1000))
        for number in range(0, 40, 2):
            etcd.delete("/registry/configmaps/default/config-%05d" % number)
        paths = [etcd.save(tmp_path / "full.db")]
        etcd.compact(etcd.put("/registry/minions/cp1", b"k8s\0"))
        paths.append(etcd.save(tmp_path / "compacted.db"))
        stop = threading.Event()

        def write():
            number = 0
            while not stop.is_set():
                number += 1
                etcd.put("/registry/events/default/event-%06d" % (number % 50), os.urandom(500))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            paths.append(etcd.save(tmp_path / "busy.db"))
        finally:
            stop.set()
            writer.join()
        etcd.etcdctl("defrag")
        paths.append(etcd.save(tmp_path / "defragmented.db"))
    for path in paths:
        found, alone = examine(path, version), examine(path, None)
        assert found["problems"] == [], path
        assert alone["problems"] == [], path
        assert (found["revision"], found["total_size"]) == (alone["revision"], alone["total_size"])
    bad = tmp_path / "bad.db"
    bad.write_bytes(lower_count(paths[0].read_bytes(), 1))
    assert examine(bad, version)["integrity"] == "mismatch"


@pytest.mark.parametrize("name", ["-name.db", "--help", "with space.db", "wïth ümlaut.db", "new\nline.db", "$(id).db"])
def test_names_that_confuse_tools(snapshot, etcd, tmp_path, name):
    harness.copy(snapshot, tmp_path / name)
    rc, result = harness.run_module("etcd_snapshot_info", cwd=str(tmp_path), path=name, **harness.tools(etcd.version))
    assert rc == 0, result
    assert result["snapshot"]["path"] == str(tmp_path / name)


def test_environment_of_the_caller_does_not_matter(snapshot, etcd):
    environment = {"ETCDCTL_ENDPOINTS": "https://127.0.0.1:1", "ETCDCTL_API": "2", "ETCDCTL_WRITE_OUT": "table", "ETCDCTL_DEBUG": "true"}
    rc, result = harness.run_module("etcd_snapshot_info", environment=environment, path=snapshot, **harness.tools(etcd.version))
    assert rc == 0, result


def test_symbolic_link_is_followed(snapshot, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(snapshot)
    assert examine(link)["integrity"] == "ok"
    link.unlink()
    link.symlink_to(tmp_path / "nothing")
    found = examine(link)
    assert found["integrity"] == "absent"
    assert "symbolic link to nothing" in found["problems"][0]


# ---- damaged ones: every row of what was measured, each against the real `snapshot restore`


def flip(data, offset):
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]


def pages(data, flag):
    """Offsets of the pages of a kind: 1 branch, 2 leaf, 4 meta, 16 free list."""
    return [at for at in range(0, len(data) - PAGE, PAGE) if struct.unpack_from("=QH", data, at) == (at // PAGE, flag)]


def lower_count(data, flag):
    """One page of the kind says that it holds fewer elements than it does."""
    for at in pages(data, flag):
        count = struct.unpack_from("=H", data, at + 10)[0]
        if count > 2:
            return data[: at + 10] + struct.pack("=H", count - 1) + data[at + 12 :]
    return None


def rename_key_bucket(data):
    """Bucket `key` gets another name, in every root page that there is; the order of the names stays."""
    return b"".join(
        data[at : at + PAGE].replace(b"key", b"kez") if at and b"members" in data[at : at + PAGE] and b"lease" in data[at : at + PAGE] else data[at : at + PAGE]
        for at in range(0, len(data), PAGE)
    )


def random_page(data, at):
    return data[:at] + random.Random(at).randbytes(PAGE) + data[at + PAGE :]


DAMAGE = {
    # name: (the verdict, what happened to the bytes)
    "trailer_cut_off": ("missing", lambda good: good[:-32]),
    "one_byte_short": ("truncated", lambda good: good[:-1]),
    "half_a_trailer": ("truncated", lambda good: good[:-16]),
    "31_bytes_short": ("truncated", lambda good: good[:-31]),
    "33_bytes_short": ("truncated", lambda good: good[:-33]),
    "one_byte_more": ("too_long", lambda good: good + b"\n"),
    "32_bytes_more": ("too_long", lambda good: good + good[-32:]),
    "two_joined": ("too_long", lambda good: good + good),
    "512_bytes_more": ("too_long", lambda good: good + bytes(512)),
    "4096_bytes_more": ("too_long", lambda good: good + bytes(4096)),
    "filled_up_to_512": ("missing", lambda good: good + bytes(480)),
    "a_byte_of_the_trailer": ("mismatch", lambda good: flip(good, len(good) - 7)),
    "a_byte_of_the_first_meta_page": ("mismatch", lambda good: flip(good, 16 + 40)),
    "a_byte_of_the_second_meta_page": ("mismatch", lambda good: flip(good, PAGE + 16 + 40)),
    "a_byte_of_both_meta_pages": ("not_a_database", lambda good: flip(flip(good, 16 + 40), PAGE + 16 + 40)),
    "the_padding_of_a_meta_page": ("mismatch", lambda good: flip(good, 4000)),
    "a_byte_of_a_value": ("mismatch", lambda good: flip(good, good.rindex(b"k8s\0") + 1)),
    "a_leaf_counts_less": ("mismatch", lambda good: lower_count(good, 2)),
    "key_bucket_renamed": ("mismatch", rename_key_bucket),
    "key_bucket_renamed_with_valid_checksum": ("no_key_bucket", lambda good: with_checksum(rename_key_bucket(good))),
    "cut_to_two_pages": ("truncated", lambda good: good[: 2 * PAGE]),
    "cut_to_10_pages_and_a_trailer": ("truncated", lambda good: good[: 10 * PAGE + 32]),
    "cut_to_half_a_page": ("truncated", lambda good: good[:2000]),
    "cut_to_40_bytes": ("not_a_database", lambda good: good[:40]),
    "one_byte_left": ("not_a_database", lambda good: good[:1]),
    "nothing_left": ("empty", lambda good: b""),
    "first_page_zeroed": ("mismatch", lambda good: bytes(PAGE) + good[PAGE:]),
    "both_meta_pages_zeroed": ("not_a_database", lambda good: bytes(2 * PAGE) + good[2 * PAGE :]),
    "a_leaf_zeroed": ("mismatch", lambda good: good.replace(good[pages(good, 2)[-1] :][:PAGE], bytes(PAGE))),
    "a_leaf_random": ("mismatch", lambda good: random_page(good, pages(good, 2)[-1])),
    "all_zero": ("not_a_database", lambda good: bytes(len(good))),
    "text": ("not_a_database", lambda good: b"<html>404 Not Found</html>\n" * 100),
    "gzip": ("not_a_database", lambda good: b"\x1f\x8b\x08\x00" + good),
    "zstd": ("not_a_database", lambda good: b"\x28\xb5\x2f\xfd" + good),
}


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_damage_is_refused_whatever_restore_says(snapshot, etcd, tmp_path, name):
    word, damage = DAMAGE[name]
    good = snapshot.read_bytes()
    bad = damage(good)
    assert bad != good
    path = tmp_path / "bad.db"
    path.write_bytes(bad)
    before = facts(path)
    with_tool, alone = examine(path, etcd.version), examine(path, None)
    assert (with_tool["integrity"], alone["integrity"]) == (word, word)
    assert str(path) in with_tool["problems"][0]
    everything = examine(path, etcd.version, everything=True)
    assert everything["integrity"] == word
    assert everything["sha256"] == (hashlib.sha256(bad).hexdigest() if bad else None)
    assert facts(path) == before


def test_restore_refuses_no_less_than_the_table_expects(snapshot, etcd, tmp_path):
    """The other half of the comparison: what `restore` of this version really says to every row, so that the table stays true."""
    accepted = []
    for name in sorted(DAMAGE):
        path = tmp_path / (name + ".db")
        path.write_bytes(DAMAGE[name][1](snapshot.read_bytes()))
        if harness.restore(etcd.version, path, tmp_path / name).returncode == 0:
            accepted.append(name)
    # A restore believes in the checksum alone; these it takes, and we do not.
    assert set(accepted) <= {"key_bucket_renamed_with_valid_checksum"}


def test_restore_accepts_the_good_one(snapshot, etcd, tmp_path):
    assert harness.restore(etcd.version, snapshot, tmp_path / "restored").returncode == 0


def test_structure_is_verified_behind_a_right_checksum(snapshot, etcd, tmp_path):
    """A server with a damaged database makes snapshots whose checksum is right."""
    good = snapshot.read_bytes()
    # The root of all buckets, as the two meta pages name it.
    at = struct.unpack_from("=Q", good, 32)[0] * PAGE
    for bad in (good[:at] + bytes(PAGE) + good[at + PAGE :], random_page(good, at), good[:at] + good[:PAGE] + good[at + PAGE :]):
        path = tmp_path / "with-checksum.db"
        path.write_bytes(with_checksum(bad))
        assert examine(path, None)["integrity"] == "corrupt"
        assert examine(path, etcd.version)["integrity"] == "corrupt"


@pytest.mark.parametrize("name", ["trailer_cut_off", "two_joined", "a_byte_of_a_value", "nothing_left"])
def test_module_fails_for_damage_unless_it_only_looks(snapshot, etcd, tmp_path, name):
    path = tmp_path / "bad.db"
    path.write_bytes(DAMAGE[name][1](snapshot.read_bytes()))
    rc, result = harness.run_module("etcd_snapshot_info", path=path, **harness.tools(etcd.version))
    assert (rc, result["failed"]) == (1, True)
    assert result["msg"] == result["snapshot"]["problems"][0]
    assert result["snapshot"]["integrity"] == DAMAGE[name][0]
    rc, result = harness.run_module("etcd_snapshot_info", path=path, verify=False, **harness.tools(etcd.version))
    assert rc == 0, result
    assert result["snapshot"]["integrity"] == DAMAGE[name][0]


def test_a_copy_of_a_stopped_database_is_told_from_a_snapshot(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd, 10)
        etcd.kill(15)
        path = harness.copy(etcd.db, tmp_path / "copy.db")
    rc, result = harness.run_module("etcd_snapshot_info", path=path, **harness.tools(version))
    assert rc == 1
    assert result["msg"].endswith("lacks the SHA-256 that `etcdctl snapshot save` appends: it is a copy of a data file or was cut off; take the snapshot again")
    # Who only looks learns what it holds all the same.
    found = examine(path, version, everything=True)
    assert found["revision"] > 10
    assert len(found["hash"]) == 8


# ---- paths that are not files, and files that block their reader


def test_live_database_does_not_block(etcd):
    started = time.monotonic()
    for verify in (True, False):
        rc, result = harness.run_module("etcd_snapshot_info", path=etcd.db, verify=verify, limit=20, **harness.tools(etcd.version))
        assert rc == (1 if verify else 0)
        assert result["snapshot"]["integrity"] == "missing"
        assert "running etcd" in result["snapshot"]["problems"][0]
    assert time.monotonic() - started < 20


def test_locked_snapshot_is_verified_without_the_tool(snapshot, etcd, tmp_path):
    path = harness.copy(snapshot, tmp_path / "locked.db")
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        started = time.monotonic()
        found = examine(path, etcd.version)
        assert time.monotonic() - started < 5
        assert (found["integrity"], found["hash"]) == ("ok", None)
        assert "lock" in found["undetermined"][0]
        # Should the lock come after the look at it: the tool waits for ever, and is ended.
        tool = offline_tool("status", *tools_of(etcd.version))
        with pytest.raises(snapshot_status.ToolTrouble, match="did not finish in time"):
            snapshot_status.run_status(tool, str(path), 1)


def test_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, word in (
        (tmp_path / "fifo", "not_a_file"),
        (tmp_path / "link", "not_a_file"),
        (tmp_path, "not_a_file"),
        ("/dev/zero", "not_a_file"),
        (tmp_path / "loop", "unreadable"),
        (tmp_path / "nothing", "absent"),
        (tmp_path / "nothing" / "below", "absent"),
        ("/proc/version", "empty"),
    ):
        rc, result = harness.run_module("etcd_snapshot_info", path=path, limit=20)
        assert (rc, result["snapshot"]["integrity"]) == (1, word)
        rc, result = harness.run_module("etcd_snapshot_info", path=path, verify=False, limit=20)
        assert (rc, result["snapshot"]["integrity"]) == (0, word)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_file_of_another_user(snapshot):
    os.seteuid(65534)
    try:
        found = examine(snapshot, None)
    finally:
        os.seteuid(0)
    assert found["integrity"] == "unreadable"
    assert "Permission denied" in found["problems"][0]


# ---- tools that cannot


def test_etcdctl_that_only_prints_its_help_is_not_asked(snapshot):
    """From 3.6 on `etcdctl snapshot status` prints its help and ends with code 0."""
    try:
        etcdctl, etcdutl = tools_of("3.6")
    except harness.Unavailable as exc:
        pytest.skip("there is no etcdctl 3.6 to try it with: %s" % exc)
    assert not etcdctl.can_status
    found = snapshot_status.examine(str(snapshot), etcdctl, None)
    assert (found["integrity"], found["hash"], found["tool"]) == ("ok", None, None)
    assert "has no `snapshot status`" in found["undetermined"][0]
    with pytest.raises(snapshot_status.ToolTrouble):
        snapshot_status.run_status(etcdctl, str(snapshot), 10)
    assert snapshot_status.examine(str(snapshot), etcdctl, etcdutl)["tool"]["name"] == "etcdutl"


def test_broken_tool_is_no_damage(snapshot, tmp_path):
    text = tmp_path / "etcdutl"
    text.write_text("no program\n")
    for broken in ("/bin/false", "/nonexistent/etcdutl", str(text)):
        rc, result = harness.run_module("etcd_snapshot_info", path=snapshot, etcdutl=broken)
        assert rc == 1
        assert result["msg"].startswith(broken)
        assert "snapshot" not in result


# ---- random damage


def damaged(good, rng):
    """One of what disks, networks and people do to a file; what was done, and the bytes."""
    kind, size = rng.choice(["flip", "zero", "random", "cut", "append", "swap", "insert", "drop"]), len(good)
    at, length = rng.randrange(size), rng.choice([1, 16, 512, PAGE, 3 * PAGE])
    if kind == "flip":
        bad = good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1 :]
    elif kind == "zero":
        bad = good[:at] + bytes(len(good[at : at + length])) + good[at + length :]
    elif kind == "random":
        bad = good[:at] + rng.randbytes(len(good[at : at + length])) + good[at + length :]
    elif kind == "cut":
        bad = good[: rng.choice([at, at // 512 * 512 + 32, at // PAGE * PAGE, at // PAGE * PAGE + 32])]
    elif kind == "append":
        bad = good + rng.choice([bytes(length), rng.randbytes(length), good[:at]])
    elif kind == "swap":
        other = rng.randrange(size // PAGE) * PAGE
        at = at // PAGE * PAGE
        bad = good[:at] + good[other : other + PAGE] + good[at + PAGE :]
    elif kind == "insert":
        bad = good[:at] + rng.randbytes(length) + good[at:]
    else:
        bad = good[:at] + good[at + length :]
    return "%s at %d, %d bytes" % (kind, at, length), bad


def fuzz(good, cases):
    """(a text that reproduces the case, the bytes) of so many random cases; FUZZ_SEED repeats one run."""
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(1 << 32)))
    rng = random.Random(seed)
    for dummy in range(cases):
        what, bad = damaged(good, rng)
        if bad != good:
            yield "FUZZ_SEED=%d, %s" % (seed, what), bad


def test_random_damage_is_refused(snapshot, tmp_path):
    path = tmp_path / "bad.db"
    for what, bad in fuzz(snapshot.read_bytes(), 200):
        path.write_bytes(bad)
        with SnapshotFile(str(path)) as opened:
            first = opened.prove()
        with SnapshotFile(str(path)) as opened:
            everything = opened.prove(everything=True)
        assert first.integrity != "ok", what
        assert everything.integrity == first.integrity, what


def test_random_damage_behind_a_right_checksum_is_handled(snapshot, tmp_path):
    """The walk ends and raises nothing, whatever the pages say."""
    path = tmp_path / "with-checksum.db"
    for what, bad in fuzz(snapshot.read_bytes(), 200):
        path.write_bytes(with_checksum(bad))
        with SnapshotFile(str(path)) as opened:
            assert opened.prove(everything=True).integrity, what


def test_random_damage_is_refused_by_the_module(snapshot, etcd, tmp_path):
    path = tmp_path / "bad.db"
    for what, bad in fuzz(snapshot.read_bytes(), 15):
        path.write_bytes(bad)
        rc, result = harness.run_module("etcd_snapshot_info", path=path, **harness.tools(etcd.version))
        assert (rc, result["failed"]) == (1, True), what
        assert result["msg"].startswith(str(path)), what


# ---- through Ansible itself


def test_ansible_accepts_and_refuses(snapshot, tmp_path):
    rc, result = harness.ansible("etcd_snapshot_info", path=snapshot, **harness.tools(NEWEST_DEFAULT))
    assert rc == 0, result
    assert result["snapshot"]["integrity"] == "ok"
    path = tmp_path / "bad.db"
    path.write_bytes(snapshot.read_bytes()[:-32])
    rc, result = harness.ansible("etcd_snapshot_info", "--check", path=path, **harness.tools(NEWEST_DEFAULT))
    assert rc != 0
    assert "lacks the SHA-256" in result["msg"]


@pytest.mark.parametrize("kind", ["gz", "zip"])
def test_every_reader_says_what_a_packed_snapshot_is(snapshot, etcd, tmp_path, kind):
    """Under the name of a snapshot, as of one that others took."""
    path = tmp_path / "etcd-snapshot-cp1-1700000000.db.zst"
    if kind == "gz":
        path.write_bytes(gzip.compress(snapshot.read_bytes()))
    else:
        with zipfile.ZipFile(path, "w") as packed:
            packed.write(snapshot, "etcd-snapshot-cp1-1700000000")
    tools = harness.tools(etcd.version)
    sentence = "%s is %s, not a snapshot; unpack it with `umask 077; " % (path, {"gz": "compressed with gzip", "zip": "a zip archive"}[kind])
    for module, more in (
        ("etcd_snapshot_info", dict(tools, path=path)),
        ("etcd_snapshot_drill", dict(tools, path=path, manifest=False, record=False, work_dir=tmp_path)),
        ("etcd_snapshot_decrypt", {"path": path, "dest": tmp_path}),
        ("etcd_restore_plan", dict(tools, snapshot=path, work_dir=tmp_path)),
    ):
        code, result = harness.run_module(module, **more)
        assert code == 1 and sentence in result["msg"], (module, result)


@pytest.mark.parametrize("tool", ["3.6", "3.7"])
def test_hashkv_of_etcdutl_damages_a_snapshot(snapshot, tmp_path, tool):
    """Why nothing here runs it, and docs/proof.md warns of it."""
    try:
        etcdutl = harness.tools(tool)["etcdutl"]
    except harness.Unavailable as exc:
        pytest.skip("there is no etcdutl %s to try it with: %s" % (tool, exc))
    path = harness.copy(snapshot, tmp_path / "a.db")
    subprocess.run([etcdutl, "hashkv", str(path)], check=True, capture_output=True, timeout=60)
    assert path.read_bytes() != snapshot.read_bytes()
    assert examine(path, None)["integrity"] == "mismatch"
    assert harness.restore(tool, path, tmp_path / "restored").returncode != 0
