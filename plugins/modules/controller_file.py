#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: controller_file
short_description: Writes or removes a file on the controller
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Writes text to a file on the controller, or removes a file or directory there.
  - Runs in Ansible's own process as the user who started Ansible. It needs no connection, no C(delegate_to) and no Python interpreter, and ignores C(become).
  - The file gets its name when it is complete. An interrupted run leaves the previous file.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  path:
    description:
      - The file on the controller; C(~) is the home directory of the user who started Ansible.
      - A missing parent directory is made with mode 0700. The mode of an existing one stays.
    type: path
    required: true
  content:
    description: Text of the file. A dictionary or list is written as JSON. Required with O(state=present).
    type: raw
  mode:
    description: Mode of the file, as octal digits in quotes.
    type: str
    default: "0600"
  state:
    description: Whether the file exists. V(absent) also removes a directory with all its contents.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: ansible.builtin.copy
"""

EXAMPLES = r"""
- name: Write a report on the controller
  k8s_dr.etcd.controller_file:
    path: ~/k8s-dr-reports/restore.json
    content: "{{ report }}"

- name: Remove a temporary directory on the controller
  k8s_dr.etcd.controller_file:
    path: "{{ temporary.path }}"
    state: absent
"""

RETURN = r"""
path:
  description: Absolute path of the file.
  returned: always
  type: str
  sample: /home/me/k8s-dr-reports/restore.json
"""
# The action plugin of the same name does all of it.
