# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How manifests are taken from kubelet and given back."""

from __future__ import annotations

import os
import signal

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import control_plane, steps
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.control_plane import ControlPlane
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import FILES, bring_to


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
        monkeypatch.setattr(control_plane.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(control_plane.time, "sleep", self.sleep)
        monkeypatch.setattr(control_plane, "static_pods_begun", lambda directory: {"other"} | ({"new"} if self.begun() and self.shows else set()))
        monkeypatch.setattr(control_plane, "run_tool", lambda argv, timeout: self.restarts.append((round(self.now, 1), argv)))

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
def test_a_static_pod_that_kubelet_delays_is_placed_again_as_another_one(node, etcd_manifest, monkeypatch, which):
    """kubelet 1.22 and later look again only after 10 to 15 s, unless another Pod arrives."""
    kubelet = PutsOff(node, monkeypatch, which)
    ControlPlane(node.transaction).start_etcd(kubelet.serves, 60, "etcd did not serve")
    assert len(kubelet.pods) == which, "one that was begun is left alone"
    assert kubelet.now < 1.2 + 0.4 * which
    assert kubelet.restarts == []
    assert node.manifest_names() == sorted([FILES[0], "kube-vip.yaml"])


def test_a_pod_that_was_begun_is_left_alone_however_long_it_takes(node, etcd_manifest, monkeypatch):
    kubelet = PutsOff(node, monkeypatch, 1)
    ControlPlane(node.transaction).start_etcd(lambda: kubelet.begun() and kubelet.now > 7, 60, "etcd did not serve")
    assert len(kubelet.pods) == 1


def test_where_kubelet_shows_no_start_the_waits_grow_until_it_is_restarted(node, etcd_manifest, monkeypatch):
    kubelet = PutsOff(node, monkeypatch, 1000, shows=False)
    with pytest.raises(TransactionError, match="etcd did not serve within 12 s"):
        ControlPlane(node.transaction).start_etcd(kubelet.serves, 12, "etcd did not serve")
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
    monkeypatch.setattr(control_plane, "remaining", lambda *args: [Stuck])
    with pytest.raises(TransactionError, match=r"etcd \(process 4711\) still ran"):
        steps.stop(node.transaction, 0)
    assert node.transaction.state()[0] == "stopping"
    assert node.rollback().returncode == 0
    node.is_old()


@pytest.mark.parametrize("stubborn", [False, True])
def test_processes_that_kubelet_does_not_stop_get_sigterm_once_and_then_sigkill(node, monkeypatch, stubborn):
    """As a kubelet that was started while no API server answered."""
    sent = []

    class Left:
        pid, name, pod = 4711, "etcd", "x"

    def kill(pid, number):
        sent.append((pid, number))

    def remaining(*dummy):
        return [] if any(number == signal.SIGKILL or not stubborn for pid, number in sent) else [Left]

    node.stage()
    monkeypatch.setattr(control_plane, "remaining", remaining)
    monkeypatch.setattr(control_plane.os, "kill", kill)
    monkeypatch.setattr(control_plane, "_KILL_AFTER", 0)
    monkeypatch.setattr(control_plane, "_END_AFTER", -9.7 if stubborn else 0)
    steps.stop(node.transaction, 10)
    assert sent == [(4711, signal.SIGTERM)] + [(4711, signal.SIGKILL)] * stubborn
    assert node.transaction.state()[0] == "stopped"


@pytest.mark.parametrize("listens", [False, True])
def test_an_etcd_that_is_ending_is_not_waited_for(node, monkeypatch, listens):
    """It may wait 7 s for members to hand its leadership to; one that listens was not asked to end yet, and kubelet would start it again."""
    sent = []

    class Left:
        pid, name, pod = 4711, "etcd", "x"

    node.stage()
    monkeypatch.setattr(control_plane, "remaining", lambda *dummy: [] if sent else [Left])
    monkeypatch.setattr(control_plane, "listens", lambda url, timeout: listens and not sent)
    monkeypatch.setattr(control_plane.os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(control_plane, "_KILL_AFTER", 0)
    monkeypatch.setattr(control_plane, "_HANDOVER", 0)
    node.transaction.plan["listen_urls"] = ["https://127.0.0.1:2379"]
    if listens:
        with pytest.raises(TransactionError, match=r"etcd \(process 4711\) still ran"):
            steps.stop(node.transaction, 0.3)
    else:
        steps.stop(node.transaction, 10)
    assert sent == [] if listens else [(4711, signal.SIGKILL)]
