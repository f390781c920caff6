# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import plan as planning

DOCUMENTATION = r"""
name: restore_source
short_description: Chooses the snapshot that a restore of etcd takes, and the host that has it
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Takes the snapshot that was asked for, on a node before one on the controller. When none was asked for, takes the newest verified one of all nodes.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
options:
  _input:
    description: What is known of the nodes, of the options and of the snapshot, as P(k8s_dr.etcd.restore_known#filter) puts it together.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show which snapshot would be restored
  ansible.builtin.debug:
    msg: "{{ (known | k8s_dr.etcd.restore_source).path }}"
"""

RETURN = r"""
_value:
  description: >-
    V(host), a host of the inventory or V(localhost), the controller; V(path); V(packed), whether it is compressed or encrypted and a manifest beside it says
    so; V(refusal), why there is none, else an empty string.
  type: dict
  sample: {host: cp1, path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db, packed: false, refusal: ""}
"""


def restore_source(known):
    return planning.choose_source(known)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_source."""

    def filters(self):
        return {"restore_source": restore_source}
