# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore would find on a node that is a few directories."""

from __future__ import annotations

import fcntl
import time

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_restore_info

ETCD = """
metadata:
  labels:
    component: etcd
spec:
  containers:
  - command:
    - etcd
    - --data-dir={data}
    - --name=cp1
    image: registry.example/etcd:3.5.16-0
    volumeMounts:
    - mountPath: {data}
      name: etcd-data
  volumes:
  - hostPath:
      path: {data}
      type: DirectoryOrCreate
    name: etcd-data
"""


@pytest.fixture
def node(tmp_path):
    data, manifests = tmp_path / "lib/etcd", tmp_path / "manifests"
    (data / "member/snap").mkdir(parents=True)
    (data / "member/snap/db").write_bytes(b"x" * 5000)
    manifests.mkdir()
    (manifests / "etcd.yaml").write_text(ETCD.format(data=data))
    (manifests / "vip.yaml").write_text("metadata:\n  name: kube-vip\n")
    return tmp_path


def look(node, **more):
    return etcd_restore_info.look(str(node / "manifests"), "/var/lib/etcd", str(node / "backups/etcd"), **more)


def test_everything_that_is_documented_is_returned(node):
    documented = yaml.safe_load(etcd_restore_info.RETURN)["restore"]["contains"]
    # the times are taken before anything else is done
    assert set(look(node)) | {"time", "controller_time"} == set(documented)


def test_sizes_and_places(node):
    (node / "lib/etcd.restore/20260101T000000Z-0000/old").mkdir(parents=True)
    (node / "lib/etcd.restore/20260101T000000Z-0000/old/db").write_bytes(b"x" * 10**6)
    (node / "lib/etcd.restore/cluster-ids").write_text("abc\ndef\n")
    found = look(node)
    assert found["database_bytes"] == 5000
    assert 0 < found["data_bytes"] < 10**6
    assert found["snapshot_dir"]["path"] == str(node / "backups/etcd")
    assert found["snapshot_dir"]["same_file_system"] is True
    assert found["snapshot_dir"]["free_bytes"] > 0
    assert found["cluster_ids"] == ["abc", "def"]
    assert found["other_static_pods"] == ["kube-vip"]
    assert found["missing"] == ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]


def test_the_data_is_what_the_manifest_mounts_and_not_what_the_host_has_under_that_name(node):
    manifest = node / "manifests/etcd.yaml"
    manifest.write_text(manifest.read_text().replace("      path: %s/lib/etcd\n" % node, "      path: %s/lib/etcd-from-backup\n" % node))
    mounted = node / "lib/etcd-from-backup"
    (mounted / "member/snap").mkdir(parents=True)
    (mounted / "member/snap/db").write_bytes(b"x" * 7000)
    found = look(node)
    assert (found["data_dir"], found["database_bytes"]) == (str(mounted), 7000)
    assert found["transactions_dir"] == "%s.restore" % mounted


def test_data_in_no_directory_of_this_host_is_refused(node, monkeypatch):
    manifest = node / "manifests/etcd.yaml"
    manifest.write_text(manifest.read_text().replace("  - hostPath:\n", "  - emptyDir: {}\n    other:\n"))
    failed = run(monkeypatch, manifests_dir=str(node / "manifests"))
    assert "The control plane of this host cannot be read" in failed["msg"] and "etcd's data in no directory of this host" in failed["msg"]


def test_without_data(node):
    (node / "lib/etcd/member/snap/db").unlink()
    found = look(node)
    assert (found["database_bytes"], found["data_bytes"]) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "inside"),
    [({"items": [{"metadata": {"name": "job-7"}}]}, True), ({"items": []}, False), ({"items": None}, False), (KubeError("no answer"), None)],
)
def test_whether_the_controller_is_a_pod_of_the_cluster(monkeypatch, answer, inside):
    asked = []

    class Api:
        def __init__(self, pod):
            pass

        def get(self, path):
            asked.append(path)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(etcd_restore_info, "KubeApi", Api)
    assert etcd_restore_info.pod_exists(object(), "job-7&x") is inside
    assert asked == ["/api/v1/pods?limit=1&fieldSelector=metadata.name%3Djob-7%26x"]


def test_without_an_api_server_the_answer_is_unknown(node):
    assert look(node, controller_pod="job-7")["controller_inside"] is None
    assert look(node)["controller_inside"] is None


def test_whether_a_process_uses_the_data(node):
    assert look(node)["data_in_use"] is False
    with open(node / "lib/etcd/member/snap/db", "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert look(node)["data_in_use"] is True
    (node / "lib/etcd/member/snap/db").unlink()
    assert look(node)["data_in_use"] is False


def test_where_an_unfinished_restore_keeps_manifests(node):
    held = retire(node, "stopped")
    assert [item["held"] for item in look(node)["unfinished"]] == [str(held)]


APISERVER = """
metadata:
  labels:
    component: kube-apiserver
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=192.0.2.11
    - --etcd-servers=https://127.0.0.1:2379,https://192.0.2.12:2379
    image: registry.example/kube-apiserver:v1.30.1
"""


def test_the_members_that_the_api_server_asks(node):
    assert look(node)["etcd_servers"] == []
    (node / "manifests/kube-apiserver.yaml").write_text(APISERVER)
    assert look(node)["etcd_servers"] == ["https://127.0.0.1:2379", "https://192.0.2.12:2379"]
    (node / "manifests/kube-apiserver.yaml").write_text(APISERVER.replace(",https://192", "\n    - --etcd-servers=https://192"))
    assert look(node)["etcd_servers"] == ["https://127.0.0.1:2379", "https://192.0.2.12:2379"]


def test_kubeadm_that_runs_and_what_it_kept(monkeypatch, node):
    kept = node / "tmp/kubeadm-backup-manifests-2026-11-28-10-00-00/kube-apiserver.yaml"
    kept.parent.mkdir(parents=True)
    kept.write_text(APISERVER)
    (kept.parent / "etcd.yaml").write_text(ETCD)
    found = look(node)
    assert (found["kubeadm"], found["kept_by_kubeadm"]) == ([], {"kube-apiserver": str(kept)})
    monkeypatch.setattr(etcd_restore_info, "running", lambda: [{"pid": 7, "command": "kubeadm reset", "seconds": 3}])
    assert look(node)["kubeadm"] == [{"pid": 7, "command": "kubeadm reset", "seconds": 3}]


def test_what_the_database_says(monkeypatch, node):
    asked = []
    monkeypatch.setattr(etcd_restore_info, "on_disk", lambda path: asked.append(path) or ([{"name": "cp1"}], 582))
    found = look(node)
    assert (found["members_on_disk"], found["revision_on_disk"]) == ([{"name": "cp1"}], 582)
    assert asked == [str(node / "lib/etcd")]


def test_an_invalid_database(node):
    found = look(node)
    assert (found["members_on_disk"], found["revision_on_disk"]) == ([], 0)


def retire(node, state="committed", kind="retire", held=True):
    """As a restore of other members leaves the node; returns the directory that holds the manifests."""
    transaction = node / "lib/etcd.restore/20260101T000000Z-0000"
    transaction.mkdir(parents=True)
    (transaction / "plan.json").write_text('{"kind": "%s"}' % kind)
    (transaction / "state").write_text(state + " 2026-01-01T00:00:00.000Z")
    directory = node / "manifests.restore-20260101T000000Z-0000"
    if held:
        directory.mkdir()
        (node / "manifests/etcd.yaml").rename(directory / "etcd.yaml")
        (directory / "kube-apiserver.yaml").write_text(APISERVER)
    return directory


def test_a_node_that_was_retired(node):
    assert look(node)["retired"] == {}
    held = retire(node)
    found = look(node)
    assert found["retired"] == {
        "id": "20260101T000000Z-0000",
        "path": str(node / "lib/etcd.restore/20260101T000000Z-0000"),
        "state": "committed",
        "held": str(held),
    }
    assert found["etcd"]["name"] == "cp1"
    assert not found["complete"]


def test_a_node_that_is_coming_back(node):
    held = retire(node, "rejoining")
    (held / "etcd.yaml").rename(node / "manifests/etcd.yaml")
    assert look(node)["retired"]["state"] == "rejoining"
    (held / "kube-apiserver.yaml").rename(node / "manifests/kube-apiserver.yaml")
    assert look(node)["retired"] == {}


@pytest.mark.parametrize("more", [{"state": "swapped"}, {"state": "rolled-back"}, {"kind": "restore"}, {"held": False}])
def test_a_node_that_is_not_retired(node, more):
    retire(node, **more)
    assert look(node)["retired"] == {}


class Exit(Exception):
    pass


def run(monkeypatch, **params):
    result = {}

    class FakeModule:
        def __init__(self, argument_spec, supports_check_mode):
            self.params = {name: params.get(name, spec.get("default")) for name, spec in argument_spec.items()}

        def exit_json(self, **answer):
            result.update(answer)
            raise Exit

        fail_json = exit_json

    monkeypatch.setattr(etcd_restore_info, "AnsibleModule", FakeModule)
    with pytest.raises(Exit):
        etcd_restore_info.main()
    return result


def test_clocks(monkeypatch, node):
    restore = run(monkeypatch, manifests_dir=str(node / "manifests"), controller_time=1234.5)["restore"]
    assert restore["controller_time"] == 1234.5
    assert abs(restore["time"] - time.time()) < 60


def test_a_host_that_is_no_control_plane(monkeypatch, tmp_path):
    assert "not a kubeadm control plane node" in run(monkeypatch, manifests_dir=str(tmp_path / "none"))["msg"]


def test_trouble_with_signatures_only_prevents_the_choice_of_the_newest(node, monkeypatch):
    def no_program():
        raise Refused("there is no program ssh-keygen on this host")

    monkeypatch.setattr(signature, "_program", no_program)
    restore = run(monkeypatch, manifests_dir=str(node / "manifests"), signers=["%s ssh-ed25519 %s" % ("a" * 64, "A" * 40)])["restore"]
    assert restore["snapshots"]["unchecked"] == "there is no program ssh-keygen on this host"


def test_a_key_that_cannot_sign_is_known_before_anything_is_stopped(node):
    key = node / "key"
    assert "cannot be read: No such file" in look(node, signing_key=str(key))["signing_key_problem"]
    key.write_text("x")
    key.chmod(0o644)
    assert "others may read the key" in look(node, signing_key=str(key))["signing_key_problem"]
    assert look(node)["signing_key_problem"] == ""
