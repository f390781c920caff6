# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

from ansible.module_utils.common.text.formatters import bytes_to_human

DOCUMENTATION = r"""
name: salvage_outcome
short_description: Says which snapshot a salvage of etcd made on a host, and how to restore it
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Of the snapshots of all hosts, the one with the highest revision is restored.
  - Used by the entry point C(salvage) of the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input
options:
  _input:
    description: >-
      V(host); V(hosts), all of the run; V(snapshots), what M(k8s_dr.etcd.etcd_snapshot) returned as RV(k8s_dr.etcd.etcd_snapshot#module:snapshot) for each
      of V(hosts), in that order, or an empty dict; V(membership), what P(k8s_dr.etcd.restore_members#filter) says.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Report the snapshot and how to restore it
  ansible.builtin.debug:
    msg: "{{ {'host': 'cp1', 'hosts': ['cp1'], 'snapshots': [taken.snapshot], 'membership': membership} | k8s_dr.etcd.salvage_outcome }}"
"""

RETURN = r"""
_value:
  description: Sentences for the host.
  type: list
  elements: str
"""


def salvage_outcome(known):
    """See RETURN."""
    host, hosts = known["host"], known["hosts"]
    snapshots = dict(zip(hosts, known["snapshots"]))
    best = max(hosts, key=lambda each: snapshots[each].get("revision", 0))
    lost = [member["label"] for member in known["membership"]["members"] if member["role"] == "absent"]
    own = snapshots[host]
    first = "SALVAGED %s: revision %s, %s, verified." % (own["path"], own["revision"], bytes_to_human(int(own["size"])))
    if best != host:
        first += " The snapshot of %s has a higher revision: restore that one." % best
    command = "ansible-playbook k8s_dr.etcd.restore -l %s -e etcd_restore_snapshot=%s" % (",".join(hosts), snapshots[best]["path"])
    if not lost:
        return [first, "%s is as it was. Restore with: %s" % (host, command)]
    command += " -e '%s'" % json.dumps({"etcd_restore_lost_members": lost})
    never = "%s is as it was. Make sure that %s can never start again, then restore with: %s"
    return [first, never % (host, ", ".join(lost), command)]


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.salvage_outcome."""

    def filters(self):
        return {"salvage_outcome": salvage_outcome}
