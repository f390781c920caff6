# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the Pods of workloads are, and which claims they mount.  Private to this collection."""

from __future__ import annotations

import re

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


class Claims:
    """The names of the claims that a Pod, or the Pods of a workload, mount; in its namespace."""

    def __init__(self, identifier="", found=None):
        found = found or {}
        volumes = pod_spec(identifier, found).get("volumes") or []
        self._names = {(one.get("persistentVolumeClaim") or {}).get("claimName") for one in volumes} - {None, ""}
        self._prefixes, self._ordinals = (), range(0)
        if identifier == _STATEFUL_SETS:
            spec = found["spec"]
            first, number = (spec.get("ordinals") or {}).get("start") or 0, spec.get("replicas", 1)
            # the names themselves could fill the memory
            self._ordinals = range(first, first + number)
            self._prefixes = ["%s-%s" % (one["metadata"]["name"], found["metadata"]["name"]) for one in spec.get("volumeClaimTemplates") or []]

    def __contains__(self, name):
        prefix, dummy, ordinal = name.rpartition("-")
        is_one = prefix in self._prefixes and re.match(r"(0|[1-9][0-9]{0,9})\Z", ordinal) and int(ordinal) in self._ordinals
        return name in self._names or bool(is_one)
