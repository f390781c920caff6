# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What two runs of a rebuild or a drill on one machine do, by the order of the steps."""

from __future__ import annotations

import pathlib

import jinja2
import pytest
import yaml

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles/cluster_rebuild"
VARS = yaml.safe_load((ROLE / "vars/main.yml").read_text())


def test_the_machine_is_looked_at_again_before_it_is_changed_and_taken_at_once():
    tasks = [task["name"] for task in yaml.safe_load((ROLE / "tasks/prepare.yml").read_text())]
    assert tasks[:4] == [
        "Look at the machine once more",
        "Check that nothing was begun since the plan",
        "Make the directory of the rebuild",
        "Take the machine over from other runs",
    ]
    # images take minutes, in which another run may have come
    written = tasks.index("Write down what is begun")
    assert tasks[written - 1] == "Check that the machine is still this run's"


@pytest.mark.parametrize(
    ("seen", "state", "remains", "expected"),
    [
        ({}, {}, [], False),
        # a drill has begun while an operator was asked
        ({}, {"drill": True}, [], True),
        ({"name": "cp1"}, {"drill": True}, ["etcd runs"], True),
        # a cluster was made
        ({}, {}, ["/etc/kubernetes/admin.conf exists"], True),
        # a rebuild that goes on, and one that another run has finished
        ({"name": "cp1"}, {"name": "cp1"}, ["etcd runs"], False),
        ({"name": "cp1"}, {}, ["etcd runs"], True),
    ],
)
def test_what_has_changed_since_the_plan(seen, state, remains, expected):
    known = {
        "__cluster_rebuild_seen": {"machine": {"state": seen}},
        "__cluster_rebuild_last_look": {"machine": {"state": state, "remains": remains}},
    }
    assert jinja2.Template(VARS["__cluster_rebuild_meanwhile"]).render(known) == str(expected)


def test_what_a_drill_removes_when_its_directory_is_gone():
    """Only if this run has made that directory: otherwise nothing on the machine is of it."""
    trial = yaml.safe_load((ROLE / "tasks/trial.yml").read_text())[0]
    given = trial["always"][0]["k8s_dr.etcd.kube_rebuild_isolation"]
    render = jinja2.Template(given["record"]).render
    known = {"__cluster_rebuild_plan": {"record": "the record"}, "omit": "nothing"}
    assert render(known, __cluster_rebuild_made={"changed": True}) == "the record"
    assert render(known, __cluster_rebuild_made={"changed": False}) == render(known, __cluster_rebuild_made={}) == "nothing"
