# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # How an entry of `select` narrows objects down.  Mirrors SPEC in module_utils/_recover/selection.py.
    DOCUMENTATION = r"""
options:
  select:
    type: list
    elements: dict
    suboptions:
      namespace:
        description: Namespace of the objects. Alone, it selects the Namespace and all in it.
        type: str
      kind:
        description: Kind or resource, with its API group or without, such as V(Deployment), V(deployments) or V(deployments.apps).
        type: str
      name:
        description: Name of the objects. Needs O(select[].kind) or O(select[].namespace).
        type: str
      labels:
        description: Labels that the objects have, with their values.
        type: dict
"""
