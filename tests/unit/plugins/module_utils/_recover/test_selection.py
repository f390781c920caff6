# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator may name, and what is refused."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resource, common
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import check_kinds, parse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused


def resource(name="deployments", kind="Deployment", group="apps", version="v1", namespaced=True):
    return Resource(group, version, {"name": name, "kind": kind, "namespaced": namespaced})


NAMESPACES = resource("namespaces", "Namespace", "", namespaced=False)
NODES = resource("nodes", "Node", "", namespaced=False)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "nothing is selected"),
        (None, "nothing is selected"),
        ("shop", "nothing is selected"),
        (["shop"], "entry 1 of the selection is not a dictionary"),
        ([{}], "entry 1 of the selection is empty, which would select everything"),
        ([{"namespace": "a"}, {"names": "b"}], "entry 2 of the selection has the key names; possible are namespace, kind, name, labels"),
        ([{"namespace": ""}], "has a namespace that is empty or not text"),
        ([{"kind": 3}], "has a kind that is empty or not text"),
        ([{"name": "key"}], "has a name only"),
        ([{"labels": {}}], "has labels that are not a dictionary of text"),
        ([{"labels": "app=web"}], "has labels that are not a dictionary of text"),
        ([{"labels": {"a": 1}}], "has labels that are not a dictionary of text"),
    ],
)
def test_what_is_refused(entries, words):
    with pytest.raises(Refused, match=words):
        parse(entries)


@pytest.mark.parametrize("word", ["Deployment", "deployment", "deployments", "Deployment.apps", "deployments.apps"])
def test_a_kind_may_be_called(word):
    (entry,) = parse([{"kind": word}])
    assert entry.takes(resource())
    assert not entry.takes(NODES)


@pytest.mark.parametrize("word", ["Deployments.batch", "deploy", "Deployment."])
def test_a_kind_is_not_called(word):
    assert not parse([{"kind": word}])[0].takes(resource())


def test_a_namespace_means_all_in_it_and_itself():
    (entry,) = parse([{"namespace": "shop"}])
    assert entry.query(resource()) == ("/apis/apps/v1/namespaces/shop/deployments", {})
    assert entry.takes(NAMESPACES) and not entry.takes(NODES)
    assert entry.query(NAMESPACES) == ("/api/v1/namespaces", {"fieldSelector": "metadata.name=shop"})


def test_labels_in_a_namespace_do_not_mean_the_namespace():
    (entry,) = parse([{"namespace": "shop", "labels": {"b": "2", "a": "1"}}])
    assert not entry.takes(NAMESPACES)
    assert entry.query(resource()) == ("/apis/apps/v1/namespaces/shop/deployments", {"labelSelector": "a=1,b=2"})
    assert str(entry) == "namespace shop, label a=1,b=2"


def test_one_object():
    (entry,) = parse([{"namespace": "pay", "kind": "Secret", "name": "key"}])
    assert entry.query(resource("secrets", "Secret", "")) == ("/api/v1/namespaces/pay/secrets", {"fieldSelector": "metadata.name=key"})


def test_a_kind_must_be_there_and_a_namespace_must_fit():
    check_kinds(parse([{"kind": "Node"}, {"namespace": "shop"}]), [NODES])
    with pytest.raises(Refused, match="the snapshot has no kind Widget"):
        check_kinds(parse([{"kind": "Widget"}]), [NODES])
    with pytest.raises(Refused, match="objects of kind Node are in no namespace"):
        check_kinds(parse([{"kind": "nodes", "namespace": "shop"}]), [NODES])


def test_the_version_is_one_that_both_serve_as_the_live_cluster_prefers():
    old, new, newer = resource(version="v1beta1"), resource(version="v1"), resource(version="v2")
    assert common([old, new], [newer, new, old]) == (new, new)
    assert common([old, new], []) == (old, None)
    assert common([old], [newer]) == (old, None)
