# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import space


def test_a_shortage_names_the_place_what_is_free_and_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda path: 3_000_000)
    assert space.shortage("/var/lib", 3_000_000, "the snapshot") is None
    assert space.shortage("/var/lib", 2_500_000_000, "the snapshot") == "/var/lib has 3.0 MB free and the snapshot needs 2.5 GB"
    # what goes before anything is written counts as free
    assert space.shortage("/var/lib", 5_000_000, "the snapshot", more=2_000_000) is None


def test_free_space_is_checked_where_a_directory_would_be_made(tmp_path):
    assert space.existing(str(tmp_path / "not" / "made")) == str(tmp_path)
    assert space.free_bytes(str(tmp_path / "not" / "made")) > 0


def test_bytes_below_are_those_on_the_disk(tmp_path):
    assert space.bytes_below(str(tmp_path / "nothing")) == 0
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 1 << 30)
    (tmp_path / "data").write_bytes(b"x" * 10000)
    assert 10000 <= space.bytes_below(str(tmp_path)) < 1 << 20
