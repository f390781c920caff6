# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

DOCUMENTATION = r"""
name: failed_task
short_description: Says which task failed on a host, and why
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - For a C(rescue) that runs on all hosts when a task failed on one of them.
  - Used by the roles P(k8s_dr.etcd.etcd_restore#role) and P(k8s_dr.etcd.etcd_rejoin#role).
positional: _input, task, harmless
options:
  _input:
    description: What C(ansible_failed_result) has, empty on a host that did not fail.
    type: dict
    required: true
  task:
    description: The name that C(ansible_failed_task) has, empty on a host that did not fail.
    type: str
    default: ""
  harmless:
    description: Name of a task whose failure was rescued before.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Say what failed
  ansible.builtin.debug:
    msg: "{{ (ansible_failed_result | k8s_dr.etcd.failed_task(ansible_failed_task.name)).msg }}"
"""

RETURN = r"""
_value:
  description: V(here), whether a task failed on this host; V(task), its name, and V(msg), a sentence without its full stop.
  type: dict
"""


# as a shell says it, and Python
KILLED = (137, -9)


def failed_task(result, task="", harmless=""):
    """See RETURN."""
    here = bool(task) and task != harmless
    result = result or {}
    text = str(result.get("msg") or "") if here else ""
    # all that ansible-core finds to say is that there is no JSON
    if here and "module_stdout" in result and result.get("rc") in KILLED:
        text = "the module was killed on the node, as the kernel does when there is no memory left"
    # what looks like a template must not become one
    text = re.sub(r"[.\s]*$", "", re.sub(r"\{(?=[{%#])", "{ ", text))
    return {"here": here, "task": str(task) if here else "a task on another node", "msg": text or "see the task above"}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.failed_task."""

    def filters(self):
        return {"failed_task": failed_task}
