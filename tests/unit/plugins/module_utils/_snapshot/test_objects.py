# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import objects
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
    found = objects.read_envelope(SECRET)
    assert (found.storage, found.kind, found.namespace, found.name) == ("protobuf", "Secret", "shop", "password")


@pytest.mark.parametrize("size", range(len(SECRET)))
def test_what_is_cut_off_is_no_object(size):
    try:
        found = objects.read_envelope(SECRET[:size])
    except ValueError:
        return
    # the encoding of the contents, which is empty, comes behind the object
    assert size >= len(SECRET) - 4 and found.name == "password"


@pytest.mark.parametrize("start", [0, 4, 20, len(SECRET) // 2])
def test_zeros_to_the_end_are_no_object(start):
    with pytest.raises(ValueError):
        objects.read_envelope(SECRET[:start] + bytes(len(SECRET) - start))


def test_other_envelopes():
    crd = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "b"}}
    found = objects.read_envelope(json.dumps(crd).encode())
    assert (found.storage, found.kind, found.namespace, found.name) == ("json", "Widget", "b", "a")
    assert objects.read_envelope(b"k8s:enc:aescbc:v1:key1:" + bytes(32)).storage == "aescbc"
    assert objects.read_envelope(b"k8s:enc:kms:v2:provider:" + bytes(200)).storage == "kms"
    assert objects.read_envelope(b"\xd9\xd9\xf7\xa1").storage == "cbor"
    for value in (b"", b"k8s\0", b"k8s\0Secret", bytes(100), b"k8s:enc:aescbc:v1:key1:short", b"{", b"{}", b'{"kind": 1, "metadata": {}}', b"plain"):
        with pytest.raises(ValueError):
            objects.read_envelope(value)


@given(st.binary())
def test_no_value_is_too_strange(value):
    for prefix in (b"", b"k8s\0", b"k8s:enc:", b"{"):
        counted = objects.Objects()
        counted.add("pods", "a", "b", prefix + value)
        assert counted.damaged() == []
        counted.add("pods", "a", "name", stored("Pod", "a", "name"))
        assert len(counted.damaged()) <= 1 and counted.unknown() == []


def test_objects_are_judged_by_their_like():
    counted = objects.Objects()
    counted.add("widgets.example.com", "a", "x", b"raw")
    counted.add("widgets.example.com", "a", "y", b"raw")
    counted.add("secrets", "shop", "password", SECRET)
    assert (counted.damaged(), counted.unknown(), counted.secrets) == ([], ["widgets.example.com"], 1)
    counted.add("secrets", "shop", "other", SECRET)
    counted.add("secrets", "shop", "empty", b"")
    assert counted.damaged() == ["2 of 3 secrets cannot be read (shop/other, shop/empty)"]
    # nothing but encrypted Secrets
    counted = objects.Objects()
    counted.add("secrets", "shop", "password", b"k8s:enc:secretbox:v1:key:" + bytes(40))
    assert (counted.damaged(), counted.encrypted) == ([], {"secretbox": 1})
    # a single one that is not readable
    counted = objects.Objects()
    counted.add("secrets", "shop", "password", b"k8s\0Secret")
    assert counted.damaged() == ["1 of 1 secrets cannot be read (shop/password)"]
    counted = objects.Objects()
    counted.add("secrets", "shop", "password", stored("ConfigMap", "shop", "password"))
    assert counted.damaged()


# ---- the fast look at what is stored in protobuf


def number(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def long(tag, value):
    """A field with any number and any length."""
    return number(tag << 3 | 2) + number(len(value)) + value


def complete(kind, namespace, name):
    """An object with each kind of field, as an API server stores it."""
    metadata = long(1, name.encode()) + long(2, b"") + long(3, namespace.encode()) + long(5, b"5" * 36) + b"\x38\x00\x42\x00"
    metadata += long(11, long(1, b"app") + long(2, b"web")) + long(17, long(1, b"kubelet") + long(7, b"f" * 300))
    raw = long(1, metadata) + long(2, b"spec" * 100) + long(3, b"status") + b"\x21" + bytes(8) + b"\x2d" + bytes(4) + b"\x30\xff\x01"
    return b"k8s\0" + long(1, long(1, b"v1") + long(2, kind.encode())) + long(2, raw) + b"\x1a\x00\x22\x00"


POD = complete("Pod", "shop", "web-1")


def plain(value, namespace=b"shop", name=b"web-1", before=b"page", behind=b"page"):
    return objects.plain_kind(before + value + behind, len(before), len(before) + len(value), namespace, name)


def test_what_is_stored_as_most_objects_are():
    assert plain(POD) == plain(POD, before=b"", behind=b"") == "Pod"
    assert plain(complete("Node", "", "cp1"), b"", b"cp1") == "Node"
    assert plain(stored("Secret", "shop", "password", field(2, b"x")), b"shop", b"password") == "Secret"
    for value in (POD[:-4], b"", b"k8s\0", POD[1:], POD.replace(b"Pod", b""), stored("Pod", "", "web-1") + b"\0"):
        assert plain(value) is None
    for namespace, name in ((b"shop", b"web-2"), (b"shop", b"web-11"), (b"shop", b"web"), (b"", b"web-1"), (b"shops", b"web-1")):
        assert plain(POD, namespace, name) is None


@given(st.lists(st.tuples(st.integers(0, len(POD) - 1), st.integers(0, 255)), min_size=1, max_size=3), st.sampled_from([0, 1, 30]))
def test_it_is_never_kinder_than_the_slow_look(changes, cut):
    value = bytearray(POD)
    for at, byte in changes:
        value[at] = byte
    value = bytes(value[: len(value) - cut])
    kind = plain(value)
    if kind is not None:
        assert objects.judge("pods", "shop", "web-1", value) == "protobuf"
        assert objects.read_envelope(value).kind == kind
