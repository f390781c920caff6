# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network of a drill, and that only what a drill made is removed, with commands that are written down instead of run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import isolation, machine
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolResult
from ansible_collections.k8s_dr.etcd.plugins.modules import kube_rebuild_isolation, kube_rebuild_objects, kube_rebuild_proof

KUBECONFIG = "clusters:\n- cluster:\n    server: https://%s:6443\n"


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
        made = {"drill": True, "address": "203.0.113.2", "pki_dir": str(self.root / "pki"), "data_dir": str(self.root / "etcd"), "cri_socket": ""}
        made.update(files=[str(self.root / "kubernetes/encryption/config.yaml")], runtime="containerd", **more)
        (self.root / "state/record.json").write_text(json.dumps(made))
        return made

    @property
    def params(self):
        where = {"state_dir": str(self.root / "state"), "manifests_dir": str(self.root / "kubernetes/manifests"), "timeout": 5}
        return dict(where, state="absent", address=None, cri_socket="", run="", record=None)


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
    isolation.Isolation(5).begin("203.0.113.2", "containerd")
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
        isolation.Isolation(5).begin("203.0.113.2", "containerd")


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
    isolation.Isolation(5).begin("203.0.113.2", "containerd")
    there.record(created=[str(there.root / "kubernetes/logs"), str(there.root / "never-made")])
    monkeypatch.setattr(isolation, "NETWORK", str(there.root / "no-network"))
    (there.root / "kubernetes/logs").mkdir()
    for name in ("pki/ca.key", "kubernetes/admin.conf", "kubernetes/encryption/config.yaml", "kubernetes/logs/audit.log", "state/snapshot.db"):
        (there.root / name).write_text("secret")
    (there.root / "etcd/member").mkdir()
    if rebooted:
        there.answers = {"systemctl is-active": (3, "failed\n")}
    there.ran.clear()
    assert kube_rebuild_isolation.apply(there.params, check_mode=True) and there.ran == []
    assert kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert [str(path.relative_to(there.root)) for path in sorted(there.root.rglob("*")) if path.is_file()] == []
    assert not any((there.root / name).exists() for name in ("state", "kubernetes/encryption", "kubernetes/logs"))
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
    other = dict(there.params, run="20260102T030400Z-9")
    assert not kube_rebuild_isolation.apply(other, check_mode=False) and there.ran == []
    assert kube_rebuild_isolation.apply(dict(there.params, run="20260102T030405Z-7"), check_mode=True)
    # that one has just made the directory
    (there.root / "state/run").unlink()
    assert not kube_rebuild_isolation.apply(dict(other, record=there.record()), check_mode=False) and there.ran == []


def test_what_a_run_wrote_after_another_one_removed_its_drill(there, monkeypatch):
    """Which ends it at its next step, and knows nothing of a file that it has put in place since."""
    monkeypatch.setattr(isolation, "NETWORK", str(there.root / "no-network"))
    made = there.record()
    (there.root / "state/record.json").unlink()
    (there.root / "state").rmdir()
    (there.root / "pki/ca.key").write_text("secret")
    for given in ({"record": made}, {"run": "20260102T030405Z-7"}):
        assert not kube_rebuild_isolation.apply(dict(there.params, **given), check_mode=False) and (there.root / "pki/ca.key").exists()
    ended = dict(there.params, run="20260102T030405Z-7", record=made)
    (there.root / "kubernetes/kubelet.conf").write_text(KUBECONFIG % "192.0.2.9")
    with pytest.raises(Refused, match="a node of another cluster"):
        kube_rebuild_isolation.apply(ended, check_mode=False)
    (there.root / "kubernetes/kubelet.conf").unlink()
    assert kube_rebuild_isolation.apply(ended, check_mode=False) and not (there.root / "pki/ca.key").exists()


@pytest.mark.parametrize("name", ["kubelet.conf", "admin.conf", "bootstrap-kubelet.conf"])
def test_a_machine_that_became_a_node_since_is_left_alone(there, name):
    there.record()
    (there.root / "kubernetes" / name).write_text(KUBECONFIG % "192.0.2.9")
    (there.root / "etcd/member").mkdir()
    with pytest.raises(Refused, match="a node of another cluster than the drill's by now: .*/%s names https://192.0.2.9:6443. Nothing was removed" % name):
        kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert there.ran == [] and (there.root / "etcd/member").exists() and (there.root / "state/record.json").exists()


def test_a_control_plane_outside_of_the_drill_is_left_alone(there, monkeypatch):
    there.record()
    monkeypatch.setattr(machine, "processes", lambda: [procs.Process(7, "kube-apiserver", "p"), procs.Process(8, "kubelet", None)])
    with pytest.raises(Refused, match=r"by now: kube-apiserver runs \(process 7\)\. Nothing was removed"):
        kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert there.ran == []


def test_kubeconfigs_of_the_drill_are_no_obstacle(there, monkeypatch):
    monkeypatch.setattr(isolation, "NETWORK", str(there.root / "no-network"))
    for address in ("203.0.113.2", "[2001:db8:6b38::2]"):
        (there.root / "state").mkdir(exist_ok=True)
        (there.root / "state/record.json").write_text(json.dumps(dict(there.record(), address=address.strip("[]"))))
        (there.root / "kubernetes/admin.conf").write_text(KUBECONFIG % address)
        # one that a killed kubeadm has half written
        (there.root / "kubernetes/kubelet.conf").write_text("apiVersion: v1\n")
        assert kube_rebuild_isolation.apply(there.params, check_mode=False)


def test_a_removal_that_failed_when_the_runtime_was_restarted_goes_on(there, monkeypatch):
    isolation.Isolation(5).begin("203.0.113.2", "containerd")
    there.record()
    monkeypatch.setattr(isolation, "NETWORK", str(there.root / "no-network"))
    there.answers["systemctl restart containerd"] = (1, "")
    with pytest.raises(Refused, match="systemctl restart containerd"):
        kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert drop_ins(there) == [] and (there.root / "state/record.json").exists()
    del there.answers["systemctl restart containerd"]
    there.ran.clear()
    assert kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert "systemctl restart containerd" in there.ran, "it was still isolated"


def test_what_still_runs_in_the_network_is_ended(there, monkeypatch):
    """kubeadm only warns of containers that it cannot remove, and the network can be deleted below them."""
    there.record()
    network = there.root / "network"
    network.write_text("")
    monkeypatch.setattr(isolation, "NETWORK", str(network))
    process = subprocess.Popen(["sleep", "60"])
    run = there.run

    def answer(argv, timeout):
        if argv[1:3] == ["netns", "pids"]:
            return ToolResult(argv, 0, "%d\n" % process.pid if process.poll() is None else "", "")
        if argv[1:3] == ["netns", "delete"]:
            network.unlink()
        return run(argv, timeout)

    monkeypatch.setattr(isolation, "run_tool", answer)
    try:
        assert kube_rebuild_isolation.apply(there.params, check_mode=False)
        assert process.poll() is not None
    finally:
        process.kill()
        process.wait()
    assert there.ran.count("kubeadm reset --force") == 2, "the runtime forgets what was ended"


def test_what_does_not_end_is_named(there, monkeypatch):
    there.record()
    (there.root / "pki/ca.key").write_text("secret")
    # never this process itself
    there.answers["ip netns pids"] = (0, "%d\n" % os.getpid())
    with pytest.raises(Refused, match="process %d in its network does not end" % os.getpid()):
        kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert not [words for words in there.ran if words.startswith("ip netns delete")] and (there.root / "state/record.json").exists()


def test_what_the_removal_goes_by_is_written_down_first(there, monkeypatch):
    (there.root / "state/record.json").write_text(json.dumps({"drill": True}))
    (there.root / "state/kubeadm.yaml").write_text("kind: InitConfiguration\n")
    volumes = [
        {"hostPath": str(there.root / name), "pathType": kind}
        for name, kind in (("logs", "DirectoryOrCreate"), ("any", ""), ("needed", "File"), ("pki", "DirectoryOrCreate"))
    ]
    manifests = {name: {"volumes": volumes if name == "kube-apiserver" else []} for name in machine.COMPONENTS}
    monkeypatch.setattr(machine, "preview", lambda text, timeout: {"manifests": manifests})
    there.answers["systemctl stop kubelet"] = (1, "")
    with pytest.raises(Refused, match="systemctl stop kubelet"):
        kube_rebuild_isolation.apply(dict(there.params, state="present", address="203.0.113.2"), check_mode=False)
    made = json.loads((there.root / "state/record.json").read_text())
    assert made["runtime"] == "containerd" and made["created"] == [str(there.root / "any"), str(there.root / "logs")]


@pytest.mark.parametrize(
    ("unit", "socket", "words"),
    [
        ("containerd", "", "ctr --namespace k8s.io containers list --quiet"),
        ("containerd", "unix:///run/other.sock", "ctr --address /run/other.sock --namespace k8s.io containers list --quiet"),
        ("crio", "", "crictl --runtime-endpoint unix:///run/crio/crio.sock pods --quiet"),
    ],
)
def test_containers_of_kubernetes(there, unit, socket, words):
    there.answers = {"systemctl is-active " + unit: (0, "active\n"), "systemctl is-active": (3, "inactive\n"), words: (0, "a1\nb2\n")}
    assert isolation.Isolation(5).containers(socket) == ["a1", "b2"] and there.ran[-1] == words
    there.answers[words] = (1, "")
    with pytest.raises(Refused, match="said"):
        isolation.Isolation(5).containers(socket)


def test_what_could_not_be_removed_is_named_and_the_record_stays(there, monkeypatch):
    there.record()
    monkeypatch.setattr(machine, "remains", lambda *places: ["etcd runs (process 7)"])
    with pytest.raises(Refused, match=r"not all of the drill could be removed: etcd runs .*may still hold keys.* Run the drill again"):
        kube_rebuild_isolation.apply(there.params, check_mode=False)
    assert (there.root / "state/record.json").exists()


@contextlib.contextmanager
def running(*argv, **options):
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_runs_outside_is_named():
    with running("kube-apiserver", "-c", "print('ready', flush=True); input()", executable=sys.executable) as process, pytest.raises(Refused) as refused:
        # its command line can be read a moment after the exec that Popen waits for
        assert process.stdout.readline() == b"ready\n"
        isolation.check_outside(os.readlink("/proc/self/ns/net"))
    assert "not isolated" in str(refused.value) and "kube-apiserver (process %d)" % process.pid in str(refused.value)


def in_a_child(do):
    """What `do` returns, as text, of a process of its own: there is no way back out of a network that is not known any more."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(do())
        except Exception as exc:
            text = "%s: %s" % (type(exc).__name__, exc)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


def reached_and_outside(port, pid):
    """Whether the machine can be reached from the network of the drill, and whether what runs on the machine is still seen."""
    left = isolation.enter()
    with socket.socket() as probe:
        reached = probe.connect_ex(("127.0.0.1", port)) == 0
    try:
        isolation.check_outside(left)
    except Refused as exc:
        return "%s %s" % (reached, "(process %d)" % pid in str(exc))
    return "%s not seen" % reached


def test_nothing_outside_the_network_of_a_drill_can_be_asked(monkeypatch):
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], check=False).returncode != 0:
        pytest.skip("no network namespace can be made here, for which this needs root and unshare")
    outside = running("kube-apiserver", "-c", "print('ready', flush=True); input()", executable=sys.executable)
    inside = running("unshare", "--net", "sh", "-c", "echo ready; read _")
    with socket.create_server(("127.0.0.1", 0)) as server, outside as process, inside as other:
        assert process.stdout.readline() == other.stdout.readline() == b"ready\n"
        monkeypatch.setattr(isolation, "NETWORK", "/proc/%d/ns/net" % other.pid)
        assert in_a_child(lambda: reached_and_outside(server.getsockname()[1], process.pid)) == "False True"


@pytest.mark.parametrize(("network", "words"), [("/nowhere/net", "cannot be entered"), ("/proc/self/ns/net", "the network of the machine|cannot be entered")])
def test_without_the_network_of_a_drill_nothing_is_asked(monkeypatch, network, words):
    monkeypatch.setattr(isolation, "NETWORK", network)
    assert re.match("Refused: .*(%s).*no API server was asked" % words, in_a_child(isolation.enter))


class Asked(Exception):
    """The API server, or what comes instead of it."""


@pytest.mark.parametrize("module", [kube_rebuild_objects, kube_rebuild_proof])
def test_a_module_of_a_drill_is_in_its_network_before_it_asks(tmp_path, monkeypatch, module):
    entered = []

    def ask(_pod):
        raise Asked(*entered)

    monkeypatch.setattr(isolation, "enter", lambda: entered.append("inside") or "net:[1]")
    monkeypatch.setattr(module, "KubeApi", ask)
    monkeypatch.setattr(module, "read_static_pods", lambda _directory: {"kube-apiserver": "pod"})
    with pytest.raises(Asked, match="inside"):
        if module is kube_rebuild_proof:
            module.prove({"manifests_dir": str(tmp_path)}, str(tmp_path))
        else:
            module.change({"isolated": True}, {"kube-apiserver": "pod"}, False)


@pytest.mark.parametrize("calm", [0, 1])
def test_what_runs_outside_is_said_when_the_api_server_is_not_ready(monkeypatch, calm):
    """Where the isolation failed, the copy may not get ready.  calm: how often nothing is found."""
    looked = []

    class Api:
        url = "https://203.0.113.2:6443"

        @staticmethod
        def ready():
            assert calm, "it was asked although etcd is outside"
            return False

    def check(network):
        looked.append(network)
        if len(looked) > calm:
            raise Refused("the drill is not isolated")

    monkeypatch.setattr(isolation, "enter", lambda: "net:[1]")
    monkeypatch.setattr(isolation, "check_outside", check)
    monkeypatch.setattr(kube_rebuild_proof, "KubeApi", lambda _pod: Api)
    monkeypatch.setattr(kube_rebuild_proof, "read_static_pods", lambda _directory: {"kube-apiserver": "pod"})
    with pytest.raises(Refused, match="the drill is not isolated"):
        kube_rebuild_proof.prove({"manifests_dir": "", "start_timeout": 0 if calm else 60}, "")
    assert looked == ["net:[1]"] * (calm + 1)
