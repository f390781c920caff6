# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot holds, read from its file once; and whether an etcd serves all of it.  Private to this collection.

The objects are read from the file, which is much faster than through etcd.  That an etcd serves the same is shown by etcd:

- The hash of its database is that of the file.  Both are computed by programs of etcd; see _etcd/database_hash.py for what they have in common.
- It counts as many keys as the file has, in each of many small parts of all keys.  The hash is of the records, these counts are of the index.
- The first key of each part, and that of each resource, is read through etcd, and is that of the file with its revisions.
"""

from __future__ import annotations

import base64
import json
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, database_hash, isolated_server, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import inventory as object_inventory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.objects import Objects, judge, plain_kind

# What one question to etcd may take is for a question, not for reading all of a large database.
QUESTION_SECONDS = 30
# A value has 1.5 MB at most (3.4.23 to 3.7.3: embed/config.go, DefaultMaxRequestBytes) unless somebody raised that, so no page is ever larger than both
# this process and etcd can bear.
_PAGE_KEYS, _PAGE_BYTES = 200, 8 * 1024 * 1024
# Keys of a part that is counted, and how many resources begin a part of their own.
_PART_KEYS, _OWN_PARTS = 2000, 1000
# Bytes of the buckets besides `key`, which are hashed here: a second for each 8 MB.
_OTHER_BYTES = 8 * 1024 * 1024
# Versions of etcd whose hash is known.
_HASH_KNOWN_BELOW = (3, 8)
_PLACES, _PROVIDERS, _TRIES = 4096, 100, 5


class Damaged(Exception):
    """The snapshot is not what it should be: one sentence."""


class Unproven(Exception):
    """Nothing was learned of the snapshot, for a reason that is this host's: one sentence."""


class OutOfReach(Exception):
    """A host like this one never has what this needs: one sentence."""


class Reading:
    """What was read: `keys`, `inventory`, `objects`."""

    def __init__(self, prefix):
        self.keys = 0
        self.inventory = object_inventory.Inventory(prefix, named=())
        self.objects = Objects()


def check_revisions(key, created, modified, version, revision):
    if not 0 < created <= modified <= revision or not 0 < version <= modified - created + 1:
        raise Damaged(
            "the key %s contradicts itself: it was made at revision %d, and changed for the %d. time at revision %d, of %d"
            % (_quoted(key), created, version, modified, revision)
        )


# ---- from the file


class FileReading(Reading):
    """All keys and values of a snapshot, read from its file once.

        with FileReading(path, directory, prefix, deadline, hashed) as reading:
            reading.file.prove()
            reading.count()

    directory: where keys are sorted that do not fit into memory.  hashed, beside: as SnapshotFile has them.
    """

    def __init__(self, path, directory, prefix, deadline, hashed=None, beside=None):
        super().__init__(prefix)
        self._judge = _Judge(self.inventory.prefix)
        # a SnapshotFile, the proof of which reads and judges all records
        self.file = mvcc.SnapshotKeys(path, directory, deadline, hashed, self._judge, beside)
        # [first key, its create revision, mod revision and version, how it is stored, how many keys there are up to the next part]
        self.parts = []

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.file.close()

    def count(self):
        """Count the keys that are there in the end, when the file has been proven.  Raises Damaged, and what mvcc.SnapshotKeys raises."""
        try:
            self.file.finish()
        except mvcc.Contradiction as exc:
            raise Damaged("it contradicts itself: %s" % exc) from exc
        storages, revision, place = self._judge.storages, self.file.revision, self._judge.place
        resource = namespace = directory = part = None
        own, plain, begins = set(), 0, True
        # They are in order, so most are in the same place as the one before.
        for key, created, modified, version in self.file:
            version, verdict = mvcc.judged(version)
            if not 0 < created <= modified <= revision or not 0 < version <= modified - created + 1:
                check_revisions(key, created, modified, version, revision)
            if verdict:
                slash = key.rfind(b"/") + 1
                if key[:slash] != directory:
                    self._add(resource, namespace, plain)
                    directory, plain = key[:slash], 0
                    resource, namespace = place(directory)[:2]
                    if resource not in own and len(own) < _OWN_PARTS:
                        own.add(resource)
                        begins = True
                if verdict == PLAIN:
                    plain += 1
                else:
                    name = key[slash:].decode("utf-8", "replace")
                    self.inventory.count(resource, namespace, name)
                    self.objects.count(resource, namespace, name, storages[verdict])
            if begins or part[-1] >= _PART_KEYS:
                part = [key, created, modified, version, storages[verdict], 0]
                self.parts.append(part)
                begins = False
            part[-1] += 1
        self._add(resource, namespace, plain)
        self.keys = sum(part[-1] for part in self.parts)

    def _add(self, resource, namespace, number):
        """Count so many objects that can be read."""
        if number:
            self.inventory.count(resource, namespace, "", number)
            self.objects.count(resource, namespace, "", self._judge.storages[PLAIN], number)

    def others(self):
        """The buckets besides `key`, as SnapshotFile.others() has them."""
        return self.file.others(b"key", _OTHER_BYTES)

    @property
    def revision(self):
        return self.file.revision

    @property
    def volume(self):
        return self.file.volume


# The number of objects that can be read and are stored as most are.
PLAIN = 2


class _Judge:
    """Judges values for mvcc.SnapshotKeys: 0 of no object, 1 of one that cannot be read, else the number of what is in `storages`."""

    def __init__(self, prefix):
        self._prefix = prefix
        self.storages = [None, None, "protobuf"]
        self._numbers = {None: 1, "protobuf": PLAIN}
        self._places = {}

    def place(self, directory):
        """(resource, namespace, the namespace as bytes, whether any name is one) of the objects whose keys begin with this and have a name behind it.

        None of no objects.
        """
        found = self._places.get(directory, False)
        if found is False:
            if len(self._places) >= _PLACES:
                self._places.clear()
            # `services/specs` alone is no object's, although `services/NAME` would be
            parsed, *others = (object_inventory.parse_key(directory.decode("utf-8", "replace") + name, self._prefix) for name in ("x", "specs", "endpoints"))
            found = (parsed[0], parsed[1], parsed[1].encode("utf-8"), all(others)) if parsed else None
            self._places[directory] = found
        return found

    def __call__(self, key, data, start, end):
        slash = key.rfind(b"/") + 1
        place = self._places.get(key[:slash], False)
        if place is False:
            place = self.place(key[:slash])
        name = key[slash:]
        if place is None or not name:
            return 0
        resource, namespace, written, certain = place
        kind = plain_kind(data, start, end, written, name)
        if kind and certain and (resource != "secrets" or kind == "Secret"):
            return PLAIN
        text = name.decode("utf-8", "replace")
        if object_inventory.parse_key(key.decode("utf-8", "replace"), self._prefix) is None:
            return 0
        storage = judge(resource, namespace, text, data[start:end])
        number = self._numbers.get(storage)
        if number is None:
            if len(self.storages) >= _PROVIDERS:
                raise mvcc.Unreadable("more than %d providers encrypt objects" % _PROVIDERS)
            number = self._numbers[storage] = len(self.storages)
            self.storages.append(storage)
        return number


# ---- whether an etcd serves it


class Difference:
    """Why what is served is not known to be what is in the file: one sentence without a capital and a full stop.

    harmless: whether that may be so of a good snapshot.
    """

    def __init__(self, sentence, harmless=True):
        self._sentence = sentence
        self.harmless = harmless

    def __str__(self):
        return self._sentence


class Comparison:
    """Compares the database that a Throwaway serves with the file that it was restored from.

    database: its path.  etcd is asked for its hash at once, and difference() takes the answer.
    """

    def __init__(self, served, database):
        self._served = served
        self._database = database
        self._ask()

    def _ask(self):
        self._before = self._others()
        self._answer = self._served.begin_hash()

    def _others(self):
        with boltdb.SnapshotFile(self._database) as opened:
            return opened.others(b"key", _OTHER_BYTES)

    def difference(self, reading, whole, revision, deadline):
        """A Difference, or None.

        reading: the FileReading of the file.  whole: the file's hash by etcd's tool, eight hexadecimal digits, or None.  revision: the one of the snapshot.
        """
        server = self._served.server
        of_file = reading.others() if whole else None
        if of_file is None or self._before is None:
            return Difference("there is no hash of it to compare")
        for dummy in range(_TRIES):
            answer, others = self._answer(deadline), self._others()
            if answer is None or others is None:
                return Difference("etcd %s does not say its hash" % server.version)
            if database_hash.without_volatile(others) == database_hash.without_volatile(self._before):
                break
            # it wrote meanwhile, as it does once when it has started
            self._ask()
        else:
            return Difference("etcd %s goes on writing to it" % server.version)
        of_served, newest = answer
        if newest > revision or reading.revision != revision:
            return Difference("keys have gone with their leases since etcd serves it")
        expected = database_hash.of_keys(int(whole, 16), of_file, reading.volume)
        if expected in [database_hash.of_keys(of_served, others, reading.volume, ignored) for ignored in database_hash.IGNORED]:
            return None
        meta = dict(of_file.get(b"meta", ()))
        if meta.get(b"scheduledCompactRev") != meta.get(b"finishedCompactRev"):
            return Difference("it was taken during a compaction, which goes on where it is served")
        if version_tuple(server.version) >= _HASH_KNOWN_BELOW:
            return Difference("the hash of etcd %s is not known to this collection" % server.version)
        return Difference("etcd %s serves other records than the file has, although all of them can be read" % server.version, False)


def check_parts(served, reading, revision, deadline):
    """Ask a Throwaway for the number of keys in each part of a FileReading, and for the first key of each; raises Damaged."""
    if not reading.parts:
        _check_count(ask(served, b"\0", b"\0", revision, 1, deadline), b"", 0)
    for number, (key, created, modified, version, storage, count) in enumerate(reading.parts):
        # before the first key and behind the last one there are none either; a NUL as the end stands for everything
        end = reading.parts[number + 1][0] if number + 1 < len(reading.parts) else b"\0"
        answer = ask(served, key if number else b"\0", end, revision, 1, deadline)
        _check_count(answer, key, count)
        pair = answer["kvs"][0]
        value = base64.b64decode(pair.get("value", ""))
        found = object_inventory.parse_key(key.decode("utf-8", "replace"), reading.inventory.prefix)
        if base64.b64decode(pair["key"]) != key or revisions_of(pair) != (created, modified, version) or (found and judge(*found, value) != storage):
            raise Damaged("etcd serves the key %s in another way than it is in the file" % _quoted(key))


def _check_count(answer, key, count):
    found = int(answer.get("count", 0))
    if found != count:
        raise Damaged("etcd counts %d keys from %s on, and the file has %d" % (found, _quoted(key), count))


def _quoted(key):
    return json.dumps(key.decode("utf-8", "replace"))[:200]


def revisions_of(pair):
    return tuple(int(pair.get(name, 0)) for name in ("create_revision", "mod_revision", "version"))


def ask(served, start, end, revision, limit, deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise isolated_server.TimeIsUp("it could not be read back in time")
    question = {"key": encoded(start), "range_end": encoded(end), "limit": limit, "revision": revision}
    return served.range(question, min(left, QUESTION_SECONDS), _PAGE_BYTES)


def encoded(key):
    return base64.b64encode(key).decode("ascii")


# ---- through etcd


def read_back(served, revision, prefix, deadline):
    """Every key and value of what a Throwaway serves at one revision, as a Reading; raises Damaged."""
    reading = Reading(prefix)
    # etcd's lowest key is one NUL, which as an end stands for everything
    start, limit, count = b"\0", _PAGE_KEYS // 4, None
    while True:
        try:
            answer = ask(served, start, b"\0", revision, limit, deadline)
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
            check_revisions(key, *revisions_of(pair), revision)
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
