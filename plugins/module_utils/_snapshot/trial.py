# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What etcd's programs do with a snapshot while this process reads its file: a restore, and an etcd on the restored data.  Private to this collection."""

from __future__ import annotations

import contextlib
import os
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.reading import Comparison, Unproven
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import StartedTool, ToolError

# Between two looks at the restore, and between two questions to an etcd that starts, each of which may take so long.
_LOOK_SECONDS, _ASK_AGAIN_SECONDS, _ASK_SECONDS = 0.02, 0.2, 0.05
# An etcd that begins to serve still writes who it is and what version its cluster has (0.1 s later with 3.6.16 and 3.7.3), and a hash from before that
# would have to be asked for again, which takes longer than to wait where the database has so many bytes.
_SETTLED_SECONDS, _LARGE = 0.2, 256 * 1024 * 1024


class Trial:
    """A trial restore that has begun, and then an etcd that is asked for its hashes as soon as it serves.

    look() goes on with it, and never raises; restored() and served() wait, and raise what went wrong.  end() ends what still runs.
    """

    def __init__(self, tool, path, work):
        """tool: restores the snapshot at `path`.  work: directory in which the data and the sockets of etcd are."""
        self.tool = tool
        self.data = os.path.join(work, "data")
        self.began, self.ended = time.monotonic(), None
        self._restoring = StartedTool([tool.path, "snapshot", "restore", path, "--data-dir", self.data], bound=True)
        self._result = None
        self._start = None
        self._next = 0
        self._problem = None
        # a Throwaway, when it was started, and how many seconds it took until it served
        self.etcd, self.started, self.start = None, None, None
        # what it was asked at once: a Comparison, and what begin_hash_kv() returned
        self.comparison, self.hash_kv = None, None

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.etcd:
            self.etcd.end()
        self._restoring.end()

    def then(self, start):
        """Start an etcd when the data is restored.  start: is called with the directory of the data, and returns a Throwaway that is not started."""
        self._start = start

    def look(self):
        """Do what is due.  It is called every few milliseconds."""
        now = time.monotonic()
        if now < self._next or self._problem:
            return
        self._next = now + _LOOK_SECONDS
        try:
            self._look(now)
        except (isolated_server.ThrowawayError, Unproven, ToolError) as exc:
            self._problem = exc
        except OSError as exc:
            self._problem = Unproven("no etcd can be started on what was restored: %s" % exc.strerror)

    def _look(self, now):
        if self._result is None:
            if self._restoring.running:
                return
            self.restored(0)
        if self._start is None or self.comparison is not None or self._result.rc != 0:
            return
        if self.etcd is None:
            self._begin()
            return
        if self.start is None:
            self._next = now + _ASK_AGAIN_SECONDS
            if self.etcd.serves(_ASK_SECONDS):
                self._serves()
                self._next += _SETTLED_SECONDS
        elif self.comparison is None:
            self._ask()

    def _begin(self):
        etcd = self._start(self.data)
        self.started = time.monotonic()
        # it is to be ended even when it does not start
        self.etcd = etcd
        etcd.start()

    def _serves(self):
        self.start = round(time.monotonic() - self.started, 2)

    def _ask(self):
        self.comparison = Comparison(self.etcd, database_path(self.data))
        self.hash_kv = self.etcd.begin_hash_kv()

    def restored(self, timeout):
        """The ToolResult of the restore."""
        if self._result is None:
            self._result = self._restoring.finish(timeout)
            self.ended = time.monotonic()
        return self._result

    def served(self):
        """The Throwaway, once it serves.  Raises what start() and Throwaway raise."""
        if self._problem:
            raise self._problem
        if self.etcd is None:
            self._begin()
        if self.start is None:
            self.etcd.wait()
            self._serves()
            with contextlib.suppress(OSError):
                time.sleep(_SETTLED_SECONDS if os.path.getsize(database_path(self.data)) > _LARGE else 0)
        if self.comparison is None:
            self._ask()
        return self.etcd
