# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order objects are recovered, and undone in reverse.  Private to this collection."""

from __future__ import annotations

# What an object needs comes before it: definitions, namespaces and rights, then what Pods mount, then what makes Pods.  NetworkPolicies and LimitRanges
# come before the Pods that they are for, and Services, whose addresses a container gets in its environment when it starts (1.34.4 to 1.37.2:
# pkg/kubelet/kubelet_pods.go, getServiceEnvVarMap); a ResourceQuota after them, since a new one refuses all until it has counted.
_ORDER = (
    ("customresourcedefinitions.apiextensions.k8s.io",),
    ("namespaces",),
    ("clusterroles.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io"),
    ("clusterrolebindings.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"),
    ("serviceaccounts",),
    ("secrets",),
    ("configmaps",),
    ("storageclasses.storage.k8s.io", "csidrivers.storage.k8s.io", "volumeattributesclasses.storage.k8s.io"),
    ("priorityclasses.scheduling.k8s.io", "runtimeclasses.node.k8s.io", "ingressclasses.networking.k8s.io"),
    ("networkpolicies.networking.k8s.io", "limitranges"),
    ("persistentvolumes",),
    ("persistentvolumeclaims",),
    ("services",),
    ("daemonsets.apps", "deployments.apps", "statefulsets.apps", "replicasets.apps", "replicationcontrollers", "jobs.batch", "cronjobs.batch", "pods"),
)
_REST = len(_ORDER)
_CUSTOM = _REST + 1
_LAST = _CUSTOM + 1
# What may refuse all that comes after it.
_WATCHMEN = ("admissionregistration.k8s.io", "apiregistration.k8s.io")
_RANKS = {name: rank for rank, names in enumerate(_ORDER) for name in names}
CRDS = _ORDER[0][0]
# Others cannot do without these, or make new ones, which are empty or have another password: they keep their place, and get an owner that comes later
# afterwards.
EARLY = (CRDS, "namespaces", "secrets", "configmaps", "persistentvolumes", "persistentvolumeclaims")


def rank(identifier, custom=False):
    """The place of a resource.  custom: whether a CRD defines it."""
    if identifier.partition(".")[2] in _WATCHMEN:
        return _LAST
    return _RANKS.get(identifier, _CUSTOM if custom else _REST)


def ordered(items):
    """Items in the order in which they are recovered: by their resources, and an owner before what it owns, unless that is EARLY.

    An item has `rank`, `key`, `uid` and `owners`, the UIDs of its owners in the snapshot.
    """
    by_uid = {item.uid: item for item in items if item.uid}
    places = {}

    def place(item, above):
        if item.key not in places:
            known = [by_uid[uid] for uid in item.owners if uid in by_uid] if item.key[0] not in EARLY else []
            owners = [owner for owner in known if owner.key not in above]
            found = [place(owner, above | {item.key}) for owner in owners]
            places[item.key] = max([(item.rank, 0)] + [(ranked, depth + 1) for ranked, depth in found])
        return places[item.key]

    return sorted(items, key=lambda item: (place(item, frozenset()), item.key))
