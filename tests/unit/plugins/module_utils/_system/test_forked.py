# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A function of ours on another processor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.forked import Forked, Lost, TimeIsUp


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_returns_what_the_function_returns():
    with Forked(lambda: (os.getpid(), b"x" * 3000000)) as forked:
        pid, data = forked.result(time.monotonic() + 30)
        assert (pid != os.getpid(), len(data)) == (True, 3000000)
        # again, as often as wanted
        assert forked.result()[0] == pid
    assert gone(pid)


def test_raises_what_the_function_raises():
    with Forked(lambda: open("/nonexistent/file", encoding="utf-8")) as forked:
        for dummy in range(2):
            with pytest.raises(FileNotFoundError):
                forked.result()


def test_says_when_it_is_ready(tmp_path):
    def wait():
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return 5

    with Forked(wait) as forked:
        assert not forked.ready
        with pytest.raises(TimeIsUp):
            forked.result(time.monotonic() + 0.1)
        (tmp_path / "go").write_text("")
        end = time.monotonic() + 10
        while not forked.ready and time.monotonic() < end:
            time.sleep(0.01)
        assert forked.ready
        assert forked.result() == 5


def test_one_that_is_killed_is_lost():
    with Forked(lambda: os.kill(os.getpid(), signal.SIGKILL)) as forked, pytest.raises(Lost):
        forked.result()


def test_ends_with_the_context():
    with Forked(lambda: time.sleep(60)) as forked:
        pid = forked._pid
    assert gone(pid)


def test_ends_with_the_process_that_began_it():
    program = """
import os, signal, time
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.forked import Forked
with Forked(lambda: time.sleep(60)) as forked:
    print(forked._pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == -signal.SIGKILL
    pid, end = int(result.stdout), time.monotonic() + 10
    # the process that adopts it may be late in reaping it
    while not gone(pid) and "Z" not in open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[0] and time.monotonic() < end:
        time.sleep(0.02)
    assert time.monotonic() < end


INTERRUPTED = """
import os, signal, time
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.forked import Forked, Lost
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.signals import Ended, raise_when_ended
raise_when_ended()
fork = os.fork
def interrupted():
    pid = fork()
    if (pid == 0) == (%r == "copy"):
        os.kill(os.getpid(), signal.SIGTERM)
    return pid
os.fork = interrupted
try:
    with Forked(lambda: time.sleep(0 if %r == "copy" else 60)) as forked:
        print(forked.result(time.monotonic() + 30), flush=True)
except (Ended, Lost) as exc:
    print(type(exc).__name__, flush=True)
finally:
    try:
        os.waitpid(-1, os.WNOHANG)
        print("a copy is left", flush=True)
    except ChildProcessError:
        print("put away", flush=True)
"""


@pytest.mark.parametrize(("which", "ended"), [("copy", "Lost"), ("original", "Ended")])
def test_a_signal_at_the_moment_of_the_copy(which, ended):
    """The copy does not put away what the original has made, and the original leaves no copy."""
    result = subprocess.run([sys.executable, "-c", INTERRUPTED % (which, which)], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == ended + "\nput away\n", result.stderr


def test_a_process_that_cannot_be_copied(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(Lost, match="no second process can read it: Resource temporarily unavailable"):
        Forked(lambda: 1)
    assert sorted(os.listdir("/proc/self/fd")) == before
