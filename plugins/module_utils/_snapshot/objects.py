# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects as Kubernetes stores them: what is around each, and whether it can be read.  Private to this collection."""

from __future__ import annotations

import json
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.protobuf import varint

_SAMPLES = 3
_PROTOBUF, _ENCRYPTED, _CBOR = b"k8s\0", b"k8s:enc:", b"\xd9\xd9\xf7"
_PROVIDER = re.compile(rb"k8s:enc:([a-z0-9]+):(v[0-9]+):([^:]+):")
# Every provider has at least a nonce or a block.
_LEAST_CIPHERTEXT = 16
# Of what is not encrypted.
_PLAIN = ("protobuf", "json", "cbor")
_MOST_KINDS = 4096


def fields(data):
    """(number, value) of the fields of a protobuf message; the value is None for one without a length.  ValueError for anything else."""
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = varint(data, at)
            value = None
            if tag & 7 == 0:
                at = varint(data, at)[1]
            elif tag & 7 == 1:
                at += 8
            elif tag & 7 == 5:
                at += 4
            elif tag & 7 == 2:
                length, at = varint(data, at)
                value = data[at : at + length]
                at += length
            else:
                raise ValueError("no type of a field")
            if tag >> 3 == 0 or at > end:
                raise ValueError("no field")
            yield tag >> 3, value
    except IndexError:
        raise ValueError("no number") from None


def _text(data):
    return bytes(data or b"").decode("utf-8")


def _first(data, number):
    return next((value for found, value in fields(data) if found == number), None)


class Envelope:
    """What is around an object: `storage` is protobuf, json, cbor or what encrypts it; `kind`, `namespace` and `name` are "" when they cannot be told."""

    def __init__(self, storage, kind="", namespace="", name=""):
        self.storage = storage
        self.kind = kind
        self.namespace = namespace
        self.name = name


def read_envelope(value):
    """The Envelope of a stored object; ValueError when it has none or is cut off."""
    if value.startswith(_PROTOBUF):
        return _read_protobuf(memoryview(value)[len(_PROTOBUF) :])
    if value.startswith(_ENCRYPTED):
        match = _PROVIDER.match(value)
        if not match or len(value) - match.end() < _LEAST_CIPHERTEXT:
            raise ValueError("nothing is encrypted in it")
        return Envelope(match.group(1).decode("ascii"))
    if value.startswith(_CBOR):
        return Envelope("cbor")
    if not value.startswith(b"{"):
        raise ValueError("no envelope")
    found = json.loads(value.decode("utf-8"))
    metadata = found.get("metadata")
    if not isinstance(found.get("kind"), str) or not isinstance(metadata, dict):
        raise ValueError("no object")
    return Envelope("json", found["kind"], str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))


def _read_protobuf(data):
    kind = raw = None
    for number, value in fields(data):
        if number == 1:
            kind = _text(_first(value or b"", 2))
        elif number == 2:
            raw = value
    if not kind or raw is None:
        raise ValueError("no kind")
    # In every type of Kubernetes the first field is the metadata, of which these two are the name and the namespace.
    metadata = None
    for number, value in fields(raw):
        if number == 1 and metadata is None:
            metadata = value
    names = {number: value for number, value in fields(metadata or b"") if number in (1, 3)}
    return Envelope("protobuf", kind, _text(names.get(3)), _text(names.get(1)))


def stored_object(value):
    """The message of an object that is stored as protobuf; ValueError for anything else."""
    if not value.startswith(_PROTOBUF):
        raise ValueError("no protobuf")
    return _first(memoryview(value)[len(_PROTOBUF) :], 2) or b""


def data_of_configmap(value):
    """{key: bytes} of a ConfigMap that is stored as protobuf; ValueError for anything else."""
    return {_text(_first(entry, 1)): bytes(_first(entry, 2) or b"") for number, entry in fields(stored_object(value)) if number == 2}


def judge(resource, namespace, name, value):
    """How this object is stored: protobuf, json, cbor or what encrypts it; None when it cannot be read, or is another object."""
    try:
        envelope = read_envelope(value)
    except (ValueError, RecursionError, AttributeError):
        return None
    if resource == "secrets" and envelope.kind not in ("", "Secret"):
        return None
    if (envelope.name and envelope.name != name) or (envelope.namespace and envelope.namespace != namespace):
        return None
    return envelope.storage


def plain_kind(data, at, end, namespace, name):
    """The kind of the object in data[at:end] when it is stored as most are: in protobuf, whole, with this namespace and name, all of them bytes.

    None for any other, which judge() has to look at.  This looks at each field as read_envelope() does, in a fifth of the time.
    """
    try:
        head = data[at : at + _HEAD + data[at + _HEAD - 1]]
        kind = _kinds.get(head)
        if kind is None:
            kind = _kind_of(head)
        at += len(head)
        # the object, behind which there are two empty fields
        if data[at] != 0x12 or not kind:
            return None
        size, at = _length(data, at + 1)
        whole = at + size
        if whole + 4 != end or data[whole:end] != b"\x1a\0\x22\0" or data[at] != 0x0A:
            return None
        size, at = _length(data, at + 1)
        metadata = at + size
        # the metadata: name, prefix of a generated name, namespace
        size = len(name)
        if data[at] != 0x0A or data[at + 1] != size or size > 0x7F or data[at + 2 : at + 2 + size] != name:
            return None
        at += 2 + size
        if data[at] == 0x12 and data[at + 1] < 0x80:
            at += 2 + data[at + 1]
        if data[at] == 0x1A:
            size = data[at + 1]
            if size != len(namespace) or size > 0x7F or data[at + 2 : at + 2 + size] != namespace:
                return None
            at += 2 + size
        if not name.isascii() or not namespace.isascii():
            return None
        return kind if _are_fields(data, at, metadata, 4) and _are_fields(data, metadata, whole, 1) else None
    except (IndexError, ValueError):
        return None


# Bytes up to the types that an object begins with, and {all up to their end: the kind, or ""}
_HEAD = len(b"k8s\0\n?")
_kinds = {}
# {the lowest number: tags of most fields from there on, which have a length and a number below 16}
_COMMON = {first: frozenset(number << 3 | 2 for number in range(first, 16)) for first in (1, 4)}


def _kind_of(head):
    kind = ""
    if head.startswith(b"k8s\0\n") and head[_HEAD - 1] < 0x80:
        try:
            kind = _text(_first(head[_HEAD:], 2))
        except ValueError:
            pass
    if len(_kinds) < _MOST_KINDS:
        _kinds[head] = kind
    return kind


def _length(data, at):
    """varint() of what has two bytes at most, mostly."""
    size = data[at]
    if size < 0x80:
        return size, at + 1
    more = data[at + 1]
    return (size + (more - 1 << 7), at + 2) if more < 0x80 else varint(data, at)


def _are_fields(data, at, end, first):
    """Whether data[at:end] is fields of a protobuf message, all of them with this number or a higher one."""
    common = _COMMON[first]
    while at < end:
        tag, size = data[at], data[at + 1]
        if tag not in common:
            if tag > 0x7F:
                # a number of two bytes
                at += 1
                if not 0 < size < 0x80:
                    return False
                size = data[at + 1]
            elif tag < first << 3:
                return False
            kind = tag & 7
            if kind != 2:
                if kind == 0:
                    at = at + 2 if size < 0x80 else varint(data, at + 1)[1]
                elif kind == 1:
                    at += 9
                elif kind == 5:
                    at += 5
                else:
                    return False
                continue
        if size < 0x80:
            at += 2 + size
        else:
            size, at = _length(data, at + 1)
            at += size
    return at == end


class Objects:
    """Counts the stored objects by what they were judged; of what it was given it keeps counts and a few names."""

    def __init__(self):
        self.secrets = 0
        self.encrypted = {}
        # resource -> [readable ones, others, names of some others]
        self._resources = {}

    def add(self, resource, namespace, name, value):
        self.count(resource, namespace, name, judge(resource, namespace, name, value))

    def count(self, resource, namespace, name, storage, number=1):
        """storage: as judge() returned it, for so many objects, of one of which this is the name."""
        found = self._resources.get(resource) or self._resources.setdefault(resource, [0, 0, []])
        if resource == "secrets":
            self.secrets += number
        if storage is None:
            found[1] += number
            if len(found[2]) < _SAMPLES:
                found[2].append("%s/%s" % (namespace, name) if namespace else name)
            return
        found[0] += number
        if storage not in _PLAIN:
            self.encrypted[storage] = self.encrypted.get(storage, 0) + number

    def damaged(self):
        """One sentence for every resource some objects of which cannot be read; where none can, another component stores there in its own format."""
        return [
            "%d of %d %s cannot be read (%s)" % (others, readable + others, resource, ", ".join(names) + (", ..." if others > len(names) else ""))
            for resource, (readable, others, names) in sorted(self._resources.items())
            if others and (readable or resource == "secrets")
        ]

    def unknown(self):
        """Resources none of whose objects are stored in a way that is known."""
        return sorted(resource for resource, (readable, others, _names) in self._resources.items() if others and not readable and resource != "secrets")
