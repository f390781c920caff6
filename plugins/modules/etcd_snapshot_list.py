#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_list
short_description: Lists the snapshots in a directory or in off-site storage
version_added: 0.1.0
description:
  - Lists every snapshot in O(directory), or off-site in O(remote), with what its manifest says, newest first.
  - A file without a manifest, or one that is no longer what its manifest describes, is listed as not verified, with the reason; with O(signers) also one
    that none of them signed.
  - A directory that does not exist holds no snapshots.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.off_site
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
attributes:
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - This module changes nothing.
options:
  directory:
    description: Directory of the snapshots.
    type: path
    default: /var/backups/etcd
  checksum:
    description:
      - Whether to read every file and compare its SHA-256 with the manifest's. It takes at least about a second for every gigabyte.
      - With V(false) only the sizes are compared, as always off-site.
    type: bool
    default: false
  inventory:
    description:
      - Whether the object inventory of each snapshot is returned, which in a large cluster names thousands of objects.
      - With V(false) a list of many snapshots takes a small part of the memory and time.
    type: bool
    default: true
  remote:
    description: Off-site storage to list instead of O(directory), in the format of M(k8s_dr.etcd.etcd_snapshot_upload).
    type: str
  versions:
    description:
      - Whether to list all that S3 has at O(remote), what was deleted and the versions of what was replaced included. Of each name it lists the newest
        version that is whole, without what was recorded later.
      - With V(false) the module warns if a snapshot was replaced there, or one deleted that is newer than all others, and S3 has older versions of it.
    type: bool
    default: false
seealso:
  - module: k8s_dr.etcd.etcd_snapshot
  - module: k8s_dr.etcd.etcd_snapshot_info
  - module: k8s_dr.etcd.etcd_snapshot_drill
"""

EXAMPLES = r"""
- name: List the snapshots on this host
  k8s_dr.etcd.etcd_snapshot_list:
  register: kept

- name: Show the newest verified snapshot
  ansible.builtin.debug:
    var: kept.latest
"""

RETURN = r"""
snapshots:
  description: Every snapshot there, newest first, including those of which only the manifest is left. Those without a manifest come last.
  returned: success
  type: list
  elements: dict
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
      description: Its size in bytes.
      type: int
      sample: 938016
    verified:
      description: Whether it was verified when it was taken, is still the same file as far as this module checked, and with O(signers) was signed by one.
      type: bool
      sample: true
    problem:
      description: Why RV(snapshots[].verified) is V(false), otherwise V(null).
      type: str
    created:
      description: When it was taken. This and all other values of the manifest are there only when it has one.
      type: str
      sample: "2026-01-02T03:04:05Z"
    revision:
      description: Its revision.
      type: int
      sample: 582
    sha256:
      description: SHA-256 of the file.
      type: str
      sample: 3f1c4a8f6f8f6f0f9f3c1a1d0b2f4a3d5e6c7b8a9d0e1f2a3b4c5d6e7f8091a2
    hold:
      description: V(reason), V(by) and V(at) of a snapshot that M(k8s_dr.etcd.etcd_snapshot_hold) holds; otherwise it is not there.
      type: dict
latest:
  description: Path of the newest verified one, or V(null).
  returned: success
  type: str
  sample: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import snapshots as remote_snapshots, store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import signature as snapshot_signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory, latest_verified
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory_access import foreign_owner, name_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import sha256_of_file
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/var/backups/etcd"},
            "checksum": {"type": "bool", "default": False},
            "inventory": {"type": "bool", "default": True},
            "remote": {"type": "str"},
            "versions": {"type": "bool", "default": False},
            "rclone_config": {"type": "path"},
            "rclone": {"type": "path"},
            **snapshot_signature.SPEC,
        },
        supports_check_mode=True,
    )
    params = module.params
    directory = os.path.realpath(params["directory"])
    try:
        signers = snapshot_signature.signers_of(params["signers"])
        if params["remote"]:
            remote = remote_store.Remote(params["remote"], params["rclone_config"], params["rclone"])
            brief = not params["inventory"]
            if params["versions"]:
                snapshots = remote_snapshots.list_versions(remote, brief, signers)
            else:
                snapshots = remote_snapshots.list_snapshots(remote, missing_ok=False, brief=brief, signers=signers)
                hidden = remote_snapshots.hidden(remote, snapshots)
                if hidden:
                    module.warn(
                        "snapshots in %s were deleted or replaced, and S3 has older versions of them, which etcd_snapshot_list and etcd_snapshot_fetch find "
                        "with versions=true: %s" % (remote.where, ", ".join(reversed(hidden[-5:])))
                    )
        else:
            if os.path.isdir(directory):
                # what is restored is chosen from it
                owner = foreign_owner(directory, False)
                if owner is not None:
                    module.warn("%s belongs to %s, who can replace every snapshot in it" % (directory, name_of(owner)))
            digest = sha256_of_file if params["checksum"] else None
            snapshots = SnapshotDirectory(directory, signers).snapshots(digest, brief=not params["inventory"])
    except (RcloneError, Refused) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg="%s cannot be read: %s" % (exc.filename or directory, exc.strerror))
    module.exit_json(changed=False, snapshots=snapshots, latest=latest_verified(snapshots))


if __name__ == "__main__":
    main()
