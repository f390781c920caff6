#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rebuild_isolation
short_description: Isolates a machine's kubelet and container runtime for the drill of a rebuild
version_added: 0.1.0
description:
  - Gives kubelet and the container runtime a network namespace of their own, and so all containers that they start in the network of the host. A link leads
    from there to the machine itself, and nowhere else.
  - V(absent) removes what a drill has made; the containers, the keys, the data and that network. It does nothing on a machine without the record of a drill.
  - V(absent) refuses a machine that became a node of another cluster since the drill.
  - Used by the role P(k8s_dr.etcd.cluster_rebuild#role).
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - V(absent) is idempotent. V(present) fails on a machine that is isolated already.
options:
  state:
    description: V(present) isolates the machine, V(absent) removes all that the drill made.
    type: str
    choices: [present, absent]
    default: present
  address:
    description: Address of the copy in its network, as the filter P(k8s_dr.etcd.rebuild_plan#filter) chose it. Required with V(present).
    type: str
  cri_socket:
    description: C(criSocket) in the configuration for kubeadm, where it names one.
    type: str
    default: ""
  state_dir:
    description: Directory with the record of the drill, and with V(present) the configuration for kubeadm.
    type: path
    required: true
  run:
    description: With V(absent), the run of the playbook that ends. Nothing is removed if another one has taken over the machine.
    type: str
    default: ""
  record:
    description:
      - With V(absent), the record of that run. It says what to remove where another run has removed O(state_dir), since this one may have gone on for a moment.
    type: dict
  manifests_dir:
    description: Directory that kubelet reads static Pods from.
    type: path
    default: /etc/kubernetes/manifests
  timeout:
    description: Seconds that each of the commands may take.
    type: int
    default: 180
notes:
  - Runs as root, on a machine with systemd 242 or later, and with containerd or CRI-O, which it restarts.
seealso:
  - module: k8s_dr.etcd.kube_rebuild_proof
"""

EXAMPLES = r"""
- name: Remove what a drill has made
  k8s_dr.etcd.kube_rebuild_isolation:
    state: absent
    state_dir: /var/lib/k8s-dr-rebuild
"""

RETURN = r"""
seconds:
  description: Duration in seconds.
  returned: success
  type: float
  sample: 3.1
"""

import os
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import isolation, machine
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def apply(params, check_mode):
    """Whether something was done."""
    made = machine.record(params["state_dir"])
    found = isolation.Isolation(params["timeout"])
    if params["state"] == "absent":
        begun = os.path.isdir(params["state_dir"])
        if not begun and params["run"]:
            made = params["record"] or {}
        # without a record nothing was begun
        there = (not made or made.get("drill", False)) and not machine.taken_over(params["state_dir"], params["run"]) if begun else bool(made)
        if there and not check_mode:
            if made:
                found.release(made, params["state_dir"], params["manifests_dir"], begun and bool(params["run"]))
            if begun:
                shutil.rmtree(params["state_dir"])
        return there
    if not check_mode:
        if not made.get("drill"):
            raise Refused("%s has no record of a drill, by which the isolation would be removed; nothing was changed" % params["state_dir"])
        runtime = found.runtime(params["cri_socket"])
        with open(os.path.join(params["state_dir"], "kubeadm.yaml"), encoding="utf-8") as stream:
            manifests = machine.preview(stream.read(), params["timeout"])["manifests"]
        # before anything is changed: the removal goes by it
        machine.write_record(params["state_dir"], dict(made, runtime=runtime, created=machine.to_be_made(manifests)))
        found.begin(params["address"], runtime)
    return True


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "address": {"type": "str"},
            "cri_socket": {"type": "str", "default": ""},
            "state_dir": {"type": "path", "required": True},
            "run": {"type": "str", "default": ""},
            "record": {"type": "dict"},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "timeout": {"type": "int", "default": 180},
        },
        required_if=[("state", "present", ["address"])],
        supports_check_mode=True,
    )
    start = time.monotonic()
    try:
        changed = apply(module.params, module.check_mode)
    except (Refused, ToolError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=os_error_words(exc))
    module.exit_json(changed=changed, seconds=round(time.monotonic() - start, 1))


if __name__ == "__main__":
    main()
