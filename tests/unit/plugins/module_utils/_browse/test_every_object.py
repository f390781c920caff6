# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import time
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import every_object, read_only_etcd
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.reader import ApiError, Reader
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused


def resource(name, namespaced=True, verbs=("get", "list")):
    return {"name": name, "namespaced": namespaced, "verbs": list(verbs)}


def group(name, *versions):
    return {"name": name, "versions": [{"version": version} for version in sorted(versions)], "preferredVersion": {"version": versions[0]}}


# What an API server answers to a GET.
DISCOVERY = {
    "/apis/apiregistration.k8s.io/v1/apiservices": {
        "items": [
            {"spec": {"group": "apps", "version": "v1", "service": None}},
            {"spec": {"group": "metrics.k8s.io", "version": "v1beta1", "service": {"name": "metrics-server"}}},
        ]
    },
    "/api/v1": {
        "resources": [
            *(resource(name) for name in ("configmaps", "pods", "pods/log", "events")),
            resource("nodes", False),
            resource("componentstatuses", False),
            resource("bindings", verbs=["create"]),
        ]
    },
    "/apis": {
        "groups": [
            group("apps", "v1"),
            group("events.k8s.io", "v1"),
            group("metrics.k8s.io", "v1beta1"),
            group("example.com", "v2", "v1"),
            group("apiregistration.k8s.io", "v1"),
        ]
    },
    "/apis/apps/v1": {"resources": [resource("deployments"), resource("deployments/scale")]},
    "/apis/events.k8s.io/v1": {"resources": [resource("events")]},
    "/apis/example.com/v2": {"resources": [resource("orders"), resource("deployments")]},
    "/apis/example.com/v1": {"resources": [resource("orders"), resource("legacies", False)]},
    "/apis/apiregistration.k8s.io/v1": {"resources": [resource("apiservices", False)]},
}


class Api:
    """A reader of these lists: {path: [(namespace, name)]}; what is in `broken` cannot be decoded."""

    def __init__(self, lists, broken=()):
        self.lists, self.broken = lists, broken

    def get(self, path, metadata=False):
        if path in self.broken:
            raise ApiError("corrupt object")
        return {} if metadata else DISCOVERY.get(path)

    def names(self, path):
        if [each for each in self.broken if each.rpartition("/")[2] in [name for _namespace, name in self.lists.get(path, ())]]:
            raise ApiError("corrupt object")
        yield from self.lists.get(path, ())


HELD = {
    "configmaps": [("shop", "a"), ("shop", "b")],
    "deployments": [("shop", "web")],
    "nodes": [("", "cp1")],
    "events": [("shop", "e")],
    "orders.example.com": [("shop", "o1")],
    "apiservices.apiregistration.k8s.io": [("", "v1.apps")],
    "customresourcedefinitions.apiextensions.k8s.io": [("", "orders.example.com"), ("", "deployments.example.com"), ("", "legacies.example.com")],
    "ranges": [("", "serviceips")],
    "podsecuritypolicies": [("", "old")],
}
SHOWN = {
    "/api/v1/configmaps": HELD["configmaps"],
    "/api/v1/nodes": HELD["nodes"],
    "/api/v1/events": HELD["events"],
    "/apis/apps/v1/deployments": HELD["deployments"],
    "/apis/example.com/v2/orders": HELD["orders.example.com"],
    "/apis/apiregistration.k8s.io/v1/apiservices": HELD["apiservices.apiregistration.k8s.io"],
}


def held(names):
    """A Stored of these names."""
    return types.SimpleNamespace(counts={resource: len(each) for resource, each in names.items()}, names=lambda resource: iter(names.get(resource, ())))


def test_each_resource_is_listed_once_in_the_preferred_version():
    found = [each.list_path for each in every_object.resources(Api({}))]
    assert found == [
        *("/api/v1/" + name for name in ("configmaps", "pods", "events", "nodes")),
        "/apis/apps/v1/deployments",
        "/apis/example.com/v2/orders",
        "/apis/example.com/v2/deployments",
        "/apis/example.com/v1/legacies",
        "/apis/apiregistration.k8s.io/v1/apiservices",
    ]


def test_all_that_etcd_has_is_shown():
    found = every_object.compare(Api(SHOWN), held(HELD))
    # the API of the definitions themselves is not among these
    assert found == {
        "objects": 7,
        "resources": 6,
        "undecodable": [],
        "undecodable_objects": 0,
        "differences": [],
        "unserved": {"customresourcedefinitions.apiextensions.k8s.io": 3, "podsecuritypolicies": 1},
    }


def test_another_number_is_told():
    shown = dict(SHOWN, **{"/api/v1/configmaps": [("shop", "a")], "/apis/apiregistration.k8s.io/v1/apiservices": [("", "1"), ("", "2")]})
    assert every_object.compare(Api(shown), held(HELD))["differences"] == [
        "1 configmaps are shown, and etcd has 2",
        "2 apiservices.apiregistration.k8s.io are shown, and etcd has 1",
    ]
    # what the API server completed is its own
    assert every_object.compare(Api(shown), held(HELD), completed=True)["differences"] == ["1 configmaps are shown, and etcd has 2"]


def test_what_cannot_be_decoded_is_named():
    broken = ["/api/v1/namespaces/shop/configmaps/b", "/api/v1/nodes/cp1"]
    found = every_object.compare(Api(SHOWN, broken), held(HELD))
    assert found["undecodable"] == ["configmaps shop/b: corrupt object", "nodes cp1: corrupt object"]
    assert found["undecodable_objects"] == 2 and found["differences"] == [] and found["objects"] == 5


def test_one_that_is_not_shown_is_no_object_that_cannot_be_decoded():
    api = Api(SHOWN, ["/api/v1/namespaces/shop/configmaps/b"])
    api.get = lambda path, metadata=False: None if path.endswith("/a") else Api.get(api, path, metadata)
    found = every_object.compare(api, held(HELD))
    assert found["undecodable_objects"] == 1 and found["differences"] == ["0 configmaps are shown, and etcd has 1"]


def test_it_ends_in_time():
    for api in (Api(SHOWN), Api(SHOWN, ["/api/v1/namespaces/shop/configmaps/b"])):
        with pytest.raises(Refused, match="not every object was listed in time"):
            every_object.compare(api, held(HELD), deadline=time.monotonic() - 1)


def test_not_all_of_many_are_named():
    names = [("shop", "c%d" % number) for number in range(50)]
    broken = ["/api/v1/namespaces/shop/configmaps/c%d" % number for number in range(50)]
    found = every_object.compare(Api({"/api/v1/configmaps": names}, broken), held({"configmaps": names}))
    assert len(found["undecodable"]) == every_object._MOST and found["undecodable_objects"] == 50


class Keys(read_only_etcd.Gateway):
    """A gateway to these keys, two at a time."""

    def __init__(self, keys):
        super().__init__("/nowhere")
        self.keys_there = sorted(keys)

    def ask(self, what, question, timeout=10):
        first, end = (base64.b64decode(question[name]).decode() for name in ("key", "range_end"))
        found = [key for key in self.keys_there if first <= key < end]
        kvs = [{"key": base64.b64encode(key.encode()).decode()} for key in found[: question["limit"]]]
        return 200, json.dumps({"kvs": kvs, "more": len(found) > len(kvs)})


def test_the_keys_are_read_page_by_page(tmp_path):
    keys = ["/registry/configmaps/shop/a", "/registry/minions/cp1", "/registry/services/specs/shop/web", "/registry/example.com/orders/shop/o1", "/other/x"]
    gateway = Keys([*keys, "compact_rev_key", "/registry/health"])
    assert list(gateway.keys("/registry/", page=2)) == sorted(key for key in [*keys, "/registry/health"] if key.startswith("/registry/"))
    found = every_object.Stored(str(tmp_path / "keys")).read(gateway, "/registry/")
    assert {resource: list(found.names(resource)) for resource in found.counts} == {
        "configmaps": [("shop", "a")],
        "nodes": [("", "cp1")],
        "services": [("shop", "web")],
        "orders.example.com": [("shop", "o1")],
    }
    assert set(found.counts.values()) == {1} and list(found.names("pods")) == []
    found.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def reader(monkeypatch):
    """A Reader whose answers are given: {path: (status, text)}."""
    monkeypatch.setattr(Reader, "__init__", lambda self, answers: setattr(self, "answers", answers))
    monkeypatch.setattr(Reader, "ask", lambda self, path, timeout=5, accept="": self.answers[path])
    return Reader


def test_a_list_is_read_page_by_page(reader):
    def page(token, *names):
        return 200, json.dumps({"metadata": {"continue": token}, "items": [{"metadata": {"namespace": "shop", "name": name}} for name in names]})

    found = reader({"/x?limit=500&continue=": page("a+b=", "one"), "/x?limit=500&continue=a%2Bb%3D": page("", "two")})
    assert list(found.names("/x")) == [("shop", "one"), ("shop", "two")] and found.unreadable("/x") is None
    broken = reader({"/x?limit=500&continue=": (500, '{"message": "corrupt object"}')})
    assert broken.unreadable("/x") == "corrupt object"


def test_what_a_server_waits_for(reader):
    assert reader({"/readyz?verbose": (200, "ok")}).waits_for() == set()
    text = "[+]ping ok\n[-]informer-sync failed: reason withheld\n[-]x/y failed: z\n"
    assert reader({"/readyz?verbose": (500, text)}).waits_for() == {"informer-sync", "x/y"}
    assert reader({"/readyz?verbose": (401, "")}).waits_for() == {"ready"}


def test_the_version_of_the_cluster(reader):
    path = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
    config = {"data": {"ClusterConfiguration": "apiVersion: kubeadm.k8s.io/v1beta4\nkubernetesVersion: v1.37.2\nnetworking: {}\n"}}
    assert reader({path: (200, json.dumps(config))}).cluster_version() == "1.37.2"
    assert reader({path: (404, "")}).cluster_version() == "" and reader({path: (500, "")}).cluster_version() == ""


def test_a_cluster_that_lives_may_have_more_objects_and_fewer_events():
    names = [("shop", "a"), ("shop", "b")]
    shown = {"/api/v1/configmaps": [*names, ("shop", "new")], "/api/v1/events": names[:1], "/api/v1/pods": names[:1]}
    found = every_object.compare(Api(shown), held({"configmaps": names, "events": names, "pods": names}), living=True)
    assert found["differences"] == ["1 pods are shown, and etcd has 2"]
