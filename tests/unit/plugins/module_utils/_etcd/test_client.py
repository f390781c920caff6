# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where etcd is asked."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import client as etcd_client
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import LOCAL, LOCAL_IPV6, EtcdClient, listens


def client(endpoint):
    return EtcdClient({"endpoint": endpoint, "timeout": 1, "cacert": None, "cert": None, "key": None, "etcdctl": "/bin/true"})


@pytest.mark.parametrize(
    ("endpoint", "open_at", "asked"),
    [
        (LOCAL, (LOCAL,), LOCAL),
        (LOCAL, (LOCAL, LOCAL_IPV6), LOCAL),
        (LOCAL, (LOCAL_IPV6,), LOCAL_IPV6),
        # what does not answer is told of under the name that everybody knows
        (LOCAL, (), LOCAL),
        # whoever says where it is means it
        ("https://127.0.0.1:12379", (LOCAL_IPV6,), "https://127.0.0.1:12379"),
        ("https://[fd00::1]:2379", (LOCAL_IPV6,), "https://[fd00::1]:2379"),
    ],
)
def test_default_is_found_on_ipv6_as_well(monkeypatch, endpoint, open_at, asked):
    monkeypatch.setattr(etcd_client, "listens", lambda url: url in open_at)
    assert client(endpoint).endpoint == asked


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_somebody_listens(family, address):
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
