# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node that has voted follows the decision of all nodes."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import steps, timer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import ARMED, bring_to, units


@pytest.fixture
def voter(systemd):
    """A node that was validated and has voted, with the timer armed.  What all decide is what the stub of `decide` says."""
    systemd.stage()
    timer.arm(systemd.transaction, 900)
    steps.stop(systemd.transaction, 5)
    steps.swap(systemd.transaction)
    systemd.start()
    with systemd.transaction.step("committing", None):
        pass
    systemd.decide = lambda script: (systemd.path / "decide").write_text('echo "$*" >> %s/asked\n%s\n' % (systemd.root, script))
    systemd.asked = lambda: (systemd.root / "asked").read_text().split()
    return systemd


@pytest.mark.parametrize("argument, asked", [([], "abort"), (["--timer"], "--timer")])
def test_a_node_that_has_voted_rolls_back_when_all_do(voter, argument, asked):
    voter.decide("echo rolled-back")
    assert voter.rollback(*argument).returncode == 0
    voter.is_old()
    assert voter.asked() == [asked] and units(voter) == []


def test_a_node_that_has_voted_stays_when_all_stay(voter):
    voter.decide("echo committed")
    done = voter.rollback()
    assert done.returncode == 3 and "--undo" in done.stdout
    assert units(voter) == ARMED
    # what all decided is known without asking again
    assert voter.transaction.state()[0] == "committed"
    voter.decide("exit 1")
    assert voter.rollback("--timer").returncode == 0
    assert voter.data() == "new" and units(voter) == []
    assert voter.rollback("--undo").returncode == 0
    voter.is_old()


@pytest.mark.parametrize("argument", [[], ["--timer"]])
def test_a_node_that_cannot_ask_waits(voter, argument):
    """systemd runs what fails again."""
    voter.decide("exit 1")
    done = voter.rollback(*argument)
    assert done.returncode == 7 and "quorum" in done.stdout
    assert voter.data() == "new" and voter.transaction.state()[0] == "committing" and units(voter) == ARMED
    assert voter.rollback("--undo").returncode == 0
    voter.is_old()


@pytest.mark.parametrize("answer", ["committed", "rolled-back"])
def test_an_undo_tells_the_others_and_does_not_obey_them(voter, answer):
    voter.decide("echo " + answer)
    assert voter.rollback("--undo").returncode == 0
    voter.is_old()
    assert voter.asked() == ["--undo"]


def test_a_decision_to_roll_back_is_carried_out_by_a_later_run(voter):
    """The disk is full, so that no state says how far it is, and the script dies between the data and the manifests."""
    voter.decide("echo rolled-back")
    (voter.path / "state.new").mkdir()
    script = voter.path / "rollback"
    whole = script.read_text()
    script.write_text(whole.replace("back=yes;", "kill -9 $$;"))
    assert voter.rollback("--timer").returncode == -9
    assert voter.manifest_names() == ["kube-vip.yaml"] and voter.transaction.state()[0] == "committing"
    script.write_text(whole)
    assert voter.rollback("--timer").returncode == 0 and voter.data() == "old" and len(voter.manifest_names()) == 5
    # with some space again that is written down, also when nothing is left to do
    (voter.path / "state.new").rmdir()
    assert "already rolled back" in voter.rollback("--timer").stdout
    voter.is_old()
    assert units(voter) == []


def test_a_node_that_has_not_voted_does_not_ask(node):
    bring_to(node, "started")
    (node.path / "decide").write_text("exit 1\n")
    assert node.rollback("--timer").returncode == 0
    node.is_old()


def test_a_commit_that_a_timer_was_faster_with_is_one(voter):
    """The timer goes off between the answer of `decide` and the step."""
    voter.decide('[ "$1" != --timer ] || printf "committed 2026\\n" > %s/state; echo committed' % voter.path)
    assert steps.commit(voter.transaction, 3, 1) == []
    assert voter.transaction.state() == ("committed", "2026") and units(voter) == []


def test_nothing_is_committed_that_not_all_keep(voter):
    voter.decide("echo rolled-back")
    with pytest.raises(TransactionError, match="none does"):
        steps.commit(voter.transaction, 3, 1)
    voter.decide("exit 1")
    with pytest.raises(TransactionError, match="could not be asked"):
        steps.commit(voter.transaction, 3, 1)
    assert voter.transaction.state()[0] == "committing"
    voter.decide("echo committed")
    steps.commit(voter.transaction, 3, 1)
    assert voter.transaction.state()[0] == "committed" and units(voter) == []


def test_a_vote_is_on_the_disk_before_it_is_cast(systemd):
    systemd.stage()
    steps.stop(systemd.transaction, 5)
    steps.swap(systemd.transaction)
    systemd.start()
    (systemd.path / "decide").write_text('[ "$1" = vote ] && grep -q ^committing %s/state && cat %s/restored-cluster\n' % ((systemd.path,) * 2))
    steps.vote(systemd.transaction, "ff", 1)
    assert (systemd.path / "restored-cluster").read_text() == "255\nff\n"
    assert systemd.transaction.state()[0] == "committing"
    # a node that rolled back does not vote
    assert systemd.rollback("--undo").returncode == 0
    with pytest.raises(TransactionError, match="rolled-back"):
        steps.vote(systemd.transaction, "ff", 1)
