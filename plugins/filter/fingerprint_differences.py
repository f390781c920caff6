# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._fingerprints import differences

DOCUMENTATION = r"""
name: fingerprint_differences
short_description: Compares a snapshot's fingerprints with a cluster's
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Compares what is in the files, not their bytes. A certificate or a key that was added, another order, a comment or a renewed CA is no difference.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, now
options:
  _input:
    description: C(fingerprints) of the snapshot's manifest.
    type: dict
    required: true
  now:
    description: C(fingerprints) that M(k8s_dr.etcd.etcd_restore_info) returned.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what differs
  ansible.builtin.debug:
    msg: "{{ manifest.fingerprints | k8s_dr.etcd.fingerprint_differences(found.restore.fingerprints) }}"
"""

RETURN = r"""
_value:
  description: >-
    In V(foreign) what shows that the snapshot is of another cluster. In V(lost) resources whose objects may be encrypted with keys that the cluster
    does not have, with the names of these. In V(unknown) what is another file now and may have the same contents.
  type: dict
  sample: {foreign: [], lost: ["secrets (aescbc key1)"], unknown: []}
"""


def fingerprint_differences(then, now):
    return differences(then or {}, now or {})


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.fingerprint_differences."""

    def filters(self):
        return {"fingerprint_differences": fingerprint_differences}
