# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import secrets

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: restore_id
short_description: Makes the id of a new restore of etcd
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - The time in UTC and four random digits. Ids sort by the order of the restores, so where the clock is behind the newest restore of a node, the time is one
    second after that one.
  - Used by the roles P(k8s_dr.etcd.etcd_restore#role) and P(k8s_dr.etcd.etcd_rejoin#role).
options:
  _input:
    description: What M(k8s_dr.etcd.etcd_restore_info) said of each node that takes part, empty where it could not be read.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show an id that the next restore could have
  ansible.builtin.debug:
    msg: "{{ [found.restore] | k8s_dr.etcd.restore_id }}"
"""

RETURN = r"""
_value:
  description: The id.
  type: str
  sample: 20261122T170501Z-4f1c
"""

_SECOND = datetime.timedelta(seconds=1)


def _next(identity):
    """The first time that is after an id; None of what is none."""
    try:
        return datetime.datetime.strptime(identity.partition("-")[0] + "+0000", "%Y%m%dT%H%M%SZ%z") + _SECOND
    except (ValueError, OverflowError):
        return None


def restore_id(nodes):
    """See RETURN."""
    try:
        existing = [str(one["id"]) for node in nodes for one in (node or {}).get("transactions") or []]
    except (TypeError, AttributeError, KeyError) as exc:
        raise AnsibleFilterError("restore_id needs a list of what etcd_restore_info said of each node, not %r" % (nodes,)) from exc
    times = [datetime.datetime.now(datetime.timezone.utc), *filter(None, map(_next, existing))]
    return "%s-%s" % (max(times).strftime("%Y%m%dT%H%M%SZ"), secrets.token_hex(2))


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_id."""

    def filters(self):
        return {"restore_id": restore_id}
