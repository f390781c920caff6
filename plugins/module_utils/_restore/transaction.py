# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One restore of one node: a directory in the data directory's own file system, and the states that lead through it, see _restore/steps.py.

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
import json
import os
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.commit_vote import decide_script
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.rollback_script import rollback_script
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import old_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import sync_directory, write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import run_tool

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
        # a power cut may have taken the end of the log, never the state; one of which an undo was asked for counts as finished, see the script
        finished = not {"committed", "undo"}.isdisjoint([state] + [line.split(" ")[0] for line in transaction.log()])
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
                "untouched": transaction.untouched(),
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
        """The path of what is called that in its directory."""
        return os.path.join(self.path, name)

    @property
    def plan(self):
        """What begin() was given, in today's names.  Raises OSError when it was not begun."""
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
        """restore, or retire for a node that is stopped because others are restored without it."""
        return self.plan.get("kind", "restore")

    @property
    def order(self):
        """The states that lead from `begun` to the end, in order."""
        return RETIRE if self.kind == "retire" else ORDER

    def exists(self):
        """Whether it was begun."""
        return os.path.isfile(self.file("plan.json"))

    def state(self):
        """(state, time it was reached); the time is empty before the first step.

        A disk that failed may give the file back without its text: ext4 mounted with `discard`, as Debian's cloud images have it, trims what a rename
        replaced although its journal ends before that rename (seen with Linux 6.18).  The log, to which is only added, has that text.
        """
        try:
            with open(self.file("state"), encoding="utf-8") as stream:
                line = stream.read().strip("\0 \n")
        except FileNotFoundError:
            # It is there before the plan is, and is always replaced: only a removal takes it away, and half of the old data may be gone with it.
            log = self.log()
            line = "pruned" if not log or log[-1].split(" ")[0] in ENDED else ""
        word, dummy, since = (line or (self.log() or ["begun"])[-1]).partition(" ")
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

    def untouched(self):
        """Whether it was left before it stopped anything; a node that is retired has nothing staged."""
        return self.state()[0] in _UNTOUCHED and self.abandoned()

    def log(self):
        """Every state it went through with the time, as lines."""
        with contextlib.suppress(FileNotFoundError), open(self.file("log"), encoding="utf-8") as stream:
            return stream.read().replace("\0", "").splitlines()
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
            stream.flush()
            # see state()
            os.fdatasync(stream.fileno())

    @contextlib.contextmanager
    def step(self, doing, done):
        """Hold the lock, write `doing`, act, write `done` if there is one.

        Raises Busy while somebody else holds the lock, and TransactionError when another step comes next, as after a rollback in the meantime.
        """
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

    def begin(self, plan):
        """Make the directory, the plan and the rollback script.  Nothing of the cluster is touched.

        `plan["about"]` is kept for whoever finishes the restore later.  Raises OSError when one of them cannot be written, and TransactionError while
        another restore of this node is under way.
        """
        base = os.path.dirname(self.path)
        os.makedirs(base, mode=0o700, exist_ok=True)
        with self._alone_in(base):
            self._make(plan, base)
        self._plan = plan

    @contextlib.contextmanager
    def _alone_in(self, base):
        """While it is being made: of two that were started at once each would take the other's manifests and data for the node's own."""
        directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise Busy("another restore begins on this host right now, so nothing was done here") from exc
            for other in transactions_in(base):
                state = other.state()[0]
                if other.id != self.id and state not in ENDED and not other.untouched():
                    raise TransactionError(
                        "restore %s is %s on this host, so no other one was begun; wait until it has ended, then run this again" % (other.id, state)
                    )
                # its revision was raised above what the cluster had before the other one, and an undo would choose that one
                if other.id > self.id and state in ENDED:
                    raise TransactionError(
                        "the restore %s was made on this host after this one was planned, so this one was not begun; run it again" % other.id
                    )
            yield
        finally:
            os.close(directory)

    def _make(self, plan, base):
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

    def roll_back(self, undo, timeout):
        """Run the script; `undo` also rolls back a finished restore.  Returns the lines it said.  Raises TransactionError with the last one when it fails."""
        argv = ["/bin/sh", self.file("rollback")] + (["--undo"] if undo else [])
        result = run_tool(argv, timeout)
        if result.rc != 0:
            raise TransactionError(
                "the rollback %s: %s" % (result.how(), (result.stdout.strip().splitlines() or [result.last_words()])[-1])
            )
        return result.stdout.splitlines()
