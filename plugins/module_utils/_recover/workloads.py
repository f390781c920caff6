# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the Pods of workloads are, and which claims they mount.  Private to this collection."""

from __future__ import annotations

_CRON_JOBS, _STATEFUL_SETS = "cronjobs.batch", "statefulsets.apps"
_TEMPLATES = (_STATEFUL_SETS, "daemonsets.apps", "deployments.apps", "replicasets.apps", "replicationcontrollers", "jobs.batch", _CRON_JOBS)


def pod_spec(identifier, found):
    """The spec of a Pod, or of the Pods that a workload makes; {} of other objects."""
    spec = found.get("spec") or {}
    if identifier == _CRON_JOBS:
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    if identifier in _TEMPLATES:
        return (spec.get("template") or {}).get("spec") or {}
    return spec if identifier == "pods" else {}


def mounted_claims(identifier, found):
    """The names of the claims that a Pod, or the Pods of a workload, mount; in its namespace."""
    names = [(one.get("persistentVolumeClaim") or {}).get("claimName") for one in pod_spec(identifier, found).get("volumes") or []]
    if identifier == _STATEFUL_SETS:
        spec = found["spec"]
        first, number = (spec.get("ordinals") or {}).get("start") or 0, spec.get("replicas", 1)
        for template in spec.get("volumeClaimTemplates") or []:
            names += ["%s-%s-%d" % (template["metadata"]["name"], found["metadata"]["name"], ordinal) for ordinal in range(first, first + number)]
    return [name for name in names if name]
