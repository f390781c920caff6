# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run would recover, by two API servers in memory."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.export import Export
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import BLOCKED, DIFFERENT, LEFT_OUT, MISSING, SAME, Plan
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import described, diffs, lines, problems
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resources
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import parse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.workloads import Claims
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.fake_api import BUILT_IN, CRD, FakeApi, made, owned

SHOP = made("Namespace", "shop", spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})
PRICES = made("ConfigMap", "prices", "shop", data={"apple": "1"})
KEY = made("Secret", "key", "shop", type="Opaque", data={"key": "czNjcmV0"})
WIDGET = made("Widget", "parent", "shop", "example.com/v1")
VOLUME = made("PersistentVolume", "disk", spec={"claimRef": {"namespace": "shop", "name": "data", "uid": "old-PersistentVolumeClaim-data"}})
CLAIM = made("PersistentVolumeClaim", "data", "shop", spec={"volumeName": "disk"})


def plan(snapshot, live, *entries):
    """{object: action} and the Plan."""
    made_of = [one if isinstance(one, FakeApi) else FakeApi(*one) for one in (snapshot, live)]
    found = Plan(*made_of, parse(list(entries) or [{"namespace": "shop"}])).make()
    return {str(item): item.action for item in found.ordered}, found


def reasons(found):
    return {str(item): item.reason for item in found.of(BLOCKED, LEFT_OUT)}


def test_missing_different_and_same():
    other = dict(KEY, data={"key": "b3RoZXI="})
    found, whole = plan([SHOP, PRICES, KEY, made("ConfigMap", "gone", "shop")], [SHOP, PRICES, other])
    assert found == {"Namespace shop": SAME, "Secret shop/key": DIFFERENT, "ConfigMap shop/gone": MISSING, "ConfigMap shop/prices": SAME}
    said = described(whole)
    assert said["missing"] == ["ConfigMap shop/gone"] and said["same"] == 2
    assert said["different"] == [{"object": "Secret shop/key", "differences": ["data.key"]}]
    assert lines(said, True) == [
        *("Missing, would be recovered (1):", "  ConfigMap shop/gone"),
        *("Different, would be overwritten (1):", "  Secret shop/key", "    data.key"),
        "The same in the snapshot and live: 2",
    ]
    shown = diffs(whole, True)
    assert [one["before_header"] for one in shown] == ["Secret shop/key (live)", "ConfigMap shop/gone (live)"]
    assert "czNjcmV0" not in str(shown) and "(hidden)" in str(shown)
    assert [one["after_header"] for one in diffs(whole, False)] == ["ConfigMap shop/gone (snapshot)"]


def test_uids_and_status_are_no_difference():
    live = FakeApi(SHOP)
    live.add(PRICES, uid="new", labels={}, creationTimestamp="later")
    live.objects[("configmaps", "shop", "prices")]["metadata"].pop("labels")
    assert plan([SHOP, PRICES], live)[0]["ConfigMap shop/prices"] == SAME


def test_pages_are_followed_and_nothing_else_is_selected():
    many = [made("ConfigMap", "c%d" % number, "shop") for number in range(7)]
    found, dummy = plan([SHOP, *many, made("ConfigMap", "other", "default")], [SHOP])
    assert sum(action == MISSING for action in found.values()) == 7


def test_what_a_missing_object_needs_comes_with_it():
    needed = [SHOP, made("ClusterRole", "reader", api_version="rbac.authorization.k8s.io/v1", rules=[])]
    binding = made("RoleBinding", "b", "shop", "rbac.authorization.k8s.io/v1", roleRef={"kind": "ClusterRole", "name": "reader"})
    found, dummy = plan([*needed, binding], [], {"kind": "RoleBinding", "namespace": "shop", "name": "b"})
    assert found == {"Namespace shop": MISSING, "ClusterRole reader": MISSING, "RoleBinding shop/b": MISSING}
    found, dummy = plan([*needed, binding], needed, {"kind": "RoleBinding", "namespace": "shop", "name": "b"})
    assert found == {"RoleBinding shop/b": MISSING}


def test_a_definition_comes_with_its_objects():
    found, whole = plan([SHOP, CRD, WIDGET], [])
    assert found == {"CustomResourceDefinition widgets.example.com": MISSING, "Namespace shop": MISSING, "Widget shop/parent": MISSING}
    assert str(whole.ordered[0]).startswith("CustomResourceDefinition")


def test_labels_select():
    web, db = (made("ConfigMap", name, "shop", metadata={"labels": {"app": name}}) for name in ("web", "db"))
    live = FakeApi(SHOP)
    live.add(db, labels={"app": "other"})
    found, dummy = plan([SHOP, web, db], live, {"labels": {"app": "web"}}, {"labels": {"app": "db"}})
    # the live one has other labels, and is there all the same
    assert found == {"ConfigMap shop/web": MISSING, "ConfigMap shop/db": DIFFERENT}


def test_what_selects_nothing_is_a_warning_and_what_cannot_is_refused():
    found, whole = plan([SHOP], [SHOP], {"namespace": "shop", "kind": "Secret"})
    assert found == {} and whole.warnings == ["The snapshot has nothing that the selection (namespace shop, kind Secret) means"]
    with pytest.raises(Refused, match="the snapshot has no namespace shpo; correct its name, or choose another snapshot with -e etcd_browse_snapshot=PATH"):
        plan([SHOP], [SHOP], {"namespace": "shop"}, {"namespace": "shpo", "kind": "Secret"})
    with pytest.raises(Refused, match="objects of kind Event are not recovered: they say what happened"):
        plan([SHOP], [SHOP], {"kind": "Event"})


def test_the_same_object_is_selected_once():
    found, whole = plan([SHOP, PRICES], [SHOP], {"namespace": "shop"}, {"kind": "ConfigMap", "name": "prices"})
    assert found["ConfigMap shop/prices"] == MISSING and whole.warnings == []


def test_a_namespace_that_is_being_deleted():
    live = FakeApi()
    live.add(SHOP, deletionTimestamp="now")
    dummy, whole = plan([SHOP, PRICES, KEY], live)
    assert reasons(whole) == {
        "Namespace shop": "is still being deleted; run this again when it is gone",
        "ConfigMap shop/prices": "cannot be recovered: its namespace is still being deleted; run this again when it is gone",
        "Secret shop/key": "cannot be recovered: its namespace is still being deleted; run this again when it is gone",
    }
    assert list(problems(described(whole)["blocked"])) == [
        "Namespace shop is still being deleted; run this again when it is gone",
        "Secret shop/key and ConfigMap shop/prices: cannot be recovered: its namespace is still being deleted; run this again when it is gone",
    ]


def test_a_namespace_that_was_being_deleted_in_the_snapshot():
    snapshot = FakeApi(PRICES)
    snapshot.add(SHOP, deletionTimestamp="then")
    words = "was being deleted when the snapshot was taken; choose an earlier one with -e etcd_browse_snapshot=PATH"
    for entry in ({"namespace": "shop"}, {"kind": "ConfigMap"}):
        dummy, whole = plan(snapshot, [], entry)
        assert reasons(whole) == {"Namespace shop": words, "ConfigMap shop/prices": "cannot be recovered: its namespace " + words}
    # it is there again
    assert plan(snapshot, [SHOP])[0] == {"Namespace shop": LEFT_OUT, "ConfigMap shop/prices": MISSING}


WIDGETS = "widgets.example.com"


def test_a_kind_is_read_in_another_version_where_a_conversion_fails():
    for server in range(2):
        both = FakeApi(SHOP, CRD, WIDGET), FakeApi(SHOP, CRD)
        both[server].unreadable = {(WIDGETS, "v1")}
        found, whole = plan(*both)
        assert found["Widget shop/parent"] == MISSING and whole.unreadable == []
        assert whole.items[(WIDGETS, "shop", "parent")].here.version == "v1beta1"


@pytest.mark.parametrize(("server", "words"), [(0, "in the snapshot"), (1, "in the live cluster")])
def test_a_kind_that_cannot_be_read_is_named_and_the_others_are_compared(server, words):
    both = FakeApi(SHOP, CRD, WIDGET, PRICES), FakeApi(SHOP, CRD)
    both[1].name = "the API server at https://127.0.0.1:2"
    both[server].unreadable = {(WIDGETS, "v1"), (WIDGETS, "v1beta1")}
    found, whole = plan(*both)
    assert found["ConfigMap shop/prices"] == MISSING
    ((unreadable),) = whole.unreadable
    assert unreadable["object"] == "Widget of the selection (namespace shop)"
    assert "cannot be read %s: %s answers 500" % (words, both[server].name) in unreadable["reason"]


@pytest.mark.parametrize("versions", [("v1",), ("v1", "v1beta1")])
def test_what_an_owner_that_cannot_be_read_owns_is_kept(versions):
    child = made("ConfigMap", "child", "shop", metadata={"ownerReferences": [owned("Widget", "parent", "example.com/v1", True)]})
    for server in range(2):
        both = FakeApi(SHOP, CRD, WIDGET, child), FakeApi(SHOP, CRD)
        both[1].name = "the API server at https://127.0.0.1:2"
        both[server].unreadable = {(WIDGETS, version) for version in versions}
        assert plan(*both, {"kind": "ConfigMap"})[0]["ConfigMap shop/child"] == MISSING
    both[0].unreadable = {(WIDGETS, version) for version in versions}
    assert "shop/ConfigMap_child.yaml" in [one[0] for one in Export(both[0], parse([{"kind": "ConfigMap"}]), False).files()]


def test_measurements_are_no_objects():
    metrics = ("metrics.k8s.io", "v1beta1", "podmetrics", "PodMetrics", True, False)
    assert Resources(FakeApi(resources=[*BUILT_IN, metrics])).find("podmetrics.metrics.k8s.io") is None


def test_what_is_not_served():
    gone = ("legacy", "v1", "things", "Thing", True, False)
    snapshot = FakeApi(SHOP, made("Thing", "a", "shop", "legacy/v1"), resources=[*BUILT_IN, gone])
    assert reasons(plan(snapshot, [SHOP])[1]) == {"Thing shop/a": "cannot be recovered: the live cluster does not serve things.legacy"}
    live = FakeApi(SHOP, resources=[*BUILT_IN, ("legacy", "v2", "things", "Thing", True, False)])
    assert reasons(plan(snapshot, live)[1]) == {"Thing shop/a": "cannot be recovered: it is served as v2 only, and in the snapshot as v1"}


def test_a_volume_that_is_still_there_waits_for_its_claim():
    live = FakeApi(SHOP)
    live.add(VOLUME)
    found, whole = plan([SHOP, VOLUME, CLAIM], live)
    assert found == {"Namespace shop": SAME, "PersistentVolumeClaim shop/data": MISSING}
    assert described(whole)["rebound"] == [{"object": "PersistentVolume disk", "claim": "shop/data"}]


def test_a_volume_that_another_claim_has():
    live = FakeApi(SHOP, dict(VOLUME, spec={"claimRef": {"namespace": "other", "name": "claim", "uid": "1"}}))
    assert reasons(plan([SHOP, VOLUME, CLAIM], live)[1]) == {
        "PersistentVolumeClaim shop/data": "cannot be recovered: its volume disk belongs to the claim other/claim"
    }


def test_a_volume_that_is_gone():
    deleted = dict(VOLUME, spec=dict(VOLUME["spec"], persistentVolumeReclaimPolicy="Delete"))
    found, whole = plan([SHOP, deleted, CLAIM], [SHOP])
    assert found["PersistentVolume disk"] == MISSING
    assert described(whole)["warnings"] == [
        "PersistentVolume disk had the reclaim policy Delete: if its claim was deleted, so was the data; look at the storage first. It is recovered with Retain"
    ]
    assert described(plan([SHOP, CLAIM], [SHOP])[1])["warnings"] == [
        "PersistentVolumeClaim shop/data will wait for its volume disk, which is neither live nor recovered"
    ]


@pytest.mark.parametrize(
    ("content", "metadata", "words"),
    [
        ({"persistentVolumeReclaimPolicy": "Delete"}, {}, "its volume disk has the reclaim policy Delete and lost its claim"),
        ({"persistentVolumeReclaimPolicy": "Recycle"}, {}, "its volume disk has the reclaim policy Recycle and lost its claim"),
        ({"persistentVolumeReclaimPolicy": "Retain"}, {"deletionTimestamp": "now"}, "its volume disk is being deleted"),
        ({"persistentVolumeReclaimPolicy": "Retain"}, {}, None),
        ({"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"namespace": "shop", "name": "data"}}, {}, None),
    ],
)
def test_a_claim_gets_no_volume_whose_data_is_being_deleted(content, metadata, words):
    live = FakeApi(SHOP)
    live.add(dict(VOLUME, spec=dict(VOLUME["spec"], **content)), **metadata)
    found, whole = plan([SHOP, VOLUME, CLAIM], live)
    assert found["PersistentVolumeClaim shop/data"] == (BLOCKED if words else MISSING)
    assert words is None or words in reasons(whole)["PersistentVolumeClaim shop/data"]
    assert words is None or described(whole)["rebound"] == []


def mounting(kind, name, *claims, **metadata):
    """A workload whose Pods mount these claims."""
    pod = {"volumes": [{"name": "a", "emptyDir": {}}, *[{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]]}
    spec = pod if kind == "Pod" else {"template": {"spec": pod}}
    return made(kind, name, "shop", "v1" if kind == "Pod" else "apps/v1", spec=spec, metadata=metadata)


ALONE = "; run this again when that is solved, or select this object alone, by its kind and name, to recover it all the same"
NO_DATA = "cannot be recovered: its claim data cannot, and it must not start without its data" + ALONE
ELSEWHERE = dict(VOLUME, spec={"claimRef": {"namespace": "other", "name": "claim", "uid": "1"}})


def test_what_mounts_a_claim_that_cannot_be_recovered_is_not_started_without_its_data():
    cluster = mounting("Deployment", "web", "data", ownerReferences=[owned("Widget", "parent", "example.com/v1", True)])
    others = [mounting("Pod", "bare", "data"), mounting("Deployment", "other", "logs"), made("PersistentVolumeClaim", "logs", "shop", spec={})]
    found, whole = plan([SHOP, CRD, VOLUME, CLAIM, WIDGET, cluster, *others], [SHOP, CRD, ELSEWHERE])
    assert found["Deployment shop/other"] == found["PersistentVolumeClaim shop/logs"] == MISSING
    assert reasons(whole) == {
        "PersistentVolumeClaim shop/data": "cannot be recovered: its volume disk belongs to the claim other/claim",
        "Deployment shop/web": NO_DATA,
        "Pod shop/bare": NO_DATA,
        # its controller would make the Deployment, and that claim
        "Widget shop/parent": "cannot be recovered: it owns Deployment shop/web, which cannot, and would make that anew without its data" + ALONE,
    }
    assert plan([SHOP, CRD, VOLUME, CLAIM, cluster], [SHOP, CRD, ELSEWHERE], {"kind": "Deployment", "name": "web"})[0] == {"Deployment shop/web": MISSING}
    # a live one is not started
    assert plan([SHOP, CLAIM, cluster], [SHOP, ELSEWHERE, cluster])[0]["Deployment shop/web"] == SAME


@pytest.mark.parametrize(("start", "replicas", "is_blocked"), [(0, 1, True), (0, 0, False), (1, 2, False), (None, None, True)])
def test_a_stateful_set_makes_new_claims_for_those_that_cannot_be_recovered(start, replicas, is_blocked):
    claim = made("PersistentVolumeClaim", "data-db-0", "shop", spec={"volumeName": "disk"})
    spec = {"template": {"spec": {}}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}
    spec.update({} if replicas is None else {"ordinals": {"start": start}, "replicas": replicas})
    found, dummy = plan([SHOP, claim, made("StatefulSet", "db", "shop", "apps/v1", spec=spec)], [SHOP, ELSEWHERE])
    assert found["StatefulSet shop/db"] == (BLOCKED if is_blocked else MISSING)


def test_a_claim_that_was_being_deleted_in_the_snapshot():
    """Its StatefulSet would make a new, empty one."""
    snapshot = FakeApi(SHOP, mounting("Deployment", "web", "data"))
    snapshot.add(CLAIM, deletionTimestamp="then")
    dummy, whole = plan(snapshot, [SHOP])
    words = "was being deleted when the snapshot was taken"
    assert reasons(whole) == {"PersistentVolumeClaim shop/data": words, "Deployment shop/web": NO_DATA}
    # where there is one now, the workload finds it
    assert plan(snapshot, [SHOP, CLAIM])[0]["Deployment shop/web"] == MISSING


def test_the_claims_of_any_number_of_replicas():
    spec = {"template": {"spec": {}}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}], "replicas": 2000000000}
    claims = Claims("statefulsets.apps", made("StatefulSet", "db", "shop", "apps/v1", spec=spec))
    assert "data-db-0" in claims and "data-db-1999999999" in claims
    for name in ("data-db-2000000000", "data-db-01", "data-db-", "data-other-0", "data-db-x", "data", "data-db-\u0661"):
        assert name not in claims


def test_a_claim_whose_volume_cannot_be_recovered():
    disk, other = dict(VOLUME, spec=dict(VOLUME["spec"], **CSI)), made("PersistentVolume", "other", spec=CSI)
    dummy, whole = plan([SHOP, disk, CLAIM, mounting("Deployment", "web", "data")], [SHOP, other])
    assert reasons(whole) == {
        "PersistentVolume disk": "cannot be recovered: its storage is that of the live volume other now",
        "PersistentVolumeClaim shop/data": "cannot be recovered: its volume disk cannot",
        "Deployment shop/web": NO_DATA,
    }


CSI = {"csi": {"driver": "d", "volumeHandle": "h-1", "volumeAttributes": {"a": "1"}}}
PATH = {"hostPath": {"path": "/data", "type": ""}}


@pytest.mark.parametrize(
    ("recovered", "live", "is_same"),
    [
        (CSI, {"csi": {"driver": "d", "volumeHandle": "h-1", "fsType": "xfs"}}, True),
        (CSI, {"csi": {"driver": "d", "volumeHandle": "h-2"}}, False),
        (PATH, {"hostPath": {"path": "/data"}}, True),
        (dict(PATH, nodeAffinity={"required": "a"}), dict(PATH, nodeAffinity={"required": "b"}), False),
        ({}, {}, False),
    ],
)
def test_a_volume_whose_storage_another_one_has_now(recovered, live, is_same):
    disk, other = made("PersistentVolume", "disk", spec=recovered), made("PersistentVolume", "other", spec=live)
    dummy, whole = plan([disk], [other], {"kind": "PersistentVolume"})
    assert reasons(whole) == ({"PersistentVolume disk": "cannot be recovered: its storage is that of the live volume other now"} if is_same else {})
    # both were there in the snapshot
    assert plan([disk, other], [other], {"kind": "PersistentVolume", "name": "disk"})[0] == {"PersistentVolume disk": MISSING}


def test_the_claim_and_the_policy_of_a_live_volume_are_no_difference():
    live = dict(VOLUME, spec={"claimRef": {"namespace": "new", "name": "data2", "uid": "1"}, "persistentVolumeReclaimPolicy": "Retain"})
    deleting = dict(VOLUME, spec=dict(VOLUME["spec"], persistentVolumeReclaimPolicy="Delete"))
    found, whole = plan([deleting], [live], {"kind": "PersistentVolume"})
    assert found == {"PersistentVolume disk": SAME}
    assert "PersistentVolume disk keeps its claimRef and its reclaim policy" in described(whole)["warnings"][0]
    # --diff shows what would be made
    live["spec"]["mountOptions"] = ["a"]
    (shown,) = diffs(plan([deleting], [live], {"kind": "PersistentVolume"})[1], True)
    assert "data2" in shown["after"] and "Delete" not in shown["after"]
    (shown,) = diffs(plan([deleting], [SHOP], {"kind": "PersistentVolume"})[1], False)
    assert "Delete" not in shown["after"]


def test_owners():
    child = made("ConfigMap", "of-gone", "shop", metadata={"ownerReferences": [owned("Widget", "gone", "example.com/v1")]})
    brought_back = made("ConfigMap", "of-gone", "shop")
    # the owner is not there, so the reference was left out, and the next run finds no difference
    assert plan([SHOP, CRD, child], [SHOP, CRD, brought_back])[0]["ConfigMap shop/of-gone"] == SAME
    kept = made("ConfigMap", "kept", "shop", metadata={"ownerReferences": [owned("Widget", "parent", "example.com/v1")]})
    bare = made("ConfigMap", "kept", "shop")
    found, dummy = plan([SHOP, CRD, WIDGET, kept], [SHOP, CRD, WIDGET, bare])
    assert found["ConfigMap shop/kept"] == DIFFERENT


def owned_by(kind, name, *owners):
    return made(kind, name, "shop", metadata={"ownerReferences": list(owners)})


def test_what_belongs_to_something_that_is_not_recovered():
    pod = owned_by("Pod", "db-0", owned("ReplicaSet", "db", "apps/v1", True))
    scratch = owned_by("PersistentVolumeClaim", "db-0-scratch", owned("Pod", "db-0", controller=True))
    config = owned_by("ConfigMap", "of-scratch", owned("PersistentVolumeClaim", "db-0-scratch"))
    shared = owned_by("ConfigMap", "shared", owned("Pod", "db-0"), owned("ConfigMap", "prices"))
    found, whole = plan([SHOP, PRICES, pod, scratch, config, shared], [SHOP])
    assert found["ConfigMap shop/shared"] == found["ConfigMap shop/prices"] == MISSING
    assert reasons(whole) == {
        "Pod shop/db-0": "is made by its ReplicaSet",
        "PersistentVolumeClaim shop/db-0-scratch": "belongs to Pod shop/db-0, which is not recovered",
        "ConfigMap shop/of-scratch": "belongs to PersistentVolumeClaim shop/db-0-scratch, which is not recovered",
    }
    # a claim comes before its owner in the order
    parent = made("Widget", "parent", "shop", "example.com/v1", metadata={"ownerReferences": [owned("Pod", "db-0")]})
    data = owned_by("PersistentVolumeClaim", "data", owned("Widget", "parent", "example.com/v1"))
    found, whole = plan([SHOP, CRD, pod, parent, data], [SHOP, CRD])
    assert found["Widget shop/parent"] == found["PersistentVolumeClaim shop/data"] == LEFT_OUT
    # also where the owner is not selected
    assert plan([SHOP, pod, scratch], [SHOP], {"kind": "PersistentVolumeClaim"})[0] == {"PersistentVolumeClaim shop/db-0-scratch": LEFT_OUT}
    # a Pod of that name is there: the claim gets its UID
    assert plan([SHOP, pod, scratch], [SHOP, pod])[0]["PersistentVolumeClaim shop/db-0-scratch"] == MISSING


def test_what_would_run_again_is_said_before():
    custom = [made("Widget", name, "shop", "example.com/v1", status={"a": "b"}) for name in ("a", "b")]
    said = described(plan([SHOP, CRD, *custom, made("Pod", "bare", "shop"), made("Widget", "c", "shop", "example.com/v1")], [SHOP, CRD])[1])
    assert said["warnings"] == [
        "Pod shop/bare belongs to no workload, and starts again",
        "Widget shop/a and Widget shop/b: is recovered without its status: its controller may do again what it had done",
    ]
    done = made("Widget", "done", "shop", "example.com/v1", status={"completionTime": "x"})
    assert plan([SHOP, CRD, done], [SHOP, CRD])[0]["Widget shop/done"] == LEFT_OUT


def test_what_is_made_by_controllers_is_counted():
    pods = [made("Pod", "web-%d" % number, "shop", metadata={"ownerReferences": [owned("ReplicaSet", "web", "apps/v1", True)]}) for number in range(3)]
    said = described(plan([SHOP, *pods], [SHOP])[1])
    assert "  3 Pod: each is made by its ReplicaSet" in lines(said, False)


def test_endpoints_of_a_service_without_a_selector_are_the_operators():
    services = [made("Service", "selected", "shop", spec={"selector": {"a": "b"}}), made("Service", "outside", "shop", spec={})]
    ends = [made("Endpoints", name, "shop") for name in ("selected", "outside")]
    found, dummy = plan([SHOP, *services, *ends], [SHOP])
    assert (found["Endpoints shop/selected"], found["Endpoints shop/outside"]) == (LEFT_OUT, MISSING)
