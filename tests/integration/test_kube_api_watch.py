# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watch from the controller, with the real `ansible-playbook`: it ends with that."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import yaml
from harness import COLLECTIONS

URL = "https://127.0.0.1:1"
START = {"register": "watch", "k8s_dr.etcd.kube_api_watch": {"state": "started", "urls": [URL]}}
STOP = {"register": "seen", "k8s_dr.etcd.kube_api_watch": {"state": "stopped", "directory": "{{ watch.directory }}", "pid": "{{ watch.pid }}"}}


def play(tmp_path, *tasks):
    """An ansible-playbook whose managed host has neither a Python nor a user to become."""
    inventory = {"all": {"hosts": {"cp1": {"ansible_host": "192.0.2.1", "ansible_become": True, "ansible_python_interpreter": "/nonexistent"}}}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]))
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml"]
    env = dict(os.environ, ANSIBLE_NOCOLOR="1", ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS), ANSIBLE_LOCAL_TEMP=str(tmp_path / "local"))
    return subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)


def write(what, path):
    return {"k8s_dr.etcd.controller_file": {"path": str(path), "content": "{{ %s | to_json }}" % what}}


def runs(pid):
    try:
        state = pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_watch_starts_and_ends(tmp_path):
    wait = {"ansible.builtin.pause": {"seconds": 1}}
    wrong = {"k8s_dr.etcd.kube_api_watch": {"state": "started", "urls": ["nothing"]}, "failed_when": False, "register": "wrong"}
    late = dict(STOP, register="late", failed_when=False)
    with play(tmp_path, START, wait, STOP, late, wrong, write("[watch, seen, late, wrong]", tmp_path / "said")) as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    watch, seen, late, wrong = json.loads((tmp_path / "said").read_text())
    assert watch["answering"] == {URL: False} and not runs(watch["pid"]) and not os.path.exists(watch["directory"])
    probe = seen["probe"]
    assert probe["ended_by"] == "stop_file" and probe["apis"][URL]["samples"] > 2 and "refused" in probe["apis"][URL]["last_error"]
    assert "ended before" in late["msg"] and "nothing" in wrong["msg"] and "192.0.2.11" in wrong["msg"]


def test_the_watch_ends_when_ansible_is_killed(tmp_path):
    process = play(tmp_path, START, write("watch", tmp_path / "said"), {"ansible.builtin.pause": {"seconds": 60}})
    try:
        until((tmp_path / "said").exists)
        watch = json.loads((tmp_path / "said").read_text())
        time.sleep(0.3)
        assert runs(watch["pid"]) and os.path.isdir(watch["directory"])
    finally:
        # its workers, one of which waits on, are children of its own; the watch is not
        workers = [int(pid) for pid in pathlib.Path("/proc/%d/task/%d/children" % (process.pid, process.pid)).read_text().split()]
        process.send_signal(signal.SIGKILL)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=10)
    until(lambda: not runs(watch["pid"]))
    until(lambda: not os.path.exists(watch["directory"]), 5)
