#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rebuild_source
short_description: Reads what a snapshot says of its cluster, without an API server
version_added: 0.1.0
description:
  - Reads kubeadm's ClusterConfiguration, kubelet's configuration, the nodes and the URLs of the API out of a snapshot. Lists the files that were stored
    with it in a bundle, and what the manifests of the control plane among them set.
  - Reads the whole snapshot, and fails when it is damaged.
  - Used by the role P(k8s_dr.etcd.cluster_rebuild#role), on the host that has the decrypted snapshot.
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
  path:
    description: Path of the decrypted snapshot.
    type: path
    required: true
  files:
    description:
      - Directory of the files that were stored with the snapshot, as M(k8s_dr.etcd.etcd_snapshot_decrypt) extracts them from a bundle. It has C(pki),
        C(manifests), C(kubeadm-config.yaml), C(encryption-configuration.yaml) and C(files).
      - Without it nothing but the snapshot is read.
    type: path
  timeout:
    description: Seconds that the module may take.
    type: int
    default: 3600
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_decrypt
  - module: k8s_dr.etcd.kube_rebuild_machine
"""

EXAMPLES = r"""
- name: Read which cluster a snapshot is of
  k8s_dr.etcd.kube_rebuild_source:
    path: /root/place/etcd-cp1-20260102T030405Z.db
    files: /root/place/etcd-cp1-20260102T030405Z.db.files
  delegate_to: localhost
"""

RETURN = r"""
source:
  description: What is known of the cluster.
  returned: success
  type: dict
  contains:
    revision:
      description: Revision of the snapshot.
      type: int
    size:
      description: Its size in bytes.
      type: int
    sha256:
      description: Its SHA-256.
      type: str
    created:
      description: When it was taken, by its manifest; empty without one.
      type: str
    etcd_version:
      description: Version of the etcd that it was taken of, by its manifest.
      type: str
      sample: 3.7.3
    kubernetes_version:
      description: Version of the API server, by its manifest.
      type: str
      sample: 1.37.2
    names:
      description: Names of nodes and workloads in the snapshot, by its manifest.
      type: dict
    cluster_configuration:
      description: kubeadm's ClusterConfiguration, from the snapshot or else from O(files); empty when there is none that can be read.
      type: str
    kubelet_configuration:
      description: The KubeletConfiguration that kubeadm gives to nodes; empty when there is none that can be read.
      type: str
    servers:
      description: URLs of the API in the ConfigMaps of kube-proxy and C(cluster-info).
      type: list
      elements: str
      sample: ["https://192.0.2.10:6443"]
    nodes:
      description: The nodes, each with V(name), V(control_plane), V(addresses) and V(taints); the last three are empty or V(null) when they cannot be read.
      type: list
      elements: dict
    members:
      description: The members of etcd, each with V(name) and V(peer_urls).
      type: list
      elements: dict
    unreadable:
      description: Objects of these that cannot be read, as those that are encrypted.
      type: list
      elements: str
    files:
      description: Names of all files in O(files).
      type: list
      elements: str
    manifests:
      description: What the manifests of the control plane in O(files) set, by component.
      type: dict
    other_pods:
      description: Names of other static Pods in O(files).
      type: list
      elements: str
    kms:
      description: Whether the EncryptionConfiguration in O(files) has a KMS.
      type: bool
    foreign:
      description: What in O(files) is not of the cluster of the snapshot, by the checksums in its manifest.
      type: list
      elements: str
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import source
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest, ManifestError, manifest_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import os_error_words


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "files": {"type": "path"},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    path, files = os.path.abspath(module.params["path"]), module.params["files"]
    if files and not os.path.isdir(files):
        module.fail_json(msg="%s is not a directory" % files)
    packed = boltdb.packed_file(path)
    if packed:
        module.fail_json(msg=packed)
    try:
        manifest = Manifest.read(path, renamed=True).values if os.path.lexists(manifest_path(path)) else {}
        found = source.read(path, os.path.abspath(files) if files else "", module.tmpdir, time.monotonic() + module.params["timeout"], manifest)
    except (mvcc.Unreadable, mvcc.NoRoom, ManifestError) as exc:
        module.fail_json(msg="%s cannot be read: %s" % (path, exc))
    except boltdb.OutOfTime:
        module.fail_json(msg="%s could not be read in %d s; raise `timeout`" % (path, module.params["timeout"]))
    except OSError as exc:
        module.fail_json(msg=os_error_words(exc, path))
    if manifest and manifest["sha256"] != found["sha256"]:
        module.fail_json(msg="the manifest beside %s describes another file, so the one or the other was replaced" % path)
    module.exit_json(changed=False, source=found)


if __name__ == "__main__":
    main()
