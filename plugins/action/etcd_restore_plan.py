# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of the module etcd_restore_plan, which is documented there: a snapshot that is here, and a list that is wanted here."""

from __future__ import annotations

import os

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.k8s_dr.etcd.plugins.action.controller_file import write
from ansible_collections.k8s_dr.etcd.plugins.plugin_utils.other_action import transfer

MODULE = "k8s_dr.etcd.etcd_restore_plan"


class ActionModule(ActionBase):
    """Copies the snapshot there, has the module compare, and brings the list here; nothing stays on the host."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """See the module."""
        result = super().run(tmp, task_vars)
        args = self._task.args.copy()
        wanted = os.path.expanduser(args.get("list") or "")
        places = []
        try:
            if args.pop("from_controller", False) not in (False, "no", "false", "False"):
                made = self._execute_module(
                    "ansible.builtin.tempfile",
                    {"state": "directory", "path": args.get("work_dir", "/var/lib"), "prefix": ".k8s-dr-copy-"},
                    task_vars=task_vars,
                )
                if made.get("failed"):
                    return dict(result, **made)
                places.append(made["path"])
                copied = transfer(self, task_vars, to="host", path=args["snapshot"], dest=made["path"] + "/snapshot.db")
                if copied.get("failed"):
                    return dict(result, **copied)
                args["snapshot"] = made["path"] + "/snapshot.db"
            result.update(self._execute_module(MODULE, args, task_vars=task_vars))
            comparison = result.get("comparison")
            if comparison:
                if wanted and comparison.get("dest") and not args.get("dest"):
                    places.append(os.path.dirname(comparison["dest"]))
                comparison["list"] = self._bring(task_vars, comparison, wanted) if wanted else ""
                if not args.get("dest"):
                    comparison["dest"] = None
        finally:
            for place in places:
                self._execute_module("ansible.builtin.file", {"path": place, "state": "absent"}, task_vars=task_vars)
        return result

    def _bring(self, task_vars, comparison, path):
        """The list on the controller; "" when there is none, which is no reason to fail."""
        text = comparison.pop("text", None)
        try:
            if text is not None:
                write(path, text, 0o600)
            elif comparison.get("dest"):
                write(path, "", 0o600)
                transfer(self, task_vars, path=comparison["dest"], dest=path)
            else:
                return ""
        except (OSError, AnsibleError) as exc:
            self._display.warning(
                "The list of all objects that the restore changes could not be written to %s: %s" % (path, getattr(exc, "strerror", None) or exc)
            )
            return ""
        return path
