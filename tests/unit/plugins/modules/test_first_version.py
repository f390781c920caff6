# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What commit 97e024d wrote about snapshots and restores is read; the steps of its restores are in ../module_utils/_restore."""

from __future__ import annotations

import json
import os
import pathlib
import re

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.unfinished_restore import unfinished_restore
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import fingerprints, levels, old_manifest, retention
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory, latest_verified
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_snapshot_metrics as metrics

FIRST = pathlib.Path(__file__).parents[2] / "fixtures" / "first"


@pytest.fixture
def directory(tmp_path):
    """A snapshot directory with one snapshot of theirs."""
    manifest = json.loads((FIRST / "snapshot-manifest.json").read_text())
    path = tmp_path / manifest["file"]
    with open(path, "wb") as stream:
        os.truncate(stream.fileno(), manifest["size"])
    path.with_name(path.name + ".json").write_text((FIRST / "snapshot-manifest.json").read_text())
    return tmp_path


def test_its_snapshot_is_listed_as_verified_and_kept(directory):
    [found] = SnapshotDirectory(str(directory)).snapshots()
    assert found["verified"] and found["problem"] is None
    assert (found["revision"], found["total_keys"], found["host"], found["etcd_version"]) == (6005764, 446, "cp1", "3.7.3")
    assert latest_verified([found]) == found["path"]
    manifest = Manifest.read(found["path"])
    assert levels.highest(manifest.levels) == "status" and manifest.distrust("it") is None
    # beside one of today, of the same cluster and host, it counts as older
    newer = dict(found, path=found["path"] + "2", created="2026-11-30T00:00:00Z", fingerprints=dict(found["fingerprints"], contents={}))
    assert retention.lineage(found) == retention.lineage(newer)
    assert retention.to_remove([newer, found], 1, newer) == [found["path"]]
    assert retention.to_remove([newer, found], 2, newer) == []


def test_its_fingerprints_of_whole_files_are_compared():
    """Today's have `contents` as well, which those of then cannot have."""
    then = json.loads((FIRST / "snapshot-manifest.json").read_text())["fingerprints"]
    assert "contents" not in then
    now = dict(then, contents={"ca": ["a1"], "etcd_ca": ["b1"], "service_account": ["c1"], "encryption_configuration": []})
    assert fingerprints.differences(then, now) == {"foreign": [], "lost": [], "unknown": []}
    found = fingerprints.differences(then, dict(now, ca="0" * 64))
    assert any(found.values()) and not found["lost"]


def test_its_restore_is_finished_with_what_its_record_says():
    about = json.loads((FIRST / "plan.json").read_text())["about"]
    left = {"id": "20261129T192715Z-4cd0", "state": "swapped", "kind": "restore", "hosts": about["hosts"], "about": about}
    node = {"etcd": {"name": "cp1"}, "retired": {}, "unfinished": [left], "transactions": [left]}
    given = {"unfinished": "resume", "snapshot": about["label"], "members": [], "lost_members": [], "off_site": "", "bump_revision": True}
    found = unfinished_restore([("cp1", node)], "cp1", given)
    assert found["resumed"] and found["about"] == about and not found["refusal"]


def test_its_metrics_are_read_under_their_names(tmp_path):
    path = tmp_path / metrics.FILE
    assert path.name == "k8s_dr_etcd_snapshot.prom"
    path.write_text((FIRST / "metrics.txt").read_text())
    text, before = metrics.read_before(str(path))
    assert before == {
        "runs_total": 42,
        "failures_total": 2,
        "last_success_timestamp_seconds": 1795980389,
        "last_off_site_timestamp_seconds": 1795980389,
    }
    new = metrics.expose(metrics.collect({"success": False, "seconds": 1.0, "off_site": False}, before, [], 1795990000), {"cluster": "first"})
    assert "runs_total{cluster=\"first\"} 43\n" in new and "failures_total{cluster=\"first\"} 3\n" in new
    # an alert that asks for a name of theirs finds it
    manifest = dict(old_manifest.current(json.loads((FIRST / "snapshot-manifest.json").read_text())), verified=True)
    new = metrics.expose(metrics.collect({"success": True, "seconds": 1.0, "off_site": True}, before, [manifest], 1795990000), {"cluster": "first"})
    names = re.compile(r"^(\w+)\{", re.MULTILINE)
    # but for the one with another name: the file is replaced by the next run
    assert set(names.findall(text)) - {"k8s_dr_etcd_snapshot_newest_rung"} <= set(names.findall(new))
    assert "k8s_dr_etcd_snapshot_newest_level{" in new
