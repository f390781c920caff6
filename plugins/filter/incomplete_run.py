# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import whole_run

DOCUMENTATION = r"""
name: incomplete_run
short_description: Says why a run of Ansible leaves out hosts or tasks
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Nodes decide together and tasks build on each other, so a run with tags, in batches or in slices is refused.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
options:
  _input:
    description: V(playbook), V(tags), V(skip_tags), V(hosts) of the play, V(batch), those of this batch, V(workflow) and V(template), AWX's names.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show why the run is refused
  ansible.builtin.debug:
    msg: "{{ run | k8s_dr.etcd.incomplete_run }}"
"""

RETURN = r"""
_value:
  description: One sentence, or an empty string.
  type: str
"""


def incomplete_run(run):
    return whole_run.incomplete(run)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.incomplete_run."""

    def filters(self):
        return {"incomplete_run": incomplete_run}
