# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tools print for `snapshot status`, and how it is read."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import Proof
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import status as snapshot_status
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, ToolResult
from hypothesis import given, strategies as st

# One file of 937984 bytes, by the tools of each version.
UP_TO_3_5 = '{"hash":3193616628,"revision":582,"totalKey":589,"totalSize":937984}\n'
FROM_3_6 = '{"hash":3193616628,"revision":582,"totalKey":358,"totalSize":937984,"version":""}\n'
OF_3_6 = '{"hash":33938920,"revision":582,"totalKey":358,"totalSize":937984,"version":"3.6.0"}\n'
DEPRECATED = "Deprecated: Use `etcdutl snapshot status` instead.\n\n"

OTHER_FORMATS = {
    "simple": "be5ab8f4, 582, 589, 938 kB\n",
    "simple, unpadded": "2059de8, 582, 589, 938 kB\n",
    "fields up to 3.5": '"Hash" : 3193616628\n"Revision" : 582\n"Keys" : 589\n"Size" : 937984\n',
    "fields from 3.6": '"Hash" : 3193616628\n"Revision" : 582\n"Keys" : 358\n"Size" : 937984\n"Version" : 3.6.0\n',
    "table": (
        "+----------+----------+------------+------------+\n"
        "|   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE |\n"
        "+----------+----------+------------+------------+\n"
        "| be5ab8f4 |      582 |        589 |     938 kB |\n"
        "+----------+----------+------------+------------+\n"
    ),
    "table of Debian's 3.5.30": (
        "┌──────────┬──────────┬────────────┬────────────┐\n"
        "│   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │\n"
        "├──────────┼──────────┼────────────┼────────────┤\n"
        "│ be5ab8f4 │ 582      │ 589        │ 938 kB     │\n"
        "└──────────┴──────────┴────────────┴────────────┘\n"
    ),
    "help of etcdctl 3.6": (
        "NAME:\n\tsnapshot - Manages etcd node snapshots\n\nUSAGE:\n\tetcdctl snapshot <subcommand> [flags]\n\n"
        "COMMANDS:\n\tsave\tStores an etcd node backend snapshot to a given file\n"
    ),
    "nothing": "",
    "null": "null\n",
    "a list": "[]\n",
    "a number": "582\n",
    "no values": "{}\n",
    "cut off": UP_TO_3_5[:40],
    "two": UP_TO_3_5 * 2,
    "a text as hash": '{"hash":"be5ab8f4","revision":582,"totalKey":589,"totalSize":937984}',
    "a hash too large": '{"hash":4294967296,"revision":582,"totalKey":589,"totalSize":937984}',
    "a negative revision": '{"hash":1,"revision":-1,"totalKey":589,"totalSize":937984}',
    "a fraction": '{"hash":1,"revision":1.5,"totalKey":589,"totalSize":937984}',
    "a truth": '{"hash":true,"revision":1,"totalKey":589,"totalSize":937984}',
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UP_TO_3_5, ("be5ab8f4", 582, 589, 937984, None)),
        (FROM_3_6, ("be5ab8f4", 582, 358, 937984, None)),
        (OF_3_6, ("0205dde8", 582, 358, 937984, "3.6.0")),
        ('{"hash":0,"revision":0,"totalKey":5,"totalSize":20480}', ("00000000", 0, 5, 20480, None)),
        ('{"hash":4294967295,"revision":1000000582,"totalKey":5,"totalSize":20480}', ("ffffffff", 1000000582, 5, 20480, None)),
        ('{"hash":1,"revision":2,"totalKey":3,"totalSize":4,"of the future":{}}', ("00000001", 2, 3, 4, None)),
    ],
)
def test_json_of_every_version(text, expected):
    values = snapshot_status.parse_status(text)
    assert tuple(values[name] for name in ("hash", "revision", "total_keys", "total_size", "storage_version")) == expected


@pytest.mark.parametrize("name", sorted(OTHER_FORMATS))
def test_whatever_else_is_no_status(name):
    with pytest.raises(ValueError):
        snapshot_status.parse_status(OTHER_FORMATS[name])


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 1 << 62), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_hash_is_always_eight_digits(checksum, revision, keys, size):
    values = snapshot_status.parse_status(json.dumps({"hash": checksum, "revision": revision, "totalKey": keys, "totalSize": size}))
    assert len(values["hash"]) == 8
    assert int(values["hash"], 16) == checksum
    assert values["hash"] == values["hash"].lower()


@given(st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_nothing_but_value_error(text):
    with pytest.raises(ValueError):
        snapshot_status.parse_status(text)


class FakeTool:
    def __init__(self, name="etcdutl", version="3.5.16", can_status=True):
        self.name, self.version, self.can_status = name, version, can_status
        self.path = "/opt/%s-%s" % (name, version)


def answer(monkeypatch, *answers):
    """Let the tools answer so, one after the other; returns the command lines that were run."""
    left, calls = list(answers), []

    def run_tool(argv, timeout, max_output=None):
        calls.append(argv)
        now = left.pop(0)
        if isinstance(now, Exception):
            raise now
        return ToolResult(argv, *now)

    monkeypatch.setattr(snapshot_status, "run_tool", run_tool)
    return calls


PANIC = "panic: runtime error: slice bounds out of range [:4294967295]\n\ngoroutine 1 [running]:\n"


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        ((2, "", PANIC), snapshot_status.BadFile, "panic: runtime error"),
        ((1, "", "Error: snapshot file integrity check failed. 1 errors found.\n"), snapshot_status.BadFile, "integrity check failed"),
        ((128, "", "Error: unexpected fault address\n"), snapshot_status.BadFile, "code 128"),
        ((-11, "", ""), snapshot_status.BadFile, "signal 11"),
        ((-6, "", ""), snapshot_status.BadFile, "signal 6"),
        ((-9, "", ""), snapshot_status.ToolTrouble, "signal 9"),
        ((-15, "", ""), snapshot_status.ToolTrouble, "signal 15"),
        ((None, "", ""), snapshot_status.ToolTrouble, "did not finish in time"),
        ((1, "", "Error: mmap error: cannot allocate memory\n"), snapshot_status.ToolTrouble, "cannot allocate"),
        ((2, "", "fatal error: runtime: out of memory\n"), snapshot_status.ToolTrouble, "out of memory"),
        ((0, OTHER_FORMATS["help of etcdctl 3.6"], ""), snapshot_status.ToolTrouble, "something else than a status"),
        ((0, OTHER_FORMATS["table"], ""), snapshot_status.ToolTrouble, "something else than a status"),
        (ToolError("/opt/etcdutl cannot be run: Exec format error"), snapshot_status.ToolTrouble, "Exec format error"),
    ],
)
def test_damage_is_told_from_trouble_of_the_tool(monkeypatch, result, error, words):
    answer(monkeypatch, result)
    with pytest.raises(error, match=words):
        snapshot_status.run_status(FakeTool(), "/a.db", 10)


def test_the_tool_is_asked_for_json_and_an_absolute_path(monkeypatch):
    calls = answer(monkeypatch, (0, UP_TO_3_5, DEPRECATED))
    assert snapshot_status.run_status(FakeTool("etcdctl"), "/-a.db", 10)["hash"] == "be5ab8f4"
    assert calls == [["/opt/etcdctl-3.5.16", "--write-out=json", "snapshot", "status", "/-a.db"]]


class FakeFile:
    """A file that was verified elsewhere."""

    proof = None

    def __init__(self, path, hashed=None):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        pass

    def prove(self, everything):
        return self.proof

    def check_unchanged(self):
        pass


@pytest.fixture
def proof(monkeypatch):
    proof = Proof("/a.db")
    proof.size, proof.database_size, proof.revision, proof.sha256 = 938016, 937984, 582, "0" * 64
    monkeypatch.setattr(FakeFile, "proof", proof)
    monkeypatch.setattr(snapshot_status, "SnapshotFile", FakeFile)
    return proof


ETCDUTL, ETCDCTL, NEW_ETCDCTL = FakeTool(), FakeTool("etcdctl", "3.4.23"), FakeTool("etcdctl", "3.6.14", can_status=False)


def test_etcdutl_comes_first(monkeypatch, proof):
    calls = answer(monkeypatch, (0, UP_TO_3_5, ""))
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL)
    assert [call[0] for call in calls] == [ETCDUTL.path]
    assert found["tool"] == {"name": "etcdutl", "version": "3.5.16", "path": ETCDUTL.path}
    assert (found["integrity"], found["problems"], found["undetermined"]) == ("ok", [], [])
    assert (found["hash"], found["revision"], found["total_keys"], found["total_size"]) == ("be5ab8f4", 582, 589, 937984)


def test_the_other_tool_is_asked_when_the_first_cannot(monkeypatch, proof):
    answer(monkeypatch, (None, "", ""), (0, UP_TO_3_5, ""))
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL)
    assert (found["tool"]["name"], found["undetermined"], found["integrity"]) == ("etcdctl", [], "ok")


def test_trouble_of_all_tools_is_no_damage(monkeypatch, proof):
    answer(monkeypatch, (-9, "", ""), (0, "help", ""))
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL)
    assert (found["integrity"], found["hash"], found["tool"]) == ("ok", None, None)
    assert len(found["undetermined"]) == 2
    assert (found["revision"], found["total_size"]) == (582, 937984)


@pytest.mark.parametrize(
    ("tools", "words"), [((None, None), "neither etcdutl nor etcdctl"), ((NEW_ETCDCTL, None), "etcdctl 3.6.14, which has no `snapshot status`")]
)
def test_no_tool_that_could_be_asked(monkeypatch, proof, tools, words):
    answer(monkeypatch)
    found = snapshot_status.examine("/a.db", *tools)
    assert (found["integrity"], found["hash"]) == ("ok", None)
    assert words in found["undetermined"][0]


def test_refusal_of_the_tool_is_a_problem(monkeypatch, proof):
    answer(monkeypatch, (2, "", PANIC))
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL)
    assert found["integrity"] == "status_failed"
    assert "panic: runtime error" in found["problems"][0]


@pytest.mark.parametrize("text", [UP_TO_3_5.replace("582", "583"), UP_TO_3_5.replace("937984", "937985")])
def test_other_values_than_the_file_holds_are_a_problem(monkeypatch, proof, text):
    answer(monkeypatch, (0, text, ""))
    found = snapshot_status.examine("/a.db", None, ETCDUTL)
    assert found["integrity"] == "status_differs"
    assert "58" in found["problems"][0] or "93798" in found["problems"][0]


def recorded(**changes):
    """A manifest of the file of `proof`, that passed the status."""
    told = {"hash": "be5ab8f4", "revision": 582, "total_keys": 589, "total_size": 937984, "storage_version": None}
    told.update(tool={"name": "etcdutl", "version": "3.5.9"}, levels={"status": {"ok": True}}, sha256="0" * 64)
    values = dict(told, **changes)
    return SimpleNamespace(values=values, sha256=values["sha256"], levels=values["levels"])


def test_a_tool_is_not_asked_again_about_the_same_bytes(monkeypatch, proof):
    assert answer(monkeypatch) == []
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL, manifest=recorded())
    assert found["tool"] == {"name": "etcdutl", "version": "3.5.9", "path": None}
    assert (found["hash"], found["total_keys"], found["integrity"], found["undetermined"]) == ("be5ab8f4", 589, "ok", [])


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "1" * 64},
        {"levels": {}},
        {"levels": {"status": {"ok": False}}},
        {"tool": None},
        {"tool": {"name": "etcdutl"}},
        {"hash": None},
        {"total_keys": None},
        {"revision": "582"},
    ],
)
def test_a_manifest_that_does_not_tell_is_no_reason_not_to_ask(monkeypatch, proof, changes):
    calls = answer(monkeypatch, (0, UP_TO_3_5, ""))
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL, manifest=recorded(**changes))
    assert (len(calls), found["tool"]["version"], found["hash"]) == (1, ETCDUTL.version, "be5ab8f4")


@pytest.mark.parametrize("name", ["revision", "total_size"])
def test_other_recorded_values_than_the_file_holds_are_a_problem(proof, name):
    assert snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL, manifest=recorded(**{name: 1}))["integrity"] == "status_differs"


def test_locked_file_is_not_given_to_a_tool_that_would_wait(monkeypatch, proof):
    proof.locked = True
    assert answer(monkeypatch) == []
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL)
    assert (found["integrity"], found["hash"]) == ("ok", None)
    assert "lock" in found["undetermined"][0]


def test_damaged_file_is_given_to_a_tool_only_on_request(monkeypatch, proof):
    proof.found("missing", "lacks the SHA-256")
    calls = answer(monkeypatch, (0, UP_TO_3_5, ""))
    assert snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL)["hash"] is None
    assert calls == []
    found = snapshot_status.examine("/a.db", ETCDCTL, ETCDUTL, everything=True)
    assert (found["integrity"], found["hash"]) == ("missing", "be5ab8f4")


def test_timeout_grows_with_the_file_and_is_bounded():
    assert snapshot_status.default_timeout(None) == 600
    assert snapshot_status.default_timeout(1 << 30) == 814
    assert snapshot_status.default_timeout(1 << 60) == 7200
