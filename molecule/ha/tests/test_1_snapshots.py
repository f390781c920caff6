# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of three control planes: of which member, and what happens when some are down.  Each test leaves three healthy members."""

from __future__ import annotations

import json
import re

import pytest
from cluster import wait_for

DIRECTORY = "/var/backups/etcd"


def text_of(process):
    """What the operator was told, without what the terminal did to its lines."""
    return " ".join(process.stdout.split())


def status(cluster, host):
    return cluster.etcdctl("endpoint", "status", host=host)[0]["Status"]


def leads(cluster, host):
    found = status(cluster, host)
    return found["leader"] == found["header"]["member_id"]


def let_lead(cluster, host):
    """Make the member of this host the leader."""
    leader = next(each for each in cluster.nodes if leads(cluster, each))
    if leader != host:
        cluster.etcdctl("move-leader", "%x" % status(cluster, host)["header"]["member_id"], host=leader)
    wait_for(lambda: leads(cluster, host), 30, host + " leads")


def newest(cluster, host):
    """The manifest of the newest snapshot on a host, or {}."""
    text = cluster.run(host, "sh", "-c", "cat $(ls -t %s/*.db.json 2>/dev/null | head -n 1) /dev/null" % DIRECTORY)
    return json.loads(text) if text.strip() else {}


def snapshots(cluster, hosts=("cp1", "cp2", "cp3")):
    """Who holds which."""
    listing = {host: cluster.run(host, "sh", "-c", "ls %s/*.db 2>/dev/null || :" % DIRECTORY) for host in hosts}
    return {(host, path) for host, text in listing.items() for path in text.split()}


def etcd_name(cluster, host):
    return re.search(r"--name=(\S+)", cluster.run(host, "cat", "/etc/kubernetes/manifests/etcd.yaml")).group(1)


def taken(cluster, *args, hosts=("cp1", "cp2", "cp3")):
    """(what was said, the one host that took the snapshot, its manifest)"""
    before = snapshots(cluster, hosts)
    said = text_of(cluster.playbook("snapshot.yml", *args))
    (new,) = snapshots(cluster, hosts) - before
    return said, new[0], newest(cluster, new[0])


@pytest.fixture(autouse=True)
def healthy(cluster):
    cluster.wait_ready(300)
    wait_for(lambda: len({status(cluster, host)["leader"] for host in cluster.nodes} - {0}) == 1, 60, "all members follow one leader")
    yield
    cluster.wait_ready(300)


@pytest.mark.parametrize(("leader", "expected"), [("cp1", "cp2"), ("cp2", "cp1"), ("cp3", "cp1")])
def test_the_leader_is_left_alone(cluster, leader, expected):
    let_lead(cluster, leader)
    said, host, manifest = taken(cluster)
    assert host == expected
    # names in the inventory are not those of etcd's members here, so both are said
    names = {each: etcd_name(cluster, each) for each in cluster.nodes}
    assert "%s (etcd member %s) takes the snapshot" % (host, names[host]) in said
    assert "not the leader, which is %s (etcd member %s)" % (leader, names[leader]) in said
    assert manifest["member"] == {"id": "%x" % status(cluster, host)["header"]["member_id"], "name": names[host], "leader": False}
    assert sorted(member["name"] for member in manifest["members"]) == sorted(names.values())
    assert "WARNING:" not in said


def test_the_leader_takes_the_snapshot_when_named_or_alone(cluster):
    let_lead(cluster, "cp2")
    said, host, manifest = taken(cluster, "-e", "etcd_snapshot_from=cp2")
    assert (host, manifest["member"]["leader"]) == ("cp2", True) and "as etcd_snapshot_from says" in said
    said, host, manifest = taken(cluster, "-l", "cp2")
    assert (host, manifest["member"]["leader"]) == ("cp2", True) and "although it is the leader" in said


def test_a_node_without_power_does_not_fail_the_backup(cluster):
    let_lead(cluster, "cp1")
    cluster.note("while-cp2-is-off")
    cluster.power("off", "cp2")
    try:
        said, host, manifest = taken(cluster, hosts=("cp1", "cp3"))
        assert host == "cp3" and manifest["member"]["leader"] is False
        # it is known as a member by its address
        assert "WARNING: cp2 (etcd member %s) was left out of the backup: it cannot be reached" % cluster.nodes["cp2"] in said
        assert re.search(r"cp2 : ok=\d+ changed=0 unreachable=0 failed=0", said)
        # check mode says the same, and takes nothing
        before = snapshots(cluster, ("cp1", "cp3"))
        assert "WARNING: cp2 (etcd member" in text_of(cluster.playbook("snapshot.yml", "--check"))
        assert snapshots(cluster, ("cp1", "cp3")) == before
    finally:
        cluster.power("on", "cp2")


def test_a_node_whose_etcd_is_down_does_not_fail_the_backup(cluster):
    let_lead(cluster, "cp3")
    cluster.run("cp1", "mv", "/etc/kubernetes/manifests/etcd.yaml", "/etc/kubernetes/etcd.yaml")
    try:
        wait_for(lambda: not cluster.run("cp1", "pgrep", "-x", "etcd", check=False), 90, "etcd of cp1 ends")
        said, host, _manifest = taken(cluster)
        assert host == "cp2"
        assert "WARNING: cp1 (etcd member %s) was left out of the backup: etcd at https://127.0.0.1:2379" % cluster.nodes["cp1"] in said
    finally:
        cluster.run("cp1", "mv", "/etc/kubernetes/etcd.yaml", "/etc/kubernetes/manifests/etcd.yaml")


def test_without_a_quorum_there_is_no_snapshot_and_a_way_on(cluster):
    cluster.power("off", "cp2", "cp3")
    try:
        wait_for(lambda: status(cluster, "cp1").get("leader", 0) == 0, 60, "cp1 has no leader")
        before = snapshots(cluster, ("cp1",))
        process = cluster.playbook("snapshot.yml", check=False)
        said = text_of(process)
        assert process.returncode == 2
        assert "No snapshot was taken, since no etcd member of cp1, cp2, cp3 is healthy" in said
        assert "it has no leader, so it has no quorum" in said and "k8s_dr.etcd.salvage" in said
        assert snapshots(cluster, ("cp1",)) == before
    finally:
        cluster.power("on", "cp2", "cp3")


def test_a_restore_finds_the_snapshot_on_whichever_host_took_it(cluster):
    let_lead(cluster, "cp1")
    _said, host, manifest = taken(cluster, "-l", "cp1,cp3")
    assert host == "cp3"
    said = text_of(cluster.playbook("restore.yml", "--check"))
    assert manifest["file"] in said
