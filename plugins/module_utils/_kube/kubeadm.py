# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What kubeadm does to this node now, and what its upgrades left behind.  Private to this collection.

Only a process shows that an upgrade is under way.  What it puts into /etc/kubernetes/tmp (1.34.4 to 1.37.2: phases/upgrade/staticpods.go) does not:

    kubeadm-backup-manifests-TIME     the manifests from before it; they stay for good, whether it went well or not
    kubeadm-backup-etcd-TIME          the same of etcd's data
    kubeadm-upgraded-manifests*       the new manifests, until they are moved; removed in the end, but not when it failed and went back, or was killed
"""

from __future__ import annotations

import glob
import os
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import age, processes

# (1.37.2: cmd/kubeadm/app/cmd/cmd.go)
_COMMANDS = ("alpha", "certs", "completion", "config", "help", "init", "join", "kubeconfig", "reset", "token", "upgrade", "version")
# What writes or removes manifests, certificates or etcd's data.  `upgrade plan`, `upgrade diff` and the other commands do not.
_CHANGES = {"init": (), "join": (), "reset": (), "certs": ("renew",), "upgrade": ("apply", "node")}


def _command(arguments):
    """'upgrade apply' of the words behind `kubeadm`; '' for what changes nothing."""
    words = [word for word in arguments if not word.startswith("-")]
    while words and words[0] not in _COMMANDS:
        # the value of a flag
        words.pop(0)
    if not words or words[0] not in _CHANGES or "--help" in arguments or "-h" in arguments:
        return ""
    deeper = _CHANGES[words[0]]
    if not deeper:
        return words[0]
    return next(("%s %s" % (words[0], word) for word in words[1:] if word in deeper), "")


def running(proc="/proc"):
    """[{pid, command, seconds}] of each kubeadm that changes this node now, oldest first."""
    found = []
    for process in processes(proc):
        if not re.match(r"kubeadm([-_.]?v?[0-9].*)?$", process.name):
            continue
        try:
            with open(os.path.join(proc, str(process.pid), "cmdline"), "rb") as stream:
                arguments = stream.read().decode("utf-8", "replace").split("\0")[1:]
        except OSError:
            # it ended while we looked
            continue
        command = _command(arguments)
        if command:
            found.append({"pid": process.pid, "command": "kubeadm " + command, "seconds": int(age(process.pid, proc))})
    return sorted(found, key=lambda each: -each["seconds"])


def kept_manifests(manifests_dir, components):
    """{component: path} of the newest manifests that kubeadm kept when it exchanged them; a component without one is not in it."""
    found = {}
    # their names end with the time, so they sort
    for directory in sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(os.path.realpath(manifests_dir))), "tmp", "kubeadm-backup-manifests*"))):
        for component in components:
            path = os.path.join(directory, component + ".yaml")
            if os.path.isfile(path):
                found[component] = path
    return found
