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

What is recorded of it later, levels and a hold, goes beside and not over: the storage may forbid to replace anything.  NAME.1.note is the first of those
files; each has all that is recorded, so the one with the highest number counts, and the others are removed where that is allowed.
In a directory of this host it goes into the manifest, and notes that came there another way are taken into it.

Private to this collection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile

from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote.store import plain_name
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import manifest as snapshot_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import directory_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.retention import newest_first
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError

_TEMPORARY = "k8s-dr-etcd-"
# When a snapshot was taken, in its name.
TAKEN = re.compile(r"-(\d{8}T\d{6}Z)\.(?:db|tar)(?:\.zst)?(?:\.age)?$")
_NOTE = re.compile(r"^(?P<name>.+)\.(?P<number>[1-9]\d*)\.note\Z")
_MAX_NOTE = 1024 * 1024
# So many notes of each snapshot are got at once: the newest counts, unless it did not arrive whole.
_NEWEST = 2
# So many notes stay of one snapshot where none can be removed; later results are not recorded there.
_MAX_NOTES = 100


def list_snapshots(remote, missing_ok=True, sizes=None, brief=False, signers=None):
    """Every snapshot there, newest first, as SnapshotDirectory.snapshots() describes local ones; without having read them.

    Besides the manifest's fields each has `remote`, `path` (how rclone names it), `file`, `verified` and `problem`.  A manifest
    whose file is gone is listed too; `size` is then None.  sizes: what names() has said just now.  brief: as SnapshotDirectory.snapshots() has it.
    signers: as a SnapshotDirectory has it.
    """
    sizes = remote.names(missing_ok) if sizes is None else sizes
    manifests = [name for name in sizes if name.startswith("etcd-") and name.endswith(snapshot_manifest.SUFFIX)]
    files = {name[: -len(snapshot_manifest.SUFFIX)] for name in manifests}
    files.update(name for name in sizes if name.startswith("etcd-") and name not in manifests and not _NOTE.match(name))
    entries = []
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as directory:
        unread = _get_manifests(remote, directory, manifests) if manifests else None
        notes, read = _get_notes(remote, directory, sizes)
        for name in sorted(files):
            entries.append(_describe(remote, name, sizes, os.path.join(directory, name), notes.get(name, []), read, unread, brief, signers))
    return newest_first(entries)


def list_versions(remote, brief=False, signers=None):
    """As list_snapshots(), of all that S3 has, older versions and what is deleted included; `versions` are the names of those that may be the file.

    Of each name it is the newest that can be relied on.  What was recorded later is left out.
    """
    sizes, stored, entries = remote.names(versions=True), {}, []
    # the current version, which has no suffix, comes before the newest of the others
    for one in sorted(sizes, reverse=True):
        stored.setdefault(plain_name(one), []).append(one)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as directory:
        result = remote.get_small("etcd-*" + snapshot_manifest.SUFFIX, snapshot_manifest.MAX_MANIFEST, directory, versions=True)
        # damage of one must not hide the others
        if result.code != 0 and not any(os.path.exists(os.path.join(directory, one)) for one in sizes):
            raise remote.rclone.error("the manifests in %s cannot be read" % remote.where, result, "read")
        for name in sorted(stored):
            if name.startswith("etcd-") and name.endswith(snapshot_manifest.SUFFIX):
                file = name[: -len(snapshot_manifest.SUFFIX)]
                found = [_version(remote, file, os.path.join(directory, one), stored.get(file, []), sizes, brief, signers) for one in stored[name]]
                entries.append(next((entry for entry in found if entry["verified"]), found[0]))
    return newest_first(entries)


def _version(remote, name, local, stored, sizes, brief, signers):
    entry = {"remote": remote.where, "path": remote.path(name), "file": name, "size": None, "verified": False, "problem": None, "versions": []}
    try:
        with open(local, "rb") as stream:
            manifest = snapshot_manifest.Manifest.parse(stream.read(snapshot_manifest.MAX_MANIFEST), entry["path"], name)
    except OSError:
        return dict(entry, problem="%s cannot be relied on: its manifest cannot be read" % entry["path"])
    except snapshot_manifest.ManifestError as exc:
        return dict(entry, problem=str(exc))
    versions = [one for one in stored if sizes[one] == manifest.size]
    problem = None if versions else "no version of %s has the %d bytes that it had when it was taken" % (entry["path"], manifest.size)
    problem = problem or manifest.distrust(entry["path"]) or (signers and signers.problem(manifest, entry["path"]))
    entry.update(size=manifest.size, verified=not problem, problem=problem or None, versions=versions)
    return dict(manifest.brief if brief else manifest.values, **entry)


def hidden(remote, snapshots):
    """Names of snapshots that were deleted or replaced in S3, where older versions of them are: a newer one than all `snapshots` there, or one of them.

    Others retention may have deleted, which in a bucket with versions but without locks leaves those.
    """
    if not remote.rclone.is_s3():
        return []
    try:
        sizes = remote.names(versions=True)
    except RcloneError:
        # who may list may not always list versions
        return []
    names = {plain_name(one) for one in sizes if plain_name(one) != one}
    names = {name[: -len(snapshot_manifest.SUFFIX)] if name.endswith(snapshot_manifest.SUFFIX) else name for name in names if not _NOTE.match(name)}
    there = {entry["file"] for entry in snapshots}
    newest = max((_taken(name) for name in there), default="")
    return sorted(name for name in names if name.startswith("etcd-") and (name in there or _taken(name) > newest))


def _taken(name):
    found = TAKEN.search(name)
    return found.group(1) if found else ""


def _notes(names):
    """{name of a snapshot: those of `names` that are notes about it, the newest first}"""
    found = {}
    for match in sorted(filter(None, map(_NOTE.match, names)), key=lambda match: int(match.group("number")), reverse=True):
        found.setdefault(match.group("name"), []).append(match.group())
    return found


def read_manifest(remote, name, names=None):
    """The manifest of a snapshot there, with what was recorded later; None when it has none, ManifestError when it cannot be one.

    names: what names() has said just now.
    """
    try:
        text = remote.read(name + snapshot_manifest.SUFFIX, snapshot_manifest.MAX_MANIFEST)
    except RcloneError as exc:
        if exc.kind == "absent":
            return None
        raise
    manifest = snapshot_manifest.Manifest.parse(text, remote.path(name), name)

    def noted(names):
        return _with_notes(manifest, _whole(_notes(names).get(name, []), names), lambda one: remote.read(one, _MAX_NOTE))

    try:
        return noted(remote.names() if names is None else names)
    except RcloneError as exc:
        if exc.kind != "absent":
            raise
    # a newer one has replaced it meanwhile
    return noted(remote.names())


def _whole(notes, sizes):
    """Those of the notes that are no longer than any of ours."""
    return [one for one in notes if sizes[one] <= _MAX_NOTE]


def _with_notes(manifest, found, read):
    """With what the newest of the notes says that is whole and about this very file.  One that cannot be read is an error: it may be the one that counts."""
    for one in found:
        text = read(one)
        with contextlib.suppress(ValueError, AttributeError, RecursionError, snapshot_manifest.ManifestError):
            note_ = json.loads(text.decode("utf-8"))
            if note_.get("sha256") == manifest.sha256:
                return manifest.with_recorded(note_)
    return manifest


def _get_manifests(remote, directory, names):
    """Copy all of them here; one sentence about those that cannot be read, or None.  Damage of one must not hide the others."""
    result = remote.get_small("etcd-*" + snapshot_manifest.SUFFIX, snapshot_manifest.MAX_MANIFEST, directory)
    if result.code == 0:
        return None
    if not any(os.path.exists(os.path.join(directory, name)) for name in names):
        raise remote.rclone.error("the manifests in %s cannot be read" % remote.where, result, "read")
    return remote.rclone.error("its manifest cannot be read", result, "read").message


def _get_notes(remote, directory, sizes):
    """({name of a snapshot: its notes, the newest first}, what reads one of them).  The newest are copied here together."""
    found, missing, problem = {}, [], None
    for again in (False, True):
        # newer ones may have replaced them meanwhile
        sizes = remote.names() if again else sizes
        found = {name: _whole(notes, sizes) for name, notes in _notes(sizes).items() if name.startswith("etcd-")}
        missing = [one for ones in found.values() for one in ones[:_NEWEST] if not os.path.exists(os.path.join(directory, one))]
        if not missing:
            break
        result = remote.get_named(missing, _MAX_NOTE, directory)
        missing = [one for one in missing if not os.path.exists(os.path.join(directory, one))]
        if not missing:
            break
        what = "what is recorded of it cannot be read"
        problem = remote.rclone.error(what, result, "read") if result.code != 0 else RcloneError(what + ": it is not there any more", "absent")

    def read(one):
        if one in missing:
            raise problem
        path = os.path.join(directory, one)
        if not os.path.exists(path):
            return remote.read(one, _MAX_NOTE)
        with open(path, "rb") as stream:
            return stream.read(_MAX_NOTE)

    return found, read


def _describe(remote, name, sizes, local, notes, read, unread, brief, signers):
    entry = {"remote": remote.where, "path": remote.path(name), "file": name, "size": sizes.get(name), "verified": False, "problem": None}
    where = entry["path"]
    if unread and snapshot_manifest.manifest_path(name) in sizes and not os.path.exists(snapshot_manifest.manifest_path(local)):
        entry["problem"] = "%s cannot be relied on: %s" % (where, unread)
        return entry
    try:
        manifest = _with_notes(snapshot_manifest.Manifest.read(local), notes, read)
    except snapshot_manifest.ManifestError as exc:
        entry["problem"] = str(exc).replace(local, where)
        return entry
    except RcloneError as exc:
        # it may be held, or have failed
        entry["problem"] = "%s cannot be relied on: %s" % (where, exc)
        return entry
    if name not in sizes:
        problem = "%s is gone, and its manifest is still there" % where
    else:
        problem = manifest.differs(where, sizes[name]) or manifest.distrust(where) or (signers and signers.problem(manifest, where))
    return dict(manifest.brief if brief else manifest.values, **dict(entry, verified=problem is None, problem=problem))


def _put(remote, name, text):
    # rclone sends files, and this one has another name, or changes while it is sent
    with tempfile.NamedTemporaryFile(prefix=_TEMPORARY) as stream:
        stream.write(text)
        stream.flush()
        remote.put(stream.name, len(text), hashlib.sha256(text).hexdigest(), name=name)


def put_manifest(remote, name, manifest, names, there=None):
    """Send the manifest of a snapshot, and read it back; or only a note, where the one that is there says the same but for that.

    names: what names() has said.  there: what read_manifest() has.
    """
    found = _notes(names).get(name, [])
    stays = remote.name is not None and there is not None and there.unchanging == manifest.unchanging
    if not stays:
        _put(remote, snapshot_manifest.manifest_path(name), manifest.text.encode("utf-8"))
    # an older note may say otherwise
    if remote.name is None:
        _remove_notes(remote, found)
    elif there.recorded != manifest.recorded if stays else found:
        _put_note(remote, name, manifest, found)


def _put_note(remote, name, manifest, older):
    """Record what a manifest says now.  older: the notes that are there, the newest first."""

    def remove_notes(notes):
        _remove_notes(remote, notes, bool(notes) and bool(remote.locks("/" + snapshot_manifest.manifest_path(name))))

    if len(older) >= _MAX_NOTES:
        try:
            remove_notes(older[1:])
        except RcloneError as exc:
            raise RcloneError("%s has %d notes beside it, and the oldest cannot be removed: %s" % (remote.path(name), len(older), exc), "full") from exc
        older = older[:1]
    number = int(_NOTE.match(older[0]).group("number")) + 1 if older else 1
    text = json.dumps(dict(manifest.recorded, file=name, sha256=manifest.sha256), sort_keys=True, indent=1) + "\n"
    _put(remote, "%s.%d.note" % (name, number), text.encode("utf-8"))
    # what cannot be removed now goes with the snapshot
    with contextlib.suppress(RcloneError):
        remove_notes(older)


def _remove_notes(remote, notes, versions=False):
    """Remove notes, given the newest first, the oldest first."""
    for one in reversed(notes):
        remote.delete(one, versions)


def note(remote, name, sha256, levels=None, check_mode=False, hold=None):
    """Note levels or a hold, as Manifest.changed() takes them, of a snapshot there; ManifestError when its file is gone or another one."""
    if check_mode:
        return
    if remote.name is None:
        _note_here(remote, name, sha256, levels, hold)
        return
    # there is no lock: who records something at the same time may replace this note by another one
    for _attempt in range(2):
        names = remote.names(missing_ok=True)
        changed = _there(remote, name, names).changed(remote.path(name), sha256, levels, hold=hold)
        _put_note(remote, name, changed, _notes(names).get(name, []))
        names = remote.names(missing_ok=True)
        if name not in names:
            # it was removed meanwhile
            _forget(remote, name, names)
        found = _there(remote, name, names)
        if found.changed(remote.path(name), sha256, levels, hold=hold).recorded == found.recorded:
            return
    raise RcloneError("something else was recorded of %s at the same time, and replaced what was found now; repeat this" % remote.path(name))


def _note_here(remote, name, sha256, levels, hold):
    """In a directory of this host: into the manifest, where it takes in what notes have that came there another way, such as through SFTP."""
    names = remote.names(missing_ok=True)
    found = _notes(names).get(name, [])
    there = read_manifest(remote, name, names) if found else None
    if there is not None:
        levels = dict(there.levels, **(levels or {})) or None
        hold = there.hold if hold is None else hold
    directory, inner = directory_of(os.path.join(remote.where, name))
    directory.note(inner, sha256, levels=levels, hold=hold)
    _remove_notes(remote, found)


def _there(remote, name, names):
    """The manifest of a snapshot whose file is there as well."""
    if name not in names and snapshot_manifest.manifest_path(name) in names:
        raise snapshot_manifest.ManifestError("%s is gone" % remote.path(name))
    manifest = read_manifest(remote, name, names)
    if manifest is None:
        raise snapshot_manifest.ManifestError("%s has no manifest any more" % remote.path(name))
    return manifest


def locked_until(remote, names):
    """{name: until when the storage protects that snapshot, or any file that belongs to it}, of those with a lock.  A time that is over is one as well."""
    patterns = ["/%s*" % name for name in names]
    if not names or not remote.rclone.is_s3():
        return {}
    if remote.rclone.section().get("type") != "s3":
        # such as crypt: what is locked has another name there
        locks = {name: max(remote.locks(pattern).values(), default=None) for name, pattern in zip(names, patterns)}
        return {name: until for name, until in locks.items() if until}
    found = {}
    for one, until in remote.locks(*patterns).items():
        match = _NOTE.match(one)
        name = match.group("name") if match else re.sub(re.escape(snapshot_manifest.SUFFIX) + "$", "", one)
        found[name] = max(until, found.get(name, ""))
    return {name: found[name] for name in names if name in found}


def remove(remote, name, versions=False):
    """Remove a snapshot and what is recorded of it, its manifest last, by which the next run finds what an interrupted one left.

    versions: of S3 the versions themselves, those before as well; otherwise a bucket with versions hides them only.
    """
    names = remote.names(missing_ok=True)
    remote.delete(name, versions)
    _forget(remote, name, names, versions)


def _forget(remote, name, names, versions=False):
    """Remove what is recorded of a snapshot there."""
    _remove_notes(remote, _notes(names).get(name, []), versions)
    remote.delete(snapshot_manifest.manifest_path(name), versions)
