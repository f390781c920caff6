# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module kube_compare returns, by API servers in memory: whatever happens, it is a result."""

from __future__ import annotations

import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import served
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.modules import kube_compare
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.fake_api import FakeApi, made

SHOP = made("Namespace", "shop")
PRICES = made("ConfigMap", "prices", "shop", data={"apple": "1"})
EMPTY = {"namespace": None, "kind": None, "name": None, "labels": None}


class Node:
    """A control plane with a live API server and one that serves a snapshot."""

    def __init__(self, monkeypatch):
        self.snapshot, self.live = FakeApi(SHOP, PRICES), FakeApi(SHOP)
        monkeypatch.setattr(kube_compare, "session_of_kubeconfig", lambda _path: self.snapshot)
        monkeypatch.setattr(kube_compare, "session_of_manifests", lambda _path: self.live)

    @staticmethod
    def compare(**params):
        given = {"kubeconfig": "x", "select": [dict(EMPTY, namespace="shop")], "snapshot": "", "status": False, "timeout": 60, "manifests_dir": "x"}
        return kube_compare.compare(dict(given, **params))


@pytest.fixture
def node(monkeypatch):
    return Node(monkeypatch)


def test_the_result(node):
    found = node.compare()
    assert found["compared"] and found["reason"] is None
    assert found["recreated"] == {"count": 1, "objects": ["ConfigMap shop/prices"]} and found["same"] == 1
    assert found["lines"] == ["Re-created (1):", "  ConfigMap shop/prices"]
    assert dict(node.compare(), seconds=found["seconds"]) == found
    assert node.live.changes == node.snapshot.changes == 0


@pytest.mark.parametrize(
    ("select", "reason"),
    [
        ([], "nothing is selected; name namespaces"),
        ([dict(EMPTY, name="a")], "entry 1 of the selection has a name only"),
        ([EMPTY], "entry 1 of the selection is empty, which would select everything"),
    ],
)
def test_a_selection_that_is_not_understood(node, select, reason):
    found = node.compare(select=select)
    assert not found["compared"] and reason in found["reason"] and found["lines"] == []


def test_an_api_server_that_is_away(node, monkeypatch):
    def away(_path):
        raise KubeError("the API server at https://127.0.0.1:6443 does not answer: refused")

    monkeypatch.setattr(kube_compare, "session_of_manifests", away)
    found = node.compare()
    assert (found["compared"], found["reason"]) == (False, "the API server at https://127.0.0.1:6443 does not answer: refused")


def test_what_was_found_in_time_is_returned(node):
    ask = node.live._ask

    def slow(method, path, *args):
        if "/deployments" in path:
            time.sleep(30)
        return ask(method, path, *args)

    node.live._ask = slow
    began = time.monotonic()
    found = node.compare(timeout=1)
    assert time.monotonic() - began < 10
    assert (found["compared"], found["reason"]) == (False, "it was not finished within 1 s")
    assert found["recreated"]["objects"] == ["ConfigMap shop/prices"]


def test_another_snapshot_than_the_one_that_is_restored(node, monkeypatch, tmp_path):
    (tmp_path / "state.json").write_text('{"sha256": "aa"}')
    monkeypatch.setattr(served, "DIRECTORY", str(tmp_path))
    kubeconfig = str(tmp_path / "kubeconfig")
    assert "another run serves another snapshot on this host now" in node.compare(kubeconfig=kubeconfig, snapshot="bb")["reason"]
    assert node.compare(kubeconfig=kubeconfig, snapshot="aa")["compared"]
