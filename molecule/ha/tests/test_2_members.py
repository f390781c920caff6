# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores of a cluster of which only some members are in the play, on purpose, or are gone for good.

Each test leaves three healthy members.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from cluster import wait_for

CONFIRMED = ("-e", "etcd_restore_confirm=true")
OTHERS = ("cp2", "cp3")
MANIFESTS = "/etc/kubernetes/manifests"


def text_of(process):
    """What the operator was told, without what the terminal did to its lines."""
    return " ".join(process.stdout.split())


def variables(**values):
    """They are lists, so they go to Ansible as JSON."""
    return ("-e", json.dumps(values))


def of_engine(cluster, host, template):
    command = [cluster.engine, "inspect", "-f", template, cluster.nodes[host]]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def wipe(cluster, host):
    """Empty the data disk of a node that has no power."""
    mounts = json.loads(of_engine(cluster, host, "{{json .Mounts}}"))
    found = {mount["Destination"]: mount["Source"] for mount in mounts}
    path = found.get("/var/lib/etcd") or found["/var"] + "/lib/etcd"
    subprocess.run(["rm", "-rf", path + "/member"], check=True)


def members(cluster, host="cp1"):
    return sorted(item["name"] for item in cluster.etcdctl("member", "list", host=host)["members"])


def etcd_name(cluster, host):
    return re.search(r"--name=(\S+)", cluster.run(host, "sh", "-c", "cat %s*/etcd.yaml" % MANIFESTS)).group(1)


def etcd_runs(cluster, host):
    return bool(cluster.run(host, "pgrep", "-x", "etcd", check=False).strip())


def assert_three_healthy_members(cluster):
    """With one cluster id, and the same data seen through each API server."""
    cluster.wait_ready(300)
    assert members(cluster) == sorted(etcd_name(cluster, host) for host in cluster.nodes)
    answers = {host: cluster.etcdctl("endpoint", "status", host=host)[0]["Status"] for host in cluster.nodes}
    assert len({status["header"]["cluster_id"] for status in answers.values()}) == 1
    assert not any(status.get("isLearner") for status in answers.values())
    revision = min(cluster.revision(host) for host in cluster.nodes)
    hashes = {cluster.etcdctl("endpoint", "hashkv", "--rev=%d" % revision, host=host)[0]["HashKV"]["hash"] for host in cluster.nodes}
    assert len(hashes) == 1
    for host in cluster.nodes:
        cluster.note("through-" + host)
        for other in cluster.nodes:
            what = "%s sees what was written through %s" % (other, host)
            wait_for(lambda name="through-" + host, seen=other: cluster.noted_by(name, seen) == "yes", 30, what)


@pytest.fixture
def cluster(cluster):
    """The cluster, with one more word."""
    cluster.noted_by = lambda name, host: cluster.kubectl(
        "-n", cluster.namespace, "get", "configmap/" + name, "--ignore-not-found", "-o", "jsonpath={.data.text}", host=host
    )
    return cluster


@pytest.fixture
def before(cluster):
    """A snapshot that holds "kept"; "newest" was written after it.  Returns each node's live data."""
    cluster.wait_ready(300)
    cluster.note("kept")
    cluster.kubectl("-n", cluster.namespace, "delete", "configmap/newest", "--ignore-not-found")
    cluster.playbook("snapshot.yml")
    cluster.note("newest")
    return {host: (cluster.live(host), cluster.etcd_process(host)) for host in cluster.nodes}


def assert_untouched(cluster, before):
    assert {host: (cluster.live(host), cluster.etcd_process(host)) for host in cluster.nodes} == before
    assert cluster.noted("newest") == "yes"


def test_one_host_is_refused_with_the_missing_members_and_both_ways_on(cluster, before):
    process = cluster.playbook("restore.yml", "-l", "cp1", *CONFIRMED, check=False)
    assert process.returncode != 0
    said = text_of(process)
    for host in OTHERS:
        assert etcd_name(cluster, host) in said
    assert "drop the -l" in said
    assert '{"etcd_restore_members": ["cp1"]}' in said
    assert_untouched(cluster, before)


def test_a_running_member_cannot_be_declared_lost(cluster, before):
    names = [etcd_name(cluster, host) for host in OTHERS]
    process = cluster.playbook("restore.yml", "-l", "cp1", *CONFIRMED, *variables(etcd_restore_lost_members=names), check=False)
    assert process.returncode != 0
    assert "It runs, so include it in the play instead" in text_of(process)
    assert_untouched(cluster, before)


def test_salvage_is_refused_where_there_is_a_quorum(cluster, before):
    for limit in ((), ("-l", "cp1")):
        process = cluster.playbook("salvage.yml", *limit, check=False)
        assert process.returncode != 0
        assert "has a quorum" in text_of(process)
    assert_untouched(cluster, before)


def test_one_member_is_restored_on_purpose_and_the_others_rejoin(cluster, before):
    only = variables(etcd_restore_members=["cp1"])
    plan = text_of(cluster.playbook("restore.yml", "--check", *only))
    assert "ansible-playbook k8s_dr.etcd.rejoin -l cp2,cp3" in plan
    assert_untouched(cluster, before)

    cluster.playbook("restore.yml", *CONFIRMED, *only)
    assert members(cluster) == [etcd_name(cluster, "cp1")]
    assert cluster.noted("kept") == "yes"
    assert cluster.noted("newest") is None
    for host in OTHERS:
        assert not etcd_runs(cluster, host)
        assert not cluster.processes(host, "kube-apiserver --")
        assert cluster.run(host, "ls", MANIFESTS).split() == []
        assert cluster.transactions(host)[-1].state == "committed"
    cluster.note("alone")

    # what was retired stays out of it, and needs no healthy control plane
    process = cluster.playbook("restore.yml", *CONFIRMED, check=False)
    assert process.returncode != 0
    assert "k8s_dr.etcd.rejoin -l cp2" in text_of(process)
    assert cluster.noted("alone") == "yes"

    cluster.playbook("rejoin.yml", "-l", ",".join(OTHERS))
    assert_three_healthy_members(cluster)
    assert cluster.noted("alone") == "yes"
    assert cluster.noted("newest") is None


def lose_the_quorum(cluster):
    cluster.power("off", *OTHERS)
    wait_for(lambda: cluster.etcdctl("endpoint", "status")[0]["Status"].get("leader", 0) == 0, 60, "cp1 has no leader")


def bring_back(cluster):
    """Their disks are empty, so nothing of the old cluster can be served."""
    for host in OTHERS:
        wipe(cluster, host)
    cluster.power("on", *OTHERS)
    wait_for(lambda: all(cluster.run(host, "pgrep", "-x", "kubelet", check=False) for host in OTHERS), 120, "the nodes run")
    cluster.playbook("rejoin.yml", "-l", ",".join(OTHERS))
    assert_three_healthy_members(cluster)


def test_the_quorum_is_lost_and_the_survivor_has_newer_data_than_any_snapshot(cluster, before):
    names = sorted(etcd_name(cluster, host) for host in OTHERS)
    lost = variables(etcd_restore_lost_members=names)
    lose_the_quorum(cluster)
    live = cluster.live()

    said = text_of(cluster.playbook("restore.yml", "-l", "cp1", "--check", *lost))
    assert "newer than the snapshot" in said
    assert "k8s_dr.etcd.salvage -l cp1" in said

    started, known = cluster.etcd_process(), cluster.transactions()
    cluster.playbook("salvage.yml", "-l", "cp1", "--check")
    assert (cluster.live(), cluster.etcd_process()) == (live, started)
    assert cluster.transactions() == known

    said = text_of(cluster.playbook("salvage.yml", "-l", "cp1"))
    path = re.search(r"SALVAGED (\S+?):", said).group(1)
    assert cluster.live() == live
    assert cluster.transactions()[-1].state == "rolled-back"
    wait_for(lambda: etcd_runs(cluster, "cp1"), 60, "etcd runs again as it was")
    assert cluster.run("cp1", "stat", "-c", "%a", path).strip() == "600"

    process = cluster.playbook("restore.yml", "-l", "cp1", *CONFIRMED, "-e", "etcd_restore_snapshot=" + path, check=False)
    assert process.returncode != 0
    assert names[0] in text_of(process)
    cluster.playbook("restore.yml", "-l", "cp1", *CONFIRMED, *lost, "-e", "etcd_restore_snapshot=" + path)
    assert members(cluster) == [etcd_name(cluster, "cp1")]
    assert (cluster.noted("kept"), cluster.noted("newest")) == ("yes", "yes")
    bring_back(cluster)
    assert (cluster.noted("kept"), cluster.noted("newest")) == ("yes", "yes")


def test_the_quorum_is_lost_and_nothing_runs_on_the_survivor(cluster, before):
    """Its kubelet is stopped, and its containers are gone."""
    lost = variables(etcd_restore_lost_members=sorted(etcd_name(cluster, host) for host in OTHERS))
    lose_the_quorum(cluster)
    cluster.run("cp1", "sh", "-c", "systemctl stop kubelet; pkill -KILL -x etcd; pkill -KILL -x kube-apiserver; :")
    wait_for(lambda: not etcd_runs(cluster, "cp1"), 30, "etcd is gone")
    path = re.search(r"SALVAGED (\S+?):", text_of(cluster.playbook("salvage.yml", "-l", "cp1"))).group(1)
    assert not etcd_runs(cluster, "cp1")
    cluster.run("cp1", "systemctl", "start", "kubelet")
    wait_for(lambda: etcd_runs(cluster, "cp1"), 120, "etcd runs again")
    cluster.playbook("restore.yml", "-l", "cp1", *CONFIRMED, *lost, "-e", "etcd_restore_snapshot=" + path)
    assert (cluster.noted("kept"), cluster.noted("newest")) == ("yes", "yes")
    bring_back(cluster)
