# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metrics, checked by Prometheus' own promtool."""

from __future__ import annotations

import pathlib
import subprocess

import harness
import servers
from test_snapshot_role import VERSION, play, with_tools
from test_upload import make

ALERTS = harness.ROOT / "docs" / "alerts.yml"
ALERTS_TEST = pathlib.Path(__file__).parent / "alerts_test.yml"


def promtool(*arguments, **more):
    return subprocess.run([servers.program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **more)


def assert_is_exposition(text):
    ended = promtool("check", "metrics", input=text)
    assert ended.returncode == 0 and ended.stdout + ended.stderr == "", text + ended.stdout + ended.stderr


def value(path, name, labels='{cluster="prod"}'):
    lines = [line for line in path.read_text().splitlines() if line.startswith("k8s_dr_etcd_snapshot_%s%s " % (name, labels))]
    return float(lines[0].split()[-1]) if lines else None


def test_the_alerts_fire_when_they_should(tmp_path):
    ended = promtool("check", "rules", ALERTS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text())
    (tmp_path / "alerts_test.yml").write_text(ALERTS_TEST.read_text())
    ended = promtool("test", "rules", tmp_path / "alerts_test.yml")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_metric_of_the_alerts_is_written(tmp_path):
    make(tmp_path / "backups", 2)
    (tmp_path / "textfile").mkdir()
    options = {"textfile_dir": tmp_path / "textfile", "directory": tmp_path / "backups", "success": True, "seconds": 1.5, "off_site": True}
    rc, predicted = harness.run_module("etcd_snapshot_metrics", check_mode=True, diff=True, **options)
    assert rc == 0 and predicted["changed"] and not list((tmp_path / "textfile").iterdir()), predicted
    rc, result = harness.run_module("etcd_snapshot_metrics", diff=True, **options)
    assert rc == 0, result
    text = pathlib.Path(result["path"]).read_text()
    assert_is_exposition(text)
    assert result["diff"]["after"] == text
    names = {word for word in ALERTS.read_text().replace("(", " ").replace("{", " ").replace("[", " ").replace(")", " ").split() if word.startswith("k8s_dr_")}
    names.discard("k8s_dr_etcd_snapshot")  # the group
    never = "k8s_dr_etcd_snapshot_last_drill_timestamp_seconds"
    assert {name for name in names if name not in text} <= {never} and len(names) == 7, names

    rc, result = harness.run_module("etcd_snapshot_metrics", **dict(options, textfile_dir=tmp_path / "nowhere"))
    assert rc == 1 and "is not a directory; give that of node_exporter's option" in result["msg"], result


def test_snapshot_yml_records_successes_and_failures(tmp_path):
    (tmp_path / "textfile").mkdir()
    path = tmp_path / "textfile" / "k8s_dr_etcd_snapshot.prom"

    def run(*arguments, **more):
        settings = {"etcd_snapshot_textfile_dir": str(tmp_path / "textfile"), "etcd_snapshot_metrics_labels": {"cluster": "prod"}}
        return play("playbooks/snapshot.yml", tmp_path, {"cp1": with_tools(etcd, tmp_path, **dict(settings, **more))}, *arguments)

    with harness.Etcd(VERSION, tmp_path) as etcd:
        harness.fill(etcd)
        rc, output, _recap = run("--check")
        assert rc == 0 and not path.exists(), output
        rc, output, _recap = run()
        assert rc == 0, output
        assert_is_exposition(path.read_text())
        assert (value(path, "runs_total"), value(path, "failures_total"), value(path, "last_run_success")) == (1, 0, 1)
        assert value(path, "stored", '{cluster="prod",verified="true"}') == 1 and value(path, "last_off_site_timestamp_seconds") is None
        taken = value(path, "newest_timestamp_seconds")
        assert 0 <= value(path, "last_success_timestamp_seconds") - taken < 120

        # the snapshot is whole on the node, and not where it was to go
        rc, output, _recap = run(etcd_snapshot_off_site=str(tmp_path / "no-such-share"))
        assert rc == 2 and "Nothing is lost" in output, output
        assert (value(path, "runs_total"), value(path, "failures_total"), value(path, "last_run_success")) == (2, 1, 0)
        assert value(path, "newest_timestamp_seconds") > taken

    rc, output, _recap = run()
    assert rc == 2 and "No snapshot was taken" in output, output
    assert (value(path, "runs_total"), value(path, "failures_total"), value(path, "last_run_success")) == (3, 2, 0)
    assert_is_exposition(path.read_text())

    path.unlink()
    (tmp_path / "textfile").rmdir()
    rc, output, _recap = run()
    assert rc == 2 and "No snapshot was taken" in output, output
