# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two of three members are gone for good."""

from __future__ import annotations

import pytest
import quorum_loss


@pytest.mark.parametrize(("leader_survives", "power_fails"), [(True, True), (False, True), (False, False)])
def test_what_is_salvaged_is_all_that_the_survivor_has(version, tmp_path, leader_survives, power_fails):
    acknowledged, found = quorum_loss.one_round(version, tmp_path, leader_survives, power_fails)
    print({way: numbers if numbers is None else len(acknowledged - numbers) for way, numbers in found.items()})
    for way in quorum_loss.WAYS:
        assert acknowledged & (found[way] or set()) <= found["salvage"], way
    assert acknowledged
    if leader_survives:
        assert acknowledged <= found["salvage"]
