# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  manifests_dir:
    description: Directory that kubelet reads static Pods from, on a host with a control plane.
    type: path
    default: /etc/kubernetes/manifests
"""
