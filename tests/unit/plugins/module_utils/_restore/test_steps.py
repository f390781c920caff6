# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore's steps, on plain directories: no etcd, no kubelet."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import control_plane, steps
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import Transaction, TransactionError
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_restore_transaction as module
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import FILES, POINTS, bring_to


@pytest.mark.parametrize("end", ["committed", "rolled-back"])
def test_a_snapshot_that_was_copied_for_the_restore_does_not_stay(node, end, monkeypatch):
    monkeypatch.setenv("PATH", node.environment["PATH"])
    bring_to(node, "started")
    (node.path / "snapshot.db").write_text("every Secret")
    (node.path / "snapshot.db.partial").write_text("half of every Secret")
    if end == "committed":
        steps.commit(node.transaction, keep=3)
    else:
        node.transaction.roll_back(False, 60)
    assert node.transaction.state()[0] == end
    assert not list(node.path.glob("snapshot.db*"))


def test_swap_refuses_when_etcd_came_back(node, monkeypatch):
    bring_to(node, "stopped")
    monkeypatch.setattr(control_plane, "remaining", lambda *args: [object()])
    with pytest.raises(TransactionError, match="runs again"):
        steps.swap(node.transaction)
    assert node.data() == "old"


@pytest.mark.parametrize("point", ["swapping-1", "swapping-2"])
def test_an_interrupted_swap_can_be_finished(node, point):
    bring_to(node, point)
    steps.swap(node.transaction)
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
    prune = steps.generations_to_prune
    assert prune(made[6], 2) == [made[0].path, made[1].path]
    assert prune(made[6], 1) == [made[0].path, made[2].path, made[1].path, made[3].path]
    assert prune(made[6], 0) == []
    # one that began with a clock that was behind is the newest all the same
    (tmp_path / "20261122T000000Z-0000" / "state").write_text("committing 2026\n")
    (tmp_path / "20261126T000000Z-0000" / "state").write_text("committed 2026\n")
    assert prune(made[2], 1) == [made[0].path, made[6].path, made[1].path, made[3].path]
    assert prune(made[2], 2) == [made[0].path, made[1].path]
    # what an interrupted removal left goes, however many are kept
    (tmp_path / "20261125T000000Z-0000" / "state").unlink()
    # but not what lost only its state
    (tmp_path / "20261125T000000Z-0000" / "log").write_text("stopping 2026\nstopped 2026\n")
    assert prune(made[2], 0) == [] and made[5].state() == ("stopped", "2026")
    (tmp_path / "20261125T000000Z-0000" / "log").write_text("committed 2026\n")
    assert prune(made[2], 0) == prune(made[2], 9) == [made[5].path]


def test_a_removal_that_is_cut_anywhere_is_finished_by_the_next_commit(node, monkeypatch):
    bring_to(node, "started")
    older = node.path.with_name("20261121T170501Z-4f1c")
    calls = []

    def cut_after(real, number):
        def call(*args, **more):
            calls.append(args)
            if len(calls) > number:
                raise KeyboardInterrupt
            return real(*args, **more)

        return call

    for cut in itertools.count():
        shutil.rmtree(older, ignore_errors=True)
        shutil.copytree(node.path, older)
        (older / "state").write_text("committed 2026\n")
        calls.clear()
        with monkeypatch.context() as patch:
            for name in ("unlink", "rmdir"):
                patch.setattr(os, name, cut_after(getattr(os, name), cut))
            with contextlib.suppress(KeyboardInterrupt):
                steps._remove(str(older))
        if len(calls) <= cut:
            break
        states = [one["state"] for one in node.listed() if one["id"] == older.name]
        if cut:
            # it is no generation any more, and what is left of it is found
            assert states == (["pruned"] if (older / "plan.json").exists() else [])
            assert (older / "plan.json").exists() or not (older / "old").exists()
            assert steps.generations_to_prune(node.transaction, 3) == [str(older)] * len(states)
    assert cut >= 8 and not older.exists() and node.data() == "new"


def test_half_of_the_old_data_is_nothing_to_go_back_to(node):
    """What a removal left that took the state first."""
    bring_to(node, "started")
    steps.commit(node.transaction, keep=3)
    (node.path / "state").unlink()
    assert [one["state"] for one in node.listed()] == ["pruned"]
    for argument in ([], ["--undo"], ["--timer"]):
        assert node.rollback(*argument).returncode == 3
    assert node.data() == "new" and len(node.manifest_names()) == 5


@pytest.mark.parametrize("point", POINTS[1:])
def test_a_restore_is_finished_from_every_point(node, point, monkeypatch):
    """What the next run does when it is told to resume."""
    monkeypatch.setattr(module, "remove_stale_masterleases", lambda *args: [])
    monkeypatch.setattr(steps, "etcd_health", lambda *args: "true")
    monkeypatch.setattr(control_plane, "KubeApi", lambda *args, **kw: types.SimpleNamespace(ready=lambda: True, url=""))
    monkeypatch.setattr(control_plane, "StaticPod", lambda *args: None)
    bring_to(node, point)
    params = {"cacert": "", "cert": "", "key": "", "stop_timeout": 5, "step_timeout": 5, "snapshot_revision": 0}
    for state in ("stopped", "started", "started"):
        module.forward(node.transaction, state, params)
    assert node.data() == "new"
    assert node.transaction.state()[0] == "started"
    assert node.manifest_names() == sorted([*FILES, "kube-vip.yaml"])
    assert node.rollback().returncode == 0
    node.is_old()


def test_a_space_alarm_in_the_snapshot_is_cleared(node, monkeypatch):
    bring_to(node, "swapped")
    relieved = []
    # healthy but for the alarm, and then altogether
    monkeypatch.setattr(steps, "etcd_health", lambda url, tls, query="": "true" if query or relieved else "false")
    steps.start_etcd(node.transaction, {}, 5, lambda: relieved.append(True))
    assert relieved == [True] and node.transaction.state()[0] == "etcd-started"


@pytest.mark.parametrize("urls", [[], ["https://127.0.0.1:2379", "http://127.0.0.1:2381"]])
def test_an_etcd_without_a_health_url_is_asked_by_its_client(node, monkeypatch, urls):
    """As with --listen-metrics-urls that nothing here reaches, and client URLs that speak gRPC only."""
    bring_to(node, "swapped")
    asked = []
    monkeypatch.setattr(steps, "_ASK_CLIENT_EVERY", 0.2)
    monkeypatch.setattr(steps, "etcd_health", lambda url, tls, query="": asked.append(url) or "")
    monkeypatch.setattr(control_plane, "remaining", lambda *args: [1])
    node.transaction.plan["health_urls"] = urls
    answers = [False, True]
    steps.start_etcd(node.transaction, {}, 5, lambda: None, lambda: answers.pop(0))
    assert node.transaction.state()[0] == "etcd-started" and not answers and set(asked) == set(urls)


def test_one_health_url_is_enough(node, monkeypatch):
    bring_to(node, "swapped")
    node.transaction.plan["health_urls"] = ["https://127.0.0.1:2379", "http://127.0.0.1:2381"]
    monkeypatch.setattr(steps, "etcd_health", lambda url, tls, query="": "true" if url.endswith(":2381") else "")
    steps.start_etcd(node.transaction, {}, 5)
    assert node.transaction.state()[0] == "etcd-started"


def test_while_there_is_no_quorum_one_url_is_asked_at_a_time(node, monkeypatch):
    """Each question takes two seconds then, and a client's ten."""
    bring_to(node, "swapped")
    node.transaction.plan["health_urls"] = ["http://127.0.0.1:2381", "https://127.0.0.1:2379"]
    answers, asked = ["slow", "slow", "true"], []
    monkeypatch.setattr(steps, "_ASK_CLIENT_EVERY", 0)
    monkeypatch.setattr(steps, "etcd_health", lambda url, tls, query="": asked.append(url + query) or answers.pop(0))
    steps.start_etcd(node.transaction, {}, 5, lambda: asked.append("relieved"), lambda: asked.append("client"))
    assert asked == ["http://127.0.0.1:2381"] * 3
