# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ansible-builder makes of the definition of the execution environment, and of the requirements of the collection.

The image itself is not built here: that takes a registry with its base image.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILDER = pathlib.Path(sys.executable).with_name("ansible-builder")


def build(*args):
    return subprocess.run([str(BUILDER), *map(str, args)], capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_definition_makes_a_build_context(tmp_path):
    build("create", "-f", ROOT / "execution-environment.yml", "-c", tmp_path, "--output-filename", "Containerfile")
    recipe = (tmp_path / "Containerfile").read_text()
    assert 'ARG EE_BASE_IMAGE="debian:12-slim"' in recipe and "ansible-runner" in recipe
    system = {line.split()[0] for line in (tmp_path / "_build/bindep.txt").read_text().splitlines()}
    # what the roles run on the controller beside Ansible itself
    assert system == {"rclone", "age", "zstd"}
    collections = yaml.safe_load((tmp_path / "_build/requirements.yml").read_text())["collections"]
    assert [one["name"] for one in collections] == [yaml.safe_load((ROOT / "galaxy.yml").read_text())["repository"] + ".git"]


def test_the_collection_needs_ssh_and_no_python_package():
    needs = yaml.safe_load(build("introspect", ROOT / "playbooks/collections"))
    assert needs["python"] == []
    assert [line.split()[0] for line in needs["system"]] == ["openssh-client", "openssh-clients"]
