# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The error of a failed rejoin."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.rejoin_outcome import FilterModule, rejoin_outcome

AGAIN = "run it again: ansible-playbook k8s_dr.etcd.rejoin -l cp2"
BEGUN = {"begun": True, "gone": {"removed": []}, "stopped": {"transaction": {"state": "committed"}}}
STALE = {"case": "retire", "via": "cp1", "stale": [{"name": "node2", "id": "a2"}, {"name": "", "id": "a9"}]}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"check": True, "begun": True}, "Nothing was changed."),
        ({"done": True, "begun": True}, "cp2 is a voting member again, and its API server was started; only the last checks failed. Validate"),
        ({"plan": dict(STALE, case="learner")}, "cp2 is a member without a vote, as before. Remove the cause and " + AGAIN),
        ({}, "cp2 is not a member, and the cluster is unchanged. Its previous data is kept. "),
        ({"stale_removed": {"results": [{"removed": True}]}}, "the cluster is unchanged except that the stale members node2, a9 were removed. Its"),
        ({"stale_removed": {"results": [{"msg": "no"}]}}, "the cluster is unchanged. Its"),
        (BEGUN, "cp2 is stopped, its previous data is in /r/1/old, and it is not a member of the cluster, which is unchanged. Remove the cause and " + AGAIN),
        (dict(BEGUN, stopped={"msg": "no"}), "cp2 was left running, its"),
        (dict(BEGUN, gone={"msg": "no {{ quorum.\n"}, stopped={}), "and it could not be removed from the cluster (no { { quorum)."),
        (dict(BEGUN, gone={"unreachable": True}), "could not be removed from the cluster (cp1 cannot be reached)."),
    ],
)
def test_where_the_host_is(more, words):
    known = {"host": "cp2", "failed": {"task": "Start", "msg": "no"}, "check": False, "plan": STALE, "begun": False, "done": False, "path": "/r/1"}
    text = rejoin_outcome(dict(known, **more))
    assert text.startswith('The rejoin of cp2 failed at "Start": no. ') and words in text
    assert FilterModule().filters()["rejoin_outcome"] is rejoin_outcome
