# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of snapshots that could not be deleted or held; tests/integration/test_hold.py has whole ones."""

from __future__ import annotations

import contextlib
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_snapshot_delete, etcd_snapshot_hold

NAME = "etcd-cp1-20260102T030405Z.db"
SNAPSHOT = {"file": NAME, "path": "far:" + NAME, "size": 4, "created": "2026-01-02T03:04:05Z", "verified": False, "problem": "it is gone", "host": "cp1"}


def place(kind="unknown", until=None, **more):
    def remove(dummy, dummy_until):
        raise RcloneError("it went wrong", kind)

    return types.SimpleNamespace(
        shared=True,
        path="far:",
        locked=lambda dummy: contextlib.nullcontext(),
        tidy=lambda: None,
        snapshots=lambda: [dict(SNAPSHOT, **more)],
        locked_until=lambda dummy: {NAME: until},
        remove=remove,
    )


@pytest.mark.parametrize(
    "kind, outcome",
    [
        ("undeletable", NAME + " was not deleted"),
        ("immutable", NAME + " was not deleted"),
        ("unreachable", "The deletion of far:%s is not complete; the same call completes it" % NAME),
    ],
)
def test_a_deletion_that_fails(monkeypatch, kind, outcome):
    params = {"name": NAME, "force": False, "required": True, "etcd_ca": "any", "manifests_dir": "/nonexistent", "remote": "far:"}
    monkeypatch.setattr(etcd_snapshot_delete.storage, "of", lambda dummy: place(kind))
    begun = []
    with pytest.raises(RcloneError) as caught:
        etcd_snapshot_delete.run(types.SimpleNamespace(params=params, check_mode=False), begun)
    assert etcd_snapshot_delete.with_outcome(params, str(caught.value), begun) == "it went wrong. " + outcome


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_is_locked_is_not_deleted(monkeypatch, check_mode):
    params = {"name": NAME, "force": True, "required": True, "etcd_ca": "any", "manifests_dir": "/nonexistent", "remote": "far:"}
    module = types.SimpleNamespace(params=params, check_mode=check_mode)
    monkeypatch.setattr(etcd_snapshot_delete.storage, "of", lambda dummy: place(until="2999-01-02T03:04:05Z"))
    with pytest.raises(Refused, match="is protected by S3 Object Lock until 2999-01-02T03:04:05Z, and cannot be deleted before"):
        etcd_snapshot_delete.run(module, [])
    # a lock that has ended
    monkeypatch.setattr(etcd_snapshot_delete.storage, "of", lambda dummy: place(until="2026-01-02T03:04:05Z"))
    if check_mode:
        assert etcd_snapshot_delete.run(module, [])["changed"]
    else:
        with pytest.raises(RcloneError, match="it went wrong"):
            etcd_snapshot_delete.run(module, [])


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_is_gone_is_not_held(monkeypatch, check_mode):
    params = {"name": NAME, "required": True, "state": "present", "reason": None, "by": "alice"}
    monkeypatch.setattr(etcd_snapshot_hold.storage, "of", lambda dummy: place(size=None))
    with pytest.raises(Refused, match="it is gone"):
        etcd_snapshot_hold.run(types.SimpleNamespace(params=params, check_mode=check_mode))
