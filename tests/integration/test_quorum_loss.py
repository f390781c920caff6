# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two of three members are gone for good."""

from __future__ import annotations

import pytest
import quorum_loss


@pytest.mark.parametrize("leader_survives", [True, False])
def test_what_is_salvaged_is_all_that_the_survivor_has(version, tmp_path, leader_survives):
    acknowledged, found = quorum_loss.one_round(version, tmp_path, leader_survives)
    print({way: len(acknowledged - numbers) for way, numbers in found.items()})
    for way in quorum_loss.WAYS:
        assert acknowledged & found[way] <= found["salvage"], way
    assert len(acknowledged) > 100
    if leader_survives:
        assert acknowledged <= found["salvage"]
