# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an undo must not delete, since others need it or have made it, by an API server in memory."""

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import record as records, undo
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resources
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.fake_api import CRD, FakeApi, made, owned
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.test_recovery import CLAIM, KEY, PARENT, PRICES, SHOP, VOLUME, Died, Run

WEB = made("Deployment", "web", "shop", "apps/v1", spec={"replicas": 2, "template": {"spec": {}}})
SERVICE = made("Service", "web", "shop", spec={"ports": []})
ACCOUNT = made("ServiceAccount", "worker", "shop")
ROLE = made("ClusterRole", "reader", api_version="rbac.authorization.k8s.io/v1", rules=[])
BINDING = made("RoleBinding", "reader", "shop", "rbac.authorization.k8s.io/v1", roleRef={"kind": "ClusterRole", "name": "reader"})
DISK = dict(VOLUME, spec={"claimRef": {"namespace": "shop", "name": "data"}, "persistentVolumeReclaimPolicy": "Retain"})
SCALER = {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale"}


@pytest.fixture(autouse=True)
def without_patience(monkeypatch):
    monkeypatch.setattr(undo, "_PATIENCE", 0)


def change(run, kind, name, namespace="shop", **content):
    """As another client changes it: the UID stays."""
    found = copy.deepcopy(run.live.find(kind, name, namespace))
    found.update(content)
    return run.live.add(found)


def owner_of(found):
    """An ownerReference to a live object."""
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "name": found["metadata"]["name"], "uid": found["metadata"]["uid"], "controller": True}


def reasons(found):
    return {one["object"]: one["reason"] for one in found.left}


def both(run):
    """The undo, which its check mode has predicted."""
    would = run.undo(check=True)
    done = run.undo()
    assert (would.undone, would.left) == (done.undone, done.left)
    return done


# -- what a staying workload needs ---------------------------------------------------------------------------------------


def test_what_a_staying_workload_may_need_stays(tmp_path):
    run = Run(tmp_path, [SHOP, KEY, PRICES, ACCOUNT, ROLE, BINDING, DISK, CLAIM, WEB, SERVICE], [])
    run.recover()
    change(run, "Deployment", "web", spec={"replicas": 2, "template": {"spec": {"priority": 1}}})
    found = both(run)
    why = "stays: Deployment shop/web stays and may need it"
    names = ["Secret shop/key", "ConfigMap shop/prices", "ServiceAccount shop/worker", "ClusterRole reader", "RoleBinding shop/reader"]
    expected = dict.fromkeys([*names, "PersistentVolumeClaim shop/data", "Service shop/web"], why)
    expected["PersistentVolume disk"] = "stays: the claim shop/data uses it"
    left = reasons(found)
    assert left.pop("Deployment shop/web") == "stays: it was changed since" and "it holds" in left.pop("Namespace shop")
    assert left == expected and found.undone == []


def test_a_workload_that_the_api_server_does_not_let_delete_keeps_its_claim(tmp_path):
    run = Run(tmp_path, [SHOP, DISK, CLAIM, WEB], [SHOP])
    run.recover()
    run.live.refuse("deployments.apps", "shop", "web", 403, "no")
    assert reasons(run.undo())["PersistentVolumeClaim shop/data"] == "stays: Deployment shop/web stays and may need it"


@pytest.mark.parametrize(("entry", "changed"), [(SCALER, False), (dict(SCALER, manager="kubectl"), True)])
def test_replicas_that_an_autoscaler_has_set_are_no_change(tmp_path, entry, changed):
    run = Run(tmp_path, [SHOP, WEB], [SHOP])
    run.recover()
    live = run.live.find("Deployment", "web", "shop")
    live["spec"]["replicas"] = 7
    live["metadata"]["managedFields"].append(entry)
    assert reasons(both(run)) == ({"Deployment shop/web": "stays: it was changed since"} if changed else {})


def test_a_claim_that_the_pod_of_another_uses_stays_with_its_volume(tmp_path):
    run = Run(tmp_path, [SHOP, DISK, CLAIM], [SHOP])
    run.recover()
    run.live.add(made("Pod", "other", "shop", spec={"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}]}))
    assert reasons(both(run)) == {"PersistentVolumeClaim shop/data": "stays: Pod other uses it", "PersistentVolume disk": "stays: the claim shop/data uses it"}
    change(run, "Pod", "other", status={"phase": "Succeeded"})
    assert run.undo().left == []


def test_a_claim_waits_for_the_pods_of_an_undone_workload(tmp_path):
    run = Run(tmp_path, [SHOP, DISK, CLAIM, WEB], [SHOP])
    run.recover()
    volumes = [{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}]
    of_web = {"ownerReferences": [owner_of(run.live.find("Deployment", "web", "shop"))]}
    replicas = run.live.add(made("ReplicaSet", "web-1", "shop", "apps/v1", metadata=of_web))
    run.live.add(made("Pod", "web-1-a", "shop", metadata={"ownerReferences": [owner_of(replicas)]}, spec={"volumes": volumes}))
    assert run.undo(check=True).left == []
    assert reasons(run.undo())["PersistentVolumeClaim shop/data"] == "stays: Pod web-1-a uses it"
    assert run.live.find("Deployment", "web", "shop") is None
    del run.live.objects[("pods", "shop", "web-1-a")]
    assert run.undo().left == []


@pytest.mark.parametrize("policy", ["Delete", "Recycle"])
def test_a_claim_of_a_volume_that_is_not_retained_stays(tmp_path, policy):
    run = Run(tmp_path, [SHOP, VOLUME, CLAIM], [SHOP, VOLUME])
    run.recover()
    run.live.find("PersistentVolume", "disk")["spec"]["persistentVolumeReclaimPolicy"] = policy
    assert "reclaim policy %s, so the data would be deleted" % policy in reasons(both(run))["PersistentVolumeClaim shop/data"]


def test_an_owner_of_a_claim_that_was_made_since_stays(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, dict(PARENT, metadata={"name": "parent", "namespace": "shop"})], [SHOP, CRD])
    run.recover()
    parent = owner_of(run.live.find("Widget", "parent", "shop"))
    inner = run.live.add(made("Deployment", "db", "shop", "apps/v1", metadata={"ownerReferences": [parent]}))
    run.live.add(made("PersistentVolumeClaim", "new", "shop", metadata={"ownerReferences": [owner_of(inner)]}))
    assert reasons(both(run)) == {
        "Widget shop/parent": "stays: the claim shop/new and its data would be deleted with it, and this run did not recover that claim"
    }
    # that of an ephemeral volume is no such claim
    pod = run.live.add(made("Pod", "db-1", "shop", metadata={"ownerReferences": [owner_of(inner)]}))
    change(run, "PersistentVolumeClaim", "new", metadata={"name": "new", "namespace": "shop", "uid": "u", "ownerReferences": [owner_of(pod)]})
    assert both(run).left == []


def test_the_owner_of_a_claim_stays_while_the_volume_is_not_retained(tmp_path):
    """It is retained when it is recovered; an administrator may have changed that since."""
    claim = dict(CLAIM, metadata=dict(CLAIM["metadata"], ownerReferences=[owned("Deployment", "web", "apps/v1")]))
    run = Run(tmp_path, [SHOP, DISK, claim, WEB], [SHOP])
    run.recover()
    assert both(run).left == []
    run.recover()
    run.live.find("PersistentVolume", "disk")["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    assert "reclaim policy Delete, so the data would be deleted" in reasons(both(run))["Deployment shop/web"]
    assert run.live.find("Deployment", "web", "shop") and run.live.find("PersistentVolumeClaim", "data", "shop")


# -- owners ---------------------------------------------------------------------------------------------------------------


def test_the_owner_of_what_stays_stays(tmp_path):
    """The garbage collector would delete it with its owner."""
    web = dict(WEB, metadata=dict(WEB["metadata"], ownerReferences=[owned("Widget", "parent", "example.com/v1", True)]))
    run = Run(tmp_path, [SHOP, CRD, PARENT, web], [SHOP, CRD])
    run.recover()
    change(run, "Deployment", "web", spec={"replicas": 2, "template": {"spec": {"priority": 1}}})
    assert reasons(both(run)) == {
        "Deployment shop/web": "stays: it was changed since",
        "Widget shop/parent": "stays: Deployment shop/web would be deleted with it, and stays",
    }


@pytest.mark.parametrize("kind", ["Namespace", "PersistentVolume"])
def test_the_owner_of_a_namespace_or_a_volume_that_was_made_since_stays(tmp_path, kind):
    run = Run(tmp_path, [SHOP, ROLE, BINDING], [SHOP])
    run.recover()
    run.live.add(made(kind, "new", metadata={"ownerReferences": [owner_of(run.live.find("ClusterRole", "reader"))]}, spec={}))
    assert reasons(both(run)) == {"ClusterRole reader": "stays: %s new would be deleted with it; run the undo again when that is gone" % kind}
    run.live.find(kind, "new")["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert both(run).left == []


# -- volumes that were bound again ------------------------------------------------------------------------------------------

RELEASED = dict(VOLUME, spec={"claimRef": {"namespace": "shop", "name": "data", "uid": "gone"}, "persistentVolumeReclaimPolicy": "Retain"})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"claimRef": {"namespace": "other", "name": "new"}, "persistentVolumeReclaimPolicy": "Retain"}, "it belongs to the claim other/new now"),
        ({"claimRef": {"namespace": "shop", "name": "data"}, "persistentVolumeReclaimPolicy": "Delete"}, "with its reclaim policy Delete, the data"),
    ],
)
def test_a_volume_whose_data_would_be_deleted_is_not_given_back(tmp_path, spec, words):
    run = Run(tmp_path, [SHOP, RELEASED, CLAIM], [SHOP, RELEASED])
    run.recover()
    assert "uid" not in run.live.find("PersistentVolume", "disk")["spec"]["claimRef"]
    del run.live.objects[("persistentvolumeclaims", "shop", "data")]
    run.live.find("PersistentVolume", "disk")["spec"] = copy.deepcopy(spec)
    assert words in reasons(both(run))["PersistentVolume disk"]
    assert run.live.find("PersistentVolume", "disk")["spec"] == spec


def test_the_volume_of_a_claim_that_is_there_by_now_keeps_its_binding(tmp_path):
    run = Run(tmp_path, [SHOP, RELEASED, CLAIM], [SHOP, RELEASED])

    def bind(_method, key, dry):
        if key[0] == "configmaps" and not dry:
            run.live.add(CLAIM)

    run.snapshot.add(PRICES)
    run.live.before_change = bind
    assert run.recover().failed == [{"object": "PersistentVolumeClaim shop/data", "reason": "was made by something else meanwhile; run this again"}]
    assert run.live.find("PersistentVolume", "disk")["spec"]["claimRef"]["uid"] == "gone"


def test_a_volume_that_was_made_again_is_not_given_back(tmp_path):
    run = Run(tmp_path, [SHOP, RELEASED, CLAIM], [SHOP, RELEASED])
    run.recover()
    run.live.find("PersistentVolume", "disk")["metadata"]["uid"] = "another"
    assert reasons(run.undo()) == {"PersistentVolume disk": "stays as it is: it was deleted and made again since"}


# -- namespaces and definitions -----------------------------------------------------------------------------------------


def test_a_definition_stays_while_others_own_objects_of_it(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT], [SHOP, made("Namespace", "other")])
    run.recover()
    ingress = run.live.add(made("Deployment", "ingress", "other", "apps/v1"))
    run.live.add(made("Widget", "tls", "other", "example.com/v1", metadata={"ownerReferences": [owner_of(ingress)]}))
    (why,) = reasons(both(run)).values()
    assert why == "stays: there are objects of it: Widget other/tls, which this run did not recover or did not undo"


OTHERS = [
    made("PersistentVolumeClaim", "x", "shop", metadata={"ownerReferences": [owned("Deployment", "elsewhere", "example.org/v1")]}),
    made("Pod", "x", "shop", status={"phase": "Succeeded"}),
    made("Secret", "x", "shop", type="kubernetes.io/service-account-token"),
    made("Endpoints", "x", "shop"),
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda one: one["kind"])
def test_a_namespace_stays_with_what_looks_made_by_a_controller(tmp_path, other):
    run = Run(tmp_path, [SHOP, PRICES], [])
    run.recover()
    run.live.add(other)
    assert reasons(both(run)) == {"Namespace shop": "stays: it holds %s x, which this run did not recover or did not undo" % other["kind"]}


def test_a_namespace_goes_with_what_ends_by_itself(tmp_path):
    run = Run(tmp_path, [SHOP, WEB], [])
    run.recover()
    of_web = {"ownerReferences": [owner_of(run.live.find("Deployment", "web", "shop"))]}
    replicas = run.live.add(made("ReplicaSet", "web-1", "shop", "apps/v1", metadata=of_web))
    run.live.add(made("Pod", "web-1-a", "shop", metadata={"ownerReferences": [owner_of(replicas)]}))
    run.live.add(made("Endpoints", "web", "shop", metadata={"labels": {"endpoints.kubernetes.io/managed-by": "x"}}))
    for one in (made("Event", "a", "shop"), made("ConfigMap", "kube-root-ca.crt", "shop"), made("ServiceAccount", "default", "shop")):
        run.live.add(one)
    assert both(run).left == []


# -- finalizers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path):
    """A run that has recovered a Widget with a finalizer."""
    run = Run(tmp_path, [SHOP, CRD, PARENT], [SHOP, CRD])
    run.recover()
    return run


def on_delete(run, do, times=1):
    left = [times]

    def act(method, key, _dry):
        if method == "DELETE" and left[0]:
            left[0] -= 1
            do(key)

    run.live.before_change = act


def test_a_finalizer_that_its_controller_puts_back_keeps_the_object(guarded):
    def put_back(_key):
        change(guarded, "Widget", "parent", metadata=dict(guarded.live.find("Widget", "parent", "shop")["metadata"], finalizers=["example.com/guard"]))

    on_delete(guarded, put_back)
    (why,) = reasons(guarded.undo()).values()
    assert "its controller has put the finalizer example.com/guard back" in why
    assert guarded.live.find("Widget", "parent", "shop")["metadata"]["finalizers"] == ["example.com/guard"] and guarded.live.deletions == []


def test_a_status_that_changes_after_the_finalizers_went_is_no_change(guarded):
    on_delete(guarded, lambda _key: change(guarded, "Widget", "parent", status={"phase": "x"}))
    assert guarded.undo().undone == ["Widget shop/parent"]


def test_an_object_that_changes_all_the_time_ends_the_attempts_with_its_finalizers(guarded):
    on_delete(guarded, lambda _key: change(guarded, "Widget", "parent", status={"phase": "x"}), 99)
    assert list(reasons(guarded.undo()).values()) == ["stays: it is changed all the time; run the undo again"]
    assert guarded.live.find("Widget", "parent", "shop")["metadata"]["finalizers"] == ["example.com/guard"]


def test_a_refused_deletion_leaves_the_finalizers(guarded):
    on_delete(guarded, lambda key: guarded.live.refusals.update({key: (403, {"message": "no", "details": {}})}))
    ask = guarded.live._change

    def once(method, *args):
        answer = ask(method, *args)
        guarded.live.refusals.clear()
        return answer

    guarded.live._change = once
    assert guarded.undo().left
    assert guarded.live.find("Widget", "parent", "shop")["metadata"]["finalizers"] == ["example.com/guard"]


def test_an_undo_that_is_killed_after_the_finalizers_went_is_continued(guarded):
    def die(_key):
        raise Died

    on_delete(guarded, die)
    with pytest.raises(Died):
        guarded.undo()
    assert not guarded.live.find("Widget", "parent", "shop")["metadata"].get("finalizers")
    assert guarded.undo().undone == ["Widget shop/parent"]


# -- what cannot be looked at ---------------------------------------------------------------------------------------------


def silence(api, path):
    ask = api._ask
    api._ask = lambda method, asked, *args: (503, {"message": "away"}) if asked == path else ask(method, asked, *args)
    return ask


def test_what_cannot_be_looked_at_is_not_undone(tmp_path, monkeypatch):
    run = Run(tmp_path, [SHOP, WEB, PRICES], [])
    run.recover()
    ask = silence(run.live, "/apis/apps/v1")
    left = reasons(both(run))
    assert left == {
        "Deployment shop/web": "stays: the API server does not serve deployments.apps in version v1 now; run the undo again when it does",
        "ConfigMap shop/prices": "stays: Deployment shop/web stays and may need it",
        "Namespace shop": "stays: what it holds is not known, since the API server does not serve /apis/apps/v1 now",
    }
    # it is asked again
    monkeypatch.setattr(undo, "_PATIENCE", 5)
    asked = []
    run.live._ask = lambda method, path, *args: (
        (503, {"message": "away"}) if path == "/apis/apps/v1" and not asked.append(path) and len(asked) == 1 else ask(method, path, *args)
    )
    assert run.undo().left == []


def test_an_owner_that_cannot_be_read_keeps_what_may_be_deleted_with_it_and_nothing_else(tmp_path):
    """Its conversion webhook is down; the claim, and its data, might be deleted with the Widget."""
    other = made("ConfigMap", "other", "else")
    run = Run(tmp_path, [SHOP, PRICES, made("Namespace", "else"), other], [SHOP, CRD, PARENT, made("Namespace", "else")])
    run.entries = [{"namespace": "shop"}, {"namespace": "else"}]
    run.recover()
    run.live.add(made("PersistentVolumeClaim", "new", "shop", metadata={"ownerReferences": [owner_of(run.live.find("Widget", "parent", "shop"))]}))
    run.live.unreadable = {("widgets.example.com", "v1"), ("widgets.example.com", "v1beta1")}
    found = both(run)
    assert found.undone == ["ConfigMap else/other"] and list(reasons(found)) == ["ConfigMap shop/prices"]
    assert reasons(found)["ConfigMap shop/prices"].startswith("stays: what depends on it is not known, since the API server at ")
    assert reasons(found)["ConfigMap shop/prices"].endswith("; run the undo again when it can be read")
    run.live.unreadable = set()
    assert both(run).left == []


def test_a_chain_of_owners_through_what_does_not_answer_is_not_taken_for_none(tmp_path):
    """The garbage collector would delete the claim, and its data, with the Widget."""
    run = Run(tmp_path, [SHOP, CRD, dict(PARENT, metadata={"name": "parent", "namespace": "shop"})], [SHOP, CRD])
    run.recover()
    inner = run.live.add(made("Deployment", "db", "shop", "apps/v1", metadata={"ownerReferences": [owner_of(run.live.find("Widget", "parent", "shop"))]}))
    run.live.add(made("PersistentVolumeClaim", "new", "shop", metadata={"ownerReferences": [owner_of(inner)]}))
    ask = silence(run.live, "/apis/apps/v1")
    words = "stays: whether PersistentVolumeClaim shop/new would be deleted with it is not known, since the API server does not serve /apis/apps/v1 now; "
    assert reasons(both(run)) == {"Widget shop/parent": words + "run the undo again when it does"}
    run.live._ask = ask
    assert "the claim shop/new and its data would be deleted with it" in reasons(both(run))["Widget shop/parent"]
    # what is not served at all owns nothing
    run.live.find("PersistentVolumeClaim", "new", "shop")["metadata"]["ownerReferences"] = [owned("Gadget", "gone", "gone.example.com/v1")]
    assert both(run).left == []


@pytest.mark.parametrize("kind", ["Namespace", "PersistentVolume"])
def test_the_owner_of_a_namespace_through_what_does_not_answer_stays(tmp_path, kind):
    run = Run(tmp_path, [SHOP, ROLE, BINDING], [SHOP])
    run.recover()
    run.live.add(made(kind, "new", metadata={"ownerReferences": [owned("Gadget", "away", "apps/v1")]}, spec={}))
    silence(run.live, "/apis/apps/v1")
    assert "whether %s new would be deleted with it is not known" % kind in reasons(both(run))["ClusterRole reader"]


def test_a_change_that_cannot_be_looked_at_stays_open(tmp_path):
    run = Run(tmp_path, [SHOP, WEB], [SHOP])
    answer = run.live._change

    def die(*args):
        answer(*args)
        raise Died

    run.live._change = die
    with pytest.raises(Died):
        run.recover()
    run.live._change, ask = answer, silence(run.live, "/apis/apps/v1")
    run.recover()
    run.live._ask = ask
    assert both(run).undone == ["Deployment shop/web"]


def test_a_version_that_is_not_served_any_more(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT], [SHOP])
    run.recover()
    run.live.resources = [one for one in run.live.resources if one[:2] != ("example.com", "v1")]
    assert "does not serve widgets.example.com in version v1 now" in reasons(both(run))["Widget shop/parent"]
    # with their definition, all objects are gone
    run.live.resources = [one for one in run.live.resources if one[0] != "example.com"]
    del run.live.objects[("customresourcedefinitions.apiextensions.k8s.io", "", "widgets.example.com")]
    assert run.undo().left == []


def test_a_definition_stays_while_its_group_does_not_answer(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT], [SHOP])
    run.recover()
    silence(run.live, "/apis/example.com/v1beta1")
    assert "its objects cannot be listed" in reasons(both(run))["CustomResourceDefinition widgets.example.com"]


def test_a_group_that_does_not_answer_for_a_moment_keeps_what_it_served():
    api = FakeApi()
    found = Resources(api)
    silence(api, "/apis/apps/v1")
    found.ask()
    assert found.silent == ["/apis/apps/v1"] and [one.version for one in found.versions("deployments.apps")] == ["v1"]


# -- Secrets in the record ------------------------------------------------------------------------------------------------


def test_the_record_has_nothing_of_the_values_of_secrets(tmp_path):
    run = Run(tmp_path, [SHOP, KEY], [SHOP, dict(KEY, data={"key": "b2xk"})])
    run.recover(overwrite=True)
    path = tmp_path / run.id / "journal"
    first, second = (one for one in map(json.loads, path.read_text().splitlines()) if "n" in one)
    assert "before" not in first and "wanted" not in first and second["done"] == ""
    (why,) = reasons(both(run)).values()
    assert why.startswith("stays: the record has no values of Secrets; recover the earlier ones with overwrite from a snapshot")
    assert run.live.find("Secret", "key", "shop")["data"] == KEY["data"]


def test_a_recovered_secret_that_another_has_changed_stays(tmp_path):
    run = Run(tmp_path, [SHOP, KEY], [SHOP])
    run.recover()
    entries = run.live.find("Secret", "key", "shop")["metadata"]["managedFields"]
    entries.append({"manager": "kubectl-edit", "operation": "Update"})
    assert reasons(both(run)) == {"Secret shop/key": "stays: it was changed since"}
    entries.pop()
    assert both(run).undone == ["Secret shop/key"]


def test_earlier_values_are_forgotten_once_they_are_back(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [SHOP, dict(PRICES, data={"apple": "an earlier one"})])
    run.recover(overwrite=True)
    path = tmp_path / run.id / "journal"
    assert "an earlier one" in path.read_text()
    assert both(run).undone == ["ConfigMap shop/prices"]
    assert "an earlier one" not in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    record = records.find(run.directory, run.id)
    assert record.finished and record.about["snapshot"] == "s" and run.undo().undone == []
