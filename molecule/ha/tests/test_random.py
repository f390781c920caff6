# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults of any of three nodes at random moments, alone and in pairs: in the end all have their previous data, or all the restored data.

N=50 of them, by default two; SEED=WORD draws the same ones again, which is printed, and by default is the commit. What goes wrong here becomes a cell or a
test of its own.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from cluster import SandboxError, wait_for
from fault_cells import THREE, record_random, sample_seed

SEED = os.environ.get("SEED", "") or sample_seed()
ENDED = ("committed", "rolled-back")
DONE = {"old": "rolled-back", "new": "committed"}
# by when a restore that nothing hits has ended on an idle machine of two cores
LAST = 40
FAULTS = (*THREE.faults, "kubelet", "kubelet-restart", "containerd", "runtime-hang")
# What a person then does about a restore that is neither finished nor rolled back, where all have kept their data.
ENDS = {"rollback": ("rollback.yml",), "again": ("restore.yml", "-e", "etcd_restore_unfinished=rollback")}


def story(number, hosts):
    """(is there a failed restore before, [(seconds from the command on, fault, host)], what a person does, whose etcd hangs before it begins)"""
    draw = random.Random("%s-%d" % (SEED, number))
    faults = sorted((round(draw.uniform(0, LAST), 1), draw.choice(FAULTS), draw.choice(hosts)) for _fault in range(draw.choice((1, 1, 2))))
    return draw.random() < 0.25, faults, draw.choice([*ENDS]), draw.choice([*hosts, *[None] * 9])


def inject(faulty, run, fault, host, first):
    """A second fault may have nothing left to hit, such as a node that is off."""
    try:
        faulty.on(host).inject(fault, run)
    except SandboxError as exc:
        if first:
            raise
        print("not injected: %s" % exc)


def hang(faulty, host):
    """etcd there does nothing any more, until kubelet kills it after its probes, or a restore does."""
    faulty.run(host, "pkill", "-STOP", "-x", "etcd")


def heal(faulty, hit):
    """What a person does who finds the nodes so."""
    for host in {host for _when, fault, host in hit if fault == "power"}:
        faulty.power("on", host)
        wait_for(faulty.on(host)._is_on, 60, "%s has power" % host)
    for _when, fault, host in hit:
        if fault == "ssh":
            faulty.on(host).heal_ssh()
        elif fault == "peers":
            faulty.on(host).heal_peers()
        elif fault == "kubelet":
            faulty.run(host, "systemctl", "start", "kubelet")


def wait_for_timers(faulty):
    wait_for(lambda: not any(faulty.on(host).is_armed() for host in faulty.nodes), 250, "every timer was disarmed or has gone off")


@pytest.mark.parametrize("number", range(int(os.environ.get("N", "") or 2)))
def test_random(faulty, old, clients, begin, table, number):
    failed_before, faults, end, hangs = story(number, list(faulty.nodes))
    title = "SEED=%s, number %d" % (SEED, number)
    table[title] = "FAILED"
    record_random(faulty, SEED, number, serves="FAILED")
    if failed_before:
        broken = faulty.on(faults[0][2])
        broken.hold_at("committed", die="swapped")
        assert begin("restore.yml").wait(400) != 0
        wait_for_timers(faulty)
        assert faulty.prove_one_side_of_all(old)[0] == "old"
        broken.let_go()
    known = {host: [transaction.id for transaction in faulty.transactions(host)] for host in faulty.nodes}

    if hangs:
        hang(faulty, hangs)
    begun = time.monotonic()
    run, hit = begin("restore.yml"), []
    for when, fault, host in faults:
        wait_for(lambda when=when: time.monotonic() - begun >= when or run.ended(), LAST + 5, "the time of the fault comes")
        if not run.ended():
            print("%5.1f s  %s %s" % (time.monotonic() - begun, fault, host), flush=True)
            inject(faulty, run, fault, host, not hit)
            hit.append((when, fault, host))
    code = run.wait(500)
    print(run.output()[-9000:])
    heal(faulty, hit)
    wait_for_timers(faulty)
    side, facts = faulty.prove_one_side_of_all(old)
    served = time.monotonic()

    def open_restores():
        """Of what was begun here, the states of those that are written down neither as finished nor as rolled back."""
        found = [item.state for host in faulty.nodes for item in faulty.transactions(host) if item.id not in known[host]]
        return [state for state in found if state not in ENDED]

    by = "self"
    if open_restores():
        by = end if side == "old" else "resume"
        again = begin(*ENDS.get(by, ("restore.yml", "-e", "etcd_restore_unfinished=resume")))
        again_code = again.wait(500)
        print(again.output()[-6000:])
        assert again_code == 0
        again_side, facts = faulty.prove_one_side_of_all(old)
        assert again_side == ("new" if by == "again" else side)
        side = again_side
    assert not open_restores()
    for host, found in facts.items():
        last = found.get("transaction", [""])[-1].split()
        assert (last and last[1] == DONE[side]) or (side == "old" and not last), (host, found)
    print(clients.check(side))
    if code == 0:
        assert side == "new"
    told = ", ".join("%s of %s at %.1f s" % (fault, host, when) for when, fault, host in hit) or "nothing in time"
    told += " after a failed restore" if failed_before else ""
    told += " while etcd of %s hung" % hangs if hangs else ""
    table[title] = "%s %s %d s: %s" % (side, by, served - begun, told)
    record_random(faulty, SEED, number, serves=side, by=by, hit=told)
