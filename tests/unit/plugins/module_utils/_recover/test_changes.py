# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore would do to selected objects, by two API servers in memory."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.changes import Changes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import change_lines
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import parse
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.fake_api import BUILT_IN, CRD, FakeApi, made, owned

SHOP = made("Namespace", "shop", spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})
PRICES = made("ConfigMap", "prices", "shop", data={"apple": "1"})
KEY = made("Secret", "key", "shop", type="Opaque", data={"key": "czNjcmV0"}, metadata={"annotations": {"copy": "s3cret"}})
WIDGET = made("Widget", "parent", "shop", "example.com/v1")
WIDGETS = ("widgets.example.com", "v1"), ("widgets.example.com", "v1beta1")


def web(image, **content):
    return made("Deployment", "web", "shop", "apps/v1", spec={"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}, **content)


def servers(snapshot, live):
    both = [one if isinstance(one, FakeApi) else FakeApi(*one) for one in (snapshot, live)]
    both[1].name = "the API server at https://127.0.0.1:2"
    return both


def changes(snapshot, live, *entries, status=False):
    return Changes(status).find(*servers(snapshot, live), parse(list(entries) or [{"namespace": "shop"}])).described()


def counts(found):
    return tuple(found[part]["count"] for part in ("recreated", "deleted", "modified")) + (found["same"],)


def test_both_directions():
    snapshot = [SHOP, PRICES, made("ConfigMap", "gone", "shop"), made("ConfigMap", "same", "shop"), web("a:1"), made("ConfigMap", "other", "default")]
    live = [SHOP, dict(PRICES, data={"apple": "2", "pear": "3"}), made("ConfigMap", "same", "shop"), made("ConfigMap", "new", "shop"), web("a:2")]
    found = changes(snapshot, live)
    assert counts(found) == (1, 1, 2, 2)
    assert change_lines(found) == [
        *("Re-created (1):", "  ConfigMap shop/gone"),
        *("Deleted (1):", "  ConfigMap shop/new"),
        "Modified (2):",
        *("  ConfigMap shop/prices", '    data.apple: "2", in the snapshot "1"', '    data.pear: "3", in the snapshot nothing'),
        *("  Deployment shop/web", '    spec.template.spec.containers[0].image: "a:2", in the snapshot "a:1"'),
    ]


def test_a_value_of_a_secret_is_nowhere():
    other = dict(KEY, data={"key": "bmV3", "more": "bW9yZQ=="}, metadata=dict(KEY["metadata"], annotations={"copy": "new"}))
    found = changes([SHOP, KEY, made("Secret", "gone", "shop", data={"a": "Z29uZQ=="})], [SHOP, other])
    assert found["modified"]["objects"] == [{"object": "Secret shop/key", "differences": ["data.key", "data.more", "metadata.annotations.copy"]}]
    assert found["recreated"]["objects"] == ["Secret shop/gone"]
    for value in ("czNjcmV0", "s3cret", "bmV3", "new", "bW9yZQ", "Z29uZQ"):
        assert value not in str(found) + str(change_lines(found))


def test_what_the_server_sets_is_no_difference():
    live = FakeApi(SHOP)
    live.add(PRICES, uid="other", generation=7, managedFields=[{"manager": "x"}], creationTimestamp="later")
    assert counts(changes([SHOP, PRICES], live)) == (0, 0, 0, 2)


def test_status_counts_only_where_that_is_asked_for():
    both = [SHOP, web("a", status={"replicas": 1})], [SHOP, web("a", status={"replicas": 2})]
    assert counts(changes(*both)) == (0, 0, 0, 2)
    found = changes(*both, status=True)
    assert found["modified"]["objects"] == [{"object": "Deployment shop/web", "differences": ["status.replicas: 2, in the snapshot 1"]}]


def pod(name):
    return made("Pod", name, "shop", metadata={"ownerReferences": [owned("ReplicaSet", "web", "apps/v1", True)]})


def test_what_something_makes_is_counted_unless_its_kind_is_named():
    both = [SHOP, pod("a"), pod("b")], [SHOP, pod("b"), pod("c")]
    found = changes(*both)
    assert counts(found) == (0, 0, 0, 1)
    assert found["made"] == [{"kind": "Pod", "reason": "is made by its ReplicaSet", "count": 3}]
    assert change_lines(found) == ["Not compared (3):", "  3 Pod: each is made by its ReplicaSet"]
    assert counts(changes(*both, {"kind": "Pod"})) == (1, 1, 0, 1)


def test_kinds_that_are_never_recovered_are_compared_when_they_are_named():
    node = made("Node", "cp1", metadata={"labels": {"zone": "a"}})
    other = made("Node", "cp1", metadata={"labels": {"zone": "b"}})
    assert changes([node], [other], {"kind": "node"})["modified"]["count"] == 1
    # a restore brings back Jobs and Pods that have ended, which is no reason to leave them out
    ended = made("Pod", "done", "shop", status={"phase": "Succeeded"})
    assert changes([SHOP, ended, made("Event", "e", "shop")], [SHOP])["recreated"]["objects"] == ["Pod shop/done"]


def test_a_namespace_that_only_one_of_both_has():
    assert changes([SHOP, PRICES], [])["recreated"]["objects"] == ["Namespace shop", "ConfigMap shop/prices"]
    assert changes([], [SHOP, PRICES])["deleted"]["objects"] == ["Namespace shop", "ConfigMap shop/prices"]


def test_a_definition_that_only_one_of_both_has():
    found = changes([SHOP, CRD, WIDGET], [SHOP], {"namespace": "shop"}, {"kind": "CustomResourceDefinition"})
    assert found["recreated"]["objects"] == ["CustomResourceDefinition widgets.example.com", "Widget shop/parent"]
    assert changes([SHOP], [SHOP, CRD, WIDGET])["deleted"]["objects"] == ["Widget shop/parent"]


def test_labels_in_either_of_both():
    def labelled(name, app):
        return made("ConfigMap", name, "shop", metadata={"labels": {"app": app}})

    snapshot, live = [labelled("a", "web"), labelled("b", "web"), labelled("c", "db")], [labelled("a", "web"), labelled("b", "db"), labelled("c", "web")]
    found = changes(snapshot, live, {"labels": {"app": "web"}})
    assert [one["object"] for one in found["modified"]["objects"]] == ["ConfigMap shop/b", "ConfigMap shop/c"]
    assert counts(found) == (0, 0, 2, 1)


def test_an_object_that_two_entries_select_counts_once():
    found = changes([SHOP, PRICES], [SHOP], {"namespace": "shop"}, {"kind": "ConfigMap", "name": "prices"})
    assert counts(found) == (1, 0, 0, 1) and found["warnings"] == []


def test_an_entry_that_names_a_kind_counts_before_others():
    both = [SHOP, pod("a")], [SHOP]
    found = changes(*both, {"namespace": "shop"}, {"kind": "Pod"})
    assert found["recreated"]["objects"] == ["Pod shop/a"] and found["made"] == []


@pytest.mark.parametrize("namespace", [{"namespace": "shop"}, {"labels": {"app": "web"}}])
def test_endpoints_of_a_service_that_selects_pods_are_made_by_it(namespace):
    def endpoints(address):
        labels = {"labels": {"app": "web"}}
        return [made(*("Endpoints", name, "shop"), subsets=[{"addresses": [{"ip": address}]}], metadata=labels) for name in ("web", "own")]

    services = [made("Service", "web", "shop", spec={"selector": {"app": "web"}}), made("Service", "own", "shop", spec={})]
    found = changes([SHOP, *services, *endpoints("10.0.0.1")], [SHOP, *services, *endpoints("10.0.0.2")], namespace)
    assert [one["object"] for one in found["modified"]["objects"]] == ["Endpoints shop/own"]
    assert found["made"] == [{"kind": "Endpoints", "reason": "is made by its Service", "count": 1}]


@pytest.mark.parametrize("entry", [{"namespace": "shpo"}, {"kind": "Secrte"}, {"namespace": "shop", "kind": "ClusterRole"}])
def test_what_selects_nothing_is_a_warning(entry):
    (warning,) = changes([SHOP], [SHOP], entry)["warnings"]
    assert warning.startswith("Neither the snapshot nor the live cluster has anything that the selection (")


def test_many_objects_and_many_fields():
    snapshot = [made("ConfigMap", "c%03d" % number, "shop", data={"k%02d" % key: "1" for key in range(12)}) for number in range(230)]
    live = [dict(one, data=dict.fromkeys(one["data"], "2")) for one in snapshot]
    found = changes([SHOP, *snapshot], [SHOP, *live])
    assert found["modified"]["count"] == 230 and len(found["modified"]["objects"]) == 200
    assert found["modified"]["objects"][0]["differences"][9:] == ['data.k09: "2", in the snapshot "1"', "and 2 more fields"]
    text = change_lines(found)
    assert len(text) <= 55 and text[0] == "Modified (230):" and text[-1] == "  and 226 more"
    found = changes([SHOP, *snapshot], [SHOP])
    assert len(found["recreated"]["objects"]) == 200 and change_lines(found)[-1] == "  and 180 more"


def test_a_kind_is_read_in_another_version_where_a_conversion_fails():
    for server in range(2):
        both = servers([SHOP, CRD, WIDGET], [SHOP, CRD])
        both[server].unreadable = {WIDGETS[0]}
        found = changes(*both)
        assert found["recreated"]["objects"] == ["Widget shop/parent"] and found["unreadable"] == []


@pytest.mark.parametrize(("server", "words"), [(0, "in the snapshot"), (1, "in the live cluster")])
def test_a_kind_that_cannot_be_read_is_named_and_the_others_are_compared(server, words):
    both = servers([SHOP, CRD, WIDGET, PRICES], [SHOP, CRD])
    both[server].unreadable = set(WIDGETS)
    found = changes(*both)
    assert found["recreated"]["objects"] == ["ConfigMap shop/prices"]
    ((unreadable),) = found["unreadable"]
    assert unreadable["object"] == "Widget of the selection (namespace shop)"
    assert "cannot be read %s: %s answers 500" % (words, both[server].name) in unreadable["reason"]
    assert "Cannot be compared (1):" in change_lines(found)


def test_versions_that_only_one_of_both_serves():
    both = (("legacy", version, "things", "Thing", True, False) for version in ("v1", "v2"))
    snapshot, live = (FakeApi(SHOP, resources=[*BUILT_IN, one]) for one in both)
    snapshot.add(made("Thing", "a", "shop", "legacy/v1"))
    live.add(made("Thing", "a", "shop", "legacy/v2"))
    found = changes(snapshot, live)
    assert counts(found) == (0, 0, 0, 1)
    assert [one["reason"] for one in found["unreadable"]] == ["is served as v2 live, and in the snapshot as v1"]


def test_a_group_that_does_not_answer_is_not_taken_for_an_empty_one():
    snapshot = FakeApi(SHOP, CRD)
    ask = snapshot._ask
    snapshot._ask = lambda method, path, *args: (503, {"message": "x"}) if path.startswith("/apis/example.com/") else ask(method, path, *args)
    found = changes(snapshot, [SHOP, CRD, WIDGET])
    assert counts(found) == (0, 0, 0, 1)
    assert [one["reason"] for one in found["unreadable"]] == ["cannot be compared, since /apis/example.com/v1 is not served in the snapshot now"]


def test_what_another_api_server_serves_is_not_in_etcd():
    services = ("apiregistration.k8s.io", "v1", "apiservices", "APIService", False, True)
    resources = [*BUILT_IN, services, ("legacy", "v1", "things", "Thing", True, False)]
    live = FakeApi(SHOP, made("Thing", "a", "shop", "legacy/v1"), resources=resources)
    assert changes([SHOP], live)["deleted"]["count"] == 1
    live.add(made("APIService", "v1.legacy", api_version="apiregistration.k8s.io/v1", spec={"group": "legacy", "service": {"name": "x"}}))
    assert counts(changes([SHOP], live)) == (0, 0, 0, 1)


def test_what_was_found_until_an_api_server_is_away_stays():
    both = servers([SHOP, PRICES, web("a")], [SHOP])
    ask, found = both[1]._ask, Changes()

    def away(method, path, *args):
        if "/deployments" in path:
            raise KubeError("away")
        return ask(method, path, *args)

    both[1]._ask = away
    with pytest.raises(KubeError, match="away"):
        found.find(*both, parse([{"namespace": "shop"}]))
    assert found.described()["recreated"]["objects"] == ["ConfigMap shop/prices"]
    assert both[0].changes == both[1].changes == 0
