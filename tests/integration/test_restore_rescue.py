# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tasks of rescue.yml that decide nothing themselves, on nodes that are only facts: the filters get what they need. Each state has a unit test."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "etcd_restore"


def test_the_error_of_a_failed_restore(tmp_path):
    tasks = yaml.safe_load((ROLE / "tasks/rescue.yml").read_text())
    [request] = [task for task in tasks[0]["block"] if task["name"] == "Request the rollback"]
    end = tasks[-1]
    request.pop("notify")
    variables = [yaml.safe_load((ROLE / part / "main.yml").read_text()) for part in ("defaults", "vars")]
    facts = {
        "__etcd_restore_node": {"etcd": {"name": "cp"}, "retired": {}, "transactions_dir": "/r"},
        "__etcd_restore_id": "1",
        "__etcd_restore_taken_up": True,
        "__etcd_restore_present": True,
        "__etcd_restore_rolled_back": {"transaction": {"state": "rolled-back"}},
        "__etcd_restore_unretired": {},
        "__etcd_restore_again": {"validation": {"ok": True}},
    }
    inventory = {"all": {"hosts": {"cp1": facts, "cp2": dict(facts, __etcd_restore_rolled_back={"msg": "no", "transaction": {"state": "swapped"}})}}}
    inventory["all"]["vars"] = dict(variables[0], ansible_connection="local", ansible_python_interpreter=sys.executable)
    start = {"name": "Start", "ansible.builtin.fail": {"msg": "it did not {{ '{{' }} start."}, "when": "inventory_hostname == 'cp1'"}
    play = {"hosts": "all", "gather_facts": False, "vars": variables[1], "any_errors_fatal": True, "tasks": [{"block": [start], "rescue": [request, end]}]}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8", ANSIBLE_COLLECTIONS_PATH=str(ROOT / "playbooks/collections"))
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml"]
    process = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)
    said = process.stdout.replace('\\"', '"')
    assert 'The restore failed on cp1 at "Start": it did not { { start. The restore was rolled back: cp1 has its previous data, and the cluster works' in said
    assert 'The restore failed on cp2 at "a task on another node": see the task above. cp2 could NOT be rolled back: no. Its state is "swapped" (' in said
    assert process.returncode == 2
