# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Taking a snapshot, step by step: look, check room, save, verify, describe, encrypt, sign, publish.  Private to this collection."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, downgrade, members_on_disk
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, offline_tool, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import (
    encryption,
    fingerprints as snapshot_fingerprints,
    inventory as object_inventory,
    levels as verification_levels,
    signature as snapshot_signature,
    status as snapshot_status,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import FORMAT, Manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import free_bytes

# A snapshot is as large as the database, which goes on growing while it is sent.
_HEADROOM = 1.1
# Keys per question: neither etcd nor this process ever holds more.
_PAGE = 5000
# An object inventory is worth this many seconds and no more.
_INVENTORY_SECONDS = 120


# ---- look


def tools_for(client, etcdutl):
    """(etcdctl, etcdutl or None) as Tool, etcdctl the one of the client; Refused when it takes no snapshots."""
    found, other = find_tools(client.binary, etcdutl, client.timeout)
    if not found.can_save:
        raise Refused("%s is %s %s, which takes no snapshots; give the path of an etcdctl as `etcdctl`" % (found.path, found.name, found.version))
    # asked now, beside the questions to etcd: once there is a file, it would wait for the answer
    offline_tool("status", found, other)
    return found, other


def look_at_member(client):
    """(status, names of alarms) of the member that is asked; Refused when a snapshot of it could not be relied on."""
    status = client.status()
    if status["is_learner"]:
        raise Refused("the member at %s is a learner, whose data may be incomplete; ask a voting member" % client.endpoint)
    if status["leader_id"] == "0":
        raise Refused("the member at %s has no leader, so its data may be behind the cluster's; nothing was taken" % client.endpoint)
    alarms = client.alarms()
    if "CORRUPT" in alarms:
        raise Refused("etcd has raised the alarm CORRUPT: members disagree about the data, and a snapshot of one may be the wrong one; nothing was taken")
    return status, alarms


class Host:
    """What this host knows of its cluster: `pods`, `kubernetes_version` and `etcd_version` or "", the `prefix` of the keys of objects, `fingerprints`."""

    def __init__(self, manifests_dir, pki_dir):
        try:
            self.pods = static_pods.read_static_pods(manifests_dir)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            # No control plane, or a stray copy of a manifest: the data are worth a snapshot all the same.
            self.pods = {}
        apiserver, etcd = self.pods.get("kube-apiserver"), self.pods.get("etcd")
        self.kubernetes_version = apiserver.image_version if apiserver else ""
        self.etcd_version = etcd.image_version if etcd else ""
        self.prefix = apiserver.flags.get("etcd-prefix", "/registry") if apiserver else "/registry"
        self.fingerprints = snapshot_fingerprints.fingerprints(manifests_dir, pki_dir)


def source_of(host, name, status, members, of_data):
    """What a manifest says of the cluster and the member, as they were before anything was saved.

    status, members: as EtcdClient has them.  name: of this host.  of_data: whether it is of a data directory, where no member leads.
    """
    member = status["member_id"]
    return {
        "format": FORMAT,
        "source": "data directory" if of_data else "member",
        "etcd_version": status["version"],
        "kubernetes_version": host.kubernetes_version or None,
        "cluster_id": status["cluster_id"],
        "member": {
            "id": member,
            "name": next((one["name"] for one in members if one["id"] == member), ""),
            "leader": None if of_data else member == status["leader_id"],
        },
        "members": members,
        "host": name or socket.gethostname(),
        "fingerprints": host.fingerprints,
    }


# ---- check room


def room(database_size, packed=False):
    """Bytes that a snapshot needs; for a moment the packed one is there as well."""
    return int(database_size * _HEADROOM) * (2 if packed else 1)


def check_room(directory, needed):
    short = directory.shortage(needed, "a snapshot")
    if short:
        raise Refused("%s; nothing was taken and nothing removed" % short)


# ---- save


class _Pace:
    """Pauses a tool that writes a file whenever it is ahead of so many bytes in a second."""

    def __init__(self, paths, limit):
        self.paths, self.limit = paths, limit
        self.start = time.monotonic()
        self.paused = False

    def __call__(self, group):
        size = 0
        for path in self.paths:
            with contextlib.suppress(OSError):
                size = max(size, os.stat(path).st_size)
        ahead = size > self.limit * (time.monotonic() - self.start)
        if ahead != self.paused:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGSTOP if ahead else signal.SIGCONT)
            self.paused = ahead


def save(client, target, timeout, limit=None):
    """Save a snapshot of the member that is asked; returns its Hashed, or None where it is still to be read.  limit: bytes in a second."""
    if hasattr(client, "save"):
        # no etcd serves it
        return client.save(target)
    # etcdctl gives the file its name at the end
    paths = (target, target + ".part")
    pace = _Pace(paths, limit) if limit else None
    with boltdb.GrowingFile(*paths) as growing:

        def watch(group):
            if pace:
                pace(group)
            growing.look()

        result = run_tool(client.argv("snapshot", "save", target, command_timeout=timeout), timeout + 10, cwd=client.cwd, watch=watch)
        if result.rc == 0 and os.path.isfile(target):
            return growing.finish(time.monotonic() + timeout)
    if free_bytes(target) < 1024 * 1024:
        raise Refused("no snapshot was taken: the disk of %s is full" % os.path.dirname(os.path.dirname(target)))
    raise ToolError("no snapshot was taken: `etcdctl snapshot save` %s: %s" % (result.how(), client.words(result)), result)


# ---- verify


def verify(target, name, etcdctl, etcdutl, hashed=None):
    """(what the file that etcd sent holds, in a manifest's words; what could not be determined); Refused when it cannot be relied on.

    hashed: what save() returned.
    """
    started = time.monotonic()
    with boltdb.SnapshotFile(target, hashed=hashed) as opened:
        found = snapshot_status.examine(target, etcdctl, etcdutl, opened=opened)
    if found["problems"]:
        raise Refused("what etcd sent is no snapshot to rely on, so it was not kept: %s" % found["problems"][0].replace(target, name))
    verified = {one: found[one] for one in ("size", "sha256", "hash", "revision", "total_keys", "total_size", "storage_version", "integrity")}
    # The path of the tool means something on this host only.
    verified["tool"] = {one: found["tool"][one] for one in ("name", "version")} if found["tool"] else None
    verified["levels"] = snapshot_status.levels(found, time.monotonic() - started)
    verified["level"] = verification_levels.highest(verified["levels"])
    return dict(verified, verified=True), found["undetermined"]


def left_members(client, path, members):
    """Members in a snapshot that the cluster it is of does not have, neither before nor after."""
    left = members_on_disk.leftovers(members_on_disk.in_database(path), members)
    try:
        return members_on_disk.leftovers(left, client.members()) if left else []
    except ToolError:
        return []


# ---- describe


def count_objects(client, revision, prefix):
    """(inventory, None) or (None, why there is none): the keys of exactly this revision, page by page."""
    inventory = object_inventory.Inventory(prefix)
    start = inventory.prefix
    # the first key behind everything that has the prefix
    stop = start[:-1] + chr(ord(start[-1]) + 1)
    end = time.monotonic() + _INVENTORY_SECONDS
    seen = None
    while True:
        if time.monotonic() > end:
            return None, "counting the objects took longer than %d seconds" % _INVENTORY_SECONDS
        # A page begins at the last key of the one before, since no command line can hold the key behind it (a NUL).
        page = ["get", start, stop, "--keys-only", "--rev=%d" % max(revision, 1), "--limit=%d" % (_PAGE + 1), "--write-out=json"]
        try:
            answer = json.loads(client.run(*page).stdout)
        except ToolError as exc:
            return None, exc.message
        except ValueError:
            return None, "`etcdctl get` printed something that is not JSON"
        keys = [base64.b64decode(kv["key"]).decode("utf-8", "replace") for kv in answer.get("kvs", [])]
        for key in keys:
            if key != seen:
                inventory.add(key)
        if not answer.get("more") or not keys or keys[-1] == seen:
            return inventory.as_dict(), None
        start = seen = keys[-1]


# ---- encrypt


def encrypt(target, compression, recipients, timeout, files):
    """Compress and encrypt what was verified: (the new file, what the manifest says of it besides).  files: of a bundle, or None."""
    encrypted = target + ".encrypted"
    packing = encryption.description(compression, recipients)
    try:
        if files is not None:
            packing.update(encryption.pack(target, target + ".tar", files))
            os.unlink(target)
            target += ".tar"
        stored = encryption.encrypt(target, encrypted, compression, recipients, timeout)
    except OSError as exc:
        raise encryption.EncryptionError(os_error_words(exc)) from exc
    # from here on the only copy is the encrypted one
    os.unlink(target)
    return encrypted, dict(stored, packing=packing)


# ---- all of it


class Taken:
    """A snapshot that is in place: its `manifest`, the `seconds` of each step, what is `undetermined`, and members of no cluster that are in it (`left`)."""

    def __init__(self):
        self.manifest = None
        self.seconds = {}
        self.undetermined = []
        self.left = []
        self._last = time.monotonic()

    def step(self, name):
        """A step ends now."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


def take(directory, client, tools, source, prefix, options, files=None, warn=None):
    """Take a snapshot into a SnapshotDirectory whose lock is held: Taken.

    tools: as tools_for() gives them.  source: as source_of() describes it.  prefix: of the keys of objects.  options: compression, recipients,
    inventory, save_timeout, bwlimit in bytes, storage_version, suffix of the name, signing_key.  files: of a bundle.
    warn: takes a sentence about the cluster, which holds whatever becomes of the snapshot.
    """
    began, name = directory.free_name(source["host"], options["suffix"])
    # A manifest must not say that the snapshot is of a time to come.
    time.sleep(max(0, began - time.time()))
    os.mkdir(directory.partial(name), 0o700)
    # The tool puts its own temporary file beside its target, and this directory goes as a whole.
    target = os.path.join(directory.partial(name), "snapshot.db")
    taken = Taken()
    if options["storage_version"]:
        with downgrade.Downgrade(client, options["storage_version"]) as downgraded:
            hashed = save(client, target, options["save_timeout"], options["bwlimit"])
        if downgraded.problem:
            warn(downgraded.problem)
    else:
        hashed = save(client, target, options["save_timeout"], options["bwlimit"])
    taken.step("save")
    verified, taken.undetermined = verify(target, name, *tools, hashed=hashed)
    # up to 3.5 no version is stored
    stored = verified["storage_version"] or "3.5"
    if options["storage_version"] and version_tuple(stored)[:2] != version_tuple(options["storage_version"])[:2]:
        raise Refused("what etcd sent is stored as etcd %s does, so it was not kept" % stored)
    # a copy that is served names itself alone
    taken.left = left_members(client, target, source["members"]) if source["source"] == "member" else []
    taken.step("verify")
    if not options["inventory"]:
        inventory, problem = None, "it was not wanted"
    elif hasattr(client, "count_objects"):
        inventory, problem = client.count_objects(target, hashed, object_inventory.Inventory(prefix), _INVENTORY_SECONDS)
    else:
        inventory, problem = count_objects(client, verified["revision"], prefix)
    taken.step("inventory")
    values = dict(source, file=name, created=utc(began), inventory_problem=problem, **verified)
    if "packing" in source:
        plain = {one: verified[one] for one in ("size", "sha256")}
        target, stored = encrypt(target, options["compression"], options["recipients"], options["save_timeout"], files)
        values.update(stored, plain=plain)
        if inventory and options["recipients"]:
            # the manifest is never encrypted
            inventory = dict(inventory, names={})
    taken.step("encrypt")
    taken.manifest = Manifest(dict(values, inventory=inventory))
    if options["signing_key"]:
        taken.manifest = snapshot_signature.sign(taken.manifest, options["signing_key"], directory.partial(name))
    directory.publish(target, taken.manifest)
    return taken
