# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is found on a machine, without a kubeadm; molecule has machines with one."""

from __future__ import annotations

import os

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import machine
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError
from ansible_collections.k8s_dr.etcd.plugins.modules import kube_rebuild_machine

KUBEADM = """#!/bin/sh
echo "$@" >> %(log)s
case "$*" in
  version*) echo v1.37.2;;
  *'phase preflight'*) %(preflight)s;;
  *'phase etcd'*) cp %(manifests)s/etcd.yaml "$KUBEADM_INIT_DRYRUN_DIR";;
  *'phase control-plane'*) cp %(manifests)s/kube-*.yaml "$KUBEADM_INIT_DRYRUN_DIR";;
esac
"""
MANIFEST = """
kind: Pod
metadata:
  labels:
    component: %(component)s
spec:
  containers:
  - name: %(component)s
    image: registry.k8s.io/%(component)s:v1.37.2
    command:
    - %(component)s
    - --some-flag=a
    - --some-flag=b
    volumeMounts:
    - mountPath: /etc/kubernetes/pki
      name: pki
      readOnly: true
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki
      type: DirectoryOrCreate
    name: pki
"""


@pytest.fixture
def kubeadm(tmp_path, monkeypatch):
    """A program that writes manifests as kubeadm does; its preflight does what the test says."""
    programs, manifests = tmp_path / "bin", tmp_path / "manifests"
    programs.mkdir()
    manifests.mkdir()
    for component in machine.COMPONENTS:
        (manifests / (component + ".yaml")).write_text(MANIFEST % {"component": component})

    def make(preflight="true"):
        path = programs / "kubeadm"
        path.write_text(KUBEADM % {"log": tmp_path / "log", "manifests": manifests, "preflight": preflight})
        path.chmod(0o755)
        return tmp_path / "log"

    monkeypatch.setenv("PATH", str(programs) + os.pathsep + "/usr/bin:/bin")
    monkeypatch.setattr(machine, "WorkDir", lambda parent: WorkDir(str(tmp_path)))
    return make


WorkDir = machine.WorkDir


def test_a_preview_is_what_kubeadm_would_write(kubeadm, tmp_path):
    log = kubeadm()
    found = machine.preview("kind: InitConfiguration\n", 10, [])
    assert found["preflight"] == [] and set(found["manifests"]) == set(machine.COMPONENTS)
    assert found["manifests"]["etcd"] == {
        "component": "etcd",
        "name": "",
        "image": "registry.k8s.io/etcd:v1.37.2",
        "version": "1.37.2",
        "flags": {"some-flag": ["a", "b"]},
        "volumes": [
            {"name": "pki", "hostPath": "/etc/kubernetes/pki", "mountPath": "/etc/kubernetes/pki", "readOnly": True, "pathType": "DirectoryOrCreate"}
        ],
        "named": {},
    }
    assert all("--dry-run --config" in line for line in log.read_text().splitlines()), "nothing but dry runs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "log", "manifests"], "nothing stays"


def test_the_errors_of_preflight_checks(kubeadm):
    kubeadm('printf "[preflight] Some fatal errors occurred:\\n\\t[ERROR Swap]: swap is on\\n\\t[ERROR Port-6443]: Port 6443 is in use\\n" >&2; exit 1')
    assert machine.preview("", 10, ["Mem"])["preflight"] == ["Swap]: swap is on", "Port-6443]: Port 6443 is in use"]
    assert machine.preview("", 10)["preflight"] == [], "not asked"


def test_a_configuration_that_kubeadm_does_not_take(kubeadm):
    path = kubeadm().parent / "bin/kubeadm"
    path.write_text("#!/bin/sh\nprintf 'W0102 warning\\nerror: unknown field \"x\"\\nTo see the stack trace of this error execute with --v=5\\n' >&2; exit 1\n")
    with pytest.raises(ToolError, match=r'kubeadm does not take the configuration of the cluster: error: unknown field "x"$'):
        machine.preview("x: 1", 10)


def test_programs_say_their_versions(kubeadm, monkeypatch):
    kubeadm()
    monkeypatch.setattr(machine, "find_tool", lambda name: None if name == "kubelet" else "%s/kubeadm" % os.environ["PATH"].split(":")[0])
    paths, versions = machine.programs(10)
    assert versions == {"kubeadm": "v1.37.2", "kubelet": ""} and paths["kubeadm"].endswith("/bin/kubeadm")


def test_an_empty_machine_has_no_remains(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "processes", list)
    (tmp_path / "etcd/lost+found").mkdir(parents=True)
    (tmp_path / "etcd/.k8s-dr-rebuilt").write_text("")
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/kube-vip.yaml").write_text("")
    assert machine.remains(str(tmp_path), str(tmp_path / "manifests"), str(tmp_path / "pki"), str(tmp_path / "etcd"), str(tmp_path / "kubelet")) == []


@pytest.mark.parametrize(
    "name", ["admin.conf", "manifests/etcd.yaml", "pki/etcd/ca.crt", "etcd/member/snap/db", "kubelet/pki/kubelet-client-current.pem", "etcd.restore/x"]
)
def test_what_is_left_of_a_cluster_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setattr(machine, "processes", list)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    found = machine.remains(str(tmp_path), str(tmp_path / "manifests"), str(tmp_path / "pki"), str(tmp_path / "etcd"), str(tmp_path / "kubelet"))
    assert len(found) == 1 and found[0].endswith(" exists") and str(tmp_path) in found[0]


def test_what_a_reset_would_remove_is_named(tmp_path):
    manifests, kubelet = tmp_path / "manifests", tmp_path / "kubelet"
    assert machine.occupied(str(manifests), str(kubelet)) == []
    manifests.mkdir()
    (kubelet / "pods").mkdir(parents=True)
    assert machine.occupied(str(manifests), str(kubelet)) == [], "directories that are empty"
    (manifests / "kube-vip.yaml").write_text("")
    (kubelet / "config.json").write_text("")
    assert machine.occupied(str(manifests), str(kubelet)) == ["%s exists" % (manifests / "kube-vip.yaml"), "%s exists" % (kubelet / "config.json")]


@pytest.mark.parametrize("drill", [True, False])
def test_a_machine_for_drills_has_nothing_else(tmp_path, monkeypatch, drill):
    monkeypatch.setattr(machine, "processes", list)
    monkeypatch.setattr(machine, "programs", lambda timeout: ({}, {}))
    monkeypatch.setattr(kube_rebuild_machine.kubeadm, "running", list)
    monkeypatch.setattr(kube_rebuild_machine.Isolation, "containers", lambda self, socket: ["a1"])
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/kube-vip.yaml").write_text("")
    places = {name: str(tmp_path / name.partition("_")[0]) for name in ("manifests_dir", "pki_dir", "data_dir", "state_dir")}
    given = dict(places, drill=drill, cri_socket="", timeout=5, paths=[], endpoint="", address="", configuration="")
    found = " ".join(kube_rebuild_machine.look(given)["remains"])
    assert ("kube-vip.yaml exists" in found) == ("the container runtime has containers of Kubernetes: a1" in found) == drill
    (tmp_path / "state").mkdir()
    (tmp_path / "state/record.json").write_text('{"drill": true}')
    assert "a1" not in " ".join(kube_rebuild_machine.look(given)["remains"]), "they may be those of an interrupted drill"


def test_the_record_of_an_unfinished_rebuild(tmp_path):
    assert machine.record(str(tmp_path)) == {}
    (tmp_path / machine.RECORD).write_text('{"name": "cp1"}')
    assert machine.record(str(tmp_path)) == {"name": "cp1"}
    (tmp_path / machine.RECORD).write_text("{")
    with pytest.raises(Refused, match="cannot be read"):
        machine.record(str(tmp_path))


def test_addresses():
    assert machine.has_address("127.0.0.1") and not machine.has_address("198.51.100.7") and not machine.has_address("none")
    assert machine.addresses_of("127.0.0.1") == ["127.0.0.1"] and machine.addresses_of("no.such.name.invalid") == []
    assert machine.hostname() == machine.hostname().lower().strip()
