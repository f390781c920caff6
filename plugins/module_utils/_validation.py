# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a cluster really works: nodes, kube-system, workloads.  Private to this collection.

What an API server says of Nodes and Pods right after a restore is what etcd held when the snapshot was taken, Ready
included.  So liveness is read off the leases, which kubelets, controller-manager and scheduler renew every few seconds.
"""

from __future__ import annotations

import calendar
import time

LAYERS = ("nodes", "system", "workloads")

# resource: path, fields of (wanted, ready)
_WORKLOADS = {
    "deployments": ("/apis/apps/v1/deployments", lambda o: (o["spec"].get("replicas", 1), o.get("status", {}).get("readyReplicas", 0))),
    "daemonsets": (
        "/apis/apps/v1/daemonsets",
        lambda o: (o.get("status", {}).get("desiredNumberScheduled", 0), o.get("status", {}).get("numberReady", 0)),
    ),
    "statefulsets": ("/apis/apps/v1/statefulsets", lambda o: (o["spec"].get("replicas", 1), o.get("status", {}).get("readyReplicas", 0))),
}
_SYSTEM = "kube-system"
# the label that kubeadm sets, and the one it set up to 1.23
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


def seconds(timestamp):
    """Unix time of '2026-11-22T17:05:01.123456Z'; 0 for none."""
    if not timestamp:
        return 0
    return calendar.timegm(time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S"))


def observe(api):
    """What the API server says now, small enough to keep: {nodes: {name: {ready, renewed}}, leases: {...}, workloads: {...}, secret}."""
    node_leases = {
        item["metadata"]["name"]: seconds(item["spec"].get("renewTime"))
        for item in api.items("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    }
    nodes = {}
    for node in api.items("/api/v1/nodes"):
        name = node["metadata"]["name"]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
        control_plane = any(label in node["metadata"].get("labels", {}) for label in _CONTROL_PLANE)
        nodes[name] = {"ready": ready, "renewed": node_leases.get(name, 0), "control_plane": control_plane}
    leases = {}
    for item in api.items("/apis/coordination.k8s.io/v1/namespaces/%s/leases" % _SYSTEM):
        if item["metadata"]["name"] in CONTROLLERS:
            leases[item["metadata"]["name"]] = seconds(item["spec"].get("renewTime"))
    workloads = {}
    for resource, (path, counts) in sorted(_WORKLOADS.items()):
        for item in api.items(path):
            wanted, ready = counts(item)
            workloads["%s %s/%s" % (resource, item["metadata"]["namespace"], item["metadata"]["name"])] = {"wanted": wanted, "ready": ready}
    # Decrypting one is the point; what it says is dropped here.
    secrets = api.get("/api/v1/secrets?limit=1").get("items") or []
    return {"nodes": nodes, "leases": leases, "workloads": workloads, "secret_read": bool(secrets)}


def judge(observed, since, names=None, baseline=None, strict=True, first=None, silent=()):
    """{layer: {"problems": [...], "warnings": [...]}} for an observation.

    since: Unix time (of the node's clock) after which a lease must have been renewed to count as alive.
    names: `census.names` of a snapshot's manifest: what must exist.
    baseline: an earlier observation: what was not well then is only warned about now.
    strict: whether what no baseline shows to have been well is held against the cluster.  Its control plane always is, as far as the baseline has it.
    first: an observation of a moment ago.  A lease that has changed since was renewed, whatever the clock of who renewed it says.
    silent: controllers that have no lease to renew, since they elect no leader.
    """
    found = {layer: {"problems": [], "warnings": []} for layer in LAYERS}
    names = names or {}

    def say(layer, sentence, harmless):
        found[layer]["warnings" if harmless else "problems"].append(sentence)

    def renewed(now, then):
        return now >= since or (then is not None and now != then)

    known = (baseline or {}).get("nodes", {})
    # Nodes that nobody expects to work, as one that was down before, or was replaced since and only the snapshot has: their Pods are not ready either.
    away = []
    for name in names.get("nodes", []):
        if name not in observed["nodes"]:
            say("nodes", "node %s is in the snapshot but not in the cluster" % name, False)
    for name, node in sorted(observed["nodes"].items()):
        was = known.get(name)
        then = (first or {}).get("nodes", {}).get(name, {}).get("renewed")
        if node["ready"] and renewed(node["renewed"], then):
            continue
        stranger = bool(known) and was is None
        if stranger or (was and not was["ready"]):
            away.append(name)
        harmless = not was["ready"] if was else not strict and (stranger or not node["control_plane"])
        before = "" if not harmless else ", as before" if was else ", and was not seen in the cluster before" if stranger else ""
        say("nodes", "%s%s" % ("the kubelet of node %s does not renew its lease" % name if node["ready"] else "node %s is not Ready" % name, before), harmless)
    if not observed["nodes"]:
        say("nodes", "the cluster has no nodes: it is empty", False)

    for name in CONTROLLERS:
        if name in silent:
            say("system", "%s elects no leader, so no lease tells whether it works" % name, True)
        elif not renewed(observed["leases"].get(name, 0), (first or {}).get("leases", {}).get(name)):
            say("system", "%s does not renew its lease: it does not work" % name, False)
    if not observed["secret_read"]:
        say("system", "no Secret could be read", True)

    for resource in _WORKLOADS:
        for name in names.get(resource, []):
            if "%s %s" % (resource, name) not in observed["workloads"]:
                say(_layer(name), "%s %s is in the snapshot but not in the cluster" % (resource[:-1], name), False)
    for key, state in sorted(observed["workloads"].items()):
        if state["ready"] >= state["wanted"]:
            continue
        was = (baseline or {}).get("workloads", {}).get(key)
        resource, name = key.split(" ")
        sentence = "%s %s has %d of %d Pods ready" % (resource[:-1], name, state["ready"], state["wanted"])
        if was and was["ready"] < was["wanted"]:
            say(_layer(name), sentence + ", and was not well before", True)
        elif away and not strict:
            say(_layer(name), "%s; it may have had some on %s" % (sentence, ", ".join(away)), True)
        else:
            say(_layer(name), sentence, was is None and not strict)
    return found


def missing_roles(api):
    """Sentences about what no longer may ask, since its ClusterRoleBinding is not in this etcd, and what to run.

    kubeadm binds admin.conf's group since 1.29 and the API server's client certificate for kubelets since 1.36 (kubeadm's
    phases/kubeconfig/kubeconfig.go and phases/bootstraptoken/node/tlsbootstrap.go); a snapshot from before has neither.
    """
    kubeconfig, first = api.identity.name, ""
    if not kubeconfig.endswith(".conf"):
        kubeconfig, first = api.identities[0].name, "kubeadm init phase kubeconfig super-admin && "
    run = "Run on the node: %skubectl --kubeconfig %s create clusterrolebinding " % (first, kubeconfig)
    found = []
    admin, kubelets = api.admin, api.kubelets
    if admin.context(api.cafile) and not admin.masters and api.may(admin.user, admin.groups, "*", "*") is False:
        found.append(
            "%s may not administer this cluster any more, since its group %s has no role here: kubectl says Forbidden. "
            "%skubeadm:cluster-admins --clusterrole=cluster-admin --group=kubeadm:cluster-admins" % (admin.name, ", ".join(admin.groups), run)
        )
    if kubelets.context(api.cafile) and api.may(kubelets.user, kubelets.groups, "create", "nodes", "proxy") is False:
        found.append(
            "kubelets refuse the API server, since its user %s has no role here: kubectl logs and kubectl exec fail. "
            "%skubeadm:apiserver-kubelet-client --clusterrole=system:kubelet-api-admin --user=%s" % (kubelets.user, run, kubelets.user)
        )
    return found


def _layer(name):
    return "system" if name.startswith(_SYSTEM + "/") else "workloads"
