#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_drill
short_description: Verifies a stored snapshot, up to a trial restore that an etcd and an API server serve
version_added: 0.1.0
description:
  - Verifies a stored snapshot level by level up to O(level), each more thorough than the previous one, and records time and result of each in the manifest.
  - V(checksum) shows that the file is the one that was taken. V(status) shows that its database is complete, and that etcd's own tool reads the hash and
    the revision of the manifest from it. V(restore) shows that etcd's own tool restores it.
  - >-
    V(drill) reads every object in the file once, while it starts an etcd on the restored data. It compares the revisions of each key with each other, and
    the objects by resource and namespace with the manifest. It checks what Kubernetes stores around each object, and around each encrypted one the name
    of the key. It finds damage from before the checksum was made.
  - >-
    V(drill) also checks that etcd serves all that was read. etcd's hash over all records that it serves must be that of the file, as etcd's own tool
    computes it. etcd must count as many keys as the file has, in each part of at most 2000 keys. The first key of each part and of each resource is read
    through etcd. Where the file or the hash cannot be compared, all is read through etcd instead, which takes several times as long, and a note says why.
  - >-
    V(objects) has the kube-apiserver of this host show the snapshot, as M(k8s_dr.etcd.kube_snapshot_server) does. It lists every resource, so that every
    object is decrypted and decoded, and compares the number of objects of each resource with the keys in etcd. It names the objects that cannot be shown.
    They are not recorded as damage, since that depends on the keys and on the version of the API server as well. A host that has no kube-apiserver, or no
    systemd, cannot reach this level. Then a note says so, and the module does not fail.
  - This etcd listens on Unix sockets in a directory of mode 0700, in an empty network namespace, and ends with this module. The module touches no port, no
    data directory and no process of a cluster on this host, and removes everything that it wrote.
  - The module fails when the snapshot is damaged, and names the level that failed. It also fails when this host cannot run a level. Only damage is recorded
    in the manifest as a failure. Until a damaged snapshot passes, a restore does not choose it and retention does not count it.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.programs
  - k8s_dr.etcd.static_pods
attributes:
  check_mode:
    support: full
    details:
      - Verifies the snapshot too, since that changes nothing, and does not write the manifest.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details:
      - Every run records its time in the manifest, unless O(record=false).
options:
  path:
    description: Path of the stored snapshot, with its manifest beside it. With O(remote), the name of the snapshot there.
    type: path
    required: true
  level:
    description: Verification level to reach.
    type: str
    choices: [checksum, status, restore, drill, objects]
    default: drill
  decrypted_path:
    description:
      - Where O(path) is compressed or encrypted, the path of the decrypted or decompressed snapshot. It is only read.
      - Ignored when O(path) is the snapshot itself.
    type: path
  identity_file:
    description:
      - A file on this host with the private key that decrypts an encrypted snapshot, as C(age-keygen) writes it. The snapshot is decrypted into
        O(work_dir), and the decrypted copy is removed at the end. A snapshot that is only compressed needs no key.
      - Keep the private key off the cluster, for example on a host for drills.
    type: path
  remote:
    description:
      - Off-site storage of the snapshot, in the format of M(k8s_dr.etcd.etcd_snapshot_upload). With O(level=checksum) the snapshot is read there. For
        higher levels it is downloaded into O(work_dir), and the copy is removed at the end.
      - The result is recorded there as well, in a small file beside the snapshot, since the storage may forbid to replace the manifest.
    type: str
  rclone_config:
    description: Path of the configuration of C(rclone), which holds the credentials.
    type: path
  rclone:
    description: Path of C(rclone). By default the module searches C(PATH) and the usual directories.
    type: path
  manifest:
    description:
      - >-
        Whether the snapshot must have a matching manifest. Without a manifest, the module can restore and serve the snapshot, but compares it with nothing
        and records nothing.
      - O(signers) make it V(true).
      - With V(false) the snapshot may have been renamed. Then its checksum tells whether the manifest beside it matches, and nothing is recorded.
    type: bool
    default: true
  record:
    description: Whether to record the result in the manifest.
    type: bool
    default: true
  work_dir:
    description:
      - Directory for the trial restore, which is made in a subdirectory of mode 0700 that is always removed.
      - It needs the size of the snapshot and 160 MB, and for O(level=objects) 1.1 times the size and 700 MB. An off-site snapshot also needs its stored
        size.
      - >-
        A drill of more than about 40,000 keys sorts them there, which needs their length and 32 bytes for each. Without that room the objects are
        read through etcd.
    type: path
    default: /var/lib
  kube_apiserver:
    description:
      - Path of C(kube-apiserver), for O(level=objects). Its version must be that of the snapshot's cluster, or later.
      - When not given it is that of the API server that runs on this host, else the one in its image, where the container runtime has it unpacked.
    type: path
  encryption_config:
    description:
      - Path of the EncryptionConfiguration that the objects in the snapshot were written with, for O(level=objects).
      - When not given it is that of the API server's manifest in O(manifests_dir).
    type: path
  bin_dir:
    description: Directory that is searched first for C(etcd), C(etcdctl) and C(etcdutl), for example an unpacked release of etcd.
    type: path
  timeout:
    description:
      - Seconds that the module may take.
      - Default is 1200, plus one for every 2.5 MB of the file, up to 14400.
    type: int
notes:
  - The level V(drill) needs root, for its isolated network. The level V(objects) also needs systemd, C(openssl), and memory of the size of the
    snapshot and 550 MB. Nothing else may be served by M(k8s_dr.etcd.kube_snapshot_server) on this host meanwhile.
seealso:
  - module: k8s_dr.etcd.etcd_snapshot
  - module: k8s_dr.etcd.etcd_snapshot_info
  - module: k8s_dr.etcd.etcd_snapshot_list
"""

EXAMPLES = r"""
- name: Restore the snapshot away from the cluster, read it and serve it
  k8s_dr.etcd.etcd_snapshot_drill:
    path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
  register: drilled

- name: Say how long a restore would take at least
  ansible.builtin.debug:
    msg: "{{ drilled.snapshot.levels.restore.seconds }} s"

- name: Check whether the file is still the one that was taken
  k8s_dr.etcd.etcd_snapshot_drill:
    path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db.zst.age
    level: checksum
"""

RETURN = r"""
snapshot:
  description: Result of the verification. It is returned on failure as well.
  returned: always, except when the module was killed or could not start its work
  type: dict
  contains:
    path:
      description: Absolute path of the file, off-site as rclone names it.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
    level:
      description: Highest level that this run reached; V(structure) instead of V(status) without a tool of etcd; V(null) for none.
      type: str
      sample: drill
    failed:
      description: The level that failed because of damage, or V(null). A snapshot that none of O(signers) signed is not damaged.
      type: str
    problem:
      description: One sentence that says why O(level) was not reached, or V(null).
      type: str
    levels:
      description: Time and result of every level of this run, in the format of the manifest.
      type: dict
      contains:
        checksum:
          description: >-
            C(at), the time; C(ok); C(seconds); and C(problem), a sentence or V(null). All levels have these. C(seconds) is the time from the beginning to
            the end of the work for this level. The levels overlap, so their sum may exceed RV(snapshot.seconds).
          type: dict
          sample: {at: "2026-01-02T03:04:05Z", ok: true, seconds: 0.01, problem: null}
        status:
          description: >-
            Also C(tool), name and version of the tool that read the status, or V(null). With O(level=drill) the objects are read in the same pass over the
            file, so that C(seconds) includes most of that.
          type: dict
          sample: {at: "2026-01-02T03:04:05Z", ok: true, seconds: 0.1, problem: null, tool: etcdutl 3.5.16}
        restore:
          description: >-
            Also C(tool), name and version of the tool that restored it. It begins beside V(checksum), and C(seconds) is how long the tool ran.
          type: dict
          sample: {at: "2026-01-02T03:04:06Z", ok: true, seconds: 0.4, problem: null, tool: etcdutl 3.5.16}
        drill:
          description: >-
            Also C(start), the seconds until etcd served it, C(etcd_version), C(revision), C(keys), C(objects), C(resources), C(secrets), C(encrypted) as
            counts of objects by provider, C(hash_kv) and C(compact_revision). C(seconds) and C(start) begin with etcd, which starts beside V(status) as soon as
            the data is restored.
          type: dict
        objects:
          description: >-
            Also C(kubernetes_version) of the kube-apiserver, C(objects) and C(resources), the numbers that it showed, C(unserved), the number of objects by
            resource of which it has no API, and C(completed) as M(k8s_dr.etcd.kube_snapshot_server) returns it.
          type: dict
    notes:
      description: One sentence for every finding that is not damage. One of them says when and why the objects were read through etcd, and not from the file.
      type: list
      elements: str
      sample: []
    recorded:
      description: Whether the result was recorded in the manifest, or would be without check mode.
      type: bool
      sample: true
    gone:
      description: Whether the snapshot and its manifest were removed meanwhile, for example by retention. Then the module does not fail.
      type: bool
      sample: false
    seconds:
      description: Duration in seconds.
      type: float
      sample: 2.3
"""

import json
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import objects_level
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import snapshots as remote_snapshots, store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import (
    levels as verification_levels,
    signature as snapshot_signature,
    verify as snapshot_verify,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import directory_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest, ManifestError, manifest_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError

# A snapshot that is being taken in the same directory holds its lock.
LOCK_SECONDS = 900


class NotAccepted(Exception):
    """One sentence about a snapshot that no signer signed, which is no damage."""


def read_manifest(path, required, remote, signers):
    """(manifest, None), or (None, one sentence that says why there is none to rely on, or None where none is needed); NotAccepted by `signers`."""
    # what was signed is in the manifest, the name as well
    required = required or signers is not None
    try:
        if remote:
            manifest = remote_snapshots.read_manifest(remote, path)
            # without one there is nothing to compare what is got with
            if manifest is None:
                return None, "%s has no manifest" % remote.path(path)
        else:
            # a copy that has another name now is as good; its checksum tells
            manifest = Manifest.read(path, renamed=not required)
        problem = signers and signers.problem(manifest, remote.path(path) if remote else path)
        if problem:
            raise NotAccepted(problem)
        return manifest, None
    except ManifestError as exc:
        there = remote or os.path.lexists(manifest_path(path))
        return None, str(exc) if required or there else None


def is_gone(path, remote):
    """Whether neither the snapshot nor its manifest is there any more."""
    manifest = manifest_path(path)
    if not remote:
        return not os.path.lexists(path) and not os.path.lexists(manifest)
    try:
        return remote.size(path) is None and remote.size(manifest) is None
    except RcloneError:
        return False


def record(module, path, manifest, levels, remote):
    """(whether the manifest says it now, or would but for check mode; a diff)"""
    if not levels or not module.params["record"] or manifest is None or manifest.was_renamed(path):
        return False, {}
    try:
        if remote:
            remote_snapshots.note(remote, path, manifest.sha256, levels, module.check_mode)
        elif not module.check_mode:
            directory, name = directory_of(path)
            directory.note(name, manifest.sha256, LOCK_SECONDS, levels=levels)
    except (RcloneError, ManifestError, Busy, OSError) as exc:
        # what was found stands all the same
        module.warn("the result for %s is not recorded in its manifest: %s" % (remote.path(path) if remote else path, getattr(exc, "strerror", None) or exc))
        return False, {}
    header = manifest_path(remote.path(path) if remote else path)
    diff = {"before_header": header, "after_header": header}
    for side, found in (("before", manifest), ("after", manifest.with_levels(levels))):
        diff[side] = json.dumps({"level": verification_levels.highest(found.levels), "levels": found.levels}, indent=1, sort_keys=True) + "\n"
    return True, diff


def run(module):
    started = time.monotonic()
    params = module.params
    signers = snapshot_signature.signers_of(params["signers"])
    remote = remote_store.Remote(params["remote"], params["rclone_config"], params["rclone"]) if params["remote"] else None
    stored = params["path"] if remote else os.path.abspath(params["path"])
    path = remote.path(stored) if remote else stored
    found = {"path": path, "level": None, "failed": None, "problem": None, "levels": {}, "notes": [], "recorded": False, "gone": False}
    try:
        manifest, found["problem"] = read_manifest(stored, params["manifest"], remote, signers)
        found["failed"] = verification_levels.LEVELS[0] if found["problem"] else None
    except NotAccepted as exc:
        manifest, found["problem"] = None, str(exc)
    levels = {}
    if found["problem"] is None:
        verification = snapshot_verify.Verification(
            stored, manifest, params, params["decrypted_path"], params["identity_file"], remote, show=objects_level.show(params)
        )
        levels = verification.levels
        try:
            verification.to(params["level"])
        except snapshot_verify.Damaged as exc:
            found["problem"] = str(exc)
            found["failed"] = verification_levels.failed(levels)
        except snapshot_verify.Unproven as exc:
            found["problem"] = "%s was not verified up to the level %s: %s" % (path, params["level"], exc)
        found["notes"] = verification.notes
        if manifest is not None and manifest.was_renamed(stored):
            found["notes"].append("it was %s when it was taken, and nothing is noted of it under another name" % manifest.file)
    found.update(levels=levels, level=verification_levels.highest(levels))
    diff = {}
    if found["problem"] and manifest is not None and is_gone(stored, remote):
        found.update(gone=True, failed=None, problem=None)
    else:
        found["recorded"], diff = record(module, stored, manifest, levels, remote)
    found["seconds"] = round(time.monotonic() - started, 2)
    return found, diff


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "level": {"type": "str", "choices": list(verification_levels.LEVELS), "default": "drill"},
            "decrypted_path": {"type": "path"},
            "identity_file": {"type": "path"},
            "remote": {"type": "str"},
            "rclone_config": {"type": "path"},
            "rclone": {"type": "path"},
            "manifest": {"type": "bool", "default": True},
            "record": {"type": "bool", "default": True},
            "work_dir": {"type": "path", "default": "/var/lib"},
            "etcd": {"type": "path"},
            "kube_apiserver": {"type": "path"},
            "encryption_config": {"type": "path"},
            "bin_dir": {"type": "path"},
            "etcdctl": {"type": "path"},
            "etcdutl": {"type": "path"},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "timeout": {"type": "int"},
            **snapshot_signature.SPEC,
        },
        supports_check_mode=True,
    )
    if module.params["timeout"] is not None and module.params["timeout"] < 1:
        module.fail_json(msg="`timeout` must be at least 1 second")
    for name in ("etcd", "etcdctl", "etcdutl"):
        there = os.path.join(module.params["bin_dir"] or "", name)
        if module.params["bin_dir"] and module.params[name] is None and os.access(there, os.X_OK):
            module.params[name] = there
    signals.raise_when_ended()
    os.umask(0o077)
    # Whatever else this host does comes first.
    os.nice(10)
    try:
        found, diff = run(module)
    except (RcloneError, Refused, signals.Ended) as exc:
        module.fail_json(msg="%s was not verified: %s" % (module.params["path"], exc))
    except ToolError as exc:
        module.fail_json(msg=exc.message, **exc.details())
    except OSError as exc:
        module.fail_json(msg="%s was not verified: %s" % (module.params["path"], os_error_words(exc)))
    result = {"changed": found["recorded"], "snapshot": found, "diff": diff}
    if found["problem"]:
        module.fail_json(msg=found["problem"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
