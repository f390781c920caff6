# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories that etcd_snapshot makes."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.modules.etcd_snapshot import make_directory


def modes(top):
    return {path.name: path.stat().st_mode & 0o7777 for path in top.rglob("*")}


def test_a_directory_of_snapshots_is_private_and_what_is_above_is_not(tmp_path):
    make_directory(str(tmp_path / "backups" / "etcd"), None)
    assert modes(tmp_path) == {"backups": 0o755, "etcd": 0o700}


def test_the_directory_around_discarded_snapshots_is_one_of_snapshots(tmp_path):
    make_directory(str(tmp_path / "backups" / "etcd" / "discarded"), None)
    assert modes(tmp_path) == {"backups": 0o755, "etcd": 0o700, "discarded": 0o700}


def test_the_mode_of_an_existing_directory_around_discarded_snapshots_stays(tmp_path):
    (tmp_path / "etcd").mkdir()
    # whatever the umask is
    (tmp_path / "etcd").chmod(0o750)
    make_directory(str(tmp_path / "etcd" / "discarded"), None)
    assert modes(tmp_path) == {"etcd": 0o750, "discarded": 0o700}
