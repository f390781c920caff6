#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_fetch
short_description: Downloads a snapshot from off-site storage
version_added: 0.1.0
description:
  - Downloads a snapshot and its manifest through rclone into O(directory). The snapshot gets its final name only after its checksum matches the
    manifest's; a damaged one is refused, and with O(signers) one that none of them signed.
  - An interrupted download is resumed, also by the next run.
  - A snapshot that is already in O(directory) is not downloaded again.
  - An encrypted snapshot stays encrypted; M(k8s_dr.etcd.etcd_snapshot_info) and the role C(k8s_dr.etcd.etcd_restore) verify its contents.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.rclone
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads the off-site storage, and reports what would be downloaded.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - With O(name=latest) a newer snapshot may be there by then.
options:
  name:
    description:
      - Name of the snapshot, such as C(etcd-cp1-20260102T030405Z.db), or V(latest) for the newest verified one.
    type: str
    default: latest
  directory:
    description: Directory for the snapshot on the managed host. It is created with mode 0700.
    type: path
    required: true
  versions:
    description:
      - Whether to look at all that S3 has at O(remote), what was deleted and the versions of what was replaced included, for example after an intruder
        deleted snapshots that Object Lock protects. M(k8s_dr.etcd.etcd_snapshot_list) lists them.
      - Such a download is not resumed.
    type: bool
    default: false
  etcd_ca:
    description:
      - For O(name=latest), the SHA-256 of the etcd CA of the cluster whose snapshot is wanted, as C(fingerprints) in manifests has it.
      - Required when O(remote) holds snapshots of several clusters.
    type: str
  lock_timeout:
    description: Seconds to wait while another run is busy in O(directory).
    type: int
    default: 60
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_upload
"""

EXAMPLES = r"""
- name: Download the newest snapshot from off-site storage
  k8s_dr.etcd.etcd_snapshot_fetch:
    remote: s3:backups/prod
    rclone_config: /etc/k8s-dr/rclone.conf
    directory: /var/backups/etcd/from-off-site
  register: got

- name: Show the path
  ansible.builtin.debug:
    var: got.snapshot.path
"""

RETURN = r"""
snapshot:
  description:
    - The manifest of the snapshot, with more values than those below.
    - In check mode it is that of the snapshot which would be downloaded.
  returned: success
  type: dict
  contains:
    path:
      description: Its path on this host.
      type: str
      sample: /var/backups/etcd/from-off-site/etcd-cp1-20260102T030405Z.db
    off_site:
      description: The off-site copies that its manifest records.
      type: list
      elements: dict
    file:
      description: Name of the file.
      type: str
      sample: etcd-cp1-20260102T030405Z.db
    size:
      description: Its size in bytes.
      type: int
      sample: 938016
    sha256:
      description: SHA-256 of the file.
      type: str
      sample: 3f1c4a8f6f8f6f0f9f3c1a1d0b2f4a3d5e6c7b8a9d0e1f2a3b4c5d6e7f8091a2
    created:
      description: When it was taken.
      type: str
      sample: "2026-01-02T03:04:05Z"
source:
  description: Where it was downloaded from.
  returned: success
  type: str
  sample: s3:backups/prod/etcd-cp1-20260102T030405Z.db
seconds:
  description: Duration of the download in seconds; V(0) if it was there already.
  returned: success
  type: float
  sample: 2.5
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import snapshots as remote_snapshots, store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import manifest as snapshot_manifest, signature as snapshot_signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import directory_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage

# Room that is left besides what is got.
HEADROOM = 16 * 1024 * 1024


def clusters(entries):
    """{fingerprint of an etcd CA: the hosts that took snapshots under it}"""
    found = {}
    for entry in entries:
        found.setdefault((entry.get("fingerprints") or {}).get("etcd_ca"), set()).add(entry.get("host"))
    return found


def listed(module, remote, signers):
    if module.params["versions"]:
        return remote_snapshots.list_versions(remote, signers=signers)
    return remote_snapshots.list_snapshots(remote, missing_ok=False, signers=signers)


def named_version(module, remote, name, signers):
    """The entry of a snapshot, whatever was done to it there."""
    found = next((entry for entry in listed(module, remote, signers) if entry["file"] == name), None)
    if found is None or not found["verified"]:
        raise Refused(found["problem"] if found else "%s has no version of a snapshot %s" % (remote.where, name))
    return found


def newest(module, remote, etcd_ca, signers):
    """The manifest of the newest snapshot there that can be relied on."""
    entries = listed(module, remote, signers)
    good = [entry for entry in entries if entry["verified"]]
    if not good:
        problem = next((entry["problem"] for entry in entries if entry["problem"]), None)
        raise Refused("%s holds no verified snapshot%s" % (remote.where, ": " + problem if problem else ""))
    found = clusters(good)
    if etcd_ca is None and len(found) > 1:
        hosts = " and ".join(sorted(", ".join(sorted(str(host) for host in hosts)) for hosts in found.values()))
        raise Refused("%s holds snapshots of several clusters (%s), so the newest may be of another one; name the snapshot" % (remote.where, hosts))
    good = [entry for entry in good if etcd_ca is None or (entry.get("fingerprints") or {}).get("etcd_ca") == etcd_ca]
    if not good:
        raise Refused("%s holds %d snapshots, but none of this cluster (their etcd CA is another one)" % (remote.where, len(entries)))
    for problem in signers.skipped(entries, good[0]["path"]) if signers else ():
        module.warn(problem)
    return good[0]


def named(remote, name, signers):
    if "/" in name or name.startswith("."):
        raise Refused("%s is not the name of a snapshot; a path belongs into `remote`" % name)
    manifest = remote_snapshots.read_manifest(remote, name)
    if manifest is None:
        names = [entry["file"] for entry in remote_snapshots.list_snapshots(remote, missing_ok=False, brief=True, signers=signers) if entry["verified"]]
        raise Refused("%s has no snapshot %s with a manifest; the newest there: %s" % (remote.where, name, ", ".join(names[:3]) or "none"))
    if not manifest.verified:
        raise Refused("%s was not verified when it was taken" % remote.path(name))
    problem = signers and signers.problem(manifest, remote.path(name))
    if problem:
        raise Refused("%s; nothing was fetched" % problem)
    return manifest


def here(path, manifest):
    """Whether the snapshot is here already; Refused when something else has its name."""
    if not os.path.lexists(path):
        return False
    if not os.path.islink(path) and os.path.isfile(path):
        size, digests = file_digests(path)
        if not manifest.differs(path, size, digests["sha256"]):
            return True
    raise Refused("%s exists, and is not the off-site snapshot; move it away" % path)


def check_space(directory, needed):
    short = shortage(directory, needed + HEADROOM, "the snapshot")
    if short:
        raise Refused("%s; nothing was fetched" % short)


def get(remote, manifest, versions, path, lock_timeout):
    """Get what is not here; the seconds that took.  versions: the names of those that may be it; of others it is the current one."""
    directory, name = directory_of(path)
    partial = directory.partial(name)
    with directory.lock(lock_timeout):
        if here(path, manifest):
            if not has_manifest(path, manifest):
                directory.write_manifest(manifest)
            return 0.0
        # a download that an interrupted run left in it is resumed
        os.makedirs(partial, mode=0o700, exist_ok=True)
        target = os.path.join(partial, "snapshot")
        have = os.path.getsize(target) if os.path.isfile(target) else 0
        check_space(directory.path, max(0, manifest.size - have))
        if versions:
            seconds = remote.get_version(versions, target, manifest.size, manifest.sha256)
        else:
            seconds = remote.get(name, target, manifest.size, manifest.sha256)
        directory.publish(target, manifest)
    return seconds


def has_manifest(path, manifest):
    try:
        return snapshot_manifest.Manifest.read(path).sha256 == manifest.sha256
    except snapshot_manifest.ManifestError:
        return False


def own(entry):
    """The Manifest of an entry, without what a list says of it."""
    return snapshot_manifest.Manifest({name: value for name, value in entry.items() if name not in ("path", "remote", "problem", "versions")})


def run(module):
    params = module.params
    signers = snapshot_signature.signers_of(params["signers"])
    remote = remote_store.Remote(
        params["remote"], params["rclone_config"], params["rclone"], timeout=params["timeout"], retries=params["retries"], bwlimit=params["bwlimit"]
    )
    if remote.rclone.config_warning():
        module.warn(remote.rclone.config_warning())
    versions = []
    if params["name"] == "latest" or params["versions"]:
        latest = params["name"] == "latest"
        entry = newest(module, remote, params["etcd_ca"], signers) if latest else named_version(module, remote, params["name"], signers)
        manifest, versions = own(entry), entry.get("versions")
    else:
        manifest = named(remote, params["name"], signers)
    directory = os.path.realpath(params["directory"])
    path = os.path.join(directory, manifest.file)
    missing = not here(path, manifest)
    changed = missing or not has_manifest(path, manifest)
    seconds = 0.0
    if changed and not module.check_mode:
        if missing:
            check_space(directory, 0)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        seconds = get(remote, manifest, versions, path, params["lock_timeout"])
    before = path + "\n" if not missing else ""
    diff = {"before": before, "after": path + "\n", "before_header": directory, "after_header": directory}
    return {"changed": changed, "snapshot": dict(manifest.values, path=path), "source": remote.path(manifest.file), "seconds": seconds, "diff": diff}


def main():
    module = AnsibleModule(
        argument_spec={
            "remote": {"type": "str", "required": True},
            "rclone_config": {"type": "path"},
            "rclone": {"type": "path"},
            "timeout": {"type": "int"},
            "retries": {"type": "int", "default": 3},
            "bwlimit": {"type": "str"},
            "name": {"type": "str", "default": "latest"},
            "versions": {"type": "bool", "default": False},
            "directory": {"type": "path", "required": True},
            "etcd_ca": {"type": "str"},
            "lock_timeout": {"type": "int", "default": 60},
            **snapshot_signature.SPEC,
        },
        supports_check_mode=True,
    )
    if module.params["timeout"] is not None and module.params["timeout"] < 1:
        module.fail_json(msg="`timeout` must be at least 1 second")
    signals.raise_when_ended()
    os.umask(0o077)
    try:
        result = run(module)
    except (Refused, RcloneError, snapshot_manifest.ManifestError, Busy) as exc:
        module.fail_json(msg=str(exc))
    except signals.Ended as exc:
        module.fail_json(msg="download failed: %s; the next run resumes it" % exc)
    except OSError as exc:
        module.fail_json(msg="download failed: %s" % os_error_words(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
