#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_delete
short_description: Deletes one snapshot
version_added: 0.1.0
description:
  - Deletes one snapshot, which is named, with its manifest from O(directory), or off-site from O(remote). It may be damaged.
  - Refuses a snapshot that M(k8s_dr.etcd.etcd_snapshot_hold) holds, and a file that is not known to be a snapshot of this collection, because it has no
    manifest or a damaged one. A snapshot of another cluster counts as not there.
  - Refuses a snapshot that S3 Object Lock protects at O(remote), and says until when. After that it is deleted with all its versions.
  - Refuses the only verified snapshot of a host there, off-site of a cluster, unless O(force=true). With O(signers), a snapshot that none of them signed
    does not count as verified.
  - An interrupted deletion leaves no snapshot without its manifest; the same call completes it.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.off_site
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - Refuses what would be refused, and says what would be deleted. Writes nothing, not even a lock.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - The second invocation fails, since there is no such snapshot, unless O(required=false).
options:
  name:
    description: Name of the snapshot, which is that of its file without the directory.
    type: str
    required: true
  force:
    description: Whether to delete it even if it is the only verified one. A snapshot that is held is never deleted.
    type: bool
    default: false
  required:
    description: Whether to fail when there is no such snapshot.
    type: bool
    default: true
  directory:
    description: Directory of the snapshot.
    type: path
    default: /var/backups/etcd
  remote:
    description: Off-site storage of the snapshot, instead of O(directory), in the format of M(k8s_dr.etcd.etcd_snapshot_upload).
    type: str
  etcd_ca:
    description:
      - Cluster of which the snapshot must be, as the SHA-256 of its etcd CA in hexadecimal, C(fingerprints.etcd_ca) in manifests.
      - Default is V(any), and at O(remote) the etcd CA of the host, which O(manifests_dir) names. On a host without one, the snapshot must be without one.
      - V(any) means all clusters.
    type: str
  manifests_dir:
    description: Directory that kubelet reads static Pods from.
    type: path
    default: /etc/kubernetes/manifests
  lock_timeout:
    description: Seconds to wait while a snapshot is being taken in O(directory).
    type: int
    default: 60
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_prune
  - module: k8s_dr.etcd.etcd_snapshot_hold
  - module: k8s_dr.etcd.etcd_snapshot_list
"""

EXAMPLES = r"""
- name: Delete a snapshot that is damaged
  k8s_dr.etcd.etcd_snapshot_delete:
    name: etcd-cp1-20260102T030405Z.db

- name: Delete a snapshot off-site
  k8s_dr.etcd.etcd_snapshot_delete:
    name: etcd-cp1-20260102T030405Z.db
    remote: s3:backups/prod
    rclone_config: /etc/k8s-dr/rclone.conf
"""

RETURN = r"""
etcd_ca:
  description: The etcd CA of this host, or O(etcd_ca); V(any) or V(null) if it has none.
  returned: success
  type: str
  sample: 3f0c7d2b4c1f7e0c3a5b3f0c7d2b4c1f7e0c3a5b3f0c7d2b4c1f7e0c3a5b3f0c
snapshot:
  description: The snapshot that was deleted, or would be; V(null) when it is not there and O(required=false).
  returned: success
  type: dict
  contains:
    path:
      description: Its path, off-site as rclone names it.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
    file:
      description: Name of the file.
      type: str
      sample: etcd-cp1-20260102T030405Z.db
    size:
      description: Its size in bytes; V(null) off-site if only its manifest was left.
      type: int
      sample: 938016
    created:
      description: When it was taken.
      type: str
      sample: "2026-01-02T03:04:05Z"
    verified:
      description: Whether it was verified.
      type: bool
      sample: true
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import storage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import retention, signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy

# Kinds of RcloneError where the storage refused the deletion of the file, which comes first.
FORBIDDEN = ("undeletable", "immutable")


def refuse(place, snapshots, snapshot, params):
    """Refused when the snapshot is to stay."""
    if retention.is_held(snapshot):
        raise Refused("%s is %s. Release it first" % (snapshot["path"], retention.hold_words(snapshot)))
    if not params["force"] and retention.is_last(snapshot, snapshots, place.shared):
        of = "of its cluster at" if place.shared else "of the host %s in" % snapshot["host"]
        raise Refused("%s is the only verified snapshot %s %s; take another one first, or force the deletion" % (snapshot["path"], of, place.path))


def run(module, begun):
    """begun: gets the path of what is being deleted."""
    params = module.params
    place = storage.of(params)
    own = storage.whose(params)
    with place.locked(module.check_mode):
        if not module.check_mode:
            place.tidy()
        snapshots = place.snapshots()
        snapshot = storage.named(place, snapshots, params["name"], params["required"])
        if snapshot is None:
            return {"changed": False, "snapshot": None, "etcd_ca": own}
        if (place.shared or params["etcd_ca"]) and own not in (storage.ANY, retention.authority(snapshot)):
            foreign = "%s is of another cluster than this host" % snapshot["path"]
            if params["required"]:
                raise Refused(foreign)
            module.warn("%s, and is left alone" % foreign)
            return {"changed": False, "snapshot": None, "etcd_ca": own}
        refuse(place, snapshots, snapshot, params)
        until = place.locked_until([snapshot]).get(snapshot["file"])
        if until and until > utc():
            raise Refused("%s is protected by S3 Object Lock until %s, and cannot be deleted before" % (snapshot["path"], until))
        if not module.check_mode:
            begun.append(snapshot["path"])
            try:
                place.remove(snapshot, until)
            except RcloneError as exc:
                if exc.kind in FORBIDDEN:
                    begun.clear()
                raise
    diff = {"before": snapshot["path"] + "\n", "after": "", "before_header": place.path, "after_header": place.path}
    found = {name: snapshot[name] for name in ("path", "file", "size", "created", "verified")}
    return {"changed": True, "snapshot": found, "etcd_ca": own, "diff": diff}


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "force": {"type": "bool", "default": False},
            "required": {"type": "bool", "default": True},
            "directory": {"type": "path", "default": "/var/backups/etcd"},
            "remote": {"type": "str"},
            "etcd_ca": {"type": "str"},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "rclone_config": {"type": "path"},
            "rclone": {"type": "path"},
            "lock_timeout": {"type": "int", "default": 60},
            **signature.SPEC,
        },
        supports_check_mode=True,
    )
    signals.raise_when_ended()
    os.umask(0o077)
    begun = []
    try:
        result = run(module, begun)
    except (Refused, RcloneError, Busy, signals.Ended) as exc:
        module.fail_json(msg=with_outcome(module.params, str(exc), begun))
    except OSError as exc:
        module.fail_json(msg=with_outcome(module.params, os_error_words(exc, module.params["directory"]), begun))
    module.exit_json(**result)


def with_outcome(params, problem, begun):
    outcome = "The deletion of %s is not complete; the same call completes it" % begun[0] if begun else "%s was not deleted" % params["name"]
    return "%s. %s" % (problem.rstrip("."), outcome)


if __name__ == "__main__":
    main()
