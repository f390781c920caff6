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
