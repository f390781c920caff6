# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.inventory import Inventory, parse_key, prefix_of
from hypothesis import given, strategies as st


@pytest.mark.parametrize(
    "key, expected",
    [
        ("/registry/pods/shop/web-1", ("pods", "shop", "web-1")),
        ("/registry/minions/cp1", ("nodes", "", "cp1")),
        ("/registry/namespaces/shop", ("namespaces", "", "shop")),
        ("/registry/services/specs/shop/web", ("services", "shop", "web")),
        ("/registry/services/endpoints/shop/web", ("endpoints", "shop", "web")),
        ("/registry/controllers/shop/web", ("replicationcontrollers", "shop", "web")),
        ("/registry/ingress/shop/web", ("ingresses", "shop", "web")),
        ("/registry/podsecuritypolicy/restricted", ("podsecuritypolicies", "", "restricted")),
        ("/registry/clusterroles/system:node", ("clusterroles", "", "system:node")),
        ("/registry/ranges/serviceips", ("ranges", "", "serviceips")),
        ("/registry/masterleases/192.0.2.1", ("masterleases", "", "192.0.2.1")),
        ("/registry/apiregistration.k8s.io/apiservices/v1.apps", ("apiservices.apiregistration.k8s.io", "", "v1.apps")),
        ("/registry/cert-manager.io/certificates/shop/tls", ("certificates.cert-manager.io", "shop", "tls")),
        # not an object
        ("compact_rev_key", None),
        ("/registry/health", None),
        ("/registry/", None),
        ("/registry", None),
        ("/registry/pods/a/b/c", None),
        ("/registry/pods//b", None),
        ("/registryx/pods/a/b", None),
        ("/calico/resources/v3/x", None),
        ("", None),
    ],
)
def test_keys(key, expected):
    assert parse_key(key) == expected


@pytest.mark.parametrize("text", ["/kubernetes.io", "kubernetes.io", "/kubernetes.io/", "//kubernetes.io//"])
def test_a_prefix_of_its_own(text):
    assert prefix_of(text) == "/kubernetes.io/"
    inventory = Inventory(text)
    assert inventory.add("/kubernetes.io/pods/a/b")
    assert not inventory.add("/registry/pods/a/b")
    assert inventory.as_dict()["objects"] == {"pods": {"a": 1}}


def test_an_inventory():
    inventory = Inventory()
    for key in (
        "/registry/minions/cp2",
        "/registry/minions/cp1",
        "/registry/deployments/shop/web",
        "/registry/deployments/kube-system/coredns",
        "/registry/pods/shop/b",
        "/registry/pods/shop/a",
        "/registry/pods/kube-system/c",
        "compact_rev_key",
    ):
        inventory.add(key)
    assert inventory.as_dict() == {
        "prefix": "/registry/",
        "objects": {"deployments": {"kube-system": 1, "shop": 1}, "nodes": {"": 2}, "pods": {"kube-system": 1, "shop": 2}},
        "names": {"nodes": ["cp1", "cp2"], "deployments": ["kube-system/coredns", "shop/web"], "daemonsets": [], "statefulsets": []},
    }


name = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/"), min_size=1, max_size=8)


@given(st.lists(st.one_of(st.tuples(name, name), st.tuples(name, name, name), st.tuples(name)).map("/".join), unique=True))
def test_every_key_is_counted_once_or_not_at_all(tails):
    inventory = Inventory()
    counted = sum(inventory.add("/registry/" + tail) for tail in tails)
    found = inventory.as_dict()
    assert sum(count for counts in found["objects"].values() for count in counts.values()) == counted
    for resource, names in found["names"].items():
        assert len(names) == sum(found["objects"].get(resource, {}).values())


@given(st.text())
def test_any_key_is_handled(key):
    for prefix in ("/registry/", "/"):
        found = parse_key(key, prefix)
        assert found is None or (key.startswith(prefix) and len(found) == 3)
