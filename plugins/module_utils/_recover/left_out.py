# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which objects are not recovered, since something in the cluster makes them or they have had their time.  Private to this collection."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.order import CRDS
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import is_away

# Resources of which nothing is ever recovered, and why.
NEVER = {
    "events": "they say what happened",
    "events.events.k8s.io": "they say what happened",
    "leases.coordination.k8s.io": "their holders renew them",
    "leasecandidates.coordination.k8s.io": "their holders renew them",
    "nodes": "kubelet registers its node",
    "csinodes.storage.k8s.io": "kubelet makes them",
    "csistoragecapacities.storage.k8s.io": "the storage driver makes them",
    "volumeattachments.storage.k8s.io": "a controller makes them",
    "resourceslices.resource.k8s.io": "the driver of the devices makes them",
    "controllerrevisions.apps": "StatefulSets and DaemonSets make them",
    "certificatesigningrequests.certificates.k8s.io": "each was for one certificate",
    "podcertificaterequests.certificates.k8s.io": "each was for one certificate",
    "componentstatuses": "the API server makes them up",
    "ipaddresses.networking.k8s.io": "the API server makes them for Services",
    "servicecidrs.networking.k8s.io": "the API server makes them",
    "storageversions.internal.apiserver.k8s.io": "API servers make them",
    "storageversionmigrations.storagemigration.k8s.io": "each was run once",
}
# (resource, kind of the controller) of what that controller makes.
_MADE = {
    ("replicasets.apps", "Deployment"),
    ("jobs.batch", "CronJob"),
    ("endpoints", "Service"),
    ("endpointslices.discovery.k8s.io", "Service"),
    ("endpointslices.discovery.k8s.io", "Endpoints"),
}
_MANAGED = "endpointslice.kubernetes.io/managed-by"
_BY_KUBERNETES = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")
# What a controller of custom resources says of one that is done.
_DONE = ("Succeeded", "Complete")
_OF_ACCOUNT = "kubernetes.io/service-account-token"
# What is kept of an owner.
_IDENTITY = ("namespace", "name", "uid", "ownerReferences")


class LeftOut:
    """Which objects of a snapshot are left out: what reason() says of them, with what else is in the snapshot."""

    def __init__(self, snapshot, there):
        """snapshot: a Session.  there: its Resources."""
        self._snapshot, self._there = snapshot, there
        definitions = there.find(CRDS)
        self._custom = {one["metadata"]["name"] for one in snapshot.items(definitions.path(), page=50)} if definitions else set()
        self._selectors, self._owners = {}, {}

    def is_custom(self, resource):
        """Whether a CustomResourceDefinition defines it."""
        return resource.id in self._custom

    def loses_status(self, resource):
        """Whether it is a custom resource that is recovered without its status."""
        return self.is_custom(resource) and resource.has_status

    def reason(self, resource, found):
        """Why this object is left out, to follow its name; "" where it is not."""
        selectors = self._selecting(found["metadata"].get("namespace", "")) if resource.id == "endpoints" else ()
        return reason(resource.id, found, selectors, self.loses_status(resource))

    def owner(self, reference, namespace):
        """(resource, what identifies the object, reason()) of what an ownerReference names; None where the snapshot does not have it.

        Of an owner that cannot be read it is not known whether it is left out, so it counts as one that is not.
        """
        resource = self._there.of_owner(reference)
        if resource is None:
            return None
        path = resource.path(namespace, reference.get("name", ""))
        if path not in self._owners:
            self._owners[path] = self._read_owner(resource, namespace, reference)
        return self._owners[path]

    def _read_owner(self, resource, namespace, reference):
        """As owner(), from the first version that can be read: a conversion webhook may be out of reach."""
        for version in self._there.versions(resource.id):
            try:
                found = self._snapshot.get(version.path(namespace, reference.get("name", "")))
            except KubeError as exc:
                if is_away(exc, self._snapshot):
                    raise
                continue
            kept = {"metadata": {key: found["metadata"][key] for key in _IDENTITY if key in found["metadata"]}} if found else None
            return (version, kept, self.reason(version, found)) if found else None
        return resource, {"metadata": {"namespace": namespace, "name": reference.get("name", ""), "uid": reference.get("uid", "")}}, ""

    def owner_left_out(self, found, above=()):
        """The name of an owner that is left out, if all are that the snapshot has; "" for none.  The object would be an orphan, and in the way of a new one."""
        namespace, left = found["metadata"].get("namespace", ""), ""
        for reference in found["metadata"].get("ownerReferences") or []:
            known = self.owner(reference, namespace) if reference.get("uid") not in above else None
            if known:
                resource, owner, why = known
                if not why and not self.owner_left_out(owner, (*above, reference.get("uid"))):
                    return ""
                left = left or "%s %s" % (resource.kind, "/".join(filter(None, (owner["metadata"].get("namespace"), owner["metadata"]["name"]))))
        return left

    def _selecting(self, namespace):
        """The Services of a namespace that select Pods."""
        if namespace not in self._selectors:
            self._selectors[namespace] = selecting(self._snapshot, self._there, namespace)
        return self._selectors[namespace]


def selecting(session, resources, namespace):
    """(namespace, name) of the Services that select Pods, in one namespace or in all."""
    services = session.items(resources.find("services").path(namespace))
    return {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in services if (one.get("spec") or {}).get("selector")}


def is_default_account(identifier, found):
    return identifier == "serviceaccounts" and found["metadata"]["name"] == "default"


def maker(identifier, found, selectors=()):
    """What makes this object by itself, to follow its name; "" where nothing does.  selectors: see reason()."""
    metadata = found["metadata"]
    owner = next((owner["kind"] for owner in metadata.get("ownerReferences") or [] if owner.get("controller")), "")
    if (identifier, owner) in _MADE or (identifier == "pods" and owner):
        return "is made by its %s" % owner
    where = (metadata.get("namespace", ""), metadata["name"])
    if where == ("default", "kubernetes") and identifier in ("services", "endpoints", "endpointslices.discovery.k8s.io"):
        return "is made by the API server"
    special = _MAKERS.get(identifier)
    return special(found, metadata.get("labels") or {}, metadata.get("annotations") or {}, where in selectors) if special else ""


def reason(identifier, found, selectors=(), loses_status=False):
    """Why this object is not recovered, to follow its name; "" where it is.

    selectors: (namespace, name) of the Services that select Pods.  loses_status: whether it is a custom resource that is recovered without its status.
    """
    if identifier in NEVER:
        return "is not recovered: " + NEVER[identifier]
    if found["metadata"].get("deletionTimestamp") and identifier == "namespaces":
        return "was being deleted when the snapshot was taken; choose an earlier one with -e etcd_browse_snapshot=PATH"
    if found["metadata"].get("deletionTimestamp"):
        return "was being deleted when the snapshot was taken"
    made = maker(identifier, found, selectors)
    if made or identifier in _PAST:
        return made or _PAST[identifier](found)
    return "has ended, and would run again" if loses_status and _is_done(found) else ""


def caution(identifier, found, loses_status):
    """What its controller would do with an object that is recovered, to follow its name; "" for nothing of note."""
    if identifier == "jobs.batch":
        return "had not ended, and starts again from its beginning" if not (found.get("spec") or {}).get("suspend") else ""
    if identifier == "pods":
        return "belongs to no workload, and starts again"
    if loses_status and found.get("status"):
        return "is recovered without its status: its controller may do again what it had done"
    return ""


def _is_done(found):
    status = found.get("status") if isinstance(found.get("status"), dict) else {}
    conditions = status.get("conditions") if isinstance(status.get("conditions"), list) else []
    return bool(status.get("completionTime")) or any(isinstance(one, dict) and one.get("type") in _DONE and one.get("status") == "True" for one in conditions)


def _secret(found):
    return "is a token of a service account, which ends with it; make a new one" if found.get("type") == _OF_ACCOUNT else ""


def _config_map(found, _labels, _annotations, _selected):
    return "is made in each namespace by a controller" if found["metadata"]["name"] == "kube-root-ca.crt" else ""


def _account(found, labels, annotations, _selected):
    own = labels or annotations or found.get("imagePullSecrets") or "automountServiceAccountToken" in found
    return "is made in each namespace by a controller" if is_default_account("serviceaccounts", found) and not own else ""


def _endpoints(_found, labels, annotations, selected):
    made = selected or "endpoints.kubernetes.io/managed-by" in labels or "endpoints.kubernetes.io/last-change-trigger-time" in annotations
    elected = "control-plane.alpha.kubernetes.io/leader" in annotations
    return "is made by its Service" if made else "is a lock, which is renewed by its holder" if elected else ""


def _slice(_found, labels, _annotations, _selected):
    return "is made by its Service" if labels.get(_MANAGED) in _BY_KUBERNETES else ""


def _mirror(_found, _labels, annotations, _selected):
    return "is a static Pod, which kubelet makes" if "kubernetes.io/config.mirror" in annotations else ""


def _pod(found):
    return "has ended" if (found.get("status") or {}).get("phase") in ("Succeeded", "Failed") else ""


def _job(found):
    conditions = (found.get("status") or {}).get("conditions") or []
    ended = any(one.get("type") in ("Complete", "Failed") and one.get("status") == "True" for one in conditions)
    return "has ended, and would run again" if ended else ""


def _volume_snapshot(found):
    """Of a claim or a volume a new one would be made, under the name and with the date of the old one."""
    source = (found.get("spec") or {}).get("source") or {}
    if "persistentVolumeClaimName" in source or "volumeHandle" in source:
        return "would be taken anew, of the data of today; make one of the snapshot handle that the storage still has"
    return ""


def _automatic(_found, labels, annotations, _selected):
    kept = labels.get("kube-aggregator.kubernetes.io/automanaged") or annotations.get("apf.kubernetes.io/autoupdate-spec") == "true"
    return "is made by the API server" if kept else ""


# What something in the cluster makes, and what has had its time.
_MAKERS = {
    "configmaps": _config_map,
    "serviceaccounts": _account,
    "endpoints": _endpoints,
    "endpointslices.discovery.k8s.io": _slice,
    "pods": _mirror,
    "apiservices.apiregistration.k8s.io": _automatic,
    "flowschemas.flowcontrol.apiserver.k8s.io": _automatic,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": _automatic,
}
_PAST = {
    "secrets": _secret,
    "pods": _pod,
    "jobs.batch": _job,
    "volumesnapshots.snapshot.storage.k8s.io": _volume_snapshot,
    "volumesnapshotcontents.snapshot.storage.k8s.io": _volume_snapshot,
}
