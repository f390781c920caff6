#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_validation
short_description: Waits until a cluster works in three layers, or says what does not
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Asks the API server of this very control plane node about its nodes, kube-system and workloads, and waits until all are well.
  - Nodes, controller-manager and scheduler count as alive only when they renew their leases while this module looks, because right after
    a restore everything reads as it was when the snapshot was taken.
  - >-
    A lease that changes meanwhile is renewed, whatever the clock of its node says. Of a controller that elects no leader (C(--leader-elect=false)) none
    tells, which is a warning.
  - With O(names) every node, Deployment, DaemonSet and StatefulSet of a snapshot must exist.
  - What was not well in O(baseline) already is a warning and not a failure. So is, unless O(strict), a node that O(baseline) does not have among its
    nodes, since it is gone; and a workload that may have had Pods there.
  - Reads one Secret to prove that it can be decrypted. It is not returned.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
attributes:
  platform:
    support: full
options:
  manifests_dir:
    description: Directory that kubelet reads static Pods from. It says where the API server is and which certificates open it.
    type: path
    default: /etc/kubernetes/manifests
  names:
    description: V(census.names) of a snapshot's manifest.
    type: dict
  baseline:
    description: RV(validation.observed) of an earlier look at the same cluster.
    type: dict
  strict:
    description:
      - Whether a worker node or a workload that is not well, and that no O(baseline) shows to have been well, is a failure.
      - V(false) suits a cluster whose API was down before, so that nobody knows. Its control plane must be well in any case.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait until all is well. V(0) looks once and takes a lease that is less than a minute old for alive.
    type: int
    default: 120
  required:
    description: Whether to fail when something is not well. When V(false), RV(validation.ok) tells.
    type: bool
    default: true
notes:
  - Runs as root, with the client certificate that kubeadm makes for the API server.
"""

EXAMPLES = r"""
- name: Remember how the cluster is before it is touched
  k8s_dr.etcd.kube_validation:
    wait_timeout: 0
    required: false
  register: before

- name: Wait until the cluster works again
  k8s_dr.etcd.kube_validation:
    baseline: "{{ before.validation.observed }}"
"""

RETURN = r"""
validation:
  description: What was seen last.
  returned: always
  type: dict
  contains:
    ok:
      description: Whether there are no problems.
      type: bool
    reachable:
      description: Whether the API server answered.
      type: bool
    layers:
      description: V(problems) and V(warnings), as sentences, of V(nodes), V(system) and V(workloads).
      type: dict
    observed:
      description: Nodes, leases and workloads as seen, for a later O(baseline). V(null) when the API server did not answer.
      type: dict
    seconds:
      description: How long it took until all was well.
      type: float
"""

import contextlib
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import KubeApi, KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._static_pod import read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._validation import CONTROLLERS, LAYERS, judge, observe

_FRESH = 60


def elects(pod):
    """Whether this controller elects a leader, and so has a lease that it renews: a flag, or its configuration file, can turn that off."""
    # as Go reads it
    if pod.flags.get("leader-elect", "true").lower() in ("false", "f", "0"):
        return False
    with contextlib.suppress(OSError), open(pod.flags.get("config", ""), encoding="utf-8", errors="replace") as stream:
        return not re.search(r"^\s+leaderElect:\s*false\b", stream.read(), re.MULTILINE)
    return True


def look(api, since, params, first, silent):
    """One look: the validation as returned."""
    try:
        observed = observe(api)
    except KubeError as exc:
        layers = {layer: {"problems": [], "warnings": []} for layer in LAYERS}
        layers["system"]["problems"].append(str(exc))
        return {"ok": False, "reachable": bool(exc.status), "layers": layers, "observed": None}
    layers = judge(observed, since, params["names"], params["baseline"], params["strict"], first, silent)
    return {"ok": not any(layers[layer]["problems"] for layer in LAYERS), "reachable": True, "layers": layers, "observed": observed}


def main():
    module = AnsibleModule(
        argument_spec={
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "names": {"type": "dict"},
            "baseline": {"type": "dict"},
            "strict": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 120},
            "required": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        pods = read_static_pods(params["manifests_dir"])
    except (OSError, ValueError) as exc:
        module.fail_json(msg="The static Pods of this host cannot be read: %s" % exc)
    if "kube-apiserver" not in pods:
        validation = {"ok": False, "reachable": False, "layers": {}, "observed": None, "seconds": 0.0}
        if params["required"]:
            module.fail_json(msg="There is no manifest of kube-apiserver in %s" % params["manifests_dir"], validation=validation)
        module.exit_json(changed=False, validation=validation)

    start, began = time.monotonic(), int(time.time())
    since = began - _FRESH if params["wait_timeout"] == 0 else began
    silent = [name for name, pod in pods.items() if name in CONTROLLERS and not elects(pod)]
    first = None
    try:
        api = KubeApi(pods["kube-apiserver"])
        while True:
            validation = look(api, since, params, first, silent)
            first = first or validation["observed"]
            if validation["ok"] or time.monotonic() - start >= params["wait_timeout"]:
                break
            time.sleep(1)
    except KubeError as exc:
        module.fail_json(msg=str(exc))
    validation["seconds"] = round(time.monotonic() - start, 1)
    if params["required"] and not validation["ok"]:
        problems = [sentence for layer in LAYERS for sentence in validation["layers"][layer]["problems"]]
        module.fail_json(msg="After %d s the cluster is not well: %s" % (validation["seconds"], "; ".join(problems)), validation=validation)
    module.exit_json(changed=False, validation=validation)


if __name__ == "__main__":
    main()
