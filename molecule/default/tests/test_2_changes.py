# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plan of a restore says of selected objects, on a cluster that serves: their fields, no Secret, and nothing that stays."""

from __future__ import annotations

import json
import re
import subprocess
import types

import pytest
from cluster import wait_for
from restore_sandbox import keys, left

SPACE = "differs"
SELECTED = {"etcd_restore_changes": [{"namespace": SPACE}]}


def config(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": SPACE}, "data": data}


def secret(value):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": SPACE}, "stringData": {"password": value}}


def web(cluster, image):
    """A Deployment without Pods, whose image is never pulled."""
    found = cluster.workload("web", SPACE, "marker-differs", replicas=0)
    found["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return found


def apply(cluster, *objects):
    """Apply objects, and wait until their controllers have done all that follows."""
    cluster.apply(*objects)

    def is_done():
        found = cluster.get("-n", SPACE, "deployment/web")
        return found["status"].get("observedGeneration") == found["metadata"]["generation"]

    wait_for(is_done, 60, "the Deployment is observed")


def plan(cluster, *args, selected=SELECTED, **how):
    """What the play said, and the lines of the plan."""
    process = cluster.playbook("restore.yml", "-l", "cp1", "--check", "-e", json.dumps(selected), *args, **how)
    [message] = [json.loads(found) for found in re.findall(r'"msg": (\[\n.*?\n    \])', process.stdout, re.DOTALL) if "RESTORE of" in found]
    return process.stdout, message


def of_changes(lines):
    """Those from CHANGES on."""
    return lines[[line.split()[0] for line in lines].index("CHANGES") :]


@pytest.fixture(scope="module")
def planned(cluster, cp1):
    """The namespace at the time of the snapshot and now, and what --check says of the difference."""
    cluster.kubectl("delete", "namespace", SPACE, "--ignore-not-found", "--wait", timeout=180)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    apply(cluster, config("settings", color="blue"), config("same", a="b"), config("gone", a="b"), secret("s3cr3t-value"), web(cluster, "none.test/web:1"))
    report = types.SimpleNamespace(snapshot=cluster.snapshot())
    apply(cluster, config("settings", color="red", size="{{ 7 * 7 }}"), config("new", a="b"), secret("an0ther-s3cr3t"), web(cluster, "none.test/web:2"))
    cluster.kubectl("-n", SPACE, "delete", "configmap", "gone")
    report.before = keys(cluster)
    with cluster.probe("/readyz") as probe:
        report.output, report.lines = plan(cluster)
    report.gaps = probe.gaps()
    report.after, report.left = keys(cluster), left(cp1)
    yield report
    cluster.kubectl("delete", "namespace", SPACE, "--ignore-not-found", "--wait=false")


def test_the_plan_says_what_changes_in_objects(planned):
    said = of_changes(planned.lines)
    assert said[0].startswith("CHANGES   1 re-created, 1 deleted, 3 modified, ")
    assert said[1:5] == ["Re-created (1):", "  ConfigMap differs/gone", "Deleted (1):", "  ConfigMap differs/new"]
    assert said[5] == "Modified (3):"
    for line in ("  ConfigMap differs/settings", '    data.color: "red", in the snapshot "blue"', "  Secret differs/key", "    data.password"):
        assert line in said
    assert '    spec.template.spec.containers[0].image: "none.test/web:2", in the snapshot "none.test/web:1"' in said
    # under the comparison of keys
    assert any(line.startswith("OBJECTS   ") for line in planned.lines[: planned.lines.index(said[0])])


def test_no_value_of_a_secret_is_shown(planned):
    # also in base64
    for value in ("s3cr3t", "czNjcjN0", "YW4wdGhlci1zM2NyM3"):
        assert value not in planned.output


def test_a_value_is_not_evaluated(planned):
    assert "7 * 7" in planned.output and '"49' not in planned.output


def test_nothing_is_left_and_nothing_changed(planned):
    assert planned.left == []
    assert planned.after == planned.before
    assert [gap for gap in planned.gaps if gap.failures] == []


def test_without_the_option_nothing_is_served(cluster, planned):
    output, lines = plan(cluster, selected={})
    assert not [line for line in lines if line.startswith("CHANGES")]
    assert "Serve the snapshot" not in output


def test_a_snapshot_on_the_controller(cluster, cp1, planned, tmp_path):
    path = tmp_path / "etcd.db"
    for suffix in ("", ".json"):
        source = "%s:%s" % (cluster.nodes["cp1"], planned.snapshot + suffix)
        subprocess.run([cluster.engine, "cp", source, str(path) + suffix], check=True)
    lines = plan(cluster, "-e", "etcd_restore_snapshot=%s" % path)[1]
    assert of_changes(lines)[0].startswith("CHANGES   1 re-created, 1 deleted, 3 modified, ")
    assert left(cp1) == []


def test_what_is_served_for_another_run_goes_on(cluster, cp1, planned):
    other = cluster.snapshot()
    cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_snapshot=" + other)
    try:
        lines = plan(cluster, "-e", "etcd_restore_snapshot=" + planned.snapshot)[1]
        assert "this host serves a snapshot already" in of_changes(lines)[0]
        # the same one is read, and stays
        assert of_changes(plan(cluster, "-e", "etcd_restore_snapshot=" + other)[1])[0].startswith("CHANGES   0 re-created, 0 deleted, 0 modified, ")
        assert cp1.run("systemctl is-active k8s-dr-browse").stdout.strip() == "active"
    finally:
        cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_state=absent")
    assert left(cp1) == []


REFUSALS = {
    "port": ({"etcd_browse_port": 6443}, "port 6443 of 127.0.0.1 cannot be used on this host"),
    "time": ({"etcd_restore_changes_timeout": 1}, "CHANGES   not compared: "),
    "selection": ({"etcd_restore_changes": [{"name": "x"}]}, "entry 1 of the selection has a name only; add its kind or its namespace"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_compared_is_a_sentence_and_no_obstacle(cluster, cp1, planned, what):
    options, words = REFUSALS[what]
    output, lines = plan(cluster, "-e", "etcd_restore_snapshot=" + planned.snapshot, selected=dict(SELECTED, **options))
    assert words in " ".join(of_changes(lines))
    assert "all that could be checked early passed" in output
    assert left(cp1) == []


def test_a_cluster_that_is_as_in_the_snapshot(cluster, planned):
    lines = plan(cluster, "-e", "etcd_restore_snapshot=" + cluster.snapshot())[1]
    assert of_changes(lines)[0].startswith("CHANGES   0 re-created, 0 deleted, 0 modified, ")


def test_the_report_of_the_restore_keeps_it(cluster, planned, tmp_path):
    where = ("-e", "etcd_restore_snapshot=" + planned.snapshot, "-e", "etcd_restore_report_dir=%s" % tmp_path)
    cluster.restore(*where, "-e", json.dumps(SELECTED))
    [path] = tmp_path.glob("restore-*.json")
    report = json.loads(path.read_text())
    assert report["changes"]["compared"] and "  ConfigMap differs/settings" in report["changes"]["lines"]
    assert "s3cr3t" not in path.read_text()
    assert "ConfigMap differs/settings" in path.with_suffix(".html").read_text()
    assert cluster.get("-n", SPACE, "configmap/settings")["data"] == {"color": "blue"}
