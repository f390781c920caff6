# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients that write and read while a restore goes on, and whether all of their answers fit one history.

    prepare(cluster)                            # before the snapshot is taken
    def test(cluster, old, clients):
        clients.restore_begins()
        ...
        clients.check("new")                    # raises HistoryError unless all fits one restore

tests/history/main.go decides that.  The clients use four ConfigMaps: registers, of which each write replaces the word that they hold, and lists, to which each
append adds a word.  Each has its side as well, `new` in the snapshot and `old` in the data that a restore replaces.  A write leaves it alone and its answer has
it, so that each answer says in which data it was given.

Reads do not say from when they may be, so they have to be linearizable: a GET is answered by etcd, a LIST from the API server's cache only once that is as new
as etcd (Kubernetes 1.37.2, apiserver/pkg/storage/cacher/delegator.go).
"""

from __future__ import annotations

import functools
import http.client
import json
import math
import random
import subprocess
import threading
import time

import pytest
from cluster import ROOT, administrator, wait_for

REGISTERS = ("register-0", "register-1")
LISTS = ("list-0", "list-1")
KEYS = REGISTERS + LISTS
# The request was not executed.  Any other answer but success leaves open whether it was, or will be.
REFUSED = (401, 403, 404, 409)


# What an end is called, by how many restores before it were rolled back.
ROLLBACKS = ("", " after a rollback", " after two rollbacks")


class HistoryError(AssertionError):
    """What the clients saw fits no history that it should fit."""


def prepare(cluster, side="new"):
    """Give the objects of the clients their first values: `new` is for the snapshot."""
    cluster.apply(*(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": key, "namespace": cluster.namespace, "labels": {"history": "yes"}},
            "data": {"side": side, "words": "first"},
        }
        for key in KEYS
    ))


@functools.cache
def checker():
    """The path of the checker, which is built if it is not there."""
    argv = [str(ROOT / "tests/tools/programs"), "history_checker"]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[1]


def decide(path):
    """What the checker says of a history."""
    return json.loads(subprocess.run([checker(), str(path)], stdout=subprocess.PIPE, text=True, check=True).stdout)


def value_of(item):
    """The words by which the checker knows what an object holds."""
    return "%s %s" % (item["data"]["side"], item["data"]["words"])


class Unanswered(Exception):
    """The request may have been executed, or may still be."""


class NotExecuted(Exception):
    """The request was not executed."""


class Client:
    """One client of one API server, with a connection of its own."""

    def __init__(self, name, path, connect, clock, records):
        self.name, self.path, self.connect, self.clock, self.records = name, path, connect, clock, records
        self._connection = None
        self._written = 0
        self._random = random.Random(name)

    def _ask(self, method, path, body=None):
        """The parsed answer of a request."""
        try:
            if self._connection is None:
                connection = self.connect()
                connection.connect()
                self._connection = connection
        except (OSError, http.client.HTTPException) as exc:
            raise NotExecuted from exc
        try:
            self._connection.request(method, self.path + path, body and json.dumps(body), {"Content-Type": "application/merge-patch+json"} if body else {})
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as exc:
            self._connection.close()
            self._connection = None
            raise Unanswered from exc
        if response.status == 200:
            return answer
        if response.status == 404 and method == "GET" and answer.get("details", {}).get("kind") == "configmaps":
            return {}
        raise NotExecuted if response.status in REFUSED else Unanswered

    def _record(self, op, call, answered=True, **more):
        self.records.append({"client": self.name, "call": math.floor(call), "return": math.ceil(self.clock()) if answered else 0, "op": op, **more})

    def read(self, key=None):
        """Read an object, or all of them at one moment; returns the object or the list, {} if it is missing, and None without an answer."""
        call = self.clock()
        try:
            answer = self._ask("GET", "/" + key if key else "?labelSelector=history")
        except (NotExecuted, Unanswered):
            return None
        values = dict.fromkeys([key] if key else KEYS, "")
        if answer:
            values.update({item["metadata"]["name"]: value_of(item) for item in answer.get("items", [answer])})
        self._record("read", call, values=values)
        return answer

    def _patch(self, op, key, body, **more):
        call = self.clock()
        try:
            self._record(op, call, key=key, answer=value_of(self._ask("PATCH", "/" + key, body)), **more)
        except Unanswered:
            self._record(op, call, answered=False, key=key, **more)
        except NotExecuted:
            self._record(op, call, failed=True, key=key, **more)

    def _word(self):
        self._written += 1
        return "%s.%d" % (self.name, self._written)

    def write(self, key):
        """Replace the word of a register."""
        word = self._word()
        self._patch("write", key, {"data": {"words": word}}, value=word)

    def append(self, key):
        """Add a word to a list as it was read, or not at all if it was changed since."""
        item = self.read(key)
        if item:
            word = self._word()
            words = "%s %s" % (item["data"]["words"], word)
            body = {"metadata": {"resourceVersion": item["metadata"]["resourceVersion"]}, "data": {"words": words}}
            self._patch("append", key, body, value=word, before=value_of(item))

    def any(self):
        """One of these, by chance."""
        what = self._random.choice((self.write, self.append, self.read, self.read))
        what(self._random.choice({self.write: REGISTERS, self.append: LISTS}.get(what, (*KEYS, None, None, None, None))))

    def close(self):
        if self._connection is not None:
            self._connection.close()


class Clients:
    """A number of clients, which share the API servers.  `interval` is the pause of each between two requests, in seconds."""

    def __init__(self, cluster, name, number=6, interval=0.2):
        self.cluster, self.name, self.interval = cluster, name, interval
        self.records, self.restores, self._broken = [], [], []
        self._epoch = time.monotonic()
        self._stop = threading.Event()
        checker()
        hosts = list(cluster.nodes)
        self._clients = [self._client(hosts[index % len(hosts)], chr(ord("a") + index)) for index in range(number)]
        self._threads = [threading.Thread(target=self._loop, args=(client,), daemon=True) for client in self._clients]

    def _client(self, host, letter):
        path = "/api/v1/namespaces/%s/configmaps" % self.cluster.namespace
        return Client("%s%s" % (host, letter), path, self._connect(host), self._clock, self.records)

    def _connect(self, host):
        """What makes a connection to the API server of a host."""
        address, context = self.cluster.address(host), administrator(self.cluster.kubeconfig)[1]
        return lambda: http.client.HTTPSConnection(address, 6443, timeout=2, context=context)

    def _clock(self):
        return (time.monotonic() - self._epoch) * 1e6

    def _loop(self, client):
        try:
            while not self._stop.wait(self.interval * random.uniform(0.5, 1.5)):
                client.any()
        except Exception as exc:
            self._broken.append(exc)
        client.close()

    def __enter__(self):
        prepare(self.cluster, "old")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *dummy):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def restore_begins(self):
        """From now on, one restore more may replace the data."""
        self.restores.append(math.floor(self._clock()))

    def _read_at_the_end(self):
        """Each object alone and all at once, through each API server."""
        for number, host in enumerate(self.cluster.nodes):
            client = self._client(host, "z%d" % number)
            for key in (*KEYS, None):
                wait_for(lambda client=client, key=key: client.read(key) is not None, 30, "%s answers after the end" % host)
            client.close()

    def check(self, side):
        """End, and raise HistoryError unless all answers fit a history that ends on this side; returns the checker's answer."""
        self.__exit__()
        if self._broken:
            raise self._broken[0]
        # a restore that ends on the snapshot was not rolled back
        rollbacks = max(len(self.restores), 1) - (side == "new")
        ends = [side + after for after in ROLLBACKS[: rollbacks + 1]]
        sides = {"start": dict.fromkeys(KEYS, "old first"), "snapshot": dict.fromkeys(KEYS, "new first")}
        facts = {**sides, "restores": self.restores, "over": math.ceil(self._clock()), "ends": ends}
        path = ROOT / "reports" / "history" / (self.name + ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._read_at_the_end()
        finally:
            path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (facts, *self.records)))
        return judge(path, ends)


def judge(path, ends):
    """As decide(); an error, unless one of these ends fits."""
    said = decide(path)
    if not said["passed"]:
        why = "These could not be decided in the time: %s." % ", ".join(said["unknown"]) if said["unknown"] else "Together, these are impossible:"
        fits = "; it fits %s" % " and ".join(said["fits"]) if said["fits"] else ""
        raise HistoryError("%s fits no history with the end %s%s. %s\n%s" % (path, " or ".join(ends), fits, why, "\n".join(said["explanation"])))
    return said


@pytest.fixture
def clients(cluster, old, request):
    """Clients from the moment at which the cluster has the data that a restore is to replace."""
    with Clients(cluster, "%s-%s" % (cluster.name, request.node.name.partition("[")[2].rstrip("]") or request.node.name)) as clients:
        yield clients
