# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots in a store off-site: listing them, their manifests, noting what was found of them, removing them.

    list_snapshots(remote)                         # as SnapshotDirectory.snapshots() has local ones, newest first
    read_manifest(remote, "etcd-cp1-20260102T030405Z.db")
    note(remote, "etcd-cp1-20260102T030405Z.db", sha256, levels)
    remove(remote, "etcd-cp1-20260102T030405Z.db")  # and its manifest

`remote` is a Remote of store.py everywhere.

A snapshot is off-site when its manifest is: the file goes first, is verified there, and its manifest follows.  A file without
a manifest is what an interrupted upload left.

Private to this collection.
"""

from __future__ import annotations

import hashlib
import os
import tempfile

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import manifest as snapshot_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import directory_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.retention import newest_first
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError

_TEMPORARY = "k8s-dr-etcd-"


def list_snapshots(remote, missing_ok=True, sizes=None, brief=False, signers=None):
    """Every snapshot there, newest first, as SnapshotDirectory.snapshots() describes local ones; without having read them.

    Besides the manifest's fields each has `remote`, `path` (how rclone names it), `file`, `verified` and `problem`.  A manifest
    whose file is gone is listed too; `size` is then None.  sizes: what names() has said just now.  brief: as SnapshotDirectory.snapshots() has it.
    signers: as a SnapshotDirectory has it.
    """
    sizes = remote.names(missing_ok) if sizes is None else sizes
    manifests = [name for name in sizes if name.startswith("etcd-") and name.endswith(snapshot_manifest.SUFFIX)]
    files = {name[: -len(snapshot_manifest.SUFFIX)] for name in manifests}
    files.update(name for name in sizes if name.startswith("etcd-") and name not in manifests)
    entries = []
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as directory:
        unread = _get_manifests(remote, directory, manifests) if manifests else None
        for name in sorted(files):
            entries.append(_describe(remote, name, sizes, os.path.join(directory, name), unread, brief, signers))
    return newest_first(entries)


def read_manifest(remote, name):
    """The manifest of a snapshot there; None when it has none, ManifestError when it cannot be one."""
    try:
        text = remote.read(name + snapshot_manifest.SUFFIX, snapshot_manifest.MAX_MANIFEST)
    except RcloneError as exc:
        if exc.kind == "absent":
            return None
        raise
    return snapshot_manifest.Manifest.parse(text, remote.path(name), name)


def _get_manifests(remote, directory, names):
    """Copy all of them here; one sentence about those that cannot be read, or None.  Damage of one must not hide the others."""
    result = remote.get_small("etcd-*" + snapshot_manifest.SUFFIX, snapshot_manifest.MAX_MANIFEST, directory)
    if result.code == 0:
        return None
    if not any(os.path.exists(os.path.join(directory, name)) for name in names):
        raise remote.rclone.error("the manifests in %s cannot be read" % remote.where, result, "read")
    return remote.rclone.error("its manifest cannot be read", result, "read").message


def _describe(remote, name, sizes, local, unread, brief, signers):
    entry = {"remote": remote.where, "path": remote.path(name), "file": name, "size": sizes.get(name), "verified": False, "problem": None}
    where = entry["path"]
    if unread and snapshot_manifest.manifest_path(name) in sizes and not os.path.exists(snapshot_manifest.manifest_path(local)):
        entry["problem"] = "%s cannot be relied on: %s" % (where, unread)
        return entry
    try:
        manifest = snapshot_manifest.Manifest.read(local)
    except snapshot_manifest.ManifestError as exc:
        entry["problem"] = str(exc).replace(local, where)
        return entry
    if name not in sizes:
        problem = "%s is gone, and its manifest is still there" % where
    else:
        problem = manifest.differs(where, sizes[name]) or manifest.distrust(where) or (signers and signers.problem(manifest, where))
    return dict(manifest.brief if brief else manifest.values, **dict(entry, verified=problem is None, problem=problem))


def put_manifest(remote, name, text):
    """Send the manifest of a snapshot, and read it back."""
    # rclone sends files, and this one has another name, or changes while it is sent
    with tempfile.NamedTemporaryFile(prefix=_TEMPORARY) as stream:
        stream.write(text)
        stream.flush()
        remote.put(stream.name, len(text), hashlib.sha256(text).hexdigest(), name=snapshot_manifest.manifest_path(name))


def note(remote, name, sha256, levels=None, check_mode=False, hold=None):
    """Note levels or a hold, as Manifest.changed() takes them, in the manifest of a snapshot there; ManifestError when its file is gone or another one.

    RcloneError of kind `tool` where rclone writes over what is there, and what breaks off midway would leave the snapshot with no manifest.
    """
    if remote.name is None:
        if not check_mode:
            directory, inner = directory_of(os.path.join(remote.where, name))
            directory.note(inner, sha256, levels=levels, hold=hold)
        return
    if not remote.replaces_whole():
        raise RcloneError("this rclone could lose the manifest where a connection breaks off; 1.63 and later keep it", "tool")
    if check_mode:
        return
    manifest = read_manifest(remote, name)
    if manifest is None:
        raise snapshot_manifest.ManifestError("%s has no manifest any more" % remote.path(name))
    put_manifest(remote, name, manifest.changed(remote.path(name), sha256, levels, hold=hold).text.encode("utf-8"))
    if remote.size(name) is None:
        # it was removed meanwhile, and its manifest is not to come back
        remote.delete(snapshot_manifest.manifest_path(name))
        raise snapshot_manifest.ManifestError("%s is gone" % remote.path(name))


def remove(remote, name):
    """Remove a snapshot, then its manifest, by which the next run finds what an interrupted one left."""
    remote.delete(name)
    remote.delete(name + snapshot_manifest.SUFFIX)
