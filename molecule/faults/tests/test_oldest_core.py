# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The artifact as Galaxy would have it, installed where there is nothing but the oldest ansible-core that is supported.

That one makes text of every variable, so what works with the newest may fail there; and no other test finds what the artifact lacks.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from cluster import ROOT

OLDEST = "2.17"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the artifact was installed, with no other collection beside it."""
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run([ROOT / "tests/tools/venv", "dev", ROOT / "tests/tools/build"], env=dict(os.environ, OUT=str(directory)), check=True)
    [artifact] = directory.glob("k8s_dr-etcd-*.tar.gz")
    galaxy = [ROOT / "tests/tools/venv", "core-" + OLDEST, "ansible-galaxy", "collection", "install", "--offline", "-p", directory, artifact]
    subprocess.run(galaxy, cwd=directory, env=dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(directory)), check=True)
    artifact.unlink()
    listed = [ROOT / "tests/tools/venv", "core-" + OLDEST, "python", "-m", "pip", "list", "--format", "freeze"]
    packages = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    assert "ansible-core==%s" % OLDEST in packages and "ansible==" not in packages and "kubernetes" not in packages
    return directory


def test_a_restore_from_snapshot_to_undo(cluster, installed):
    def play(*args):
        return cluster.playbook(*args, core=OLDEST, collections=installed)

    cluster.note("seen", "before")
    play("install.yml")
    play("snapshot.yml")
    cluster.note("seen", "after")
    play("restore.yml", "-l", "cp1", "--check")
    assert cluster.noted("seen") == "after"

    play("restore.yml", *cluster.confirmed)
    cluster.wait_ready()
    assert cluster.noted("seen") == "before"
    play("validate.yml")

    play("rollback.yml", "-l", "cp1", "-e", "etcd_restore_undo=true")
    cluster.wait_ready()
    assert cluster.noted("seen") == "after"
