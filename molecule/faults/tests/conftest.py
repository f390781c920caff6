# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster, and the table that the matrix ends with."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "tools"))

from fault_cells import sample_seed, summary
from faults import FaultyCluster, Run
from history import clients, prepare  # noqa: F401
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
    """{name of a cell: its result}"""
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


@pytest.fixture(scope="module")
def snapshot(cluster):
    """Of a cluster with these objects, which a restore re-creates."""
    # what a run before this one left when it was ended
    cluster.unmark("after")
    cluster.mark("kept", "gone")
    prepare(cluster)
    path = cluster.snapshot()
    return path, cluster.run(cluster.node, "sha256sum", path).split()[0]


@pytest.fixture
def begin(cluster, clients):  # noqa: F811
    """What begins a Run of a restore, or of what ends one; none outlives its test."""
    started = []

    def begin(snapshot, playbook, *args, rollback_after=240, vain=False):
        if playbook == "restore.yml" and "etcd_restore_unfinished=resume" not in args:
            clients.restore_begins()
        for variable in (
            "confirm=true",
            "snapshot=" + snapshot[0],
            "rollback_after=%d" % rollback_after,
            "compare=false",
            "safety_snapshot=false",
            "report_dir=",
            "keep=1",
            # what waits for a kubelet that is stopped, or for an etcd without a disk, waits for nothing
            *("%s_timeout=%d" % (step, 20 if vain else 120) for step in ("stop", "start", "validate")),
        ):
            args = (*args, "-e", "etcd_restore_" + variable)
        started.append(Run(cluster, playbook, "-l", cluster.node, "-e", "ansible_ssh_extra_args='-o ServerAliveCountMax=1 -o ConnectTimeout=5'", *args))
        return started[-1]

    yield begin
    for run in started:
        run.close()


@pytest.fixture
def old(cluster, snapshot):
    """What the snapshot does not hold: objects that are gone since, and new ones.  Returns the inode of the live database."""
    cluster.recover()
    cluster.unmark("gone")
    cluster.mark("after")
    return cluster.run(cluster.node, "stat", "-c", "%i", cluster.data + "/member/snap/db").strip()


def pytest_report_header():
    return "SAMPLE=%s" % sample_seed()


def pytest_terminal_summary(terminalreporter, config):
    summary(terminalreporter, "fault matrix", LEGEND, config.stash[TABLE])
