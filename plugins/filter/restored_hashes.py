# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import restored

DOCUMENTATION = r"""
name: restored_hashes
short_description: Compares what restored members of etcd hold
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Looks whether all members hold the same at one revision. Members that compacted at different revisions are not compared.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
options:
  _input:
    description: For each host RV(k8s_dr.etcd.etcd_cluster_info#module:etcd.hash).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Compare the members
  ansible.builtin.debug:
    msg: "{{ hashes | k8s_dr.etcd.restored_hashes }}"
"""

RETURN = r"""
_value:
  description: One sentence that says what differs, or an empty string.
  type: str
"""


def restored_hashes(hashes):
    return restored.hash_differences(hashes)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restored_hashes."""

    def filters(self):
        return {"restored_hashes": restored_hashes}
