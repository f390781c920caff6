# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A manifest as the commits before the present names of its keys wrote it."""

from __future__ import annotations

import json

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import list_transactions
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import old_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest

LEVEL = {"at": "2026-01-02T03:04:06Z", "ok": True, "seconds": 0.1, "problem": None}
OLD = {
    "format": 1,
    "file": "etcd-cp1-20260102T030405Z.db.zst.age",
    "created": "2026-01-02T03:04:05Z",
    "host": "cp1",
    "verified": True,
    "size": 4,
    "sha256": "0" * 64,
    "revision": 582,
    "rung": "status",
    "rungs": {"checksum": LEVEL, "status": dict(LEVEL, tool="etcdutl 3.6.5")},
    "census": {"prefix": "/registry/", "objects": {"pods": {"shop": 3}}, "names": {"nodes": ["cp1"]}},
    "census_problem": None,
    "seal": {"compression": "zstd", "encryption": "age", "recipients": ["age1a"]},
    "plain": {"size": 9, "sha256": "1" * 64},
}
RENAMED = {
    "level": OLD["rung"],
    "levels": OLD["rungs"],
    "inventory": OLD["census"],
    "inventory_problem": None,
    "packing": OLD["seal"],
}


def stored(tmp_path, manifest):
    path = tmp_path / OLD["file"]
    path.write_bytes(b"data")
    (tmp_path / (OLD["file"] + ".json")).write_text(json.dumps(manifest))
    return str(path)


def test_an_old_manifest_is_read_in_the_words_of_today(tmp_path):
    path = stored(tmp_path, OLD)
    found = Manifest.read(path).values
    assert {name: found[name] for name in RENAMED} == RENAMED and not set(found) & set(old_manifest.KEYS)
    assert {name: found[name] for name in set(OLD) - set(old_manifest.KEYS)} == {name: OLD[name] for name in set(OLD) - set(old_manifest.KEYS)}
    [entry] = SnapshotDirectory(str(tmp_path)).snapshots()
    assert entry["verified"] and entry["level"] == "status" and entry["packing"] == OLD["seal"]


def test_a_failure_that_an_old_manifest_notes_still_counts(tmp_path):
    stored(tmp_path, dict(OLD, rungs={"checksum": dict(LEVEL, ok=False, problem="it differs")}))
    [entry] = SnapshotDirectory(str(tmp_path)).snapshots()
    assert not entry["verified"] and "checksum" in entry["problem"] and "it differs" in entry["problem"]


def test_a_change_is_written_with_the_new_keys(tmp_path):
    stored(tmp_path, OLD)
    SnapshotDirectory(str(tmp_path)).note(OLD["file"], OLD["sha256"], levels={"restore": LEVEL})
    written = json.loads((tmp_path / (OLD["file"] + ".json")).read_text())
    assert written["level"] == "restore" and list(written["levels"]) == ["checksum", "restore", "status"]
    assert written["inventory"] == OLD["census"] and not set(written) & set(old_manifest.KEYS)


def test_the_new_key_counts_where_there_are_both():
    assert old_manifest.current({"level": "drill", "rung": "status"}) == {"level": "drill"}
    assert old_manifest.current([]) == []


def test_an_unfinished_restore_of_an_older_version_is_read(tmp_path):
    data_dir = tmp_path / "etcd"
    path = tmp_path / "etcd.restore" / "20260102T030405Z-old"
    path.mkdir(parents=True)
    about = {"hosts": ["cp1"], "manifest": {"revision": 582, "census": {"names": {"nodes": ["cp1"]}}}, "snapshot": {"rung": "drill"}}
    (path / "plan.json").write_text(json.dumps({"id": path.name, "about": about}))
    (path / "state").write_text("swapped 2026-01-02T03:04:05Z\n")
    [found] = list_transactions(DataLayout(str(data_dir)))
    assert found["about"]["manifest"] == {"revision": 582, "inventory": {"names": {"nodes": ["cp1"]}}}
    assert found["about"]["snapshot"] == {"level": "drill"} and found["hosts"] == ["cp1"]
