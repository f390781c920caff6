# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults of the matrix at random moments, alone and in pairs: in the end the cluster has its previous data or the restored data.

N=50 of them, by default two; SEED=WORD draws the same ones again, which is printed, and by default is the commit. What goes wrong here becomes a cell or a
test of its own.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from cluster import SandboxError, wait_for
from fault_cells import BACK, NOT_IN_CONTAINERS, ONE, record_random, sample_seed
from faults import recorded

SEED = os.environ.get("SEED", "") or sample_seed()
ENDED = ("committed", "rolled-back")
# by when a restore that nothing hits has ended on an idle machine of two cores
LAST = 20
# What a person then does about a restore that is neither finished nor rolled back.
ENDS = {
    "resume": ("restore.yml", "-e", "etcd_restore_unfinished=resume"),
    "again": ("restore.yml", "-e", "etcd_restore_unfinished=rollback"),
    "rollback": ("rollback.yml",),
}


def story(number):
    """(is there a failed restore before, [(seconds from the command on, fault)], what a person does)"""
    draw = random.Random("%s-%d" % (SEED, number))
    names = [name for name in ONE.faults if name not in NOT_IN_CONTAINERS]
    faults = sorted((round(draw.uniform(1, LAST), 1), draw.choice(names)) for _fault in range(draw.choice((1, 1, 2))))
    return draw.random() < 0.25, faults, draw.choice([*ENDS, "console"])


def inject(cluster, run, fault, first):
    """A second fault may have nothing left to hit, such as the disk of a node that is off."""
    try:
        if fault == "module":
            cluster.run(cluster.node, "sh", "-c", "kill -9 $(pidof python3) 2>/dev/null || :")
        else:
            cluster.inject(fault, run)
    except SandboxError as exc:
        if first:
            raise
        print("not injected: %s" % exc)


def heal(cluster, faults):
    """What a person does who finds the node so."""
    kinds = [fault for _when, fault in faults]
    if "read-only" in kinds:
        cluster.power_cycle()
    cluster.heal_ssh()
    if "disk" in kinds:
        cluster.free_disk()
    if "kubelet" in kinds:
        cluster.run(cluster.node, "systemctl", "start", "kubelet")


@pytest.mark.parametrize("number", range(int(os.environ.get("N", "") or 2)))
def test_random(cluster, snapshot, old, clients, begin, table, number):
    failed_before, faults, end = story(number)
    title = "SEED=%s, number %d" % (SEED, number)
    table[title] = "FAILED"
    record_random(cluster, SEED, number, serves="FAILED")
    if failed_before:
        cluster.hold_at("committed", die="swapped")
        assert begin(snapshot, "restore.yml").wait(300) != 0
        cluster.prove_one_side(snapshot, old)
    known = [transaction.id for transaction in cluster.transactions()]
    cluster.let_go()

    begun = time.monotonic()
    run, hit = begin(snapshot, "restore.yml", rollback_after=60), []
    for when, fault in faults:
        wait_for(lambda when=when: time.monotonic() - begun >= when or run.ended(), LAST + 5, "the time of the fault comes")
        if not run.ended():
            print("%5.1f s  %s" % (time.monotonic() - begun, fault), flush=True)
            inject(cluster, run, fault, not hit)
            hit.append((when, fault))
    code = run.wait(400)
    print(run.output()[-6000:])
    heal(cluster, hit)

    def ours():
        return [transaction for transaction in cluster.transactions() if transaction.id not in known]

    wait_for(lambda: "unit" not in cluster.facts(), 200, "nothing is left to go off")
    by = "self"
    if any(transaction.state not in ENDED for transaction in ours()):
        by = end if end != "resume" or ours()[-1].state not in BACK else "console"
        if by == "console":
            print(cluster.run(cluster.node, ours()[-1].path + "/rollback", timeout=400))
        else:
            again = begin(snapshot, *ENDS[by])
            again_code = again.wait(400)
            print(again.output()[-6000:])
            assert again_code == 0
    side, facts, served = cluster.prove_one_side(snapshot, old)
    assert recorded(facts)[-1:] == ["committed" if side == "new" else "rolled-back"] or (side == "old" and not ours())
    assert "unit" not in facts and "armed" not in facts
    if code == 0 and not hit:
        assert side == "new"
    cluster.start_pod()
    print(clients.check(side))
    told = ", ".join("%s at %.1f s" % (fault, when) for when, fault in hit) or "nothing in time"
    told += " after a failed restore" if failed_before else ""
    table[title] = "%s %s %d s: %s" % (side, by, served - begun, told)
    record_random(cluster, SEED, number, serves=side, by=by, hit=told)
