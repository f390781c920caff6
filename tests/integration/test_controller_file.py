# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files on the controller, with the real `ansible`."""

from __future__ import annotations

import json
import os

import harness


def controller_file(path, *more, **args):
    return harness.ansible("controller_file", *more, path=path, **args)


def test_a_file_is_written_once_with_its_mode(tmp_path):
    path = tmp_path / "new" / "report.html"
    # nothing of the host's is needed, neither its interpreter nor its connection
    foreign = ("-b", "-e", "ansible_python_interpreter=/nonexistent", "-e", "ansible_become_exe=/nonexistent")
    rc, result = controller_file(path, "--check", *foreign, content="one\n")
    assert rc == 0 and result["changed"] and not path.parent.exists(), result
    rc, result = controller_file(path, "--diff", *foreign, content="one\n")
    assert rc == 0 and result["changed"] and result["path"] == str(path), result
    assert path.read_text() == "one\n" and path.stat().st_mode & 0o7777 == 0o600 and path.parent.stat().st_mode & 0o7777 == 0o700
    path.parent.chmod(0o755)
    rc, result = controller_file(path, content="one\n")
    assert rc == 0 and not result["changed"] and path.parent.stat().st_mode & 0o7777 == 0o755, result
    path.chmod(0o644)
    rc, result = controller_file(path, content={"b": 1, "a": ["x"]})
    assert rc == 0 and result["changed"] and json.loads(path.read_text()) == {"a": ["x"], "b": 1}, result
    assert path.stat().st_mode & 0o7777 == 0o600 and os.listdir(path.parent) == ["report.html"]


def test_a_tree_is_removed_but_not_the_target_of_a_link(tmp_path):
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("tree", "link"):
        rc, result = controller_file(tmp_path / name, "--check", state="absent")
        assert rc == 0 and result["changed"] and os.path.lexists(tmp_path / name), result
        rc, result = controller_file(tmp_path / name, state="absent")
        assert rc == 0 and result["changed"], result
    rc, result = controller_file(tmp_path / "tree", state="absent")
    assert rc == 0 and not result["changed"] and os.listdir(tmp_path) == ["kept"], result


def test_a_failed_write_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    rc, result = controller_file(tmp_path / "file" / "report", content="x")
    assert rc != 0 and "cannot write" in result["msg"] and "on the controller" in result["msg"], result
