# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The URLs at which etcd reports its health, and whether a process listens there."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import listens, urls_for_health

CLIENT = {"advertise-client-urls": "https://192.0.2.11:2379"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (CLIENT, ["https://192.0.2.11:2379"]),
        (dict(CLIENT, **{"listen-metrics-urls": "http://127.0.0.1:2381"}), ["http://127.0.0.1:2381", "https://192.0.2.11:2379"]),
        (
            dict(CLIENT, **{"listen-metrics-urls": "https://192.0.2.11:2381, http://127.0.0.1:2381"}),
            ["https://192.0.2.11:2381", "http://127.0.0.1:2381", "https://192.0.2.11:2379"],
        ),
        ({"advertise-client-urls": "https://192.0.2.11:2379,https://192.0.2.12:2379"}, ["https://192.0.2.11:2379", "https://192.0.2.12:2379"]),
        # the client URL speaks gRPC only then
        (dict(CLIENT, **{"listen-client-http-urls": "https://127.0.0.1:2382,https://192.0.2.11:2382"}), ["https://127.0.0.1:2382", "https://192.0.2.11:2382"]),
        (dict(CLIENT, **{"listen-client-http-urls": "https://0.0.0.0:2382"}), ["https://127.0.0.1:2382"]),
        (dict(CLIENT, **{"listen-client-http-urls": "https://[::]:2382"}), ["https://[::1]:2382"]),
        ({"listen-metrics-urls": "unix:///run/etcd.sock"}, []),
        ({}, []),
    ],
)
def test_where_etcd_says_whether_it_serves(flags, expected):
    assert urls_for_health(flags) == expected


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_with_a_listener(family, address):
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no %s" % address)
        url = "https://%s:%d" % ("[%s]" % address if ":" in address else address, server.getsockname()[1])
        assert not listens(url)
        server.listen()
        assert listens(url)
    assert not listens(url)


def test_something_that_is_no_address():
    assert not listens("https://[::1:2379")
    assert not listens("nonsense")
