# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.restore_report import no_template
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import plan as planning

DOCUMENTATION = r"""
name: restore_changes
short_description: Says what a restore of etcd changes in selected objects
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Makes lines for an operator of what M(k8s_dr.etcd.kube_compare) returns.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, problem, stays
options:
  _input:
    description: RV(k8s_dr.etcd.kube_compare#module:changes), or an empty dictionary where nothing was compared.
    type: dict
    required: true
  problem:
    description: Why nothing was compared.
    type: str
    default: ""
  stays:
    description: Why what serves the snapshot was not ended.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show what changes in objects
  ansible.builtin.debug:
    msg: "{{ (compared.changes | k8s_dr.etcd.restore_changes).lines }}"
"""

RETURN = r"""
_value:
  description: V(compared), whether all was compared; V(reason), why it was not, else an empty string; V(lines).
  type: dict
  sample: {compared: false, reason: the API server does not answer, lines: ['CHANGES   not compared: the API server does not answer']}
"""


def restore_changes(found, problem="", stays=""):
    said = planning.changes(found, problem, stays)
    return dict(said, reason=no_template(said["reason"]), lines=[no_template(line) for line in said["lines"]])


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_changes."""

    def filters(self):
        return {"restore_changes": restore_changes}
