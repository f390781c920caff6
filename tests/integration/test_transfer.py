# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Transfers of snapshots between a host and the controller, with the real `ansible` in between."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import zlib

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_snapshot_transfer as module

MB = 1024 * 1024


def transfer(path, dest, *more, **args):
    return harness.ansible("etcd_snapshot_transfer", *more, path=path, dest=dest, **args)


def test_a_file_is_transferred_whole_and_once(tmp_path):
    path, dest = tmp_path / "there", tmp_path / "here"
    # both ends of a piece: what does not compress, and what does
    path.write_bytes(os.urandom(9 * MB) + bytes(80 * MB) + os.urandom(5))
    rc, result = transfer(path, dest, "--check")
    assert rc == 0 and result["changed"] and result["size"] == path.stat().st_size and result["sha256"] is None and not dest.exists(), result
    rc, result = transfer(path, dest)
    assert rc == 0 and result["changed"] and result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), result
    assert dest.read_bytes() == path.read_bytes() and dest.stat().st_mode & 0o777 == 0o600 and result["dest"] == str(dest)
    for more in ([], ["--check"]):
        rc, result = transfer(path, dest, *more)
        assert rc == 0 and not result["changed"] and result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), result
    # another one of the same size
    path.write_bytes(bytes(path.stat().st_size))
    rc, result = transfer(path, dest)
    assert rc == 0 and result["changed"] and dest.read_bytes() == path.read_bytes(), result
    assert sorted(os.listdir(tmp_path)) == ["here", "there"]


@pytest.fixture
def small_home(tmp_path):
    """Where Ansible puts files first has room for one piece, and not for a snapshot."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    (tmp_path / "home").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(tmp_path / "home")], check=True)
    yield {"ANSIBLE_REMOTE_TMP": str(tmp_path / "home")}
    subprocess.run(["umount", "-l", str(tmp_path / "home")], check=True)


def test_a_transfer_to_a_host_does_not_use_its_home(tmp_path, small_home):
    path, dest = tmp_path / "here", tmp_path / "there"
    path.write_bytes(os.urandom(45 * MB) + bytes(80 * MB) + os.urandom(5))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    rc, result = transfer(path, dest, "--check", to="host", environment=small_home)
    assert rc == 0 and result["changed"] and not dest.exists(), result
    rc, result = transfer(path, dest, to="host", environment=small_home)
    assert rc == 0 and result["changed"] and result["sha256"] == sha256 and result["dest"] == str(dest), result
    assert dest.read_bytes() == path.read_bytes() and dest.stat().st_mode & 0o777 == 0o600
    rc, result = transfer(path, dest, to="host", environment=small_home)
    assert rc == 0 and not result["changed"], result
    assert sorted(os.listdir(tmp_path)) == ["here", "home", "there"] and os.listdir(tmp_path / "home") == []


def test_free_space_is_checked_at_the_destination(tmp_path, small_home):
    path = tmp_path / "here"
    path.write_bytes(bytes(60 * MB))
    rc, result = transfer(path, tmp_path / "home" / "there", to="host")
    assert rc != 0 and "needs 63 MB, and its file system has 41 MB free: free some space" in result["msg"], result
    (tmp_path / "one").write_bytes(b"1")
    rc, result = transfer(tmp_path / "one", tmp_path / "home" / "there", to="host", reserve=50 * 10**6)
    assert rc != 0 and "needs 1 MB, and its file system has 41 MB free, of which 50 MB must stay free: free some space" in result["msg"], result
    (tmp_path / "empty").touch()
    rc, result = transfer(tmp_path / "empty", tmp_path / "home" / "there", to="host")
    assert rc == 0 and (tmp_path / "home" / "there").read_bytes() == b"", result
    rc, result = harness.run_module("etcd_snapshot_transfer", path=path, dest=tmp_path / "no" / "where", to="host")
    assert rc != 0 and "cannot be written on the host: No such file" in result["msg"], result


def test_a_piece_is_appended_where_the_one_before_ended(tmp_path):
    dest, piece = tmp_path / "there", tmp_path / "piece"
    for offset, plain in ((0, b"a" * 3 * MB), (3 * MB, b"b")):
        piece.write_bytes(zlib.compress(plain))
        assert module.take_piece(str(dest), str(piece), offset, hashlib.sha256(plain).hexdigest()) == offset + len(plain) and not piece.exists()
    piece.write_bytes(zlib.compress(b"c"))
    with pytest.raises(ValueError, match="another process writes it"):
        module.take_piece(str(dest), str(piece), 3 * MB, hashlib.sha256(b"c").hexdigest())
    assert not dest.exists()
    module.finish(str(dest))
    assert dest.read_bytes() == b"a" * 3 * MB + b"b"


def test_a_copy_without_a_place_gets_a_directory_of_its_own(tmp_path):
    path = tmp_path / "there.db"
    path.write_bytes(b"1")
    rc, result = transfer(path, None, environment={"TMPDIR": str(tmp_path)})
    copy = pathlib.Path(result["dest"])
    assert rc == 0 and copy.read_bytes() == b"1" and copy.name == "there.db" and copy.parent.parent == tmp_path, result
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    rc, result = transfer(path, None, sha256="0" * 64, environment={"TMPDIR": str(tmp_path)})
    assert rc != 0 and sorted(os.listdir(tmp_path)) == sorted(["there.db", copy.parent.name]), result
    rc, result = transfer(path, None, "--check", environment={"TMPDIR": str(tmp_path)})
    assert rc == 0 and result["changed"] and sorted(os.listdir(tmp_path)) == sorted(["there.db", copy.parent.name]), result
    rc, result = transfer(path, None, to="host")
    assert rc != 0 and "dest is missing" in result["msg"], result


@pytest.mark.parametrize("to", ["controller", "host"])
def test_only_the_wanted_file_is_copied(tmp_path, to):
    path, dest = tmp_path / "one", tmp_path / "copy"
    path.write_bytes(b"1")
    dest.write_bytes(b"the one before")
    rc, result = transfer(path, dest, to=to, sha256=hashlib.sha256(b"2").hexdigest())
    assert rc != 0 and "is not the file that is wanted" in result["msg"], result
    assert dest.read_bytes() == b"the one before" and sorted(os.listdir(tmp_path)) == ["copy", "one"]
    rc, result = transfer(path, dest, to=to, sha256=hashlib.sha256(b"1").hexdigest())
    assert rc == 0 and result["changed"] and dest.read_bytes() == b"1" and result["sha256"] == hashlib.sha256(b"1").hexdigest(), result
    # a copy that is there already has to be the wanted one, too
    rc, result = transfer(path, dest, to=to, sha256=hashlib.sha256(b"1").hexdigest())
    assert rc == 0 and not result["changed"], result


def test_a_piece_that_did_not_arrive_as_it_was_sent_is_refused(tmp_path):
    (tmp_path / "piece").write_bytes(zlib.compress(b"a"))
    for last in (False, True):
        rc, result = harness.run_module(
            "etcd_snapshot_transfer", path="/x", dest=tmp_path / "there", to="host", piece=tmp_path / "piece", piece_sha256="0" * 64, offset=0, last=last
        )
        assert rc != 0 and "a piece of it did not arrive as it was sent: its checksum differs" in result["msg"], result
        assert not (tmp_path / "there").exists()


def test_an_empty_file(tmp_path):
    (tmp_path / "there").touch()
    rc, result = transfer(tmp_path / "there", tmp_path / "here")
    assert rc == 0 and result["changed"] and (tmp_path / "here").read_bytes() == b"", result


def test_what_cannot_be_transferred(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "there").write_bytes(b"1")
    for path, dest, words in (
        (tmp_path / "nowhere", tmp_path / "here", "%s cannot be read: No such file" % (tmp_path / "nowhere")),
        (tmp_path / "fifo", tmp_path / "here", "is not a regular file"),
        (tmp_path / "there", tmp_path / "no" / "where", "%s cannot be written on the controller: No such file" % (tmp_path / "no" / "where")),
    ):
        rc, result = transfer(path, dest)
        assert rc != 0 and words in result["msg"], result
    assert sorted(os.listdir(tmp_path)) == ["fifo", "there"]


@pytest.mark.parametrize("to", ["controller", "host"])
def test_nothing_is_kept_of_a_file_that_changes(tmp_path, to):
    path, dest = tmp_path / "there", tmp_path / "here"
    path.write_bytes(os.urandom(80 * MB))
    dest.write_bytes(b"the one before")

    def change():
        end = time.monotonic() + 60
        while time.monotonic() < end and not any(name.endswith(".partial") for name in os.listdir(tmp_path)):
            time.sleep(0.01)
        with open(path, "ab") as stream:
            stream.write(b"x")

    thread = threading.Thread(target=change)
    thread.start()
    rc, result = transfer(path, dest, to=to)
    thread.join()
    assert rc != 0 and "changed while it was read" in result["msg"], result
    assert dest.read_bytes() == b"the one before" and sorted(os.listdir(tmp_path)) == ["here", "there"]


def test_a_file_that_changes_within_one_piece_is_refused(tmp_path):
    path = tmp_path / "there"
    path.write_bytes(b"a")
    with path.open("rb") as stream:
        version = module.version_of(stream)
        module.check_version(stream, version)
        with path.open("ab") as other:
            other.write(b"b")
        with pytest.raises(ValueError, match="changed while it was read"):
            module.check_version(stream, version)


def test_a_transfer_ends_at_its_time_limit(tmp_path):
    path = tmp_path / "there"
    path.write_bytes(os.urandom(20 * MB))
    rc, result = transfer(path, tmp_path / "here", timeout=0)
    assert rc != 0 and "was not copied within 0 seconds" in result["msg"] and os.listdir(tmp_path) == ["there"], result


@pytest.mark.parametrize("content", [lambda: os.urandom(70 * MB), lambda: bytes(300 * MB)], ids=["random", "zeros"])
def test_the_host_needs_little_memory(tmp_path, content):
    path = tmp_path / "there"
    path.write_bytes(content())
    script = (
        "import re, runpy, sys\n"
        "try:\n    runpy.run_path(%r, run_name='__main__')\n"
        "except SystemExit:\n    print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1), file=sys.stderr)\n" % module.__file__
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"path": str(path), "dest": "/nowhere", "offset": 0}}),
        env=dict(os.environ, PYTHONPATH=harness.module_path()),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout)["plain"] >= 4 * MB
    assert int(re.findall(r"^(\d+)$", process.stderr, re.MULTILINE)[-1]) < 64 * 1024
