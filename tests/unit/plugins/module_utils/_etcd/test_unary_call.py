# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Against a peer whose frames are written by hand; tests/integration/test_drill.py asks real etcds."""

from __future__ import annotations

import socket
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.unary_call import CallError, UnaryCall


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def message(payload):
    return b"\0" + len(payload).to_bytes(4, "big") + payload


SETTINGS, PING, HEADERS, TRAILERS = frame(4, 0, 0, bytes(6)), frame(6, 0, 0, b"12345678"), frame(1, 4, 1, b"\x88"), frame(1, 5, 1, b"\x88")


def call(*frames, close=False, wait=5):
    """(what the peer was sent, the answer)"""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"".join(frames))
        if close:
            theirs.shutdown(socket.SHUT_WR)
        answer = UnaryCall(ours, "etcdserverpb.Maintenance/Hash", b"question").finish(time.monotonic() + wait)
        return theirs.recv(65536), answer


def test_the_message_of_an_answer():
    sent, answer = call(SETTINGS, PING, HEADERS, frame(0, 0, 1, message(b"answer")[:3]), frame(0, 0, 1, message(b"answer")[3:]), TRAILERS)
    assert answer == b"answer"
    assert sent.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    assert b"/etcdserverpb.Maintenance/Hash" in sent and frame(0, 1, 1, message(b"question")) in sent
    assert sent.endswith(frame(4, 1, 0) + frame(6, 1, 0, b"12345678"))


@pytest.mark.parametrize(
    "frames, words",
    [
        ([SETTINGS, TRAILERS], "with an error"),
        ([HEADERS, frame(0, 0, 1, message(b"answer")[:-1]), TRAILERS], "with an error"),
        ([HEADERS, frame(0, 0, 1, b"\1" + message(b"answer")[1:]), TRAILERS], "with an error"),
        ([frame(7, 0, 0, bytes(8))], "refuses"),
        ([HEADERS, frame(3, 0, 1, bytes(4))], "refuses"),
        ([HEADERS], "closed the connection"),
        ([b"\xff\xff\xff" + frame(0, 0, 1)[3:]], "a frame of"),
    ],
)
def test_anything_else_is_an_error(frames, words):
    with pytest.raises(CallError, match=words):
        call(*frames, close=True)


def test_no_answer_in_time():
    with pytest.raises(socket.timeout):
        call(SETTINGS, wait=0.1)
