# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot and an etcd hold, key by key and without any value, in little memory.  Private to this collection."""

from __future__ import annotations

import binascii
import json
import os
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import commit_vote
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import inventory as object_inventory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool

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
# Up to 3.6 etcd reads the values too, although it does not send them (3.7.0 and 3.7.3 do not: storage/mvcc/kvstore_txn.go, FastKeysOnly), so a page has
# as many keys as hold about this many bytes.
_PAGE_BYTES = 32 * 1000 * 1000
_PAGES = (500, 20000)
_SLOWEST_PAGE = 60
# What restores themselves left there is not a difference.
_VOTES = commit_vote.PREFIX.encode()


class OutOfTime(Exception):
    """The time that was given is over."""


def page_size(bytes_in_use, keys):
    return max(_PAGES[0], min(_PAGES[1], _PAGE_BYTES * max(keys, 1) // max(bytes_in_use, 1)))


class Keys:
    """Every key of one etcd in order, as (key, create revision, mod revision, version), at one revision.

    When that one is compacted away meanwhile it goes on with the newest, and `moved` says so.
    deadline: in time.monotonic().
    """

    def __init__(self, client, deadline, revision=None):
        self.client = client
        self.deadline = deadline
        status = client.status()
        self.revision = revision or status["revision"]
        self.total = self._get("--keys-only", "--limit=1", b"").get("count", 0)
        self.page = page_size(status["db_size_in_use"] or status["db_size"], self.total)
        self.seen = 0
        self.moved = False

    def __iter__(self):
        # A page begins at the last key of the one before, since no command line can hold the key behind it (a NUL).
        last, limit = b"", self.page + 1
        while True:
            try:
                # No command line can hold a key with a NUL either, but what is before that is not behind it.
                answer = self._get("--keys-only", "--limit=%d" % limit, last.partition(b"\0")[0])
            except ToolError as exc:
                if exc.result is None or "has been compacted" not in exc.result.stderr:
                    raise
                self.revision, self.moved = self.client.status()["revision"], True
                continue
            more = answer.get("more")
            fresh = False
            for kv in answer.pop("kvs", ()):
                key = binascii.a2b_base64(kv["key"])
                if key > last:
                    fresh, last = True, key
                    self.seen += 1
                    if not key.startswith(_VOTES):
                        yield key, kv["create_revision"], kv["mod_revision"], kv["version"]
            if not more:
                return
            limit = self.page + 1 if fresh else limit * 2

    def _get(self, *args):
        args, start = args[:-1], os.fsdecode(args[-1])
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        command = ["--write-out=json", "get", "--from-key", "--rev=%d" % max(self.revision, 1)] + list(args) + ["--", start]
        timeout = max(1, int(min(left, _SLOWEST_PAGE)))
        result = run_tool(self.client.argv(*command, command_timeout=timeout), timeout + 2, max_output=256 * 1024 * 1024, cwd=self.client.cwd)
        if result.rc != 0:
            if time.monotonic() >= self.deadline:
                raise OutOfTime
            raise ToolError("its keys cannot be read: `etcdctl get` %s: %s" % (result.how(), result.last_words()), result)
        try:
            return json.loads(result.stdout)
        except ValueError as exc:
            raise ToolError("its keys cannot be read: `etcdctl get` printed something that is not JSON", result) from exc


class FileKeys:
    """The same of a snapshot, from its file: mvcc.SnapshotKeys, and what that raises.

    directory: where keys are sorted that do not fit into memory.
    """

    def __init__(self, path, directory, deadline):
        self._file = mvcc.SnapshotKeys(path, directory, deadline)
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

    def __iter__(self):
        for entry in self._file:
            self.seen += 1
            if not entry[0].startswith(_VOTES):
                yield entry


class Counted:
    """The same entries, with the number of those of each kind in `kinds`; `whole` once all of them are counted."""

    def __init__(self, entries, prefix):
        self.kinds = {}
        self.whole = False
        self._rest = self._count(entries, prefix)

    def __iter__(self):
        return self._rest

    def finish(self):
        """Count those that are left."""
        for dummy in self._rest:
            pass

    def _count(self, entries, prefix):
        kinds = self.kinds
        for entry in entries:
            kind = describe(entry[0], prefix)[0]
            if kind in kinds or len(kinds) < _MAX_GROUPS:
                kinds[kind] = kinds.get(kind, 0) + 1
            yield entry
        self.whole = True


def merge(snapshot, live):
    """(state, key) for every key that restoring `snapshot` over `live` would make vanish, reappear or change.

    Both are in order, of tuples whose first item is the key; whatever else differs in them is a change.
    """
    snapshot, live = iter(snapshot), iter(live)
    ours, theirs = next(snapshot, None), next(live, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            yield REAPPEAR, ours[0]
            ours = next(snapshot, None)
        elif ours is None or theirs[0] < ours[0]:
            yield VANISH, theirs[0]
            theirs = next(live, None)
        else:
            # Revisions repeat after a restore that did not raise them, so one that is equal proves little.
            if ours[1:] != theirs[1:]:
                yield CHANGE, ours[0]
            ours, theirs = next(snapshot, None), next(live, None)


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
