# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of a restore that Ansible or AWX cuts into parts are refused before anything is looked at."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import harness
import pytest

ROLE = {"role": "k8s_dr.etcd.etcd_restore", "tags": ["dr"]}
PLAY = {"hosts": "all", "gather_facts": False, "strategy": "ansible.builtin.linear", "any_errors_fatal": True, "roles": [ROLE]}
FIRST = "The first tasks were left out (--start-at-task), so nothing was checked or prepared. Nothing was done."
CASES = {
    # what is included has no tags of the role, so that only some of it would run
    "tags": (["--tags", "dr"], {}, "--tags and --skip-tags (in AWX: job tags, skip tags) would leave out parts of what this does. Nothing was done."),
    "serial": ([], {"serial": 1}, "cp2 is in this play, but not in this batch of it: all nodes have to be stopped and started together. Nothing was done."),
    "slice": (["-e", "awx_workflow_job_name=Restore", "-e", "awx_job_template_name=Restore"], {}, "This job is a slice of"),
    "start-at-stop": (["--start-at-task", "Start etcd on the restored data, then the API server"], {}, FIRST),
    # tags and workflows that have nothing to do with it: the next thing that is wrong is that there is no control plane
    "others": (["--skip-tags", "docker", "-e", "awx_workflow_job_name=Nightly", "-e", "awx_job_template_name=Restore"], {}, "not a kubeadm control plane node"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_of_some_parts_only(name, tmp_path):
    arguments, play, words = CASES[name]
    (tmp_path / "play.json").write_text(json.dumps([dict(PLAY, **play)]))
    command = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "cp1,cp2", "-c", "local", str(tmp_path / "play.json")]
    command += ["-e", "ansible_python_interpreter=" + sys.executable, "-e", "etcd_client_manifests_dir=%s" % (tmp_path / "none"), *arguments]
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(ANSIBLE_NOCOLOR="1", ANSIBLE_COLLECTIONS_PATH=str(harness.COLLECTIONS), ANSIBLE_HOME=str(tmp_path / "ansible"))
    process = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert process.returncode != 0 and words in process.stdout, process.stdout + process.stderr
    assert "changed=0" in process.stdout and "changed=1" not in process.stdout
