# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""etcd_member with real clusters: members join, catch up, are promoted, die and are removed."""

from __future__ import annotations

import contextlib
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import members_on_disk


class Members:
    """A cluster that grows: every member has its ports before it exists."""

    def __init__(self, version, tmpdir, count, stack):
        self.version, self.tmpdir, self.stack = version, tmpdir, stack
        self.ports = iter(harness.free_ports(16))
        self.by_name = {}
        pairs = [(self.new("m%d" % number)) for number in range(1, count + 1)]
        cluster = ",".join("%s=%s" % (member.name, member.peer_url) for member in pairs)
        for member in pairs:
            member.initial_cluster = cluster
            stack.enter_context(member)
        assert all(member.ready() for member in pairs)

    def new(self, name):
        self.by_name[name] = harness.Etcd(
            self.version, self.tmpdir, name=name, initial_cluster="later", client_port=next(self.ports), peer_port=next(self.ports), wait=False
        )
        return self.by_name[name]

    def ask(self, who, state, via="m1", rc=0, **more):
        """Run the module; its answer, or its sentence when it is to fail."""
        member = self.by_name[who]
        args = dict(self.by_name[via].connection, name=who, peer_urls=[member.peer_url], state=state)
        code, result = harness.run_module("etcd_member", **dict(args, **more))
        assert code == rc, result
        return result if rc == 0 else result["msg"]

    def join(self, name, answer):
        """Start a member as what the module answered says."""
        member = self.by_name[name]
        member.initial_cluster, member.flags = answer["initial_cluster"], ["--initial-cluster-state=existing"]
        self.stack.enter_context(member)
        return member

    def listed(self, via="m1"):
        result = self.by_name[via].call("/v3/cluster/member/list")
        return {each.get("name", ""): bool(each.get("isLearner")) for each in result["members"]}


@pytest.fixture
def make(version, tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda count: Members(version, tmp_path, count, stack)


def test_a_member_joins_as_a_learner_and_is_promoted(make):
    cluster = make(1)
    harness.fill(cluster.by_name["m1"])
    cluster.new("m2")
    foreseen = cluster.ask("m2", "learner", check_mode=True, diff=True)
    assert (foreseen["changed"], foreseen["member"]["id"], foreseen["member"]["is_learner"]) == (True, "", True)
    assert "m2" not in foreseen["diff"]["before"]
    assert "m2 %s learner unstarted" % cluster.by_name["m2"].peer_url in foreseen["diff"]["after"]
    assert cluster.listed() == {"m1": False}

    added = cluster.ask("m2", "learner", diff=True)
    assert added["changed"] is True
    assert added["diff"] == foreseen["diff"]
    assert (added["member"]["is_learner"], added["member"]["started"]) == (True, False)
    assert added["initial_cluster"] == foreseen["initial_cluster"]
    pairs = {"%s=%s" % (name, cluster.by_name[name].peer_url) for name in ("m1", "m2")}
    assert set(added["initial_cluster"].split(",")) == pairs

    # an interrupted run finds it again
    again = cluster.ask("m2", "learner")
    assert (again["changed"], again["member"], again["initial_cluster"]) == (False, added["member"], added["initial_cluster"])
    # it never started, so it can have no vote
    waiting = cluster.ask("m2", "voter", wait_timeout=1, required=False)
    assert (waiting["changed"], waiting["member"]["is_learner"], waiting["progress"]["raft_index"]) == (False, True, None)
    assert waiting["progress"]["cluster_raft_index"] > 40
    assert "has not caught up" in cluster.ask("m2", "voter", wait_timeout=0, rc=1)

    second = cluster.join("m2", added)
    voter = cluster.ask("m2", "voter", wait_timeout=60, compare=True)
    assert (voter["changed"], voter["member"]["is_learner"], voter["member"]["started"]) == (True, False, True)
    assert voter["hashes"]["equal"] is True
    assert set(voter["hashes"]["members"]) == {"m1", "m2"}
    assert second.ready()
    second.put("/from/m2", "yes")
    assert cluster.by_name["m1"].get("/from/m2") == b"yes"
    again = cluster.ask("m2", "voter", compare=True)
    assert (again["changed"], again["hashes"]["equal"]) == (False, True)
    assert cluster.ask("m2", "learner")["changed"] is False
    assert cluster.listed() == {"m1": False, "m2": False}


def test_one_learner_at_a_time(make):
    cluster = make(1)
    cluster.new("m2"), cluster.new("m3")
    cluster.ask("m2", "learner")
    for check in (True, False):
        assert "one learner at a time" in cluster.ask("m3", "learner", rc=1, check_mode=check)
    # by hand, without the module
    assert cluster.by_name["m1"].etcdctl("member", "add", "m3", "--learner", "--peer-urls=" + cluster.by_name["m3"].peer_url, check=False).returncode != 0


def test_a_voter_that_never_started_does_not_cost_the_quorum(make):
    cluster = make(1)
    cluster.new("m2")
    assert "without a quorum" in cluster.ask("m2", "voter", rc=1)
    assert cluster.listed() == {"m1": False}


def test_a_dead_member_is_removed_and_added_again(make):
    cluster = make(3)
    third = cluster.by_name["m3"]
    third.kill()
    cluster.new("m4")
    sentence = cluster.ask("m4", "learner", rc=1)
    assert "m3" in sentence
    assert "etcdctl member remove" in sentence
    # it was a voter with these very names, and cannot be told from one that is paused
    assert cluster.ask("m3", "learner")["changed"] is False
    assert {each["name"]: each["healthy"] for each in cluster.ask("m3", "learner")["members"]} == {"m1": True, "m2": True, "m3": False}

    foreseen = cluster.ask("m3", "absent", check_mode=True, diff=True)
    assert [each["name"] for each in foreseen["removed"]] == ["m3"]
    assert len(cluster.listed()) == 3
    removed = cluster.ask("m3", "absent", diff=True)
    assert (removed["changed"], removed["diff"]) == (True, foreseen["diff"])
    assert cluster.ask("m3", "absent")["changed"] is False
    third.data_dir.rename(str(third.data_dir) + ".old")
    added = cluster.ask("m3", "learner")
    cluster.join("m3", added)
    assert cluster.ask("m3", "voter", wait_timeout=60, compare=True)["hashes"]["equal"] is True
    assert cluster.listed() == {"m1": False, "m2": False, "m3": False}


def test_what_etcd_takes_while_one_voter_of_four_is_down(make):
    """Up to 3.5.29 and 3.6.10 nothing; later a member, which is promoted as well.  The module predicts which."""
    cluster = make(4)
    first = cluster.by_name["m1"]
    cluster.by_name["m4"].kill()
    fifth = cluster.new("m5")
    version = first.etcdctl("version").stdout
    if members_on_disk.voters_needed(version, 4) == 4:
        assert "only while 4 of these 4 voters run" in cluster.ask("m5", "learner", rc=1)
        by_hand = first.etcdctl("member", "add", "m5", "--learner", "--peer-urls=" + fifth.peer_url, check=False)
        assert "unhealthy cluster" in by_hand.stderr
    else:
        cluster.join("m5", cluster.ask("m5", "learner"))
        assert cluster.ask("m5", "voter", wait_timeout=60, compare=True)["hashes"]["equal"] is True
        assert cluster.listed() == {"m1": False, "m2": False, "m3": False, "m4": False, "m5": False}


def test_a_removal_that_costs_the_quorum_is_refused(make):
    cluster = make(2)
    cluster.new("m3")
    cluster.join("m3", cluster.ask("m3", "learner"))
    cluster.ask("m3", "voter", wait_timeout=60)
    cluster.by_name["m3"].kill()
    for check in (True, False):
        sentence = cluster.ask("m2", "absent", rc=1, check_mode=check)
        assert "no quorum" in sentence
        assert "m3" in sentence
    assert "ask another one" in cluster.ask("m1", "absent", rc=1)
    assert len(cluster.listed()) == 3
    assert cluster.ask("m3", "absent")["changed"] is True


def test_a_partial_name_matches_no_member(make):
    cluster = make(2)
    other = cluster.new("m3")
    for more in ({"name": "m2"}, {"peer_urls": [cluster.by_name["m2"].peer_url]}):
        assert "remove it first" in cluster.ask("m3", "learner", rc=1, **more)
    # by its id only that one goes, whatever its name is
    identity = next(each["id"] for each in cluster.ask("m2", "voter")["members"] if each["name"] == "m2")
    assert cluster.ask("m3", "absent", id="1234", name="m2")["changed"] is False
    assert cluster.ask("m3", "learner")["changed"] is True
    assert cluster.ask("m3", "absent")["changed"] is True
    removed = cluster.ask("m3", "absent", id="0x" + identity.upper(), peer_urls=[other.peer_url])
    assert [each["id"] for each in removed["removed"]] == [identity]
    assert cluster.listed() == {"m1": False}


def test_an_entry_by_its_url_and_one_by_its_name_go_together(make):
    """What a member that changed its address and then failed to join leaves behind."""
    cluster = make(3)
    cluster.by_name["m3"].kill()
    moved = cluster.new("moved")
    cluster.ask("m3", "absent")
    cluster.by_name["m1"].etcdctl("member", "add", "whatever", "--learner", "--peer-urls=" + moved.peer_url)
    removed = cluster.ask("m2", "absent", name="m2", peer_urls=[moved.peer_url])
    assert sorted(each["name"] for each in removed["removed"]) == ["", "m2"]
    assert cluster.listed() == {"m1": False}


def test_without_a_quorum_nothing_changes(make):
    cluster = make(2)
    cluster.by_name["m2"].kill()
    deadline = time.monotonic() + 15
    while cluster.by_name["m1"].etcdctl("get", "x", "--command-timeout=1s", check=False).returncode == 0 and time.monotonic() < deadline:
        time.sleep(0.5)
    started = time.monotonic()
    cluster.new("m3")
    for name, state in (("m3", "learner"), ("m2", "absent")):
        assert cluster.ask(name, state, rc=1, timeout=2, wait_timeout=2)
    assert time.monotonic() - started < 60


def test_an_endpoint_without_a_listener_is_reported_once(make):
    cluster = make(1)
    cluster.new("m2")
    endpoint = "https://127.0.0.1:%d" % harness.free_ports(1)[0]
    assert endpoint in cluster.ask("m2", "learner", rc=1, endpoint=endpoint, timeout=1)
    rc, result = harness.run_module("etcd_member", name="m2", state="learner", **cluster.by_name["m1"].connection)
    assert (rc, "peer_urls" in result["msg"]) == (1, True)
