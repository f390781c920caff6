# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # How to reach one etcd member.  Mirrors CONNECTION_SPEC in module_utils/_etcd/client.py.
    DOCUMENTATION = r"""
options:
  endpoint:
    description:
      - URL of the etcd member to talk to. Write an IPv6 address in brackets.
      - When it is the default and no process listens there, C(https://[::1]:2379) is used, where kubeadm has etcd listen on a node set up for IPv6.
    type: str
    default: https://127.0.0.1:2379
  cacert:
    description: CA that signed the server certificate of etcd.
    type: path
    default: /etc/kubernetes/pki/etcd/ca.crt
  cert:
    description: Client certificate that etcd accepts.
    type: path
    default: /etc/kubernetes/pki/etcd/server.crt
  key:
    description: Path of the private key of O(cert). Only the path appears in the command line and in logs.
    type: path
    default: /etc/kubernetes/pki/etcd/server.key
  etcdctl:
    description:
      - Path of C(etcdctl). By default the module searches C(PATH) and the usual directories.
      - It may be a directory, which is then searched first.
    type: path
  etcdutl:
    description: Path of C(etcdutl), which etcd has from 3.5 on. Found like O(etcdctl).
    type: path
  timeout:
    description: Seconds that one request to etcd may take.
    type: int
    default: 10
"""
