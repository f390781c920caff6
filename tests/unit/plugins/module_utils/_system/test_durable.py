# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import stat
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import durable
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import run_tool


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")
    durable.write_durably(str(path), "new\n", 0o640)
    assert path.read_text() == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "state"
    path.write_text("old")
    monkeypatch.setattr(durable.os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        durable.write_durably(str(path), "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "state.new").symlink_to(tmp_path / "victim")
    durable.write_durably(str(tmp_path / "state"), "new")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "state").read_text() == "new"
    assert not (tmp_path / "state").is_symlink()


def test_another_text_keeps_the_mode(tmp_path):
    path = tmp_path / "etcd.yaml"
    path.write_text("old")
    path.chmod(0o604)
    durable.rewrite(str(path), "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o604


def test_rename_never_nests(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError, match=r"b exists already, so .*/a was not moved there"):
        durable.rename_durably(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not (tmp_path / "b/a").exists()


def test_a_program_waits_for_the_disk_now_and_then(tmp_path, monkeypatch):
    """It is paused for as long as that takes, and never longer, and each part of the file is waited for once."""
    path, source, waited = tmp_path / "db", tmp_path / "a.db", []
    source.write_bytes(b"")
    monkeypatch.setattr(durable, "_AHEAD", 1000000)
    script = 'for i in 1 2 3 4 5; do head -c 700000 /dev/zero >>"$1"; sleep 0.1; done'

    def is_paused():
        return pathlib.Path("/proc/%d/stat" % children[0]).read_text().rpartition(")")[2].split()[0] == "T"

    def wait(descriptor, start, size, flags):
        end = time.monotonic() + 10
        while not is_paused() and time.monotonic() < end:
            time.sleep(0.01)
        waited.append((start, size, flags, is_paused()))

    monkeypatch.setattr(durable, "_sync_file_range", wait)
    children, back = [], durable.WriteBack(str(path), str(source))

    def watch(group):
        children[:] = [group]
        back(group)

    result = run_tool(["/bin/sh", "-c", script, "write", str(path)], 30, watch=watch)
    assert result.rc == 0 and path.stat().st_size == 3500000
    assert len(waited) >= 2
    assert [start for start, *_rest in waited] == [0, *(start + size for start, size, *_rest in waited[:-1])]
    assert all(size >= 1000000 and flags == 7 and paused for _start, size, flags, paused in waited)


def test_a_file_that_is_not_there_yet_holds_up_nothing(tmp_path):
    durable.WriteBack(str(tmp_path / "db"), str(tmp_path / "a.db"))(1 << 22)
