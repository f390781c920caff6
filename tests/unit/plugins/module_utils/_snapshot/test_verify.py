# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels, verify as snapshot_verify
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.forked import Lost


def test_where_two_counts_differ():
    before = {"pods": {"a": 2, "b": 1}, "nodes": {"": 3}}
    assert snapshot_verify.compare_inventory(before, before) is None
    assert snapshot_verify.compare_inventory(before, {"pods": {"a": 1, "b": 1}, "nodes": {"": 3}}) == "it holds 2 pods instead of 3"
    assert snapshot_verify.compare_inventory(before, {"pods": {"a": 1, "b": 2}, "nodes": {"": 3}}) == "it holds 1 pods in a instead of 2"
    assert snapshot_verify.compare_inventory(before, {"pods": {"a": 2, "b": 1}, "pod3": {"": 3}}) == "it holds 0 nodes instead of 3, 3 pod3 instead of 0"
    many = {"kind%d" % number: {"": 1} for number in range(9)}
    assert snapshot_verify.compare_inventory(many, {}).endswith(", and 4 more resources differ")


# ---- the levels that need no etcd

OPTIONS = {"etcd": None, "etcdctl": "", "etcdutl": "", "work_dir": "/nonexistent", "manifests_dir": "/nonexistent", "timeout": None}


def verification(tmp_path, content=b"data", wanted="checksum", **changes):
    path = tmp_path / "etcd-cp1-20260102T030405Z.db"
    path.write_bytes(content)
    known = {"format": 1, "file": path.name, "hash": None, "revision": 5, "verified": True, "host": "cp1", "created": "2026-01-02T03:04:05Z"}
    manifest = Manifest(dict(known, size=4, sha256=hashlib.sha256(b"data").hexdigest(), **changes))
    found = snapshot_verify.Verification(str(path), manifest, OPTIONS)
    return found, lambda: found.to(wanted)


def test_the_checksum(tmp_path):
    found, go = verification(tmp_path)
    go()
    assert levels.highest(found.levels) == "checksum"
    for content, words in ((b"dat", "has 3 bytes, and had 4"), (b"dots", "its sha256 has changed")):
        found, go = verification(tmp_path, content)
        with pytest.raises(snapshot_verify.Damaged, match=words):
            go()
        assert found.levels["checksum"]["ok"] is False and words in found.levels["checksum"]["problem"]
    found = snapshot_verify.Verification(str(tmp_path / "none"), None, OPTIONS)
    with pytest.raises(snapshot_verify.Damaged, match="is missing, or not a regular file"):
        found.to("drill")
    assert list(found.levels) == ["checksum"]


def test_what_is_encrypted_is_not_looked_into_without_its_key(tmp_path):
    found, go = verification(tmp_path, wanted="status", packing={"compression": "none", "encryption": "age"})
    with pytest.raises(snapshot_verify.Unproven, match="it is encrypted"):
        go()
    assert list(found.levels) == ["checksum"]


def test_what_is_packed_without_a_manifest_is_told_by_its_name():
    assert not snapshot_verify.Verification("a.db", None, OPTIONS).packed
    assert snapshot_verify.Verification("a.db.zst", None, OPTIONS).packed


def test_a_host_that_can_start_no_second_process_calls_no_snapshot_damaged(tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise Lost("no second process can read it: Resource temporarily unavailable")

    monkeypatch.setattr(snapshot_verify, "Forked", refuse)
    found, go = verification(tmp_path, wanted="drill")
    # a restore that has begun
    found._trial = SimpleNamespace(look=lambda: None, ended=None)
    with pytest.raises(snapshot_verify.Unproven, match="cannot be read: no second process can read it"):
        go()
    assert found.levels == {}


@pytest.mark.parametrize(
    "known, facts, needed",
    [
        ({"etcd_version": "3.5.16", "storage_version": None}, {}, "3.5.16"),
        ({"etcd_version": "3.7.3", "storage_version": "3.7.0"}, {}, "3.7.0"),
        # taken with the option storage_version
        ({"etcd_version": "3.7.3", "storage_version": "3.6.0"}, {}, "3.6.0"),
        ({"etcd_version": "3.6.16", "storage_version": None}, {}, "3.5"),
        ({"etcd_version": "3.6.16", "storage_version": None}, {"storage_version": None}, "3.5"),
        ({"etcd_version": "3.7.3"}, {}, "3.7.3"),
        ({"etcd_version": "3.7.3"}, {"storage_version": "3.6.0"}, "3.6.0"),
        ({}, {}, ""),
    ],
)
def test_the_etcd_that_a_snapshot_needs(tmp_path, known, facts, needed):
    found, _go = verification(tmp_path, **known)
    found.facts = facts
    assert found._needed_version() == needed
    if needed:
        found._check_version(SimpleNamespace(version=needed, path="etcd"))
        with pytest.raises(snapshot_verify.Unproven, match="too old for a snapshot of"):
            found._check_version(SimpleNamespace(version="3.4.9", path="etcd"))


# ---- the level objects


@pytest.fixture
def drilled(tmp_path, monkeypatch):
    """A Verification whose lower levels pass, as a function of what the level objects does; what it asked for is in `asked`."""
    asked = []

    def make(show):
        found, go = verification(tmp_path, wanted="objects")
        for name in levels.LEVELS[1:-1]:
            monkeypatch.setattr(found, "_" + name, dict)
        data = tmp_path / "data"
        data.mkdir()
        found._trial = SimpleNamespace(look=lambda: None, ended=None, data=str(data))
        found._drilling.callback(lambda: asked.append("the drill's etcd has ended"))
        monkeypatch.setattr(found, "_read_plain", lambda: setattr(found, "_opened", SimpleNamespace(hashed=SimpleNamespace(sha256=found.manifest.sha256))))

        def wrapped(path, left):
            asked.append((path, left > 0, data.exists()))
            return show()

        monkeypatch.setattr(found, "_show", wrapped)
        return found, go

    return make, asked


def test_every_object_is_shown_when_the_drill_has_ended(drilled):
    make, asked = drilled
    found, go = make(lambda: {"objects": 7, "kubernetes_version": "1.37.2"})
    go()
    assert asked == ["the drill's etcd has ended", (found.plain, True, False)]
    assert levels.highest(found.levels) == "objects" and found.levels["objects"]["objects"] == 7 and found.notes == []


def test_a_host_without_an_api_server_cannot_reach_it_and_says_so(drilled):
    def show():
        raise snapshot_verify.OutOfReach("no kube-apiserver runs on this host")

    found, go = drilled[0](show)
    go()
    assert levels.highest(found.levels) == "drill" and "objects" not in found.levels
    assert found.notes == ["the verification level objects is out of reach: no kube-apiserver runs on this host"]


def test_what_cannot_be_shown_is_no_damage(drilled):
    def show():
        raise snapshot_verify.Unproven("not every object is shown")

    found, go = drilled[0](show)
    with pytest.raises(snapshot_verify.Unproven, match="not every object is shown"):
        go()
    assert levels.highest(found.levels) == "drill" and levels.failed(found.levels) is None
