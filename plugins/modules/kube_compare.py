#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_compare
short_description: Compares selected objects of a snapshot with the live ones, field by field
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Reads the selected objects from an API server that serves a snapshot, and from the live API server of this control plane node. Returns what a restore
    of all data would do to them.
  - M(k8s_dr.etcd.etcd_restore_plan) compares all keys in etcd, and says which objects a restore modifies. This module says which of their fields.
  - Fields that the API server or a controller sets, such as C(resourceVersion) and C(managedFields), are not compared. They are those that
    M(k8s_dr.etcd.kube_recover) removes from an object.
  - Objects that something in the cluster makes, such as Pods of a ReplicaSet, are counted and not compared, unless an entry of O(select) names their
    kind. The same is true of kinds that M(k8s_dr.etcd.kube_recover) never recovers, such as Lease and Node, which are not counted either.
  - Objects of API groups that an extension API server serves are not compared. They are not in etcd.
  - If the comparison is not possible, or takes too long, RV(changes.reason) says why, and the module does not fail.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
  - k8s_dr.etcd.selection
attributes:
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
  platform:
    support: full
options:
  kubeconfig:
    description: Kubeconfig on this host for an API server that serves the snapshot. It needs a client certificate.
    type: path
    required: true
  select:
    description:
      - Which objects to compare, as in M(k8s_dr.etcd.kube_recover). An object is selected if one entry selects it, in the snapshot or in the live cluster.
    required: true
  snapshot:
    description: SHA-256 of the snapshot, with the kubeconfig of M(k8s_dr.etcd.kube_snapshot_server). Nothing is compared when another one is served.
    type: str
    default: ""
  status:
    description: Whether to compare C(status) as well where it is a subresource. Controllers write it, so it differs often.
    type: bool
    default: false
  timeout:
    description: Seconds that the comparison may take. After that the module returns what it has.
    type: int
    default: 300
  manifests_dir:
    description: Directory that kubelet reads static Pods from. That of kube-apiserver says where the live API server is.
    type: path
    default: /etc/kubernetes/manifests
notes:
  - >-
    Runs as root on a control plane node, with the first client certificate of the node that the API server accepts, as M(k8s_dr.etcd.kube_validation) does.
seealso:
  - module: k8s_dr.etcd.etcd_restore_plan
  - module: k8s_dr.etcd.kube_recover
  - module: k8s_dr.etcd.kube_snapshot_server
"""

EXAMPLES = r"""
- name: Compare a namespace with the snapshot that is served
  k8s_dr.etcd.kube_compare:
    kubeconfig: /run/k8s-dr-browse/kubeconfig
    select:
      - namespace: shop
  register: compared

- name: Show the differences
  ansible.builtin.debug:
    var: compared.changes.lines
"""

RETURN = r"""
changes:
  description: The result. Objects are written as C(ConfigMap shop/prices). Values of Secrets are never returned.
  returned: success
  type: dict
  contains:
    compared:
      description: Whether all that is selected was compared. What cannot be read is in RV(changes.unreadable).
      type: bool
    reason:
      description: Why it was not, one sentence; or V(null). The rest of the result is what was found until then.
      type: str
      sample: it was not finished within 300 s
    recreated:
      description: Objects that are only in the snapshot; a restore re-creates them.
      type: dict
      contains: &part
        count:
          description: How many.
          type: int
          sample: 1
        objects:
          description: The first 200 of them.
          type: list
          elements: str
          sample: [ConfigMap shop/prices]
    deleted:
      description: Objects that are only live; a restore deletes them.
      type: dict
      contains: *part
    modified:
      description: Objects that differ; a restore modifies them.
      type: dict
      contains:
        count:
          description: How many.
          type: int
          sample: 1
        objects:
          description: >-
            The first 200 of them, each with V(object) and V(differences). Each of the first ten fields is one sentence with its path and the beginning of
            the live value and of that in the snapshot. Of a Secret it is the path alone.
          type: list
          elements: dict
          sample: [{object: ConfigMap shop/prices, differences: ['data.apple: "2", in the snapshot "1"']}]
    same:
      description: How many objects are the same in the snapshot and live.
      type: int
      sample: 40
    made:
      description: Objects that something in the cluster makes, by V(kind) and V(reason), with their V(count).
      type: list
      elements: dict
      sample: [{kind: Pod, reason: is made by its ReplicaSet, count: 3}]
    unreadable:
      description: What cannot be compared, each with V(object) and V(reason), such as Secrets whose key the EncryptionConfiguration lacks.
      type: list
      elements: dict
      sample: []
    warnings:
      description: What to know besides.
      type: list
      elements: str
      sample: []
    lines:
      description: The result as text, one line each. Each part takes about 50.
      type: list
      elements: str
    seconds:
      description: Duration in seconds.
      type: float
      sample: 1.2
"""

import contextlib
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.served import in_use
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.session import session_of_kubeconfig, session_of_manifests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.changes import Changes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import change_lines
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import SPEC, parse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.signals import Ended, OutOfTime, limited, raise_when_ended


def compare(params):
    """RV(changes)."""
    began = time.monotonic()
    changes, reason = Changes(params["status"]), None
    try:
        entries = parse(params["select"])
        with contextlib.ExitStack() as stack:
            stack.enter_context(limited(params["timeout"]))
            stack.enter_context(in_use(params["kubeconfig"], params["snapshot"]))
            snapshot = stack.enter_context(session_of_kubeconfig(params["kubeconfig"]))
            changes.find(snapshot, stack.enter_context(session_of_manifests(params["manifests_dir"])), entries)
    except (Refused, KubeError, OutOfTime) as exc:
        reason = str(exc)
    except OSError as exc:
        reason = os_error_words(exc)
    found = changes.described()
    return dict(found, compared=reason is None, reason=reason, lines=change_lines(found), seconds=round(time.monotonic() - began, 1))


def main():
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "select": dict(SPEC, required=True),
            "snapshot": {"type": "str", "default": ""},
            "status": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
        },
        supports_check_mode=True,
    )
    if module.params["timeout"] < 1:
        module.fail_json(msg="`timeout` must be at least 1")
    raise_when_ended()
    # The live API server comes first.
    os.nice(10)
    try:
        changes = compare(module.params)
    except Ended as exc:
        module.fail_json(msg="nothing was compared: %s" % exc)
    module.exit_json(changed=False, changes=changes)


if __name__ == "__main__":
    main()
