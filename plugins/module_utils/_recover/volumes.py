# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps the data of PersistentVolumes: controllers delete it with the object, by its reclaim policy.  Private to this collection."""

from __future__ import annotations

import json

CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
RETAIN = "Retain"
_BINDING = ("claimRef", "persistentVolumeReclaimPolicy")
# What a spec has besides the storage that it is.
_NO_SOURCE = (*_BINDING, "accessModes", "capacity", "mountOptions", "nodeAffinity", "storageClassName", "volumeAttributesClassName", "volumeMode")
_HOW = ("fsType", "readOnly", "type")


def policy(volume):
    return volume["spec"].get("persistentVolumeReclaimPolicy") or RETAIN


def claim_of(volume):
    """Its claimRef; {} where it has none."""
    return volume["spec"].get("claimRef") or {}


def problem(volume, namespace, name):
    """Why this live volume cannot be that of a recovered claim, to follow the name of the claim; "" where it can."""
    claim, called = claim_of(volume), volume["metadata"]["name"]
    if volume["metadata"].get("deletionTimestamp"):
        return "cannot be recovered: its volume %s is being deleted; save its data with the tools of the storage first" % called
    if claim and (claim.get("namespace"), claim.get("name")) != (namespace, name):
        return "cannot be recovered: its volume %s belongs to the claim %s/%s" % (called, claim.get("namespace"), claim.get("name"))
    if claim.get("uid") and policy(volume) != RETAIN:
        words = "cannot be recovered: its volume %s has the reclaim policy %s and lost its claim, so its data is being deleted; look at the storage first"
        return words % (called, policy(volume))
    return ""


def source(volume):
    """One text for volumes that are the same storage; "" for none."""
    found = {}
    for kind, one in volume["spec"].items():
        if kind not in _NO_SOURCE and isinstance(one, dict):
            found[kind] = {key: value for key, value in one.items() if key in ("driver", "volumeHandle") or (kind != "csi" and key not in _HOW)}
    if found and "csi" not in found:
        # a path is another one on each node
        found["nodeAffinity"] = volume["spec"].get("nodeAffinity")
    return json.dumps(found, sort_keys=True) if found else ""


def recovered(wanted, claim):
    """Make the cleaned object one of which no data is deleted.  claim: the live one that its claimRef names, or None."""
    wanted["spec"]["persistentVolumeReclaimPolicy"] = RETAIN
    if claim and (claim.get("spec") or {}).get("volumeName") == wanted["metadata"]["name"]:
        # without it the controller takes the claim for one that lost its volume for good
        wanted["spec"]["claimRef"]["uid"] = claim["metadata"]["uid"]


def keep_binding(wanted, live):
    """Give the cleaned object the claim and the policy of the cleaned live one; whether they differed."""
    differed = False
    for key in _BINDING:
        if wanted["spec"].get(key) != live["spec"].get(key):
            differed = True
            wanted["spec"].pop(key, None)
            wanted["spec"].update({key: live["spec"][key]} if key in live["spec"] else {})
    return differed
