# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module asks of a transaction."""

from __future__ import annotations

import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_restore_transaction as module


class FakeTransaction:
    """Notes what is asked of it."""

    path, plan = "/var/lib/etcd.restore/1", {"etcd_prefix": "/registry"}

    def __init__(self):
        self.done = []


def took(monkeypatch, **params):
    transaction = FakeTransaction()
    monkeypatch.setattr(module, "forward", lambda transaction, state, _params: transaction.done.append(state))
    monkeypatch.setattr(module.timer, "arm", lambda transaction, seconds: transaction.done.append(("armed", seconds)))
    monkeypatch.setattr(module, "remove_stale_masterleases", lambda *_args: [])
    answer = module.take(types.SimpleNamespace(params=dict({"step_timeout": 1, "rollback_after": 0, "hash_revision": 0}, **params)), transaction)
    return transaction.done, answer


@pytest.mark.parametrize("state", ["stopped", "swapped", "etcd_started"])
def test_the_timer_is_armed_before_anything_is_stopped(monkeypatch, state):
    assert took(monkeypatch, state=state, rollback_after=900) == ([("armed", 900), state], {})
    assert took(monkeypatch, state=state, rollback_after=0) == ([state], {})
    assert took(monkeypatch, state=state) == ([state], {})


def test_a_start_returns_the_facts_of_the_restored_etcd(monkeypatch):
    etcd = {"members_agreed": True, "members": [{"name": "cp1"}]}
    monkeypatch.setattr(module, "EtcdClient", lambda _params: None)
    monkeypatch.setattr(module, "ask", lambda _client: (etcd, None))
    assert took(monkeypatch, state="started") == (["started"], {"masterleases": [], "etcd": etcd})


def test_a_start_returns_the_hash_that_several_members_are_compared_by(monkeypatch):
    monkeypatch.setattr(module, "EtcdClient", lambda _params: types.SimpleNamespace(hash_kv=lambda revision: (7, 5, revision)))
    monkeypatch.setattr(module, "ask", lambda _client: ({"members_agreed": True, "hash": None}, None))
    assert took(monkeypatch, state="started")[1]["etcd"]["hash"] is None
    found = took(monkeypatch, state="started", hash_revision=600)[1]["etcd"]["hash"]
    assert found == {"revision": 600, "hash": 7, "compact_revision": 5, "reason": None}


def test_a_start_without_a_quorum_fails_with_what_etcd_says(monkeypatch):
    monkeypatch.setattr(module, "EtcdClient", lambda _params: None)
    monkeypatch.setattr(module, "ask", lambda _client: ({"members_agreed": False, "error": "etcd at https://127.0.0.1:2379: no leader"}, None))
    with pytest.raises(TransactionError, match="no leader"):
        took(monkeypatch, state="started")


@pytest.mark.parametrize("ended", [False, True])
def test_a_start_is_tried_beside_the_restore_where_it_is_wanted(monkeypatch, tmp_path, ended):
    """And where the task is cancelled, that is a failure as any other."""
    tool = types.SimpleNamespace(path="/bin/etcdutl", name="etcdutl", version="3.6.16", can_bump=True)
    trial, warned, staged = types.SimpleNamespace(reason="too little memory"), [], []

    def stage(*args):
        staged.append(args)
        if ended:
            raise module.signals.Ended(15)

    monkeypatch.setattr(module, "find_tools", lambda *_args: (None, tool))
    monkeypatch.setattr(module, "offline_tool", lambda *_args: tool)
    monkeypatch.setattr(module, "packed_file", lambda _path: None)
    monkeypatch.setattr(module.signals, "raise_when_ended", lambda: None)
    monkeypatch.setattr(module, "TrialStart", lambda *args: module.contextlib.nullcontext(trial))
    monkeypatch.setattr(module.steps, "stage", stage)
    transaction = types.SimpleNamespace(
        plan={"manifests_dir": str(tmp_path)}, layout=types.SimpleNamespace(transactions_dir="/var/lib/etcd.restore"), exists=lambda: True
    )
    params = dict.fromkeys(("etcdctl", "etcdutl", "timeout", "bump_revision"), None)
    params.update(dict.fromkeys(("name", "initial_cluster", "cluster_token", "peer_urls"), "x"))
    params.update(state="staged", snapshot="/b/a.db", sha256="5e", step_timeout=1, trial_timeout=180)
    fake = types.SimpleNamespace(params=params, warn=warned.append)
    if ended:
        with pytest.raises(TransactionError, match="was not restored beside the live data: it was ended by SIGTERM"):
            module.take(fake, transaction)
        return
    assert module.take(fake, transaction) == {"start": {"tested": False, "reason": "too little memory"}}
    assert warned == ["it was not tested whether etcd starts on /b/a.db: too little memory"]
    trial.reason = None
    assert module.take(fake, transaction) == {"start": {"tested": True, "reason": None}}
    params["trial_timeout"] = 0
    assert module.take(fake, transaction) == {}
    assert [args[6:] for args in staged] == [(trial, "5e"), (trial, "5e"), (None, "5e")] and len(warned) == 1
