# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores of a cluster with three stacked etcd members: all of them, or none."""

from __future__ import annotations

import os
import re
import signal

import pytest
from cluster import wait_for

CONFIRMED = ("-e", "etcd_restore_confirm=true")
VANISH = """
while :; do
  for t in %s.restore/*; do
    case " %s " in *" $t "*) continue;; esac
    grep -q '^stopping ' $t/log 2>/dev/null && break 2
  done
  sleep 0.02
done
rm -rf $t/staged
"""


@pytest.fixture
def before(cluster):
    """A snapshot, and something that it does not hold.  Returns each node's live data."""
    cluster.wait_ready(300)
    cluster.note("kept")
    cluster.kubectl("-n", cluster.namespace, "delete", "configmap/newest", "--ignore-not-found")
    cluster.playbook("snapshot.yml")
    cluster.note("newest")
    return live(cluster)


def live(cluster):
    return {host: cluster.live(host) for host in cluster.nodes}


def assert_one_healthy_cluster(cluster):
    """Every member knows all members by their real addresses, and all hold the same."""
    cluster.wait_ready(300)
    members = {}
    for host in cluster.nodes:
        status = cluster.etcdctl("endpoint", "status", host=host)[0]["Status"]
        listed = cluster.etcdctl("member", "list", host=host)["members"]
        members[host] = (status["header"]["cluster_id"], sorted((item["name"], tuple(item["peerURLs"])) for item in listed))
        manifest = cluster.run(host, "cat", "/etc/kubernetes/manifests/etcd.yaml")
        name, url = (re.search(r"--%s=(\S+)" % flag, manifest).group(1) for flag in ("name", "initial-advertise-peer-urls"))
        assert (name, (url,)) in members[host][1]
    assert len({str(item) for item in members.values()}) == 1
    assert all(len(item[1]) == len(cluster.nodes) for item in members.values())

    revision = min(cluster.revision(host) for host in cluster.nodes)
    hashes = {cluster.etcdctl("endpoint", "hashkv", "--rev=%d" % revision, host=host)[0]["HashKV"]["hash"] for host in cluster.nodes}
    assert len(hashes) == 1


def assert_as_before(cluster, before):
    assert_one_healthy_cluster(cluster)
    assert live(cluster) == before
    assert cluster.noted("newest") == "yes"
    assert {cluster.transactions(host)[-1].state for host in cluster.nodes} == {"rolled-back"}


def test_a_restore_of_one_member_is_refused_with_the_names_of_the_others(cluster, before):
    started = {host: cluster.etcd_process(host) for host in cluster.nodes}
    process = cluster.playbook("restore.yml", "-l", "cp1", *CONFIRMED, check=False)
    assert process.returncode != 0
    text = " ".join(process.stdout.split())
    for host in list(cluster.nodes)[1:]:
        assert cluster.run(host, "hostname").strip() in text
    assert started == {host: cluster.etcd_process(host) for host in cluster.nodes}
    assert live(cluster) == before


def test_one_node_fails_and_all_go_back(cluster, before):
    """The staged data of one node vanishes between the stop and the swap."""
    known = {item.path for item in cluster.transactions("cp2")}
    misfortune = cluster.start("cp2", VANISH % (cluster.data, " ".join(known)))
    try:
        process = cluster.playbook("restore.yml", *CONFIRMED, check=False)
        assert misfortune.wait(10) == 0
    finally:
        misfortune.kill()
    assert process.returncode != 0
    assert_as_before(cluster, before)


def test_the_controller_dies_between_stop_and_start(cluster, before):
    known = len(cluster.transactions())
    process = cluster.playbook("restore.yml", *CONFIRMED, background=True)
    wait_for(
        lambda: len(cluster.transactions()) > known and cluster.transactions()[-1].state in ("swapping", "swapped", "starting-etcd"), 240, "the swap"
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    cluster.playbook("rollback.yml")
    assert_as_before(cluster, before)


def test_a_restore_of_all_members(cluster, before):
    with cluster.probe() as probe:
        cluster.playbook("restore.yml", *CONFIRMED)
        cluster.wait_ready(300)
    print(probe.gaps())
    assert_one_healthy_cluster(cluster)
    assert cluster.noted("kept") == "yes"
    assert cluster.noted("newest") is None
    assert {cluster.transactions(host)[-1].state for host in cluster.nodes} == {"committed"}
    cluster.apply(cluster.workload("new", cluster.namespace, "marker-new", replicas=3))
    wait_for(lambda: cluster.get("-n", cluster.namespace, "deployment/new")["status"].get("availableReplicas") == 3, 180, "new Pods run")
    cluster.kubectl("-n", cluster.namespace, "delete", "deployment/new")
    wait_for(lambda: not any(cluster.processes(host, "marker-new") for host in cluster.nodes), 120, "deleted Pods stop")
