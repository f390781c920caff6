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
from faults import FaultyMembers, Run
from history import clients, prepare  # noqa: F401
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


@pytest.fixture(scope="module")
def faulty(cluster):
    """The cluster, with the failpoint in its nodes."""
    faulty = FaultyMembers(cluster.name)
    faulty.recover()
    faulty.playbook("install.yml")
    for host in faulty.nodes:
        faulty.on(host).install_failpoint()
    yield faulty
    for host in faulty.nodes:
        faulty.on(host).remove_failpoint()


@pytest.fixture(scope="module")
def snapshot(faulty):
    """Of a cluster with these objects, which a restore re-creates."""
    # what a run before this one left when it was ended
    faulty.unmark("after")
    faulty.mark("kept", "gone")
    prepare(faulty)
    faulty.playbook("snapshot.yml")


@pytest.fixture
def old(faulty, snapshot):
    """What the snapshot does not hold: objects that are gone since, and new ones.  Returns the inodes of the live databases."""
    faulty.recover()
    faulty.unmark("gone")
    faulty.mark("after")
    return {host: faulty.on(host).inode() for host in faulty.nodes}


@pytest.fixture
def begin(faulty, clients):  # noqa: F811
    """What begins a Run of a restore, or of what ends one; none outlives its test."""
    started = []

    def begin(playbook, *args, rollback_after=75, start_timeout=90):
        if playbook == "restore.yml" and "etcd_restore_unfinished=resume" not in args:
            clients.restore_begins()
        timeouts = ("stop_timeout=60", "start_timeout=%d" % start_timeout, "validate_timeout=60", "rollback_after=%d" % rollback_after)
        for variable in ("confirm=true", "compare=false", "safety_snapshot=false", "report_dir=", "keep=1", *timeouts):
            args = (*args, "-e", "etcd_restore_" + variable)
        started.append(Run(faulty, playbook, "-e", "ansible_ssh_extra_args='-o ServerAliveCountMax=1 -o ConnectTimeout=5'", *args))
        return started[-1]

    yield begin
    for run in started:
        run.close()


def pytest_report_header():
    return "SAMPLE=%s" % sample_seed()


def pytest_terminal_summary(terminalreporter, config):
    summary(terminalreporter, "fault matrix", LEGEND, config.stash[TABLE])
