# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The thin modules that only look: what they return for each result of the utilities."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import cluster as etcd_cluster, tools as etcd_tools
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, ToolResult
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_client_info, etcd_cluster_info, etcd_snapshot_info


class Exit(Exception):
    def __init__(self, failed, result):
        super().__init__(result)
        self.failed, self.result = failed, result


@pytest.fixture
def run(monkeypatch):
    """Run the main() of a module with these parameters: (failed, result)."""

    def run(module, **params):
        class FakeModule:
            def __init__(self, argument_spec, supports_check_mode):
                assert supports_check_mode
                unknown = set(params) - set(argument_spec)
                assert not unknown
                self.params = {name: params.get(name, spec.get("default")) for name, spec in argument_spec.items()}

            def exit_json(self, **result):
                raise Exit(False, result)

            def fail_json(self, **result):
                raise Exit(True, result)

        monkeypatch.setattr(module, "AnsibleModule", FakeModule)
        with pytest.raises(Exit) as caught:
            module.main()
        return caught.value.failed, caught.value.result

    return run


class FakeTool:
    def __init__(self, name, version, abilities):
        self.name, self.version, self.path = name, version, "/opt/" + name
        for ability in ("save", "status", "restore", "bump"):
            setattr(self, "can_" + ability, ability in abilities)

    def describe(self):
        return {"path": self.path, "name": self.name, "version": self.version}


ETCDCTL_3_4 = FakeTool("etcdctl", "3.4.23", "save status restore")
ETCDCTL_3_5 = FakeTool("etcdctl", "3.5.16", "save status restore bump")
ETCDCTL_3_6 = FakeTool("etcdctl", "3.6.14", "save")
ETCDUTL_3_6 = FakeTool("etcdutl", "3.6.14", "status restore bump")


@pytest.mark.parametrize(
    ("tools", "save", "offline", "bump"),
    [
        ((None, None), None, None, False),
        ((ETCDCTL_3_4, None), "/opt/etcdctl", "/opt/etcdctl", False),
        ((ETCDCTL_3_5, None), "/opt/etcdctl", "/opt/etcdctl", True),
        ((ETCDCTL_3_6, None), "/opt/etcdctl", None, False),
        ((ETCDCTL_3_6, ETCDUTL_3_6), "/opt/etcdctl", "/opt/etcdutl", True),
        ((ETCDCTL_3_4, ETCDUTL_3_6), "/opt/etcdctl", "/opt/etcdutl", True),
        ((None, ETCDUTL_3_6), None, "/opt/etcdutl", True),
    ],
)
def test_client(monkeypatch, run, tools, save, offline, bump):
    monkeypatch.setattr(etcd_client_info, "find_tools", lambda *_args: tools)
    failed, result = run(etcd_client_info)
    found = result["tools"]
    assert not failed
    assert (found["save"], found["status"], found["restore"], found["bump_revision"]) == (save, offline, offline, bump)
    assert found["misfits"] == []
    assert (found["etcdctl"] is None, found["etcdutl"] is None) == (tools[0] is None, tools[1] is None)


@pytest.mark.parametrize(
    ("tools", "server", "misfits"),
    [
        ((ETCDCTL_3_4, None), "3.4.13-0", 0),
        ((ETCDCTL_3_4, None), "3.5.16", 0),
        ((ETCDCTL_3_4, None), "3.6.1", 1),
        ((ETCDCTL_3_4, ETCDUTL_3_6), "3.6.1", 0),
        ((None, None), "3.6.1", 0),
    ],
)
def test_client_for_a_server(monkeypatch, run, tools, server, misfits):
    monkeypatch.setattr(etcd_client_info, "find_tools", lambda *_args: tools)
    assert len(run(etcd_client_info, server_version=server)[1]["tools"]["misfits"]) == misfits


def test_client_tools_given_the_wrong_way_round(monkeypatch, run):
    monkeypatch.setattr(etcd_client_info, "find_tools", lambda *_args: (ETCDUTL_3_6, None))
    failed, result = run(etcd_client_info, etcdctl="/opt/etcdutl")
    assert failed
    assert result["msg"] == "/opt/etcdutl is an etcdutl, not an etcdctl; give its path as `etcdutl`"


@pytest.mark.parametrize(("module", "params"), [(etcd_client_info, {}), (etcd_snapshot_info, {"path": "/a.db"})])
def test_broken_tool_fails_with_its_own_sentence(monkeypatch, run, module, params):
    def broken(*_args):
        raise ToolError("/opt/etcdctl cannot be run: Exec format error")

    monkeypatch.setattr(module, "find_tools", broken)
    failed, result = run(module, **params)
    assert failed
    assert result["msg"] == "/opt/etcdctl cannot be run: Exec format error"


STATUS = {"version": "3.5.16", "leader_id": "1", "member_id": "1", "is_learner": False, "revision": 7}
MEMBERS = [{"id": "1", "name": "cp1", "peer_urls": [], "client_urls": [], "is_learner": False}]


class FakeClient:
    """A member that answers so; an exception stands for a question that is not answered."""

    endpoint, binary, tls = "https://127.0.0.1:2379", "/opt/etcdctl", {"cacert": "/nonexistent/ca.crt"}

    def __init__(self, status=None, members=None, alarms=None, health=None, hashed=(3, -1, 9)):
        self.answers = {
            "status": STATUS if status is None else status,
            "members": MEMBERS if members is None else members,
            "alarms": alarms or [],
            "health": health,
            "hash": hashed,
        }

    def argv(self):
        return []

    def _answer(self, name):
        if isinstance(self.answers[name], Exception):
            raise self.answers[name]
        return self.answers[name]

    def status(self):
        return self._answer("status")

    def members(self):
        return self._answer("members")

    def alarms(self):
        return self._answer("alarms")

    def hash_kv(self, revision):
        assert revision == 7
        return self._answer("hash")

    def run(self, *args):
        assert args == ("get", "health", "--keys-only")
        self._answer("health")


NO = ToolError("etcd at https://127.0.0.1:2379: no")


@pytest.mark.parametrize(
    ("client", "reachable", "healthy", "error", "fails"),
    [
        (FakeClient(), True, True, None, False),
        (FakeClient(status=NO), False, False, NO.message, True),
        (FakeClient(members=NO), True, False, NO.message, True),
        (FakeClient(alarms=NO), True, False, NO.message, True),
        (FakeClient(health=NO), True, False, NO.message, False),
        (FakeClient(alarms=["NOSPACE"]), True, False, "etcd at https://127.0.0.1:2379 has raised the alarm NOSPACE", False),
        (FakeClient(status=dict(STATUS, is_learner=True), health=NO), True, True, None, False),
    ],
)
def test_cluster(monkeypatch, run, client, reachable, healthy, error, fails):
    monkeypatch.setattr(etcd_cluster_info, "EtcdClient", lambda _params: client)
    monkeypatch.setattr(etcd_cluster_info, "Tool", lambda *_args: None)
    monkeypatch.setattr(etcd_cluster, "remembered_members", lambda _client: MEMBERS)
    failed, result = run(etcd_cluster_info, required=False)
    assert not failed
    etcd = result["etcd"]
    assert (etcd["reachable"], etcd["healthy"], etcd["error"]) == (reachable, healthy, error)
    assert set(etcd) >= set(etcd_cluster_info.UNKNOWN)
    assert etcd["members_agreed"] is not fails
    assert etcd["members"] == (MEMBERS if reachable else [])
    failed, result = run(etcd_cluster_info)
    assert failed is fails
    assert result["etcd"] == etcd
    if fails:
        assert result["msg"] == error


def test_authorities_of_a_file_with_two_while_a_ca_is_replaced(tmp_path):
    path = tmp_path / "ca.crt"
    block = "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"
    path.write_text("".join(block % base64.b64encode(one).decode() for one in (b"old", b"new")))
    assert etcd_cluster_info.authorities(path) == sorted(hashlib.sha256(one).hexdigest() for one in (b"old", b"new"))
    path.write_text("none")
    assert etcd_cluster_info.authorities(path) == etcd_cluster_info.authorities(tmp_path / "missing") == []


def hash_of(monkeypatch, run, client, **params):
    monkeypatch.setattr(etcd_cluster_info, "EtcdClient", lambda _params: client)
    monkeypatch.setattr(etcd_cluster_info, "Tool", lambda *_args: None)
    monkeypatch.setattr(etcd_cluster, "remembered_members", lambda _client: MEMBERS)
    failed, result = run(etcd_cluster_info, required=False, **params)
    assert not failed
    return result["etcd"]["hash"]


def test_hash_of_a_revision(monkeypatch, run):
    assert hash_of(monkeypatch, run, FakeClient()) is None
    expected = {"revision": 7, "hash": 3, "compact_revision": -1, "reason": None}
    assert hash_of(monkeypatch, run, FakeClient(), hash_revision=7) == expected
    # the member answers for itself, with a quorum or without
    assert hash_of(monkeypatch, run, FakeClient(members=NO), hash_revision=7) == expected
    assert hash_of(monkeypatch, run, FakeClient(status=NO), hash_revision=7) is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("Error: etcdserver: mvcc: required revision has been compacted", "has no hash of revision 7, which was compacted"),
        ("Error: etcdserver: mvcc: required revision is a future revision", "has no hash of revision 7, which lies in its future"),
        ("Error: context deadline exceeded", "no"),
    ],
)
def test_hash_that_does_not_exist(monkeypatch, run, words, reason):
    client = FakeClient(hashed=ToolError(NO.message, ToolResult(["etcdctl"], 1, "", words)))
    found = hash_of(monkeypatch, run, client, hash_revision=7)
    assert (found["hash"], found["compact_revision"]) == (None, None)
    assert found["reason"].endswith(reason)


@pytest.mark.parametrize("required", [True, False])
def test_cluster_without_certificates_fails_in_any_case(monkeypatch, run, required):
    class NoKey(FakeClient):
        def argv(self):
            raise ToolError("/nonexistent (etcd's key) cannot be read on this host")

    monkeypatch.setattr(etcd_cluster_info, "EtcdClient", lambda _params: NoKey())
    failed, result = run(etcd_cluster_info, required=required)
    assert (failed, result["msg"]) == (True, "/nonexistent (etcd's key) cannot be read on this host")


def test_tools_are_returned_with_the_facts_of_etcd(monkeypatch, run):
    monkeypatch.setattr(etcd_cluster_info, "EtcdClient", lambda _params: FakeClient())
    monkeypatch.setattr(etcd_cluster_info, "examine_tools", lambda _params: (ETCDCTL_3_6, None))
    asked = []
    monkeypatch.setattr(etcd_cluster_info, "suitable", lambda tools, version: asked.append((tools[0].name, version)) or {"save": "/opt/etcdctl"})
    failed, result = run(etcd_cluster_info, tools=True)
    assert not failed
    assert (result["tools"], result["etcd"]["healthy"], asked) == ({"save": "/opt/etcdctl"}, True, [("etcdctl", "3.5.16")])


def test_a_host_without_tools_is_no_failure_where_they_are_asked_for(monkeypatch, run):
    def missing(_params):
        raise ToolError("there is no etcdctl on this host")

    monkeypatch.setattr(etcd_cluster_info, "EtcdClient", missing)
    monkeypatch.setattr(etcd_cluster_info, "examine_tools", lambda _params: (None, None))
    failed, result = run(etcd_cluster_info, tools=True, required=False)
    assert not failed
    assert (result["tools"], result["etcd"]["reachable"], result["etcd"]["error"]) == (None, False, "there is no etcdctl on this host")


@pytest.mark.parametrize(
    ("tools", "server", "suit"),
    [
        ((ETCDCTL_3_6, ETCDUTL_3_6), "3.6.1", True),
        # 3.4's data does not start on 3.6, and etcdctl 3.6 alone restores nothing
        ((ETCDCTL_3_4, None), "3.6.1", False),
        ((ETCDCTL_3_6, None), "3.6.1", False),
        ((None, None), "3.6.1", False),
    ],
)
def test_only_tools_that_suit_the_server_are_returned(monkeypatch, tools, server, suit):
    monkeypatch.setattr(etcd_tools, "find_tools", lambda *_args: tools)
    found = etcd_tools.suitable(etcd_tools.examine_tools({"etcdctl": None, "etcdutl": None, "timeout": 1}), server)
    assert (found is not None) is suit


def test_a_named_tool_that_is_broken_suits_nothing(monkeypatch):
    def broken(*_args):
        raise ToolError("/opt/etcdctl cannot be run: Exec format error")

    monkeypatch.setattr(etcd_tools, "find_tools", broken)
    tools = etcd_tools.examine_tools({"etcdctl": "/opt/etcdctl", "etcdutl": None, "timeout": 1})
    assert etcd_tools.suitable(tools, "3.6.1") is None


def snapshot(monkeypatch, **found):
    asked = []

    def examine(path, etcdctl, etcdutl, timeout, everything, manifest):
        asked.append((path, timeout, everything))
        assert manifest is None, "it is used only when that is wanted"
        return dict({"path": path, "integrity": "ok", "problems": [], "undetermined": []}, **found)

    monkeypatch.setattr(etcd_snapshot_info, "find_tools", lambda *_args: (None, None))
    monkeypatch.setattr(etcd_snapshot_info.snapshot_status, "examine", examine)
    return asked


def test_snapshot_that_is_sound(monkeypatch, run):
    asked = snapshot(monkeypatch)
    failed, result = run(etcd_snapshot_info, path="/a.db")
    assert (failed, result["changed"], result["snapshot"]["integrity"]) == (False, False, "ok")
    assert asked == [("/a.db", None, False)]


def test_snapshot_that_is_damaged(monkeypatch, run):
    asked = snapshot(monkeypatch, integrity="empty", problems=["/a.db is empty"])
    failed, result = run(etcd_snapshot_info, path="/a.db", timeout=5)
    assert (failed, result["msg"], result["snapshot"]["integrity"]) == (True, "/a.db is empty", "empty")
    failed, result = run(etcd_snapshot_info, path="/a.db", verify=False)
    assert (failed, result["snapshot"]["integrity"]) == (False, "empty")
    assert asked == [("/a.db", 5, False), ("/a.db", None, True)]


@pytest.mark.parametrize("timeout", [0, -1])
def test_snapshot_needs_time(monkeypatch, run, timeout):
    snapshot(monkeypatch)
    failed, result = run(etcd_snapshot_info, path="/a.db", timeout=timeout)
    assert (failed, "timeout" in result["msg"]) == (True, True)


@pytest.fixture
def beside(tmp_path):
    """A file and the manifest beside it; changes to the manifest."""

    def make(text=None, **changes):
        manifest = {"format": 1, "file": "a.db", "sha256": "0" * 64, "size": 3, "hash": None, "revision": 1, "verified": True, "host": "cp1"}
        manifest.update(dict({"created": "2026-01-02T03:04:05Z"}, **changes))
        (tmp_path / "a.db.json").write_text(json.dumps(manifest) if text is None else text)
        return etcd_snapshot_info.manifest_beside({"path": str(tmp_path / "a.db"), "sha256": "0" * 64})

    make.path = str(tmp_path / "a.db.json")
    return make


def test_manifest_beside_a_snapshot(beside):
    manifest, problem = beside()
    assert (manifest["host"], problem) == ("cp1", None)
    # renamed together: the checksum shows that they belong together
    assert beside(file="b.db")[0]["host"] == "cp1"


def test_no_manifest_beside_a_snapshot():
    assert etcd_snapshot_info.manifest_beside({"path": "/nonexistent/a.db", "sha256": None}) == (None, None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": "{"}, "%s is not JSON"),
        ({"text": ""}, "%s is not JSON"),
        ({"format": 2}, "%s is no manifest of format 1 (its format is 2)"),
        ({"created": "yesterday"}, "%s is damaged: its `created` is no time"),
        ({"created": "2026-13-02T03:04:05Z"}, "%s is damaged: its `created` is no time"),
        ({"sha256": "1" * 64}, "%s describes another file than "),
    ],
)
def test_manifest_that_is_invalid(beside, change, problem):
    manifest, found = beside(**change)
    assert manifest is None
    assert found.startswith(problem % beside.path)
