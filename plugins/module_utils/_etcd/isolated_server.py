# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An etcd that serves a copy of some data to this process alone, for as long as this process wants it.

    with WorkDir("/var/lib") as work, find_server(None, endpoint) as server:
        ... put a data directory into work.path ...
        with Throwaway(server, work.path, data_dir, etcdctl, deadline) as etcd:
            etcd.client.status()

Nobody else can reach it and it can reach nobody: it listens on Unix sockets in a directory of mode 0700, and has a network
namespace with nothing in it.  It needs no certificate and no port, and old members that its data names are never called.
It ends with this process, even one that is killed.  Private to this collection.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import protobuf
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import DATABASE, database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import EtcdClient, is_denied
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.gateway import UnixConnection, connected
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.unary_call import CallError, UnaryCall
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs, signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.held_program import HeldProgram, ProgramError, unpacked
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import (
    ToolResult,
    clean_environment,
    ended_with_parent,
    find_tool,
)

# etcd takes a Unix socket's path from where an URL has host and port, in all versions from 3.4 on, and relative to where it runs.
_CLIENT, _PEER = "c:1", "p:1"
# The copy must not look as if it were a member that is somewhere.
_NAME = "k8s-dr-throwaway"
_CLIENT_URL = "http://throwaway.invalid:1"
# Seconds after which one that knows other members never will be elected, since there is no network. Where another one has a vote, it is outvoted as soon
# as its log is applied and the members do not change any more.
_ALONE_AFTER, _OUTVOTED_AFTER = 5.0, 1.0
_DIRECTORIES = ("snap", "wal")
_CLONE_NEWNET = 0x40000000


class ThrowawayError(Exception):
    """Why nothing can be served: one sentence, without a capital and a full stop."""


class Unservable(ThrowawayError):
    """It is the data's fault."""


class NeedsUser(ThrowawayError):
    """It serves, but only to users of the cluster that it is of."""


class TimeIsUp(ThrowawayError):
    """The time that was given is over."""


class TooMuch(ThrowawayError):
    """An answer is longer than was allowed."""


class Server(HeldProgram):
    """etcd's server program."""

    def __init__(self, path, whose, timeout=10):
        # "running": what serves the live data right now; "unpacked": out of its image; "given" or "found" otherwise
        self.whose = whose
        try:
            super().__init__(path, "an etcd server", r"^etcd Version:\s*(\S+)", timeout)
        except ProgramError as exc:
            raise ThrowawayError(str(exc)) from exc


def find_server(explicit=None, endpoint="", etcdctl=None, image_version="", proc="/proc"):
    """A Server: the given one; else the program of the etcd that runs on this host, which fits its data; else the one in its image, where that
    is of `image_version`; else one beside etcdctl or in PATH.
    """
    if explicit:
        return Server(explicit, "given")
    tried = []
    for pid in _running(endpoint, proc):
        try:
            return Server("%s/%d/exe" % (proc, pid), "running")
        except ThrowawayError as exc:
            tried.append(str(exc))
    for path in unpacked("etcd") if image_version else []:
        try:
            server = Server(path, "unpacked")
        except ThrowawayError as exc:
            tried.append(str(exc))
            continue
        if version_tuple(server.version) == version_tuple(image_version):
            return server
        server.close()
    beside = os.path.join(os.path.dirname(etcdctl), "etcd") if etcdctl else ""
    path = beside if beside and os.access(beside, os.X_OK) else find_tool("etcd")
    if path:
        return Server(path, "found")
    raise ThrowawayError(tried[0] if tried else "no etcd runs on this host and there is no etcd server program on it either")


def _running(endpoint, proc):
    """Process ids of etcd servers of this host, first the one that listens at `endpoint`, then those of Pods."""
    port = endpoint.rpartition(":")[2]
    candidates = []
    for process in procs.processes(proc):
        if process.name != "etcd":
            continue
        try:
            with open("%s/%d/cmdline" % (proc, process.pid), "rb") as stream:
                command = stream.read().decode("utf-8", "replace")
        except OSError:
            continue
        listens = port.isdigit() and re.search(r"--?listen-client-urls[=\0][^\0]*:%s(?=[,/\0]|$)" % port, command)
        if listens or process.pod:
            candidates.append((not listens, process.pid))
    return [pid for _order, pid in sorted(candidates)]


class Throwaway:
    """etcd over a data directory below `work`, which it may change.

    deadline: in time.monotonic(), by which it must serve.
    force_new_cluster: make it the only member of its cluster, whatever its data says.  Left out where it is the only one: what etcd
    did not know to be committed when it was killed is thrown away by that, and kept by an election.
    election: milliseconds before it elects itself and writes its own name over the one that the data has.
    """

    def __init__(self, server, work, data_dir, etcdctl, deadline, timeout=10, force_new_cluster=False, election=100):
        self.server = server
        self.work = work
        self.data_dir = data_dir
        self.deadline = deadline
        self.force_new_cluster = force_new_cluster
        self.election = election
        self.client = EtcdClient(
            {"endpoint": "unix://" + _CLIENT, "timeout": timeout, "cacert": None, "cert": None, "key": None, "etcdctl": etcdctl}, cwd=work
        )
        # The members that the data names, read before this one has changed them.
        self.members = []
        # as it told them last
        self._last = []
        self.log = os.path.join(work, "etcd.log")
        self._process = None
        self._denied = False
        # since when it has known its members, and since when these
        self._lonely = self._settled = None

    def __enter__(self):
        try:
            self.start()
            self.wait()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_exc):
        self.end()

    def _argv(self):
        argv = [_NAME, "--name", _NAME, "--data-dir", self.data_dir]
        argv += ["--listen-client-urls", "unix://" + _CLIENT, "--advertise-client-urls", _CLIENT_URL, "--listen-peer-urls", "unix://" + _PEER]
        argv += ["--heartbeat-interval", "%d" % (self.election // 10), "--election-timeout", "%d" % self.election]
        argv.append("--initial-election-tick-advance=false")
        argv += ["--logger", "zap", "--log-level", "warn"]
        if version_tuple(self.server.version) >= (3, 5):
            argv.append("--unsafe-no-fsync")
        return argv + (["--force-new-cluster"] if self.force_new_cluster else [])

    def start(self):
        """Start it, for a caller who does something else before wait(), and calls end()."""
        self._lonely, self._settled, self._last = None, None, []
        for name in (_CLIENT, _PEER):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.work, name))
        libc = ctypes.CDLL(None)
        # or an etcd would stay that serves a copy of all Secrets
        end_with_this_process = ended_with_parent(nice=10)

        def before_exec():
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            end_with_this_process()
            # when memory runs out this one goes, and not the etcd that the cluster needs
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
                stream.write("1000")
            if libc.unshare(_CLONE_NEWNET) != 0:
                # what cannot be kept apart is not started
                os._exit(126)

        environment = dict(clean_environment(), GOMAXPROCS="2")
        # One that runs and is not known yet would write on while its directory is removed.
        with open(self.log, "ab") as log, signals.held() as mask:
            try:
                # AnsibleModule.run_command waits for the end
                self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                    self._argv(),
                    executable=self.server.program,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=self.work,
                    start_new_session=True,
                    preexec_fn=before_exec,  # noqa: PLW1509 - modules have one thread
                )
            except (OSError, subprocess.SubprocessError) as exc:
                raise ThrowawayError("%s cannot be run: %s" % (self.server.path, getattr(exc, "strerror", None) or exc)) from exc

    def wait(self):
        """Return once it serves a read that needs a leader; raises ThrowawayError."""
        while not self.serves():
            time.sleep(0.02)

    def serves(self, timeout=1.0):
        """Whether it serves already; raises ThrowawayError when it never will.  timeout: seconds of each question, since one that starts does not answer."""
        ended = self._process.poll()
        if ended is not None:
            raise self._ended(ended)
        members = self._ask_members(timeout)
        if members and self._lonely is None:
            self._lonely = time.monotonic()
        if members and members != self._last:
            self._last, self._settled = members, time.monotonic()
        # Until the log is applied it may know fewer; once it is elected what the data said of it is gone.
        if not self.members or len(members) > len(self.members) or not any(member["name"] == "" for member in members):
            self.members = members or self.members
        # before that it cannot, and asking would take the time in which the members are to be seen
        if self._lonely is not None and time.monotonic() - self._lonely >= self.election / 1000.0 and self._answers(timeout):
            return True
        if self._denied:
            raise NeedsUser(
                "it is of an etcd with authentication enabled, which serves nothing without a user, so its data cannot be read back; "
                "a snapshot that is taken after `etcdctl auth disable` can be"
            )
        if len(self.members) > 1 and not self.force_new_cluster and self._is_hopeless():
            raise NotAlone("it is one of %d members" % len(self.members), self.members)
        if time.monotonic() > self.deadline:
            raise TimeIsUp("etcd %s did not serve it in time" % self.server.version)
        return False

    def _is_hopeless(self):
        """Whether those of its members that are elsewhere keep it from being elected."""
        votes = len([member for member in self._last if not member["is_learner"]])
        now = time.monotonic()
        return now - self._lonely > _ALONE_AFTER or (votes > 1 and now - self._settled > _OUTVOTED_AFTER)

    def _ended(self, code):
        if code == 126:
            return ThrowawayError("this process may not make a network namespace, without which nothing is served")
        words = self.last_words()
        trouble = re.search("no space left|too many open files|cannot allocate memory|out of memory|create new OS thread|flag", words, re.IGNORECASE)
        # A signal other than its own abort comes from outside.
        kind = ThrowawayError if trouble or code in (-signal.SIGKILL, -signal.SIGTERM) else Unservable
        return kind("etcd %s does not start with it: %s" % (self.server.version, words or "it ended with code %d" % code))

    def last_words(self):
        with open(self.log, "rb") as stream:
            stream.seek(max(0, os.path.getsize(self.log) - 64 * 1024))
            text = stream.read().decode("utf-8", "replace")
        return ToolResult([], 1, "", text).last_words().replace(self.work + "/", "")

    def _request(self, name, method, url, body=None, timeout=1.0):
        """The JSON that it answers, or None while it does not."""
        connection = UnixConnection(os.path.join(self.work, name), timeout)
        try:
            connection.request(method, url, body)
            response = connection.getresponse()
            text = response.read()
            self._denied = is_denied(text.decode("utf-8", "replace"))
            return json.loads(text) if response.status == 200 else None
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def range(self, question, timeout, most):
        """What it answers to a question for keys and values, as its JSON gateway has both; TooMuch when that has more than `most` bytes."""
        connection = UnixConnection(os.path.join(self.work, _CLIENT), timeout)
        try:
            connection.request("POST", "/v3/kv/range", json.dumps(question))
            response = connection.getresponse()
            text = response.read(most + 1)
        except (OSError, http.client.HTTPException) as exc:
            if isinstance(exc, socket.timeout):
                raise TimeIsUp("etcd %s did not answer in time" % self.server.version) from exc
            # one that ends is not to be asked for its code before it has
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise self._ended(self._process.wait(3)) from exc
            raise ThrowawayError("etcd %s does not answer: %s" % (self.server.version, exc)) from exc
        finally:
            connection.close()
        if len(text) > most:
            raise TooMuch("an answer of etcd %s has more than %d bytes" % (self.server.version, most))
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if response.status != 200 or not isinstance(answer, dict):
            words = text[:300].decode("utf-8", "replace").strip()
            raise ThrowawayError("etcd %s does not answer: %s" % (self.server.version, words))
        return answer

    def begin_hash(self):
        """Ask for the hash of its whole database: a function of the time by which it must be there, which returns (hash, revision) or None."""
        return self._begin("etcdserverpb.Maintenance/Hash", b"", lambda found: (found.get(2, 0), protobuf.message(found.get(1, b"")).get(3, 0)))

    def begin_hash_kv(self, revision=0):
        """The same for what `etcdctl endpoint hashkv` says: (hash, compact revision, revision) or None."""
        question = b"\x08" + protobuf.encoded(revision) if revision else b""
        return self._begin(
            "etcdserverpb.Maintenance/HashKV", question, lambda found: (found.get(2, 0), found.get(3, 0), protobuf.message(found.get(1, b"")).get(3, 0))
        )

    def _begin(self, method, question, values):
        try:
            call = UnaryCall(connected(os.path.join(self.work, _CLIENT), 5), method, question)
        except OSError:
            return lambda deadline: None

        def finish(deadline):
            try:
                return values(protobuf.message(call.finish(deadline)))
            except (CallError, OSError, ValueError, IndexError):
                return None

        return finish

    def _answers(self, timeout):
        # one key, since etcd looks at all keys of a range to count them
        question = json.dumps({"key": "AA==", "count_only": True})
        return self._request(_CLIENT, "POST", "/v3/kv/range", question, timeout) is not None

    def _ask_members(self, timeout):
        return [
            {
                "id": "%x" % int(member["id"]),
                "name": member.get("name", "") if member.get("name") != _NAME else "",
                "peer_urls": member.get("peerURLs") or [],
                "client_urls": [url for url in member.get("clientURLs") or [] if url != _CLIENT_URL],
                "is_learner": bool(member.get("isLearner", False)),
            }
            for member in self._request(_PEER, "GET", "/members", timeout=timeout) or []
        ]

    def end(self):
        """End it, whether it serves or not."""
        process, self._process = self._process, None
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)


class NotAlone(ThrowawayError):
    """Its data names other members, which are unreachable: force_new_cluster is needed."""

    def __init__(self, message, members):
        super().__init__(message)
        self.members = members


def check_memory(database_size, meminfo="/proc/meminfo", what="one more etcd", more=0):
    """Raise ThrowawayError when this host has not the memory for one more etcd: measured, 0.6 GB over a million keys in 1.4 GB.

    what: for the message, where that needs so many bytes more.
    """
    needed = database_size // 2 + 200 * 1000 * 1000 + more
    try:
        with open(meminfo, encoding="ascii") as stream:
            found = re.search(r"^MemAvailable:\s+([0-9]+) kB", stream.read(), re.MULTILINE)
    except OSError:
        found = None
    if found and int(found.group(1)) * 1024 < needed:
        raise ThrowawayError(
            "this host has %d MB of memory available, and %s needs %d MB" % (int(found.group(1)) * 1024 // 1000000, what, needed // 1000000)
        )


def copy_data(source, target):
    """Copy an etcd data directory, or what its `member` holds, to target/member; `source` is only read.

    The database is locked meanwhile against an etcd that would be started on it; raises ThrowawayError when one uses it.
    """
    root = os.path.dirname(os.path.dirname(database_of(source)))
    with unused(source):
        for directory in _DIRECTORIES:
            os.makedirs(os.path.join(target, "member", directory), 0o700)
        for path in files_of(source):
            _copy_file(path, os.path.join(target, "member", os.path.relpath(path, root)))


@contextlib.contextmanager
def unused(data_dir):
    """A context in which the database of a data directory is locked against an etcd; raises ThrowawayError when one uses it."""
    database = database_of(data_dir)
    try:
        lock = os.open(database, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as exc:
        raise Unservable("%s cannot be read: %s" % (database, exc.strerror)) from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ThrowawayError("an etcd uses %s right now" % data_dir) from None
        yield
    finally:
        os.close(lock)


def database_of(data_dir):
    """The database of a data directory, or of one that is what is called `member` inside it."""
    for path in (database_path(data_dir), os.path.join(data_dir, DATABASE)):
        if os.path.lexists(path):
            return path
    raise Unservable("there is no etcd database in %s" % data_dir)


def files_of(data_dir):
    """Paths of the files in a data directory that etcd needs to serve it."""
    root = os.path.dirname(os.path.dirname(database_of(data_dir)))
    found = []
    for directory in _DIRECTORIES:
        there = os.path.join(root, directory)
        for name in sorted(os.listdir(there)) if os.path.isdir(there) else []:
            path = os.path.join(there, name)
            # *.tmp are segments of the log made in advance
            if not name.endswith(".tmp") and os.path.isfile(path) and not os.path.islink(path):
                found.append(path)
    return found


def _copy_file(source, target):
    with open(source, "rb") as old, open(target, "xb") as new:
        try:
            # FICLONE: no byte is copied where the file system can share them
            fcntl.ioctl(new.fileno(), 0x40049409, old.fileno())
            return
        except OSError:
            pass
        shutil.copyfileobj(old, new, 1024 * 1024)
