# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores of a cluster with three stacked etcd members: all of them, or none."""

from __future__ import annotations

import os
import signal

import pytest
from cluster import wait_for
from restore_sandbox import NO_CONTAINERS

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
LEAVE = """
kubeadm reset --force --cri-socket=/run/containerd/containerd.sock
%s
rm -rf /etc/kubernetes/pki /etc/kubernetes/*.conf /var/lib/etcd.restore
systemctl restart containerd
[ -z "$(ls -A /var/lib/etcd 2>/dev/null)" ]
""" % NO_CONTAINERS


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
    """Every member knows all members by their real addresses, all hold the same, and each API server serves it."""
    cluster.wait_ready(300)
    cluster.prove_one_cluster()


def noted_everywhere(cluster, name):
    """The text of a ConfigMap as each API server says, or None."""
    args = ("-n", cluster.namespace, "get", "configmap/" + name, "--ignore-not-found", "-o", "jsonpath={.data.text}")
    return {cluster.own_kubectl(host, *args).strip() or None for host in cluster.nodes}


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


def test_one_node_fails_and_all_roll_back(cluster, before):
    """The staged data of one node vanishes between the stop and the swap."""
    known = {item.path for item in cluster.transactions("cp2")}
    fault = cluster.start("cp2", VANISH % (cluster.data, " ".join(known)))
    try:
        process = cluster.playbook("restore.yml", *CONFIRMED, check=False)
        assert fault.wait(10) == 0
    finally:
        fault.kill()
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


def restore_all(cluster):
    with cluster.probe() as probe:
        cluster.playbook("restore.yml", *CONFIRMED)
        cluster.wait_ready(300)
    print(probe.gaps())
    assert_one_healthy_cluster(cluster)
    assert noted_everywhere(cluster, "kept") == {"yes"}
    assert noted_everywhere(cluster, "newest") == {None}
    assert {cluster.transactions(host)[-1].state for host in cluster.nodes} == {"committed"}


def test_a_restore_of_all_members_twice_in_a_row(cluster, before):
    restore_all(cluster)
    cluster.note("newest")
    restore_all(cluster)
    cluster.apply(cluster.workload("new", cluster.namespace, "marker-new", replicas=3))
    wait_for(lambda: cluster.get("-n", cluster.namespace, "deployment/new")["status"].get("availableReplicas") == 3, 180, "new Pods run")
    cluster.kubectl("-n", cluster.namespace, "delete", "deployment/new")
    wait_for(lambda: not any(cluster.processes(host, "marker-new") for host in cluster.nodes), 120, "deleted Pods stop")


def test_a_control_plane_joins_the_restored_cluster_with_kubeadm(cluster, before):
    """As a new machine would: none of the old one's certificates or data is there any more."""
    restore_all(cluster)
    name = cluster.run("cp3", "hostname").strip()
    cluster.run("cp3", "sh", "-c", LEAVE, timeout=300)
    cluster.kubectl("delete", "node", name, "--ignore-not-found")
    assert name not in {item.get("name") for item in cluster.etcdctl("member", "list")["members"]}

    cluster.join("cp3")
    assert_one_healthy_cluster(cluster)
    assert noted_everywhere(cluster, "kept") == {"yes"}

    # and it is one like the others
    cluster.playbook("install.yml")
    cluster.playbook("snapshot.yml")
    cluster.note("newest")
    restore_all(cluster)
