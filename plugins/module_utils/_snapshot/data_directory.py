# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A data directory that no etcd uses, of which a snapshot is taken.  Private to this collection.

An etcd writes to its log first.  One that ended in order has nothing in the log that is not in the database, which then is all of the snapshot.  Of any
other a copy is served, and that etcd is asked.
"""

from __future__ import annotations

import contextlib
import os
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, isolated_server, members_on_disk, mvcc, wal
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import find_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import existing, shortage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

# Room for the logs of an etcd that starts.
_LOG_SPACE = 130 * 1024 * 1024
# Milliseconds before the copy elects itself, in which it tells the members as the data names them; it takes up to twice as long.
_ELECTION = 300


class StoppedMember:
    """A member whose database has all of its log, asked like an EtcdClient.

    path: of the data directory.  version: of its etcd.  ids: its own and its cluster's.  members: of its cluster.  etcdctl: path, or None.
    """

    def __init__(self, path, version, ids, members, etcdctl, timeout):
        self.endpoint, self.binary, self.timeout = path, etcdctl, timeout
        self._database = isolated_server.database_of(path)
        self._members = members
        with boltdb.SnapshotFile(self._database) as database:
            self._status = {"version": version, "db_size": database.used(), "is_learner": False}
        self._status.update(zip(("member_id", "cluster_id"), ids), leader_id=ids[0])

    def status(self):
        return self._status

    def members(self):
        return self._members

    def alarms(self):
        return []

    def save(self, target):
        """Write a snapshot; its Hashed."""
        with isolated_server.unused(self.endpoint):
            try:
                return boltdb.write_snapshot(self._database, target)
            except boltdb.Corrupt as exc:
                raise isolated_server.Unservable(str(exc)) from exc

    def count_objects(self, target, hashed, inventory, seconds):
        """(inventory, None) of the objects in the snapshot, or (None, why there is none)."""
        try:
            with mvcc.SnapshotKeys(target, os.path.dirname(target), time.monotonic() + seconds, hashed) as keys:
                keys.read()
                for key, *dummy in keys:
                    inventory.add(key.decode("utf-8", "replace"))
        except (mvcc.Unreadable, mvcc.NoRoom) as exc:
            return None, str(exc).replace(target, "the snapshot")
        except boltdb.OutOfTime:
            return None, "counting the objects took longer than %d seconds" % seconds
        return inventory.as_dict(), None


class DataDirectory:
    """Served while it is a context, if it has to be.

    path: of the data directory, or of what is called `member` in it; it is only read.  work_dir: in whose file system the copy is made, beside the
    data by default.  options: etcd, etcdctl, endpoint, timeout, save_timeout, bundle.  image_version: of the etcd of this host, "" where that is unknown.
    """

    def __init__(self, path, work_dir, options, image_version):
        self.path = os.path.realpath(path)
        self.work_dir = work_dir or os.path.dirname(self.path)
        self.options = options
        self.image_version = image_version
        # who is asked, and the members that the data names
        self.client = None
        self.members = []
        self._work = None
        self._server = None
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return self._stack.__exit__(*exc)

    def check(self, directory, check_mode, room):
        """Refused when it cannot be served, as far as that is to be seen from outside; the version of the server program otherwise.

        directory: a SnapshotDirectory for the snapshot, which needs room(database size) there.
        """
        database = isolated_server.database_of(self.path)
        if procs.database_is_locked(database):
            raise Refused("an etcd uses %s right now; nothing was taken" % self.path)
        if not os.path.isdir(self.work_dir):
            raise Refused("%s is not a directory" % self.work_dir)
        if not check_mode:
            # first of all, since the room that a killed run took is needed again
            self._work = self._stack.enter_context(WorkDir(self.work_dir))
        self.client = self._stopped_member(database)
        self._check_room(directory, os.path.getsize(database), room)
        if self.client:
            return self.image_version
        isolated_server.check_memory(os.path.getsize(database))
        etcdctl = find_tool("etcdctl", self.options["etcdctl"])
        self._server = self._stack.enter_context(
            isolated_server.find_server(self.options["etcd"], self.options["endpoint"], etcdctl, self.image_version)
        )
        return self._server.version

    def _stopped_member(self, database):
        """The StoppedMember where the database is complete and nothing else has to be asked; None otherwise."""
        if self.options["bundle"] or not self.image_version:
            return None
        root = os.path.dirname(os.path.dirname(database))
        try:
            index, *ids = wal.end(os.path.join(root, "wal"))
        except (wal.WalError, OSError):
            return None
        with boltdb.SnapshotFile(database) as opened:
            found = opened.glance((b"meta", b"alarm")) or {}
        # the index of the newest entry that is in the database (3.7.3: server/etcdserver/cindex; 3.4.45: mvcc/kvstore.go, saveIndex)
        applied = int.from_bytes(found.get(b"meta", {}).get(b"consistent_index", b""), "big")
        members = members_on_disk.in_member(root)[0]
        voting = [member["id"] for member in members if not member["is_learner"]]
        if applied < index or found.get(b"alarm") or ids[0] not in voting:
            return None
        return StoppedMember(self.path, self.image_version, ids, members, self.options["etcdctl"], self.options["timeout"])

    def _check_room(self, directory, database_size, room):
        if self.client:
            short = directory.shortage(room(database_size), "a snapshot")
            if short:
                raise Refused("%s; nothing was taken and nothing removed" % short)
            return
        copied = sum(os.path.getsize(path) for path in isolated_server.files_of(self.path)) + _LOG_SPACE
        what = "a copy of %s" % self.path
        if os.stat(existing(directory.path)).st_dev == os.stat(self.work_dir).st_dev:
            copied += room(database_size)
            what += " with a snapshot of it"
            short = shortage(self.work_dir, copied, what)
        else:
            short = shortage(self.work_dir, copied, what) or directory.shortage(room(database_size), "a snapshot")
        if short:
            raise Refused("%s; nothing was taken and nothing removed" % short)

    def serve(self):
        """Copy it and serve the copy, unless it is complete; afterwards there are `client` and `members`."""
        if self.client:
            self.members = self.client.members()
            return
        copy = os.path.join(self._work.path, "data")
        isolated_server.copy_data(self.path, copy)
        stored = members_on_disk.on_disk(copy)[0]
        try:
            served = self._serve(copy)
            self.members = with_names(served.members, stored)
        except isolated_server.NotAlone as exc:
            self.members = with_names(exc.members, stored)
            try:
                wal.commit_all(os.path.join(copy, "member", "wal"))
            except (wal.WalError, OSError) as problem:
                raise isolated_server.Unservable("its write-ahead log cannot be read: %s" % problem) from problem
            served = self._serve(copy, force_new_cluster=True)
        self.client = served.client

    def _serve(self, copy, **more):
        deadline = time.monotonic() + self.options["save_timeout"]
        etcdctl = find_tool("etcdctl", self.options["etcdctl"])
        throwaway = isolated_server.Throwaway(
            self._server, self._work.path, copy, etcdctl, deadline, self.options["timeout"], election=_ELECTION, **more
        )
        return self._stack.enter_context(throwaway)


def with_names(members, stored):
    """The members that a copy told, with names and client URLs from its disk where it told none: once it is elected it has written its own over them."""
    known = {member["id"]: member for member in stored}
    return [
        dict(member, **{one: member[one] or known.get(member["id"], {}).get(one, member[one]) for one in ("name", "client_urls")}) for member in members
    ]
