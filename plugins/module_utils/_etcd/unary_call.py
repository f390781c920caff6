# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A call of etcd's gRPC API with one small answer, for what neither etcdctl nor the JSON gateway has in all versions.  Private to this collection.

gRPC is HTTP/2 (RFC 9113) with a message of five bytes more in its frames.  Headers are sent as RFC 7541 allows it without any compression; those of the
answer are not read: an answer without a message is an error.
"""

from __future__ import annotations

import struct
import time

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_PREFIX = struct.Struct(">BI")
_MOST = 1024 * 1024


class CallError(Exception):
    """One sentence without a capital and a full stop."""


class UnaryCall:
    """Sends the question at once; finish() waits for the answer.

    connection: a connected socket, which is closed at the end.  method: "etcdserverpb.Maintenance/Hash".  message: in protobuf.
    """

    def __init__(self, connection, method, message=b""):
        self._connection = connection
        headers = (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/" + method.encode("ascii")),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
        block = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in headers)
        connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, block)
            + _frame(_DATA, _END_STREAM, 1, _PREFIX.pack(0, len(message)) + message)
        )

    def close(self):
        self._connection.close()

    def finish(self, deadline):
        """The message of the answer.  deadline: in time.monotonic().  Raises CallError and OSError, among which socket.timeout."""
        try:
            return self._answer(deadline)
        finally:
            self.close()

    def _answer(self, deadline):
        answer = b""
        while True:
            head = self._read(9, deadline)
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            size = int.from_bytes(head[:3], "big")
            if size > _MOST:
                raise CallError("it sends a frame of %d bytes" % size)
            payload = self._read(size, deadline)
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._connection.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            elif kind in (_RESET, _GOAWAY):
                raise CallError("it refuses the call")
            elif kind == _DATA and stream == 1:
                answer += payload
            elif kind == _HEADERS and flags & _END_STREAM:
                break
        if len(answer) < _PREFIX.size or _PREFIX.unpack_from(answer) != (0, len(answer) - _PREFIX.size):
            raise CallError("it answers with an error")
        return answer[_PREFIX.size :]

    def _read(self, size, deadline):
        data = b""
        while len(data) < size:
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            more = self._connection.recv(size - len(data))
            if not more:
                raise CallError("it has closed the connection")
            data += more
        return data


def _frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
