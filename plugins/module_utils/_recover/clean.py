# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is removed from an object before it is compared, exported or recovered: RULES, which docs/recover.md shows.  Private to this collection."""

from __future__ import annotations

import collections
import copy
import hashlib
import json
import re

# of: which resources, () for all.  what and why: for the page.  remove: changes the object.
Rule = collections.namedtuple("Rule", "of what why remove")

# Kubernetes puts these on by itself where they are needed; each holds an object until one of its own controllers has done its work.
_OWN_FINALIZERS = frozenset(
    (
        "kubernetes",
        "foregroundDeletion",
        "orphan",
        "kubernetes.io/pv-protection",
        "kubernetes.io/pvc-protection",
        "kubernetes.io/vac-protection",
        "kubernetes.io/pv-controller",
        "service.kubernetes.io/load-balancer-cleanup",
        "batch.kubernetes.io/job-tracking",
        "customresourcecleanup.apiextensions.k8s.io",
    )
)
_TOKEN = re.compile(r"-(token|dockercfg)-[a-z0-9]{5}$")
_ANNOTATIONS = (
    "deployment.kubernetes.io/revision",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "endpoints.kubernetes.io/last-change-trigger-time",
    # its number of the template, which no update can set (1.34.4 to 1.37.2: pkg/registry/apps/daemonset/strategy.go)
    "deprecated.daemonset.template.generation",
)
_JOB_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")
_SERVER = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink")


def is_own_finalizer(name):
    """Whether Kubernetes itself sets and removes it."""
    return name in _OWN_FINALIZERS


def _drop(mapping, *names):
    for name in names:
        mapping.pop(name, None)


def _prune(parent, key):
    """Remove a key that holds nothing any more."""
    if not parent.get(key):
        parent.pop(key, None)


def _server_fields(found):
    _drop(found["metadata"], *_SERVER)


def _finalizers(found):
    metadata = found["metadata"]
    metadata["finalizers"] = [name for name in metadata.get("finalizers") or [] if not is_own_finalizer(name)]
    _prune(metadata, "finalizers")


def _owner_uids(found):
    for owner in found["metadata"].get("ownerReferences") or []:
        owner.pop("uid", None)


def _annotations(found):
    annotations = found["metadata"].get("annotations") or {}
    _drop(annotations, *_ANNOTATIONS)
    _prune(found["metadata"], "annotations")


def _no_times(found):
    """Templates of Pods and of claims have an empty time of creation."""
    for value in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        if isinstance(value, dict) and isinstance(value.get("metadata"), dict) and value["metadata"].get("creationTimestamp", 0) is None:
            del value["metadata"]["creationTimestamp"]
        _no_times(value)


def _namespace(found):
    found.pop("spec", None)


def _claim_reference(found):
    reference = found.get("spec", {}).get("claimRef")
    if reference:
        _drop(reference, "uid", "resourceVersion")


def _snapshot_reference(found):
    reference = found.get("spec", {}).get("volumeSnapshotRef")
    if reference:
        _drop(reference, "uid", "resourceVersion")


def _account_tokens(found):
    names = [one for one in found.get("secrets") or [] if not _TOKEN.search(one.get("name", ""))]
    found["secrets"] = names
    _prune(found, "secrets")


def _aggregated(found):
    if found.get("aggregationRule"):
        found.pop("rules", None)


def _job(found):
    spec = found.get("spec", {})
    if spec.get("manualSelector"):
        return
    spec.pop("selector", None)
    metadata = spec.get("template", {}).get("metadata", {})
    for one in (metadata, found["metadata"]):
        if one.get("labels"):
            _drop(one["labels"], *_JOB_LABELS)
            _prune(one, "labels")


def _pod(found):
    spec = found.get("spec", {})
    _drop(spec, "nodeName", "priority", "ephemeralContainers")
    gone = {one.get("name") for one in spec.get("volumes") or [] if one.get("name", "").startswith("kube-api-access-") or _is_token(one)}
    spec["volumes"] = [one for one in spec.get("volumes") or [] if one.get("name") not in gone]
    _prune(spec, "volumes")
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        container["volumeMounts"] = [one for one in container.get("volumeMounts") or [] if one.get("name") not in gone]
        _prune(container, "volumeMounts")


def _is_token(volume):
    return bool(_TOKEN.search((volume.get("secret") or {}).get("secretName", "")))


RULES = (
    Rule((), "`uid`, `resourceVersion`, `generation`, `creationTimestamp`, `deletionTimestamp`, `managedFields`", "the API server sets them", _server_fields),
    Rule(
        (),
        "`finalizers` of Kubernetes itself, such as `kubernetes.io/pvc-protection`; others stay",
        "Kubernetes adds its own again; another one guards something outside the cluster, and without it that would be left behind",
        _finalizers,
    ),
    Rule(
        (),
        "the `uid` in `ownerReferences`; the reference itself where the owner is not there",
        "the owner has another UID if it was recovered; its live UID is filled in. Without an owner the garbage collector would delete the object",
        _owner_uids,
    ),
    Rule((), "annotations %s" % ", ".join("`%s`" % one for one in _ANNOTATIONS), "controllers set them", _annotations),
    Rule((), "an empty `creationTimestamp` in templates", "it says nothing", _no_times),
    Rule(("namespaces",), "`spec.finalizers`", "the API server sets it", _namespace),
    Rule(
        ("persistentvolumes",),
        "`spec.claimRef.uid` and `resourceVersion`",
        "a recovered claim has a new UID, which the controller fills in; the UID of a live claim is filled in here",
        _claim_reference,
    ),
    Rule(
        ("volumesnapshotcontents.snapshot.storage.k8s.io",),
        "`spec.volumeSnapshotRef.uid` and `resourceVersion`",
        "a recovered VolumeSnapshot has a new UID, which the controller fills in",
        _snapshot_reference,
    ),
    Rule(("serviceaccounts",), "`secrets` that are token Secrets", "they belong to the UID of the deleted account", _account_tokens),
    Rule(("clusterroles.rbac.authorization.k8s.io",), "`rules`, where there is an `aggregationRule`", "a controller collects them", _aggregated),
    Rule(
        ("jobs.batch",),
        "`spec.selector` and the labels that it selects by, unless `manualSelector` is set",
        "they hold the UID of the deleted Job; the API server sets new ones",
        _job,
    ),
    Rule(
        ("pods",),
        "`spec.nodeName`, `spec.priority`, the volume with the token of the service account, and `spec.ephemeralContainers`",
        "the scheduler and the API server set them; no Pod is created with containers of `kubectl debug`",
        _pod,
    ),
)
STATUS = ("`status`, where it is a subresource", "controllers write it; a kind whose `status` is an ordinary field keeps it")


def clean(found, identifier, has_status):
    """A copy of an object without what RULES remove.  has_status: whether its status is a subresource."""
    found = copy.deepcopy(found)
    found.setdefault("metadata", {})
    if has_status:
        found.pop("status", None)
    for rule in RULES:
        if not rule.of or identifier in rule.of:
            rule.remove(found)
    return found


def keep_finalizers(wanted, live):
    """Let an object that is to be overwritten keep the finalizers that it has: each guards something that its controller has made since.  Both are cleaned."""
    has = live["metadata"].get("finalizers") or []
    if has:
        wanted["metadata"]["finalizers"] = has + [name for name in wanted["metadata"].get("finalizers") or [] if name not in has]


def digest(cleaned):
    """One text for equal objects.  The order of keys does not count.  A number of replicas stands apart, behind a slash."""
    spec = cleaned.get("spec")
    replicas = spec.get("replicas") if isinstance(spec, dict) else None
    if isinstance(replicas, int):
        cleaned = dict(cleaned, spec={key: value for key, value in spec.items() if key != "replicas"})
    text = hashlib.sha256(json.dumps(cleaned, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return "%s/%d" % (text, replicas) if isinstance(replicas, int) else text


def without_replicas(text):
    """A digest() that is equal for objects that differ in their number of replicas alone."""
    return text.partition("/")[0]
