# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who can read and replace the snapshots in a directory, and making that root alone.  Private to this collection."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
import tempfile

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import LOCK, SUFFIXES
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import sync_directory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

_OWN = (*SUFFIXES, ".json", ".partial", ".new")
# Where the role etcd_restore keeps the snapshots of what a restore discarded.
_OWN_NAMES = (LOCK, "discarded")


def name_of(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "the user with the id %d" % uid


def foreign_owner(directory, probe):
    """The id of another user who owns a directory; None when root or this user does.

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
    """One sentence about another user who could put another directory in its place, or None."""
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


class Access:
    """What is to be done so that a directory of snapshots is root's alone.

    mode: that it has, None when there is none.  restrict: whether it is to be given 0700.  warnings: what is left as it is.
    """

    def __init__(self, directory, mode, restrict, warnings):
        self.directory = directory
        self.mode = mode
        self.restrict = restrict
        self.warnings = warnings

    def prepare(self):
        """Make the directory, or give it its mode."""
        if self.mode is None:
            make_directory(self.directory)
        elif self.restrict:
            os.chmod(self.directory, 0o700)


def access_to(directory, probe=True):
    """The Access to a directory; Refused when it belongs to another user, or others may write to it and to more than snapshots."""
    found = replaceable(directory)
    warnings = [found] if found else []
    try:
        found = os.stat(directory)
    except FileNotFoundError:
        return Access(directory, None, True, warnings)
    if not stat.S_ISDIR(found.st_mode):
        raise Refused("%s is not a directory" % directory)
    owner = foreign_owner(directory, probe)
    if owner is not None:
        raise Refused(
            "%s belongs to %s, who can read and replace every snapshot in it; nothing was taken. Run: chown %s: %s"
            % (directory, name_of(owner), name_of(os.geteuid()), shlex.quote(directory))
        )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return Access(directory, mode, False, warnings)
    own = all(name in _OWN_NAMES or (name.lstrip(".").startswith("etcd-") and name.endswith(_OWN)) for name in os.listdir(directory))
    if own and found.st_uid == os.geteuid():
        return Access(directory, mode, True, warnings)
    if mode & 0o022:
        raise Refused(
            "others may write to %s (mode %04o), and it holds more than snapshots, so its mode is left alone; give a directory of its own" % (directory, mode)
        )
    warnings.append("others may list %s (mode %04o), and it holds more than snapshots, so its mode is left alone" % (directory, mode))
    return Access(directory, mode, False, warnings)


def make_directory(directory):
    """Make a directory of snapshots with mode 0700, and what is missing above it."""
    parent = os.path.dirname(directory)
    if os.path.basename(directory) in _OWN_NAMES and not os.path.isdir(parent):
        # that is a directory of snapshots as well
        make_directory(parent)
    # What is above is not only for snapshots.
    before = os.umask(0o022)
    try:
        os.makedirs(parent, exist_ok=True)
    finally:
        os.umask(before)
    os.mkdir(directory, 0o700)
    sync_directory(parent)
