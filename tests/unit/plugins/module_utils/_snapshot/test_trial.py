# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import trial
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.reading import Unproven


class Etcd:
    """A Throwaway that serves when it is asked again, or fails."""

    def __init__(self, failure=None):
        self.failure = failure
        self.calls = []
        self.asked = 0

    def start(self):
        self.calls.append("start")

    def serves(self, _timeout):
        self.asked += 1
        if self.failure:
            raise self.failure
        return self.asked > 1

    def wait(self):
        self.calls.append("wait")

    def begin_hash(self):
        self.calls.append("hash")

    def begin_hash_kv(self):
        self.calls.append("hash_kv")

    def end(self):
        self.calls.append("end")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A function that begins a Trial, the tool of which runs a shell command."""
    monkeypatch.setattr(trial, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(trial, "_ASK_AGAIN_SECONDS", 0)

    def begin(command):
        tool = tmp_path / "tool"
        tool.write_text("#!/bin/sh\n%s\n" % command)
        tool.chmod(0o755)
        return trial.Trial(types.SimpleNamespace(path=str(tool)), "/a.db", str(tmp_path))

    return begin


def look_until(one, ready):
    end = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < end
        one.look()


def test_an_etcd_starts_when_the_data_is_restored(begun):
    etcd, directories = Etcd(), []
    with begun("sleep 0.2") as one:
        one.then(lambda data: directories.append(data) or etcd)
        one.look()
        assert one.ended is None and not directories
        look_until(one, lambda: one.hash_kv is not None or "hash_kv" in etcd.calls)
        assert 0.2 <= one.ended - one.began < 20 and directories == [one.data]
        # nothing is left to do
        one.look()
        assert one.restored(1).rc == 0 and one.served() is etcd and one.start >= 0
    assert etcd.calls == ["start", "hash", "hash_kv", "end"]


def test_without_a_look_it_is_waited_for(begun):
    etcd = Etcd()
    with begun("exit 0") as one:
        assert one.restored(20).rc == 0
        one.then(lambda data: etcd)
        assert one.served() is etcd
    assert etcd.calls == ["start", "wait", "hash", "hash_kv", "end"]


def test_what_was_not_restored_is_not_served(begun):
    with begun("echo damaged >&2; exit 1") as one:
        one.then(lambda data: pytest.fail("it is not to be started"))
        look_until(one, lambda: one.ended)
        one.look()
        assert (one.restored(1).rc, one.restored(1).stderr) == (1, "damaged\n")


def test_what_goes_wrong_is_said_when_it_counts(begun):
    def no_program(_data):
        raise Unproven("no program")

    def no_file(_data):
        raise FileNotFoundError(2, "No such file or directory")

    failing = Etcd(isolated_server.Unservable("it ended"))
    for start, expected, words in (
        (no_program, Unproven, "no program"),
        (no_file, Unproven, "no etcd can be started on what was restored: No such file"),
        (lambda _data: failing, isolated_server.Unservable, "it ended"),
    ):
        with begun("exit 0") as one:
            one.then(start)
            look_until(one, lambda: one._problem)
            assert one.restored(1).rc == 0
            with pytest.raises(expected, match=words):
                one.served()
    assert failing.calls == ["start", "end"]


def test_a_restore_ends_with_it(begun, tmp_path):
    with begun("sleep 1; touch %s/late" % tmp_path) as one:
        assert one._restoring.running
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()
