# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping

from ansible.module_utils.parsing.convert_bool import boolean

DOCUMENTATION = r"""
name: job_progress
short_description: Decides whether an asynchronous task has ended
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - The wait is bounded. A task that was killed never reports its end, and a host that was lost may stay away.
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
positional: _input, seen, now, bounds
options:
  _input:
    description: What C(ansible.builtin.async_status) returned.
    type: dict
    required: true
  seen:
    description: C(began), when the task began, and C(at), when its state was last read, in seconds since 1970.
    type: dict
    required: true
  now:
    description: The time, in seconds since 1970.
    type: float
    required: true
  bounds:
    description: >-
      In seconds, C(limit) for the task, C(pause) between two polls and C(patience) with a host that is lost. C(what) names the task in an error.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show whether it has ended
  ansible.builtin.debug:
    msg: "{{ (poll | k8s_dr.etcd.job_progress(seen, now().timestamp(), {'limit': 600, 'pause': 10, 'patience': 300, 'what': 'it'})).finished }}"
"""

RETURN = r"""
_value:
  description: >-
    V(finished), whether to stop waiting; V(told), whether the host reported the task's state; V(unasked), why it did not; V(result), what the
    task returned, or a V(msg) that says why there is no result.
  type: dict
"""


def is_true(value):
    """Text up to ansible-core 2.18, a boolean or a number later."""
    return bool(boolean(value, strict=False))


def job_progress(poll, seen, now, bounds):
    """See RETURN."""
    poll = poll if isinstance(poll, Mapping) else {}
    # a host that is lost has no `finished`, and one that cannot run the question has a `msg`
    ended = is_true(poll.get("finished", 0))
    told = ended or ("finished" in poll and "msg" not in poll)
    unasked = "" if told else poll.get("msg") or "it said nothing"
    silent = float(now) - float(seen["at"])
    finished = ended or (not told and silent > float(bounds["pause"]) + float(bounds["patience"]))
    finished = finished or float(now) - float(seen["began"]) > float(bounds["limit"]) + 60
    if ended:
        result = poll
    elif not told:
        result = {"msg": "this host could not be asked for %d seconds whether it has ended: %s" % (silent, unasked)}
    else:
        result = {"msg": "%s did not end within %d seconds" % (bounds["what"], float(bounds["limit"]))}
    return {"finished": finished, "told": told, "unasked": unasked, "result": result}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.job_progress."""

    def filters(self):
        return {"job_progress": job_progress}
