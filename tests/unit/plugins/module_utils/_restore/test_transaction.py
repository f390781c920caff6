"""A restore's steps and the rollback script, on plain directories: no etcd, no kubelet, real sh."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import layout, rollback_script, transaction as restore_transaction
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import ORDER, Transaction, TransactionError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import run_tool
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_restore_transaction as module

FILES = ["etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"]


class Node:
    """A node's directories: the data says "old" or "new", the manifests are empty files."""

    def __init__(self, root, mount_point):
        self.data_dir = root / "var/lib/etcd"
        self.live = self.data_dir / "member" if mount_point else self.data_dir
        self.manifests = root / "etc/kubernetes/manifests"
        self.manifests.mkdir(parents=True)
        for name in [*FILES, "kube-vip.yaml"]:
            (self.manifests / name).write_text("component: x\n")
        self.make_data(self.data_dir, "old")
        base = self.data_dir / ".restore" if mount_point else root / "var/lib/etcd.restore"
        self.path = base / "20261122T170501Z-4f1c"
        self.transaction = Transaction(str(self.path))
        self.plan = {
            "id": self.path.name,
            "path": str(self.path),
            "host": "cp1",
            "data_dir": str(self.data_dir),
            "live": str(self.live),
            "manifests_dir": str(self.manifests),
            "held": str(root / "etc/kubernetes/manifests.restore-x"),
            "files": FILES,
            "health_urls": ["https://127.0.0.1:2379"],
            "listen_urls": [],
            "health_url": "",
            "unit": str(root / "units/etcd-restore-x"),
        }
        self.root = root
        self.begin()
        self.systemctl = root / "bin/systemctl"
        self.systemctl.parent.mkdir()
        self.systemctl.write_text('#!/bin/sh\necho "$*" >> "%s.log"\n' % self.systemctl)
        self.systemctl.chmod(0o755)
        self.environment = dict(os.environ, PATH="%s:%s" % (self.systemctl.parent, os.environ["PATH"]))

    def begin(self):
        self.transaction.begin(self.plan)
        # The machine that runs the tests may be a node itself: neither its processes nor its kubelet are meant, or waited for.
        script = self.path / "rollback"
        script.write_text(script.read_text().replace("/proc/[0-9]*", str(self.root / "proc/[0-9]*")))

    def kubelet(self):
        """What was asked of systemd."""
        return (self.systemctl.parent / "systemctl.log").read_text().splitlines()

    @staticmethod
    def make_data(directory, words):
        (directory / "member/snap").mkdir(parents=True)
        (directory / "member/snap/db").write_text(words)

    def stage(self):
        with self.transaction.step("staging", "staged"):
            self.make_data(self.path / "staged", "new")

    def data(self):
        return (self.data_dir / "member/snap/db").read_text()

    def listed(self):
        """The node's restores as the modules return them."""
        return restore_transaction.list_transactions(layout.DataLayout(str(self.data_dir)))

    def manifest_names(self):
        return sorted(path.name for path in self.manifests.iterdir())

    def start(self):
        """What start_etcd and start do to the manifests."""
        for doing, done, names in (("starting-etcd", "etcd-started", FILES[:1]), ("starting", "started", FILES[1:])):
            with self.transaction.step(doing, done):
                for name in names:
                    self.transaction._give_back(name)

    def rollback(self, *args):
        return subprocess.run(["sh", str(self.path / "rollback"), *args], capture_output=True, text=True, timeout=60, check=False, env=self.environment)

    def is_old(self):
        assert self.data() == "old"
        assert self.manifest_names() == sorted([*FILES, "kube-vip.yaml"])
        assert not os.path.exists(self.plan["held"])
        assert not (self.path / "old").exists()
        assert self.transaction.state()[0] == "rolled-back"


@pytest.fixture(params=[False, True], ids=["directory", "mount-point"])
def node(request, tmp_path, monkeypatch):
    found = Node(tmp_path, request.param)
    if request.param:
        monkeypatch.setattr(layout, "mount_of", lambda path: str(found.data_dir))
    return found


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    monkeypatch.setattr(restore_transaction, "remaining", lambda *args: [])


# every point at which a controller, a node or a disk can stop: what was done so far
POINTS = ["begun", "staged", "stopping", "stopped", "swapping-1", "swapping-2", "swapped", "etcd-started", "started"]


def bring_to(node, point):
    if point == "begun":
        return
    node.stage()
    if point == "staged":
        return
    if point == "stopping":
        with contextlib.suppress(KeyboardInterrupt), node.transaction.step("stopping", "stopped"):
            os.mkdir(node.plan["held"])
            os.rename(node.manifests / FILES[3], os.path.join(node.plan["held"], FILES[3]))
            raise KeyboardInterrupt
        return
    node.transaction.stop(5)
    if point == "stopped":
        return
    if point.startswith("swapping"):
        with contextlib.suppress(KeyboardInterrupt), node.transaction.step("swapping", "swapped"):
            os.rename(node.live, node.path / "old")
            if point == "swapping-2":
                staged = node.path / "staged"
                os.rename(staged / "member" if node.live.name == "member" else staged, node.live)
            raise KeyboardInterrupt
        return
    node.transaction.swap()
    if point == "swapped":
        return
    if point == "etcd-started":
        with node.transaction.step("starting-etcd", "etcd-started"):
            node.transaction._give_back(FILES[0])
        return
    node.start()


@pytest.mark.parametrize("point", POINTS)
def test_rollback_from_every_point_and_again(node, point):
    bring_to(node, point)
    first = node.rollback()
    assert first.returncode == 0, first.stdout + first.stderr
    node.is_old()
    # with etcd's manifest it is restarted, so that it neither waits nor backs off, and lists again; without it has to run, and may have died
    assert node.kubelet() == ["start kubelet"] + (["restart kubelet"] if point not in ("begun", "staged", "stopping") else [])
    again = node.rollback()
    assert again.returncode == 0 and "already rolled back" in again.stdout
    node.is_old()


@pytest.mark.parametrize("point", ["stopped", "swapped"])
def test_a_manifest_that_is_a_link_to_nowhere_from_where_it_is_held_comes_back(node, point):
    link = node.manifests / FILES[1]
    elsewhere = node.manifests.parent / "elsewhere"
    elsewhere.mkdir()
    link.rename(elsewhere / "file")
    link.symlink_to("../elsewhere/file")
    bring_to(node, point)
    done = node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    assert link.is_symlink() and link.exists()
    node.is_old()


@pytest.mark.parametrize("point", ["stopping", "stopped", "started"])
def test_a_rollback_is_not_done_while_a_manifest_is_missing(node, point):
    bring_to(node, point)
    name = FILES[2]
    there = next(path for path in (node.manifests / name, pathlib.Path(node.plan["held"]) / name) if path.exists())
    saved = there.read_text()
    there.unlink()
    done = node.rollback()
    assert done.returncode == 8 and "done:" not in done.stdout
    assert "%s is missing, and not in %s: put it in %s by hand" % (name, node.plan["held"], node.manifests) in done.stdout
    assert "Now run: %s/rollback" % node.path in done.stdout
    assert node.transaction.state()[0] == "rolling-back"
    (node.manifests / name).write_text(saved)
    assert node.rollback().returncode == 0
    node.is_old()


@pytest.mark.parametrize("point", ["stopped", "swapping-1", "swapped", "started"])
def test_an_interrupted_rollback_is_finished_by_the_next(node, point):
    """The script is cut after each of its lines that move something; a second run ends it."""
    bring_to(node, point)
    saved = node.path.parents[3 if node.live.name != "member" else 4]
    script = (node.path / "rollback").read_text()
    moves = [number for number, line in enumerate(script.splitlines()) if line.strip().startswith('mv "') or '|| mv "' in line]
    assert len(moves) >= 4
    for number in moves:
        copy = saved.with_name(saved.name + "-%d" % number)
        shutil.copytree(saved, copy)
        lines = (script.replace(str(saved), str(copy))).splitlines()
        (copy / node.path.relative_to(saved) / "rollback").write_text("\n".join([*lines[: number + 1], "kill -9 $$", *lines[number + 1 :]]) + "\n")
        target = copy / node.path.relative_to(saved)
        subprocess.run(["sh", str(target / "rollback")], capture_output=True, check=False, timeout=60, env=node.environment)
        (target / "rollback").write_text("\n".join(lines) + "\n")
        done = subprocess.run(["sh", str(target / "rollback")], capture_output=True, text=True, check=False, timeout=60, env=node.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (copy / node.data_dir.relative_to(saved) / "member/snap/db").read_text() == "old"
        assert sorted(p.name for p in (copy / node.manifests.relative_to(saved)).iterdir()) == sorted([*FILES, "kube-vip.yaml"])


def test_what_was_written_since_is_kept_when_a_finished_restore_is_undone(node):
    bring_to(node, "started")
    node.transaction.commit(keep=3)
    refused = node.rollback()
    assert refused.returncode == 3 and "--undo" in refused.stdout
    assert node.data() == "new"
    done = node.rollback("--undo")
    assert done.returncode == 0, done.stdout
    node.is_old()
    undone = node.path / "undone.1"
    assert ((undone if node.live.name == "member" else undone / "member") / "snap/db").read_text() == "new"


@pytest.mark.parametrize("end", ["committed", "rolled-back"])
def test_a_snapshot_that_was_copied_for_the_restore_does_not_stay(node, end, monkeypatch):
    monkeypatch.setattr(
        restore_transaction, "run_tool", lambda argv, timeout: run_tool(["env", "PATH=" + node.environment["PATH"], *argv], timeout)
    )
    bring_to(node, "started")
    (node.path / "snapshot.db").write_text("every Secret")
    (node.path / "snapshot.db.partial").write_text("half of every Secret")
    if end == "committed":
        node.transaction.commit(keep=3)
    else:
        node.transaction.roll_back(False, 60)
    assert node.transaction.state()[0] == end
    assert not list(node.path.glob("snapshot.db*"))


def test_manifests_stay_away_when_the_data_is_gone(node):
    """kubelet would make a brand-new empty cluster of a manifest without data."""
    bring_to(node, "swapping-1")
    shutil.rmtree(node.path / "old")
    done = node.rollback()
    assert done.returncode == 6 and "empty cluster" in done.stdout
    assert node.manifest_names() == ["kube-vip.yaml"]


def test_rollback_goes_on_when_the_state_cannot_be_written(node):
    bring_to(node, "swapped")
    os.mkdir(node.path / "state.new")
    done = node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "disk full" in done.stdout
    assert node.data() == "old"


@pytest.mark.parametrize("code", [0, 1])
def test_rollback_writes_out_what_it_moved_and_waits_for_no_other_file_system(node, code):
    """A `sync` of all of them hangs on a dead NFS server.  That etcd has no manifest is on the disk before its data moves."""
    bring_to(node, "started")
    sync = node.systemctl.parent / "sync"
    sync.write_text('#!/bin/sh\necho "$*: $(ls %s | wc -l) $(cat %s/snap/db)" >> "%s.log"\nexit %d\n' % (node.manifests, node.data_dir / "member", sync, code))
    sync.chmod(0o755)
    done = node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    node.is_old()
    asked = (sync.parent / "sync.log").read_text().splitlines()
    first, last, data = "-f %s: 1 new" % node.manifests, "-f %s: 5 old" % node.manifests, "-f %s: 1 old" % node.path
    assert {line.split(":")[0] for line in asked} == {"-f %s" % node.path, "-f %s" % node.manifests}
    assert asked.index(first) < asked.index(data) < asked.index(last)


def test_rollback_waits_for_a_database_in_use(node):
    bring_to(node, "started")
    with open(node.data_dir / "member/snap/db") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = subprocess.Popen(["sh", str(node.path / "rollback")], stdout=subprocess.PIPE, text=True, env=node.environment)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.5)
        assert node.data() == "new"
    assert process.wait(30) == 0
    node.is_old()


def test_a_restore_onto_nothing(node):
    """The data was deleted: a restore brings it back, and a rollback does not let kubelet start an empty cluster."""
    shutil.rmtree(node.live)
    node.begin()
    bring_to(node, "started")
    assert node.data() == "new"
    assert os.listdir(node.path / "old") == []
    done = node.rollback()
    assert done.returncode == 6 and "empty cluster" in done.stdout
    assert node.manifest_names() == ["kube-vip.yaml"]


def test_data_that_is_made_anew_belongs_to_whom_etcd_runs_as(node):
    shutil.rmtree(node.live)
    node.plan["owner"] = [2001, 2002]
    node.begin()
    assert [(info.st_uid, info.st_gid) for info in [os.stat(node.live)]] == [(2001, 2002)]
    # what is there keeps its owner
    node.plan["owner"] = [3001, 3002]
    node.begin()
    assert os.stat(node.live).st_uid == 2001


@pytest.mark.parametrize(
    ("data", "waits"),
    [("--data-dir=/var/etcd/calico-data", False), ("-data-dir\0/elsewhere", False), ("--data-dir=%s", True), ("--data-dir\0%s/", True), ("--name=cp1", True)],
)
@pytest.mark.parametrize("mounted", [False, True])
def test_rollback_leaves_an_etcd_of_somebody_else_alone(node, data, waits, mounted):
    if mounted:
        # its manifest mounts the data under another name, by which its process goes
        node.plan["served"], data = "/inside/etcd", data.replace("%s", "/inside/etcd")
        node.begin()
    bring_to(node, "swapped")
    with subprocess.Popen(["sleep", "60"]) as other:
        process = node.root / "proc" / str(other.pid)
        process.mkdir(parents=True)
        (process / "ns").symlink_to("/proc/self/ns")
        (process / "comm").write_text("etcd\n")
        (process / "cgroup").write_text("0::/kubepods/pod1/x\n")
        (process / "cmdline").write_bytes(("/usr/local/bin/etcd\0%s\0" % data.replace("%s", str(node.data_dir))).encode())
        try:
            if waits:
                with pytest.raises(subprocess.TimeoutExpired):
                    subprocess.run(["sh", str(node.path / "rollback")], capture_output=True, timeout=1, check=False, env=node.environment)
            else:
                assert node.rollback().returncode == 0
                node.is_old()
            assert other.poll() is None
        finally:
            other.kill()


def test_kubelet_lists_again_even_when_the_rollback_was_cut_before_that(node):
    bring_to(node, "started")
    script = node.path / "rollback"
    whole = script.read_text()
    script.write_text(whole.replace("rmdir ", "exit 9; rmdir "))
    assert node.rollback().returncode == 9
    script.write_text(whole)
    assert node.rollback().returncode == 0
    assert node.kubelet()[-1] == "restart kubelet"
    node.is_old()


def test_a_finished_restore_that_was_undone_is_known_as_such(node):
    bring_to(node, "started")
    listed = node.listed()[0]
    assert not listed["finished"] and not listed["ended"]
    node.transaction.commit(keep=3)
    node.rollback("--undo")
    listed = node.listed()[0]
    assert listed["finished"] and listed["ended"] and listed["state"] == "rolled-back"


@pytest.mark.parametrize("point", POINTS)
def test_one_that_was_left_before_it_stopped_anything(node, point):
    bring_to(node, point)

    def untouched():
        return node.listed()[0]["untouched"]

    # whoever began it may be on the way to its next step
    assert not untouched()
    os.utime(node.path / "state", times=(time.time() - 1000,) * 2)
    assert untouched() == (point in ("begun", "staged"))
    with open(node.path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not untouched()
    node.rollback()
    os.utime(node.path / "state", times=(time.time() - 1000,) * 2)
    assert not untouched()


def test_a_finished_restore_is_known_as_such_although_a_power_cut_took_the_end_of_its_log(node):
    bring_to(node, "started")
    node.transaction.commit(keep=3)
    log = node.path / "log"
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:-1]))
    assert node.listed()[0]["finished"]
    assert node.rollback("--undo").returncode == 0
    listed = node.listed()[0]
    assert listed["finished"] and listed["state"] == "rolled-back"


def test_a_manifest_that_was_being_written_when_the_node_died_is_not_left_behind(node):
    bring_to(node, "stopped")
    with open(os.path.join(node.plan["held"], FILES[0] + ".new"), "w") as stream:
        stream.write("half of")
    assert node.rollback().returncode == 0
    node.is_old()


def test_two_rollbacks_at_once(node):
    bring_to(node, "started")
    both = [subprocess.Popen(["sh", str(node.path / "rollback")], stdout=subprocess.PIPE, text=True, env=node.environment) for dummy in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    node.is_old()


def test_states_are_taken_in_order_and_none_after_a_rollback(node):
    with pytest.raises(TransactionError, match="cannot go on with swapping"):
        node.transaction.swap()
    assert node.transaction.state()[0] == "begun"
    bring_to(node, "stopped")
    assert node.rollback().returncode == 0
    with pytest.raises(TransactionError, match="is rolled-back"):
        node.transaction.swap()
    assert node.data() == "old"


def test_a_step_under_way_is_not_joined_by_another(node):
    node.stage()
    with open(node.path / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TransactionError, match="another step"):
            node.transaction.stop(1)


def test_a_manifest_returns_as_that_of_another_pod_with_its_own_rights(node):
    """kubelet knows nothing bad of it then; and the next restore makes yet another one."""
    text = "metadata:\n  annotations:\n    other: kept\n  name: etcd\nspec:\n  x: y\n"
    (node.manifests / FILES[0]).write_text(text)
    (node.manifests / FILES[0]).chmod(0o600)
    bring_to(node, "etcd-started")
    found = (node.manifests / FILES[0]).read_text()
    assert found == text.replace("annotations:\n", 'annotations:\n    k8s-dr.etcd/restore: "%s"\n' % node.path.name)
    assert (node.manifests / FILES[0]).stat().st_mode & 0o777 == 0o600


class PutsOff:
    """A kubelet that starts a manifest only as its `which`th Pod, as one of the same name was still with its workers; seconds pass as they are slept."""

    def __init__(self, node, monkeypatch, which, shows=True):
        self.node, self.which, self.shows, self.now = node, which, shows, 0.0
        self.pods, self.restarts = [], []
        monkeypatch.setattr(restore_transaction.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(restore_transaction.time, "sleep", self.sleep)
        monkeypatch.setattr(restore_transaction, "static_pods_begun", lambda directory: {"other"} | ({"new"} if self.begun() and self.shows else set()))
        monkeypatch.setattr(restore_transaction, "run_tool", lambda argv, timeout: self.restarts.append((round(self.now, 1), argv)))

    def look(self):
        path = self.node.manifests / FILES[0]
        text = path.read_text() if path.exists() else ""
        if text and text not in self.pods:
            self.pods.append(text)

    def begun(self):
        self.look()
        return len(self.pods) >= self.which

    def sleep(self, seconds):
        self.now += seconds

    def serves(self):
        """A second after it was begun."""
        if self.begun() and not hasattr(self, "at"):
            self.at = self.now + 1
        return hasattr(self, "at") and self.now > self.at


@pytest.fixture
def etcd_manifest(node):
    (node.manifests / FILES[0]).write_text("metadata:\n  name: etcd\nspec:\n  x: y\n")
    bring_to(node, "swapped")


@pytest.mark.parametrize("which", [1, 2, 4])
def test_a_static_pod_that_kubelet_puts_off_is_given_again_as_another_one(node, etcd_manifest, monkeypatch, which):
    """kubelet 1.22 and later look again only after 10 to 15 s, unless they hear of another Pod."""
    kubelet = PutsOff(node, monkeypatch, which)
    node.transaction._start(FILES[0], "etcd", kubelet.serves, 60, "etcd did not serve")
    assert len(kubelet.pods) == which, "one that was begun is left alone"
    assert kubelet.now < 1.2 + 0.4 * which
    assert kubelet.restarts == []
    assert node.manifest_names() == sorted([FILES[0], "kube-vip.yaml"])


def test_a_pod_that_was_begun_is_left_alone_however_long_it_takes(node, etcd_manifest, monkeypatch):
    kubelet = PutsOff(node, monkeypatch, 1)
    node.transaction._start(FILES[0], "etcd", lambda: kubelet.begun() and kubelet.now > 7, 60, "etcd did not serve")
    assert len(kubelet.pods) == 1


def test_where_kubelet_does_not_show_what_it_begins_it_is_left_alone_more_and_more_and_then_restarted(node, etcd_manifest, monkeypatch):
    kubelet = PutsOff(node, monkeypatch, 1000, shows=False)
    with pytest.raises(TransactionError, match="etcd did not serve within 12 s"):
        node.transaction._start(FILES[0], "etcd", kubelet.serves, 12, "etcd did not serve")
    assert [argv for at, argv in kubelet.restarts] == [["systemctl", "restart", "kubelet"]]
    assert 8 <= kubelet.restarts[0][0] < 8.5
    assert len(kubelet.pods) == 14


def test_only_the_control_planes_own_manifests_leave(node):
    bring_to(node, "stopped")
    assert node.manifest_names() == ["kube-vip.yaml"]
    assert sorted(os.listdir(node.plan["held"])) == sorted(FILES)


def test_stop_times_out_with_the_names_of_what_still_runs(node, monkeypatch):
    class Stuck:
        pid, name, pod = 4711, "etcd", "x"

    node.stage()
    monkeypatch.setattr(restore_transaction, "remaining", lambda *args: [Stuck])
    with pytest.raises(TransactionError, match=r"etcd \(process 4711\) still ran"):
        node.transaction.stop(0)
    assert node.transaction.state()[0] == "stopping"
    assert node.rollback().returncode == 0
    node.is_old()


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_kubelet_does_not_stop_is_asked_once_and_then_killed(node, monkeypatch, stubborn):
    """As a kubelet that was started while no API server answered."""
    sent = []

    class Left:
        pid, name, pod = 4711, "etcd", "x"

    def kill(pid, number):
        sent.append((pid, number))

    def remaining(*dummy):
        return [] if any(number == signal.SIGKILL or not stubborn for pid, number in sent) else [Left]

    node.stage()
    monkeypatch.setattr(restore_transaction, "remaining", remaining)
    monkeypatch.setattr(restore_transaction.os, "kill", kill)
    monkeypatch.setattr(restore_transaction, "_KILL_AFTER", 0)
    monkeypatch.setattr(restore_transaction, "_END_AFTER", -9.7 if stubborn else 0)
    node.transaction.stop(10)
    assert sent == [(4711, signal.SIGTERM)] + [(4711, signal.SIGKILL)] * stubborn
    assert node.transaction.state()[0] == "stopped"


@pytest.mark.parametrize("listens", [False, True])
def test_an_etcd_that_is_ending_is_not_waited_for(node, monkeypatch, listens):
    """It may wait 7 s for members to hand its leadership to; one that listens was not asked to end yet, and kubelet would start it again."""
    sent = []

    class Left:
        pid, name, pod = 4711, "etcd", "x"

    node.stage()
    monkeypatch.setattr(restore_transaction, "remaining", lambda *dummy: [] if sent else [Left])
    monkeypatch.setattr(restore_transaction, "listens", lambda url, timeout: listens and not sent)
    monkeypatch.setattr(restore_transaction.os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(restore_transaction, "_KILL_AFTER", 0)
    monkeypatch.setattr(restore_transaction, "_HANDOVER", 0)
    node.transaction.plan["listen_urls"] = ["https://127.0.0.1:2379"]
    if listens:
        with pytest.raises(TransactionError, match=r"etcd \(process 4711\) still ran"):
            node.transaction.stop(0.3)
    else:
        node.transaction.stop(10)
    assert sent == [] if listens else [(4711, signal.SIGKILL)]


def test_swap_refuses_when_etcd_came_back(node, monkeypatch):
    bring_to(node, "stopped")
    monkeypatch.setattr(restore_transaction, "remaining", lambda *args: [object()])
    with pytest.raises(TransactionError, match="runs again"):
        node.transaction.swap()
    assert node.data() == "old"


@pytest.mark.parametrize("point", ["swapping-1", "swapping-2"])
def test_an_interrupted_swap_can_be_finished(node, point):
    bring_to(node, point)
    node.transaction.swap()
    assert node.data() == "new"
    assert node.transaction.state()[0] == "swapped"


def test_generations_beyond_the_kept_ones_go_and_nothing_else(tmp_path):
    made = []
    for number, state in enumerate(["committed", "rolled-back", "committed", "rolled-back", "rolled-back", "stopped", "committing"]):
        path = tmp_path / ("2026112%dT000000Z-0000" % number)
        path.mkdir(parents=True)
        (path / "plan.json").write_text("{}")
        (path / "state").write_text(state + " 2026\n")
        made.append(Transaction(str(path)))
    (tmp_path / "something-else").mkdir()
    prune = restore_transaction.generations_to_prune
    assert prune(made[6], 2) == [made[0].path, made[1].path]
    assert prune(made[6], 1) == [made[0].path, made[2].path, made[1].path, made[3].path]
    assert prune(made[6], 0) == []


def test_state_file_is_one_word_and_a_time(node):
    node.stage()
    word, time = (node.path / "state").read_text().split()
    assert word == "staged" and time.endswith("Z")
    assert [line.split()[0] for line in (node.path / "log").read_text().splitlines()] == ["staging", "staged"]
    assert json.loads((node.path / "plan.json").read_text())["files"] == FILES
    assert oct((node.path / "rollback").stat().st_mode)[-3:] == "700"
    assert oct(node.path.stat().st_mode)[-3:] == "700"


def test_the_script_is_short_enough_to_read_at_night(node):
    lines = (node.path / "rollback").read_text().splitlines()
    assert len(lines) < 80
    assert lines[0] == "#!/bin/sh"
    assert "@" not in "".join(lines).replace("$@", "")


def test_a_rollback_asks_etcd_and_no_proxy(node):
    """curl would ask the proxy even for 127.0.0.1, and the API server would wait a minute for its answer."""
    asked = []

    class Etcd(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"health":"true"}')

        def log_message(self, *args):
            pass

    bring_to(node, "stopped")
    with http.server.HTTPServer(("127.0.0.1", 0), Etcd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = node.path / "rollback"
        script.write_text(script.read_text().replace("HEALTH=''", "HEALTH=http://127.0.0.1:%d/health" % server.server_port))
        node.environment.update(dict.fromkeys(("http_proxy", "all_proxy"), "http://127.0.0.1:1"))
        begun = time.monotonic()
        assert node.rollback().returncode == 0
        server.shutdown()
    assert asked == ["/health"] and time.monotonic() - begun < 30
    node.is_old()


def test_every_state_has_a_doing_and_a_done():
    assert len(ORDER) == len(set(ORDER)) == 12


def units(node):
    """What systemd would find."""
    directory = pathlib.Path(node.plan["unit"]).parent
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()) if directory.exists() else []


@pytest.fixture
def systemd(node, monkeypatch):
    """The commands of systemctl are written down, and the transaction finds it."""
    pathlib.Path(node.plan["unit"]).parent.mkdir()
    monkeypatch.setenv("PATH", node.environment["PATH"])
    return node


ARMED = ["etcd-restore-x.service", "etcd-restore-x.timer", "multi-user.target.wants/etcd-restore-x.service"]


def test_the_timer_runs_the_rollback_later_and_after_a_reboot_at_once(systemd):
    systemd.stage()
    for dummy in range(2):
        systemd.transaction.arm(900)
        assert units(systemd) == ARMED
    service, timer, wanted = (pathlib.Path(systemd.plan["unit"]).parent / name for name in ARMED)
    assert "OnActiveSec=900\n" in timer.read_text()
    assert "ExecStart=/bin/sh %s/rollback --timer\n" % systemd.path in service.read_text()
    assert "RequiresMountsFor=%s " % systemd.path in service.read_text()
    assert wanted.resolve() == service
    assert systemd.kubelet() == ["daemon-reload", "restart etcd-restore-x.timer"] * 2
    assert systemd.transaction.state()[0] == "staged"


@pytest.mark.parametrize("end", ["commit", "rollback", "timer"])
def test_the_timer_ends_with_the_restore(systemd, end):
    systemd.stage()
    systemd.transaction.arm(900)
    systemd.transaction.stop(5)
    systemd.transaction.swap()
    systemd.start()
    if end == "commit":
        systemd.transaction.commit(keep=3)
        assert systemd.data() == "new"
    else:
        done = systemd.rollback(*(["--timer"] if end == "timer" else []))
        assert done.returncode == 0, done.stdout
        systemd.is_old()
    assert units(systemd) == []
    assert "stop etcd-restore-x.timer" in systemd.kubelet()


def test_a_validated_restore_stays_when_the_timer_fires(systemd):
    """The controller died between its decision and the end."""
    systemd.stage()
    systemd.transaction.arm(900)
    systemd.transaction.stop(5)
    systemd.transaction.swap()
    systemd.start()
    with contextlib.suppress(KeyboardInterrupt), systemd.transaction.step("committing", "committed"):
        raise KeyboardInterrupt
    assert systemd.rollback("--timer").returncode == 0
    assert systemd.data() == "new" and units(systemd) == []
    assert systemd.transaction.state()[0] == "committing"
    # whoever is asked by name still goes back
    assert systemd.rollback().returncode == 0
    systemd.is_old()


def test_a_timer_that_cannot_be_armed_is_an_error_and_leaves_nothing(systemd):
    systemd.stage()
    systemd.systemctl.write_text("#!/bin/sh\necho no bus >&2; [ $1 != restart ]\n")
    with pytest.raises(TransactionError, match=r"cannot be armed: `systemctl restart etcd-restore-x.timer` ended with code 1: no bus"):
        systemd.transaction.arm(900)
    assert units(systemd) == []
    systemd.transaction.stop(5)


@pytest.mark.parametrize("state", ["begun", "rolled-back", "committed"])
def test_no_timer_for_what_is_not_under_way(systemd, state):
    (systemd.path / "state").write_text(state + " 2026\n")
    with pytest.raises(TransactionError, match="nothing to arm"):
        systemd.transaction.arm(900)
    assert units(systemd) == []


def test_paths_that_mean_something_to_systemd():
    texts = rollback_script.timer_units({"path": "/a b/100%/x", "manifests_dir": '/m"n', "id": "i"}, 5)
    assert "ExecStart=/bin/sh /a\\x20b/100%%/x/rollback" in texts[0]
    assert "RequiresMountsFor=/a\\x20b/100%%/x /m\\x22n" in texts[0]


def test_after_a_rollback_nothing_is_left_to_swap_in(node):
    """Even where no state can be written: the step that is still to come finds nothing."""
    bring_to(node, "stopped")
    os.mkdir(node.path / "state.new")
    assert node.rollback().returncode == 0
    assert not (node.path / "staged").exists()
    (node.path / "state.new").rmdir()
    with pytest.raises(TransactionError, match="missing"):
        node.transaction.swap()
    assert node.data() == "old"


def test_an_unfinished_restore_says_what_it_is_about(node):
    node.plan["about"] = {"snapshot": {"path": "/x.db"}}
    node.begin()
    assert node.listed()[0]["about"]["snapshot"]["path"] == "/x.db"
    bring_to(node, "started")
    node.transaction.commit(keep=3)
    assert node.listed()[0]["about"] == {}


@pytest.mark.parametrize("point", POINTS[1:])
def test_a_restore_is_finished_from_every_point(node, point, monkeypatch):
    """What the next run does when it is told to resume."""
    monkeypatch.setattr(module, "remove_stale_masterleases", lambda *args: [])
    monkeypatch.setattr(restore_transaction, "etcd_health", lambda *args: "true")
    monkeypatch.setattr(restore_transaction, "KubeApi", lambda *args, **kw: types.SimpleNamespace(ready=lambda: True, url=""))
    monkeypatch.setattr(restore_transaction, "StaticPod", lambda *args: None)
    bring_to(node, point)
    params = {"cacert": "", "cert": "", "key": "", "stop_timeout": 5, "step_timeout": 5, "snapshot_revision": 0}
    for state in ("stopped", "started", "started"):
        module.forward(node.transaction, state, params)
    assert node.data() == "new"
    assert node.transaction.state()[0] == "started"
    assert node.manifest_names() == sorted([*FILES, "kube-vip.yaml"])
    assert node.rollback().returncode == 0
    node.is_old()


def test_an_alarm_for_room_that_the_snapshot_carries_is_seen_to(node, monkeypatch):
    bring_to(node, "swapped")
    relieved = []
    # healthy but for the alarm, and then altogether
    monkeypatch.setattr(restore_transaction, "etcd_health", lambda url, tls, query="": "true" if query or relieved else "false")
    node.transaction.start_etcd({}, 5, lambda: relieved.append(True))
    assert relieved == [True] and node.transaction.state()[0] == "etcd-started"


@pytest.mark.parametrize(
    ("health", "asks"),
    [
        ("http://127.0.0.1:2381/health", "curl -gks  --noproxy '*' -m 2 \"$HEALTH\""),
        ("https://127.0.0.1:2381/health", "curl -gks --cert '/pki/a b.crt' --key /pki/b.key --noproxy '*' -m 2 \"$HEALTH\""),
    ],
)
def test_the_rollback_script_shows_a_certificate_where_etcd_says_health_over_tls(node, health, asks):
    script = restore_transaction.rollback_script(dict(node.plan, health_url=health, tls={"cacert": "/pki/ca.crt", "cert": "/pki/a b.crt", "key": "/pki/b.key"}))
    assert asks in script and "HEALTH=%s " % health in script


@pytest.mark.parametrize("urls", [[], ["https://127.0.0.1:2379", "http://127.0.0.1:2381"]])
def test_an_etcd_that_says_health_nowhere_is_asked_by_its_own_client(node, monkeypatch, urls):
    """As with --listen-metrics-urls that nothing here reaches, and client URLs that speak gRPC only."""
    bring_to(node, "swapped")
    asked = []
    monkeypatch.setattr(restore_transaction, "_ASK_CLIENT_EVERY", 0.2)
    monkeypatch.setattr(restore_transaction, "etcd_health", lambda url, tls, query="": asked.append(url) or "")
    monkeypatch.setattr(node.transaction, "_running", lambda components: [1])
    node.transaction.plan["health_urls"] = urls
    answers = [False, True]
    node.transaction.start_etcd({}, 5, lambda: None, lambda: answers.pop(0))
    assert node.transaction.state()[0] == "etcd-started" and not answers and set(asked) == set(urls)


def test_one_url_that_says_health_is_enough(node, monkeypatch):
    bring_to(node, "swapped")
    node.transaction.plan["health_urls"] = ["https://127.0.0.1:2379", "http://127.0.0.1:2381"]
    monkeypatch.setattr(restore_transaction, "etcd_health", lambda url, tls, query="": "true" if url.endswith(":2381") else "")
    node.transaction.start_etcd({}, 5)
    assert node.transaction.state()[0] == "etcd-started"


def test_while_there_is_no_quorum_one_url_is_asked_at_a_time(node, monkeypatch):
    """Each question takes two seconds then, and a client's ten."""
    bring_to(node, "swapped")
    node.transaction.plan["health_urls"] = ["http://127.0.0.1:2381", "https://127.0.0.1:2379"]
    answers, asked = ["slow", "slow", "true"], []
    monkeypatch.setattr(restore_transaction, "_ASK_CLIENT_EVERY", 0)
    monkeypatch.setattr(restore_transaction, "etcd_health", lambda url, tls, query="": asked.append(url + query) or answers.pop(0))
    node.transaction.start_etcd({}, 5, lambda: asked.append("relieved"), lambda: asked.append("client"))
    assert asked == ["http://127.0.0.1:2381"] * 3


def test_what_another_run_has_under_way_is_waited_for(node):
    node.stage()
    taken = threading.Event()

    def other():
        with open(node.path / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            taken.set()
            time.sleep(0.5)

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait(5)
    params = {"cacert": "", "cert": "", "key": "", "stop_timeout": 5, "step_timeout": 0, "snapshot_revision": 0}
    with pytest.raises(restore_transaction.Busy):
        module.forward(node.transaction, "stopped", params)
    module.forward(node.transaction, "stopped", dict(params, step_timeout=10))
    thread.join()
    assert node.transaction.state()[0] == "stopped"


class PowerCut(BaseException):
    """Nothing after it happens."""


def cut_at(node, state, monkeypatch):
    """Take the restore as far as its durable state `state`, and not a step further."""
    if state == "begun":
        return
    enter = Transaction._enter

    def enter_and_die(transaction, word):
        enter(transaction, word)
        if word == state:
            raise PowerCut

    with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
        patch.setattr(Transaction, "_enter", enter_and_die)
        node.stage()
        node.transaction.stop(5)
        node.transaction.swap()
        if state in ("rolling-back", "rolled-back"):
            script = node.path / "rollback"
            whole = script.read_text()
            script.write_text(whole.replace("\nstate %s\n" % state, "\nstate %s; kill -9 $$\n" % state))
            assert node.rollback().returncode == -9
            script.write_text(whole)
        else:
            node.start()
            node.transaction.commit(keep=3)
    assert node.transaction.state()[0] == state


def tree(node):
    """{path: content} of all that a restore may touch; of states without their times."""
    found = {}
    for directory, names, files in os.walk(node.root):
        for name in names:
            found[os.path.relpath(os.path.join(directory, name), node.root)] = None
        for name in files:
            path = os.path.join(directory, name)
            with open(path) as stream:
                lines = stream.read().replace(str(node.root), "ROOT").splitlines()
            if name in ("state", "log"):
                lines = [line.split(" ")[0] for line in lines]
            found[os.path.relpath(path, node.root)] = lines
    # systemd may be asked twice for what it has done
    return {path: content for path, content in found.items() if not path.startswith("bin")}


STATES = ["begun", *ORDER, "rolling-back", "rolled-back"]


@pytest.mark.parametrize("mount_point", [False, True], ids=["directory", "mount-point"])
@pytest.mark.parametrize("argument", [[], ["--timer"], ["--undo"]], ids=lambda value: "".join(value) or "plain")
@pytest.mark.parametrize("state", STATES)
def test_the_rollback_once_twice_and_twice_at_once_end_the_same(tmp_path, monkeypatch, state, argument, mount_point):
    ends = {}
    for how in ("once", "twice", "at-once", "with-the-timer"):
        node = Node(tmp_path / how, mount_point)
        cut_at(node, state, monkeypatch)
        before = tree(node)
        if how in ("once", "twice"):
            for dummy in range(1 if how == "once" else 2):
                node.rollback(*argument)
        else:
            second = argument if how == "at-once" else ["--timer"]
            both = [
                subprocess.Popen(["sh", str(node.path / "rollback"), *which], stdout=subprocess.DEVNULL, env=node.environment) for which in (argument, second)
            ]
            for process in both:
                process.wait(60)
        ends[how] = tree(node)
        stays = (state == "committed" and argument != ["--undo"]) or (state == "committing" and argument == ["--timer"])
        if stays:
            assert node.data() == "new"
            assert ends[how] == before
        else:
            node.is_old()
    for how, end in ends.items():
        assert end == ends["once"], how


# -- several nodes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def voter(systemd):
    """A node that was validated and has voted, with the timer armed.  What all decide is what the stub of `decide` says."""
    systemd.stage()
    systemd.transaction.arm(900)
    systemd.transaction.stop(5)
    systemd.transaction.swap()
    systemd.start()
    with systemd.transaction.step("committing", None):
        pass
    systemd.decide = lambda script: (systemd.path / "decide").write_text('echo "$*" >> %s/asked\n%s\n' % (systemd.root, script))
    systemd.asked = lambda: (systemd.root / "asked").read_text().split()
    return systemd


@pytest.mark.parametrize("argument, asked", [([], "abort"), (["--timer"], "--timer")])
def test_a_node_that_has_voted_goes_back_when_all_do(voter, argument, asked):
    voter.decide("echo rolled-back")
    assert voter.rollback(*argument).returncode == 0
    voter.is_old()
    assert voter.asked() == [asked] and units(voter) == []


def test_a_node_that_has_voted_stays_when_all_stay(voter):
    voter.decide("echo committed")
    done = voter.rollback()
    assert done.returncode == 3 and "--undo" in done.stdout
    assert units(voter) == ARMED
    assert voter.rollback("--timer").returncode == 0
    assert voter.data() == "new" and units(voter) == []
    assert voter.rollback("--undo").returncode == 0
    voter.is_old()


@pytest.mark.parametrize("argument", [[], ["--timer"]])
def test_a_node_that_cannot_ask_waits(voter, argument):
    """systemd runs what fails again."""
    voter.decide("exit 1")
    done = voter.rollback(*argument)
    assert done.returncode == 7 and "quorum" in done.stdout
    assert voter.data() == "new" and voter.transaction.state()[0] == "committing" and units(voter) == ARMED
    assert voter.rollback("--undo").returncode == 0
    voter.is_old()


def test_a_node_that_has_not_voted_asks_nobody(node):
    bring_to(node, "started")
    (node.path / "decide").write_text("exit 1\n")
    assert node.rollback("--timer").returncode == 0
    node.is_old()


def test_nothing_is_committed_that_not_all_keep(voter):
    voter.decide("echo rolled-back")
    with pytest.raises(TransactionError, match="none does"):
        voter.transaction.commit(3, 1)
    voter.decide("exit 1")
    with pytest.raises(TransactionError, match="could not be asked"):
        voter.transaction.commit(3, 1)
    assert voter.transaction.state()[0] == "committing"
    voter.decide("echo committed")
    voter.transaction.commit(3, 1)
    assert voter.transaction.state()[0] == "committed" and units(voter) == []


def test_a_vote_is_on_the_disk_before_it_is_cast(systemd):
    systemd.stage()
    systemd.transaction.stop(5)
    systemd.transaction.swap()
    systemd.start()
    (systemd.path / "decide").write_text('[ "$1" = vote ] && grep -q ^committing %s/state && cat %s/restored-cluster\n' % ((systemd.path,) * 2))
    systemd.transaction.vote("ff", 1)
    assert (systemd.path / "restored-cluster").read_text() == "255\n"
    assert systemd.transaction.state()[0] == "committing"
    # nobody who went back votes
    assert systemd.rollback("--undo").returncode == 0
    with pytest.raises(TransactionError, match="rolled-back"):
        systemd.transaction.vote("ff", 1)


@pytest.fixture
def retiree(systemd):
    """A node that is to be stopped because others are restored without it."""
    systemd.plan.update(kind="retire", about={"hosts": ["cp1"], "retired": ["cp2"]})
    systemd.begin()
    return systemd


def retire(node, point="committed"):
    node.transaction.stop(5)
    if point == "stopped":
        return
    node.transaction.swap()
    if point == "swapped":
        return
    node.transaction.commit(keep=1)


def test_a_retired_node_keeps_its_data_and_gets_none(retiree):
    retire(retiree)
    assert (retiree.path / "old" / ("snap/db" if retiree.live.name == "member" else "member/snap/db")).read_text() == "old"
    assert not (retiree.data_dir / "member").exists() and retiree.data_dir.is_dir()
    assert retiree.manifest_names() == ["kube-vip.yaml"]
    assert sorted(os.listdir(retiree.plan["held"])) == sorted(FILES)
    entry = retiree.listed()[-1]
    assert (entry["kind"], entry["state"], entry["ended"], entry["hosts"], entry["retired"]) == ("retire", "committed", True, ["cp1"], ["cp2"])
    # it is what the node comes back from, however many restores there were since
    assert restore_transaction.generations_to_prune(retiree.transaction, 1) == []


@pytest.mark.parametrize("point", ["begun", "stopped", "swapped", "committed"])
def test_a_retired_node_goes_back_from_every_point(retiree, point):
    if point != "begun":
        retire(retiree, point)
    done = retiree.rollback(*(["--undo"] if point == "committed" else ["--timer"]))
    assert done.returncode == 0, done.stdout + done.stderr
    retiree.is_old()
    # nothing was there that could be kept
    assert not (retiree.path / "undone.1").exists()


def test_the_timer_of_a_retired_node_comes_later_and_never_at_once(retiree):
    retiree.transaction.arm(900)
    assert units(retiree) == [*ARMED[:2], "timers.target.wants/etcd-restore-x.timer"]
    assert "OnActiveSec=1080\n" in pathlib.Path(retiree.plan["unit"] + ".timer").read_text()
    retire(retiree)
    assert units(retiree) == []


MANIFEST = """apiVersion: v1
kind: Pod
metadata:
  labels:
    component: etcd
  name: etcd
spec:
  containers:
  - command:
    - etcd
    - --initial-cluster=cp2=https://192.0.2.12:2380
    - --name=cp2
    image: etcd:3.5.16-0
"""


def test_a_retired_node_is_brought_back_and_can_be_retired_again(retiree, monkeypatch):
    etcd = retiree.manifests / FILES[0]
    etcd.write_text(MANIFEST)
    monkeypatch.setattr(restore_transaction, "KubeApi", lambda *args, **kw: types.SimpleNamespace(ready=lambda: True, url=""))
    monkeypatch.setattr(restore_transaction, "StaticPod", lambda *args: None)
    retire(retiree)
    started = []
    monkeypatch.setattr(restore_transaction, "remaining", lambda *args: started)
    members = "cp1=https://192.0.2.11:2380,cp2=https://192.0.2.12:2380"
    with pytest.raises(TransactionError, match="no etcd was started"):
        retiree.transaction.rejoin_etcd(members, 0)
    assert retiree.transaction.state()[0] == "rejoining"
    assert "    - --initial-cluster=%s\n" % members in etcd.read_text() and "    - --initial-cluster-state=existing\n" in etcd.read_text()
    assert retiree.manifest_names() == [FILES[0], "kube-vip.yaml"]

    # what it got meanwhile is kept
    (retiree.data_dir / "member").mkdir()
    retiree.transaction.retire_again(5)
    assert retiree.transaction.state()[0] == "committed"
    assert retiree.manifest_names() == ["kube-vip.yaml"] and not (retiree.data_dir / "member").exists()
    assert (retiree.path / "undone.1").is_dir()

    started.append("etcd")
    retiree.transaction.rejoin_etcd(members, 1)
    retiree.make_data(retiree.data_dir, "joined")
    retiree.transaction.rejoin(1)
    assert retiree.transaction.state()[0] == "rejoined"
    assert retiree.manifest_names() == sorted([*FILES, "kube-vip.yaml"]) and not os.path.exists(retiree.plan["held"])
    assert retiree.data() == "joined"
    # and still has the way back
    assert retiree.rollback().returncode == 3
    assert retiree.rollback("--undo").returncode == 0
    retiree.is_old()


FIRST = pathlib.Path(__file__).parents[3] / "fixtures" / "first"


class FirstNode(Node):
    """A node with the files that the first version to write them (commit 97e024d) left when its controller was killed."""

    plan_of = "plan.json"

    def __init__(self, root):
        self.base = root
        super().__init__(root, False)
        # the real ones would wait, and ask a server
        for name, text in (("sleep", ""), ("sync", ""), ("curl", "echo '{\"health\": \"true\"}'\n")):
            (self.systemctl.parent / name).write_text("#!/bin/sh\n" + text)
            (self.systemctl.parent / name).chmod(0o755)

    def adapted(self, name):
        """A file of theirs, with the paths of this node."""
        text = (FIRST / name).read_text()
        for path in ("/var/lib/etcd", "/etc/kubernetes", "/proc/[0-9]*"):
            text = text.replace(path, str(self.base / path[1:]))
        return text.replace("/etc/systemd/system", str(self.base / "units"))

    def begin(self):
        self.plan = json.loads(self.adapted(self.plan_of))
        self.path = pathlib.Path(self.plan["path"])
        self.path.mkdir(parents=True)
        for name, source in (("plan.json", self.plan_of), ("rollback", "rollback.txt")):
            (self.path / name).write_text(self.adapted(source))
        (self.path / "lock").touch()
        (self.path / "state").write_text("begun\n")
        self.transaction = Transaction(str(self.path))

    def left_at(self, point):
        """As the controller's end left it: what the steps do to the disk, in the words of their log."""
        bring_to(self, point)
        state = self.transaction.state()[0]
        since = (FIRST / "log.txt").read_text().split()[1]
        (self.path / "state").write_text((FIRST / "state.txt").read_text() if state == "swapped" else "%s %s\n" % (state, since))
        self.transaction = Transaction(str(self.path))


@pytest.fixture
def first_node(tmp_path, monkeypatch):
    monkeypatch.setattr(restore_transaction, "listens", lambda url, timeout: False)
    return FirstNode(tmp_path)


def test_states_of_the_first_version_have_their_names():
    assert json.loads((FIRST / "states.json").read_text()) == {"ORDER": ORDER, "RETIRE": restore_transaction.RETIRE}


@pytest.mark.parametrize("point", POINTS[1:])
def test_a_restore_of_the_first_version_is_listed_resumed_and_rolled_back(first_node, monkeypatch, point):
    first_node.left_at(point)
    [listed] = first_node.listed()
    assert listed["id"] == first_node.path.name and listed["since"].startswith("2026-11-29T19:27:") and not listed["ended"]
    assert listed["hosts"] == ["cp1"] and listed["about"]["snapshot"]["revision"] == 6005764
    asked = set()
    monkeypatch.setattr(restore_transaction, "etcd_health", lambda url, tls, query="": asked.add(url) or "true")
    monkeypatch.setattr(restore_transaction, "KubeApi", lambda *args, **kw: types.SimpleNamespace(ready=lambda: True, url=""))
    monkeypatch.setattr(restore_transaction, "StaticPod", lambda *args: None)
    module.forward(first_node.transaction, "started", {"cacert": "", "cert": "", "key": "", "stop_timeout": 5, "step_timeout": 5, "snapshot_revision": 0})
    assert first_node.data() == "new" and first_node.transaction.state()[0] == "started"
    assert first_node.manifest_names() == sorted([*FILES, "kube-vip.yaml"])
    assert asked == (set() if point in ("etcd-started", "started") else {"https://192.0.2.11:2379"})
    # with the script that it wrote
    done = first_node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    first_node.is_old()


@pytest.mark.parametrize("point", POINTS)
def test_the_script_of_the_first_version_rolls_back_from_every_point(first_node, monkeypatch, point):
    monkeypatch.setenv("PATH", first_node.environment["PATH"])
    first_node.left_at(point)
    first_node.transaction.roll_back(False, 60)
    first_node.is_old()
    assert first_node.listed()[0]["ended"]


def test_an_etcd_that_the_first_version_started_is_asked_where_its_plan_says(first_node):
    assert first_node.transaction.plan["health_urls"] == ["https://192.0.2.11:2379", "http://127.0.0.1:2381"]
    first_node.plan.update(health_url="")
    (first_node.path / "plan.json").write_text(json.dumps(first_node.plan))
    assert Transaction(str(first_node.path)).plan["health_urls"] == ["https://192.0.2.11:2379"]


@pytest.mark.parametrize("end", ["armed again", "committed", "rolled back"])
def test_the_timer_of_the_first_version_is_replaced_and_removed(first_node, monkeypatch, end):
    monkeypatch.setenv("PATH", first_node.environment["PATH"])
    units, name = first_node.root / "units", "etcd-restore-" + first_node.path.name
    wants = units / "multi-user.target.wants" / (name + ".service")
    wants.parent.mkdir(parents=True)
    for suffix in ("service", "timer"):
        (units / ("%s.%s" % (name, suffix))).write_text(first_node.adapted(suffix + ".txt"))
    wants.symlink_to(units / (name + ".service"))
    first_node.left_at("started")
    if end == "armed again":
        first_node.transaction.arm(77)
        assert "OnActiveSec=77" in (units / (name + ".timer")).read_text()
        assert sorted(path.name for path in units.rglob("etcd-restore-*")) == sorted([name + ".service", name + ".timer", name + ".service"])
    elif end == "committed":
        first_node.transaction.commit(keep=3)
        assert not list(units.rglob("etcd-restore-*"))
    else:
        first_node.transaction.roll_back(False, 60)
        assert not list(units.rglob("etcd-restore-*"))


VOTES = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    endpoint) echo '{"cluster_id":123}'; exit ;;
    put) echo "$2" >> "$0.votes"; exit ;;
    txn) cat > /dev/null; [ -e "$0.decision" ] || echo committed > "$0.decision"; exit ;;
    get) cat "$0.decision" 2> /dev/null; exit 0 ;;
  esac
  shift
done
"""


def test_nodes_of_the_first_version_vote_by_the_script_that_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(FirstNode, "plan_of", "plan-three.json")
    node = FirstNode(tmp_path)
    monkeypatch.setenv("PATH", node.environment["PATH"])
    etcdctl = node.systemctl.parent / "etcdctl"
    etcdctl.write_text(VOTES)
    etcdctl.chmod(0o755)
    node.left_at("started")
    (node.path / "decide").write_text(node.adapted("decide.txt").replace("/usr/local/bin/etcdctl", str(etcdctl)))
    node.transaction.vote("7b", 5)
    node.transaction.commit(keep=3)
    assert node.transaction.state()[0] == "committed"
    assert (etcdctl.parent / "etcdctl.votes").read_text() == "k8s-dr.etcd/restore/%s/votes/cp1\n" % node.path.name
