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
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


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
        if item["metadata"]["name"] in _CONTROLLERS:
            leases[item["metadata"]["name"]] = seconds(item["spec"].get("renewTime"))
    workloads = {}
    for resource, (path, counts) in sorted(_WORKLOADS.items()):
        for item in api.items(path):
            wanted, ready = counts(item)
            workloads["%s %s/%s" % (resource, item["metadata"]["namespace"], item["metadata"]["name"])] = {"wanted": wanted, "ready": ready}
    # Decrypting one is the point; what it says is dropped here.
    secrets = api.get("/api/v1/secrets?limit=1").get("items") or []
    return {"nodes": nodes, "leases": leases, "workloads": workloads, "secret_read": bool(secrets)}


def judge(observed, since, names=None, baseline=None, strict=True):
    """{layer: {"problems": [...], "warnings": [...]}} for an observation.

    since: Unix time (of the node's clock) after which a lease must have been renewed to count as alive.
    names: `census.names` of a snapshot's manifest: what must exist.
    baseline: an earlier observation: what was not well then is only warned about now.
    strict: whether what no baseline shows to have been well is held against the cluster.  Its control plane always is.
    """
    found = {layer: {"problems": [], "warnings": []} for layer in LAYERS}
    names = names or {}

    def say(layer, sentence, harmless):
        found[layer]["warnings" if harmless else "problems"].append(sentence)

    for name in names.get("nodes", []):
        if name not in observed["nodes"]:
            say("nodes", "node %s is in the snapshot but not in the cluster" % name, False)
    for name, node in sorted(observed["nodes"].items()):
        was = (baseline or {}).get("nodes", {}).get(name)
        harmless = not was["ready"] if was else not (strict or node["control_plane"])
        before = ", as before" if was and harmless else ""
        if not node["ready"]:
            say("nodes", "node %s is not Ready%s" % (name, before), harmless)
        elif node["renewed"] < since:
            say("nodes", "the kubelet of node %s does not renew its lease%s" % (name, before), harmless)
    if not observed["nodes"]:
        say("nodes", "the cluster has no nodes: it is empty", False)

    for name in _CONTROLLERS:
        if observed["leases"].get(name, 0) < since:
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
        else:
            say(_layer(name), sentence, was is None and not strict)
    return found


def _layer(name):
    return "system" if name.startswith(_SYSTEM + "/") else "workloads"
