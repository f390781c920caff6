# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import manifest as store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from hypothesis import HealthCheck, given, settings, strategies as st

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")

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


def make(directory, name="etcd-cp1-20260102T030405Z.db", content=b"data", **changes):
    path = os.path.join(str(directory), name)
    with open(path, "wb") as stream:
        stream.write(content)
    manifest = dict(MANIFEST, file=name, size=len(content), **changes)
    store.write_manifest(path, manifest)
    return path


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


def test_round_trip(tmp_path):
    path = make(tmp_path)
    assert store.read_manifest(path)["hash"] == "02059de8"
    assert os.stat(path + ".json").st_mode & 0o777 == 0o600
    text = (tmp_path / (os.path.basename(path) + ".json")).read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
    # written again, it is replaced as a whole
    store.write_manifest(path, dict(store.read_manifest(path), revision=6))
    assert store.read_manifest(path)["revision"] == 6
    assert names(tmp_path) == [os.path.basename(path), os.path.basename(path) + ".json"]


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(MANIFEST) + ["file", "inventory"]), json_values))
def test_a_manifest_of_any_content_is_read_or_refused_in_words(tmp_path, changes):
    path = os.path.join(str(tmp_path), "a.db")
    with open(path + ".json", "w", encoding="utf-8") as stream:
        json.dump(dict(MANIFEST, file="a.db", **changes) if "file" not in changes else dict(MANIFEST, **changes), stream)
    try:
        manifest = store.read_manifest(path)
    except store.ManifestError as exc:
        assert path in str(exc)
    else:
        assert manifest["file"] == "a.db" and manifest["format"] == 1 and len(manifest["sha256"]) == 64
        assert isinstance(manifest["revision"], int) and not isinstance(manifest["revision"], bool)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60))
def test_a_manifest_that_is_none_is_refused_in_words(tmp_path, content):
    path = os.path.join(str(tmp_path), "a.db")
    with open(path + ".json", "wb") as stream:
        stream.write(content)
    with pytest.raises(store.ManifestError):
        store.read_manifest(path)


def test_what_a_list_says_of_files_that_cannot_be_relied_on(tmp_path):
    good = make(tmp_path, "etcd-a.db")
    shorter = make(tmp_path, "etcd-b.db")
    with open(shorter, "wb") as stream:
        stream.write(b"dat")
    make(tmp_path, "etcd-c.db", verified=False)
    (tmp_path / "etcd-d.db").write_bytes(b"data")
    os.symlink(good, str(tmp_path / "etcd-e.db"))
    store.write_manifest(str(tmp_path / "etcd-e.db"), dict(MANIFEST, file="etcd-e.db"))
    os.rename(make(tmp_path, "etcd-x.db"), str(tmp_path / "etcd-f.db"))
    os.rename(str(tmp_path / "etcd-x.db.json"), str(tmp_path / "etcd-f.db.json"))
    # one that was lost is told of, others are no snapshots
    store.write_manifest(str(tmp_path / "etcd-gone.db"), dict(MANIFEST, file="etcd-gone.db"))
    (tmp_path / ".hidden.db").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    found = {entry["file"]: entry for entry in store.list_snapshots(str(tmp_path))}
    assert sorted(found) == ["etcd-a.db", "etcd-b.db", "etcd-c.db", "etcd-d.db", "etcd-e.db", "etcd-f.db", "etcd-gone.db"]
    assert [name for name, entry in found.items() if entry["verified"]] == ["etcd-a.db"]
    assert all(bool(entry["problem"]) != entry["verified"] for entry in found.values())
    # the same size, but another content, is seen with the checksum only
    digested = {entry["file"]: entry for entry in store.list_snapshots(str(tmp_path), lambda path: "1" * 64)}
    assert not any(entry["verified"] for entry in digested.values())
    assert store.list_snapshots(str(tmp_path / "none")) == []


def test_newest_first(tmp_path):
    for number, created in enumerate(("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z")):
        make(tmp_path, "etcd-%d.db" % number, created=created)
    (tmp_path / "etcd-9.db").write_bytes(b"")
    listed = store.list_snapshots(str(tmp_path))
    assert [entry["file"] for entry in listed] == ["etcd-1.db", "etcd-0.db", "etcd-2.db", "etcd-9.db"]
    assert store.latest_verified(listed) == str(tmp_path / "etcd-1.db")
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
    listed = store.list_snapshots(str(directory))
    assert all(entry["verified"] for entry in listed), listed
    return sorted(entry["file"] for entry in listed)


def take(directory, name):
    path = os.path.join(directory, name)
    os.mkdir(store.partial_dir(path), 0o700)
    partial = os.path.join(store.partial_dir(path), "snapshot.db")
    with open(partial, "wb") as stream:
        stream.write(b"data")
    store.publish(path, partial, dict(MANIFEST, file=name))


def test_a_crash_while_a_snapshot_is_published_leaves_it_whole_or_absent(tmp_path):
    number, alive, seen = 0, False, set()
    while not alive:
        directory = tmp_path / str(number)
        directory.mkdir()
        kept = os.path.basename(make(directory, "etcd-kept.db"))
        alive = crash_at(number, take, str(directory), "etcd-new.db")
        found = whole(directory)
        seen.add(len(found))
        store.tidy(str(directory))
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
        alive = crash_at(number, store.remove, path)
        found = whole(directory)
        seen.add(len(found))
        store.tidy(str(directory))
        assert whole(directory) == found
        assert names(directory) == sorted(name + end for name in found for end in ("", ".json"))
        number += 1
    assert number > 4 and seen == {1, 2}


def test_tidying_leaves_what_is_not_ours(tmp_path):
    make(tmp_path, "etcd-a.db")
    store.write_manifest(str(tmp_path / "etcd-moved-away.db"), dict(MANIFEST, file="etcd-moved-away.db"))
    (tmp_path / ".other.partial").mkdir()
    (tmp_path / ".etcd-x.db.partial").write_bytes(b"a file")
    os.symlink("/", str(tmp_path / ".etcd-y.db.partial"))
    before = names(tmp_path)
    assert store.tidy(str(tmp_path)) == []
    assert names(tmp_path) == before


def test_a_name_that_is_taken_is_not_overwritten(tmp_path):
    path = make(tmp_path, content=b"old")
    os.mkdir(store.partial_dir(path))
    partial = os.path.join(store.partial_dir(path), "snapshot.db")
    with open(partial, "wb") as stream:
        stream.write(b"new!")
    with pytest.raises(store.ManifestError):
        store.publish(path, partial, dict(MANIFEST, file=os.path.basename(path)))
    store.tidy(str(tmp_path))
    assert whole(tmp_path) == [os.path.basename(path)]


def test_a_lock_says_who_holds_it(tmp_path):
    with store.directory_lock(str(tmp_path)):
        with pytest.raises(Busy) as caught, store.directory_lock(str(tmp_path)):
            pass
        assert "by process %d since 2" % os.getpid() in str(caught.value)
    with store.directory_lock(str(tmp_path), timeout=1):
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    hold = "import fcntl,os,sys,time; f=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT); fcntl.flock(f,fcntl.LOCK_EX); print('held',flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / store.LOCK)], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(Busy), store.directory_lock(str(tmp_path)):
            pass
        holder.kill()
        holder.wait()
    with store.directory_lock(str(tmp_path)) as lock, pytest.raises(OSError), open(lock.path, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- what later runs find out


def passed(**more):
    return store.level(True, 1.234, **more)


def test_levels_are_merged_and_the_highest_without_a_gap_counts(tmp_path):
    path = make(tmp_path)
    for changes, highest in (
        ({"checksum": passed()}, "checksum"),
        # no gap is jumped over
        ({"drill": passed()}, "checksum"),
        ({"status": passed(tool=None)}, "structure"),
        ({"status": passed(tool="etcdutl 3.5.16")}, "status"),
        ({"restore": passed()}, "drill"),
        ({"checksum": store.level(False, 1, "it differs")}, None),
    ):
        assert store.update_manifest(path, levels=changes)["level"] == highest
    manifest = store.read_manifest(path)
    assert sorted(manifest["levels"]) == sorted(store.LEVELS)
    assert manifest["levels"]["drill"]["seconds"] == 1.23
    assert manifest["hash"] == "02059de8"
    assert names(tmp_path) == [".lock", os.path.basename(path), os.path.basename(path) + ".json"]


def test_a_snapshot_that_failed_a_level_is_not_verified_until_it_passes(tmp_path):
    path = make(tmp_path)
    assert store.describe(path)["verified"]
    store.update_manifest(path, levels={"checksum": passed(), "drill": store.level(False, 1, "it did not start")})
    found = store.describe(path)
    assert not found["verified"]
    assert "it failed the verification level drill at " in found["problem"] and found["problem"].endswith(": it did not start")
    assert store.latest_verified(store.list_snapshots(str(tmp_path))) is None
    store.update_manifest(path, levels={"drill": passed()})
    assert store.describe(path)["verified"]


def test_off_site_copies_are_merged_by_remote_and_file(tmp_path):
    path = make(tmp_path)
    one, two = {"remote": "s3:bucket", "file": "a", "at": "1"}, {"remote": "sftp:x", "file": "a", "at": "1"}
    store.update_manifest(path, off_site=[one])
    assert store.update_manifest(path, off_site=[two])["off_site"] == [one, two]
    again = dict(one, at="2")
    assert store.update_manifest(path, off_site=[again])["off_site"] == [two, again]


def test_the_manifest_of_another_file_is_left_alone(tmp_path):
    path = make(tmp_path)
    with pytest.raises(store.ManifestError, match="was replaced meanwhile"):
        store.update_manifest(path, sha256="1" * 64, levels={"checksum": passed()})
    assert "levels" not in store.read_manifest(path)
    store.remove(path)
    with pytest.raises(store.ManifestError, match="has no manifest"):
        store.update_manifest(path, levels={"checksum": passed()})


def test_a_change_waits_for_whoever_holds_the_directory(tmp_path):
    path = make(tmp_path)
    with store.directory_lock(str(tmp_path)), pytest.raises(Busy):
        store.update_manifest(path, lock_timeout=0, levels={"checksum": passed()})


def test_a_snapshot_that_is_lost_is_listed(tmp_path):
    path = make(tmp_path)
    os.unlink(path)
    (found,) = store.list_snapshots(str(tmp_path))
    assert (found["path"], found["verified"]) == (path, False)
    assert found["problem"] == "%s cannot be read: No such file or directory" % path
    # it is being published or removed right now
    os.mkdir(store.partial_dir(path))
    assert store.list_snapshots(str(tmp_path)) == []


@ROOT
def test_whom_a_directory_belongs_to(tmp_path, monkeypatch):
    assert store.foreign_owner(str(tmp_path), True) is None
    os.chown(str(tmp_path), 65534, 0)
    assert store.foreign_owner(str(tmp_path), True) == store.foreign_owner(str(tmp_path), False) == 65534
    # as where NFS makes root another user: what is made there belongs to that one
    (tmp_path / store.LOCK).touch()
    os.chown(str(tmp_path / store.LOCK), 65534, 0)
    assert store.foreign_owner(str(tmp_path), False) is None
    with open(tmp_path / store.LOCK, "rb") as squashed:
        monkeypatch.setattr(store.tempfile, "TemporaryFile", lambda dir: squashed)
        assert store.foreign_owner(str(tmp_path), True) is None
    monkeypatch.undo()
    os.chown(str(tmp_path), os.geteuid(), 0)
    assert store.foreign_owner(str(tmp_path), False) is None


@ROOT
@pytest.mark.parametrize(
    ("mode", "owner", "group", "words"),
    [
        (0o755, 0, 0, None),
        (0o1777, 0, 0, None),
        (0o775, 0, 0, None),
        (0o775, 0, 50, "others may write to"),
        (0o777, 0, 0, "chmod go-w"),
        (0o755, 65534, 0, "belongs to nobody, who could put another directory in the place of"),
    ],
)
def test_who_could_replace_it(tmp_path, mode, owner, group, words):
    above = tmp_path / "above"
    above.mkdir()
    os.chown(str(above), owner, group)
    above.chmod(mode)
    for directory in (above / "backups", above / "not" / "there"):
        found = store.replaceable(str(directory))
        assert (words in found and str(above) in found) if words else found is None
    # one to whom the directory belongs anyway
    (above / "backups").mkdir()
    os.chown(str(above / "backups"), owner, 0)
    assert bool(store.replaceable(str(above / "backups"))) == bool(words and "belongs" not in words)
