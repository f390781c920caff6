# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import json
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels, verify as snapshot_verify
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest
from hypothesis import given, strategies as st


def field(number, value):
    """One field with a length below 128 or, with two bytes, below 16384."""
    length = len(value)
    return bytes([number << 3 | 2]) + (bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])) + value


def stored(kind, namespace, name, more=b""):
    """An object as an API server stores it."""
    metadata = field(1, name.encode()) + field(2, b"") + (field(3, namespace.encode()) if namespace else b"")
    types = field(1, b"v1") + field(2, kind.encode())
    return b"k8s\0" + field(1, types) + field(2, field(1, metadata) + more) + field(3, b"") + field(4, b"")


SECRET = stored("Secret", "shop", "password", field(2, field(1, b"key") + field(2, b"hunter2")) + b"\x28\x01")


def test_the_envelope_of_protobuf():
    found = snapshot_verify.read_envelope(SECRET)
    assert (found.storage, found.kind, found.namespace, found.name) == ("protobuf", "Secret", "shop", "password")


@pytest.mark.parametrize("size", range(len(SECRET)))
def test_what_is_cut_off_is_no_object(size):
    try:
        found = snapshot_verify.read_envelope(SECRET[:size])
    except ValueError:
        return
    # the encoding of the contents, which is empty, comes behind the object
    assert size >= len(SECRET) - 4 and found.name == "password"


@pytest.mark.parametrize("start", [0, 4, 20, len(SECRET) // 2])
def test_zeros_to_the_end_are_no_object(start):
    with pytest.raises(ValueError):
        snapshot_verify.read_envelope(SECRET[:start] + bytes(len(SECRET) - start))


def test_other_envelopes():
    crd = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "b"}}
    found = snapshot_verify.read_envelope(json.dumps(crd).encode())
    assert (found.storage, found.kind, found.namespace, found.name) == ("json", "Widget", "b", "a")
    assert snapshot_verify.read_envelope(b"k8s:enc:aescbc:v1:key1:" + bytes(32)).storage == "aescbc"
    assert snapshot_verify.read_envelope(b"k8s:enc:kms:v2:provider:" + bytes(200)).storage == "kms"
    assert snapshot_verify.read_envelope(b"\xd9\xd9\xf7\xa1").storage == "cbor"
    for value in (b"", b"k8s\0", b"k8s\0Secret", bytes(100), b"k8s:enc:aescbc:v1:key1:short", b"{", b"{}", b'{"kind": 1, "metadata": {}}', b"plain"):
        with pytest.raises(ValueError):
            snapshot_verify.read_envelope(value)


@given(st.binary())
def test_any_value_is_handled(value):
    for prefix in (b"", b"k8s\0", b"k8s:enc:", b"{"):
        objects = snapshot_verify.Objects()
        objects.add("pods", "a", "b", prefix + value)
        assert objects.damaged() == []
        objects.add("pods", "a", "name", stored("Pod", "a", "name"))
        assert len(objects.damaged()) <= 1 and objects.unknown() == []


def test_objects_are_compared_with_others_of_their_kind():
    objects = snapshot_verify.Objects()
    objects.add("widgets.example.com", "a", "x", b"raw")
    objects.add("widgets.example.com", "a", "y", b"raw")
    objects.add("secrets", "shop", "password", SECRET)
    assert (objects.damaged(), objects.unknown(), objects.secrets) == ([], ["widgets.example.com"], 1)
    objects.add("secrets", "shop", "other", SECRET)
    objects.add("secrets", "shop", "empty", b"")
    assert objects.damaged() == ["2 of 3 secrets cannot be read (shop/other, shop/empty)"]
    # nothing but encrypted Secrets
    objects = snapshot_verify.Objects()
    objects.add("secrets", "shop", "password", b"k8s:enc:secretbox:v1:key:" + bytes(40))
    assert (objects.damaged(), objects.encrypted) == ([], {"secretbox": 1})
    # a single one that is not readable
    objects = snapshot_verify.Objects()
    objects.add("secrets", "shop", "password", b"k8s\0Secret")
    assert objects.damaged() == ["1 of 1 secrets cannot be read (shop/password)"]
    objects = snapshot_verify.Objects()
    objects.add("secrets", "shop", "password", stored("ConfigMap", "shop", "password"))
    assert objects.damaged()


# ---- reading back


class Served:
    """Answers as etcd's gateway does; `values` is {key: value}."""

    def __init__(self, values, count=None, **pair):
        self.values = dict(sorted(values.items()))
        self.count = len(values) if count is None else count
        self.pair = dict({"create_revision": "2", "mod_revision": "3", "version": "2"}, **pair)
        self.limits = []

    def range(self, question, _timeout, most):
        self.limits.append(question["limit"])
        start = base64.b64decode(question["key"])
        keys = [key for key in self.values if key >= start]
        page = keys[: question["limit"]]
        if sum(len(self.values[key]) for key in page) > most:
            raise isolated_server.TooMuch("")
        pairs = [dict(self.pair, key=base64.b64encode(key).decode(), value=base64.b64encode(self.values[key]).decode()) for key in page]
        return {"count": str(self.count), "kvs": pairs, "more": len(keys) > len(page)} if self.count or pairs else {}


def read(values, revision=5, **more):
    return snapshot_verify.read_back(Served(values, **more), revision, "/registry/", time.monotonic() + 60)


def test_everything_is_read_and_counted():
    values = {b"/registry/pods/shop/p%04d" % number: stored("Pod", "shop", "p%04d" % number) for number in range(777)}
    values.update({b"/registry/minions/cp1": stored("Node", "", "cp1"), b"compact_rev_key": b"7", b"\xff\0strange": b""})
    found = read(values)
    assert found.keys == 780
    assert found.inventory.as_dict()["objects"] == {"nodes": {"": 1}, "pods": {"shop": 777}}
    assert found.objects.damaged() == []
    assert read({}).keys == 0


def test_pages_of_large_values_get_smaller():
    large = 1500 * 1000
    served = Served({b"/registry/configmaps/a/%d" % number: bytes(large) for number in range(60)})
    assert snapshot_verify.read_back(served, 5, "/registry/", time.monotonic() + 60).keys == 60
    assert min(served.limits) * large < 10 * 1024 * 1024
    assert max(served.limits) <= 200
    with pytest.raises(snapshot_verify.Unproven, match="a value of more than"):
        read({b"a": bytes(20 * 1024 * 1024)})


def test_keys_that_are_missing_or_contradict_themselves():
    values = {b"/registry/pods/a/b": stored("Pod", "a", "b")}
    with pytest.raises(snapshot_verify.Damaged, match="etcd counts 2 keys in it, and 1 can be read"):
        read(values, count=2)
    for pair in ({"mod_revision": "9"}, {"create_revision": "0"}, {"create_revision": "4"}, {"version": "3"}, {"version": "0"}):
        with pytest.raises(snapshot_verify.Damaged, match="contradicts itself"):
            read(values, **pair)


def test_reading_ends_at_the_time_limit():
    with pytest.raises(isolated_server.TimeIsUp):
        snapshot_verify.read_back(Served({}), 1, "/registry/", time.monotonic() - 1)


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
