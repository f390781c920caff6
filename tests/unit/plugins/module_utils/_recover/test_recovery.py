# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bringing back and its undo, by two API servers in memory and a record on the disk."""

from __future__ import annotations

import json
import os
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import change, record as records
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.apply import Recovery
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import DIFFERENT, Plan
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import parse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.undo import Undo
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.fake_api import CRD, FakeApi, made, owned

SHOP = made("Namespace", "shop", metadata={"labels": {"team": "a"}}, spec={"finalizers": ["kubernetes"]})
PRICES = made("ConfigMap", "prices", "shop", data={"apple": "1"})
KEY = made("Secret", "key", "shop", type="Opaque", data={"key": "czNjcmV0"})
PARENT = made("Widget", "parent", "shop", "example.com/v1", metadata={"finalizers": ["example.com/guard"]}, spec={"size": 1})
CHILD = made("Widget", "child", "shop", "example.com/v1", metadata={"ownerReferences": [owned("Widget", "parent", "example.com/v1")]})
CONFIG = made("ConfigMap", "config", "shop", metadata={"ownerReferences": [owned("Widget", "parent", "example.com/v1", True)]})
VOLUME = made("PersistentVolume", "disk", spec={"claimRef": {"namespace": "shop", "name": "data", "uid": "gone", "resourceVersion": "7"}})
CLAIM = made("PersistentVolumeClaim", "data", "shop", spec={"volumeName": "disk"})
FAKE = types.SimpleNamespace(id="configmaps", version="v1", kind="ConfigMap")
OWNED_CLAIM = made("PersistentVolumeClaim", "scratch", "shop", spec={}, metadata={"ownerReferences": [owned("Widget", "parent", "example.com/v1", True)]})
ALL = (SHOP, PRICES, KEY, CRD, PARENT, CHILD, CONFIG)


class Died(BaseException):
    """SIGKILL."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(change, "_INTERVAL", 0.01)


class Run:
    """Recover and undo on the same two servers."""

    def __init__(self, directory, snapshot, live):
        self.directory = str(directory)
        self.snapshot, self.live = FakeApi(*snapshot), live if isinstance(live, FakeApi) else FakeApi(*live)
        self.entries = [{"namespace": "shop"}]
        self.id = None

    def recover(self, overwrite=False):
        plan = Plan(self.snapshot, self.live, parse(self.entries)).make()
        about = {"snapshot": "s", "selection": self.entries, "overwrite": overwrite}
        with records.unfinished(self.directory, about) or records.Record.create(self.directory, about) as record:
            self.id = record.id
            run = Recovery(plan, record, overwrite, 5)
            run.writer.patience = 0.05
            run.run()
        return run

    def rehearse(self, overwrite=False):
        plan = Plan(self.snapshot, self.live, parse(self.entries)).make()
        run = Recovery(plan, None, overwrite, 5)
        run.rehearse()
        return plan, run

    def undo(self, check=False):
        with records.find(self.directory, self.id) as record:
            run = Undo(self.live, record, 0.2, check)
            run.run()
        return run

    def content(self):
        """The live cluster without what the server counts."""
        found = {}
        for key, one in self.live.objects.items():
            metadata = {name: value for name, value in one["metadata"].items() if name not in ("resourceVersion", "managedFields")}
            found[key] = dict(one, metadata=metadata)
        return json.loads(json.dumps(found_by(found)))


def found_by(found):
    return {"/".join(key): one for key, one in found.items()}


# -- recovering -----------------------------------------------------------------------------------------------------


def test_everything_comes_back_once(tmp_path):
    run = Run(tmp_path, ALL, [])
    first = run.recover()
    assert (first.created, first.failed) == (
        [
            *("CustomResourceDefinition widgets.example.com", "Namespace shop", "Secret shop/key", "ConfigMap shop/config", "ConfigMap shop/prices"),
            *("Widget shop/parent", "Widget shop/child"),
        ],
        [],
    )
    parent, child, config = (run.live.find(*one, "shop") for one in (("Widget", "parent"), ("Widget", "child"), ("ConfigMap", "config")))
    assert parent["metadata"]["uid"] != PARENT["metadata"]["uid"] and parent["metadata"]["finalizers"] == ["example.com/guard"]
    for one in (child, config):
        assert [owner["uid"] for owner in one["metadata"]["ownerReferences"]] == [parent["metadata"]["uid"]]
    assert run.live.find("Secret", "key", "shop")["data"] == KEY["data"]
    before = run.content()
    again = run.recover()
    assert (again.created, again.overwritten, again.failed) == ([], [], [])
    assert run.content() == before
    assert records.names(run.directory) == [name for name in records.names(run.directory) if name != run.id]


def test_different_objects_stay_unless_they_are_overwritten(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [SHOP])
    run.live.add(dict(PRICES, data={"apple": "2", "pear": "3"}), finalizers=["kubernetes.io/own", "foregroundDeletion"])
    before = run.content()
    assert run.recover().overwritten == [] and run.content() == before
    assert run.recover(overwrite=True).overwritten == ["ConfigMap shop/prices"]
    assert run.live.find("ConfigMap", "prices", "shop")["data"] == {"apple": "1"}
    assert run.recover(overwrite=True).overwritten == []


def test_overwriting_keeps_the_finalizers_that_controllers_have_put_on_since(tmp_path):
    wanted = dict(PRICES, metadata=dict(PRICES["metadata"], finalizers=["example.com/guard"]))
    run = Run(tmp_path, [SHOP, wanted], [SHOP])
    run.live.add(PRICES, finalizers=["example.com/attached", "foregroundDeletion"])
    assert run.recover(overwrite=True).overwritten == ["ConfigMap shop/prices"]
    finalizers = ["foregroundDeletion", "example.com/attached", "example.com/guard"]
    assert run.live.find("ConfigMap", "prices", "shop")["metadata"]["finalizers"] == finalizers
    # and where it is only that, nothing differs
    assert run.recover(overwrite=True).overwritten == []
    assert Plan(run.snapshot, run.live, parse(run.entries)).make().of(DIFFERENT) == []


def test_the_content_of_one_version_is_sent_as_that_version(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT], [])
    run.snapshot.unreadable = {("widgets.example.com", "v1")}
    assert run.recover().failed == []
    assert run.live.objects[("widgets.example.com", "shop", "parent")]["apiVersion"] == "example.com/v1beta1"


def test_owners_that_are_not_there_are_left_out(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, CONFIG], [SHOP, CRD])
    run.recover()
    assert "ownerReferences" not in run.live.find("ConfigMap", "config", "shop")["metadata"]


def test_a_claim_comes_before_its_owner_and_gets_it_afterwards(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT, OWNED_CLAIM], [made("Namespace", "default")])
    before = run.content()
    found = run.recover()
    assert found.created[2:] == ["PersistentVolumeClaim shop/scratch", "Widget shop/parent"] and found.failed == []
    (owner,) = run.live.find("PersistentVolumeClaim", "scratch", "shop")["metadata"]["ownerReferences"]
    assert owner["uid"] == run.live.find("Widget", "parent", "shop")["metadata"]["uid"]
    identifier = run.id
    assert run.recover(overwrite=True).overwritten == []
    run.id = identifier
    assert run.undo().left == [] and run.content() == before


def test_a_secret_comes_before_its_owner_which_would_make_another_one(tmp_path):
    """An operator that lives elsewhere makes a new password at once where it finds no Secret."""
    secret = made("Secret", "password", "shop", data={"a": "old"}, metadata={"ownerReferences": [owned("Widget", "parent", "example.com/v1", True)]})
    run = Run(tmp_path, [SHOP, CRD, PARENT, secret], [SHOP, CRD])
    before = run.content()

    def operator(_method, key, _dry):
        if key[0] == "widgets.example.com" and not run.live.find("Secret", "password", "shop"):
            run.live.add(dict(secret, data={"a": "new"}))

    run.live.before_change = operator
    assert run.recover().failed == []
    found = run.live.find("Secret", "password", "shop")
    assert found["data"] == {"a": "old"}
    assert [one["uid"] for one in found["metadata"]["ownerReferences"]] == [run.live.find("Widget", "parent", "shop")["metadata"]["uid"]]
    assert run.undo().left == [] and run.content() == before


def test_a_claim_that_something_else_owns_meanwhile_keeps_that_owner(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT, OWNED_CLAIM], [SHOP, CRD])
    other = [dict(owned("Pod", "other"), uid="other")]

    def adopt(_method, key, _dry):
        if key[0] == "widgets.example.com":
            run.live.find("PersistentVolumeClaim", "scratch", "shop")["metadata"]["ownerReferences"] = other

    run.live.before_change = adopt
    assert run.recover().failed == []
    assert run.live.find("PersistentVolumeClaim", "scratch", "shop")["metadata"]["ownerReferences"] == other


def test_a_claim_that_is_bound_while_it_gets_its_owner(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT, OWNED_CLAIM], [SHOP, CRD])
    moments = [True, True]

    def bind(_method, key, _dry):
        if _method == "PATCH" and moments and moments.pop():
            run.live.add(dict(run.live.objects[key], status={"phase": "Bound"}))

    run.live.before_change = bind
    assert run.recover().failed == []
    assert run.live.find("PersistentVolumeClaim", "scratch", "shop")["metadata"]["ownerReferences"] and moments == []


def test_a_claim_that_was_bound_meanwhile_gets_its_owner_and_stays_at_an_undo(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT, OWNED_CLAIM], [SHOP, CRD])

    def bind(_method, key, _dry):
        if key[0] == "widgets.example.com":
            run.live.find("PersistentVolumeClaim", "scratch", "shop")["spec"]["volumeName"] = "new"

    run.live.before_change = bind
    run.recover()
    assert run.live.find("PersistentVolumeClaim", "scratch", "shop")["metadata"]["ownerReferences"]
    assert run.undo().left == [
        {"object": "Widget shop/parent", "reason": "stays: the claim shop/scratch would be deleted with it, which stays: it was changed since"},
        {"object": "PersistentVolumeClaim shop/scratch", "reason": "stays: it was changed since"},
    ]


def test_a_volume_is_given_to_the_claim_that_comes_back(tmp_path):
    run = Run(tmp_path, [SHOP, VOLUME, CLAIM], [SHOP, VOLUME])
    found = run.recover()
    assert (found.rebound, found.created) == (["PersistentVolume disk"], ["PersistentVolumeClaim shop/data"])
    assert run.live.find("PersistentVolume", "disk")["spec"]["claimRef"] == {"namespace": "shop", "name": "data"}
    # as the controller binds it
    claim = run.live.find("PersistentVolumeClaim", "data", "shop")
    run.live.find("PersistentVolume", "disk")["spec"]["claimRef"].update(uid=claim["metadata"]["uid"], resourceVersion="9")
    assert run.undo().undone == ["PersistentVolumeClaim shop/data", "PersistentVolume disk"]
    assert run.live.find("PersistentVolume", "disk")["spec"]["claimRef"] == VOLUME["spec"]["claimRef"]


def test_a_volume_is_given_away_only_with_its_claim(tmp_path):
    run = Run(tmp_path, [SHOP, VOLUME, CLAIM], [SHOP, VOLUME])
    plan = Plan(run.snapshot, run.live, parse(run.entries)).make()
    run.live.find("PersistentVolume", "disk")["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    with records.Record.create(run.directory, {}) as record:
        found = Recovery(plan, record, False, 5)
        found.run()
    assert (found.rebound, found.created) == ([], []) and "reclaim policy Delete" in found.failed[0]["reason"]
    assert run.live.changes == 0


def test_a_volume_comes_back_without_danger_for_its_data(tmp_path):
    deleting = dict(VOLUME, spec=dict(VOLUME["spec"], persistentVolumeReclaimPolicy="Delete"))
    run = Run(tmp_path, [deleting], [SHOP, CLAIM])
    run.entries = [{"kind": "PersistentVolume"}]
    assert run.recover().created == ["PersistentVolume disk"]
    uid = run.live.find("PersistentVolumeClaim", "data", "shop")["metadata"]["uid"]
    assert run.live.find("PersistentVolume", "disk")["spec"] == {
        "claimRef": {"namespace": "shop", "name": "data", "uid": uid},
        "persistentVolumeReclaimPolicy": "Retain",
    }
    assert run.recover(overwrite=True).overwritten == []


def test_overwriting_a_volume_keeps_its_claim_and_its_policy(tmp_path):
    spec = {"claimRef": {"namespace": "new", "name": "data2", "uid": "1"}, "persistentVolumeReclaimPolicy": "Retain", "mountOptions": ["b"]}
    deleting = dict(VOLUME, spec=dict(VOLUME["spec"], persistentVolumeReclaimPolicy="Delete", mountOptions=["a"]))
    run = Run(tmp_path, [deleting], [SHOP, dict(VOLUME, spec=spec)])
    run.entries = [{"kind": "PersistentVolume"}]
    assert run.recover(overwrite=True).overwritten == ["PersistentVolume disk"]
    assert run.live.find("PersistentVolume", "disk")["spec"] == dict(spec, mountOptions=["a"])


def test_addresses_of_a_service_that_are_taken(tmp_path):
    service = made("Service", "web", "shop", spec={"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "nodePort": 30080}]})
    run = Run(tmp_path, [SHOP, service], [SHOP])
    key = ("services", "shop", "web")
    causes = [{"field": "spec.clusterIPs"}, {"field": "spec.ports[0].nodePort"}]
    run.live.refuse(*key, 422, "failed to allocate IP 10.96.0.9: provided IP is already allocated", causes)
    refused = run.live.refusals[key]
    run.live.before_change = lambda *_args: run.live.refusals.pop(key, None) if attempts.pop(0) else None
    attempts = [False, True]
    found = run.recover()
    assert found.created == ["Service shop/web"] and refused
    assert found.warnings == ["Service shop/web gets another ClusterIP (10.96.0.9) and nodePort (30080): its own is taken"]
    assert run.live.find("Service", "web", "shop")["spec"] == {"ports": [{"port": 80}]}


def test_the_port_of_the_health_check_is_taken(tmp_path):
    """The API server names no field then (1.34.4 to 1.37.2: pkg/registry/core/service/storage/alloc.go)."""
    spec = {"type": "LoadBalancer", "healthCheckNodePort": 31000, "ports": [{"port": 80}]}
    run = Run(tmp_path, [SHOP, made("Service", "web", "shop", spec=spec)], [SHOP])
    key = ("services", "shop", "web")
    run.live.refuse(*key, 500, "Internal error occurred: failed to allocate requested HealthCheck NodePort 31000: provided port is already allocated")
    run.live.before_change = lambda *_args: run.live.refusals.pop(key, None) if attempts.pop(0) else None
    attempts = [False, True]
    found = run.recover()
    assert (found.created, found.failed) == (["Service shop/web"], [])
    assert found.warnings == ["Service shop/web gets another healthCheckNodePort (31000): its own is taken"]


SENTENCES = [
    (403, 'secrets "key" is forbidden: exceeded quota: few, requested: 1, used: 3, limited: 3', "is refused by a quota; raise it, or make room"),
    (403, "unable to create new content in namespace shop because it is being terminated", "its namespace is being deleted"),
    (500, 'Internal error occurred: failed calling webhook "check.example.com": no endpoints', "the webhook check.example.com does not answer"),
    (400, 'admission webhook "check.example.com" denied the request: no', "is refused by the webhook check.example.com: no"),
    (409, "Apply failed with 1 conflict", "was changed by something else meanwhile; run this again"),
    (422, "Secret is invalid: data: field is immutable when `immutable` is set", "cannot be overwritten, since"),
    (422, "spec.x: Invalid value", "is refused (422): spec.x: Invalid value"),
]


@pytest.mark.parametrize(("status", "message", "words"), SENTENCES)
def test_a_refusal_is_a_sentence_and_the_others_come_back(tmp_path, status, message, words):
    run = Run(tmp_path, [SHOP, PRICES, KEY], [])
    run.live.refuse("secrets", "shop", "key", status, message)
    found = run.recover()
    assert found.created == ["Namespace shop", "ConfigMap shop/prices"]
    ((failed),) = found.failed
    assert failed["object"] == "Secret shop/key" and words in failed["reason"]
    # once it is allowed, only that one is missing
    run.live.refusals.clear()
    assert run.recover().created == ["Secret shop/key"]


# of a roleRef: Kubernetes 1.34 to 1.36, and 1.37
@pytest.mark.parametrize("message", ["Invalid value: {}: cannot change roleRef", "Invalid value: {}: field is immutable"])
def test_an_immutable_field_is_named(tmp_path, message):
    binding = made("RoleBinding", "b", "shop", "rbac.authorization.k8s.io/v1", roleRef={"kind": "ClusterRole", "name": "a"})
    run = Run(tmp_path, [SHOP, binding], [SHOP, dict(binding, roleRef={"kind": "ClusterRole", "name": "b"})])
    causes = [{"field": "roleRef", "message": message}]
    run.live.refuse("rolebindings.rbac.authorization.k8s.io", "shop", "b", 422, "invalid", causes)
    plan, dummy = run.rehearse(overwrite=True)
    assert [item.reason for item in plan.of("blocked")] == ["cannot be overwritten, since roleRef cannot be changed; delete the live object and run this again"]


def test_a_look_changes_nothing_and_tells_what_would_be_refused(tmp_path):
    run = Run(tmp_path / "records", [SHOP, PRICES, KEY], [SHOP])
    run.live.refuse("secrets", "shop", "key", 403, "exceeded quota: few")
    run.live.refuse("configmaps", "shop", "prices", 400, 'admission webhook "x" does not support dry run')
    plan, dummy = run.rehearse()
    assert [str(item) for item in plan.of("blocked")] == ["Secret shop/key"]
    assert run.live.changes == 0 and not (tmp_path / "records").exists()


def test_what_mounts_a_claim_that_is_refused_waits_for_it(tmp_path):
    volumes = [{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}]
    web = made("Deployment", "web", "shop", "apps/v1", spec={"template": {"spec": {"volumes": volumes}}})
    run = Run(tmp_path, [SHOP, VOLUME, CLAIM, web], [SHOP])
    run.live.refuse("persistentvolumeclaims", "shop", "data", 403, "exceeded quota: few")
    plan, dummy = run.rehearse()
    blocked = [str(item) for item in plan.of("blocked")]
    found = run.recover()
    assert blocked == [one["object"] for one in found.failed] == ["PersistentVolumeClaim shop/data", "Deployment shop/web"]
    assert "its claim data cannot, and it must not start without its data" in found.failed[1]["reason"]
    assert found.created == ["PersistentVolume disk"] and run.live.find("Deployment", "web", "shop") is None
    run.live.refusals.clear()
    assert run.recover().created == ["PersistentVolumeClaim shop/data", "Deployment shop/web"]
    # and the claim for its volume
    run = Run(tmp_path / "volume", [SHOP, VOLUME, CLAIM, web], [SHOP])
    run.live.refuse("persistentvolumes", "", "disk", 403, "no")
    assert [one["object"] for one in run.recover().failed] == ["PersistentVolume disk", "PersistentVolumeClaim shop/data", "Deployment shop/web"]


def test_what_a_refused_owner_owns_waits_for_it(tmp_path):
    """Without its owner it would never get one, and stand in the way of what that makes."""
    of_parent = {"ownerReferences": [owned("Widget", "parent", "example.com/v1", True)]}
    web = made("Deployment", "web", "shop", "apps/v1", spec={"template": {"spec": {}}}, metadata=of_parent)
    of_both = {"ownerReferences": [*of_parent["ownerReferences"], owned("Widget", "other", "example.com/v1")]}
    shared, other = made("Service", "both", "shop", spec={}, metadata=of_both), made("Widget", "other", "shop", "example.com/v1")
    run = Run(tmp_path, [SHOP, CRD, PARENT, web, shared, other, OWNED_CLAIM], [SHOP, CRD])
    run.live.refuse("widgets.example.com", "shop", "parent", 500, 'failed calling webhook "check.example.com": no endpoints')
    plan, dummy = run.rehearse()
    assert [str(item) for item in plan.of("blocked")] == ["Widget shop/parent", "Deployment shop/web"]
    found = run.recover()
    assert [one["object"] for one in found.failed] == ["Widget shop/parent", "Deployment shop/web"]
    assert found.failed[1]["reason"].startswith("cannot be recovered: it belongs to Widget shop/parent, which cannot; run this again when that is solved")
    assert found.created == ["PersistentVolumeClaim shop/scratch", "Widget shop/other", "Service shop/both"]
    run.live.refusals.clear()
    assert run.recover().created == ["Widget shop/parent", "Deployment shop/web"]
    owner = run.live.find("Deployment", "web", "shop")["metadata"]["ownerReferences"][0]
    assert owner["uid"] == run.live.find("Widget", "parent", "shop")["metadata"]["uid"]


def test_an_owner_that_cannot_be_read_holds_up_only_what_it_owns(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT, CONFIG, PRICES], [SHOP, CRD, PARENT])
    config = dict(CONFIG, metadata=dict(CONFIG["metadata"], ownerReferences=[owned("Widget", "parent", "example.com/v1")]))
    run.snapshot.add(config)
    run.live.unreadable = {("widgets.example.com", "v1"), ("widgets.example.com", "v1beta1")}
    plan, dummy = run.rehearse()
    assert [str(item) for item in plan.of("blocked")] == ["ConfigMap shop/config"]
    found = run.recover()
    assert found.created == ["ConfigMap shop/prices"]
    assert found.failed[0]["reason"].startswith("cannot be recovered now: its owner Widget parent cannot be read: ")


def test_what_is_refused_for_a_moment_is_tried_again(tmp_path):
    run = Run(tmp_path, [SHOP, KEY], [])
    run.live.refuse("secrets", "shop", "key", 403, "status unknown for quota: few")
    attempts = [False, False, True]
    run.live.before_change = lambda _method, key, _dry: run.live.refusals.clear() if key[0] == "secrets" and attempts.pop(0) else None
    assert run.recover().failed == []


def test_what_something_else_makes_meanwhile_stays_as_it_is(tmp_path):
    run = Run(tmp_path, [SHOP, KEY], [SHOP])
    other = dict(KEY, data={"other": "b3RoZXI="})
    run.live.before_change = lambda _method, key, _dry: run.live.add(other, uid="other")
    found = run.recover()
    assert found.created == [] and [one["reason"] for one in found.failed] == [
        "was made by something else meanwhile, and stays as it is; run this again to compare it"
    ]
    assert run.live.find("Secret", "key", "shop")["data"] == other["data"]
    assert (run.undo().undone, run.undo().left) == ([], [])


def test_what_a_controller_makes_meanwhile_as_it_was_is_no_failure(tmp_path):
    account = made("ServiceAccount", "default", "shop", imagePullSecrets=[{"name": "registry"}])
    run = Run(tmp_path, [SHOP, PRICES, account], [SHOP])

    def faster(method, key, _dry):
        if method == "POST" and key not in run.live.objects:
            run.live.add(PRICES if key[0] == "configmaps" else made("ServiceAccount", "default", "shop"), uid="controller")

    run.live.before_change = faster
    found = run.recover()
    assert (found.created, found.overwritten, found.failed) == ([], ["ServiceAccount shop/default"], [])
    assert run.live.find("ServiceAccount", "default", "shop")["imagePullSecrets"] == [{"name": "registry"}]


def test_a_creation_of_which_the_answer_was_lost_is_our_own(tmp_path):
    run = Run(tmp_path, [SHOP, KEY], [SHOP])
    original = run.live._change
    run.live._change = lambda *args: (original(*args), original(*args))[1]
    found = run.recover()
    assert (found.created, found.failed) == (["Secret shop/key"], [])
    run.live._change = original
    assert run.undo().undone == ["Secret shop/key"]


@pytest.mark.parametrize("before", [PRICES, KEY], ids=["ConfigMap", "Secret"])
def test_an_overwrite_of_which_the_answer_was_lost_is_our_own(tmp_path, before):
    run = Run(tmp_path, [SHOP, before], [SHOP, dict(before, data={"other": "Yg=="})])
    name = "%s shop/%s" % (before["kind"], before["metadata"]["name"])

    def lost(_method, _key, _dry):
        # it was made, and is sent once more
        live = run.live.find(before["kind"], before["metadata"]["name"], "shop")
        if live["data"] != before["data"]:
            run.live.add(dict(live, data=before["data"]), managedFields=[{"manager": "k8s-dr-recover"}])

    run.live.before_change = lost
    found = run.recover(overwrite=True)
    assert (found.overwritten, found.failed) == ([name], [])
    run.live.before_change = lambda *_args: None
    if before is PRICES:
        assert run.undo().undone == [name] and run.live.find("ConfigMap", "prices", "shop")["data"] == {"other": "Yg=="}


def test_text_of_any_characters_is_sent_as_json(tmp_path):
    """Of YAML the API server refuses the escapes of characters above U+FFFF."""
    run = Run(tmp_path, [SHOP, dict(PRICES, data={"face": "\U0001f600"})], [SHOP])
    types, original = [], run.live._change
    run.live._change = lambda *args: (types.append((args[0], args[4])), original(*args))[1]
    assert run.recover().failed == [] and types == [("POST", "application/json")]


def test_an_api_server_that_does_not_answer_ends_the_run(tmp_path, monkeypatch):
    run = Run(tmp_path, [SHOP, PRICES, KEY], [])

    def gone(_method, key, _dry):
        if key[0] == "configmaps":
            raise KubeError("the API server does not answer")

    run.live.before_change = gone
    with pytest.raises(KubeError):
        run.recover()
    identifier = run.id
    run.live.before_change = lambda *_args: None
    assert run.recover().created == ["ConfigMap shop/prices"] and run.id == identifier


def test_the_default_account_that_a_controller_has_just_made_gets_what_it_had(tmp_path):
    account = made("ServiceAccount", "default", "shop", imagePullSecrets=[{"name": "registry"}])
    run = Run(tmp_path, [SHOP, account], [])

    plan = Plan(run.snapshot, run.live, parse(run.entries)).make()
    run.live.add(SHOP)
    run.live.add(made("ServiceAccount", "default", "shop"))
    with records.Record.create(run.directory, {}) as record:
        found = Recovery(plan, record, False, 5)
        found.run()
    assert "ServiceAccount shop/default" in found.overwritten
    assert run.live.find("ServiceAccount", "default", "shop")["imagePullSecrets"] == [{"name": "registry"}]


def test_the_default_account_goes_with_its_namespace(tmp_path):
    """A controller makes it at the same moment, and again when it is deleted."""
    run = Run(tmp_path, [SHOP, made("ServiceAccount", "default", "shop", imagePullSecrets=[{"name": "registry"}])], [])

    def controller(_method, key, _dry):
        if key == ("serviceaccounts", "shop", "default") and key not in run.live.objects:
            run.live.add(made("ServiceAccount", "default", "shop"))

    run.live.before_change = controller
    assert run.recover().failed == []
    assert run.live.find("ServiceAccount", "default", "shop")["imagePullSecrets"] == [{"name": "registry"}]
    found = run.undo()
    assert (found.undone, found.left) == (["ServiceAccount shop/default", "Namespace shop"], [])


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", range(1, 19))
def test_a_killed_run_is_continued_and_undone_as_one(tmp_path, moment):
    """Killed before or after each change reached the server."""
    run = Run(tmp_path, [*ALL, VOLUME, CLAIM, OWNED_CLAIM], [VOLUME, made("Namespace", "default")])
    before = run.content()
    left = [moment]
    original = run.live._change

    def mortal(*args):
        left[0] -= 1
        if left[0] == 0:
            raise Died
        answer = original(*args)
        left[0] -= 1
        if left[0] == 0:
            raise Died
        return answer

    run.live._change = mortal
    with pytest.raises(Died):
        run.recover()
    identifier = run.id
    left[0] = -1
    assert run.recover().failed == [] and run.id == identifier
    run.live._change = original
    assert run.recover().created == []
    run.id = identifier
    assert run.undo().left == []
    assert run.content() == before


def interrupt(run):
    """Have the run die after the server has made its next change; the function that ends that."""
    original = run.live._change

    def die(*args):
        original(*args)
        raise Died

    run.live._change = die
    with pytest.raises(Died):
        run.recover()
    run.live._change = original


def test_what_was_changed_after_the_interruption_is_not_taken_for_our_own(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [SHOP])
    interrupt(run)
    run.live.find("ConfigMap", "prices", "shop")["data"]["apple"] = "by an operator"
    assert run.recover().failed == []
    why = "stays: it is not as it was sent, so something else may have changed it"
    assert run.undo().left == [{"object": "ConfigMap shop/prices", "reason": why}]
    assert run.live.find("ConfigMap", "prices", "shop")["data"] == {"apple": "by an operator"}
    # it is as it was sent again
    run.live.find("ConfigMap", "prices", "shop")["data"]["apple"] = "1"
    assert run.undo().undone == ["ConfigMap shop/prices"]


def test_what_was_made_again_after_the_interruption_is_not_undone(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [SHOP])
    interrupt(run)
    run.live.find("ConfigMap", "prices", "shop")["data"]["apple"] = "by an operator"
    run.recover()
    run.live.add(PRICES, uid="another")
    assert run.undo().left == [{"object": "ConfigMap shop/prices", "reason": "stays: it was deleted and made again since"}]


def test_a_claim_that_was_changed_after_the_interruption_gets_its_owner_and_stays_at_an_undo(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT, OWNED_CLAIM], [SHOP, CRD])
    interrupt(run)
    run.live.find("PersistentVolumeClaim", "scratch", "shop")["spec"]["volumeName"] = "new"
    assert run.recover().failed == []
    assert run.live.find("PersistentVolumeClaim", "scratch", "shop")["metadata"]["ownerReferences"]
    assert [one["object"] for one in run.undo().left] == ["Widget shop/parent", "PersistentVolumeClaim shop/scratch"]


def test_what_was_changed_before_the_lost_answer_is_not_taken_for_our_own(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [SHOP])
    original = run.live._change

    def changed_and_lost(*args):
        if run.live.find("ConfigMap", "prices", "shop") is None:
            original(*args)
            run.live.find("ConfigMap", "prices", "shop")["data"]["apple"] = "by an operator"
        return original(*args)

    run.live._change = changed_and_lost
    assert run.recover().created == ["ConfigMap shop/prices"]
    run.live._change = original
    assert [one["object"] for one in run.undo().left] == ["ConfigMap shop/prices"]


def test_another_selection_is_another_run(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [])
    run.live.before_change = lambda _method, key, _dry: (_ for _ in ()).throw(KubeError("away")) if key[0] == "configmaps" else None
    with pytest.raises(KubeError):
        run.recover()
    first, run.entries = run.id, [{"namespace": "shop"}, {"kind": "ConfigMap"}]
    run.live.before_change = lambda *_args: None
    run.recover()
    assert run.id != first


# -- undo --------------------------------------------------------------------------------------------------------------


def test_undo_takes_all_back(tmp_path):
    run = Run(tmp_path, ALL, [made("Namespace", "default")])
    before = run.content()
    run.recover()
    would = run.undo(check=True)
    assert run.undo().undone == would.undone and len(would.undone) == 7
    assert run.content() == before
    assert run.undo().undone == []


def test_undo_of_an_overwritten_object(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES, KEY], [SHOP, KEY])
    run.live.add(dict(PRICES, data={"apple": "2", "pear": "3"}))
    before = run.content()
    run.recover(overwrite=True)
    assert run.undo().undone == ["ConfigMap shop/prices"]
    assert run.content() == before


def test_what_was_changed_since_stays(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES, KEY], [made("Namespace", "default")])
    run.recover()
    run.live.add(dict(PRICES, data={"apple": "9"}), uid=run.live.find("ConfigMap", "prices", "shop")["metadata"]["uid"])
    found = run.undo()
    assert found.undone == ["Secret shop/key"]
    assert found.left == [
        {"object": "ConfigMap shop/prices", "reason": "stays: it was changed since"},
        {"object": "Namespace shop", "reason": "stays: it holds ConfigMap prices, which this run did not recover or did not undo"},
    ]


def test_what_was_made_again_since_stays(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [SHOP])
    run.recover()
    run.live.add(PRICES, uid="another")
    assert run.undo().left == [{"object": "ConfigMap shop/prices", "reason": "stays: it was deleted and made again since"}]


def test_a_secret_that_a_later_run_has_overwritten_stays(tmp_path):
    run = Run(tmp_path, [SHOP, KEY], [SHOP])
    run.recover()
    first = run.id
    run.snapshot.add(dict(KEY, data={"password": "other"}))
    run.entries = [{"namespace": "shop", "kind": "Secret"}]
    assert run.recover(overwrite=True).overwritten == ["Secret shop/key"]
    run.id = first
    assert run.undo().left == [{"object": "Secret shop/key", "reason": "stays: it was changed since"}]


def test_a_status_that_changes_is_no_change(tmp_path):
    service = made("Service", "web", "shop", spec={"ports": []})
    run = Run(tmp_path, [SHOP, service], [SHOP])
    run.recover()

    def controller(method, key, _dry):
        if method == "DELETE" and "status" not in run.live.objects[key]:
            run.live.add(dict(run.live.objects[key], status={"loadBalancer": {}}))

    run.live.before_change = controller
    assert run.undo().undone == ["Service shop/web"]


def test_a_namespace_stays_with_what_others_have_made_in_it(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [])
    run.recover()
    run.live.add(made("ConfigMap", "kube-root-ca.crt", "shop"))
    run.live.add(made("ServiceAccount", "default", "shop"))
    run.live.add(made("ConfigMap", "new", "shop"))
    assert [one["object"] for one in run.undo().left] == ["Namespace shop"]
    del run.live.objects[("configmaps", "shop", "new")]
    assert run.undo().undone == ["Namespace shop"]


def test_a_definition_stays_while_there_are_objects_of_it(tmp_path):
    run = Run(tmp_path, [SHOP, CRD, PARENT], [SHOP])
    run.recover()
    run.live.add(dict(CHILD, metadata={"name": "other", "namespace": "shop"}))
    assert [one["object"] for one in run.undo().left] == ["CustomResourceDefinition widgets.example.com"]


def test_what_does_not_go_is_named(tmp_path):
    run = Run(tmp_path, [SHOP], [])
    run.recover()
    run.live.stays.add(("namespaces", "", "shop"))
    (left,) = run.undo().left
    assert "was deleted, and is still there after" in left["reason"]


def test_undo_deletes_no_data(tmp_path):
    policy = {"persistentVolumeReclaimPolicy": "Delete"}
    run = Run(tmp_path / "a", [SHOP, dict(VOLUME, spec=dict(VOLUME["spec"], **policy)), CLAIM], [SHOP])
    run.recover()
    seen = []

    def watch(method, key, _dry):
        if method == "DELETE" and key[0] == "persistentvolumeclaims":
            seen.append(run.live.find("PersistentVolume", "disk")["spec"]["persistentVolumeReclaimPolicy"])

    run.live.before_change = watch
    assert run.undo().left == [] and seen == ["Retain"]
    run = Run(tmp_path / "b", [SHOP, VOLUME, CLAIM], [SHOP, VOLUME])
    run.recover()
    run.live.find("PersistentVolume", "disk")["spec"].update(policy)
    assert "the volume disk of the claim shop/data has the reclaim policy Delete" in run.undo().left[0]["reason"]


# -- the record --------------------------------------------------------------------------------------------------------


def test_a_record_is_private_and_has_no_value_of_a_secret_that_was_created(tmp_path):
    run = Run(tmp_path, [SHOP, KEY], [])
    run.recover()
    path = tmp_path / run.id / "journal"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert KEY["data"]["key"] not in path.read_text()


def test_nothing_is_written_where_nothing_is_changed(tmp_path):
    Run(tmp_path, [SHOP], [SHOP]).recover()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_cut_off_is_not_read(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [])
    run.recover()
    path = tmp_path / run.id / "journal"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-2][:20])
    record = records.find(run.directory, run.id)
    assert [one.get("done") is None for one in record.changes] == [False, True]
    with record:
        record.finish()
    assert records.find(run.directory, run.id).finished


def test_records_are_found_and_pruned(tmp_path):
    for number in range(3):
        with records.Record(str(tmp_path), "2026010%dT000000Z-0000" % number) as record:
            record.about = {"id": number}
            record.write({"finished": "x"})
    with pytest.raises(Refused, match=r"there is no record x in .*; there are: 20260100T000000Z-0000, "):
        records.find(str(tmp_path), "x")
    records.prune(str(tmp_path), 0)
    assert len(records.names(str(tmp_path))) == 3
    records.prune(str(tmp_path), 1)
    assert records.names(str(tmp_path)) == ["20260102T000000Z-0000"]


def test_the_record_of_the_run_itself_is_never_removed(tmp_path):
    for number in range(3):
        with records.Record(str(tmp_path), "2026010%dT000000Z-0000" % number) as record:
            record.write({"finished": "x"})
    records.prune(str(tmp_path), 1, "20260100T000000Z-0000")
    assert records.names(str(tmp_path)) == ["20260100T000000Z-0000", "20260102T000000Z-0000"]


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    run = Run(tmp_path, [SHOP, PRICES, KEY], [])
    write, left = os.write, [3]

    def full(descriptor, text):
        left[0] -= 1
        return write(descriptor, text if left[0] > 0 else text[:20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        run.recover()
    monkeypatch.setattr(os, "write", write)
    path = tmp_path / run.id / "journal"
    assert all(json.loads(line) for line in path.read_text().splitlines()) and path.read_text().endswith("\n")
    identifier = run.id
    assert run.recover().created and run.id == identifier
    assert run.undo().left == [] and run.live.objects == {}


def test_a_line_that_cannot_be_read_hides_no_later_change(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES, KEY], [SHOP])
    run.recover()
    path = tmp_path / run.id / "journal"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:20] + "\n", *lines[2:]]))
    record = records.find(run.directory, run.id)
    assert [one["name"] for one in record.changes] == ["prices"]
    with record:
        assert record.begin("create", types.SimpleNamespace(here=None, there=FAKE, namespace="shop", name="x")) == 2


def test_a_change_that_was_made_in_spite_of_an_error_is_settled_before_the_end(tmp_path):
    run = Run(tmp_path, [SHOP, PRICES], [SHOP])
    answer = run.live._change

    def fails(*args):
        answer(*args)
        return 500, {"message": "etcdserver: request timed out", "details": {}}

    run.live._change = fails
    assert [one["object"] for one in run.recover().failed] == ["ConfigMap shop/prices"]
    run.live._change = answer
    record = records.find(run.directory, run.id)
    assert record.finished and "done" in record.changes[0]
    assert run.undo().undone == ["ConfigMap shop/prices"]
