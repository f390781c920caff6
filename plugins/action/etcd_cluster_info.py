# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module etcd_cluster_info, as Ansible would without this file.  A snapshot begins with it, so the filters are loaded here."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.plugin_utils import loaded_filters  # pylint: disable=unused-import # noqa: F401
from ansible_collections.k8s_dr.etcd.plugins.plugin_utils.without_collection import ModuleAction


class ActionModule(ModuleAction):
    """See above."""
