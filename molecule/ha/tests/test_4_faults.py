# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every state of a restore of three members x every fault of one of them: in the end all have their previous data, or all the restored data.

tests/tools/fault_cells.py says which cells there are, and which are run.
"""

from __future__ import annotations

import time

import pytest
from cluster import wait_for
from fault_cells import BACK, THREE, cells, chosen, record, states

STATES, FAULTS = states(THREE), list(THREE.faults)
VOTES = ("committing", "voted", "decided")


def expected(state):
    """Which side all must be on in the end: before all have voted none can decide to keep the data, and afterwards none can decide against it."""
    return "new" if state in ("voted", "decided", "committed") else "old"


def words(facts):
    """{host: where its restore stands}."""
    return {host: found["transaction"][-1].split()[1] for host, found in facts.items()}


@pytest.mark.parametrize(("state", "fault"), [cells(THREE)[name] for name in chosen(THREE)])
def test_all_or_none(faulty, old, clients, begin, table, state, fault):
    name = "%s-%s" % (state, fault)
    table[name] = "FAILED"
    record(THREE, name, faulty, serves="FAILED")
    hosts = list(faulty.nodes)
    victim = faulty.on(hosts[(STATES.index(state) + FAULTS.index(fault)) % len(hosts)])
    # armed before the state that is meant; after that state the test should not wait long for it
    rollback_after = 150 if state in THREE.forward[THREE.forward.index("starting") :] else 75
    start_of_cell = time.monotonic()

    def clock(what):
        print("%5.1f s  %s" % (time.monotonic() - start_of_cell, what), flush=True)

    print("the victim is %s" % victim.node)
    held = [faulty.on(host) for host in hosts] if state == "voted" else [victim]
    for node in held:
        node.hold_at(state, die="swapped" if state in BACK else None)
    # what waits for a member that is cut off waits for nothing
    timeouts = {"rollback_after": rollback_after, "start_timeout": 40 if fault == "peers" else 90}
    run = begin("restore.yml", **timeouts)
    for node in held:
        node.wait_held(run, 300)
    clock("held")
    begun = time.monotonic()

    # in the vote, what runs on the nodes dies with the controller: else they would all just finish
    dies = [victim] if fault == "step" else held if fault == "controller" and state in VOTES else []
    if fault == "controller":
        run.kill()
    elif fault == "power":
        victim.power("off", victim.node)
    elif fault == "ssh":
        victim.cut_ssh(run)
    elif fault == "peers":
        victim.cut_peers()
    for node in held:
        if node.node != victim.node or fault != "power":
            node.let_go(die=node in dies)
    clock("let go")
    code = run.wait(400)
    clock("the run has ended with %s" % code)
    print(run.output()[-9000:])
    if fault == "power":
        victim.power("on", victim.node)
    elif fault == "peers":
        victim.heal_peers()

    wait_for(lambda: not any(faulty.on(host).is_armed() for host in hosts), rollback_after + 150, "every timer was disarmed or has gone off")
    seconds = time.monotonic() - begun
    clock("all have come to an end")
    side, facts = faulty.prove_one_side_of_all(old)
    clock("%s, verified on all: %s" % (side, words(facts)))
    victim.heal_ssh()

    by = "self"
    done = {"old": "rolled-back", "new": "committed"}[side]
    identity = facts[victim.node]["transaction"][-1].split()[0]
    said = [faulty.run(host, "journalctl", "-o", "cat", "--no-pager", "-u", "etcd-restore-%s.service" % identity, check=False) for host in hosts]
    print("\n".join(said))
    if any("rollback of " + identity in text for text in said):
        by = "timer"
    if set(words(facts).values()) != {done}:
        # Served all the time, or serves again; it only was not written down.
        again = begin(*{"old": ("rollback.yml",), "new": ("restore.yml", "-e", "etcd_restore_unfinished=resume")}[side], **timeouts)
        again_code = again.wait(400)
        print(again.output()[-6000:])
        assert again_code == 0
        again_side, facts = faulty.prove_one_side_of_all(old)
        assert again_side == side
        by += "+" + ("rollback" if side == "old" else "resume")
        clock("written down by " + by)
    assert set(words(facts).values()) == {done}

    print(clients.check(side))
    assert side == expected(state)
    if fault != "controller" and code == 0:
        assert side == "new"
    if side == "old" and fault != "controller":
        assert code != 0
    table[name] = "%s %s %d s" % (side, by, seconds)
    record(THREE, name, faulty, serves=side, by=by, seconds=round(seconds))
