# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that can be known of a snapshot file: the proof of it, and what `snapshot status` says.  Private to this collection."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import SnapshotFile
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels as verification_levels
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import StartedTool, ToolError, run_tool

# A tool that fails for one of these says something about the host and nothing about the file.
HOST_TROUBLE = re.compile(
    "cannot allocate memory|out of memory|too many open files|resource temporarily unavailable|no space left"
    "|operation not permitted|permission denied|failed to create new OS thread",
    re.IGNORECASE,
)
# Signals that come from outside: the kernel short of memory, or an operator who ends processes.
ENDED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


_MOST = 1024 * 1024


class ToolTrouble(Exception):
    """The tool could not do its work; the file may be sound."""


class BadFile(Exception):
    """The tool did its work and refused the file."""


def default_timeout(size):
    """Ten minutes, and more for what a slow disk needs for a large file: 5 MB/s.  Two hours at most, since a sparse file may have any size."""
    return min(7200, 600 + (size or 0) // (5 * 1000 * 1000))


def parse_status(stdout):
    """The values of `snapshot status --write-out=json`, of any version; raises ValueError for whatever else a tool printed.

    totalKey is counted in another way from 3.6 on, so it must not be compared across tools.
    """
    status = json.loads(stdout)
    values = {}
    for ours, theirs in (("hash", "hash"), ("revision", "revision"), ("total_keys", "totalKey"), ("total_size", "totalSize")):
        value = status.get(theirs) if isinstance(status, dict) else None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError("no %s in the status of the snapshot" % theirs)
        values[ours] = value
    if values["hash"] > 0xFFFFFFFF:
        raise ValueError("the hash is no CRC-32")
    # Decimal in json, and unpadded where the tools print it in hexadecimal.
    values["hash"] = "%08x" % values["hash"]
    version = status.get("version")
    values["storage_version"] = version if isinstance(version, str) and version else None
    return values


def _argv(tool, path):
    return [tool.path, "--write-out=json", "snapshot", "status", path]


def run_status(tool, path, timeout, started=None):
    """What this tool says of the file; raises ToolTrouble or BadFile.  path: absolute, since one that starts with - is taken for a flag.

    started: the StartedTool, when it runs already.
    """
    try:
        result = started.finish(timeout, max_output=_MOST) if started else run_tool(_argv(tool, path), timeout, max_output=_MOST)
    except ToolError as exc:
        raise ToolTrouble(exc.message) from exc
    what = "`%s snapshot status` of %s" % (tool.path, tool.version)
    words = result.last_words()
    if result.timed_out or result.rc in ENDED_FROM_OUTSIDE or (result.rc != 0 and HOST_TROUBLE.search(result.stderr)):
        raise ToolTrouble("%s %s%s" % (what, result.how(), ": " + words if words else ""))
    if result.rc != 0:
        raise BadFile("%s %s: %s" % (what, result.how(), words))
    try:
        return parse_status(result.stdout)
    except ValueError as exc:
        raise ToolTrouble("%s ended with code 0 and printed something else than a status" % what) from exc


def examine(path, etcdctl=None, etcdutl=None, timeout=None, everything=False, opened=None, first=None, manifest=None):
    """All about the snapshot file at `path`, as etcd_snapshot_info returns it.

    etcdctl, etcdutl: Tool or None, as find_tools() gives them.  timeout: seconds for all of it.
    everything: go on after the first problem, for somebody who wants to know what a damaged file holds.
    opened: the SnapshotFile of this path, of a caller who has one.  When its checksum is known to be right the tool begins at once, beside the proof of its
    pages.  first: what begin() returned before.
    manifest: where it says what the tool said of these very bytes, by their SHA-256, the tool is not asked again.
    """
    path = os.path.abspath(path)
    started = time.monotonic()
    tools = [tool for tool in (etcdutl, etcdctl) if tool is not None]
    with contextlib.ExitStack() as stack:
        hashed = opened and opened.hashed
        opened = opened or stack.enter_context(SnapshotFile(path))
        limit = timeout or default_timeout(opened.proof.size)
        opened.deadline = started + limit
        if first is None and hashed and hashed.whole:
            first = begin(opened, etcdctl, etcdutl)
        if first:
            stack.callback(first.end)
        proof = opened.prove(everything)
        snapshot = {
            "path": path,
            "hash": None,
            "revision": proof.revision,
            "total_keys": None,
            "total_size": proof.database_size,
            "storage_version": proof.storage_version,
            "sha256": proof.sha256,
            "size": proof.size,
            "tool": None,
            "undetermined": [],
        }
        if proof.size and (everything or not proof.findings):
            recorded = manifest and _recorded(manifest, proof)
            if recorded:
                tool, values = recorded
                _add(snapshot, proof, dict(tool, path=None), values)
            else:
                _add_status(snapshot, proof, tools, opened.deadline, first)
            opened.check_unchanged()
        snapshot["integrity"] = proof.integrity
        snapshot["problems"] = proof.problems
        return snapshot


def levels(snapshot, seconds):
    """What a manifest says of a file that was examined and has no problems: both levels in one go."""
    tool = snapshot["tool"]
    return {
        "checksum": verification_levels.result(True, seconds),
        "status": verification_levels.result(True, seconds, tool="%s %s" % (tool["name"], tool["version"]) if tool else None),
    }


def begin(opened, etcdctl, etcdutl, nice=0):
    """Start the best tool beside the proof of a SnapshotFile, as a StartedTool; None when none can be, which examine() finds out again.

    nice: as StartedTool has it.
    """
    able = [tool for tool in (etcdutl, etcdctl) if tool and tool.can_status]
    if not able or opened.proof.locked or not opened.proof.size:
        return None
    try:
        return StartedTool(_argv(able[0], opened.proof.path), bound=True, nice=nice)
    except (ToolError, OSError):
        return None


def _add_status(snapshot, proof, tools, deadline, first=None):
    """Ask the tools, best first, until one gives an answer.  first: the StartedTool of the first that is able, or None."""
    undetermined = snapshot["undetermined"]
    able = [tool for tool in tools if tool.can_status]
    if proof.locked:
        undetermined.append("hash and number of keys: another process holds the lock of %s, and `snapshot status` would wait for it" % proof.path)
        return
    if not able:
        found = ", ".join("%s is %s %s, which has no `snapshot status`" % (tool.path, tool.name, tool.version) for tool in tools)
        undetermined.append("hash and number of keys: %s; install etcdutl" % (found or "there is neither etcdutl nor etcdctl on this host"))
        return
    for tool in able:
        try:
            values = run_status(tool, proof.path, max(1.0, deadline - time.monotonic()), first if tool is able[0] else None)
        except ToolTrouble as exc:
            undetermined.append("hash and number of keys: %s" % exc)
            continue
        except BadFile as exc:
            proof.found("status_failed", "was refused by etcd's own tool (%s); use another snapshot" % exc)
            return
        del undetermined[:]
        _add(snapshot, proof, {"name": tool.name, "version": tool.version, "path": tool.path}, values)
        return


def _add(snapshot, proof, tool, values):
    """Add what a tool said."""
    snapshot["tool"] = tool
    for name in ("revision", "total_size"):
        if snapshot[name] is not None and snapshot[name] != values[name]:
            what = "holds %s %d, but %s %s reads %d; use another snapshot"
            proof.found("status_differs", what % (name, snapshot[name], tool["name"], tool["version"], values[name]))
    if not snapshot["storage_version"]:
        snapshot["storage_version"] = values["storage_version"]
    for name in ("hash", "revision", "total_keys", "total_size"):
        snapshot[name] = values[name]


def _recorded(manifest, proof):
    """({name, version} of the tool, what it said of these bytes as parse_status() has it), or None where the manifest does not tell."""
    values = manifest.values
    tool = values["tool"] if isinstance(values.get("tool"), dict) else {}
    tool = {name: tool.get(name) for name in ("name", "version")}
    said = {name: values.get(name) for name in ("hash", "revision", "total_keys", "total_size", "storage_version")}
    words, numbers = [said["hash"], *tool.values()], [said[name] for name in ("revision", "total_keys", "total_size")]
    known = all(isinstance(word, str) for word in words) and all(isinstance(number, int) for number in numbers)
    same = manifest.sha256 == proof.sha256 and verification_levels.passed(manifest.levels, "status")
    return (tool, said) if known and same else None
