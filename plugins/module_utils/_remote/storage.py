# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where snapshots are stored, on this host or off-site, to modules that do the same in both.  Private to this collection.

    place = of(module.params)                      # directory, remote, rclone_config, rclone, lock_timeout, and for some signers
    with place.locked(module.check_mode):
        place.snapshots()                          # as SnapshotDirectory.snapshots() has them, newest first
        place.remove(snapshot)                     # one of them
"""

from __future__ import annotations

import contextlib
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import snapshots as remote_snapshots, store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import fingerprints, signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

ANY = "any"


class Directory:
    """Snapshots on this host."""

    # each host has its own
    shared = False

    def __init__(self, params):
        self.path = os.path.realpath(params["directory"])
        self.directory = SnapshotDirectory(self.path, signature.signers_of(params.get("signers")))
        self.lock_timeout = params["lock_timeout"]

    def locked(self, check_mode):
        """A context in which no other run changes the place."""
        if check_mode or not os.path.isdir(self.path):
            return contextlib.nullcontext()
        return self.directory.lock(self.lock_timeout)

    def tidy(self):
        """Finish what interrupted runs left."""
        if os.path.isdir(self.path):
            self.directory.tidy()

    def snapshots(self):
        return self.directory.snapshots(brief=True)

    def lost(self, dummy):
        """An interrupted removal leaves no manifest here without its partial directory."""
        return []

    def locked_until(self, dummy):
        """Nothing here has a lock."""
        return {}

    def remove(self, snapshot, dummy=None):
        self.directory.remove(snapshot["file"])

    def note_hold(self, snapshot, hold, check_mode):
        """Note in its manifest that a snapshot is held, or that it no longer is.  Takes the lock itself."""
        if not check_mode:
            self.directory.note(snapshot["file"], snapshot["sha256"], self.lock_timeout, hold=hold)


class OffSite:
    """Snapshots behind rclone."""

    # all hosts of a cluster have one
    shared = True

    def __init__(self, params):
        self.remote = remote_store.Remote(params["remote"], params["rclone_config"], params["rclone"])
        self.path = self.remote.where
        self.signers = signature.signers_of(params.get("signers"))

    def locked(self, check_mode):
        """There is no lock off-site: what is sent meanwhile is newer than what is removed."""
        return contextlib.nullcontext()

    def tidy(self):
        """Nothing can be told apart there from what is being sent just now, but what lost() finds."""

    def snapshots(self):
        return remote_snapshots.list_snapshots(self.remote, brief=True, signers=self.signers)

    def lost(self, snapshots):
        """Manifests whose snapshots are gone."""
        return [one for one in snapshots if one["size"] is None and one.get("created")]

    def locked_until(self, snapshots):
        """{name of a snapshot: until when S3 Object Lock protects it}, of those with a lock."""
        return remote_snapshots.locked_until(self.remote, [one["file"] for one in snapshots])

    def remove(self, snapshot, locked_until=None):
        """locked_until: what locked_until() has said of it.  Where there are locks there are versions, and what is only hidden would stay for ever."""
        remote_snapshots.remove(self.remote, snapshot["file"], versions=locked_until is not None)

    def note_hold(self, snapshot, hold, check_mode):
        """As Directory has it."""
        remote_snapshots.note(self.remote, snapshot["file"], snapshot["sha256"], check_mode=check_mode, hold=hold)


def of(params):
    """The place that the options of a module name."""
    return OffSite(params) if params["remote"] else Directory(params)


def whose(params):
    """The etcd CA of the cluster whose snapshots may be removed: the one that is named, or that of this host; ANY, or None for those without one."""
    own = params["etcd_ca"] or fingerprints.fingerprints(params["manifests_dir"])["etcd_ca"]
    # a directory on a host that is of no cluster is a collection by hand, and one off-site may be of any cluster
    return own or (None if params["remote"] else ANY)


def named(place, snapshots, name, required):
    """The snapshot of that name among those of the place, None where there is none.  Refused where it is missing and required, or is no snapshot of ours."""
    if not name or name != os.path.basename(name):
        raise Refused("%s is not the name of a snapshot; give the name of the file without its directory, as list.yml shows it" % (name or "an empty text"))
    found = next((one for one in snapshots if one["file"] == name), None)
    if found is None and required:
        others = ", ".join(one["file"] for one in snapshots[:5])
        raise Refused("%s has no snapshot %s; %s" % (place.path, name, "there are: " + others if others else "there is none"))
    if found is not None and not found.get("created"):
        raise Refused("%s is not known to be a snapshot of this collection: %s" % (found["path"], found["problem"]))
    return found
