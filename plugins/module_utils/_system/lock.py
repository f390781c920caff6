# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lock that names its holder to who waits.  Private to this collection."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time


class Busy(Exception):
    """Somebody else holds the lock: one sentence."""


class NamedLock:
    """Exclusive for as long as the object is used as a context; ends with the process, however that ends.

    path: a file, made when there is none.  holder: who holds it, in words, for who waits.  busy: the sentence for who waited in vain, with %s
    for the holder and a blank before it.  timeout: seconds to wait.
    """

    def __init__(self, path, holder, busy, timeout=0):
        self.path = path
        self.holder = holder
        self.busy = busy
        self.timeout = timeout
        self.descriptor = None

    def __enter__(self):
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._wait()
            os.ftruncate(self.descriptor, 0)
            # only for processes that wait; the disk may be full
            with contextlib.suppress(OSError):
                os.pwrite(self.descriptor, self.holder.encode(), 0)
        except BaseException:
            os.close(self.descriptor)
            raise
        return self

    def _wait(self):
        end = time.monotonic() + self.timeout
        while True:
            try:
                return fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                if exc.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            if time.monotonic() >= end:
                holder = os.pread(self.descriptor, 300, 0).decode("utf-8", "replace").strip()
                raise Busy(self.busy % (" " + holder if holder else ""))
            time.sleep(0.2)

    def __exit__(self, *_exc):
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)
