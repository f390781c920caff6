# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real etcd with TLS on loopback, and modules run as Ansible runs them.

    with Etcd("3.5", tmp_path) as etcd:
        etcd.put("/registry/pods/default/a", b"...")
        etcd.save(tmp_path / "a.db")
        rc, result = run_module("etcd_snapshot_info", path=tmp_path / "a.db")
        rc, result = run_module("etcd_cluster_info", **etcd.connection)

Environment: ETCD_VERSIONS ("3.4 3.5") are the versions to test with; ETCD_BINARIES may name a directory that holds
one directory of binaries per version, otherwise tests/sandbox/etcd is asked for them.
"""

from __future__ import annotations

import atexit
import base64
import ctypes
import functools
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from ansible import module_utils

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "playbooks" / "collections"
VERSIONS = os.environ.get("ETCD_VERSIONS", "3.4 3.5").split()
# The Python of a managed node, when the modules are to be run by another one than the tests.
MODULE_PYTHON = os.environ.get("MODULE_PYTHON", "")


class Unavailable(Exception):
    """The binaries of a version are not at hand."""


@functools.lru_cache(maxsize=None)
def bin_dir(version):
    """The directory with etcd and etcdctl (and etcdutl from 3.5 on) of a version."""
    own = os.environ.get("ETCD_BINARIES")
    if own and (pathlib.Path(own) / version / "etcd").exists():
        return pathlib.Path(own) / version
    script = ROOT / "tests" / "sandbox" / "etcd"
    if not script.exists():
        raise Unavailable("%s is missing" % script)
    result = subprocess.run([str(script), version], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Unavailable("etcd %s is not at hand: %s" % (version, result.stderr.strip()[-300:]))
    return pathlib.Path(result.stdout.strip().splitlines()[-1])


def tools(version):
    """Module options that name the tools of a version; a tool that it does not have is left out."""
    return {name: str(bin_dir(version) / name) for name in ("etcdctl", "etcdutl") if (bin_dir(version) / name).exists()}


def offline_tool(version):
    """The binary of a version that restores snapshots."""
    return tools(version).get("etcdutl") or tools(version)["etcdctl"]


def clean_environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}
    env.update({"ETCDCTL_API": "3", "LC_ALL": "C.UTF-8"}, **more)
    return env


def restore(version, snapshot, data_dir, *flags, timeout=60):
    """`snapshot restore` of a version, as a CompletedProcess."""
    command = [offline_tool(version), "snapshot", "restore", str(snapshot), "--data-dir", str(data_dir)] + list(flags)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=clean_environment(), timeout=timeout, check=False)


@functools.lru_cache(maxsize=None)
def module_path():
    """Where a module finds what it imports: this collection, and the part of Ansible that would be sent with it."""
    if not MODULE_PYTHON:
        return str(COLLECTIONS)
    sent = tempfile.mkdtemp(prefix="k8s-dr-module-path-")
    atexit.register(shutil.rmtree, sent, ignore_errors=True)
    os.mkdir(os.path.join(sent, "ansible"))
    pathlib.Path(sent, "ansible", "__init__.py").touch()
    os.symlink(os.path.dirname(module_utils.__file__), os.path.join(sent, "ansible", "module_utils"))
    return os.pathsep.join([str(COLLECTIONS), sent])


def run_module(module, check_mode=False, diff=False, environment=None, cwd=None, limit=120, **args):
    """Run a module of this collection as Ansible does on a managed node, without the controller, for `limit` seconds: (return code, result)."""
    args = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in args.items()}
    args.update(_ansible_check_mode=check_mode, _ansible_diff=diff)
    process = subprocess.run(
        [MODULE_PYTHON or sys.executable, str(ROOT / "plugins" / "modules" / (module + ".py"))],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": args}),
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=module_path(), PYTHONDONTWRITEBYTECODE="1", **(environment or {})),
        cwd=cwd,
        timeout=limit,
        check=False,
    )
    try:
        return process.returncode, json.loads(process.stdout)
    except ValueError as exc:
        raise AssertionError("%s printed no JSON: %s%s" % (module, process.stdout, process.stderr)) from exc


def start_module(module, **args):
    """The same as a Popen that is not waited for."""
    args = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in args.items()}
    process = subprocess.Popen(
        [MODULE_PYTHON or sys.executable, str(ROOT / "plugins" / "modules" / (module + ".py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=module_path(), PYTHONDONTWRITEBYTECODE="1"),
    )
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}))
    process.stdin.close()
    return process


def wait_for(condition, seconds=30):
    """Wait until a condition holds, which must be within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "%s did not hold within %d s" % (condition, seconds)
        time.sleep(0.05)


def ansible(module, *more, environment=None, limit=120, **args):
    """Run a module through the real `ansible` on localhost: (return code, result)."""
    args = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in args.items()}
    command = [os.path.join(os.path.dirname(sys.executable), "ansible"), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", "ansible_python_interpreter=" + (MODULE_PYTHON or sys.executable), "-m", "k8s_dr.etcd." + module, "-a", json.dumps(args)] + list(more)
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS), ANSIBLE_STDOUT_CALLBACK="ansible.builtin.minimal", ANSIBLE_NOCOLOR="1")
    env.update(environment or {})
    process = subprocess.run(command, capture_output=True, text=True, env=env, timeout=limit, check=False)
    match = re.search(r"^localhost \| .+ => (?=\{)", process.stdout, re.MULTILINE)
    if not match:
        raise AssertionError("ansible printed no result: %s%s" % (process.stdout, process.stderr))
    return process.returncode, json.JSONDecoder().raw_decode(process.stdout[match.end() :])[0]


def free_ports(count):
    """Ports of 127.0.0.1 that are free and lead here: packet filters may forward a free one to a container that is gone."""
    sockets, ports = [], []
    try:
        while len(ports) < count:
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", 0))
            sockets[-1].listen()
            port = sockets[-1].getsockname()[1]
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                ports.append(port)
            except OSError:
                pass
        return ports
    finally:
        for one in sockets:
            one.close()


def make_pki(directory):
    """A CA, and one certificate of it that serves as server, peer and client: {cacert, cert, key}, as strings."""
    directory = pathlib.Path(directory)
    pki = {"cacert": directory / "ca.crt", "cert": directory / "server.crt", "key": directory / "server.key"}
    if not pki["cert"].exists():
        directory.mkdir(parents=True, exist_ok=True)
        extensions = directory / "extensions"
        extensions.write_text("subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n")
        request = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        ca_key, csr = str(directory / "ca.key"), str(directory / "server.csr")
        for command in (
            request + ["-x509", "-days", "30", "-subj", "/CN=etcd-ca", "-keyout", ca_key, "-out", str(pki["cacert"])],
            request + ["-subj", "/CN=localhost", "-keyout", str(pki["key"]), "-out", csr],
            ["openssl", "x509", "-req", "-days", "30", "-in", csr, "-CA", str(pki["cacert"]), "-CAkey", ca_key, "-CAcreateserial"]
            + ["-extfile", str(extensions), "-out", str(pki["cert"])],
        ):
            subprocess.run(command, capture_output=True, check=True)
    return {name: str(path) for name, path in pki.items()}


def url_of(host, port):
    return "https://%s:%d" % ("[%s]" % host if ":" in host else host, port)


def _die_with_parent():
    # A test run that is killed must leave no etcd behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Etcd:
    """One member.  Start it with `with`, or with start() and kill().

    version: "3.5" or a full one.  tmpdir: holds everything it writes, among it the certificates, which members made
    with the same tmpdir share.  initial_cluster: "a=https://127.0.0.1:2380,…"; alone by default.
    wait: whether start() waits for a consistent read, which a member of three started first cannot serve.
    host: its address; "::1" for one that speaks IPv6 alone.
    """

    def __init__(
        self, version, tmpdir, name="m1", initial_cluster=None, data_dir=None, force_new_cluster=False, client_port=None, peer_port=None, wait=True, flags=(),
        host="127.0.0.1"
    ):
        self.version = version
        self.tmpdir = pathlib.Path(tmpdir)
        self.name = name
        self.dir = bin_dir(version)
        self.pki = make_pki(self.tmpdir / "pki")
        self.data_dir = pathlib.Path(data_dir or self.tmpdir / (name + ".etcd"))
        self.log = self.tmpdir / (name + ".log")
        self.initial_cluster = initial_cluster
        self.force_new_cluster = force_new_cluster
        self.wait = wait
        self.host = host
        self.flags = list(flags)
        self.process = None
        self._own_ports = client_port is None and peer_port is None and initial_cluster is None
        ports = free_ports(2)
        self._set_ports(client_port or ports[0], peer_port or ports[1])

    def _set_ports(self, client, peer):
        self.client_port, self.peer_port = client, peer
        self.endpoint, self.peer_url = url_of(self.host, client), url_of(self.host, peer)

    @property
    def pid(self):
        return self.process.pid if self.process else None

    @property
    def db(self):
        """The live database file."""
        return self.data_dir / "member" / "snap" / "db"

    @property
    def connection(self):
        """Options of the modules that talk to etcd."""
        return dict(self.pki, endpoint=self.endpoint, timeout=10, **tools(self.version))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exc):
        self.kill()

    def command(self):
        argv = [str(self.dir / "etcd"), "--name", self.name, "--data-dir", str(self.data_dir), "--log-level", "warn", "--logger", "zap"]
        for url, own, what in ((self.endpoint, "", "client"), (self.peer_url, "peer-", "peer")):
            argv += ["--listen-%s-urls" % what, url]
            argv += ["--%s" % ("advertise-client-urls" if what == "client" else "initial-advertise-peer-urls"), url]
            argv += ["--%scert-file" % own, self.pki["cert"], "--%skey-file" % own, self.pki["key"]]
            argv += ["--%strusted-ca-file" % own, self.pki["cacert"], "--%sclient-cert-auth" % own]
        argv += ["--initial-cluster", self.initial_cluster or "%s=%s" % (self.name, self.peer_url)]
        if self.force_new_cluster:
            argv.append("--force-new-cluster")
        return argv + self.flags

    def start(self):
        for last in (False, False, True):
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), preexec_fn=_die_with_parent
                )
            if not self.wait or self.ready():
                return
            died = self.process.poll() is not None
            self.kill()
            if last or not (died and self._own_ports and "address already in use" in self.log.read_text(errors="replace")):
                raise RuntimeError("etcd %s did not get ready: %s" % (self.version, self.log.read_text(errors="replace")[-2000:]))
            self._set_ports(*free_ports(2))

    def ready(self, timeout=30):
        """Whether it serves a consistent read before the time is over."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.call("/v3/kv/range", key=b"\0", count_only=True)
                return True
            except (OSError, ValueError, http.client.HTTPException):
                time.sleep(0.05)
        return False

    def kill(self, sig=signal.SIGKILL):
        """End this very process, and wait for its end."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(30)

    def call(self, url, **body):
        """One request to etcd's JSON gateway; bytes are encoded as it wants them."""
        body = {key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in body.items()}
        context = ssl.create_default_context(cafile=self.pki["cacert"])
        context.load_cert_chain(self.pki["cert"], self.pki["key"])
        connection = http.client.HTTPSConnection(self.host, self.client_port, timeout=5, context=context)
        try:
            connection.request("POST", url, json.dumps(body))
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError("%s: %s" % (url, text[:300].decode(errors="replace")))
        return json.loads(text)

    def put(self, key, value=b""):
        """Store one key; returns the revision."""
        return int(self.call("/v3/kv/put", key=_bytes(key), value=_bytes(value))["header"]["revision"])

    def put_all(self, pairs):
        """Store many keys quickly; each batch of a hundred is one revision."""
        pairs = [(base64.b64encode(_bytes(key)).decode(), base64.b64encode(_bytes(value)).decode()) for key, value in dict(pairs).items()]
        for start in range(0, len(pairs), 100):
            self.call("/v3/kv/txn", success=[{"request_put": {"key": key, "value": value}} for key, value in pairs[start : start + 100]])

    def delete(self, key):
        self.call("/v3/kv/deleterange", key=_bytes(key))

    def compact(self, revision):
        self.call("/v3/kv/compaction", revision=revision, physical=True)

    def get(self, key):
        """The value of a key, or None."""
        found = self.call("/v3/kv/range", key=_bytes(key)).get("kvs", [])
        return base64.b64decode(found[0].get("value", "")) if found else None

    def get_keys(self, prefix="/registry"):
        """All keys below a prefix, in order."""
        start = _bytes(prefix)
        end = start[:-1] + bytes([start[-1] + 1])
        return [base64.b64decode(kv["key"]).decode() for kv in self.call("/v3/kv/range", key=start, range_end=end, keys_only=True).get("kvs", [])]

    def etcdctl(self, *args, check=True, timeout=60):
        """Run the etcdctl of this version against this member."""
        command = [str(self.dir / "etcdctl"), "--endpoints", self.endpoint] + ["--%s=%s" % item for item in self.pki.items()]
        return subprocess.run(command + [os.fspath(arg) for arg in args], capture_output=True, text=True, env=clean_environment(), check=check, timeout=timeout)

    def save(self, path):
        """Take a snapshot with the etcdctl of this version; returns the path."""
        path = pathlib.Path(path)
        self.etcdctl("snapshot", "save", path)
        return path


def members(version, tmpdir, names=("m0", "m1", "m2"), host="127.0.0.1"):
    """The members of one cluster, not started: start all before asking ready() of one."""
    ports = free_ports(2 * len(names))
    where = {name: (ports[2 * number], ports[2 * number + 1]) for number, name in enumerate(names)}
    initial = ",".join("%s=%s" % (name, url_of(host, where[name][1])) for name in names)
    return [
        Etcd(version, tmpdir, name=name, initial_cluster=initial, client_port=where[name][0], peer_port=where[name][1], wait=False, host=host)
        for name in names
    ]


def _bytes(text):
    return text if isinstance(text, bytes) else str(text).encode()


def stored(kind, namespace, name, content=b""):
    """An object as an API server stores it in protobuf, with its metadata and one field of `content`."""

    def field(number, value):
        length, size = b"", len(value)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + value

    metadata = field(1, name.encode()) + (field(3, namespace.encode()) if namespace else b"")
    types = field(1, b"v1") + field(2, kind.encode())
    return b"k8s\0" + field(1, types) + field(2, field(1, metadata) + field(2, content)) + field(3, b"") + field(4, b"")


def fill(etcd, objects=40):
    """Keys as Kubernetes lays them out, with history: some overwritten, some deleted."""

    def put_pods(step, size):
        for number in range(0, objects, step):
            name = "pod-%03d" % number
            etcd.put("/registry/pods/default/" + name, stored("Pod", "default", name, os.urandom(size)))

    put_pods(1, 200)
    put_pods(4, 300)
    for number in range(0, objects, 10):
        etcd.delete("/registry/pods/default/pod-%03d" % number)
    etcd.put("/registry/namespaces/default", stored("Namespace", "", "default"))
    etcd.put("/registry/secrets/default/token", stored("Secret", "default", "token"))


def copy(source, target):
    """A copy that may be damaged; returns its path."""
    shutil.copyfile(str(source), str(target))
    return pathlib.Path(target)
