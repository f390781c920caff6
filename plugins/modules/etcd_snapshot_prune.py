#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_prune
short_description: Removes snapshots that the retention rules do not keep
version_added: 0.1.0
description:
  - Removes surplus snapshots with their manifests from O(directory), or off-site from O(remote), by a number, by hours, days, weeks, months and
    years, or by both.
  - Only verified snapshots are counted and removed. A file without a manifest, or one that does not match its manifest, is not touched.
  - The newest verified snapshot of each host of a cluster always stays, off-site that of each cluster. A snapshot dated in the future does not count
    as the newest.
  - A snapshot that M(k8s_dr.etcd.etcd_snapshot_hold) holds stays until it is released, and no rule counts it.
  - An interrupted removal leaves no snapshot without its manifest; the next run completes it.
  - A surplus snapshot that S3 Object Lock protects at O(remote) stays until that ends, which RV(locked) names. Then it is removed with all its versions.
  - Where O(remote) forbids deletes, or protects a snapshot in another way, that is one warning and no failure. The rules of the storage delete there.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.off_site
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.static_pods
attributes:
  check_mode:
    support: full
    details:
      - Says what would be removed, and why everything else stays. Writes nothing, not even a lock.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  directory:
    description: Directory of the snapshots.
    type: path
    default: /var/backups/etcd
  keep:
    description:
      - How many verified snapshots to keep, or a dictionary with a number for any of C(last), C(hourly), C(daily), C(weekly), C(monthly), C(yearly).
      - C(last) keeps that many of the newest. Each other rule keeps the newest snapshot of each of that many hours, days, ISO weeks, months or years, in
        UTC. Only periods with a snapshot count. A snapshot stays when any rule keeps it.
      - V(0), or only zeros, keeps all.
      - The rules apply to each host of each cluster in O(directory), and to each cluster at O(remote).
    type: raw
    required: true
  remote:
    description:
      - Off-site storage to prune instead of O(directory), in the format of M(k8s_dr.etcd.etcd_snapshot_upload).
    type: str
  etcd_ca:
    description:
      - Cluster whose snapshots may be removed, as the SHA-256 of its etcd CA in hexadecimal, C(fingerprints.etcd_ca) in manifests. Snapshots of other
        clusters in the same place have rules of their own.
      - Default is the etcd CA of the host, which O(manifests_dir) names. On a host without one, it is all snapshots in O(directory), and those without an
        etcd CA at O(remote).
      - V(any) means all clusters.
    type: str
  lock_timeout:
    description: Seconds to wait while a snapshot is being taken in O(directory).
    type: int
    default: 60
seealso:
  - module: k8s_dr.etcd.etcd_snapshot
  - module: k8s_dr.etcd.etcd_snapshot_list
  - module: k8s_dr.etcd.etcd_snapshot_hold
"""

EXAMPLES = r"""
- name: Keep the newest seven on the node
  k8s_dr.etcd.etcd_snapshot_prune:
    keep: 7

- name: Keep a day of hours, a month of days and a year of months off-site
  k8s_dr.etcd.etcd_snapshot_prune:
    remote: s3:backups/prod
    rclone_config: /etc/k8s-dr/rclone.conf
    keep:
      hourly: 24
      daily: 31
      monthly: 12
"""

RETURN = r"""
removed:
  description: Paths of the surplus snapshots that were removed, or would be, the newest first. Off-site as rclone names them.
  returned: always
  type: list
  elements: str
  sample: [/var/backups/etcd/etcd-cp1-20260102T030405Z.db]
freed:
  description: Bytes that were freed.
  returned: always
  type: int
  sample: 938016
kept:
  description: Snapshots that stay, the newest first.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Its path, off-site as rclone names it.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260109T030405Z.db
    by:
      description: >-
        The rules that keep it, any of V(last), V(hourly), V(daily), V(weekly), V(monthly), V(yearly); V(newest) if it stays only as the newest, and V(all)
        if all are kept.
      type: list
      elements: str
      sample: [daily, monthly]
etcd_ca:
  description: Cluster whose snapshots were judged, as O(etcd_ca); V(any) for all, V(null) for those without an etcd CA.
  returned: always
  type: str
  sample: 3f0c7d2b4c1f7e0c3a5b3f0c7d2b4c1f7e0c3a5b3f0c7d2b4c1f7e0c3a5b3f0c
locked:
  description: Surplus snapshots that S3 Object Lock protects, the newest first. The first run after that time removes them.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Its path as rclone names it.
      type: str
      sample: s3:backups/prod/etcd-cp1-20260102T030405Z.db
    until:
      description: Until when it is locked.
      type: str
      sample: "2026-02-01T03:04:06Z"
undeletable:
  description: Paths of the surplus snapshots that O(remote) refuses to delete, the newest first.
  returned: always
  type: list
  elements: str
  sample: []
untouched:
  description: Snapshots that are not judged, since they are unverified or of another cluster, with the reason.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: Its path, off-site as rclone names it.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260108T030405Z.db
    problem:
      description: Why it is not judged.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260108T030405Z.db has no manifest (etcd-cp1-20260108T030405Z.db.json)
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import storage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import retention, signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy


def describe_diff(place, before, removed):
    after = [path for path in before if path not in removed]
    text = {side: "".join(path + "\n" for path in sorted(paths)) for side, paths in (("before", before), ("after", after))}
    return dict(text, before_header=place.path, after_header=place.path)


def prune(module, place, keep, result):
    snapshots = place.snapshots()
    now = time.time()
    own = [one for one in snapshots if result["etcd_ca"] in (storage.ANY, retention.authority(one))]
    verdicts = retention.judge(own, keep, now, place.shared)
    surplus = [snapshot for snapshot, reasons in verdicts if not reasons]
    surplus += retention.left_over(place.lost(own), own, keep, now, place.shared)
    judged = {snapshot["path"] for snapshot in surplus} | {snapshot["path"] for snapshot, dummy in verdicts}
    result["kept"] = [{"path": snapshot["path"], "by": reasons} for snapshot, reasons in verdicts if reasons]
    result["untouched"] = [
        {"path": one["path"], "problem": one.get("problem") or "%s is of another cluster" % one["path"]} for one in snapshots if one["path"] not in judged
    ]
    before = [snapshot["path"] for snapshot in snapshots]
    refused = None
    try:
        locks = place.locked_until(surplus)
        for snapshot in surplus:
            # where deletes are forbidden the others would fare the same; a lock ends for each at a time of its own
            if refused and refused.kind == "undeletable":
                result["undeletable"].append(snapshot["path"])
                continue
            until = locks.get(snapshot["file"])
            if until and until > utc(now):
                result["locked"].append({"path": snapshot["path"], "until": until})
                continue
            try:
                if not module.check_mode:
                    place.remove(snapshot, until)
            except RcloneError as exc:
                if exc.kind not in ("undeletable", "immutable"):
                    raise
                refused = exc
                result["undeletable"].append(snapshot["path"])
                continue
            result["removed"].append(snapshot["path"])
            result["freed"] += snapshot.get("size") or 0
            result["changed"] = True
    finally:
        result["diff"] = describe_diff(place, before, result["removed"])
    if refused:
        module.warn("%d surplus snapshots stay: %s" % (len(result["undeletable"]), refused.message))


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/var/backups/etcd"},
            "keep": {"type": "raw", "required": True},
            "remote": {"type": "str"},
            "rclone_config": {"type": "path"},
            "rclone": {"type": "path"},
            "etcd_ca": {"type": "str"},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "lock_timeout": {"type": "int", "default": 60},
            **signature.SPEC,
        },
        supports_check_mode=True,
    )
    params = module.params
    result = {"changed": False, "removed": [], "freed": 0, "kept": [], "locked": [], "undeletable": [], "untouched": [], "etcd_ca": None}
    signals.raise_when_ended()
    os.umask(0o077)
    try:
        keep = retention.rules(params["keep"])
        result["etcd_ca"] = storage.whose(params)
        place = storage.of(params)
        with place.locked(module.check_mode):
            if not module.check_mode:
                place.tidy()
            prune(module, place, keep, result)
    except (ValueError, RcloneError, Refused, Busy, signals.Ended) as exc:
        module.fail_json(msg=with_count(str(exc), result["removed"]), **result)
    except OSError as exc:
        module.fail_json(msg=with_count(os_error_words(exc, place.path), result["removed"]), **result)
    module.exit_json(**result)


def with_count(problem, removed):
    return "%s. %s" % (problem.rstrip("."), "%d surplus snapshots were removed before, and no other" % len(removed) if removed else "No snapshot was removed")


if __name__ == "__main__":
    main()
