# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import signal
import subprocess
import threading
import time
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import held_program, signals


@pytest.mark.parametrize("inside", ["", "member"])
def test_data_is_found_in_both_layouts(tmp_path, inside):
    root = tmp_path / inside
    for name in ("snap/db", "snap/1.snap", "wal/1.wal", "wal/0.tmp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "snap" / "link").symlink_to("/etc/passwd")
    assert isolated_server.database_of(str(tmp_path)) == str(root / "snap" / "db")
    target = tmp_path / "target"
    isolated_server.copy_data(str(tmp_path), str(target))
    copied = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert copied == {"member/" + name: name for name in ("snap/db", "snap/1.snap", "wal/1.wal")}


def test_a_directory_without_a_database(tmp_path):
    with pytest.raises(isolated_server.Unservable, match="there is no etcd database in"):
        isolated_server.database_of(str(tmp_path))


@pytest.mark.parametrize("text, enough", [("MemAvailable:  300000 kB\n", True), ("MemTotal: 9 kB\nMemAvailable:  200000 kB\n", False), ("", True)])
def test_memory_for_one_more_etcd(tmp_path, text, enough):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(text)
    if enough:
        isolated_server.check_memory(100 * 1000 * 1000, str(meminfo))
    else:
        with pytest.raises(isolated_server.ThrowawayError, match="this host has 204 MB of memory available, and one more etcd needs 250 MB"):
            isolated_server.check_memory(100 * 1000 * 1000, str(meminfo))


def program(path, version):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho etcd Version: %s\n" % version)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def no_etcd_runs(monkeypatch):
    monkeypatch.setattr(isolated_server, "_running", lambda endpoint, proc: [])


def test_the_program_of_the_image_is_taken_where_no_etcd_runs(tmp_path, monkeypatch, no_etcd_runs):
    program(tmp_path / "1" / "etcd", "3.4.3")
    wanted = program(tmp_path / "2" / "etcd", "3.5.16")
    program(tmp_path / "3" / "etcd", "nothing")
    found = program(tmp_path / "bin" / "etcd", "3.5.9")
    monkeypatch.setattr(held_program, "_UNPACKED", (str(tmp_path / "[0-9]" / "%s"),))
    with isolated_server.find_server(None, "", str(tmp_path / "bin" / "etcdctl"), "3.5.16-0") as server:
        assert (server.path, server.whose, server.version) == (wanted, "unpacked", "3.5.16")
    for other in ("3.5.17", ""):
        with isolated_server.find_server(None, "", str(tmp_path / "bin" / "etcdctl"), other) as server:
            assert (server.path, server.whose) == (found, "found")


def test_no_program_at_all(monkeypatch, no_etcd_runs):
    monkeypatch.setattr(isolated_server, "find_tool", lambda name: None)
    with pytest.raises(isolated_server.ThrowawayError, match="no etcd runs on this host and there is no etcd server program on it either"):
        isolated_server.find_server()


def test_a_process_that_is_ended_while_etcd_starts_ends_etcd(monkeypatch, tmp_path):
    """Or it would write on into a directory that is being removed."""
    started = []
    real = subprocess.Popen

    def popen(_argv, preexec_fn=None, executable=None, **how):
        # as before_exec() does, it takes signals again, which this process holds back
        started.append(real(["sleep", "60"], preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()), **how))
        # as it comes to a module, which has no other thread
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        time.sleep(0.1)
        return started[0]

    before = {number: signal.getsignal(number) for number in signals._ENDING}
    monkeypatch.setattr(isolated_server.subprocess, "Popen", popen)
    server = types.SimpleNamespace(version="3.5.16", path="/etcd", program="/etcd")
    signals.raise_when_ended()
    try:
        with pytest.raises(signals.Ended), isolated_server.Throwaway(server, str(tmp_path), str(tmp_path), "/etcdctl", time.monotonic() + 5):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert started[0].poll() is not None


MEMBERS = [{"id": name, "name": name, "is_learner": name == "cp3"} for name in ("cp1", "cp2", "cp3")]


@pytest.mark.parametrize(
    ("members", "seconds", "hopeless"),
    [
        (MEMBERS[:2], 0.9, False),
        (MEMBERS[:2], 1.1, True),
        # a learner has no vote, so it may be elected as soon as the machine lets it
        (MEMBERS[::2], 4.9, False),
        (MEMBERS[::2], 5.1, True),
    ],
)
def test_one_that_is_outvoted_is_not_waited_for(monkeypatch, tmp_path, members, seconds, hopeless):
    clock, told = [100.0], [MEMBERS]
    monkeypatch.setattr(isolated_server.time, "monotonic", lambda: clock[0])
    server = isolated_server.Throwaway(types.SimpleNamespace(version="3.7.3"), str(tmp_path), str(tmp_path), "/etcdctl", 1000)
    server._process = types.SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(server, "_ask_members", lambda timeout: told[0])
    monkeypatch.setattr(server, "_answers", lambda timeout: False)
    assert not server.serves()
    # while its log is applied the members change
    clock[0], told[0] = 100.9 if len([member for member in members if not member["is_learner"]]) > 1 else 100.0, members
    assert not server.serves()
    clock[0] += seconds
    if hopeless:
        with pytest.raises(isolated_server.NotAlone):
            server.serves()
    else:
        assert not server.serves()
