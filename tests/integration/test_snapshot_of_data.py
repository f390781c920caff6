# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of data directories that no etcd uses, as a restore leaves them behind."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import time

import harness
import pytest


def take(member, data_dir, directory, check_mode=False, diff=False, **options):
    options = {
        **{name: path for name, path in member.connection.items() if name not in ("endpoint", "cacert", "cert", "key")},
        "etcd": member.dir / "etcd",
        "data_dir": data_dir,
        "directory": directory,
        "manifests_dir": "/nonexistent",
        "pki_dir": "/nonexistent",
        "host": "cp1",
        **options,
    }
    return harness.run_module("etcd_snapshot", check_mode=check_mode, diff=diff, **options)


def tree(directory):
    """All metadata of a directory except the time of the last read."""
    found = {}
    for path in sorted([directory, *pathlib.Path(directory).rglob("*")]):
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (info.st_mode, info.st_ino, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns, content)
    return found


def only_that(parent, *names):
    """Whether a directory holds these and nothing that was put there for a while."""
    return sorted(path.name for path in parent.iterdir()) == sorted(names)


def served_by(version, tmp_path, snapshot, key):
    """The value that a cluster restored from the snapshot has for a key."""
    assert harness.restore(version, snapshot, tmp_path / "again").returncode == 0
    with harness.Etcd(version, tmp_path, name="default", data_dir=tmp_path / "again", initial_cluster="default=http://localhost:2380") as etcd:
        return etcd.get(key)


def manifests_of(version, tmp_path):
    """A directory with the static Pod of an etcd of this version."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "etcd.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    component: etcd\nspec:\n  containers:\n"
        "  - command:\n    - etcd\n    - --data-dir=/var/lib/etcd\n    image: registry.k8s.io/etcd:%s-0\n    name: etcd\n" % version
    )
    return directory


# what is complete is not served: there is no etcd for it
@pytest.mark.parametrize(("ending", "complete"), [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGTERM, True)])
@pytest.mark.parametrize("content_of_member", [False, True])
def test_the_last_acknowledged_write_is_in_it_and_the_data_is_only_read(version, tmp_path, ending, complete, content_of_member):
    options = {"manifests_dir": manifests_of(version + ".0", tmp_path), "etcd": "/nonexistent"} if complete else {}
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
        etcd.put("/registry/secrets/shop/password", "do not tell")
        last = etcd.put("/registry/configmaps/shop/last", b"acknowledged")
        cluster_id = "%x" % json.loads(etcd.etcdctl("endpoint", "status", "--write-out=json").stdout)[0]["Status"]["header"]["cluster_id"]
        etcd.kill(ending)
    home = tmp_path / "var"
    home.mkdir()
    old = home / "old"
    shutil.move(str(etcd.data_dir / "member" if content_of_member else etcd.data_dir), str(old))
    before = tree(old)
    backups = tmp_path / "backups" / "discarded"

    code, result = take(etcd, old, backups, check_mode=True, diff=True, **options)
    assert code == 0, result
    assert not backups.exists()
    assert (result["snapshot"]["source"], result["snapshot"]["cluster_id"], result["snapshot"]["revision"]) == ("data directory", None, None)
    assert result["snapshot"]["etcd_version"].startswith(version)

    code, result = take(etcd, old, backups, **options)
    assert code == 0, result
    snapshot = result["snapshot"]
    assert tree(old) == before
    assert only_that(home, "old")
    assert not complete or result["seconds"]["serve"] < 0.5
    assert (snapshot["source"], snapshot["verified"], snapshot["cluster_id"]) == ("data directory", True, cluster_id)
    assert snapshot["revision"] == last
    assert snapshot["inventory"]["objects"]["configmaps"] == {"shop": 1}
    assert [(member["name"], member["peer_urls"], member["client_urls"]) for member in snapshot["members"]] == [("m1", [etcd.peer_url], [etcd.endpoint])]
    assert snapshot["member"] == {"id": snapshot["members"][0]["id"], "name": "m1", "leader": None}
    assert stat.S_IMODE(backups.stat().st_mode) == 0o700
    assert "do not tell" not in json.dumps(result)
    code, proven = harness.run_module("etcd_snapshot_info", path=snapshot["path"], **harness.tools(version))
    assert (code, proven["snapshot"]["hash"]) == (0, snapshot["hash"])
    assert served_by(version, tmp_path, snapshot["path"], "/registry/configmaps/shop/last") == b"acknowledged"


def test_one_of_three_members_that_were_killed_holds_all_that_was_acknowledged(version, tmp_path):
    ports = harness.free_ports(6)
    cluster = ",".join("m%d=https://127.0.0.1:%d" % (number, ports[3 + number]) for number in range(3))
    members = [
        harness.Etcd(version, tmp_path, name="m%d" % number, initial_cluster=cluster, client_port=ports[number], peer_port=ports[3 + number], wait=False)
        for number in range(3)
    ]
    try:
        for member in members:
            member.start()
        assert all(member.ready() for member in members)
        harness.fill(members[0])
        last = members[0].put("/registry/configmaps/shop/last", b"acknowledged")
    finally:
        for member in members:
            member.kill(signal.SIGKILL)
    found = []
    for member in members:
        before = tree(member.data_dir)
        code, result = take(member, member.data_dir, tmp_path / "backups")
        assert code == 0, result
        assert tree(member.data_dir) == before
        snapshot = result["snapshot"]
        assert sorted(one["name"] for one in snapshot["members"]) == ["m0", "m1", "m2"]
        assert snapshot["member"]["name"] == member.name
        found.append(snapshot)
    # an acknowledged write is on two of three at least
    assert sorted(snapshot["revision"] for snapshot in found)[1:] == [last, last]
    best = max(found, key=lambda snapshot: snapshot["revision"])
    assert served_by(version, tmp_path, best["path"], "/registry/configmaps/shop/last") == b"acknowledged"


def test_writes_that_are_interrupted(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        writers = [
            subprocess.Popen(
                ["sh", "-c", 'i=0; while "$@" put /registry/pods/w%d/$i x >/dev/null 2>&1; do i=$((i + 1)); echo $i; done' % number]
                + ["sh", str(etcd.dir / "etcdctl"), "--endpoints=" + etcd.endpoint, "--command-timeout=2s"]
                + ["--%s=%s" % item for item in etcd.pki.items()],
                env=harness.clean_environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        time.sleep(2)
        etcd.kill(signal.SIGKILL)
    acknowledged = [len(writer.communicate(timeout=30)[0].splitlines()) for writer in writers]
    assert min(acknowledged) > 3
    code, result = take(etcd, etcd.data_dir, tmp_path / "backups")
    assert code == 0, result
    counts = result["snapshot"]["inventory"]["objects"]["pods"]
    for number, count in enumerate(acknowledged):
        # one may have been written without an acknowledgement
        assert counts["w%d" % number] - count in (0, 1)


def test_data_that_another_process_uses_is_refused(etcd, tmp_path):
    code, result = take(etcd, etcd.data_dir, tmp_path / "backups")
    assert (code, result["msg"]) == (1, "an etcd uses %s right now; nothing was taken" % etcd.data_dir)
    assert not (tmp_path / "backups").exists()


def test_data_that_cannot_be_served(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
    home = tmp_path / "home"
    home.mkdir()
    old = home / "old"
    shutil.copytree(str(etcd.data_dir), str(old))
    with (old / "member" / "snap" / "db").open("r+b") as stream:
        stream.write(os.urandom(16384))
    before = tree(old)
    code, result = take(etcd, old, tmp_path / "backups")
    assert code == 1
    assert result["msg"].startswith("no snapshot of %s was taken, which is as it was: etcd %s" % (old, version))
    assert "does not start with it: " in result["msg"]
    assert tree(old) == before
    assert only_that(home, "old")
    assert list((tmp_path / "backups").glob("*")) == []
    code, result = take(etcd, home / "none", tmp_path / "backups")
    assert (code, result["msg"]) == (1, "no snapshot of {0} was taken, which is as it was: there is no etcd database in {0}".format(home / "none"))


def test_free_space_is_checked_first(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(small)], check=True)
    try:
        code, result = take(etcd, etcd.data_dir, tmp_path / "backups", work_dir=small)
        left = list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert code == 1
    assert result["msg"].startswith("%s has " % small) and "a copy of %s needs " % etcd.data_dir in result["msg"]
    assert left == []
    assert not (tmp_path / "backups").exists()
