# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of a restore.  Each may be interrupted anywhere, and is repeated then.  Private to this collection.

Each takes the Transaction first.  All raise Busy while another step is being taken, TransactionError when this one does not come next, and OSError when
the disk does not take what is written or moved.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import etcd_health
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.control_plane import ControlPlane
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.timer import disarm
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import Transaction, TransactionError, transactions_in
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import (
    WriteBack,
    copy_ownership,
    rename_durably,
    sync_directory,
    sync_tree,
    write_durably,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import database_is_locked

_ASK_CLIENT_EVERY = 10


def stage(transaction, snapshot, argv_tail, tool, timeout, check=None, trial=None, sha256=""):
    """Restore the snapshot into staged/ while the cluster serves.

    tool: path of etcdctl or etcdutl, argv_tail: its flags beside the data directory.  check: is called with the data directory before it counts as
    staged.  trial: a TrialStart that ends before that, and goes on beside it unless the snapshot is large.  sha256: of the snapshot that was verified.
    Raises TransactionError when the tool or the trial fails, and when the snapshot is another one by then.
    """
    staged = transaction.file("staged")
    deadline = time.monotonic() + timeout
    with transaction.step("staging", "staged"):
        # what a failed restore leaves makes the next one fail
        shutil.rmtree(staged, ignore_errors=True)
        # Under another name until it is whole, so that whatever is called staged/ can be used.
        partial = transaction.file("staged.partial")
        shutil.rmtree(partial, ignore_errors=True)
        if trial:
            trial.begin()
            if trial.is_large:
                # last what is to be served, which is in memory then
                trial.finish()
                trial.end()
                deadline = time.monotonic() + timeout
        argv = [tool, "snapshot", "restore", snapshot, "--data-dir", partial] + argv_tail
        result = run_tool(argv, deadline - time.monotonic(), watch=WriteBack(database_path(partial), snapshot))
        if result.rc != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise TransactionError(
                "`%s snapshot restore %s` %s: %s" % (os.path.basename(tool), snapshot, result.how(), result.last_words())
            )
        if not os.path.isfile(database_path(partial)):
            raise TransactionError("`%s snapshot restore` said that it succeeded but made no database in %s" % (tool, partial))
        if trial:
            trial.advance()
        if sha256:
            _check_unchanged(snapshot, sha256, deadline)
        if check:
            check(partial)
        copy_ownership(transaction.plan["data_dir"], partial)
        sync_tree(partial)
        if trial:
            trial.finish()
        rename_durably(partial, staged)


def _check_unchanged(snapshot, sha256, deadline):
    """The file was verified before the operator was asked, and may have been replaced since."""

    def advance(_size):
        if time.monotonic() > deadline:
            raise TransactionError("the SHA-256 of %s could not be computed in time. Nothing was stopped" % snapshot)

    if file_digests(snapshot, progress=advance, keep=False)[1]["sha256"] != sha256:
        raise TransactionError("%s is not the snapshot that was verified: the file was replaced or changed since. Nothing was stopped" % snapshot)


def stop(transaction, timeout):
    """Stop the control plane.  Raises TransactionError with what still runs after `timeout` seconds."""
    with transaction.step("stopping", "stopped"):
        ControlPlane(transaction).stop(timeout)


def swap(transaction):
    """Two renames: the live data becomes old/, the staged data becomes live.  A node that is retired gets none.

    Raises TransactionError when etcd runs again, and when there is nothing to swap in.
    """
    plan = transaction.plan
    staged = transaction.file("staged")
    if plan["live"] != plan["data_dir"]:
        staged = os.path.join(staged, "member")
    with transaction.step("swapping", "swapped"):
        if ControlPlane(transaction).etcd_runs() or database_is_locked(transaction.layout.database):
            raise TransactionError("etcd runs again although its manifest is away; the data was not touched")
        if transaction.kind == "retire":
            if not os.path.exists(transaction.file("old")):
                rename_durably(plan["live"], transaction.file("old"))
            _make_empty(transaction)
            return
        if not os.path.isdir(staged):
            if not (os.path.isdir(transaction.file("old")) and os.path.isdir(plan["live"])):
                raise TransactionError("%s is missing, so there is nothing to swap in" % staged)
            return
        # the second rename may be all that an interrupted swap still lacks
        if not os.path.exists(transaction.file("old")) and os.path.exists(plan["live"]):
            rename_durably(plan["live"], transaction.file("old"))
        rename_durably(staged, plan["live"])


def _make_empty(transaction):
    """A data directory with nothing in it, for the member that this node becomes later."""
    plan = transaction.plan
    if plan["live"] == plan["data_dir"] and not os.path.isdir(plan["live"]):
        os.mkdir(plan["live"], 0o700)
        copy_ownership(transaction.file("old"), plan["live"])
        sync_directory(os.path.dirname(plan["live"]))


def start_etcd(transaction, tls, timeout, relieve=None, ask_client=lambda: False):
    """Give etcd's manifest back to kubelet and wait until etcd serves.  Raises TransactionError when it does not within `timeout` seconds.

    tls: {cacert, cert, key} to ask it with.
    relieve: what is called when etcd takes no writes but for an alarm NOSPACE that the snapshot carries.
    ask_client: whether etcd's own client calls it healthy, for an etcd that says /health nowhere.
    """
    control_plane = ControlPlane(transaction)
    urls, next_question = transaction.plan["health_urls"], time.monotonic() + _ASK_CLIENT_EVERY

    def serves():
        nonlocal next_question
        # Without a quorum each question takes its whole time, so what one URL says is not asked for at the next.
        url, said = next(((url, said) for url in urls for said in [etcd_health(url, tls)] if said), ("", ""))
        if said == "false" and relieve and etcd_health(url, tls, "?exclude=NOSPACE") == "true":
            relieve()
        elif not said and time.monotonic() > next_question and control_plane.etcd_runs():
            # slow, and starts a process
            next_question = time.monotonic() + _ASK_CLIENT_EVERY
            return ask_client()
        return said == "true"

    with transaction.step("starting-etcd", "etcd-started"):
        control_plane.start_etcd(serves, timeout, "etcd did not serve the restored data")


def start(transaction, timeout, snapshot_revision=0):
    """Give the other manifests back and wait until this node's API server is ready; see ControlPlane.start_others."""
    with transaction.step("starting", "started"):
        ControlPlane(transaction).start_others(timeout, snapshot_revision)


def vote(transaction, cluster_id, timeout):
    """This node would keep the restored data.  From here on it does what all of them decide.

    cluster_id: the restored cluster's, in hexadecimal.  Raises TransactionError when the restored etcd cannot be asked for `timeout` seconds.
    """
    with transaction.step("committing", None):
        # as etcdctl prints it, and as etcd's header has it
        write_durably(transaction.file("restored-cluster"), "%d\n%x\n" % ((int(cluster_id, 16),) * 2))
    _decide(transaction, "vote", timeout)


def _decide(transaction, how, timeout):
    """What the script `decide` says, asked until it knows.  Raises TransactionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        result = run_tool(["/bin/sh", transaction.file("decide"), how], timeout)
        if result.rc == 0:
            return result.stdout.strip()
        if time.monotonic() > end:
            raise TransactionError(
                "the restored etcd could not be asked for %d s whether all nodes keep its data; this node has it, and goes by what all decide"
                % timeout
            )
        time.sleep(0.5)


def commit(transaction, keep, timeout=60):
    """Declare the restored data the cluster's data; keep the newest `keep` generations of old data.

    Returns the paths of those that were removed.  Raises TransactionError when not all nodes keep the restored data, or none can be asked.
    """
    if os.path.exists(transaction.file("decide")) and _decide(transaction, "--timer", timeout) != "committed":
        raise TransactionError("not all nodes of restore %s keep its data, so none does: somebody took it back" % transaction.id)
    # a timer that has just gone off has written it down
    if transaction.state()[0] != "committed":
        with transaction.step("committing", "committed"):
            shutil.rmtree(transaction.file("staged"), ignore_errors=True)
            ControlPlane(transaction).remove_held()
            # it was brought here for this restore only, and holds every Secret, whole or not
            for name in ("snapshot.db", "snapshot.db.partial"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(transaction.file(name))
    # Not before: should this die, the timer is what writes down that a single node keeps its data.
    disarm(transaction.plan["unit"])
    removed = []
    for path in generations_to_prune(transaction, keep):
        # What cannot be removed is no reason to call a finished restore failed.
        with contextlib.suppress(OSError):
            _remove(path)
            removed.append(path)
    return removed


def _remove(path):
    """The directory of an ended restore.  One that is interrupted leaves it `pruned`, which the next commit removes."""
    write_durably(os.path.join(path, "state"), "pruned\n")
    # a unit that is left would look for its script for ever
    disarm(Transaction(path).plan["unit"])
    # what makes it a restore goes last, or what is large would stay for good
    for name in sorted(os.listdir(path), key=lambda name: name == "plan.json"):
        if name != "state":
            inner = os.path.join(path, name)
            if os.path.isdir(inner) and not os.path.islink(inner):
                shutil.rmtree(inner)
            else:
                os.unlink(inner)
    shutil.rmtree(path)


def generations_to_prune(transaction, keep):
    """Directories of ended restores beyond the newest `keep` of their kind (0 keeps all), counting `transaction` as the newest that is committed.

    A committed one holds the data from before it, a rolled-back one what had been restored and written since.  One that still keeps
    the manifests of a retired node is none of them.  What a removal that was interrupted left goes in any case.
    """
    kinds = {"committed": [], "rolled-back": [], "pruned": []}
    for other in transactions_in(os.path.dirname(transaction.path)):
        if other.id != transaction.id and not (other.kind == "retire" and os.path.isdir(other.plan["held"])):
            state = other.state()[0]
            kinds.get("committed" if state == "rejoined" else state, []).append(other.path)
    # that one is the newest, whatever the clock said when it began
    surplus = kinds["committed"][: 1 - keep or None] + kinds["rolled-back"][:-keep] if keep else []
    return surplus + kinds["pruned"]


def rejoin_etcd(transaction, initial_cluster, timeout):
    """Start etcd of a retired node over an empty data directory, as a member that the cluster was told of.

    Raises TransactionError when there is no process of it after `timeout` seconds, and ValueError when its manifest is not written as kubeadm does.
    """
    control_plane = ControlPlane(transaction)
    with transaction.step("rejoining", None):
        # with data in the directory etcd reads neither (3.4.45: etcdserver/server.go, haveWAL; 3.7.3: etcdserver/bootstrap.go, bootstrapClusterWithWAL)
        control_plane.set_etcd_flags({"initial-cluster": initial_cluster, "initial-cluster-state": "existing"})
        control_plane.start_etcd(control_plane.etcd_runs, timeout, "no etcd was started")


def rejoin(transaction, timeout):
    """Give the other manifests back to a node whose etcd is a member again; see ControlPlane.start_others."""
    control_plane = ControlPlane(transaction)
    with transaction.step("rejoining", "rejoined"):
        control_plane.start_others(timeout)
        control_plane.remove_held()


def retire_again(transaction, timeout):
    """From an unfinished rejoin back to where the node was; what its etcd got meanwhile is kept as undone.N.

    Raises TransactionError when etcd does not stop within `timeout` seconds.
    """
    plan = transaction.plan
    with transaction.step("rejoining", "committed"):
        ControlPlane(transaction).stop(timeout)
        if os.path.isdir(os.path.join(plan["data_dir"], "member")):
            number = 1
            while os.path.lexists(transaction.file("undone.%d" % number)):
                number += 1
            rename_durably(plan["live"], transaction.file("undone.%d" % number))
        _make_empty(transaction)
