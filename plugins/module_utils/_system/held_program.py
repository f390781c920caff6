# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server program of a container image, which is run outside of its container.  Private to this collection."""

from __future__ import annotations

import glob
import os
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool

# Where container runtimes unpack images: containerd (2.4.2: plugins/snapshots/overlay/overlay.go), CRI-O, Docker.
_UNPACKED = (
    "/var/lib/containerd/io.containerd.snapshotter.v1.*/snapshots/*/fs/usr/local/bin/%s",
    "/var/lib/containers/storage/overlay/*/diff/usr/local/bin/%s",
    "/var/lib/docker/overlay2/*/diff/usr/local/bin/%s",
)


class ProgramError(Exception):
    """Why a program cannot be run: one sentence, without a capital and a full stop."""


class HeldProgram:
    """A program that is held open, so that it stays the same and there even when its container goes.

    what: "an etcd server", for messages.  pattern: what `--version` prints, with the version as its group.
    """

    def __init__(self, path, what, pattern, timeout=10):
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise ProgramError("%s cannot be run: %s" % (path, exc.strerror)) from exc
        # Other processes reach it through this process's table.
        self.program = "/proc/%d/fd/%d" % (os.getpid(), self._descriptor)
        try:
            result = run_tool([self.program, "--version"], timeout)
        except ToolError as exc:
            self.close()
            raise ProgramError(exc.message.replace(self.program, path)) from exc
        match = re.search(pattern, result.stdout, re.MULTILINE)
        if result.rc != 0 or not match:
            self.close()
            raise ProgramError("%s is not %s: `%s --version` %s" % (path, what, path, result.how()))
        self.version = match.group(1)

    def close(self):
        os.close(self._descriptor)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()


def unpacked(name):
    """Paths of a program in images that a container runtime has unpacked."""
    return sorted(path for pattern in _UNPACKED for path in glob.glob(pattern % name))
