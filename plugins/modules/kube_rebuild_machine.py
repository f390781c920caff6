#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rebuild_machine
short_description: Returns whether a cluster can be rebuilt on a machine
version_added: 0.1.0
description:
  - Looks for kubeadm, kubelet, addresses, what is left of a cluster, and the record of an unfinished rebuild.
  - With O(configuration) it asks kubeadm which manifests it would write, and what its preflight checks find.
  - Used by the role P(k8s_dr.etcd.cluster_rebuild#role).
author:
  - The k8s_dr founders (@k8s-dr)
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
  configuration:
    description: The configuration for kubeadm, as YAML. kubeadm writes the manifests into a temporary directory, which is removed.
    type: str
  ignore_preflight_errors:
    description: Names of kubeadm's preflight checks whose errors are ignored.
    type: list
    elements: str
    default: []
  address:
    description: An address that the machine should have.
    type: str
  endpoint:
    description: A name or an address, with a port or without, that the machine should find.
    type: str
  drill:
    description: Whether the machine is for a drill. Then everything that C(kubeadm reset) would remove counts as what is left of a cluster.
    type: bool
    default: false
  cri_socket:
    description: With O(drill), C(criSocket) in the configuration for kubeadm, where it names one.
    type: str
    default: ""
  paths:
    description: Files to look for.
    type: list
    elements: str
    default: []
  manifests_dir:
    description: Directory that kubelet reads static Pods from.
    type: path
    default: /etc/kubernetes/manifests
  pki_dir:
    description: Directory of the certificates and keys of the cluster.
    type: path
    default: /etc/kubernetes/pki
  data_dir:
    description: Directory of etcd's data.
    type: path
    default: /var/lib/etcd
  state_dir:
    description: Directory of the record of an unfinished rebuild.
    type: path
    required: true
  timeout:
    description: Seconds that each program may take.
    type: int
    default: 60
notes:
  - Runs as root.
"""

EXAMPLES = r"""
- name: Look at the machine
  k8s_dr.etcd.kube_rebuild_machine:
    state_dir: /var/lib/k8s-dr-rebuild
  register: seen
"""

RETURN = r"""
machine:
  description: What is known of the machine.
  returned: success
  type: dict
  contains:
    hostname:
      description: Its name, as kubelet would call the node.
      type: str
      sample: cp1
    address:
      description: The address of its default route; empty without one.
      type: str
      sample: 192.0.2.11
    programs:
      description: Paths of C(kubeadm) and C(kubelet), each empty where there is no such program.
      type: dict
      sample: {kubeadm: /usr/bin/kubeadm, kubelet: /usr/bin/kubelet}
    versions:
      description: Versions of C(kubeadm) and C(kubelet), each empty where there is no such program.
      type: dict
      sample: {kubeadm: v1.37.2, kubelet: v1.37.2}
    remains:
      description: What is left of a cluster on the machine, as sentences.
      type: list
      elements: str
      sample: [/etc/kubernetes/admin.conf exists]
    busy:
      description: What kubeadm does to the machine now, as sentences.
      type: list
      elements: str
      sample: ["kubeadm init runs (process 4711, for 3 s)"]
    state:
      description: The record of an unfinished rebuild; empty without one.
      type: dict
    has_address:
      description: Whether O(address) is one of the machine's.
      type: bool
      returned: with O(address)
    endpoint_addresses:
      description: What O(endpoint) stands for on the machine.
      type: list
      elements: str
    existing:
      description: Those of O(paths) that exist.
      type: list
      elements: str
    manifests:
      description: Image, version, flags and volumes of the manifests that kubeadm would write, by component.
      type: dict
      returned: with O(configuration)
    preflight:
      description: Errors of kubeadm's preflight checks. Empty where a rebuild is unfinished, which they would find.
      type: list
      elements: str
      returned: with O(configuration)
      sample: ["Swap: swap is enabled"]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import kubeadm
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import machine
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.isolation import Isolation
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.plan import host_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def look(params):
    programs, versions = machine.programs(params["timeout"])
    found = {
        "programs": programs,
        "versions": versions,
        "hostname": machine.hostname(),
        "address": machine.default_address(),
        "remains": machine.remains(os.path.dirname(params["manifests_dir"]), params["manifests_dir"], params["pki_dir"], params["data_dir"]),
        "busy": ["%s runs (process %d, for %d s)" % (one["command"], one["pid"], one["seconds"]) for one in kubeadm.running()],
        "state": machine.record(params["state_dir"]),
        "existing": [path for path in params["paths"] if os.path.exists(path)],
        "endpoint_addresses": machine.addresses_of(host_of(params["endpoint"])) if params["endpoint"] else [],
    }
    if params["drill"] and not found["state"]:
        found["remains"] += machine.occupied(params["manifests_dir"])
        containers = Isolation(params["timeout"]).containers(params["cri_socket"])
        if containers:
            found["remains"].append("the container runtime has containers of Kubernetes: %s" % ", ".join(containers[:3]))
    if params["address"]:
        found["has_address"] = machine.has_address(params["address"])
    if params["configuration"]:
        # where a rebuild has begun, or a cluster is, they would find just that
        checked = not found["state"] and not found["remains"]
        found.update(machine.preview(params["configuration"], params["timeout"], params["ignore_preflight_errors"] if checked else None))
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "configuration": {"type": "str"},
            "ignore_preflight_errors": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str"},
            "endpoint": {"type": "str"},
            "drill": {"type": "bool", "default": False},
            "cri_socket": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "str", "default": []},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "pki_dir": {"type": "path", "default": "/etc/kubernetes/pki"},
            "data_dir": {"type": "path", "default": "/var/lib/etcd"},
            "state_dir": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        found = look(module.params)
    except (Refused, ToolError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=os_error_words(exc))
    module.exit_json(changed=False, machine=found)


if __name__ == "__main__":
    main()
