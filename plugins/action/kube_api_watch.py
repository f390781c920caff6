# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All of the module kube_api_watch, which is documented there."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.k8s_dr.etcd.plugins.modules.kube_api_probe import complaint, gone

COLLECTION = pathlib.Path(__file__).resolve().parents[2]
# Seconds until each API server was asked once, and until the process has ended.
READY, ENDED = 10, 10
POLL = 0.02
# The collection is found by its path, since the process has none of Ansible's loaders.
PROGRAM = """
import json, os, sys, types
asked = json.load(sys.stdin)
sys.path[:] = asked["sys_path"]
for name, path in asked["packages"].items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from ansible_collections.k8s_dr.etcd.plugins.modules.kube_api_probe import watch
try:
    answer = {"probe": watch(asked["params"])}
except Exception as exc:
    answer = {"msg": str(exc) or type(exc).__name__}
with open(asked["result"] + ".new", "w", encoding="utf-8") as stream:
    json.dump(answer, stream)
os.rename(asked["result"] + ".new", asked["result"])
"""


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def load(path):
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def start(urls, ca, max_seconds, interval, ansible, parent):
    """Begin to watch in a process of its own, which ends with the process `ansible`: what the task returns."""
    directory = tempfile.mkdtemp(prefix="k8s-dr-watch-", dir=parent)
    stop_file, ready_file, result = (os.path.join(directory, name) for name in ("stop", "ready", "result"))
    params = {"urls": urls, "ca": ca or None, "interval": interval, "timeout": 2.0, "max_seconds": max_seconds}
    params.update(stop_file=stop_file, ready_file=ready_file, while_process=ansible)
    packages = {"ansible_collections": [], "ansible_collections.k8s_dr": [], "ansible_collections.k8s_dr.etcd": [str(COLLECTION)]}
    process = None
    try:
        wrong = complaint(params)
        if wrong:
            raise ValueError(wrong)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/"
        )
        with process.stdin as stream:
            asked = {"sys_path": [os.path.abspath(path) for path in sys.path], "packages": packages, "params": params, "result": result}
            stream.write(json.dumps(asked).encode())
        if not wait_for(lambda: os.path.exists(ready_file) or os.path.exists(result) or process.poll() is not None, READY):
            raise ValueError("the API servers were not asked within %d seconds" % READY)
        if not os.path.exists(ready_file):
            raise ValueError((load(result).get("msg") if os.path.exists(result) else None) or "its process ended at once")
        return {"directory": directory, "pid": process.pid, "answering": load(ready_file)}
    except BaseException:
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)
        raise


def stop(directory, pid):
    """End it: what it saw."""
    result = os.path.join(directory, "result")
    if not os.path.isdir(directory):
        raise ValueError("%s is missing, so the watch ended before" % directory)
    try:
        with open(os.path.join(directory, "stop"), "w", encoding="utf-8"):
            pass
        if not wait_for(lambda: os.path.exists(result) or gone(pid), ENDED):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        if not os.path.exists(result):
            raise ValueError("its process ended without a result")
        answer = load(result)
        if "probe" not in answer:
            raise ValueError(answer["msg"])
        return answer["probe"]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class ActionModule(ActionBase):
    """Runs on the controller, as the user who started Ansible: `become` and `delegate_to` change nothing."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """See the module.  Never raises: what only measures must not end what it measures."""
        super().run(tmp, task_vars)
        urls = self._task.args.get("urls") or []
        try:
            dummy, args = self.validate_argument_spec(
                {
                    "state": {"type": "str", "choices": ["started", "stopped"], "required": True},
                    "urls": {"type": "list", "elements": "str"},
                    "ca": {"type": "str"},
                    "interval": {"type": "float", "default": 0.2},
                    "max_seconds": {"type": "float", "default": 900},
                    "directory": {"type": "path"},
                    "pid": {"type": "int"},
                },
                required_if=[("state", "started", ["urls"]), ("state", "stopped", ["directory", "pid"])],
            )
            if self._task.check_mode:
                return {"changed": False, "skipped": True}
            if args["state"] == "stopped":
                return {"changed": False, "probe": stop(args["directory"], args["pid"])}
            # A worker asks here; its parent is ansible-playbook itself.
            found = start(args["urls"], args["ca"], args["max_seconds"], args["interval"], os.getppid(), constants.DEFAULT_LOCAL_TMP)
            return dict(found, changed=False, urls=urls)
        except (AnsibleError, OSError, ValueError) as exc:
            return {"failed": True, "changed": False, "urls": urls, "msg": "the API servers were not watched from the controller: %s" % exc}
