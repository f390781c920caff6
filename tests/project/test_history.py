# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests/tools/history.py says of good histories and of those with a defect: of a few requests each, and of clients of API servers that are not real."""

from __future__ import annotations

import copy
import http.client
import json
import pathlib
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

import history
from history import Clients, HistoryError, judge

ROOT = history.ROOT
OLD = ["old", "old after a rollback", "old after two rollbacks"]
NEW = ["new"]


@pytest.fixture(scope="module", autouse=True)
def checker():
    """It is built with Go, which a machine need not have for these tests."""
    argv = ["bash", "-c", '. "$0"; ls -d "$cache"/programs/history_checker-*/', ROOT / "tests/sandbox/lib.sh"]
    if not shutil.which("go") and subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no Go on this machine to build the history checker with: tests/tools/programs history_checker gets both")
    process = subprocess.run([ROOT / "tests/tools/programs", "history_checker"], capture_output=True, text=True, check=False)
    if "this failed: go get" in process.stderr:
        pytest.skip("the history checker cannot be built, since no Go module proxy answers")
    assert process.returncode == 0, process.stderr


# -- a few requests -------------------------------------------------------------------------------------------------------------


def read(call, **values):
    """Of register and list, as `r` and `l`; the answer comes one later, unless `call` says when."""
    return request("read", call, values={key: " ".join(value.split()) for key, value in values.items()})


def request(op, call, **more):
    begun, ended = call if isinstance(call, tuple) else (call, call + 1)
    return {"client": "a", "call": begun * 1000000, "return": ended * 1000000, "op": op, **more}


def write(call, word, answer=None):
    """To the register; `answer` is what its side was."""
    return request("write", call, key="r", value=word, **({"answer": "%s %s" % (answer, word)} if answer else {}))


def append(call, word, before, answer=None):
    """To the list."""
    return request("append", call, key="l", value=word, before=before, **({"answer": answer} if answer else {}))


@pytest.fixture
def judged(tmp_path):
    """What the checker says of these requests."""

    def run(ends, *requests, restores=(10, 30)):
        facts = {"start": {"r": "old first", "l": "old first"}, "snapshot": {"r": "new first", "l": "new first"}}
        path = tmp_path / "history.jsonl"
        lines = [dict(facts, restores=[moment * 1000000 for moment in restores], over=60 * 1000000, ends=ends), *requests]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return judge(path, ends)["fits"]

    return run


GOOD = {
    "nothing was restored": (OLD, write(1, "w1", "old"), append(5, "a1", "old first", "old first a1"), read(70, r="old w1", l="old first a1")),
    "what was written before a restore is gone": (
        NEW,
        *(write(1, "w1", "old"), append(5, "a1", "old first", "old first a1")),
        *(read(20, l="new first"), write(25, "w2", "new"), read(70, r="new w2", l="new first")),
    ),
    "a restore is one moment between answers of both sides": (
        ["new", "new after a rollback"],
        *(read((11, 15), r="old first"), read((11, 15), r="new first"), read((11, 15), l="old first"), read(70, l="new first")),
    ),
    "a rollback": (
        ["old after a rollback", "old after two rollbacks"],
        *(write(1, "w1", "old"), read(12, r="new first"), write(14, "w2", "new"), append(16, "a1", "new first", "new first a1")),
        *(read(20, r="old w1", l="old first"), write(25, "w3", "old"), read(70, r="old w3", l="old first")),
    ),
    "a rollback, and another restore": (
        ["new after a rollback"],
        *(read(12, r="new first"), write(14, "w2", "new"), read(20, r="old first"), read(40, r="new first"), read(70, r="new first")),
    ),
    "two rollbacks": (
        ["old after two rollbacks"],
        *(read(12, r="new first"), write(14, "w2", "new"), read(20, r="old first"), write(25, "w3", "old")),
        *(read(40, r="new first"), read(45, r="old w3"), read(70, r="old w3")),
    ),
    "two rollbacks, and a restore": (
        ["new after two rollbacks"],
        *(read(12, r="new first"), read(20, r="old first"), read(40, r="new first"), read(42, r="old first"), read(55, r="new first"), read(70, r="new first")),
    ),
    "a write without an answer that had no effect": (OLD, write((1, 0), "w1"), read(3, r="old first"), read(70, r="old first")),
    "a write without an answer that had its effect late": (OLD, write((1, 0), "w1"), read(3, r="old first"), read(70, r="old w1")),
    "a write without an answer that had its effect after the restore": (
        ["new", "new after a rollback"],
        *(write((1, 0), "w1"), read(12, r="new first"), read(50, r="new w1"), read(70, r="new w1")),
    ),
    "an append without an answer": (
        OLD,
        *(append((1, 0), "a1", "old first"), read(3, l="old first"), append(5, "a2", "old first a1", "old first a1 a2"), read(70, l="old first a1 a2")),
    ),
    "a refused write": (OLD, {**write(1, "w1", "old"), "failed": True}, read(70, r="old first")),
}

BAD = {
    "a stale read after a restore": (NEW, read(12, r="new first"), read(14, r="old first"), read(70, r="new first")),
    "an acknowledged write is lost after the commit": (NEW, read(12, r="new first"), write(14, "w1", "new"), read(16, r="new w1"), read(70, r="new first")),
    "an acknowledged append is lost after the commit": (NEW, append(14, "a1", "new first", "new first a1"), read(70, l="new first")),
    "an acknowledged write is lost that no restore can have taken": (OLD, write(14, "w1", "old"), read(16, r="old first"), read(70, r="old first")),
    "an acknowledged append is lost that no rollback can have taken": (OLD, append(14, "a1", "old first", "old first a1"), read(70, l="old first")),
    "two appends to the same list": (OLD, append(1, "a1", "old first", "old first a1"), append(3, "a2", "old first", "old first a2")),
    "an append to something else": (OLD, append(1, "a1", "old first", "new first a1"), read(70, l="new first a1")),
    "both sides at once": (NEW, read(12, r="new first"), write(14, "w1", "old"), write(16, "w2", "new"), read(70, r="new w2")),
    "a rollback leaves one object": (OLD, read(12, r="new first", l="new first"), read(70, r="old first", l="new first")),
    "a restore leaves one object": (NEW, read(70, r="new first", l="old first")),
    "a read from the future": (OLD, read(1, r="old w1"), write(5, "w1", "old"), read(70, r="old w1")),
    "a read of a write without an answer before it": (OLD, read(1, r="old w1"), write((5, 0), "w1"), read(70, r="old w1")),
    "a read of what nothing wrote": (OLD, read(1, r="old w9"), read(70, r="old first")),
    "a write without an answer that comes and goes": (OLD, write((1, 0), "w1"), read(3, r="old w1"), read(5, r="old first"), read(7, r="old w1")),
    "a restore before it begins": (NEW, read(2, r="new first"), read(70, r="new first")),
    "an object is missing": (NEW, read(20, r="new first"), read(70, r="")),
    "it ends on the other side": (NEW, write(20, "w1", "old"), read(70, r="old w1")),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history(judged, name):
    fits, *requests = GOOD[name]
    assert judged(fits, *requests, restores=(10, 30, 50) if "new after two rollbacks" in fits else (10, 30)) == fits


@pytest.mark.parametrize("name", BAD)
def test_a_defect(judged, name):
    ends, *requests = BAD[name]
    with pytest.raises(HistoryError, match="Together, these are impossible"):
        judged(ends, *requests, restores=(10,))


def test_without_a_restore_the_new_side_does_not_fit(judged):
    with pytest.raises(HistoryError):
        judged(NEW, read(20, r="new first"), restores=())


def explained(judged, ends, *requests):
    with pytest.raises(HistoryError) as caught:
        judged(ends, *requests, restores=(10,))
    return str(caught.value).split("Together, these are impossible:\n")[1].splitlines()


def test_the_explanation_has_what_is_impossible_and_no_more(judged):
    harmless = [read(moment, l="new first", r="new first") for moment in range(20, 40, 2)]
    seen = [read(moment, r="new w1", l="new first") for moment in (44, 46)]
    assert explained(judged, NEW, *harmless, write(42, "w1", "new"), *seen, read(50, r="new first"), read(70, r="new first")) == [
        "  42.000 to  43.000 s  a      wrote w1 to r; the answer was: new w1",
        "  50.000 to  51.000 s  a      read r is: new first",
    ]


def test_the_explanation_has_the_write_of_what_it_says_was_read(judged):
    assert explained(judged, OLD, write((1, 0), "w1"), *(read(moment, r="old w1") for moment in (3, 5)), read(7, r="old first"), read(9, r="old w1")) == [
        "   1.000 s, unknown    a      wrote w1 to r",
        "   5.000 to   6.000 s  a      read r is: old w1",
        "   7.000 to   8.000 s  a      read r is: old first",
    ]


def test_the_explanation_leaves_other_appends_out(judged):
    values = ["new first" + "".join(" a%d" % number for number in range(count)) for count in range(21)]
    appends = [append(20 + number, "a%d" % number, values[number], values[number + 1]) for number in range(20)]
    lost = values[20].replace(" a7", "")
    assert explained(judged, NEW, *appends, read(45, l=values[20]), read(70, l=lost)) == [
        "  27.000 to  28.000 s  a      appended a7 to l, which was: new first; the answer was: new first a7",
        "  70.000 to  71.000 s  a      read l is: new first",
    ]


# -- clients of API servers that are not real -----------------------------------------------------------------------------------


class Store:
    """Objects, and what a restore and a rollback do to them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.items, self.snapshot, self.kept, self.revision = {}, {}, {}, 0

    def put(self, item, words, side=None):
        self.revision += 1
        item["metadata"]["resourceVersion"] = str(self.revision)
        item["data"] = {"side": side or item["data"]["side"], "words": words}

    def restore(self):
        with self.lock:
            self.kept, self.items = self.items, copy.deepcopy(self.snapshot)
            self.revision += 1000

    def rollback(self, *but):
        with self.lock:
            self.items = {name: item if name not in but else self.items[name] for name, item in self.kept.items()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5

    def log_message(self, *dummy):
        pass

    def answer(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        store = self.server.store
        with store.lock:
            items = copy.deepcopy(store.items)
        if "?" in self.path:
            return self.answer(200, {"items": list(items.values())})
        item = items.get(self.path.rpartition("/")[2])
        return self.answer(200, item) if item else self.answer(404, {"details": {"kind": "configmaps"}})

    def do_PATCH(self):
        store = self.server.store
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with store.lock:
            item = store.items[self.path.rpartition("/")[2]]
            if body.get("metadata", item["metadata"])["resourceVersion"] != item["metadata"]["resourceVersion"]:
                return self.answer(409, {})
            if not self.server.loses_writes:
                store.put(item, body["data"]["words"])
            item = copy.deepcopy(item)
        if self.server.loses_answers:
            self.close_connection = True
            return None
        item["data"]["words"] = body["data"]["words"]
        return self.answer(200, item)


class FakeCluster:
    """Two API servers of one store, in the place of Sandbox."""

    namespace = "test"

    def __init__(self):
        self.store = Store()
        self.servers = {}
        for host in ("cp1", "cp2"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.store, server.loses_answers, server.loses_writes, server.daemon_threads = self.store, False, False, True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.servers[host] = server
        self.nodes = dict.fromkeys(self.servers)

    def apply(self, *objects):
        with self.store.lock:
            for item in objects:
                self.store.put(self.store.items.setdefault(item["metadata"]["name"], copy.deepcopy(item)), **item["data"])

    def close(self):
        for server in self.servers.values():
            server.shutdown()
            server.server_close()


class FakeClients(Clients):
    def _connect(self, host):
        return lambda: http.client.HTTPConnection("127.0.0.1", self.cluster.servers[host].server_port, timeout=2)


@pytest.fixture
def cluster():
    cluster = FakeCluster()
    history.prepare(cluster)
    cluster.store.snapshot = copy.deepcopy(cluster.store.items)
    yield cluster
    cluster.close()


@pytest.fixture
def clients(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "ROOT", tmp_path)
    with FakeClients(cluster, "fake", interval=0.01) as clients:
        time.sleep(0.3)
        clients.restore_begins()
        yield clients


def test_clients_see_a_restore(cluster, clients):
    cluster.store.restore()
    time.sleep(0.3)
    assert clients.check("new")["fits"] == ["new"]
    assert {record["op"] for record in clients.records} == {"read", "write", "append"}
    with pytest.raises(HistoryError, match=r"it fits new\. Together"):
        clients.check("old")


def test_clients_see_a_rollback(cluster, clients):
    cluster.store.restore()
    time.sleep(0.3)
    cluster.store.rollback()
    time.sleep(0.3)
    assert clients.check("old")["fits"] == ["old after a rollback"]


def test_clients_see_nothing(cluster, clients):
    assert clients.check("old")["fits"] == ["old", "old after a rollback"]


def test_answers_are_lost_with_a_restore(cluster, clients):
    for server in cluster.servers.values():
        server.loses_answers = True
    time.sleep(0.2)
    cluster.store.restore()
    time.sleep(0.2)
    for server in cluster.servers.values():
        server.loses_answers = False
    assert [record for record in clients.records if not record["return"]]
    assert clients.check("new")["fits"] == ["new"]


def test_a_rollback_that_leaves_one_object_is_found(cluster, clients):
    cluster.store.restore()
    time.sleep(0.3)
    cluster.store.rollback("register-1")
    time.sleep(0.3)
    with pytest.raises(HistoryError, match="register-1 is: new"):
        clients.check("old")


def test_a_second_data_is_found(cluster, clients):
    other = copy.deepcopy(cluster.store.items)
    cluster.servers["cp2"].store = Store()
    cluster.servers["cp2"].store.items = other
    cluster.store.restore()
    time.sleep(0.3)
    cluster.servers["cp2"].store = cluster.store
    with pytest.raises(HistoryError, match=r"cp2\w +(read|wrote|appended)[^\n]*: old"):
        clients.check("new")


def test_a_lost_write_is_found(cluster, clients):
    cluster.store.restore()
    cluster.servers["cp1"].loses_writes = True
    time.sleep(0.3)
    with pytest.raises(HistoryError, match=r"cp1\w +(wrote|appended)"):
        clients.check("new")


def test_a_missing_object_is_found(cluster, clients):
    cluster.store.restore()
    del cluster.store.items["list-0"]
    with pytest.raises(HistoryError, match="list-0 is: missing"):
        clients.check("new")
