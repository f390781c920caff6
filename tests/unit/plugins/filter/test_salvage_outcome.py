# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshot a salvage recommends, and with which command."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.salvage_outcome import salvage_outcome

RESTORE = "ansible-playbook k8s_dr.etcd.restore -l cp1,cp2 -e etcd_restore_snapshot="


def taken(number, revision):
    return {"path": "/b/%d.db" % number, "revision": revision, "size": 2097152}


def outcome(host, *snapshots, lost=("node3",)):
    members = [{"label": "node1", "role": "restore"}] + [{"label": name, "role": "absent"} for name in lost]
    return salvage_outcome({"host": host, "hosts": ["cp1", "cp2"], "snapshots": list(snapshots), "membership": {"members": members}})


def test_the_highest_revision_is_restored():
    assert outcome("cp1", taken(1, 582), taken(2, 583)) == [
        "SALVAGED /b/1.db: revision 582, 2.00 MB, verified. The snapshot of cp2 has a higher revision: restore that one.",
        "cp1 is as it was. Make sure that node3 can never start again, then restore with: "
        + RESTORE + "/b/2.db -e '{\"etcd_restore_lost_members\": [\"node3\"]}'",
    ]  # fmt: skip
    assert outcome("cp2", taken(1, 582), taken(2, 583))[0] == "SALVAGED /b/2.db: revision 583, 2.00 MB, verified."


def test_of_equal_revisions_the_first_is_restored():
    for host in ("cp1", "cp2"):
        assert RESTORE + "/b/1.db" in outcome(host, taken(1, 582), taken(2, 582))[1]


def test_a_host_without_a_snapshot_is_not_recommended():
    assert outcome("cp2", {}, taken(2, 5))[0] == "SALVAGED /b/2.db: revision 5, 2.00 MB, verified."


def test_no_member_is_lost():
    assert outcome("cp1", taken(1, 5), {}, lost=())[1] == "cp1 is as it was. Restore with: " + RESTORE + "/b/1.db"
