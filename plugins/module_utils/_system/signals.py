# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A task that is cancelled puts away what is half done, as it would after a failure.  Private to this collection."""

from __future__ import annotations

import contextlib
import signal

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(BaseException):
    """Somebody ended this process; no handler of errors is to take it for one."""

    def __init__(self, number):
        super().__init__("it was ended by %s" % signal.Signals(number).name)


def raise_when_ended():
    """From now on raise Ended where the process would otherwise be gone without a word."""

    def handle(number, _frame):
        # A second one must not interrupt the putting away.
        for one in _ENDING:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    for number in _ENDING:
        signal.signal(number, handle)


def end_at_once(mask):
    """In a copy of this process, which has nothing to put away: let it end by the signals that were held.  mask: of held()."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class OutOfTime(Exception):
    """What limited() bounds took longer."""


@contextlib.contextmanager
def limited(seconds):
    """Raise OutOfTime in what takes longer, wherever it waits."""

    def handle(_number, _frame):
        raise OutOfTime("it was not finished within %d s" % seconds)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def held():
    """While a process is started that has to be known before this one may be ended.  Yields the mask that the new process has to set again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
