# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import read_only_etcd
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused


def written_by(user):
    """The prefixes that a user may write."""
    found = [body["perm"] for what, body in read_only_etcd.rules("/registry/") if what == "auth/role/grant" and body["name"] == user]
    assert [perm for perm in found if perm["permType"] == "READ"] == [{"permType": "READ", "key": "AA==", "range_end": "AA=="}]
    assert not [perm for perm in found if perm["permType"] not in ("READ", "READWRITE")]
    return [[base64.b64decode(perm[end]).decode() for end in ("key", "range_end")] for perm in found if perm["permType"] == "READWRITE"]


def test_what_shows_the_snapshot_writes_only_what_no_api_shows():
    assert written_by(read_only_etcd.READING) == [["/registry/ranges/", "/registry/ranges0"]]


def test_what_completes_it_writes_only_what_the_api_server_makes_by_itself():
    assert {first for first, _end in written_by(read_only_etcd.COMPLETING)} == {"/registry/ranges/"} | {
        "/registry/" + place for place in read_only_etcd.COMPLETED
    }


def test_authentication_is_enabled_last():
    asked = list(read_only_etcd.rules("/other/"))
    assert asked[-1] == ("auth/enable", {}) and [what for what, _body in asked].count("auth/enable") == 1
    # etcd enables it only where root has the role root
    assert ("auth/user/grant", {"user": "root", "role": "root"}) in asked
    # without a password only a certificate can be these users
    assert all(body["options"] == {"no_password": True} for what, body in asked if what == "auth/user/add")


class Answers(read_only_etcd.Gateway):
    """A gateway whose answers are given."""

    def __init__(self, answers):
        super().__init__("/nowhere")
        self.answers = answers
        self.asked = []

    def ask(self, what, question, timeout=10):
        self.asked.append(what)
        return self.answers(what, self.asked)


def test_what_is_there_already_is_no_error():
    def answers(what, asked):
        if "auth/enable" in asked and what == "kv/range":
            return 400, "etcdserver: user name is empty"
        return (400, "etcdserver: role name already exists") if what == "auth/role/add" else (200, "{}")

    Answers(answers).lock("/registry/")


def test_an_etcd_that_still_answers_is_refused():
    with pytest.raises(Refused, match="etcd answers without a user"):
        Answers(lambda what, asked: (200, "{}")).lock("/registry/")


def test_a_refusal_of_the_access_control_is_told():
    with pytest.raises(Refused, match="does not take its access control: auth/role/add: etcdserver: no space"):
        Answers(lambda what, asked: (500, "etcdserver: no space")).lock("/registry/")


def test_a_snapshot_with_users_is_refused():
    with pytest.raises(Refused, match="etcd with authentication enabled"):
        Answers(lambda what, asked: (400, "etcdserver: user name is empty")).revision()


def test_the_revision_is_waited_for():
    text = json.dumps({"header": {"revision": "77"}})
    assert Answers(lambda what, asked: (200, text) if len(asked) > 2 else (503, "")).wait(float("inf"), lambda: True) == 77
    with pytest.raises(Refused, match="does not start"):
        Answers(lambda what, asked: (503, "")).wait(float("inf"), lambda: False)
    with pytest.raises(Refused, match="in time"):
        Answers(lambda what, asked: (503, "")).wait(0, lambda: True)
