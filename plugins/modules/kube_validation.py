#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_validation
short_description: Waits until nodes, kube-system and workloads work, or reports what does not
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Asks the API server of this control plane node about nodes, kube-system and workloads, and waits until all are healthy.
  - Nodes, controller-manager and scheduler count as alive only when they renew their leases while this module looks, because right after a restore every
    status is the one from the time of the snapshot.
  - >-
    A lease that changes meanwhile counts as renewed, whatever time its node writes into it. A controller without leader election (C(--leader-elect=false))
    has no lease, which is a warning. Leases with another name (C(--leader-elect-resource-name)) are found by it.
  - With O(names) every node, Deployment, DaemonSet and StatefulSet of a snapshot must exist.
  - What was unhealthy in O(baseline) already is a warning and not a failure. O(scope) says what else is only a warning.
  - The module also waits for problems outside O(scope), for up to 60 s after everything else works. Then each is a warning.
  - Reads one Secret to prove that it can be decrypted. It is not returned.
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - Changes nothing, except that O(restart_kubelet) restarts kubelet each time.
  platform:
    support: full
options:
  manifests_dir:
    description: Directory that kubelet reads static Pods from. Their manifests say where the API server is and which certificates it accepts.
    type: path
    default: /etc/kubernetes/manifests
  names:
    description: V(inventory.names) of a snapshot's manifest.
    type: dict
  baseline:
    description: RV(validation.observed) of an earlier run on the same cluster.
    type: dict
  scope:
    description:
      - What must be healthy. In any case the API server must answer, it must return a Secret, and the cluster must have nodes.
      - V(control_plane) requires controller-manager, scheduler and the kubelets of control plane nodes, except those that O(baseline) shows as unhealthy.
        Unhealthy worker nodes and workloads are warnings, because autoscalers, cloud controllers and GitOps change them meanwhile.
      - V(known) also requires the worker nodes and workloads that O(baseline) shows as healthy. Excepted are workloads that were replaced or changed since,
        and those that may have had Pods on a node that O(baseline) does not show as healthy.
      - V(all) requires everything, except what O(baseline) shows as unhealthy.
    type: str
    choices: [control_plane, known, all]
    default: all
  settle_time:
    description:
      - Seconds from the beginning for which the status of workloads is ignored.
      - After a restore the API server returns the status from the time of the snapshot, until kubelets and controllers have corrected it.
    type: int
    default: 0
  since_revision:
    description:
      - Revision of the restored data, after it was raised. A lease with a later revision was renewed since the restore, so the module does not wait for its
        next renewal.
      - V(0) uses only the times in the leases.
    type: int
    default: 0
  restart_kubelet:
    description:
      - Name of this node. When given, the module first restarts its kubelet. The node then counts as alive only when its lease was renewed after that.
      - After a restore this makes kubelet list all objects again, and forget the back-off (10, 20, 40 s) that would delay the next start of a static Pod.
        The Pods continue to run.
    type: str
  wait_timeout:
    description: >-
      Seconds to wait until everything is healthy. V(0) checks once, and counts a lease that is less than a minute old as renewed. If a controller's lease
      is older, it checks again after 4 s, since the clock of another node may be behind.
    type: int
    default: 120
  required:
    description: Whether to fail when something is unhealthy. When V(false), RV(validation.ok) is V(false) instead.
    type: bool
    default: true
  access_required:
    description:
      - Whether to fail when the API server answers, but lets no client certificate of this node read what is validated.
      - When V(false), that is a warning, RV(validation.permitted) is V(false), and the state of the cluster is unknown.
    type: bool
    default: true
notes:
  - >-
    Runs as root, with the first client certificate of the node that the API server accepts. The order is C(/etc/kubernetes/super-admin.conf),
    C(/etc/kubernetes/admin.conf), the one that kubeadm makes for the API server (C(apiserver-kubelet-client.crt)), and one of C(system:masters) that
    openssl makes for one hour where the key of the cluster's CA is on the node; no file of it stays.
  - >-
    Asks only this node's own API server, and identifies it by the certificate in its C(--tls-cert-file) or C(--tls-sni-cert-key), whichever CA signed it.
    If it serves another certificate, its address and the CA in C(/etc/kubernetes/pki) or in a kubeconfig of the control plane identify it.
  - >-
    A refusal (401, 403) counts as final after 15 s, because an API server that has just started also refuses clients that it accepts a moment later.
"""

EXAMPLES = r"""
- name: Record the state of the cluster before a change
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
  description: Result of the last check.
  returned: always
  type: dict
  contains:
    ok:
      description: Whether there are no problems.
      type: bool
    reachable:
      description: Whether the API server answered.
      type: bool
    permitted:
      description: Whether it let a client certificate of this node read what is validated. V(false) if it did not answer.
      type: bool
    identity:
      description: The client certificate that it accepted, or the kubeconfig that holds it. Empty if it accepted none.
      type: str
      sample: /etc/kubernetes/super-admin.conf
    lasting:
      description:
        - The first client certificate of this node with C(system:masters), whose rights do not depend on objects in etcd. Empty when there is none.
        - The rights of other certificates are objects in etcd, which a snapshot may lack.
      type: str
      sample: /etc/kubernetes/super-admin.conf
    layers:
      description: V(problems) and V(warnings), as sentences, of V(nodes), V(system) and V(workloads).
      type: dict
    observed:
      description: Nodes, leases and workloads as seen, for a later O(baseline). V(null) when the API server did not answer.
      type: dict
    seconds:
      description: Seconds until everything was healthy.
      type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.health import LAYERS, SCOPES
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.kubelet import restart
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.validation import controller_leases, unseen, wait
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def main():
    module = AnsibleModule(
        argument_spec={
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "names": {"type": "dict"},
            "baseline": {"type": "dict"},
            "scope": {"type": "str", "choices": list(SCOPES), "default": "all"},
            "settle_time": {"type": "int", "default": 0},
            "since_revision": {"type": "int", "default": 0},
            "restart_kubelet": {"type": "str"},
            "wait_timeout": {"type": "int", "default": 120},
            "required": {"type": "bool", "default": True},
            "access_required": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        pods = read_static_pods(params["manifests_dir"])
    except (OSError, ValueError) as exc:
        module.fail_json(msg="The static Pods of this host cannot be read: %s" % exc)
    if "kube-apiserver" not in pods:
        validation = dict(unseen(), layers={})
        if params["required"]:
            module.fail_json(msg="There is no manifest of kube-apiserver in %s" % params["manifests_dir"], validation=validation)
        module.exit_json(changed=False, validation=validation)

    node, restarted = params["restart_kubelet"], None
    try:
        if node and not module.check_mode:
            restarted = {node: restart()}
        validation = wait(KubeApi(pods["kube-apiserver"]), params, controller_leases(pods), restarted)
    except (KubeError, ToolError) as exc:
        module.fail_json(msg=str(exc), changed=bool(restarted))
    problems = [sentence for layer in LAYERS for sentence in validation["layers"][layer]["problems"]]
    if validation["reachable"] and not validation["permitted"]:
        sentence = "Whether the cluster is healthy could not be checked: %s" % "; ".join(problems)
        if params["required"] and params["access_required"]:
            module.fail_json(msg=sentence, validation=validation, changed=bool(node))
        module.warn(sentence)
    elif params["required"] and not validation["ok"]:
        module.fail_json(msg="Unhealthy cluster after %d s: %s" % (validation["seconds"], "; ".join(problems)), validation=validation, changed=bool(node))
    module.exit_json(changed=bool(node), validation=validation)


if __name__ == "__main__":
    main()
