# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an unfinished restore can be finished, and which options contradict what it was begun with."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.unfinished_restore import FilterModule, unfinished_restore

LABEL = "/var/backups/etcd/etcd-cp1-20260102T030405Z.db"


def about(**more):
    found = {"hosts": ["cp1", "cp2", "cp3"], "retired": [], "lost": [], "label": LABEL, "off_site": "", "bump": 1000000, "snapshot": {"path": LABEL}}
    return dict(found, **more)


def host(name, state="swapped", record=None, kind="restore", identity="20260102T040000Z-0001", retired=None, own=None):
    record = about() if record is None else record
    left = {"id": identity, "state": state, "kind": kind, "hosts": record.get("hosts", ["cp1", "cp2", "cp3"]), "about": record} if state else {}
    left.update({"retired": record.get("retired", [])} if state else {})
    left.update({"since": "2026-01-02T04:00:01Z", "untouched": False, "path": "/t"} if state else {})
    ended = state in ("committed", "rolled-back")
    transactions = [left] if state else []
    return (name, {"etcd": {"name": own or name}, "retired": retired or {}, "unfinished": [] if ended else transactions, "transactions": transactions})


def three(*states, **more):
    return [host("cp%d" % (number + 1), state, **more) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("hosts", "possible"),
    [
        (three("staged", "staged", "staged"), True),
        (three("stopping", "swapped", "started"), True),
        (three("committing", "committed", "committed"), True),
        # data that is not staged, one that began to go back, one that took no part, and no restore at all
        (three("staged", "staging", "staged"), False),
        (three("swapped", "rolling-back", "swapped"), False),
        (three("swapped", "", "swapped"), False),
        (three("", "", ""), False),
        # not all that get the snapshot are here
        (three("swapped", "swapped"), False),
        # one that an earlier restore retired takes no part
        (three("swapped", "swapped", record=about(hosts=["cp1", "cp2"])) + [host("cp3", "", retired={"id": "x"})], True),
        # one that is to be retired has nothing to stage
        (three("staged", "staged", record=about(hosts=["cp1", "cp2"])) + [host("cp3", "begun", about(hosts=["cp1", "cp2"]), kind="retire")], True),
        (three("staged", "begun", "staged"), False),
        # two restores
        (three("staged", "staged") + [host("cp3", "staged", identity="20260103T040000Z-0001")], False),
        # what salvage.yml left has no hosts that get a snapshot
        (three("staged", "staged", "staged", record={"hosts": []}), False),
    ],
)
def test_whether_it_can_be_finished(hosts, possible):
    for each in hosts:
        assert unfinished_restore(hosts, each[0], {"unfinished": "resume"})["resumed"] is possible
    assert unfinished_restore(hosts, hosts[0][0])["resumed"] is False


OFF_SITE = about(label="s3:backups/prod/etcd-cp1-20260102T030405Z.db", off_site="s3:backups/prod")


@pytest.mark.parametrize(
    ("record", "options", "conflicts"),
    [
        # the defaults are no contradiction of anything
        (about(hosts=["cp1"], lost=["cp9"]), {"members": [], "lost_members": [], "snapshot": "", "off_site": "", "bump_revision": True}, []),
        # the same again, by whatever name and in whatever order
        (about(), {"members": ["cp3", "cp1", "cp2"]}, []),
        (about(lost=["a", "b"]), {"lost_members": ["b", "a"]}, []),
        (about(), {"members": ["cp1"]}, [("members", '["cp1", "cp2", "cp3"]', '["cp1"]')]),
        (about(hosts=["cp1"], retired=["cp2", "cp3"]), {"members": ["cp1", "cp2"]}, [("members", '["cp1"]', '["cp1", "cp2"]')]),
        (about(), {"members": "cp1"}, [("members", '["cp1", "cp2", "cp3"]', "cp1")]),
        (about(), {"lost_members": ["cp4"]}, [("lost_members", "[]", '["cp4"]')]),
        (about(lost=["cp4"]), {"lost_members": ["cp5"]}, [("lost_members", '["cp4"]', '["cp5"]')]),
        (about(), {"snapshot": LABEL}, []),
        (about(), {"snapshot": "/var/backups//etcd/etcd-cp1-20260102T030405Z.db"}, []),
        (about(), {"snapshot": "/var/backups/etcd/another.db"}, [("snapshot", LABEL, "/var/backups/etcd/another.db")]),
        (about(), {"off_site": "s3:backups"}, [("off_site", "(none)", "s3:backups")]),
        (OFF_SITE, {"off_site": "s3:backups/prod/", "snapshot": "etcd-cp1-20260102T030405Z.db"}, []),
        (OFF_SITE, {"off_site": "s3:backups/prod", "snapshot": "latest"}, []),
        (OFF_SITE, {"snapshot": "b.db"}, [("snapshot", OFF_SITE["label"], "b.db")]),
        (about(), {"bump_revision": "no"}, [("bump_revision", "true (by 1000000)", "false")]),
        # the tools could not, or it was switched off: what is staged is used
        (about(bump=0), {"bump_revision": False}, []),
        (about(bump=0), {"bump_revision": True}, []),
    ],
)
def test_what_contradicts_the_record(record, options, conflicts):
    found = unfinished_restore(three("swapped", "swapped", "swapped", record=record), "cp1", dict(options, unfinished="resume"))
    assert found["resumed"] and found["about"] == record and bool(found["refusal"]) is bool(conflicts)
    assert found["members"] == record["hosts"]
    for name, recorded, given in conflicts:
        assert "etcd_restore_%s was %s and is %s" % (name, recorded, given) in found["refusal"]
    assert found["refusal"].count(" and is ") == len(conflicts)


def test_a_contradiction_says_how_to_finish_and_how_to_start_again():
    hosts = three("swapped", "swapped", "swapped", record=about(lost=["cp8"]))
    found = unfinished_restore(hosts, "cp2", {"unfinished": "resume", "members": ["cp9"], "lost_members": ["cp7"]})
    assert found["refusal"] == (
        "The restore 20260102T040000Z-0001 of cp1, cp2, cp3 was begun with other options than this run has: etcd_restore_members was "
        '["cp1", "cp2", "cp3"] and is ["cp9"]; etcd_restore_lost_members was ["cp8"] and is ["cp7"]. Nothing was done. To finish it as it was begun, run '
        "this again without etcd_restore_members and etcd_restore_lost_members. To restore with these options instead, first roll it back with: "
        "ansible-playbook k8s_dr.etcd.rollback -l cp1,cp2,cp3"
    )


def test_members_by_the_names_that_etcd_has():
    hosts = [host("cp%d" % number, own="node%d" % number) for number in (1, 2, 3)]
    assert not unfinished_restore(hosts, "cp1", {"unfinished": "resume", "members": ["node1", "node2", "cp3"]})["refusal"]


def test_the_record_of_a_node_that_has_finished_is_that_of_the_others():
    hosts = [host("cp1", "committed", record={}), *three("committing", "committing", "committing")[1:]]
    found = unfinished_restore(hosts, "cp1", {"unfinished": "resume", "members": ["cp1"]})
    assert found["resumed"] and found["about"] == about() and found["left"]["state"] == "committed" and found["refusal"].count(" and is ") == 1


@pytest.mark.parametrize("mode", ["refuse", "rollback"])
def test_nothing_is_unfinished(mode):
    expect = {"left": {}, "about": {}, "resumed": False, "take_back": False, "ends": False, "refusal": "", "message": "", "members": []}
    assert unfinished_restore(three("", "", ""), "cp2", {"unfinished": mode}) == expect
    # that all have committed one is nothing unfinished
    assert unfinished_restore(three("committed", "committed", "committed"), "cp2", {"unfinished": mode}) == expect
    # a node that could not be asked
    assert unfinished_restore([["cp1", {}], *three("", "")[1:]], "cp2", {"unfinished": mode}) == expect
    assert unfinished_restore(three("", "", ""), "cp2", {"unfinished": mode, "members": ["cp2"]})["members"] == ["cp2"]


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (three("", "", ""), "so none can be finished. Nothing was done. Validate"),
        ([["cp1", {}], *three("", "")[1:]], "No restore is unfinished on cp1, cp2, so none"),
        (
            three("rolled-back", "rolled-back"),
            "The last restore of cp1, 20260102T040000Z-0001, has ended: its state is \"rolled-back\" since 2026-01-02T04:00:01Z. Nothing",
        ),
        (three("committed", "committed", "committed"), "validate -l cp1,cp2,cp3. To begin a new restore, run this again without etcd_restore_unfinished"),
    ],
)
def test_there_is_nothing_to_finish(hosts, words):
    """A new restore, of the newest snapshot, is not what was asked for."""
    found = unfinished_restore(hosts, "cp1", {"unfinished": "resume"})
    assert words in found["refusal"]
    assert not found["resumed"] and not found["take_back"] and not found["message"]


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (three("begun"), 'its state is "begun" (the cluster was not touched) since 2026-01-02T04:00:01Z. Nothing was done. Roll it back with: '),
        (three("swapped", "swapped", "swapped"), "rollback -l cp1,cp2,cp3. Or run this again with -e etcd_restore_unfinished=resume to finish it."),
        (three("swapped", "swapped"), "rollback -l cp1,cp2. Or run this again on cp3 as well, with -e etcd_restore_unfinished=resume to finish it."),
        (three("committing", "started", "started"), "validated: run this again with -e etcd_restore_unfinished=resume to finish it. rollback.yml rolls it"),
        # also where this run does not have the others
        (three("committing"), "validated: run this again on cp2 and cp3 as well, with -e etcd_restore_unfinished=resume to finish it. rollback.yml rolls it"),
        (three("committing"), "rollback.yml rolls it back only while the nodes have not decided to keep the data."),
        (three("swapped", record=about(hosts=["cp1"], retired=["cp2", "cp3"])), "Or run this again on cp2 and cp3 as well, with -e "),
        # alone it decides alone
        (three("committing", record=about(hosts=["cp1"])), "to finish it. rollback.yml rolls it back, with all that was written since."),
        (three("committing", "committed"), "All nodes keep its data, because cp2 committed it. Run this again on cp3 as well, with -e "),
        (three("committing", "committed", "committed"), "because cp2, cp3 committed it. Run this again with -e etcd_restore_unfinished=resume"),
        (three("committed", "committed", "committing"), "because cp1, cp2 committed it. Run this again with -e etcd_restore_unfinished=resume"),
        ([host("cp1", "rejoining", kind="retire"), host("cp2", "committed")], "Return the node with: ansible-playbook k8s_dr.etcd.rejoin -l cp1"),
    ],
)
def test_refused(hosts, words):
    found = unfinished_restore(hosts, "cp1", {"unfinished": "refuse"})
    assert found["refusal"].startswith("On cp1 the restore 20260102T040000Z-0001 is unfinished: ") and words in found["refusal"]
    assert not found["take_back"] and not found["message"]


def test_a_state_without_a_time():
    hosts = three("begun")
    hosts[0][1]["unfinished"][0]["since"] = ""
    assert "since its beginning. Nothing" in unfinished_restore(hosts, "cp1")["refusal"]


@pytest.mark.parametrize("mode", ["refuse", "resume", "rollback"])
def test_a_rejoin_is_never_rolled_back_here(mode):
    """The members that were restored without the node have committed and serve."""
    hosts = [host("cp1", "committed"), host("cp2", "rejoining", kind="retire")]
    assert "k8s_dr.etcd.rejoin -l cp2" in unfinished_restore(hosts, "cp2", {"unfinished": mode})["refusal"]
    # and what the others have committed is finished
    assert unfinished_restore(hosts, "cp1", {"unfinished": mode})["left"] == {}


@pytest.mark.parametrize(
    ("reached", "states", "bump", "resumed"),
    [
        (1500000, ("staged", "staged"), 2000000, True),
        (2000, ("staged", "staged"), 2000000, True),
        # the data as it is staged would have an older revision than clients have seen, or nearly so
        (2000900, ("staged", "staged"), 2000000, False),
        (9000000, ("staged", "staged"), 2000000, False),
        # without a quorum nothing is written
        (9000000, ("staged", "stopping"), 2000000, True),
        (9000000, ("staged", "stopped", "stopped"), 2000000, True),
        (9000000, ("staged", "stopped", "staged"), 2000000, False),
        # and where it was not raised nothing is promised
        (9000000, ("staged", "staged"), 0, True),
    ],
)
def test_staged_data_that_etcd_has_outrun_is_staged_anew(reached, states, bump, resumed):
    record = about(hosts=["cp1", "cp2"], bump=bump, snapshot={"path": LABEL, "revision": 1000})
    hosts = three(*states, record=record)
    hosts[1][1]["revision_on_disk"] = reached
    found = unfinished_restore(hosts, "cp1", {"unfinished": "resume"})
    assert found["resumed"] is resumed and found["take_back"] is not resumed and not found["refusal"]
    # of the same snapshot and members
    assert found["about"]["label"] == LABEL and found["members"] == ["cp1", "cp2"]
    if not resumed:
        assert unfinished_restore(hosts, "cp1", {"unfinished": "resume", "members": ["cp2"]})["members"] == ["cp2"]
        # one that this run does not have is no member that it could restore
        assert unfinished_restore(hosts[:1], "cp1", {"unfinished": "resume"})["members"] == []
    assert ("and etcd has written too much since it was staged. Afterwards a new restore begins." in found["message"]) is not resumed
    # and a run that is refused says so
    refusal = unfinished_restore(hosts, "cp1")["refusal"]
    assert ("to roll it back and begin it anew, because etcd has written too much since it was staged." in refusal) is not resumed
    assert refusal.endswith("to finish it.") is resumed


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        # what the refusal above advises, with the -l that was refused: no rollback is meant by that
        (three("committing"), "it is of cp2 and cp3 as well, which this run does not have. Nothing was done. Run this again on all of them (drop the -l)."),
        (three("swapped", "swapped"), "it is of cp3 as well"),
        # a retired one that serves would be a second cluster beside what is finished
        (three("staged", record=about(hosts=["cp1"], retired=["cp2", "cp3"])), "it is of cp2 and cp3 as well"),
        (three("committing", "rolling-back", "committing"), "although its data was validated. Nothing was done. Each node asks what all have decided"),
        (three("committed", "rolling-back", "committing"), "although its data was validated"),
    ],
)
def test_a_run_that_is_to_finish_a_restore_takes_nothing_back_that_may_be_kept(hosts, words):
    found = unfinished_restore(hosts, "cp1", {"unfinished": "resume"})
    assert words in found["refusal"] and not found["take_back"] and not found["resumed"] and not found["message"]


def test_a_retired_host_is_one_of_those_that_finish_it():
    record = about(hosts=["cp1"], retired=["cp2"])
    hosts = [host("cp1", "staged", record), host("cp2", "begun", record, kind="retire")]
    assert unfinished_restore(hosts, "cp1", {"unfinished": "resume"})["resumed"]
    assert unfinished_restore(hosts, "cp2", {"unfinished": "resume"})["resumed"]


def test_an_older_committed_generation_decides_nothing():
    """cp1 was restored again, while cp2 could not be reached."""
    old, new = about(hosts=["cp1"], retired=["cp2"]), about(hosts=["cp1"])
    first = host("cp1", "committed", old)
    second = host("cp1", "committed", new, identity="20260103T040000Z-0001")[1]["transactions"]
    first[1]["transactions"] += second
    found = unfinished_restore([first, host("cp2", "committing", old, kind="retire")], "cp1", {"unfinished": "refuse"})
    assert found["left"] == {} and not found["refusal"]


def test_a_restore_that_goes_back_is_not_to_be_finished():
    refusal = unfinished_restore(three("staged", "rolling-back", "staged"), "cp1")["refusal"]
    assert refusal.endswith("resume to roll it back and begin it anew, because it cannot be finished on all nodes.")


@pytest.mark.parametrize(
    ("mode", "states", "words"),
    [
        ("rollback", ("swapped", "swapped", "swapped"), "restored data) since 2026-01-02T04:00:01Z. Afterwards a new restore begins."),
        ("resume", ("swapped", "rolling-back", "swapped"), ", and it cannot be finished on all nodes. Afterwards"),
    ],
)
def test_rolled_back_first(mode, states, words):
    found = unfinished_restore(three(*states), "cp1", {"unfinished": mode})
    assert found["take_back"] and not found["refusal"] and not found["ends"] and not found["resumed"]
    assert found["message"].startswith("ROLL BACK of restore 20260102T040000Z-0001 on cp1: its state is") and words in found["message"]
    check = unfinished_restore(three(*states), "cp1", {"unfinished": mode, "check": True})
    assert check["take_back"] and check["ends"] and "Check mode ends here" in check["message"]


def test_what_was_left_before_it_stopped_anything_is_rolled_back():
    hosts = three("staged")
    hosts[0][1]["unfinished"][0]["untouched"] = True
    found = unfinished_restore(hosts, "cp1", {"unfinished": "refuse", "check": True})
    assert found["take_back"] and not found["ends"] and "no run has continued it for 15 minutes. Afterwards" in found["message"]


def test_a_retired_node_does_not_start_beside_restored_ones_that_are_out_of_reach():
    record = about(hosts=["cp1", "cp2"])
    retired = host("cp3", "stopped", record, kind="retire")
    found = unfinished_restore([host("cp1", "swapped", record), retired], "cp3", {"unfinished": "rollback"})
    assert found["refusal"].startswith("cp3 stays stopped: cp1, cp2 were restored without it") and not found["take_back"]
    assert unfinished_restore([host("cp1", "swapped", record), retired], "cp1", {"unfinished": "rollback"})["take_back"]
    together = [host("cp1", "swapped", record), host("cp2", "swapped", record), retired]
    assert unfinished_restore(together, "cp3", {"unfinished": "rollback"})["take_back"]
    # of a stop for a salvage there are no others
    assert unfinished_restore([host("cp3", "stopped", {"hosts": []}, kind="retire")], "cp3", {"unfinished": "rollback"})["take_back"]


def test_resumed():
    found = unfinished_restore(three("swapped", "swapped", "swapped"), "cp1", {"unfinished": "resume"})
    assert found["message"] == (
        "RESUME of restore 20260102T040000Z-0001 of %s on cp1: its state is \"swapped\" (the control plane is stopped, with the restored data) since "
        "2026-01-02T04:00:01Z. It continues from there." % LABEL
    )
    hosts = three("swapped", "swapped", record=about(hosts=["cp1", "cp2"])) + [host("cp3", "", retired={"id": "x"})]
    found = unfinished_restore(hosts, "cp3", {"unfinished": "resume"})
    assert found["resumed"] and not found["message"] and found["about"]["hosts"] == ["cp1", "cp2"]


def test_ansible_finds_it():
    assert FilterModule().filters()["unfinished_restore"] is unfinished_restore
    with pytest.raises(AnsibleFilterError, match="list of hosts"):
        unfinished_restore([1], "cp1")
