# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

DOCUMENTATION = r"""
name: rejoin_outcome
short_description: Says how a failed rejoin of a control plane host ended
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - What failed, in which state the host and the cluster are now, and what to do next.
  - Used by the role P(k8s_dr.etcd.etcd_rejoin#role).
positional: _input
options:
  _input:
    description: >-
      V(host); V(failed), what P(k8s_dr.etcd.failed_task#filter) says; V(check), whether this is check mode; V(plan), what
      P(k8s_dr.etcd.rejoin_plan#filter) says; V(begun), whether the member was added; V(done), whether its API server was started; V(stale_removed), what the
      removal of stale members said; V(gone), what the removal of the new member said; V(stopped), what the stop of the host said; V(path), of the
      previous data.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say how it ended
  ansible.builtin.fail:
    msg: "{{ known | k8s_dr.etcd.rejoin_outcome }}"
"""

RETURN = r"""
_value:
  description: Sentences for the host.
  type: str
"""


def _now(known):
    host, plan, gone = known["host"], known["plan"], known.get("gone") or {}
    again = "ansible-playbook k8s_dr.etcd.rejoin -l " + host
    if known.get("check"):
        return "Nothing was changed."
    if known.get("done"):
        return (
            "%s is a voting member again, and its API server was started; only the last checks failed. Validate the cluster with: "
            "ansible-playbook k8s_dr.etcd.validate -l %s" % (host, host)
        )
    if plan["case"] == "learner":
        return "%s is a member without a vote, as before. Remove the cause and run it again: %s" % (host, again)
    if not known.get("begun"):
        removed = [one for one in (known.get("stale_removed") or {}).get("results") or [] if "removed" in one]
        stale = ", ".join(one["name"] or one["id"] for one in plan["stale"])
        return "%s is not a member, and the cluster is unchanged%s. Its previous data is kept. Remove the cause and continue with: %s" % (
            host, " except that the stale members %s were removed" % stale if removed else "", again,
        )  # fmt: skip
    stopped = ((known.get("stopped") or {}).get("transaction") or {}).get("state") == "committed"
    cluster = "is not a member of the cluster, which is unchanged"
    if "removed" not in gone:
        reason = re.sub(r"[.\s]*$", "", str(gone.get("msg") or plan["via"] + " cannot be reached"))
        cluster = "could not be removed from the cluster (%s)" % reason
    return "%s %s, its previous data is in %s/old, and it %s. Remove the cause and run it again: %s" % (
        host, "is stopped" if stopped else "was left running", known.get("path"), cluster, again,
    )  # fmt: skip


def rejoin_outcome(known):
    """See RETURN."""
    text = 'The rejoin of %s failed at "%s": %s. %s' % (known["host"], known["failed"]["task"], known["failed"]["msg"], _now(known))
    # what looks like a template must not become one
    return re.sub(r"\{(?=[{%#])", "{ ", text)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.rejoin_outcome."""

    def filters(self):
        return {"rejoin_outcome": rejoin_outcome}
