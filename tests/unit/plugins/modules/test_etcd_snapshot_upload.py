# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots of a directory need not be uploaded again."""

from __future__ import annotations

import types
from unittest import mock

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_snapshot_upload

NAME = "etcd-cp1-20260102T030405Z.db"
NEWER = "etcd-cp1-20260103T030405Z.db"
ENTRY = {"file": NAME, "size": 10, "created": "2026-01-02T03:04:05Z", "off_site": [{"remote": "far:backups", "file": NAME}]}
WHOLE = {NAME: 10, NAME + ".json": 500}


FAR = types.SimpleNamespace(where="far:backups")


def stays(sizes, found=(), entry=ENTRY):
    """found: what a list says, or the exception that it raises."""
    with mock.patch.object(etcd_snapshot_upload.remote_snapshots, "list_snapshots", side_effect=[found]):
        failed = etcd_snapshot_upload.failed_there(FAR, sizes, [entry])
    return etcd_snapshot_upload.stays_away(entry, FAR, sizes, failed, etcd_snapshot_upload.newest_there(sizes))


def test_a_copy_that_is_correct():
    assert stays(WHOLE, [{"file": NAME, "levels": {"checksum": {"ok": True}}}])
    # what was never noted has to be looked at
    assert not stays(WHOLE, entry=dict(ENTRY, off_site=[]))
    # unreadable manifests keep nothing here, and upload nothing
    assert stays(WHOLE, RcloneError("no route", "unreachable"))


def test_a_copy_that_is_wrong():
    assert not stays(dict(WHOLE, **{NAME: 9}))
    assert not stays({NAME: 10})
    assert not stays(WHOLE, [{"file": NAME, "levels": {"checksum": {"ok": False, "at": "", "problem": ""}}}])


def test_a_copy_that_is_missing():
    assert not stays({})
    assert not stays({NAME + ".json": 500})
    # as retention removes it
    assert stays({NEWER: 10})
