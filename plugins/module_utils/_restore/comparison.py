# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot and an etcd hold, key by key and without any value, in little memory.  Private to this collection.

Both are compared in windows of some thousand keys, whose bounds are keys of the snapshot: etcd counts all keys of the range that it is asked for
(3.4.23 to 3.7.3: mvcc/index.go, Revisions), so that pages of one range without an end would each cost as much as all keys that follow.
"""

from __future__ import annotations

import binascii
import collections
import itertools
import json
import operator
import os
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import commit_vote
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import inventory as object_inventory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import StartedTool, ToolError

VANISH, REAPPEAR, CHANGE = "vanish", "reappear", "change"
STATES = (VANISH, REAPPEAR, CHANGE)
# They come and go by the second in any cluster: they would hide the ones that matter.
QUIET = ("leases", "masterleases", "events")
_QUIET_NAMES = 3
# Keys of no object, as an API server keeps some for itself.
OTHER = "other keys"
# What is in the namespaces beyond those that are told apart.
MANY = "*"
_MAX_GROUPS = 1000
# Up to 3.6 etcd reads the values too, although it does not send them, so a window has as many keys as hold about this many bytes. 3.7 does not
# (3.7.0 and 3.7.3: storage/mvcc/kvstore_txn.go, FastKeysOnly).
_WINDOW_BYTES = 32 * 1000 * 1000
_WINDOWS = (500, 14000)
_KEYS_ONLY = (3, 7)
# So many windows are asked for before they are compared, so that etcd and this process work at the same time.
_AHEAD = 2
_SLOWEST_ANSWER = 60
# What restores themselves left there is not a difference.
_VOTES = commit_vote.PREFIX.encode()


class OutOfTime(Exception):
    """The time that was given is over."""


def window_size(bytes_in_use, keys, version=""):
    """How many keys of an etcd are asked for at a time."""
    if version_tuple(version)[:2] >= _KEYS_ONLY:
        return _WINDOWS[1]
    return max(_WINDOWS[0], min(_WINDOWS[1], _WINDOW_BYTES * max(keys, 1) // max(bytes_in_use, 1)))


class LiveKeys:
    """Every key of one etcd at one revision, a window at a time: {key: (create revision, mod revision, version)}.

    When that revision is compacted away meanwhile it goes on with the newest, and `moved` says so.
    deadline: in time.monotonic().
    """

    def __init__(self, client, deadline):
        self.client = client
        self.deadline = deadline
        status = client.status()
        self.revision = status["revision"]
        self.seen = 0
        self.moved = False
        asked = _Asked(b"", None, self.revision, self._started(b"", None, 1), 1)
        self.window = window_size(status["db_size_in_use"] or status["db_size"], self._answer(asked).get("count", 0), status["version"])

    def begin(self, start, end):
        """Ask for the keys from `start`, which has no NUL, up to `end` (None: all that follow); finish() has the answer."""
        # There may be more than when the snapshot was taken.
        limit = self.window + self.window // 8 + 1
        return _Asked(start, end, self.revision, self._started(start, end, limit), limit)

    def finish(self, asked):
        """The keys that begin() asked for."""
        start, end, found, last = asked.start, asked.end, {}, b""
        while True:
            try:
                answer = self._answer(asked)
            except ToolError as exc:
                if exc.result is None or "has been compacted" not in exc.result.stderr:
                    raise
                if asked.revision == self.revision:
                    self.revision, self.moved = self.client.status()["revision"], True
                asked = _Asked(start, end, self.revision, self._started(start, end, asked.limit), asked.limit)
                continue
            kvs = answer.get("kvs") or ()
            found.update(zip(map(binascii.a2b_base64, map(_KEY, kvs)), map(_NUMBERS, kvs)))
            before, last = last, binascii.a2b_base64(kvs[-1]["key"]) if kvs else last
            if not answer.get("more") or (end is not None and last >= end):
                break
            # No command line can hold the key behind this one (a NUL), nor a key with a NUL, but what is before that is not behind it.
            start = last.partition(b"\0")[0]
            limit = asked.limit if last > before else asked.limit * 2
            asked = _Asked(start, end, self.revision, self._started(start, end, limit), limit)
        if end is not None and last >= end:
            found = {key: numbers for key, numbers in found.items() if key < end}
        self.seen += len(found)
        return found

    def _started(self, start, end, limit):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        command = ["--write-out=json", "get", "--keys-only", "--rev=%d" % max(self.revision, 1), "--limit=%d" % limit]
        # The lowest key is a NUL, which only this flag stands for.
        open_end = end is None or not start
        command += (["--from-key"] if open_end else []) + ["--", os.fsdecode(start)] + ([] if open_end else [os.fsdecode(end)])
        argv = self.client.argv(*command, command_timeout=max(1, int(min(left, _SLOWEST_ANSWER))))
        return StartedTool(argv, cwd=self.client.cwd, bound=True)

    def _answer(self, asked):
        left = self.deadline - time.monotonic()
        result = asked.tool.finish(max(0, min(left, _SLOWEST_ANSWER)) + 2, max_output=256 * 1024 * 1024)
        if result.rc != 0:
            if time.monotonic() >= self.deadline:
                raise OutOfTime
            raise ToolError("its keys cannot be read: `etcdctl get` %s: %s" % (result.how(), result.last_words()), result)
        try:
            return json.loads(result.stdout)
        except ValueError as exc:
            raise ToolError("its keys cannot be read: `etcdctl get` printed something that is not JSON", result) from exc


_KEY, _NUMBERS = operator.itemgetter("key"), operator.itemgetter("create_revision", "mod_revision", "version")
_Asked = collections.namedtuple("_Asked", "start end revision tool limit")


class FileKeys:
    """The same of a snapshot that was verified before, from its file: mvcc.SnapshotKeys, and what that raises.

    directory: where keys are sorted that do not fit into memory.
    """

    def __init__(self, path, directory, deadline):
        self._file = mvcc.SnapshotKeys(path, directory, deadline, boltdb.verified_before(path))
        self.revision = None
        self.seen = 0

    def __enter__(self):
        try:
            self.revision = self._file.read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_exc):
        self._file.close()

    def windows(self, size):
        """(first key, key behind the last one, {key: (create revision, mod revision, version)}) of about `size` keys each.

        The first begins with b"" and the last ends with None, so that they hold every key that there may be.  No bound has a NUL.
        """
        entries = iter(self._file.items())
        start, found = b"", dict(itertools.islice(entries, size))
        for key, numbers in entries:
            if b"\0" in key:
                found[key] = numbers
                continue
            self.seen += len(found)
            yield start, key, found
            start, found = key, {key: numbers}
            found.update(itertools.islice(entries, size - 1))
        self.seen += len(found)
        yield start, None, found


class Counted:
    """The same windows, with the number of keys of each kind in `kinds`; `whole` once all of them are counted."""

    def __init__(self, windows, prefix):
        self.kinds = {}
        self.whole = False
        self._rest = self._count(windows, prefix)

    def __iter__(self):
        return self._rest

    def finish(self):
        """Count those that are left."""
        for dummy in self._rest:
            pass

    def _count(self, windows, prefix):
        kinds = self.kinds
        for window in windows:
            for directory, keys in itertools.groupby(window[2], directory_of):
                keys = list(keys)
                if directory.startswith(_VOTES):
                    continue
                kind = describe(keys[0], prefix)[0]
                if kind in kinds or len(kinds) < _MAX_GROUPS:
                    kinds[kind] = kinds.get(kind, 0) + len(keys)
            yield window
        self.whole = True


def directory_of(key):
    """What keys have in common that are of one kind and namespace."""
    directory = key[: key.rfind(b"/") + 1]
    # One without a name is no object, and `services` has two kinds below it. Each of these is for itself, and no directory ends with a NUL.
    return key + b"\0" if len(directory) == len(key) or directory.endswith(b"/services/") else directory


def compare(snapshot, live):
    """(state, key) in order for every key that restoring `snapshot` over `live`, {key: numbers}, would make vanish, reappear or change.

    Revisions repeat after a restore that did not raise them, so one that is equal proves little: all three numbers count.
    """
    if snapshot == live:
        return
    for key in sorted({key for key, _numbers in snapshot.items() ^ live.items()}):
        if not key.startswith(_VOTES):
            yield VANISH if key not in snapshot else REAPPEAR if key not in live else CHANGE, key


def differences(windows, live):
    """What compare() yields, of all windows of a snapshot and of LiveKeys."""
    pending = collections.deque()
    try:
        for start, end, keys in itertools.chain(windows, [(None,) * 3] * _AHEAD):
            if keys is not None:
                pending.append((keys, live.begin(start, end)))
            if pending and (keys is None or len(pending) > _AHEAD):
                ours, asked = pending.popleft()
                yield from compare(ours, live.finish(asked))
    finally:
        for _ours, asked in pending:
            asked.tool.end()


def printable(text):
    """A key, or a part of it, that can do a terminal no harm."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def describe(key, prefix):
    """(kind, namespace, name) of a key; the name of what is no object is the key."""
    found = object_inventory.parse_key(key.decode("utf-8", "backslashreplace"), prefix)
    return tuple(printable(part) for part in found) if found else (OTHER, "", printable(key))


class Groups:
    """Counts by kind and namespace, with the first `names` of each."""

    def __init__(self, names):
        self.names = names
        self.count = 0
        self._groups = {}

    def add(self, kind, namespace, name):
        self.count += 1
        if kind in QUIET:
            name, namespace = "%s/%s" % (namespace, name) if namespace else name, ""
        group = self._groups.get((kind, namespace))
        if group is None:
            if len(self._groups) >= 2 * _MAX_GROUPS:
                kind = OTHER
            if len(self._groups) >= _MAX_GROUPS:
                namespace = MANY
            group = self._groups.setdefault((kind, namespace), [0, []])
        group[0] += 1
        if len(group[1]) < (min(self.names, _QUIET_NAMES) if kind in QUIET else self.names):
            group[1].append(name)

    @property
    def objects(self):
        """How many of them are objects other than leases and events."""
        return sum(group[0] for (kind, _namespace), group in self._groups.items() if kind not in QUIET + (OTHER,))

    def as_list(self):
        """What is quiet is last."""
        ordered = sorted(self._groups.items(), key=lambda item: (item[0][0] in QUIET, item[0][0] == OTHER, item[0]))
        return [{"kind": kind, "namespace": namespace, "count": count, "names": names} for (kind, namespace), (count, names) in ordered]


def table(differences, limit=0):
    """Aligned lines for a person: one for each state, kind and namespace; what is quiet last.  limit: lines of each state, 0 for all."""
    rows, quiet, left_out = [], [], {}
    for state in STATES:
        loud = [group for group in differences[state] if group["kind"] not in QUIET]
        shown = loud if not limit or len(loud) <= limit else sorted(sorted(loud, key=lambda group: -group["count"])[:limit], key=loud.index)
        if len(shown) < len(loud):
            left_out[state] = (len(loud) - len(shown), sum(group["count"] for group in loud) - sum(group["count"] for group in shown))
        rows += [_row(state, group) for group in shown]
        quiet += [_row(state, group) for group in differences[state] if group["kind"] in QUIET]
    lines = _align(rows + quiet)
    for state, (groups, objects) in left_out.items():
        lines.insert(len(lines) - len(quiet), "%s: %d more in %d other kinds and namespaces" % (state, objects, groups))
    return lines


def _row(state, group):
    names = ", ".join(group["names"])
    return [state, str(group["count"]), group["kind"], group["namespace"] or "-", names + (", ..." if names and group["count"] > len(group["names"]) else "")]


def _align(rows):
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["%-*s  %*s  %-*s  %-*s  %s" % (widths[0], r[0], widths[1], r[1], widths[2], r[2], widths[3], r[3], r[4]) for r in rows]
    return [line.rstrip() for line in lines]
