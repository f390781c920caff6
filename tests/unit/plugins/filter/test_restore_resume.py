# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an unfinished restore can be finished, and which options contradict what it was begun with."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_resume import FilterModule, restore_resume

LABEL = "/var/backups/etcd/etcd-cp1-20260102T030405Z.db"


def about(**more):
    found = {"hosts": ["cp1", "cp2", "cp3"], "retired": [], "lost": [], "label": LABEL, "off_site": "", "bump": 1000000, "snapshot": {"path": LABEL}}
    return dict(found, **more)


def host(name, state="swapped", record=None, kind="restore", identity="20260102T040000Z-0001", retired=None, own=None):
    record = about() if record is None else record
    left = {"id": identity, "state": state, "kind": kind, "hosts": record.get("hosts", ["cp1", "cp2", "cp3"]), "about": record} if state else {}
    return (name, left, {"etcd": {"name": own or name}, "retired": retired or {}})


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
    assert restore_resume(hosts)["possible"] is possible


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
    found = restore_resume(three("swapped", "swapped", "swapped", record=record), options)
    assert [(each["option"], each["recorded"], each["given"]) for each in found["conflicts"]] == [("etcd_restore_" + name, *rest) for name, *rest in conflicts]
    assert found["about"] == record


def test_members_by_the_names_that_etcd_has():
    hosts = [host("cp%d" % number, own="node%d" % number) for number in (1, 2, 3)]
    assert restore_resume(hosts, {"members": ["node1", "node2", "cp3"]})["conflicts"] == []


def test_what_cannot_be_finished_is_begun_anew_with_the_options_as_they_are():
    assert restore_resume(three("rolling-back", "swapped", "swapped"), {"snapshot": "/other.db"}) == {"possible": False, "about": about(), "conflicts": []}


def test_the_record_of_a_node_that_has_finished_is_that_of_the_others():
    hosts = [host("cp1", "committed", record={}), *three("committing", "committing", "committing")[1:]]
    found = restore_resume(hosts, {"members": ["cp1"]})
    assert found["possible"] and found["about"] == about() and len(found["conflicts"]) == 1


def test_ansible_finds_it():
    assert FilterModule().filters()["restore_resume"] is restore_resume
    with pytest.raises(AnsibleFilterError, match="list of hosts"):
        restore_resume([1])
