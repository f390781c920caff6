# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: rejoin_baseline
short_description: Says which nodes must be Ready after a control plane host has rejoined
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Makes the baseline of P(k8s_dr.etcd.cluster_validate#role) from what was observed before. A problem of another host is not a problem of the rejoin.
  - >-
    The host itself must be Ready, whatever it was before. A control plane node that is no member, as one that a restore retired, must not: its kubelet
    asks only its own API server, which is stopped, and the node stays Ready for a while because the snapshot says so.
  - Used by the role P(k8s_dr.etcd.etcd_rejoin#role).
positional: _input, members, name
options:
  _input:
    description: What M(k8s_dr.etcd.kube_validation) observed before, or empty.
    type: dict
    required: true
  members:
    description: The members of the cluster before, as M(k8s_dr.etcd.etcd_member) returns them.
    type: list
    elements: dict
    required: true
  name:
    description: >-
      Name of the host's etcd member. kubeadm gives it the name of the node, which may differ from the host name (C(--node-name)).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Validate the cluster after cp2 has rejoined
  ansible.builtin.include_role:
    name: k8s_dr.etcd.cluster_validate
  vars:
    cluster_validate_baseline: "{{ before.validation.observed | k8s_dr.etcd.rejoin_baseline(asked.members, 'cp2') }}"
"""

RETURN = r"""
_value:
  description: The observation, with V(nodes) changed.
  type: dict
"""


def rejoin_baseline(observed, members, name):
    """See RETURN."""
    observed = observed or {}
    names = {member["name"] for member in members}
    nodes = {
        node: {"ready": False} if state["control_plane"] and node not in names else state for node, state in (observed.get("nodes") or {}).items()
    }  # fmt: skip
    nodes[name] = {"ready": True, "control_plane": True}
    return dict(observed, nodes=nodes)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.rejoin_baseline."""

    def filters(self):
        return {"rejoin_baseline": rejoin_baseline}
