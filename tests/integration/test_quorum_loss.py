# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two of three members are gone for good."""

from __future__ import annotations

import json

import harness
import pytest
import quorum_loss
import yaml
from test_snapshot_role import play, stats


@pytest.mark.parametrize(("leader_survives", "power_fails"), [(True, True), (False, True), (False, False)])
def test_a_salvage_holds_all_data_of_the_survivor(version, tmp_path, leader_survives, power_fails):
    acknowledged, found = quorum_loss.one_round(version, tmp_path, leader_survives, power_fails)
    print({way: numbers if numbers is None else len(acknowledged - numbers) for way, numbers in found.items()})
    for way in quorum_loss.WAYS:
        assert acknowledged & (found[way] or set()) <= found["salvage"], way
    assert acknowledged
    if leader_survives:
        assert acknowledged <= found["salvage"]


def test_what_each_survivor_holds_is_in_the_artifacts(tmp_path):
    """The task of salvage.yml as it is, on two hosts: a job has the values of the whole run, and not those of one host."""
    [salvage] = yaml.safe_load((harness.ROOT / "roles/etcd_restore/tasks/salvage.yml").read_text())
    task = next(task for task in salvage["block"] if "ansible.builtin.set_stats" in task)
    path = tmp_path / "play.yml"
    path.write_text(json.dumps([{"name": "Salvage", "hosts": "control_plane", "gather_facts": False, "tasks": [task]}]))
    held = {"cp1": {"path": "/b/1.db", "revision": 582}, "cp2": {"path": "/b/2.db", "revision": 583}}
    hosts = {name: {"__etcd_restore_salvaged": {"snapshot": dict(snapshot, size=1)}} for name, snapshot in held.items()}
    # from a third one nothing was salvaged
    rc, output, _recap = play(path, tmp_path, dict(hosts, cp3={"__etcd_restore_salvaged": {"changed": False}}))
    assert rc == 0 and stats(output) == {"etcd_salvage": held}, output
