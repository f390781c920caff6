#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_restore_info
short_description: Tells what a restore of etcd would find on a control plane node
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Reads the static Pod manifests of a kubeadm control plane, its etcd data directory and what earlier restores left behind.
  - Fails only when the host is not a control plane. What merely stands in the way of a restore is returned.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
attributes:
  platform:
    support: full
options:
  manifests_dir:
    description: Directory that kubelet reads static Pods from.
    type: path
    default: /etc/kubernetes/manifests
  data_dir:
    description:
      - Data directory to look for unfinished restores in when etcd's manifest is not in O(manifests_dir).
      - While etcd's manifest is there, its C(--data-dir) is what counts.
    type: path
    default: /var/lib/etcd
seealso:
  - module: k8s_dr.etcd.etcd_restore_transaction
"""

EXAMPLES = r"""
- name: Look at the control plane before a restore
  k8s_dr.etcd.etcd_restore_info:
  register: found
"""

RETURN = r"""
restore:
  description: What was found.
  returned: success
  type: dict
  contains:
    host:
      description: Name of the node as it knows itself.
      type: str
      sample: dr-control-plane
    complete:
      description: Whether all four manifests of the control plane are in place. False in the middle of a restore.
      type: bool
    missing:
      description: Components without a manifest.
      type: list
      elements: str
    data_dir:
      description: Data directory of etcd.
      type: str
      sample: /var/lib/etcd
    mount_point:
      description: Whether the data directory is a mount point. Then C(member) inside it is what moves.
      type: bool
    data_bytes:
      description: Bytes that the data directory holds.
      type: int
    free_bytes:
      description: Bytes free in the data directory's file system.
      type: int
    transactions_dir:
      description: Directory that holds this node's restores and old data.
      type: str
      sample: /var/lib/etcd.restore
    transactions:
      description: >-
        Restores that are known on this node, oldest first, each with V(id), V(path), V(state), V(since), V(ended), V(finished), whether it was
        ever committed, and V(about), what an unfinished one was begun with.
      type: list
      elements: dict
    unfinished:
      description: Those that were neither committed nor rolled back.
      type: list
      elements: dict
    etcd:
      description: >-
        V(name), V(peer_urls), V(client_url), V(initial_cluster), V(image) and V(version) of this node's member, from its manifest.
        Empty when the manifest is not in place.
      type: dict
    kubernetes_version:
      description: Version in the image of kube-apiserver. Empty when its manifest is not in place.
      type: str
      sample: 1.20.2
    api_address:
      description: Address that the node's API server advertises. Empty when its manifest is not in place.
      type: str
      sample: 10.0.0.11
    api_url:
      description: Where others than the node reach its API server. Empty when its manifest is not in place, or does not say.
      type: str
      sample: https://10.0.0.11:6443
    kubelet_running:
      description: Whether a kubelet runs. Without it nothing stops or starts a static Pod.
      type: bool
    kubelet_backs_off:
      description: Whether kubelet may delay the next start of the control plane, because it had to start a part of it again lately.
      type: bool
    fingerprints:
      description: SHA-256 of what a snapshot of this cluster must have in common with it, as in a snapshot's manifest.
      type: dict
"""

import os
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._fingerprints import fingerprints
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import url_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._procs import kubelet_backs_off, kubelet_is_running
from ansible_collections.k8s_dr.etcd.plugins.module_utils._static_pod import COMPONENTS, read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._transaction import (
    list_transactions,
    live_path,
    transactions_directory,
    tree_bytes,
)


def look(manifests_dir, data_dir):
    pods = read_static_pods(manifests_dir)
    etcd = {}
    if "etcd" in pods:
        flags = pods["etcd"].flags
        data_dir = flags.get("data-dir", data_dir)
        etcd = {
            "name": flags.get("name", ""),
            "peer_urls": flags.get("initial-advertise-peer-urls", ""),
            "client_url": flags.get("advertise-client-urls", "").split(",")[0],
            "initial_cluster": flags.get("initial-cluster", ""),
            "image": pods["etcd"].image,
            "version": pods["etcd"].image_version,
        }
    address, api_url = "", ""
    if "kube-apiserver" in pods:
        flags = pods["kube-apiserver"].flags
        address = flags.get("advertise-address", "")
        api_url = url_of(address, int(flags.get("secure-port") or 6443)) if address else ""
    transactions = list_transactions(data_dir)
    missing = [component for component in COMPONENTS if component not in pods]
    parent = data_dir if os.path.isdir(data_dir) else os.path.dirname(data_dir)
    space = os.statvfs(parent)
    return {
        "host": socket.gethostname(),
        "complete": not missing,
        "missing": missing,
        "data_dir": os.path.realpath(data_dir),
        "mount_point": live_path(data_dir) != os.path.realpath(data_dir),
        "data_bytes": tree_bytes(data_dir),
        "free_bytes": space.f_bavail * space.f_frsize,
        "transactions_dir": transactions_directory(data_dir),
        "transactions": transactions,
        "unfinished": [transaction for transaction in transactions if not transaction["ended"]],
        "etcd": etcd,
        "kubernetes_version": pods["kube-apiserver"].image_version if "kube-apiserver" in pods else "",
        "api_address": address,
        "api_url": api_url,
        "kubelet_running": kubelet_is_running(),
        "kubelet_backs_off": kubelet_backs_off(COMPONENTS),
        "fingerprints": fingerprints(manifests_dir),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "data_dir": {"type": "path", "default": "/var/lib/etcd"},
        },
        supports_check_mode=True,
    )
    manifests_dir = module.params["manifests_dir"]
    if not os.path.isdir(manifests_dir):
        module.fail_json(msg="%s does not exist: this host is no kubeadm control plane node" % manifests_dir)
    try:
        restore = look(manifests_dir, module.params["data_dir"])
    except (OSError, ValueError) as exc:
        module.fail_json(msg="The control plane of this host cannot be read: %s" % exc)
    module.exit_json(changed=False, restore=restore)


if __name__ == "__main__":
    main()
