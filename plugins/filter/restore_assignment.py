# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: restore_assignment
short_description: Assigns each host of a restore its part
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Says which hosts get the snapshot, and which are retired. Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, members
options:
  _input:
    description: A list of pairs for all hosts of the play, in its order, of the name and of RV(k8s_dr.etcd.etcd_restore_info#module:restore).
    type: list
    elements: list
    required: true
  members:
    description: Hosts or names of etcd members that get the snapshot. Empty for all hosts.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show which hosts get the snapshot
  ansible.builtin.debug:
    msg: "{{ ([['cp1', found.restore], ['cp2', other.restore]] | k8s_dr.etcd.restore_assignment(['cp1'])).hosts }}"
"""

RETURN = r"""
_value:
  description: >-
    V(hosts), the hosts that get the snapshot, V(retired), the others, and V(voters), those that take part; each in the order of the play.
    A node that an earlier restore retired stays stopped and does not take part. V(first) is the host that does what is done once.
  type: dict
"""


def restore_assignment(looks, members):
    """See RETURN."""
    nodes = {str(host): node or {} for host, node in looks}

    def is_meant(host):
        return not members or host in members or (nodes[host].get("etcd") or {}).get("name") in members

    hosts = [host for host in nodes if is_meant(host)]
    retired = [host for host in nodes if host not in hosts]
    return {
        "hosts": hosts,
        "retired": retired,
        "voters": hosts + [host for host in retired if not nodes[host].get("retired")],
        "first": (hosts or list(nodes))[0],
    }


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_assignment."""

    def filters(self):
        return {"restore_assignment": restore_assignment}
