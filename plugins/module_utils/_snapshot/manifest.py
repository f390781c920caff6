# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of snapshots: what a snapshot is called, its manifest, and moving both in and out so that no crash is seen.

A snapshot is `NAME.db`, or `NAME.tar` when there is more in it, with `.zst` behind that when it is compressed and then `.age` when it is encrypted,
and its manifest has `.json` behind all that.  Whatever is under a good name is whole at every instant:

    taking      .SNAPSHOT.partial/ holds the file until it is proven; then the manifest is renamed into place, then the
                file, then the directory goes.
    removing    the same directory is made first, the file is renamed into it, the manifest goes, the directory goes.
    tidying     (at the next start, under the lock) each such directory that is left goes; when its snapshot is not there,
                the manifest goes with it.  Nothing else is ever deleted.

Private to this collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import stat
import tempfile
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import old_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import sync_directory, write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import NamedLock

FORMAT = 1
SUFFIX = ".db"
# As it is, compressed, encrypted, or both; and of bundles, which are always encrypted.
SUFFIXES = (SUFFIX, SUFFIX + ".zst", SUFFIX + ".age", SUFFIX + ".zst.age", ".tar.age", ".tar.zst.age")
MANIFEST_SUFFIX = ".json"
LOCK = ".lock"
_PARTIAL = re.compile(r"^\.(?P<name>etcd-.+\.(db|tar)(\.zst)?(\.age)?)\.partial$")
_NEW_MANIFEST = re.compile(r"^\.etcd-.+\.(db|tar)(\.zst)?(\.age)?\.json\.[0-9]+\.new$")
# How far a snapshot is proven, lowest first: the bytes, the database in them, a trial restore, an etcd that serves what was restored.
LEVELS = ("checksum", "status", "restore", "drill")
# A manifest of a hundred thousand namespaces has some 50 MB.
MAX_MANIFEST = 256 * 1024 * 1024
# What a restore relies on: name -> types; all others are free to be absent.
_REQUIRED = {
    "format": (int,),
    "file": (str,),
    "sha256": (str,),
    "size": (int,),
    "hash": (str, type(None)),
    "revision": (int,),
    "verified": (bool,),
    "host": (str,),
    "created": (str,),
}


class ManifestError(Exception):
    """One sentence for the operator."""


def utc(seconds=None):
    """ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def snapshot_name(host, seconds=None, suffix=SUFFIX):
    """etcd-cp1-20260102T030405Z.db"""
    return "etcd-%s-%s%s" % (re.sub(r"[^A-Za-z0-9.]+", "-", host).strip("-.") or "host", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds)), suffix)


def plain_name(name):
    """Of a snapshot once it is opened: etcd-cp1-20260102T030405Z.db of etcd-cp1-20260102T030405Z.db.zst.age"""
    return next((name[: -len(suffix)] + SUFFIX for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), name)


def manifest_path(path):
    return path + MANIFEST_SUFFIX


def text_of(manifest):
    return json.dumps(dict(manifest, format=FORMAT), sort_keys=True, indent=1) + "\n"


def write_manifest(path, manifest):
    """Write the manifest of the snapshot `path` beside it: 0600, on disk when this returns, old or new and never between."""
    target = manifest_path(path)
    temporary = os.path.join(os.path.dirname(target), ".%s.%d.new" % (os.path.basename(target), os.getpid()))
    write_durably(target, text_of(manifest), temporary=temporary)


def read_manifest(path, renamed=False):
    """The manifest of the snapshot `path`; ManifestError when there is none or it cannot be one of this file.

    renamed: the snapshot may have had another name when it was taken; then its checksum tells whether the manifest is its own.
    """
    target = manifest_path(path)
    try:
        with open(target, "rb") as stream:
            text = stream.read(MAX_MANIFEST)
    except FileNotFoundError:
        raise ManifestError("%s has no manifest (%s)" % (path, os.path.basename(target))) from None
    except OSError as exc:
        raise ManifestError("%s cannot be read: %s" % (target, exc.strerror)) from exc
    try:
        manifest = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ManifestError("%s is not JSON" % target) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ManifestError("%s is no manifest of format %d (its format is %s)" % (target, FORMAT, json.dumps(found)[:40]))
    for name, types in _REQUIRED.items():
        # bool is an int to Python
        if not isinstance(manifest.get(name), types) or (types == (int,) and isinstance(manifest[name], bool)):
            raise ManifestError("%s is damaged: its `%s` is missing or of the wrong type" % (target, name))
    if not re.match(r"^[0-9a-f]{64}$", manifest["sha256"]):
        raise ManifestError("%s is damaged: its `sha256` is none" % target)
    try:
        time.strptime(manifest["created"], "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise ManifestError("%s is damaged: its `created` is no time" % target) from None
    if manifest["file"] != os.path.basename(path) and not renamed:
        raise ManifestError("%s belongs to %s" % (target, json.dumps(manifest["file"])[:200]))
    return old_manifest.current(manifest)


def level(ok, seconds, problem=None, **more):
    """What a manifest says of one level that was tried just now."""
    return dict(more, at=utc(), ok=ok, seconds=round(seconds, 2), problem=problem)


def highest_level(levels):
    """The highest one that was reached without a gap, or None.  `structure` is `status` where no tool was asked."""
    reached = None
    for name in LEVELS:
        found = levels.get(name)
        if not isinstance(found, dict) or found.get("ok") is not True:
            break
        reached = "structure" if name == "status" and found.get("tool", True) is None else name
    return reached


def failed_level(manifest):
    """One sentence about the lowest level that failed when it was last tried, or None."""
    levels = manifest.get("levels") if isinstance(manifest.get("levels"), dict) else {}
    for name in LEVELS:
        found = levels.get(name)
        if isinstance(found, dict) and found.get("ok") is False:
            return "it failed the verification level %s at %s: %s" % (name, found.get("at"), found.get("problem"))
    return None


def update_manifest(path, lock_timeout=60, sha256=None, **changes):
    """Change what the manifest of a stored snapshot says, under its directory's lock; returns the new one.

    sha256: of the file as stored that the changes are about; another one is left alone.
    """
    with directory_lock(os.path.dirname(path), lock_timeout):
        manifest = changed(path, read_manifest(path), sha256, **changes)
        write_manifest(path, manifest)
    return manifest


def changed(path, manifest, sha256=None, **changes):
    """A manifest with changes, and ManifestError when it is not that of the file that they are about.

    Each of `levels` replaces the one of its name, and `level` follows; each entry of `off_site` replaces the one of its remote and file; of
    all else the whole value is replaced.
    """
    if sha256 and manifest["sha256"] != sha256:
        raise ManifestError("%s was replaced meanwhile, so nothing was noted in its manifest" % path)
    if "levels" in changes:
        changes["levels"] = dict(manifest["levels"] if isinstance(manifest.get("levels"), dict) else {}, **changes["levels"])
        changes["level"] = highest_level(changes["levels"])
    if "off_site" in changes:
        new = {(copy["remote"], copy["file"]) for copy in changes["off_site"]}
        kept = [copy for copy in manifest.get("off_site") or [] if (copy.get("remote"), copy.get("file")) not in new]
        changes["off_site"] = kept + list(changes["off_site"])
    return dict(manifest, **changes)


def describe(path, digest=None):
    """One entry of a list: the manifest's fields, `path`, `verified`, and `problem` (null when verified).

    A snapshot counts as verified when its manifest says so and the file is still what the manifest describes, as far as
    can be told: its size, and its checksum when `digest` is given, a function that computes it.
    """
    entry = {"path": path, "file": os.path.basename(path), "verified": False, "problem": None}
    try:
        manifest = read_manifest(path)
    except ManifestError as exc:
        try:
            entry["size"] = os.lstat(path).st_size
        except OSError:
            entry["size"] = None
        return dict(entry, problem=str(exc))
    entry = dict(manifest, path=path, verified=False, problem=None)
    try:
        found = os.lstat(path)
    except OSError as exc:
        return dict(entry, problem="%s cannot be read: %s" % (path, exc.strerror))
    if not os.path.isfile(path) or os.path.islink(path):
        entry["problem"] = "%s is not a regular file" % path
    elif found.st_size != manifest["size"]:
        entry["problem"] = "%s has %d bytes, and had %d when it was taken" % (path, found.st_size, manifest["size"])
    elif not manifest["verified"]:
        entry["problem"] = "%s was not verified when it was taken" % path
    elif failed_level(manifest):
        entry["problem"] = "%s is not to be relied on: %s" % (path, failed_level(manifest))
    elif digest is not None and digest(path) != manifest["sha256"]:
        entry["problem"] = "%s is not the file that was taken: its sha256 has changed" % path
    else:
        entry["verified"] = True
    return entry


def list_snapshots(directory, digest=None):
    """Every snapshot of a directory, described, newest first, and every one whose manifest is there without it; [] when there is no such directory."""
    try:
        names = set(os.listdir(directory))
    except FileNotFoundError:
        return []
    paths = [os.path.join(directory, name) for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
    for name in names:
        path = os.path.join(directory, name[: -len(MANIFEST_SUFFIX)])
        if path.endswith(SUFFIXES) and name.endswith(MANIFEST_SUFFIX) and not name.startswith(".") and path not in paths and _is_lost(path):
            paths.append(path)
    entries = [describe(path, digest) for path in paths]
    return sorted(entries, key=lambda entry: (entry.get("created") or "", entry["path"]), reverse=True)


def _is_lost(path):
    """Whether a snapshot is gone and its manifest is not; while it is published or removed that is so, too, but then it has its partial directory."""
    return not os.path.lexists(path) and not os.path.lexists(partial_dir(path)) and os.path.lexists(manifest_path(path))


def latest_verified(snapshots):
    """Path of the newest verified one, or None."""
    return next((entry["path"] for entry in snapshots if entry["verified"]), None)


def name_of(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "the user with the id %d" % uid


def foreign_owner(directory, probe):
    """Whom a directory belongs to that is neither root nor this user; None where all is well.

    Where a server maps root to another user (root_squash), or a mount gives all files to one, what this process makes belongs to that one as well: a file
    is made to see it, without `probe` the lock of an earlier run is looked at.
    """
    owner = os.stat(directory).st_uid
    if owner in (0, os.geteuid()):
        return None
    try:
        if probe:
            with tempfile.TemporaryFile(dir=directory) as stream:
                ours = os.fstat(stream.fileno()).st_uid
        else:
            ours = os.lstat(os.path.join(directory, LOCK)).st_uid
    except OSError:
        ours = None
    return None if ours == owner else owner


def replaceable(directory):
    """Why somebody else could put another directory in its place, in a sentence; None when nobody can."""
    ours = {0, os.geteuid()}
    if os.path.isdir(directory):
        ours.add(os.stat(directory).st_uid)
    above = os.path.dirname(directory)
    while True:
        if os.path.isdir(above):
            found = os.stat(above)
            others = found.st_mode & 0o002 or (found.st_mode & 0o020 and found.st_gid != 0)
            if found.st_uid not in ours:
                return "%s belongs to %s, who could put another directory in the place of %s; keep snapshots where only root may write" % (
                    above,
                    name_of(found.st_uid),
                    directory,
                )
            if others and not found.st_mode & stat.S_ISVTX:
                return "others may write to %s (mode %04o), and so put another directory in the place of %s. Run: chmod go-w %s" % (
                    above,
                    stat.S_IMODE(found.st_mode),
                    directory,
                    shlex.quote(above),
                )
        if above == os.path.dirname(above):
            return None
        above = os.path.dirname(above)


def directory_lock(directory, timeout=0):
    """Exclusive over a directory of snapshots, as a context."""
    holder = "on %s by process %d since %s" % (socket.gethostname(), os.getpid(), utc())
    busy = "another snapshot is being taken in %s%%s; nothing was done" % directory.replace("%", "%%")
    return NamedLock(os.path.join(directory, LOCK), holder, busy, timeout)


def partial_dir(path):
    return os.path.join(os.path.dirname(path), ".%s.partial" % os.path.basename(path))


def publish(path, partial_file, manifest):
    """Move a proven file from its partial directory to `path`, its manifest before it.  The lock must be held."""
    directory = os.path.dirname(path)
    descriptor = os.open(partial_file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if os.path.lexists(path):
        raise ManifestError("%s is there already" % path)
    write_manifest(path, manifest)
    os.rename(partial_file, path)
    sync_directory(directory)
    discard_partial(partial_dir(path))


def remove(path):
    """Remove a snapshot and its manifest; at no instant is the file there without its manifest.  The lock must be held."""
    partial = partial_dir(path)
    os.mkdir(partial, 0o700)
    try:
        os.rename(path, os.path.join(partial, "removed"))
    except OSError:
        os.rmdir(partial)
        raise
    _forget(manifest_path(path))
    discard_partial(partial)
    sync_directory(os.path.dirname(path))


def discard_partial(partial):
    # What cannot be removed now is found again at the next start.
    shutil.rmtree(partial, ignore_errors=True)


def tidy(directory):
    """Finish what interrupted runs left; returns the paths that were removed.  The lock must be held."""
    gone = []
    for name in sorted(os.listdir(directory)):
        match = _PARTIAL.match(name)
        partial = os.path.join(directory, name)
        if _NEW_MANIFEST.match(name):
            _forget(partial)
            gone.append(partial)
        if not match or os.path.islink(partial) or not os.path.isdir(partial):
            continue
        path = os.path.join(directory, match.group("name"))
        if not os.path.lexists(path):
            _forget(manifest_path(path))
        discard_partial(partial)
        gone.append(partial)
    return gone


def unfinished_bytes(directory):
    """What tidy() would free, or less."""
    total = 0
    for name in os.listdir(directory) if os.path.isdir(directory) else []:
        partial = os.path.join(directory, name)
        if not _PARTIAL.match(name) or os.path.islink(partial):
            continue
        for parent, _directories, names in os.walk(partial):
            for one in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(parent, one)).st_blocks * 512
    return total


def _forget(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
