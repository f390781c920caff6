# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir


def test_a_work_directory_is_private_and_is_removed(tmp_path):
    with WorkDir(str(tmp_path)) as work:
        assert stat.S_IMODE(os.stat(work.path).st_mode) == 0o700
        assert os.path.dirname(work.path) == str(tmp_path)
        with pytest.raises(ValueError), WorkDir(str(tmp_path)) as other:
            assert os.path.isdir(work.path)
            raise ValueError(other.path)
        assert [str(path) for path in tmp_path.iterdir()] == [work.path]
    assert list(tmp_path.iterdir()) == []


def test_only_the_leftovers_of_a_killed_run_are_removed(tmp_path):
    left = tmp_path / ".k8s-dr-left"
    left.mkdir()
    (left / "lock").touch()
    (left / "data").mkdir()
    somebodys = tmp_path / ".k8s-dr-copy-1"
    somebodys.mkdir()
    abandoned = tmp_path / ".k8s-dr-copy-2"
    abandoned.mkdir()
    os.utime(str(abandoned), (0, 0))
    (tmp_path / "etcd").mkdir()
    (tmp_path / ".k8s-dr-file").touch()
    (tmp_path / ".k8s-dr-link").symlink_to(tmp_path / "etcd")
    with WorkDir(str(tmp_path)):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".k8s-dr-copy-1", ".k8s-dr-file", ".k8s-dr-link", "etcd"]
