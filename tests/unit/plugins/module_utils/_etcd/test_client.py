# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The endpoint at which etcd is asked."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import client as etcd_client
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import LOCAL, LOCAL_IPV6, EtcdClient


def client(endpoint):
    return EtcdClient({"endpoint": endpoint, "timeout": 1, "cacert": None, "cert": None, "key": None, "etcdctl": "/bin/true"})


@pytest.mark.parametrize(
    ("endpoint", "open_at", "asked"),
    [
        (LOCAL, (LOCAL,), LOCAL),
        (LOCAL, (LOCAL, LOCAL_IPV6), LOCAL),
        (LOCAL, (LOCAL_IPV6,), LOCAL_IPV6),
        # what does not answer is reported under its usual name
        (LOCAL, (), LOCAL),
        # a given endpoint is not replaced
        ("https://127.0.0.1:12379", (LOCAL_IPV6,), "https://127.0.0.1:12379"),
        ("https://[fd00::1]:2379", (LOCAL_IPV6,), "https://[fd00::1]:2379"),
    ],
)
def test_default_is_found_on_ipv6_as_well(monkeypatch, endpoint, open_at, asked):
    monkeypatch.setattr(etcd_client, "listens", lambda url: url in open_at)
    assert client(endpoint).endpoint == asked
