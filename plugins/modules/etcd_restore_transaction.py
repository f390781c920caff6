#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_restore_transaction
short_description: Runs the steps of an etcd restore on one node, each written to disk
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - A restore of one control plane node is a directory on it, in the file system of etcd's data directory. O(state) names the state to reach.
  - Each state is written to disk before and after its step. A state that was reached already is not taken again.
  - Where the restore of several nodes must move together, bring all of them to one state before any goes to the next.
  - A node on its own may go from V(staged) to V(started) in one call; every state between is written all the same.
  - Whatever the point, O(state=rolled_back) runs the script C(rollback) of that directory, which an operator can run without Ansible just as well.
extends_documentation_fragment:
  - k8s_dr.etcd.etcd
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    support: full
options:
  path:
    description:
      - Directory of the restore, named by its id. Its parent is C(transactions_dir) of M(k8s_dr.etcd.etcd_restore_info).
    type: path
    required: true
  state:
    description:
      - >-
        V(begun) makes the directory with the plan and the C(rollback) script. It fails while another restore of this node is unfinished, except for one that
        has stopped nothing and was not continued for 15 minutes.
      - >-
        V(staged) restores O(snapshot) into C(staged/) while the cluster serves. Where there is no such directory yet, it takes V(begun) first. With
        O(trial_timeout) it first proves that an etcd starts on the snapshot.
      - V(stopped) takes the control plane's own manifests away from kubelet and waits for proof that etcd is gone.
      - The following ones take the steps before them as well, as far as these were not taken.
      - V(swapped) renames the live data to C(old/) and the staged data to where it was.
      - >-
        V(etcd_started) gives etcd's manifest back and waits until etcd serves. An alarm C(NOSPACE) that came with the snapshot is
        disarmed after a defragmentation.
      - >-
        V(started) gives the API server's manifest back, waits until it is ready, and then gives back those of the controllers. What their leaders
        held when the
        snapshot was taken is deleted before that (see O(snapshot_revision)).
      - >-
        V(voted) says for this node that the restored data may stay, where O(voters) are several. From then on the node does what all of them decide in
        the restored etcd, also when its timer fires.
      - >-
        V(committed) ends the restore and removes previous data directories beyond O(keep). With several O(voters) it fails unless all of them have voted,
        and when one of them has rolled back.
      - V(rolled_back) returns the node to its previous data.
      - >-
        V(rejoining) starts the etcd of a node that was retired as a new member of O(initial_cluster), over an empty data directory, and waits until its
        process runs.
      - V(rejoined) then gives the other manifests back like V(started).
      - V(retired) returns a node from V(rejoining) to stopped.
    type: str
    required: true
    choices: [begun, staged, stopped, swapped, etcd_started, started, voted, committed, rolled_back, rejoining, rejoined, retired]
  kind:
    description:
      - What happens to the node. Used with O(state=begun) and O(state=staged).
      - V(restore) gives it the data of the snapshot.
      - >-
        V(retire) stops it, because others are restored without it: it goes from V(begun) to V(stopped), V(swapped), which leaves an empty data
        directory, and V(committed), and stays stopped until V(rejoined).
    type: str
    choices: [restore, retire]
    default: restore
  voters:
    description: Names of all nodes that have to vote, this one included. Used with O(state=begun) and O(state=staged).
    type: list
    elements: str
    default: []
  voter:
    description: Name of this node among O(voters). Used with O(state=begun) and O(state=staged).
    type: str
    default: ""
  endpoints:
    description: Client URLs of all members of the restored cluster, which are asked for the decision. Used with O(state=begun) and O(state=staged).
    type: list
    elements: str
    default: []
  peers:
    description: >-
      Peer URLs of all members of the restored cluster. They say which cluster a node serves also while that has no quorum. Used with O(state=begun) and
      O(state=staged).
    type: list
    elements: str
    default: []
  cluster_ids:
    description: >-
      The ids that the nodes' clusters had before the restore, in hexadecimal. A node of O(kind=retire) does not roll back while a member of the restored
      cluster answers with another one. Used with O(state=begun) and O(state=staged).
    type: list
    elements: str
    default: []
  manifests_dir:
    description: Directory that kubelet reads static Pods from. Used with O(state=begun) and O(state=staged).
    type: path
    default: /etc/kubernetes/manifests
  about:
    description: >-
      What the restore is about, kept in its C(plan.json) and returned by M(k8s_dr.etcd.etcd_restore_info) while it is unfinished, for the run that finishes
      it. Used with O(state=begun) and O(state=staged).
    type: dict
    default: {}
  cluster_id:
    description: >-
      The id that the cluster has now, in hexadecimal. Kept beside the restores, since each restore makes a new one, and a snapshot from before is of
      the same cluster. Used with O(state=begun) and O(state=committed); required with O(state=voted), where it tells the restored etcd from others.
    type: str
    default: ""
  api_addresses:
    description: >-
      Addresses of all API servers of the cluster. When given, what other ones left in etcd (C(masterleases)) is removed with
      O(state=started), so that no client is sent to an API server that is gone (kubernetes/kubernetes#86812).
    type: list
    elements: str
    default: []
  snapshot_revision:
    description: >-
      Revision of the snapshot. Leases of controller-manager and scheduler that are not newer are deleted through the API with O(state=started), since their
      holders were stopped, and the successors would wait 15 s for them to expire. V(0) leaves them.
    type: int
    default: 0
  hash_revision:
    description: >-
      Revision of which to return the hash over the live keys in RV(etcd), as M(k8s_dr.etcd.etcd_cluster_info) does; V(0) is for none. Used with
      O(state=started).
    type: int
    default: 0
  rollback_after:
    description:
      - Seconds until systemd runs the C(rollback) script, unless the restore was committed by then; at once after a reboot.
      - With O(state) V(stopped), V(swapped), V(etcd_started) and V(started) the timer is armed first, unless it is V(0).
    type: int
    default: 0
  snapshot:
    description: Snapshot to restore, on the node. Required with O(state=staged).
    type: path
  sha256:
    description:
      - SHA-256 of O(snapshot) when it was verified. Used with O(state=staged).
      - The module fails, before anything is stopped, when the file that was restored has another one. When not given, it is not compared.
    type: str
    default: ""
  name:
    description: Name of the member, as in its own manifest. Required with O(state=staged).
    type: str
  initial_cluster:
    description: >-
      All members of the restored cluster as C(name=peer URL), separated by commas. Required with O(state=staged); with O(state=rejoining), all members
      of the cluster that the node becomes one of.
    type: str
  peer_urls:
    description: The member's own peer URLs. Required with O(state=staged).
    type: str
  cluster_token:
    description: >-
      Token of the restored cluster, the same on all members and another one for each restore: it makes a new cluster id, so that a member with the previous
      data can never join. Required with O(state=staged).
    type: str
  bump_revision:
    description: By how much the revision is raised, with everything before it marked compacted. V(0) leaves it.
    type: int
    default: 0
  trial_timeout:
    description:
      - Seconds that an isolated etcd may take to start on O(snapshot). Used with O(state=staged). V(0) starts none.
      - While O(snapshot) is restored, it is restored once more into a temporary directory, beside the data directory or in it where that is a mount
        point. O(etcd) starts there. It listens on Unix sockets in a directory of mode 0700, in a network namespace of its own. All of it is gone when
        the module ends; what a killed one left goes with the next.
      - The module fails when etcd does not start on the snapshot. When that could not be tested, it warns, and RV(start) says why.
    type: int
    default: 0
  etcd:
    description:
      - Path of the etcd server program that O(trial_timeout) is for.
      - When not given it is that of the etcd that runs on this host, else the one that the container runtime unpacked of the image in etcd's
        manifest, else one beside O(etcdctl) or in C(PATH).
    type: path
  keep:
    description: How many previous data directories stay after a commit, that of this restore included. V(0) keeps all. Used with O(state=committed).
    type: int
    default: 3
  undo:
    description: Whether O(state=rolled_back) may undo a committed restore.
    type: bool
    default: false
  step_timeout:
    description: Seconds that each step may take.
    type: int
    default: 300
  stop_timeout:
    description: Seconds that the stop may take.
    type: int
    default: 120
seealso:
  - module: k8s_dr.etcd.etcd_restore_info
notes:
  - Runs as root.
"""

EXAMPLES = r"""
- name: Stop the control plane and prove that etcd is gone
  k8s_dr.etcd.etcd_restore_transaction:
    path: /var/lib/etcd.restore/20261122T170501Z-4f1c
    state: stopped
    stop_timeout: 90

- name: Roll the node back
  k8s_dr.etcd.etcd_restore_transaction:
    path: /var/lib/etcd.restore/20261122T170501Z-4f1c
    state: rolled_back
"""

RETURN = r"""
transaction:
  description: The restore after the step.
  returned: success
  type: dict
  contains:
    id:
      description: Its id.
      type: str
      sample: 20261122T170501Z-4f1c
    path:
      description: Its directory on the node.
      type: str
    state:
      description: Its state, as in its C(state) file.
      type: str
      sample: stopped
    log:
      description: Every state it went through with the time.
      type: list
      elements: str
seconds:
  description: How long the step took.
  returned: success
  type: float
  sample: 1.9
start:
  description: Whether an isolated etcd started on the snapshot.
  returned: O(state=staged) with O(trial_timeout)
  type: dict
  contains:
    tested:
      description: Whether one started and served.
      type: bool
    reason:
      description: Why that could not be tested, one sentence; or V(null).
      type: str
      sample: this host has 210 MB of memory available, and one more etcd needs 750 MB
masterleases:
  description: Keys of API servers that are gone, which were removed.
  returned: O(state=started)
  type: list
  elements: str
etcd:
  description: What the restored member says, as C(etcd) of M(k8s_dr.etcd.etcd_cluster_info) but without C(authorities).
  returned: O(state=started)
  type: dict
output:
  description: Output of the C(rollback) script.
  returned: O(state=rolled_back)
  type: list
  elements: str
removed:
  description: Previous data directories that were removed.
  returned: O(state=committed)
  type: list
  elements: str
"""

import contextlib
import errno
import ipaddress
import os
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import packed_file
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC, EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.cluster import ask, hash_at
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import urls_for_health
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.members_on_disk import in_words, without_leftovers
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, offline_tool, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import COMPONENTS, read_control_plane
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import steps, timer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.control_plane import ControlPlane
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout, held_directory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import ENDED, Busy, Transaction, TransactionError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.trial_start import TrialStart
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError

ARGUMENTS = dict(
    CONNECTION_SPEC,
    path={"type": "path", "required": True},
    state={
        "type": "str",
        "required": True,
        "choices": [
            "begun",
            "staged",
            "stopped",
            "swapped",
            "etcd_started",
            "started",
            "voted",
            "committed",
            "rolled_back",
            "rejoining",
            "rejoined",
            "retired",
        ],
    },
    kind={"type": "str", "choices": ["restore", "retire"], "default": "restore"},
    voters={"type": "list", "elements": "str", "default": []},
    voter={"type": "str", "default": ""},
    endpoints={"type": "list", "elements": "str", "default": []},
    peers={"type": "list", "elements": "str", "default": []},
    cluster_ids={"type": "list", "elements": "str", "default": []},
    manifests_dir={"type": "path", "default": "/etc/kubernetes/manifests"},
    snapshot={"type": "path"},
    sha256={"type": "str", "default": ""},
    name={"type": "str"},
    initial_cluster={"type": "str"},
    peer_urls={"type": "str"},
    cluster_token={"type": "str", "no_log": False},
    bump_revision={"type": "int", "default": 0},
    trial_timeout={"type": "int", "default": 0},
    etcd={"type": "path"},
    keep={"type": "int", "default": 3, "no_log": False},
    undo={"type": "bool", "default": False},
    about={"type": "dict", "default": {}},
    cluster_id={"type": "str", "default": ""},
    api_addresses={"type": "list", "elements": "str", "default": []},
    snapshot_revision={"type": "int", "default": 0},
    hash_revision={"type": "int", "default": 0},
    rollback_after={"type": "int", "default": 0},
    step_timeout={"type": "int", "default": 300},
    stop_timeout={"type": "int", "default": 120},
)


# The steps from staged data to a control plane that serves.
FORWARD = ("stopped", "swapped", "etcd_started", "started")


def make_plan(transaction, params):
    """All that the later steps and the scripts need, taken from the node while its manifests are in place."""
    manifests_dir = os.path.realpath(params["manifests_dir"])
    try:
        pods = read_control_plane(manifests_dir)
        layout = DataLayout(pods["etcd"].data_dir)
    except ValueError as exc:
        raise TransactionError(str(exc)) from exc
    flags = pods["etcd"].flags
    base = os.path.dirname(transaction.path)
    if base != layout.transactions_dir:
        raise TransactionError("%s is not the place for restores of %s, which is %s" % (base, layout.data_dir, layout.transactions_dir))
    if layout.crosses_file_systems():
        raise TransactionError("%s is a file system of its own, so data cannot be renamed between it and %s" % (base, layout.data_dir))
    healths = urls_for_health(flags)
    etcdctl = ""
    if len(params["voters"]) > 1:
        found = find_tools(params["etcdctl"], params["etcdutl"], params["timeout"])[0]
        if found is None:
            raise TransactionError("there is no etcdctl on this host, which the vote needs")
        etcdctl = found.path
    return {
        "id": transaction.id,
        "kind": params["kind"],
        "path": transaction.path,
        "host": socket.gethostname(),
        "data_dir": layout.data_dir,
        # whom it belongs to where there is none of which to take that over
        "owner": pods["etcd"].owner,
        # what the command line of its etcd calls it
        "served": os.path.realpath(flags["data-dir"]),
        "live": layout.live,
        "manifests_dir": manifests_dir,
        "held": held_directory(manifests_dir, transaction.id),
        "files": [os.path.basename(pods[component].path) for component in COMPONENTS],
        "health_urls": healths,
        "listen_urls": [
            url for flag in ("listen-client-urls", "listen-peer-urls") for url in flags.get(flag, "").split(",") if url.startswith("http")
        ],
        # the rollback script would rather ask without TLS
        "health_url": min(healths, key=lambda url: url.startswith("https")) + "/health" if healths else "",
        "unit": "/etc/systemd/system/etcd-restore-" + transaction.id,
        "etcd_prefix": pods["kube-apiserver"].flags.get("etcd-prefix", "/registry"),
        "voters": params["voters"],
        "voter": params["voter"],
        # its own first
        "endpoints": sorted(params["endpoints"], key=lambda url: url not in flags.get("advertise-client-urls", "").split(",")),
        "peers": [url for urls in params["peers"] for url in urls.split(",") if url],
        "tls": {name: params[name] for name in ("cacert", "cert", "key")},
        "etcdctl": etcdctl,
        "cluster_ids": params["cluster_ids"],
        "about": params["about"],
    }


def stage(module, transaction):
    """Restore the snapshot beside the live data; returns what the module adds to its answer."""
    params = module.params
    tool = offline_tool("restore", *find_tools(params["etcdctl"], params["etcdutl"], params["timeout"]))
    if tool is None:
        raise TransactionError("neither etcdctl nor etcdutl on this host can restore a snapshot")
    packed = packed_file(os.path.abspath(params["snapshot"]))
    if packed:
        raise TransactionError(packed)
    argv = [
        "--name=" + params["name"],
        "--initial-cluster=" + params["initial_cluster"],
        "--initial-cluster-token=" + params["cluster_token"],
        "--initial-advertise-peer-urls=" + params["peer_urls"],
    ]
    if params["bump_revision"]:
        if not tool.can_bump:
            raise TransactionError("%s %s cannot raise the revision (--bump-revision)" % (tool.name, tool.version))
        argv += ["--bump-revision=%d" % params["bump_revision"], "--mark-compacted"]

    trims = version_tuple(tool.version)[:2] >= (3, 5)

    def check(data_dir):
        try:
            removed = without_leftovers(data_dir, params["initial_cluster"], trims)
        except ValueError as exc:
            advice = "check whether initial_cluster has the peer URLs of etcd" if trims else "install etcdutl 3.5.16 or later, which removes them"
            raise TransactionError("%s %s: %s; %s" % (tool.name, tool.version, exc, advice)) from exc
        if removed:
            module.warn(
                "%s %s left members of the cluster from before in the restored data, which an upgrade to etcd 3.6 would bring to life. They were removed: %s"
                % (tool.name, tool.version, in_words(removed))
            )

    arguments = (transaction, os.path.abspath(params["snapshot"]), argv, tool.path, params["step_timeout"], check)
    if not params["trial_timeout"]:
        steps.stage(*arguments, None, params["sha256"])
        return {}
    # What is restored for it, with every Secret, does not stay when the task is cancelled.
    signals.raise_when_ended()
    place = os.path.dirname(transaction.layout.transactions_dir)
    try:
        with TrialStart(params, tool, etcd_version(transaction.plan["manifests_dir"]), place) as trial:
            steps.stage(*arguments, trial, params["sha256"])
    except signals.Ended as exc:
        raise TransactionError("the snapshot was not restored beside the live data: %s" % exc) from exc
    if trial.reason:
        module.warn("it was not tested whether etcd starts on %s: %s" % (params["snapshot"], trial.reason))
    return {"start": {"tested": trial.reason is None, "reason": trial.reason}}


def etcd_version(manifests_dir):
    """That of the image in etcd's manifest, or ""."""
    try:
        return read_control_plane(manifests_dir)["etcd"].image_version
    except (OSError, ValueError):
        return ""


def take(module, transaction):
    """Take the step; returns what the module adds to its answer."""
    params = module.params
    state, timeout = params["state"], params["step_timeout"]
    if state == "begun" or (state == "staged" and not transaction.exists()):
        transaction.begin(make_plan(transaction, params))
        transaction.layout.remember_cluster_id(params["cluster_id"])
    if state == "begun":
        return {}
    if state == "staged":
        return stage(module, transaction)
    if state == "voted":
        if not params["cluster_id"]:
            raise TransactionError("cluster_id is empty, without which the restored etcd cannot be told from others")
        # from here on the rollback script may be what writes down that the restore is committed
        transaction.layout.remember_cluster_id(params["cluster_id"])
        steps.vote(transaction, params["cluster_id"], timeout)
    elif state == "committed":
        transaction.layout.remember_cluster_id(params["cluster_id"])
        return {"removed": steps.commit(transaction, params["keep"], timeout)}
    elif state == "rejoining":
        retry_while_locked(transaction, state, lambda: steps.rejoin_etcd(transaction, params["initial_cluster"], timeout), timeout)
    elif state == "rejoined":
        retry_while_locked(transaction, state, lambda: steps.rejoin(transaction, timeout), timeout)
    elif state == "retired":
        retry_while_locked(transaction, state, lambda: steps.retire_again(transaction, params["stop_timeout"]), timeout)
    elif state == "rolled_back":
        return {"output": undo(transaction, timeout) if params["undo"] and transaction.state()[0] in ENDED else transaction.roll_back(params["undo"], timeout)}
    else:
        if params["rollback_after"]:
            timer.arm(transaction, params["rollback_after"])
        forward(transaction, state, params)
        if state == "started":
            return {"masterleases": remove_stale_masterleases(module, transaction.plan["etcd_prefix"]), "etcd": ask_etcd(params)}
    return {}


def undo(transaction, timeout):
    """Roll back a restore that has ended; what the script said.  Nothing but this run, or a reboot, would go on with it."""
    unit = transaction.plan["unit"]
    with contextlib.suppress(OSError):
        timer.continue_after_reboot(transaction)
    try:
        output = transaction.roll_back(True, timeout)
    except TransactionError as exc:
        if transaction.state()[0] in ENDED and os.path.exists(transaction.file("old")) and not os.path.exists(transaction.plan["held"]):
            # it has not begun
            timer.disarm(unit)
            raise
        raise TransactionError("%s (a reboot goes on with it, unless you remove %s.service)" % (exc, unit)) from exc
    # the script of an earlier version removes it only beside a timer
    timer.disarm(unit)
    return output


def forward(transaction, state, params):
    """From staged data to `state`, step by step."""
    tls = {name: params[name] for name in ("cacert", "cert", "key")}
    clients = (lambda: clear_nospace_alarm(EtcdClient(params)), lambda: client_says_healthy(params))
    for step, act in (
        ("stopped", lambda: steps.stop(transaction, params["stop_timeout"])),
        ("swapped", lambda: steps.swap(transaction)),
        ("etcd_started", lambda: steps.start_etcd(transaction, tls, params["step_timeout"], *clients)),
        ("started", lambda: steps.start(transaction, params["step_timeout"], params["snapshot_revision"])),
    ):
        retry_while_locked(transaction, step, act, params["step_timeout"])
        if step == state:
            return


def ask_etcd(params):
    """RV(etcd) of the documentation."""
    client = EtcdClient(params)
    etcd = ask(client)[0]
    if not etcd["members_agreed"]:
        raise TransactionError(etcd["error"])
    if params["hash_revision"]:
        etcd["hash"] = hash_at(client, params["hash_revision"])
    return etcd


def client_says_healthy(params):
    """Whether etcd's own client calls this etcd healthy."""
    try:
        EtcdClient(params).run("endpoint", "health")
    except ToolError:
        return False
    return True


def clear_nospace_alarm(client):
    """Have an etcd take writes again that came up with the alarm NOSPACE of its snapshot.

    What is not the newest of each key was marked compacted by the restore, and goes in the background; then its pages can be given back. Where that does
    not help, because the quota is too small for the data, the next write raises the alarm again.
    """
    before = None
    end = time.monotonic() + 30
    # the wait for etcd tries again, or reports at its end that etcd did not serve
    with contextlib.suppress(ToolError):
        while time.monotonic() < end:
            in_use = client.status()["db_size_in_use"]
            if in_use == before:
                break
            before = in_use
            time.sleep(1)
        client.run("defrag", command_timeout=120)
        client.run("alarm", "disarm")


def retry_while_locked(transaction, state, act, timeout):
    """Take a step once no other process takes one: a run that was killed may have left one unfinished."""
    end = time.monotonic() + timeout
    while not is_done(transaction, state):
        try:
            act()
            return
        except Busy:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def one_spelling(address):
    """An IPv6 address can be written in many ways, and a flag need not be written as the API server names itself."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def remove_stale_masterleases(module, prefix):
    """They would expire by themselves, so this is no reason to fail."""
    if not module.params["api_addresses"]:
        return []
    base = prefix.rstrip("/") + "/masterleases/"
    removed = []
    try:
        client = EtcdClient(module.params)
        kept = {one_spelling(address) for address in module.params["api_addresses"]}
        for key in client.run("get", "--prefix", "--keys-only", base).stdout.split():
            if one_spelling(key[len(base) :]) not in kept:
                client.run("del", key)
                removed.append(key)
    except ToolError as exc:
        module.warn("stale masterleases were not removed, they expire by themselves: %s" % exc.message)
    return removed


def is_done(transaction, state):
    """Whether there is nothing left to do."""
    if not transaction.exists():
        return False
    if state == "begun":
        return True
    if state == "voted":
        return transaction.reached("committed") or not os.path.exists(transaction.file("decide"))
    if state in ("rejoining", "retired"):
        now = transaction.state()[0]
        if state == "retired":
            return transaction.kind == "retire" and now == "committed"
        return now == "rejoined" or (now == "rejoining" and ControlPlane(transaction).etcd_runs())
    if state == "rolled_back":
        now = transaction.state()[0]
        return now == "rolled-back" and not os.path.exists(transaction.file("old"))
    return transaction.reached(state.replace("_", "-"))


def sentence(exc, path):
    """What an operator can act on; the system's own words do not even say which disk is meant."""
    if getattr(exc, "errno", None) == errno.ENOSPC:
        return "the disk is full: nothing can be written any more to the file system of %s; free some space there" % path
    return str(exc)


def describe(transaction):
    state = transaction.state()[0] if transaction.exists() else ""
    return {"id": transaction.id, "path": transaction.path, "state": state, "log": transaction.log()}


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[
            ("state", "staged", ("snapshot", "name", "initial_cluster", "peer_urls", "cluster_token")),
            ("state", "voted", ("cluster_id",)),
            ("state", "rejoining", ("initial_cluster",)),
        ],
        supports_check_mode=True,
    )
    transaction = Transaction(os.path.realpath(module.params["path"]))
    state = module.params["state"]
    before = describe(transaction)
    if state == "rolled_back" and not before["state"]:
        module.fail_json(msg="%s holds no restore that could be rolled back" % transaction.path)
    if state == "rolled_back" and before["state"] == "committed" and not module.params["undo"]:
        module.fail_json(msg="%s was committed; to return to the previous data, set undo" % transaction.path, transaction=before)
    if state not in ("begun", "staged", "rolled_back") and not before["state"] and not module.check_mode:
        module.fail_json(msg="%s holds no restore: it was not begun" % transaction.path)

    changed = not is_done(transaction, state)
    answer = {"changed": changed, "transaction": before, "seconds": 0.0}
    if changed and module.check_mode:
        after = {"voted": "committing", "retired": "committed"}.get(state, state.replace("_", "-"))
        answer["transaction"] = dict(before, state=after)
        if state == "committed":
            answer["removed"] = steps.generations_to_prune(transaction, module.params["keep"])
    elif changed or (state in FORWARD and not module.check_mode):
        # one that is taken up again gets a timer of its own, and tells what etcd says all the same
        start = time.monotonic()
        try:
            answer.update(take(module, transaction))
        except (TransactionError, ToolError, KubeError, OSError) as exc:
            module.fail_json(msg=sentence(exc, transaction.path), transaction=describe(transaction), seconds=round(time.monotonic() - start, 2))
        answer.update(transaction=describe(transaction), seconds=round(time.monotonic() - start, 2))
    if module._diff:
        answer["diff"] = {"before": "%s\n" % before["state"], "after": "%s\n" % answer["transaction"]["state"]}
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
