# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster, and the table that the matrix of faults ends with; tests/tools/restore_sandbox.py and cluster.py have what every test uses."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "tools"))

from fault_cells import sample_seed, summary
from history import clients  # noqa: F401
from remote_cluster import far, key  # noqa: F401
from restore_sandbox import Cluster

TABLE = pytest.StashKey()
LEGEND = """\
What all three serve in the end, what brought them there, and seconds from the fault until nothing was left to happen.
  self       the restore, which went on or took itself back
  timer      the rollback timer of a node, or the same at its start, brought at least this one there
  +rollback  nothing had been stopped, and rollback.yml noted it; +resume: all kept the data, and restore.yml noted it
""".splitlines()


def pytest_configure(config):
    config.stash[TABLE] = {}


@pytest.fixture(scope="session")
def table(request):
    """{name of a cell: its result}"""
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def cluster():
    """The cluster, with a namespace for the tests."""
    return Cluster().open()


def pytest_report_header():
    return "SAMPLE=%s" % sample_seed()


def pytest_terminal_summary(terminalreporter, config):
    summary(terminalreporter, "fault matrix", LEGEND, config.stash[TABLE])
