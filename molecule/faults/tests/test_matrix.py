# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every durable state of a restore x every fault: in the end the cluster has its previous data or the restored data.

tests/tools/fault_cells.py says which cells there are, and which are run; FAULTS may name the way back as well: "staged-controller-again".
"""

from __future__ import annotations

import json
import os
import time

import pytest
import yaml
from cluster import wait_for
from fault_cells import BACK, NOT_IN_CONTAINERS, ONE, cells, chosen, record, states
from faults import recorded

STATES = states(ONE)
# from the first state with an armed timer to the last that a timer takes back
ARMED = STATES[STATES.index("stopping") : STATES.index("committing")]
# What recovers the cluster where the run is dead and no timer is awaited.
RERUNS = ("resume", "rollback", "console", "again")
# Whatever the run said, or whether it could, it may be otherwise on the node.
RUN_IS_CUT_OFF = ("controller", "ssh", "node", "read-only")

UPGRADE = (
    "kubeadm upgrade apply $(kubeadm version -o short) --yes --force --etcd-upgrade=false --certificate-renewal=false --ignore-preflight-errors=all 2>&1; "
    'echo "it ended with code $?"'
)
TWICE = "$0 & $0; first=$?; wait $!; second=$?; $0; echo $first $second $?"


def way_of(state, fault):
    """What is awaited or done after the fault: None, where the run itself, or what it left on the node, recovers the cluster."""
    rerun = RERUNS[STATES.index(state) % 4]
    if (state, fault) == ("rolling-back", "module"):
        return "console"
    # the timer was disarmed, on another disk, but that it was rolled back may be lost with the data disk
    if (state, fault) == ("rolled-back", "read-only"):
        return "console"
    if fault not in RUN_IS_CUT_OFF or state == "committed":
        return None
    if fault in ("node", "read-only"):
        return "boot" if state in ARMED or state in (*BACK, "committing") else rerun
    if state in BACK or state == "committing":
        return None
    if fault == "ssh":
        return "timer" if state in ARMED else rerun
    return rerun if state not in ARMED or STATES.index(state) % 3 else "timer"


def parameters():
    """(state, fault, way) of the cells of this run."""
    ways = {"%s-%s" % (name, way): (*cell, way) for name, cell in cells(ONE).items() for way in ("timer", *RERUNS)}
    return [ways.get(name) or (*cells(ONE)[name], way_of(*cells(ONE)[name])) for name in chosen(ONE)]


@pytest.mark.parametrize(("state", "fault", "way"), parameters(), ids=lambda value: value or "self")
def test_the_cluster_has_the_old_data_or_the_restored_data(cluster, snapshot, old, clients, begin, table, state, fault, way):
    name = "%s-%s" % (state, fault)
    if fault in NOT_IN_CONTAINERS and cluster.is_container():
        table[name] = "not possible here: " + NOT_IN_CONTAINERS[fault]
        pytest.skip(table[name])
    table[name] = "FAILED"
    record(ONE, name, cluster, serves="FAILED")
    inode = old

    def start(playbook, *args, vain=False):
        # armed a moment before the state that is meant
        return begin(snapshot, playbook, *args, rollback_after=12 if way == "timer" else 240, vain=vain)

    def clock(what):
        print("%5.1f s  %s" % (time.monotonic() - start_of_cell, what), flush=True)

    start_of_cell = time.monotonic()
    cluster.hold_at(state, die="swapped" if state in BACK else None)
    run = start("restore.yml", vain=fault in ("kubelet", "disk", "read-only") and state not in ("started", "committing", "committed"))
    cluster.wait_held(run, 300)
    clock("held")
    begun = time.monotonic()
    cluster.inject(fault, run)
    if fault != "node":
        cluster.let_go(die=fault == "module")
    clock("let go")
    code = run.wait(300)
    clock("the run has ended")
    by = "self"
    print(run.output()[-6000:])

    if fault == "read-only":
        # the run has ended; what an operator does who finds this
        cluster.power_cycle()
    if fault == "disk":
        # The run has ended. With not a byte left etcd ends at its next write on any data, without a restore too.
        cluster.free_disk()
    if fault == "kubelet" and state in ("committing", "committed", "rolled-back"):
        # nothing that comes after this needs kubelet, or could know that it should run
        cluster.run(cluster.node, "systemctl", "start", "kubelet")
        by = "self+kubelet"
    if fault == "ssh" and way in RERUNS:
        # Nothing was stopped and no timer armed. Nothing can be done until SSH is back, and nothing has to be.
        assert cluster.prove_one_side(snapshot, inode)[0] == "old"
        cluster.heal_ssh()

    if way in ("timer", "boot"):
        wait_for(lambda: "unit" not in cluster.facts(), 150, "the timer decides")
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
        again = {
            "resume": ("restore.yml", "-e", "etcd_restore_unfinished=resume"),
            "again": ("restore.yml", "-e", "etcd_restore_unfinished=rollback"),
            "rollback": ("rollback.yml",),
        }[way]
        rerun = start(*again)
        rerun_code = rerun.wait(300)
        print(rerun.output()[-6000:])
        assert rerun_code == 0
        by = way
    elif fault != "disk":
        # what was under way on the node goes on without the controller
        wait_for(lambda: cluster.transactions()[-1].state in ("committed", "rolled-back"), 90, "it comes to an end by itself")

    clock("came to an end by " + by)
    side, facts, served = cluster.prove_one_side(snapshot, inode)
    clock("served")
    if fault == "disk" and recorded(facts)[-1] not in ("committed", "rolled-back"):
        # It rolled back, but had no space to record it; the next run does.
        assert side == "old"
        again = start("rollback.yml")
        assert again.wait(300) == 0, again.output()
        side, facts, dummy = cluster.prove_one_side(snapshot, inode)
        by = "self+rollback"

    if fault == "module" and state in ("committed", "rolled-back"):
        # what was killed had not disarmed the timer, which finds nothing to roll back
        wait_for(lambda: "unit" not in cluster.facts(), 300, "the timer goes off")
        side, facts, dummy = cluster.prove_one_side(snapshot, inode)
        by = "self+timer"
    assert recorded(facts)[-1] == ("committed" if side == "new" else "rolled-back")
    assert "unit" not in facts and "armed" not in facts
    if way == "boot" and state == "committing":
        # it was validated
        assert side == "new"
    elif way in ("timer", "boot", "rollback", "console"):
        assert side == "old"
    elif way in ("resume", "again"):
        assert side == "new"
    elif fault not in RUN_IS_CUT_OFF:
        # what the run said is what is
        assert (code == 0) == (side == "new") or (state == "committed" and "keeps the restored data" in run.output())
    cluster.start_pod()
    clock("a new Pod ran")
    print(clients.check(side))
    table[name] = "%s %s %d s" % (side, by, served - begun)
    record(ONE, name, cluster, serves=side, by=by, seconds=round(served - begun))


def test_a_rollback_that_is_killed_after_each_of_its_moves(cluster, snapshot, old, clients, begin):
    cluster.hold_at("started")
    run = begin(snapshot, "restore.yml")
    cluster.wait_held(run, 300)
    run.kill()
    cluster.let_go(die=True)
    script, code = cluster.transactions()[-1].path + "/rollback", ""
    for number in range(1, 40):
        cluster.kill_after_moves(number)
        said = cluster.run(cluster.node, "sh", "-c", "$0; echo $?", script, timeout=400)
        print(number, said)
        code = said.splitlines()[-1]
        if code == "0":
            break
        assert code == "137"
    # each gets further than the one before
    assert code == "0" and number > 4
    side, facts, _served = cluster.prove_one_side(snapshot, old)
    assert (side, recorded(facts)[-1]) == ("old", "rolled-back")
    assert "unit" not in facts and "armed" not in facts
    print(clients.check(side))


def test_two_operators_who_restore_at_once(cluster, snapshot, old, begin):
    # the one is in the middle of it
    cluster.hold_at("stopped")
    first = begin(snapshot, "restore.yml")
    cluster.wait_held(first, 300)
    second = begin(snapshot, "restore.yml")
    assert second.wait(300) != 0
    print(second.output()[-3000:])
    assert "etcd_restore_unfinished" in second.output()
    cluster.let_go()
    assert first.wait(300) == 0, first.output()
    side, facts, _served = cluster.prove_one_side(snapshot, old)
    assert (side, recorded(facts)[-1]) == ("new", "committed")

    # and in the same second
    cluster.unmark("gone")
    cluster.mark("after")
    both = [begin(snapshot, "restore.yml") for _operator in range(2)]
    codes = [run.wait(400) for run in both]
    print("\n".join(run.output()[-3000:] for run in both))
    cluster.wait_ready()
    assert 0 in codes
    assert cluster.marks() == dict.fromkeys(("kept", "gone"), cluster.marks_each)
    assert "unit" not in cluster.facts() and cluster.transactions()[-1].state in ("committed", "rolled-back")


@pytest.mark.skipif(os.environ.get("FAULTS", "") in ("", "sample"), reason="kubeadm waits minutes for what a restore stopped; make test-faults runs it")
def test_a_kubeadm_upgrade_that_begins_in_the_middle(cluster, snapshot, old, clients, begin):
    cluster.hold_at("staged")
    run = begin(snapshot, "restore.yml")
    cluster.wait_held(run, 300)
    # to the same version, with an argument that makes it write manifests
    config = yaml.safe_load(cluster.kubectl("-n", "kube-system", "get", "configmap/kubeadm-config", "-o", "jsonpath={.data.ClusterConfiguration}"))
    for component in ("apiServer", "controllerManager", "scheduler"):
        config.setdefault(component, {}).setdefault("extraArgs", []).append({"name": "v", "value": "1"})
    change = json.dumps({"data": {"ClusterConfiguration": yaml.safe_dump(config)}})
    cluster.kubectl("-n", "kube-system", "patch", "configmap/kubeadm-config", "--patch", change)
    upgrade = cluster.start(cluster.node, UPGRADE)
    api_server = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    written = "--v=1"
    wait_for(lambda: written in cluster.run(cluster.node, "cat", api_server, check=False) or upgrade.poll() is not None, 180, "kubeadm writes")
    assert upgrade.poll() is None, upgrade.communicate()[0]
    cluster.let_go()
    code = run.wait(400)
    print(run.output()[-6000:])
    print(upgrade.communicate(timeout=1200)[0])
    side, facts, _served = cluster.prove_one_side(snapshot, old)
    assert (code == 0) == (side == "new") and recorded(facts)[-1] == ("committed" if side == "new" else "rolled-back")
    assert "unit" not in facts and "armed" not in facts
    cluster.start_pod()
    print(clients.check(side))
