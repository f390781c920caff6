# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Having a cluster store its data as the etcd before it would, for as long as a snapshot takes.  Private to this collection.

From 3.6 on an etcd does not start on data of a later minor version.  `etcdctl downgrade enable` has the members write the storage version and the cluster
version of the minor version before theirs, while they go on serving, and `downgrade cancel` has them write their own again (3.6.16 and 3.7.3:
etcdserver/version/monitor.go, storage/schema/schema.go).  Nothing does it afterwards: `etcdutl migrate` leaves the cluster version, and the older etcd ends
with "invalid downgrade" (3.7.3 to 3.6.16).
"""

from __future__ import annotations

import contextlib
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError

# What has a storage version, and can be told to downgrade.
_FIRST = (3, 6)
# The leader looks every 4 s (3.6.16 and 3.7.3: etcdserver/server.go, monitorVersionInterval), and each member then stores what was decided.
_PATIENCE, _PAUSE = 60, 0.3


def _minor(version):
    return version_tuple(version)[:2]


def _words(minor):
    return "%d.%d" % minor


def check(status, etcdctl_version, target):
    """Refused where a cluster like this cannot store its data as `target`, such as "3.6", would.  status: of EtcdClient."""
    server, wanted = _minor(status["version"]), _minor(target)
    if server < _FIRST or wanted != (server[0], server[1] - 1):
        possible = "only as etcd %s would" % _words((server[0], server[1] - 1)) if server >= _FIRST else "in no other way"
        raise Refused("etcd %s can store its data %s, not as etcd %s would; nothing was taken" % (status["version"], possible, target))
    if _minor(etcdctl_version) < _FIRST:
        raise Refused("etcdctl %s cannot have a cluster store its data as etcd %s would; use that of etcd %s" % (etcdctl_version, target, status["version"]))
    if status["downgrade_target"] and _minor(status["downgrade_target"]) != wanted:
        raise Refused("etcd is being downgraded to %s; nothing was taken" % status["downgrade_target"])


class Downgrade:
    """A cluster that stores its data as `target` would while this lasts.

    After the end, `problem` is one sentence when the members do not store it as before, else None.  A cluster that was told to downgrade before stays so.
    """

    def __init__(self, client, target):
        self._client, self._target = client, target
        self._was_told, self._ours, self._before = False, False, ()
        self.problem = None

    def __enter__(self):
        status = self._client.status()
        self._was_told, self._before = bool(status["downgrade_target"]), _minor(status["version"])
        try:
            if not self._was_told:
                self._client.run("downgrade", "validate", self._target)
                # from here on it may have been told, whatever becomes of the answer
                self._ours = True
                self._client.run("downgrade", "enable", self._target)
            if not self._stores(_minor(self._target)):
                raise Refused("etcd did not begin to store its data as etcd %s would within %d seconds; nothing was taken" % (self._target, _PATIENCE))
        except BaseException as exc:
            self._cancel()
            if self.problem:
                raise Refused("%s; %s" % (getattr(exc, "message", exc), self.problem)) from exc
            raise
        return self

    def __exit__(self, _kind, exc, _traceback):
        # another run may have ended what was begun before
        if not exc and self._was_told and not self._client.status()["downgrade_target"]:
            raise Refused("the downgrade to etcd %s was cancelled while the snapshot was taken, so it was not kept; run this again" % self._target)
        self._cancel()
        if exc and self.problem:
            raise Refused("%s; %s" % (getattr(exc, "message", exc), self.problem)) from exc

    def _stores(self, wanted):
        """Whether the member stores its data in this way before long."""
        end = time.monotonic() + _PATIENCE
        while _minor(self._client.status()["storage_version"]) != wanted:
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        return True

    def _cancel(self):
        if not self._ours:
            return
        done = False
        with contextlib.suppress(ToolError):
            # It reports success even where there is nothing to cancel (3.7.3: etcdserver/v3_server.go, downgradeCancel).
            self._client.run("downgrade", "cancel")
            done = not self._client.status()["downgrade_target"] and self._stores(self._before)
        if not done:
            self.problem = "the cluster is told to downgrade to etcd %s: run `etcdctl downgrade cancel`" % self._target
