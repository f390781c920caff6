#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: refuse
short_description: Fails with a reason, if there is one
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Fails with O(reason) unless it is empty.
  - M(ansible.builtin.assert) would evaluate an expensive reason twice, once for the condition and once for the message.
  - Runs in Ansible's own process, and needs no connection.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
attributes:
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - This module changes nothing.
options:
  reason:
    description: One sentence, or a list of sentences. Nothing happens when it is empty.
    type: raw
    required: true
seealso:
  - module: ansible.builtin.assert
"""

EXAMPLES = r"""
- name: Check the nodes
  k8s_dr.etcd.refuse:
    reason: "{{ known | k8s_dr.etcd.restore_findings('nodes') }}"
"""

RETURN = r"""
msg:
  description: The reason.
  returned: failure
  type: raw
  sample: "No kubelet runs on cp1, so nothing would stop or start its etcd. Nothing was done. Run on the node: systemctl start kubelet"
"""
# The action plugin of the same name does all of it.
