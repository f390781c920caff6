# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which nodes a host that rejoined is held against, and which members it must reach: the role's variables as they are, on a cluster that is only facts."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEN = {name: {"ready": True, "control_plane": name.startswith("cp")} for name in ("cp1", "cp2", "cp3", "worker")}
# name: nodes as seen before, names of members, and which nodes are expected to be well
CASES = {
    # cp3 was left out of a restore as well: Ready on paper, and no member
    "left out together": (SEEN, ["cp1"], {"cp1": True, "cp2": True, "cp3": False, "worker": True}),
    "the last one": (SEEN, ["cp1", "cp3"], {"cp1": True, "cp2": True, "cp3": True, "worker": True}),
    "was not well itself": (dict(SEEN, cp2={"ready": False, "control_plane": True}), ["cp1", "cp2", "cp3"], dict.fromkeys(SEEN, True)),
    "a worker was down": (dict(SEEN, worker={"ready": False, "control_plane": False}), ["cp1", "cp3"], dict(dict.fromkeys(SEEN, True), worker=False)),
    "nobody could look": (None, ["cp1"], {"cp2": True}),
}


def task_of(name, file):
    [found] = [task for task in yaml.safe_load((ROOT / "roles/etcd_rejoin/tasks" / file).read_text()) if task["name"] == name]
    return found


def said(directory, tasks):
    """What each of these debug tasks says."""
    (directory / "play.yml").write_text(yaml.safe_dump([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "play.yml"]
    process = subprocess.run(
        argv, cwd=directory, env=dict(env, ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8"), capture_output=True, text=True, check=False, timeout=120
    )
    found = [json.loads(json.loads("{%s}" % line)["msg"][5:]) for line in process.stdout.splitlines() if '"msg": "SAID ' in line]
    assert len(found) == len(tasks), process.stdout + process.stderr
    return found


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """{case: the nodes of the baseline}"""
    held = task_of("Validate nodes and kube-system through the host's own API server", "validate.yml")["vars"]
    tasks = []
    for nodes, members, _expect in CASES.values():
        facts = {
            "__etcd_rejoin_before": {"validation": {"observed": {"nodes": nodes, "workloads": {}} if nodes else None}},
            "__etcd_rejoin_members": {"members": [{"name": name} for name in members]},
            "__etcd_rejoin_node": {"etcd": {"name": "cp2"}},
        }
        tasks.append({"ansible.builtin.debug": {"msg": "SAID {{ cluster_validate_baseline.nodes | to_json }}"}, "vars": dict(held, **facts)})
    return dict(zip(CASES, said(tmp_path_factory.mktemp("rejoin"), tasks)))


@pytest.mark.parametrize("name", CASES)
def test_who_has_to_be_well(baselines, name):
    assert {node: state["ready"] for node, state in baselines[name].items()} == CASES[name][2]


def test_a_member_that_is_down_need_not_be_reached(tmp_path):
    """etcd may take the host all the same; where it does not, the plan has said so."""
    task = task_of("Reach the peer port of every voter that runs from the host", "preflight.yml")
    members = [
        dict({"id": name, "name": name, "peer_urls": ["https://%s:2380" % name], "healthy": True, "is_learner": False}, **more)
        for name, more in (("cp1", {}), ("cp2", {}), ("cp3", {"healthy": False}), ("cp4", {}), ("cp5", {"is_learner": True}), ("stale", {}))
    ]
    facts = {
        "__etcd_rejoin_members": {"members": members},
        "__etcd_rejoin_plan": {"stale": [{"id": "stale"}]},
        "__etcd_rejoin_node": {"etcd": {"name": "cp2"}},
    }
    asked = task["loop"].replace("{{", "SAID {{").replace(" }}", " | to_json }}")
    found = said(tmp_path, [{"ansible.builtin.debug": {"msg": asked}, "vars": dict(task["vars"], **facts)}])
    assert found == [["https://cp1:2380", "https://cp4:2380"]]
