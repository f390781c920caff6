# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of this host that the flags of a control plane name, as audit policies and webhook configurations.  Private to this collection."""

from __future__ import annotations

import os
import re
import stat

# What kubeadm writes by itself, with the keys of this very host.
_KUBECONFIGS = ("admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf")
_PATH = re.compile(r"(?<![A-Za-z0-9._/:-])/[A-Za-z0-9._+@-]+(?:/[A-Za-z0-9._+@-]+)+")
# A configuration is small; what is larger is written by the program.
_MOST = 1024 * 1024


def named_paths(pod):
    """{path as the container sees it: path on the host} of what the flags of a StaticPod name; logs are written, and are left out."""
    found = {}
    for flag in pod.flags:
        if "log" not in flag.split("-"):
            for value in pod.values(flag):
                found.update(_mounted(pod, value))
    return found


def named_files(pods, without=()):
    """The paths on this host of all small files that the flags name, and of those that these name in turn, as the kubeconfig of a webhook names a CA.

    pods: {component: StaticPod}.  without: directories and files that are left out, with all below them.
    """
    found = set()
    for pod in pods.values():
        todo = list(named_paths(pod).values())
        while todo:
            path = todo.pop()
            if path in found or os.path.basename(path) in _KUBECONFIGS or any(_is_below(path, other) for other in without):
                continue
            text = _small_file(path)
            if text is not None:
                found.add(path)
                todo += _mounted(pod, text).values()
    return sorted(found)


def _mounted(pod, text):
    paths = {match.group(0) for match in _PATH.finditer(text)}
    return {path: there for path, there in ((path, pod.host_path(path)) for path in paths) if there}


def _is_below(path, other):
    return path == other or path.startswith(other.rstrip("/") + "/")


def _small_file(path):
    """Its text; None for what is no small file."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MOST:
            return None
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_MOST)
    except OSError:
        return None
