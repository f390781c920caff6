# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a node serves a snapshot, and how a module that reads it keeps others from replacing it meanwhile.  Private to this collection."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

UNIT = "k8s-dr-browse"
DIRECTORY = "/run/" + UNIT
KUBECONFIG = DIRECTORY + "/kubeconfig"
# The file of DIRECTORY that says what is served, once that is so.
STATE = "state.json"


class InUse(Refused):
    """Another run begins, ends or reads what is served."""

    def __init__(self):
        super().__init__("another run begins to serve a snapshot on this host right now, or reads what is served; run this again when it has ended")


@contextlib.contextmanager
def locked(directory, shared=False):
    """Hold the directory for as long as this lasts, and return a descriptor of it.  shared: together with others that do so, to read."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            # another run may have removed it before this one got the lock
            valid = os.path.samestat(os.fstat(handle), os.stat(directory))
        except (BlockingIOError, FileNotFoundError):
            valid = False
        if not valid:
            raise InUse
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def in_use(kubeconfig, sha256=""):
    """What this kubeconfig is for is not ended or replaced by another run meanwhile.

    sha256: of the snapshot, where it is known.  Refused when it is not served, or another one is.  KubeError when it is not served any more once something
    failed meanwhile.  A kubeconfig of something else is no concern of this.
    """
    directory = os.path.dirname(os.path.abspath(kubeconfig))
    if directory != DIRECTORY:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(locked(directory, shared=True))
            # by the descriptor: what has this path by now may be another one
            with open(os.open(STATE, os.O_RDONLY, dir_fd=handle), encoding="utf-8") as stream:
                found = json.load(stream)["sha256"]
        except (FileNotFoundError, ValueError):
            raise Refused(_ended(sha256)) from None
        if sha256 and found != sha256:
            raise Refused("another run serves another snapshot on this host now, with the SHA-256 %s instead of %s; run this again" % (found, sha256))
        try:
            yield
        except KubeError as exc:
            if _is_served(handle):
                raise
            raise KubeError(_ended(sha256)) from exc


def _is_served(handle):
    try:
        os.stat(STATE, dir_fd=handle)
    except FileNotFoundError:
        return False
    return True


def _ended(sha256):
    again = "this again" if sha256 else "ansible-playbook k8s_dr.etcd.browse, and then this again"
    return "the snapshot is not served any more, because its time (etcd_browse_ttl) was over or another run ended it; run %s" % again
