#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rebuild_objects
short_description: Changes the objects of a rebuilt cluster that are about machines
version_added: 0.1.0
description:
  - Waits until the API server of this control plane node is ready.
  - Has the ConfigMaps of kube-proxy and C(cluster-info) name the URL where the API is now, and restarts the Pods of kube-proxy that started before.
  - Deletes the Node objects of machines that are gone, and their Pods. Their leases go with them.
  - Deletes leases of controllers that were not renewed since the snapshot, so that the new controllers need not wait until they expire.
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
    support: full
options:
  server:
    description: URL of the API. Without it the ConfigMaps stay as they are.
    type: str
  node:
    description: Name of this node, which is never deleted.
    type: str
    required: true
  remove_nodes:
    description: Names of the Nodes to delete.
    type: list
    elements: str
    default: []
  since_revision:
    description: Revision of the snapshot. Leases of controllers with a later one were renewed since.
    type: int
    default: 0
  isolated:
    description: Ask only from within the network that M(k8s_dr.etcd.kube_rebuild_isolation) made, and fail when there is none.
    type: bool
    default: false
  manifests_dir:
    description: Directory that kubelet reads static Pods from.
    type: path
    default: /etc/kubernetes/manifests
  timeout:
    description: Seconds to wait until the API server is ready.
    type: int
    default: 300
notes:
  - Runs as root, with the first client certificate of the node that the API server accepts.
seealso:
  - module: k8s_dr.etcd.kube_validation
"""

EXAMPLES = r"""
- name: Remove the machines from before
  k8s_dr.etcd.kube_rebuild_objects:
    node: cp1
    remove_nodes: [cp2, cp3]
"""

RETURN = r"""
objects:
  description: What was changed, or would be in check mode.
  returned: success
  type: dict
  contains:
    moved:
      description: Paths of the ConfigMaps that named another URL of the API.
      type: list
      elements: str
    restarted:
      description: Pods of kube-proxy that were deleted, so that new ones start.
      type: list
      elements: str
    removed:
      description: Nodes that were deleted.
      type: list
      elements: str
    pods:
      description: Number of Pods of these nodes that were deleted.
      type: int
    released:
      description: Leases of controllers that were deleted.
      type: list
      elements: str
    ready:
      description: Seconds until the API server was ready.
      type: float
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.session import session_of_node
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import isolation, objects
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused


def change(params, manifests, check_mode):
    start = time.monotonic()
    if params["isolated"]:
        isolation.enter()
    api = KubeApi(manifests["kube-apiserver"])
    objects.wait_until_ready(api, params["timeout"])
    ready = round(time.monotonic() - start, 1)
    released = [] if check_mode else objects.release(api, manifests, params["since_revision"])
    moved, restarted = [], []
    with session_of_node(manifests["kube-apiserver"]) as session:
        if params["server"]:
            moved = objects.follow(session, params["server"], check_mode)
            restarted = objects.restart_proxies(session, check_mode)
        removed = objects.remove_nodes(session, params["remove_nodes"], params["node"], check_mode)
        pods = objects.remove_pods(session, params["remove_nodes"], params["node"], check_mode)
    return {"pods": pods, "moved": moved, "restarted": restarted, "removed": removed, "released": released, "ready": ready}


def main():
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "str"},
            "node": {"type": "str", "required": True},
            "remove_nodes": {"type": "list", "elements": "str", "default": []},
            "since_revision": {"type": "int", "default": 0},
            "isolated": {"type": "bool", "default": False},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        manifests = read_static_pods(module.params["manifests_dir"])
        if "kube-apiserver" not in manifests:
            module.fail_json(msg="there is no manifest of kube-apiserver in %s" % module.params["manifests_dir"])
        found = change(module.params, manifests, module.check_mode)
    except (KubeError, Refused, ValueError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=any(found[name] for name in ("moved", "restarted", "removed", "pods", "released")), objects=found)


if __name__ == "__main__":
    main()
