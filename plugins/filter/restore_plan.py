# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import plan as planning, preflight

DOCUMENTATION = r"""
name: restore_plan
short_description: Makes the plan of a restore of etcd
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Decides by how much the revision is raised and which members the restored cluster has, and says what the restore will do.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
options:
  _input:
    description: What is known of the nodes, of the options and of the snapshot, as P(k8s_dr.etcd.restore_known#filter) puts it together.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ (known | k8s_dr.etcd.restore_plan).lines }}"
"""

RETURN = r"""
_value:
  description: >-
    V(bump), by how much the revision is raised; V(initial_cluster), all members as C(name=peer URL); V(trial_start), whether it is tried before anything
    is stopped that etcd starts on the snapshot; V(warnings) and V(lines), what an operator should know before saying yes; V(survivors), warnings about
    nodes that hold more than the snapshot does.
  type: dict
  sample: {bump: 1000018, initial_cluster: "cp1=https://192.0.2.11:2380", trial_start: true, warnings: [], lines: ["RESTORE of cp1"], survivors: []}
"""


def restore_plan(known):
    bump = planning.bump_revision(known)
    return {
        "bump": bump,
        "initial_cluster": planning.initial_cluster(known),
        "trial_start": planning.trial_start(known)[0],
        "warnings": preflight.warnings(known),
        "lines": planning.lines(dict(known, bump=bump)),
        "survivors": planning.survivors(known),
    }


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_plan."""

    def filters(self):
        return {"restore_plan": restore_plan}
