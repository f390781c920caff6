# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is removed from an object, what is left out, and the order."""

from __future__ import annotations

import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import left_out
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import clean, digest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.differences import fields, patch, sentences, shown
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.order import ordered, rank
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.fake_api import made, owned

SERVER = ("resourceVersion", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink")


def of(identifier, has_status=True, **content):
    metadata = dict({"name": "x"}, **content.pop("metadata", {}))
    return clean(dict(content, metadata=metadata), identifier, has_status)


def test_what_the_server_sets_goes():
    found = made("ConfigMap", "x", "shop", metadata=dict.fromkeys(SERVER, "1"), data={"a": "1"})
    assert clean(found, "configmaps", False) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "shop"}, "data": {"a": "1"}}
    assert found["metadata"]["uid"]


def test_status_goes_where_it_is_a_subresource():
    assert "status" not in of("deployments.apps", status={"replicas": 1})
    assert of("widgets.example.com", False, status={"phase": "Ready"})["status"] == {"phase": "Ready"}


def test_finalizers_of_kubernetes_go_and_others_stay():
    names = ["kubernetes.io/pvc-protection", "example.com/guard", "foregroundDeletion"]
    assert of("widgets.example.com", metadata={"finalizers": names})["metadata"]["finalizers"] == ["example.com/guard"]
    assert "finalizers" not in of("persistentvolumeclaims", metadata={"finalizers": names[:1]})["metadata"]


def test_owners_stay_without_their_uids():
    found = of("configmaps", metadata={"ownerReferences": [owned("Widget", "a")]})
    assert found["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Widget", "name": "a"}]


def test_annotations_of_controllers_go():
    notes = {"deployment.kubernetes.io/revision": "3", "mine": "x"}
    assert of("deployments.apps", metadata={"annotations": notes})["metadata"]["annotations"] == {"mine": "x"}
    assert "annotations" not in of("deployments.apps", metadata={"annotations": {"pv.kubernetes.io/bind-completed": "yes"}})["metadata"]
    assert "annotations" not in of("daemonsets.apps", metadata={"annotations": {"deprecated.daemonset.template.generation": "3"}})["metadata"]


def test_a_template_has_no_time():
    spec = {"template": {"metadata": {"creationTimestamp": None, "labels": {}}}, "volumeClaimTemplates": [{"metadata": {"creationTimestamp": None}}]}
    assert of("statefulsets.apps", spec=spec)["spec"] == {"template": {"metadata": {"labels": {}}}, "volumeClaimTemplates": [{"metadata": {}}]}


@pytest.mark.parametrize(
    ("identifier", "content", "rest"),
    [
        ("namespaces", {"spec": {"finalizers": ["kubernetes"]}}, {}),
        (
            "persistentvolumes",
            {"spec": {"claimRef": {"uid": "1", "resourceVersion": "2", "namespace": "a", "name": "b"}}},
            {"spec": {"claimRef": {"namespace": "a", "name": "b"}}},
        ),
        (
            "volumesnapshotcontents.snapshot.storage.k8s.io",
            {"spec": {"volumeSnapshotRef": {"uid": "1", "resourceVersion": "2", "namespace": "a", "name": "b"}}},
            {"spec": {"volumeSnapshotRef": {"namespace": "a", "name": "b"}}},
        ),
        ("serviceaccounts", {"secrets": [{"name": "web-token-x7k2p"}, {"name": "mine"}]}, {"secrets": [{"name": "mine"}]}),
        ("serviceaccounts", {"secrets": [{"name": "default-token-x7k2p"}]}, {}),
        ("clusterroles.rbac.authorization.k8s.io", {"aggregationRule": {"a": 1}, "rules": [1]}, {"aggregationRule": {"a": 1}}),
        ("clusterroles.rbac.authorization.k8s.io", {"rules": [1]}, {"rules": [1]}),
        (
            "jobs.batch",
            {"spec": {"selector": {"a": 1}, "template": {"metadata": {"labels": {"controller-uid": "1", "job-name": "x", "mine": "x"}}}}},
            {"spec": {"template": {"metadata": {"labels": {"mine": "x"}}}}},
        ),
        ("jobs.batch", {"spec": {"manualSelector": True, "selector": {"a": 1}}}, {"spec": {"manualSelector": True, "selector": {"a": 1}}}),
        (
            "pods",
            {
                "spec": {
                    "nodeName": "n",
                    "priority": 0,
                    "volumes": [{"name": "kube-api-access-x"}, {"name": "t", "secret": {"secretName": "default-token-x7k2p"}}, {"name": "data"}],
                    "containers": [{"volumeMounts": [{"name": "kube-api-access-x"}, {"name": "data"}]}],
                    "initContainers": [{"volumeMounts": [{"name": "t"}]}],
                    "ephemeralContainers": [{"name": "debugger-x"}],
                }
            },
            {"spec": {"volumes": [{"name": "data"}], "containers": [{"volumeMounts": [{"name": "data"}]}], "initContainers": [{}]}},
        ),
    ],
)
def test_rules_of_kinds(identifier, content, rest):
    assert of(identifier, **content) == dict(rest, metadata={"name": "x"})


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1]}) == digest({"b": [1], "a": 1}) != digest({"a": 1, "b": [2]})


# -- what is left out --------------------------------------------------------------------------------------------------

MANAGED = "endpointslice.kubernetes.io/managed-by"
ENDED = {"conditions": [{"type": "Complete", "status": "True"}]}


@pytest.mark.parametrize(
    ("identifier", "content", "words"),
    [
        ("events", {}, "is not recovered"),
        ("leases.coordination.k8s.io", {}, "is not recovered"),
        ("nodes", {}, "is not recovered: kubelet registers"),
        ("controllerrevisions.apps", {}, "is not recovered"),
        ("configmaps", {"metadata": {"deletionTimestamp": "x"}}, "was being deleted"),
        ("pods", {"metadata": {"ownerReferences": [owned("ReplicaSet", "web", controller=True)]}}, "is made by its ReplicaSet"),
        ("replicasets.apps", {"metadata": {"ownerReferences": [owned("Deployment", "web", controller=True)]}}, "is made by its Deployment"),
        ("replicasets.apps", {}, ""),
        ("replicasets.apps", {"metadata": {"ownerReferences": [owned("Rollout", "web", controller=True)]}}, ""),
        ("jobs.batch", {"metadata": {"ownerReferences": [owned("CronJob", "a", controller=True)]}}, "is made by its CronJob"),
        ("jobs.batch", {"status": ENDED}, "has ended"),
        ("jobs.batch", {"status": {}}, ""),
        ("configmaps", {"metadata": {"ownerReferences": [owned("Widget", "a", controller=True)]}}, ""),
        ("secrets", {"type": "kubernetes.io/service-account-token"}, "is a token"),
        ("secrets", {"type": "Opaque"}, ""),
        ("configmaps", {"metadata": {"name": "kube-root-ca.crt"}}, "is made in each namespace"),
        ("serviceaccounts", {"metadata": {"name": "default"}, "secrets": [{"name": "default-token-x7k2p"}]}, "is made in each namespace"),
        ("serviceaccounts", {"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "a"}]}, ""),
        ("serviceaccounts", {"metadata": {"name": "worker"}}, ""),
        ("endpoints", {}, ""),
        ("endpoints", {"metadata": {"name": "selected"}}, "is made by its Service"),
        ("endpoints", {"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}}}, "is made by its Service"),
        ("endpoints", {"metadata": {"annotations": {"control-plane.alpha.kubernetes.io/leader": "x"}}}, "is a lock"),
        ("endpointslices.discovery.k8s.io", {"metadata": {"labels": {MANAGED: "endpointslice-controller.k8s.io"}}}, "is made by its Service"),
        ("endpointslices.discovery.k8s.io", {"metadata": {"labels": {MANAGED: "me"}}}, ""),
        ("services", {"metadata": {"name": "kubernetes", "namespace": "default"}}, "is made by the API server"),
        ("services", {"metadata": {"name": "kubernetes"}}, ""),
        ("pods", {"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}, "is a static Pod"),
        ("pods", {"status": {"phase": "Succeeded"}}, "has ended"),
        ("pods", {"status": {"phase": "Running"}}, ""),
        ("apiservices.apiregistration.k8s.io", {"metadata": {"labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}}}, "made by the API server"),
        ("flowschemas.flowcontrol.apiserver.k8s.io", {"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}}, "made by the API server"),
        ("flowschemas.flowcontrol.apiserver.k8s.io", {"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}}, ""),
    ],
)
def test_what_is_left_out(identifier, content, words):
    metadata = dict({"name": "x", "namespace": "shop"}, **content.get("metadata", {}))
    found = left_out.reason(identifier, dict(content, metadata=metadata), {("shop", "selected")})
    assert words in found if words else found == ""


@pytest.mark.parametrize(
    ("status", "loses_status", "left", "words"),
    [
        ({"completionTime": "x"}, True, True, ""),
        ({"conditions": [{"type": "Succeeded", "status": "True"}]}, True, True, ""),
        ({"conditions": [{"type": "Complete", "status": "False"}]}, True, False, "without its status"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, True, False, "without its status"),
        ({"conditions": "x"}, True, False, "without its status"),
        ({"completionTime": "x"}, False, False, ""),
        ({}, True, False, ""),
    ],
)
def test_custom_resources_that_would_run_again(status, loses_status, left, words):
    found = {"metadata": {"name": "x", "namespace": "shop"}, "status": status}
    assert left_out.reason("widgets.example.com", found, (), loses_status) == ("has ended, and would run again" if left else "")
    said = left_out.caution("widgets.example.com", found, loses_status)
    assert left or (words in said if words else said == "")


@pytest.mark.parametrize(
    ("source", "is_left"), [("persistentVolumeClaimName", True), ("volumeHandle", True), ("snapshotHandle", False), ("volumeSnapshotContentName", False)]
)
def test_snapshots_of_volumes_that_would_be_taken_anew(source, is_left):
    for kind in ("volumesnapshots", "volumesnapshotcontents"):
        found = left_out.reason(kind + ".snapshot.storage.k8s.io", {"metadata": {"name": "before-upgrade"}, "spec": {"source": {source: "a"}}}, (), True)
        assert bool(found) == is_left


# -- the order ---------------------------------------------------------------------------------------------------------


def item(identifier, name="x", owners=(), custom=False):
    return types.SimpleNamespace(key=(identifier, "", name), rank=rank(identifier, custom), uid=identifier + name, owners=list(owners))


ORDER = (
    *("customresourcedefinitions.apiextensions.k8s.io", "namespaces", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"),
    *("serviceaccounts", "secrets", "configmaps", "storageclasses.storage.k8s.io", "networkpolicies.networking.k8s.io", "persistentvolumes"),
    *("persistentvolumeclaims", "services", "deployments.apps", "ingresses.networking.k8s.io"),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
)


def test_the_order_of_kinds():
    found = [one.key[0] for one in ordered([item(name) for name in reversed(ORDER)])]
    assert found == list(ORDER)


def test_custom_resources_come_late_and_webhooks_last():
    names = ["validatingwebhookconfigurations.admissionregistration.k8s.io", "widgets.example.com", "poddisruptionbudgets.policy", "resourcequotas"]
    found = [one.key[0] for one in ordered([item(name, custom=name == "widgets.example.com") for name in names])]
    assert found == ["poddisruptionbudgets.policy", "resourcequotas", "widgets.example.com", names[0]]


def test_owners_come_first():
    parent = item("widgets.example.com", "z", custom=True)
    child = item("widgets.example.com", "a", [parent.uid], custom=True)
    web = item("deployments.apps", "c", [child.uid])
    other = item("deployments.apps", "d", ["not there"])
    assert ordered([web, child, parent, other]) == [other, parent, child, web]


def test_what_an_owner_would_make_anew_does_not_wait_for_it():
    parent = item("widgets.example.com", "z", custom=True)
    names = ("namespaces", "secrets", "configmaps", "persistentvolumes", "persistentvolumeclaims")
    early = [item(name, owners=[parent.uid]) for name in names]
    account = item("serviceaccounts")
    assert ordered([parent, *early, account]) == [early[0], account, *early[1:], parent]


def test_owners_of_each_other_end():
    one, two = item("configmaps", "a", ["configmapsb"]), item("configmaps", "b", ["configmapsa"])
    assert len(ordered([one, two])) == 2


# -- differences -------------------------------------------------------------------------------------------------------


def test_fields_that_differ():
    before = {"a": 1, "b": {"c.d/e": [{"x": 1}, 2], "same": 1}, "gone": 1, "list": [1]}
    after = {"a": 2, "b": {"c.d/e": [{"x": 2}, 2], "same": 1}, "new": None, "list": [1, 2]}
    assert [path for path, dummy, dummy in fields(before, after)] == ["a", "b[c.d/e][0].x", "gone", "list", "new"]
    found = list(sentences(fields({"a": 1}, {"a": "x" * 200, "b": 1}), "configmaps"))
    assert found == ['a: 1, in the snapshot "%s...' % ("x" * 79), "b: nothing, in the snapshot 1"]


def test_values_of_a_secret_are_not_shown():
    before = {"metadata": {"name": "key", "annotations": {"last": "s3cret"}}, "data": {"a": "s3cret"}}
    after = {"metadata": {"name": "key"}, "data": {"a": "s3cret too", "b": "s3cret"}, "stringData": {"c": "s3cret"}}
    assert list(sentences(fields(before, after), "secrets")) == ["data.a", "data.b", "metadata.annotations", "stringData"]
    assert "s3cret" not in shown(before, "secrets") + shown(after, "secrets")
    assert "s3cret" in shown(before, "configmaps")
    assert shown(None, "secrets") == ""


def test_a_patch_makes_one_of_the_other():
    before, after = {"a": 1, "b": {"c": 1, "d": 1}, "e": [1]}, {"b": {"c": 2, "d": 1}, "e": [2], "f": {}}
    assert patch(before, after) == {"a": None, "b": {"c": 2}, "e": [2], "f": {}}
    assert patch(before, before) == {}
