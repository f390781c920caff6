# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The progress of a new member, and when the wait for it ends."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.rejoin_progress import rejoin_progress

STARTING = {"member": {"started": False, "is_learner": True}, "progress": {}}
LEARNING = {
    "member": {"started": True, "is_learner": True},
    "progress": {"raft_index": 70, "cluster_raft_index": 100, "db_size": 1048576, "cluster_db_size": 2097152},
}
SILENT = dict(LEARNING, progress=dict(LEARNING["progress"], raft_index=None, db_size=None))
VOTER = {"member": {"started": True, "is_learner": False}, "progress": {}}


@pytest.mark.parametrize(
    ("answer", "waited", "done", "refusal", "message"),
    [
        (STARTING, "179.9", False, "", "cp2 has not started yet"),
        (STARTING, 180, False, "etcd of cp2 did not start within 180 s (etcd_rejoin_start_timeout). Its log is in /var/log", "cp2 has not started yet"),
        (LEARNING, 1799, False, "", "cp2 has 70 of 100 log entries, and a database of 1.00 MB of 2.00 MB"),
        (LEARNING, 1800, False, "etcd of cp2 has not caught up within 1800 s (etcd_rejoin_catch_up_timeout). Its log is in", "cp2 has 70 of 100 log"),
        (SILENT, 1, False, "", "cp2 has 0 of 100 log entries, and a database of 0.00 Bytes of 2.00 MB"),
        # it has come, however late
        (VOTER, 9999, True, "", "cp2 has its vote"),
        ({"unreachable": True, "msg": "Failed to connect."}, 1, False, "cp1 cannot be reached any more (Failed to connect)", ""),
        ({"unreachable": True}, 1, False, "cp1 cannot be reached any more", ""),
    ],
)
def test_progress(answer, waited, done, refusal, message):
    known = {"host": "cp2", "via": "cp1", "answer": answer, "waited": waited, "start_timeout": "180", "catch_up_timeout": 1800}
    found = rejoin_progress(known)
    assert found["done"] is done
    assert found["refusal"].startswith(refusal) and bool(found["refusal"]) is bool(refusal)
    assert found["message"].startswith(message)
