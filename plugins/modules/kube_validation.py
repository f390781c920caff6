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
  - Asks the API server of this very control plane node about its nodes, kube-system and workloads, and waits until all are well.
  - Nodes, controller-manager and scheduler count as alive only when they renew their leases while this module looks, because right after
    a restore everything reads as it was when the snapshot was taken.
  - >-
    A lease that changes meanwhile is renewed, whatever the clock of its node says. Of a controller that elects no leader (C(--leader-elect=false)) none
    tells, which is a warning. Leases that have another name (C(--leader-elect-resource-name)) are read by that name.
  - With O(names) every node, Deployment, DaemonSet and StatefulSet of a snapshot must exist.
  - What was not well in O(baseline) already is a warning and not a failure. O(scope) says what else is.
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
      - Changes nothing but what O(restart_kubelet) asks for, which is done each time.
  platform:
    support: full
options:
  manifests_dir:
    description: Directory that kubelet reads static Pods from. It says where the API server is and which certificates open it.
    type: path
    default: /etc/kubernetes/manifests
  names:
    description: V(inventory.names) of a snapshot's manifest.
    type: dict
  baseline:
    description: RV(validation.observed) of an earlier look at the same cluster.
    type: dict
  scope:
    description:
      - What must be well. The API server must answer and let a Secret be read in any case, and the cluster must have nodes.
      - V(control_plane) demands that controller-manager, scheduler and the kubelets of control plane nodes work, as far as O(baseline) does not show that
        they did not. Worker nodes and workloads that are not well are warnings, because autoscalers, cloud controllers and GitOps change them meanwhile.
      - V(known) demands worker nodes and workloads as well that O(baseline) shows to have been well, unless a workload is another object or has another
        specification now, or may have had Pods on a node that O(baseline) does not show to have been well.
      - V(all) demands everything, except what O(baseline) shows not to have been well.
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
      - Revision of the data that was restored, raised as it was. What was written at a later one was written since, so a lease of a later one was renewed,
        and nothing waits for its next renewal.
      - V(0) goes by the times in the leases alone.
    type: int
    default: 0
  restart_kubelet:
    description:
      - Name of this node. When given, its kubelet is restarted first, and its node counts as alive only when its lease was renewed after that.
      - After a restore kubelet lists again what it knows then, and forgets the back-off (10, 20, 40 s) that would delay the next start of a static Pod.
        The Pods run on.
    type: str
  wait_timeout:
    description: >-
      Seconds to wait until all is well. V(0) looks once and takes a lease that is less than a minute old for alive; where a controller's lease is older,
      it looks again after 4 s, since the clock of another node may be behind.
    type: int
    default: 120
  required:
    description: Whether to fail when something is not well. When V(false), RV(validation.ok) tells.
    type: bool
    default: true
  access_required:
    description:
      - Whether to fail when the API server answers, but lets no client certificate of this node read what is to be checked.
      - When V(false) that is a warning, and RV(validation.permitted) tells. The state of the cluster is then unknown.
    type: bool
    default: true
notes:
  - >-
    Runs as root. Asks with the first client certificate of the node that the API server does not refuse. In this order,
    C(/etc/kubernetes/super-admin.conf),
    C(/etc/kubernetes/admin.conf), the one that kubeadm makes for the API server (C(apiserver-kubelet-client.crt)), and one of C(system:masters) that
    openssl
    makes for one hour where the key of the cluster's CA is on the node; no file of it stays.
  - >-
    Asks only this node's own API server. It is known by the very certificate that its C(--tls-cert-file) or C(--tls-sni-cert-key) names, whoever signed
    that; where it serves another one, by the CA in C(/etc/kubernetes/pki) or in a kubeconfig of the control plane, and its address.
  - >-
    A refusal (401, 403) is taken for final after 15 s, because an API server that has just started also refuses clients that it accepts a moment later.
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
    permitted:
      description: Whether it let a client certificate of this node read what is checked. V(false) as well when it did not answer.
      type: bool
    identity:
      description: The client certificate, or the kubeconfig that holds it, that it let in. Empty when there was none.
      type: str
      sample: /etc/kubernetes/super-admin.conf
    lasting:
      description:
        - The first one of this node that the API server takes for an administrator whatever etcd holds (C(system:masters)). Empty when there is none.
        - What others may do are objects in etcd, which a snapshot may not have.
      type: str
      sample: /etc/kubernetes/super-admin.conf
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
        sentence = "Whether the cluster is well could not be checked: %s" % "; ".join(problems)
        if params["required"] and params["access_required"]:
            module.fail_json(msg=sentence, validation=validation, changed=bool(node))
        module.warn(sentence)
    elif params["required"] and not validation["ok"]:
        module.fail_json(msg="After %d s the cluster is not well: %s" % (validation["seconds"], "; ".join(problems)), validation=validation, changed=bool(node))
    module.exit_json(changed=bool(node), validation=validation)


if __name__ == "__main__":
    main()
