# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every durable state of a restore x every fault: in the end the cluster has its previous data or the restored data.

FAULTS=sample (every state once, every fault, every way back) or all, or cells by name: FAULTS="swapped-node staged-controller-again".
"""

from __future__ import annotations

import os
import time

import pytest
from cluster import wait_for
from faults import Run

FORWARD = (
    "begun",
    "staging",
    "staged",
    "stopping",
    "stopped",
    "swapping",
    "swapped",
    "starting-etcd",
    "etcd-started",
    "starting",
    "started",
    "committing",
    "committed",
)
BACK = ("rolling-back", "rolled-back")
STATES = FORWARD + BACK
FAULTS = {
    "controller": "the controller is killed",
    "ssh": "SSH is cut",
    "node": "the node loses its power",
    "disk": "the data disk is full",
    "kubelet": "kubelet is stopped",
    "containerd": "containerd is restarted",
}
# from the first state with an armed timer to the last that a timer takes back
ARMED = FORWARD[FORWARD.index("stopping") : FORWARD.index("committing")]
# What recovers the cluster where the run is dead and no timer is awaited.
RERUNS = ("resume", "rollback", "console", "again")

SAMPLE = {
    "begun": ("disk", None),
    "staging": ("controller", "again"),
    "staged": ("node", "rollback"),
    "stopping": ("kubelet", None),
    "stopped": ("node", "boot"),
    "swapping": ("controller", "console"),
    "swapped": ("ssh", "timer"),
    "starting-etcd": ("disk", None),
    "etcd-started": ("controller", "resume"),
    "starting": ("containerd", None),
    "started": ("node", "boot"),
    "committing": ("ssh", None),
    "committed": ("kubelet", None),
    "rolling-back": ("node", "boot"),
    "rolled-back": ("containerd", None),
}

TWICE = "$0 & $0; first=$?; wait $!; second=$?; $0; echo $first $second $?"


def way_of(state, fault, number):
    """What is awaited or done after the fault: None, where the run itself, or what it left on the node, recovers the cluster."""
    if fault not in ("controller", "ssh", "node") or state == "committed":
        return None
    if fault == "node":
        if state in ARMED or state in BACK:
            return "boot"
        return "resume" if state == "committing" else RERUNS[number % 4]
    if state in BACK or state == "committing":
        return None
    if fault == "ssh":
        return "timer" if state in ARMED else RERUNS[number % 4]
    return RERUNS[number % 4] if state not in ARMED or number % 3 else "timer"


def cells():
    wanted = os.environ.get("FAULTS", "") or "sample"
    if wanted == "sample":
        return [(state, fault, way) for state, (fault, way) in SAMPLE.items()]
    found = []
    for number, state in enumerate(STATES):
        for fault in FAULTS:
            name = "%s-%s" % (state, fault)
            if wanted == "all" or name in wanted.split():
                found.append((state, fault, way_of(state, fault, number)))
            found += [(state, fault, way) for way in ("timer", *RERUNS) if "%s-%s" % (name, way) in wanted.split()]
    return found


@pytest.fixture(scope="module")
def snapshot(cluster):
    """Of a cluster with these objects, which a restore re-creates."""
    # what a run before this one left when it was ended
    cluster.unmark("after")
    cluster.mark("kept", "gone")
    path = cluster.snapshot()
    return path, cluster.run(cluster.node, "sha256sum", path).split()[0]


@pytest.fixture
def runs():
    """Playbooks that are running; none outlives its test."""
    started = []
    yield started
    for run in started:
        run.close()


@pytest.fixture
def old(cluster, snapshot):
    """What the snapshot does not hold: objects that are gone since, and new ones.  Returns the inode of the live database."""
    cluster.recover()
    cluster.unmark("gone")
    cluster.mark("after")
    return cluster.run(cluster.node, "stat", "-c", "%i", cluster.data + "/member/snap/db").strip()


def assert_all_is_there(cluster, snapshot, inode, run):
    """The cluster serves all of the old or all of the new, and nothing is lost.  Returns (old or new, facts, seconds when it served)."""
    cluster.wait_ready()
    served = time.monotonic()
    marks = cluster.marks()
    facts = cluster.facts(inode, snapshot[0])
    print(marks, facts)
    side = {("after", "kept"): "old", ("gone", "kept"): "new"}.get(tuple(sorted(marks)))
    assert side, "neither old nor new: %s" % marks
    assert set(marks.values()) == {cluster.marks_each}
    places = [path.split("/")[0] if side == "old" else path.split("/")[2] for path in facts.get("inode", [])]
    assert places == ["member" if side == "old" else "old"], "the old database is in %s" % facts.get("inode")
    # what had been restored, and perhaps written to, is kept, too
    assert all(facts.get("undone", []))
    assert facts["sha256"][0].split()[0] == snapshot[1]
    assert sorted(facts["manifest"]) == ["etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"]
    assert "held" not in facts
    return side, facts, served


def states(facts):
    return [line.split()[1] for line in facts.get("transaction", [])]


@pytest.mark.parametrize(("state", "fault", "way"), cells(), ids=lambda value: value or "self")
def test_the_cluster_has_the_old_data_or_the_restored_data(cluster, snapshot, old, runs, table, state, fault, way):
    table[(state, fault)] = "FAILED"
    inode = old

    def start(name, *args, vain=False):
        rollback_after = 12 if way == "timer" else 240  # armed a moment before the state that is meant
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
        runs.append(Run(cluster, name, "-l", cluster.node, "-e", "ansible_ssh_extra_args='-o ServerAliveCountMax=1 -o ConnectTimeout=5'", *args))
        return runs[-1]

    def clock(what):
        print("%5.1f s  %s" % (time.monotonic() - start_of_cell, what), flush=True)

    start_of_cell = time.monotonic()
    cluster.hold_at(state, die="swapped" if state in BACK else None)
    run = start("restore.yml", vain=fault in ("kubelet", "disk") and state not in ("started", "committing", "committed"))
    cluster.wait_held(run, 300)
    clock("held")
    begun = time.monotonic()
    if fault == "controller":
        run.kill()
    elif fault == "ssh":
        cluster.cut_ssh(run)
    elif fault == "node":
        cluster.power_cycle()
    elif fault == "disk":
        cluster.fill_disk()
    elif fault == "kubelet":
        cluster.run(cluster.node, "systemctl", "stop", "kubelet")
    else:
        cluster.run(cluster.node, "systemctl", "restart", "containerd")
    if fault != "node":
        cluster.let_go()
    clock("let go")
    code = run.wait(300)
    clock("the run has ended")
    by = "self"
    print(run.output()[-6000:])

    if fault == "disk":
        # The run has ended. With not a byte left etcd ends at its next write on any data, without a restore too.
        cluster.free_disk()
    if fault == "kubelet" and state in ("committing", "committed", "rolled-back"):
        # nothing that comes after this needs kubelet, or could know that it should run
        cluster.run(cluster.node, "systemctl", "start", "kubelet")
        by = "self+kubelet"
    if fault == "ssh" and way in RERUNS:
        # Nothing was stopped and no timer armed. Nothing can be done until SSH is back, and nothing has to be.
        assert assert_all_is_there(cluster, snapshot, inode, run)[0] == "old"
        cluster.heal_ssh()

    if way in ("timer", "boot"):
        wait_for(lambda: "unit" not in cluster.facts(), 150, "the timer takes the restore back")
        transaction = cluster.transactions()[-1].id
        said = cluster.run(cluster.node, "journalctl", "-o", "cat", "--no-pager", "-u", "etcd-restore-%s.service" % transaction)
        print(said)
        assert "rollback of %s" % transaction in said
        by = way
    elif way == "console":
        # two people at once, and one of them again
        said = cluster.run(cluster.node, "sh", "-c", TWICE, cluster.transactions()[-1].path + "/rollback", timeout=400)
        print(said)
        assert said.splitlines()[-1] == "0 0 0"
        by = "console"
    elif way:
        name, *args = {
            "resume": ("restore.yml", "-e", "etcd_restore_unfinished=resume"),
            "again": ("restore.yml", "-e", "etcd_restore_unfinished=rollback"),
            "rollback": ("rollback.yml",),
        }[way]
        rerun = start(name, *args)
        rerun_code = rerun.wait(300)
        print(rerun.output()[-6000:])
        assert rerun_code == 0
        by = way
    elif fault != "disk":
        # what was under way on the node goes on without the controller
        wait_for(lambda: cluster.transactions()[-1].state in ("committed", "rolled-back"), 90, "it comes to an end by itself")

    clock("came to an end by " + by)
    side, facts, served = assert_all_is_there(cluster, snapshot, inode, run)
    clock("served")
    if fault == "disk" and states(facts)[-1] not in ("committed", "rolled-back"):
        # It rolled back, but had no space to record it; the next run does.
        assert side == "old"
        again = start("rollback.yml")
        assert again.wait(300) == 0, again.output()
        side, facts, dummy = assert_all_is_there(cluster, snapshot, inode, run)
        by = "self+rollback"

    assert states(facts)[-1] == ("committed" if side == "new" else "rolled-back")
    assert "unit" not in facts and "armed" not in facts
    if way in ("timer", "boot", "rollback", "console"):
        assert side == "old"
    elif way in ("resume", "again"):
        assert side == "new"
    elif fault not in ("controller", "ssh"):
        # what the run said is what is
        assert (code == 0) == (side == "new")
    cluster.start_pod()
    clock("a new Pod ran")
    table[(state, fault)] = "%s %s %d s" % (side, by, served - begun)
