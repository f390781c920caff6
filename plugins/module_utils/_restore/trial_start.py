# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an etcd starts on a snapshot, tried beside other work before the live etcd is stopped.  Private to this collection."""

from __future__ import annotations

import os
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, offline_tool, restore_misfit, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import status as snapshot_status
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import StartedTool, ToolError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage

# The logs of a restored and started etcd, in bytes.
_OWN_SPACE = 160 * 1024 * 1024
# What one question to etcd may take is for a question, not for the start of a server.
_QUESTION_SECONDS = 30


class Unusable(Exception):
    """The snapshot must not be restored: one sentence."""


class NotTried(Exception):
    """Why it is not known whether an etcd starts on it: one sentence without a capital and a full stop."""


class TrialStart:
    """`snapshot restore` into `work`/data, and the start of an isolated etcd on that; both run while the caller does something else.

        trial = TrialStart(options, etcdctl, image, work, deadline)
        try:
            trial.begin()
            ...
            trial.advance()  # from time to time
            ...
            trial.finish()
        finally:
            trial.end()

    options: snapshot, work_dir (which `work` is below), endpoint, etcd, etcdctl, etcdutl, timeout.  image: the version of etcd's image, or "".
    deadline: in time.monotonic().  Where it cannot be tried, finish() says why, and nothing before it.
    """

    def __init__(self, options, etcdctl, image, work, deadline):
        self.server = None
        self._options = options
        self._etcdctl = etcdctl
        self._image = image
        self._work = work
        self._data = os.path.join(work, "data")
        self._deadline = deadline
        self._tool = None
        self._restoring = None
        self._served = None
        self._finished = False
        # the exception that it ended with
        self._failed = None

    def end(self):
        """End what still runs."""
        if self._restoring:
            self._restoring.end()
        if self._served:
            self._served.end()
        if self.server:
            self.server.close()

    def begin(self):
        """Begin to restore the snapshot."""
        self._guard(self._restore)

    def advance(self):
        """Start an etcd on the snapshot as soon as that is restored."""
        if self._restoring and not self._restoring.running:
            self._guard(self._start)

    def finish(self):
        """The Throwaway that serves the snapshot; raises Unusable, NotTried, and NeedsUser and TimeIsUp of isolated_server."""
        if self._restoring:
            self._guard(self._start)
        if not self._failed and not self._finished:
            self._guard(self._served.wait)
        self._finished = True
        if self._failed:
            raise self._failed
        return self._served

    def _guard(self, step):
        try:
            step()
        except isolated_server.Unservable as exc:
            self._failed = self._refused(exc)
        except (Unusable, NotTried, isolated_server.TimeIsUp, isolated_server.NeedsUser) as exc:
            self._failed = exc
        except isolated_server.ThrowawayError as exc:
            self._failed = NotTried(str(exc))
        except ToolError as exc:
            self._failed = NotTried(exc.message)

    def _restore(self):
        options = self._options
        self.server = isolated_server.find_server(options["etcd"], options["endpoint"], self._etcdctl, self._image)
        self._tool = offline_tool("restore", *find_tools(options["etcdctl"], options["etcdutl"], options["timeout"]))
        if self._tool is None:
            raise NotTried("neither etcdctl nor etcdutl on this host can restore a snapshot")
        misfit = restore_misfit(self._tool.version, self.server.version)
        if misfit:
            raise NotTried(misfit)
        size = os.path.getsize(options["snapshot"])
        short = shortage(options["work_dir"], int(size * 1.1) + _OWN_SPACE, "serving the snapshot")
        if short:
            raise NotTried(short)
        isolated_server.check_memory(size)
        argv = [self._tool.path, "snapshot", "restore", os.path.abspath(options["snapshot"]), "--data-dir", self._data]
        self._restoring = StartedTool(argv, bound=True)

    def _start(self):
        result = self._restoring.finish(max(0, self._deadline - time.monotonic()))
        self._restoring = None
        if result.timed_out:
            raise isolated_server.TimeIsUp("`%s snapshot restore` did not end in time" % self._tool.name)
        how = "`%s snapshot restore` %s: %s" % (self._tool.name, result.how(), result.last_words())
        if result.rc in snapshot_status.ENDED_FROM_OUTSIDE or (result.rc != 0 and snapshot_status.HOST_TROUBLE.search(result.stderr)):
            raise NotTried(how)
        if result.rc != 0:
            raise Unusable("%s cannot be restored, so nothing was done: %s" % (self._options["snapshot"], how))
        self._served = isolated_server.Throwaway(self.server, self._work, self._data, self._etcdctl, self._deadline, _QUESTION_SECONDS)
        self._served.start()

    def _refused(self, exc):
        """What it means that the etcd does not start."""
        if self.server.whose in ("given", "found") and self._image and version_tuple(self._image)[:2] != version_tuple(self.server.version)[:2]:
            return NotTried("this host's etcd is %s, and %s" % (self._image, exc))
        return Unusable("%s does not start: %s. Nothing was done; choose another snapshot" % (self._options["snapshot"], exc))
