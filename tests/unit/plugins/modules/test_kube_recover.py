# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules kube_recover and kube_export return, by API servers in memory."""

from __future__ import annotations

import io
import os
import tarfile
import types

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible_collections.k8s_dr.etcd.plugins.action.kube_export import unpack
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import served
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import lines, summary
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from ansible_collections.k8s_dr.etcd.plugins.modules import kube_export, kube_recover
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._recover.fake_api import CRD, FakeApi, made, owned

SHOP = made("Namespace", "shop")
PRICES = made("ConfigMap", "prices", "shop", data={"apple": "1"}, metadata={"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x"}})
KEY = made("Secret", "key", "shop", data={"key": "czNjcmV0"})
SERVICE = made("Service", "web", "shop", spec={"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": []})
EMPTY = {"namespace": None, "kind": None, "name": None, "labels": None}


class Node:
    """A control plane with a live API server and one that serves a snapshot."""

    def __init__(self, monkeypatch, directory, snapshot, live):
        self.directory, self.snapshot, self.live = directory, FakeApi(*snapshot), FakeApi(*live)
        for module in (kube_recover, kube_export):
            monkeypatch.setattr(module, "session_of_kubeconfig", lambda _path: self.snapshot)

    def recover(self, check_mode=False, diff=False, undo=None, **params):
        given = {"select": [dict(EMPTY, namespace="shop")], "overwrite": False, "snapshot": "", "fingerprint": "", "keep": 10, "wait_timeout": 1}
        params = dict(given, **params)
        params.update(kubeconfig=params.get("kubeconfig", "x"), record_dir=str(self.directory / "records"), undo=undo)
        module = types.SimpleNamespace(params=params, check_mode=check_mode, _diff=diff, result={})
        self.module = module
        do = kube_recover.undo if undo else kube_recover.recover
        with kube_recover.lock(module):
            module.result["refused"] = do(module, self.live)
        return module.result

    def export(self, **params):
        params = dict({"kubeconfig": "x", "select": [dict(EMPTY, namespace="shop")], "snapshot": "", "secrets": False, "recipients": []}, **params)
        archive = self.directory / "objects.tar"
        archive.unlink(missing_ok=True)
        return kube_export.run(dict(params, archive=str(archive))), archive


@pytest.fixture
def node(monkeypatch, tmp_path):
    return Node(monkeypatch, tmp_path, [SHOP, PRICES, KEY, SERVICE], [SHOP])


def test_check_mode_predicts_and_writes_nothing(node):
    found = node.recover(check_mode=True, diff=True)
    assert found["changed"] and len(found["diff"]) == 3
    assert not (node.directory / "records").exists() and node.live.changes == 0
    done = node.recover()
    assert done["changed"] and done["report"]["created"] == found["plan"]["missing"] == ["Secret shop/key", "ConfigMap shop/prices", "Service shop/web"]
    assert not node.recover(check_mode=True)["changed"]
    again = node.recover()
    assert not again["changed"] and again["id"] == ""


def test_a_run_is_undone_by_its_id(node):
    identifier = node.recover()["id"]
    would = node.recover(check_mode=True, undo=identifier)
    assert would["changed"] and would["lines"][0] == "Would be undone (3):"
    assert node.recover(undo=identifier)["report"]["undone"] == would["report"]["undone"]
    assert node.recover(undo=identifier)["lines"] == ["There is nothing left to undo"]
    with pytest.raises(Refused, match="there is no record nothing"):
        node.recover(undo="nothing")


def test_only_the_plan_that_was_shown_is_carried_out(node):
    other = dict(PRICES, data={"apple": "2"})
    node.live.add(other)
    shown = {overwrite: node.recover(check_mode=True, overwrite=overwrite)["fingerprint"] for overwrite in (False, True)}
    node.live.add(dict(other, data={"apple": "3"}))
    before = dict(node.live.objects)
    with pytest.raises(Refused, match="the plan is another one now; run this again to see it"):
        node.recover(fingerprint=shown[True], overwrite=True)
    assert node.live.objects == before
    # what is not overwritten may change
    assert node.recover(fingerprint=shown[False])["report"]["created"] == ["Secret shop/key", "Service shop/web"]
    with pytest.raises(Refused, match="the plan is another one now"):
        node.recover(fingerprint=shown[False])


def test_another_live_value_of_a_secret_is_another_plan(node):
    """Nothing that is shown tells them apart, and undo has no values of Secrets."""
    shown = []
    for value in ("YQ==", "Yg=="):
        node.live.add(dict(KEY, data={"password": value}))
        shown.append(node.recover(check_mode=True, overwrite=True))
    assert shown[0]["lines"] == shown[1]["lines"] and shown[0]["fingerprint"] != shown[1]["fingerprint"]


def test_what_comes_free_meanwhile_is_not_recovered_unseen(node):
    node.live.add(SHOP, deletionTimestamp="now")
    found = node.recover(check_mode=True)
    assert not found["pending"] and len(found["refused"]) == 4
    del node.live.objects[("namespaces", "", "shop")]
    with pytest.raises(Refused, match="the plan is another one now"):
        node.recover(fingerprint=found["fingerprint"])


def test_an_undo_is_the_one_that_was_shown(node):
    identifier = node.recover()["id"]
    shown = node.recover(check_mode=True, undo=identifier)["fingerprint"]
    node.live.add(dict(PRICES, data={"apple": "2"}), uid=node.live.find("ConfigMap", "prices", "shop")["metadata"]["uid"])
    with pytest.raises(Refused, match="the plan is another one now"):
        node.recover(undo=identifier, fingerprint=shown)
    shown = node.recover(check_mode=True, undo=identifier)["fingerprint"]
    assert len(node.recover(undo=identifier, fingerprint=shown)["report"]["undone"]) == 2


def test_a_run_that_was_interrupted_at_its_end_is_pending(node, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(kube_recover.records.Record, "finish", lambda _self: None)
        node.recover()
    assert node.recover(check_mode=True)["pending"]
    node.recover()
    assert not node.recover(check_mode=True)["pending"]


def test_what_is_refused_is_returned_with_what_was_done(node):
    node.live.refuse("secrets", "shop", "key", 403, "exceeded quota: few")
    found = node.recover()
    assert [one["object"] for one in found["refused"]] == ["Secret shop/key"] and found["changed"]


def test_what_the_snapshot_does_not_let_read_is_named(node):
    ask = node.snapshot._ask
    node.snapshot._ask = lambda method, path, *args: (500, {"message": "no matching key"}) if "/secrets?" in path else ask(method, path, *args)
    found = node.recover()
    assert found["report"]["created"] == ["ConfigMap shop/prices", "Service shop/web"]
    (refused,) = found["refused"]
    assert refused["object"] == "Secret of the selection (namespace shop)" and "no matching key" in refused["reason"]
    assert any("cannot be read in the snapshot" in line for line in lines(found["plan"], False))


@pytest.mark.parametrize("run", ["recover", "export"])
def test_another_snapshot_than_the_one_that_was_chosen_is_refused(node, monkeypatch, run):
    """Another run may serve another one in its place, while this one waits for an answer."""
    (node.directory / "state.json").write_text('{"sha256": "aa"}')
    monkeypatch.setattr(served, "DIRECTORY", str(node.directory))
    kubeconfig = str(node.directory / "kubeconfig")
    with pytest.raises(Refused, match="another run serves another snapshot on this host now, with the SHA-256 aa instead of bb"):
        getattr(node, run)(kubeconfig=kubeconfig, snapshot="bb")
    assert node.live.changes == 0
    getattr(node, run)(kubeconfig=kubeconfig, snapshot="aa")


def test_a_snapshot_that_is_not_served_until_the_end_is_named(node, monkeypatch):
    """The API server that served it refuses connections then, which says nothing of the reason."""
    (node.directory / "state.json").write_text('{"sha256": "aa"}')
    monkeypatch.setattr(served, "DIRECTORY", str(node.directory))

    def gone(*_args):
        raise KubeError("the API server at https://127.0.0.1:6440 does not answer: Connection refused")

    def end(_method, key, _dry):
        if key[0] == "configmaps":
            (node.directory / "state.json").unlink()
            node.snapshot._ask = gone

    node.live.before_change, ask = end, node.snapshot._ask
    with pytest.raises(KubeError, match=r"^the snapshot is not served any more, because its time \(etcd_browse_ttl\) was over .*; run this again$"):
        node.recover(kubeconfig=str(node.directory / "kubeconfig"), snapshot="aa")
    assert kube_recover.state_of(node.module).startswith("Some objects may have been changed; run this again to continue, or undo it: ansible-playbook ")
    node.snapshot._ask = ask
    (node.directory / "state.json").write_text('{"sha256": "aa"}')
    assert node.recover(kubeconfig=str(node.directory / "kubeconfig"), snapshot="aa")["report"]["created"] == ["Service shop/web"]


def test_interrupted_runs_are_named(node):
    node.live.before_change = lambda _method, key, dry: (_ for _ in ()).throw(KubeError("away")) if key[0] == "services" and not dry else None
    with pytest.raises(KubeError):
        node.recover(snapshot="a")
    (identifier,) = kube_recover.records.names(str(node.directory / "records"))
    command = "The run %s was interrupted; to undo it: ansible-playbook k8s_dr.etcd.recover -e etcd_recover_undo=%s" % (identifier, identifier)
    assert node.recover(check_mode=True, snapshot="a")["plan"]["warnings"] == ["The run %s was interrupted; this one continues it" % identifier]
    assert node.recover(check_mode=True, snapshot="b")["lines"][0] == command
    node.live.before_change = lambda *_args: None
    # it is the oldest then
    (node.directory / "records" / "20990101T000000Z-0000").mkdir()
    (node.directory / "records" / "20990101T000000Z-0000" / "journal").write_text('{"finished": "x"}\n')
    assert node.recover(snapshot="a", keep=1)["id"] == identifier
    assert identifier in kube_recover.records.names(str(node.directory / "records"))
    assert node.recover(check_mode=True, snapshot="b")["plan"]["warnings"] == []


def test_a_change_whose_answer_was_lost_is_not_called_none(node):
    """The API server may have made it."""
    node.live.before_change = lambda _method, _key, dry: (_ for _ in ()).throw(KubeError("away")) if not dry else None
    with pytest.raises(KubeError):
        node.recover()
    identifier = node.module.result["id"]
    command = "ansible-playbook k8s_dr.etcd.recover -e etcd_recover_undo=%s" % identifier
    assert identifier and not node.module.result["changed"]
    assert kube_recover.state_of(node.module) == "Some objects may have been changed; run this again to continue, or undo it: " + command
    assert summary(node.module.result["report"], identifier, True) == ["No change is known to have been made"]
    node.module.params["undo"] = identifier
    assert kube_recover.state_of(node.module) == "Some of it may be undone; run this again to continue"
    node.module.result["id"] = ""
    assert kube_recover.state_of(node.module) == "Nothing was changed"


def test_a_negative_number_of_records_is_refused(node):
    with pytest.raises(Refused, match="keep is -1; set it to 0 for all records"):
        node.recover(keep=-1)
    assert node.live.changes == 0


def test_the_plan_says_that_overwritten_secrets_are_not_recorded(node):
    node.live.add(dict(KEY, data={"key": "b2xk"}))
    (warning,) = node.recover(check_mode=True, overwrite=True)["plan"]["warnings"]
    assert "the record has none" in warning
    assert node.recover(check_mode=True)["plan"]["warnings"] == []


def test_two_runs_at_once_refuse_each_other(node):
    with kube_recover.lock(types.SimpleNamespace(params={"record_dir": str(node.directory / "records")}, check_mode=False)):
        with pytest.raises(Busy, match=r"another run recovers objects on this node: process \d+; wait until it has ended"):
            node.recover()
        assert node.recover(check_mode=True)["changed"]


# -- export ------------------------------------------------------------------------------------------------------------


def contents(archive):
    with tarfile.open(archive) as tar:
        return {entry.name: tar.extractfile(entry).read().decode() for entry in tar}


def test_objects_become_files(node):
    node.snapshot.add(made("Pod", "web-1", "shop", metadata={"ownerReferences": [owned("ReplicaSet", "web", "apps/v1", True)]}))
    node.snapshot.add(made("ConfigMap", "system:a b", "shop", metadata={"ownerReferences": [owned("Widget", "a")]}))
    found, archive = node.export()
    assert found["files"] == ["_cluster/Namespace_shop.yaml", "shop/ConfigMap_prices.yaml", "shop/ConfigMap_system:a%20b.yaml", "shop/Service_web.yaml"]
    assert found["secrets_left_out"] == 1 and found["left_out"] == [{"object": "Pod shop/web-1", "reason": "is made by its ReplicaSet"}]
    assert found["lines"] == ["1 Secrets were not exported, since that was not asked for", "Not exported: Pod shop/web-1 is made by its ReplicaSet"]
    files = contents(archive)
    assert list(yaml.safe_load(files["shop/ConfigMap_prices.yaml"])) == ["apiVersion", "kind", "metadata", "data"]
    assert yaml.safe_load(files["shop/ConfigMap_prices.yaml"])["metadata"] == {"name": "prices", "namespace": "shop"}
    assert "ownerReferences" not in files["shop/ConfigMap_system:a%20b.yaml"]
    assert yaml.safe_load(files["shop/Service_web.yaml"])["spec"] == {"ports": []}


def test_what_cannot_be_read_is_named_and_the_rest_is_exported(node):
    """A conversion webhook is never within reach of a snapshot, and a key of Secrets may be lost."""
    node.snapshot.add(CRD)
    node.snapshot.add(made("Widget", "parent", "shop", "example.com/v1"))
    node.snapshot.unreadable = {("widgets.example.com", "v1")}
    found, dummy = node.export()
    assert "shop/Widget.example.com_parent.yaml" in found["files"] and found["unreadable"] == []
    node.snapshot.unreadable |= {("widgets.example.com", "v1beta1"), ("secrets", "v1")}
    found, dummy = node.export()
    assert found["files"] == ["_cluster/Namespace_shop.yaml", "shop/ConfigMap_prices.yaml", "shop/Service_web.yaml"]
    assert [one["object"] for one in found["unreadable"]] == ["Widget of the selection (namespace shop)"]
    assert "cannot be read in the snapshot: " in found["lines"][-1]
    # Secrets count where they are asked for
    found, dummy = node.export(secrets=True)
    assert [one["object"] for one in found["unreadable"]] == [kind + " of the selection (namespace shop)" for kind in ("Secret", "Widget")]


def test_what_an_export_has_left_whose_controller_died_is_removed(node):
    old, young = (node.directory.parent / (".k8s-dr-export-" + name) for name in ("old", "young"))
    for path in (old, young):
        path.mkdir()
        (path / "objects.tar").write_text("all Secrets")
    os.utime(old, (0, 0))
    node.export()
    assert not old.exists() and young.exists()


def test_what_is_not_recovered_is_not_exported(node):
    """In another cluster it would run again, or stand in the way of what its owner makes."""
    pod = made("Pod", "db-0", "shop", metadata={"ownerReferences": [owned("ReplicaSet", "db", "apps/v1", True)]})
    done = made("Widget", "done", "shop", "example.com/v1", status={"completionTime": "x"})
    node.snapshot.add(CRD)
    others = [
        *(pod, done, made("Widget", "other", "shop", "example.com/v1"), made("Service", "selected", "shop", spec={"selector": {"a": "b"}})),
        made("Endpoints", "selected", "shop"),
        made("PersistentVolumeClaim", "scratch", "shop", metadata={"ownerReferences": [owned("Pod", "db-0")]}),
        made("ConfigMap", "of-scratch", "shop", metadata={"ownerReferences": [owned("PersistentVolumeClaim", "scratch")]}),
        made("ConfigMap", "of-both", "shop", metadata={"ownerReferences": [owned("Widget", name, "example.com/v1") for name in ("done", "other")]}),
        made("ConfigMap", "of-gone", "shop", metadata={"ownerReferences": [owned("Widget", "gone", "example.com/v1")]}),
        *(made("ConfigMap", name, "shop", metadata={"ownerReferences": [owned("ConfigMap", other)]}) for name, other in (("one", "two"), ("two", "one"))),
    ]
    for one in others:
        node.snapshot.add(one)
    found, dummy = node.export()
    assert {one["object"]: one["reason"] for one in found["left_out"]} == {
        "Pod shop/db-0": "is made by its ReplicaSet",
        "Widget shop/done": "has ended, and would run again",
        "Endpoints shop/selected": "is made by its Service",
        "PersistentVolumeClaim shop/scratch": "belongs to Pod shop/db-0, which is not exported",
        "ConfigMap shop/of-scratch": "belongs to PersistentVolumeClaim shop/scratch, which is not exported",
    }
    names = {name.rpartition("_")[2] for name in found["files"]}
    assert {"other.yaml", "of-both.yaml", "of-gone.yaml", "one.yaml", "two.yaml"} <= names


def test_secrets_are_exported_when_asked_for_and_encrypted_for_recipients(node, monkeypatch):
    found, archive = node.export(secrets=True)
    assert yaml.safe_load(contents(archive)["shop/Secret_key.yaml"])["data"] == KEY["data"] and found["secrets_left_out"] == 0
    monkeypatch.setattr(kube_export.encryption, "check", lambda *_args: None)
    monkeypatch.setattr(kube_export.encryption, "encrypt", lambda _plain, target, *_args: open(target, "w").write("packed"))
    found, archive = node.export(secrets=True, recipients=["age1x"])
    assert contents(archive)["shop/Secret_key.yaml.age"] == "packed" and "czNjcmV0" not in str(contents(archive))
    assert [path.name for path in node.directory.iterdir()] == ["objects.tar"]


def test_what_selects_nothing_and_what_cannot_be_exported(node):
    nothing = {"namespace": "shop", "kind": "Pod"}
    assert node.export(select=[nothing])[0]["lines"] == ["The snapshot has nothing that the selection (namespace shop, kind Pod) means"]
    with pytest.raises(Refused, match="the snapshot has no namespace x; correct its name"):
        node.export(select=[{"namespace": "x"}])
    with pytest.raises(Refused, match="objects of kind Event are not exported"):
        node.export(select=[{"kind": "Event"}])


def archive_of(path, *names, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(b"x"))
    return path


def test_files_are_written_where_they_differ(tmp_path):
    archive, dest = archive_of(tmp_path / "a.tar", "shop/b.yaml", "shop/a.yaml"), tmp_path / "out"
    assert unpack(archive, str(dest), True) == ["shop/a.yaml", "shop/b.yaml"] and not dest.exists()
    assert unpack(archive, str(dest), False) == ["shop/a.yaml", "shop/b.yaml"]
    assert (dest / "shop").stat().st_mode & 0o777 == 0o700 and (dest / "shop/a.yaml").stat().st_mode & 0o777 == 0o600
    (dest / "shop/a.yaml").write_text("other")
    assert unpack(archive, str(dest), False) == ["shop/a.yaml"]


def test_no_other_user_can_read_what_is_written_into_a_file_that_was_there(tmp_path):
    archive, path = archive_of(tmp_path / "a.tar", "shop/a.yaml"), tmp_path / "shop/a.yaml"
    path.parent.mkdir()
    for before in ("other", "x"):
        path.write_text(before)
        path.chmod(0o644)
        with path.open() as reader:
            assert unpack(archive, str(tmp_path), False) == ["shop/a.yaml"]
            assert reader.read() == before
        assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == "x"
    assert unpack(archive, str(tmp_path), False) == []
    assert [one.name for one in path.parent.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a", "a/../b", "a/b/c", "../../x"])
def test_an_archive_writes_nowhere_else(tmp_path, name):
    with pytest.raises(AnsibleActionFail, match="no exported object"):
        unpack(archive_of(tmp_path / "a.tar", name), str(tmp_path / "out"), False)


def test_an_archive_makes_no_link(tmp_path):
    with pytest.raises(AnsibleActionFail, match="no exported object"):
        unpack(archive_of(tmp_path / "a.tar", "a/b", kind=tarfile.SYMTYPE), str(tmp_path / "out"), False)
