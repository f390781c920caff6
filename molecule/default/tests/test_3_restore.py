# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/restore.yml -l cp1, after an accident; a second one; and back."""

from __future__ import annotations

import base64
import json
import re
import types

import pytest
from cluster import RESTORES, wait_for

MANIFESTS = ("etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")

# An API server that was lost long ago, in the snapshot only: its lease is a copy of a live one's, for another address.
STALE_API_SERVER = """
p=/etc/kubernetes/pki/etcd gone=/registry/masterleases/10.255.255.1
e="env ETCDCTL_API=3 /usr/local/bin/etcdctl --cacert=$p/ca.crt --cert=$p/server.crt --key=$p/server.key"
own=$($e get --prefix --keys-only /registry/masterleases/ | head -n 1)
if [ $0 = del ]; then $e del $gone; else $e get --print-value-only $own | head -c -1 | $e put $gone; fi
"""


@pytest.fixture(scope="module")
def restored(cluster):
    """A cluster after the accident and the restore; what it was like before."""
    report = types.SimpleNamespace()
    cluster.note("kept")
    cluster.note("changed", "as it was")
    cluster.note("deleted")
    cluster.apply(cluster.workload("lost", cluster.namespace, "marker-lost"))
    cluster.wait_running("lost", "marker-lost")
    cluster.run("cp1", "sh", "-c", STALE_API_SERVER, "put")
    report.snapshot = cluster.snapshot()
    cluster.run("cp1", "sh", "-c", STALE_API_SERVER, "del")

    cluster.note("changed", "by accident")
    cluster.kubectl("-n", cluster.namespace, "delete", "configmap/deleted", "deployment/lost")
    cluster.kubectl("-n", "shop", "delete", "secret/payment-key")
    cluster.note("late")
    cluster.apply(cluster.workload("late", cluster.namespace, "marker-late"))
    cluster.wait_running("late", "marker-late")
    cluster.wait_gone("marker-lost")

    report.before = len(cluster.transactions())
    report.revision = cluster.revision()
    report.live = cluster.live()
    with cluster.probe("/api/v1/namespaces/shop/configmaps/prices") as probe:
        report.output = cluster.restore().stdout
        cluster.wait_ready()
    report.gaps = probe.gaps()
    report.id = cluster.transactions()[-1].id
    print(report.gaps)
    return report


def test_what_was_deleted_is_back(cluster, restored):
    assert cluster.noted("kept") == "yes"
    assert cluster.noted("deleted") == "yes"
    assert cluster.get("-n", "shop", "secret/payment-key") is not None


def test_what_was_changed_is_as_it_was(cluster, restored):
    assert cluster.noted("changed") == "as it was"


def test_what_came_later_is_gone(cluster, restored):
    assert cluster.noted("late") is None
    assert cluster.get("-n", cluster.namespace, "deployment/late") is None


def test_no_client_is_sent_to_an_api_server_that_is_gone(cluster, restored):
    leases = [base64.b64decode(kv["key"]).decode() for kv in cluster.etcdctl("get", "--prefix", "--keys-only", "/registry/masterleases/")["kvs"]]
    address = re.search(r"--advertise-address=(\S+)", cluster.run("cp1", "cat", "/etc/kubernetes/manifests/kube-apiserver.yaml")).group(1)
    assert leases == ["/registry/masterleases/" + address]


@pytest.mark.parametrize("name", ["kube-controller-manager", "kube-scheduler"])
def test_no_controller_waits_for_a_leader_that_is_gone(cluster, restored, name):
    """Its lease would last for 15 s: it is another one, made since."""
    made = cluster.get("-n", "kube-system", "leases/" + name)["metadata"]["creationTimestamp"]
    assert made.replace("-", "").replace(":", "") > restored.id.rpartition("-")[0], (made, restored.id)


def test_the_lost_pods_run_again(cluster, restored):
    cluster.wait_running("lost", "marker-lost")


def test_pods_that_no_longer_exist_are_stopped(cluster, restored):
    cluster.wait_gone("marker-late")


def test_new_pods_are_scheduled_and_deleted_ones_stop(cluster, restored):
    cluster.apply(cluster.workload("new", cluster.namespace, "marker-new"))
    cluster.wait_running("new", "marker-new")
    cluster.kubectl("-n", cluster.namespace, "delete", "deployment/new")
    cluster.wait_gone("marker-new")


def test_the_member_has_its_real_address(cluster, cp1, restored):
    wanted = re.search(r"--initial-advertise-peer-urls=(\S+)", cp1.file("/etc/kubernetes/manifests/etcd.yaml").content_string).group(1)
    members = cluster.etcdctl("member", "list")["members"]
    assert [member["peerURLs"] for member in members] == [[wanted]]
    assert "localhost" not in wanted


def test_clients_see_a_revision_above_the_one_they_knew(cluster, restored):
    if "raised by" not in restored.output:
        pytest.skip("these tools cannot raise the revision")
    assert cluster.revision() > restored.revision


def test_the_live_data_has_the_modes_that_etcd_gives(cp1, restored):
    for path, mode in (("", 0o700), ("/member", 0o700), ("/member/snap", 0o700), ("/member/wal", 0o700), ("/member/snap/db", 0o600)):
        assert cp1.file("/var/lib/etcd" + path).mode == mode
        assert cp1.file("/var/lib/etcd" + path).user == "root"


def test_the_old_data_is_kept(cluster, cp1, restored):
    transactions = cluster.transactions()
    assert transactions[-1].state == "committed"
    assert cluster.live() != restored.live
    assert cp1.check_output("stat -c %%d:%%i %s/old/member/snap/db", transactions[-1].path) == restored.live
    assert cp1.file(transactions[-1].path).mode == 0o700


def test_the_manifests_are_where_they_were(cp1, restored):
    assert set(MANIFESTS) <= set(cp1.check_output("ls /etc/kubernetes/manifests").split())
    assert cp1.check_output("ls -d /etc/kubernetes/manifests*") == "/etc/kubernetes/manifests"


def test_the_api_was_away_for_less_than_a_minute(restored):
    for gap in restored.gaps:
        assert 0 < gap.seconds < 60, gap


def report_of(restored, kind):
    """The text of a report file, which only its owner may read."""
    path = RESTORES / ("restore-%s.%s" % (restored.id, kind))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    return path.read_text(encoding="utf-8")


def test_the_report_measured_what_we_measured(restored):
    report = json.loads(report_of(restored, "json"))
    assert (report["id"], report["result"], report["hosts"]) == (restored.id, "restored", ["cp1"])
    assert report["outage"]["complete"] is True
    ours = next(gap.seconds for gap in restored.gaps if gap.what == "readyz")
    assert abs(report["outage"]["seconds"] - ours) < 1.5
    # by the node's own log it is shorter: it ends when the node sees itself ready
    assert 0 < report["outage"]["inside"] < report["outage"]["seconds"] + 1


def test_the_report_says_when_each_phase_was(restored):
    report = json.loads(report_of(restored, "json"))
    phases = [phase["name"] for phase in report["phases"]]
    assert [name for name in phases if name != "safety snapshot"] == [
        *("preflight", "stage", "stop", "swap", "start etcd", "start API", "validate", "commit")
    ]
    assert all(phase["finished"] and phase["seconds"] >= 0 for phase in report["phases"])
    down = sum(phase["seconds"] for phase in report["phases"] if phase["name"] in ("stop", "swap", "start etcd", "start API"))
    assert down <= report["outage"]["inside"] + 0.1
    assert [state["state"] for state in report["nodes"][0]["states"]][-1] == "committed"


def test_the_report_says_what_was_restored_and_how_to_undo_it(restored):
    report = json.loads(report_of(restored, "json"))
    assert report["snapshot"]["path"] == restored.snapshot
    assert report["revision"]["before"] >= restored.revision
    assert report["revision"]["after"] >= report["revision"]["snapshot"] + report["revision"]["raised_by"]
    assert report["validated"]["nodes"] == len(report["hosts"])
    page = report_of(restored, "html")
    for words in (restored.snapshot, str(report["revision"]["after"]), str(report["revision"]["snapshot"]), report["undo"], report["nodes"][0]["old_data"]):
        assert words in page
        assert words in restored.output
    assert "-l cp1 -e etcd_restore_undo=true" in report["undo"]
    for path in report["files"].values():
        assert path in restored.output


def test_no_secret_was_shown(restored):
    for text in (restored.output, report_of(restored, "json"), report_of(restored, "html")):
        assert "PRIVATE KEY" not in text
        assert "not-a-real-key" not in text


def test_the_plan_said_what_would_be_lost_and_come_back(restored):
    said = {}
    for line in restored.output[: restored.output.index("Prepare the restore")].splitlines():
        words = line.strip(' -",').split()
        if len(words) > 4:
            said[words[0], words[2], words[3]] = words[4:]
    assert "late" in said["vanish", "configmaps", "molecule"]
    assert "late" in said["vanish", "deployments", "molecule"]
    assert "deleted" in said["reappear", "configmaps", "molecule"]
    assert "payment-key" in said["reappear", "secrets", "shop"]
    assert "changed" in said["change", "configmaps", "molecule"]


@pytest.fixture(scope="module")
def discarded(cp1, restored):
    """The manifest of the snapshot of what the restore discarded, and its path."""
    path = cp1.check_output("ls -t /var/backups/etcd/discarded/*.db | head -n 1")
    return dict(json.loads(cp1.file(path + ".json").content_string), path=path)


def test_there_is_a_verified_snapshot_of_the_discarded_data(cp1, restored, discarded):
    assert discarded["verified"] is True
    assert discarded["revision"] >= restored.revision
    assert discarded["path"] in restored.output
    assert discarded["sha256"] == cp1.file(discarded["path"]).sha256sum
    assert cp1.file(discarded["path"]).mode == 0o600


def test_the_discarded_data_is_restored_and_undone(cluster, cp1, restored, discarded):
    """A second restore, of what the first one discarded; then that one is undone: what was written between the two is back."""
    cluster.note("between")
    first = cluster.transactions()[-1]
    cluster.restore("-e", "etcd_restore_snapshot=" + discarded["path"])
    cluster.wait_ready()
    assert cluster.noted("late") == "yes"
    assert cluster.noted("changed") == "by accident"
    assert cluster.noted("deleted") is None
    assert cluster.noted("between") is None
    second = cluster.transactions()[-1]
    assert second.state == "committed"
    assert second.path != first.path
    assert cp1.file(first.path + "/old/member/snap/db").exists

    cluster.playbook("rollback.yml", "-l", "cp1", "-e", "etcd_restore_undo=true")
    cluster.wait_ready()
    assert cluster.noted("between") == "yes"
    assert cluster.noted("deleted") == "yes"
    assert cluster.noted("late") is None
    cluster.apply(cluster.workload("afterwards", cluster.namespace, "marker-afterwards"))
    cluster.wait_running("afterwards", "marker-afterwards")

    # with nothing to roll back it says so and does nothing
    live = cluster.live()
    cluster.playbook("rollback.yml", "-l", "cp1")
    assert cluster.live() == live
    # and the same undo again does not go back another generation
    cluster.playbook("rollback.yml", "-l", "cp1", "-e", "etcd_restore_undo=true")
    assert cluster.live() == live


def test_the_audit_of_the_cluster_is_clean(cluster, restored):
    cluster.playbook("validate.yml", "-l", "cp1")
    wait_for(
        lambda: all(item["status"]["phase"] == "Running" for item in cluster.get("-n", "shop", "pods")["items"]), 120, "the shop's Pods run"
    )
    assert json.loads(cluster.kubectl("get", "--raw", "/api/v1/namespaces/shop/configmaps/prices"))["data"]["apples"] == "3"
