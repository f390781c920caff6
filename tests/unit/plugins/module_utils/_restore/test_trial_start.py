# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a trial start says of a host that cannot make it, and of the snapshot.  tests/integration/test_trial_start.py has real etcds."""

from __future__ import annotations

import hashlib
import os
import time
from types import SimpleNamespace

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import steps, trial_start
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.trial_start import TrialStart

RESTORES = 'mkdir -p "$5/member/snap"; touch "$5/member/snap/db"'


class Server(SimpleNamespace):
    """An etcd server program."""

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.closed = True


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """A function that makes a trial of a snapshot with this `snapshot restore` and this end of the etcd that is started then."""
    (tmp_path / "a.db").write_bytes(b"x" * 1000)
    (tmp_path / "place").mkdir()
    tool = tmp_path / "etcdutl"

    def make(script=RESTORES, end=None, version="3.5.16", whose="running", image="3.5.16", seconds=20, tool_version="3.5.16"):
        tool.write_text("#!/bin/sh\n%s\n" % script)
        tool.chmod(0o755)

        def wait():
            if end:
                raise end

        def served(*_args):
            return SimpleNamespace(start=lambda: None, wait=wait, end=lambda: None)

        monkeypatch.setattr(isolated_server, "find_server", lambda *args: Server(path="/etcd", version=version, whose=whose))
        monkeypatch.setattr(isolated_server, "Throwaway", served)
        options = {"snapshot": str(tmp_path / "a.db"), "endpoint": "", "etcd": None, "etcdctl": None, "step_timeout": seconds, "trial_timeout": 20}
        return TrialStart(options, SimpleNamespace(name="etcdutl", path=str(tool), version=tool_version), image, str(tmp_path / "place"))

    yield make
    assert list((tmp_path / "place").iterdir()) == [], "nothing that was restored for it stays"


def reason_of(one):
    """Why it was not tried, or None; it goes on from there, whatever it finds."""
    with one:
        one.begin()
        one.advance()
        one.finish()
        return one.reason


def test_what_starts(trial):
    assert reason_of(trial()) is None
    # it serves, and that is all that is asked here
    assert reason_of(trial(end=isolated_server.NeedsUser("authentication"))) is None


def test_what_the_host_prevents(trial, monkeypatch):
    assert "no space left on device" in reason_of(trial("echo 'write x: no space left on device' >&2; exit 1"))
    assert "was killed by signal 9" in reason_of(trial("kill -9 $$"))
    assert reason_of(trial(end=isolated_server.ThrowawayError("no network namespace"))) == "no network namespace"
    assert reason_of(trial(end=isolated_server.TimeIsUp("etcd 3.5.16 did not serve it in time"))) == "etcd 3.5.16 did not serve it in time"
    assert "does not start on an etcd 3.6.1 server" in reason_of(trial(version="3.6.1", tool_version="3.4.23"))
    # the program is not that of this host's etcd
    refused = isolated_server.Unservable("etcd 3.5.16 does not start with it: panic")
    assert reason_of(trial(end=refused, whose="found", image="3.6.1")) == "this host's etcd is 3.6.1, and etcd 3.5.16 does not start with it: panic"
    monkeypatch.setattr(trial_start, "_OWN_SPACE", 1 << 60)
    assert "free and restoring the snapshot twice needs" in reason_of(trial())


def test_too_little_memory(trial, monkeypatch):
    def too_little(_size):
        raise isolated_server.ThrowawayError("this host has 1 MB of memory available")

    one = trial()
    monkeypatch.setattr(isolated_server, "check_memory", too_little)
    assert reason_of(one) == "this host has 1 MB of memory available"


def test_no_server_program(trial, monkeypatch):
    def none(*_args):
        raise isolated_server.ThrowawayError("no etcd runs on this host and there is no etcd server program on it either")

    one = trial()
    monkeypatch.setattr(isolated_server, "find_server", none)
    assert reason_of(one).startswith("no etcd runs on this host")


@pytest.mark.parametrize(
    ("script", "end", "words"),
    [
        ("echo 'Error: expected sha256' >&2; exit 1", None, "a.db cannot be restored: `etcdutl snapshot restore` ended with code 1: Error: expected sha256"),
        (RESTORES, isolated_server.Unservable("etcd 3.5.16 does not start with it: panic"), "a.db does not start: etcd 3.5.16 does not start with it: panic"),
    ],
)
def test_what_the_snapshot_prevents(trial, script, end, words):
    with pytest.raises(TransactionError) as raised:
        reason_of(trial(script, end))
    assert str(raised.value).endswith(words + ". Nothing was done; choose another snapshot")


def test_restore_that_takes_too_long_holds_up_only_who_waits_for_it(trial):
    begun = time.monotonic()
    with trial("exec sleep 60", seconds=1) as one:
        one.begin()
        one.advance()
        assert time.monotonic() - begun < 0.9
        one.finish()
        assert one.reason.startswith("`etcdutl snapshot restore` did not finish in time and was killed")
    assert time.monotonic() - begun < 10


def test_restore_that_is_not_waited_for_is_ended(trial):
    with trial("exec sleep 60") as one:
        one.begin()
        tool = one._restoring
        assert tool.running
    assert not tool.running


def staged(node, trial, snapshot="x", sha256=""):
    tool = node.root / "etcdutl"
    tool.write_text("#!/bin/sh\n%s\n" % RESTORES)
    tool.chmod(0o755)
    steps.stage(node.transaction, snapshot, [], str(tool), 20, None, trial, sha256)
    return node.transaction.state()[0]


def test_a_step_ends_when_the_trial_has(node, trial):
    with trial() as one:
        assert staged(node, one) == "staged"
    assert (node.path / "staged/member/snap/db").exists() and one.reason is None


def test_a_large_snapshot_is_not_restored_twice_at_once(node, trial, monkeypatch):
    monkeypatch.setattr(trial_start, "_LARGE", 100)
    needed = []
    monkeypatch.setattr(trial_start, "shortage", lambda place, size, what: needed.append((size, what)))
    with trial() as one:
        ended = []

        def run(*args, run_tool=steps.run_tool, **more):
            ended.append(one._work is not None and not os.path.exists(one._work))
            return run_tool(*args, **more)

        monkeypatch.setattr(steps, "run_tool", run)
        assert staged(node, one) == "staged"
        assert one.is_large and one.reason is None
    assert ended == [True], "what the trial restored is gone when the node's own restore begins"
    assert needed == [(1100 + 160 * 1024 * 1024, "restoring the snapshot")]


def test_a_step_fails_with_the_trial_and_can_be_rolled_back(node, trial):
    with trial(end=isolated_server.Unservable("it panics")) as one, pytest.raises(TransactionError, match="does not start: it panics"):
        staged(node, one)
    assert node.transaction.state()[0] == "staging"
    assert not (node.path / "staged").exists()
    assert node.rollback().returncode == 0
    node.is_old()
    assert not list(node.path.glob("staged*"))


def test_a_restore_that_fails_ends_the_trial(node, trial):
    node.quick("etcdutl")
    with trial("exec sleep 60") as one, pytest.raises(TransactionError, match="made no database"):
        steps.stage(node.transaction, "x", [], str(node.systemctl.parent / "etcdutl"), 20, None, one)


def test_a_file_that_was_replaced_after_it_was_verified_is_not_staged(node):
    snapshot = node.root / "a.db"
    snapshot.write_bytes(b"another one")
    with pytest.raises(TransactionError, match=r"a.db is not the snapshot that was verified: .* Nothing was stopped"):
        staged(node, None, str(snapshot), sha256=hashlib.sha256(b"verified").hexdigest())
    assert not (node.path / "staged").exists()
    assert staged(node, None, str(snapshot), sha256=hashlib.sha256(b"another one").hexdigest()) == "staged"
