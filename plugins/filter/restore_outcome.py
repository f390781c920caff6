# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.states import RESUMABLE, in_words

DOCUMENTATION = r"""
name: restore_outcome
short_description: Says how a failed restore of etcd ended on a host
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - What failed, in which state the host is now, and what to do next.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input
options:
  _input:
    description: >-
      V(host), and V(hosts), all of the run; for each of these in V(failures) what P(k8s_dr.etcd.failed_task#filter) says, and in V(present) whether it can
      still be reached; V(restored), the hosts that get the snapshot, and V(retired), those that are stopped; V(begun), whether the host has anything to
      roll back; V(kept), whether it has committed; V(before), whether an earlier restore stopped it; V(back), what its rollback said, and
      V(backs), what each said; V(again), the validation after that; V(rollback_after), seconds of the rollback timer; V(path), where the attempt is kept.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say how it ended
  ansible.builtin.fail:
    msg: "{{ (known | k8s_dr.etcd.restore_outcome).message }}"
"""

RETURN = r"""
_value:
  description: V(message), for the host; V(error), the first failure of the run with its host, the same for every host.
  type: dict
"""


def _sentence(text):
    return re.sub(r"[.\s]*$", "", str(text or "no reason was given"))


def _validated(validation):
    if validation.get("ok"):
        return "works as before."
    problems = [one for layer in (validation.get("layers") or {}).values() for one in layer.get("problems") or []]
    return ("answers again, but: %s." if validation.get("reachable") else "does not answer yet: %s.") % ("; ".join(problems) or "no validation ran")


def _now(known):
    """Where the host stands, and what to do next."""
    host, every = known["host"], ",".join(known["hosts"])
    back = known.get("back") or {}
    state = (back.get("transaction") or {}).get("state", "")
    if not known.get("begun"):
        return "Nothing was changed" + (": %s is stopped, as an earlier restore left it." % host if known.get("before") else ".")
    # a module that was killed has not said that it had committed, but the rollback says it
    if known.get("kept") or state == "committed":
        # a restore that no other node can have left unfinished needs no `resume`
        alone = len(known["hosts"]) == 1
        why = "The restore had committed" if alone else "All nodes had voted"
        others = (
            "" if alone
            else " If another node says that its restore is unfinished, finish it with: ansible-playbook k8s_dr.etcd.restore -l %s "
            "-e etcd_restore_unfinished=resume" % every
        )  # fmt: skip
        return "%s, so %s keeps the restored data, and nothing is left to finish there. Validate the cluster with: %s%s" % (
            why, host, "ansible-playbook k8s_dr.etcd.validate -l " + every, "." + others if others else "",
        )  # fmt: skip
    again = "Try again with: ansible-playbook k8s_dr.etcd.rollback -l " + every
    if state == "rolled-back":
        return "The restore was rolled back: %s has its previous data, and the cluster %s The attempt is kept in %s. Validate the cluster with: %s" % (
            host, _validated(known.get("again") or {}), known.get("path"), "ansible-playbook k8s_dr.etcd.validate -l " + host,
        )  # fmt: skip
    if not state and host in known["retired"] and not back.get("msg"):
        return "%s stays stopped, because it is not confirmed that %s no longer serve the restored data. Its timer rolls it back later than theirs. %s" % (
            host, ", ".join(known["restored"]), again,
        )  # fmt: skip
    states = [((one or {}).get("transaction") or {}).get("state", "") for one in known.get("backs") or [back]]
    # The rollback has refused to begin. Where another one has, `resume` would be a new restore.
    if all(one in RESUMABLE for one in states):
        finish = "Finish it with: ansible-playbook k8s_dr.etcd.restore -l %s -e etcd_restore_unfinished=resume" % every
        again = finish if "there is no old data" in str(back.get("msg")) else "%s. Or t%s" % (finish, again[1:])
    return "%s could NOT be rolled back: %s. Its state is %s. %s" % (host, _sentence(back.get("msg")), in_words(state) if state else "not known", again)


def restore_outcome(known):
    """See RETURN."""
    if not isinstance(known, dict) or known.get("host") not in known.get("hosts", ()):
        raise AnsibleFilterError("restore_outcome needs a dict with a host and all hosts, not %r" % (known,))
    failures = [one or {} for one in known["failures"]]
    own = failures[known["hosts"].index(known["host"])]
    silent = [name for name, present in zip(known["hosts"], known["present"]) if not present]
    causes = ["%s: %s: %s" % (name, one["task"], one["msg"]) for name, one in zip(known["hosts"], failures) if one.get("here")]
    what = '"%s": %s' % (own.get("task", "a task on another node"), own.get("msg", "see the task above"))
    if silent and not own.get("here"):
        what = "a task for which %s became unreachable" % ", ".join(silent)
    text = "The restore failed on %s at %s. " % (known["host"], what)
    seconds = int(known.get("rollback_after") or 0)
    if silent and known.get("begun") and seconds:
        text += "The rollback timer of %s decides there, %d s after it was armed. " % (", ".join(silent), seconds)
    # what looks like a template must not become one
    text = re.sub(r"\{(?=[{%#])", "{ ", text + _now(known))
    return {"message": text, "error": (causes or ["a node became unreachable"])[0]}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_outcome."""

    def filters(self):
        return {"restore_outcome": restore_outcome}
