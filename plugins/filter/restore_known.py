# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import time

from ansible.module_utils.parsing.convert_bool import boolean
from jinja2 import pass_context
from jinja2.runtime import Undefined, missing

DOCUMENTATION = r"""
name: restore_known
short_description: Puts together all that the decisions of a restore are made of
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Reads the facts of all hosts, and the options and variables of the role P(k8s_dr.etcd.etcd_restore#role) where it is used. It decides nothing.
  - What it returns is the input of P(k8s_dr.etcd.restore_findings#filter), P(k8s_dr.etcd.restore_source#filter) and P(k8s_dr.etcd.restore_plan#filter).
  - It is a filter, and no dictionary of templates, since Ansible compiles every template anew for each task.
positional: _input, hostvars
options:
  _input:
    description: Names of all hosts of the play, C(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
  hostvars:
    description: Variables of all hosts, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Check the nodes
  ansible.builtin.assert:
    that: findings | length == 0
    fail_msg: "{{ findings }}"
  vars:
    known: "{{ ansible_play_hosts_all | k8s_dr.etcd.restore_known(hostvars) }}"
    findings: "{{ known | k8s_dr.etcd.restore_findings('nodes') }}"
"""

RETURN = r"""
_value:
  description: What is known of the nodes, of the options and of the snapshot.
  type: dict
"""

# Seconds that clocks may differ.
CLOCK_TOLERANCE = 30
# A Pod is given the CA of its cluster, unless it has no token, as AWX's jobs; then its name has to do.
OWN_CA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
# What every host has as a fact, by what the decisions call it.
FACTS = {"live": "__etcd_restore_live", "tools": "__etcd_restore_tools", "answering": "__etcd_restore_probe_results"}
# {what the decisions call it: option of the role}; these are true or false.
SWITCHES = {
    "from_inside": "etcd_restore_from_inside",
    "without_validation": "etcd_restore_without_validation",
    "foreign": "etcd_restore_foreign",
    "undecryptable": "etcd_restore_undecryptable",
    "safety_snapshot": "etcd_restore_safety_snapshot",
    "bump_revision": "etcd_restore_bump_revision",
    "trial_start": "etcd_restore_trial_start",
}
OPTIONS = {
    # as it was recorded, where a restore that cannot be finished is begun anew
    "lost_members": "__etcd_restore_lost_members",
    "max_age_days": "etcd_restore_max_age_days",
    "snapshot_dir": "etcd_restore_snapshot_dir",
    "keep": "etcd_restore_keep",
    "rollback_after": "etcd_restore_rollback_after",
}


def fact(hostvars, host, name, default=None):
    """A variable of a host; `default` where it has none, or an empty one."""
    found = hostvars[host].get(name)
    return found if found and not isinstance(found, Undefined) else default


@pass_context
def restore_known(context, hosts, hostvars):
    def value(name, default=None):
        found = context.resolve_or_missing(name)
        return default if found is missing or isinstance(found, Undefined) else found

    hosts = list(hosts)
    options = {what: value(name) for what, name in OPTIONS.items()}
    options["members"] = (value("__etcd_restore_earlier") or {}).get("members") or value("etcd_restore_members")
    options.update((what, boolean(value(name), strict=False)) for what, name in SWITCHES.items())
    source, wanted = value("__etcd_restore_source"), value("__etcd_restore_wanted", "")
    known = {what: {host: fact(hostvars, host, name, {}) for host in hosts} for what, name in FACTS.items()}
    known.update(
        hosts=hosts,
        restored=value("__etcd_restore_hosts"),
        voters=value("__etcd_restore_voters"),
        first=value("__etcd_restore_first"),
        nodes={host: hostvars[host]["__etcd_restore_node"] for host in hosts},
        before={host: fact(hostvars, host, "__etcd_restore_before", {}).get("validation") or {} for host in hosts},
        rollback_after={host: hostvars[host].get("etcd_restore_rollback_after", options["rollback_after"]) for host in hosts},
        membership=value("__etcd_restore_membership", {}),
        proof=value("__etcd_restore_proof", {}) if source else {},
        path=value("__etcd_restore_file", ""),
        source=source or "",
        label=value("__etcd_restore_label", "") if source else "",
        origin=value("__etcd_restore_origin", "") if source else "",
        wanted=wanted,
        off_site=value("__etcd_restore_asked")["off_site"],
        on_controller={"exists": os.path.isfile(wanted), "path": os.path.realpath(wanted), "manifest": os.path.isfile(wanted + ".json")},
        now=time.time(),
        forks=value("ansible_forks"),
        check_mode=value("ansible_check_mode"),
        manifests_dir=value("etcd_client_manifests_dir"),
        clock_tolerance=CLOCK_TOLERANCE,
        own_ca=own_ca(),
        options=options,
    )
    return known


def own_ca():
    """SHA-256 of the CA of the cluster that the controller runs in, or an empty string."""
    try:
        with open(OWN_CA, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return ""


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_known."""

    def filters(self):
        return {"restore_known": restore_known}
