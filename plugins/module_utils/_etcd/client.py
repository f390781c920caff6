# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running etcd's own tools, and how to talk to one etcd member.  Private to this collection."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from urllib.parse import urlsplit

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs

_PR_SET_PDEATHSIG = 1
# Where etcdctl and etcdutl are looked for when no path is given, besides PATH.
BIN_DIR = "/usr/local/bin"
# Where programs of ours go instead on a node whose /usr is read-only: Flatcar has kubeadm and kubelet there, and in PATH.
WRITABLE_BIN_DIR = "/opt/bin"
TOOL_DIRS = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/opt/bin", "/opt/etcd/bin")

# Where kubeadm has etcd listen for its own node, and where it does on one that is set up for IPv6.
LOCAL, LOCAL_IPV6 = "https://127.0.0.1:2379", "https://[::1]:2379"

# What every module that talks to etcd accepts; documented once in the `etcd` doc fragment.
CONNECTION_SPEC = {
    "endpoint": {"type": "str", "default": LOCAL},
    "cacert": {"type": "path", "default": "/etc/kubernetes/pki/etcd/ca.crt"},
    "cert": {"type": "path", "default": "/etc/kubernetes/pki/etcd/server.crt"},
    "key": {"type": "path", "default": "/etc/kubernetes/pki/etcd/server.key", "no_log": False},
    "etcdctl": {"type": "path"},
    "etcdutl": {"type": "path"},
    "timeout": {"type": "int", "default": 10},
}


class EtcdError(Exception):
    """One sentence for the operator, and the tool's own words."""

    def __init__(self, message, result=None):
        super().__init__(message)
        self.message = message
        self.result = result

    def details(self):
        """What a module adds to fail_json."""
        if self.result is None:
            return {}
        return {"cmd": self.result.argv, "rc": self.result.rc, "stderr": self.result.stderr, "stdout": self.result.stdout}


# From 3.6 on `snapshot status` quotes a record that it cannot read (etcdutl 3.6.16 and 3.7.3: snapshot/v3_snapshot.go), which may be a Secret's.
_RECORD = re.compile(r'\bvalue: "(?:[^"\\\n]|\\.)*"?')


def _without_records(text):
    return _RECORD.sub("value: (left out)", text)


class ToolResult:
    """How one run of a tool ended.  `rc` is negative for a signal, None when it had to be killed for its time."""

    def __init__(self, argv, rc, stdout, stderr):
        self.argv = argv
        self.rc = rc
        self.stdout = stdout
        self.stderr = _without_records(stderr)

    @property
    def timed_out(self):
        return self.rc is None

    def last_words(self):
        """The line that says most: the error of etcd's JSON log, a panic, or the last line."""
        lines = [line.strip() for line in (self.stderr + "\n" + self.stdout).splitlines() if line.strip()]
        for line in lines:
            if line.startswith(("panic:", "Error:", "fatal error:", "unexpected fault")):
                return line[:300]
        for line in reversed(lines):
            if line.startswith("{"):
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if "msg" in record:
                    return ("%s %s" % (record["msg"], record.get("error", ""))).strip()[:300]
        return lines[-1][:300] if lines else ""

    def how(self):
        """How it ended, in words."""
        if self.timed_out:
            return "did not finish in time and was killed"
        if self.rc < 0:
            return "was killed by signal %d" % -self.rc
        return "ended with code %d" % self.rc


# An etcd with authentication, to who is none of its users or may not do that (3.4.23 to 3.7.3: rpctypes/error.go, auth/store.go).
_DENIED = re.compile(
    "etcdserver: (user name (is empty|not found)|permission denied|invalid auth token|authentication failed, invalid user)|auth: user not found"
)


def is_denied(text):
    """Whether these are the words of an etcd that has authentication enabled and does not take us for a user of it that may ask."""
    return bool(_DENIED.search(text))


def clean_environment():
    """ETCDCTL_* of the caller changes what the tools do, and ETCDCTL_ENDPOINTS with --endpoints is fatal from 3.4 on.

    Through a proxy, as /etc/environment may name one, they would ask etcd at any address that is not loopback (grpc-go 1.72.1 to 1.83.2:
    internal/resolver/delegatingresolver, http.ProxyFromEnvironment).
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("ETCD") and not k.lower().endswith("_proxy")}
    env.update(ETCDCTL_API="3", LC_ALL="C", GOTRACEBACK="single")
    return env


def run_tool(argv, timeout, max_output=64 * 1024 * 1024, cwd="/", watch=None):
    """Run a tool without a shell and without a terminal, bounded in time; the whole process group is killed at the end of it.

    timeout: seconds.  cwd: where it runs.  watch: is called with the id of its process group a hundred times in a second, and may pause it;
    then it ends with this process, however that ends.  Returns a ToolResult; a tool that cannot be executed raises EtcdError.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            # AnsibleModule.run_command knows no bound in time
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=clean_environment(),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_end_with_parent if watch else None,  # noqa: PLW1509 - modules have one thread
            )
        except OSError as exc:
            raise EtcdError("%s cannot be run: %s" % (argv[0], exc.strerror or exc)) from exc
        try:
            rc = _wait(process, timeout, watch)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        err.seek(0)
        return ToolResult(
            list(argv), rc, out.read(max_output).decode("utf-8", "replace"), err.read(max_output).decode("utf-8", "replace")
        )


def _end_with_parent():
    # One that is paused would stay so for good, and etcd would keep for it all that it has not read.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait(process, timeout, watch):
    """The exit code, or None when the time is over."""
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            return process.wait(min(left, 0.01) if watch else left)
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                return None
        watch(process.pid)


def bin_dir(wanted):
    """Where tools are put that are wanted there: /opt/bin instead of /usr/local/bin where that cannot be written."""
    if os.path.normpath(wanted) != BIN_DIR:
        return wanted
    there = wanted
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    # access(2) asks the file system, so that root is told of a read-only one, and check mode writes nothing
    return wanted if os.access(there, os.W_OK | os.X_OK) else WRITABLE_BIN_DIR


def find_tool(name, explicit=None):
    """The path of etcdctl or etcdutl: `explicit` as given, else from PATH and the usual directories, else None.

    An `explicit` that is a directory is where it is looked for first, and where tools were put instead of there.
    """
    directory = explicit if explicit and (os.path.isdir(explicit) or os.path.normpath(explicit) == BIN_DIR) else ""
    if explicit and not directory:
        return explicit
    first = [bin_dir(directory), directory] if directory else []
    return shutil.which(name, path=os.pathsep.join(first + [os.environ.get("PATH", "")] + list(TOOL_DIRS)))


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
            with contextlib.suppress(EtcdError):
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
            raise EtcdError("%s is not an etcdctl or etcdutl: `%s version` %s" % (path, path, result.how()), result)
        self.name = "etcd" + match.group(1)
        self.version = match.group(2)
        commands = run_tool([path, "snapshot", "--help"], timeout).stdout
        restore_help = run_tool([path, "snapshot", "restore", "--help"], timeout).stdout
        self.can_save = self.name == "etcdctl" and bool(re.search(r"^\s+save\s", commands, re.MULTILINE))
        self.can_status = bool(re.search(r"^\s+status\s", commands, re.MULTILINE))
        self.can_restore = bool(re.search(r"^\s+restore\s", commands, re.MULTILINE)) and "--data-dir" in restore_help
        self.can_bump = self.can_restore and "--bump-revision" in restore_help and "--mark-compacted" in restore_help

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
        except EtcdError:
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


def listens(url):
    """Whether anybody accepts a connection at the address in a URL."""
    try:
        parts = urlsplit(url)
        socket.create_connection((parts.hostname, parts.port), 1).close()
        return True
    except (OSError, ValueError):
        return False


class EtcdClient:
    """One member of a cluster, reached through etcdctl over TLS."""

    def __init__(self, params, cwd="/"):
        self.endpoint = params["endpoint"]
        if self.endpoint == LOCAL and not listens(LOCAL) and listens(LOCAL_IPV6):
            self.endpoint = LOCAL_IPV6
        self.timeout = params["timeout"]
        # what the path of a Unix socket is relative to
        self.cwd = cwd
        self.tls = {name: params[name] for name in ("cacert", "cert", "key")}
        self.binary = find_tool("etcdctl", params.get("etcdctl"))
        if not self.binary:
            raise EtcdError("there is no etcdctl on this host: run `ansible-playbook k8s_dr.etcd.install` or set etcd_client_bin_dir")

    def argv(self, *args, **kwargs):
        """The whole command line.  Keys are named by path only; nothing secret is on it."""
        timeout = kwargs.get("command_timeout", self.timeout)
        command = [self.binary, "--endpoints=" + self.endpoint, "--command-timeout=%ds" % timeout, "--dial-timeout=%ds" % min(timeout, 5)]
        if self.endpoint.startswith("https:"):
            for name, path in self.tls.items():
                if not os.access(path, os.R_OK):
                    raise EtcdError("%s (etcd's %s) cannot be read on this host" % (path, name))
            command += ["--%s=%s" % item for item in self.tls.items()]
        return command + list(args)

    def run(self, *args, **kwargs):
        """Run etcdctl; anything but code 0 raises EtcdError."""
        timeout = kwargs.get("command_timeout", self.timeout)
        result = run_tool(self.argv(*args, **kwargs), timeout + 10, cwd=self.cwd)
        if result.rc != 0:
            raise EtcdError("etcd at %s: `etcdctl %s` %s: %s" % (self.endpoint, " ".join(args), result.how(), self.words(result)), result)
        return result

    def words(self, result):
        """Why etcdctl failed: its last words, or what they come from."""
        if not is_denied(result.stderr):
            return result.last_words()
        return (
            "this etcd has authentication enabled, and the common name of %s is no user of it with the role root (%s). Name a certificate of such a user "
            "with etcd_client_cert and etcd_client_key, or turn authentication off with `etcdctl auth disable`" % (self.tls["cert"], result.last_words())
        )

    def _json(self, *args):
        result = self.run("--write-out=json", *args)
        try:
            return json.loads(result.stdout)
        except ValueError as exc:
            raise EtcdError("`etcdctl %s` printed something that is not JSON" % " ".join(args), result) from exc

    def status(self):
        """Version, ids, leader, revision and sizes of this very member."""
        status = self._json("endpoint", "status")[0]["Status"]
        header = status["header"]
        return {
            "version": status.get("version", ""),
            "cluster_id": "%x" % header["cluster_id"],
            "member_id": "%x" % header["member_id"],
            "leader_id": "%x" % status.get("leader", 0),
            "is_learner": bool(status.get("isLearner", False)),
            "revision": header.get("revision", 0),
            "raft_index": status.get("raftIndex", 0),
            "raft_applied_index": status.get("raftAppliedIndex", 0),
            "raft_term": status.get("raftTerm", 0),
            "db_size": status.get("dbSize", 0),
            "db_size_in_use": status.get("dbSizeInUse", 0),
        }

    def members(self, *args):
        """Every member as etcd knows it; `name` is empty for one that never started.  `args` are more flags of `member list`."""
        return [
            {
                "id": "%x" % member["ID"],
                "name": member.get("name", ""),
                "peer_urls": member.get("peerURLs", []),
                "client_urls": member.get("clientURLs", []),
                "is_learner": bool(member.get("isLearner", False)),
            }
            for member in self._json("member", "list", *args).get("members", [])
        ]

    def alarms(self):
        """Names of the alarms that are raised: NOSPACE, CORRUPT."""
        names = {1: "NOSPACE", 2: "CORRUPT"}
        return sorted({names.get(alarm.get("alarm"), str(alarm.get("alarm"))) for alarm in self._json("alarm", "list").get("alarms", [])})

    def hash_kv(self, revision=0):
        """(hash, compact revision, revision) over the live keys; equal on all healthy members at one revision."""
        answer = self._json("endpoint", "hashkv", "--rev=%d" % revision)[0]["HashKV"]
        return answer.get("hash", 0), answer.get("compact_revision", 0), answer.get("header", {}).get("revision", 0)
