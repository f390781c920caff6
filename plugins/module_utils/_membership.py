# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The members of a cluster as the database of one of them names them, whether its etcd runs or not.  Private to this collection."""

from __future__ import annotations

import json
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot_file import SnapshotFile

_MEMBERS, _REMOVED, _KEYS = b"members", b"members_removed", b"key"


def on_disk(data_dir):
    """(members as EtcdClient.members() has them, revision) of a data directory; ([], 0) when nothing is to be read.

    etcd writes members and keys to its log first and to the database up to 0.1 s later.  Never raises.
    """
    with SnapshotFile(os.path.join(data_dir, "member", "snap", "db")) as database:
        found = database.glance((_MEMBERS, _REMOVED), last=(_KEYS,)) or {}
    removed = found.get(_REMOVED, {})
    members = [_member(key, value) for key, value in sorted(found.get(_MEMBERS, {}).items()) if key not in removed]
    revisions = [int.from_bytes(key[:8], "big") for key in found.get(_KEYS, {}) if len(key) in (17, 18)]
    return [member for member in members if member], max(revisions or [0])


def _member(key, value):
    """What etcd stores below a member's id; None for what is none."""
    try:
        stored = json.loads(value.decode("utf-8"))
        return {
            "id": "%x" % int(key.decode("ascii"), 16),
            "name": str(stored.get("name") or ""),
            "peer_urls": [str(url) for url in stored.get("peerURLs") or []],
            "client_urls": [str(url) for url in stored.get("clientURLs") or []],
            "is_learner": bool(stored.get("isLearner", False)),
        }
    except (ValueError, AttributeError, TypeError):
        return None
