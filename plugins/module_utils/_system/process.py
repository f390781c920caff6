# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the programs of others: where they are found, bounded in time, and how they ended.  Private to this collection."""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

_PR_SET_PDEATHSIG = 1
# Where etcdctl and etcdutl are looked for when no path is given, besides PATH.
BIN_DIR = "/usr/local/bin"
# Where programs of ours go instead on a node whose /usr is read-only: Flatcar has kubeadm and kubelet there, and in PATH.
WRITABLE_BIN_DIR = "/opt/bin"
TOOL_DIRS = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/opt/bin", "/opt/etcd/bin")


class ToolError(Exception):
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


def clean_environment():
    """ETCDCTL_* of the caller changes what the tools do, and ETCDCTL_ENDPOINTS with --endpoints is fatal from 3.4 on.

    Through a proxy, as /etc/environment may name one, they would ask etcd at any address that is not loopback (grpc-go 1.72.1 to 1.83.2:
    internal/resolver/delegatingresolver, http.ProxyFromEnvironment).
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("ETCD") and not k.lower().endswith("_proxy")}
    env.update(ETCDCTL_API="3", LC_ALL="C", GOTRACEBACK="single")
    return env


class StartedTool:
    """A tool that runs beside this process, without a shell and without a terminal, until finish() or end().

    cwd: where it runs.  bound: it ends with this process, however that ends; nice: its niceness then, unless this process has a higher one.
    stdin: an open file that it reads.  A tool that cannot be executed raises ToolError.
    """

    def __init__(self, argv, cwd="/", bound=False, nice=0, stdin=None):
        self.argv = list(argv)
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        try:
            # AnsibleModule.run_command knows no bound in time
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                argv,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=self._out,
                stderr=self._err,
                env=clean_environment(),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=ended_with_parent(nice) if bound else None,  # noqa: PLW1509 - modules have one thread
            )
        except OSError as exc:
            self._close()
            raise ToolError("%s cannot be run: %s" % (argv[0], exc.strerror or exc)) from exc

    @property
    def running(self):
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def finish(self, timeout, max_output=64 * 1024 * 1024, watch=None):
        """Its ToolResult, at most `timeout` seconds later; see run_tool."""
        try:
            rc = _wait(self._process, timeout, watch)
            self._kill()
            self._out.seek(0)
            self._err.seek(0)
            out, err = (stream.read(max_output).decode("utf-8", "replace") for stream in (self._out, self._err))
            return ToolResult(self.argv, rc, out, err)
        finally:
            self.end()

    def end(self):
        """Kill its process group if it still runs."""
        self._kill()
        self._close()

    def _kill(self):
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _close(self):
        self._out.close()
        self._err.close()


def run_tool(argv, timeout, max_output=64 * 1024 * 1024, cwd="/", watch=None, stdin=None):
    """Run a tool without a shell and without a terminal, bounded in time; the whole process group is killed at the end of it.

    timeout: seconds.  cwd: where it runs.  watch: is called with the id of its process group a hundred times in a second, and may pause it;
    then it ends with this process, however that ends.  stdin: an open file that it reads.  Returns a ToolResult; a tool that cannot be executed raises
    ToolError.
    """
    # One that is paused would stay so for good, and etcd would keep for it all that it has not read.
    return StartedTool(argv, cwd, bound=watch is not None, stdin=stdin).finish(timeout, max_output, watch)


def ended_with_parent(nice=0):
    """A preexec_fn of subprocess.Popen: the child ends when this process ends, even when SIGKILL ends it.

    nice: the child's niceness, unless this process has a higher one.
    """
    libc, parent, lower = ctypes.CDLL(None), os.getpid(), max(0, nice - os.nice(0))

    def before_exec():
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            # it ended before this was set
            os._exit(1)
        os.nice(lower)

    return before_exec


def _wait(process, timeout, watch):
    """The exit code, or None when the time is over."""
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            return process.wait(min(left, 0.01)) if watch else _wait_at_once(process, left)
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                return None
        watch(process.pid)


def _wait_at_once(process, timeout):
    """Popen.wait() looks up to 50 ms late, which is longer than most of these tools run (cpython 3.10 to 3.13: Lib/subprocess.py, Popen._wait)."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        # from Python 3.9 and Linux 5.3 on
        return process.wait(timeout)
    try:
        select.select([descriptor], [], [], max(timeout, 0))
    finally:
        os.close(descriptor)
    return process.wait(0)


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
