# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verification levels of a snapshot, from its bytes up to an etcd that serves what was restored from it.  Private to this collection.

    checksum    the stored file has the size and the SHA-256 that its manifest names
    status      the database in it is whole, etcd's own tool accepts it, and hash and revision are the manifest's
    restore     etcd's own tool restores it
    drill       the objects in the file can be read, and an etcd that nobody else can reach serves the file's keys and values
    objects     an API server shows every object, decrypted and decoded

A level only counts when the one below it was reached.  All of a drill begins at once: etcd's tool restores while one process reads the file from front to
back for its checksum, and another one page by page for all else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, isolated_server, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import LOCAL
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, offline_tool, restore_misfit, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import (
    encryption,
    levels as verification_levels,
    reading as snapshot_reading,
    status as snapshot_status,
    trial as snapshot_trial,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.reading import Damaged, OutOfReach, Unproven
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.forked import Forked, Lost, TimeIsUp
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

# The write-ahead log of an etcd that was restored and started.
_OWN_SPACE = 160 * 1024 * 1024
_HEADROOM = 1.1
# Niceness of what a drill does not wait for: the restore and the etcd on its data take longest.
_BESIDE = 15


# ---- object inventories


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
    show: what the level objects does.  It is called with the path of the snapshot itself and the seconds that are left, returns what is recorded, and
    raises Unproven or OutOfReach.
    """

    def __init__(self, path, manifest, options, plain=None, identity_file=None, remote=None, show=None):
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
        self._show = show
        self.levels = {}
        self.notes = []
        self.facts = {}
        self._wanted = None
        self._deadline = None
        self._started, self._ended = 0, None
        self._found_tools = None
        self._work = None
        self._stack = contextlib.ExitStack()
        # what only the levels up to the drill need
        self._drilling = contextlib.ExitStack()
        # the snapshot itself, a SnapshotFile, once it is known; while it is read a Forked that returns its Hashed and when that was known
        self._opened, self._hashing = None, None
        # `snapshot status`, which begins when the checksum is known
        self._status_tool = None
        # what etcd's programs do with it meanwhile, from where it can be restored on
        self._trial = None
        # a FileReading, when its file was read; without one the objects are read through etcd, for the reason in `_unread`
        self._reading = None
        self._unread = ""
        self._contradiction = None
        self._prefix, self._image = read_manifests(options["manifests_dir"])
        self._prefix = str(_dict(self.known.get("inventory")).get("prefix") or self._prefix)

    def to(self, wanted):
        """Verify up to `wanted`; raises Damaged or Unproven where it ends.  What was reached is in `levels`."""
        self._wanted = wanted
        size = self.manifest.size if self.remote else _size(self.stored)
        self._deadline = time.monotonic() + (self.options["timeout"] or 2 * snapshot_status.default_timeout(size))
        try:
            for name in verification_levels.LEVELS[: verification_levels.LEVELS.index(wanted) + 1]:
                # a level says so where its work began before, or ended
                self._started, self._ended = time.monotonic(), None
                try:
                    more = getattr(self, "_" + name)()
                except OutOfReach as exc:
                    self.notes.append("the verification level %s is out of reach: %s" % (name, exc))
                    break
                except Damaged as exc:
                    self.levels[name] = verification_levels.result(False, self._seconds(), str(exc))
                    raise
                except RcloneError as exc:
                    if exc.kind not in ("corrupt", "absent"):
                        raise Unproven("the verification level %s could not be tried: %s" % (name, exc.message)) from exc
                    self.levels[name] = verification_levels.result(False, self._seconds(), exc.message)
                    raise Damaged(exc.message) from exc
                except (isolated_server.TimeIsUp, _OutOfTime):
                    raise Unproven("the verification level %s was not finished in time; raise `timeout`, or find out why this host is so slow" % name) from None
                except isolated_server.ThrowawayError as exc:
                    raise Unproven("the verification level %s could not be tried: %s" % (name, exc)) from exc
                except ToolError as exc:
                    raise Unproven("the verification level %s could not be tried: %s" % (name, exc.message)) from exc
                self.levels[name] = verification_levels.result(True, self._seconds(), **more)
        finally:
            with self._stack:
                self._drilling.close()

    def _seconds(self):
        """How long the level took that is being tried."""
        return (self._ended or time.monotonic()) - self._started

    def _left(self):
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _OutOfTime
        return left

    @property
    def _is_drill(self):
        return self._wanted in verification_levels.LEVELS[3:]

    def _plain_size(self):
        # retention may remove it at any time
        return _size(self.plain) or 0

    def _workplace(self):
        if self._work is None:
            self._work = self._stack.enter_context(WorkDir(self.options["work_dir"])).path
        return self._work

    def _checksum(self):
        if self.remote:
            return self._checksum_off_site()
        size = _size(self.stored)
        if size is None:
            raise Damaged("%s is missing, or not a regular file" % self.path)
        self._compare(size=size)
        self._restore_early()
        try:
            if self.plain == self.stored:
                self._ended = self._read_plain()
                hashed = self._opened.hashed
            else:
                hashed = boltdb.hash_file(self.stored, self._look)
        except OSError as exc:
            raise Damaged("%s cannot be read: %s" % (self.path, exc.strerror)) from exc
        self._compare(sha256=hashed.sha256)
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
        short = shortage(self.options["work_dir"], int(size * _HEADROOM) + more, "verifying the snapshot")
        if short:
            raise Unproven(short)

    def _status(self):
        if self.plain is None:
            self.plain = self._open()
        self._restore_early()
        etcdctl, etcdutl = self._tools()
        if self._opened is None:
            with contextlib.suppress(OSError):
                self._read_plain()
        found = snapshot_status.examine(self.plain, etcdctl, etcdutl, max(1, int(self._left())), opened=self._opened, first=self._status_tool)
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

    def _read_plain(self):
        """Open the snapshot itself, and read it for its checksum; returns when that was known.  Raises OSError.

        For a drill its pages and records are read at the same time, on another processor if there is one.
        """
        path = os.path.abspath(self.plain)
        if self._trial is None or not self._is_drill:
            self._opened = self._stack.enter_context(boltdb.SnapshotFile(path, beside=self._look))
            self._opened.hashed = boltdb.hash_file(path, self._look)
            return time.monotonic()
        try:
            with Forked(lambda: (boltdb.hash_file(path), time.monotonic()), _BESIDE) as self._hashing:
                self._opened = self._open_reading()
                self._opened.walk_early()
                return self._hashed()
        except Lost as exc:
            raise Unproven("%s cannot be read: %s" % (self.path, exc)) from exc
        finally:
            self._hashing = None

    def _hashed(self):
        """Wait for the checksum of the snapshot itself, and have `snapshot status` begin; returns when it was known."""
        try:
            self._opened.hashed, ended = self._hashing.result(self._deadline)
        except TimeIsUp:
            raise _OutOfTime from None
        if self._opened.hashed.whole and self._status_tool is None:
            self._status_tool = snapshot_status.begin(self._opened, *self._tools(), _BESIDE)
            if self._status_tool:
                self._stack.callback(self._status_tool.end)
        return ended

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
        if self._found_tools is None:
            self._found_tools = find_tools(self.options["etcdctl"], self.options["etcdutl"])
        return self._found_tools

    def _restore_early(self):
        """Begin the restore beside the levels below it.  Where that is impossible, the reason counts at its own level."""
        if self._trial is None and self.plain and self._wanted in verification_levels.LEVELS[2:]:
            with contextlib.suppress(Unproven, ToolError, OSError):
                self._begin_restore()

    def _begin_restore(self):
        tool = offline_tool("restore", *self._tools())
        if tool is None:
            raise Unproven("neither etcdctl nor etcdutl on this host can restore a snapshot: install etcdutl, or give its path as `etcdutl`")
        work = self._workplace()
        self._check_space(self._plain_size(), _OWN_SPACE)
        self._trial = self._drilling.enter_context(snapshot_trial.Trial(tool, os.path.abspath(self.plain), work))

    def _look(self):
        """Go on with what runs beside the reading of the file."""
        if self._trial is None:
            return
        self._trial.look()
        if self._reading and self._trial.ended:
            self._reading.file.leave_free()
        if self._hashing and self._opened and not self._opened.hashed and self._hashing.ready:
            # what is wrong is said by who waits for it
            with contextlib.suppress(_OutOfTime, Lost, OSError):
                self._hashed()

    def _restore(self):
        if self._trial is None:
            self._begin_restore()
        trial, work = self._trial, self._workplace()
        if self._is_drill:
            self._count()
        result = trial.restored(self._left())
        self._started, self._ended = trial.began, trial.ended
        if result.timed_out:
            raise _OutOfTime
        words = result.last_words().replace(work + "/", "")
        if result.rc in snapshot_status.ENDED_FROM_OUTSIDE or (result.rc != 0 and snapshot_status.HOST_TROUBLE.search(result.stderr)):
            raise Unproven("`%s snapshot restore` %s: %s" % (trial.tool.name, result.how(), words))
        if result.rc != 0 or not os.path.isfile(database_path(trial.data)):
            raise Damaged(
                "%s cannot be restored: `%s snapshot restore` of %s %s: %s" % (self.path, trial.tool.name, trial.tool.version, result.how(), words)
            )
        return {"tool": "%s %s" % (trial.tool.name, trial.tool.version)}

    def _open_reading(self):
        """The file, whose objects are read beside the proof of its pages; what is wrong with them is said where etcd serves it.

        From here on an etcd is started as soon as the data is restored.
        """
        self._reading = self._drilling.enter_context(
            snapshot_reading.FileReading(os.path.abspath(self.plain), self._workplace(), self._prefix, self._deadline, beside=self._look)
        )
        # what is restored needs its room as well
        self._reading.file.leave_free(int(self._plain_size() * _HEADROOM))
        self._trial.then(self._etcd)
        return self._reading.file

    def _count(self):
        """Count what was read of the file."""
        try:
            if self._reading is None:
                # there was no room for the restore when the file was read
                self._open_reading().prove()
            self._reading.count()
        except Damaged as exc:
            self._contradiction = exc
        except boltdb.OutOfTime:
            raise _OutOfTime from None
        except (mvcc.Unreadable, mvcc.NoRoom, OSError) as exc:
            self._reading, self._unread = None, str(getattr(exc, "strerror", None) or exc).replace(os.path.abspath(self.plain), self.path)

    def _etcd(self, data):
        """A Throwaway on the restored data, which is not started."""
        etcdctl = find_tool("etcdctl", self.options["etcdctl"])
        try:
            server = self._drilling.enter_context(isolated_server.find_server(self.options["etcd"], LOCAL, etcdctl, self._image))
        except isolated_server.ThrowawayError as exc:
            raise Unproven("no etcd server program can serve it: %s; give the path of one as `etcd`" % exc) from exc
        self._check_version(server)
        misfit = restore_misfit(self._trial.tool.version, server.version)
        if misfit:
            raise Unproven(misfit)
        isolated_server.check_memory(self._plain_size())
        # Reading all of a large database takes longer than a question.
        question = max(snapshot_reading.QUESTION_SECONDS, self._plain_size() // 20000000)
        return isolated_server.Throwaway(server, self._work, data, etcdctl, self._deadline, question)

    def _check_version(self, server):
        needed = self._needed_version()
        if version_tuple(needed)[:2] > version_tuple(server.version)[:2]:
            raise Unproven(
                "%s is etcd %s, which is too old for a snapshot of %s; give the path of a newer etcd as `etcd`" % (server.path, server.version, needed)
            )

    def _needed_version(self):
        """Of the oldest etcd that starts on the data; "" where that is not known."""
        # only the status finds it in the file
        stored, taken_from = self.facts.get("storage_version"), self.known.get("etcd_version") or ""
        if not stored and "storage_version" in self.known and version_tuple(taken_from)[:2] >= (3, 6):
            # up to 3.5 no version is stored
            stored = self.known["storage_version"] or "3.5"
        return stored or taken_from

    def _drill(self):
        trial = self._trial
        if trial.etcd:
            self._check_version(trial.etcd.server)
        try:
            served = trial.served()
            self._started = trial.started
            more = self._read(served, trial)
        except isolated_server.Unservable as exc:
            raise Damaged("%s cannot be served: %s" % (self.path, exc)) from exc
        return dict(more, etcd_version=served.server.version, start=trial.start)

    def _objects(self):
        # another etcd needs the room and the memory
        data = self._trial.data
        self._drilling.close()
        shutil.rmtree(data, ignore_errors=True)
        return self._show(self.plain, self._left())

    def _contents(self, served, comparison, revision):
        """What etcd serves, as a Reading, and why etcd is not known to serve it, as a sentence or None."""
        if self._contradiction:
            raise self._contradiction
        difference = comparison.difference(self._reading, self.facts["hash"], revision, self._deadline) if self._reading else None
        if self._reading and difference is None:
            snapshot_reading.check_parts(served, self._reading, revision, self._deadline)
            return self._reading, None
        # This takes longer, and needs nothing but an etcd.
        found = snapshot_reading.read_back(served, revision, self._prefix, self._deadline)
        if difference and not difference.harmless:
            return found, str(difference)
        self.notes.append("its objects were read through etcd: %s" % (difference or self._unread))
        return found, None

    def _read(self, served, trial):
        expected, inventory = max(self.facts["revision"] or 0, 1), _dict(self.known.get("inventory"))
        hash_kv, compacted, revision = trial.hash_kv(self._deadline) or served.client.hash_kv()
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
        found, unlike = self._contents(served, trial.comparison, expected)
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
        if unlike is not None:
            raise Unproven(unlike)
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
