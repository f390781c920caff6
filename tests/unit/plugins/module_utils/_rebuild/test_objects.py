# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects of a rebuilt cluster that are about machines."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import objects

INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
PROXY = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"
KUBECONFIG = """apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: x
    server: https://192.0.2.1:6443
  name: ""
"""


class Session:
    """An API server with these objects."""

    name = "the API server"

    def __init__(self):
        self.configmaps = {
            INFO: {"data": {"kubeconfig": KUBECONFIG}},
            PROXY: {"data": {"kubeconfig.conf": KUBECONFIG, "config.conf": "x"}, "metadata": {"managedFields": [{"time": "2026-01-02T00:00:09Z"}, {}]}},
        }
        self.nodes = ["cp1", "cp2", "w1"]
        self.pods = [("kube-proxy-a", "cp1", "2026-01-01T00:00:00Z"), ("kube-proxy-b", "cp2", "2026-01-02T00:00:10Z"), ("web", "cp2", "2026-01-01T00:00:00Z")]
        self.asked = []
        self.refusal = 0

    def get(self, path, absent=None):
        return self.configmaps.get(path, absent)

    def items(self, path, **query):
        if path == "/api/v1/nodes":
            return [{"metadata": {"name": name}} for name in self.nodes]
        wanted = query.get("fieldSelector", "").partition("=")[2]
        prefix = "kube-proxy" if "labelSelector" in query else ""
        return [
            {"metadata": {"name": name, "namespace": "kube-system", "creationTimestamp": created}}
            for name, node, created in self.pods
            if name.startswith(prefix) and wanted in ("", node)
        ]

    def request(self, method, path, body=None, content_type="application/json"):
        self.asked.append((method, path, body))
        return (self.refusal or 200), {"message": "no"}


@pytest.fixture
def session():
    return Session()


def test_configmaps_name_the_new_url(session):
    assert objects.follow(session, "https://192.0.2.50:6443", False) == [INFO, PROXY]
    new = KUBECONFIG.replace("192.0.2.1", "192.0.2.50")
    assert session.asked == [("PATCH", INFO, {"data": {"kubeconfig": new}}), ("PATCH", PROXY, {"data": {"kubeconfig.conf": new}})]


def test_configmaps_that_name_it_already_or_are_not_there_are_left_alone(session):
    assert objects.follow(session, "https://192.0.2.1:6443", False) == []
    # a cluster whose network replaces kube-proxy
    session.configmaps = {}
    assert objects.follow(session, "https://192.0.2.50:6443", False) == [] and session.asked == []
    assert objects.restart_proxies(session, False) == []


def test_only_proxies_from_before_the_change_are_restarted(session):
    assert objects.restart_proxies(session, False) == ["kube-proxy-a"]
    assert [(method, path) for method, path, _body in session.asked] == [("DELETE", "/api/v1/namespaces/kube-system/pods/kube-proxy-a")]


def test_nodes_that_are_gone_are_removed_and_never_this_one(session):
    assert objects.remove_nodes(session, ["cp1", "cp2", "cp3"], "cp1", False) == ["cp2"]
    assert [(method, path) for method, path, _body in session.asked] == [("DELETE", "/api/v1/nodes/cp2")]


def test_their_pods_are_removed_at_once(session):
    assert objects.remove_pods(session, ["cp1", "cp2"], "cp1", False) == 2
    assert [path for _method, path, _body in session.asked] == ["/api/v1/namespaces/kube-system/pods/" + name for name in ("kube-proxy-b", "web")]
    assert all(body["gracePeriodSeconds"] == 0 for _method, _path, body in session.asked)


def test_check_mode_changes_nothing(session):
    assert objects.follow(session, "https://192.0.2.50:6443", True) == [INFO, PROXY]
    assert objects.restart_proxies(session, True) and objects.remove_nodes(session, ["cp2"], "cp1", True) and objects.remove_pods(session, ["cp2"], "cp1", True)
    assert session.asked == []


def test_a_refusal_is_an_error_and_what_is_gone_is_not(session):
    session.refusal = 404
    assert objects.remove_nodes(session, ["cp2"], "cp1", False) == ["cp2"]
    session.refusal = 403
    with pytest.raises(KubeError, match="answers 403 to DELETE /api/v1/nodes/cp2: no"):
        objects.remove_nodes(session, ["cp2"], "cp1", False)
    with pytest.raises(KubeError, match="answers 403 to PATCH"):
        objects.follow(session, "https://192.0.2.50:6443", False)


def test_an_api_server_that_never_gets_ready():
    class Api:
        url = "https://192.0.2.1:6443"

        @staticmethod
        def ready():
            return False

    with pytest.raises(KubeError, match="was not ready after 0 s"):
        objects.wait_until_ready(Api, 0)
