# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: unit_problem
short_description: Says why a systemd unit of this collection failed
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - The program's own error comes first. Without one, systemd's result and the end of the journal are quoted.
  - Used by the role P(k8s_dr.etcd.etcd_schedule#role).
positional: _input, result
options:
  _input:
    description: The journal's lines of this run.
    type: list
    elements: str
    required: true
  result:
    description: Property C(Result) of the unit, or what C(systemctl start) wrote where there is none.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show why the unit failed
  ansible.builtin.debug:
    msg: "{{ journal.stdout_lines | k8s_dr.etcd.unit_problem('exit-code') }}"
"""

RETURN = r"""
_value:
  description: One sentence.
  type: str
"""


def unit_problem(lines, result):
    """See RETURN."""
    failed = [line for line in lines if str(line).startswith("FAILED: ")]
    if failed:
        return failed[-1]
    return 'systemd says "%s", and the journal has: %s' % (result or "nothing", " / ".join(lines[-10:]) or "nothing")


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.unit_problem."""

    def filters(self):
        return {"unit_problem": unit_problem}
