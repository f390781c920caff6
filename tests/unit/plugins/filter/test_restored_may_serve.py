# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a retired node must stay stopped, since a restored one may still serve."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.restored_may_serve import FilterModule, restored_may_serve

SWAPPED = {"transaction": {"state": "swapped"}, "failed": False}
FAILED = {"transaction": {"state": "swapping"}, "failed": True}
BACK, NOT_BACK = {"transaction": {"state": "rolled-back"}}, {"transaction": {"state": "rolling-back"}}


@pytest.mark.parametrize(
    ("swaps", "rollbacks", "may"),
    [
        # no etcd was started
        ([SWAPPED, {}], [{}], False),
        ([SWAPPED, FAILED], [NOT_BACK], False),
        ([SWAPPED, {"skipped": True}], [{}], False),
        # it may have been
        ([SWAPPED, SWAPPED], [{}], True),
        ([SWAPPED, SWAPPED], [BACK, NOT_BACK], True),
        ([SWAPPED, SWAPPED], [BACK, {"msg": "unreachable"}], True),
        ([SWAPPED, SWAPPED, SWAPPED], [BACK, BACK], False),
    ],
)
def test_whether_one_may(swaps, rollbacks, may):
    assert restored_may_serve(swaps, rollbacks) is may
    assert FilterModule().filters()["restored_may_serve"] is restored_may_serve


@pytest.mark.parametrize(
    ("states", "rollbacks", "may"),
    [(["started"], [{}], True), (["starting-etcd"], [NOT_BACK], True), (["started"], [BACK], False), (["swapped", ""], [{}], False)],
)
def test_a_run_may_take_up_one_that_had_started_etcd(states, rollbacks, may):
    """It was killed before its own swap, or lost the restored node."""
    assert restored_may_serve([{}, {}], rollbacks, states) is may
