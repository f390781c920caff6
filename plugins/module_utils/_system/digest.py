# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checksums of files of any size.  Private to this collection."""

from __future__ import annotations

import contextlib
import hashlib
import os

_CHUNK = 1024 * 1024


def file_digests(path, names=("sha256",), progress=None, keep=True):
    """(size, {name: hex digest}) of a file, read once; a digest that this host forbids is left out.

    progress: is called with the bytes so far.  keep: whether it stays in memory, for whoever reads it next.
    """
    with open(path, "rb") as stream:

        def read(size):
            if not keep:
                os.posix_fadvise(stream.fileno(), 0, size, os.POSIX_FADV_DONTNEED)
            if progress:
                progress(size)

        return stream_digests(stream, names, read)


def stream_digests(stream, names=("sha256",), progress=None):
    """The same of an open file, from where it stands to its end."""
    digests, size = {}, 0
    for name in names:
        with contextlib.suppress(ValueError):
            digests[name] = hashlib.new(name)
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        size += len(chunk)
        for digest in digests.values():
            digest.update(chunk)
        if progress:
            progress(size)
    return size, {name: digest.hexdigest() for name, digest in digests.items()}


def sha256_of_file(path):
    """Hex digest of a file, or None when there is no such file."""
    try:
        return file_digests(path)[1]["sha256"]
    except FileNotFoundError:
        return None
