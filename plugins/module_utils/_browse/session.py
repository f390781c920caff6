# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one snapshot that a node serves to its administrator, by a transient unit of systemd.  Private to this collection.

    /run/k8s-dr-browse/               mode 0700, in memory: certificates, kubeconfig, what the unit runs, state.json once it serves
    WORK_DIR/.k8s-dr-*/               the restored data and the logs
    /etc/tmpfiles.d/k8s-dr-browse.conf   has systemd remove the data, and itself, after a reboot

A copy of the snapshot that was made for this goes with the data, or sooner.

The unit ends by itself, and its ExecStopPost removes all three.
"""

from __future__ import annotations

import calendar
import contextlib
import inspect
import json
import os
import re
import shlex
import shutil
import socket
import sys
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import credentials, every_object, read_only_etcd, supervisor
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.reader import ApiError, Reader
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.served import DIRECTORY, KUBECONFIG, STATE, UNIT, InUse, locked
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, offline_tool, restore_misfit, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import snapshot_server, static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import MOMENT, utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.held_program import HeldProgram, ProgramError, unpacked
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import StartedTool, ToolError, ToolResult, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WORK_PREFIX, WorkDir

TMPFILES = "/etc/tmpfiles.d/%s.conf" % UNIT
_STATE = os.path.join(DIRECTORY, STATE)
# sd_booted(3)
_SYSTEMD = "/run/systemd/system"
# Options that another session would be served with.
_DECISIVE = ("port", "kube_apiserver", "encryption_config", "etcd", "verify")
# In the network namespace of the unit nothing else listens.
_ETCD, _INNER_PORT = "https://127.0.0.1:2379", 6443
# etcd's sockets, relative to the directory of the data; see _etcd/isolated_server.py.
_SOCKET, _PEER = "c:1", "p:1"
# The logs of etcd, and the memory of an API server without a watch cache: measured, 270 MB with 350 objects, and 1.0 GB where 0.5 GB of 0.8 GB are Pods and
# Secrets, which it always holds.
_OWN_SPACE, _OWN_MEMORY = 160 * 1024 * 1024, 350 * 1000 * 1000
# What stays free for others: the live etcd is often on the same file system, and stops taking writes when that is full.
_LEFT_FREE = 500 * 1000 * 1000
# Seconds for which only checks fail that the API server cannot pass without writing, or without the key of encrypted objects; where its log has no refused
# write of them, the machine may just be slow.
_STUCK, _SLOW = 3.0, 15.0
_COMPLETES = set(read_only_etcd.COMPLETED.values())
_UNREADABLE = {"informer-sync"}
# kms-provider-0, or kms-providers where the file is read again when it changes (1.34.4 to 1.37.2: pkg/server/options/encryptionconfig/config.go)
_KMS = "kms-provider"
# What every API server reads by itself (1.34.4 to 1.37.2: pkg/kubeapiserver/options/authentication.go, pkg/registry/core/rest/storage_core.go).
_WATCHED = ("secrets", "serviceaccounts", "services", "pods", "nodes", "namespaces")
# Such writes: files of 1.34.4 to 1.37.2.
_REFUSED = re.compile(r" (autoregister_controller|storage_flowcontrol|repairip|default_servicecidr_controller)\.go:.*permission denied")
_CORRUPT = re.compile(r"corrupt object|not transformable|failed to decrypt|unable to decode|no kind \"")
# klog's fatal errors, and what the command says when it does not start.
_FATAL = re.compile(r"^F\d{4} |\"command failed\"")


def url(port):
    """Where the API server is reached from the node."""
    return "https://127.0.0.1:%d" % port


def _unit():
    """What systemd says of the unit; "" when that cannot be known."""
    if not os.path.isdir(_SYSTEMD):
        return "inactive"
    return run_tool(["systemctl", "show", "--property", "ActiveState", UNIT + ".service"], 60).stdout.strip().partition("=")[2]


def is_active():
    """Whether the unit runs, and is not being ended."""
    return _unit() == "active"


def has_ended():
    """Whether the unit has ended, and its ExecStopPost as well."""
    return _unit() in ("inactive", "failed")


def _written():
    try:
        with open(_STATE, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def state():
    """What is served, as it was written down when it began; None when nothing is."""
    found = _written()
    return found if found and is_active() else None


def is_there(sha256=""):
    """Whether there is something that end() would end or remove."""
    if sha256:
        return (_written() or {}).get("sha256") == sha256
    return not has_ended() or os.path.lexists(DIRECTORY) or os.path.lexists(TMPFILES)


def end(sha256=""):
    """End the unit and remove all that belongs to it; InUse while another run begins to serve a snapshot, or reads this one.

    sha256: only of this snapshot.  What another run has put in its place stays.
    """
    if sha256 and not is_there(sha256):
        return
    # what has no directory any more is removed by its lock as well: another run may be about to begin
    with contextlib.suppress(FileExistsError):
        os.mkdir(DIRECTORY, 0o700)
    with locked(DIRECTORY):
        if not sha256 or is_there(sha256):
            _remove()


def _remove():
    if not has_ended():
        # This waits also for one that ends by itself right now: its ExecStopPost would remove the files of the next one.
        result = run_tool(["systemctl", "stop", UNIT + ".service"], 60)
        if result.rc != 0:
            raise Refused("the unit %s cannot be stopped: %s" % (UNIT, result.last_words()))
    # what a killed module left, or systemd while it was itself restarted
    script = os.path.join(DIRECTORY, "remove")
    if os.path.exists(script):
        run_tool(["/bin/sh", script], 600)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(TMPFILES)
    # last, since it holds the lock
    shutil.rmtree(DIRECTORY, ignore_errors=True)


def directory_of_copy(options):
    """The directory to remove with the snapshot, None when that is no copy; Refused when others may have files there."""
    directory = os.path.dirname(os.path.abspath(options["path"]))
    if options["temporary"] and not os.path.basename(directory).startswith(WORK_PREFIX):
        raise Refused("%s is no temporary copy, since the name of its directory does not begin with %s" % (options["path"], WORK_PREFIX))
    return directory if options["temporary"] else None


def remove_copy(options):
    """Remove the copy of the snapshot, where it is one; nothing when it was removed already."""
    directory = directory_of_copy(options)
    if directory:
        shutil.rmtree(directory, ignore_errors=True)


class Unavailable(Refused):
    """This host is not one that can serve any snapshot."""


class Session:
    """Serves one snapshot.

        session = Session(options)
        session.check()
        with session:
            session.start()

    options: path, temporary, sha256, ttl, port, work_dir, etcd, etcdctl, etcdutl, kube_apiserver, encryption_config, manifests_dir, verify, timeout.
    Outside start() nothing is changed.  Raises Refused with one sentence.
    """

    def __init__(self, options):
        self._options = options
        self._path = os.path.abspath(options["path"])
        self._stack = contextlib.ExitStack()
        self._tool = self._etcd = self._apiserver = self._pod = None
        self._encryption, self._admission = (None, None), ""
        self._help = None
        self._openssl = None
        try:
            self.size = os.path.getsize(self._path)
        except OSError as exc:
            raise Refused("%s cannot be read: %s" % (self._path, exc.strerror)) from exc
        self._timeout = options["timeout"] or 180 + self.size // 10000000
        self._deadline = time.monotonic() + self._timeout

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self._stack.close()

    @property
    def sha256(self):
        """What tells this snapshot from another one."""
        if not self._options["sha256"]:
            self._options["sha256"] = file_digests(self._path)[1]["sha256"]
        return self._options["sha256"]

    def is_served(self, found):
        """Whether what is served already is this snapshot, in this way, and does not end soon.  found: by state()."""
        return bool(found) and self._lasts(found) and self._is_as_asked(found["asked"]) and found["sha256"] == self.sha256

    def _is_as_asked(self, asked):
        if self._options.get("replace", True):
            return asked == self._asked
        # what must stay may be served in another way
        return asked["port"] == self._options["port"] and asked["verify"] >= self._options["verify"]

    def _lasts(self, found):
        left = calendar.timegm(time.strptime(found["expires"], MOMENT)) - time.time()
        return left >= min(self._timeout, self._options["ttl"] / 2)

    @property
    def _asked(self):
        return {name: self._options[name] for name in _DECISIVE}

    # -- before anything is changed

    def check(self, replaces=False):
        """Find all that is needed.  replaces: whether a unit is ended first, which has port and memory until then."""
        options = self._options
        if not os.path.isdir(_SYSTEMD):
            raise Unavailable("a snapshot is served by a unit of systemd, and systemd does not run on this host")
        pods = self._static_pods()
        self._pod = pods.get("kube-apiserver")
        self._apiserver = self._find_apiserver()
        self._openssl = credentials.find_openssl()
        self._encryption = snapshot_server.encryption_configuration(self._pod, options["encryption_config"])
        snapshot_server.check_kms(self._encryption)
        short = shortage(options["work_dir"], int(self.size * 1.1) + _OWN_SPACE + _LEFT_FREE, "serving the snapshot")
        if short:
            raise Refused(short)
        try:
            if not replaces:
                isolated_server.check_memory(self.size, what="serving the snapshot", more=self.size // 2 + _OWN_MEMORY)
            etcdctl, etcdutl = find_tools(options["etcdctl"], options["etcdutl"])
            self._tool = offline_tool("restore", etcdctl, etcdutl)
            if self._tool is None:
                raise Refused("there is neither etcdutl nor an etcdctl on this host that restores snapshots; install.yml installs them")
            image = pods["etcd"].image_version if "etcd" in pods else ""
            self._etcd = self._stack.enter_context(isolated_server.find_server(options["etcd"], "", etcdctl and etcdctl.path, image))
        except isolated_server.ThrowawayError as exc:
            raise Refused(str(exc)) from exc
        except ToolError as exc:
            raise Refused(exc.message) from exc
        misfit = restore_misfit(self._tool.version, self._etcd.version)
        if misfit:
            raise Refused(misfit)
        # it answers while other things are done
        with contextlib.suppress(ToolError):
            self._help = self._stack.enter_context(_ended(StartedTool([self._apiserver.program, "--help"], bound=True)))
        if not replaces:
            _check_port(options["port"])

    def _static_pods(self):
        directory = self._options["manifests_dir"]
        try:
            return static_pods.read_static_pods(directory) if os.path.isdir(directory) else {}
        except ValueError as exc:
            raise Refused(str(exc)) from exc

    def _find_apiserver(self):
        """The given program; else that of the API server that runs; else the one in its image."""
        candidates = [self._options["kube_apiserver"]] if self._options["kube_apiserver"] else _apiservers()
        wanted = self._pod.image_version if self._pod and not self._options["kube_apiserver"] else ""
        if not candidates:
            raise Unavailable("no kube-apiserver runs on this host and no image of it is unpacked; give the path of one")
        problem = "no kube-apiserver %s is on this host; give the path of one" % wanted
        for path in candidates:
            try:
                found = HeldProgram(path, "kube-apiserver", r"^Kubernetes v(\S+)")
            except ProgramError as exc:
                problem = str(exc)
                continue
            if path.startswith("/proc/") or not wanted or version_tuple(found.version) == version_tuple(wanted):
                return self._stack.enter_context(found)
            found.close()
        raise Refused(problem)

    # -- what changes something

    def start(self):
        """Serve it, and return what state() returns from then on."""
        os.makedirs(os.path.dirname(TMPFILES), mode=0o755, exist_ok=True)
        os.umask(0o077)
        _check_port(self._options["port"])
        try:
            os.mkdir(DIRECTORY, 0o700)
        except FileExistsError:
            raise InUse() from None
        with locked(DIRECTORY):
            work = WorkDir(self._options["work_dir"])
            try:
                with work:
                    return self._start(work)
            except BaseException:
                with contextlib.suppress(Refused, ToolError):
                    _remove()
                # a restore that was still writing may have kept the unit from that
                if work.path:
                    shutil.rmtree(work.path, ignore_errors=True)
                raise

    def _start(self, work):
        data = os.path.join(work.path, "data")
        # The unit first: from then on systemd removes everything, whatever becomes of this process.
        self._write_supervisor(work)
        work.share()
        began = time.time()
        self._start_unit()
        work.hand_over()
        restoring = self._stack.enter_context(_ended(StartedTool([self._tool.path, "snapshot", "restore", self._path, "--data-dir", data], bound=True)))
        self._write_files()
        digest = self.sha256
        result = restoring.finish(self._left())
        if result.rc != 0:
            raise Refused("the snapshot cannot be restored: `%s snapshot restore` %s: %s" % (self._tool.name, result.how(), result.last_words()))
        remove_copy(self._options)
        if self._help:
            self._admission = snapshot_server.admission_plugins(self._help.finish(10).stdout)
        log = self._stack.enter_context(_log(work.path))
        self._start_program("etcd", work.path, self._etcd.program, self._etcd_argv(data))
        try:
            gateway = read_only_etcd.Gateway(os.path.join(work.path, _SOCKET))
            revision = gateway.wait(self._deadline, is_active)
            stored = every_object.Stored(os.path.join(work.path, "keys")) if self._options["verify"] else None
            if stored:
                stored.read(gateway, snapshot_server.prefix_of(self._pod))
            gateway.lock(snapshot_server.prefix_of(self._pod))
            reader = Reader.of(DIRECTORY, self._options["port"])
            completed, synced = self._serve(work.path, reader, log)
            self._check_version(reader)
            unreadable = None if synced else _unreadable(reader)
            objects = every_object.compare(reader, stored, completed, self._deadline) if stored else None
            if stored:
                stored.remove()
        except Refused as exc:
            raise Refused(log.words(str(exc))) from exc
        except ApiError as exc:
            raise Refused(log.words("the API server does not show the snapshot: %s" % exc)) from exc
        found = {
            "sha256": digest,
            "asked": self._asked,
            "revision": revision,
            "expires": utc(began + self._options["ttl"]),
            "etcd_version": self._etcd.version,
            "kubernetes_version": self._apiserver.version,
            "completed": completed,
            "unreadable": unreadable,
            "objects": objects,
        }
        credentials.write(KUBECONFIG, credentials.kubeconfig(DIRECTORY, url(self._options["port"])))
        credentials.write(_STATE, json.dumps(found))
        return found

    def _left(self):
        return max(0, self._deadline - time.monotonic())

    def _write_supervisor(self, work):
        # a power cut, or a kill, while it is restored leaves the copy
        places = [path for path in (work.path, directory_of_copy(self._options)) if path]
        credentials.write(os.path.join(DIRECTORY, "remove"), _removal(places))
        with open(TMPFILES, "w", encoding="utf-8") as stream:
            stream.write("".join("R! %s\n" % _escaped(path) for path in places) + "r! %s\n" % TMPFILES)
        credentials.write(os.path.join(DIRECTORY, "supervisor.py"), inspect.getsource(supervisor))
        wanted = {"lock": work.lock, "port": self._options["port"], "inner_port": _INNER_PORT}
        credentials.write(os.path.join(DIRECTORY, "supervisor.json"), json.dumps(wanted))

    def _write_files(self):
        credentials.make(self._openssl, DIRECTORY, self._options["ttl"])
        credentials.write(os.path.join(DIRECTORY, "policy"), snapshot_server.policy())
        if self._encryption[1]:
            credentials.write(os.path.join(DIRECTORY, "encryption.yaml"), self._encryption[1])

    def _etcd_argv(self, data):
        argv = ["etcd", "--name", UNIT, "--data-dir", data, "--listen-peer-urls", "unix://" + _PEER]
        argv += ["--listen-client-urls", "unix://%s,%s" % (_SOCKET, _ETCD), "--advertise-client-urls", _ETCD]
        argv += ["--cert-file", DIRECTORY + "/server.crt", "--key-file", DIRECTORY + "/server.key"]
        argv += ["--client-cert-auth", "--trusted-ca-file", DIRECTORY + "/etcd-clients.crt"]
        argv += ["--heartbeat-interval", "10", "--election-timeout", "100", "--initial-election-tick-advance=false"]
        # the size of the snapshot must not be too much for it
        argv += ["--quota-backend-bytes", "-1", "--logger", "zap", "--log-level", "warn"]
        return argv + (["--unsafe-no-fsync"] if version_tuple(self._etcd.version) >= (3, 5) else [])

    def _start_unit(self):
        settings = {
            "RuntimeMaxSec": self._options["ttl"],
            "KillSignal": "SIGKILL",
            "SuccessExitStatus": "SIGKILL",
            "Nice": 10,
            # when memory runs out this one goes, and nothing that the cluster needs
            "OOMScoreAdjust": 1000,
            "UMask": "0077",
            "ExecStopPost": "/bin/sh %s/remove" % DIRECTORY,
        }
        argv = ["systemd-run", "--quiet", "--collect", "--unit", UNIT, "--description", "A snapshot of etcd, served to the administrator"]
        for name, value in sorted(settings.items()):
            argv += ["--property", "%s=%s" % (name, value)]
        try:
            result = run_tool(argv + [sys.executable, DIRECTORY + "/supervisor.py", DIRECTORY], 60)
        except ToolError as exc:
            raise Refused(exc.message) from exc
        if result.rc != 0:
            raise Refused("the unit %s cannot be started: `systemd-run` %s: %s" % (UNIT, result.how(), result.last_words()))

    def _serve(self, work, reader, log):
        """Start the API server, and wait until it serves: (whether it had to complete objects, whether it could read all that it needs itself)."""
        self._start_apiserver(work, "reading")
        completed, since, last = False, time.monotonic(), None
        while True:
            waits = reader.waits_for()
            now = time.monotonic()
            if waits != last:
                since, last = now, waits
            if waits is not None and not waits:
                return completed, True
            if waits and waits <= _UNREADABLE and now - since > _STUCK and log.corrupt():
                return completed, False
            stuck = waits and waits <= _COMPLETES | _UNREADABLE and now - since > (_STUCK if log.refused() else _SLOW)
            if not completed and (stuck or "permission denied" in log.fatal()):
                completed = True
                self._start_apiserver(work, "completing")
            if any(name.startswith(_KMS) for name in waits or ()) and now - since > _SLOW:
                raise Refused("a KMS plugin of the EncryptionConfiguration answers, but cannot encrypt or decrypt; its own log says why")
            if now > self._deadline:
                raise Refused("the API server did not serve it in time%s" % (", it waits for %s" % ", ".join(sorted(waits)) if waits else ""))
            if not is_active():
                raise Refused("the API server does not start with it")
            time.sleep(0.1)

    def _start_apiserver(self, work, client):
        encryption = DIRECTORY + "/encryption.yaml" if self._encryption[1] else self._encryption[0]
        argv = snapshot_server.arguments(self._pod, DIRECTORY, _ETCD, _INNER_PORT, encryption, client, self._admission)
        self._start_program("server", work, self._apiserver.program, argv)

    @staticmethod
    def _start_program(name, work, program, argv):
        """Have the supervisor start a program, once more if it runs."""
        path = os.path.join(DIRECTORY, name + ".json")
        credentials.write(path + ".new", json.dumps({"argv": argv, "program": program, "log": os.path.join(work, argv[0] + ".log"), "directory": work}))
        os.rename(path + ".new", path)

    def _check_version(self, reader):
        cluster = reader.cluster_version()
        if version_tuple(cluster)[:2] > version_tuple(self._apiserver.version)[:2]:
            raise Refused(
                "the snapshot is of Kubernetes %s, and kube-apiserver %s does not know all that is in it; give the path of one of that version"
                % (cluster, self._apiserver.version)
            )


def _unreadable(reader):
    """Why not all objects can be read: one sentence about the first list of which that is so."""
    return next(filter(None, (reader.unreadable("/api/v1/" + name) for name in _WATCHED)), "not all objects can be read")


def _apiservers():
    running = [process.pid for process in procs.processes() if process.name == "kube-apiserver" and process.pod]
    return ["/proc/%d/exe" % pid for pid in running] + unpacked("kube-apiserver")


def _check_port(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as exc:
            raise Refused("port %d of 127.0.0.1 cannot be used on this host: %s; choose another one" % (port, exc.strerror)) from exc


@contextlib.contextmanager
def _ended(tool):
    try:
        yield tool
    finally:
        tool.end()


class _Log:
    """The logs of both programs, which can be read after they were removed."""

    def __init__(self, apiserver, etcd):
        self._apiserver, self._etcd = apiserver, etcd

    def refused(self):
        """Whether etcd has refused the API server a write that it cannot do without."""
        return bool(_REFUSED.search(_end_of(self._apiserver)))

    def corrupt(self):
        """Whether the API server could not decrypt or decode something."""
        return bool(_CORRUPT.search(_end_of(self._apiserver)))

    def fatal(self):
        """The error that ended the API server, "" while it runs: it stands between many that did not."""
        lines = [line for line in _end_of(self._apiserver).splitlines() if _FATAL.search(line)]
        return lines[-1].partition("] ")[2][:300] if lines else ""

    def words(self, sentence):
        """The sentence, and what the logs say besides."""
        said = self.fatal() or ToolResult([], 1, "", _end_of(self._etcd)).last_words()
        return "%s: %s" % (sentence, said) if said else sentence


def _end_of(stream):
    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - 256 * 1024))
    return stream.read().decode("utf-8", "replace")


@contextlib.contextmanager
def _log(work):
    with contextlib.ExitStack() as stack:
        paths = [os.path.join(work, name) for name in ("kube-apiserver.log", "etcd.log")]
        yield _Log(*(stack.enter_context(open(path, "w+b")) for path in paths))


def _removal(places):
    """The script that removes everything: of this session, and by systemd."""
    return "".join("rm -rf -- %s\n" % shlex.quote(path) for path in (*places, TMPFILES, DIRECTORY))


def _escaped(path):
    """A path as tmpfiles.d(5) reads it: specifiers begin with a per cent sign, and globs have these characters."""
    return "".join("\\x%02x" % ord(c) if c in " \t\"'\\" else "%%" if c == "%" else "[%s]" % c if c in "*?[" else c for c in path)
