# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""etcd_cluster_info and etcd_client_info with real etcds and real tools."""

from __future__ import annotations

import signal
import socket
import subprocess
import time

import harness
import pytest


def ask(etcd, **more):
    return harness.run_module("etcd_cluster_info", **dict(etcd.connection, **more))


def digests(*paths):
    """SHA-256 of the one certificate in each file, as openssl has it."""
    said = [subprocess.check_output(["openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256"], text=True) for path in paths]
    return sorted(line.strip().split("=")[1].replace(":", "").lower() for line in said)


def test_healthy_member(etcd):
    rc, result = ask(etcd)
    assert rc == 0, result
    assert result["changed"] is False
    found = result["etcd"]
    assert (found["reachable"], found["healthy"], found["error"], found["alarms"]) == (True, True, None, [])
    assert found["version"].startswith(etcd.version)
    assert found["leader_id"] == found["member_id"]
    assert found["authorities"] == digests(etcd.connection["cacert"])
    assert found["revision"] > 40
    assert found["db_size"] >= found["db_size_in_use"] > 0
    assert found["members"] == [{"id": found["member_id"], "name": "m1", "peer_urls": [etcd.peer_url], "client_urls": [etcd.endpoint], "is_learner": False}]


def test_through_ansible_and_in_check_mode(etcd):
    rc, result = harness.ansible("etcd_cluster_info", "--check", **etcd.connection)
    assert rc == 0, result
    assert result["etcd"]["healthy"] is True


def test_environment_of_the_caller_does_not_matter(etcd):
    environment = {"ETCDCTL_ENDPOINTS": "https://127.0.0.1:1", "ETCDCTL_API": "2", "ETCDCTL_KEY": "/nonexistent"}
    rc, result = ask(etcd, environment=environment)
    assert rc == 0, result


def test_an_endpoint_without_a_listener_is_unreachable(etcd):
    endpoint = "https://127.0.0.1:%d" % harness.free_ports(1)[0]
    rc, result = ask(etcd, endpoint=endpoint, timeout=1)
    assert rc == 1
    assert endpoint in result["msg"]
    assert result["etcd"]["reachable"] is False
    rc, result = ask(etcd, endpoint=endpoint, timeout=1, required=False)
    assert rc == 0, result
    assert (result["etcd"]["reachable"], result["etcd"]["healthy"]) == (False, False)
    assert endpoint in result["etcd"]["error"]
    assert result["etcd"]["authorities"] == digests(etcd.connection["cacert"])


def test_endpoint_that_accepts_and_never_answers(etcd):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        started = time.monotonic()
        rc, result = ask(etcd, endpoint="https://127.0.0.1:%d" % deaf.getsockname()[1], timeout=1, required=False)
        assert time.monotonic() - started < 15
    assert (rc, result["etcd"]["reachable"]) == (0, False)


def test_certificate_that_etcd_does_not_trust(etcd, tmp_path):
    stranger = harness.make_pki(tmp_path)
    rc, result = ask(etcd, timeout=1, required=False, cert=stranger["cert"], key=stranger["key"])
    assert (rc, result["etcd"]["reachable"]) == (0, False)


def test_certificate_that_is_not_there(etcd):
    rc, result = ask(etcd, required=False, key="/nonexistent/server.key")
    assert rc == 1
    assert "/nonexistent/server.key" in result["msg"]


def test_alarm_makes_it_unhealthy(version, tmp_path):
    with harness.Etcd(version, tmp_path, flags=["--quota-backend-bytes", str(400 * 1024)]) as etcd:
        with pytest.raises(ValueError, match="space"):
            for number in range(100):
                etcd.put("/registry/configmaps/default/%d" % number, bytes(50 * 1024))
        rc, result = ask(etcd)
    assert rc == 0, result
    assert (result["etcd"]["alarms"], result["etcd"]["healthy"]) == (["NOSPACE"], False)
    assert "NOSPACE" in result["etcd"]["error"]


def test_three_members_that_fail_one_by_one(version, tmp_path):
    ports = harness.free_ports(6)
    cluster = ",".join("m%d=https://127.0.0.1:%d" % (number, ports[number + 3]) for number in range(3))
    members = [
        harness.Etcd(version, tmp_path, name="m%d" % number, initial_cluster=cluster, client_port=ports[number], peer_port=ports[number + 3], wait=False)
        for number in range(3)
    ]
    with members[0] as first, members[1] as second, members[2] as third:
        assert first.ready()
        rc, result = ask(first)
        assert rc == 0, result
        assert result["etcd"]["healthy"] is True
        assert sorted(member["name"] for member in result["etcd"]["members"]) == ["m0", "m1", "m2"]
        assert result["etcd"]["members_agreed"] is True
        agreed = {member["id"] for member in result["etcd"]["members"]}
        second.kill()
        third.kill(signal.SIGTERM)
        # It answers for itself, yet there is no quorum: that is reported, in bounded time, and fails only who needs the members.
        started = time.monotonic()
        rc, result = ask(first, timeout=1, required=False)
        assert time.monotonic() - started < 20
        assert rc == 0, result
        assert (result["etcd"]["reachable"], result["etcd"]["healthy"]) == (True, False)
        assert result["etcd"]["error"]
        assert result["etcd"]["members_agreed"] is False
        assert sorted(member["name"] for member in result["etcd"]["members"]) == ["m0", "m1", "m2"]
        assert {member["id"] for member in result["etcd"]["members"]} == agreed
        rc, result = ask(first, timeout=1)
        assert (rc, result["etcd"]["reachable"]) == (1, True)


def test_hashes_at_one_revision(version, tmp_path):
    ports = harness.free_ports(6)
    cluster = ",".join("m%d=https://127.0.0.1:%d" % (number, ports[number + 3]) for number in range(3))
    members = [
        harness.Etcd(version, tmp_path, name="m%d" % number, initial_cluster=cluster, client_port=ports[number], peer_port=ports[number + 3], wait=False)
        for number in range(3)
    ]
    with members[0] as first, members[1] as second, members[2] as third:
        assert first.ready() and second.ready() and third.ready()
        harness.fill(first)
        at = first.put("/registry/last")
        second.put("/registry/later")

        def hashes(revision):
            answers = [ask(member, hash_revision=revision) for member in members]
            assert all(rc == 0 for rc, _result in answers), answers
            assert sorted(result["etcd"]["is_leader"] for _rc, result in answers) == [False, False, True]
            assert all(result["etcd"]["raft_applied_index"] > at for _rc, result in answers)
            return [result["etcd"]["hash"] for _rc, result in answers]

        found = hashes(at)
        assert found[0]["hash"] and found[0] == found[1] == found[2], found
        assert (found[0]["revision"], found[0]["reason"]) == (at, None)
        assert hashes(at + 1)[0]["hash"] != found[0]["hash"]
        future = hashes(at + 1000)
        assert all(one["hash"] is None and one["compact_revision"] is None and "its future" in one["reason"] for one in future), future
        first.compact(at)
        compacted = hashes(at - 5)
        assert all(one["hash"] is None and "was compacted" in one["reason"] for one in compacted), compacted
        after = hashes(at + 1)
        assert after[0]["hash"] and after[0] == after[1] == after[2] and after[0]["compact_revision"] == at, after
        # a hash needs no quorum, and a member that is gone has none
        second.kill()
        third.kill()
        rc, result = ask(first, hash_revision=at + 1, timeout=1, required=False)
        assert (rc, result["etcd"]["healthy"], result["etcd"]["hash"]) == (0, False, after[0])
        rc, result = ask(second, hash_revision=at + 1, timeout=1, required=False)
        assert (rc, result["etcd"]["hash"]) == (0, None)


def test_client_info_of_real_tools(version):
    tools = harness.tools(version)
    rc, result = harness.run_module("etcd_client_info", server_version=version, **tools)
    assert rc == 0, result
    found = result["tools"]
    old, new = version.startswith("3.4"), version.split(".")[:2] >= ["3", "6"]
    assert found["save"] == tools["etcdctl"]
    assert found["restore"] == found["status"] == (tools["etcdctl"] if old else tools["etcdutl"])
    assert found["misfits"] == []
    assert found["etcdctl"]["version"].startswith(version)
    assert found["etcdctl"]["status"] is found["etcdctl"]["restore"] is (not new)
    assert found["bump_revision"] is (not old)
    if not old:
        assert (found["etcdutl"]["save"], found["etcdutl"]["restore"]) == (False, True)


def test_client_info_of_something_else():
    for path in ("/bin/true", "/nonexistent/etcdctl"):
        rc, result = harness.run_module("etcd_client_info", etcdctl=path)
        assert rc == 1
        assert result["msg"].startswith(path)
