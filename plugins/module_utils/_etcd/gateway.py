# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP over the Unix socket of an isolated etcd, as its JSON gateway and its peers' address speak it.  Private to this collection."""

from __future__ import annotations

import http.client
import os
import socket


class UnixConnection(http.client.HTTPConnection):
    """A connection to the socket at `path`."""

    def __init__(self, path, timeout):
        super().__init__("isolated", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = connected(self.path, self.timeout)


def connected(path, timeout):
    """A Unix socket that is connected."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    # An address of this kind has 108 bytes at most, a directory any number.
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        connection.connect("/proc/self/fd/%d/%s" % (directory, os.path.basename(path)))
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection
