# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How tools are found and run, and how they end."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import process
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import StartedTool, ToolError, ToolResult, bin_dir, find_tool, run_tool


def test_tools_get_neither_etcds_variables_nor_a_proxy(monkeypatch):
    for name in ("ETCDCTL_ENDPOINTS", "ETCD_NAME", "HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    said = run_tool(["/usr/bin/env"], 10).stdout
    assert "192.0.2.1" not in said
    assert "ETCDCTL_API=3\n" in said


def test_a_tool_reads_a_file_or_nothing(tmp_path):
    (tmp_path / "a").write_text("from a file")
    with open(tmp_path / "a", "rb") as stream:
        assert run_tool(["cat"], 10, stdin=stream).stdout == "from a file"
    assert run_tool(["cat"], 10).stdout == ""


def test_a_directory_is_looked_into_before_the_usual_places(monkeypatch, tmp_path):
    usual, own = tmp_path / "usual", tmp_path / "own"
    for directory in (usual, own):
        directory.mkdir()
        (directory / "etcdctl").write_text("#!/bin/sh\n")
        (directory / "etcdctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(usual))
    monkeypatch.setattr(process, "TOOL_DIRS", ())
    assert find_tool("etcdctl") == str(usual / "etcdctl")
    assert find_tool("etcdctl", str(own)) == str(own / "etcdctl")
    (own / "etcdctl").unlink()
    assert find_tool("etcdctl", str(own)) == str(usual / "etcdctl")
    # a named file is used, or reported as missing
    assert find_tool("etcdctl", str(own / "etcdctl")) == str(own / "etcdctl")
    assert find_tool("etcdutl", str(own)) is None


def test_where_usr_cannot_be_written_tools_are_below_opt(monkeypatch, tmp_path):
    usual, own, found = tmp_path / "usr" / "local" / "bin", tmp_path / "opt" / "bin", tmp_path / "found"
    for directory in (own, found):
        directory.mkdir(parents=True)
        (directory / "etcdctl").write_text("#!/bin/sh\n")
        (directory / "etcdctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(found))
    monkeypatch.setattr(process, "BIN_DIR", str(usual))
    monkeypatch.setattr(process, "WRITABLE_BIN_DIR", str(own))
    # a directory that has to be made first is asked of its parent
    assert bin_dir(str(usual)) == str(usual)
    assert find_tool("etcdctl", str(usual)) == str(found / "etcdctl")
    monkeypatch.setattr(process.os, "access", lambda path, mode: False)
    assert bin_dir(str(usual) + "/") == str(own)
    # a chosen directory is not changed
    assert bin_dir(str(found)) == str(found)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(found))
    monkeypatch.setattr(process, "bin_dir", lambda wanted: str(own) if wanted == str(usual) else wanted)
    monkeypatch.setattr(process, "BIN_DIR", str(usual))
    for there in (False, True):
        if there:
            usual.mkdir(parents=True)
        assert find_tool("etcdctl", str(usual)) == str(own / "etcdctl")


def test_a_record_that_a_tool_quotes_is_left_out():
    said = r'Error: error during bucket key iteration, name: "key" err: cannot unmarshal value, key: "\x00_" value: "\v/registry/secrets/a\"pass\x12word"'
    for stderr in (said + " err: proto: wrong wireType = 3 for field Key\n", said[:-20]):
        result = ToolResult([], 1, "", stderr)
        for words in (result.last_words(), ToolError("", result).details()["stderr"]):
            assert "value: (left out)" in words and "secrets" not in words and "pass" not in words
    assert "for field Key" in ToolResult([], 1, "", said + " err: for field Key").last_words()


def test_a_tool_that_does_not_end_is_killed_with_its_children(tmp_path):
    begun = time.monotonic()
    result = run_tool(["sh", "-c", "sleep 600 & echo $!; wait"], 0.3)
    assert time.monotonic() - begun < 5
    assert result.timed_out
    child = int(result.stdout)
    wait_for = time.monotonic() + 5
    while time.monotonic() < wait_for and os.path.exists("/proc/%d/exe" % child):
        time.sleep(0.01)
    # what is left of it is at most a zombie that its new parent has not taken note of
    assert not os.path.exists("/proc/%d/exe" % child) or "Z" in open("/proc/%d/stat" % child).read()


def test_a_tool_runs_beside_this_process():
    tool = StartedTool(["sh", "-c", "read line; echo out; echo err >&2; exit 3"])
    result = tool.finish(10)
    assert (result.rc, result.stdout, result.stderr) == (3, "out\n", "err\n")
    tool = StartedTool(["sleep", "600"], bound=True)
    assert tool.running
    tool.end()
    assert not tool.running
    tool.end()
    with pytest.raises(ToolError, match="/nonexistent cannot be run: No such file"):
        StartedTool(["/nonexistent"])


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_how_a_tool_ended_is_known_at_once_with_and_without_pidfd(monkeypatch, has_pidfd):
    if not has_pidfd:
        monkeypatch.delattr(process.os, "pidfd_open")
    assert run_tool(["sh", "-c", "exit 3"], 10).rc == 3
    assert run_tool(["sh", "-c", "kill -9 $$"], 10).rc == -9
    assert run_tool(["sleep", "60"], 0.1).timed_out


def test_a_child_ends_with_this_process_even_when_that_is_killed():
    code = (
        "import os, subprocess, sys\n"
        "from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ended_with_parent\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, preexec_fn=ended_with_parent(nice=5))\n"
        "print(child.pid, os.getpriority(os.PRIO_PROCESS, child.pid) - os.getpriority(os.PRIO_PROCESS, 0), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    pid, lowered = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False).stdout.split()
    assert int(lowered) == 5
    for dummy in range(200):
        if not os.path.exists("/proc/%d/cmdline" % int(pid)) or not pathlib.Path("/proc/%d/cmdline" % int(pid)).read_bytes():
            return
        time.sleep(0.05)
    pytest.fail("the child of a process that was killed still runs")
