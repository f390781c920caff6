# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

DOCUMENTATION = r"""
name: browse_source
short_description: Chooses the snapshot that is served to kubectl, and the host that serves it
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Takes the snapshot that was asked for, on a host before one on the controller. When none was asked for, takes the newest verified one of all hosts.
  - Used by the role P(k8s_dr.etcd.etcd_browse#role).
positional: _input, listed, named, wanted
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  listed:
    description: For each of them what M(k8s_dr.etcd.etcd_snapshot_list) returned there, or an empty dictionary.
    type: list
    elements: dict
    required: true
  named:
    description: For each of them what the module C(stat) returned of O(wanted) there, or an empty dictionary.
    type: list
    elements: dict
    required: true
  wanted:
    description: Path of the snapshot that was asked for, or an empty string.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show which snapshot would be served
  ansible.builtin.debug:
    msg: "{{ [inventory_hostname] | k8s_dr.etcd.browse_source([kept], [{}]) }}"
"""

RETURN = r"""
_value:
  description: >-
    V(host), which serves it; V(source), a host of the inventory or V(localhost), the controller; V(path); V(packed), whether it is compressed or encrypted;
    V(refusal), why there is none, else an empty string.
  type: dict
  sample: {host: cp1, source: cp1, path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db, packed: false, refusal: ""}
"""


def browse_source(hosts, listed, named, wanted=""):
    hosts, source, path, refusal = list(hosts), "", "", ""
    if wanted:
        there = [host for host, found in zip(hosts, named) if (found.get("stat") or {}).get("exists")]
        source = there[0] if there else "localhost" if os.path.isfile(os.path.expanduser(wanted)) else ""
        path = os.path.abspath(os.path.expanduser(wanted)) if source == "localhost" else wanted
        if not source:
            path = ""
            refusal = "%s exists neither on %s nor on the controller, so nothing is served." % (wanted, ", ".join(hosts))
    else:
        verified = [(each["created"], host, each["path"]) for host, found in zip(hosts, listed) for each in found.get("snapshots") or [] if each["verified"]]
        # of two of the same second that of the first host
        newest = max(verified, key=lambda each: each[0], default=None)
        if newest:
            source, path = newest[1:]
        else:
            refusal = "There is no verified snapshot on %s, so nothing is served. Name one with -e etcd_browse_snapshot=PATH." % ", ".join(hosts)
    return {
        "host": source if source in hosts else hosts[0],
        "source": source,
        "path": path,
        "packed": path.endswith((".zst", ".age")),
        "refusal": refusal,
    }


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.browse_source."""

    def filters(self):
        return {"browse_source": browse_source}
