# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import crc32c, isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import reading


def stored(kind, namespace, name):
    """An object as an API server stores one of a custom resource."""
    return json.dumps({"kind": kind, "metadata": {"namespace": namespace, "name": name}}).encode()


def in_protobuf(kind, namespace, name):
    """An object as an API server stores a built-in one."""

    def field(number, value):
        return bytes([number << 3 | 2, len(value)]) + value

    metadata = field(1, name.encode()) + field(2, b"") + field(3, namespace.encode())
    return b"k8s\0" + field(1, field(1, b"v1") + field(2, kind.encode())) + field(2, field(1, metadata)) + b"\x1a\0\x22\0"


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


def read_all(values, revision=5, **more):
    return reading.read_back(Served(values, **more), revision, "/registry/", time.monotonic() + 60)


def test_everything_is_read_and_counted():
    values = {b"/registry/pods/shop/p%04d" % number: stored("Pod", "shop", "p%04d" % number) for number in range(777)}
    values.update({b"/registry/minions/cp1": stored("Node", "", "cp1"), b"compact_rev_key": b"7", b"\xff\0strange": b""})
    found = read_all(values)
    assert found.keys == 780
    assert found.inventory.as_dict()["objects"] == {"nodes": {"": 1}, "pods": {"shop": 777}}
    assert found.objects.damaged() == []
    assert read_all({}).keys == 0


def test_pages_of_large_values_get_smaller():
    large = 1500 * 1000
    served = Served({b"/registry/configmaps/a/%d" % number: bytes(large) for number in range(60)})
    assert reading.read_back(served, 5, "/registry/", time.monotonic() + 60).keys == 60
    assert min(served.limits) * large < 10 * 1024 * 1024
    assert max(served.limits) <= 200
    with pytest.raises(reading.Unproven, match="a value of more than"):
        read_all({b"a": bytes(20 * 1024 * 1024)})


def test_keys_that_are_missing_or_contradict_themselves():
    values = {b"/registry/pods/a/b": stored("Pod", "a", "b")}
    with pytest.raises(reading.Damaged, match="etcd counts 2 keys in it, and 1 can be read"):
        read_all(values, count=2)
    for pair in ({"mod_revision": "9"}, {"create_revision": "0"}, {"create_revision": "4"}, {"version": "3"}, {"version": "0"}):
        with pytest.raises(reading.Damaged, match="contradicts itself"):
            read_all(values, **pair)


def test_time_ends():
    with pytest.raises(isolated_server.TimeIsUp):
        reading.read_back(Served({}), 1, "/registry/", time.monotonic() - 1)


def test_values_are_judged_by_their_keys():
    judge = reading._Judge("/registry/")

    def number(key, value):
        return judge(key, b"page" + value + b"page", 4, 4 + len(value))

    service = in_protobuf("Service", "shop", "specs")
    assert number(b"/registry/services/specs/shop/specs", service) == reading.PLAIN
    # neither has a name
    for key in (b"/registry/services/specs", b"/registry/services/endpoints", b"/registry/services/", b"/registry/pods", b"compact_rev_key"):
        assert number(key, in_protobuf("Service", "", key.rpartition(b"/")[2].decode())) == 0
    assert number(b"/registry/services/else", in_protobuf("Service", "", "else")) == reading.PLAIN
    assert number(b"/registry/secrets/shop/a", in_protobuf("Secret", "shop", "a")) == reading.PLAIN
    assert number(b"/registry/secrets/shop/a", in_protobuf("ConfigMap", "shop", "a")) == 1
    assert judge.storages[number(b"/registry/widgets/shop/a", stored("Widget", "shop", "a"))] == "json"


# ---- whether an etcd serves what is in a file

FILE = {b"members": [(b"1", b"of the cluster")], b"meta": [(b"consistent_index", b"1")]}
SERVED = {b"members": [(b"2", b"alone")], b"meta": [(b"consistent_index", b"9")]}
RECORDS = b"a revision and its record"


def hash_of(others, records=RECORDS):
    text = [(name, b"".join(key + value for key, value in others[name])) for name in others] + [(b"key", records)]
    return crc32c.checksum(0, b"".join(name + more for name, more in sorted(text)))


HASH = "%08x" % hash_of(FILE)


class Compared:
    """An etcd and a file, as far as a Comparison asks them."""

    def __init__(self, monkeypatch, version="3.7.3", hashes=None, newest=5, served=(SERVED,), file=FILE, revision=5):
        self.server = self
        self.version = version
        self.revision, self.volume = revision, len(RECORDS)
        self._file, self._served = file, list(served)
        self._hashes = list(hashes or [hash_of({name: [] if name == b"meta" else pairs for name, pairs in SERVED.items()})])
        self._newest = newest
        monkeypatch.setattr(reading.Comparison, "_others", lambda comparison: self._served.pop(0) if len(self._served) > 1 else self._served[0])

    def begin_hash(self):
        return lambda deadline: (self._hashes[0], self._newest) if self._hashes[0] is not None else None

    def others(self):
        return self._file

    def difference(self, whole=HASH):
        found = reading.Comparison(self, "db").difference(self, whole, 5, time.monotonic() + 60)
        return found and (str(found), found.harmless)


def test_the_same_records_beside_other_buckets(monkeypatch):
    assert Compared(monkeypatch).difference() is None
    # it wrote once more
    before = {**SERVED, b"cluster": [(b"clusterVersion", b"3.7.0")]}
    assert Compared(monkeypatch, served=[before, SERVED, SERVED]).difference() is None


def test_other_records(monkeypatch):
    other = {"whole": "%08x" % hash_of(FILE, RECORDS.upper())}
    assert Compared(monkeypatch).difference(**other) == ("etcd 3.7.3 serves other records than the file has, although all of them can be read", False)
    words, harmless = Compared(monkeypatch, version="3.8.0").difference(**other)
    assert "is not known" in words and harmless
    compacting = {b"members": FILE[b"members"], b"meta": FILE[b"meta"] + [(b"scheduledCompactRev", b"4")]}
    words, harmless = Compared(monkeypatch, file=compacting).difference("%08x" % hash_of(compacting, RECORDS.upper()))
    assert "during a compaction" in words and harmless


def test_what_cannot_be_compared(monkeypatch):
    changing = [{**SERVED, b"cluster": [(b"clusterVersion", b"%d" % number)]} for number in range(20)]
    for compared, whole, words in (
        (Compared(monkeypatch, newest=6), HASH, "keys have gone with their leases"),
        (Compared(monkeypatch, hashes=[None]), HASH, "does not say its hash"),
        (Compared(monkeypatch, file=None), HASH, "no hash of it"),
        (Compared(monkeypatch), None, "no hash of it"),
    ):
        found, harmless = compared.difference(whole)
        assert words in found and harmless
    found, harmless = Compared(monkeypatch, served=changing).difference()
    assert "goes on writing" in found and harmless


class File:
    """A FileReading of {key: value}, in parts of two keys."""

    def __init__(self, values):
        keys = sorted(values)
        self.parts = [[keys[at], 2, 3, 2, "json", len(keys[at : at + 2])] for at in range(0, len(keys), 2)]
        self.inventory = reading.Reading("/registry/").inventory


class Parts(Served):
    def range(self, question, _timeout, most):
        start, end = base64.b64decode(question["key"]), base64.b64decode(question["range_end"])
        assert (question["limit"], question["revision"]) == (1, 5)
        keys = [key for key in self.values if key >= start and (end == b"\0" or key < end)]
        pairs = [dict(self.pair, key=base64.b64encode(key).decode(), value=base64.b64encode(self.values[key]).decode()) for key in keys[:1]]
        return {"count": str(len(keys)), "kvs": pairs} if keys else {}


def test_each_part_is_counted_and_its_first_key_is_read():
    values = {b"/registry/pods/a/%d" % number: stored("Pod", "a", "%d" % number) for number in range(7)}

    def check(served, **pair):
        reading.check_parts(Parts(served, **pair), File(values), 5, time.monotonic() + 60)

    check(values)
    reading.check_parts(Parts({}), File({}), 5, time.monotonic() + 60)
    with pytest.raises(reading.Damaged, match=r'etcd counts 1 keys from "" on, and the file has 0'):
        reading.check_parts(Parts({b"a": b""}), File({}), 5, time.monotonic() + 60)
    for key in values:
        with pytest.raises(reading.Damaged, match=r"etcd counts [01] keys from"):
            check({one: value for one, value in values.items() if one != key})
    for more in (b"\0", b"/registry/pods/a/11", b"\xff"):
        with pytest.raises(reading.Damaged, match=r"etcd counts [23] keys from"):
            check({**values, more: b""})
    with pytest.raises(reading.Damaged, match="in another way than it is in the file"):
        check(values, version="1")
    with pytest.raises(reading.Damaged, match="in another way than it is in the file"):
        check({**values, b"/registry/pods/a/0": b"?"})
    with pytest.raises(isolated_server.TimeIsUp):
        reading.check_parts(Parts(values), File(values), 5, time.monotonic() - 1)
