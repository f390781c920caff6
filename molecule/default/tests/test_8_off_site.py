# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything on the node is lost, the data and its snapshots: a restore straight from an S3 server, where they were sealed, with the private key that only
the controller has."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from cluster import ROOT, wait_for

sys.path.insert(0, str(ROOT / "tests" / "integration"))

import servers


@pytest.fixture
def far(cluster, tmp_path, monkeypatch):
    """An S3 server that node and controller reach, and an rclone and an age on both."""
    for name in ("rclone", "age"):
        program = servers.program(name)
        monkeypatch.setenv("PATH", os.path.dirname(program) + os.pathsep + os.environ["PATH"])
        subprocess.run([cluster.engine, "cp", program, cluster.nodes["cp1"] + ":/usr/local/bin/" + name], check=True)
    gateway = cluster.run("cp1", "sh", "-c", "ip route show default").split()[2]
    with servers.S3(tmp_path / "far", host=gateway) as server:
        yield server
    cluster.run("cp1", "rm", "-f", "/usr/local/bin/rclone", "/usr/local/bin/age")


@pytest.fixture
def key(tmp_path):
    """(file with the private key, public key)"""
    path = tmp_path / "identity.txt"
    subprocess.run([servers.program("age-keygen"), "-o", str(path)], check=True, capture_output=True)
    return path, next(line.split()[-1] for line in path.read_text().splitlines() if "public key" in line)


def test_everything_on_the_node_is_lost(cluster, far, key, tmp_path, monkeypatch):
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.setenv("TMPDIR", str(landing))
    config = far.config(tmp_path / "rclone.conf")
    cluster.wait_ready()
    cluster.note("survivor", "off-site")
    identity, recipient = key
    sealing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient]}
    away = {"etcd_snapshot_off_site": far.where, "etcd_snapshot_rclone_config_source": config}
    cluster.run("cp1", "rm", "-rf", "/var/backups/etcd")
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(sealing, **away)))
    [name] = [path.name for path in far.stored("").iterdir() if path.suffix == ".age"]
    assert name.endswith(".db.zst.age") and b"survivor" not in far.stored(name).read_bytes()
    # no copy that anybody could read is left
    assert cluster.run("cp1", "sh", "-c", "ls -A /var/backups/etcd").split() == [".lock", name, name + ".json"]
    # neither rclone's configuration nor anything else of it stays on the node
    assert cluster.run("cp1", "sh", "-c", "ls -d /run/k8s-dr-* /root/.config/rclone 2>/dev/null || true").strip() == ""
    cluster.note("latecomer")

    cluster.run("cp1", "sh", "-c", "rm -rf /var/backups/etcd /var/lib/etcd; kill -9 $(pgrep -x etcd)")
    wait_for(
        lambda: (
            cluster.kubectl("get", "--raw", "/readyz", check=False, timeout=30).strip() == "ok"
            and cluster.kubectl("get", "namespaces", "-o", "name", check=False, timeout=30).count("\n") > 2
        ),
        240,
        "an empty cluster takes the place of the lost one",
    )

    off_site = ["-e", "etcd_restore_off_site=" + far.where, "-e", "etcd_restore_rclone_config=" + config]
    process = cluster.playbook("restore.yml", "-l", "cp1", *off_site, "-e", "etcd_restore_confirm=true", "-e", "etcd_restore_snapshot=absent.db", check=False)
    assert process.returncode != 0 and "has no snapshot absent.db" in process.stdout and "Nothing was done" in process.stdout
    process = cluster.playbook("restore.yml", "-l", "cp1", *off_site, "-e", "etcd_restore_confirm=true", check=False)
    assert process.returncode != 0 and "etcd_restore_identity_file=PATH" in process.stdout and "Nothing was done" in process.stdout
    opening = ["-e", "etcd_restore_confirm=true", "-e", "etcd_restore_identity_file=%s" % identity]
    output = cluster.playbook("restore.yml", "-l", "cp1", *off_site, *opening).stdout
    assert "from      %s/%s" % (far.where, name) in output
    assert cluster.run("cp1", "sh", "-c", "grep -rl AGE-SECRET-KEY /etc /root /tmp /run /var/lib/etcd.restore 2>/dev/null || true").strip() == ""
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    assert cluster.transactions()[-1].state == "committed"
    # with a sealed one on the node it is the same
    cluster.playbook("snapshot.yml", "-e", json.dumps(sealing))
    cluster.note("latecomer")
    output = cluster.playbook("restore.yml", "-l", "cp1", *opening).stdout
    assert ".db.zst.age on cp1" in output
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    # and nothing of it on the controller
    assert list(landing.glob("k8s-dr-*")) == [] and pathlib.Path(config).exists()
