from __future__ import annotations

import fcntl
import os

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import static_pods_begun

STATIC = "0123456789abcdef0123456789abcdef"
UUID = "d3adbeef-0000-4000-8000-000000000001"


def add(proc, pid, command, cgroup, network="net:[1]", started=0):
    base = proc / str(pid)
    (base / "ns").mkdir(parents=True)
    (base / "cmdline").write_bytes(b"\0".join(part.encode() for part in command) + b"\0" if command else b"")
    (base / "cgroup").write_text(cgroup)
    # starttime is field 22, in clock ticks; a name may hold blanks and parentheses
    ticks = started * os.sysconf("SC_CLK_TCK")
    (base / "stat").write_text("%d (a ) b) S %s %d 0\n" % (pid, " ".join(["0"] * 18), ticks))
    os.symlink(network, base / "ns/net")


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "self/ns").mkdir(parents=True)
    os.symlink("net:[1]", tmp_path / "self/ns/net")
    (tmp_path / "uptime").write_text("10000.00 5.00\n")
    return tmp_path


@pytest.mark.parametrize(
    "cgroup",
    [
        "5:memory:/kubepods/burstable/pod%s/4711\n" % STATIC,
        "0::/kubelet/kubepods/besteffort/pod%s/4711\n" % STATIC,
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%s.slice/cri-containerd-4711.scope\n" % STATIC,
        "0::/kubepods.slice/kubepods-burstable-pod%s.slice:cri-containerd:4711\n" % STATIC + "1:name=systemd:/kubepods/pod%s/x\n" % STATIC,
    ],
)
def test_pod_of_a_process_with_every_cgroup_driver(proc, cgroup):
    add(proc, 7, ["/usr/local/bin/etcd", "--name=cp1"], cgroup)
    (found,) = procs.processes(str(proc))
    assert (found.pid, found.name, found.pod) == (7, "etcd", STATIC)


def test_an_ordinary_pods_uid(proc):
    add(proc, 7, ["nginx"], "0::/kubepods.slice/kubepods-pod%s.slice/x\n" % UUID.replace("-", "_"))
    assert procs.processes(str(proc))[0].pod == UUID.replace("-", "_")


def test_kernel_threads_and_other_networks_are_not_the_control_plane(proc):
    add(proc, 2, [], "0::/\n")
    add(proc, 7, ["etcd"], "0::/kubepods/pod%s/x\n" % STATIC, network="net:[2]")
    assert procs.processes(str(proc)) == []


def test_remaining_counts_the_sandbox_and_not_a_foreign_etcd(proc):
    add(proc, 7, ["/pause"], "0::/kubepods/pod%s/sandbox\n" % STATIC)
    add(proc, 8, ["etcd"], "0::/system.slice/drill.service\n")
    add(proc, 9, ["nginx"], "0::/kubepods/pod%s/x\n" % UUID)
    assert [p.pid for p in procs.remaining(("etcd",), {STATIC}, str(proc))] == [7]
    add(proc, 10, ["etcd"], "0::/kubepods/pod%s/x\n" % ("f" * 32))
    assert sorted(p.pid for p in procs.remaining(("etcd",), {STATIC}, str(proc))) == [7, 10]


CALICO = ["etcd", "--name=calico", "--data-dir=/var/etcd/calico-data", "--listen-client-urls=http://0.0.0.0:6666"]


@pytest.mark.parametrize(
    ("command", "others"),
    [
        (CALICO, True),
        (["etcd", "-data-dir", "/var/etcd/calico-data"], True),
        (["etcd", "--data-dir=%s/link"], False),
        (["etcd", "--data-dir", "%s/data/"], False),
        (["etcd", "--name=cp1"], False),
        (["etcd", "--name=data-dir=/x"], False),
        (["kube-apiserver", "--data-dir=/x"], False),
    ],
)
def test_another_etcd_is_recognized_by_its_data(proc, command, others):
    (proc / "data").mkdir()
    (proc / "link").symlink_to("data")
    add(proc, 9, [part.replace("%s", str(proc)) for part in command], "0::/kubepods/pod%s/x\n" % ("f" * 32))
    found = procs.remaining(("etcd", "kube-apiserver"), (), str(proc), str(proc / "data"))
    assert [process.pid for process in found] == ([] if others else [9])
    # the Pods that one waits for are known by their uid, whatever runs in them
    assert len(procs.remaining((), {"f" * 32}, str(proc), str(proc / "data"))) == 1


def test_lock_of_the_database_follows_a_rename(tmp_path):
    path = tmp_path / "db"
    assert not procs.database_is_locked(str(path))
    path.write_text("x")
    assert not procs.database_is_locked(str(path))
    with open(path) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        path.rename(tmp_path / "elsewhere")
        assert procs.database_is_locked(str(tmp_path / "elsewhere"))
    assert not procs.database_is_locked(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("kubelet", "etcd", "log", "expected"),
    [
        (100, 110, 3, False),  # up for hours
        (9800, 9810, 0, False),  # the node was made just now
        (9800, 9810, 1, True),  # the node has just booted: its containers run for the second time
        (9800, 9810, None, True),  # without logs it is not known
        (100, 9900, 11, True),  # started again 100 s ago by an old kubelet
        (9990, 9900, 11, False),  # kubelet was restarted since
        (100, 9300, 11, False),  # longer ago than kubelet remembers
        (100, None, 11, True),  # not running: it crashes
    ],
)
def test_back_off_of_kubelet(proc, tmp_path, kubelet, etcd, log, expected):
    add(proc, 5, ["/usr/bin/kubelet"], "0::/system.slice/kubelet.service\n", started=kubelet)
    if etcd is not None:
        add(proc, 7, ["etcd"], "0::/kubepods/pod%s/x\n" % STATIC, started=etcd)
    logs = tmp_path / "logs"
    for name, number in (("etcd", log), ("kube-apiserver", 99)):
        (logs / ("kube-system_%s-cp1_%s" % (name, STATIC)) / name).mkdir(parents=True)
        if number is not None:
            (logs / ("kube-system_%s-cp1_%s" % (name, STATIC)) / name / ("%d.log" % number)).touch()
    assert procs.kubelet_backs_off(("etcd",), str(proc), str(logs)) is expected


def test_this_very_machine():
    assert os.getpid() in {process.pid for process in procs.processes()}


@pytest.mark.parametrize(
    "path",
    [
        "kubelet/pods/%s",
        "cgroup/memory/kubepods/burstable/pod%s",
        "cgroup/memory/kubelet/kubepods/burstable/pod%s",
        "cgroup/kubepods/pod%s",
        "cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%s.slice",
        "cgroup/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod%s.slice",
    ],
)
def test_static_pods_that_kubelet_has_begun(tmp_path, path):
    """By their control groups, with either driver and version, on kind's nodes too; and by their directories."""
    uid = "0123456789abcdef0123456789abcdef"
    where = (str(tmp_path / "kubelet"), str(tmp_path / "cgroup"))
    (tmp_path / "kubelet/pods/1b4e28ba-2fa1-11d2-883f-0016d3cca427").mkdir(parents=True)
    assert static_pods_begun(*where) == set()
    (tmp_path / (path % uid)).mkdir(parents=True)
    assert static_pods_begun(*where) == {uid}
