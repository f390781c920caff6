# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The id of a new restore comes after those of all earlier ones, whatever the clock says."""

from __future__ import annotations

import datetime
import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_id import FilterModule, restore_id


def node(*ids):
    return {"transactions": [{"id": identity} for identity in ids]}


@pytest.mark.parametrize("nodes", [[], [{}, None], [node()], [node("20250102T030405Z-0001", "what somebody put there")]])
def test_it_is_the_time(nodes):
    before = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    made = restore_id(nodes)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", made)
    assert before <= made.partition("-")[0] <= datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    assert restore_id(nodes) != made


def test_with_a_clock_that_is_behind_it_is_still_the_newest():
    made = restore_id(map(dict, [node("20250102T030405Z-0001"), node("20981231T235959Z-ffff", "20900101T000000Z-0001")]))
    assert made.startswith("20990101T000000Z-")


def test_ansible_finds_it():
    assert FilterModule().filters()["restore_id"] is restore_id
    with pytest.raises(AnsibleFilterError, match="list of what etcd_restore_info"):
        restore_id([1])
