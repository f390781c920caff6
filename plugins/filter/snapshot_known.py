# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote.places import places
from jinja2 import pass_context
from jinja2.runtime import Undefined, missing

DOCUMENTATION = r"""
name: snapshot_known
short_description: Puts together all that the report of a snapshot run is made of
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Reads the facts of hosts, and the options and variables of the role P(k8s_dr.etcd.etcd_snapshot#role) where it is used. It decides nothing.
  - What it returns is the input of P(k8s_dr.etcd.snapshot_outcome#filter) and P(k8s_dr.etcd.snapshot_summary#filter).
  - It is a filter, and no dictionary of templates, since Ansible compiles every template anew for each task.
positional: _input, hostvars
options:
  _input:
    description: Names of the hosts whose snapshots are looked at, those that may take the one of this host's cluster, for example.
    type: list
    elements: str
    required: true
  hostvars:
    description: Variables of all hosts, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say which clusters have a snapshot
  ansible.builtin.debug:
    msg: "{{ (ansible_play_hosts_all | k8s_dr.etcd.snapshot_known(hostvars) | k8s_dr.etcd.snapshot_summary).lines }}"
"""

RETURN = r"""
_value:
  description: What is known of this host's options and results, of the choice of hosts, and of the snapshots of the hosts.
  type: dict
"""

# {what the outcome calls it: option of the role}
OPTIONS = {"directory": "etcd_snapshot_dir", "off_site": "etcd_snapshot_off_site", "fetch": "etcd_snapshot_fetch"}
# What this host has as a fact.
RESULTS = {
    "at": "__etcd_snapshot_at",
    "fetch_problem": "__etcd_snapshot_fetch_problem",
    "metrics": "__etcd_snapshot_metrics",
    "choice": "__etcd_snapshot_selection",
}


@pass_context
def snapshot_known(context, hosts, hostvars):
    """See RETURN."""

    def value(name, default=None):
        found = context.resolve_or_missing(name)
        return default if found is missing or isinstance(found, Undefined) else found

    def facts(name, default):
        found = {host: variables.get(name) for host, variables in everyone.items()}
        return {host: default if not one or isinstance(one, Undefined) else one for host, one in found.items()}

    # Ansible puts the variables of a host together each time
    everyone = {host: hostvars[host] for host in hosts}
    known = {what: value(name) for what, name in {**OPTIONS, **RESULTS}.items()}
    known.update(
        host=value("inventory_hostname"),
        off_site=[place["remote"] for place in places(value("etcd_snapshot_off_site"))],
        predicted=(value("__etcd_snapshot_standing") or {}).get("predicted", False),
        check_mode=value("ansible_check_mode"),
        is_fetched=boolean(value("__etcd_snapshot_is_fetched", False), strict=False),
        taken=facts("etcd_snapshot_taken", {}),
        tried=facts("__etcd_snapshot_tried", ""),
        problems={host: final.get("problem", "") for host, final in facts("__etcd_snapshot_final", {}).items()},
        groups=value("groups", {}),
    )
    return known


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.snapshot_known."""

    def filters(self):
        return {"snapshot_known": snapshot_known}
