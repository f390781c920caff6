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


@pytest.mark.parametrize("end", ["commit", "rollback", "timer"])
def test_the_timer_ends_with_the_restore(systemd, end):
    systemd.stage()
    timer.arm(systemd.transaction, 900)
    steps.stop(systemd.transaction, 5)
    steps.swap(systemd.transaction)
    systemd.start()
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
    systemd.stage()
    timer.arm(systemd.transaction, 900)
    steps.stop(systemd.transaction, 5)
    steps.swap(systemd.transaction)
    systemd.start()
    with contextlib.suppress(KeyboardInterrupt), systemd.transaction.step("committing", "committed"):
        raise KeyboardInterrupt
    assert systemd.rollback("--timer").returncode == 0
    assert systemd.data() == "new" and units(systemd) == []
    assert systemd.transaction.state()[0] == "committing"
    # without --timer the script still rolls back
    assert systemd.rollback().returncode == 0
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
