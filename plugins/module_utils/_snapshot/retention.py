# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots retention may remove.  Private to this collection.

What to keep is a number of snapshots, or a rule for each of RULES, all of which keep what they keep:

    last                                   this many of the newest
    hourly, daily, weekly, monthly, yearly the newest of each of so many hours, days, ISO weeks, months, years (UTC) that have one

Nothing set, or 0 everywhere, keeps all.  Only verified snapshots are counted, and nothing else is ever removed.  A snapshot that is held stays until it
is released, and no rule counts it, as if it were not there.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import MOMENT, utc

# How the time of a snapshot names its period; all of one name are of one period.
PERIODS = {"hourly": "%Y-%m-%dT%H", "daily": "%Y-%m-%d", "weekly": "%G-W%V", "monthly": "%Y-%m", "yearly": "%Y"}
RULES = ("last",) + tuple(PERIODS)


def rules(keep, option="keep"):
    """{rule: number} of what an operator writes; ValueError with one sentence otherwise.  Numbers may be text, as surveys have them."""
    if isinstance(keep, str) and keep.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            keep = json.loads(keep)
    found = {}
    for name, number in (keep if isinstance(keep, dict) else {"last": keep}).items():
        if name not in RULES:
            raise ValueError("`%s` has the rule %s; the rules are: %s" % (option, str(name)[:40], ", ".join(RULES)))
        try:
            if isinstance(number, (bool, float)):
                raise ValueError
            found[name] = int(number)
        except (TypeError, ValueError):
            raise ValueError("`%s` should be a number of snapshots, or a number for any of: %s" % (option, ", ".join(RULES))) from None
        if found[name] < 0:
            raise ValueError("`%s` is %d, and cannot be less than 0" % (option if not isinstance(keep, dict) else "%s.%s" % (option, name), found[name]))
    return {name: number for name, number in found.items() if number}


def is_held(snapshot):
    """Whether a snapshot stays until it is released.  A damaged manifest may hold anything there, and then it stays as well."""
    return bool(snapshot.get("hold"))


def hold_words(snapshot):
    """`held since 2026-01-03T03:04:05Z by alice: before the upgrade` of one that is held; empty of another one."""
    if not is_held(snapshot):
        return ""
    hold = snapshot["hold"] if isinstance(snapshot["hold"], dict) else {}
    words = [form % hold[name] for name, form in (("at", " since %s"), ("by", " by %s"), ("reason", ": %s")) if hold.get(name)]
    return "held" + "".join(words)


def locked_words(locked):
    """`3 are locked, the first until 2026-01-03T03:04:05Z, the last until 2026-01-05T03:04:05Z` of what etcd_snapshot_prune returned; empty for none."""
    until = sorted(one["until"] for one in locked)
    if not until:
        return ""
    if until[0] == until[-1]:
        return "%d %s locked until %s" % (len(until), "is" if len(until) == 1 else "are", until[0])
    return "%d are locked, the first until %s, the last until %s" % (len(until), until[0], until[-1])


def lineage(manifest, shared=False):
    """Snapshots of one lineage replace each other: those of one host of one cluster.

    A directory may be shared by hosts, and even by clusters whose hosts have the same names.  The cluster's id would not
    do, since a restore gives the cluster a new one; its etcd CA stays.  shared: all hosts of a cluster are one lineage, as
    off-site, where any of them brings what was taken on it.
    """
    cluster = authority(manifest)
    return (None if shared and cluster else manifest.get("host"), cluster)


def authority(manifest):
    """What a cluster is told from others by: the fingerprint of its etcd's CA; None where a manifest has none."""
    return (manifest.get("fingerprints") or {}).get("etcd_ca")


def newest_first(snapshots):
    """Sorted by the time they were taken; the name decides between two of one second."""
    return sorted(snapshots, key=_age, reverse=True)


def _age(snapshot):
    return snapshot.get("created") or "", snapshot["path"]


def kept_by(snapshots, keep):
    """{path: names of the rules that keep it} of verified snapshots of one lineage, the most important first; keep as rules() returns it."""
    kept = {}
    for name, number in keep.items():
        seen = set()
        for snapshot in snapshots:
            if len(seen) == number:
                break
            period = snapshot["path"] if name == "last" else time.strftime(PERIODS[name], time.strptime(snapshot["created"], MOMENT))
            if period not in seen:
                seen.add(period)
                kept.setdefault(snapshot["path"], []).append(name)
    return kept


def to_remove(snapshots, keep, newest, shared=False):
    """Paths that are surplus once `newest` exists, oldest last.

    snapshots: as SnapshotDirectory.snapshots() returns them; with or without `newest`.  keep: a number, or a dictionary of rules.
    newest: the snapshot that was just taken.  It always stays, whatever the clock says, and therefore so does a verified
    one.  Only verified snapshots of the same lineage are counted and removed; whatever else is there is not ours to judge.
    """
    keep = rules(keep)
    if not keep or not newest.get("verified"):
        return []
    older = [
        snapshot
        for snapshot in newest_first(snapshots)
        if snapshot["path"] != newest["path"]
        and snapshot.get("verified") is True
        and not is_held(snapshot)
        and lineage(snapshot, shared) == lineage(newest, shared)
    ]
    kept = kept_by([newest] + older, keep)
    return [snapshot["path"] for snapshot in older if snapshot["path"] not in kept]


def judge(snapshots, keep, now, shared=False):
    """[(snapshot, names of the rules that keep it or [] when it is surplus)] of all lineages, newest first.

    now: in seconds since the epoch.  Of each lineage the newest that is not of a time to come stays, whatever the rules say, with the
    reason `newest`: a clock that once went wrong must not cost what is newest in truth.  One that is held stays with the reason `hold`.
    """
    keep = rules(keep)
    verdicts = {snapshot["path"]: ["hold"] for snapshot in snapshots if snapshot.get("verified") is True and is_held(snapshot)}
    for members in _lineages(snapshots, shared).values():
        newest, kept = _kept(members, keep, utc(now))
        for snapshot in members:
            reasons = kept.get(snapshot["path"], []) if keep else ["all"]
            verdicts[snapshot["path"]] = reasons or (["newest"] if snapshot is newest else [])
    return [(snapshot, verdicts[snapshot["path"]]) for snapshot in newest_first(snapshots) if snapshot["path"] in verdicts]


def _lineages(snapshots, shared):
    """{lineage: its verified snapshots that are not held, newest first}"""
    found = {}
    for snapshot in newest_first(snapshots):
        if snapshot.get("verified") is True and not is_held(snapshot):
            found.setdefault(lineage(snapshot, shared), []).append(snapshot)
    return found


def _kept(members, keep, latest):
    """(the one that always stays, what kept_by() says) of one lineage, newest first.  latest: the time of now, as manifests have times."""
    newest = next((snapshot for snapshot in members if snapshot["created"] <= latest), members[0])
    return newest, kept_by([newest] + [snapshot for snapshot in members if snapshot is not newest], keep)


def is_last(snapshot, snapshots, shared=False):
    """Whether a verified snapshot is the only one of its lineage."""
    own = lineage(snapshot, shared)
    others = [one for one in snapshots if one["path"] != snapshot["path"] and one.get("verified") is True and lineage(one, shared) == own]
    return snapshot.get("verified") is True and not others


def left_over(lost, snapshots, keep, now, shared=False):
    """Those of `lost`, manifests whose snapshots are gone, that would be surplus if their snapshots were there: what an interrupted removal left."""
    keep, there = rules(keep), _lineages(snapshots, shared)
    # of each lineage what newest_first() sorts by, from the oldest on
    order = {one: [_age(snapshot) for snapshot in reversed(members)] for one, members in there.items()}
    found = []
    for manifest in lost if keep else ():
        own = lineage(manifest, shared)
        # alone in its lineage it is the last trace of something that is lost, and a held one was to stay
        members = there.get(own)
        if members and not is_held(manifest):
            newer = len(members) - bisect.bisect_left(order[own], _age(manifest))
            newest, kept = _kept(members[:newer] + [manifest] + members[newer:], keep, utc(now))
            if manifest is not newest and manifest["path"] not in kept:
                found.append(manifest)
    return found
