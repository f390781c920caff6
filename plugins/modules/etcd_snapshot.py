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
  - With O(data_dir) the snapshot is of a data directory that no etcd uses, as a restore leaves one behind. Where its database has all of its
    write-ahead log, as after an orderly end of etcd, the snapshot is made of the database; otherwise an isolated etcd serves a copy of the
    directory, which itself is only read.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.etcd
  - k8s_dr.etcd.signers
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
      - With O(signers), only snapshots that one of them signed are counted and removed. If none of them signed the new one, or this host cannot check
        that, a warning says so, and nothing is removed.
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
        EncryptionConfiguration, the other files that the flags of the control plane name, and kubeadm's ClusterConfiguration. The name then has C(.tar) in
        the place of C(.db).
      - Refused without O(recipients), since private keys are among them.
    type: bool
    default: false
  signing_key:
    description:
      - Path on this host of the private key that signs the manifest, with C(ssh-keygen) of OpenSSH 8.2 or later. Modules with an option C(signers)
        accept only snapshots that it signed. None means that the snapshot is not signed.
      - Only root may read it, and it has no passphrase. Another key is refused before a snapshot is taken.
      - The signature covers everything in the manifest but what is recorded later, as verification levels and off-site copies are, and names the
        cluster by its etcd CA.
    type: path
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
  storage_version:
    description:
      - The minor version before that of the etcd that runs, such as V(3.6). The snapshot then also serves on an etcd of that version, which does not start
        on data of a later one. For the way back from an upgrade.
      - For the seconds that the snapshot takes, the cluster is told to downgrade (C(etcdctl downgrade enable)), and then that this is over
        (C(etcdctl downgrade cancel)). It serves meanwhile. If the module is killed in between, run C(etcdctl downgrade cancel).
      - Needs etcd and C(etcdctl) 3.6 or later. Not for O(data_dir).
    type: str
    default: ""
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
      description: Version of the server; for O(data_dir) of the one that served the copy, or of the image in etcd's manifest where none had to.
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
    signature:
      description: With O(signing_key), C(statement), the text that was signed, and C(ssh), the signature of C(ssh-keygen).
      type: dict
removed:
  description: The surplus snapshots that were removed, or would be.
  returned: success
  type: list
  elements: str
  sample: []
seconds:
  description: Seconds that saving, verifying, counting and encrypting took, and C(serve), which is copying and serving O(data_dir) where that had to be.
  returned: success, not in check mode
  type: dict
  sample: {serve: 0.0, save: 0.2, verify: 0.4, inventory: 0.1, encrypt: 0.0}
"""

import concurrent.futures
import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import downgrade, members_on_disk
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC, EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import encryption, retention, signature, take
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory_access import access_to
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import ManifestError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


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


def main():
    module = AnsibleModule(
        argument_spec=dict(
            CONNECTION_SPEC,
            directory={"type": "path", "default": "/var/backups/etcd"},
            keep={"type": "raw", "default": 0},
            compression={"type": "str", "choices": list(encryption.COMPRESSIONS), "default": "none"},
            recipients={"type": "list", "elements": "str", "default": []},
            bundle={"type": "bool", "default": False},
            signing_key={"type": "path", "no_log": False},
            save_timeout={"type": "int", "default": 600},
            bwlimit={"type": "str"},
            lock_timeout={"type": "int", "default": 0},
            storage_version={"type": "str", "default": ""},
            host={"type": "str"},
            inventory={"type": "bool", "default": True},
            manifests_dir={"type": "path", "default": "/etc/kubernetes/manifests"},
            pki_dir={"type": "path", "default": "/etc/kubernetes/pki"},
            data_dir={"type": "path"},
            work_dir={"type": "path"},
            etcd={"type": "path"},
            **signature.SPEC,
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
    if module.params["storage_version"] and not re.match(r"3\.[0-9]+$", module.params["storage_version"]):
        module.fail_json(msg="`storage_version` must be a minor version of etcd such as 3.6. No snapshot was taken")
    if module.params["storage_version"] and module.params["data_dir"] is not None:
        module.fail_json(msg="`storage_version` needs a member that serves, so it does not go with `data_dir`. No snapshot was taken")
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
    except (Refused, Busy, ManifestError) as exc:
        module.fail_json(msg=str(exc))
    except encryption.EncryptionError as exc:
        module.fail_json(msg="no snapshot was kept, since it could not be compressed or encrypted: %s" % exc)
    except signals.Ended as exc:
        module.fail_json(msg="no snapshot was taken: %s" % exc)
    except OSError as exc:
        module.fail_json(msg="no snapshot was taken: %s" % os_error_words(exc))
    module.exit_json(changed=True, **result)


def run(module):
    params = module.params
    directory = SnapshotDirectory(os.path.realpath(params["directory"]))
    host = take.Host(params["manifests_dir"], params["pki_dir"])
    if params["signing_key"]:
        signature.check_key(params["signing_key"])
        signature.check_cluster(host.fingerprints)
    if params["data_dir"] is None:
        client = EtcdClient(params)
        return go(module, directory, host, client, client.members)
    return of_data(module, directory, host)


def of_data(module, directory, host):
    """The same of a data directory that no etcd uses."""
    # a node compiles what it imports at each run, and other snapshots need none of this
    from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.isolated_server import ThrowawayError  # noqa: PLC0415
    from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.data_directory import DataDirectory  # noqa: PLC0415

    params = module.params
    # The cluster that serves comes first.
    os.nice(10)
    try:
        with DataDirectory(params["data_dir"], params["work_dir"], params, host.etcd_version) as data:
            version = data.check(directory, module.check_mode, take.room)
            if module.check_mode:
                # nothing else can be said of a data directory that is not served
                status = {"version": version, "cluster_id": None, "member_id": None, "db_size": 0}
                return prepare(module, directory, host, None, None, status, [], 0.0)
            start = time.monotonic()
            data.serve()
            served = time.monotonic() - start
            return go(module, directory, host, data.client, lambda: data.members, served)
    except ThrowawayError as exc:
        raise Refused("no snapshot of %s was taken, which is as it was: %s" % (params["data_dir"], exc)) from exc


def go(module, directory, host, client, members, served=0.0):
    # each question starts one of etcd's tools, and they need not wait for each other
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(take.tools_for, client, module.params["etcdutl"]), pool.submit(take.look_at_member, client), pool.submit(members)]
        tools, (status, alarms), known = (one.result() for one in asked)
    if "NOSPACE" in alarms:
        module.warn("etcd has raised the alarm NOSPACE: it refuses writes until space is made and the alarm is disarmed")
    if module.params["storage_version"]:
        downgrade.check(status, tools[0].version, module.params["storage_version"])
    elif status.get("downgrade_target"):
        module.warn(
            "the cluster is told to downgrade to etcd %s, and what is restored from this snapshot will be; `etcdctl downgrade cancel` ends that"
            % status["downgrade_target"]
        )
    return prepare(module, directory, host, client, tools, status, known, served)


def prepare(module, directory, host, client, tools, status, members, served):
    params = module.params
    access = access_to(directory.path, not module.check_mode)
    for warning in access.warnings:
        module.warn(warning)
    options = dict(params, suffix=encryption.suffix(params["compression"], params["recipients"], params["bundle"]))
    if params["data_dir"] is not None:
        options["bwlimit"] = None
    size, limit = status["db_size"], options["bwlimit"]
    options["save_timeout"] += int(size / 1e7) + (int(size / limit) if limit else 0)
    source = take.source_of(host, params["host"], status, members, params["data_dir"] is not None)
    packing = encryption.description(params["compression"], params["recipients"])
    if packing:
        source["packing"] = packing
    needed = take.room(size, bool(packing))
    take.check_room(directory, needed)
    # what is missing is an error before anything is done
    files = files_of_bundle(params, host, client) if params["bundle"] else None
    if module.check_mode:
        snapshot = predict(directory, source, options["suffix"])
        before, uncounted = look_back(directory, params)
        unsigned = directory.signers and not params["signing_key"]
        removed = [] if uncounted or unsigned else retention.to_remove(before, params["keep"], snapshot)
        return {"snapshot": snapshot, "removed": removed, "diff": make_diff(access, before, snapshot, removed)}

    access.prepare()
    with directory.lock(params["lock_timeout"]):
        directory.tidy()
        # what seemed to be left by a run that was killed may have been another one's that was waited for
        take.check_room(directory, needed)
        before, uncounted = look_back(directory, params)
        try:
            taken = take.take(directory, client, tools, source, host.prefix, options, files, module.warn)
        finally:
            # After a success there is nothing to tidy.
            directory.tidy()
        snapshot = dict(taken.manifest.values, path=directory.file(taken.manifest.file))
        refusal = uncounted or not_accepted(directory, taken.manifest, snapshot["path"])
        if refusal:
            module.warn("%s is in place, but no older snapshot was removed: %s" % (snapshot["path"], refusal))
        removed = [] if refusal else remove_surplus(module, directory, before, snapshot)
    for sentence in taken.undetermined:
        module.warn("%s is verified, but its %s" % (snapshot["file"], sentence))
    if taken.left:
        module.warn(members_on_disk.warning(taken.left, "at %s" % client.endpoint))
    diff = make_diff(access, before, snapshot, removed)
    return {"snapshot": snapshot, "removed": removed, "seconds": dict(taken.seconds, serve=round(served, 2)), "diff": diff}


def files_of_bundle(params, host, client):
    from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.bundle import bundle_files  # noqa: PLC0415

    return bundle_files(params["pki_dir"], params["manifests_dir"], host.pods, client)


def look_back(directory, params):
    """(what is there before, why nothing of it can be removed or None).  No trouble with `signers` costs a snapshot."""
    try:
        directory.signers = signature.signers_of(params["signers"]) if retention.rules(params["keep"]) else None
        return directory.snapshots(brief=True), None
    except Refused as exc:
        directory.signers = None
        return directory.snapshots(brief=True), str(exc)


def not_accepted(directory, manifest, path):
    """Why a restore would not accept the new snapshot, so that the older ones have to stay: one sentence, or None."""
    try:
        return directory.signers and directory.signers.problem(manifest, path)
    except Refused as exc:
        return str(exc)


def remove_surplus(module, directory, before, snapshot):
    """Remove what is not to be kept; the new snapshot is in place, so nothing that goes wrong here makes it a failure."""
    removed = []
    for path in retention.to_remove(before, module.params["keep"], snapshot):
        try:
            directory.remove(os.path.basename(path))
            removed.append(path)
        except OSError as exc:
            module.warn("%s is in place, but %s could not be removed: %s" % (snapshot["path"], path, exc.strerror))
        except signals.Ended as exc:
            module.warn("%s is in place, but not all older snapshots were removed: %s" % (snapshot["path"], exc))
            break
    return removed


def predict(directory, source, suffix):
    """What is known beforehand of the snapshot that would be taken."""
    began, name = directory.free_name(source["host"], suffix)
    unknown = dict.fromkeys(("size", "sha256", "hash", "revision", "total_keys", "total_size", "storage_version", "tool", "integrity", "inventory", "levels"))
    return dict(
        unknown,
        path=directory.file(name),
        file=name,
        verified=True,
        level="status",
        created=utc(began),
        inventory_problem=None,
        **source,
    )


def make_diff(access, before, snapshot, removed):
    directory = access.directory
    paths = [entry["path"] for entry in before]
    after = sorted(set(paths + [snapshot["path"]]) - set(removed))
    lines = {"before": sorted(paths), "after": after}
    if access.restrict:
        lines["before"].insert(0, "%s (%s)" % (directory, "absent" if access.mode is None else "mode %04o" % access.mode))
        lines["after"].insert(0, "%s (mode 0700)" % directory)
    return dict({side: "".join(line + "\n" for line in text) for side, text in lines.items()}, before_header=directory, after_header=directory)


if __name__ == "__main__":
    main()
