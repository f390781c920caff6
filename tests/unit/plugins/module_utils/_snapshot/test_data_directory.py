# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import data_directory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

OPTIONS = {"etcd": None, "etcdctl": "/bin/etcdctl", "endpoint": "", "timeout": 10, "save_timeout": 60, "bundle": False}
NAMED = {"id": "a1", "name": "cp1", "peer_urls": ["https://10.0.0.1:2380"], "client_urls": ["https://10.0.0.1:2379"], "is_learner": False}
ELECTED = dict(NAMED, name="", client_urls=[])
OTHER = dict(NAMED, id="b2", name="cp2")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A DataDirectory over a small one, with a server that only counts how often it is looked for."""
    (tmp_path / "var/old/member/snap").mkdir(parents=True)
    (tmp_path / "var/old/member/snap/db").write_bytes(b"database")
    found = data_directory.DataDirectory(str(tmp_path / "var/old"), None, OPTIONS, "3.5.16")
    found.looked = []

    @contextlib.contextmanager
    def find_server(*args):
        found.looked.append(args)
        yield types.SimpleNamespace(version="3.5.16")

    monkeypatch.setattr(data_directory.isolated_server, "find_server", find_server)
    monkeypatch.setattr(data_directory.isolated_server, "check_memory", lambda size: None)
    return found


def serve_as(monkeypatch, *answers):
    """Have the copy be served as these say: the members that it returns, or an exception."""
    left, calls = list(answers), []

    @contextlib.contextmanager
    def throwaway(*args, **more):
        calls.append(more)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield types.SimpleNamespace(members=answer, client="client")

    monkeypatch.setattr(data_directory.isolated_server, "Throwaway", throwaway)
    return calls


def room(size):
    return 10 * size


def test_one_server_and_one_work_directory(data, tmp_path, monkeypatch):
    calls = serve_as(monkeypatch, [NAMED])
    with data:
        assert data.check(SnapshotDirectory(str(tmp_path / "backups")), False, room) == "3.5.16"
        data.serve()
        assert (data.client, data.members) == ("client", [NAMED])
        assert len([name for name in os.listdir(tmp_path / "var") if name != "old"]) == 1
    assert len(data.looked) == 1 and "force_new_cluster" not in calls[0]
    assert os.listdir(tmp_path / "var") == ["old"]


def test_in_check_mode_nothing_is_made(data, tmp_path):
    with data:
        data.check(SnapshotDirectory(str(tmp_path / "backups")), True, room)
        assert os.listdir(tmp_path / "var") == ["old"] and len(data.looked) == 1


def test_the_name_that_the_copy_has_written_over_is_read_off_the_disk(data, tmp_path, monkeypatch):
    serve_as(monkeypatch, [ELECTED])
    monkeypatch.setattr(data_directory.members_on_disk, "on_disk", lambda path: ([NAMED, OTHER], 7))
    with data:
        data.check(SnapshotDirectory(str(tmp_path / "backups")), False, room)
        data.serve()
    assert data.members == [NAMED]
    # its answer counts, and a member that never started has no name anywhere
    assert data_directory.with_names([dict(NAMED, name="new")], [NAMED]) == [dict(NAMED, name="new")]
    assert data_directory.with_names([ELECTED], []) == [ELECTED]


def test_one_of_several_members_is_served_alone(data, tmp_path, monkeypatch):
    calls = serve_as(monkeypatch, data_directory.isolated_server.NotAlone("it is one of 2 members", [NAMED, OTHER]), [NAMED])
    monkeypatch.setattr(data_directory.wal, "commit_all", lambda path: None)
    with data:
        data.check(SnapshotDirectory(str(tmp_path / "backups")), False, room)
        data.serve()
    assert data.members == [NAMED, OTHER] and calls[1]["force_new_cluster"]


def test_free_space_is_checked(data, tmp_path, monkeypatch):
    monkeypatch.setattr("ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space.free_bytes", lambda path: 1000000)
    with data, pytest.raises(Refused, match=r"a copy of .*/var/old with a snapshot of it needs"):
        data.check(SnapshotDirectory(str(tmp_path / "backups")), False, room)
    assert os.listdir(tmp_path / "var") == ["old"]


META = {b"consistent_index": (61).to_bytes(8, "big")}


@pytest.mark.parametrize(
    ("index", "found", "members", "version", "bundle"),
    [
        (61, {b"meta": META, b"alarm": {}}, [NAMED], "3.5.16", False),
        # the log has more
        (62, {b"meta": META}, [NAMED], "3.5.16", False),
        (61, {b"meta": {}}, [NAMED], "3.5.16", False),
        (61, None, [NAMED], "3.5.16", False),
        (None, {b"meta": META}, [NAMED], "3.5.16", False),
        # the etcd that is asked refuses, or warns
        (61, {b"meta": META, b"alarm": {b"x": b""}}, [NAMED], "3.5.16", False),
        (61, {b"meta": META}, [dict(NAMED, is_learner=True)], "3.5.16", False),
        (61, {b"meta": META}, [OTHER], "3.5.16", False),
        # the manifest of the snapshot names the version; a bundle has what an API server wrote
        (61, {b"meta": META}, [NAMED], "", False),
        (61, {b"meta": META}, [NAMED], "3.5.16", True),
    ],
)
def test_only_a_database_that_has_all_of_its_log_is_not_served(data, tmp_path, monkeypatch, index, found, members, version, bundle):
    def end(directory):
        if index is None:
            raise data_directory.wal.WalError("there is nothing in it")
        assert directory == str(tmp_path / "var/old/member/wal")
        return index, "a1", "c1"

    calls = serve_as(monkeypatch, [NAMED])
    monkeypatch.setattr(data_directory.wal, "end", end)
    monkeypatch.setattr(data_directory.boltdb.SnapshotFile, "glance", lambda self, small: found)
    monkeypatch.setattr(data_directory.members_on_disk, "in_member", lambda directory: (members, 7))
    data.image_version, data.options = version, dict(OPTIONS, bundle=bundle)
    complete = found is not None and (index, found.get(b"meta"), members, version, bundle) == (61, META, [NAMED], "3.5.16", False) and not found.get(b"alarm")
    with data:
        assert data.check(SnapshotDirectory(str(tmp_path / "backups")), False, room) == "3.5.16"
        data.serve()
        assert data.members == [NAMED]
    assert (len(data.looked), len(calls)) == ((0, 0) if complete else (1, 1))
    if complete:
        assert data.client.status() == {"version": "3.5.16", "db_size": 0, "is_learner": False, "member_id": "a1", "cluster_id": "c1", "leader_id": "a1"}
        assert data.client.members() == [NAMED] and data.client.alarms() == []
        with pytest.raises(data_directory.isolated_server.Unservable, match="is no database"):
            data.client.save(str(tmp_path / "snapshot.db"))
