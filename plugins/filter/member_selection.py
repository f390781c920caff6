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
  - A member can be relied on when it is no learner, is part of a quorum, has everything that any member of its cluster had before, and the
    alarm CORRUPT is not raised. Of those the first in the order of the play that is not the leader comes first, and the leader last.
  - Hosts are of one cluster when their etcd says the same id and they have the same CA of etcd, as far as it could be read. The id alone is the same
    for all clusters whose first control plane has the same address. Two hosts that say to be the same member are two clusters, unless they have
    the same name or address.
  - A host that does not answer cannot say which cluster it is of. It counts as one of a cluster that answers when that has a member of its name or
    address. It is none of it when its manifest names another member, or when the hosts that answer have the names, or the addresses, of their
    members, and it has a name, or an address, that no member has.
  - Where that tells nothing, silent hosts count as members as long as there are as many members that match no other host.
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
positional: _input
options:
  _input:
    description: What is known of each host, as the role's C(vars/main.yml) puts it together.
    type: list
    elements: dict
    required: true
  hosts:
    description: All hosts of the play, in its order.
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
    V(clusters), each with V(hosts), V(candidates) in the order in which they are to try, V(why) the first of them, V(refused), a sentence
    when there is none, and V(warnings); V(refused), a sentence for each host that has no snapshot; V(rounds), how many candidates a cluster has at most.
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
