# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a trial start says of a host that cannot make it, and of the snapshot.  tests/integration/test_restore_plan.py has real etcds."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import trial_start
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.trial_start import NotTried, TrialStart, Unusable


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """A function that makes a trial of a snapshot with this `snapshot restore` and this end of the etcd that is started then."""
    (tmp_path / "a.db").write_bytes(b"x" * 1000)
    made = []

    def make(script="exit 0", end=None, version="3.5.16", whose="running", image="3.5.16", seconds=20):
        (tmp_path / "etcdutl").write_text("#!/bin/sh\n%s\n" % script)
        (tmp_path / "etcdutl").chmod(0o755)

        def wait():
            if end:
                raise end

        def served(*_args):
            return SimpleNamespace(start=lambda: None, wait=wait, end=lambda: None)

        server = SimpleNamespace(path="/etcd", version=version, whose=whose, close=lambda: None)
        tool = SimpleNamespace(name="etcdutl", path=str(tmp_path / "etcdutl"), version="3.5.16")
        monkeypatch.setattr(isolated_server, "find_server", lambda *args: server)
        monkeypatch.setattr(isolated_server, "Throwaway", served)
        monkeypatch.setattr(trial_start, "find_tools", lambda *args: (None, tool))
        monkeypatch.setattr(trial_start, "offline_tool", lambda *args: tool)
        options = {"snapshot": str(tmp_path / "a.db"), "work_dir": str(tmp_path), "endpoint": "", "etcd": None, "etcdctl": None, "etcdutl": None, "timeout": 5}
        made.append(TrialStart(options, "etcdctl", image, str(tmp_path), time.monotonic() + seconds))
        return made[-1]

    yield make
    for one in made:
        one.end()


def end_of(one):
    one.begin()
    one.advance()
    with pytest.raises((NotTried, Unusable, isolated_server.ThrowawayError)) as raised:
        one.finish()
    return type(raised.value), str(raised.value)


def test_what_starts(trial):
    one = trial()
    one.begin()
    served = one.finish()
    one.advance()
    assert served is not None and one.finish() is served


def test_what_the_host_prevents(trial, monkeypatch):
    for script in ("echo 'write x: no space left on device' >&2; exit 1", "kill -9 $$"):
        assert end_of(trial(script))[0] is NotTried
    assert end_of(trial(end=isolated_server.ThrowawayError("no network namespace"))) == (NotTried, "no network namespace")
    # the program is not that of this host's etcd
    refused = isolated_server.Unservable("etcd 3.5.16 does not start with it: panic")
    assert end_of(trial(end=refused, whose="found", image="3.6.1")) == (NotTried, "this host's etcd is 3.6.1, and etcd 3.5.16 does not start with it: panic")
    monkeypatch.setattr(trial_start, "_OWN_SPACE", 1 << 60)
    assert "free and serving the snapshot needs" in end_of(trial())[1]
    monkeypatch.undo()


def test_too_little_memory(trial, monkeypatch):
    def too_little(_size):
        raise isolated_server.ThrowawayError("this host has 1 MB of memory available")

    one = trial()
    monkeypatch.setattr(isolated_server, "check_memory", too_little)
    assert end_of(one) == (NotTried, "this host has 1 MB of memory available")


def test_what_the_snapshot_prevents(trial):
    kind, words = end_of(trial("echo 'Error: expected sha256' >&2; exit 1"))
    assert kind is Unusable and "a.db cannot be restored, so nothing was done: `etcdutl snapshot restore` ended with code 1: Error: expected sha256" in words
    kind, words = end_of(trial(end=isolated_server.Unservable("etcd 3.5.16 does not start with it: panic")))
    assert kind is Unusable and words.endswith("a.db does not start: etcd 3.5.16 does not start with it: panic. Nothing was done; choose another snapshot")


def test_restore_that_takes_too_long_holds_up_only_who_waits_for_it(trial):
    one = trial("sleep 60", seconds=1)
    begun = time.monotonic()
    one.begin()
    one.advance()
    assert time.monotonic() - begun < 0.9
    with pytest.raises(isolated_server.TimeIsUp):
        one.finish()
    assert time.monotonic() - begun < 10


def test_restore_that_is_not_waited_for_is_ended(trial):
    one = trial("sleep 60")
    one.begin()
    tool = one._restoring
    assert tool.running
    one.end()
    assert not tool.running


def test_users_of_the_cluster_are_asked_for(trial):
    assert end_of(trial(end=isolated_server.NeedsUser("authentication")))[0] is isolated_server.NeedsUser
