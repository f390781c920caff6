# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recorded state of a restore, and the order of its states."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import steps
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import ORDER, Busy, TransactionError
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_restore_transaction as module
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import FILES, POINTS, bring_to


def test_created_data_belongs_to_the_user_that_etcd_runs_as(node):
    shutil.rmtree(node.live)
    node.plan["owner"] = [2001, 2002]
    node.begin()
    assert [(info.st_uid, info.st_gid) for info in [os.stat(node.live)]] == [(2001, 2002)]
    # what is there keeps its owner
    node.plan["owner"] = [3001, 3002]
    node.begin()
    assert os.stat(node.live).st_uid == 2001


def test_a_finished_restore_that_was_undone_is_known_as_such(node):
    bring_to(node, "started")
    listed = node.listed()[0]
    assert not listed["finished"] and not listed["ended"]
    steps.commit(node.transaction, keep=3)
    node.rollback("--undo")
    listed = node.listed()[0]
    assert listed["finished"] and listed["ended"] and listed["state"] == "rolled-back"


@pytest.mark.parametrize("point", POINTS)
def test_a_restore_that_was_abandoned_before_it_stopped_anything(node, point):
    bring_to(node, point)

    def untouched():
        return node.listed()[0]["untouched"]

    # the run that began it may be about to take its next step
    assert not untouched()
    os.utime(node.path / "state", times=(time.time() - 1000,) * 2)
    assert untouched() == (point in ("begun", "staged"))
    with open(node.path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not untouched()
    node.rollback()
    os.utime(node.path / "state", times=(time.time() - 1000,) * 2)
    assert not untouched()


def test_a_retirement_that_was_abandoned_before_it_stopped_anything(node):
    """Else the next restore would wait for ever for the nodes that one of some members was to retire."""
    bring_to(node, "begun")
    (node.path / "plan.json").write_text(json.dumps(dict(json.loads((node.path / "plan.json").read_text()), kind="retire")))
    assert not node.listed()[0]["untouched"]
    os.utime(node.path / "state", times=(time.time() - 1000,) * 2)
    assert (node.listed()[0]["kind"], node.listed()[0]["untouched"]) == ("retire", True)


def test_a_finished_restore_is_known_as_such_although_a_power_cut_took_the_end_of_its_log(node):
    bring_to(node, "started")
    steps.commit(node.transaction, keep=3)
    log = node.path / "log"
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:-1]))
    assert node.listed()[0]["finished"]
    assert node.rollback("--undo").returncode == 0
    listed = node.listed()[0]
    assert listed["finished"] and listed["state"] == "rolled-back"


def test_states_are_taken_in_order_and_none_after_a_rollback(node):
    with pytest.raises(TransactionError, match="cannot go on with swapping"):
        steps.swap(node.transaction)
    assert node.transaction.state()[0] == "begun"
    bring_to(node, "stopped")
    assert node.rollback().returncode == 0
    with pytest.raises(TransactionError, match="is rolled-back"):
        steps.swap(node.transaction)
    assert node.data() == "old"


def test_two_steps_do_not_run_at_once(node):
    node.stage()
    with open(node.path / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TransactionError, match="another step"):
            steps.stop(node.transaction, 1)


def test_state_file_is_one_word_and_a_time(node):
    node.stage()
    word, time = (node.path / "state").read_text().split()
    assert word == "staged" and time.endswith("Z")
    assert [line.split()[0] for line in (node.path / "log").read_text().splitlines()] == ["staging", "staged"]
    assert json.loads((node.path / "plan.json").read_text())["files"] == FILES
    assert oct((node.path / "rollback").stat().st_mode)[-3:] == "700"
    assert oct(node.path.stat().st_mode)[-3:] == "700"


def test_every_step_has_a_state_during_it_and_one_after_it():
    assert len(ORDER) == len(set(ORDER)) == 12


def test_an_unfinished_restore_says_what_it_is_about(node):
    node.plan["about"] = {"snapshot": {"path": "/x.db"}}
    node.begin()
    assert node.listed()[0]["about"]["snapshot"]["path"] == "/x.db"
    bring_to(node, "started")
    steps.commit(node.transaction, keep=3)
    assert node.listed()[0]["about"] == {}


def test_a_step_of_another_run_is_waited_for(node):
    node.stage()
    taken = threading.Event()

    def other():
        with open(node.path / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            taken.set()
            time.sleep(0.5)

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait(5)
    params = {"cacert": "", "cert": "", "key": "", "stop_timeout": 5, "step_timeout": 0, "snapshot_revision": 0}
    with pytest.raises(Busy):
        module.forward(node.transaction, "stopped", params)
    module.forward(node.transaction, "stopped", dict(params, step_timeout=10))
    thread.join()
    assert node.transaction.state()[0] == "stopped"
