# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/schedule.yml: what only a node with systemd can show.  The runs themselves are tried in tests/integration/test_schedule.py."""

from __future__ import annotations

import json
import time

import pytest
from cluster import changes

UNIT = "k8s-dr-etcd-snapshot"
DIRECTORY = "/var/backups/scheduled"
SETTINGS = ("-e", "etcd_snapshot_dir=" + DIRECTORY, "-e", "etcd_schedule_random_delay=1", "-e", "etcd_schedule_on_calendar=03:04:05")


@pytest.fixture(scope="module", autouse=True)
def scheduled(cluster, cp1):
    cp1.run("rm -rf %s", DIRECTORY)
    output = cluster.playbook("schedule.yml", *SETTINGS, "-e", "etcd_schedule_run_now=true").stdout
    assert "cp1 takes the snapshot of its cluster" in output and "03:04:05" in output
    yield
    cluster.playbook("schedule.yml", "-e", "etcd_schedule_state=absent")
    cp1.run("rm -rf %s", DIRECTORY)


def taken(cp1):
    return sorted(name for name in cp1.check_output("ls %s", DIRECTORY).split() if name.endswith(".db"))


def last_run(cp1):
    return json.loads(cp1.file("/var/lib/k8s-dr-etcd/last-run.json").content_string)


def test_the_first_run_took_one(cp1):
    assert len(taken(cp1)) == 1
    assert last_run(cp1)["ok"] and last_run(cp1)["snapshot"].endswith(taken(cp1)[-1])


def test_the_timer_waits_for_its_time(cp1):
    assert cp1.service(UNIT + ".timer").is_enabled and cp1.service(UNIT + ".timer").is_running
    assert "03:04:0" in cp1.check_output("systemctl show --property=NextElapseUSecRealtime %s.timer", UNIT)
    assert cp1.run("systemd-analyze verify /etc/systemd/system/%s.service /etc/systemd/system/%s.timer", UNIT, UNIT).rc == 0


def test_a_second_time_changes_nothing(cluster):
    assert changes(cluster.playbook("schedule.yml", *SETTINGS)) == dict.fromkeys(cluster.nodes, 0)


def test_the_role_verifies_that_systemd_can_run_the_program(cluster, cp1):
    """By hand it works all the same: only the unit is kept from etcd's certificates."""
    dropin = "/etc/systemd/system/%s.service.d" % UNIT
    timer = cp1.check_output("cat /etc/systemd/system/%s.timer", UNIT)
    cp1.check_output("mkdir -p %s", dropin)
    cp1.check_output("printf '[Service]\\nInaccessiblePaths=/etc/kubernetes/pki\\n' > %s/test.conf", dropin)
    try:
        output = cluster.playbook("schedule.yml", *SETTINGS, "-e", "etcd_schedule_random_delay=2", check=False).stdout
        assert "does not work when systemd runs it, so no timer was set: FAILED: " in output and "/etc/kubernetes/pki" in output, output
        assert cp1.check_output("cat /etc/systemd/system/%s.timer", UNIT) == timer
        assert cp1.run("k8s-dr-etcd-snapshot run --check --now").rc == 0
    finally:
        cp1.check_output("rm -rf %s", dropin)
        cp1.check_output("systemctl daemon-reload")
    assert cp1.run("ls /run/systemd/system/%s-once.service*", UNIT).rc != 0
    assert "-once" not in cp1.check_output("systemctl list-units --all --no-legend --plain --no-pager '%s*'" % UNIT)


def test_what_was_missed_while_the_node_was_off_is_made_up_for(cp1):
    before = len(taken(cp1))
    cp1.check_output("systemctl stop %s.timer", UNIT)
    cp1.check_output("touch --date='3 days ago' /var/lib/systemd/timers/stamp-%s.timer", UNIT)
    cp1.check_output("systemctl start %s.timer", UNIT)
    end = time.monotonic() + 60
    while time.monotonic() < end and len(taken(cp1)) == before:
        time.sleep(1)
    assert len(taken(cp1)) == before + 1
    while time.monotonic() < end and not last_run(cp1)["ended"]:
        time.sleep(1)
    journal = cp1.check_output("journalctl --no-pager -t %s", UNIT)
    assert "take: done in" in journal and taken(cp1)[-1] in journal


def test_a_run_that_fails_is_a_failed_unit(cp1):
    before = taken(cp1)
    cp1.check_output("mv %s %s.away", DIRECTORY, DIRECTORY)
    cp1.check_output("touch %s", DIRECTORY)
    try:
        assert cp1.run("systemctl start %s", UNIT).rc != 0
        assert cp1.check_output("systemctl is-failed %s", UNIT) == "failed"
        assert "is not a directory" in cp1.check_output("journalctl --no-pager -t %s -n 1", UNIT)
        assert last_run(cp1)["failures"] == 1
    finally:
        cp1.check_output("rm -f %s", DIRECTORY)
        cp1.check_output("mv %s.away %s", DIRECTORY, DIRECTORY)
    assert cp1.run("k8s-dr-etcd-snapshot").rc == 0 and last_run(cp1)["failures"] == 0
    assert len(taken(cp1)) == len(before) + 1


def test_removal_leaves_no_trace(cluster, cp1):
    kept = taken(cp1)
    cluster.playbook("schedule.yml", "-e", "etcd_schedule_state=absent")
    left = "/etc/systemd/system /var/lib/systemd/timers /usr/local/lib /usr/local/sbin /etc /var/lib"
    assert cp1.check_output("find %s -maxdepth 2 -name 'k8s-dr-etcd*' -o -maxdepth 2 -name 'stamp-k8s-dr*'" % left) == ""
    assert UNIT not in cp1.check_output("systemctl list-units --all --no-legend --plain --no-pager")
    assert taken(cp1) == kept
    assert changes(cluster.playbook("schedule.yml", "-e", "etcd_schedule_state=absent")) == dict.fromkeys(cluster.nodes, 0)
