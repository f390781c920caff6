# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The members that real databases name: beside a running etcd, and without one."""

from __future__ import annotations

import json
import threading
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._membership import on_disk


def three(version, tmp_path):
    """Three members that are not started yet."""
    ports = harness.free_ports(6)
    cluster = ",".join("m%d=https://127.0.0.1:%d" % (number, ports[3 + number]) for number in range(3))
    return [
        harness.Etcd(version, tmp_path, name="m%d" % number, initial_cluster=cluster, client_port=ports[number], peer_port=ports[3 + number], wait=False)
        for number in range(3)
    ]


def said(etcd):
    """The members as etcd itself lists them."""
    return sorted(
        ("%x" % member["ID"], member.get("name", ""), member["peerURLs"], member.get("clientURLs", []), member.get("isLearner", False))
        for member in json.loads(etcd.etcdctl("member", "list", "--write-out=json").stdout)["members"]
    )


def read(etcd):
    return sorted(tuple(member.values()) for member in on_disk(str(etcd.data_dir))[0])


def soon(what, expected):
    """etcd commits what it was told within 0.1 s, other members a little later."""
    end = time.monotonic() + 15
    while True:
        found = what()
        if found == expected or time.monotonic() > end:
            break
        time.sleep(0.05)
    assert found == expected


def revision_of(etcd):
    return json.loads(etcd.etcdctl("endpoint", "status", "--write-out=json").stdout)[0]["Status"]["header"]["revision"]


def test_one_member(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
        soon(lambda: read(etcd), said(etcd))
        soon(lambda: on_disk(str(etcd.data_dir))[1], revision_of(etcd))
        etcd.delete("/registry/namespaces/default")
        soon(lambda: on_disk(str(etcd.data_dir))[1], revision_of(etcd))
        listed = said(etcd)
    assert read(etcd) == listed
    (etcd.db).unlink()
    assert on_disk(str(etcd.data_dir)) == ([], 0)


def test_three_members_of_which_one_is_removed_and_a_learner_comes(version, tmp_path):
    members = three(version, tmp_path)
    try:
        for member in members:
            member.start()
        assert all(member.ready() for member in members)
        for member in members:
            soon(lambda etcd=member: read(etcd), said(members[0]))
        gone = next(item[0] for item in said(members[0]) if item[1] == "m2")
        # etcd changes nothing before members have been connected for 5 s
        soon(lambda: members[0].etcdctl("member", "remove", gone, check=False).returncode, 0)
        for member in members[:2]:
            soon(lambda etcd=member: [item[1] for item in sorted(read(etcd), key=lambda each: each[1])], ["m0", "m1"])
        # its name is empty until it has told it
        soon(lambda: members[0].etcdctl("member", "add", "m3", "--learner", "--peer-urls=https://127.0.0.1:1", check=False).returncode, 0)
        for member in members[:2]:
            soon(lambda etcd=member: [item[1:] for item in read(etcd) if item[4]], [("", ["https://127.0.0.1:1"], [], True)])
            assert read(member) == said(members[0])
    finally:
        for member in members:
            member.kill()
    assert sorted(item[1] for item in read(members[0])) == ["", "m0", "m1"]


def test_beside_an_etcd_that_writes_all_the_time(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
        listed = said(etcd)
        soon(lambda: read(etcd), listed)
        stop = threading.Event()

        def write():
            while not stop.is_set():
                etcd.put_all({"/registry/pods/default/%d" % number: b"x" * 3000 for number in range(200)})

        writer = threading.Thread(target=write)
        writer.start()
        try:
            seen = []
            for dummy in range(60):
                seen.append(on_disk(str(etcd.data_dir)))
                time.sleep(0.02)
        finally:
            stop.set()
            writer.join()
    assert all([tuple(member.values()) for member in members] == listed for members, dummy in seen)
    revisions = [revision for dummy, revision in seen]
    assert revisions == sorted(revisions)
    assert revisions[-1] > revisions[0] > 0


def test_a_restored_member_that_never_ran(version, tmp_path):
    """What 3.4 restores still holds the members from before, and knows the new ones once it has run."""
    with harness.Etcd(version, tmp_path) as etcd:
        harness.fill(etcd)
        soon(lambda: read(etcd), said(etcd))
        snapshot = etcd.save(tmp_path / "a.db")
    url = "https://192.0.2.11:2380"
    argv = ["--name=n1", "--initial-cluster=n1=%s" % url, "--initial-advertise-peer-urls=" + url, "--initial-cluster-token=another"]
    assert harness.restore(version, snapshot, tmp_path / "restored", *argv).returncode == 0
    names = [member["name"] for member in on_disk(str(tmp_path / "restored"))[0]]
    assert names == (["m1"] if version == "3.4" else ["n1"])


@pytest.mark.parametrize("damage", [b"", b"x" * 70000])
def test_the_module_reads_what_is_there_and_does_not_fail_for_the_rest(tmp_path, damage):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "etcd/member/snap").mkdir(parents=True)
    (tmp_path / "etcd/member/snap/db").write_bytes(damage)
    code, result = harness.run_module("etcd_restore_info", manifests_dir=tmp_path / "manifests", data_dir=tmp_path / "etcd")
    assert code == 0, result
    assert (result["restore"]["members_on_disk"], result["restore"]["revision_on_disk"]) == ([], 0)
