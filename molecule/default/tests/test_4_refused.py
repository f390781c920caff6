# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore refuses while the cluster still serves.  Nothing is stopped, nothing is left behind, etcd is not restarted."""

from __future__ import annotations

import json

import pytest

DIRECTORY = "/var/backups/refused"


@pytest.fixture
def snapshot(cluster, cp1):
    """A copy of a good snapshot with its manifest, to be damaged."""
    good = cluster.snapshot()
    name = good.rsplit("/", 1)[1]
    cp1.check_output("rm -rf %s && mkdir -m 700 %s && cp -p %s %s.json %s/" % (DIRECTORY, DIRECTORY, good, good, DIRECTORY))
    return DIRECTORY + "/" + name


@pytest.fixture
def untouched(cluster):
    """Compare the node before and after the test."""

    def look():
        return cluster.live(), cluster.etcd_process(), cluster.transactions(), cluster.run("cp1", "ls", "/etc/kubernetes")

    before = look()
    yield
    assert look() == before
    cluster.wait_ready(20)


def refusal(process):
    """What the operator was told."""
    assert process.returncode != 0
    return " ".join(process.stdout.split())


def test_without_a_yes(cluster, snapshot, untouched):
    text = refusal(cluster.playbook("restore.yml", "-l", "cp1", "-e", "etcd_restore_snapshot=" + snapshot, check=False))
    assert "etcd_restore_confirm=true" in text


def test_check_mode_only_says_what_it_would_do(cluster, snapshot, untouched):
    text = cluster.playbook("restore.yml", "-l", "cp1", "--check", "-e", "etcd_restore_snapshot=" + snapshot).stdout
    assert "nothing was stopped" in text
    assert snapshot in text


def test_a_snapshot_with_one_flipped_bit(cluster, cp1, snapshot, untouched):
    cp1.check_output(
        "python3 -c 'import sys; f = open(sys.argv[1], \"r+b\"); f.seek(-5000, 2); b = f.read(1); f.seek(-1, 1); f.write(bytes([b[0] ^ 1]))' %s", snapshot
    )
    text = refusal(cluster.restore("-e", "etcd_restore_snapshot=" + snapshot, check=False))
    assert snapshot in text


def test_a_snapshot_that_is_cut_off(cluster, cp1, snapshot, untouched):
    cp1.check_output("truncate -s -32 %s", snapshot)
    text = refusal(cluster.restore("-e", "etcd_restore_snapshot=" + snapshot, check=False))
    assert snapshot in text


def test_a_snapshot_that_is_not_there(cluster, untouched):
    text = refusal(cluster.restore("-e", "etcd_restore_snapshot=/var/backups/none.db", check=False))
    assert "/var/backups/none.db" in text


def test_a_snapshot_of_another_cluster(cluster, cp1, snapshot, untouched):
    manifest = json.loads(cp1.file(snapshot + ".json").content_string)
    manifest["fingerprints"]["ca"] = "0" * 64
    cluster.run("cp1", "sh", "-c", 'cat >"$0"', snapshot + ".json", stdin=json.dumps(manifest, sort_keys=True))
    text = refusal(cluster.restore("-e", "etcd_restore_snapshot=" + snapshot, check=False))
    assert "etcd_restore_foreign=true" in text


def test_an_empty_directory(cluster, cp1, untouched):
    cp1.check_output("rm -rf %s && mkdir -m 700 %s" % (DIRECTORY, DIRECTORY))
    text = refusal(cluster.restore("-e", "etcd_restore_snapshot_dir=" + DIRECTORY, check=False))
    assert "no verified snapshot" in text
