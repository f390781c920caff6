# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.unit_problem import FilterModule, unit_problem


def test_the_last_error_of_the_program_comes_first():
    assert unit_problem(["FAILED: one", "FAILED: two", "x FAILED: three"], "exit-code") == "FAILED: two"
    assert FilterModule().filters() == {"unit_problem": unit_problem}


def test_without_an_error_systemd_and_the_end_of_the_journal_are_quoted():
    lines = [str(number) for number in range(12)]
    assert unit_problem(lines, "timeout") == 'systemd says "timeout", and the journal has: ' + " / ".join(lines[2:])
    assert unit_problem([], "") == 'systemd says "nothing", and the journal has: nothing'
