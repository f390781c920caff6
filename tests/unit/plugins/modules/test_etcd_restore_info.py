# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore would find on a node that is a few directories."""

from __future__ import annotations

import time

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import KubeError
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


def test_without_an_api_server_nobody_knows(node):
    assert look(node, controller_pod="job-7")["controller_inside"] is None
    assert look(node)["controller_inside"] is None


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
    assert "no kubeadm control plane node" in run(monkeypatch, manifests_dir=str(tmp_path / "none"))["msg"]
