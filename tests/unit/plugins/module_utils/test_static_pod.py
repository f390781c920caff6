from __future__ import annotations

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._static_pod import StaticPod, annotated, other_static_pods, read_static_pods

ETCD = """apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.89.0.2:2379
  labels:
    component: etcd
    tier: control-plane
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://10.89.0.2:2379
    - --data-dir=/var/lib/etcd
    - '--initial-cluster=cp1=https://10.89.0.2:2380,cp2=https://10.89.0.3:2380'
    - "--name=cp1"
    - --experimental-watch-progress-notify-interval=5s
    image: registry.k8s.io/etcd:3.5.16-0
    livenessProbe:
      failureThreshold: 8
  - args: []
"""


def test_flags_of_kubeadms_manifest():
    pod = StaticPod("/etc/kubernetes/manifests/etcd.yaml", ETCD)
    assert pod.component == "etcd"
    assert pod.flags["name"] == "cp1"
    assert pod.flags["data-dir"] == "/var/lib/etcd"
    assert pod.flags["initial-cluster"] == "cp1=https://10.89.0.2:2380,cp2=https://10.89.0.3:2380"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("k8s.gcr.io/etcd:3.5.16-0", "3.5.16-0"),
        ("registry.local:5000/kube-apiserver:v1.31.0", "1.31.0"),
        ("registry.k8s.io/etcd:3.5.16-0@sha256:abcd", "3.5.16-0"),
        ("registry.local:5000/etcd@sha256:0123", ""),
        ("etcd", ""),
    ],
)
def test_version_in_an_image(image, version):
    assert StaticPod("x", "    image: %s\n" % image).image_version == version


def test_pods_are_known_by_their_label_and_others_are_left_alone(tmp_path):
    (tmp_path / "weird-name.yaml").write_text(ETCD)
    (tmp_path / "kube-vip.yaml").write_text("kind: Pod\nmetadata:\n  name: kube-vip\n")
    (tmp_path / ".etcd.yaml.swp").write_text(ETCD)
    (tmp_path / "old").mkdir()
    pods = read_static_pods(str(tmp_path))
    assert list(pods) == ["etcd"]
    assert pods["etcd"].path.endswith("weird-name.yaml")


def test_a_backup_left_in_the_directory_is_named(tmp_path):
    """kubelet would run both."""
    (tmp_path / "etcd.yaml").write_text(ETCD)
    (tmp_path / "etcd.yaml.bak").write_text(ETCD)
    with pytest.raises(ValueError, match=r"etcd\.yaml\.bak are both manifests of etcd"):
        read_static_pods(str(tmp_path))


def test_pods_that_are_not_the_control_planes(tmp_path):
    (tmp_path / "etcd.yaml").write_text("metadata:\n  labels:\n    component: etcd\n  name: etcd\n")
    (tmp_path / "kube-vip.yml").write_text("kind: Pod\nmetadata:\n  creationTimestamp: null\n  labels:\n    name: wrong-depth\n  name: vip\nspec:\n")
    (tmp_path / "haproxy.yaml").write_text('metadata:\n    namespace: kube-system\n    name: "haproxy"\nspec:\n  containers:\n  - name: c\n')
    (tmp_path / "odd.json").write_text('{"kind": "Pod"}')
    (tmp_path / ".hidden.yaml").write_text("metadata:\n  name: hidden\n")
    (tmp_path / "directory").mkdir()
    assert other_static_pods(str(tmp_path)) == ["haproxy", "vip", "odd.json"]


PLAIN = """apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels:
    component: kube-scheduler
  name: kube-scheduler
spec:
  containers: []
"""
WITH = PLAIN.replace("  creationTimestamp: null\n", "  annotations:\n    a/b: c\n  creationTimestamp: null\n")


@pytest.mark.parametrize("text", [PLAIN, WITH, "# a comment\n" + WITH])
def test_an_annotation_and_nothing_else(text):
    for value in ("1", "2"):
        before, new = yaml.safe_load(text), annotated(text, "k/r", value)
        after = yaml.safe_load(new)
        assert after["metadata"]["annotations"].pop("k/r") == value
        assert after["metadata"]["annotations"] == before["metadata"].setdefault("annotations", {})
        after["metadata"].pop("annotations"), before["metadata"].pop("annotations")
        assert after == before
    assert yaml.safe_load(annotated(annotated(text, "k/r", "1"), "k/r", "2"))["metadata"]["annotations"]["k/r"] == "2"


@pytest.mark.parametrize("text", ["", "metadata:\n", "metadata: {}\n", '{"metadata": {}}', WITH.replace("annotations:", "annotations: {}  #")])
def test_a_form_that_is_not_known_stays_as_it_is(text):
    assert annotated(text, "k/r", "1") == text
