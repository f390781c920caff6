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
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.members_on_disk import on_disk


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
    """etcd commits a write within 0.1 s, other members a little later."""
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
        # its name is empty until it has started
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


def staged(tmp_path, snapshot, tools, url):
    """What the module returns for a snapshot beside live data: (its answer, the staged data)."""
    path = tmp_path / "etcd.restore" / "20260101T000000Z-0000"
    path.mkdir(parents=True)
    (tmp_path / "etcd").mkdir()
    plan = {"id": path.name, "kind": "restore", "data_dir": str(tmp_path / "etcd")}
    for name, text in (("plan.json", json.dumps(plan)), ("state", "begun\n"), ("lock", "")):
        (path / name).write_text(text)
    wanted = {"name": "n1", "initial_cluster": "n1=" + url, "peer_urls": url, "cluster_token": "another"}
    code, result = harness.run_module("etcd_restore_transaction", path=path, state="staged", snapshot=snapshot, **wanted, **tools)
    assert code == 0, result
    return result, path / "staged"


def need(*versions):
    """Skip where a version is not at hand, as on a runner that has those of Debian alone."""
    try:
        for one in versions:
            harness.bin_dir(one)
    except harness.Unavailable as exc:
        pytest.skip("what etcd %s does cannot be seen here: %s" % (", ".join(versions), exc))


def served_by(version, tmp_path, data_dir, peer_port):
    """Names of the members that an etcd of this version has on that data."""
    with harness.Etcd(version, tmp_path, name="n1", data_dir=data_dir, client_port=harness.free_ports(1)[0], peer_port=peer_port) as etcd:
        return sorted(item[1] for item in said(etcd))


@pytest.mark.parametrize("wide", [False, True], ids=["bucket-inline", "bucket-with-a-page"])
def test_an_upgrade_revives_no_previous_member(tmp_path, wide):
    """etcdctl 3.4 restores no members of the new cluster and leaves the old ones, which 3.6 goes by; only 3.5.26 and later remove them."""
    need("3.4", "3.5.16", "3.6")
    port, more = harness.free_ports(1)[0], []
    if wide:
        # more than a quarter of a page: bolt gives the bucket a page of its own
        urls = ",".join(["https://127.0.0.1:%d" % port] + ["https://%s.example:%d" % ("x" * 60, number) for number in range(1, 20)])
        more = ["--initial-advertise-peer-urls", urls, "--initial-cluster", ",".join("old=" + url for url in urls.split(","))]
    with harness.Etcd("3.4", tmp_path, name="old", peer_port=port, client_port=harness.free_ports(1)[0], flags=more) as etcd:
        harness.fill(etcd, 5)
        soon(lambda: read(etcd), said(etcd))
        snapshot = etcd.save(tmp_path / "a.db")
    port = harness.free_ports(1)[0]
    result, data = staged(tmp_path, snapshot, harness.tools("3.4"), harness.url_of("127.0.0.1", port))
    assert on_disk(str(data))[0] == []
    assert "left members of the cluster from before" in str(result["warnings"]) and "old (id " in str(result["warnings"])
    assert [served_by(version, tmp_path, data, port) for version in ("3.4", "3.5.16", "3.6")] == [["n1"]] * 3


def test_tools_from_3_5_on_restore_the_members_of_the_plan_alone(tmp_path, snapshot):
    """And nothing is removed."""
    need("3.5", "3.6", "3.7")
    for version in ("3.5", "3.6", "3.7"):
        (tmp_path / version).mkdir()
        result, data = staged(tmp_path / version, snapshot, harness.tools(version), "https://192.0.2.11:2380")
        assert ([member["name"] for member in on_disk(str(data))[0]], result.get("warnings")) == (["n1"], None)


def test_a_snapshot_warns_of_members_that_no_cluster_has(tmp_path):
    need("3.4", "3.5.16")
    (tmp_path / "before").mkdir()
    with harness.Etcd("3.4", tmp_path / "before", name="old") as etcd:
        harness.fill(etcd, 5)
        soon(lambda: read(etcd), said(etcd))
        snapshot = etcd.save(tmp_path / "a.db")
    client, peer = harness.free_ports(2)
    url = harness.url_of("127.0.0.1", peer)
    argv = ["--name=n1", "--initial-cluster=n1=" + url, "--initial-advertise-peer-urls=" + url, "--initial-cluster-token=another"]
    assert harness.restore("3.4", snapshot, tmp_path / "data", *argv).returncode == 0
    with harness.Etcd("3.5.16", tmp_path, name="n1", data_dir=tmp_path / "data", client_port=client, peer_port=peer) as etcd:
        soon(lambda: sorted(item[1] for item in read(etcd)), ["n1", "old"])
        assert [item[1] for item in said(etcd)] == ["n1"]
        code, result = harness.run_module("etcd_snapshot", directory=tmp_path / "snapshots", manifests_dir=tmp_path, pki_dir=tmp_path, **etcd.connection)
    assert code == 0, result
    (warning,) = result["warnings"]
    assert "holds members that the cluster does not have: old (id " in str(warning) and "etcd 3.5.26 or later" in str(warning)
