# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of snapshots, which no crash leaves with a file that lacks its manifest.  Private to this collection.

A snapshot is `NAME.db`, or `NAME.tar` when there is more in it, with `.zst` behind that when it is compressed and then `.age` when it is encrypted,
and its manifest has `.json` behind all that.  Whatever is under a good name is whole at every instant:

    publishing  .SNAPSHOT.partial/ holds the file until it is verified; then the manifest is renamed into place, then the
                file, then the directory goes.
    removing    the same directory is made first, the file is renamed into it, the manifest goes, the directory goes.
    tidying     (at the next start, under the lock) each such directory that is left goes; when its snapshot is not there,
                the manifest goes with it.  Nothing else is ever deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import SUFFIX as MANIFEST_SUFFIX, Manifest, ManifestError, manifest_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.retention import newest_first
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import sync_directory, write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import NamedLock
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import bytes_below, shortage

SUFFIX = ".db"
# As it is, compressed, encrypted, or both; and of bundles, which are always encrypted.
SUFFIXES = (SUFFIX, SUFFIX + ".zst", SUFFIX + ".age", SUFFIX + ".zst.age", ".tar.age", ".tar.zst.age")
LOCK = ".lock"
_PARTIAL = re.compile(r"^\.(?P<name>etcd-.+\.(db|tar)(\.zst)?(\.age)?)\.partial$")
_NEW_MANIFEST = re.compile(r"^\.etcd-.+\.(db|tar)(\.zst)?(\.age)?\.json\.[0-9]+\.new$")


def snapshot_name(host, seconds=None, suffix=SUFFIX):
    """etcd-cp1-20260102T030405Z.db"""
    return "etcd-%s-%s%s" % (re.sub(r"[^A-Za-z0-9.]+", "-", host).strip("-.") or "host", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds)), suffix)


def plain_name(name):
    """Of a snapshot once it is decrypted: etcd-cp1-20260102T030405Z.db of etcd-cp1-20260102T030405Z.db.zst.age"""
    return next((name[: -len(suffix)] + SUFFIX for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), name)


def latest_verified(entries):
    """Path of the newest verified one of a list, newest first, or None."""
    return next((entry["path"] for entry in entries if entry["verified"]), None)


class SnapshotDirectory:
    """The snapshots in one directory, by their names in it.

    signers: a Signers of signature.py, without whose signature none counts as verified; None asks for no signature.
    """

    def __init__(self, path, signers=None):
        self.path = path
        self.signers = signers

    def file(self, name):
        return os.path.join(self.path, name)

    def partial(self, name):
        """The directory in which a snapshot is made, or removed."""
        return self.file(".%s.partial" % name)

    def lock(self, timeout=0):
        """Exclusive over the directory, as a context."""
        holder = "on %s by process %d since %s" % (socket.gethostname(), os.getpid(), utc())
        busy = "another snapshot is being taken in %s%%s; nothing was done" % self.path.replace("%", "%%")
        return NamedLock(self.file(LOCK), holder, busy, timeout)

    # -- looking

    def snapshots(self, digest=None, brief=False):
        """Every snapshot, as describe() has it, newest first, and every one whose manifest is there without it; [] when there is no such directory.

        brief: without the object inventories, which name thousands of objects in each snapshot of a large cluster, and without signatures.
        """
        try:
            names = set(os.listdir(self.path))
        except FileNotFoundError:
            return []
        visible = {name for name in names if not name.startswith(".")}
        found = {name for name in visible if name.endswith(SUFFIXES)}
        for name in visible:
            inner = name[: -len(MANIFEST_SUFFIX)]
            if name.endswith(MANIFEST_SUFFIX) and inner.endswith(SUFFIXES) and inner not in found and self._is_lost(inner):
                found.add(inner)
        return newest_first(self.describe(name, digest, brief) for name in found)

    def _is_lost(self, name):
        """Whether a snapshot is gone and its manifest is not; while it is published or removed that is so, too, but then it has its partial directory."""
        path = self.file(name)
        return not os.path.lexists(path) and not os.path.lexists(self.partial(name)) and os.path.lexists(manifest_path(path))

    def describe(self, name, digest=None, brief=False):
        """One entry of a list: the manifest's fields, `path`, `verified`, and `problem` (null when verified).

        A snapshot counts as verified when its manifest says so and the file is still what the manifest describes, as far as
        can be told: its size, and its checksum when `digest` is given, a function that computes it.  brief: as snapshots() has it.
        """
        path = self.file(name)
        try:
            manifest = Manifest.read(path)
        except ManifestError as exc:
            try:
                size = os.lstat(path).st_size
            except OSError:
                size = None
            return {"path": path, "file": name, "verified": False, "problem": str(exc), "size": size}
        problem = self._problem(path, manifest, digest)
        return dict(manifest.brief if brief else manifest.values, path=path, verified=problem is None, problem=problem)

    def _problem(self, path, manifest, digest):
        try:
            found = os.lstat(path)
        except OSError as exc:
            return "%s cannot be read: %s" % (path, exc.strerror)
        if not os.path.isfile(path) or os.path.islink(path):
            return "%s is not a regular file" % path
        problem = manifest.differs(path, found.st_size) or manifest.distrust(path) or (self.signers and self.signers.problem(manifest, path))
        return problem or (manifest.differs(path, sha256=digest(path)) if digest else None)

    def free_name(self, host, suffix):
        """(seconds since the epoch, name): the first second from now on whose name is free."""
        began = time.time()
        while os.path.lexists(self.file(snapshot_name(host, began, suffix))):
            began += 1
        return began, snapshot_name(host, began, suffix)

    def shortage(self, needed, what):
        """One sentence when `what` needs more bytes than there are, else None.  What interrupted runs left counts as free: tidy() comes first."""
        return shortage(self.path, needed, what, more=self.unfinished_bytes())

    def unfinished_bytes(self):
        """What tidy() would free, or less."""
        names = os.listdir(self.path) if os.path.isdir(self.path) else []
        return sum(bytes_below(self.file(name)) for name in names if _PARTIAL.match(name) and not os.path.islink(self.file(name)))

    # -- changing, which needs the lock

    def publish(self, file, manifest):
        """Move a verified file from its partial directory to its name, the manifest before it."""
        path = self.file(manifest.file)
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if manifest.differs(path, size):
            raise ManifestError(manifest.differs(path, size))
        if os.path.lexists(path):
            raise ManifestError("%s is there already" % path)
        self.write_manifest(manifest)
        os.rename(file, path)
        sync_directory(self.path)
        self.discard(manifest.file)

    def write_manifest(self, manifest):
        """Write the manifest of a snapshot beside it: 0600, on disk when this returns, old or new and never between."""
        path = manifest_path(self.file(manifest.file))
        write_durably(path, manifest.text, temporary=self.file(".%s.%d.new" % (os.path.basename(path), os.getpid())))

    def note(self, name, sha256, lock_timeout=60, levels=None, off_site=None, hold=None):
        """Take the lock and note in a manifest what Manifest.changed() takes; ManifestError when the file that has this SHA-256 is another one by now."""
        with self.lock(lock_timeout):
            path = self.file(name)
            manifest = Manifest.read(path).changed(path, sha256, levels, off_site, hold)
            self.write_manifest(manifest)
        return manifest

    def remove(self, name):
        """Remove a snapshot and its manifest; at no instant is the file there without its manifest."""
        partial = self.partial(name)
        os.mkdir(partial, 0o700)
        try:
            # only the manifest may be left of it
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.file(name), os.path.join(partial, "removed"))
        except OSError:
            os.rmdir(partial)
            raise
        _forget(manifest_path(self.file(name)))
        self.discard(name)
        sync_directory(self.path)

    def discard(self, name):
        """Remove a partial directory."""
        # What cannot be removed now is found again at the next start.
        shutil.rmtree(self.partial(name), ignore_errors=True)

    def tidy(self):
        """Finish what interrupted runs left; returns the paths that were removed."""
        gone = []
        for name in sorted(os.listdir(self.path)):
            match = _PARTIAL.match(name)
            found = self.file(name)
            if _NEW_MANIFEST.match(name):
                _forget(found)
                gone.append(found)
            if not match or os.path.islink(found) or not os.path.isdir(found):
                continue
            path = self.file(match.group("name"))
            if not os.path.lexists(path):
                _forget(manifest_path(path))
            self.discard(match.group("name"))
            gone.append(found)
        return gone


def directory_of(path, signers=None):
    """(SnapshotDirectory, name in it) of a snapshot."""
    return SnapshotDirectory(os.path.dirname(path), signers), os.path.basename(path)


def _forget(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
