# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What etcd_member decides; tests/integration/test_member.py has it decide about real clusters."""

from __future__ import annotations

import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_member


def member(number, healthy=True, **more):
    url = "https://192.0.2.1%d" % number
    known = {"id": "a%d" % number, "name": "m%d" % number, "peer_urls": [url + ":2380"], "client_urls": [url + ":2379"], "is_learner": False, "started": True}
    return dict(known, healthy=healthy, **more)


class Cluster(etcd_member.Cluster):
    """One that was asked already, through m1."""

    def __init__(self, members, version="3.5.16"):
        self.members = members
        self.status = {"member_id": "a1", "version": version}


def module(**params):
    known = {"name": "m9", "peer_urls": ["https://192.0.2.19:2380"], "state": "learner", "id": None, "wait_timeout": 0, "required": True}
    return types.SimpleNamespace(params=dict(known, **params), check_mode=True)


@pytest.mark.parametrize(
    ("healths", "victim", "fine"),
    [
        ((True, True, True), 2, True),
        ((True, True, False), 3, True),
        # a majority of the two that are left is both
        ((True, True, False), 2, False),
        ((True, True, True, False, False), 4, True),
        ((True, True, True, False, False), 2, False),
        ((True, False), 2, True),
    ],
)
def test_a_removal_leaves_a_healthy_majority(healths, victim, fine):
    members = [member(number + 1, healthy) for number, healthy in enumerate(healths)]
    asked = module(name="m%d" % victim, peer_urls=[], state="absent")
    if fine:
        assert etcd_member.remove(asked, Cluster(members)) == [members[victim - 1]]
    else:
        with pytest.raises(etcd_member.Refused, match="no quorum; nothing was removed"):
            etcd_member.remove(asked, Cluster(members))


def test_a_learner_does_not_count_for_the_quorum():
    members = [member(1), member(2, False), member(3, is_learner=True)]
    assert etcd_member.remove(module(name="m3", state="absent"), Cluster(members)) == [members[2]]


def test_the_member_that_is_asked_does_not_remove_itself():
    with pytest.raises(etcd_member.Refused, match="ask another one"):
        etcd_member.remove(module(name="m1", state="absent"), Cluster([member(1), member(2)]))


@pytest.mark.parametrize(
    ("members", "params", "words"),
    [
        ([member(1), member(2, False), member(3)], {}, "etcdctl member remove a2"),
        ([member(1), member(2, False), member(3), member(4)], {}, "only while 4 of these 4 voters run"),
        ([member(1), member(2, is_learner=True)], {}, "one learner at a time"),
        ([member(1)], {"state": "voter"}, "cluster of 1 without a quorum"),
    ],
)
def test_an_addition_that_is_refused(members, params, words):
    with pytest.raises(etcd_member.Refused, match=words) as refusal:
        etcd_member.add(module(**params), Cluster(members))
    assert "nothing was added" in str(refusal.value)


def test_of_four_voters_one_may_be_down_for_a_later_etcd():
    members = [member(1), member(2, False), member(3), member(4)]
    assert etcd_member.add(module(), Cluster(members, "3.6.16"))["is_learner"] is True
    with pytest.raises(etcd_member.Refused, match="only while 3 of these 3 voters run"):
        etcd_member.add(module(), Cluster(members[:3], "3.6.16"))


def test_learners_are_younger_than_some_servers():
    with pytest.raises(etcd_member.Refused, match="knows no learners"):
        etcd_member.add(module(), Cluster([member(1)], "3.3.25"))
    assert etcd_member.add(module(state="voter"), Cluster([member(1), member(2)], "3.3.25"))["is_learner"] is False


def test_an_entry_is_known_by_its_name_and_its_addresses():
    params = module(name="m2", peer_urls=["https://192.0.2.12:2380/"]).params
    assert etcd_member.find(params, [member(1), member(2)])["id"] == "a2"
    assert etcd_member.find(params, [member(1), member(2, name="", started=False)])["name"] == "m2"
    assert etcd_member.find(params, [member(1), member(3)]) is None
    for other in (member(2, name="m3"), member(3, name="m2")):
        with pytest.raises(etcd_member.Refused, match="remove it first"):
            etcd_member.find(params, [member(1), other])


def test_every_member_has_a_name_of_its_own_in_the_initial_cluster():
    unstarted = member(3, name="", started=False, peer_urls=["https://192.0.2.13:2380", "https://192.0.2.23:2380"])
    new = {"id": "", "name": "m9", "peer_urls": ["https://192.0.2.19:2380"]}
    assert Cluster([member(1), unstarted]).initial_cluster(new).split(",") == [
        "m1=https://192.0.2.11:2380",
        "m9=https://192.0.2.19:2380",
        "unstarted-a3=https://192.0.2.13:2380",
        "unstarted-a3=https://192.0.2.23:2380",
    ]


class Step:
    """What fails so often, with these words."""

    def __init__(self, times, words):
        self.left, self.words, self.taken = times, words, 0

    def __call__(self):
        self.taken += 1
        if self.taken <= self.left:
            raise ToolError("etcd at x: `etcdctl y` ended with code 1: Error: etcdserver: " + self.words)


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(etcd_member, "_POLL", 0.01)


@pytest.mark.parametrize("words", ["unhealthy cluster", "can only promote a learner member which is in sync with leader", "request timed out"])
def test_transient_errors_are_retried(hurry, words):
    step = Step(3, words)
    etcd_member.again(step, lambda: False, 30)
    assert step.taken == 4
    with pytest.raises(ToolError, match=words):
        etcd_member.again(Step(1000, words), lambda: False, 0.05)


def test_permanent_errors_are_not_retried(hurry):
    step = Step(3, "permission denied")
    with pytest.raises(ToolError, match="permission denied"):
        etcd_member.again(step, lambda: False, 30)
    assert step.taken == 1


def test_a_step_that_timed_out_may_have_succeeded(hurry):
    step = Step(1, "request timed out")
    etcd_member.again(step, lambda: True, 30)
    assert step.taken == 1
