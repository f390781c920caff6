# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes that are stopped because another one is restored without them never serve beside it."""

from __future__ import annotations

import json
import time

import pytest
from cluster import wait_for

ONLY = ("-e", json.dumps({"etcd_restore_members": ["cp1"]}))
RETIRED = ("cp2", "cp3")


def unit(faulty, host):
    return "etcd-restore-" + faulty.transactions(host)[-1].id


def journal(faulty, host):
    return faulty.run(host, "journalctl", "-o", "cat", "--no-pager", "-u", unit(faulty, host) + ".service", check=False)


def etcd_runs(faulty, host):
    return bool(faulty.run(host, "pgrep", "-x", "etcd", check=False).strip())


@pytest.fixture
def cut_off(faulty, old, begin):
    """The controller has died when cp1 served the restored data.  Returns the inodes of the old databases."""
    cp1 = faulty.on("cp1")
    cp1.hold_at("started")
    run = begin("restore.yml", *ONLY, rollback_after=900)
    cp1.wait_held(run, 300)
    run.kill()
    cp1.let_go()
    wait_for(lambda: faulty.transactions("cp1")[-1].state == "started", 60, "cp1 serves")
    return old


def test_they_wait_while_the_restored_one_cannot_go_back(faulty, cut_off):
    for host in RETIRED:
        # as if its time were over, and that of the restored one had not come
        faulty.run(host, "systemctl", "start", unit(faulty, host) + ".service")
        wait_for(lambda node=host: "a restored node serves, and" in journal(faulty, node), 60, host + " has asked")
    time.sleep(35)
    for host in RETIRED:
        # systemd has run it again
        assert journal(faulty, host).count("a restored node serves, and") >= 2
        assert faulty.transactions(host)[-1].state == "swapped" and not etcd_runs(faulty, host)
        said = faulty.run(host, "sh", "-c", faulty.transactions(host)[-1].path + "/rollback || echo code $?")
        assert "Roll back the restored ones first" in said and "code 7" in said
    faulty.run("cp1", "sh", "-c", faulty.transactions("cp1")[-1].path + "/rollback", timeout=700)
    wait_for(lambda: not any(faulty.on(host).is_armed() for host in RETIRED), 180, "they have gone back by themselves")
    side, facts = faulty.prove_one_side_of_all(cut_off)
    assert side == "old" and {found["transaction"][-1].split()[1] for found in facts.values()} == {"rolled-back"}


def test_a_run_that_finishes_the_restore_arms_them_first(faulty, cut_off):
    process = faulty.playbook("restore.yml", *ONLY, "-e", "etcd_restore_unfinished=resume", "-e", "etcd_restore_confirm=true")
    said = " ".join(process.stdout.split())
    assert said.index("TASK [k8s_dr.etcd.etcd_restore : Stop the retired nodes first]") < said.index("Stop the control plane and wait for proof")
    assert [faulty.transactions(host)[-1].state for host in faulty.nodes] == ["committed"] * 3
    assert not any(etcd_runs(faulty, host) for host in RETIRED)
    assert set(faulty.on("cp1").own_marks()) == {"kept", "gone"}
    # and all of it is undone together, or none
    alone = faulty.playbook("rollback.yml", "-l", "cp1", "-e", "etcd_restore_undo=true", check=False)
    assert alone.returncode != 0 and "does not reach cp2, cp3" in " ".join(alone.stdout.split())
    faulty.playbook("rollback.yml", "-e", "etcd_restore_undo=true")
    side, dummy = faulty.prove_one_side_of_all(cut_off)
    assert side == "old"
