# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which host takes the snapshot of a cluster, and what is reported for the others."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.member_selection import FilterModule, member_selection

NAMES = ("n1", "n2", "n3")


def members(cluster="c1", names=NAMES):
    return [
        {
            "id": "%s-%s" % (cluster, name),
            "name": name,
            "peer_urls": ["https://[fd00::%s]:2380" % name[1:]],
            "client_urls": ["https://[fd00::%s]:2379" % name[1:]],
            "is_learner": False,
        }
        for name in names
    ]


def says(member, leader="n1", cluster="c1", names=NAMES, **changes):
    """What etcd_cluster_info returns for a healthy member."""
    etcd = {
        "reachable": True,
        "healthy": True,
        "error": None,
        "cluster_id": cluster,
        "member_id": "%s-%s" % (cluster, member),
        "leader_id": "%s-%s" % (cluster, leader) if leader else "0",
        "is_leader": member == leader,
        "is_learner": False,
        "revision": 100,
        "alarms": [],
        "members_agreed": True,
        "members": members(cluster, names),
    }
    return {"etcd": dict(etcd, **changes)}


def host(name, member=None, again=None, **facts):
    """Host hN has member nN."""
    skipped = {"skipped": True, "skip_reason": "Conditional result was False"}
    etcd = dict(facts.pop("etcd", {}), authorities=facts.pop("ca", []))
    asked = facts.pop("asked", None) or (skipped if "reached" in facts else says(member or "n" + name[1:], **etcd))
    known = {"host": name, "address": "", "from": "", "problem": "", "reached": {}, "asked": asked, "again": again or skipped, "node": skipped}
    return dict(known, **facts)


DEAD = {"etcd": {"reachable": False, "cluster_id": None, "error": "etcd at https://127.0.0.1:2379 does not answer", "members": [], "alarms": []}}
GONE = {"unreachable": True, "msg": "Failed to connect to the host via ssh:\nNo route to host", "changed": False}
NO_QUORUM = {"leader": "", "members_agreed": False, "healthy": False, "error": "no leader"}


def choose(*facts, hosts=None):
    return member_selection(list(facts), hosts or [one["host"] for one in facts])


def one(answer):
    assert len(answer["clusters"]) == 1
    return answer["clusters"][0]


def test_first_that_is_not_the_leader():
    answer = choose(host("h1"), host("h2"), host("h3"))
    found = one(answer)
    assert found["candidates"] == ["h2", "h3", "h1"]
    assert found["why"] == "it is caught up (revision 100) and not the leader, which is h1 (etcd member n1)"
    assert found["labels"]["h2"] == "h2 (etcd member n2)"
    assert (found["warnings"], answer["refused"], answer["rounds"]) == ([], {}, 3)
    # whatever order the facts come in, the play's is what counts
    assert one(choose(host("h3"), host("h1"), host("h2"), hosts=["h1", "h2", "h3"]))["candidates"] == ["h2", "h3", "h1"]


def test_names_that_do_not_differ_are_said_once():
    assert one(choose(host("n2")))["labels"] == {"n2": "n2"}


def test_leader_that_is_alone():
    found = one(choose(host("h1", etcd={"names": ["n1"]})))
    assert (found["candidates"], found["why"]) == (["h1"], "it is caught up (revision 100) and the only member")


def test_leader_that_is_alone_in_the_play():
    found = one(choose(host("h1")))
    assert found["candidates"] == ["h1"] and "no other member is in this play" in found["why"] and found["warnings"] == []


def test_leader_when_no_other_is_left():
    found = one(choose(host("h1"), host("h2", asked=DEAD), host("h3", etcd={"alarms": [], "healthy": False, "error": "slow"})))
    assert found["candidates"] == ["h1"] and "although it is the leader" in found["why"]
    assert found["warnings"] == [
        "h2 was left out of the backup: etcd at https://127.0.0.1:2379 does not answer.",
        "h3 (etcd member n3) was left out of the backup: slow.",
    ]


def test_leader_outside_the_play_is_named_all_the_same():
    assert one(choose(host("h2")))["why"].endswith("not the leader, which is n1")


def test_one_that_is_wanted():
    facts = [host(name, **{"from": "h1"}) for name in ("h1", "h2", "h3")]
    found = one(choose(*facts))
    assert found["candidates"] == ["h1", "h2", "h3"] and found["why"] == "as etcd_snapshot_from says; it is caught up (revision 100), and the leader"
    facts = [host(name, **{"from": "n3"}) for name in ("h1", "h2", "h3")]
    assert one(choose(*facts))["candidates"] == ["h3", "h2", "h1"]
    facts[2]["asked"] = DEAD
    found = one(choose(*facts))
    assert found["candidates"] == ["h2", "h1"] and found["warnings"][-1].startswith("etcd_snapshot_from is n3, which")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"asked": DEAD}, "etcd at https://127.0.0.1:2379 does not answer"),
        ({"reached": GONE}, "it cannot be reached: Failed to connect to the host via ssh: No route to host"),
        ({"asked": GONE}, "it cannot be reached: "),
        ({"again": GONE}, "it cannot be reached: "),
        ({"problem": "Task failed: no space\nleft on device"}, "n2) was left out of the backup: no space left on device."),
        ({"asked": {"msg": "there is no etcdctl on this host", "changed": False}}, "there is no etcdctl on this host"),
        ({"etcd": {"is_learner": True, "members_agreed": False}}, "it is a learner"),
        ({"etcd": NO_QUORUM}, "it has no leader, so it has no quorum"),
        ({"etcd": {"members_agreed": False, "error": "it timed out"}}, "it timed out"),
        ({"etcd": {"healthy": False, "error": "it serves no reads"}}, "it serves no reads"),
        ({"again": says("n2", revision=99)}, "it is behind: it has revision 99, and its cluster had 100 before"),
        ({"again": dict(DEAD)}, "does not answer"),
    ],
)
def test_member_that_is_left_out(facts, why):
    answer = choose(host("h1"), host("h2", **facts), host("h3"))
    found = one(answer)
    assert found["candidates"] == ["h3", "h1"] and answer["refused"] == {}
    assert len(found["warnings"]) == 1 and found["warnings"][0].startswith("h2") and why in found["warnings"][0]


def test_writes_between_two_queries_make_no_member_lag():
    found = one(choose(host("h1", again=says("n1", revision=140)), host("h2", again=says("n2", revision=120)), host("h3", again=says("n3", revision=100))))
    assert found["candidates"] == ["h2", "h3", "h1"]


def test_no_space_is_when_a_snapshot_is_wanted():
    full = {"alarms": ["NOSPACE"], "healthy": False, "error": "NOSPACE"}
    assert one(choose(host("h1", etcd=full), host("h2", etcd=full)))["candidates"] == ["h2", "h1"]


def test_disagreement_about_the_data_rules_all_out():
    answer = choose(*(host(name, etcd={"alarms": ["CORRUPT"]}) for name in ("h1", "h2", "h3")))
    assert one(answer)["candidates"] == [] and "CORRUPT" in answer["refused"]["h2"]


def test_host_that_left_the_play_before():
    found = one(choose(host("h1"), host("h2"), hosts=["h1", "h2", "h3"]))
    assert found["candidates"] == ["h2", "h1"] and "h3 was left out of the backup: it had left the play before" in found["warnings"][0]


def test_silent_host_is_recognised_by_its_name_or_address():
    # the third member is accounted for by its name, so no other host can be it
    answer = choose(host("h1"), host("h2"), host("n3", reached=GONE), host("x", reached=GONE))
    assert one(answer)["hosts"] == ["h1", "h2", "n3"]
    assert list(answer["refused"]) == ["x"] and "remove it from the inventory" in answer["refused"]["x"]
    answer = choose(host("h1"), host("h2"), host("h3", reached=GONE, address="fd00:0:0::3"))
    assert one(answer)["warnings"][0].startswith("h3 (etcd member n3) was left out")
    manifest = {"restore": {"host": "node", "missing": [], "etcd": {"name": "n3", "peer_urls": ""}}}
    assert one(choose(host("h1"), host("h2"), host("x", asked=DEAD, node=manifest)))["hosts"] == ["h1", "h2", "x"]


def test_address_that_every_host_has_identifies_none():
    local = [dict(member, peer_urls=["https://127.0.0.1:%d" % number], client_urls=["https://[::1]:1"]) for number, member in enumerate(members())]
    answer = choose(host("h1", etcd={"members": local}), host("x", reached=GONE, address="127.0.0.1"))
    assert one(answer)["warnings"][0].startswith("x was left out")


def test_cluster_without_an_answer_is_not_mistaken_for_members_of_another():
    other = {"cluster": "c2", "names": ["n4"], "leader": "n4"}
    answer = choose(host("h1"), host("h2"), host("h3"), host("h4", etcd=other))
    assert [(found["id"], found["candidates"]) for found in answer["clusters"]] == [("c1", ["h2", "h3", "h1"]), ("c2", ["h4"])]
    assert answer["rounds"] == 3
    answer = choose(host("h1"), host("h2"), host("h3"), host("h4", asked=DEAD))
    assert list(answer["refused"]) == ["h4"] and "that has no snapshot now" in answer["refused"]["h4"]
    # two are silent, and only one is missing
    answer = choose(host("h1"), host("h2"), host("h3", reached=GONE), host("h4", reached=GONE))
    assert sorted(answer["refused"]) == ["h3", "h4"]
    # whose member a silent one is does not matter as long as all can be
    answer = choose(host("h1"), host("h2"), host("h4", etcd=other), host("x", reached=GONE))
    assert answer["refused"] == {} and answer["clusters"][0]["warnings"][0].startswith("x was left out")


def hosts_of_clusters(answer):
    return [found["hosts"] for found in answer["clusters"]]


def test_clusters_of_one_id_are_told_apart_by_their_ca():
    # the first control planes of two sites have the same address, and so the same ids
    alone = {"etcd": {"names": ["n1"]}, "address": "10.0.0.1"}
    answer = choose(host("h1", ca=["west"], **dict(alone)), host("x1", ca=["east"], **dict(alone)))
    assert hosts_of_clusters(answer) == [["h1"], ["x1"]] and [found["candidates"] for found in answer["clusters"]] == [["h1"], ["x1"]]
    assert answer["refused"] == {} and answer["rounds"] == 1
    # where it cannot be read, the id has to do
    alone = {"etcd": {"names": ["n1"]}, "address": "10.0.0.1"}
    assert hosts_of_clusters(choose(host("h1", **dict(alone)), host("x1", ca=["east"], **dict(alone)))) == [["h1", "x1"]]
    assert hosts_of_clusters(choose(host("h1", ca=[]), host("h2", ca=["west"]), host("h3", ca=["west"]))) == [["h1", "h2", "h3"]]


def test_cluster_whose_ca_is_being_replaced_is_one():
    answer = choose(host("h1", ca=["old"]), host("h2", ca=["new"]), host("h3", ca=["old", "new"]))
    assert hosts_of_clusters(answer) == [["h1", "h2", "h3"]]


def test_two_hosts_are_not_one_member():
    answer = choose(host("h1", address="10.0.0.1", etcd={"names": ["n1"]}), host("x1", address="10.9.0.1", etcd={"names": ["n1"]}))
    assert hosts_of_clusters(answer) == [["h1"], ["x1"]] and [found["candidates"] for found in answer["clusters"]] == [["h1"], ["x1"]]
    # nor with the same CA, as of a copy of the machine
    answer = choose(host("h1", ca=["west"], etcd={"names": ["n1"]}), host("x1", ca=["west"], etcd={"names": ["n1"]}))
    assert hosts_of_clusters(answer) == [["h1"], ["x1"]]
    # one that the inventory has twice is one
    answer = choose(host("h1", address="10.0.0.1", etcd={"names": ["n1"]}), host("x1", address="10.0.0.1", etcd={"names": ["n1"]}))
    assert hosts_of_clusters(answer) == [["h1", "x1"]] and one(answer)["warnings"] == []
    # the others go with the first control plane that has them among its members
    first = [host(name, member="n1", etcd={"names": names}) for name, names in (("h1", ("n1", "n2")), ("x1", ("n1", "n3")))]
    others = [host(name, member=member, etcd={"names": ("n1", member)}) for name, member in (("x3", "n3"), ("h2", "n2"))]
    assert hosts_of_clusters(choose(*(first + others))) == [["h1", "h2"], ["x1", "x3"]]


def test_silent_host_of_another_name_or_address_fills_no_gap():
    # n3 is missing, and the host with another address is not n3: it may be a cluster of its own
    here = [host("h1", address="fd00::1"), host("h2", address="fd00::2")]
    for silent in (host("x", reached=GONE, address="fd00::9"), host("x", asked=DEAD, address="fd00::9")):
        answer = choose(*(here + [silent]))
        assert list(answer["refused"]) == ["x"] and "that has no snapshot now" in answer["refused"]["x"]
        assert one(answer)["hosts"] == ["h1", "h2"] and one(answer)["warnings"] == []
    # by its name, too, where all have the names of their members
    answer = choose(host("n1"), host("n2"), host("x", reached=GONE))
    assert list(answer["refused"]) == ["x"]
    # with a manifest it says who it is
    manifest = {"restore": {"host": "node", "missing": [], "etcd": {"name": "n9", "peer_urls": "https://[fd00::9]:2380"}}}
    answer = choose(host("h1"), host("h2"), host("x", asked=DEAD, node=manifest))
    assert list(answer["refused"]) == ["x"]


def test_silent_host_that_cannot_be_compared_fills_a_gap():
    # it has no address, and the others have no names of members
    answer = choose(host("h1", address="fd00::1"), host("h2", address="fd00::2"), host("h3", reached=GONE))
    assert answer["refused"] == {} and one(answer)["hosts"] == ["h1", "h2", "h3"]
    # one that answers has another address than its member, as behind a translation of addresses
    answer = choose(host("h1", address="203.0.113.1"), host("h2", address="fd00::2"), host("h3", reached=GONE, address="203.0.113.3"))
    assert answer["refused"] == {} and one(answer)["hosts"] == ["h1", "h2", "h3"]
    # of two clusters only the one that can have it counts
    other = {"cluster": "c2", "names": ["n4", "n5"], "leader": "n4"}
    answer = choose(host("n4", member="n4", etcd=other), host("h1", etcd={"names": ["n1"]}), host("x", reached=GONE))
    assert list(answer["refused"]) == ["x"]


def test_a_host_without_an_etcd_is_not_missed():
    retired = {"restore": {"missing": ["etcd"], "etcd": {"name": "n3"}, "retired": {"id": "r1", "state": "committed"}}}
    answer = choose(host("h1", etcd={"names": ["n1"]}), host("h3", asked=DEAD, node=retired))
    assert answer["refused"] == {} and one(answer)["candidates"] == ["h1"]
    assert one(answer)["warnings"] == [
        "h3 (etcd member n3) was left out of the backup: restore r1 of other members stopped it for good; the playbook k8s_dr.etcd.rejoin returns it."
    ]


def test_no_member_answers():
    answer = choose(host("h1", asked=DEAD), host("h2", reached=GONE))
    assert (answer["clusters"], answer["rounds"], sorted(answer["refused"])) == ([], 0, ["h1", "h2"])
    said = answer["refused"]["h1"]
    assert said.startswith("No snapshot was taken, since no etcd member of h1, h2 is healthy. h1: etcd at https://127.0.0.1:2379 does not answer. h2: ")
    assert "salvage" not in said


def test_no_quorum_points_to_the_rescue():
    answer = choose(host("h1", etcd=NO_QUORUM), host("h2", asked=DEAD), host("h3", reached=GONE))
    assert one(answer)["candidates"] == [] and sorted(answer["refused"]) == ["h1", "h2", "h3"]
    said = answer["refused"]["h1"]
    assert "h1 (etcd member n1): it has no leader" in said and "h3: it cannot be reached" in said and "k8s_dr.etcd.salvage" in said


def test_two_leaders():
    found = one(choose(host("h1"), host("h2", etcd={"leader": "n2"}), host("h3")))
    assert found["candidates"] == ["h3", "h1", "h2"] and "may have split in two" in found["warnings"][0]


def test_no_host_to_ask():
    assert member_selection([], []) == {"clusters": [], "refused": {}, "rounds": 0}


def test_what_a_node_says_is_no_template():
    answer = choose(host("h1", problem="{{ lookup('pipe', 'id') }}"))
    assert "{{" not in answer["refused"]["h1"]


def test_something_else_is_refused():
    with pytest.raises(AnsibleFilterError, match="member_selection needs"):
        FilterModule().filters()["member_selection"]([1], [])
