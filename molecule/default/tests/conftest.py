# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster and its first node; tests/tools/restore_sandbox.py and cluster.py have what every test uses."""

from __future__ import annotations

import pathlib
import sys

import pytest
import testinfra

# a test compares objects by the rules of the collection itself
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "playbooks" / "collections"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "tools"))

from remote_cluster import far, key  # noqa: F401
from restore_sandbox import Cluster


@pytest.fixture(scope="session")
def cluster():
    """The cluster, with a namespace for the tests."""
    return Cluster().open()


@pytest.fixture(scope="session")
def cp1(cluster):
    """The node, for testinfra: through the container engine, so that it does not depend on what is tested."""
    return testinfra.get_host("%s://%s" % (cluster.engine, cluster.nodes["cp1"]))
