# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.browse_report import browse_report
from ansible_collections.k8s_dr.etcd.plugins.filter.browse_source import browse_source

NONE = [{}, {}]


def listed(*snapshots):
    return {"snapshots": [{"path": path, "created": created, "verified": verified} for path, created, verified in snapshots]}


def test_the_newest_verified_snapshot_of_all_hosts():
    lists = [listed(("/b/1.db", "2026-01-01", True)), listed(("/b/3.db", "2026-01-03", False), ("/b/2.db.zst.age", "2026-01-02", True))]
    assert browse_source(["cp1", "cp2"], lists, NONE) == {"host": "cp2", "source": "cp2", "path": "/b/2.db.zst.age", "packed": True, "refusal": ""}


def test_of_the_same_second_that_of_the_first_host():
    lists = [listed(("/b/1.db", "2026-01-01", True)), listed(("/b/2.db", "2026-01-01", True))]
    assert browse_source(["cp1", "cp2"], lists, NONE)["path"] == "/b/1.db"


def test_a_named_one_on_a_host_before_one_on_the_controller(tmp_path):
    path = tmp_path / "x.db"
    path.write_text("")
    there = [{"stat": {"exists": False}}, {"stat": {"exists": True}}]
    assert browse_source(["cp1", "cp2"], NONE, there, str(path))["source"] == "cp2"
    found = browse_source(["cp1", "cp2"], NONE, NONE, str(path))
    assert (found["host"], found["source"], found["path"], found["packed"]) == ("cp1", "localhost", str(path), False)


@pytest.mark.parametrize(
    ("wanted", "words"), [("/none.db", "/none.db exists neither on cp1, cp2 nor on the controller"), ("", "There is no verified snapshot on")]
)
def test_without_a_snapshot_it_says_so(wanted, words):
    found = browse_source(["cp1", "cp2"], NONE, NONE, wanted)
    assert words in found["refusal"] and found["path"] == "" and found["host"] == "cp1"


RESULT = {
    "revision": 12,
    "kubeconfig": "/run/x/kubeconfig",
    "kubernetes_version": "1.37.2",
    "expires": "2026-01-02T03:34:05Z",
    "completed": False,
    "unreadable": None,
}


def test_the_report_ends_with_the_command():
    first, command = browse_report(RESULT, "cp1", "/b/1.db")
    assert first == "/b/1.db, revision 12, is served read-only on cp1 by kube-apiserver 1.37.2 until 2026-01-02T03:34:05Z. As root on cp1:"
    assert command == "kubectl --kubeconfig /run/x/kubeconfig get all -n default"


def test_what_is_not_of_the_snapshot_and_what_cannot_be_read_is_reported():
    lines = browse_report(dict(RESULT, completed=True, unreadable="no key {{ x }}"), "cp1", "/b/1.db")
    assert "a resourceVersion above 12 are not of the snapshot" in lines[2]
    assert "can be read (no key { { x }})" in lines[3] and "etcd_browse_encryption_config=PATH" in lines[3]


def test_what_was_ended_for_it_is_reported():
    assert "with the SHA-256 aa. It was ended for this one." in browse_report(dict(RESULT, replaced="aa"), "cp1", "/b/1.db")[2]
    assert "It would end what is served there now, with the SHA-256 aa." in browse_report(dict(RESULT, revision=None, replaced="aa"), "cp1", "/b/1.db")


def test_check_mode_reports_what_would_be():
    assert browse_report(dict(RESULT, revision=None), "cp1", "/b/1.db") == ["/b/1.db would be served on cp1, which has all that this needs."]
