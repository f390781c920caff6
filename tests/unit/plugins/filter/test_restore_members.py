# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts and members are matched, from all sources that know members."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_members import FilterModule, restore_members as members_of


def restore_members(hosts, lost=(), addresses=None):
    known = [(each["host"], each.get("node"), each.get("live")) for each in hosts]
    return members_of(known, [each["host"] for each in hosts if each["restored"]], lost, addresses)


def peer(number):
    return "https://192.0.2.1%d:2380" % number


def client(number):
    return "https://192.0.2.1%d:2379" % number


def member(number, **more):
    return dict({"name": "node%d" % number, "peer_urls": [peer(number)], "client_urls": [client(number)]}, **more)


def host(number, restored=True, live=(), agreed=True, disk=(), cluster=(), servers=("https://127.0.0.1:2379",)):
    """cp1 of the inventory, which is node1 in etcd."""
    return {
        "host": "cp%d" % number,
        "restored": restored,
        "node": {
            "etcd": {
                "name": "node%d" % number,
                "peer_urls": peer(number),
                "client_url": client(number),
                "initial_cluster": ",".join("node%d=%s" % (each, peer(each)) for each in cluster or [number]),
            },
            "members_on_disk": list(disk),
            "etcd_servers": list(servers),
        },
        "live": {"members": list(live), "members_agreed": agreed and bool(live)},
    }


THREE = [member(1), member(2), member(3)]


def test_all_members_are_hosts():
    found = restore_members([host(1, live=THREE), host(2, live=THREE), host(3, live=THREE)])
    assert found["absent"] == found["lost"] == found["asked"] == []
    assert found["quorum"]
    assert [(item["label"], item["role"], item["host"]) for item in found["members"]] == [
        ("node1", "restored", "cp1"),
        ("node2", "restored", "cp2"),
        ("node3", "restored", "cp3"),
    ]


def test_only_one_host():
    found = restore_members([host(1, live=THREE)])
    assert found["absent"] == ["node2 (named by etcd of cp1)", "node3 (named by etcd of cp1)"]
    assert found["absent_addresses"][:2] == [{"member": "node2", "host": "192.0.2.12", "port": port} for port in (2380, 2379)]
    assert (len(found["absent_addresses"]), found["lost_addresses"]) == (4, [])


def test_the_others_are_retired():
    found = restore_members([host(1, live=THREE), host(2, restored=False), host(3, restored=False)])
    assert found["absent"] == []
    assert [item["role"] for item in found["members"]] == ["restored", "retired", "retired"]


def test_a_quorum_is_believed_and_manifests_are_not():
    """They name who was a member when the node joined."""
    assert restore_members([host(1, live=[member(1)], disk=THREE, cluster=(1, 2, 3))])["absent"] == []


def test_a_split_cluster_has_the_members_of_both_sides():
    found = restore_members([host(1, live=[member(1)]), host(2, live=THREE)])
    assert found["absent"] == ["node3 (named by etcd of cp2)"]


@pytest.mark.parametrize(
    ("known", "source"),
    [
        ({"live": THREE, "agreed": False}, "etcd of cp1, which has no quorum"),
        ({"disk": THREE}, "the data of cp1"),
        ({"cluster": (1, 2, 3)}, "the manifest of cp1"),
        ({"disk": THREE, "cluster": (1, 2)}, "the data of cp1"),
    ],
)
def test_without_a_quorum_all_known_members_count(known, source):
    found = restore_members([host(1, **known)])
    assert not found["quorum"]
    assert found["absent"] == ["node2 (named by %s)" % source, "node3 (named by %s)" % source]


def test_the_manifest_and_the_data_know_different_ones():
    found = restore_members([host(1, disk=[member(1), member(2)], cluster=(1, 3))])
    assert found["absent"] == ["node2 (named by the data of cp1)", "node3 (named by the manifest of cp1)"]


def test_a_member_that_never_started_has_no_name():
    unstarted = member(2, name="", client_urls=[])
    assert restore_members([host(1, live=[member(1), unstarted])])["absent"] == ["https://192.0.2.12:2380 (named by etcd of cp1)"]
    assert restore_members([host(1, live=[member(1), unstarted]), host(2)])["absent"] == []
    found = restore_members([host(1, live=[member(1), unstarted])], ["https://192.0.2.12:2380"])
    assert (found["absent"], found["lost"]) == ([], ["https://192.0.2.12:2380"])
    # started meanwhile, as another one says
    found = restore_members([host(1, disk=[member(1), unstarted]), host(3, disk=[member(2), member(3)])])
    assert found["labels"] == ["node1", "node2", "node3"]


@pytest.mark.parametrize("lost", ["node3", "https://192.0.2.13:2380", "cp3"])
def test_a_lost_member(lost):
    found = restore_members([host(1, live=THREE), host(2)], [lost], {"cp3": "192.0.2.13"})
    assert (found["absent"], found["lost"], found["lost_here"], found["lost_unknown"]) == ([], ["node3"], [], [])
    assert found["lost_addresses"] == [
        {"member": "node3", "host": "192.0.2.13", "port": 2380},
        {"member": "node3", "host": "192.0.2.13", "port": 2379},
    ]


@pytest.mark.parametrize("lost", ["cp2", "node2"])
def test_a_host_cannot_be_lost(lost):
    found = restore_members([host(1, live=THREE), host(2), host(3)], [lost])
    assert (found["lost_here"], found["lost_unknown"], found["lost"]) == ([lost], [], [])


def test_what_is_no_member_cannot_be_lost():
    for more in ({"live": THREE}, {"disk": THREE}):
        found = restore_members([host(1, **more), host(2), host(3)], ["node4"])
        assert (found["lost_unknown"], found["lost"]) == (["node4"], [])


def test_without_other_information_lost_members_are_believed():
    """The data is gone, and the first node's manifest names only itself."""
    found = restore_members([host(1)], ["node2", "cp3"], {"cp3": "192.0.2.13"})
    assert (found["lost_unknown"], found["lost"]) == ([], ["node2", "cp3"])
    assert found["lost_addresses"] == [{"member": "cp3", "host": "192.0.2.13", "port": port} for port in (2380, 2379)]


def test_lost_members_of_which_only_the_peer_url_is_known():
    found = restore_members([host(1, cluster=(1, 2))], ["node2"])
    assert [item["port"] for item in found["lost_addresses"]] == [2380, 2379]


def test_addresses_of_the_sixth_version_and_of_the_node_itself():
    urls = {"peer_urls": ["https://[FD00::2]:2380"], "client_urls": ["https://[fd00:0:0::2]:2379", "https://127.0.0.1:2379", "http://[::1]:2379", "nonsense"]}
    found = restore_members([host(1, live=[member(1), member(2, **urls)], servers=["https://[fd00::2]:2379"])], ["node2"])
    assert found["lost_addresses"] == [{"member": "node2", "host": "fd00::2", "port": port} for port in (2380, 2379)]
    assert found["asked"] == [{"host": "cp1", "url": "https://[fd00::2]:2379", "member": "node2"}]


def test_api_servers_that_ask_other_members():
    servers = ["https://192.0.2.11:2379", "https://192.0.2.12:2379", "https://192.0.2.13:2379"]
    everybody = [host(1, live=THREE, servers=servers), host(2, restored=False, servers=servers)]
    found = restore_members(everybody, ["node3"])["asked"]
    assert [(item["host"], item["member"]) for item in found] == [("cp1", "node2"), ("cp1", "node3")]
    assert restore_members([host(number, live=THREE, servers=servers) for number in (1, 2, 3)])["asked"] == []


def test_a_retired_host_that_is_no_member_any_more():
    gone = host(2, restored=False)
    found = restore_members([host(1, live=[member(1)], servers=["https://192.0.2.12:2379"]), gone])
    assert (found["absent"], found["asked"][0]["member"]) == ([], "node2")


def test_hosts_of_which_nothing_is_known():
    found = restore_members([{"host": "cp1", "restored": True, "node": {}, "live": None}, {"host": "cp2", "restored": False}])
    assert found["members"] == found["absent"] == []


def test_filter():
    assert FilterModule().filters() == {"restore_members": members_of}
    for wrong in ("cp1", None, [["cp1"]]):
        with pytest.raises(AnsibleFilterError):
            members_of(wrong)


def test_a_lost_host_without_an_address_is_asked_by_its_name():
    own = {"etcd": {"name": "cp1", "initial_cluster": "cp1=https://192.0.2.11:2380"}}
    found = members_of([["cp1", own, {}]], ["cp1"], ["cp9"], {"cp9": ""})
    assert [(one["member"], one["host"]) for one in found["lost_addresses"]] == [("cp9", "cp9")] * 2


def test_a_url_that_is_not_valid_names_no_member():
    live = [member(1), member(2, client_urls=["https://[192.0.2.12:2379"])]
    found = restore_members([host(1, live=live, servers=["https://127.0.0.1:2379", "https://[192.0.2.12:2379"])])
    assert found["absent"] == ["node2 (named by etcd of cp1)"] and found["asked"] == []
