# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.snapshot_table import age_of, snapshot_table

NOW = 1767409445  # 2026-01-03T03:04:05Z
GOOD = {
    "file": "etcd-cp1-20260102T030405Z.db",
    "path": "/b/etcd-cp1-20260102T030405Z.db",
    "created": "2026-01-02T03:04:05Z",
    "revision": 582,
    "size": 938016,
    "level": "drill",
    "verified": True,
    "problem": None,
}


def test_a_table():
    encrypted = dict(
        GOOD, file="etcd-cp1-20260103T020405Z.db", created="2026-01-03T02:04:05Z", packing={"compression": "zstd", "encryption": "age"}, level="status"
    )
    stranger = {"file": "etcd-x.db", "path": "/b/etcd-x.db", "size": None, "verified": False, "problem": "/b/etcd-x.db has no manifest"}
    found = snapshot_table({"cp1": [GOOD, stranger], "s3:backups": [encrypted, dict(GOOD, verified=False, problem="it is damaged")]}, NOW)
    assert found["lines"] == [
        "age     revision  size     level   packing   where       snapshot",
        "60 min  582       0.94 MB  status  zstd+age  s3:backups  etcd-cp1-20260103T020405Z.db",
        "24 h    582       0.94 MB  drill   -         cp1         etcd-cp1-20260102T030405Z.db",
        "24 h    582       0.94 MB  NO      -         s3:backups  etcd-cp1-20260102T030405Z.db",
        "?       ?         ?        NO      -         cp1         etcd-x.db",
        "s3:backups: it is damaged",
        "cp1: /b/etcd-x.db has no manifest",
        "4 snapshots, 2 of them verified, the newest 60 min old",
    ]
    assert [row["age"] for row in found["snapshots"]] == [3600, 86400, 86400, None]


def test_a_held_snapshot():
    held = dict(GOOD, hold={"reason": "before {{ x }}", "by": "alice", "at": "2026-01-02T04:00:00Z"})
    found = snapshot_table({"cp1": [held], "s3:backups": [GOOD]}, NOW)
    assert found["lines"][1].endswith("cp1         etcd-cp1-20260102T030405Z.db (held)") and not found["lines"][2].endswith("(held)")
    # text from elsewhere is no template
    words = "held since 2026-01-02T04:00:00Z by alice: before { { x }}"
    assert found["lines"][3] == "cp1: etcd-cp1-20260102T030405Z.db is " + words
    assert [row["held"] for row in found["snapshots"]] == [words, ""]


def test_no_snapshots():
    assert snapshot_table({}, NOW)["lines"][-1] == "0 snapshots, 0 of them verified"


def test_ages():
    assert [age_of(seconds) for seconds in (0, 119, 120, 7199, 7200, 172799, 172800, -300, None)] == [
        "0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d", "in 5 min", "?",
    ]  # fmt: skip
