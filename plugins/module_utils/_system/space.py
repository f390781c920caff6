# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Room on a disk.  Private to this collection."""

from __future__ import annotations

import contextlib
import os


def human(size):
    return "%.1f GB" % (size / 1e9) if size >= 1e9 else "%.1f MB" % (size / 1e6)


def existing(path):
    """The path, or its nearest ancestor that exists."""
    path = os.path.realpath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def free_bytes(path):
    """What anybody but root may still write where `path` is or would be."""
    found = os.statvfs(existing(path))
    return found.f_bavail * found.f_frsize


def shortage(path, needed, what, more=0):
    """One sentence when `what` needs more bytes than are free at `path`, else None.  more: bytes that can be freed there first."""
    free = free_bytes(path) + more
    return "%s has %s free and %s needs %s" % (path, human(free), what, human(needed)) if free < needed else None


def bytes_below(path):
    """Bytes on disk of the files below `path`, as du counts them; 0 when it does not exist."""
    total = 0
    for directory, dummy, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total
