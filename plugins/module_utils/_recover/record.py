# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of recover changed, for its undo: a journal on the node, written before each change.  Private to this collection.

    /var/lib/k8s-dr-recover/20260102T030405Z-1a2b/journal       one JSON object a line

The first line says what the run is about.  A change has a line with `action` before it is made, and one with `done` or `failed` after it; `uid` without
`done` says that it was made, and that the object may have been changed since; `undone` says that it was undone.  A line that a power cut left unfinished
is not read.  Nothing of the values of Secrets is written, and no checksum of them, by which short values could be guessed: they have `live`, the
resourceVersion.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import sync_directory, write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import NamedLock

SECRETS = "secrets"
_JOURNAL = "journal"
# What two runs must share to be one that was interrupted.
_SAME = ("snapshot", "selection", "overwrite")


class Record:
    """The journal of one run; a context, which closes the file."""

    def __init__(self, directory, identifier):
        self.id = identifier
        self.path = os.path.join(directory, identifier)
        self.about, self._changes, self.finished = {}, {}, False
        self._descriptor = None
        for line in _lines(os.path.join(self.path, _JOURNAL)):
            self._take(line)

    @classmethod
    def create(cls, directory, about):
        """A new one, of which nothing is on the disk before the first change."""
        record = cls(directory, "%s-%s" % (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), secrets.token_hex(2)))
        record.about = dict(about, id=record.id, created=utc())
        return record

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self._close()

    def _close(self):
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def changes(self):
        """In the order in which they were made."""
        return [self._changes[number] for number in sorted(self._changes)]

    def _take(self, line):
        number = line.get("n")
        if number is None:
            self.finished = self.finished or "finished" in line
            if not self.about:
                self.about = line
        elif "action" in line:
            self._changes[number] = line
        elif number in self._changes:
            self._changes[number].update(line)

    def begin(self, action, item, **more):
        """Write down a change that is about to be made; its number.  item: has `there`, `here`, `namespace` and `name`."""
        resource = item.here or item.there
        change = {"n": max(self._changes, default=-1) + 1, "action": action, "resource": resource.id, "version": resource.version, "kind": resource.kind}
        change.update(namespace=item.namespace, name=item.name, **({} if resource.id == SECRETS else more))
        self.write(change)
        return change["n"]

    def end(self, number, **what):
        """Write down how a change ended.  The next one puts it on the disk: whether it was made can be seen in the cluster."""
        if "live" in what and self._changes[number]["resource"] != SECRETS:
            del what["live"]
        if "done" in what and self._changes[number]["resource"] == SECRETS:
            what["done"] = ""
        self.write(dict(what, n=number), durable=False)

    def finish(self):
        if self.changes:
            self.write({"finished": utc()})

    def write(self, line, durable=True):
        if self._descriptor is None:
            self._open()
        self._append(_text(line))
        if durable:
            os.fsync(self._descriptor)
        self._take(line)

    def _append(self, text):
        """All of a text or nothing: a full disk may take a part of it without an error."""
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.path.join(self.path, _JOURNAL))
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise

    def forget(self):
        """Remove the earlier values of overwritten objects that are as before again."""
        changes = self.changes
        used = [change for change in changes if "before" in change and "undone" in change]
        if not used:
            return
        for change in used:
            del change["before"]
        lines = [self.about, *changes, *([{"finished": utc()}] if self.finished else [])]
        self._close()
        write_durably(os.path.join(self.path, _JOURNAL), b"".join(map(_text, lines)).decode())

    def _open(self):
        path = os.path.join(self.path, _JOURNAL)
        is_new = not os.path.exists(path)
        if is_new:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._descriptor).st_size
        if is_new or size == 0:
            self._append(_text(self.about))
            sync_directory(self.path)
            sync_directory(os.path.dirname(self.path))
        elif os.pread(self._descriptor, 1, size - 1) != b"\n":
            # a power cut left the end of a line out; what follows must not be lost with it
            self._append(b"\n")


def _text(line):
    return (json.dumps(line, sort_keys=True) + "\n").encode()


def _lines(path):
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found


def names(directory):
    """The ids of all records, the oldest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(directory) if os.path.isfile(os.path.join(directory, name, _JOURNAL)))
    return []


def find(directory, identifier):
    """The record with this id; Refused where there is none."""
    known = names(directory)
    if identifier not in known:
        raise Refused("there is no record %s in %s; there are: %s" % (identifier, directory, ", ".join(known[-10:]) or "none"))
    return Record(directory, identifier)


def unfinished(directory, about):
    """The record of a run of the same selection that was interrupted; None where there is none."""
    for identifier in reversed(names(directory)):
        record = Record(directory, identifier)
        if all(record.about.get(key) == about.get(key) for key in _SAME):
            undone = any("undone" in change for change in record.changes)
            return None if record.finished or undone else record
    return None


def undo_command(identifier):
    """What an operator types to undo a run."""
    return "ansible-playbook k8s_dr.etcd.recover -e etcd_recover_undo=%s" % identifier


def interrupted(directory, resumed):
    """Sentences about runs that were interrupted and that a run which continues `resumed`, the id of one or None, leaves as they are."""
    for identifier in names(directory):
        record = Record(directory, identifier)
        is_undone = any("undone" in change for change in record.changes)
        if record.finished or is_undone or all("failed" in change for change in record.changes):
            continue
        if identifier == resumed:
            yield "The run %s was interrupted; this one continues it" % identifier
        else:
            yield "The run %s was interrupted; to undo it: %s" % (identifier, undo_command(identifier))


def prune(directory, keep, current=None):
    """Remove all but the newest ones; 0 keeps all.  current: the id of one that stays in any case, which may be old if this run continued it."""
    for identifier in names(directory)[:-keep] if keep > 0 else []:
        if identifier != current:
            shutil.rmtree(os.path.join(directory, identifier), ignore_errors=True)


def lock(directory, holder):
    """One run at a time on this node."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return NamedLock(os.path.join(directory, "lock"), holder, "another run recovers objects on this node:%s; wait until it has ended")
