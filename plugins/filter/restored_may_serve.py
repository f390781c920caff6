# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: restored_may_serve
short_description: Says whether a node may still serve the restored data, so that a retired one must stay stopped
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - No etcd is started before every node has swapped its data. After that, only a node that has rolled back is known not to serve the restored data. A run
    that takes an earlier one up may find it started.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, rollbacks, states
options:
  _input:
    description: Result of the swap on each node that takes part, empty before that.
    type: list
    elements: dict
    required: true
  rollbacks:
    description: Result of the rollback on each node that got the snapshot, empty before that.
    type: list
    elements: dict
    required: true
  states:
    description: Where the restore stood on each of these nodes when this run took it up, empty where it did not.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Say whether the retired node may start
  ansible.builtin.debug:
    msg: "{{ not ([swapped] | k8s_dr.etcd.restored_may_serve([rolled_back])) }}"
"""

RETURN = r"""
_value:
  description: Whether one may.
  type: bool
"""


_STARTED = ("starting-etcd", "etcd-started", "starting", "started", "committing", "committed")


def restored_may_serve(swaps, rollbacks, states=()):
    """See RETURN."""
    swapped = all(one and one.get("transaction") and not one.get("failed") for one in swaps) or any(state in _STARTED for state in states)
    return swapped and any(((one or {}).get("transaction") or {}).get("state") != "rolled-back" for one in rollbacks)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restored_may_serve."""

    def filters(self):
        return {"restored_may_serve": restored_may_serve}
