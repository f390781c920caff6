# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything on the node is lost, the data and its snapshots: a restore straight from an S3 server, through the controller."""

from __future__ import annotations

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
    """An S3 server that node and controller reach, and an rclone on both."""
    rclone = servers.program("rclone")
    monkeypatch.setenv("PATH", os.path.dirname(rclone) + os.pathsep + os.environ["PATH"])
    subprocess.run([cluster.engine, "cp", rclone, cluster.nodes["cp1"] + ":/usr/local/bin/rclone"], check=True)
    gateway = cluster.run("cp1", "sh", "-c", "ip route show default").split()[2]
    with servers.S3(tmp_path / "far", host=gateway) as server:
        yield server
    cluster.run("cp1", "rm", "-f", "/usr/local/bin/rclone")


def test_everything_on_the_node_is_lost(cluster, far, tmp_path, monkeypatch):
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.setenv("TMPDIR", str(landing))
    config = far.config(tmp_path / "rclone.conf")
    cluster.wait_ready()
    cluster.note("survivor", "off-site")
    cluster.playbook("snapshot.yml", "-e", "etcd_snapshot_off_site=" + far.where, "-e", "etcd_snapshot_rclone_config_source=" + config)
    names = [path.name for path in far.stored("").iterdir() if path.suffix == ".db"]
    assert names
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
    output = cluster.playbook("restore.yml", "-l", "cp1", *off_site, "-e", "etcd_restore_confirm=true").stdout
    assert "from      %s/%s" % (far.where, max(names)) in output
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    assert cluster.transactions()[-1].state == "committed"
    # and nothing of it on the controller
    assert list(landing.glob("k8s-dr-*")) == [] and pathlib.Path(config).exists()
