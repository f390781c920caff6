# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  signers:
    description:
      - Public keys of those who sign snapshots. With any, only a snapshot that one of them signed is accepted, and under the name that was signed.
      - Each is a line as C(ssh-keygen) has it under ALLOWED SIGNERS, V(CLUSTER [OPTIONS] KEYTYPE KEY), where V(CLUSTER) is the SHA-256 of the file with
        the cluster's etcd CA. The options C(valid-after) and C(valid-before), in UTC, are compared with the time at which the snapshot was taken, and
        need OpenSSH 8.7 or later.
      - They are checked with C(ssh-keygen) of OpenSSH 8.2 or later, which then has to be on this host. None means that no signature is asked for.
    type: list
    elements: str
    default: []
"""
