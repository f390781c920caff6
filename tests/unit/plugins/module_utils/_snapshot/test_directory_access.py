# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import directory_access as access
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import LOCK

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")


def modes(top):
    return {path.name: path.stat().st_mode & 0o7777 for path in top.rglob("*")}


def test_a_directory_of_snapshots_is_private_and_what_is_above_is_not(tmp_path):
    access.make_directory(str(tmp_path / "backups" / "etcd"))
    assert modes(tmp_path) == {"backups": 0o755, "etcd": 0o700}


def test_the_directory_around_discarded_snapshots_is_one_of_snapshots(tmp_path):
    access.make_directory(str(tmp_path / "backups" / "etcd" / "discarded"))
    assert modes(tmp_path) == {"backups": 0o755, "etcd": 0o700, "discarded": 0o700}


def test_the_mode_of_an_existing_directory_around_discarded_snapshots_stays(tmp_path):
    (tmp_path / "etcd").mkdir()
    # whatever the umask is
    (tmp_path / "etcd").chmod(0o750)
    access.make_directory(str(tmp_path / "etcd" / "discarded"))
    assert modes(tmp_path) == {"etcd": 0o750, "discarded": 0o700}


@ROOT
def test_whom_a_directory_belongs_to(tmp_path, monkeypatch):
    assert access.foreign_owner(str(tmp_path), True) is None
    os.chown(str(tmp_path), 65534, 0)
    assert access.foreign_owner(str(tmp_path), True) == access.foreign_owner(str(tmp_path), False) == 65534
    # as where NFS makes root another user: what is made there belongs to that one
    (tmp_path / LOCK).touch()
    os.chown(str(tmp_path / LOCK), 65534, 0)
    assert access.foreign_owner(str(tmp_path), False) is None
    with open(tmp_path / LOCK, "rb") as squashed:
        monkeypatch.setattr(access.tempfile, "TemporaryFile", lambda dir: squashed)
        assert access.foreign_owner(str(tmp_path), True) is None
    monkeypatch.undo()
    os.chown(str(tmp_path), os.geteuid(), 0)
    assert access.foreign_owner(str(tmp_path), False) is None


@ROOT
@pytest.mark.parametrize(
    ("mode", "owner", "group", "words"),
    [
        (0o755, 0, 0, None),
        (0o1777, 0, 0, None),
        (0o775, 0, 0, None),
        (0o775, 0, 50, "others may write to"),
        (0o777, 0, 0, "chmod go-w"),
        (0o755, 65534, 0, "belongs to nobody, who could put another directory in the place of"),
    ],
)
def test_who_could_replace_the_directory(tmp_path, mode, owner, group, words):
    above = tmp_path / "above"
    above.mkdir()
    os.chown(str(above), owner, group)
    above.chmod(mode)
    for directory in (above / "backups", above / "not" / "there"):
        found = access.replaceable(str(directory))
        assert (words in found and str(above) in found) if words else found is None
    # the owner of the directory
    (above / "backups").mkdir()
    os.chown(str(above / "backups"), owner, 0)
    assert bool(access.replaceable(str(above / "backups"))) == bool(words and "belongs" not in words)
