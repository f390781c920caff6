# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control planes that were stopped, removed, wiped or left out of a restore become members of the running cluster again."""

from __future__ import annotations

import json
import os
import signal

import pytest
from cluster import changes, wait_for

MANIFESTS = "/etc/kubernetes/manifests"
WIPE = """
mv %(manifests)s/etcd.yaml /root/etcd.yaml.kept
while pgrep -x etcd >/dev/null; do sleep 0.2; done
mkdir -p /root/wiped && mv /var/lib/etcd/member "/root/wiped/$(date +%%s)"
mv /root/etcd.yaml.kept %(manifests)s/etcd.yaml
""" % {"manifests": MANIFESTS}


def rejoin(cluster, host, *args, **how):
    return cluster.playbook("rejoin.yml", "-l", host, *args, **how)


def said(process):
    return " ".join(process.stdout.split())


def members(cluster, host="cp1"):
    """{name: is_learner} as this host's etcd says."""
    return {item.get("name", ""): bool(item.get("isLearner")) for item in cluster.etcdctl("member", "list", host=host)["members"]}


def names(cluster):
    return {host: cluster.run(host, "hostname").strip() for host in cluster.nodes}


def newest(cluster, host):
    """The id of its last transaction, old ones of which are removed; or ''."""
    return cluster.transactions(host)[-1].id if cluster.transactions(host) else ""


def state(cluster, host):
    return cluster.transactions(host)[-1].state


def remove(cluster, host):
    """Take a member out of the list, behind everybody's back."""
    name = cluster.run(host, "hostname").strip()
    identity = next(item["ID"] for item in cluster.etcdctl("member", "list")["members"] if item.get("name") == name)
    cluster.etcdctl("member", "remove", "%x" % identity)


def assert_three(cluster, marker):
    """Three voters of one cluster hold the same, and what is written through any API server is read through every other."""
    cluster.wait_ready(300)
    expected = dict.fromkeys(names(cluster).values(), False)
    assert [members(cluster, host) for host in cluster.nodes] == [expected] * len(cluster.nodes)
    status = [cluster.etcdctl("endpoint", "status", host=host)[0]["Status"] for host in cluster.nodes]
    assert len({each["header"]["cluster_id"] for each in status}) == 1
    revision = min(each["header"]["revision"] for each in status)
    assert len({cluster.etcdctl("endpoint", "hashkv", "--rev=%d" % revision, host=host)[0]["HashKV"]["hash"] for host in cluster.nodes}) == 1
    for writer in cluster.nodes:
        note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "%s-by-%s" % (marker, writer)}, "data": {"text": marker}}
        cluster.kubectl("-n", cluster.namespace, "apply", "-f", "-", stdin=json.dumps(note), host=writer)
        for reader in cluster.nodes:
            read = cluster.kubectl("-n", cluster.namespace, "get", "configmap/" + note["metadata"]["name"], "-o", "jsonpath={.data.text}", host=reader)
            assert read == marker, (writer, reader)


@pytest.fixture
def three(cluster):
    """Three healthy members with the tools on every host."""
    cluster.wait_ready(300)
    cluster.playbook("install.yml")
    assert set(members(cluster)) == set(names(cluster).values())
    return cluster


def test_healthy_members_are_left_alone(three):
    started = {host: three.etcd_process(host) for host in three.nodes}
    process = three.playbook("rejoin.yml")
    assert set(changes(process).values()) == {0}
    assert said(process).count("nothing was done") == 3
    assert started == {host: three.etcd_process(host) for host in three.nodes}


def test_a_wiped_host_rejoins_twice(three):
    three.note("before")
    for marker in ("first", "second"):
        three.run("cp2", "sh", "-c", WIPE)
        known = newest(three, "cp2")
        check = rejoin(three, "cp2", "--check")
        assert "its control plane is stopped" in said(check)
        assert newest(three, "cp2") == known
        assert len(members(three)) == 3

        process = rejoin(three, "cp2")
        assert "is a member of the cluster" in said(process)
        assert_three(three, marker)
        assert three.noted("before") == "yes"
        assert state(three, "cp2") == "rejoined"
        again = rejoin(three, "cp2")
        assert changes(again)["cp2"] == 0


def test_a_member_that_was_removed_while_it_ran(three):
    remove(three, "cp2")
    wait_for(lambda: not three.run("cp2", "pgrep", "-x", "etcd", check=False).strip(), 60, "etcd ends")
    live = three.live("cp2")
    rejoin(three, "cp2")
    assert_three(three, "removed")
    old = three.transactions("cp2")[-1].path + "/old/member/snap/db"
    assert three.run("cp2", "stat", "-c", "%d:%i", old).strip() == live


@pytest.mark.parametrize("moment", ["stopped", "rejoining"])
def test_the_controller_dies_during_a_rejoin(three, moment):
    remove(three, "cp2")
    known = newest(three, "cp2")
    process = rejoin(three, "cp2", background=True)
    past = {"stopped": ("stopped", "swapping", "swapped", "committing", "committed"), "rejoining": ("rejoining",)}[moment]
    wait_for(lambda: newest(three, "cp2") != known and state(three, "cp2") in past, 240, moment)
    begun = newest(three, "cp2")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    rejoin(three, "cp2")
    assert_three(three, "killed-" + moment)
    assert newest(three, "cp2") == begun


def test_a_member_that_cannot_start_is_removed_again(three):
    remove(three, "cp2")
    process = rejoin(three, "cp2", "-e", "etcd_rejoin_start_timeout=30", background=True)
    # on the node, since it is there for a moment only
    spoil = "until sed -i 's#- etcd$#- etcd-that-does-not-exist#' %s.restore-*/etcd.yaml 2>/dev/null; do sleep 0.05; done" % MANIFESTS
    three.run("cp2", "timeout", "240", "sh", "-c", spoil, timeout=260)
    held = "%s.restore-%s" % (MANIFESTS, three.transactions("cp2")[-1].id)
    output = process.communicate()[0]
    assert process.returncode != 0
    text = " ".join(output.split())
    assert "rejoin -l cp2" in text
    assert "previous data is in" in text
    assert state(three, "cp2") == "committed"
    assert sorted(members(three)) == sorted(name for host, name in names(three).items() if host != "cp2")
    assert not three.run("cp2", "sh", "-c", "ls %s | grep -E '^(etcd|kube-)' || :" % MANIFESTS).strip()

    three.run("cp2", "sed", "-i", "s#- etcd-that-does-not-exist$#- etcd#", held + "/etcd.yaml")
    rejoin(three, "cp2")
    assert_three(three, "mended")


def test_a_restore_of_one_member_ends_with_three(three):
    """`etcd_restore_members: [cp1]` on purpose, and the others rejoin one after the other."""
    three.note("kept")
    three.kubectl("-n", three.namespace, "delete", "configmap/newest", "--ignore-not-found")
    three.playbook("snapshot.yml")
    three.note("newest")
    three.playbook("restore.yml", "-e", '{"etcd_restore_members": ["cp1"], "etcd_restore_confirm": true}')
    assert members(three) == {names(three)["cp1"]: False}
    process = three.playbook("rejoin.yml", "-l", "cp2,cp3")
    assert said(process).count("is a member of the cluster") == 2
    assert_three(three, "restored")
    assert three.noted("kept") == "yes"
    assert three.noted("newest") is None


def test_the_data_of_a_cluster_that_no_longer_exists(three):
    """A host that was off while the others were restored starts with the old data, and does not serve."""
    three.playbook("snapshot.yml")
    three.playbook("restore.yml", "-e", '{"etcd_restore_members": ["cp1", "cp3"], "etcd_restore_confirm": true}')
    # what a host would be that was not stopped
    three.run("cp2", "sh", "-c", three.transactions("cp2")[-1].path + "/rollback --undo", timeout=300)
    assert len(members(three)) == 2
    process = rejoin(three, "cp2")
    assert "is a member of the cluster" in said(process)
    assert_three(three, "elsewhere")


def test_a_host_of_another_pki_is_refused(three):
    started = three.etcd_process("cp2")
    remove(three, "cp2")
    three.run("cp2", "cp", "-p", "/etc/kubernetes/pki/sa.pub", "/root/sa.pub")
    try:
        # the key of another one, since only keys are compared
        three.run("cp2", "sh", "-c", "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/front-proxy-ca.crt >/etc/kubernetes/pki/sa.pub")
        process = rejoin(three, "cp2", check=False)
        assert process.returncode != 0
        assert "service-account key" in said(process)
        assert "Nothing was done" in said(process)
    finally:
        three.run("cp2", "cp", "-p", "/root/sa.pub", "/etc/kubernetes/pki/sa.pub")
    rejoin(three, "cp2")
    assert three.etcd_process("cp2") != started
    assert_three(three, "pki")
