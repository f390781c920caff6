# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of docs/worst-day.md that need no Ansible, as they are printed there."""

from __future__ import annotations

import re

import pytest
from cluster import wait_for
from restore_sandbox import blocks_of

ASIDE = "/var/lib/etcd.by-hand"
STOPPED = "/etc/kubernetes/manifests.by-hand"


@pytest.fixture(scope="module")
def blocks():
    """The fenced blocks of the page, by what they do."""
    return dict(zip(["names", "whole", "tool", "restore", "stop", "start", "back"], blocks_of("docs/worst-day.md", "By hand"), strict=True))


@pytest.fixture
def paste(cluster, blocks):
    """Paste blocks into a shell of the node, which ends at the first command that fails; what it printed."""
    if not cluster.run("cp1", "sh", "-c", "command -v etcdutl", check=False):
        pytest.skip("this etcd has no etcdutl, which the page is written for")

    def run(snapshot, *names):
        setting = re.sub(r"^SNAPSHOT=\S+", "SNAPSHOT=" + snapshot, blocks["names"])
        if names[0] == "stop":
            setting = setting.replace("mkdir", ": mkdir")
        return cluster.run("cp1", "bash", "-e", stdin="\n".join([setting] + [blocks[name] for name in names]), timeout=300)

    yield run
    cluster.run("cp1", "rm", "-rf", ASIDE)
    # only an empty one: what is in it would be the control plane
    cluster.run("cp1", "rmdir", STOPPED)


def test_snapshot_and_restore_by_hand(cluster, paste):
    cluster.wait_ready()
    cluster.note("seen", "in the snapshot")
    snapshot = cluster.snapshot()
    cluster.note("seen", "after it")
    before = cluster.run("cp1", "sh", "-c", "cd /etc/kubernetes/manifests && sha256sum *.yaml")

    # which a node has only where an operator installed it
    cluster.run("cp1", "rm", "/usr/local/bin/etcdutl")
    said = paste(snapshot, "whole", "tool", "restore", "stop", "start")
    assert "whole" in said and "DAMAGED" not in said and "stopped" in said
    cluster.wait_ready()
    assert cluster.noted("seen") == "in the snapshot"
    # kubelet and the controllers are not misled by what they remember
    cluster.apply(cluster.workload("by-hand", cluster.namespace, "marker-by-hand"))
    cluster.wait_running("by-hand", "marker-by-hand")
    cluster.kubectl("-n", cluster.namespace, "delete", "deployment/by-hand")
    cluster.wait_gone("marker-by-hand")

    paste(snapshot, "stop", "back")
    cluster.wait_ready()
    assert cluster.noted("seen") == "after it"
    assert cluster.run("cp1", "sh", "-c", "cd /etc/kubernetes/manifests && sha256sum *.yaml") == before


def test_the_tool_comes_out_of_its_image_where_no_etcd_runs(cluster, paste):
    cluster.wait_ready()
    # one that is paused, and not one that starts while no API server answers, has etcd back in seconds
    cluster.run("cp1", "sh", "-c", "rm /usr/local/bin/etcdutl; pkill -STOP -x kubelet; pkill -KILL -x etcd; :")
    try:
        wait_for(lambda: not cluster.run("cp1", "pgrep", "-x", "etcd", check=False), 30, "etcd is gone")
        paste("/nowhere", "tool")
        assert "etcdutl version" in cluster.run("cp1", "/usr/local/bin/etcdutl", "version")
        assert cluster.run("cp1", "sh", "-c", "mountpoint -q /mnt || ctr -n k8s.io snapshots info /mnt >/dev/null 2>&1 || echo nothing") == "nothing\n"
    finally:
        cluster.run("cp1", "pkill", "-CONT", "-x", "kubelet")
    cluster.wait_ready(300)


def test_damage_is_reported(cluster, paste):
    snapshot = cluster.snapshot()
    broken = "/tmp/broken.db"
    cluster.run("cp1", "sh", "-c", "cp %s %s && printf X | dd of=%s bs=1 seek=100000 conv=notrunc" % (snapshot, broken, broken))
    assert "DAMAGED" in paste(broken, "whole")
    cluster.run("cp1", "rm", broken)
