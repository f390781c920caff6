# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import plan as planning

DOCUMENTATION = r"""
name: restore_objects
short_description: Says which objects a restore of etcd deletes, re-creates and modifies
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Makes lines for an operator of what M(k8s_dr.etcd.etcd_restore_plan) returns.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, wanted, host
options:
  _input:
    description: RV(k8s_dr.etcd.etcd_restore_plan#module:comparison), or an empty dictionary where nothing was compared.
    type: dict
    required: true
  wanted:
    description: Whether the comparison was asked for.
    type: bool
    required: true
  host:
    description: The host that compares.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show which objects would change
  ansible.builtin.debug:
    msg: "{{ compared.comparison | k8s_dr.etcd.restore_objects(true, inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def restore_objects(comparison, wanted, host):
    return planning.objects(comparison, wanted, host)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_objects."""

    def filters(self):
        return {"restore_objects": restore_objects}
