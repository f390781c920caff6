# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import restored

DOCUMENTATION = r"""
name: restored_members
short_description: Compares a restored etcd with the plan
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Looks whether an etcd is healthy, has the planned members and at least the planned revision, belongs to one new cluster together with all others, and
    holds the same data.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, host
options:
  _input:
    description: What is known of the restored cluster, as the role puts it together in C(vars/main.yml).
    type: dict
    required: true
  host:
    description: A host that was restored.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Compare the restored etcd with the plan
  ansible.builtin.debug:
    msg: "{{ known | k8s_dr.etcd.restored_members(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: One sentence that says what differs, or an empty string.
  type: str
"""


def restored_members(known, host):
    return restored.member_differences(known, host)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restored_members."""

    def filters(self):
        return {"restored_members": restored_members}
