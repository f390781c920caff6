# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A function of ours on another processor.  Private to this collection."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ended_with_parent

_BLOCK = 1024 * 1024


class Lost(Exception):
    """There is no copy of this process, or it ended without a result: one sentence without a capital and a full stop."""


class TimeIsUp(Exception):
    """There was no result in time."""


class Forked:
    """Runs a function in a copy of this process, and ends it where the context ends; this process must have one thread.

        with Forked(function) as forked:
            ...
            value = forked.result(deadline)

    function: is called without arguments, and returns what can be pickled.  What it changes is changed in the copy alone.
    nice: the niceness of the copy, unless this process has a higher one.
    """

    def __init__(self, function, nice=0):
        ended = ended_with_parent(nice)
        try:
            self._pipe, pipe = os.pipe()
        except OSError as exc:
            raise Lost("no second process can read it: %s" % exc.strerror) from exc
        self._pid, self._answer = None, bytearray()
        try:
            with signals.held() as mask:
                self._fork(function, pipe, ended, mask)
        except BaseException:
            # a signal that was held comes now
            self.__exit__()
            raise

    def _fork(self, function, pipe, ended, mask):
        try:
            self._pid = os.fork()
            if self._pid == 0:
                # whatever happens, the copy does not go on with what this process does, and puts nothing away that this process has made
                try:
                    os.close(self._pipe)
                    ended()
                    signals.end_at_once(mask)
                    _run(function, pipe)
                finally:
                    os._exit(0)
        except OSError as exc:
            raise Lost("no second process can read it: %s" % exc.strerror) from exc
        finally:
            os.close(pipe)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._wait()
        os.close(self._pipe)

    @property
    def ready(self):
        """Whether the function has ended."""
        return bool(select.select([self._pipe], [], [], 0)[0])

    def result(self, deadline=None):
        """What the function returned, or raises what it raised, Lost, or TimeIsUp.  deadline: in time.monotonic()."""
        while self._pid is not None:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            if not select.select([self._pipe], [], [], left)[0]:
                raise TimeIsUp
            more = os.read(self._pipe, _BLOCK)
            self._answer += more
            if not more:
                self._wait()
        try:
            raised, value = pickle.loads(self._answer)  # noqa: S301 - a copy of this process wrote it
        except (pickle.UnpicklingError, EOFError):
            raise Lost("the process that read it beside this one ended without a result") from None
        if raised:
            raise value
        return value

    def _wait(self):
        os.waitpid(self._pid, 0)
        self._pid = None


def _run(function, pipe):
    try:
        answer = (False, function())
    except Exception as exc:
        answer = (True, exc)
    data = memoryview(pickle.dumps(answer))
    while data:
        data = data[os.write(pipe, data) :]
