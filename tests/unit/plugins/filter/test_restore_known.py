# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the decisions of a restore are given, from the variables of a play."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter import restore_known as module
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_known import restore_known
from jinja2.runtime import Undefined, missing

SWITCHES = dict.fromkeys(module.SWITCHES.values(), "no")
OPTIONS = {
    "etcd_restore_members": [],
    "etcd_restore_lost_members": [],
    "etcd_restore_max_age_days": 0,
    "etcd_restore_snapshot_dir": "/b",
    "etcd_restore_keep": 3,
}
ROLE = {
    "__etcd_restore_hosts": ["cp1"],
    "__etcd_restore_voters": ["cp1", "cp2"],
    "__etcd_restore_first": "cp1",
    "__etcd_restore_asked": {"snapshot": "", "off_site": "s3:dr"},
    "__etcd_restore_wanted": "",
    "etcd_client_manifests_dir": "/manifests",
    "ansible_check_mode": True,
    "ansible_forks": 5,
}
HOSTVARS = {
    "cp1": {"__etcd_restore_node": {"host": "a"}, "__etcd_restore_live": {"revision": 7}, "__etcd_restore_before": {"validation": {"ok": True}}},
    "cp2": {"__etcd_restore_node": {"host": "b"}, "etcd_restore_rollback_after": 60, "__etcd_restore_tools": {"save": "etcdctl"}},
}


class Context:
    def __init__(self, **more):
        self.variables = dict(SWITCHES, **OPTIONS, **ROLE, etcd_restore_rollback_after=900)
        self.variables.update(more)

    def resolve_or_missing(self, name):
        return self.variables.get(name, missing)


def known(hostvars=HOSTVARS, **more):
    return restore_known(Context(**more), ["cp1", "cp2"], hostvars)


def test_what_every_host_has_is_known_by_its_name():
    found = known()
    assert found["nodes"] == {"cp1": {"host": "a"}, "cp2": {"host": "b"}}
    assert found["live"] == {"cp1": {"revision": 7}, "cp2": {}}
    assert found["tools"] == {"cp1": {}, "cp2": {"save": "etcdctl"}}
    assert found["before"] == {"cp1": {"ok": True}, "cp2": {}}
    # a host of the inventory may have a time of its own
    assert found["rollback_after"] == {"cp1": 900, "cp2": 60}
    assert (found["restored"], found["voters"], found["first"], found["off_site"]) == (["cp1"], ["cp1", "cp2"], "cp1", "s3:dr")


@pytest.mark.parametrize(("given", "wanted"), [("yes", True), (True, True), ("false", False), ("", False), (0, False)])
def test_switches_are_true_or_false_however_they_were_given(given, wanted):
    assert known(etcd_restore_foreign=given)["options"]["foreign"] is wanted


def test_nothing_is_known_of_a_snapshot_before_one_was_chosen():
    unused = {"__etcd_restore_proof": {"snapshot": {}}, "__etcd_restore_label": "x", "__etcd_restore_origin": "y"}
    found = known(**unused)
    assert (found["source"], found["proof"], found["label"], found["origin"], found["path"]) == ("", {}, "", "", "")
    found = known(__etcd_restore_source="cp1", __etcd_restore_file="/b/a.db", **unused)
    assert (found["source"], found["proof"], found["label"], found["origin"], found["path"]) == ("cp1", {"snapshot": {}}, "x", "y", "/b/a.db")


def test_a_variable_without_a_value_is_as_one_that_is_not_there():
    hostvars = dict(HOSTVARS, cp1=dict(HOSTVARS["cp1"], __etcd_restore_live=Undefined(name="x")))
    assert known(hostvars)["live"]["cp1"] == {}
    assert known(__etcd_restore_membership=Undefined(name="x"))["membership"] == {}


def test_a_file_of_the_controller(tmp_path):
    path = tmp_path / "a.db"
    assert known(__etcd_restore_wanted=str(path))["on_controller"] == {"exists": False, "path": str(path), "manifest": False}
    path.touch()
    (tmp_path / "a.db.json").touch()
    (tmp_path / "link").symlink_to(path)
    assert known(__etcd_restore_wanted=str(path))["on_controller"] == {"exists": True, "path": str(path), "manifest": True}
    assert known(__etcd_restore_wanted=str(tmp_path / "link"))["on_controller"]["path"] == str(path)


def test_the_ca_of_the_cluster_that_the_controller_runs_in(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OWN_CA", str(tmp_path / "ca.crt"))
    assert known()["own_ca"] == ""
    (tmp_path / "ca.crt").write_bytes(b"pem\n")
    assert known()["own_ca"] == hashlib.sha256(b"pem\n").hexdigest()
