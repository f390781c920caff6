# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from collections.abc import Mapping

DOCUMENTATION = r"""
name: rebuild_failure
short_description: Says why a task of a rebuild failed
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.cluster_rebuild#role). kubeadm says on C(stderr) what went wrong, and Ansible only that it failed.
positional: _input
options:
  _input:
    description: The C(ansible_failed_result) of the task, with a loop or without.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show why the task failed
  ansible.builtin.debug:
    msg: "{{ ansible_failed_result | k8s_dr.etcd.rebuild_failure }}"
"""

RETURN = r"""
_value:
  description: Text that ends with a full stop.
  type: str
"""

# Lines that say nothing of the reason: klog's warnings and information, and kubeadm's advice about its stack trace.
_ASIDE = re.compile(r"^[WI]\d{4} |^To see the stack trace")
_LONGEST = 800


def rebuild_failure(result):
    result = result if isinstance(result, Mapping) else {}
    failed = [one for one in result.get("results") or [] if isinstance(one, Mapping) and one.get("failed")]
    one = failed[0] if failed else result
    lines = [line.strip() for line in str(one.get("stderr") or "").splitlines()]
    said = " ".join(line for line in lines if line and not _ASIDE.search(line))
    text = said[:_LONGEST] or str(one.get("msg") or "") or "it did not say why"
    # up to ansible-core 2.18 braces would be taken for a template
    return re.sub(r"\{(?=[{%#])", "{ ", text).rstrip(". ") + "."


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.rebuild_failure."""

    def filters(self):
        return {"rebuild_failure": rebuild_failure}
