# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files and directories that are either as they were or as they should be after a power cut.  Private to this collection."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_SYNC_FILE_RANGE_WAIT_BEFORE, _SYNC_FILE_RANGE_WRITE, _SYNC_FILE_RANGE_WAIT_AFTER = 1, 2, 4
# What a program may have written that is not on the disk yet, in bytes.
_AHEAD = 64 * 1024 * 1024


def sync_directory(path):
    """Make a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path):
    """Put every file and directory below `path` on the disk."""
    for directory, dummy, files in os.walk(path):
        for name in files:
            handle = os.open(os.path.join(directory, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_directory(directory)


def begin_writing(descriptor, start, size):
    """Have the kernel begin to write a part of a file to the disk, or nothing would be there when the end is waited for."""
    _sync_file_range(descriptor, start, size, _SYNC_FILE_RANGE_WRITE)


def _sync_file_range(descriptor, start, size, flags):
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(size), ctypes.c_uint(flags))


class WriteBack:
    """Lets a program that copies a large file wait for the disk now and then; a `watch` of run_tool().

    Otherwise the kernel keeps gigabytes in memory and writes them all at once, and an etcd that serves from the same disk waits for them at each write.
    """

    def __init__(self, path, source):
        """path: of the file, which it writes from front to back.  source: what it reads, which does not stay in memory: what it writes is needed there."""
        self._path = path
        self._source = source
        self._written = 0

    def __call__(self, group):
        """Never raises."""
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_size - self._written < _AHEAD:
                return
            os.killpg(group, signal.SIGSTOP)
            try:
                self._write()
            finally:
                os.killpg(group, signal.SIGCONT)

    def _write(self):
        with open(self._path, "rb") as written, open(self._source, "rb") as source:
            size = os.fstat(written.fileno()).st_size
            everything = _SYNC_FILE_RANGE_WAIT_BEFORE | _SYNC_FILE_RANGE_WRITE | _SYNC_FILE_RANGE_WAIT_AFTER
            _sync_file_range(written.fileno(), self._written, size - self._written, everything)
            os.posix_fadvise(source.fileno(), 0, size, os.POSIX_FADV_DONTNEED)
            self._written = size


def write_durably(path, text, mode=0o600, temporary=None):
    """Replace a small file, which has this mode then.

    temporary: where the text is written first, beside the file. It is removed when that fails.
    """
    temporary = temporary or path + ".new"
    _forget(temporary)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        _forget(temporary)
        raise
    sync_directory(os.path.dirname(path))


def rename_durably(source, target):
    """rename(2) within a file system, on the disk when it returns.

    Raises FileExistsError when there is something at `target`, into which mv would nest it.
    """
    if os.path.lexists(target):
        raise FileExistsError("%s exists already, so %s was not moved there" % (target, source))
    os.rename(source, target)
    for directory in sorted({os.path.dirname(source), os.path.dirname(target)}):
        sync_directory(directory)


def _forget(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def rewrite(path, text):
    """Another text for a file that keeps its mode, owner and SELinux label."""
    info, label = os.stat(path), selinux_label(path)
    write_durably(path, text, info.st_mode & 0o7777)
    os.chown(path, info.st_uid, info.st_gid)
    if label is not None:
        os.setxattr(path, "security.selinux", label)


def copy_ownership(old, new):
    """Give a tree the owner, the directory mode and the SELinux label of the directory that it replaces."""
    info = os.stat(old)
    label = selinux_label(old)
    os.chmod(new, info.st_mode & 0o7777)
    for directory, dummy, files in os.walk(new):
        for path in [directory] + [os.path.join(directory, name) for name in files]:
            os.chown(path, info.st_uid, info.st_gid)
            if label is not None:
                os.setxattr(path, "security.selinux", label)


def selinux_label(path):
    """The label of a file, None where there are none."""
    with contextlib.suppress(OSError):
        return os.getxattr(path, "security.selinux")
    return None
