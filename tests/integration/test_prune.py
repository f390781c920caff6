# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention where it removes snapshots: in a directory, and off-site on real servers (see servers.py)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os

import harness
import pytest
import servers
from test_snapshot_role import play
from test_upload import far, kind, make, place, upload  # noqa: F401

PRUNED = {"changed", "removed", "freed", "kept", "locked", "undeletable", "untouched", "etcd_ca", "diff", "invocation"}

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata:
  labels:
    component: etcd
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --trusted-ca-file=%s
    image: etcd:3.5
    name: etcd
"""


def prune(check_mode=False, **options):
    return harness.run_module("etcd_snapshot_prune", check_mode=check_mode, diff=True, **options)


def of_cluster(directory, authority):
    """(manifests directory of a host of the cluster whose etcd has that CA, the fingerprint of it)"""
    directory.mkdir(exist_ok=True)
    (directory / "ca.crt").write_bytes(authority)
    (directory / "etcd.yaml").write_text(MANIFEST % (directory / "ca.crt"))
    return str(directory), hashlib.sha256(authority).hexdigest()


def names(directory):
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


def test_check_mode_predicts_and_a_second_run_finds_nothing(tmp_path):
    directory = tmp_path / "backups"
    paths = [make(directory, day, size=1000) for day in range(1, 10)]
    stranger = directory / "etcd-cp1-20250101T030405Z.db"
    stranger.write_bytes(b"nobody knows")
    (directory / "notes.txt").write_text("mine")
    damaged = make(directory, 11, size=1000)
    damaged.write_bytes(b"short")
    before = names(directory)
    # 2026-01-01 is a Thursday: the weeks end on the 4th and the 11th
    keep = {"last": 2, "weekly": 5}
    rc, predicted = prune(True, directory=directory, keep=keep)
    assert rc == 0 and predicted["changed"], predicted
    assert names(directory) == before and not (directory / ".lock").exists()
    rc, result = prune(directory=directory, keep=keep)
    # how it was called, which ansible-core returns up to 2.20
    for answer in (predicted, result):
        answer.pop("invocation", None)
    assert rc == 0 and result == predicted, result
    stays = [paths[8], paths[7], paths[3]]
    assert [one["path"] for one in result["kept"]] == [str(path) for path in stays]
    assert [one["by"] for one in result["kept"]] == [["last", "weekly"], ["last"], ["weekly"]]
    assert result["removed"] == [str(path) for path in reversed(paths) if path not in stays] and result["freed"] == 6000
    assert sorted(one["path"] for one in result["untouched"]) == sorted([str(stranger), str(damaged)])
    assert "has no manifest" in str(result["untouched"]) and "has 5 bytes, and had 1000" in str(result["untouched"])
    gone = [os.path.basename(path) + suffix for path in result["removed"] for suffix in ("", ".json")]
    assert names(directory) == sorted(set(before) - set(gone))
    for check_mode in (True, False):
        rc, result = prune(check_mode, directory=directory, keep=keep)
        assert rc == 0 and not result["changed"] and result["removed"] == [] and set(result) | {"invocation"} == PRUNED, result


def test_the_newest_stays_whatever_the_rules_are(tmp_path):
    directory = tmp_path / "backups"
    old = make(directory, 1)
    damaged = make(directory, 2)
    damaged.write_bytes(b"")
    for keep in (1, {"hourly": 1}, {"yearly": 1}):
        rc, result = prune(directory=directory, keep=keep)
        assert rc == 0 and not result["changed"] and old.exists() and damaged.exists(), result
    rc, result = prune(directory=tmp_path / "nothing", keep=1)
    assert rc == 0 and not result["changed"] and not (tmp_path / "nothing").exists(), result


def test_an_invalid_rule_removes_nothing(tmp_path):
    make(tmp_path / "backups", 1)
    for keep, words in (({"dayly": 1}, "`keep` has the rule dayly"), (-1, "`keep` is -1"), ("few", "`keep` should be a number")):
        rc, result = prune(directory=tmp_path / "backups", keep=keep)
        assert rc == 1 and words in result["msg"] and result["msg"].endswith("No snapshot was removed"), result


def test_it_waits_while_a_snapshot_is_taken(tmp_path):
    directory = tmp_path / "backups"
    paths = [make(directory, day) for day in (1, 2)]
    with open(directory / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rc, result = prune(directory=directory, keep=1, lock_timeout=1)
        assert rc == 1 and "another snapshot is being taken" in result["msg"] and all(path.exists() for path in paths), result
    rc, result = prune(directory=directory, keep=1)
    assert rc == 0 and result["removed"] == [str(paths[0])], result


def test_the_leftovers_of_a_killed_run_are_removed(tmp_path):
    directory = tmp_path / "backups"
    paths = [make(directory, day) for day in (1, 2, 3)]
    # as it is after the rename, and after the manifest went
    partial = directory / (".%s.partial" % paths[0].name)
    partial.mkdir(0o700)
    paths[0].rename(partial / "removed")
    rc, result = prune(directory=directory, keep=2)
    assert rc == 0, result
    assert names(directory) == sorted(path.name + suffix for path in paths[1:] for suffix in ("", ".json"))
    assert not partial.exists()


def test_off_site(far, place):  # noqa: F811
    """All hosts of a cluster count as one there, another cluster does not, and a removal that broke off is ended."""
    local = place / "local"
    for day, host in ((1, "cp1"), (2, "cp2"), (3, "cp1"), (4, "cp3")):
        make(local, day, host=host)
    other = make(local, 1, host="cp9", fingerprints={"etcd_ca": "b" * 64})
    rc, result = upload(far, place, directory=local)
    assert rc == 0 and len(result["uploaded"]) == 5, result
    options = {"remote": far.where, "rclone_config": far.config(place / "rclone.conf"), "rclone": servers.program("rclone"), "keep": {"last": 2}}
    # a host that is of neither cluster
    rc, result = prune(manifests_dir=place / "nothing", **options)
    assert rc == 0 and not result["changed"] and [one["problem"].endswith("is of another cluster") for one in result["untouched"]] == [True] * 5, result

    options["etcd_ca"] = "a" * 64
    rc, predicted = prune(True, **options)
    assert rc == 0 and [os.path.basename(path) for path in predicted["removed"]] == ["etcd-cp2-20260102T030405Z.db", "etcd-cp1-20260101T030405Z.db"], predicted
    # the first step of a removal
    far.stored("etcd-cp1-20260101T030405Z.db").unlink()
    rc, result = prune(**options)
    assert rc == 0 and result["removed"] == predicted["removed"], result
    left = sorted(path.name for path in far.stored("").glob("etcd-*"))
    stay = ("etcd-cp1-20260103T030405Z.db", "etcd-cp3-20260104T030405Z.db", other.name)
    assert left == sorted(name + suffix for name in stay for suffix in ("", ".json"))
    # local files are left alone, and are not uploaded again
    assert len(names(local)) == 10
    rc, result = upload(far, place, directory=local)
    assert rc == 0 and not result["changed"], result
    rc, result = prune(**options)
    assert rc == 0 and not result["changed"], result

    far.kill()
    rc, result = prune(**options)
    assert rc == 1 and "No snapshot was removed" in result["msg"], result


@pytest.mark.parametrize("kind", [servers.S3], indirect=False)
def test_list_yml_and_prune_yml(kind, place, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("rclone")) + os.pathsep + os.environ["PATH"])
    with kind(place / "far") as far:  # noqa: F811
        hosts = {}
        for number, host in enumerate(("cp1", "cp2"), 1):
            directory = tmp_path / host
            for day in (number, number + 2, number + 4):
                make(directory, day, host=host, fingerprints={"etcd_ca": of_cluster(tmp_path / "pki", b"one CA")[1]})
            rc, result = upload(far, place, directory=directory)
            assert rc == 0, result
            manifests, dummy = of_cluster(tmp_path / (host + "-pki"), b"one CA")
            hosts[host] = {
                "etcd_client_manifests_dir": manifests,
                "etcd_snapshot_dir": str(directory),
                "etcd_snapshot_off_site": far.where,
                "etcd_snapshot_rclone_config_source": far.config(place / "rclone.conf"),
                "etcd_snapshot_keep": 2,
                "etcd_snapshot_off_site_keep": {"daily": 4},
            }
        # of another cluster, which has the same place and rules of its own
        stranger = {"etcd_ca": of_cluster(tmp_path / "other-pki", b"another CA")[1]}
        for day in range(10, 16):
            make(tmp_path / "other", day, host="cp7", fingerprints=stranger)
        rc, result = upload(far, place, directory=tmp_path / "other")
        assert rc == 0 and len(result["uploaded"]) == 6, result
        damaged = tmp_path / "cp1" / "etcd-cp1-20260105T030405Z.db"
        damaged.write_bytes(b"short")

        def listed():
            rc, output, recap = play("playbooks/list.yml", tmp_path, hosts, "-e", "etcd_snapshot_list_file=%s" % (tmp_path / "table.json"))
            assert rc == 0 and recap["cp1"]["changed"] <= 1 and recap["cp2"]["changed"] == 0, output
            assert far.secret not in output
            return output, [row for row in json.loads((tmp_path / "table.json").read_text()) if not row["file"].startswith("etcd-cp7")]

        output, table = listed()
        assert sorted((row["where"], row["file"][5:8]) for row in table) == sorted(
            [("cp1", "cp1")] * 3 + [("cp2", "cp2")] * 3 + [(far.where, "cp1")] * 3 + [(far.where, "cp2")] * 3
        )
        assert [row["revision"] for row in table if row["where"] == far.where] == [6, 5, 4, 3, 2, 1]
        assert [row["file"] for row in table if not row["verified"]] == [damaged.name]
        assert "cp1: %s has 5 bytes, and had 300000 when it was taken" % damaged in output
        assert "18 snapshots, 17 of them verified, the newest" in output and '"etcd_snapshot_list"' in output

        rc, output, recap = play("playbooks/prune.yml", tmp_path, hosts, "--check", "--diff")
        assert rc == 0 and "etcd-cp2-20260102T030405Z.db: would be removed" in output and "CUSTOM STATS" not in output, output
        assert "far:backups/prod: 4 stay, 2 would be removed (585.94 KB), 6 are not verified or of another cluster, and were left alone" in output, output
        assert len(listed()[1]) == 12

        rc, output, recap = play("playbooks/prune.yml", tmp_path, hosts)
        assert rc == 0 and recap["cp2"]["changed"] == 1, output
        assert "%s: 2 stay, 0 removed (0.00 Bytes), 1 are not verified" % (tmp_path / "cp1") in output, output
        rows = listed()[1]
        assert [row["revision"] for row in rows if row["where"] == far.where] == [6, 5, 4, 3]
        assert [row["revision"] for row in rows if row["where"] == "cp2"] == [6, 4]
        rc, output, recap = play("playbooks/prune.yml", tmp_path, hosts)
        assert rc == 0 and recap["cp1"]["changed"] == recap["cp2"]["changed"] == 0, output

        # in one run each cluster judges what is its own
        manifests, dummy = of_cluster(tmp_path / "cp7-pki", b"another CA")
        hosts["cp7"] = dict(hosts["cp1"], etcd_client_manifests_dir=manifests, etcd_snapshot_dir=str(tmp_path / "other"), etcd_snapshot_off_site_keep=5)
        rc, output, recap = play("playbooks/prune.yml", tmp_path, hosts)
        assert rc == 0 and recap["cp1"]["changed"] == recap["cp2"]["changed"] == 0, output
        assert sorted(path.name for path in far.stored("").glob("etcd-cp7-*.db")) == ["etcd-cp7-202601%dT030405Z.db" % day for day in range(11, 16)]
        assert len(listed()[1]) == 9

        far.kill()
        for playbook in ("list", "prune"):
            rc, output, recap = play("playbooks/%s.yml" % playbook, tmp_path, hosts)
            assert rc == 2 and recap["cp1"]["failed"] == 1 and recap["cp2"]["failed"] == 0 and "it cannot be reached" in output, output
