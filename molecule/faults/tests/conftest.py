# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster, and the table that the matrix ends with."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "tools"))

from faults import FaultyCluster, print_matrix
from remote_cluster import far, key  # noqa: F401

TABLE = pytest.StashKey()
LEGEND = """\
What the cluster serves in the end, what recovered it, and seconds from the fault until it served.
  self      the restore, which continued or rolled back; +kubelet: the test had to start kubelet; +rollback: rollback.yml noted it
  timer     the rollback timer; boot: the same, at the start of the node
  console   the script `rollback`, by two operators at once
  rollback  rollback.yml; resume, again: restore.yml with etcd_restore_unfinished=resume, =rollback
""".splitlines()


def pytest_configure(config):
    config.stash[TABLE] = {}


@pytest.fixture(scope="session")
def table(request):
    """{(state, fault): the result of the cell}."""
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def cluster():
    """The cluster, with a namespace for the tests, and with the failpoint in its node."""
    cluster = FaultyCluster()
    cluster.recover()
    cluster.open()
    cluster.install_failpoint()
    yield cluster
    cluster.remove_failpoint()


def pytest_terminal_summary(terminalreporter, config):
    columns = ("controller", "ssh", "node", "disk", "kubelet", "containerd")
    print_matrix(terminalreporter, config.stash[TABLE], columns, LEGEND, "fault-matrix.txt")
