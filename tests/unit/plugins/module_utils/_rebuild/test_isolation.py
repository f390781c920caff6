# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network of a drill, and that only what a drill made is removed, with commands that are written down instead of run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import isolation, machine
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolResult
from ansible_collections.k8s_dr.etcd.plugins.modules import kube_rebuild_isolation


class Machine:
    """What commands were run, and what they answer: {words that a command begins with: (rc, stdout)}."""

    def __init__(self, root):
        self.root, self.ran, self.answers = root, [], {"systemctl is-active containerd": (0, "active\n"), "systemctl is-active": (3, "inactive\n")}
        for name in ("pki", "etcd", "state", "kubernetes/manifests", "kubernetes/encryption"):
            (root / name).mkdir(parents=True)

    def run(self, argv, timeout):
        words = " ".join([os.path.basename(argv[0]), *argv[1:]])
        self.ran.append(words)
        rc, stdout = next((answer for start, answer in self.answers.items() if words.startswith(start)), (0, ""))
        if words.startswith("systemctl show"):
            stdout = "MainPID=%d\n" % os.getpid()
        return ToolResult(argv, rc, stdout, "said")

    def record(self, **more):
        made = {"drill": True, "pki_dir": str(self.root / "pki"), "data_dir": str(self.root / "etcd"), "cri_socket": ""}
        made.update(files=[str(self.root / "kubernetes/encryption/config.yaml")], **more)
        (self.root / "state/record.json").write_text(json.dumps(made))
        return made

    @property
    def params(self):
        where = {"state_dir": str(self.root / "state"), "manifests_dir": str(self.root / "kubernetes/manifests"), "timeout": 5}
        return dict(where, state="absent", address=None, cri_socket="", run="")


@pytest.fixture
def there(tmp_path, monkeypatch):
    found = Machine(tmp_path)
    monkeypatch.setattr(isolation, "find_tool", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(isolation, "run_tool", found.run)
    monkeypatch.setattr(machine, "processes", list)
    monkeypatch.setattr(isolation, "_UNITS", str(tmp_path / "units"))
    monkeypatch.setattr(isolation, "NETWORK", "/proc/self/ns/net")
    monkeypatch.setattr(isolation, "_KUBERNETES_DIR", str(tmp_path / "kubernetes"))
    return found


def drop_ins(there):
    return sorted(path.parent.name for path in there.root.glob("units/*/*.conf"))


def test_the_runtime_is_isolated_before_anything_is_started(there):
    isolation.Isolation(5).begin("203.0.113.2", "")
    assert drop_ins(there) == ["containerd.service.d", "kubelet.service.d"]
    text = (there.root / "units/kubelet.service.d" / isolation._DROP_IN).read_text()
    assert text == "[Service]\nNetworkNamespacePath=/proc/self/ns/net\n"
    # a link to this machine, and no route
    assert not [words for words in there.ran if "route" in words]
    assert "ip -n k8s-dr-drill address add 203.0.113.2/30 dev k8s-dr-inner" in there.ran
    assert there.ran.index("systemctl stop kubelet") < there.ran.index("systemctl restart containerd")


def test_a_systemd_that_does_not_isolate_is_found(there, monkeypatch):
    monkeypatch.setattr(isolation, "NETWORK", "/proc/self/ns/mnt")
    with pytest.raises(Refused, match="systemd did not start containerd in a network of its own"):
        isolation.Isolation(5).begin("203.0.113.2", "")


@pytest.mark.parametrize(("active", "socket", "found"), [("crio", "", "crio"), ("both", "unix:///run/crio/crio.sock", "crio"), ("both", "", ""), ("", "", "")])
def test_the_runtime(there, active, socket, found):
    there.answers = {"systemctl is-active " + name: (0, "active\n") for name in ("containerd", "crio") if active in (name, "both")}
    there.answers["systemctl is-active"] = (3, "inactive\n")
    if found:
        assert isolation.Isolation(5).runtime(socket) == found
    else:
        with pytest.raises(Refused, match="containerd or CRI-O as the only container runtime"):
            isolation.Isolation(5).runtime(socket)


@pytest.mark.parametrize("rebooted", [False, True])
def test_all_that_a_drill_made_is_removed(there, monkeypatch, rebooted):
    isolation.Isolation(5).begin("203.0.113.2", "")
    there.record()
    monkeypatch.setattr(isolation, "NETWORK", str(there.root / "no-network"))
    for name in ("pki/ca.key", "kubernetes/admin.conf", "kubernetes/encryption/config.yaml", "state/snapshot.db"):
        (there.root / name).write_text("secret")
    (there.root / "etcd/member").mkdir()
    if rebooted:
        there.answers = {"systemctl is-active": (3, "failed\n")}
    there.ran.clear()
    assert kube_rebuild_isolation.apply(there.params, check_mode=True) and there.ran == []
    assert kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert [str(path.relative_to(there.root)) for path in sorted(there.root.rglob("*")) if path.is_file()] == []
    assert not (there.root / "state").exists() and not (there.root / "kubernetes/encryption").exists()
    # after a reboot the runtime starts only without the isolation, and kubeadm needs it
    order = [there.ran.index("kubeadm reset --force"), there.ran.index("systemctl restart containerd")]
    assert order == sorted(order, reverse=rebooted)
    assert not kube_rebuild_isolation.apply(there.params, check_mode=False), "a second time there is nothing to do"


def test_nothing_else_is_removed(there):
    (there.root / "etcd/member").mkdir()
    (there.root / "state/record.json").write_text(json.dumps({"snapshot": "5", "name": "cp1", "address": "192.0.2.1"}))
    assert not kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert there.ran == [] and (there.root / "etcd/member").exists() and (there.root / "state/record.json").exists()
    with pytest.raises(Refused, match="no record of a drill"):
        kube_rebuild_isolation.apply(dict(there.params, state="present", address="203.0.113.2"), check_mode=False)


def test_a_run_leaves_the_drill_of_another_one(there):
    there.record()
    (there.root / "state/run").write_text("20260102T030405Z-7")
    assert not kube_rebuild_isolation.apply(dict(there.params, run="20260102T030400Z-9"), check_mode=False) and there.ran == []
    assert kube_rebuild_isolation.apply(dict(there.params, run="20260102T030405Z-7"), check_mode=True)


def test_what_could_not_be_removed_is_named_and_the_record_stays(there, monkeypatch):
    there.record()
    monkeypatch.setattr(machine, "remains", lambda *places: ["etcd runs (process 7)"])
    with pytest.raises(Refused, match="not all of the drill could be removed: etcd runs"):
        kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert (there.root / "state/record.json").exists()


def test_what_runs_outside_is_named():
    process = subprocess.Popen(["kube-apiserver", "-c", "input()"], executable=sys.executable, stdin=subprocess.PIPE)
    try:
        assert "kube-apiserver (process %d)" % process.pid in isolation.outside()
    finally:
        process.kill()
        process.communicate()
