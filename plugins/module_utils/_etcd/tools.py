# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What etcdctl and etcdutl of this host can do, and for which etcd.  Private to this collection."""

from __future__ import annotations

import contextlib
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool


def version_tuple(text):
    """(3, 5, 16) of '3.5.16', 'v3.5.16-rc.1' or '3.5.16-0'; () when there is none."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text or "")
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def server_version(etcd, timeout=10, proc="/proc"):
    """Version of the etcd of a StaticPod: that of its image, else what its program says while it runs; '' when neither tells."""
    if etcd.image_version:
        return etcd.image_version
    for process in procs.processes(proc):
        if process.name == "etcd" and process.pod and not process.serves_other(etcd.flags.get("data-dir", "")):
            with contextlib.suppress(ToolError):
                result = run_tool(["%s/%d/exe" % (proc, process.pid), "--version"], timeout)
                match = re.search(r"^etcd Version: (\S+)", result.stdout, re.MULTILINE)
                if match:
                    return match.group(1)
    return ""


class Tool:
    """etcdctl or etcdutl, and what this very binary can do.

    Abilities are read off its help, not inferred from the version: etcdctl 3.6 prints its help for
    `snapshot status` and exits 0.
    """

    def __init__(self, path, timeout=10):
        self.path = path
        result = run_tool([path, "version"], timeout)
        match = re.search(r"^etcd(ctl|utl) version:\s*(\S+)", result.stdout, re.MULTILINE)
        if result.rc != 0 or not match:
            raise ToolError("%s is not an etcdctl or etcdutl: `%s version` %s" % (path, path, result.how()), result)
        self.name = "etcd" + match.group(1)
        self.version = match.group(2)
        self._timeout = timeout
        self._helps = {}

    def _help(self, *command):
        """The help of a command; it starts the tool, so once, and only for who wants to know."""
        if command not in self._helps:
            self._helps[command] = run_tool([self.path, *command, "--help"], self._timeout).stdout
        return self._helps[command]

    @property
    def can_save(self):
        return self.name == "etcdctl" and bool(re.search(r"^\s+save\s", self._help("snapshot"), re.MULTILINE))

    @property
    def can_status(self):
        return bool(re.search(r"^\s+status\s", self._help("snapshot"), re.MULTILINE))

    @property
    def can_restore(self):
        return bool(re.search(r"^\s+restore\s", self._help("snapshot"), re.MULTILINE)) and "--data-dir" in self._help("snapshot", "restore")

    @property
    def can_bump(self):
        return self.can_restore and "--bump-revision" in self._help("snapshot", "restore") and "--mark-compacted" in self._help("snapshot", "restore")

    def describe(self):
        return {
            "path": self.path,
            "name": self.name,
            "version": self.version,
            "save": self.can_save,
            "status": self.can_status,
            "restore": self.can_restore,
            "bump_revision": self.can_bump,
        }


def find_tools(etcdctl=None, etcdutl=None, timeout=10):
    """(etcdctl, etcdutl) as Tool or None.  A tool named explicitly must work; one found by itself may be broken and is then left out."""
    tools = []
    for name, explicit in (("etcdctl", etcdctl), ("etcdutl", etcdutl)):
        path = find_tool(name, explicit)
        try:
            tools.append(Tool(path, timeout) if path else None)
        except ToolError:
            if explicit and path == explicit:
                raise
            tools.append(None)
    return tuple(tools)


def offline_tool(ability, etcdctl, etcdutl):
    """The tool that does `ability` ("status" or "restore") on a file: etcdutl before etcdctl; None when neither can."""
    for tool in (etcdutl, etcdctl):
        if tool is not None and getattr(tool, "can_" + ability):
            return tool
    return None


def restore_misfit(tool_version, server_version):
    """Why data restored by this tool must not be given to this server, or None.

    Measured: what etcdctl up to 3.4 restores makes 3.6 panic ("member unknown") and 3.7 never ready (3.4.23 with 3.6.16 and 3.7.3; only tools from 3.5 on
    take the members of before out of the database: snapshot/v3_snapshot.go, TrimMembershipFromBackend).
    """
    tool, server = version_tuple(tool_version)[:2], version_tuple(server_version)[:2]
    if tool and server and tool <= (3, 4) and server >= (3, 6):
        return "what etcd %s's tool restores does not start on an etcd %s server (it panics or never gets ready); use tools of 3.5.16 or later" % (
            tool_version,
            server_version,
        )
    return None


def survey(etcdctl, etcdutl, server_version=None):
    """What the two tools can do together."""
    restore = offline_tool("restore", etcdctl, etcdutl)
    status = offline_tool("status", etcdctl, etcdutl)
    misfit = restore_misfit(restore.version, server_version) if restore and server_version else None
    return {
        "etcdctl": etcdctl.describe() if etcdctl else None,
        "etcdutl": etcdutl.describe() if etcdutl else None,
        "save": etcdctl.path if etcdctl and etcdctl.can_save else None,
        "status": status.path if status else None,
        "restore": restore.path if restore else None,
        "bump_revision": bool(restore and restore.can_bump),
        "misfits": [misfit] if misfit else [],
    }


def unfit(tools, server_version):
    """One sentence that says why (etcdctl, etcdutl) do not suit a server of this version, or None."""
    if not any(tools):
        return "there is neither etcdctl nor etcdutl on this host"
    found = " and ".join("%s %s" % (tool.path, tool.version) for tool in tools if tool)
    if not (tools[0] and tools[0].can_save):
        return "%s cannot take snapshots" % found
    for ability in ("status", "restore"):
        if not offline_tool(ability, *tools):
            return "%s cannot %s snapshots" % (found, {"status": "read the status of"}.get(ability, ability))
    restore = offline_tool("restore", *tools)
    misfit = restore_misfit(restore.version, server_version)
    if misfit:
        return misfit
    # A tool that cannot move the revision forward will do only where the server's own could not either.
    if not restore.can_bump and server_version and version_tuple(restore.version) != version_tuple(server_version):
        return "%s %s cannot move the revision of a restored cluster forward" % (restore.path, restore.version)
    return None


def examine_tools(params):
    """(etcdctl, etcdutl) that `params` names as CONNECTION_SPEC has it, with all that they can do asked for; (None, None) when a named one is broken."""
    try:
        tools = find_tools(params["etcdctl"], params["etcdutl"], params["timeout"])
    except ToolError:
        return None, None
    unfit(tools, "")
    return tools


def suitable(tools, server_version):
    """The survey of (etcdctl, etcdutl), None unless they suit a server of this version."""
    return None if unfit(tools, server_version) else survey(*tools, server_version=server_version)
