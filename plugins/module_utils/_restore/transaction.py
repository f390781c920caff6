# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One restore of one node: a directory in the data directory's own file system, and the steps that lead through it.

    <transaction>/state     where the restore stands: one word and the time, written before each step
                  log       every state it went through
                  plan.json all that the steps need; `kind` is restore, or retire for a node that is stopped because others are restored without it
                  rollback  the script that undoes it, see _restore/rollback_script.py
                  decide    with several nodes: asks the restored etcd whether all of them keep the data, see _restore/commit_vote.py
                  lock      held by whoever takes a step
                  staged/   the restored data, until it is swapped in
                  old/      the data that was live before, from the swap on

Private to this collection.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import etcd_health, listens
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, leader_lease, release_leaders
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.kubelet import Kubelet
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import (
    COMPONENTS,
    StaticPod,
    annotated,
    with_flags,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.commit_vote import decide_script
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.rollback_script import rollback_script, timer_units
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import old_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import (
    copy_ownership,
    rename_durably,
    rewrite,
    sync_directory,
    sync_tree,
    write_durably,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import database_is_locked, remaining, static_pods_begun
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import free_bytes

# The states in which a restore leaves a node, in order.  Each step first writes `<doing>`, then acts, then writes `<done>`.
STEPS = (
    ("staging", "staged"),
    ("stopping", "stopped"),
    ("swapping", "swapped"),
    ("starting-etcd", "etcd-started"),
    ("starting", "started"),
    ("committing", "committed"),
)
ORDER = [state for step in STEPS for state in step]
# A node that is retired has its manifests kept from kubelet, and no data, until it is brought back as a new member.
RETIRE = [state for step in STEPS[1:3] + STEPS[5:] + (("rejoining", "rejoined"),) for state in step]
# Nothing is to be undone or finished in these.
ENDED = ("committed", "rejoined", "rolled-back", "pruned")
# As long as nothing was stopped, nothing of the node is different.
_UNTOUCHED = ("begun", "staging", "staged")
# Seconds after which nobody is on the way to the next step: a controller takes it at once, and a step holds the lock.
_ABANDONED_AFTER = 900
# Nodes that serve the restored data go back first: one that is restored alone serves alone, beside whatever the others would serve.
_RETIRED_LATER = 180

# kubelet and the runtime need time to see a removed manifest (0.2 s); the API server is not left its 30 s (kubeadm sets no terminationGracePeriodSeconds, and
# it waits up to 60 s for its clients: 0.34.4 and 0.37.2 of apiserver, pkg/server/config.go, ShutdownTimeout).
_KILL_AFTER = 0.5
# An etcd that was asked to end listens no more, and then waits up to 7 s for requests at each of its addresses, and as long for a member to hand its leadership
# to, which are ending as well (3.4.45 to 3.7.3: embed/etcd.go, Close; etcdserver/server.go, Stop; ReqTimeout is 5 s and two election timeouts). What it has
# acknowledged is in its log by then.
_HANDOVER = 2.0
# A kubelet that was started while no API server answered, as after a power failure without a quorum, starts static Pods but never stops one: it
# skips deletions until it has heard of all its Pods (1.34.4 to 1.37.2: pkg/kubelet/kubelet.go, deletePod). From here on it is done for it, as it would:
# first asked, 10 s later killed.
_END_AFTER = 15.0
# A kubelet that has backed off (10 s to 5 min by default: kubelet.go, newCrashLoopBackOff) forgets it when it is restarted. So does one that waits to be rid of
# the mirror Pod of the etcd before (1.37.2: kubelet_pods.go, HandlePodCleanups, in its main loop; kubelet.go, SyncPod): an API server that is alive while etcd
# is not answers it only after 34 s, each time (apiserver 0.34.4 to 0.37.2: pkg/endpoints/handlers/rest.go, requestTimeoutUpperBound). Ours are ended before;
# a load balancer may know others.
_RESTART_KUBELET_AFTER = 8.0
# Another annotation makes another Pod, since kubelet derives a static Pod's uid from its manifest (1.34.4 to 1.37.2: pkg/kubelet/config/common.go,
# applyDefaults): of the one that was stopped a moment ago it still has sandboxes, a status, and a back-off that counts each end as a crash (10, 20, 40 s).
_ANNOTATION = "k8s-dr.etcd/restore"
# kubelet (since 1.22; read in 1.34 to 1.37: pkg/kubelet/pod_workers.go, allowPodStart) starts no static Pod while one of the same name is not gone from its
# workers, and looks again only after 10 to 15 s, or when it hears of yet another Pod of that name. So it is given another annotation, which costs nothing, as
# long as it has not begun. Nearly always the old one is gone within a second, now and then only after three. Growing, in case it has and does not show it.
_GIVE_AGAIN_AFTER = (0.3,) * 8 + (0.4, 0.5, 0.6, 0.8, 1.2)
_ASK_CLIENT_EVERY = 10
_POLL = 0.05


class TransactionError(Exception):
    """A step that could not be taken: one sentence that says what state things are in."""


class Busy(TransactionError):
    """Somebody else is taking a step of this restore on this host: a module whose controller died goes on, or a rollback."""


def transactions_in(directory):
    """The Transactions in a directory, oldest first, since their ids start with the time; [] where it does not exist."""
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    found = [Transaction(os.path.join(directory, name)) for name in names]
    return [transaction for transaction in found if transaction.exists()]


def list_transactions(layout):
    """[{id, path, kind, state, since, ended, finished, untouched, hosts, retired, about}] of a DataLayout, oldest first.

    `untouched` is one that was left before it stopped anything.  `hosts` and `retired` are who got the snapshot and who was stopped.  `about` is what
    the restore was begun with, for who is to finish it; {} when it has ended.
    """
    found = []
    for transaction in transactions_in(layout.transactions_dir):
        state, since = transaction.state()
        # a power cut may have taken the end of the log, never the state
        finished = "committed" in [state] + [line.split(" ")[0] for line in transaction.log()]
        ended = state in ENDED
        about = old_manifest.current_record(transaction.plan.get("about", {}))
        found.append(
            {
                "id": transaction.id,
                "path": transaction.path,
                "kind": transaction.kind,
                "state": state,
                "since": since,
                "ended": ended,
                "finished": finished,
                "untouched": transaction.kind == "restore" and state in _UNTOUCHED and transaction.abandoned(),
                "hosts": about.get("hosts", []),
                "retired": about.get("retired", []),
                "about": {} if ended else about,
            }
        )
    return found


def with_todays_names(plan):
    """A plan that an earlier version of this collection wrote: it had one URL for the steps and one for the rollback script."""
    if "health_urls" not in plan and "client_url" in plan:
        # of the script's, which ends with the path, only the address
        urls = [plan["client_url"], plan.get("health_url", "").rpartition("/health")[0]]
        plan = dict(plan, health_urls=[url for url in urls if url])
    return plan


class Transaction:
    """A transaction directory that exists, or is about to."""

    def __init__(self, path):
        self.path = path
        self.id = os.path.basename(path)
        self._plan = None

    def file(self, name):
        return os.path.join(self.path, name)

    @property
    def plan(self):
        if self._plan is None:
            with open(self.file("plan.json"), encoding="utf-8") as stream:
                self._plan = with_todays_names(json.load(stream))
        return self._plan

    @property
    def layout(self):
        """The DataLayout of the data directory that is restored."""
        return DataLayout(self.plan["data_dir"])

    @property
    def kind(self):
        return self.plan.get("kind", "restore")

    @property
    def order(self):
        return RETIRE if self.kind == "retire" else ORDER

    def exists(self):
        return os.path.isfile(self.file("plan.json"))

    def state(self):
        """(state, time it was reached); the time is empty before the first step."""
        with open(self.file("state"), encoding="utf-8") as stream:
            word, dummy, since = stream.read().strip().partition(" ")
        return word, since

    def abandoned(self):
        """Whether nobody takes a step now, and nobody has for a while."""
        # the lock last: whoever is on the way to the next step must not find it taken
        if time.time() - os.stat(self.file("state")).st_mtime <= _ABANDONED_AFTER:
            return False
        with contextlib.suppress(OSError), open(self.file("lock"), encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        return False

    def log(self):
        """Every state it went through with the time, as lines."""
        with contextlib.suppress(FileNotFoundError), open(self.file("log"), encoding="utf-8") as stream:
            return stream.read().splitlines()
        return []

    def reached(self, state):
        """Whether this step was taken before."""
        now = self.state()[0]
        return now in self.order and self.order.index(now) >= self.order.index(state)

    def _enter(self, state):
        now = time.time()
        line = "%s %s.%03dZ\n" % (state, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)), int(now % 1 * 1000))
        write_durably(self.file("state"), line)
        with open(self.file("log"), "a", encoding="utf-8") as stream:
            stream.write(line)

    @contextlib.contextmanager
    def step(self, doing, done):
        """Hold the lock, write `doing`, act, write `done` if there is one.  Refuses when somebody rolled back in the meantime."""
        with open(self.file("lock"), "a", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise Busy("another step of restore %s is being taken on this host right now" % self.id) from exc
            now = self.state()[0]
            # from where the step before ended, or from this very step, interrupted
            if now not in (doing, (["begun"] + self.order)[self.order.index(doing)]):
                raise TransactionError("restore %s is %s on this host, so it cannot go on with %s" % (self.id, now, doing))
            self._enter(doing)
            yield
            if done is not None:
                self._enter(done)

    # -- begin ----------------------------------------------------------------------------------------------------

    def begin(self, plan):
        """Make the directory, the plan and the rollback script.  Nothing of the cluster is touched.

        `plan["about"]` is kept for whoever finishes the restore later.
        """
        base = os.path.dirname(self.path)
        os.makedirs(base, mode=0o700, exist_ok=True)
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        open(self.file("lock"), "a", encoding="utf-8").close()
        # On the worst day there is nothing left to replace; then this nothing is what becomes old/.
        if not os.path.isdir(plan["live"]):
            os.makedirs(plan["live"], mode=0o700)
            if plan.get("owner"):
                os.chown(plan["live"], *plan["owner"])
        write_durably(self.file("rollback"), rollback_script(plan), 0o700)
        if len(plan.get("voters", [])) > 1:
            write_durably(self.file("decide"), decide_script(plan), 0o700)
        write_durably(self.file("state"), "begun\n")
        write_durably(self.file("plan.json"), json.dumps(plan, indent=2, sort_keys=True) + "\n")
        sync_directory(base)
        self._plan = plan

    # -- stage ----------------------------------------------------------------------------------------------------

    def stage(self, snapshot, argv_tail, tool, timeout, check=None):
        """Restore the snapshot into staged/ while the cluster serves.  check: is called with the data directory before it counts as staged."""
        staged = self.file("staged")
        with self.step("staging", "staged"):
            # what a failed restore leaves makes the next one fail
            shutil.rmtree(staged, ignore_errors=True)
            # Under another name until it is whole, so that whatever is called staged/ can be used.
            partial = self.file("staged.partial")
            shutil.rmtree(partial, ignore_errors=True)
            result = run_tool([tool, "snapshot", "restore", snapshot, "--data-dir", partial] + argv_tail, timeout)
            if result.rc != 0:
                shutil.rmtree(partial, ignore_errors=True)
                raise TransactionError(
                    "`%s snapshot restore %s` %s: %s" % (os.path.basename(tool), snapshot, result.how(), result.last_words())
                )
            if not os.path.isfile(database_path(partial)):
                raise TransactionError("`%s snapshot restore` said that it succeeded but made no database in %s" % (tool, partial))
            if check:
                check(partial)
            copy_ownership(self.plan["data_dir"], partial)
            sync_tree(partial)
            rename_durably(partial, staged)

    # -- rollback timer -------------------------------------------------------------------------------------------

    def arm(self, seconds):
        """Have systemd run the rollback script in so many seconds, and at once after a reboot; arming again begins anew."""
        now = self.state()[0]
        retire = self.kind == "retire"
        if now not in ["begun"] * retire + self.order[0 if retire else ORDER.index("staged") : self.order.index("committing")]:
            raise TransactionError("restore %s is %s on this host, so there is nothing to arm its timer for" % (self.id, now))
        unit = self.plan["unit"]
        # After a reboot a node that was to be restored goes back at once, one that was to be retired still waits for the others.
        target, wanted = ("timers", ".timer") if retire else ("multi-user", ".service")
        seconds += _RETIRED_LATER * retire
        wants = os.path.join(os.path.dirname(unit), target + ".target.wants")
        for suffix, text in zip((".service", ".timer"), timer_units(self.plan, seconds)):
            write_durably(unit + suffix, text, 0o644)
        os.makedirs(wants, mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(unit + wanted, os.path.join(wants, os.path.basename(unit) + wanted))
        sync_directory(wants)
        for command in (["daemon-reload"], ["restart", os.path.basename(unit) + ".timer"]):
            result = run_tool(["systemctl"] + command, 60)
            if result.rc != 0:
                self._disarm()
                raise TransactionError("the rollback timer cannot be armed: `systemctl %s` %s: %s" % (" ".join(command), result.how(), result.last_words()))

    def _disarm(self):
        """Whatever stays armed finds the restore committed and does nothing."""
        unit = self.plan["unit"]
        name = os.path.basename(unit)
        paths = [unit + ".timer", unit + ".service"] + glob.glob(os.path.join(glob.escape(os.path.dirname(unit)), "*.wants", glob.escape(name) + ".*"))
        if not any(os.path.lexists(path) for path in paths):
            return
        with contextlib.suppress(ToolError):
            run_tool(["systemctl", "stop", name + ".timer"], 60)
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        with contextlib.suppress(ToolError):
            run_tool(["systemctl", "daemon-reload"], 60)

    # -- stop -----------------------------------------------------------------------------------------------------

    def stop(self, timeout):
        """Take the control plane's own manifests away from kubelet and wait for proof that etcd is gone."""
        with self.step("stopping", "stopped"):
            self._take_away(timeout)

    def _running(self, names, pods=()):
        return remaining(names, pods, "/proc", self.plan.get("served", self.plan["data_dir"]))

    def etcd_runs(self):
        """Whether there is a process of this node's own etcd, whatever it does."""
        return bool(self._running(("etcd",)))

    def _take_away(self, timeout):
        plan = self.plan
        pods = {process.pod for process in self._running(COMPONENTS)}
        os.makedirs(plan["held"], mode=0o700, exist_ok=True)
        sync_directory(os.path.dirname(plan["held"]))
        # Files, not the directory: kubelet sees a moved file within 0.2 s, a moved directory at its 20 s poll (1.34.4 to 1.37.2: pkg/kubelet/config,
        # file_linux.go and fileCheckFrequency).
        # The API server first: nothing may be left that writes to an etcd that is going.
        for name in reversed(plan["files"]):
            source = os.path.join(plan["manifests_dir"], name)
            if os.path.exists(source):
                rename_durably(source, os.path.join(plan["held"], name))
        self._wait_until_stopped(pods, timeout)

    def _wait_until_stopped(self, pods, timeout):
        database = self.layout.database
        start = time.monotonic()
        asked = set()
        while True:
            left = self._running(COMPONENTS, pods)
            elapsed = time.monotonic() - start
            locked = database_is_locked(database)
            listening = [listens(url, 0.5) for url in self.plan["listen_urls"]]
            if not left and not locked and not any(listening):
                return
            if elapsed > timeout:
                names = ", ".join(sorted({"%s (process %d)" % (process.name, process.pid) for process in left})) or "another process"
                raise TransactionError(
                    "%s still ran %d s after kubelet was told to stop the control plane%s; the data was not touched"
                    % (names, timeout, ", and the database is in use" if locked else "")
                )
            for process in left if elapsed > _KILL_AFTER else ():
                # The API server holds no state, and would use its whole 30 s of grace.
                kill = process.name == "kube-apiserver" or elapsed > _END_AFTER + 10
                kill = kill or (process.name == "etcd" and elapsed > _HANDOVER and not all(listening))
                if kill or (elapsed > _END_AFTER and process.pid not in asked):
                    asked.add(process.pid)
                    with contextlib.suppress(OSError):
                        os.kill(process.pid, signal.SIGKILL if kill else signal.SIGTERM)
            time.sleep(_POLL)

    # -- swap -----------------------------------------------------------------------------------------------------

    def swap(self):
        """Two renames: the live data becomes old/, the staged data becomes live.  A node that is retired gets none."""
        plan = self.plan
        staged = self.file("staged")
        if plan["live"] != plan["data_dir"]:
            staged = os.path.join(staged, "member")
        with self.step("swapping", "swapped"):
            if self._running(("etcd",)) or database_is_locked(self.layout.database):
                raise TransactionError("etcd runs again although its manifest is away; the data was not touched")
            if self.kind == "retire":
                if not os.path.exists(self.file("old")):
                    rename_durably(plan["live"], self.file("old"))
                self._make_empty()
                return
            if not os.path.isdir(staged):
                if not (os.path.isdir(self.file("old")) and os.path.isdir(plan["live"])):
                    raise TransactionError("%s is missing, so there is nothing to swap in" % staged)
                return
            # the second rename may be all that an interrupted swap still lacks
            if not os.path.exists(self.file("old")) and os.path.exists(plan["live"]):
                rename_durably(plan["live"], self.file("old"))
            rename_durably(staged, plan["live"])

    def _make_empty(self):
        """A data directory with nothing in it, for the member that this node becomes later."""
        plan = self.plan
        if plan["live"] == plan["data_dir"] and not os.path.isdir(plan["live"]):
            os.mkdir(plan["live"], 0o700)
            copy_ownership(self.file("old"), plan["live"])
            sync_directory(os.path.dirname(plan["live"]))

    # -- start ----------------------------------------------------------------------------------------------------

    def start_etcd(self, tls, timeout, relieve=None, ask_client=lambda: False):
        """Give etcd's manifest back to kubelet and wait until etcd serves.

        relieve: what is called when etcd takes no writes but for an alarm NOSPACE that the snapshot carries.
        ask_client: whether etcd's own client calls it healthy, for an etcd that says /health nowhere.
        """
        urls, next_question = self.plan["health_urls"], time.monotonic() + _ASK_CLIENT_EVERY

        def serves():
            nonlocal next_question
            # Without a quorum each question takes its whole time, so what one URL says is not asked for at the next.
            url, said = next(((url, said) for url in urls for said in [etcd_health(url, tls)] if said), ("", ""))
            if said == "false" and relieve and etcd_health(url, tls, "?exclude=NOSPACE") == "true":
                relieve()
            elif not said and time.monotonic() > next_question and self._running(("etcd",)):
                # slow, and starts a process
                next_question = time.monotonic() + _ASK_CLIENT_EVERY
                return ask_client()
            return said == "true"

        with self.step("starting-etcd", "etcd-started"):
            self._start(self.plan["files"][0], "etcd", serves, timeout, "etcd did not serve the restored data")

    def start(self, timeout, snapshot_revision=0):
        """Give the other manifests back and wait until this node's API server is ready.

        snapshot_revision: controllers need not wait for leaders that nobody has heard of since.
        """
        with self.step("starting", "started"):
            self._start_others(timeout, snapshot_revision)

    def _start_others(self, timeout, snapshot_revision=0):
        apiserver = self.plan["files"][1]
        api = KubeApi(self._pod(apiserver), timeout=2)
        self._start(apiserver, "kube-apiserver", api.ready, timeout, "the API server at %s was not ready" % api.url)
        if snapshot_revision:
            leases = [leader_lease(self._pod(name)) for name in self.plan["files"][2:]]
            release_leaders(api, [lease for lease in leases if lease], snapshot_revision)
        # They can do nothing without an API server, and would take the processor from it.
        for name in self.plan["files"][2:]:
            self._give_back(name)

    def _pod(self, name):
        """The StaticPod of one of the plan's files, which kubelet has or not."""
        held, given = (os.path.join(self.plan[where], name) for where in ("held", "manifests_dir"))
        with open(held if os.path.exists(held) else given, encoding="utf-8") as stream:
            return StaticPod("", stream.read())

    def _give_back(self, name, again=0):
        """Have kubelet start this manifest; `again` makes it another Pod than the one it was given before."""
        held, given = (os.path.join(self.plan[where], name) for where in ("held", "manifests_dir"))
        if again:
            rename_durably(given, held)
        if os.path.exists(held):
            self._annotate(held, again)
            rename_durably(held, given)
        elif not os.path.exists(given):
            raise TransactionError("the manifest %s is neither in %s nor in %s" % (name, self.plan["held"], self.plan["manifests_dir"]))

    def _annotate(self, path, again):
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        new = annotated(text, _ANNOTATION, "%s.%d" % (self.id, again) if again else self.id)
        if new != text:
            rewrite(path, new)

    def _start(self, name, component, condition, timeout, otherwise):
        """Give a manifest back, and again while kubelet puts it off, until what it starts does what it should."""
        kubelet_dir = Kubelet().root_dir
        known = static_pods_begun(kubelet_dir)
        self._give_back(name)
        start = given = time.monotonic()
        restarted, again = False, 0
        while not condition():
            elapsed = time.monotonic() - start
            if elapsed > timeout:
                # etcd ends at its first write then, and says so in a log that nobody reads now
                full = "; the file system of %s is full" % self.path if free_bytes(self.path) < 65536 else ""
                raise TransactionError("%s within %d s%s" % (otherwise, timeout, full))
            if restarted or self._running((component,)):
                pass
            elif elapsed > _RESTART_KUBELET_AFTER:
                # costs nothing: there is nothing that it would have to stop
                run_tool(["systemctl", "restart", "kubelet"], 60)
                restarted = True
            elif again < len(_GIVE_AGAIN_AFTER) and time.monotonic() - given > _GIVE_AGAIN_AFTER[again] and static_pods_begun(kubelet_dir) <= known:
                again += 1
                self._give_back(name, again)
                given = time.monotonic()
            time.sleep(_POLL)

    # -- commit ---------------------------------------------------------------------------------------------------

    def vote(self, cluster_id, timeout):
        """This node would keep the restored data.  From here on it does what all of them decide."""
        with self.step("committing", None):
            write_durably(self.file("restored-cluster"), "%d\n" % int(cluster_id, 16))
        self._decide("vote", timeout)

    def _decide(self, how, timeout):
        """What the script `decide` says, asked until it knows."""
        end = time.monotonic() + timeout
        while True:
            result = run_tool(["/bin/sh", self.file("decide"), how], timeout)
            if result.rc == 0:
                return result.stdout.strip()
            if time.monotonic() > end:
                raise TransactionError(
                    "the restored etcd could not be asked for %d s whether all nodes keep its data; this node has it, and goes by what all decide"
                    % timeout
                )
            time.sleep(0.5)

    def commit(self, keep, timeout=60):
        """Declare the restored data the cluster's data; keep the newest `keep` generations of old data."""
        if os.path.exists(self.file("decide")) and self._decide("--timer", timeout) != "committed":
            raise TransactionError("not all nodes of restore %s keep its data, so none does: somebody took it back" % self.id)
        with self.step("committing", "committed"):
            shutil.rmtree(self.file("staged"), ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rmdir(self.plan["held"])
            # it was brought here for this restore only, and holds every Secret, whole or not
            for name in ("snapshot.db", "snapshot.db.partial"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.file(name))
            self._disarm()
        removed = []
        for path in generations_to_prune(self, keep):
            # What cannot be removed is no reason to call a finished restore failed.
            with contextlib.suppress(OSError):
                # so that an interrupted removal is not taken for a generation
                write_durably(os.path.join(path, "state"), "pruned\n")
                shutil.rmtree(path)
                removed.append(path)
        return removed

    # -- rejoin ---------------------------------------------------------------------------------------------------

    def rejoin_etcd(self, initial_cluster, timeout):
        """Start etcd of a retired node over an empty data directory, as a member that the cluster was told of."""
        etcd = self.plan["files"][0]
        held = os.path.join(self.plan["held"], etcd)
        with self.step("rejoining", None):
            if os.path.exists(held):
                with open(held, encoding="utf-8") as stream:
                    text = stream.read()
                # with data in the directory etcd reads neither (3.4.45: etcdserver/server.go, haveWAL; 3.7.3: etcdserver/bootstrap.go, bootstrapClusterWithWAL)
                new = with_flags(text, {"initial-cluster": initial_cluster, "initial-cluster-state": "existing"})
                if new != text:
                    rewrite(held, new)
            self._start(etcd, "etcd", self.etcd_runs, timeout, "no etcd was started")

    def rejoin(self, timeout):
        """Give the other manifests back to a node whose etcd is a member again."""
        with self.step("rejoining", "rejoined"):
            self._start_others(timeout)
            with contextlib.suppress(OSError):
                os.rmdir(self.plan["held"])

    def retire_again(self, timeout):
        """From an unfinished rejoin back to where the node was; what its etcd got meanwhile is kept as undone.N."""
        plan = self.plan
        with self.step("rejoining", "committed"):
            self._take_away(timeout)
            if os.path.isdir(os.path.join(plan["data_dir"], "member")):
                number = 1
                while os.path.lexists(self.file("undone.%d" % number)):
                    number += 1
                rename_durably(plan["live"], self.file("undone.%d" % number))
            self._make_empty()

    # -- roll back ------------------------------------------------------------------------------------------------

    def roll_back(self, undo, timeout):
        """Run the script.  Returns what it said."""
        argv = ["/bin/sh", self.file("rollback")] + (["--undo"] if undo else [])
        result = run_tool(argv, timeout)
        if result.rc != 0:
            raise TransactionError(
                "the rollback %s: %s" % (result.how(), (result.stdout.strip().splitlines() or [result.last_words()])[-1])
            )
        return result.stdout.splitlines()


def generations_to_prune(transaction, keep):
    """Directories of ended restores beyond the newest `keep` of their kind (0 keeps all), counting `transaction` as committed.

    A committed one holds the data from before it, a rolled-back one what had been restored and written since.  One that still keeps
    the manifests of a retired node is none of them.
    """
    kinds = {"committed": [], "rolled-back": []}
    for other in transactions_in(os.path.dirname(transaction.path)):
        if not (other.kind == "retire" and os.path.isdir(other.plan["held"])):
            state = other.state()[0]
            kinds.get("committed" if other.id == transaction.id or state == "rejoined" else state, []).append(other.path)
    return [path for paths in kinds.values() for path in paths[:-keep]] if keep else []
