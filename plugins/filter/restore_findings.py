# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import preflight

DOCUMENTATION = r"""
name: restore_findings
short_description: Finds everything that stands in the way of a restore of etcd
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Looks at what is known of all nodes, and returns all findings at once, each with what is wrong, where, and what to do next.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, moment
options:
  _input:
    description: What is known of the nodes, of the options and of the snapshot, as P(k8s_dr.etcd.restore_known#filter) puts it together.
    type: dict
    required: true
  moment:
    description:
      - V(nodes) judges what the nodes alone show.
      - V(cluster) judges what etcd, its tools and the API servers show.
      - V(snapshot) judges the snapshot that was chosen.
    type: str
    choices: [nodes, cluster, snapshot]
    required: true
"""

EXAMPLES = r"""
- name: Check the nodes
  ansible.builtin.assert:
    that: findings | length == 0
    fail_msg: "{{ findings }}"
  vars:
    findings: "{{ known | k8s_dr.etcd.restore_findings('nodes') }}"
"""

RETURN = r"""
_value:
  description: An empty string when nothing stands in the way, one sentence for one finding, a list of sentences for several.
  type: raw
  sample: "No kubelet runs on cp1, so nothing would stop or start its etcd. Nothing was done. Run on the node: systemctl start kubelet"
"""


def restore_findings(known, moment):
    return preflight.refusal(preflight.MOMENTS[moment](known))


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_findings."""

    def filters(self):
        return {"restore_findings": restore_findings}
