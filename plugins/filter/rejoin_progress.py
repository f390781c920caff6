# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.common.text.formatters import bytes_to_human

DOCUMENTATION = r"""
name: rejoin_progress
short_description: Says how far a new etcd member has caught up, and whether it takes too long
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.etcd_rejoin#role).
positional: _input
options:
  _input:
    description: >-
      V(host); V(via), the host through which the cluster is changed; V(answer), the result of M(k8s_dr.etcd.etcd_member) with C(state=voter); V(waited),
      seconds so far; V(start_timeout) and V(catch_up_timeout), seconds to wait for the start and for the vote.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say how far cp2 is
  ansible.builtin.debug:
    msg: "{{ (known | k8s_dr.etcd.rejoin_progress).message }}"
"""

RETURN = r"""
_value:
  description: V(done), whether the member has its vote; V(refusal), why the wait ends, or empty; V(message), how far the member is, in words.
  type: dict
"""


def _entries(progress):
    return "%s of %s log entries, and a database of %s of %s" % (
        progress.get("raft_index") or 0,
        progress.get("cluster_raft_index"),
        bytes_to_human(int(progress.get("db_size") or 0)),
        bytes_to_human(int(progress.get("cluster_db_size") or 0)),
    )


def rejoin_progress(known):
    """See RETURN."""
    host, answer = known["host"], known.get("answer") or {}
    member = answer.get("member")
    if member is None:
        reason = str(answer.get("msg") or "").strip().rstrip(".")
        refusal = "%s cannot be reached any more%s" % (known["via"], " (%s)" % reason if reason else "")
        return {"done": False, "refusal": refusal, "message": ""}
    done = bool(member["started"] and not member["is_learner"])
    state = "its vote" if done else _entries(answer.get("progress") or {}) if member["started"] else "not started yet"
    option = "catch_up_timeout" if member["started"] else "start_timeout"
    limit = int(known[option])
    refusal = ""
    if not done and float(known["waited"]) >= limit:
        what = "has not caught up" if member["started"] else "did not start"
        refusal = "etcd of %s %s within %d s (etcd_rejoin_%s). Its log is in /var/log/pods/kube-system_etcd-*" % (host, what, limit, option)
    return {"done": done, "refusal": refusal, "message": "%s has %s" % (host, state)}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.rejoin_progress."""

    def filters(self):
        return {"rejoin_progress": rejoin_progress}
