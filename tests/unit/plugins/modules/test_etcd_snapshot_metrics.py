# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_snapshot_metrics as module

NEWEST = {
    "path": "/b/2.db",
    "verified": True,
    "created": "2026-01-02T03:04:05Z",
    "size": 938016,
    "revision": 582,
    "level": "status",
    "levels": {"status": {"ok": True, "at": "2026-01-02T03:04:06Z"}},
}
DRILLED = dict(NEWEST, path="/b/1.db", created="2026-01-01T03:04:05Z", level="drill", levels={"drill": {"ok": True, "at": "2026-01-01T04:00:00Z"}})
FAILED = dict(DRILLED, path="/b/0.db", verified=False, levels={"drill": {"ok": False, "at": "2026-01-03T04:00:00Z"}})


def params(**more):
    return dict({"success": True, "seconds": 2.5, "off_site": None}, **more)


def test_metrics_of_the_newest_snapshot():
    found = module.collect(params(), {}, [FAILED, NEWEST, DRILLED], 1767500000)
    assert found == {
        "runs_total": 1,
        "failures_total": 0,
        "last_run_timestamp_seconds": 1767500000,
        "last_run_success": 1,
        "last_run_duration_seconds": 2.5,
        "last_success_timestamp_seconds": 1767500000,
        "last_drill_timestamp_seconds": 1767240000,
        "newest_timestamp_seconds": 1767323045,
        "newest_size_bytes": 938016,
        "newest_revision": 582,
        "newest_level": "status",
        "stored": {"true": 2, "false": 1},
    }


def test_a_failure_keeps_the_time_of_the_last_success():
    before = {"runs_total": 4, "failures_total": 1, "last_success_timestamp_seconds": 5, "last_off_site_timestamp_seconds": 6}
    found = module.collect(params(success=False, off_site=False, seconds=None), before, [], 100)
    assert (found["runs_total"], found["failures_total"], found["last_run_success"]) == (5, 2, 0)
    assert (found["last_success_timestamp_seconds"], found["last_off_site_timestamp_seconds"], found["last_run_timestamp_seconds"]) == (5, 6, 100)
    assert "newest_size_bytes" not in found and "last_drill_timestamp_seconds" not in found and found["stored"] == {"true": 0, "false": 0}
    assert module.collect(params(off_site=True), before, [], 100)["last_off_site_timestamp_seconds"] == 100


def test_the_time_of_the_last_drill_outlives_the_snapshot():
    before = {"last_drill_timestamp_seconds": 1767240000}
    assert module.collect(params(), before, [NEWEST], 1767900000)["last_drill_timestamp_seconds"] == 1767240000
    assert module.collect(params(), {"last_drill_timestamp_seconds": 5}, [DRILLED, FAILED], 1767900000)["last_drill_timestamp_seconds"] == 1767240000


def test_carried_over_values_are_those_that_were_written(tmp_path):
    path = tmp_path / module.FILE
    metrics = module.collect(params(off_site=True), {"runs_total": 7, "failures_total": 2}, [NEWEST, DRILLED], 1767500000)
    for labels in ({}, {"cluster": 'the "big" one\\n'}):
        path.write_text(module.expose(metrics, labels), encoding="utf-8")
        text, kept = module.read_before(str(path))
        assert kept == {name: metrics[name] for name in module.KEPT}
        assert text.endswith("\n")
        assert [one.name for one in tmp_path.iterdir()] == [module.FILE]
    assert 'k8s_dr_etcd_snapshot_newest_level{cluster="the \\"big\\" one\\\\n",level="status"} 1\n' in text
    assert 'k8s_dr_etcd_snapshot_newest_level{cluster="the \\"big\\" one\\\\n",level="drill"} 0\n' in text


@pytest.mark.parametrize("text", ["", "\0\0\0", "k8s_dr_etcd_snapshot_runs_total many\n", "runs_total 7\n"])
def test_a_damaged_metrics_file_is_replaced(tmp_path, text):
    path = tmp_path / module.FILE
    path.write_text(text)
    assert module.read_before(str(path))[1] == {}


@pytest.mark.parametrize("name", ["my-cluster", "1st", "", "__name__", "level", "verified"])
def test_labels_that_prometheus_does_not_take(name):
    with pytest.raises(module.Refused, match="`labels` has the name"):
        module.check_labels({name: "x"})
