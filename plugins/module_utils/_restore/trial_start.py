# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an etcd starts on a snapshot, tried beside the node's own `snapshot restore` before anything is stopped.  Private to this collection."""

from __future__ import annotations

import contextlib
import os
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import restore_misfit, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import status as snapshot_status
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import WriteBack
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import StartedTool, ToolError, find_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

# The logs of a restored and started etcd, in bytes.
_OWN_SPACE = 160 * 1024 * 1024
# Bytes of a snapshot that is not restored twice at once: the API server waits for a disk that both keep busy.
_LARGE = 1 << 30


class _NotTried(Exception):
    """Why it is not known whether an etcd starts on it: one sentence without a capital and a full stop."""


class TrialStart:
    """`snapshot restore` into a temporary directory, and the start of an isolated etcd on that; both run while the caller does something else.

        with TrialStart(options, tool, image, place) as trial:
            trial.begin()
            ...
            trial.advance()  # from time to time
            ...
            trial.finish()

    options: snapshot, etcd, etcdctl, endpoint; step_timeout, the seconds that the restore may take, and trial_timeout, those of the start.
    tool: the Tool that restores.  image: the version of etcd's image, or "".  place: where the directory is made.
    `is_large` says after begin() whether it should finish() and end() before something else is done.
    `reason` says after finish() why it could not be tried: one sentence without a capital and a full stop, or None.
    """

    def __init__(self, options, tool, image, place):
        self.reason = None
        self.is_large = False
        self._options = options
        self._tool = tool
        self._image = image
        self._place = place
        self._deadline = time.monotonic() + options["step_timeout"]
        self._work = None
        self._server = None
        self._restoring = None
        self._served = None
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.end()

    def end(self):
        """End what still runs, and remove what was restored."""
        self._restoring = self._served = None
        self._stack.close()

    def begin(self):
        """Begin to restore the snapshot."""
        self._guard(self._restore)

    def advance(self):
        """Start an etcd on the snapshot as soon as that is restored."""
        if self._restoring and not self._restoring.running:
            self._guard(self._start)

    def finish(self):
        """Wait until the etcd serves.  Raises TransactionError when it does not start on the snapshot."""
        if self._restoring:
            self._guard(self._start)
        if self._served:
            self._guard(self._served.wait)

    def _guard(self, step):
        try:
            step()
            return
        except isolated_server.NeedsUser:
            # it serves, and that is all that is asked here
            return
        except isolated_server.Unservable as exc:
            self.reason = self._refused(exc)
        except (_NotTried, isolated_server.ThrowawayError) as exc:
            self.reason = str(exc)
        except ToolError as exc:
            self.reason = exc.message
        except OSError as exc:
            self.reason = os_error_words(exc)
        self._restoring = self._served = None

    def _restore(self):
        options, size = self._options, os.path.getsize(self._options["snapshot"])
        # first of all, since the room that a killed run took is needed again
        self._work = self._stack.enter_context(WorkDir(self._place)).path
        self.is_large = size > _LARGE
        # The node's own restore is written there as well, or later.
        times = 1 if self.is_large else 2
        short = shortage(self._place, times * (int(size * 1.1) + _OWN_SPACE), "restoring the snapshot%s" % (" twice" if times == 2 else ""))
        if short:
            raise _NotTried(short)
        isolated_server.check_memory(size)
        etcdctl = find_tool("etcdctl", options["etcdctl"])
        self._server = self._stack.enter_context(isolated_server.find_server(options["etcd"], options["endpoint"], etcdctl, self._image))
        misfit = restore_misfit(self._tool.version, self._server.version)
        if misfit:
            raise _NotTried(misfit)
        argv = [self._tool.path, "snapshot", "restore", os.path.abspath(options["snapshot"]), "--data-dir", self._data]
        self._restoring = StartedTool(argv, bound=True, nice=10)
        self._stack.callback(self._restoring.end)

    def _start(self):
        restoring, self._restoring = self._restoring, None
        result = restoring.finish(max(0, self._deadline - time.monotonic()), watch=WriteBack(database_path(self._data), self._options["snapshot"]))
        how = "`%s snapshot restore` %s: %s" % (self._tool.name, result.how(), result.last_words())
        if result.timed_out or result.rc in snapshot_status.ENDED_FROM_OUTSIDE or (result.rc != 0 and snapshot_status.HOST_TROUBLE.search(result.stderr)):
            raise _NotTried(how)
        if result.rc != 0:
            raise TransactionError("%s cannot be restored: %s. Nothing was done; choose another snapshot" % (self._options["snapshot"], how))
        etcdctl, timeout = find_tool("etcdctl", self._options["etcdctl"]), self._options["trial_timeout"]
        self._served = isolated_server.Throwaway(
            self._server, self._work, self._data, etcdctl, time.monotonic() + timeout
        )
        self._stack.callback(self._served.end)
        self._served.start()

    @property
    def _data(self):
        return os.path.join(self._work, "data")

    def _refused(self, exc):
        """What it means that the etcd does not start."""
        if self._server.whose in ("given", "found") and self._image and version_tuple(self._image)[:2] != version_tuple(self._server.version)[:2]:
            return "this host's etcd is %s, and %s" % (self._image, exc)
        raise TransactionError("%s does not start: %s. Nothing was done; choose another snapshot" % (self._options["snapshot"], exc)) from exc
