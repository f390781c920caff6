# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may ask the API server after a restore: snapshots and nodes without what kubeadm binds since 1.29 and 1.36.

apiserver-kubelet-client.crt is of the group that ADMINS binds from 1.29 to 1.35, and of none since (kubeadm's phases/certs/certlist.go of 1.34.4 and
1.36.3), so without both bindings only system:masters may do anything, on all of them.
"""

from __future__ import annotations

import json
import re
import types

import pytest
from cluster import wait_for

ADMINS, KUBELETS = "clusterrolebinding/kubeadm:cluster-admins", "clusterrolebinding/kubeadm:apiserver-kubelet-client"
KUBECTL = ("kubectl", "--kubeconfig")
SUPER, ADMIN = "/etc/kubernetes/super-admin.conf", "/etc/kubernetes/admin.conf"
SAVED = "/root/super-admin.conf"


@pytest.fixture(scope="module")
def own_kubeconfig(cluster):
    """The tests' own way in, which no test takes away; asserts go through it."""
    if "super-admin" not in cluster.run("cp1", "ls", "/etc/kubernetes"):
        pytest.skip("this kubeadm is older than 1.29: its admin.conf is of system:masters, whatever etcd holds, and there is no super-admin.conf")
    cluster.run("cp1", "cp", SUPER, SAVED)

    def kubectl(*args, check=True, stdin=None):
        return cluster.run("cp1", *KUBECTL, SAVED, *args, check=check, stdin=stdin)

    yield kubectl
    # whatever happened, the next tests find a cluster as kubeadm made it
    cluster.run("cp1", "sh", "-c", "cp %s %s; [ ! -e /root/admin.conf ] || mv /root/admin.conf %s" % (SAVED, SUPER, ADMIN))


@pytest.fixture
def bindings(own_kubeconfig):
    """The bindings as kubeadm made them, which are there again at the end."""
    found = []
    for name in (ADMINS, KUBELETS):
        text = own_kubeconfig("get", name, "-o", "json", "--ignore-not-found")
        if text.strip():
            item = json.loads(text)
            item["metadata"] = {"name": item["metadata"]["name"]}
            found.append(item)
    assert found
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": found})
    yield types.SimpleNamespace(
        remove=lambda *names: own_kubeconfig("delete", "--ignore-not-found", *names),
        give_back=lambda: own_kubeconfig("apply", "-f", "-", stdin=everything),
    )
    own_kubeconfig("apply", "-f", "-", stdin=everything)


@pytest.fixture
def without(cluster):
    """without(path): a file of the node is not there, until the test has ended."""
    away = []

    def take(path):
        cluster.run("cp1", "mv", path, path + ".away")
        away.append(path)

    yield take
    for path in away:
        cluster.run("cp1", "sh", "-c", '[ -e "$0" ] && rm -f "$0.away" || mv "$0.away" "$0"', path)


def reaches_kubelets(kubectl):
    """Whether the API server reaches kubelets."""
    name = kubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[0].metadata.name}")
    return bool(kubectl("-n", "kube-system", "logs", name, "--tail=1", check=False).strip())


@pytest.mark.parametrize("missing", [[], [SUPER], [ADMIN], [SUPER, ADMIN]], ids=["none", "super-admin", "admin", "both"])
def test_a_cluster_is_validated_with_every_identity(cluster, own_kubeconfig, without, missing):
    for path in missing:
        without(path)
    assert "The cluster works, seen from cp1" in cluster.playbook("validate.yml", "-l", "cp1").stdout


def test_a_snapshot_from_before_the_bindings_is_restored_and_validated(cluster, own_kubeconfig, bindings, without):
    """As of a cluster that was 1.28: admin.conf may do nothing afterwards, and the API server may not ask kubelets.

    On a node that joined, which has no super-admin.conf.
    """
    cluster.note("kept")
    bindings.remove(ADMINS, KUBELETS)
    cluster.snapshot()
    bindings.give_back()
    cluster.note("late")
    without(SUPER)
    said = " ".join(cluster.restore().stdout.split())
    assert "RESTORED cp1" in said
    assert own_kubeconfig("-n", cluster.namespace, "get", "configmap/kept", "-o", "name").strip() == "configmap/kept"
    assert own_kubeconfig("-n", cluster.namespace, "get", "configmap/late", "--ignore-not-found") == ""
    assert "Forbidden" in cluster.run("cp1", "sh", "-c", "kubectl --kubeconfig %s get nodes 2>&1 || :" % ADMIN)
    assert not reaches_kubelets(own_kubeconfig)
    # the commands that it says to run are all that it takes
    commands = re.findall(r"Run on the node: (.*?clusterrolebinding .*?(?:--group|--user)=[a-z:-]+)", said)
    assert len(set(commands)) == 2, said
    for command in dict.fromkeys(commands):
        assert command.startswith("kubeadm init phase kubeconfig super-admin && ")
        cluster.run("cp1", "sh", "-c", command)
    assert cluster.kubectl("auth", "can-i", "*", "*").strip() == "yes"
    # kubelet remembers for 30 s whom it refused (authorization.webhook.cacheUnauthorizedTTL)
    wait_for(lambda: reaches_kubelets(own_kubeconfig), 90, "kubectl logs works again")


def test_a_restore_that_fails_without_an_identity_rolls_back_and_reports_a_working_cluster(cluster, own_kubeconfig, bindings, without):
    # well before, and in the snapshot it wants a second Pod, which finds no node
    half = cluster.workload("half", cluster.namespace, "marker-half", replicas=2)
    elsewhere = {"labelSelector": {"matchLabels": {"app": "half"}}, "topologyKey": "kubernetes.io/hostname"}
    half["spec"]["template"]["spec"]["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [elsewhere]}}
    cluster.apply(half)
    cluster.wait_running("half", "marker-half")
    bindings.remove(ADMINS)
    cluster.snapshot()
    bindings.give_back()
    cluster.kubectl("-n", cluster.namespace, "scale", "deployment/half", "--replicas=1")
    wait_for(lambda: cluster.get("-n", cluster.namespace, "deployment/half")["status"].get("replicas") == 1, 60, "one Pod is enough")
    live = cluster.live()
    without(SUPER)
    without(ADMIN)
    process = cluster.restore("-e", "etcd_restore_validate_scope=all", "-e", "etcd_restore_validate_timeout=10", check=False)
    assert process.returncode != 0
    assert "deployment %s/half has 1 of 2 Pods ready" % cluster.namespace in " ".join(process.stdout.split())
    said = " ".join(process.stdout.split())
    assert "The restore was rolled back: cp1 has its previous data" in said
    assert cluster.live() == live
    assert "may not administer" not in said.partition("The restore was rolled back")[2]
    own_kubeconfig("-n", cluster.namespace, "delete", "deployment/half")


def test_without_access_nothing_is_stopped(cluster, bindings, without):
    """As with an external CA: no administrator's kubeconfig, and no way to make a certificate."""
    process, before = cluster.etcd_process(), len(cluster.transactions())
    cluster.snapshot()
    bindings.remove(ADMINS)
    for path in (SUPER, ADMIN, "/usr/bin/openssl"):
        without(path)
    looked = cluster.playbook("validate.yml", "-l", "cp1", check=False)
    said = " ".join(looked.stdout.split())
    assert looked.returncode != 0 and "Whether the cluster is healthy could not be checked" in said
    for words in ("super-admin.conf (does not exist)", "there is no openssl", "kubelet-client.crt (403: ", "kubeadm init phase kubeconfig super-admin"):
        assert words in said, said
    refused = cluster.restore(check=False)
    assert refused.returncode != 0 and "Nothing was done." in refused.stdout and "etcd_restore_without_validation=true" in refused.stdout
    assert (cluster.etcd_process(), len(cluster.transactions())) == (process, before)


def test_a_check_that_cannot_be_made_rolls_no_restore_back(cluster, own_kubeconfig, bindings, without):
    own_kubeconfig("-n", cluster.namespace, "delete", "configmap/late", "--ignore-not-found")
    bindings.remove(ADMINS)
    cluster.snapshot()
    bindings.give_back()
    cluster.note("late")
    bindings.remove(ADMINS)
    for path in (SUPER, ADMIN, "/usr/bin/openssl"):
        without(path)
    said = " ".join(cluster.restore("-e", "etcd_restore_without_validation=true").stdout.split())
    assert "RESTORED cp1" in said and "NOT nodes, kube-system and workloads: the API server at https://" in said
    assert own_kubeconfig("-n", cluster.namespace, "get", "configmap/late", "--ignore-not-found") == ""
