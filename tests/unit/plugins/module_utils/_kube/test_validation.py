# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a validation waits, and for what."""

from __future__ import annotations

import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import validation
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod

SHOP = "deployments shop/web"


class Cluster:
    """A cluster seen by a clock that only sleeping moves; `ready` is how many of two Pods its Deployment has after how many seconds."""

    identity = types.SimpleNamespace(name="admin.conf")

    def __init__(self, monkeypatch, ready=lambda seconds: 2, scheduler=lambda seconds: True):
        self.now, self.ready, self.scheduler = 1000.0, ready, scheduler
        self.began = self.now
        clock = types.SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr(validation, "time", clock)
        monkeypatch.setattr(validation, "observe", self.observe)
        monkeypatch.setattr(validation, "missing_roles", lambda api: [])

    def sleep(self, seconds):
        self.now += seconds

    def observe(self, api, leases):
        elapsed = self.now - self.began
        return {
            "nodes": {"cp1": {"ready": True, "renewed": self.now, "control_plane": True}},
            "leases": {name: {"renewed": self.began - 100 + (elapsed if self.scheduler(elapsed) else 0)} for name in leases},
            "workloads": {SHOP: {"wanted": 2, "ready": self.ready(elapsed), "version": "a.1", "counted": True}},
            "secret_read": True,
        }

    def lasting(self):
        return None


def wait(cluster, restarted=None, **params):
    params = {"names": None, "baseline": None, "scope": "control_plane", "settle_time": 0, "since_revision": 0, "wait_timeout": 240, **params}
    leases = {name: "kube-system/" + name for name in ("kube-controller-manager", "kube-scheduler")}
    return validation.wait(cluster, params, leases, restarted)


def test_a_tolerated_failure_is_a_warning_after_a_minute(monkeypatch):
    validation = wait(Cluster(monkeypatch, ready=lambda seconds: 0))
    assert validation["ok"] and 60 <= validation["seconds"] <= 62
    assert validation["layers"]["workloads"] == {"problems": [], "warnings": ["deployment shop/web has 0 of 2 Pods ready"]}


@pytest.mark.parametrize("settle", [1, 2.5, 5])
def test_a_healthy_cluster_is_waited_for_until_it_has_settled(monkeypatch, settle):
    cluster = Cluster(monkeypatch)
    look = cluster.observe

    def observe(api, leases):
        # a look takes a moment
        cluster.now += 0.125
        return look(api, leases)

    monkeypatch.setattr(validation, "observe", observe)
    found = wait(cluster, settle_time=settle)
    assert found["ok"] and settle <= found["seconds"] <= settle + 0.3


def test_a_tolerated_failure_that_ends_ends_the_wait(monkeypatch):
    validation = wait(Cluster(monkeypatch, ready=lambda seconds: 2 if seconds > 20 else 1))
    assert validation["ok"] and 20 < validation["seconds"] <= 22 and not validation["layers"]["workloads"]["warnings"]


def test_a_failure_that_counts_is_waited_for_until_the_time_limit(monkeypatch):
    validation = wait(Cluster(monkeypatch, ready=lambda seconds: 0), scope="all", wait_timeout=90)
    assert not validation["ok"] and 90 <= validation["seconds"] <= 91
    assert validation["layers"]["workloads"]["problems"] == ["deployment shop/web has 0 of 2 Pods ready"]


def test_a_restored_status_is_not_trusted_at_once(monkeypatch):
    """It says that both Pods are ready, as when the snapshot was taken; the kubelet starts new ones and reports it three seconds later."""

    def ready(seconds):
        return 2 if seconds < 3 or seconds > 8 else 0

    assert wait(Cluster(monkeypatch, ready))["seconds"] < 3
    assert 8 < wait(Cluster(monkeypatch, ready), settle_time=5)["seconds"] <= 10
    assert wait(Cluster(monkeypatch), settle_time=300, wait_timeout=20)["seconds"] <= 21, "not longer than it may take in all"


def test_one_look_takes_a_second_one_where_the_clock_of_a_leader_is_behind(monkeypatch):
    """Its lease is 100 seconds old by this node's clock, and renewed all the same."""
    validation = wait(Cluster(monkeypatch), wait_timeout=0)
    assert validation["ok"] and validation["seconds"] == 4
    validation = wait(Cluster(monkeypatch, scheduler=lambda seconds: False), wait_timeout=0)
    assert not validation["ok"] and validation["seconds"] == 4
    assert [lease["alive"] for lease in validation["observed"]["leases"].values()] == [False, False]


def test_what_was_written_since_the_restore_counts_at_once(monkeypatch):
    """Only the kubelet that was restarted has to renew its lease once more; others renew theirs every 10 s, which nothing has to wait for."""
    cluster = Cluster(monkeypatch)
    written = {"cp1": 205, "cp2": 204}

    def observe(api, leases):
        seen = Cluster.observe(cluster, api, leases)
        for name, revision in written.items():
            seen["nodes"][name] = {"ready": True, "renewed": cluster.began - 3, "written": revision, "control_plane": True}
        if cluster.now >= cluster.began + 2:
            seen["nodes"]["cp1"]["renewed"] = cluster.began + 1.5
        return seen

    monkeypatch.setattr(validation, "observe", observe)
    assert wait(cluster, {"cp1": cluster.began + 1}, since_revision=203, wait_timeout=60)["seconds"] == 2
    cluster.now = cluster.began
    late = wait(cluster, {"cp1": cluster.began + 1}, since_revision=204, wait_timeout=20)
    assert late["layers"]["nodes"]["problems"] == ["the kubelet of node cp2 does not renew its lease"], "it is from before the restore"


CONFIGURATION = "kind: KubeSchedulerConfiguration\nleaderElection:\n  leaderElect: %s\n"
NAMED = CONFIGURATION % "true" + '  resourceName: "batch"\n  resourceNamespace: system  # ours\n'
USUAL = "kube-system/kube-scheduler"


@pytest.mark.parametrize(
    ("flags", "configuration", "expected"),
    [
        ([], "", USUAL),
        (["--leader-elect=true"], "", USUAL),
        (["--leader-elect"], "", USUAL),
        (["--leader-elect=false"], "", ""),
        (["--leader-elect=False"], "", ""),
        (["--config=%s"], CONFIGURATION % "true", USUAL),
        (["--config=%s"], CONFIGURATION % "false", ""),
        (["--config=%s", "--leader-elect=true"], CONFIGURATION % "false", USUAL),
        (["--config=/nonexistent/scheduler.yaml"], CONFIGURATION % "false", USUAL),
        (["--config=%s"], NAMED, "system/batch"),
        (["--config=%s", "--leader-elect-resource-name=mine"], NAMED, "system/mine"),
        (["--leader-elect-resource-name=mine", "--leader-elect-resource-namespace=there"], "", "there/mine"),
    ],
)
def test_the_lease_that_a_controller_renews(tmp_path, flags, configuration, expected):
    path = tmp_path / "scheduler.yaml"
    path.write_text(configuration)
    lines = "".join("    - %s\n" % (flag % path if "%s" in flag else flag) for flag in flags)
    pod = StaticPod("", "metadata:\n  labels:\n    component: kube-scheduler\nspec:\n  containers:\n  - command:\n    - kube-scheduler\n" + lines)
    assert validation.leader_lease(pod) == expected
