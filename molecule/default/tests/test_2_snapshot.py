# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/snapshot.yml."""

from __future__ import annotations

import json

import pytest
from cluster import changes

DIRECTORY = "/var/backups/etcd"
OTHER = "/var/backups/molecule"


@pytest.fixture(scope="module")
def snapshot(cluster):
    """The path of a snapshot that was taken just now."""
    cluster.note("before-the-snapshot")
    return cluster.snapshot()


@pytest.fixture(scope="module")
def manifest(cp1, snapshot):
    """Its manifest."""
    return json.loads(cp1.file(snapshot + ".json").content_string)


def test_only_root_can_read_it(cp1, snapshot):
    directory = cp1.file(DIRECTORY)
    assert (directory.user, directory.mode) == ("root", 0o700)
    for path in (snapshot, snapshot + ".json"):
        assert (cp1.file(path).user, cp1.file(path).mode) == ("root", 0o600)


def test_nothing_unfinished_is_left(cp1, snapshot):
    names = cp1.check_output("ls -A %s", DIRECTORY).split()
    assert [name for name in names if "partial" in name or name.endswith((".part", ".new"))] == []


def test_the_manifest_describes_this_very_file(cp1, snapshot, manifest):
    assert manifest["format"] == 1
    assert manifest["file"] == snapshot.rsplit("/", 1)[1]
    assert manifest["sha256"] == cp1.file(snapshot).sha256sum
    assert manifest["size"] == cp1.file(snapshot).size
    assert manifest["verified"] is True
    assert manifest["integrity"] == "ok"


def test_the_manifest_describes_this_cluster(cluster, manifest):
    status = cluster.etcdctl("endpoint", "status")[0]["Status"]
    assert manifest["etcd_version"] == status["version"]
    assert manifest["cluster_id"] == "%x" % status["header"]["cluster_id"]
    assert 0 < manifest["revision"] <= status["header"]["revision"]
    assert manifest["kubernetes_version"].lstrip("v") == cluster.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"].lstrip("v")
    assert all(manifest["fingerprints"][name] for name in ("ca", "etcd_ca", "service_account"))


def test_the_inventory_counts_what_is_there(cluster, manifest):
    objects = manifest["inventory"]["objects"]
    assert objects["configmaps"][cluster.namespace] >= 1
    assert objects["secrets"]["shop"] >= 1
    assert "shop/web" in manifest["inventory"]["names"]["deployments"]
    assert manifest["inventory"]["names"]["nodes"] == [node["metadata"]["name"] for node in cluster.get("nodes")["items"]]


def test_etcds_own_tool_agrees(cp1, snapshot, manifest):
    tool = "etcdutl" if cp1.file("/usr/local/bin/etcdutl").exists else "etcdctl"
    status = json.loads(cp1.check_output("env ETCDCTL_API=3 /usr/local/bin/%s snapshot status -w json %s" % (tool, snapshot)))
    assert manifest["hash"] == "%08x" % status["hash"]
    assert manifest["revision"] == status["revision"]


def test_check_mode_takes_none(cluster, cp1):
    before = cp1.check_output("ls -A %s", DIRECTORY)
    cluster.playbook("snapshot.yml", "--check")
    assert cp1.check_output("ls -A %s", DIRECTORY) == before


def test_the_newest_are_kept(cluster, cp1):
    cp1.check_output("rm -rf %s", OTHER)
    for dummy in range(3):
        result = cluster.playbook("snapshot.yml", "-e", "etcd_snapshot_dir=" + OTHER, "-e", "etcd_snapshot_keep=2")
        assert changes(result)["cp1"] == 1
    names = cp1.check_output("ls %s", OTHER).split()
    assert len([name for name in names if name.endswith(".db")]) == 2
    assert sorted(name + ".json" for name in names if name.endswith(".db")) == sorted(name for name in names if name.endswith(".json"))


def test_no_key_is_shown(cluster):
    output = cluster.playbook("snapshot.yml", "-vvv", "-e", "etcd_snapshot_dir=" + OTHER).stdout
    assert "PRIVATE KEY" not in output
    assert "not-a-real-key" not in output
