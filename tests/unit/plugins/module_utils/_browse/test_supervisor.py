# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import credentials, supervisor
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

# Stands in for both programs: answers on a port of loopback, and says which network devices there are.
SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection = listener.accept()[0]
    asked = connection.recv(100)
    devices = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
    connection.sendall(asked + b" " + ",".join(devices).encode())
    connection.close()
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(port, text):
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(text)
        return connection.makefile("rb").read()


def started(tmp_path, name, port):
    return {"argv": [sys.executable, "-c", SERVER, str(port)], "program": sys.executable, "log": str(tmp_path / name), "directory": str(tmp_path)}


@pytest.fixture
def running(tmp_path):
    """(the supervisor, its directory, its port): it runs `etcd` at 2379, and nothing else yet."""
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    (tmp_path / "lock").write_text("")
    port = free_port()
    (tmp_path / "supervisor.json").write_text(json.dumps({"lock": str(tmp_path / "lock"), "port": port, "inner_port": 6443}))
    (tmp_path / "etcd.json").write_text(json.dumps(started(tmp_path, "etcd.log", 2379)))
    process = subprocess.Popen([sys.executable, supervisor.__file__, str(tmp_path)], stderr=subprocess.PIPE, start_new_session=True)
    yield process, tmp_path, port
    os.killpg(process.pid, 9) if process.poll() is None else None
    process.communicate()


def serve(directory):
    """Have it start the API server, and again."""
    new = directory / "new"
    new.write_text(json.dumps(started(directory, "kube-apiserver.log", 6443)))
    new.rename(directory / "server.json")


def answer(port, text=b"hello", patience=20):
    deadline = time.monotonic() + patience
    while True:
        try:
            found = ask(port, text)
        except OSError:
            found = b""
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_the_port_leads_into_an_empty_network(running):
    _process, directory, port = running
    serve(directory)
    assert answer(port) == b"hello lo"
    # the second server is out of reach from here
    with pytest.raises(OSError, match="refused"):
        ask(6443, b"x")


def test_the_api_server_is_replaced(running):
    process, directory, port = running
    serve(directory)
    assert answer(port)
    serve(directory)
    time.sleep(1)
    assert answer(port) and process.poll() is None


def test_it_ends_with_the_api_server(running, monkeypatch):
    process, directory, port = running
    serve(directory)
    assert answer(port)
    children = pathlib.Path("/proc/%d/task/%d/children" % (process.pid, process.pid)).read_text().split()
    os.kill(int(children[-1]), 9)
    assert process.wait(supervisor._PATIENCE + 10) == 0
    for child in children[:-1]:
        os.kill(int(child), 9)


def test_a_log_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_LONGEST_LOG", 10)
    child = supervisor.Child({"argv": ["sh", "-c", "echo 0123456789abc; sleep 60"], "program": "/bin/sh", "log": str(tmp_path / "log"), "directory": "/"})
    time.sleep(0.5)
    assert not child.ended() and (tmp_path / "log").read_text() == ""
    child.end()


def test_a_client_is_sent_away_while_nothing_serves():
    async def run():
        server = await asyncio.start_server(supervisor.forwarder(free_port()), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        found = await reader.read()
        writer.close()
        server.close()
        return found

    assert asyncio.run(run()) == b""


def test_each_certificate_is_trusted_by_itself_alone(tmp_path):
    os.umask(0o077)
    credentials.make(credentials.find_openssl(), str(tmp_path), 90000)
    for name in ("server", "reading", "completing", "reader"):
        assert (tmp_path / (name + ".key")).stat().st_mode & 0o777 == 0o600
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(tmp_path / (name + ".crt"))
        context.load_cert_chain(tmp_path / (name + ".crt"), tmp_path / (name + ".key"))
    # the reader is not a client of etcd
    clients = (tmp_path / "etcd-clients.crt").read_text()
    assert clients.count("BEGIN CERTIFICATE") == 3 and (tmp_path / "reader.crt").read_text() not in clients
    config = json.loads(credentials.kubeconfig(str(tmp_path), "https://127.0.0.1:6440"))
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6440" and config["current-context"] == config["contexts"][0]["name"]


def test_without_openssl_it_is_refused(monkeypatch):
    monkeypatch.setattr(credentials.shutil, "which", lambda name, path: None)
    with pytest.raises(Refused, match="there is no openssl on this host"):
        credentials.find_openssl()
