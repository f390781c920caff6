# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A refusal, with the real `ansible`."""

from __future__ import annotations

import harness
import pytest


@pytest.mark.parametrize("nothing", ["", []])
def test_without_a_reason_nothing_happens(nothing):
    foreign = ("-b", "-e", "ansible_python_interpreter=/nonexistent", "-e", "ansible_become_exe=/nonexistent")
    rc, result = harness.ansible("refuse", *foreign, reason=nothing)
    assert rc == 0 and not result["changed"] and "msg" not in result, result


@pytest.mark.parametrize("mode", [(), ("--check",)])
@pytest.mark.parametrize("reason", ["No kubelet runs on cp1.", ["No kubelet runs on cp1.", "No kubelet runs on cp2."]])
def test_a_reason_is_what_the_task_fails_with(reason, mode):
    rc, result = harness.ansible("refuse", *mode, reason=reason)
    assert rc != 0 and result["msg"] == reason and not result["changed"], result
