# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # The programs that restore a snapshot and serve it away from the cluster.
    DOCUMENTATION = r"""
options:
  etcd:
    description:
      - Path of the etcd server program that serves the restored data. Its version must be that of the etcd that was snapshotted, or later.
      - >-
        When not given it is that of the etcd that runs on this host, else the one in the image that etcd's manifest in O(manifests_dir) names, where
        the container runtime has it unpacked, else one beside O(etcdctl) or in C(PATH).
    type: path
  etcdctl:
    description: Path of C(etcdctl). By default the module searches C(PATH) and the usual directories.
    type: path
  etcdutl:
    description: Path of C(etcdutl), which etcd has from 3.5 on. By default the module searches for it.
    type: path
"""
