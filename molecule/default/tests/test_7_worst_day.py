# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores of a cluster that is down: the database destroyed, the data deleted, and no etcd tools on the node."""

from __future__ import annotations

import pytest
from cluster import wait_for


def lose(cluster, accident):
    """Take a snapshot, write something more, and cause the accident; the restore must restore the snapshot."""
    cluster.wait_ready()
    cluster.note("survivor", "in the snapshot")
    cluster.snapshot()
    cluster.note("latecomer")
    cluster.run("cp1", "sh", "-c", accident)


def assert_restored(cluster):
    cluster.wait_ready()
    assert cluster.noted("survivor") == "in the snapshot"
    assert cluster.noted("latecomer") is None
    assert cluster.transactions()[-1].state == "committed"
    cluster.apply(cluster.workload("phoenix", cluster.namespace, "marker-phoenix"))
    cluster.wait_running("phoenix", "marker-phoenix")
    cluster.kubectl("-n", cluster.namespace, "delete", "deployment/phoenix")
    cluster.wait_gone("marker-phoenix")


def test_the_database_is_destroyed_and_etcd_crashes(cluster):
    """etcd does not run, so its tools come out of its image; kubelet backs off, which must not delay the start."""
    lose(
        cluster,
        "rm -f /usr/local/bin/etcdctl /usr/local/bin/etcdutl;"
        " dd if=/dev/urandom of=/var/lib/etcd/member/snap/db bs=4096 count=100 conv=notrunc 2>&1; kill -9 $(pgrep -x etcd)",
    )
    wait_for(lambda: cluster.kubectl("get", "--raw", "/readyz", check=False, timeout=30).strip() != "ok", 60, "the API is away")
    output = cluster.restore().stdout
    assert "it does not answer" in output
    assert_restored(cluster)


@pytest.mark.parametrize("remembers", [False, True], ids=["api-server-killed", "api-server-remembers"])
def test_the_data_is_deleted_and_kubelet_made_an_empty_cluster(cluster, remembers):
    """Its readyz says ok, its revision is far behind, and it has no nodes.

    An API server of today (1.37.2) that lived through it goes on listing from memory what was lost, says NotFound to who asks by name, and takes writes.
    """
    # what admin.conf may do since 1.29 is lost with the data
    there = cluster.run("cp1", "sh", "-c", "ls /etc/kubernetes/super-admin.conf 2>/dev/null || :").strip()
    administrator = ["--kubeconfig", there] if there else []
    lose(cluster, "rm -rf /var/lib/etcd; kill -9 $(pgrep -x etcd)" + ("" if remembers else " $(pgrep -x kube-apiserver)"))

    def is_empty():
        """A read by name goes to etcd."""
        asked = "kubectl %s get namespace $1 -o name 2>&1 || :" % " ".join(administrator or ["--kubeconfig", "/etc/kubernetes/admin.conf"])
        said = [cluster.run("cp1", "timeout", "30", "sh", "-c", asked, "sh", name, check=False) for name in ("kube-system", "shop")]
        # one that remembers does not make what it takes to be there
        return (remembers or "namespace/kube-system" in said[0]) and "NotFound" in said[1]

    wait_for(is_empty, 240, "an empty cluster takes the place of the lost one")
    if not remembers:
        assert cluster.kubectl("get", "nodes", "-o", "name", *administrator).split() == []
    output = cluster.restore().stdout
    assert remembers or "it is empty" in output
    assert_restored(cluster)
