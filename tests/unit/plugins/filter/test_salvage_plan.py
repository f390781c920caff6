# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a member without a quorum is salvaged, and how."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.salvage_plan import salvage_plan

MB = 1048576
NODE = {
    "unfinished": [], "database_bytes": 100 * MB, "data_bytes": 200 * MB, "free_bytes": 492 * MB, "data_dir": "/d", "transactions_dir": "/d.restore",
    "retired": {}, "kubelet_running": True, "missing": [], "complete": True, "data_in_use": True, "obstacles": [], "runtime": {"running": True},
    "systemd": True, "revision_on_disk": 582,
}  # fmt: skip
LOST = {"quorum": False, "labels": ["cp1", "cp2", "cp3"]}


def plan(node=None, **known):
    base = {"host": "cp1", "hosts": ["cp1", "cp2"], "manifests_dir": "/m", "snapshot_dir": "/b", "rollback_after": "900", "membership": LOST, "answering": []}
    return salvage_plan(dict(base, **known), dict(NODE, **(node or {})))


@pytest.mark.parametrize(
    ("node", "known", "words"),
    [
        ({}, {}, []),
        ({"unfinished": [{"id": "1"}]}, {}, ["cp1 the restore 1 is unfinished. Roll it back first: ansible-playbook k8s_dr.etcd.rollback -l cp1,cp2"]),
        ({"database_bytes": 0}, {}, ["cp1 has no database in /d, so there is nothing to salvage. Look on the other"]),
        ({"database_bytes": 0, "retired": {"path": "/r"}}, {}, ["its previous data is in /r/old"]),
        ({"kubelet_running": False}, {}, ["An etcd uses the data of cp1, and no kubelet runs that would stop it. Start kubelet"]),
        ({"missing": ["etcd"], "complete": False}, {}, ["An etcd uses the data of cp1, and it has no manifest in /m."]),
        ({"missing": ["etcd"], "complete": False, "data_in_use": False}, {}, []),
        ({"kubelet_running": False, "data_in_use": False, "systemd": False, "obstacles": ["x"]}, {}, []),
        ({"missing": ["kube-scheduler"], "complete": False}, {}, ["no manifest of kube-scheduler in /m"]),
        ({"obstacles": ["/a is full.", "/b is immutable"], "runtime": {"running": False}}, {}, ["On cp1 /a is full", "/b is", "runtime does not answer"]),
        ({"systemd": False}, {}, ["add -e etcd_restore_rollback_after=0 to continue without it"]),
        ({"systemd": False}, {"rollback_after": "0"}, []),
        ({"signing_key_problem": "the key is not there."}, {}, ["On cp1 the key is not there. Or add -e etcd_snapshot_signing_key= to"]),
        ({"free_bytes": 491 * MB}, {}, ["cp1 has 491.00 MB free in the file system of /d, and needs 492.00 MB there"]),
        ({}, {"answering": ["cp3", "cp3"]}, ["cp3 answers cp1 and is not in this run"]),
        # with a quorum nothing else matters
        ({"free_bytes": 0}, {"membership": dict(LOST, quorum=True)}, ["has a quorum (cp1, cp2, cp3), so it gives out all that it holds."]),
    ],
)
def test_refusals(node, known, words):
    found = plan(node, **known)["refusals"]
    assert len(found) == len(words)
    for sentence, part in zip(found, words):
        assert part in sentence + "."


def test_how():
    assert plan()["stop"] is True
    assert plan()["message"].startswith("SALVAGE of /d on cp1: revision 582 and what its write-ahead log holds besides; members cp1, cp2, cp3. Its control")
    still = plan({"kubelet_running": False, "data_in_use": False})
    assert still["stop"] is False and "made into a verified snapshot in /b." in still["message"]
