# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which restore a host rolls back, and when it must not."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.rollback_target import FilterModule, rollback_target

ENDED = ("committed", "rolled-back", "rejoined")


def one(identity, state, kind="restore", hosts=("cp1",), retired=(), finished=None):
    finished = state in ("committed", "rejoined") if finished is None else finished
    more = {"path": "/t/" + identity, "since": "T" + identity, "ended": state in ENDED, "hosts": list(hosts), "retired": list(retired)}
    return dict(more, id=identity, state=state, kind=kind, finished=finished)


def host(name, *transactions, result=None):
    return [name, {"host": name, "unfinished": [each for each in transactions if not each["ended"]], "transactions": list(transactions)}, result or {}]


@pytest.mark.parametrize(
    ("transactions", "undo", "chosen", "words"),
    [
        ([], False, "", "cp1 has no unfinished restore: nothing was done."),
        ([], True, "", "cp1 has no unfinished restore: nothing was done."),
        ([one("1", "committed")], False, "", "nothing was done. To undo the finished one of T1, add -e etcd_restore_undo=true."),
        ([one("1", "committed")], True, "1", "restore 1 on cp1 (it was committed since T1)"),
        ([one("1", "committed"), one("2", "swapped")], False, "2", "restore 2 on cp1 (it was swapped since T2)"),
        ([one("1", "committed"), one("2", "swapped")], True, "2", "restore 2"),
        ([one("1", "swapped"), one("2", "stopped")], False, "2", "restore 2"),
        # only the newest finished one is undone, however often this runs
        ([one("1", "committed"), one("2", "rolled-back", finished=True)], True, "", ", and its newest finished one was rolled back already: nothing"),
        ([one("1", "committed"), one("2", "rolled-back", finished=True)], False, "", "cp1 has no unfinished restore: nothing was done."),
        # one that was rolled back before it was finished does not count
        ([one("1", "committed"), one("2", "rolled-back")], True, "1", "restore 1"),
        ([one("1", "rejoined", "retire", [])], True, "1", "restore 1"),
        # a rejoin is rolled back only when that is asked for
        ([one("1", "rejoining", "retire", [])], False, "", "cp1 has no unfinished restore: nothing was done."),
        ([one("1", "rejoining", "retire", [])], True, "1", "restore 1"),
    ],
)
def test_which_one(transactions, undo, chosen, words):
    found = rollback_target([host("cp1", *transactions)], "cp1", undo)
    assert found["target"].get("id", "") == chosen and words in found["message"] and not found["refusal"]


def test_a_host_that_took_no_part_in_the_newest_stays_as_it_is():
    hosts = [host("cp1", one("1", "committed"), one("2", "committed")), host("cp2", one("1", "committed"))]
    assert rollback_target(hosts, "cp1", True)["target"]["id"] == "2"
    found = rollback_target(hosts, "cp2", True)
    assert not found["target"] and "took no part in the newest one (2): nothing was done" in found["message"]


def test_an_undo_again_takes_no_older_one_back_on_some_of_the_hosts():
    """On cp1 the undo of an unfinished one counts as an undo; on cp2 its timer had been faster."""
    hosts = [
        host("cp1", one("1", "committed", hosts=["cp1", "cp2"]), one("2", "rolled-back", finished=True)),
        host("cp2", one("1", "committed", hosts=["cp1", "cp2"]), one("2", "rolled-back", finished=False)),
    ]
    for name in ("cp1", "cp2"):
        assert not rollback_target(hosts, name, True)["target"]


def test_a_finished_one_is_undone_on_all_of_its_hosts_together():
    own = one("1", "committed", hosts=["cp1", "cp2"], retired=["cp3"])
    absent = "The restore 1 was of cp1, cp2, cp3 together, and this run does not reach cp2, cp3: some would have"
    assert absent in rollback_target([host("cp1", own)], "cp1", True)["refusal"]
    # one that could not be asked is not reached either
    assert absent in rollback_target([host("cp1", own), ["cp2", {}, {}], ["cp3", None, None]], "cp1", True)["refusal"]
    assert "does not reach cp2:" in rollback_target([host("cp1", own), host("cp3")], "cp1", True)["refusal"]
    assert not rollback_target([host("cp1", own)], "cp1", True, ["cp2", "cp3"])["refusal"]
    assert not rollback_target([host("cp1", own), host("cp2"), host("cp3")], "cp1", True)["refusal"]
    # an unfinished one is rolled back on each host by itself, as its timer would
    unfinished = dict(own, ended=False, state="committing")
    assert not rollback_target([host("cp1", unfinished)], "cp1")["refusal"]
    # but not where it does not wait for the others
    assert absent in rollback_target([host("cp1", unfinished)], "cp1", True)["refusal"]


MEMBERS = [{"id": name, "name": name, "peer_urls": ["https://%s:2380" % name]} for name in ("cp1", "cp2", "cp3")]


def member(name, *transactions, members=MEMBERS, own=None):
    found = host(name, *transactions)
    found[1].update(etcd={"name": own or name, "peer_urls": ["https://%s:2380" % name]}, members_on_disk=members)
    return found


def test_who_has_joined_since_is_not_left_behind():
    """The host would serve its previous data as one cluster, and the others go on as another."""
    alone = one("1", "committed", hosts=["cp1"])
    found = rollback_target([member("cp1", alone)], "cp1", True)["refusal"]
    assert found.startswith("cp2, cp3 became members after the restore 1. With its previous data cp1 would leave them")
    assert rollback_target([member("cp1", alone), member("cp2"), member("cp3")], "cp1", True)["refusal"] == found
    # they are stopped and named; or there is no other member
    assert not rollback_target([member("cp1", alone)], "cp1", True, ["cp2", "cp3"])["refusal"]
    assert not rollback_target([member("cp1", alone, members=MEMBERS[:1])], "cp1", True)["refusal"]
    # an unfinished one was of all of them, and its timer would do the same
    assert not rollback_target([member("cp1", one("1", "swapped"))], "cp1")["refusal"]
    # before the swap these are the lost ones of the previous data
    assert not rollback_target([member("cp1", one("1", "staged"))], "cp1", True)["refusal"]
    # a host that came back is a member, which was not removed
    rejoined = one("2", "rejoined", "retire", [])
    assert rollback_target([member("cp2", rejoined)], "cp2", True)["refusal"].startswith("cp1, cp3 became members after the restore 2")


def test_those_of_the_restore_itself_have_not_joined_since():
    own = one("1", "committed", hosts=["cp1", "cp2"], retired=["cp3"])
    hosts = [member(name, own, own=name + ".example.com") for name in ("cp1", "cp2", "cp3")]
    assert not rollback_target(hosts, "cp1", True)["refusal"]


def test_hosts_undo_one_restore_together():
    """cp1 was restored again alone; the others are left in the first one."""
    first = one("1", "committing", "retire", ["cp1"], ["cp2"])
    hosts = [host("cp1", one("1", "committed", hosts=["cp1"], retired=["cp2"]), one("2", "committed")), host("cp2", first)]
    for name in ("cp1", "cp2"):
        found = rollback_target(hosts, name, True)["refusal"]
        assert found.startswith("The hosts would undo different restores (2 of cp1, 1 of cp2), and then serve data that does not belong together.")
    assert not rollback_target(hosts[:1], "cp1", True)["refusal"]
    assert not rollback_target(hosts, "cp1")["refusal"]


def test_a_retired_host_waits_for_the_restored_ones():
    kept = one("1", "stopped", "retire", ["cp1", "cp2"], ["cp3"])
    back = {"transaction": {"id": "1", "state": "rolled-back"}}
    own = one("1", "swapped", hosts=["cp1", "cp2"])

    def serving(*others, lost=()):
        return rollback_target([*others, host("cp3", kept)], "cp3", False, lost)["serving"]

    assert serving(host("cp1", own), host("cp2", own)).startswith("cp3 stays stopped: cp1, cp2, restored without it, did not roll back in this run")
    assert "cp2, restored" in serving(host("cp1", own, result=back), host("cp2", own, result={"failed": True, "msg": "no"}))
    assert "cp2, restored" in serving(host("cp1", own, result=back))
    assert not serving(host("cp1", own, result=back), host("cp2", own, result=back))
    # by an earlier run, or by its timer
    assert not serving(host("cp1", own, result=back), host("cp2", one("1", "rolled-back")))
    assert "cp2" in serving(host("cp1", own, result=back), host("cp2", one("0", "rolled-back")))
    assert not serving(host("cp1", own, result=back), lost=["cp2"])
    # of another restore that says nothing
    other = {"transaction": {"id": "2", "state": "rolled-back"}}
    assert "cp2, restored" in serving(host("cp1", own, result=back), host("cp2", own, result=other))
    # of those that are restored this is not asked
    assert not rollback_target([host("cp1", own), host("cp2", own)], "cp1")["serving"]


def test_ansible_finds_it():
    assert FilterModule().filters()["rollback_target"] is rollback_target
    with pytest.raises(AnsibleFilterError, match="list of hosts"):
        rollback_target([1], "cp1")
