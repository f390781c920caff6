#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_restore_info
short_description: Returns the state of a control plane node before a restore of etcd
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Reads the static Pod manifests of a kubeadm control plane, its etcd data directory, its earlier restores, and what else a restore depends on, such as
    certificates, kubelet, the container runtime, file systems and the clock.
  - Fails only when the host is not a control plane. Findings that only prevent a restore are returned.
extends_documentation_fragment:
  - k8s_dr.etcd.signers
  - k8s_dr.etcd.etcd
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
  - k8s_dr.etcd.static_pods
attributes:
  platform:
    support: full
options:
  data_dir:
    description:
      - Data directory to look for unfinished restores in when etcd's manifest is not in O(manifests_dir).
      - While etcd's manifest is there, the module uses the directory that the manifest mounts at C(--data-dir), and fails if there is none.
    type: path
    default: /var/lib/etcd
  snapshot_dir:
    description: Directory of snapshots, whose free space and newest verified snapshot are returned. It need not exist.
    type: path
    default: /var/backups/etcd
  snapshot:
    description: A snapshot to look for on this host.
    type: path
  signing_key:
    description: Private key on this host that a snapshot will be signed with, to check before anything is stopped.
    type: path
  controller_time:
    description:
      - Time of the controller, in seconds since 1970. It is returned beside the node's time.
      - If RV(restore.time) is earlier, the node's clock is behind. If it is later than the controller's time when the answer arrives, the node's clock is
        ahead. So network latency does not count as a difference.
    type: float
  controller_pod:
    description: Name of the Pod that the controller runs in, to find out whether the Pod belongs to this cluster.
    type: str
  look:
    description:
      - What else to look at, all at the same time, since each question alone would cost a connection to the node.
      - Nothing is asked on a node with an unfinished restore, since its etcd and its API server may be stopped.
    type: list
    elements: str
    choices: [tools, etcd, validation]
    default: []
seealso:
  - module: k8s_dr.etcd.etcd_restore_transaction
  - module: k8s_dr.etcd.etcd_client_info
  - module: k8s_dr.etcd.etcd_cluster_info
  - module: k8s_dr.etcd.kube_validation
"""

EXAMPLES = r"""
- name: Inspect the control plane before a restore
  k8s_dr.etcd.etcd_restore_info:
  register: found
"""

RETURN = r"""
tools:
  description: What etcd's tools of this host can do, as C(tools) of M(k8s_dr.etcd.etcd_client_info). V(null) unless they suit this etcd.
  returned: O(look) has V(tools), and no restore is unfinished
  type: dict
etcd:
  description: What the member of this host says, as C(etcd) of M(k8s_dr.etcd.etcd_cluster_info) but without C(authorities).
  returned: O(look) has V(etcd), and no restore is unfinished
  type: dict
validation:
  description: How the cluster is now, as C(validation) of M(k8s_dr.etcd.kube_validation).
  returned: O(look) has V(validation), and no restore is unfinished
  type: dict
restore:
  description: What was found.
  returned: success
  type: dict
  contains:
    host:
      description: Host name of the node.
      type: str
      sample: dr-control-plane
    complete:
      description: Whether all four manifests of the control plane are in place. False in the middle of a restore.
      type: bool
    missing:
      description: Components without a manifest.
      type: list
      elements: str
    kept_by_kubeadm:
      description: >-
        For RV(restore.missing), the copies that the last C(kubeadm upgrade) kept. They may be of an older version.
      type: dict
      sample:
        etcd: /etc/kubernetes/tmp/kubeadm-backup-manifests-2026-11-28-10-00-00/etcd.yaml
    kubeadm:
      description: >-
        Each kubeadm process that changes the control plane of this node now (C(upgrade apply), C(upgrade node), C(init), C(join), C(reset) or C(certs
        renew)), with V(pid), V(command) and V(seconds), its running time. Leftovers of a finished upgrade do not count.
      type: list
      elements: dict
      sample:
        - pid: 4711
          command: kubeadm upgrade apply
          seconds: 95
    data_dir:
      description: Data directory of etcd on this host, which its manifest may mount under another name.
      type: str
      sample: /var/lib/etcd
    mount_point:
      description: Whether the data directory is a mount point. Then C(member) inside it is what moves.
      type: bool
    data_bytes:
      description: Bytes on disk of etcd's data, without previous data directories.
      type: int
    database_bytes:
      description: Size of the database, which is about the size of a snapshot. V(0) without a database.
      type: int
    free_bytes:
      description: Bytes free in the data directory's file system.
      type: int
    transactions_dir:
      description: Directory that holds this node's restores and previous data directories.
      type: str
      sample: /var/lib/etcd.restore
    transactions:
      description: >-
        Restores on this node, oldest first, each with V(id), V(path), V(state), V(since) and V(ended); V(finished), whether it was ever committed;
        V(untouched), whether it has not stopped anything and has not progressed for 15 minutes; and V(about), the record of an unfinished one.
      type: list
      elements: dict
    unfinished:
      description: Those that were neither committed nor rolled back, each also with V(held), the directory of the manifests that it keeps from kubelet.
      type: list
      elements: dict
    retired:
      description: >-
        The restore of other members that stopped this node's control plane for good, with V(id), V(path), V(state) and V(held), the directory of the
        manifests that it keeps from kubelet. Empty without one, and once the node is a member again.
      type: dict
    data_in_use:
      description: Whether a process, such as a running etcd, locks the database.
      type: bool
    members_on_disk:
      description: >-
        Members of the cluster in etcd's database on this node, whether etcd runs or not, each with V(id), V(name), V(peer_urls), V(client_urls) and
        V(is_learner). Empty without a readable database. The list may be out of date if the member lost its quorum or was stopped. etcd 3.5 up to 3.5.19
        does not write the names of later members there, which then come from its log, nor the promotion of a learner.
      type: list
      elements: dict
      sample:
        - id: 2c5e5a6bd0f2a6d1
          name: cp1
          peer_urls: ["https://192.0.2.11:2380"]
          client_urls: ["https://192.0.2.11:2379"]
          is_learner: false
    revision_on_disk:
      description: Revision of the database on this node; the write-ahead log may hold a little more. V(0) without a readable database.
      type: int
      sample: 582
    etcd:
      description: >-
        V(name), V(peer_urls), V(client_url), V(initial_cluster), V(image) and V(version) of this node's member, from its manifest.
        Empty when the node has no manifest of it.
      type: dict
    kubernetes_version:
      description: Version in the image of kube-apiserver. Empty when the node has no manifest of it.
      type: str
      sample: 1.20.2
    api_address:
      description: Address that the node's API server advertises. Empty when the node has no manifest of it.
      type: str
      sample: 10.0.0.11
    etcd_servers:
      description: The C(--etcd-servers) of the node's API server. Empty when the node has no manifest of it.
      type: list
      elements: str
      sample: ["https://127.0.0.1:2379"]
    api_url:
      description: URL at which other hosts reach the node's API server. Empty when its manifest is not in place, or does not say.
      type: str
      sample: https://10.0.0.11:6443
    api_certificates:
      description: >-
        In PEM, what identifies its API server: the certificates in its flags, and the CAs that may have signed another one. Empty without its manifest, or
        without a readable certificate.
      type: str
    kubelet_running:
      description: Whether a kubelet runs. Only a kubelet stops and starts static Pods.
      type: bool
    kubelet_backs_off:
      description: Whether kubelet may delay the next start of the control plane, because it restarted a part of it recently.
      type: bool
    snapshot_dir:
      description: >-
        V(path), V(free_bytes) of the file system that O(snapshot_dir) is in or would be in, and V(same_file_system), whether that is the one of the
        data directory.
      type: dict
    snapshots:
      description: >-
        V(latest), the newest verified snapshot in O(snapshot_dir), with V(path), V(created) and V(manifest), whether there is a manifest beside it;
        V(given), the file at O(snapshot), with V(path) and V(manifest). Each is empty where there is none. V(problem) says why O(snapshot_dir) cannot
        be read, V(owner) is the name of another user than root who owns it, and V(skipped) says of newer snapshots why O(signers) do not accept them.
        V(unchecked) says why no signature could be checked.
      type: dict
      sample:
        latest: {path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db, created: "2026-01-02T03:04:05Z", manifest: true}
        given: {}
        problem: ""
        owner: ""
        skipped: []
        unchecked: ""
    signing_key_problem:
      description: Why O(signing_key) cannot sign a snapshot of this host, or an empty string.
      type: str
    certificates:
      description: >-
        Certificates that the node lives on, each with V(path), V(what) in words, V(expires) in UTC, V(expired), V(days_left), and V(problem), a
        sentence when it has expired, is not yet valid or cannot be read, otherwise V(null). They are etcd's, the API server's with the CAs they
        know each other by, and the client certificates of the controller-manager, the scheduler and kubelet. Those of C(admin.conf) and
        C(super-admin.conf) are listed as well, without V(problem), since nothing on the node needs them.
      type: list
      elements: dict
      sample:
        - path: /etc/kubernetes/pki/etcd/server.crt
          what: etcd's server certificate
          expires: "2027-11-22T20:41:00Z"
          expired: false
          days_left: 364
          problem: null
    obstacles:
      description: >-
        One sentence for everything that would prevent the restore from moving data or manifests, or the control plane from starting again. Among them are
        file systems that data cannot be renamed between, that are read-only or full, files that are immutable, a write-ahead log outside the data, files
        that the control plane's flags name and that are missing, addresses to listen at that the host does not have, and images with
        C(imagePullPolicy=Never) that the node does not have.
      type: list
      elements: str
    warnings:
      description: >-
        One sentence for everything outside the node that a start of the control plane would depend on, as a registry for an image that the node does not
        have. Images are known where C(crictl) is on the node.
      type: list
      elements: str
    other_static_pods:
      description: Names of other static Pods in O(manifests_dir), such as kube-vip. A restore leaves them in place.
      type: list
      elements: str
      sample: [kube-vip]
    runtime:
      description: V(socket), the path of the container runtime's socket in kubelet's configuration, and V(running), whether the runtime answers there.
      type: dict
    systemd:
      description: Whether systemd runs the node, which the rollback timer needs.
      type: bool
    cluster_ids:
      description: Cluster ids of etcd on this node before and after earlier restores, in hexadecimal.
      type: list
      elements: str
    time:
      description: Time of the node, in seconds since 1970.
      type: float
    controller_time:
      description: The given O(controller_time), or V(null).
      type: float
    controller_inside:
      description: Whether O(controller_pod) is a Pod of this cluster. V(null) without it, and when the API server does not answer.
      type: bool
    fingerprints:
      description: >-
        SHA-256 of the files that identify this cluster, as in a snapshot's manifest, and in C(contents) hashes of the certificates and keys in each.
      type: dict
"""

import concurrent.futures
import datetime
import os
import socket
import time
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC, EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.cluster import UNKNOWN, ask
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.members_on_disk import on_disk
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import examine_tools, server_version, suitable
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, KubeError, url_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.kubeadm import kept_manifests, running
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.kubelet import Kubelet, runtime_answers
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import COMPONENTS, other_static_pods, read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.validation import look_once, unseen
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import startup
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout, held_directory, held_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.obstacles import certificates, obstacles
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import list_transactions
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import signature as snapshot_signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory_access import foreign_owner, name_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.fingerprints import fingerprints
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import manifest_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import database_is_locked, kubelet_backs_off, kubelet_is_running
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import bytes_below, existing, free_bytes


def size_of(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def in_use(database):
    try:
        return database_is_locked(database)
    except OSError:
        return False


def pod_exists(apiserver, name):
    """Whether a Pod of this name is in the cluster; None if it cannot be read."""
    if apiserver is None:
        return None
    try:
        return bool(KubeApi(apiserver).get("/api/v1/pods?limit=1&fieldSelector=metadata.name%3D" + quote(name, safe="")).get("items"))
    except (KubeError, ValueError):
        return None


def retired(manifests_dir, transactions):
    """The newest restore that stopped this node for good, as long as manifests that it holds are missing."""
    for transaction in reversed(transactions):
        held = held_directory(manifests_dir, transaction["id"])
        if transaction["kind"] != "retire" or transaction["state"] not in ("committed", "rejoining") or not os.path.isdir(held):
            continue
        if set(read_static_pods(held)) - set(read_static_pods(manifests_dir)):
            return {"id": transaction["id"], "path": transaction["path"], "state": transaction["state"], "held": held}
    return {}


def snapshot_files(directory, path, signers):
    """What a restore can choose from: see RETURN."""
    newest, problem, owner, skipped, unchecked = {}, "", None, [], ""
    directory = os.path.realpath(directory)
    try:
        if os.path.isdir(directory):
            owner = foreign_owner(directory, False)
        signers = snapshot_signature.signers_of(signers)
        listed = SnapshotDirectory(directory, signers).snapshots(brief=True)
        newest = next(({"path": each["path"], "created": each["created"], "manifest": True} for each in listed if each["verified"]), {})
        skipped = signers.skipped(listed, newest.get("path")) if signers else []
    except Refused as exc:
        # what is named is verified where it is
        unchecked = str(exc)
    except OSError as exc:
        problem = "%s cannot be read: %s" % (exc.filename or directory, exc.strerror)
    given = {"path": path, "manifest": os.path.lexists(manifest_path(path))} if path and os.path.exists(path) else {}
    owner = "" if owner is None else name_of(owner)
    return {"latest": newest, "given": given, "problem": problem, "owner": owner, "skipped": skipped, "unchecked": unchecked}


def key_problem(key, manifests_dir):
    """Why a snapshot of this host cannot be signed with the key, or ""."""
    try:
        if key:
            snapshot_signature.check_key(key)
            snapshot_signature.check_cluster(fingerprints(manifests_dir))
    except Refused as exc:
        return str(exc)
    return ""


def look(manifests_dir, data_dir, snapshot_dir, controller_pod=None, snapshot=None, signers=None, signing_key=None):
    pods = read_static_pods(manifests_dir)
    etcd = {}
    # what an unfinished restore keeps from kubelet still says what the node is
    known = dict(held_static_pods(manifests_dir), **pods)
    if "etcd" in known:
        flags = known["etcd"].flags
        data_dir = known["etcd"].data_dir
        etcd = {
            "name": flags.get("name", ""),
            "peer_urls": flags.get("initial-advertise-peer-urls", ""),
            "client_url": flags.get("advertise-client-urls", "").split(",")[0],
            "initial_cluster": flags.get("initial-cluster", ""),
            "image": known["etcd"].image,
            "version": server_version(known["etcd"]),
        }
    address, api_url, etcd_servers, api_certificates = "", "", [], ""
    if "kube-apiserver" in known:
        flags = known["kube-apiserver"].flags
        address = flags.get("advertise-address", "")
        # given twice, it asks both (1.37.2: apiserver's pkg/server/options/etcd.go, StringSliceVar)
        etcd_servers = [url for value in known["kube-apiserver"].values("etcd-servers") for url in value.split(",") if url]
        api_certificates = KubeApi(known["kube-apiserver"]).certificates
        api_url = url_of(address, int(flags.get("secure-port") or 6443)) if address else ""
    layout = DataLayout(data_dir)
    transactions = list_transactions(layout)
    missing = [component for component in COMPONENTS if component not in pods]
    parent = data_dir if os.path.isdir(data_dir) else os.path.dirname(data_dir)
    kubelet = Kubelet()
    runtime_socket = kubelet.runtime_socket
    runtime_running = runtime_answers(runtime_socket)
    cannot_start, warnings = startup.look(known, kubelet, startup.Runtime(runtime_socket if runtime_running else ""))
    members, revision = on_disk(data_dir)
    return {
        "host": socket.gethostname(),
        "complete": not missing,
        "missing": missing,
        "kept_by_kubeadm": kept_manifests(manifests_dir, missing),
        "kubeadm": running(),
        "data_dir": layout.data_dir,
        "mount_point": layout.mount_point,
        "data_bytes": bytes_below(layout.live),
        "database_bytes": size_of(layout.database),
        "free_bytes": free_bytes(parent),
        "transactions_dir": layout.transactions_dir,
        "transactions": transactions,
        "unfinished": [dict(each, held=held_directory(manifests_dir, each["id"])) for each in transactions if not each["ended"]],
        "retired": retired(manifests_dir, transactions),
        "data_in_use": in_use(layout.database),
        "members_on_disk": members,
        "revision_on_disk": revision,
        "etcd": etcd,
        "kubernetes_version": known["kube-apiserver"].image_version if "kube-apiserver" in known else "",
        "api_address": address,
        "etcd_servers": etcd_servers,
        "api_url": api_url,
        "api_certificates": api_certificates,
        "kubelet_running": kubelet_is_running(),
        "kubelet_backs_off": kubelet_backs_off(COMPONENTS),
        "fingerprints": fingerprints(manifests_dir),
        "snapshot_dir": {
            "path": snapshot_dir,
            "free_bytes": free_bytes(snapshot_dir),
            "same_file_system": os.stat(existing(snapshot_dir)).st_dev == os.stat(parent).st_dev,
        },
        "snapshots": snapshot_files(snapshot_dir, snapshot, signers),
        "signing_key_problem": key_problem(signing_key, manifests_dir),
        "certificates": certificates(pods, kubelet.kubeconfig, datetime.datetime.now(datetime.timezone.utc)),
        "obstacles": obstacles(pods, manifests_dir, data_dir, kubelet.static_pods) + cannot_start,
        "warnings": warnings,
        "other_static_pods": other_static_pods(manifests_dir),
        "runtime": {"socket": runtime_socket, "running": runtime_running},
        "systemd": os.path.isdir("/run/systemd/system"),
        "cluster_ids": layout.cluster_ids(),
        "controller_inside": pod_exists(pods.get("kube-apiserver"), controller_pod) if controller_pod else None,
    }


def suitable_tools(params, pods):
    """RV(tools) of the documentation."""
    version = server_version(pods["etcd"]) if "etcd" in pods else ""
    # of an etcd that nobody knows the version of, nobody knows what suits it
    return suitable(examine_tools(params), version) if version else None


def ask_etcd(params, _pods):
    """RV(etcd) of the documentation."""
    try:
        return ask(EtcdClient(params))[0]
    except ToolError as exc:
        return dict(UNKNOWN, error=exc.message)


def see_cluster(_params, pods):
    """RV(validation) of the documentation."""
    try:
        return look_once(pods)
    except (KubeError, ToolError) as exc:
        return unseen(str(exc))


QUESTIONS = {"tools": suitable_tools, "etcd": ask_etcd, "validation": see_cluster}


def look_at_everything(params):
    """All that the module returns."""
    pods = read_static_pods(params["manifests_dir"])
    known = list_transactions(DataLayout(pods["etcd"].data_dir if "etcd" in pods else params["data_dir"]))
    wanted = params["look"] if all(transaction["ended"] for transaction in known) else []
    with concurrent.futures.ThreadPoolExecutor(len(QUESTIONS)) as pool:
        answers = {what: pool.submit(QUESTIONS[what], params, pods) for what in wanted}
        names = ("manifests_dir", "data_dir", "snapshot_dir", "controller_pod", "snapshot", "signers", "signing_key")
        seen = look(*(params[name] for name in names))
        return dict({what: answer.result() for what, answer in answers.items()}, restore=seen)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            CONNECTION_SPEC,
            manifests_dir={"type": "path", "default": "/etc/kubernetes/manifests"},
            data_dir={"type": "path", "default": "/var/lib/etcd"},
            snapshot_dir={"type": "path", "default": "/var/backups/etcd"},
            snapshot={"type": "path"},
            signing_key={"type": "path", "no_log": False},
            controller_time={"type": "float"},
            controller_pod={"type": "str"},
            look={"type": "list", "elements": "str", "choices": list(QUESTIONS), "default": []},
            **snapshot_signature.SPEC,
        ),
        supports_check_mode=True,
    )
    params = module.params
    # at once, so that what looking takes is not taken for a difference of clocks
    times = {"time": time.time(), "controller_time": params["controller_time"]}
    manifests_dir = params["manifests_dir"]
    if not os.path.isdir(manifests_dir):
        module.fail_json(msg="%s does not exist: this host is not a kubeadm control plane node" % manifests_dir)
    try:
        found = look_at_everything(params)
    except Refused as exc:
        module.fail_json(msg=str(exc))
    except (OSError, ValueError) as exc:
        module.fail_json(msg="The control plane of this host cannot be read: %s" % exc)
    found["restore"].update(times)
    owner = found["restore"]["snapshots"]["owner"]
    if owner:
        # what is restored is chosen from it
        module.warn("%s belongs to %s, who can replace every snapshot in it" % (params["snapshot_dir"], owner))
    for problem in found["restore"]["snapshots"]["skipped"]:
        module.warn(problem)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
