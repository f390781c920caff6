#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot
short_description: Takes a snapshot of etcd, verifies it and keeps the newest ones
version_added: 0.1.0
description:
  - Saves a snapshot of the member at O(endpoint) into O(directory), verifies that it can be restored, writes its manifest beside it and only then
    gives it its final name. A file named C(etcd-HOST-TIME.db) is therefore complete and verified at every moment, also when the module is interrupted.
  - The manifest (C(etcd-HOST-TIME.db.json)) says what is in the snapshot and which cluster it is of. It holds checksums and names, no secrets.
  - When O(keep) is set, surplus snapshots are removed after the new one is in place.
  - With O(compression) and O(recipients) the module compresses and encrypts the snapshot after verification, and leaves no plain copy. The name then
    ends with C(.zst) and
    C(.age), and the manifest describes both what is stored and what is in it.
  - One snapshot is taken at a time in a directory; a second one is refused, or waits for O(lock_timeout).
  - The next run removes files that interrupted runs left.
  - With O(data_dir) the snapshot is of a data directory that no etcd uses, as a restore leaves one behind. An isolated etcd serves a copy of it,
    since the write-ahead log holds what the database does not, and the directory itself is only read.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.etcd
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - Asks etcd and reads O(directory), and says what would be taken and removed. Writes nothing, not even a lock.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details:
      - Every run takes a snapshot.
options:
  directory:
    description:
      - Where the snapshots are kept. Made with mode 0700 when it does not exist.
      - An existing directory has to belong to root, or to the user who runs the module, since its owner can read and replace what is in it. One that a
        server or a mount gives to another user, as NFS with C(root_squash) does, is accepted when new files in it belong to that user as well. A warning
        says when others could put another directory in its place.
      - An existing directory that others may read is given mode 0700 if it holds nothing but snapshots; otherwise a warning says so.
      - An existing directory that others may write to is given mode 0700 if it holds nothing but snapshots; otherwise the module refuses it.
    type: path
    default: /var/backups/etcd
  keep:
    description:
      - How many verified snapshots to keep, the new one included, or a dictionary of rules as M(k8s_dr.etcd.etcd_snapshot_prune) has them. V(0)
        keeps all.
      - Only verified snapshots of the same host and the same etcd CA are counted and removed. The new one is never removed.
    type: raw
    default: 0
  compression:
    description: Whether to compress the snapshot with C(zstd), which then has to be on this host.
    type: str
    choices: [none, zstd]
    default: none
  recipients:
    description:
      - Public keys to encrypt the snapshot to with C(age), which then has to be on this host. The private key of any one of them decrypts it.
      - >-
        Keys of age itself (C(age1...)) or of SSH (C(ssh-ed25519 ...), C(ssh-rsa ...)), whatever the C(age) on this host takes, with its plugins: it
        is asked
        before a snapshot is taken. None means that it is not encrypted.
      - The names of objects are then left out of the manifest, which is never encrypted.
    type: list
    elements: str
    default: []
  bundle:
    description:
      - >-
        Whether to encrypt, with the snapshot, the files that a new cluster would need: the files in O(pki_dir) and O(manifests_dir), the
        EncryptionConfiguration
        and kubeadm's ClusterConfiguration. The name then has C(.tar) in the place of C(.db).
      - Refused without O(recipients), since private keys are among them.
    type: bool
    default: false
  save_timeout:
    description: Seconds that saving may take, and the same again for encryption, to which one is added for every 10 MB of the database.
    type: int
    default: 600
  bwlimit:
    description:
      - Most that may be read from etcd in a second, such as V(20M) for 20 MiB. C(etcdctl) is paused whenever it is ahead of that.
      - The time that it takes is added to O(save_timeout). Meanwhile etcd keeps the pages that are still to be read, so that its database may grow.
      - Not for O(data_dir), where no cluster is asked.
    type: str
  lock_timeout:
    description: Seconds to wait while another snapshot is being taken in O(directory).
    type: int
    default: 0
  host:
    description: The name of this host in the file's name and the manifest. Its host name by default.
    type: str
  inventory:
    description:
      - Whether to count the cluster's objects in the manifest, by resource and namespace, so that a restore can report which objects it will re-create.
      - Only keys are read, no values. If that fails, the manifest says why; the snapshot is valid without the inventory.
    type: bool
    default: true
  manifests_dir:
    description: Where kubelet finds the static Pods of the control plane. On a host without it the manifest says less.
    type: path
    default: /etc/kubernetes/manifests
  pki_dir:
    description: Where the cluster's certificates are, of which the manifest holds the fingerprints.
    type: path
    default: /etc/kubernetes/pki
  data_dir:
    description:
      - A data directory of etcd, or what its C(member) holds, of which to take the snapshot instead of the member at O(endpoint).
      - It is refused while an etcd uses it.
      - O(save_timeout) is then for serving it as well.
    type: path
  work_dir:
    description:
      - Directory in whose file system the copy of O(data_dir) is made, in a directory of mode 0700 that is removed again whatever happens.
      - Beside O(data_dir) by default.
    type: path
  etcd:
    description:
      - Path of the etcd server program that serves the copy of O(data_dir). It must be of the version that wrote it, or a later one.
      - >-
        When not given it is that of the etcd that runs on this host, else the one in the image that etcd's manifest in O(manifests_dir) names, where
        the container runtime has it unpacked, else one beside O(etcdctl) or in C(PATH).
    type: path
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_list
  - module: k8s_dr.etcd.etcd_snapshot_info
"""

EXAMPLES = r"""
- name: Take a snapshot and keep the newest seven
  k8s_dr.etcd.etcd_snapshot:
    keep: 7
  register: taken

- name: Say where it is
  ansible.builtin.debug:
    var: taken.snapshot.path

- name: Take a snapshot that only the holder of a private key can read
  k8s_dr.etcd.etcd_snapshot:
    compression: zstd
    recipients:
      - age1yetwxtpf6lrxgz30rpvhshyvxqqjt7hy3zr7kzrr4drmp0pfp4hq6nv9rn

- name: Take a snapshot of what a restore discarded
  k8s_dr.etcd.etcd_snapshot:
    data_dir: /var/lib/etcd.restore/20260102T030405Z-4f1c/old
    directory: /var/backups/etcd/discarded

- name: Take a snapshot of a large cluster to a disk of its own, after the one that may be under way
  k8s_dr.etcd.etcd_snapshot:
    directory: /mnt/backup/etcd
    save_timeout: 3600
    lock_timeout: 3600
"""

RETURN = r"""
snapshot:
  description:
    - The manifest of the snapshot, and its path.
    - In check mode what is known beforehand; what only the file can tell is V(null).
  returned: success
  type: dict
  contains: &manifest
    path:
      description: Where it is.
      type: str
      sample: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
    format:
      description: Format of the manifest.
      type: int
      sample: 1
    file:
      description: Name of the file.
      type: str
      sample: etcd-cp1-20260102T030405Z.db
    size:
      description: Its size in bytes, as it is stored.
      type: int
      sample: 938016
    plain:
      description: If it is compressed or encrypted, C(size) and C(sha256) of the snapshot itself.
      type: dict
      sample: {size: 938016, sha256: 9f1c4a8f6f8f6f0f9f3c1a1d0b2f4a3d5e6c7b8a9d0e1f2a3b4c5d6e7f8091a2}
    packing:
      description: >-
        If it is compressed or encrypted, C(compression), C(encryption) (V(age) or V(none)) and C(recipients), the public keys. For O(bundle) also
        C(bundle), the
        names of what is in it besides the snapshot, and C(packed), size and checksum of the tar.
      type: dict
      sample: {compression: zstd, encryption: age, recipients: [age1yetwxtpf6lrxgz30rpvhshyvxqqjt7hy3zr7kzrr4drmp0pfp4hq6nv9rn]}
    sha256:
      description: SHA-256 of the file, as it is stored.
      type: str
      sample: 3f1c4a8f6f8f6f0f9f3c1a1d0b2f4a3d5e6c7b8a9d0e1f2a3b4c5d6e7f8091a2
    hash:
      description: Hash that C(snapshot status) computes over the keys and values, in eight hexadecimal digits.
      type: str
      sample: be5ab8f4
    revision:
      description: Revision of the snapshot.
      type: int
      sample: 582
    total_keys:
      description: Keys as O(etcdutl) or O(etcdctl) counts them. Versions up to 3.5 count revisions, later ones live keys.
      type: int
      sample: 589
    total_size:
      description: Size of the database in bytes.
      type: int
      sample: 937984
    storage_version:
      description: Storage version, which snapshots have from etcd 3.6 on, or V(null).
      type: str
    tool:
      description: Name and version of the tool that counted.
      type: dict
      sample: {name: etcdutl, version: 3.5.16}
    integrity:
      description: V(ok).
      type: str
      sample: ok
    verified:
      description: Whether the file was verified as restorable. Always true for a snapshot that was taken.
      type: bool
      sample: true
    level:
      description: >-
        Verification level. V(status): the checksum, the structure, and C(snapshot status) of etcd's own tool. V(structure): all but
        the last, since there was no tool that could, and RV(snapshot.hash) is V(null).
      type: str
      sample: status
    levels:
      description: Time and result of each verification level that was reached, C(checksum) and C(status).
      type: dict
      sample: {checksum: {at: "2026-01-02T03:04:05Z", ok: true, seconds: 0.1, problem: null}}
    source:
      description: V(member) for the member at O(endpoint), V(data directory) for O(data_dir).
      type: str
      sample: member
    etcd_version:
      description: Version of the server, or of the one that served the copy of O(data_dir).
      type: str
      sample: 3.5.16
    kubernetes_version:
      description: Version of this host's API server, or V(null).
      type: str
      sample: 1.31.2
    cluster_id:
      description: Id of the cluster, in hexadecimal.
      type: str
      sample: 9d8f5c5a1f6b8b1c
    member:
      description: Id and name of the member that was asked, and whether it was the leader, V(null) for O(data_dir).
      type: dict
      sample: {id: 2c5e5a6bd0f2a6d1, name: cp1, leader: false}
    members:
      description: All members of the cluster, of O(data_dir) as it names them.
      type: list
      elements: dict
    host:
      description: The host that took it.
      type: str
      sample: cp1
    created:
      description: When it was begun.
      type: str
      sample: "2026-01-02T03:04:05Z"
    fingerprints:
      description: >-
        SHA-256 of the cluster's CA, etcd's CA, the public service account key and the EncryptionConfiguration, without which the data is
        worthless. V(null) for one that does not exist. C(contents) has, of each, hashes of the certificates and keys in it, so that a file which was only
        written anew is no other one; V(null) where they could not be read.
      type: dict
    inventory:
      description: >-
        In C(objects) the number of objects by resource and namespace, in C(names) the names of some. V(null) when the keys could not be read.
      type: dict
    inventory_problem:
      description: Why there is no object inventory, or V(null).
      type: str
removed:
  description: The surplus snapshots that were removed, or would be.
  returned: success
  type: list
  elements: str
  sample: []
seconds:
  description: Seconds that saving, verifying, counting and encrypting took, and C(serve), which is copying and serving O(data_dir).
  returned: success, not in check mode
  type: dict
  sample: {serve: 0.0, save: 0.2, prove: 0.4, inventory: 0.1, encrypt: 0.0}
"""

import base64
import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server, members_on_disk, wal
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC, EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import Tool, find_tools
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import (
    encryption,
    fingerprints as snapshot_fingerprints,
    inventory as object_inventory,
    manifest as snapshot_manifest,
    retention,
    status as snapshot_status,
    verify as snapshot_verify,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs, signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import sync_directory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import existing, free_bytes, shortage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

# A snapshot is as large as the database, which goes on growing while it is sent.
HEADROOM = 1.1
# Room for the logs of an etcd that starts.
LOG_SPACE = 130 * 1024 * 1024
# Keys per question: neither etcd nor this module ever holds more.
PAGE = 5000
# An object inventory is worth this many seconds and no more.
INVENTORY_SECONDS = 120
OWN = (*snapshot_manifest.SUFFIXES, ".json", ".partial", ".new")
# Where the role etcd_restore keeps the snapshots of what a restore discarded.
OWN_NAMES = (snapshot_manifest.LOCK, "discarded")


def look_at_cluster(client):
    """What the manifest says of the member; Refused when a snapshot of it would be none to rely on."""
    tool = Tool(client.binary, client.timeout)
    if not tool.can_save:
        raise Refused("%s is %s %s, which takes no snapshots; give the path of an etcdctl as `etcdctl`" % (tool.path, tool.name, tool.version))
    status = client.status()
    if status["is_learner"]:
        raise Refused("the member at %s is a learner, whose data may be incomplete; ask a voting member" % client.endpoint)
    if status["leader_id"] == "0":
        raise Refused("the member at %s has no leader, so its data may be behind the cluster's; nothing was taken" % client.endpoint)
    members = client.members()
    alarms = client.alarms()
    if "CORRUPT" in alarms:
        raise Refused("etcd has raised the alarm CORRUPT: members disagree about the data, and a snapshot of one may be the wrong one; nothing was taken")
    return status, members, alarms


def read_pods(manifests_dir):
    try:
        return static_pods.read_static_pods(manifests_dir)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # No control plane, or a stray copy of a manifest: the data are worth a snapshot all the same.
        return {}


def look_at_host(manifests_dir, pki_dir):
    """(Kubernetes version or None, the API server's prefix for keys, fingerprints)"""
    pods = read_pods(manifests_dir)
    apiserver = pods.get("kube-apiserver")
    version = apiserver.image_version if apiserver else None
    prefix = apiserver.flags.get("etcd-prefix", "/registry") if apiserver else "/registry"
    return version or None, prefix, snapshot_fingerprints.fingerprints(manifests_dir, pki_dir)


def plan_directory(directory, probe=True):
    """(mode or None when there is none, whether to set it to 0700, warnings)"""
    replaceable = snapshot_manifest.replaceable(directory)
    warnings = [replaceable] if replaceable else []
    try:
        found = os.stat(directory)
    except FileNotFoundError:
        return None, True, warnings
    if not stat.S_ISDIR(found.st_mode):
        raise Refused("%s is not a directory" % directory)
    owner = snapshot_manifest.foreign_owner(directory, probe)
    if owner is not None:
        raise Refused(
            "%s belongs to %s, who can read and replace every snapshot in it; nothing was taken. Run: chown %s: %s"
            % (directory, snapshot_manifest.name_of(owner), snapshot_manifest.name_of(os.geteuid()), shlex.quote(directory))
        )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return mode, False, warnings
    own = all(name in OWN_NAMES or (name.lstrip(".").startswith("etcd-") and name.endswith(OWN)) for name in os.listdir(directory))
    if own and found.st_uid == os.geteuid():
        return mode, True, warnings
    if mode & 0o022:
        raise Refused(
            "others may write to %s (mode %04o), and it holds more than snapshots, so its mode is left alone; give a directory of its own" % (directory, mode)
        )
    return mode, False, [*warnings, "others may list %s (mode %04o), and it holds more than snapshots, so its mode is left alone" % (directory, mode)]


def check_space(directory, db_size, what="a snapshot", more=0):
    """What interrupted runs left counts as free: it goes before anything is written, and must not keep this from being done."""
    short = shortage(directory, int(db_size * HEADROOM) + more, what, more=snapshot_manifest.unfinished_bytes(directory))
    if short:
        raise Refused("%s; nothing was taken and nothing removed" % short)


class DataDirectory:
    """A data directory that no etcd uses, served as a copy: a context whose value is (client, members that the data names)."""

    def __init__(self, params):
        self.path = os.path.realpath(params["data_dir"])
        self.work_dir = params["work_dir"] or os.path.dirname(self.path)
        self.params = params
        self.stack = contextlib.ExitStack()

    def check(self, directory, check_mode):
        """Refused when it cannot be served, as far as that is to be seen from outside; the version of the server program otherwise."""
        database = isolated_server.database_of(self.path)
        if procs.database_is_locked(database):
            raise Refused("an etcd uses %s right now; nothing was taken" % self.path)
        if not os.path.isdir(self.work_dir):
            raise Refused("%s is not a directory" % self.work_dir)
        if not check_mode:
            # the room that a killed run took is needed again
            with WorkDir(self.work_dir):
                pass
        size = os.path.getsize(database)
        copied = sum(os.path.getsize(path) for path in isolated_server.files_of(self.path))
        shared = os.stat(existing(directory)).st_dev == os.stat(self.work_dir).st_dev
        check_space(self.work_dir, size if shared else 0, "a copy of %s" % self.path + (" with a snapshot of it" if shared else ""), copied + LOG_SPACE)
        if not shared:
            check_space(directory, size)
        isolated_server.check_memory(size)
        with self.server() as server:
            return server.version

    def server(self):
        pods = read_pods(self.params["manifests_dir"])
        version = pods["etcd"].image_version if "etcd" in pods else ""
        return isolated_server.find_server(self.params["etcd"], self.params["endpoint"], find_tool("etcdctl", self.params["etcdctl"]), version)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            work = stack.enter_context(WorkDir(self.work_dir))
            server = stack.enter_context(self.server())
            etcdctl = find_tool("etcdctl", self.params["etcdctl"])
            copy = os.path.join(work.path, "data")
            isolated_server.copy_data(self.path, copy)

            def serve(**more):
                deadline = time.monotonic() + self.params["save_timeout"]
                return stack.enter_context(isolated_server.Throwaway(server, work.path, copy, etcdctl, deadline, self.params["timeout"], election=1000, **more))

            try:
                served = serve()
                members = served.members
            except isolated_server.NotAlone as exc:
                members = exc.members
                try:
                    wal.commit_all(os.path.join(copy, "member", "wal"))
                except (wal.WalError, OSError) as problem:
                    raise isolated_server.Unservable("its write-ahead log cannot be read: %s" % problem) from problem
                served = serve(force_new_cluster=True)
            self.stack = stack.pop_all()
        return served.client, members

    def __exit__(self, *exc):
        return self.stack.__exit__(*exc)


def make_directory(directory, mode):
    if mode is None:
        parent = os.path.dirname(directory)
        if os.path.basename(directory) in OWN_NAMES and not os.path.isdir(parent):
            # that is a directory of snapshots as well
            make_directory(parent, None)
        # What is above is not only for snapshots.
        before = os.umask(0o022)
        try:
            os.makedirs(parent, exist_ok=True)
        finally:
            os.umask(before)
        os.mkdir(directory, 0o700)
        sync_directory(parent)
    else:
        os.chmod(directory, 0o700)


def bytes_of(text):
    """Bytes in a second, or None; ValueError with one sentence."""
    if not text:
        return None
    try:
        limit = human_to_bytes(text)
    except ValueError:
        limit = 0
    if limit < 65536:
        raise ValueError("`bwlimit` is %s, and should be a number of bytes in a second such as 20M, at least 64K" % text)
    return limit


class Pace:
    """Pauses a tool that writes a file whenever it is ahead of so many bytes in a second."""

    def __init__(self, target, limit):
        # etcdctl gives the file its name at the end
        self.paths, self.limit = (target, target + ".part"), limit
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
    pace = Pace(target, limit) if limit else None
    result = run_tool(client.argv("snapshot", "save", target, command_timeout=timeout), timeout + 10, cwd=client.cwd, watch=pace)
    if result.rc != 0 or not os.path.isfile(target):
        raise ToolError("no snapshot was taken: `etcdctl snapshot save` %s: %s" % (result.how(), client.words(result)), result)


def prove(target, path, params):
    """What the file that etcd sent holds, in a manifest's words; nothing but a proven one gets past here."""
    etcdctl, etcdutl = find_tools(params["etcdctl"], params["etcdutl"], params["timeout"])
    started = time.monotonic()
    found = snapshot_status.examine(target, etcdctl, etcdutl)
    if found["problems"]:
        raise Refused("what etcd sent is no snapshot to rely on, so it was not kept: %s" % found["problems"][0].replace(target, os.path.basename(path)))
    proven = {name: found[name] for name in ("size", "sha256", "hash", "revision", "total_keys", "total_size", "storage_version", "integrity")}
    # The path of the tool is nobody's business but this host's.
    proven["tool"] = {name: found["tool"][name] for name in ("name", "version")} if found["tool"] else None
    proven["levels"] = snapshot_status.levels(found, time.monotonic() - started)
    proven["level"] = snapshot_manifest.highest_level(proven["levels"])
    return proven, found["undetermined"]


def take_inventory(client, revision, prefix):
    """(inventory, None) or (None, why there is none): the keys of exactly this revision, page by page."""
    inventory = object_inventory.Inventory(prefix)
    start = inventory.prefix
    # the first key behind everything that has the prefix
    stop = start[:-1] + chr(ord(start[-1]) + 1)
    end = time.monotonic() + INVENTORY_SECONDS
    seen = None
    while True:
        if time.monotonic() > end:
            return None, "counting the objects took longer than %d seconds" % INVENTORY_SECONDS
        # A page begins at the last key of the one before, since no command line can hold the key behind it (a NUL).
        page = ["get", start, stop, "--keys-only", "--rev=%d" % max(revision, 1), "--limit=%d" % (PAGE + 1), "--write-out=json"]
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


def main():
    module = AnsibleModule(
        argument_spec=dict(
            CONNECTION_SPEC,
            directory={"type": "path", "default": "/var/backups/etcd"},
            keep={"type": "raw", "default": 0},
            compression={"type": "str", "choices": list(encryption.COMPRESSIONS), "default": "none"},
            recipients={"type": "list", "elements": "str", "default": []},
            bundle={"type": "bool", "default": False},
            save_timeout={"type": "int", "default": 600},
            bwlimit={"type": "str"},
            lock_timeout={"type": "int", "default": 0},
            host={"type": "str"},
            inventory={"type": "bool", "default": True},
            manifests_dir={"type": "path", "default": "/etc/kubernetes/manifests"},
            pki_dir={"type": "path", "default": "/etc/kubernetes/pki"},
            data_dir={"type": "path"},
            work_dir={"type": "path"},
            etcd={"type": "path"},
        ),
        supports_check_mode=True,
    )
    try:
        retention.rules(module.params["keep"])
        encryption.check(module.params["compression"], module.params["recipients"])
        module.params["bwlimit"] = bytes_of(module.params["bwlimit"])
    except (ValueError, encryption.EncryptionError) as exc:
        module.fail_json(msg="%s. No snapshot was taken" % exc)
    if module.params["bundle"] and not module.params["recipients"]:
        module.fail_json(msg="a bundle holds the private keys of the cluster, so it is only made encrypted: give `recipients`. No snapshot was taken")
    if module.params["lock_timeout"] < 0:
        module.fail_json(msg="`lock_timeout` must not be negative")
    if module.params["save_timeout"] < 1:
        module.fail_json(msg="`save_timeout` must be at least 1")
    signals.raise_when_ended()
    os.umask(0o077)
    try:
        result = run(module)
    except ToolError as exc:
        module.fail_json(msg=exc.message, **exc.details())
    except (Refused, Busy, snapshot_manifest.ManifestError) as exc:
        module.fail_json(msg=str(exc))
    except encryption.EncryptionError as exc:
        module.fail_json(msg="no snapshot was kept, since it could not be compressed or encrypted: %s" % exc)
    except isolated_server.ThrowawayError as exc:
        module.fail_json(msg="no snapshot of %s was taken, which is as it was: %s" % (module.params["data_dir"], exc))
    except signals.Ended as exc:
        module.fail_json(msg="no snapshot was taken: %s" % exc)
    except OSError as exc:
        module.fail_json(msg="no snapshot was taken: %s" % os_error_words(exc))
    module.exit_json(changed=True, **result)


def run(module):
    params = module.params
    directory = os.path.realpath(params["directory"])
    if params["data_dir"] is None:
        return of_member(module, directory, EtcdClient(params), 0.0)
    # The cluster that serves comes first.
    os.nice(10)
    source = DataDirectory(params)
    version = source.check(directory, module.check_mode)
    if module.check_mode:
        return of_data(module, directory, version)
    start = time.monotonic()
    with source as (client, members):
        return of_member(module, directory, client, time.monotonic() - start, members)


def of_data(module, directory, version):
    """What can be said of a data directory that is not served."""
    status = {"version": version, "cluster_id": None, "member_id": None, "db_size": 0}
    return go(module, directory, None, status, [], 0.0)


def of_member(module, directory, client, served, members=None):
    status, found, alarms = look_at_cluster(client)
    # A copy names itself alone, and its address is none.
    members = found if members is None else members
    if "NOSPACE" in alarms:
        module.warn("etcd has raised the alarm NOSPACE: it refuses writes until space is made and the alarm is disarmed")
    return go(module, directory, client, status, members, served)


def go(module, directory, client, status, members, served):
    params = module.params
    kubernetes_version, prefix, fingerprints = look_at_host(params["manifests_dir"], params["pki_dir"])
    mode, set_mode, warnings = plan_directory(directory, not module.check_mode)
    for warning in warnings:
        module.warn(warning)
    limit = params["bwlimit"] if params["data_dir"] is None else None
    params["save_timeout"] += int(status["db_size"] / 1e7) + (int(status["db_size"] / limit) if limit else 0)
    packing = encryption.description(params["compression"], params["recipients"])
    # for a moment both are there
    room = {"db_size": status["db_size"], "more": int(status["db_size"] * HEADROOM) if packing else 0}
    check_space(directory, **room)
    known = {
        "format": snapshot_manifest.FORMAT,
        "source": "member" if params["data_dir"] is None else "data directory",
        "etcd_version": status["version"],
        "kubernetes_version": kubernetes_version,
        "cluster_id": status["cluster_id"],
        "member": {
            "id": status["member_id"],
            "name": next((member["name"] for member in members if member["id"] == status["member_id"]), ""),
            "leader": status["member_id"] == status["leader_id"] if params["data_dir"] is None else None,
        },
        "members": members,
        "host": params["host"] or socket.gethostname(),
        "fingerprints": fingerprints,
    }
    if packing:
        known["packing"] = packing
    suffix = encryption.suffix(params["compression"], params["recipients"], params["bundle"])
    # what is not there is told of before anything is done
    files = bundle_files(params, client) if params["bundle"] else None
    if module.check_mode:
        snapshot = predict(directory, known, suffix)
        before = snapshot_manifest.list_snapshots(directory)
        removed = retention.to_remove(before, params["keep"], snapshot)
        return {"snapshot": snapshot, "removed": removed, "diff": make_diff(directory, mode, set_mode, before, snapshot, removed)}

    if set_mode:
        make_directory(directory, mode)
    with snapshot_manifest.directory_lock(directory, params["lock_timeout"]):
        snapshot_manifest.tidy(directory)
        # what seemed to be left by a run that was killed may have been another one's that was waited for
        check_space(directory, **room)
        before = snapshot_manifest.list_snapshots(directory)
        try:
            snapshot, seconds, undetermined, left = take(client, directory, known, params, prefix, suffix, files)
        finally:
            # After a success there is nothing to tidy.
            snapshot_manifest.tidy(directory)
        removed = remove_surplus(module, before, snapshot)
    for sentence in undetermined:
        module.warn("%s is proven, but its %s" % (snapshot["file"], sentence))
    if left:
        module.warn(members_on_disk.warning(left, "at %s" % client.endpoint))
    diff = make_diff(directory, mode, set_mode, before, snapshot, removed)
    return {"snapshot": snapshot, "removed": removed, "seconds": dict(seconds, serve=round(served, 2)), "diff": diff}


def remove_surplus(module, before, snapshot):
    """Remove what is not to be kept; the new snapshot is in place, so nothing that goes wrong here makes it a failure."""
    removed = []
    for path in retention.to_remove(before, module.params["keep"], snapshot):
        try:
            snapshot_manifest.remove(path)
            removed.append(path)
        except OSError as exc:
            module.warn("%s is in place, but %s could not be removed: %s" % (snapshot["path"], path, exc.strerror))
        except signals.Ended as exc:
            module.warn("%s is in place, but not all older snapshots were removed: %s" % (snapshot["path"], exc))
            break
    return removed


def free_name(directory, host, suffix):
    """(seconds since the epoch, name): the first second from now on whose name is free."""
    began = time.time()
    while os.path.lexists(os.path.join(directory, snapshot_manifest.snapshot_name(host, began, suffix))):
        began += 1
    return began, snapshot_manifest.snapshot_name(host, began, suffix)


def predict(directory, known, suffix):
    began, name = free_name(directory, known["host"], suffix)
    unknown = dict.fromkeys(("size", "sha256", "hash", "revision", "total_keys", "total_size", "storage_version", "tool", "integrity", "inventory", "levels"))
    return dict(
        unknown,
        path=os.path.join(directory, name),
        file=name,
        verified=True,
        level="status",
        created=snapshot_manifest.utc(began),
        inventory_problem=None,
        **known,
    )


def make_diff(directory, mode, set_mode, before, snapshot, removed):
    paths = [entry["path"] for entry in before]
    after = sorted(set(paths + [snapshot["path"]]) - set(removed))
    lines = {"before": sorted(paths), "after": after}
    if set_mode:
        lines["before"].insert(0, "%s (%s)" % (directory, "absent" if mode is None else "mode %04o" % mode))
        lines["after"].insert(0, "%s (mode 0700)" % directory)
    return dict({side: "".join(line + "\n" for line in text) for side, text in lines.items()}, before_header=directory, after_header=directory)


def bundle_files(params, client):
    """{name in the bundle: path, or bytes} of what a new cluster would need besides the snapshot."""
    found = {}
    for directory, prefix in ((params["pki_dir"], "pki"), (params["manifests_dir"], "manifests")):
        for parent, _directories, names in os.walk(directory):
            inner = os.path.relpath(parent, directory)
            found.update({os.path.normpath(os.path.join(prefix, inner, name)): os.path.join(parent, name) for name in names})
    found = {name: path for name, path in found.items() if os.path.isfile(path) and encryption.NAME.match(name)}
    if not any(name.startswith("pki/") and name.endswith(".key") for name in found):
        raise Refused("there are no private keys in %s, and without them a bundle is of no use; give `pki_dir`. No snapshot was taken" % params["pki_dir"])
    pods = read_pods(params["manifests_dir"])
    apiserver = pods.get("kube-apiserver")
    flags = apiserver.flags if apiserver else {}
    if flags.get("encryption-provider-config"):
        path = snapshot_fingerprints.encryption_configuration_file(apiserver)
        if not path:
            raise Refused(
                "the EncryptionConfiguration %s cannot be read on this host, and without it nobody could read the Secrets of the bundle. No snapshot was taken"
                % flags["encryption-provider-config"]
            )
        found["encryption-configuration.yaml"] = path
    configuration = cluster_configuration(client, flags.get("etcd-prefix", "/registry")) if client else None
    if configuration:
        found["kubeadm-config.yaml"] = configuration
    return found


def cluster_configuration(client, prefix):
    """kubeadm's ClusterConfiguration as the cluster has it, or None: not every cluster is one of kubeadm's, and it may be encrypted."""
    try:
        answer = json.loads(client.run("get", prefix.rstrip("/") + "/configmaps/kube-system/kubeadm-config", "--write-out=json").stdout)
        return snapshot_verify.data_of_configmap(base64.b64decode(answer["kvs"][0]["value"])).get("ClusterConfiguration")
    except (ToolError, ValueError, LookupError):
        return None


def left_members(client, path, members):
    """Members in a snapshot that the cluster it is of does not have, neither before nor after."""
    left = members_on_disk.leftovers(members_on_disk.in_database(path), members)
    try:
        return members_on_disk.leftovers(left, client.members()) if left else []
    except ToolError:
        return []


def encrypt_file(target, proven, inventory, params, files=None):
    """Compress and encrypt what was verified: (the new file, what the manifest says of both, the object inventory as it may be read by anybody)."""
    encrypted = target + ".encrypted"
    packing = encryption.description(params["compression"], params["recipients"])
    try:
        if files is not None:
            packing.update(encryption.pack(target, target + ".tar", files))
            os.unlink(target)
            target += ".tar"
        stored = encryption.encrypt(target, encrypted, params["compression"], params["recipients"], params["save_timeout"])
    except OSError as exc:
        raise encryption.EncryptionError(os_error_words(exc)) from exc
    # from here on no copy is left that anybody could read
    os.unlink(target)
    plain = {"size": proven["size"], "sha256": proven["sha256"]}
    if inventory and params["recipients"]:
        inventory = dict(inventory, names={})
    return encrypted, dict(proven, plain=plain, packing=packing, **stored), inventory


def take(client, directory, known, params, prefix, suffix, files=None):
    """Save, verify, describe, encrypt, publish: (the manifest with its path, seconds of each, what could not be determined, members of no cluster in it)."""
    began, name = free_name(directory, known["host"], suffix)
    # A manifest must not say that the snapshot is of a time to come.
    time.sleep(max(0, began - time.time()))
    path = os.path.join(directory, name)
    partial = snapshot_manifest.partial_dir(path)
    os.mkdir(partial, 0o700)
    # The tool puts its own temporary file beside its target, and this directory goes as a whole.
    target = os.path.join(partial, "snapshot.db")
    start = time.monotonic()
    try:
        save(client, target, params["save_timeout"], params["bwlimit"] if params["data_dir"] is None else None)
    except ToolError:
        if free_bytes(directory) < 1024 * 1024:
            raise Refused("no snapshot was taken: the disk of %s is full" % directory) from None
        raise
    saved = time.monotonic()
    proven, undetermined = prove(target, path, params)
    left = left_members(client, target, known["members"]) if params["data_dir"] is None else []
    proved = time.monotonic()
    inventory, problem = take_inventory(client, proven["revision"], prefix) if params["inventory"] else (None, "it was not wanted")
    counted = time.monotonic()
    if "packing" in known:
        target, proven, inventory = encrypt_file(target, proven, inventory, params, files)
    encrypted = time.monotonic()
    manifest = dict(known, file=name, verified=True, created=snapshot_manifest.utc(began), inventory=inventory, inventory_problem=problem)
    manifest.update(proven)
    snapshot_manifest.publish(path, target, manifest)
    seconds = {"save": round(saved - start, 2), "prove": round(proved - saved, 2), "inventory": round(counted - proved, 2)}
    seconds["encrypt"] = round(encrypted - counted, 2)
    return dict(manifest, path=path), seconds, undetermined, left


if __name__ == "__main__":
    main()
