#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_info
short_description: Verifies that a file is a snapshot of etcd and returns its metadata
version_added: 0.1.0
description:
  - Parses C(snapshot status) of C(etcdutl) or C(etcdctl), and verifies the file, which C(snapshot status) does not.
    That command never looks at the SHA-256 which C(etcdctl snapshot save) appends, so it accepts a copy of a data file, a file
    that lost its end, and almost every file with damaged values.
  - A file is accepted when its length is right, the SHA-256 at its end is that of all before it, every page of the database
    in it can be reached and read, the bucket of etcd's keys is there, and etcd's own tool accepts it and reads the same values.
  - Without a tool that has C(snapshot status), everything but the last is verified, and RV(snapshot.undetermined) lists the rest.
  - The file is only read. It is opened once, and a file that changes meanwhile is not accepted.
  - A symbolic link is followed; its target is verified.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
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
  path:
    description: Path of the snapshot on the managed host.
    type: path
    required: true
  verify:
    description:
      - Whether to fail for a file that is not safe to restore.
      - With V(false) the module does not fail for a damaged, missing or unsigned file, and returns what it found. RV(snapshot.integrity),
        RV(snapshot.problems) and RV(manifest_problem) then say what is wrong.
    type: bool
    default: true
  etcdctl:
    description:
      - Path of C(etcdctl), which has C(snapshot status) up to 3.5. By default the module searches C(PATH) and the usual directories.
      - It is used only when C(etcdutl) gives no answer.
      - The module fails when it is given and is not a working C(etcdctl).
    type: path
  etcdutl:
    description:
      - Path of C(etcdutl), which etcd has from 3.5 on. By default the module searches for it.
      - The module fails when it is given and is not a working C(etcdutl).
    type: path
  timeout:
    description:
      - Seconds that the module may take.
      - Default is 600, plus one for every 5 MB of the file, up to 7200.
    type: int
  recorded:
    description:
      - Whether to take what C(snapshot status) says from the manifest beside the file, where the same bytes, by their SHA-256, passed it before.
        Everything else is verified all the same.
      - The tool reads all of a large file once more.
      - A manifest that O(signers) do not trust is not used for it.
    type: bool
    default: false
notes:
  - Up to 3.5 the tools count every entry of the database as a key, from 3.6 on the keys that exist, so RV(snapshot.total_keys)
    must not be compared between versions of the tool.
seealso:
  - module: k8s_dr.etcd.etcd_snapshot
  - module: k8s_dr.etcd.etcd_client_info
"""

EXAMPLES = r"""
- name: Verify a snapshot before a restore
  k8s_dr.etcd.etcd_snapshot_info:
    path: /var/backups/etcd/etcd-cp1-20260102t030405Z.db
  register: verification

- name: Inspect a file that may be damaged
  k8s_dr.etcd.etcd_snapshot_info:
    path: /root/found.db
    verify: false
  register: found

- name: Show what is wrong with it
  ansible.builtin.debug:
    var: found.snapshot.problems
"""

RETURN = r"""
snapshot:
  description: Result of the verification. It is returned on failure as well.
  returned: always, except when a tool given by path does not work
  type: dict
  contains:
    path:
      description: Absolute path of the file.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260102t030405Z.db
    hash:
      description: Hash of the contents as the tool computes it, always eight hexadecimal digits in lower case; V(null) when no tool could tell.
      type: str
      sample: 02059de8
    revision:
      description: Revision of the newest change in the snapshot. V(0) is that of a fresh cluster. V(null) when it could not be read.
      type: int
      sample: 582
    total_keys:
      description: Number of keys as RV(snapshot.tool) counts them; V(null) when no tool could tell.
      type: int
      sample: 589
    total_size:
      description: Size of the database in the snapshot, in bytes; V(null) when the file holds none.
      type: int
      sample: 937984
    storage_version:
      description: Version of etcd's storage format, which is noted from 3.6 on; V(null) in an older snapshot.
      type: str
      sample: 3.6.0
    sha256:
      description:
        - SHA-256 of the whole file, as C(sha256sum) prints it.
        - V(null) when the file could not be read, or was refused before it was read to the end and O(verify=true).
      type: str
      sample: 3fc9b689459d738f8c88a3a48aa9e33542016b7a4052e001aaa536fca74813cb
    size:
      description: Size of the file in bytes; V(null) when there is no such file.
      type: int
      sample: 938016
    tool:
      description: The tool whose C(snapshot status) was parsed; V(null) when there was none.
      type: dict
      contains:
        name:
          description: V(etcdutl) or V(etcdctl).
          type: str
          sample: etcdutl
        version:
          description: Its version.
          type: str
          sample: 3.5.16
        path:
          description: Its path; V(null) with O(recorded), when the tool was not asked again.
          type: str
          sample: /usr/local/bin/etcdutl
    integrity:
      description:
        - V(ok) when the file is sound, otherwise the first problem.
        - V(absent) there is no such file.
        - V(not_a_file) it is a directory, a FIFO, a device or a socket.
        - V(unreadable) it could not be opened or read.
        - V(unproven) it could not be verified within O(timeout).
        - V(empty) it has no bytes.
        - V(not_a_database) it has no valid header of a database; it may be compressed or encrypted.
        - V(truncated) it is shorter than the database in it.
        - V(missing) the SHA-256 at the end is missing, as in a copy of a data file.
        - V(too_long) something was appended.
        - V(mismatch) the SHA-256 at the end is not that of the contents.
        - V(corrupt) the SHA-256 is right, but the database contradicts itself.
        - V(no_key_bucket) it is a database, but not one of etcd 3.
        - V(status_failed) the tool refused it.
        - V(status_differs) the tool read other values from it.
        - V(changed) it was written to, replaced or removed while it was checked.
      type: str
      sample: ok
    problems:
      description: One sentence for every problem of the file; only the first with O(verify=true).
      type: list
      elements: str
      sample: []
    undetermined:
      description: One sentence for everything that could not be verified without a working tool. It does not mean damage.
      type: list
      elements: str
      sample: []
manifest:
  description: >-
    The manifest beside the file, as M(k8s_dr.etcd.etcd_snapshot) wrote it; V(null) if it is missing, of another file, or with O(signers) not signed by one.
  returned: success
  type: dict
manifest_problem:
  description: One sentence that says why the manifest beside the file is not trusted; V(null) if it is trusted or missing.
  returned: success
  type: str
  sample: /var/backups/etcd/a.db.json describes another file than /var/backups/etcd/a.db, so the one or the other was replaced
"""

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import signature as snapshot_signature, status as snapshot_status
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest, ManifestError, manifest_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def manifest_beside(snapshot, signers=None):
    """(manifest, problem) of a snapshot that was examined; (None, None) when it has no manifest and needs none."""
    path = manifest_path(snapshot["path"])
    if not os.path.lexists(path) and not signers:
        return None, None
    try:
        # its checksum tells whether it is of this file, and a signature is of its name as well
        manifest = Manifest.read(snapshot["path"], renamed=not signers)
    except ManifestError as exc:
        return None, str(exc)
    if snapshot["sha256"] and manifest.sha256 != snapshot["sha256"]:
        return None, "%s describes another file than %s, so the one or the other was replaced" % (path, snapshot["path"])
    problem = signers and signers.problem(manifest, snapshot["path"])
    return (None, problem) if problem else (manifest.values, None)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "verify": {"type": "bool", "default": True},
            "etcdctl": {"type": "path"},
            "etcdutl": {"type": "path"},
            "timeout": {"type": "int"},
            "recorded": {"type": "bool", "default": False},
            **snapshot_signature.SPEC,
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["timeout"] is not None and params["timeout"] < 1:
        module.fail_json(msg="`timeout` must be at least 1 second")
    # what others compressed has no manifest of ours
    if params["path"].endswith((".zst", ".age")) and os.path.lexists(manifest_path(params["path"])):
        module.fail_json(msg="%s is encrypted or compressed: first decrypt it with the module k8s_dr.etcd.etcd_snapshot_decrypt" % params["path"])
    try:
        signers = snapshot_signature.signers_of(params["signers"])
        etcdctl, etcdutl = find_tools(params["etcdctl"], params["etcdutl"])
    except Refused as exc:
        module.fail_json(msg=str(exc))
    except ToolError as exc:
        module.fail_json(msg=exc.message, **exc.details())
    recorded = None
    if params["recorded"]:
        with contextlib.suppress(ManifestError, Refused):
            manifest = Manifest.read(params["path"], renamed=not signers)
            recorded = None if signers and signers.problem(manifest, params["path"]) else manifest
    snapshot = snapshot_status.examine(params["path"], etcdctl, etcdutl, params["timeout"], everything=not params["verify"], manifest=recorded)
    if params["verify"] and snapshot["problems"]:
        module.fail_json(msg=snapshot["problems"][0], snapshot=snapshot)
    try:
        manifest, problem = manifest_beside(snapshot, signers)
    except Refused as exc:
        module.fail_json(msg=str(exc), snapshot=snapshot)
    if params["verify"] and problem and signers:
        module.fail_json(msg=problem, snapshot=snapshot)
    module.exit_json(changed=False, snapshot=snapshot, manifest=manifest, manifest_problem=problem)


if __name__ == "__main__":
    main()
