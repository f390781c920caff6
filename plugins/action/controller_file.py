# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All of the module controller_file, which is documented there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat

from ansible.plugins.action import ActionBase
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import write_durably


def text_of(content):
    """Text as it is; Ansible up to 2.18 makes a dictionary of text that looks like one, so that is written as JSON."""
    if isinstance(content, str):
        return str(content)
    return json.dumps(content, indent=4, sort_keys=True, default=str) + "\n"


def read(path):
    """(text, mode) of a regular file; (None, None) when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except FileNotFoundError:
        return None, None


def write(path, text, mode):
    directory = os.path.dirname(path)
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        # the mode of a directory that exists is its owner's decision
        os.mkdir(directory, 0o700)
    # a name of its own, for tasks of several hosts, or of several controllers, may write the same file at once
    write_durably(path, text, mode, temporary=os.path.join(directory, ".k8s-dr-" + secrets.token_hex(8)))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


class ActionModule(ActionBase):
    """Runs on the controller, as the user who started Ansible: `become` and `delegate_to` change nothing."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """See the module."""
        super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(
            {
                "path": {"type": "path", "required": True},
                "content": {"type": "raw"},
                "mode": {"type": "str", "default": "0600"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            },
            required_if=[("state", "present", ["content"])],
        )
        path = os.path.abspath(os.path.expanduser(args["path"]))
        try:
            mode = int(args["mode"], 8)
        except ValueError:
            return {"failed": True, "msg": "`mode` is %s, and must be octal digits in quotes such as '0600'" % args["mode"]}
        try:
            return self._absent(path) if args["state"] == "absent" else self._present(path, text_of(args["content"]), mode)
        except OSError as exc:
            verb = "remove" if args["state"] == "absent" else "write"
            return {"failed": True, "path": path, "msg": "cannot %s %s on the controller: %s" % (verb, path, exc.strerror or exc)}

    def _present(self, path, text, mode):
        before, found = read(path)
        changed = (before, found) != (text, mode)
        if changed and not self._task.check_mode:
            write(path, text, mode)
        return {"changed": changed, "path": path, "diff": {"before": before or "", "after": text, "before_header": path, "after_header": path}}

    def _absent(self, path):
        found = os.path.lexists(path)
        if found and not self._task.check_mode:
            remove(path)
        before = {"path": path, "state": "present" if found else "absent"}
        return {"changed": found, "path": path, "diff": {"before": before, "after": {"path": path, "state": "absent"}}}
