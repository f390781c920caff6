# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import member_selection as snapshot_selection

DOCUMENTATION = r"""
name: member_selection
short_description: Chooses the host that takes the snapshot of each cluster
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - A member is a candidate when it is not a learner, is part of a quorum, is caught up with what any member of its cluster had before, and has not raised
    the alarm CORRUPT. Candidates are in the order of the play, the leader last.
  - Hosts belong to one cluster when their etcd returns the same cluster id and they have the same etcd CA, if known. The id alone is not enough, since
    it is the same for all clusters whose first control plane has the same address. Two hosts with the same member id are two clusters, unless they have the
    same name or address.
  - A host that does not answer counts as part of a cluster that has a member with its name or address. It does not when its manifest names another member,
    or when all hosts that answer have the names, or the addresses, of their members, and no member has its name, or its address.
  - If neither applies, such hosts count as members as long as there are as many members that match no other host.
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
positional: _input
options:
  _input:
    description: Facts of each host, as the role's C(vars/main.yml) collects them.
    type: list
    elements: dict
    required: true
  hosts:
    description: All hosts of the play, in its order. Those whose facts are V(predicted) are left out.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show which host would take the snapshot
  ansible.builtin.debug:
    msg: "{{ ([{'host': 'cp1', 'asked': asked}] | k8s_dr.etcd.member_selection(['cp1'])).candidates }}"
"""

RETURN = r"""
_value:
  description: >-
    V(clusters), each with V(hosts), V(candidates) in the order in which they try, V(why) the first one was chosen, V(refused), a sentence without a
    candidate, and V(warnings); V(refused), a sentence for each host without a snapshot; V(rounds), the highest number of candidates in a cluster.
  type: dict
"""


def member_selection(facts, hosts):
    """See RETURN."""
    try:
        {one["host"]: one for one in facts}
    except (TypeError, KeyError) as exc:
        raise AnsibleFilterError("member_selection needs a list of what is known of each host, not %r" % (facts,)) from exc
    return snapshot_selection.member_selection(facts, hosts)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.member_selection."""

    def filters(self):
        return {"member_selection": member_selection}
