# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module as Ansible does, without looking for garbage meanwhile.  Private to this collection.

To pack a module, Ansible parses all that it imports (2.17 to 2.21: executor/module_common.py, recursive_finder).  That makes many objects and no garbage, and
looking for some takes half of the time: 0.1 s of processor time for etcd_snapshot, in a process that is forked for this task and ends with it.
"""

from __future__ import annotations

import gc

from ansible.plugins.action.normal import ActionModule as _Normal


class ModuleAction(_Normal):
    """As the action of a module that has none of its own."""

    def run(self, tmp=None, task_vars=None):
        """See the module."""
        enabled = gc.isenabled()
        gc.disable()
        try:
            return super().run(tmp, task_vars)
        finally:
            if enabled:
                gc.enable()
