#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_decrypt
short_description: Decrypts and decompresses a stored snapshot
version_added: 0.1.0
description:
  - Decrypts and decompresses a snapshot that M(k8s_dr.etcd.etcd_snapshot) has encrypted into O(dest), with a manifest beside it. It gets its final name
    only after its checksum matches the original snapshot's.
  - The stored file is only read. A plain snapshot is copied.
  - Run it where the private key may be, on the controller or a host for drills, and never on the cluster.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads the stored file, its manifest and the private key's file, and returns where the snapshot would be.
  diff_mode:
    support: none
    details:
      - What it writes is binary.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  path:
    description: Path of the stored snapshot, with its manifest beside it.
    type: path
    required: true
  dest:
    description: An existing directory for the snapshot. Use one of mode 0700, and remove it when it is no longer needed.
    type: path
    required: true
  identity_file:
    description: A file with the private key, as C(age-keygen) writes it, or a private key of SSH. A snapshot that is only compressed needs no key.
    type: path
  files:
    description:
      - Whether to extract the other files of a bundle, private keys among them, into a directory of mode 0700 beside the snapshot, with its name and
        C(.files).
    type: bool
    default: false
  timeout:
    description: Seconds that decryption may take.
    type: int
    default: 3600
seealso:
  - module: k8s_dr.etcd.etcd_snapshot
"""

EXAMPLES = r"""
- name: Decrypt a snapshot on the controller
  k8s_dr.etcd.etcd_snapshot_decrypt:
    path: /srv/backups/etcd-cp1-20260102T030405Z.db.zst.age
    dest: "{{ place.path }}"
    identity_file: ~/.config/etcd-backups.txt
  delegate_to: localhost
"""

RETURN = r"""
files:
  description: Directory of the other files of a bundle, or where it would be; V(null) without such files or with O(files=false).
  returned: success
  type: str
  sample: /root/place/etcd-cp1-20260102T030405Z.db.files
path:
  description: Path of the decrypted snapshot.
  returned: success
  type: str
  sample: /root/place/etcd-cp1-20260102T030405Z.db
snapshot:
  description: The manifest beside it, which describes the plain snapshot.
  returned: success
  type: dict
seconds:
  description: Duration in seconds.
  returned: success
  type: float
  sample: 1.2
"""

import os
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import encryption, signature as snapshot_signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory, directory_of, plain_name
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest, ManifestError, manifest_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import sha256_of_file
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage


def is_there(target, wanted):
    """Whether an earlier run has decrypted it."""
    try:
        there = Manifest.read(target)
    except ManifestError:
        return False
    return there.sha256 == wanted.sha256 and os.path.isfile(target) and sha256_of_file(target) == wanted.sha256


def check_space(directory, size):
    short = shortage(directory, int(size * 1.01) + 1024 * 1024, "the snapshot")
    if short:
        raise Refused(short)


def run(module):
    params = module.params
    start = time.monotonic()
    path, directory = os.path.abspath(params["path"]), os.path.realpath(params["dest"])
    if not os.path.isdir(directory):
        raise Refused("%s is not a directory" % params["dest"])
    there, name = directory_of(path, snapshot_signature.signers_of(params["signers"]))
    stored = there.describe(name, sha256_of_file)
    if not stored["verified"]:
        # one that others packed has no manifest of ours
        packed = None if os.path.lexists(manifest_path(path)) else boltdb.packed_file(path)
        raise Refused(stored["problem"] + (". %s" % packed if packed else ""))
    manifest = Manifest.read(path)
    target = os.path.join(directory, plain_name(name))
    if target == path:
        raise Refused("%s is neither compressed nor encrypted, and it is in that directory already" % path)
    wanted = manifest.of_decrypted(os.path.basename(target))
    files = target + ".files" if params["files"] and manifest.packing.get("bundle") else None
    if is_there(target, wanted) and (files is None or os.path.isdir(files)):
        return False, target, wanted, files, start
    identity = params["identity_file"]
    if manifest.is_encrypted and identity and not os.access(identity, os.R_OK):
        raise Refused("the file with the private key, %s, cannot be read" % identity)
    check_space(directory, wanted.size + manifest.tar_size)
    if module.check_mode:
        return True, target, wanted, files, start
    here = SnapshotDirectory(directory)
    partial = here.partial(wanted.file)
    with here.lock(60):
        here.tidy()
        os.mkdir(partial, 0o700)
        try:
            decrypted = os.path.join(partial, "snapshot.db")
            inner = os.path.join(partial, "files") if files else None
            encryption.decrypt(path, decrypted, manifest, identity, params["timeout"], inner)
            if files:
                shutil.rmtree(files, ignore_errors=True)
                os.rename(inner, files)
            for one in (target, manifest_path(target)):
                if os.path.lexists(one):
                    os.unlink(one)
            here.publish(decrypted, wanted)
        finally:
            here.discard(wanted.file)
    return True, target, wanted, files, start


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "identity_file": {"type": "path"},
            "files": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 3600},
            **snapshot_signature.SPEC,
        },
        supports_check_mode=True,
    )
    signals.raise_when_ended()
    os.umask(0o077)
    try:
        changed, path, manifest, files, start = run(module)
    except (Refused, encryption.EncryptionError, ManifestError, Busy, signals.Ended) as exc:
        module.fail_json(msg="%s was not decrypted: %s" % (os.path.basename(module.params["path"]), exc))
    except OSError as exc:
        module.fail_json(msg="%s was not decrypted: %s" % (os.path.basename(module.params["path"]), os_error_words(exc)))
    module.exit_json(changed=changed, path=path, snapshot=manifest.values, files=files, seconds=round(time.monotonic() - start, 2))


if __name__ == "__main__":
    main()
