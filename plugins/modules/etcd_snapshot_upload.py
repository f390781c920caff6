#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_upload
short_description: Uploads snapshots to off-site storage and verifies them there
version_added: 0.1.0
description:
  - Uploads a snapshot through rclone to S3, SFTP, or any other storage that rclone supports, verifies it there, and then uploads its manifest.
    A snapshot that has its manifest there is therefore complete.
  - The local snapshot is only read, and never removed. The module does not upload an unverified snapshot, or one that does not match its manifest.
  - With O(directory) it also uploads the snapshots that earlier runs could not.
  - A copy that is there already is not uploaded again. A copy that is damaged, or that failed a verification by M(k8s_dr.etcd.etcd_snapshot_drill), is
    replaced.
  - The copy is recorded in C(off_site) of the local manifest. A recorded copy that is gone is uploaded again, unless a newer snapshot is there, since
    retention may have removed it.
  - With O(signers), only snapshots that one of them signed are uploaded from O(directory), and only those count at O(remote). A copy there whose manifest
    lost its signature, or has another one, gets the manifest of the local snapshot. The snapshot at O(path) is uploaded in any case.
  - For a directory such as a mounted share, the mount point is recorded too. Nothing is written to the directory while nothing is mounted there.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.rclone
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - Reads the off-site storage, and reports what would be uploaded.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  path:
    description: A snapshot to upload, with its manifest beside it.
    type: path
  directory:
    description:
      - Directory of snapshots. After O(path), the module uploads every verified one that is missing or damaged at O(remote), newest first.
      - For a copy that the local manifest records, only its size and the manifest there are checked. Nothing is read back.
    type: path
  keep:
    description:
      - The retention rules of O(remote), in the format of O(k8s_dr.etcd.etcd_snapshot_prune#module:keep). Of the snapshots in O(directory) that are
        missing there, only those are uploaded that the rules keep beside what is there.
      - V(0) uploads all that are missing.
    type: raw
    default: 0
  verify:
    description:
      - How to verify the uploaded copy.
      - V(auto) trusts a checksum that the server computed from what it stores, as SFTP does, and S3 up to 200 MiB. Everything else is read back.
      - V(hash) trusts any checksum that rclone can get, and reads back only without one.
      - V(read) reads everything back, including what earlier runs uploaded.
    type: str
    choices: [auto, hash, read]
    default: auto
  object_lock_days:
    description:
      - Days that S3 Object Lock protects each uploaded file. Each is checked after its upload, and the module fails for one without that lock.
      - C(rclone) 1.74 and later sets the lock, in the mode C(COMPLIANCE) unless its configuration has C(object_lock_mode). With an earlier one the bucket
        needs a default retention of at least that many days.
      - V(0) sets no lock. The default retention of the bucket then applies, unchecked.
    type: int
    default: 0
  lock_timeout:
    description: Seconds to wait for another run in the snapshot's directory before its manifest is changed.
    type: int
    default: 60
  progress:
    description:
      - A file that shows the progress. During an upload it holds, as JSON, its name as C(file), its C(size), and how many
        bytes were C(sent) and C(read) back. It is removed at the end.
    type: path
seealso:
  - module: k8s_dr.etcd.etcd_snapshot
  - module: k8s_dr.etcd.etcd_snapshot_fetch
"""

EXAMPLES = r"""
- name: Upload the snapshot that was just taken, and those that earlier runs could not upload
  k8s_dr.etcd.etcd_snapshot_upload:
    path: "{{ taken.snapshot.path }}"
    directory: /var/backups/etcd
    remote: s3:backups/prod
    rclone_config: /etc/k8s-dr/rclone.conf

- name: Read the uploaded copy back, and replace it if it is damaged
  k8s_dr.etcd.etcd_snapshot_upload:
    path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
    remote: sftp:etcd
    verify: read
"""

RETURN = r"""
uploaded:
  description: Snapshots that were uploaded, or would be.
  returned: always
  type: list
  elements: dict
  contains:
    file:
      description: Name of the snapshot.
      type: str
      sample: etcd-cp1-20260102T030405Z.db
    path:
      description: Its path on this host.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
    off_site:
      description: Its place off-site, as rclone names it.
      type: str
      sample: s3:backups/prod/etcd-cp1-20260102T030405Z.db
    size:
      description: Its size in bytes.
      type: int
      sample: 938016
    seconds:
      description: Seconds that upload and verification took; V(null) in check mode.
      type: float
      sample: 1.4
    verified_by:
      description: V(md5), V(sha1) or V(sha256) that the server computed, or V(read) when it was read back; V(null) in check mode.
      type: str
      sample: md5
present:
  description: Names of the snapshots that were there already.
  returned: always
  type: list
  elements: str
  sample: []
waiting:
  description: Paths of the snapshots that could not be uploaded. They are complete on this host.
  returned: always
  type: list
  elements: str
  sample: []
"""

import calendar
import contextlib
import json
import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import snapshots as remote_snapshots, store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels as verification_levels, manifest as snapshot_manifest, retention, signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory, directory_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import MOMENT, utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy


def stored_here(params):
    """(the snapshot that is named or None, all others of the directory that can be relied on, the Signers or None, why these are of no use or None).

    The named one that no signer signed is not `verified`.  No trouble with `signers` keeps it here.
    """
    named = None
    if params["path"]:
        directory, name = directory_of(os.path.realpath(params["path"]))
        named = directory.describe(name)
        if not named["verified"]:
            raise Refused("%s was not uploaded: %s" % (params["path"], named["problem"]))
    try:
        signers = signature.signers_of(params["signers"])
        if named and signers:
            directory.signers = signers
            named = directory.describe(name)
        others = SnapshotDirectory(os.path.realpath(params["directory"]), signers).snapshots(brief=True) if params["directory"] else []
    except Refused as exc:
        return named, [], None, "earlier snapshots were not uploaded: %s" % exc
    return named, [entry for entry in others if entry["verified"] and not (named and entry["path"] == named["path"])], signers, None


def copies(entry, remote):
    """What its manifest notes of copies there."""
    return [copy for copy in entry.get("off_site") or [] if copy.get("remote") == remote and copy.get("file") == entry["file"]]


def noted(entry, remote):
    return bool(copies(entry, remote))


def described_there(remote, sizes, entries, keep, signers=None):
    """What the manifests there say, where that matters; nothing where they cannot be read now, for that must not keep others here."""
    if not keep and not any((entry["file"] in sizes or signers) and noted(entry, remote.where) for entry in entries):
        return []
    try:
        return remote_snapshots.list_snapshots(remote, sizes=sizes, brief=True, signers=signers)
    except RcloneError:
        return []


def failed_there(there, signers=None):
    """Names of those of which a drill found there that they are damaged, and of those that are not as they were signed."""
    return {one["file"] for one in there if verification_levels.failed(one.get("levels")) or (signers and one.get("created") and not one["verified"])}


def surplus_there(there, first, others, keep):
    """Names of those of `others` that are missing there and that the rules would remove at once."""
    known = [one for one in there if one["verified"]]
    names = {one["file"] for one in known}
    missing = [entry for entry in others if entry["file"] not in names]
    verdicts = retention.judge(known + [entry for entry in first if entry["file"] not in names] + missing, keep, time.time(), shared=True)
    kept = {snapshot["path"] for snapshot, reasons in verdicts if reasons}
    return {entry["file"] for entry in missing if entry["path"] not in kept}


def newest_there(sizes):
    """When the newest snapshot there was taken, as names have it; "" where there is none."""
    return max((match.group(1) for match in map(remote_snapshots.TAKEN.search, sizes) if match), default="")


def stays_away(entry, remote, sizes, failed, newest):
    """Whether it need not be sent: it was, and is there still as it should be, or was removed since there are newer ones.

    failed, newest: as failed_there() and newest_there() have it.
    """
    if not noted(entry, remote.where):
        return False
    name = entry["file"]
    if name in sizes:
        return sizes[name] == entry["size"] and snapshot_manifest.manifest_path(name) in sizes and name not in failed
    return newest > re.sub(r"[-:]", "", entry["created"])


def refuse_what_is_not_mounted(entries, remote):
    """Below a mount point there is an ordinary directory, which would take everything and be off-site nowhere."""
    now = remote.mount()
    for entry in entries:
        for copy in copies(entry, remote.where):
            if now and copy.get("mount") and len(copy["mount"]) > len(now):
                raise Refused("%s was mounted at earlier uploads to %s, and is not mounted now; nothing was written there" % (copy["mount"], remote.where))


def find(remote, entry, sizes, signers=None):
    """(what has to be done: all, manifest, levels, note or nothing; the manifest there or None).  Another snapshot of the name is never replaced."""
    name = entry["file"]
    manifest = None
    if snapshot_manifest.manifest_path(name) in sizes:
        try:
            manifest = remote_snapshots.read_manifest(remote, name, sizes)
        except snapshot_manifest.ManifestError:
            # half of one, or a damaged one: it is replaced
            manifest = None
    if manifest is not None and manifest.sha256 != entry["sha256"]:
        raise Refused(
            "%s is another snapshot of the same name (of the host %s, taken at %s); give each cluster a path of its own"
            % (remote.path(name), manifest.host, manifest.created)
        )
    step = "all" if sizes.get(name) != entry["size"] or (manifest and verification_levels.failed(manifest.levels)) else "manifest"
    if step == "all" or manifest is None or (signers and entry["verified"] and signers.problem(manifest, remote.path(name))):
        return step, manifest
    if verification_levels.is_higher(entry.get("level"), manifest.values.get("level")):
        return "levels", manifest
    return "nothing" if noted(entry, remote.where) else "note", manifest


def manifest_to_send(path, there):
    """The local manifest, with the hold of the one that is there: a copy is held and released where it is."""
    local = snapshot_manifest.Manifest.read(path)
    return local if there is None else local.with_hold(there.hold)


class Teller:
    """Writes the progress at most once a second; a failure to write it is ignored."""

    def __init__(self, path, entry):
        self.path = path
        self.known = {"file": entry["file"], "size": entry["size"], "sent": 0, "read": 0}
        self.last = 0

    def sent(self, count):
        self._tell(sent=count)

    def read(self, count):
        self._tell(sent=self.known["size"], read=count)

    def _tell(self, **found):
        self.known.update(found)
        if not self.path or time.monotonic() - self.last < 1:
            return
        self.last = time.monotonic()
        with contextlib.suppress(OSError):
            temporary = "%s.%d.new" % (self.path, os.getpid())
            with open(temporary, "w", encoding="utf-8") as stream:
                json.dump(self.known, stream)
            os.rename(temporary, self.path)


def upload(module, remote, entry, step, there, sizes):
    """Do what find() says for one snapshot; what is returned of it, or None when nothing had to be sent."""
    start = time.monotonic()
    path, how = entry["path"], None
    known = noted(entry, remote.where)

    def unlocked(name):
        # a run that failed at the lock, or before, noted nothing; what it sent is locked from after the snapshot was taken
        return not known and remote.lock_problem(name, calendar.timegm(time.strptime(entry["created"], MOMENT)))

    relock = there is not None and unlocked(snapshot_manifest.manifest_path(entry["file"]))
    if step in ("manifest", "levels", "note") or (step == "nothing" and module.params["verify"] == "read"):
        size, digests = file_digests(path, ("sha256", "sha1", "md5"))
        if (size, digests["sha256"]) != (entry["size"], entry["sha256"]):
            raise Refused("%s is not the file that was taken (its size or its sha256 has changed), so it was not uploaded" % path)
        problem, how = remote.check(entry["file"], size, digests, module.params["verify"])
        if problem or unlocked(entry["file"]):
            step = "all"
        elif relock:
            step = "manifest"
    if step == "all":
        tell = Teller(module.params["progress"], entry)
        how = remote.put(path, entry["size"], entry["sha256"], module.params["verify"], tell.sent, back=tell.read)["verified_by"]
    if step in ("all", "manifest", "levels"):
        try:
            remote_snapshots.put_manifest(remote, entry["file"], manifest_to_send(path, there), sizes, None if relock else there)
        except RcloneError as exc:
            if exc.kind not in ("immutable", "full") or step != "levels":
                raise
            # the snapshot is there, with the manifest that it was sent with
            module.warn("the later verification results of %s are not recorded there: %s" % (path, exc))
            step = "note" if not known else "nothing"
    if step in ("all", "note") or not known:
        note(module, remote, entry, how)
    if step not in ("all", "manifest", "levels"):
        return None
    return describe(remote, entry, round(time.monotonic() - start, 2), how)


def note(module, remote, entry, how):
    copy = {"remote": remote.where, "file": entry["file"], "at": utc(), "verified_by": how}
    if remote.mount():
        copy["mount"] = remote.mount()
    try:
        directory, name = directory_of(entry["path"])
        directory.note(name, entry["sha256"], module.params["lock_timeout"], off_site=[copy])
    except (snapshot_manifest.ManifestError, Busy, OSError) as exc:
        module.warn("%s is off-site, but its manifest does not record that: %s" % (entry["path"], exc))


def describe(remote, entry, seconds=None, how=None):
    found = {"file": entry["file"], "path": entry["path"], "off_site": remote.path(entry["file"]), "size": entry["size"]}
    return dict(found, seconds=seconds, verified_by=how)


def make_diff(remote, sizes, uploaded):
    def text(names):
        return "".join(name + "\n" for name in sorted(names))

    after = set(sizes)
    for entry in uploaded:
        after.update((entry["file"], snapshot_manifest.manifest_path(entry["file"])))
    return {"before": text(sizes), "after": text(after), "before_header": remote.where, "after_header": remote.where}


def run(module, result):
    params = module.params
    named, others, signers, trouble = stored_here(params)
    first = [named] if named else []
    # as far as is known before the storage was asked
    result["waiting"] = [entry["path"] for entry in first + [one for one in others if not noted(one, params["remote"])]]
    keep = retention.rules(params["keep"], "keep of %s" % params["remote"])
    remote = remote_store.Remote(
        params["remote"],
        params["rclone_config"],
        params["rclone"],
        timeout=params["timeout"],
        retries=params["retries"],
        bwlimit=params["bwlimit"],
        object_lock_days=params["object_lock_days"],
    )
    if remote.rclone.config_warning():
        module.warn(remote.rclone.config_warning())
    refuse_what_is_not_mounted(first + others, remote)
    if not first + others:
        if trouble:
            raise Refused(trouble)
        return
    sizes = remote.names(missing_ok=True)
    there = described_there(remote, sizes, others, keep, signers)
    # a name is not signed
    names = [one["file"] for one in there if one["verified"]] if signers and there else sizes
    failed, newest, surplus = failed_there(there, signers), newest_there(names), surplus_there(there, first, others, keep)
    entries = first + [entry for entry in others if entry["file"] not in surplus and not stays_away(entry, remote, sizes, failed, newest)]
    result["waiting"] = [entry["path"] for entry in entries]
    refused = [trouble] if trouble else []
    changed = False
    for entry in entries:
        try:
            step, manifest = find(remote, entry, sizes, signers)
            if module.check_mode:
                done = describe(remote, entry) if step in ("all", "manifest", "levels") else None
            else:
                done = upload(module, remote, entry, step, manifest, sizes)
        except (Refused, RcloneError) as exc:
            # The others would fare the same, unless it is this very file.
            kind = getattr(exc, "kind", "local")
            if kind not in ("corrupt", "local") and not (kind == "denied" and entry["file"] in sizes):
                raise
            refused.append(str(exc))
            if kind == "local":
                # another try would end the same
                result["waiting"].remove(entry["path"])
            continue
        if done:
            result["uploaded"].append(done)
        else:
            result["present"].append(entry["file"])
        changed = changed or done is not None or step == "note"
        result["changed"] = changed
        result["waiting"].remove(entry["path"])
    result["diff"] = make_diff(remote, sizes, result["uploaded"])
    if refused:
        raise Refused("; ".join(refused))


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "directory": {"type": "path"},
            "keep": {"type": "raw", "default": 0},
            "remote": {"type": "str", "required": True},
            "rclone_config": {"type": "path"},
            "rclone": {"type": "path"},
            "timeout": {"type": "int"},
            "retries": {"type": "int", "default": 3},
            "bwlimit": {"type": "str"},
            "object_lock_days": {"type": "int", "default": 0},
            "verify": {"type": "str", "default": "auto", "choices": ["auto", "hash", "read"]},
            "lock_timeout": {"type": "int", "default": 60},
            "progress": {"type": "path"},
            **signature.SPEC,
        },
        required_one_of=[["path", "directory"]],
        supports_check_mode=True,
    )
    result = {"changed": False, "uploaded": [], "present": [], "waiting": []}
    if module.params["timeout"] is not None and module.params["timeout"] < 1:
        module.fail_json(msg="`timeout` must be at least 1 second", **result)
    if module.params["object_lock_days"] < 0:
        module.fail_json(msg="`object_lock_days` cannot be less than 0", **result)
    signals.raise_when_ended()
    os.umask(0o077)
    try:
        run(module, result)
    except (Refused, RcloneError, snapshot_manifest.ManifestError, ValueError, signals.Ended) as exc:
        module.fail_json(msg=with_whereabouts(str(exc), result["waiting"]), **result)
    except OSError as exc:
        module.fail_json(msg=with_whereabouts("nothing more was uploaded: %s" % os_error_words(exc), result["waiting"]), **result)
    finally:
        if module.params["progress"]:
            with contextlib.suppress(OSError):
                os.unlink(module.params["progress"])
    module.exit_json(**result)


def with_whereabouts(problem, waiting):
    """What went wrong, and where everything is that is not off-site."""
    sentence = problem.rstrip(".")
    if not waiting:
        return sentence
    if len(waiting) == 1:
        return "%s. Nothing is lost: %s is complete on this host, and the next run uploads it" % (sentence, waiting[0])
    return "%s. Nothing is lost: %s and %d more are complete on this host, and the next run uploads them" % (sentence, waiting[0], len(waiting) - 1)


if __name__ == "__main__":
    main()
