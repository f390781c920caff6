# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import directory as store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.levels import result
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest, ManifestError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy

MANIFEST = {
    "format": 1,
    "sha256": "0" * 64,
    "size": 4,
    "hash": "02059de8",
    "revision": 5,
    "verified": True,
    "host": "cp1",
    "created": "2026-01-02T03:04:05Z",
}


def write_manifest(directory, name, **changes):
    store.SnapshotDirectory(str(directory)).write_manifest(Manifest(dict(MANIFEST, file=name, **changes)))


def make(directory, name="etcd-cp1-20260102T030405Z.db", content=b"data", **changes):
    path = os.path.join(str(directory), name)
    with open(path, "wb") as stream:
        stream.write(content)
    write_manifest(directory, name, **dict({"size": len(content)}, **changes))
    return path


def listed(directory, digest=None):
    return store.SnapshotDirectory(str(directory)).snapshots(digest)


def describe(path):
    directory, name = store.directory_of(path)
    return directory.describe(name)


def note(path, **changes):
    directory, name = store.directory_of(path)
    return directory.note(name, **dict({"sha256": MANIFEST["sha256"]}, **changes))


def names(directory):
    return sorted(os.listdir(str(directory)))


@pytest.mark.parametrize(
    "host, name",
    [
        ("cp1", "etcd-cp1-19700101T000000Z.db"),
        ("cp1.example.com", "etcd-cp1.example.com-19700101T000000Z.db"),
        ("../../etc", "etcd-etc-19700101T000000Z.db"),
        ("a b/c\n", "etcd-a-b-c-19700101T000000Z.db"),
        ("...", "etcd-host-19700101T000000Z.db"),
        ("", "etcd-host-19700101T000000Z.db"),
    ],
)
def test_names(host, name):
    assert store.snapshot_name(host, 0) == name


def test_a_manifest_is_replaced_as_a_whole(tmp_path):
    path = make(tmp_path)
    assert Manifest.read(path).values["hash"] == "02059de8"
    assert os.stat(path + ".json").st_mode & 0o777 == 0o600
    write_manifest(tmp_path, os.path.basename(path), revision=6)
    assert Manifest.read(path).values["revision"] == 6
    assert names(tmp_path) == [os.path.basename(path), os.path.basename(path) + ".json"]


def test_the_list_says_why_files_are_not_verified(tmp_path):
    good = make(tmp_path, "etcd-a.db")
    shorter = make(tmp_path, "etcd-b.db")
    with open(shorter, "wb") as stream:
        stream.write(b"dat")
    make(tmp_path, "etcd-c.db", verified=False)
    (tmp_path / "etcd-d.db").write_bytes(b"data")
    os.symlink(good, str(tmp_path / "etcd-e.db"))
    write_manifest(tmp_path, "etcd-e.db")
    os.rename(make(tmp_path, "etcd-x.db"), str(tmp_path / "etcd-f.db"))
    os.rename(str(tmp_path / "etcd-x.db.json"), str(tmp_path / "etcd-f.db.json"))
    # a lost snapshot is listed, other files are not snapshots
    write_manifest(tmp_path, "etcd-gone.db")
    (tmp_path / ".hidden.db").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    found = {entry["file"]: entry for entry in listed(tmp_path)}
    assert sorted(found) == ["etcd-a.db", "etcd-b.db", "etcd-c.db", "etcd-d.db", "etcd-e.db", "etcd-f.db", "etcd-gone.db"]
    assert [name for name, entry in found.items() if entry["verified"]] == ["etcd-a.db"]
    assert all(bool(entry["problem"]) != entry["verified"] for entry in found.values())
    # the same size, but another content, is seen with the checksum only
    digested = {entry["file"]: entry for entry in listed(tmp_path, lambda path: "1" * 64)}
    assert not any(entry["verified"] for entry in digested.values())
    assert listed(tmp_path / "none") == []


def test_newest_first(tmp_path):
    for number, created in enumerate(("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z")):
        make(tmp_path, "etcd-%d.db" % number, created=created)
    (tmp_path / "etcd-9.db").write_bytes(b"")
    entries = listed(tmp_path)
    assert [entry["file"] for entry in entries] == ["etcd-1.db", "etcd-0.db", "etcd-2.db", "etcd-9.db"]
    assert store.latest_verified(entries) == str(tmp_path / "etcd-1.db")
    assert store.latest_verified([]) is None


def crash_at(number, function, *args):
    """Run a function in a child that dies at its `number`th change of a directory; True when it lived."""
    child = os.fork()
    if child == 0:
        count = [0]

        def counted(original):
            def wrapper(*arguments, **options):
                if count[0] == number:
                    os._exit(9)
                count[0] += 1
                return original(*arguments, **options)

            return wrapper

        for name in ("mkdir", "rename", "unlink", "rmdir", "open", "fsync"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            function(*args)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WEXITSTATUS(status) in (0, 9), status
    return os.WEXITSTATUS(status) == 0


def whole(directory):
    """Names of the snapshots; every file under a good name has its manifest and its content."""
    entries = listed(directory)
    assert all(entry["verified"] for entry in entries), entries
    return sorted(entry["file"] for entry in entries)


def take(directory, name):
    directory = store.SnapshotDirectory(directory)
    os.mkdir(directory.partial(name), 0o700)
    partial = os.path.join(directory.partial(name), "snapshot.db")
    with open(partial, "wb") as stream:
        stream.write(b"data")
    directory.publish(partial, Manifest(dict(MANIFEST, file=name)))


def test_a_crash_while_a_snapshot_is_published_leaves_it_whole_or_absent(tmp_path):
    number, alive, seen = 0, False, set()
    while not alive:
        directory = tmp_path / str(number)
        directory.mkdir()
        kept = os.path.basename(make(directory, "etcd-kept.db"))
        alive = crash_at(number, take, str(directory), "etcd-new.db")
        found = whole(directory)
        seen.add(len(found))
        store.SnapshotDirectory(str(directory)).tidy()
        assert whole(directory) == found
        assert names(directory) == sorted(name + end for name in found for end in ("", ".json"))
        assert kept in found
        number += 1
    assert number > 8 and seen == {1, 2}


def test_a_crash_while_a_snapshot_is_removed_leaves_it_whole_or_absent(tmp_path):
    number, alive, seen = 0, False, set()
    while not alive:
        directory = tmp_path / str(number)
        directory.mkdir()
        make(directory, "etcd-kept.db")
        path = make(directory, "etcd-old.db")
        alive = crash_at(number, store.SnapshotDirectory(str(directory)).remove, os.path.basename(path))
        found = whole(directory)
        seen.add(len(found))
        store.SnapshotDirectory(str(directory)).tidy()
        assert whole(directory) == found
        assert names(directory) == sorted(name + end for name in found for end in ("", ".json"))
        number += 1
    assert number > 4 and seen == {1, 2}


def test_tidying_leaves_what_is_not_ours(tmp_path):
    make(tmp_path, "etcd-a.db")
    write_manifest(tmp_path, "etcd-moved-away.db")
    (tmp_path / ".other.partial").mkdir()
    (tmp_path / ".etcd-x.db.partial").write_bytes(b"a file")
    os.symlink("/", str(tmp_path / ".etcd-y.db.partial"))
    before = names(tmp_path)
    assert store.SnapshotDirectory(str(tmp_path)).tidy() == []
    assert names(tmp_path) == before


def test_a_name_that_is_taken_is_not_overwritten(tmp_path):
    path = make(tmp_path, content=b"old")
    directory, name = store.directory_of(path)
    os.mkdir(directory.partial(name))
    partial = os.path.join(directory.partial(name), "snapshot.db")
    with open(partial, "wb") as stream:
        stream.write(b"new!")
    with pytest.raises(ManifestError, match="is there already"):
        directory.publish(partial, Manifest(dict(MANIFEST, file=name)))
    with pytest.raises(ManifestError, match="has 4 bytes, and had 5"):
        directory.publish(partial, Manifest(dict(MANIFEST, file=name, size=5)))
    store.SnapshotDirectory(str(tmp_path)).tidy()
    assert whole(tmp_path) == [os.path.basename(path)]


def test_a_lock_says_who_holds_it(tmp_path):
    with store.SnapshotDirectory(str(tmp_path)).lock():
        with pytest.raises(Busy) as caught, store.SnapshotDirectory(str(tmp_path)).lock():
            pass
        assert "by process %d since 2" % os.getpid() in str(caught.value)
    with store.SnapshotDirectory(str(tmp_path)).lock(timeout=1):
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    hold = "import fcntl,os,sys,time; f=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT); fcntl.flock(f,fcntl.LOCK_EX); print('held',flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / store.LOCK)], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(Busy), store.SnapshotDirectory(str(tmp_path)).lock():
            pass
        holder.kill()
        holder.wait()
    with store.SnapshotDirectory(str(tmp_path)).lock() as lock, pytest.raises(OSError), open(lock.path, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- what later runs find out


def test_a_snapshot_that_failed_a_level_is_not_verified_until_it_passes(tmp_path):
    path = make(tmp_path)
    assert describe(path)["verified"]
    note(path, levels={"checksum": result(True, 1), "drill": result(False, 1, "it did not start")})
    found = describe(path)
    assert not found["verified"]
    assert "it failed the verification level drill at " in found["problem"] and found["problem"].endswith(": it did not start")
    assert store.latest_verified(listed(tmp_path)) is None
    note(path, levels={"drill": result(True, 1)})
    assert describe(path)["verified"]


def test_the_manifest_of_another_file_is_left_alone(tmp_path):
    path = make(tmp_path)
    with pytest.raises(ManifestError, match="was replaced meanwhile"):
        note(path, sha256="1" * 64, levels={"checksum": result(True, 1)})
    assert Manifest.read(path).levels == {}
    directory, name = store.directory_of(path)
    directory.remove(name)
    with pytest.raises(ManifestError, match="has no manifest"):
        note(path, levels={"checksum": result(True, 1)})


def test_a_change_waits_for_the_lock_of_the_directory(tmp_path):
    path = make(tmp_path)
    with store.SnapshotDirectory(str(tmp_path)).lock(), pytest.raises(Busy):
        note(path, lock_timeout=0, levels={"checksum": result(True, 1)})


def test_a_snapshot_that_is_lost_is_listed(tmp_path):
    path = make(tmp_path)
    os.unlink(path)
    (found,) = listed(tmp_path)
    assert (found["path"], found["verified"]) == (path, False)
    assert found["problem"] == "%s cannot be read: No such file or directory" % path
    # it is being published or removed right now
    directory, name = store.directory_of(path)
    os.mkdir(directory.partial(name))
    assert listed(tmp_path) == []


def test_the_manifest_of_a_lost_snapshot_can_be_removed(tmp_path):
    path = make(tmp_path)
    os.unlink(path)
    directory, name = store.directory_of(path)
    directory.remove(name)
    assert names(tmp_path) == []


def test_a_brief_list_has_all_but_the_inventories(tmp_path):
    for number in range(3):
        created = "2026-01-0%dT03:04:05Z" % (number + 1)
        make(tmp_path, "etcd-cp1-2026010%dT030405Z.db" % (number + 1), created=created, inventory={"objects": {"pods": {"default": number}}})
    (tmp_path / "etcd-x.db").write_bytes(b"without a manifest")
    directory = store.SnapshotDirectory(str(tmp_path))
    whole = directory.snapshots()
    assert [entry["inventory"]["objects"]["pods"]["default"] for entry in whole[:3]] == [2, 1, 0]
    assert directory.snapshots(brief=True) == [{name: value for name, value in entry.items() if name != "inventory"} for entry in whole]
