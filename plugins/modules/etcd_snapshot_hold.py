#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_hold
short_description: Holds a snapshot until it is released, whatever the retention rules are
version_added: 0.1.0
description:
  - Notes in the manifest of a snapshot in O(directory), or in a small file beside it at O(remote), that it is held, why, by whom and since when.
  - Nothing in this collection removes a snapshot that is held. Retention rules do not count it.
  - A copy that is uploaded later is held as well. A copy that is off-site already is held and released there, with O(remote).
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
      - Reads the manifest and says what would change. Writes nothing, not even a lock.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  name:
    description: Name of the snapshot, which is that of its file without the directory.
    type: str
    required: true
  state:
    description: V(present) holds it, V(absent) releases it.
    type: str
    choices: [present, absent]
    default: present
  reason:
    description:
      - Why it is held, in one line of at most 200 characters.
      - If it is held already, another reason replaces that one, and no reason leaves it as it is.
    type: str
  by:
    description: Who holds it. Default is the user who runs the module, before C(sudo).
    type: str
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
  lock_timeout:
    description: Seconds to wait while a snapshot is being taken in O(directory).
    type: int
    default: 60
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_prune
  - module: k8s_dr.etcd.etcd_snapshot_delete
  - module: k8s_dr.etcd.etcd_snapshot_list
"""

EXAMPLES = r"""
- name: Hold the last snapshot before an upgrade
  k8s_dr.etcd.etcd_snapshot_hold:
    name: etcd-cp1-20260102T030405Z.db
    reason: the last one before the upgrade to 1.37

- name: Release it off-site
  k8s_dr.etcd.etcd_snapshot_hold:
    name: etcd-cp1-20260102T030405Z.db
    state: absent
    remote: s3:backups/prod
    rclone_config: /etc/k8s-dr/rclone.conf
"""

RETURN = r"""
snapshot:
  description: The snapshot; V(null) when it is not there and O(required=false).
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
    verified:
      description: Whether it is verified.
      type: bool
      sample: true
    hold:
      description: What its manifest says now; V(null) if it is not held.
      type: dict
      contains:
        reason:
          description: Why it is held, or an empty text.
          type: str
          sample: the last one before the upgrade to 1.37
        by:
          description: Who holds it.
          type: str
          sample: alice
        at:
          description: Since when.
          type: str
          sample: "2026-01-03T03:04:05Z"
"""

import json
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import storage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import ManifestError, manifest_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy

MAX_REASON = 200


def user():
    """Who runs this, before sudo."""
    if os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def wanted(params, before):
    """The hold that is to be there, {} for none.  before: what the manifest says now; it stays where nothing else is asked for."""
    if params["state"] == "absent":
        return {}
    reason = None if params["reason"] is None else " ".join(params["reason"].split())
    if reason and len(reason) > MAX_REASON:
        raise Refused("`reason` has %d characters, and may have %d" % (len(reason), MAX_REASON))
    if before and (reason is None or (isinstance(before, dict) and before.get("reason") == reason)):
        return before
    return {"reason": reason or "", "by": params["by"] or user(), "at": utc()}


def make_diff(snapshot, before, after):
    header = manifest_path(snapshot["path"])
    text = {side: json.dumps({"hold": hold or None}, indent=1, sort_keys=True) + "\n" for side, hold in (("before", before), ("after", after))}
    return dict(text, before_header=header, after_header=header)


def run(module):
    params = module.params
    place = storage.of(params)
    snapshot = storage.named(place, place.snapshots(), params["name"], params["required"])
    if snapshot is None:
        return {"changed": False, "snapshot": None}
    if snapshot["size"] is None:
        raise Refused(snapshot["problem"])
    before = snapshot.get("hold") or {}
    hold = wanted(params, before)
    changed = hold != before
    if changed:
        place.note_hold(snapshot, hold, module.check_mode)
    if hold and not snapshot["verified"]:
        module.warn("%s is held, and is not verified: %s" % (snapshot["path"], snapshot["problem"]))
    found = {name: snapshot[name] for name in ("path", "file", "verified")}
    return {"changed": changed, "snapshot": dict(found, hold=hold or None), "diff": make_diff(snapshot, before, hold)}


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "reason": {"type": "str"},
            "by": {"type": "str"},
            "required": {"type": "bool", "default": True},
            "directory": {"type": "path", "default": "/var/backups/etcd"},
            "remote": {"type": "str"},
            "rclone_config": {"type": "path"},
            "rclone": {"type": "path"},
            "lock_timeout": {"type": "int", "default": 60},
            **signature.SPEC,
        },
        supports_check_mode=True,
    )
    signals.raise_when_ended()
    os.umask(0o077)
    try:
        result = run(module)
    except (Refused, ManifestError, Busy) as exc:
        verb = "held" if module.params["state"] == "present" else "released"
        module.fail_json(msg="%s. %s was not %s" % (str(exc).rstrip("."), module.params["name"], verb))
    except (RcloneError, signals.Ended) as exc:
        module.fail_json(msg=with_doubt(module.params, str(exc)))
    except OSError as exc:
        module.fail_json(msg=with_doubt(module.params, os_error_words(exc, module.params["directory"])))
    module.exit_json(**result)


def with_doubt(params, problem):
    """What broke off may have been written."""
    return "%s. list.yml shows whether %s is held" % (problem.rstrip("."), params["name"])


if __name__ == "__main__":
    main()
