# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory that is gone afterwards, whatever happens.  Private to this collection."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time

# Names of directories that hold a copy of data while something looks at it; beside the data, so hidden.
WORK_PREFIX = ".k8s-dr-"
_LOCK = "lock"
# What has no lock was not made by a module, and is not needed this long.
_ABANDONED = 24 * 3600


class WorkDir:
    """A directory of mode 0700 below `parent` that is removed whatever happens; what a killed process left goes at the next start.

    Another process may take it over: share() lets that hold the lock as well, and hand_over() leaves the removal to it.
    """

    def __init__(self, parent):
        self.parent = parent
        self.path = None
        self._lock = None
        self._kept = False

    def __enter__(self):
        with _exclusively(self.parent):
            _tidy(self.parent)
            self.path = tempfile.mkdtemp(prefix=WORK_PREFIX, dir=self.parent)
            self._lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    @property
    def lock(self):
        """The path of the file by whose lock the directory is known to be in use."""
        return os.path.join(self.path, _LOCK)

    def share(self):
        """Let another process lock it as well, before this one ends."""
        with _exclusively(self.parent):
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def hand_over(self):
        """From now on another process removes it."""
        self._kept = True

    def __exit__(self, *_exc):
        if self._kept:
            os.close(self._lock)
            return
        # What cannot be removed now is found again at the next start.
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextlib.contextmanager
def _exclusively(parent):
    """A directory without its lock is never seen by another one that tidies."""
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def tidy(parent):
    """Remove what killed processes, or an action plugin that lost the host a day ago, have left below this directory."""
    with _exclusively(parent):
        _tidy(parent)


def _tidy(parent):
    """Remove what killed processes have left."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(WORK_PREFIX) or os.path.islink(path) or not os.path.isdir(path):
            continue
        try:
            descriptor = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            if time.time() - os.lstat(path).st_mtime > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            # a process works in there
            pass
        finally:
            os.close(descriptor)
