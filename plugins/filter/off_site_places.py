# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote.places import places

DOCUMENTATION = r"""
name: off_site_places
short_description: Lists the off-site places that an option names
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
options:
  _input:
    description: The option O(k8s_dr.etcd.etcd_snapshot#role:main:etcd_snapshot_off_site).
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the places
  ansible.builtin.debug:
    msg: "{{ etcd_snapshot_off_site | k8s_dr.etcd.off_site_places | map(attribute='remote') }}"
"""

RETURN = r"""
_value:
  description: >-
    Of each place V(remote), its own V(keep), V(bwlimit), V(object_lock_days), V(rclone_config) and V(rclone_config_source) if it has any, V(problem), why
    it cannot be used, or an empty text, and V(fill), whether it gets only those earlier snapshots that it would keep.
  type: list
  elements: dict
"""


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.off_site_places."""

    def filters(self):
        return {"off_site_places": places}
