# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read of a snapshot before a cluster is rebuilt, and how its data gets onto a machine that has none, with a real etcd."""

from __future__ import annotations

import hashlib
import json
import os

import harness
import pytest

VERSION = "3.7"
CLUSTER = b"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
MANIFEST = "metadata:\n  labels:\n    component: kube-apiserver\nspec:\n  containers:\n  - command:\n    - kube-apiserver\n    - --a=b\n"
KUBECONFIG = b"clusters:\n- cluster:\n    server: https://192.0.2.1:6443\n"


def field(number, value):
    length, size = b"", len(value)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def stored(metadata, *parts):
    return b"k8s\0" + field(1, field(1, b"v1")) + field(2, field(1, metadata) + b"".join(parts))


def configmap(name, **data):
    entries = [field(2, field(1, key.replace("__", ".").encode()) + field(2, text)) for key, text in data.items()]
    return stored(field(1, name.encode()), *entries)


def node(name, labels, taints, addresses):
    metadata = field(1, name.encode()) + b"".join(field(11, field(1, label.encode()) + field(2, b"")) for label in labels)
    spec = b"".join(field(5, field(1, key.encode()) + field(3, effect.encode())) for key, effect in taints)
    status = b"".join(field(5, field(1, kind.encode()) + field(2, address.encode())) for kind, address in addresses)
    return stored(metadata, field(2, spec), field(3, status))


def put_cluster(etcd):
    etcd.put("/registry/configmaps/kube-system/kubeadm-config", configmap("kubeadm-config", ClusterConfiguration=b"kind: Old\n"))
    etcd.put("/registry/configmaps/kube-system/kubeadm-config", configmap("kubeadm-config", ClusterConfiguration=CLUSTER))
    etcd.put("/registry/configmaps/kube-system/kubelet-config", configmap("kubelet-config", kubelet=b"kind: KubeletConfiguration\n"))
    etcd.put("/registry/configmaps/kube-system/kube-proxy", configmap("kube-proxy", kubeconfig__conf=KUBECONFIG))
    etcd.put("/registry/configmaps/kube-public/cluster-info", configmap("cluster-info", kubeconfig=KUBECONFIG.replace(b"192.0.2.1", b"lb")))
    control_plane = "node-role.kubernetes.io/control-plane"
    unready = ("node.kubernetes.io/unreachable", "NoExecute")
    addresses = [("InternalIP", "192.0.2.1"), ("Hostname", "cp1")]
    etcd.put("/registry/minions/cp1", node("cp1", ["a", control_plane], [(control_plane, "NoSchedule"), unready], addresses))
    etcd.put("/registry/minions/w1", node("w1", ["a"], [], [("InternalIP", "192.0.2.9")]))
    etcd.put("/registry/minions/w2", b"k8s:enc:aescbc:v1:key1:0123456789abcdef0123456789abcdef")
    etcd.put("/registry/minions/gone", node("gone", [control_plane], [], []))
    etcd.delete("/registry/minions/gone")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """(path of a snapshot, its revision)"""
    directory = tmp_path_factory.mktemp("rebuild")
    with harness.Etcd(VERSION, directory, name="cp1") as etcd:
        harness.fill(etcd)
        put_cluster(etcd)
        revision = etcd.put("/registry/last", b"x")
        return etcd.save(directory / "snapshot.db"), revision


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_cluster_of_a_snapshot(snapshot):
    path, revision = snapshot
    rc, result = harness.run_module("kube_rebuild_source", path=path)
    assert rc == 0 and not result["changed"], result
    found = result["source"]
    assert (found["revision"], found["sha256"], found["size"]) == (revision, digest(path), path.stat().st_size)
    assert (found["cluster_configuration"], found["kubelet_configuration"]) == (CLUSTER.decode(), "kind: KubeletConfiguration\n")
    assert found["servers"] == ["https://192.0.2.1:6443", "https://lb:6443"]
    assert found["nodes"] == [
        {
            "name": "cp1",
            "control_plane": True,
            "addresses": ["192.0.2.1"],
            "taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
        },
        {"name": "w1", "control_plane": False, "addresses": ["192.0.2.9"], "taints": []},
        {"name": "w2", "control_plane": None, "addresses": [], "taints": None},
    ]
    assert found["unreadable"] == ["nodes/w2"] and [member["name"] for member in found["members"]] == ["cp1"]
    assert found["files"] == [] and found["manifests"] == {} and found["foreign"] == []


def test_the_files_that_were_stored_with_it(snapshot, tmp_path):
    path = harness.copy(snapshot[0], tmp_path / "s.db")
    files = tmp_path / "files"
    for name, text in {
        "pki/ca.crt": "x",
        "encryption-configuration.yaml": "resources:\n- providers:\n  - kms:\n      name: a\n",
        "manifests/kube-apiserver.yaml": MANIFEST,
        "manifests/kube-vip.yaml": "metadata:\n  name: kube-vip\n",
    }.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text)
    known = {"format": 1, "file": "s.db", "sha256": digest(path), "size": path.stat().st_size, "hash": None, "revision": 1, "verified": True, "host": "cp1"}
    known.update(created="2026-01-02T03:04:05Z", etcd_version="3.7.3", fingerprints={"ca": "0" * 64, "etcd_ca": None}, inventory={"names": {"nodes": ["cp1"]}})
    (tmp_path / "s.db.json").write_text(json.dumps(known))
    rc, result = harness.run_module("kube_rebuild_source", path=path, files=files)
    assert rc == 0, result
    found = result["source"]
    assert found["files"] == ["encryption-configuration.yaml", "manifests/kube-apiserver.yaml", "manifests/kube-vip.yaml", "pki/ca.crt"]
    assert found["manifests"]["kube-apiserver"]["flags"] == {"a": ["b"]} and found["other_pods"] == ["kube-vip"]
    assert found["foreign"] == ["the cluster's CA (pki/ca.crt)"] and found["names"] == {"nodes": ["cp1"]} and found["kms"]
    assert (found["created"], found["etcd_version"]) == ("2026-01-02T03:04:05Z", "3.7.3")
    (tmp_path / "s.db.json").write_text(json.dumps(dict(known, sha256="1" * 64)))
    rc, result = harness.run_module("kube_rebuild_source", path=path)
    assert rc == 1 and "describes another file" in result["msg"], result


def test_a_configuration_that_only_the_bundle_has(snapshot, tmp_path):
    with harness.Etcd(VERSION, tmp_path) as etcd:
        etcd.put("/registry/configmaps/kube-system/kubeadm-config", b"k8s:enc:aescbc:v1:key1:0123456789abcdef0123456789abcdef")
        path = etcd.save(tmp_path / "s.db")
    files = tmp_path / "files"
    files.mkdir()
    (files / "kubeadm-config.yaml").write_bytes(CLUSTER)
    rc, result = harness.run_module("kube_rebuild_source", path=path, files=files)
    assert rc == 0 and result["source"]["cluster_configuration"] == CLUSTER.decode(), result
    assert result["source"]["unreadable"] == ["configmaps/kube-system/kubeadm-config"]


def test_a_damaged_snapshot_is_refused(snapshot, tmp_path):
    path = harness.copy(snapshot[0], tmp_path / "s.db")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    rc, result = harness.run_module("kube_rebuild_source", path=path)
    assert rc == 1 and "cannot be read" in result["msg"], result


def arguments(path, etcd, **more):
    found = {"path": path, "sha256": digest(path), "data_dir": etcd.data_dir, "name": etcd.name, "initial_cluster": "%s=%s" % (etcd.name, etcd.peer_url)}
    return dict(found, peer_urls=etcd.peer_url, cluster_token="rebuild-x", bump_revision=10000000000, **dict(harness.tools(VERSION), **more))


def test_the_data_of_a_new_member(snapshot, tmp_path):
    path, revision = snapshot
    etcd = harness.Etcd(VERSION, tmp_path, name="new")
    given = arguments(path, etcd)
    rc, result = harness.run_module("kube_rebuild_data", check_mode=True, **given)
    assert rc == 0 and result["changed"] and not etcd.data_dir.exists(), result
    rc, result = harness.run_module("kube_rebuild_data", **given)
    assert rc == 0 and result["changed"], result
    assert sorted(os.listdir(etcd.data_dir)) == [".k8s-dr-rebuilt", "member"] and etcd.data_dir.stat().st_mode & 0o777 == 0o700
    rc, result = harness.run_module("kube_rebuild_data", **given)
    assert rc == 0 and not result["changed"], result
    with etcd:
        status = json.loads(etcd.etcdctl("endpoint", "status", "--write-out=json").stdout)[0]["Status"]
        assert status["header"]["revision"] == revision + 10000000000
        members = json.loads(etcd.etcdctl("member", "list", "--write-out=json").stdout)["members"]
        assert [(member["name"], member["peerURLs"]) for member in members] == [("new", [etcd.peer_url])]
        assert etcd.get("/registry/last") == b"x"
        etcd.put("/registry/since", b"y")
    # what was written since stays
    rc, result = harness.run_module("kube_rebuild_data", **given)
    assert rc == 0 and not result["changed"], result
    with etcd:
        assert etcd.get("/registry/since") == b"y"


def test_other_data_is_never_replaced(snapshot, tmp_path):
    path = snapshot[0]
    etcd = harness.Etcd(VERSION, tmp_path, name="new")
    with etcd:
        etcd.put("/mine", b"1")
    rc, result = harness.run_module("kube_rebuild_data", **arguments(path, etcd))
    assert rc == 1 and "holds data of another etcd; nothing was changed" in result["msg"], result
    with etcd:
        assert etcd.get("/mine") == b"1"


def test_what_a_killed_run_has_left_is_done_again(snapshot, tmp_path):
    """Before the last rename there is a mark, and what was restored is in a directory that the next run removes."""
    path = snapshot[0]
    etcd = harness.Etcd(VERSION, tmp_path, name="new")
    etcd.data_dir.mkdir()
    (etcd.data_dir / ".k8s-dr-rebuilt").write_text(digest(path))
    (etcd.data_dir / ".k8s-dr-half").mkdir()
    (etcd.data_dir / ".k8s-dr-half/lock").write_text("")
    rc, result = harness.run_module("kube_rebuild_data", **arguments(path, etcd))
    assert rc == 0 and result["changed"] and sorted(os.listdir(etcd.data_dir)) == [".k8s-dr-rebuilt", "member"], result


@pytest.mark.parametrize("change", [{"path": "/none"}, {"initial_cluster": "other=https://127.0.0.1:1"}])
def test_a_restore_that_fails_leaves_nothing(snapshot, tmp_path, change):
    etcd = harness.Etcd(VERSION, tmp_path, name="new")
    rc, result = harness.run_module("kube_rebuild_data", **dict(arguments(snapshot[0], etcd), **change))
    assert rc == 1 and "the snapshot was not restored" in result["msg"], result
    assert not etcd.data_dir.exists() or os.listdir(etcd.data_dir) == []
