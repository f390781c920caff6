# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verification levels of a snapshot, from its bytes up to an etcd that serves what was restored from it.  Private to this collection.

    checksum    the stored file has the size and the SHA-256 that its manifest names
    status      the database in it is whole, etcd's own tool accepts it, and hash and revision are the manifest's
    restore     etcd's own tool restores it
    drill       an etcd that nobody else can reach serves what was restored, and all of it is read back

A level is only tried when the one below it was reached.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import LOCAL
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, offline_tool, restore_misfit, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import (
    encryption,
    inventory as object_inventory,
    levels as verification_levels,
    status as snapshot_status,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import sha256_of_file
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

# The write-ahead log of an etcd that was restored and started.
_OWN_SPACE = 160 * 1024 * 1024
# What one question to etcd may take is for a question, not for reading all of a large database.
_QUESTION_SECONDS = 30
# A value has 1.5 MB at most (3.4.23 to 3.7.3: embed/config.go, DefaultMaxRequestBytes) unless somebody raised that, so no page is ever larger than both
# this process and etcd can bear.
_PAGE_KEYS, _PAGE_BYTES = 200, 8 * 1024 * 1024
_SAMPLES = 3
_PROTOBUF, _ENCRYPTED, _CBOR = b"k8s\0", b"k8s:enc:", b"\xd9\xd9\xf7"
_PROVIDER = re.compile(rb"k8s:enc:([a-z0-9]+):(v[0-9]+):([^:]+):")
# Every provider has at least a nonce or a block.
_LEAST_CIPHERTEXT = 16


class Damaged(Exception):
    """The snapshot is not what it should be: one sentence."""


class Unproven(Exception):
    """Nothing was learned of the snapshot, for a reason that is this host's: one sentence."""


# ---- objects as Kubernetes stores them


def _varint(data, at):
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("no number")


def fields(data):
    """(number, value) of the fields of a protobuf message; the value is None for one without a length.  ValueError for anything else."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        value = None
        if tag & 7 == 0:
            _number, at = _varint(data, at)
        elif tag & 7 == 1:
            at += 8
        elif tag & 7 == 5:
            at += 4
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            value = data[at : at + length]
            at += length
        else:
            raise ValueError("no type of a field")
        if tag >> 3 == 0 or at > end:
            raise ValueError("no field")
        yield tag >> 3, value


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


def data_of_configmap(value):
    """{key: bytes} of a ConfigMap that is stored as protobuf; ValueError for anything else."""
    if not value.startswith(_PROTOBUF):
        raise ValueError("no protobuf")
    raw = _first(memoryview(value)[len(_PROTOBUF) :], 2)
    return {_text(_first(entry, 1)): bytes(_first(entry, 2) or b"") for number, entry in fields(raw or b"") if number == 2}


class Objects:
    """Judges the stored objects one by one; of what it was given it keeps counts and a few names."""

    def __init__(self):
        self.secrets = 0
        self.encrypted = {}
        # resource -> [readable ones, others, names of some others]
        self._resources = {}

    def add(self, resource, namespace, name, value):
        found = self._resources.setdefault(resource, [0, 0, []])
        if resource == "secrets":
            self.secrets += 1
        try:
            envelope = read_envelope(value)
            if resource == "secrets" and envelope.kind not in ("", "Secret"):
                raise ValueError("no Secret")
            if (envelope.name and envelope.name != name) or (envelope.namespace and envelope.namespace != namespace):
                raise ValueError("another object")
        except (ValueError, RecursionError, AttributeError):
            found[1] += 1
            if len(found[2]) < _SAMPLES:
                found[2].append("%s/%s" % (namespace, name) if namespace else name)
            return
        found[0] += 1
        if envelope.storage not in ("protobuf", "json", "cbor"):
            self.encrypted[envelope.storage] = self.encrypted.get(envelope.storage, 0) + 1

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


# ---- what an etcd serves


class Reading:
    """All that was read back: `keys`, `inventory`, `objects`."""

    def __init__(self, prefix):
        self.keys = 0
        self.inventory = object_inventory.Inventory(prefix)
        self.objects = Objects()


def read_back(served, revision, prefix, deadline):
    """Every key and value of what a Throwaway serves at one revision, as a Reading; raises Damaged."""
    reading = Reading(prefix)
    # etcd's lowest key is one NUL, which as an end stands for everything
    start, limit, count = b"\0", _PAGE_KEYS // 4, None
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise isolated_server.TimeIsUp("it could not be read back in time")
        question = {"key": base64.b64encode(start).decode("ascii"), "range_end": "AA==", "limit": limit, "revision": revision}
        try:
            answer = served.range(question, min(left, _QUESTION_SECONDS), _PAGE_BYTES)
        except isolated_server.TooMuch:
            if limit == 1:
                raise Unproven("it holds a value of more than %d MB" % (_PAGE_BYTES // 1000000)) from None
            limit = max(1, limit // 8)
            continue
        if count is None:
            count = int(answer.get("count", 0))
        pairs = answer.get("kvs") or []
        size = 0
        for pair in pairs:
            key, value = base64.b64decode(pair["key"]), base64.b64decode(pair.get("value", ""))
            size += len(value)
            _check_revisions(key, pair, revision)
            reading.keys += 1
            text = key.decode("utf-8", "replace")
            if reading.inventory.add(text):
                reading.objects.add(*object_inventory.parse_key(text, reading.inventory.prefix), value)
        if not answer.get("more") or not pairs:
            break
        start = key + b"\0"
        if size < _PAGE_BYTES // 8:
            limit = min(_PAGE_KEYS, limit * 2)
    if reading.keys != count:
        raise Damaged("etcd counts %d keys in it, and %d can be read" % (count, reading.keys))
    return reading


def _check_revisions(key, pair, revision):
    created, modified, version = (int(pair.get(name, 0)) for name in ("create_revision", "mod_revision", "version"))
    if not 0 < created <= modified <= revision or not 0 < version <= modified - created + 1:
        raise Damaged(
            "the key %s contradicts itself: it was made at revision %d, and changed for the %d. time at revision %d, of %d"
            % (json.dumps(key.decode("utf-8", "replace"))[:200], created, version, modified, revision)
        )


def is_count(objects):
    """Whether this is {resource: {namespace: number}}."""
    return isinstance(objects, dict) and all(
        isinstance(counts, dict) and all(isinstance(number, int) for number in counts.values()) for counts in objects.values()
    )


def compare_inventory(manifest, found, most=5):
    """One sentence about where the objects that were counted differ from those that the manifest has, or None."""
    differences = []
    for resource in sorted(set(manifest) | set(found)):
        before, now = manifest.get(resource, {}), found.get(resource, {})
        if before == now:
            continue
        if sum(before.values()) != sum(now.values()):
            differences.append("%d %s instead of %d" % (sum(now.values()), resource, sum(before.values())))
            continue
        namespace = min(name for name in set(before) | set(now) if before.get(name, 0) != now.get(name, 0))
        differences.append("%d %s in %s instead of %d" % (now.get(namespace, 0), resource, namespace or "no namespace", before.get(namespace, 0)))
    if not differences:
        return None
    more = len(differences) - most
    return "it holds " + ", ".join(differences[:most]) + (", and %d more resources differ" % more if more > 0 else "")


# ---- the levels


class Verification:
    """One snapshot and the level that it reaches.

    path: the file as stored, or its name in `remote`, a Remote of _remote/store.py.
    plain: the snapshot itself where the stored file is packed and was decrypted before, or None.
    manifest: its Manifest, or None.  options: etcd, etcdctl, etcdutl, work_dir, manifests_dir, timeout.
    identity_file: with the private key that decrypts it, or None.
    """

    def __init__(self, path, manifest, options, plain=None, identity_file=None, remote=None):
        # messages do not name its temporary path
        self.path = remote.path(path) if remote else path
        self.remote = remote
        self.name = path
        self.stored = None if remote else path
        self.manifest = manifest
        self.known = manifest.values if manifest else {}
        self.options = options
        # one that others packed has no manifest of ours
        self.packed = manifest.is_packed if manifest else path.endswith((".zst", ".age", ".tar"))
        self.plain = plain if self.packed else self.stored
        self.identity_file = identity_file
        self.levels = {}
        self.notes = []
        self.facts = {}
        self._wanted = None
        self._deadline = None
        self._work = None
        self._data = None
        self._stack = []

    def to(self, wanted):
        """Verify up to `wanted`; raises Damaged or Unproven where it ends.  What was reached is in `levels`."""
        self._wanted = wanted
        size = self.manifest.size if self.remote else _size(self.stored)
        self._deadline = time.monotonic() + (self.options["timeout"] or 2 * snapshot_status.default_timeout(size))
        try:
            for name in verification_levels.LEVELS[: verification_levels.LEVELS.index(wanted) + 1]:
                started = time.monotonic()
                try:
                    more = getattr(self, "_" + name)()
                except Damaged as exc:
                    self.levels[name] = verification_levels.result(False, time.monotonic() - started, str(exc))
                    raise
                except RcloneError as exc:
                    if exc.kind not in ("corrupt", "absent"):
                        raise Unproven("the verification level %s could not be tried: %s" % (name, exc.message)) from exc
                    self.levels[name] = verification_levels.result(False, time.monotonic() - started, exc.message)
                    raise Damaged(exc.message) from exc
                except (isolated_server.TimeIsUp, _OutOfTime):
                    raise Unproven("the verification level %s was not finished in time; raise `timeout`, or find out why this host is so slow" % name) from None
                except isolated_server.ThrowawayError as exc:
                    raise Unproven("the verification level %s could not be tried: %s" % (name, exc)) from exc
                except ToolError as exc:
                    raise Unproven("the verification level %s could not be tried: %s" % (name, exc.message)) from exc
                self.levels[name] = verification_levels.result(True, time.monotonic() - started, **more)
        finally:
            while self._stack:
                self._stack.pop().__exit__(None, None, None)

    def _left(self):
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _OutOfTime
        return left

    def _enter(self, context):
        entered = context.__enter__()
        self._stack.append(context)
        return entered

    def _workplace(self):
        if self._work is None:
            self._work = self._enter(WorkDir(self.options["work_dir"])).path
        return self._work

    def _checksum(self):
        if self.remote:
            return self._checksum_off_site()
        size = _size(self.stored)
        if size is None:
            raise Damaged("%s is missing, or not a regular file" % self.path)
        self._compare(size=size)
        try:
            found = sha256_of_file(self.stored)
        except OSError as exc:
            raise Damaged("%s cannot be read: %s" % (self.path, exc.strerror)) from exc
        self._compare(sha256=found)
        return {}

    def _compare(self, **found):
        problem = self.manifest and self.manifest.differs(self.path, **found)
        if problem:
            raise Damaged(problem)

    def _checksum_off_site(self):
        size, sha256 = self.manifest.size, self.manifest.sha256
        if self._wanted == verification_levels.LEVELS[0]:
            # nothing more is to be done with it, so it is read where it is
            found, digest = self.remote.digest(self.name, size)
            if digest != sha256:
                what = "it has %d bytes, and had %d" % (found, size) if digest is None else "its sha256 has changed"
                raise Damaged("%s is not the file that was taken: %s" % (self.path, what))
            return {}
        work = self._workplace()
        self._check_space(size, 0)
        self.stored = os.path.join(work, os.path.basename(self.name))
        self.remote.get(self.name, self.stored, size, sha256)
        self.plain = self.plain if self.packed else self.stored
        return {}

    def _check_space(self, size, more):
        short = shortage(self.options["work_dir"], int(size * 1.1) + more, "verifying the snapshot")
        if short:
            raise Unproven(short)

    def _status(self):
        if self.plain is None:
            self.plain = self._open()
        etcdctl, etcdutl = self._tools()
        found = snapshot_status.examine(self.plain, etcdctl, etcdutl, max(1, int(self._left())))
        if found["integrity"] == "unproven":
            raise _OutOfTime
        if found["problems"]:
            raise Damaged(found["problems"][0].replace(self.plain, self.path))
        self.facts.update({name: found[name] for name in ("revision", "hash", "total_size", "storage_version")})
        if self.packed and self.manifest:
            for name in ("size", "sha256"):
                self._differs(name, self.manifest.plain.get(name), found[name])
        for name in ("revision", "total_size", "hash"):
            self._differs(name, self.known.get(name), found[name])
        self.notes += found["undetermined"]
        return {"tool": snapshot_status.levels(found, 0)["status"]["tool"]}

    def _open(self):
        """Where the snapshot in the encrypted file is now."""
        closed = "it is encrypted, and only its checksum can be verified without decrypting it: %s"
        if self.manifest and self.manifest.is_encrypted and not self.identity_file:
            raise Unproven(closed % "give the file with a private key of it")
        work = self._workplace()
        # of a bundle the tar as well, until the snapshot is out of it
        if self.manifest:
            self._check_space(self.manifest.plain.get("size") or 0, self.manifest.tar_size)
        decrypted = os.path.join(work, "decrypted.db")
        try:
            encryption.decrypt(self.stored, decrypted, self.manifest, self.identity_file, max(1, self._left()))
        except encryption.EncryptionError as exc:
            problem = str(exc).replace(self.stored, self.path)
            if exc.kind == "corrupt":
                raise Damaged(problem) from exc
            raise Unproven(closed % problem) from exc
        return decrypted

    def _differs(self, name, expected, found):
        if expected is not None and found is not None and expected != found:
            raise Damaged(
                "%s is damaged, or another snapshot: its %s is %s, and was %s" % (self.path, name, found, expected)
            )

    def _tools(self):
        return find_tools(self.options["etcdctl"], self.options["etcdutl"])

    def _restore(self):
        tool = offline_tool("restore", *self._tools())
        if tool is None:
            raise Unproven("neither etcdctl nor etcdutl on this host can restore a snapshot: install etcdutl, or give its path as `etcdutl`")
        work = self._workplace()
        self._check_space(_size(self.plain), _OWN_SPACE)
        self._data = os.path.join(work, "data")
        result = run_tool([tool.path, "snapshot", "restore", os.path.abspath(self.plain), "--data-dir", self._data], self._left())
        if result.timed_out:
            raise _OutOfTime
        words = result.last_words().replace(work + "/", "")
        if result.rc in snapshot_status.ENDED_FROM_OUTSIDE or (result.rc != 0 and snapshot_status.HOST_TROUBLE.search(result.stderr)):
            raise Unproven("`%s snapshot restore` %s: %s" % (tool.name, result.how(), words))
        if result.rc != 0 or not os.path.isfile(database_path(self._data)):
            raise Damaged("%s cannot be restored: `%s snapshot restore` of %s %s: %s" % (self.path, tool.name, tool.version, result.how(), words))
        self.facts["restored_by"] = tool.version
        return {"tool": "%s %s" % (tool.name, tool.version)}

    def _drill(self):
        started = time.monotonic()
        etcdctl = find_tool("etcdctl", self.options["etcdctl"])
        prefix, image = read_manifests(self.options["manifests_dir"])
        inventory = _dict(self.known.get("inventory"))
        prefix = str(inventory.get("prefix") or prefix)
        try:
            server = self._enter(isolated_server.find_server(self.options["etcd"], LOCAL, etcdctl, image))
        except isolated_server.ThrowawayError as exc:
            raise Unproven("no etcd server program can serve it: %s; give the path of one as `etcd`" % exc) from exc
        needed = self.facts.get("storage_version") or self.known.get("etcd_version") or ""
        if version_tuple(needed)[:2] > version_tuple(server.version)[:2]:
            raise Unproven(
                "%s is etcd %s, which is too old for a snapshot of %s; give the path of a newer etcd as `etcd`" % (server.path, server.version, needed)
            )
        misfit = restore_misfit(self.facts["restored_by"], server.version)
        if misfit:
            raise Unproven(misfit)
        isolated_server.check_memory(_size(self.plain))
        # Reading all of a large database takes longer than a question.
        question = max(_QUESTION_SECONDS, _size(self.plain) // 20000000)
        try:
            served = self._enter(isolated_server.Throwaway(server, self._work, self._data, etcdctl, self._deadline, question))
            seconds = {"start": round(time.monotonic() - started, 2)}
            more = self._read(served, prefix, inventory)
        except isolated_server.Unservable as exc:
            raise Damaged("%s cannot be served: %s" % (self.path, exc)) from exc
        return dict(more, etcd_version=server.version, start=seconds["start"])

    def _read(self, served, prefix, inventory):
        expected = max(self.facts["revision"] or 0, 1)
        hash_kv, compacted, revision = served.client.hash_kv()
        if revision < expected:
            raise Damaged("%s is served at revision %d, and holds %d" % (self.path, revision, expected))
        if compacted > expected:
            # of what was deleted last only the compaction is left
            expected = revision
        elif revision > expected:
            # leases end, and their keys with them, as soon as there is an etcd again
            hash_kv, compacted, revision = served.client.hash_kv(expected)
        if "CORRUPT" in served.client.alarms():
            raise Damaged("%s is of a cluster whose members disagreed about the data: etcd had raised the alarm CORRUPT" % self.path)
        found = read_back(served, expected, prefix, self._deadline)
        broken = found.objects.damaged()
        if broken:
            raise Damaged("%s is served, but %s" % (self.path, ", and ".join(broken)))
        counted = found.inventory.as_dict()["objects"]
        if inventory.get("objects") is not None:
            if not is_count(inventory["objects"]):
                raise Damaged("the manifest of %s is damaged: its object inventory is invalid" % self.path)
            different = compare_inventory(inventory["objects"], counted)
            if different:
                raise Damaged("%s is served, but not all that was taken: %s" % (self.path, different))
        else:
            what = "its manifest has no object inventory" if self.manifest else "it has no manifest"
            self.notes.append("its objects were only counted: %s to compare them with" % what)
        before = verification_levels.passed(self.manifest.levels, "drill") if self.manifest else None
        same = before and (before.get("etcd_version"), before.get("compact_revision")) == (served.server.version, compacted)
        if same and before.get("hash_kv") not in (None, hash_kv):
            raise Damaged("%s is served, but with the hash %d, and had %s at %s" % (self.path, hash_kv, before["hash_kv"], before.get("at")))
        if found.objects.unknown():
            self.notes.append("stored in a way that is not Kubernetes', so only counted: %s" % ", ".join(found.objects.unknown()))
        encrypted = sum(found.objects.encrypted.values())
        if encrypted and _dict(self.known.get("fingerprints")).get("encryption_configuration", "") is None:
            self.notes.append("%d objects are encrypted, but the API server had no EncryptionConfiguration when it was taken" % encrypted)
        return {
            "revision": expected,
            "keys": found.keys,
            "objects": sum(sum(counts.values()) for counts in counted.values()),
            "resources": len(counted),
            "secrets": found.objects.secrets,
            "encrypted": found.objects.encrypted,
            "hash_kv": hash_kv,
            "compact_revision": compacted,
        }


class _OutOfTime(Exception):
    """The time that was given is over."""


def read_manifests(directory):
    """(prefix of the keys of objects, version of etcd's image or "") of the control plane of this host, or what kubeadm has."""
    try:
        pods = static_pods.read_static_pods(directory)
    except (OSError, ValueError):
        return "/registry", ""
    apiserver, etcd = pods.get("kube-apiserver"), pods.get("etcd")
    return apiserver.flags.get("etcd-prefix", "/registry") if apiserver else "/registry", etcd.image_version if etcd else ""


def _dict(value):
    """What a manifest has, unless it is damaged."""
    return value if isinstance(value, dict) else {}


def _size(path):
    """Bytes of a regular file, or None."""
    return os.path.getsize(path) if os.path.isfile(path) and not os.path.islink(path) else None
