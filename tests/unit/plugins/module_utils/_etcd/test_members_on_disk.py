# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Members that a database names; tests/integration has real ones."""

from __future__ import annotations

import json
import struct

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import members_on_disk


def stored(number, **more):
    value = {"id": number, "peerURLs": ["https://192.0.2.%d:2380" % number], "name": "cp%d" % number, "clientURLs": ["https://192.0.2.%d:2379" % number]}
    return b"%x" % number, json.dumps(dict(value, **more)).encode()


@pytest.fixture
def holds(monkeypatch):
    """Have any database hold this."""

    def hold(found):
        monkeypatch.setattr(members_on_disk.SnapshotFile, "glance", lambda self, small, last=(): found)

    return hold


def test_members_and_revision(holds):
    keys = {struct.pack(">Q", number) + b"_" + bytes(8) + b"t" * (number % 2): b"" for number in (580, 581, 582)}
    unstarted = (b"cc", json.dumps({"id": 0xCC, "peerURLs": ["https://192.0.2.3:2380"], "isLearner": True}).encode())
    holds({b"members": dict([stored(1), stored(2), unstarted]), b"members_removed": {b"2": b"removed"}, b"key": keys})
    assert members_on_disk.on_disk("/nonexistent") == (
        [
            {"id": "1", "name": "cp1", "peer_urls": ["https://192.0.2.1:2380"], "client_urls": ["https://192.0.2.1:2379"], "is_learner": False},
            {"id": "cc", "name": "", "peer_urls": ["https://192.0.2.3:2380"], "client_urls": [], "is_learner": True},
        ],
        582,
    )


@pytest.mark.parametrize("found", [None, {}, {b"members": {}}, {b"key": {b"short": b""}}])
def test_nothing_to_read(holds, found):
    holds(found)
    assert members_on_disk.on_disk("/nonexistent") == ([], 0)


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b"1", b"null", b'{"peerURLs": 3}'])
def test_what_is_no_member_is_left_out(holds, value):
    key, good = stored(1)
    holds({b"members": {key: good, b"2": value, b"no id": good}})
    assert [member["name"] for member in members_on_disk.on_disk("/nonexistent")[0]] == ["cp1"]


def test_without_a_database(tmp_path):
    assert members_on_disk.on_disk(str(tmp_path)) == ([], 0)
    (tmp_path / "member/snap/db").mkdir(parents=True)
    assert members_on_disk.on_disk(str(tmp_path)) == ([], 0)


def test_what_is_only_in_the_log(holds, tmp_path):
    """As with etcd 3.5, of members that joined later."""
    unnamed = (b"2", json.dumps({"id": 2, "peerURLs": ["https://192.0.2.2:2380"]}).encode())
    holds({b"members": dict([stored(1), unnamed])})
    assert [member["name"] for member in members_on_disk.on_disk(str(tmp_path))[0]] == ["cp1", ""]
    (tmp_path / "member/wal").mkdir(parents=True)
    (tmp_path / "member/snap").mkdir()
    node = '{"Path":"/0/members/2/attributes","CreatedIndex":4,"ExpireTime":"0001-01-01T00:00:00Z","Value":%s,"Children":null}'
    value = json.dumps(json.dumps({"name": "before", "clientURLs": ["https://192.0.2.9:2379"]}))
    (tmp_path / "member/snap/0000000000000002-00000000000186b1.snap").write_bytes(b"\x08\x01" + (node % value).encode() + b"\xff")
    (found,) = [member for member in members_on_disk.on_disk(str(tmp_path))[0] if member["id"] == "2"]
    assert (found["name"], found["client_urls"]) == ("before", ["https://192.0.2.9:2379"])
    record = b'\x12\x03PUT\x1a!/0/members/2/attributes"6{"name":"cp2","clientURLs":["https://192.0.2.2:2379"]}(\0'
    (tmp_path / "member/wal/0000000000000000-0000000000000000.wal").write_bytes(bytes(500) + record + bytes(5000))
    (tmp_path / "member/wal/0000000000000001-0000000000000009.wal").write_bytes(b"")
    (tmp_path / "member/wal/0.tmp").write_bytes(record.replace(b"cp2", b"cp9"))
    (found,) = [member for member in members_on_disk.on_disk(str(tmp_path))[0] if member["id"] == "2"]
    assert (found["name"], found["client_urls"]) == ("cp2", ["https://192.0.2.2:2379"])


@pytest.mark.parametrize(
    ("versions", "needed"),
    [
        # seen with 3.4.23, 3.5.16, 3.5.35, 3.6.16 and 3.7.3, the rest read in mayAddMember of etcdserver/server.go
        (("3.4.23", "3.4.45", "3.5.16-0", "3.5.29", "3.6.0", "3.6.10", ""), [1, 2, 3, 4, 5, 6, 7]),
        (("3.5.30", "3.5.35-0", "3.6.11", "3.6.16", "3.7.0", "3.7.3", "3.8.0"), [1, 2, 3, 3, 4, 4, 5]),
    ],
)
def test_how_many_voters_etcd_wants_before_it_takes_a_member(versions, needed):
    for version in versions:
        assert [members_on_disk.voters_needed(version, voters) for voters in range(1, 8)] == needed
