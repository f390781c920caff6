#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_recover
short_description: Recovers objects of a snapshot into the live cluster, or undoes that
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Compares objects of an API server that serves a snapshot with those of the live API server of this control plane node, and creates those that are
    missing. The cluster serves all the time.
  - Existing objects stay as they are, unless O(overwrite) is set.
  - The Namespace, CustomResourceDefinition, PersistentVolume, StorageClass, role, or PriorityClass, RuntimeClass or IngressClass that a missing object
    needs is recovered with it where it is missing, too.
  - Objects that a controller makes, such as Pods of a ReplicaSet, are not recovered. RV(plan.left_out) names them.
  - A selected workload whose selected claim cannot be recovered is not recovered either, since it would start without its data. RV(plan.blocked) names it.
  - An object that the API server refuses is named with the reason, and the others are recovered. The module fails at the end. If the API server does not
    answer any more, the module stops at once. The next run with the same arguments continues.
  - Each change is written to O(record_dir) before it is made. O(undo) undoes a run.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.selection
attributes:
  check_mode:
    support: full
    details:
      - Objects that exist or whose namespace exists are sent to the API server with C(dryRun=All), so that what it would refuse is in RV(plan.blocked).
        What a webhook would refuse is not known if the webhook does not support that.
  diff_mode:
    support: full
    details:
      - Values of Secrets are never shown.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
  platform:
    support: full
options:
  kubeconfig:
    description:
      - Kubeconfig on this host for an API server that serves the snapshot. It needs a client certificate.
      - Required unless O(undo) is given.
    type: path
  select:
    description: Which objects of the snapshot to recover. An object is selected if one entry selects it.
    default: []
  overwrite:
    description: Whether to make objects that differ from the snapshot what they were in it.
    type: bool
    default: false
  undo:
    description:
      - RV(id) of a run to undo. What it created is deleted, and what it overwrote is as before, unless it was changed since or is still needed.
        RV(report.failed) names what stays, and why. Overwritten Secrets stay.
    type: str
  snapshot:
    description:
      - Name of the snapshot, for the record. An interrupted run continues only with the same name.
      - With the kubeconfig of M(k8s_dr.etcd.kube_snapshot_server) it is the SHA-256 of the snapshot. The module refuses to go on when another one is served.
    type: str
    default: ""
  fingerprint:
    description:
      - RV(fingerprint) of the plan that was confirmed, as this module returned it in check mode. If the plan is another one by now, nothing is done.
      - Not used in check mode.
    type: str
    default: ""
  record_dir:
    description: >-
      Directory for the records, with mode 0700. The record of a run with O(overwrite) has the objects as they were before, until that is undone.
      Values of Secrets are not recorded.
    type: path
    default: /var/lib/k8s-dr-recover
  keep:
    description: How many records stay, that of this run included. V(0) keeps all.
    type: int
    default: 10
  wait_timeout:
    description: Seconds to wait until a new CustomResourceDefinition is served, or until a claim, volume, namespace or definition that an undo deletes is gone.
    type: int
    default: 120
  manifests_dir:
    description: Directory that kubelet reads static Pods from. That of kube-apiserver says where the live API server is.
    type: path
    default: /etc/kubernetes/manifests
notes:
  - >-
    Runs as root on a control plane node, with the first client certificate of the node that the API server accepts, as M(k8s_dr.etcd.kube_validation) does.
seealso:
  - module: k8s_dr.etcd.kube_export
"""

EXAMPLES = r"""
- name: Recover a namespace, and one Secret
  k8s_dr.etcd.kube_recover:
    kubeconfig: /run/k8s-dr-browse/kubeconfig
    select:
      - namespace: shop
      - namespace: pay
        kind: Secret
        name: key
  register: recovered

- name: Undo that
  k8s_dr.etcd.kube_recover:
    undo: "{{ recovered.id }}"
"""

RETURN = r"""
plan:
  description: What was found before anything was changed. Objects are written as C(Secret pay/key).
  returned: success, unless O(undo) is given
  type: dict
  contains:
    missing:
      description: Objects that are recovered.
      type: list
      elements: str
    different:
      description: Objects that differ, each with V(object) and V(differences), without values of Secrets.
      type: list
      elements: dict
    same:
      description: How many objects are the same in the snapshot and live.
      type: int
    blocked:
      description: Objects that cannot be recovered, each with V(object) and V(reason).
      type: list
      elements: dict
    left_out:
      description: Objects that are not recovered because something in the cluster makes them, or because they have ended, each with V(object) and V(reason).
      type: list
      elements: dict
    rebound:
      description: Live volumes of claims that are recovered, each with V(object) and V(claim). The volume still names the UID of the deleted claim.
      type: list
      elements: dict
    warnings:
      description: What to know before.
      type: list
      elements: str
lines:
  description: The plan as text, one line each. With O(undo) what is undone.
  returned: success
  type: list
  elements: str
id:
  description: Id of the record, for O(undo). Empty if nothing was changed.
  returned: success
  type: str
  sample: 20260102T030405Z-1a2b
report:
  description: What was done, or in check mode with O(undo) what would be done.
  returned: always
  type: dict
  contains:
    created:
      description: Objects that were created.
      type: list
      elements: str
    overwritten:
      description: Objects that were overwritten.
      type: list
      elements: str
    rebound:
      description: Volumes that now wait for the claim that was recovered.
      type: list
      elements: str
    undone:
      description: With O(undo), changes that were undone.
      type: list
      elements: str
    failed:
      description: What was refused, or with O(undo) what stays, each with V(object) and V(reason).
      type: list
      elements: dict
    warnings:
      description: What is not as it was, such as a ClusterIP that another Service has now.
      type: list
      elements: str
pending:
  description: Whether something would be changed, or an interrupted run continued, in check mode.
  returned: always
  type: bool
fingerprint:
  description: Checksum of what would be changed, for O(fingerprint).
  returned: success
  type: str
refusals:
  description: What is refused, in one sentence for each reason. Outside check mode the module fails with it. Empty if nothing is.
  returned: success
  type: str
summary:
  description: RV(report) as text, one line each.
  returned: success
  type: list
  elements: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import contextlib
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.served import in_use
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.session import session_of_kubeconfig, session_of_manifests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import record as records
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.apply import Recovery
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import DIFFERENT, MISSING, Plan
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import checksum, described, diffs, fingerprint, lines, problems, summary, undo_lines
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import SPEC, given, parse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.undo import Undo
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.signals import Ended, raise_when_ended

_NOTHING = {"created": [], "overwritten": [], "rebound": [], "undone": [], "failed": [], "warnings": []}


def lock(module):
    """One run at a time; a look needs none, and makes no directory."""
    return contextlib.ExitStack() if module.check_mode else records.lock(module.params["record_dir"], "process %d" % os.getpid())


def check_confirmed(module, found):
    """Refused where this is not what was shown.  found: the fingerprint."""
    module.result["fingerprint"] = found
    if not module.check_mode and module.params["fingerprint"] not in ("", found):
        raise Refused("the cluster has changed since the plan was shown, so the plan is another one now; run this again to see it")


def undo(module, live):
    params = module.params
    record = records.find(params["record_dir"], params["undo"])
    with record:
        run = Undo(live, record, params["wait_timeout"], module.check_mode)
        if params["fingerprint"] and not module.check_mode:
            look = Undo(live, record, params["wait_timeout"], check=True)
            look.run()
            check_confirmed(module, checksum(look.undone))
        try:
            run.run()
        finally:
            module.result["fingerprint"] = module.result.get("fingerprint") or checksum(run.undone)
            module.result.update(report=dict(_NOTHING, undone=run.undone, failed=run.left), changed=bool(run.undone), id=record.id)
    module.result["lines"] = undo_lines(run)
    return run.left


def recover(module, live):
    params = module.params
    if params["keep"] < 0:
        raise Refused("keep is %d; set it to 0 for all records, or to how many stay" % params["keep"])
    entries, selection = parse(params["select"]), [given(entry) for entry in params["select"]]
    about = {"snapshot": params["snapshot"], "selection": selection, "overwrite": params["overwrite"]}
    with in_use(params["kubeconfig"], params["snapshot"]), session_of_kubeconfig(params["kubeconfig"]) as snapshot:
        plan = Plan(snapshot, live, entries).make()
        check_confirmed(module, fingerprint(plan, params["overwrite"]))
        resumed = records.unfinished(params["record_dir"], about)
        plan.warnings += records.interrupted(params["record_dir"], resumed and resumed.id)
        if params["overwrite"] and any(item.there.id == records.SECRETS for item in plan.of(DIFFERENT)):
            plan.warnings.append(
                "Undo cannot bring earlier values of overwritten Secrets back: the record has none. Take a snapshot first to keep them, and "
                "then name this one: -e etcd_browse_snapshot=PATH"
            )
        if module.check_mode:
            rehearsal = Recovery(plan, None, params["overwrite"], params["wait_timeout"])
            rehearsal.rehearse()
            plan.warnings += rehearsal.warnings
        found = described(plan)
        module.result.update(plan=found, lines=lines(found, params["overwrite"]))
        if module._diff:
            module.result["diff"] = diffs(plan, params["overwrite"])
        module.result["changed"] = bool(found["rebound"] or plan.of(MISSING) or (params["overwrite"] and plan.of(DIFFERENT)))
        module.result["pending"] = module.result["changed"] or resumed is not None
        if module.check_mode:
            return found["blocked"]
        with resumed or records.Record.create(params["record_dir"], about) as record:
            run = Recovery(plan, record, params["overwrite"], params["wait_timeout"])
            try:
                run.run()
            finally:
                done = {"created": run.created, "overwritten": run.overwritten, "rebound": run.rebound, "failed": run.failed, "warnings": run.warnings}
                module.result.update(report=dict(_NOTHING, **done), id=record.id if record.changes else "")
                module.result["changed"] = bool(run.created or run.overwritten or run.rebound)
        records.prune(params["record_dir"], params["keep"], record.id)
    return found["blocked"] + run.failed


def main():
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path"},
            "select": dict(SPEC, default=[]),
            "overwrite": {"type": "bool", "default": False},
            "undo": {"type": "str"},
            "snapshot": {"type": "str", "default": ""},
            "fingerprint": {"type": "str", "default": ""},
            "record_dir": {"type": "path", "default": "/var/lib/k8s-dr-recover"},
            "keep": {"type": "int", "default": 10},
            "wait_timeout": {"type": "int", "default": 120},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
        },
        required_one_of=[("kubeconfig", "undo")],
        mutually_exclusive=[("kubeconfig", "undo")],
        supports_check_mode=True,
    )
    raise_when_ended()
    os.umask(0o077)
    start = time.monotonic()
    module.result = {"changed": False, "pending": False, "id": "", "fingerprint": "", "refusals": "", "lines": [], "report": dict(_NOTHING)}
    do = undo if module.params["undo"] else recover
    problem, ended_early = "", False
    try:
        with session_of_manifests(module.params["manifests_dir"]) as live, lock(module):
            refused = do(module, live)
        if refused:
            what = "undone" if module.params["undo"] else "recovered"
            module.result["refusals"] = "%d objects were not %s. %s" % (len(refused), what, "; ".join(problems(refused)))
        problem = "" if module.check_mode else module.result["refusals"]
    except (Refused, Busy) as exc:
        problem = "Nothing was done: %s" % exc
    except (KubeError, Ended, OSError) as exc:
        ended_early = True
        problem = "%s. %s" % (os_error_words(exc) if isinstance(exc, OSError) else exc, state_of(module))
    module.result["pending"] = module.check_mode and (module.result["pending"] or module.result["changed"])
    module.result.update(seconds=round(time.monotonic() - start, 2), summary=summary(module.result["report"], module.result["id"], ended_early))
    if problem:
        module.fail_json(msg=problem, **module.result)
    module.exit_json(**module.result)


def state_of(module):
    """What is known when a run ends early, and what to do: the last change may have been made, although no answer came."""
    identifier = module.result["id"]
    if module.check_mode or not identifier:
        return "Nothing was changed"
    if module.params["undo"]:
        return "Some of it may be undone; run this again to continue"
    return "Some objects may have been changed; run this again to continue, or undo it: %s" % records.undo_command(identifier)


if __name__ == "__main__":
    main()
