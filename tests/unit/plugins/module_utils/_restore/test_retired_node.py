# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node that is stopped because others are restored without it, and rejoins."""

from __future__ import annotations

import os
import pathlib
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import control_plane, steps, timer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import ARMED, FILES, units


@pytest.fixture
def retiree(systemd):
    """A node that is to be stopped because others are restored without it."""
    systemd.plan.update(kind="retire", about={"hosts": ["cp1"], "retired": ["cp2"]})
    systemd.begin()
    return systemd


def retire(node, point="committed"):
    steps.stop(node.transaction, 5)
    if point == "stopped":
        return
    steps.swap(node.transaction)
    if point == "swapped":
        return
    steps.commit(node.transaction, keep=1)


def test_a_retired_node_keeps_its_data_and_is_not_restored(retiree):
    retire(retiree)
    assert (retiree.path / "old" / ("snap/db" if retiree.live.name == "member" else "member/snap/db")).read_text() == "old"
    assert not (retiree.data_dir / "member").exists() and retiree.data_dir.is_dir()
    assert retiree.manifest_names() == ["kube-vip.yaml"]
    assert sorted(os.listdir(retiree.plan["held"])) == sorted(FILES)
    entry = retiree.listed()[-1]
    assert (entry["kind"], entry["state"], entry["ended"], entry["hosts"], entry["retired"]) == ("retire", "committed", True, ["cp1"], ["cp2"])
    # the node rejoins from it, however many restores there were since
    assert steps.generations_to_prune(retiree.transaction, 1) == []


@pytest.mark.parametrize("point", ["begun", "stopped", "swapped", "committed"])
def test_a_retired_node_rolls_back_from_every_point(retiree, point):
    if point != "begun":
        retire(retiree, point)
    done = retiree.rollback(*(["--undo"] if point == "committed" else ["--timer"]))
    assert done.returncode == 0, done.stdout + done.stderr
    retiree.is_old()
    # nothing was there that could be kept
    assert not (retiree.path / "undone.1").exists()


@pytest.mark.parametrize("argument", [[], ["--timer"]])
@pytest.mark.parametrize("point", ["begun", "stopped", "swapped"])
def test_a_retired_node_waits_while_a_restored_one_serves(retiree, point, argument):
    """They would be two clusters.  systemd runs what fails again."""
    timer.arm(retiree.transaction, 900)
    if point != "begun":
        retire(retiree, point)
    decide = retiree.path / "decide"
    decide.write_text('[ "$1" != serving ] || echo serving\n')
    before = retiree.transaction.state(), retiree.manifest_names()
    done = retiree.rollback(*argument)
    assert done.returncode == 7 and "a restored node serves, and this one would" in done.stdout and "rollback --undo" in done.stdout
    assert (retiree.transaction.state(), retiree.manifest_names()) == before and units(retiree) != []
    # one that never serves again is no reason to wait for ever
    decide.write_text("exit 1\n")
    assert retiree.rollback(*argument).returncode == 0
    retiree.is_old()


def test_a_retired_node_waits_also_after_the_decision(retiree):
    """All have decided to roll back, and the restored one cannot."""
    retire(retiree, "swapped")
    with retiree.transaction.step("committing", None):
        pass
    decide = retiree.path / "decide"
    decide.write_text('[ "$1" = serving ] && echo serving || echo rolled-back\n')
    assert retiree.rollback("--timer").returncode == 7 and retiree.transaction.state()[0] == "committing"
    assert retiree.rollback("--undo").returncode == 0
    retiree.is_old()


def test_the_timer_of_a_retired_node_comes_later_and_never_at_once(retiree):
    timer.arm(retiree.transaction, 900)
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


def test_a_retired_node_rejoins_and_can_be_retired_again(retiree, monkeypatch):
    etcd = retiree.manifests / FILES[0]
    etcd.write_text(MANIFEST)
    monkeypatch.setattr(control_plane, "KubeApi", lambda *args, **kw: types.SimpleNamespace(ready=lambda: True, url=""))
    monkeypatch.setattr(control_plane, "StaticPod", lambda *args: None)
    retire(retiree)
    started = []
    monkeypatch.setattr(control_plane, "remaining", lambda *args: started)
    members = "cp1=https://192.0.2.11:2380,cp2=https://192.0.2.12:2380"
    with pytest.raises(TransactionError, match="no etcd was started"):
        steps.rejoin_etcd(retiree.transaction, members, 0)
    assert retiree.transaction.state()[0] == "rejoining"
    assert "    - --initial-cluster=%s\n" % members in etcd.read_text() and "    - --initial-cluster-state=existing\n" in etcd.read_text()
    assert retiree.manifest_names() == [FILES[0], "kube-vip.yaml"]

    # the data that it got meanwhile is kept
    (retiree.data_dir / "member").mkdir()
    steps.retire_again(retiree.transaction, 5)
    assert retiree.transaction.state()[0] == "committed"
    assert retiree.manifest_names() == ["kube-vip.yaml"] and not (retiree.data_dir / "member").exists()
    assert (retiree.path / "undone.1").is_dir()

    started.append("etcd")
    steps.rejoin_etcd(retiree.transaction, members, 1)
    retiree.make_data(retiree.data_dir, "joined")
    steps.rejoin(retiree.transaction, 1)
    assert retiree.transaction.state()[0] == "rejoined"
    assert retiree.manifest_names() == sorted([*FILES, "kube-vip.yaml"]) and not os.path.exists(retiree.plan["held"])
    assert retiree.data() == "joined"
    # and still has the way back
    assert retiree.rollback().returncode == 3
    assert retiree.rollback("--undo").returncode == 0
    retiree.is_old()
