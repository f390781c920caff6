# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster that speaks IPv6 alone: every place that parses or builds an address."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import LOCAL, LOCAL_IPV6
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import etcd_health, listens
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import commit_vote


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
        return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no [::1]")


@pytest.fixture(scope="module")
def cluster(version, tmp_path_factory):
    """Three members on [::1] that serve."""
    members = harness.members(version, tmp_path_factory.mktemp("ipv6-" + version), host="::1")
    with members[0], members[1], members[2]:
        assert all(member.ready() for member in members)
        harness.fill(members[0])
        yield members


def tls(member):
    return {name: member.pki[name] for name in ("cacert", "cert", "key")}


def test_members_and_hashes(cluster):
    revision = cluster[0].put("/registry/last")
    found = [harness.run_module("etcd_cluster_info", hash_revision=revision, **member.connection)[1]["etcd"] for member in cluster]
    assert all(etcd["healthy"] for etcd in found), found
    assert len({json.dumps(etcd["hash"]) for etcd in found}) == 1 and found[0]["hash"]["hash"]
    assert sorted(member["peer_urls"] for member in found[0]["members"]) == sorted([member.peer_url] for member in cluster)
    assert all("[::1]" in member["client_urls"][0] for member in found[0]["members"])


def test_snapshot_and_restore_of_all_members(cluster, version, tmp_path):
    rc, result = harness.run_module("etcd_snapshot", directory=tmp_path / "backups", **cluster[1].connection)
    assert rc == 0, result
    assert result["snapshot"]["member"]["name"] == "m1"
    (tmp_path / "again").mkdir()
    restored = harness.members(version, tmp_path / "again", host="::1")
    for member in restored:
        rest = ["--name", member.name, "--initial-cluster", member.initial_cluster, "--initial-advertise-peer-urls", member.peer_url]
        done = harness.restore(version, result["snapshot"]["path"], member.data_dir, *rest)
        assert done.returncode == 0, done.stderr
    with restored[0], restored[1], restored[2]:
        assert all(member.ready() for member in restored)
        assert restored[2].get_keys() == cluster[0].get_keys()
        # what a restore waits for, and what it waits for the end of
        assert all(etcd_health(member.endpoint, tls(member)) == "true" for member in restored)
        assert all(listens(url, 0.5) for member in restored for url in (member.endpoint, member.peer_url))
    assert not any(listens(url, 0.5) for member in restored for url in (member.endpoint, member.peer_url))
    assert etcd_health(restored[0].endpoint, tls(restored[0])) != "true"


def test_votes_and_decision(cluster, version, tmp_path, monkeypatch):
    # files that the shell could take an address in brackets for
    for member in cluster:
        (tmp_path / "https:" / ("1:%d" % member.client_port)).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    cluster_id = json.loads(cluster[0].etcdctl("endpoint", "status", "--write-out=json").stdout)[0]["Status"]["header"]["cluster_id"]
    endpoints = ["https://[::1]:%d" % harness.free_ports(1)[0]] + [member.endpoint for member in cluster]

    def decide(voter, *how):
        path = tmp_path / voter
        if not path.exists():
            path.mkdir()
            values = {"id": "r-" + version, "path": str(path), "voter": voter, "voters": ["m0", "m1"], "endpoints": endpoints, "tls": tls(cluster[0])}
            (path / "decide").write_text(commit_vote.decide_script(dict(values, etcdctl=harness.tools(version)["etcdctl"])))
            (path / "restored-cluster").write_text("%d\n" % cluster_id)
        done = subprocess.run(["sh", str(path / "decide"), *how], capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout.strip()

    assert decide("m0") == (0, "undecided")
    assert decide("m0", "vote") == (0, "voted")
    assert decide("m1", "vote") == (0, "voted")
    assert decide("m1", "--timer") == (0, "committed")
    assert decide("m0") == (0, "committed")


def test_members_are_read_without_a_quorum(version, tmp_path):
    members = harness.members(version, tmp_path, host="::1")
    with members[0], members[1], members[2]:
        assert all(member.ready() for member in members)
        members[1].kill()
        members[2].kill()
        rc, result = harness.run_module("etcd_cluster_info", required=False, **dict(members[0].connection, timeout=1))
        assert rc == 0, result
        assert result["etcd"]["members_agreed"] is False
        assert sorted(member["name"] for member in result["etcd"]["members"]) == ["m0", "m1", "m2"]


def test_default_endpoint_is_found(version, tmp_path):
    """kubeadm has etcd listen on [::1]:2379 where the cluster is one of IPv6."""
    if listens(LOCAL) or listens(LOCAL_IPV6):
        pytest.skip("somebody listens on port 2379 here")
    with harness.Etcd(version, tmp_path, client_port=2379, peer_port=harness.free_ports(1)[0], host="::1") as etcd:
        connection = {name: value for name, value in etcd.connection.items() if name != "endpoint"}
        rc, result = harness.run_module("etcd_cluster_info", **connection)
        assert rc == 0 and result["etcd"]["healthy"], result
        rc, result = harness.run_module("etcd_snapshot", directory=tmp_path / "backups", **connection)
        assert rc == 0 and pathlib.Path(result["snapshot"]["path"]).exists(), result
