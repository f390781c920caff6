# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import restored

DOCUMENTATION = r"""
name: restored_baseline
short_description: Says what a restored cluster is validated against
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Every node that was restored has to work. Lost and retired nodes do not.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
options:
  _input:
    description: What is known of the restored cluster, as the role puts it together in C(vars/main.yml).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what is waited for
  ansible.builtin.debug:
    msg: "{{ known | k8s_dr.etcd.restored_baseline }}"
"""

RETURN = r"""
_value:
  description: What O(k8s_dr.etcd.kube_validation#module:baseline) takes.
  type: dict
"""


def restored_baseline(known):
    return restored.baseline(known)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restored_baseline."""

    def filters(self):
        return {"restored_baseline": restored_baseline}
