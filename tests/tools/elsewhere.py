# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: where snapshots lie off-site, and the key that opens them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cluster import ROOT

sys.path.insert(0, str(ROOT / "tests" / "integration"))

import servers


@pytest.fixture
def far(cluster, tmp_path, monkeypatch):
    """An S3 server that node and controller reach, and an rclone and an age on both."""
    for name in ("rclone", "age"):
        program = servers.program(name)
        monkeypatch.setenv("PATH", os.path.dirname(program) + os.pathsep + os.environ["PATH"])
        subprocess.run([cluster.engine, "cp", program, cluster.nodes["cp1"] + ":/usr/local/bin/" + name], check=True)
    gateway = cluster.run("cp1", "sh", "-c", "ip route show default").split()[2]
    with servers.S3(tmp_path / "far", host=gateway) as server:
        yield server
    cluster.run("cp1", "rm", "-f", "/usr/local/bin/rclone", "/usr/local/bin/age")


@pytest.fixture
def key(tmp_path):
    """(file with the private key, public key)"""
    path = tmp_path / "identity.txt"
    subprocess.run([servers.program("age-keygen"), "-o", str(path)], check=True, capture_output=True)
    return path, next(line.split()[-1] for line in path.read_text().splitlines() if "public key" in line)
