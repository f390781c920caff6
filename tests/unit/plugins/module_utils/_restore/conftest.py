# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of a node that is a few directories."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import control_plane, layout
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import Node


@pytest.fixture(params=[False, True], ids=["directory", "mount-point"])
def node(request, tmp_path, monkeypatch):
    found = Node(tmp_path, request.param)
    if request.param:
        monkeypatch.setattr(layout, "mount_of", lambda path: str(found.data_dir))
    return found


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """The machine that runs the tests may be a node itself."""
    monkeypatch.setattr(control_plane, "remaining", lambda *args: [])


@pytest.fixture
def systemd(node, monkeypatch):
    """The commands of systemctl are written down, and the transaction finds it."""
    pathlib.Path(node.plan["unit"]).parent.mkdir()
    monkeypatch.setenv("PATH", node.environment["PATH"])
    return node
