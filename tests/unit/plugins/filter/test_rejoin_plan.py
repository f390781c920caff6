# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.rejoin_plan import rejoin_plan

KEYS = {"ca": "aa", "etcd_ca": "bb", "service_account": "cc", "encryption_configuration": None}


def member(number, **more):
    url = "https://192.0.2.1%d" % number
    known = {"id": "a%d" % number, "name": "node%d" % number, "peer_urls": [url + ":2380"], "client_urls": [url + ":2379"], "is_learner": False}
    return dict(known, **more)


def etcd(number, members, **more):
    known = {"reachable": True, "healthy": True, "error": None, "version": "3.5.16", "cluster_id": "c1", "member_id": "a%d" % number}
    return dict(known, is_learner=False, revision=100, db_size=1000000, members=members, **more)


def node(**more):
    """Host cp2 as kubeadm left it, everything in place."""
    known = {
        "host": "node2",
        "complete": True,
        "missing": [],
        "etcd": {"name": "node2", "peer_urls": "https://192.0.2.12:2380", "client_url": "https://192.0.2.12:2379", "version": "3.5.16-0"},
        "data_dir": "/var/lib/etcd",
        "free_bytes": 10**10,
        "unfinished": [],
        "retired": {},
        "fingerprints": KEYS,
        "kubeadm": [],
        "kubelet_running": True,
        "runtime": {"running": True},
        "certificates": [],
        "obstacles": [],
    }
    return dict(known, **more)


def facts(members=None, own=None, **more):
    """Two healthy members, cp1 and cp3, and cp2 is dead."""
    members = [member(1), member(3)] if members is None else members
    known = {
        "host": "cp2",
        "node": node(),
        "others": [{"item": "cp1", "etcd": etcd(1, members)}, {"item": "cp3", "etcd": etcd(3, members)}],
        "own": {"etcd": {"reachable": False, "healthy": False, "error": "connection refused"} if own is None else own},
        "there": {"fingerprints": KEYS},
        "members": [dict(each, healthy=each["id"] not in ("a2", "a9")) for each in members],
    }
    return dict(known, **more)


def retired(state, **more):
    one = {"id": "20260101T000000Z-0001", "path": "/var/lib/etcd.restore/20260101T000000Z-0001", "state": state, "kind": "retire"}
    unfinished = [] if state == "committed" else [dict(one, about={"rejoin": True})]
    return node(complete=False, missing=["etcd"], retired=dict(one, held="/held") if state in ("committed", "rejoining") else {}, unfinished=unfinished, **more)


def plan(**more):
    answer = rejoin_plan(facts(**more))
    assert answer["via"] == "cp1"
    assert answer["cluster_id"] == "c1"
    assert answer["refusals"] == []
    return answer


def refused(**more):
    answer = rejoin_plan(more.pop("of", None) or facts(**more))
    assert answer["refusals"]
    for sentence in answer["refusals"]:
        assert not sentence.endswith(".")
        assert "None" not in sentence
    return ". ".join(answer["refusals"])


def test_a_healthy_voter_is_left_alone():
    members = [member(1), member(2), member(3)]
    answer = plan(members=members, own=etcd(2, members))
    assert (answer["case"], answer["stale"], answer["path"]) == ("member", [], "")


def test_the_only_one_that_works_is_left_alone():
    """As the host that was restored without the others, when the play has no limit."""
    own = etcd(2, [member(2)])
    answer = rejoin_plan(facts(own=own, others=[{"item": "cp1", "unreachable": True, "msg": "Failed to connect"}], members=[]))
    assert (answer["case"], answer["refusals"], answer["cluster_id"]) == ("member", [], "c1")


@pytest.mark.parametrize(
    ("members", "stale"),
    [
        ([member(1), member(3)], []),
        ([member(1), member(2), member(3)], ["a2"]),
        # it changed its address, or another took it
        ([member(1), member(2, peer_urls=["https://192.0.2.99:2380"]), member(3)], ["a2"]),
        ([member(1), member(3), member(2, name="strange")], ["a2"]),
        ([member(1), member(3), member(9, name="", peer_urls=["https://192.0.2.12:2380", "https://192.0.2.98:2380"], is_learner=True)], ["a9"]),
    ],
    ids=["removed", "dead", "another address", "another name", "half its address"],
)
def test_a_dead_member_is_stopped_and_its_entry_removed(members, stale):
    answer = plan(members=members)
    assert (answer["case"], [each["id"] for each in answer["stale"]], answer["entry"]) == ("retire", stale, {})


@pytest.mark.parametrize("state", ["committed", "rejoining", "swapping"])
def test_an_entry_that_never_started_is_used(state):
    entry = member(2, name="", is_learner=True, client_urls=[])
    answer = plan(members=[member(1), member(3), entry], node=retired(state))
    assert answer["case"] == {"committed": "retired", "rejoining": "rejoining", "swapping": "retiring"}[state]
    assert (answer["stale"], answer["entry"]) == ([], entry)
    assert answer["path"].endswith("-0001")


def test_a_retired_host_rejoins():
    answer = plan(node=retired("committed"))
    assert (answer["case"], answer["stale"]) == ("retired", [])
    assert "/old" in answer["why"]


def test_an_interrupted_rejoin_is_continued():
    members = [member(1), member(3), member(2, is_learner=True)]
    answer = plan(members=members, node=retired("rejoining"), own=etcd(2, members) | {"is_learner": True})
    assert (answer["case"], answer["stale"]) == ("rejoining", [])
    # all but the last word
    members = [member(1), member(3), member(2)]
    answer = plan(members=members, node=dict(retired("rejoining"), complete=True, retired={}), own=etcd(2, members))
    assert (answer["case"], answer["stale"], answer["path"]) == ("rejoining", [], "/var/lib/etcd.restore/20260101T000000Z-0001")
    # what was added is gone
    assert plan(node=retired("rejoining"))["case"] == "again"


def test_a_learner_only_lacks_its_vote():
    members = [member(1), member(3), member(2, is_learner=True)]
    answer = plan(members=members, own=etcd(2, members) | {"is_learner": True})
    assert (answer["case"], answer["stale"]) == ("learner", [])


def test_a_member_of_another_cluster_is_replaced_only_on_request():
    own = etcd(2, [member(2)]) | {"cluster_id": "c2"}
    assert "etcd_rejoin_discard" in refused(own=own)
    assert plan(own=own, discard=True)["case"] == "retire"
    # nothing is lost with one that does not serve
    assert plan(own=own | {"healthy": False})["case"] == "retire"


def test_an_unhealthy_member_is_replaced_only_on_request():
    members = [member(1), member(2), member(3)]
    own = etcd(2, members) | {"healthy": False, "error": "it has no leader"}
    assert "it has no leader" in refused(members=members, own=own)
    answer = plan(members=members, own=own, discard=True)
    assert (answer["case"], [each["id"] for each in answer["stale"]]) == ("retire", ["a2"])
    # one that was removed and runs on
    assert plan(members=[member(1), member(3)], own=etcd(2, members))["case"] == "retire"


def test_another_machine_with_its_name():
    of = facts(members=[member(1), member(2), member(3)])
    of["members"][1]["healthy"] = True
    assert "another machine" in refused(of=of)
    # its tools are not there yet, in check mode
    assert rejoin_plan(dict(of, own={"skipped": True}))["case"] == "member"


def test_the_cluster_is_chosen():
    of = facts()
    of["others"].insert(0, {"item": "cp0", "unreachable": True})
    assert rejoin_plan(of)["via"] == "cp1"
    of["others"][2]["etcd"]["cluster_id"] = "c9"
    sentence = refused(of=of)
    assert "cp1 serves c1, cp3 serves c9" in sentence
    assert "etcd_rejoin_via=cp1" in sentence
    del of["others"][1:]
    assert "cp0: it cannot be reached" in refused(of=of)
    assert "the inventory has no other" in refused(of=facts(others=[]))


def test_a_fresh_host_is_for_kubeadm():
    bare = node(complete=False, missing=["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"], fingerprints={"ca": None}, etcd={})
    sentence = refused(node=bare, members=[member(1), member(2), member(3)])
    assert "kubeadm init phase upload-certs" in sentence
    assert "--control-plane" in sentence
    assert "etcdctl member remove a2" in sentence
    assert "kubectl delete node node2" in sentence
    sentence = refused(node={}, problem="/etc/kubernetes/manifests does not exist: this host is not a kubeadm control plane node")
    assert "does not exist" in sentence
    assert "kubeadm token create" in sentence
    # the manifests are somewhere
    sentence = refused(node=node(complete=False, missing=["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]))
    assert "Put all four back" in sentence


def test_an_unfinished_restore_refuses_the_rejoin():
    for one in ({"kind": "restore", "state": "started"}, {"kind": "retire", "state": "stopped", "about": {"live": {}}}):
        sentence = refused(node=node(unfinished=[dict(one, id="T1")]))
        assert "T1" in sentence
        assert "rollback" in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprints": dict(KEYS, ca="zz")}, "CA of the cluster"),
        ({"fingerprints": dict(KEYS, etcd_ca=None)}, "CA of etcd (/etc/kubernetes/pki/etcd/ca.crt) of cp2 is missing"),
        ({"fingerprints": dict(KEYS, service_account="zz")}, "service-account key"),
        ({"kubeadm": [{"pid": 7, "command": "kubeadm join", "seconds": 3}]}, "On cp2 `kubeadm join` runs (process 7)"),
        ({"kubelet_running": False}, "systemctl start kubelet"),
        ({"runtime": {"running": False}}, "container runtime"),
        ({"certificates": [{"problem": "x.crt has expired"}]}, "x.crt has expired"),
        ({"obstacles": ["/var is read-only"]}, "/var is read-only"),
        ({"free_bytes": 50 * 1024 * 1024}, "has 50 MB free"),
        ({"etcd": dict(node()["etcd"], version="3.4.23-0")}, "older one cannot become a member"),
    ],
)
def test_what_would_fail_later_is_refused(change, words):
    assert words in refused(node=node(**change))


def test_another_file_with_the_same_certificates_is_no_other_ca():
    there = {"fingerprints": dict(KEYS, contents={"ca": ["a", "b"]})}
    assert plan(node=node(fingerprints=dict(KEYS, ca="zz", contents={"ca": ["a", "b"]})), there=there)["case"] == "retire"
    for contents in ({"ca": ["a"]}, {"ca": None}, {}):
        assert "CA of the cluster" in refused(node=node(fingerprints=dict(KEYS, ca="zz", contents=contents)), there=there)


def test_a_newer_etcd_and_one_of_unknown_version_may_join():
    for version in ("3.6.0-0", "", "3.5.1-0"):
        assert plan(node=node(etcd=dict(node()["etcd"], version=version)))["case"] == "retire"


def test_a_dead_voter_besides():
    members = [member(1), member(2), member(3), member(4), member(5)]
    of = facts(members=members)
    of["members"] = [dict(each, healthy=each["id"] not in ("a2", "a5")) for each in members]
    assert "etcd_rejoin_lost_members=node5" in refused(of=of)
    answer = rejoin_plan(dict(of, lost=["node5"]))
    assert (answer["refusals"], [each["id"] for each in answer["stale"]]) == ([], ["a2", "a5"])
    assert "it answers" in refused(of=dict(of, lost=["node5", "node4"]))
    # of the four that are left one may be down since 3.5.30, and stays what it is; of two or three none
    for other in of["others"]:
        other["etcd"]["version"] = "3.5.35"
    answer = rejoin_plan(of)
    assert (answer["refusals"], [each["id"] for each in answer["stale"]]) == ([], ["a2"])
    of["members"] = [each for each in of["members"] if each["id"] != "a4"]
    assert "etcd 3.5.35 takes a new member only while 3 of the other 3 voters run, and node5" in refused(of=of)
    # nothing is added any more, so the number of voters does not matter
    entry = member(2, name="", is_learner=True)
    of = facts(members=[member(1), entry, member(3), member(5)], node=retired("committed"))
    of["members"][3]["healthy"] = False
    assert rejoin_plan(of)["refusals"] == []


def test_one_learner_at_a_time():
    assert "one learner at a time" in refused(members=[member(1), member(3), member(4, is_learner=True)])


def test_what_was_not_asked_yet_is_not_judged():
    of = facts()
    for name in ("own", "there", "members"):
        del of[name]
    answer = rejoin_plan(of)
    assert (answer["via"], answer["case"], answer["refusals"]) == ("cp1", "", [])
    before = copy.deepcopy(of)
    rejoin_plan(of)
    assert of == before
    with pytest.raises(AnsibleFilterError):
        rejoin_plan([])


def test_only_healthy_voters_that_stay_are_reached():
    """etcd may accept the host all the same; where it does not, the plan refuses."""
    members = [member(1), member(2), member(3), member(4), member(5), member(6, is_learner=True)]
    of = facts(members=members, node=retired("rejoining"), lost=["node4"])
    for each in of["members"]:
        each["healthy"] = each["id"] in ("a1", "a2", "a5", "a6")
    answer = rejoin_plan(of)
    assert answer["refusals"] == []
    assert answer["reach"] == ["https://192.0.2.11:2380", "https://192.0.2.15:2380"]


def test_the_plan_in_words():
    members = [member(1), member(2), member(3, name="")]
    assert plan(members=members)["message"] == (
        "cp2: its etcd does not answer; its control plane is stopped, its data and manifests are moved aside, it is added without a vote, and its etcd "
        "starts with an empty data directory. The cluster is c1, changed through cp1, with the members node1, node2, one that never started. First "
        "removed from it: node2 (id a2, https://192.0.2.12:2380)."
    )
    entry = member(2, name="", is_learner=True, client_urls=[])
    assert plan(members=[member(1), member(3), entry], node=retired("committed"))["message"].endswith("The entry a2 of an earlier run is used.")
    members = [member(1), member(2), member(3)]
    assert plan(members=members, own=etcd(2, members))["message"] == "cp2: it is a healthy member with a vote (cluster c1); nothing was done."
    assert rejoin_plan(facts(others=[]))["message"] == ""


@pytest.mark.parametrize(("version", "state"), [("3.3.27", "voter"), ("3.4.0", "learner"), ("3.10.1", "learner")])
def test_a_member_is_added_without_a_vote_where_etcd_can(version, state):
    of = facts()
    of["others"][0]["etcd"]["version"] = version
    assert rejoin_plan(of)["first_state"] == state
