# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a cluster really works: nodes, kube-system, workloads.  Private to this collection.

What an API server says of Nodes and Pods right after a restore is what etcd held when the snapshot was taken, Ready
included.  So liveness is read off the leases, which kubelets renew every 10 s, controller-manager and scheduler every 2 s.  What etcd wrote
after the revision that was restored, it wrote after the restore: that needs no clock, and no waiting for the next renewal.
"""

from __future__ import annotations

import calendar
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError, lease_path

LAYERS = ("nodes", "system", "workloads")
# what fails: the control plane alone; also what an earlier look showed to be well; everything
SCOPES = ("control_plane", "known", "all")

# resource: path, function of an object that gives (wanted Pods, ready Pods)
_WORKLOADS = {
    "deployments": ("/apis/apps/v1/deployments", lambda o: (o["spec"].get("replicas", 1), o.get("status", {}).get("readyReplicas", 0))),
    "daemonsets": (
        "/apis/apps/v1/daemonsets",
        lambda o: (o.get("status", {}).get("desiredNumberScheduled", 0), o.get("status", {}).get("numberReady", 0)),
    ),
    "statefulsets": ("/apis/apps/v1/statefulsets", lambda o: (o["spec"].get("replicas", 1), o.get("status", {}).get("readyReplicas", 0))),
}
_SYSTEM = "kube-system"
NO_LEASE = {"renewed": 0, "written": 0}
# the label that kubeadm sets, and the one it set up to 1.23
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


def seconds(timestamp):
    """Unix time of '2026-11-22T17:05:01.123456Z', with its fraction; 0 for none."""
    if not timestamp:
        return 0
    fraction = timestamp[19:].rstrip("Z")
    return calendar.timegm(time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S")) + (float("0" + fraction) if fraction else 0)


def _of_lease(lease):
    """When a lease was renewed last, and the revision of etcd at which it was written."""
    return {"renewed": seconds(lease["spec"].get("renewTime")), "written": int(lease["metadata"].get("resourceVersion") or 0)}


def observe(api, leases):
    """What the API server says now, small enough to keep: {nodes, leases, workloads, secret_read}; `mark_alive` adds who is alive.

    leases: {controller: "namespace/name" of the lease that it renews}, as `_kube.leader_lease` has it.
    """
    node_leases = {
        item["metadata"]["name"]: _of_lease(item)
        for item in api.items("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
    }
    nodes = {}
    for node in api.items("/api/v1/nodes"):
        name = node["metadata"]["name"]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
        control_plane = any(label in node["metadata"].get("labels", {}) for label in _CONTROL_PLANE)
        nodes[name] = dict(node_leases.get(name, NO_LEASE), ready=ready, control_plane=control_plane)
    workloads = {}
    for resource, (path, counts) in sorted(_WORKLOADS.items()):
        for item in api.items(path):
            metadata, (wanted, ready) = item["metadata"], counts(item)
            generation = metadata.get("generation", 0)
            workloads["%s %s/%s" % (resource, metadata["namespace"], metadata["name"])] = {
                "wanted": wanted,
                "ready": ready,
                # another object, or another specification, is not what was seen before
                "version": "%s.%s" % (metadata.get("uid", ""), generation),
                "counted": item.get("status", {}).get("observedGeneration", generation) >= generation,
            }
    # Decrypting one is the point; what it says is dropped here.
    secrets = api.get("/api/v1/secrets?limit=1").get("items") or []
    return {
        "nodes": nodes,
        "leases": {name: _lease(api, lease) for name, lease in sorted(leases.items())},
        "workloads": workloads,
        "secret_read": bool(secrets),
    }


def _lease(api, lease):
    try:
        return _of_lease(api.get(lease_path(lease)))
    except KubeError as exc:
        if exc.status != 404:
            raise
        return dict(NO_LEASE)


def mark_alive(observed, since, first=None, revision=0, restarted=None):
    """Add to each node and lease whether it is `alive`: whether its lease was renewed after `since` (Unix time of this node's clock).

    first: an observation of a moment ago.  A lease that has changed since was renewed, whatever the clock of who renewed it says.
    revision: that of the data that was restored.  A lease that was written at a later one was renewed since.
    restarted: {name of this node: Unix time at which its kubelet was restarted}, before which a renewal says nothing of the one that runs now.
    """
    for kind in ("nodes", "leases"):
        for name, state in observed[kind].items():
            then = (first or {}).get(kind, {}).get(name)
            state["alive"] = (
                state["renewed"] >= since or bool(revision and state.get("written", 0) > revision) or (then is not None and then["renewed"] != state["renewed"])
            )
            if kind == "nodes" and name in (restarted or {}):
                state["alive"] = state["renewed"] >= restarted[name]
    return observed


def judge(observed, names=None, baseline=None, scope="all", silent=()):
    """{layer: {"problems": [...], "pending": [...], "warnings": [...]}} for an observation that `mark_alive` went over.

    Problems fail a validation, pending is worth waiting for but fails nothing, and warnings will not go away.

    names: `inventory.names` of a snapshot's manifest: what must exist.
    baseline: an earlier observation.  What was not well then is only warned about now.
    scope: one of SCOPES.  "control_plane": kubelets of control plane nodes and the controllers, as far as `baseline` has them well.
        "known": also what `baseline` shows to have been well, unless it is another object now.  "all": whatever is not well.
    silent: controllers that have no lease to renew, since they elect no leader.
    """
    found = {layer: {"problems": [], "pending": [], "warnings": []} for layer in LAYERS}
    names, baseline = names or {}, baseline or {}
    _judge_nodes(observed, names, baseline, scope, found["nodes"])
    for name in CONTROLLERS:
        if name in silent:
            found["system"]["warnings"].append("%s elects no leader, so no lease tells whether it works" % name)
        elif not observed["leases"].get(name, {}).get("alive"):
            before = baseline.get("leases", {}).get(name)
            known_dead = bool(before) and not before["alive"]
            found["system"]["warnings" if known_dead else "problems"].append(
                "%s does not renew its lease%s" % (name, ", as before" if known_dead else ": it does not work")
            )
    if not observed["secret_read"]:
        found["system"]["warnings"].append("no Secret could be read")
    _judge_workloads(observed, names, baseline, scope, found)
    return found


def _judge_nodes(observed, names, baseline, scope, found):
    known = baseline.get("nodes", {})
    for name in names.get("nodes", []):
        if name not in observed["nodes"]:
            fatal = scope == "all" or (_was_well(known.get(name)) and (scope == "known" or known[name].get("control_plane")))
            found["problems" if fatal else "warnings"].append("node %s is in the snapshot but not in the cluster" % name)
    for name, node in sorted(observed["nodes"].items()):
        if node["ready"] and node["alive"]:
            continue
        was = known.get(name)
        sentence = "the kubelet of node %s does not renew its lease" % name if node["ready"] else "node %s is not Ready" % name
        if was and not _was_well(was):
            found["warnings"].append(sentence + ", as before")
        elif scope == "all":
            found["problems"].append(sentence)
        elif known and not was:
            found["warnings"].append(sentence + ", and was not seen in the cluster before")
        elif node["control_plane"] or (was and (scope == "known" or was.get("control_plane"))):
            found["problems"].append(sentence)
        else:
            found["pending"].append(sentence)
    if not observed["nodes"]:
        found["problems"].append("the cluster has no nodes: it is empty")


def _was_well(node):
    """Whether a node was Ready and renewed its lease: a virtual node may never do the latter."""
    return bool(node) and node["ready"] and node.get("alive", True)


def _judge_workloads(observed, names, baseline, scope, found):
    before = baseline.get("workloads", {})
    for resource in _WORKLOADS:
        for name in names.get(resource, []):
            key = "%s %s" % (resource, name)
            if key not in observed["workloads"]:
                fatal = scope == "all" or (scope == "known" and key in before)
                found[_layer(name)]["problems" if fatal else "warnings"].append("%s %s is in the snapshot but not in the cluster" % (resource[:-1], name))
    # Nodes that are not expected to work, as one that was down before, or was replaced since and only the snapshot has: their Pods are not ready either.
    known = baseline.get("nodes", {})
    away = [name for name, node in sorted(observed["nodes"].items()) if not (node["ready"] and node["alive"]) and known and not _was_well(known.get(name))]
    for key, state in sorted(observed["workloads"].items()):
        counted = state.get("counted", True)
        if counted and state["ready"] >= state["wanted"]:
            continue
        was = before.get(key)
        resource, name = key.split(" ")
        sentence = "%s %s has %d of %d Pods ready" % (resource[:-1], name, state["ready"], state["wanted"])
        if not counted:
            sentence = "the status of %s %s is older than its specification" % (resource[:-1], name)
        layer = found[_layer(name)]
        if was and was["ready"] < was["wanted"]:
            layer["warnings"].append(sentence + ", and was unhealthy before")
        elif scope == "all":
            layer["problems"].append(sentence)
        elif away:
            layer["warnings"].append("%s; it may have had some on %s" % (sentence, ", ".join(away)))
        elif scope == "known" and was and was.get("version") == state.get("version"):
            layer["problems"].append(sentence)
        else:
            layer["pending"].append(sentence)


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
    if admin.context(api.trust) and not admin.masters and api.may(admin.user, admin.groups, "*", "*") is False:
        found.append(
            "%s may not administer this cluster any more, since its group %s has no role here: kubectl says Forbidden. "
            "%skubeadm:cluster-admins --clusterrole=cluster-admin --group=kubeadm:cluster-admins" % (admin.name, ", ".join(admin.groups), run)
        )
    if kubelets.context(api.trust) and api.may(kubelets.user, kubelets.groups, "create", "nodes", "proxy") is False:
        found.append(
            "kubelets refuse the API server, since its user %s has no role here: kubectl logs and kubectl exec fail. "
            "%skubeadm:apiserver-kubelet-client --clusterrole=system:kubelet-api-admin --user=%s" % (kubelets.user, run, kubelets.user)
        )
    return found


def _layer(name):
    return "system" if name.startswith(_SYSTEM + "/") else "workloads"
