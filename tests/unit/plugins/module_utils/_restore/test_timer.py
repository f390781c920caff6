# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The units of the rollback timer, and what they run."""

from __future__ import annotations

import contextlib
import pathlib

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import steps, timer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_restore_transaction as module
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import ARMED, units


def test_the_timer_runs_the_rollback_later_and_after_a_reboot_at_once(systemd):
    systemd.stage()
    for dummy in range(2):
        timer.arm(systemd.transaction, 900)
        assert units(systemd) == ARMED
    service, unit, wanted = (pathlib.Path(systemd.plan["unit"]).parent / name for name in ARMED)
    assert "OnActiveSec=900\n" in unit.read_text()
    assert "ExecStart=/bin/sh %s/rollback --timer\n" % systemd.path in service.read_text()
    assert "RequiresMountsFor=%s " % systemd.path in service.read_text()
    assert wanted.resolve() == service
    assert systemd.kubelet() == ["daemon-reload", "restart etcd-restore-x.timer"] * 2
    assert systemd.transaction.state()[0] == "staged"


def restore(node):
    """With the timer armed, as far as a control plane that serves."""
    node.stage()
    timer.arm(node.transaction, 900)
    steps.stop(node.transaction, 5)
    steps.swap(node.transaction)
    node.start()


def validate(node):
    """And further, until the commit is interrupted."""
    restore(node)
    with contextlib.suppress(KeyboardInterrupt), node.transaction.step("committing", "committed"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("end", ["commit", "rollback", "timer"])
def test_the_timer_ends_with_the_restore(systemd, end):
    restore(systemd)
    if end == "commit":
        steps.commit(systemd.transaction, keep=3)
        assert systemd.data() == "new"
    else:
        done = systemd.rollback(*(["--timer"] if end == "timer" else []))
        assert done.returncode == 0, done.stdout
        systemd.is_old()
    assert units(systemd) == []
    assert "stop etcd-restore-x.timer" in systemd.kubelet()


def test_a_validated_restore_stays_when_the_timer_fires(systemd):
    """The controller died between its decision and the end."""
    validate(systemd)
    (systemd.path / "snapshot.db").write_text("every Secret")
    assert systemd.rollback("--timer").returncode == 0
    assert systemd.data() == "new" and units(systemd) == [] and not (systemd.path / "snapshot.db").exists()
    # days later nothing is left that could be taken for an unfinished restore
    assert systemd.transaction.state()[0] == "committed" and systemd.listed()[0]["finished"]
    late = systemd.rollback()
    assert late.returncode == 3 and "--undo" in late.stdout and systemd.data() == "new"
    assert systemd.rollback("--undo").returncode == 0
    systemd.is_old()


def test_a_validated_restore_is_still_rolled_back_before_its_timer_fires(systemd):
    """As the handlers do when the commit fails."""
    validate(systemd)
    assert systemd.rollback().returncode == 0 and units(systemd) == []
    systemd.is_old()


def test_the_timer_of_a_validated_restore_stays_armed_while_the_disk_is_full(systemd):
    validate(systemd)
    (systemd.path / "state.new").mkdir()
    full = systemd.rollback("--timer")
    assert full.returncode == 9 and "the restored data stays; free some space" in full.stdout and units(systemd) == ARMED
    (systemd.path / "state.new").rmdir()
    assert systemd.rollback("--timer").returncode == 0
    assert systemd.transaction.state()[0] == "committed" and systemd.data() == "new" and units(systemd) == []


def test_the_timer_goes_only_once_the_commit_is_on_the_disk(systemd, monkeypatch):
    restore(systemd)
    enter = systemd.transaction._enter

    def enter_or_die(state):
        if state == "committed":
            raise KeyboardInterrupt
        enter(state)

    monkeypatch.setattr(systemd.transaction, "_enter", enter_or_die)
    with pytest.raises(KeyboardInterrupt):
        steps.commit(systemd.transaction, keep=3)
    assert systemd.transaction.state()[0] == "committing" and units(systemd) == ARMED
    assert systemd.rollback("--timer").returncode == 0 and systemd.transaction.state()[0] == "committed"


def test_a_validated_restore_that_went_back_on_a_full_disk_is_not_called_committed(systemd):
    """The power fails between its data and its manifests, and no state was written."""
    validate(systemd)
    (systemd.path / "state.new").mkdir()
    script = systemd.path / "rollback"
    whole = script.read_text()
    script.write_text(whole.replace("back=yes;", "kill -9 $$;"))
    assert systemd.rollback().returncode == -9 and systemd.transaction.state()[0] == "committing"
    script.write_text(whole)
    (systemd.path / "state.new").rmdir()
    assert systemd.rollback("--timer").returncode == 0 and units(systemd) == []
    systemd.is_old()


@pytest.mark.parametrize("point", ["swapped", "committing"])
def test_an_undo_of_what_was_not_finished_counts_as_one(systemd, point):
    """The same command again must not undo the restore before."""
    systemd.stage()
    steps.stop(systemd.transaction, 5)
    steps.swap(systemd.transaction)
    if point == "committing":
        systemd.start()
        with contextlib.suppress(KeyboardInterrupt), systemd.transaction.step("committing", "committed"):
            raise KeyboardInterrupt
    assert not systemd.listed()[0]["finished"]
    assert systemd.rollback("--undo").returncode == 0
    systemd.is_old()
    assert systemd.listed()[0]["finished"] and "undo" in [line.split()[0] for line in systemd.transaction.log()]


def test_an_undo_leaves_its_unit_only_where_a_boot_has_something_to_do(systemd):
    validate(systemd)
    steps.commit(systemd.transaction, keep=3)
    script = systemd.path / "rollback"
    whole = script.read_text()
    # refused before anything moved
    script.write_text("#!/bin/sh\necho refused; exit 4\n")
    with pytest.raises(TransactionError, match=r"refused$"):
        module.undo(systemd.transaction, 60)
    assert units(systemd) == [] and systemd.data() == "new"
    # interrupted between the data and the manifests
    script.write_text(whole.replace("back=yes;", "echo halfway; exit 5;"))
    with pytest.raises(TransactionError, match=r"halfway \(a reboot goes on with it, unless you remove .*/etcd-restore-x.service\)"):
        module.undo(systemd.transaction, 60)
    assert units(systemd) == [ARMED[0], ARMED[2]]
    script.write_text(whole)
    assert module.undo(systemd.transaction, 60)[-1].endswith("kubelet starts it now")
    assert units(systemd) == []
    systemd.is_old()


@pytest.mark.parametrize("cut", [False, True])
def test_a_reboot_goes_on_with_the_undo_of_a_finished_restore(systemd, cut):
    systemd.stage()
    steps.stop(systemd.transaction, 5)
    steps.swap(systemd.transaction)
    systemd.start()
    steps.commit(systemd.transaction, keep=3)
    timer.continue_after_reboot(systemd.transaction)
    assert units(systemd) == [ARMED[0], ARMED[2]]
    service = (pathlib.Path(systemd.plan["unit"]).parent / ARMED[0]).read_text()
    assert "ExecStart=/bin/sh %s/rollback --undo\n" % systemd.path in service
    script = systemd.path / "rollback"
    whole = script.read_text()
    if cut:
        # the power fails before anything was moved, then after the data was
        script.write_text(whole.replace("\nstate rolling-back\n", "\nkill -9 $$\n"))
        assert systemd.rollback("--undo").returncode == -9
        script.write_text(whole)
        assert systemd.data() == "new" and systemd.transaction.state()[0] == "committed"
        # and no state can be written any more
        (systemd.path / "state.new").mkdir()
    script.write_text(whole.replace("back=yes;", "kill -9 $$;"))
    assert systemd.rollback("--undo").returncode == -9 and systemd.manifest_names() == ["kube-vip.yaml"]
    script.write_text(whole)
    if cut:
        (systemd.path / "state.new").rmdir()
    assert systemd.rollback("--undo").returncode == 0 and units(systemd) == []
    systemd.is_old()


def test_a_timer_that_cannot_be_armed_is_an_error_and_leaves_nothing(systemd):
    systemd.stage()
    systemd.systemctl.write_text("#!/bin/sh\necho no bus >&2; [ $1 != restart ]\n")
    with pytest.raises(TransactionError, match=r"cannot be armed: `systemctl restart etcd-restore-x.timer` ended with code 1: no bus"):
        timer.arm(systemd.transaction, 900)
    assert units(systemd) == []
    steps.stop(systemd.transaction, 5)


@pytest.mark.parametrize("state", ["begun", "rolled-back", "committed"])
def test_no_timer_for_what_is_not_under_way(systemd, state):
    (systemd.path / "state").write_text(state + " 2026\n")
    with pytest.raises(TransactionError, match="nothing to arm"):
        timer.arm(systemd.transaction, 900)
    assert units(systemd) == []


def test_paths_that_mean_something_to_systemd():
    texts = timer.timer_units({"path": "/a b/100%/x", "manifests_dir": '/m"n', "id": "i"}, 5)
    assert "ExecStart=/bin/sh /a\\x20b/100%%/x/rollback" in texts[0]
    assert "RequiresMountsFor=/a\\x20b/100%%/x /m\\x22n" in texts[0]
