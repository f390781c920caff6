# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import time

import harness
import pytest

SECRET = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def member(version, tmp_path_factory):
    """An etcd with a database of a few megabytes that the tests of this file may write to, but not break."""
    with harness.Etcd(version, tmp_path_factory.mktemp("member-" + version)) as etcd:
        harness.fill(etcd)
        etcd.put("/registry/secrets/shop/password", SECRET)
        for number in range(8):
            etcd.put("/registry/configmaps/shop/big-%d" % number, os.urandom(400 * 1024))
        yield etcd


def options_of(etcd, directory, more):
    return {**etcd.connection, "directory": str(directory), "manifests_dir": "/nonexistent", "pki_dir": "/nonexistent", "host": "cp1", **more}


def take(etcd, directory, check_mode=False, diff=False, **options):
    return harness.run_module("etcd_snapshot", check_mode=check_mode, diff=diff, **options_of(etcd, directory, options))


def start(etcd, directory, **options):
    """The same, as a process that is still running."""
    process = subprocess.Popen(
        [sys.executable, str(harness.ROOT / "plugins" / "modules" / "etcd_snapshot.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(harness.COLLECTIONS), PYTHONDONTWRITEBYTECODE="1"),
        text=True,
    )
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options_of(etcd, directory, options)}))
    process.stdin.close()
    process.stdin = None
    return process


def fake(etcd, path, on_save):
    """An etcdctl that does something of its own for `snapshot save`; $target is where to, $real the real one."""
    real = etcd.connection["etcdctl"]
    text = '#!/bin/bash\nreal=%s\ncase " $* " in *" snapshot save "*) case " $* " in *--help*) ;; *) target="${@: -1}"; %s ;; esac ;; esac\nexec $real "$@"\n'
    pathlib.Path(path).write_text(text % (real, on_save))
    pathlib.Path(path).chmod(0o755)
    return str(path)


def tree(directory):
    """Everything about a directory that a change would change."""
    found = {}
    for where, directories, files in os.walk(str(directory)):
        for name in [""] + directories + files:
            path = os.path.join(where, name)
            status = os.lstat(path)
            found[path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return found


def names(directory):
    return sorted(os.listdir(str(directory)))


def wait_for(condition, timeout=20):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def only_good(directory, count):
    """The directory holds that many verified snapshots with their manifests, and nothing else."""
    good = [name for name in names(directory) if name.endswith(".db")]
    assert len(good) == count
    assert names(directory) == sorted([".lock"] + good + [name + ".json" for name in good])
    rc, listed = harness.run_module("etcd_snapshot_list", directory=directory, checksum=True)
    assert rc == 0 and all(entry["verified"] for entry in listed["snapshots"]) and len(listed["snapshots"]) == count


def test_a_snapshot_is_taken_verified_and_described(member, version, tmp_path):
    directory = tmp_path / "above" / "backups"
    rc, result = take(member, directory, diff=True)
    assert rc == 0, result
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o755
    snapshot = result["snapshot"]
    path = pathlib.Path(snapshot["path"])
    assert result["changed"] and result["removed"] == []
    assert str(directory) in result["diff"]["before"] and path.name in result["diff"]["after"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / (path.name + ".json")).stat().st_mode) == 0o600
    only_good(directory, 1)

    rc, proven = harness.run_module("etcd_snapshot_info", path=path, **harness.tools(version))
    assert rc == 0, proven
    for name in ("hash", "revision", "total_keys", "total_size", "storage_version", "sha256", "size", "integrity"):
        assert snapshot[name] == proven["snapshot"][name], name
    status = member.etcdctl("endpoint", "status", "--write-out=json").stdout
    assert snapshot["cluster_id"] == "%x" % json.loads(status)[0]["Status"]["header"]["cluster_id"]
    assert snapshot["member"]["name"] == "m1" and [one["name"] for one in snapshot["members"]] == ["m1"]
    assert snapshot["etcd_version"].startswith(version)

    # it can be restored and serves what was in it
    data = tmp_path / "restored"
    harness.restore(version, path, data, "--name", "m1", "--initial-cluster", "m1=https://127.0.0.1:1", "--initial-advertise-peer-urls", "https://127.0.0.1:1")
    assert (data / "member" / "snap" / "db").exists()

    # the manifest is the result, and no value of the cluster is in either
    manifest = json.loads((directory / (path.name + ".json")).read_text())
    assert dict(manifest, path=str(path)) == snapshot
    assert SECRET not in json.dumps(result)

    rc, listed = harness.run_module("etcd_snapshot_list", directory=directory)
    assert rc == 0 and listed["latest"] == str(path) and not listed["changed"]
    assert listed["snapshots"][0]["revision"] == snapshot["revision"] and listed["snapshots"][0]["inventory"] == snapshot["inventory"]
    rc, brief = harness.run_module("etcd_snapshot_list", directory=directory, inventory=False)
    listed["snapshots"][0].pop("inventory")
    assert rc == 0 and brief["snapshots"] == listed["snapshots"] and brief["latest"] == listed["latest"]


def test_the_inventory_is_of_the_snapshots_own_revision(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        # more than two pages
        keys = ["/registry/pods/ns-%02d/pod-%05d" % (number % 7, number) for number in range(11000)]
        for first in range(0, len(keys), 100):
            puts = [{"request_put": {"key": base64.b64encode(key.encode()).decode()}} for key in keys[first : first + 100]]
            etcd.call("/v3/kv/txn", success=puts)
        etcd.put("/registry/minions/cp1")
        etcd.put("/registry/deployments/shop/web")
        etcd.put("/other/pods/a/b")
        later = '%s && $real "${@:1:$#-3}" del /registry/minions/cp1 >/dev/null; exit 0' % '$real "$@" >/dev/null'
        rc, result = take(etcd, tmp_path / "backups", etcdctl=fake(etcd, tmp_path / "etcdctl", later))
        assert rc == 0, result
        assert etcd.get("/registry/minions/cp1") is None
        inventory = result["snapshot"]["inventory"]
        assert result["snapshot"]["inventory_problem"] is None
        assert sum(inventory["objects"]["pods"].values()) == 11000
        assert inventory["objects"]["pods"]["ns-00"] == len(range(0, 11000, 7))
        assert inventory["names"] == {"nodes": ["cp1"], "deployments": ["shop/web"], "daemonsets": [], "statefulsets": []}

        # a compaction behind the snapshot costs the object inventory, not the snapshot
        compact = '$real "$@" >/dev/null && c=("${@:1:$#-3}"); $real "${c[@]}" put x y >/dev/null; $real "${c[@]}" put x z >/dev/null; '
        compact += '$real "${c[@]}" compaction $($real "${c[@]}" get x -w json | grep -o \'"revision":[0-9]*\' | cut -d: -f2) >/dev/null; exit 0'
        rc, result = take(etcd, tmp_path / "backups", etcdctl=fake(etcd, tmp_path / "etcdctl", compact))
        assert rc == 0, result
        assert result["snapshot"]["inventory"] is None
        assert "compacted" in result["snapshot"]["inventory_problem"]
        only_good(tmp_path / "backups", 2)


def test_only_the_newest_are_kept_and_nothing_else_is_touched(member, tmp_path):
    directory = tmp_path / "backups"
    paths = []
    for _number in range(3):
        rc, result = take(member, directory)
        assert rc == 0, result
        paths.append(result["snapshot"]["path"])
    # what retention does not know by its manifest
    harness.copy(paths[0], directory / "etcd-cp1-20000101T000000Z.db")
    (directory / "notes.txt").write_text("mine")
    (directory / "other.db").write_text("mine")
    # one that is not verified any more is neither counted nor removed
    with open(paths[1], "ab") as stream:
        stream.write(b"x")
    rc, predicted = take(member, directory, check_mode=True, keep=2)
    assert rc == 0 and predicted["removed"] == [paths[0]]
    rc, result = take(member, directory, keep=2)
    assert rc == 0 and result["removed"] == [paths[0]], result
    left = [paths[1], paths[2], result["snapshot"]["path"]]
    expected = [".lock", "etcd-cp1-20000101T000000Z.db", "notes.txt", "other.db"] + [os.path.basename(path) + end for path in left for end in ("", ".json")]
    assert names(directory) == sorted(expected)
    rc, result = take(member, directory, keep=1)
    assert rc == 0 and result["removed"] == left[:0:-1]


def test_check_mode_leaves_every_byte_as_it_was(member, tmp_path):
    directory = tmp_path / "backups"
    rc, predicted = take(member, directory, check_mode=True, diff=True)
    assert rc == 0 and predicted["changed"] and not directory.exists()
    assert "(absent)" in predicted["diff"]["before"] and "(mode 0700)" in predicted["diff"]["after"]
    take(member, directory)
    directory.chmod(0o755)
    before = tree(tmp_path)
    rc, predicted = take(member, directory, check_mode=True, diff=True, keep=1)
    assert rc == 0 and predicted["changed"] and len(predicted["removed"]) == 1
    assert "0755" in predicted["diff"]["before"]
    assert tree(tmp_path) == before
    rc, result = take(member, directory, keep=1)
    assert rc == 0 and result["removed"] == predicted["removed"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert set(result["snapshot"]) == set(predicted["snapshot"])


def test_a_second_run_is_refused_and_names_the_first(member, tmp_path):
    directory = tmp_path / "backups"
    go = tmp_path / "go"
    slow = fake(member, tmp_path / "etcdctl", "while [ ! -e %s ]; do sleep 0.05; done" % go)
    first = start(member, directory, etcdctl=slow)
    wait_for(lambda: directory.exists() and any(name.endswith(".partial") for name in names(directory)))
    before = names(directory)
    rc, result = take(member, directory)
    assert rc == 1
    assert "by process %d since 2" % first.pid in result["msg"] and "nothing was done" in result["msg"]
    assert names(directory) == before
    rc, result = take(member, directory, lock_timeout=1)
    assert rc == 1
    waiting = start(member, directory, lock_timeout=60)
    go.touch()
    for process in (first, waiting):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    only_good(directory, 2)


@pytest.mark.parametrize("sig, tidy_at_once", [(signal.SIGKILL, False), (signal.SIGTERM, True), (signal.SIGHUP, True)])
def test_a_run_that_is_ended_midway_leaves_no_files(member, tmp_path, sig, tidy_at_once):
    directory = tmp_path / "backups"
    take(member, directory)
    before = names(directory)
    half = fake(member, tmp_path / "etcdctl", 'head -c 100000 /dev/urandom >"$target.part"; exec sleep 60')
    process = start(member, directory, etcdctl=half)
    wait_for(lambda: any((directory / name / "snapshot.db.part").exists() for name in names(directory) if name.endswith(".partial")))
    process.send_signal(sig)
    process.communicate(timeout=20)
    if tidy_at_once:
        assert names(directory) == before
    else:
        # nothing under a good name, and what is left is not listed
        assert [name for name in names(directory) if not name.startswith(".")] == [name for name in before if not name.startswith(".")]
    rc, result = take(member, directory)
    assert rc == 0, result
    only_good(directory, 2)


@pytest.mark.parametrize(
    "on_save, said",
    [
        ('head -c 100000 /dev/urandom >"$target"; exit 0', "is no snapshot to rely on"),
        ('$real "$@" && truncate -s -32 "$target"; exit 0', "is no snapshot to rely on"),
        ('$real "$@" && truncate -s -4096 "$target"; exit 0', "is no snapshot to rely on"),
        ('$real "$@" && printf x | dd of="$target" bs=1 seek=20000 conv=notrunc status=none; exit 0', "is no snapshot to rely on"),
        (': >"$target"; exit 0', "is no snapshot to rely on"),
        ("exit 0", "no snapshot was taken"),
        ('mkfifo "$target"; exit 0', "no snapshot was taken"),
        ('head -c 100000 /dev/urandom >"$target"; echo "Error: it broke" >&2; exit 5', "it broke"),
        ("kill -9 $$", "signal 9"),
    ],
)
def test_an_unverified_file_never_gets_a_final_name(member, tmp_path, on_save, said):
    directory = tmp_path / "backups"
    take(member, directory)
    rc, result = take(member, directory, etcdctl=fake(member, tmp_path / "etcdctl", on_save), keep=1)
    assert rc == 1 and said in result["msg"], result
    assert ".partial" not in result["msg"]
    only_good(directory, 1)


def test_a_snapshot_that_is_saved_slowly_is_hashed_meanwhile(tmp_path):
    """It is verified with nothing left to read, and the checksum is that of the file."""
    with harness.Etcd(harness.VERSIONS[-1], tmp_path) as etcd:
        for number in range(30):
            etcd.put("/big/%d" % number, os.urandom(1000000))
        rc, result = take(etcd, tmp_path / "backups", bwlimit="10M")
        assert rc == 0, result
        path = pathlib.Path(result["snapshot"]["path"])
        assert result["snapshot"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        only_good(tmp_path / "backups", 1)
        # one that puts its bytes together in another order
        swap = '$real "$@" && mv "$target" "$target.whole" && head -c 30000 /dev/zero >"$target.part" && sleep 0.2 && cat "$target.whole" >"$target.part" '
        swap += '&& rm "$target.whole" && mv "$target.part" "$target"; exit 0'
        rc, result = take(etcd, tmp_path / "backups", etcdctl=fake(etcd, tmp_path / "etcdctl", swap))
        assert rc == 0, result
        path = pathlib.Path(result["snapshot"]["path"])
        assert result["snapshot"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        only_good(tmp_path / "backups", 2)


def test_an_etcd_that_freezes_or_dies_midway(version, tmp_path):
    directory = tmp_path / "backups"
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
        take(etcd, directory)
        began = time.monotonic()
        rc, result = take(etcd, directory, etcdctl=fake(etcd, tmp_path / "etcdctl", "kill -STOP %d" % etcd.pid), save_timeout=3)
        os.kill(etcd.pid, signal.SIGCONT)
        assert rc == 1 and "no snapshot was taken" in result["msg"], result
        assert time.monotonic() - began < 25
        only_good(directory, 1)
        rc, result = take(etcd, directory, etcdctl=fake(etcd, tmp_path / "etcdctl", "kill -KILL %d" % etcd.pid), save_timeout=3)
        assert rc == 1 and "no snapshot was taken" in result["msg"], result
        only_good(directory, 1)
        etcd.kill()
        rc, result = take(etcd, directory)
        assert rc == 1 and etcd.endpoint in result["msg"], result
        only_good(directory, 1)


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d" % size, "tmpfs", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here, so no disk can be filled")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk(member, tmp_path):
    with small_disk(tmp_path / "disk", 16 * 1024 * 1024) as disk:
        rc, result = take(member, disk / "backups", keep=1)
        assert rc == 0, result
        # it fills up while the snapshot is being saved
        full = fake(member, tmp_path / "etcdctl", "head -c 100M /dev/zero >%s/filler 2>/dev/null" % disk)
        rc, result = take(member, disk / "backups", etcdctl=full, keep=1)
        assert rc == 1 and "full" in result["msg"], result
        only_good(disk / "backups", 1)
        # it is full before: nothing is asked of it, and retention does not make room at the cost of the good one
        rc, result = take(member, disk / "backups", keep=1)
        assert rc == 1 and "free and a snapshot needs" in result["msg"], result
        only_good(disk / "backups", 1)
        (disk / "filler").unlink()
        rc, result = take(member, disk / "backups", keep=1)
        assert rc == 0, result
        only_good(disk / "backups", 1)


def test_the_leftovers_of_a_killed_run_do_not_block_the_next(member, tmp_path):
    """It took so much room that nothing more would fit, and it is no use to anybody."""
    with small_disk(tmp_path / "disk", 16 * 1024 * 1024) as disk:
        rc, result = take(member, disk / "backups", keep=1)
        assert rc == 0, result
        left = disk / "backups" / ".etcd-cp1-20260102T030405Z.db.partial"
        left.mkdir(0o700)
        with open(left / "snapshot.db.part", "wb") as stream, contextlib.suppress(OSError):
            while True:
                stream.write(bytes(65536))
                stream.flush()
        assert os.statvfs(disk).f_bavail == 0
        rc, predicted = harness.run_module("etcd_snapshot", check_mode=True, directory=disk / "backups", keep=1, **member.connection)
        assert rc == 0 and left.exists(), predicted
        rc, result = take(member, disk / "backups", keep=1)
        assert rc == 0 and not left.exists(), result
        only_good(disk / "backups", 1)


def test_alarms(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
        ids = etcd.call("/v3/maintenance/status")["header"]["member_id"]
        etcd.call("/v3/maintenance/alarm", action="ACTIVATE", memberID=ids, alarm="NOSPACE")
        rc, result = take(etcd, tmp_path / "backups")
        assert rc == 0 and "NOSPACE" in json.dumps(result["warnings"]), result
        etcd.call("/v3/maintenance/alarm", action="ACTIVATE", memberID=ids, alarm="CORRUPT")
        rc, result = take(etcd, tmp_path / "backups")
        assert rc == 1 and "CORRUPT" in result["msg"], result
        only_good(tmp_path / "backups", 1)


def test_a_learner_is_refused(version, tmp_path):
    with harness.Etcd(version, tmp_path, name="a") as voter:
        harness.fill(voter)
        learner = harness.Etcd(version, tmp_path, name="b", wait=False, flags=["--initial-cluster-state", "existing"])
        voter.etcdctl("member", "add", "b", "--learner", "--peer-urls", learner.peer_url)
        learner.initial_cluster = "a=%s,b=%s" % (voter.peer_url, learner.peer_url)
        with learner:
            wait_for(lambda: learner.etcdctl("endpoint", "status", check=False).returncode == 0)
            rc, result = take(learner, tmp_path / "backups")
            assert rc == 1 and "learner" in result["msg"], result
            assert not (tmp_path / "backups").exists()


@pytest.mark.parametrize("mode, foreign, outcome", [(0o755, False, 0o700), (0o777, False, 0o700), (0o755, True, 0o755), (0o777, True, None)])
def test_a_directory_that_others_may_use(member, tmp_path, mode, foreign, outcome):
    directory = tmp_path / "backups"
    take(member, directory)
    if foreign:
        (directory / "notes.txt").write_text("mine")
    os.chmod(str(directory), mode)
    rc, result = take(member, directory)
    if outcome is None:
        assert rc == 1 and "others may write to" in result["msg"]
        assert stat.S_IMODE(directory.stat().st_mode) == mode
        return
    assert rc == 0, result
    assert stat.S_IMODE(directory.stat().st_mode) == outcome
    assert bool(result.get("warnings")) == foreign


def test_a_directory_of_another_user(member, tmp_path):
    """Only its owner may list it, who can read and replace all that is in it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    directory = tmp_path / "back ups"
    directory.mkdir(mode=0o700)
    os.chown(str(directory), 65534, 0)
    for check_mode in (True, False):
        rc, result = take(member, directory, check_mode=check_mode)
        assert rc == 1 and "nothing was taken. Run: chown root: '%s'" % directory in result["msg"], result
        assert "%s belongs to nobody" % directory in result["msg"] and not os.listdir(str(directory))
    rc, result = harness.run_module("etcd_snapshot_list", directory=directory)
    assert rc == 0 and "who can replace every snapshot in it" in str(result["warnings"][0]), result
    os.chown(str(directory), 0, 0)
    # who may write above it can put another one in its place
    tmp_path.chmod(0o777)
    rc, result = take(member, directory)
    assert rc == 0 and "Run: chmod go-w %s" % tmp_path in str(result["warnings"][0]), result


def test_a_path_that_is_not_a_directory(member, tmp_path):
    (tmp_path / "file").write_text("x")
    rc, result = take(member, tmp_path / "file")
    assert rc == 1 and "is not a directory" in result["msg"]
    rc, result = take(member, tmp_path / "file" / "below")
    assert rc == 1 and "no snapshot was taken" in result["msg"]
    # a link to another disk is what it points to
    (tmp_path / "disk").mkdir()
    os.symlink(str(tmp_path / "disk"), str(tmp_path / "link"))
    rc, result = take(member, tmp_path / "link")
    assert rc == 0 and result["snapshot"]["path"].startswith(str(tmp_path / "disk"))


def test_an_endpoint_that_does_not_exist(member, tmp_path):
    options = dict(member.connection, endpoint="https://127.0.0.1:1", timeout=2)
    rc, result = harness.run_module("etcd_snapshot", directory=tmp_path / "backups", **options)
    assert rc == 1 and "https://127.0.0.1:1" in result["msg"]
    assert not (tmp_path / "backups").exists()


def test_a_host_without_a_tool_for_status(member, version, tmp_path):
    """From 3.6 on that is one without etcdutl: the proof goes as far as it can, and says so."""
    no_status = tmp_path / "etcdctl"
    no_status.write_text(
        '#!/bin/bash\ncase " $* " in *" snapshot --help "*) %s "$@" | grep -vE \'^[[:space:]]+status\'; exit;; esac\nexec %s "$@"\n'
        % (member.connection["etcdctl"], member.connection["etcdctl"])
    )
    no_status.chmod(0o755)
    options = dict(member.connection, etcdctl=str(no_status))
    # an etcdutl of this host must not be found either
    (tmp_path / "etcdutl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "etcdutl").chmod(0o755)
    options.pop("etcdutl", None)
    environment = {"PATH": "%s:%s" % (tmp_path, os.environ["PATH"])}
    rc, result = harness.run_module("etcd_snapshot", environment=environment, directory=tmp_path / "backups", manifests_dir="/nonexistent", **options)
    assert rc == 0, result
    assert result["snapshot"]["level"] == "structure" and result["snapshot"]["hash"] is None and result["snapshot"]["revision"] > 0
    assert "hash" in json.dumps(result["warnings"])
    only_good(tmp_path / "backups", 1)


def test_a_manifest_that_is_damaged_is_not_verified(member, tmp_path):
    rc, result = take(member, tmp_path / "backups")
    path = result["snapshot"]["path"]
    with open(path + ".json", "w", encoding="utf-8") as stream:
        stream.write('{"format": 2}')
    rc, listed = harness.run_module("etcd_snapshot_list", directory=tmp_path / "backups")
    assert rc == 0 and listed["latest"] is None
    assert "format" in listed["snapshots"][0]["problem"]
    shutil.rmtree(str(tmp_path / "backups"))
    rc, listed = harness.run_module("etcd_snapshot_list", directory=tmp_path / "backups")
    assert rc == 0 and listed["snapshots"] == [] and listed["latest"] is None


def test_an_older_one_that_cannot_be_removed_does_not_make_the_new_one_a_failure(member, tmp_path):
    rc, result = take(member, tmp_path / "backups")
    old = result["snapshot"]["path"]
    if subprocess.run(["chattr", "+i", old], capture_output=True, check=False).returncode:
        pytest.skip("this file system or user cannot make a file immutable")
    try:
        rc, result = take(member, tmp_path / "backups", keep=1)
        assert rc == 0 and result["removed"] == [] and "could not be removed" in json.dumps(result["warnings"]), result
        only_good(tmp_path / "backups", 2)
    finally:
        subprocess.run(["chattr", "-i", old], check=True)
    rc, result = take(member, tmp_path / "backups", keep=1)
    assert rc == 0 and len(result["removed"]) == 2
    only_good(tmp_path / "backups", 1)


def test_the_read_can_be_limited(tmp_path):
    with harness.Etcd(harness.VERSIONS[-1], tmp_path) as etcd:
        for number in range(30):
            etcd.put("/big/%d" % number, os.urandom(1000000))
        rc, fast = take(etcd, tmp_path / "backups")
        assert rc == 0, fast
        # two pauses of a second on the way, and a tool that has less time than that without them
        rc, slow = take(etcd, tmp_path / "backups", bwlimit="10M", save_timeout=1)
        assert rc == 0 and slow["snapshot"]["verified"] and slow["snapshot"]["revision"] == fast["snapshot"]["revision"], slow
        assert slow["seconds"]["save"] > 2.4 > fast["seconds"]["save"], (slow["seconds"], fast["seconds"])
        for wrong in ("fast", "1", "-5M"):
            rc, result = take(etcd, tmp_path / "backups", bwlimit=wrong)
            assert rc == 1 and "`bwlimit` is %s, and should be" % wrong in result["msg"], result


def test_a_paused_tool_ends_with_the_process_that_paused_it(tmp_path):
    """However that ended: etcd would keep for it all that it has not read."""

    def states():
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # its command line names the directory of this test and of no other
                if str(tmp_path / "backups").encode() in (process / "cmdline").read_bytes():
                    found.append((process / "stat").read_text().rsplit(")", 1)[1].split()[0])
        return found

    with harness.Etcd(harness.VERSIONS[-1], tmp_path) as etcd:
        for number in range(10):
            etcd.put("/big/%d" % number, os.urandom(1000000))
        process = start(etcd, tmp_path / "backups", bwlimit="64K")
        try:
            end = time.monotonic() + 60
            while "T" not in states() and time.monotonic() < end:
                time.sleep(0.05)
            assert "T" in states()
        finally:
            process.kill()
            process.communicate()
        end = time.monotonic() + 10
        while states() and time.monotonic() < end:
            time.sleep(0.05)
        assert states() == []
        # and the next run finds nothing in its way
        assert take(etcd, tmp_path / "backups")[0] == 0
        only_good(tmp_path / "backups", 1)
