#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_api_watch
short_description: Watches API servers from the controller while other tasks run
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Starts M(k8s_dr.etcd.kube_api_probe) in a process of its own on the controller, and later ends it and returns what it saw.
  - The process ends by itself after O(max_seconds), and when C(ansible-playbook) ends in any way.
  - Needs no connection, no C(delegate_to) and no Python interpreter, and ignores C(become).
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - In check mode it is skipped.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  state:
    description: Whether to start or to end the watch.
    type: str
    choices: [started, stopped]
    required: true
  urls:
    description: API servers to watch, as V(https://192.0.2.11:6443). Required with O(state=started).
    type: list
    elements: str
  ca:
    description: As O(k8s_dr.etcd.kube_api_probe#module:ca).
    type: str
  interval:
    description: As O(k8s_dr.etcd.kube_api_probe#module:interval).
    type: float
    default: 0.2
  max_seconds:
    description: Seconds after which the watch ends by itself.
    type: float
    default: 900
  directory:
    description: RV(directory) as O(state=started) returned it. Required with O(state=stopped).
    type: path
  pid:
    description: RV(pid) as O(state=started) returned it. Required with O(state=stopped).
    type: int
seealso:
  - module: k8s_dr.etcd.kube_api_probe
"""

EXAMPLES = r"""
- name: Start to watch the API server
  k8s_dr.etcd.kube_api_watch:
    state: started
    urls: [https://192.0.2.11:6443]
  register: watch

- name: End the watch
  k8s_dr.etcd.kube_api_watch:
    state: stopped
    directory: "{{ watch.directory }}"
    pid: "{{ watch.pid }}"
  register: seen
"""

RETURN = r"""
directory:
  description: Where the watch keeps its files, which the end of the watch removes.
  returned: with O(state=started)
  type: str
  sample: /home/me/.ansible/tmp/ansible-local-1-x/k8s-dr-watch-y
pid:
  description: Id of its process on the controller.
  returned: with O(state=started)
  type: int
  sample: 4711
urls:
  description: O(urls) as they were given.
  returned: with O(state=started), also after a failure
  type: list
  elements: str
answering:
  description: For each URL whether its first answer was good.
  returned: with O(state=started)
  type: dict
  sample: {"https://192.0.2.11:6443": true}
probe:
  description: What was seen, as RV(k8s_dr.etcd.kube_api_probe#module:probe).
  returned: with O(state=stopped)
  type: dict
"""
# The action plugin of the same name does all of it.
