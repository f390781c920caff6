# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main process of a unit that serves a snapshot: an etcd, an API server, and the port by which the node reaches that.  Private to this collection.

The node runs this file alone, so it imports nothing of the collection.

    python3 supervisor.py DIRECTORY

DIRECTORY/supervisor.json has the ports.  etcd starts when DIRECTORY/etcd.json is there, the API server when DIRECTORY/server.json is, and again when that
is replaced.  So this runs before anything is restored, and systemd removes the data even if its starter is gone.
Both live in a network namespace that has nothing but its own loopback device.  The port belongs to the node's namespace, since a socket stays in the one
that it was made in.  When one of the two ends for good, this process does, and systemd ends and removes the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CHUNK = 256 * 1024
# Bytes of a log after which it begins anew.
_LONGEST_LOG = 16 * 1024 * 1024
# Seconds in which an API server that has ended may be replaced by another one.
_PATIENCE = 5.0


def isolate():
    """Leave the node's network for one without any other device than loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace can be made")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def read(path):
    """What a JSON file holds, and which file it is; (None, None) when there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream), os.fstat(stream.fileno()).st_ino
    except FileNotFoundError:
        return None, None


class Child:
    """A program that runs, with its output in a file that does not grow for ever."""

    def __init__(self, started):
        """started: argv, program, log and directory."""
        self._log = os.open(started["log"], os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        # AnsibleModule.run_command waits for the end
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            started["argv"],
            executable=started["program"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=started["directory"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "GOMAXPROCS": "2", "GOGC": "50"},
        )

    def ended(self):
        """Whether it has ended."""
        if os.fstat(self._log).st_size > _LONGEST_LOG:
            os.ftruncate(self._log, 0)
        return self._process.poll() is not None

    def end(self):
        """End it at once: it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        os.close(self._log)


async def _pump(reader, writer):
    with contextlib.suppress(OSError):
        while True:
            data = await reader.read(_CHUNK)
            if not data:
                break
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


def forwarder(port):
    """Connects a client with the API server at this port of the namespace."""

    async def forward(reader, writer):
        try:
            near, far = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far), _pump(near, writer))

    return forward


async def supervise(directory, wanted, listener):
    """Run both programs until one of them ends."""
    etcd = server = which = ended = None
    await asyncio.start_server(forwarder(wanted["inner_port"]), sock=listener)
    while not (etcd and etcd.ended()) and (ended is None or time.monotonic() - ended < _PATIENCE):
        if etcd is None:
            started = read(os.path.join(directory, "etcd.json"))[0]
            etcd = Child(started) if started else None
        started, now = read(os.path.join(directory, "server.json"))
        if started and now != which:
            if server:
                server.end()
            server, which, ended = Child(started), now, None
        if server and server.ended():
            ended = ended or time.monotonic()
        await asyncio.sleep(0.05 if server is None else 0.5)


def main(directory):
    wanted = read(os.path.join(directory, "supervisor.json"))[0]
    # By this lock others know that the data is in use.
    fcntl.flock(os.open(wanted["lock"], os.O_RDWR | os.O_CLOEXEC), fcntl.LOCK_SH)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", wanted["port"]))
    isolate()
    asyncio.run(supervise(directory, wanted, listener))


if __name__ == "__main__":
    main(sys.argv[1])
