# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The objects of a rebuilt cluster that are about machines: where its API is, and which nodes it has.  Private to this collection."""

from __future__ import annotations

import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError, leader_lease, release_leaders
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.source import SERVER

_PROXY_CONFIG = "/api/v1/namespaces/kube-system/configmaps/kube-proxy"
_PODS = "/api/v1/namespaces/kube-system/pods"
# {path of a ConfigMap: the key in it that is a kubeconfig}.  kubeadm-config is written by kubeadm.
_KUBECONFIGS = {
    "/api/v1/namespaces/kube-public/configmaps/cluster-info": "kubeconfig",
    _PROXY_CONFIG: "kubeconfig.conf",
}
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


def wait_until_ready(api, timeout, check=lambda: None):
    """Raises KubeError when the API server is not ready after `timeout` seconds.  check: called before each question, to raise what ends the wait."""
    end = time.monotonic() + timeout
    while True:
        check()
        if api.ready():
            return
        if time.monotonic() > end:
            raise KubeError(
                "the API server at %s was not ready after %d s; `crictl ps -a` and /var/log/pods show which of etcd and kube-apiserver does not start"
                % (api.url, timeout)
            )
        time.sleep(1)


def release(api, pods, revision):
    """Leases of controllers that are gone, so that the new ones need not wait until they expire; see release_leaders."""
    leases = [leader_lease(pods[name]) for name in _CONTROLLERS if name in pods]
    return release_leaders(api, [lease for lease in leases if lease], revision)


def follow(session, server, check_mode):
    """Have ConfigMaps name this URL of the API; returns the paths of those that named another one."""
    changed = []
    for path, key in _KUBECONFIGS.items():
        text = ((session.get(path, {}) or {}).get("data") or {}).get(key, "")
        new = SERVER.sub(lambda found: found.group(1) + server, text)
        if new != text:
            changed.append(path)
            if not check_mode:
                _patch(session, path, {"data": {key: new}})
    return changed


def restart_proxies(session, check_mode):
    """Delete the Pods of kube-proxy that are older than its configuration, which they read when they start; returns their names."""
    fields = ((session.get(_PROXY_CONFIG, {}) or {}).get("metadata") or {}).get("managedFields") or []
    # both are of the API server's clock, to the second
    changed = max([field.get("time") or "" for field in fields] or [""])
    pods = [pod["metadata"] for pod in session.items(_PODS, labelSelector="k8s-app=kube-proxy")] if changed else []
    names = [pod["name"] for pod in pods if pod["creationTimestamp"] <= changed and not pod.get("deletionTimestamp")]
    for name in [] if check_mode else names:
        _delete(session, "%s/%s" % (_PODS, name))
    return names


def remove_nodes(session, names, keep, check_mode):
    """Delete the Node objects with these names, but not `keep`; returns those that were there.  The lease of each goes with it, by the garbage collector."""
    there = [node["metadata"]["name"] for node in session.items("/api/v1/nodes")]
    gone = [name for name in there if name in names and name != keep]
    for name in [] if check_mode else gone:
        _delete(session, "/api/v1/nodes/" + name)
    return gone


def remove_pods(session, nodes, keep, check_mode):
    """Delete the Pods of nodes that are gone at once, as the controller manager would after a minute; returns their number.

    It does not wait for a kubelet either (1.37.2: pkg/controller/podgc/gc_controller.go, gcOrphaned and markFailedAndDeletePod).
    """
    number = 0
    for node in nodes:
        pods = [pod["metadata"] for pod in session.items("/api/v1/pods", fieldSelector="spec.nodeName=" + node)] if node != keep else []
        number += len(pods)
        for pod in [] if check_mode else pods:
            _delete(session, "/api/v1/namespaces/%s/pods/%s" % (pod["namespace"], pod["name"]), {"gracePeriodSeconds": 0})
    return number


def _patch(session, path, body):
    status, answer = session.request("PATCH", path, body, "application/merge-patch+json")
    if status != 200:
        raise KubeError("%s answers %d to PATCH %s: %s" % (session.name, status, path, answer.get("message", "")), status)


def _delete(session, path, options=None):
    status, answer = session.request("DELETE", path, options and dict(options, kind="DeleteOptions", apiVersion="v1"))
    if status not in (200, 202, 404):
        raise KubeError("%s answers %d to DELETE %s: %s" % (session.name, status, path, answer.get("message", "")), status)
