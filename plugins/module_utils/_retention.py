# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots retention may remove.  Private to this collection."""

from __future__ import annotations


def lineage(manifest):
    """Snapshots of one lineage replace each other: those of one host of one cluster.

    A directory may be shared by hosts, and even by clusters whose hosts have the same names.  The cluster's id would not
    do, since a restore gives the cluster a new one; its etcd CA stays.
    """
    return (manifest.get("host"), (manifest.get("fingerprints") or {}).get("etcd_ca"))


def newest_first(snapshots):
    """Sorted by the time they were taken; the name decides between two of one second."""
    return sorted(snapshots, key=lambda snapshot: (snapshot.get("created") or "", snapshot["path"]), reverse=True)


def to_remove(snapshots, keep, newest):
    """Paths that are surplus once `newest` exists, oldest last.

    snapshots: as list_snapshots returns them; with or without `newest`.  keep: how many verified ones stay, 0 for all.
    newest: the snapshot that was just taken.  It always stays, whatever the clock says, and therefore so does a verified
    one.  Only verified snapshots of the same lineage are counted and removed; whatever else is there is not ours to judge.
    """
    if keep <= 0 or not newest.get("verified"):
        return []
    older = [
        snapshot
        for snapshot in newest_first(snapshots)
        if snapshot["path"] != newest["path"] and snapshot.get("verified") is True and lineage(snapshot) == lineage(newest)
    ]
    return [snapshot["path"] for snapshot in older[keep - 1 :]]
