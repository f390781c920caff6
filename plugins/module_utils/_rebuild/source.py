# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot, and the files that were stored with it, say of the cluster that it was taken of, without an API server.  Private to this collection."""

from __future__ import annotations

import os
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import members_on_disk, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.manifests import described_in
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import inventory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.objects import data_of_configmap, fields, stored_object
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import sha256_of_file

# {name of the result: (namespace and name of a ConfigMap, key in it)}
_CONFIGMAPS = {
    "cluster_configuration": ("kube-system/kubeadm-config", "ClusterConfiguration"),
    "kubelet_configuration": ("kube-system/kubelet-config", "kubelet"),
    "cluster_info": ("kube-public/cluster-info", "kubeconfig"),
    "kube_proxy": ("kube-system/kube-proxy", "kubeconfig.conf"),
}
# What a bundle calls kubeadm's configuration and the EncryptionConfiguration.
_KUBEADM_CONFIG, _ENCRYPTION = "kubeadm-config.yaml", "encryption-configuration.yaml"
_KMS = re.compile(r"^[ \t]*-?[ \t]*kms:", re.MULTILINE)
# {what the manifest of a snapshot calls it: the file among those that were stored with it, what it is}
_FINGERPRINTS = {
    "ca": ("pki/ca.crt", "the cluster's CA"),
    "etcd_ca": ("pki/etcd/ca.crt", "the CA of etcd"),
    "service_account": ("pki/sa.pub", "the key of service accounts"),
}
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
SERVER = re.compile(r"^([ \t]*server:[ \t]*)[\"']?(https://[^\s\"']+)[\"']?[ \t]*$", re.MULTILINE)


def read(path, files, work, deadline, manifest):
    """All of it, as kube_rebuild_source returns it; raises what mvcc.SnapshotKeys raises.

    files: a directory, or "".  work: a directory in which keys are sorted.  manifest: what was written beside the snapshot, or {}.
    """
    pods, others = described_in(os.path.join(files, "manifests")) if files else ({}, [])
    prefix = inventory.prefix_of((pods.get("kube-apiserver", {}).get("flags", {}).get("etcd-prefix") or ["/registry"])[-1])
    revision, values = _values(path, work, deadline, prefix)
    found, encrypted = _configmaps(values, prefix)
    nodes, unread = _nodes(values, prefix)
    stored = _names(files)
    if not found["cluster_configuration"] and _KUBEADM_CONFIG in stored:
        found["cluster_configuration"] = _text(os.path.join(files, _KUBEADM_CONFIG))
    return {
        "revision": revision,
        "size": os.path.getsize(path),
        "sha256": sha256_of_file(path),
        "created": manifest.get("created", ""),
        "etcd_version": str(manifest.get("etcd_version") or ""),
        "names": (manifest.get("inventory") or {}).get("names") or {},
        "kubernetes_version": str(manifest.get("kubernetes_version") or ""),
        "cluster_configuration": found["cluster_configuration"],
        "kubelet_configuration": found["kubelet_configuration"],
        "servers": sorted({url for name in ("cluster_info", "kube_proxy") for _indent, url in SERVER.findall(found[name])}),
        "nodes": nodes,
        "members": [{"name": member["name"], "peer_urls": member["peer_urls"]} for member in members_on_disk.in_database(path)],
        "unreadable": sorted(encrypted + unread),
        "files": stored,
        "manifests": pods,
        "other_pods": others,
        "foreign": _foreign(files, manifest),
        "kms": bool(_KMS.search(_text(os.path.join(files, _ENCRYPTION)))) if _ENCRYPTION in stored else False,
    }


def _values(path, work, deadline, prefix):
    """(revision, {key: value}) of the few objects that are read."""
    wanted = {("%sconfigmaps/%s" % (prefix, name)).encode() for name, _key in _CONFIGMAPS.values()}
    nodes, found = (prefix + "minions/").encode(), {}

    def keep(key, data, start, end):
        if key in wanted or key.startswith(nodes):
            found[bytes(key)] = bytes(data[start:end])
        return 0

    with mvcc.SnapshotKeys(path, work, deadline, judge=keep) as snapshot:
        revision = snapshot.read()
        live = {bytes(key) for key, *_numbers in snapshot if key in found}
    return revision, {key: value for key, value in found.items() if key in live}


def _configmaps(values, prefix):
    """({name: text}, the ConfigMaps that cannot be read)"""
    found, unread = dict.fromkeys(_CONFIGMAPS, ""), []
    for name, (configmap, key) in _CONFIGMAPS.items():
        value = values.get(("%sconfigmaps/%s" % (prefix, configmap)).encode())
        if value is not None:
            try:
                found[name] = data_of_configmap(value).get(key, b"").decode("utf-8")
            except ValueError:
                unread.append("configmaps/" + configmap)
    return found, unread


def _nodes(values, prefix):
    """([{name, control_plane, addresses, taints}], those of which only the name is known)"""
    start, nodes, unread = (prefix + "minions/").encode(), [], []
    for key in sorted(key for key in values if key.startswith(start)):
        name = key[len(start) :].decode("utf-8", "replace")
        try:
            nodes.append(dict({"name": name}, **_node(values[key])))
        except ValueError:
            nodes.append({"name": name, "control_plane": None, "addresses": [], "taints": None})
            unread.append("nodes/" + name)
    return nodes, unread


def _node(value):
    """Of a Node as the API server stores it (api 0.34.4 to 0.37.2: core/v1/generated.proto): metadata, spec and status; labels, taints and addresses."""
    parts = dict(fields(stored_object(value)))
    labels = [_pair(entry)[0] for number, entry in fields(parts.get(1) or b"") if number == 11]
    taints = [_texts(entry) for number, entry in fields(parts.get(2) or b"") if number == 5]
    addresses = [_pair(entry) for number, entry in fields(parts.get(3) or b"") if number == 5]
    return {
        "control_plane": any(label in labels for label in _CONTROL_PLANE),
        "addresses": [address for kind, address in addresses if kind in ("InternalIP", "ExternalIP")],
        "taints": [
            dict({"key": taint.get(1, ""), "effect": taint.get(3, "")}, **({"value": taint[2]} if taint.get(2) else {}))
            for taint in taints
            # what controllers set by the state of a node that is gone
            if not taint.get(1, "").startswith(("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/"))
        ],
    }


def _texts(entry):
    return {number: bytes(value).decode("utf-8") for number, value in fields(entry or b"") if value is not None and number < 4}


def _pair(entry):
    found = _texts(entry)
    return found.get(1, ""), found.get(2, "")


def _text(path):
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _names(files):
    """The names of all files below a directory."""
    found = []
    for parent, _directories, names in os.walk(files) if files else ():
        found += [os.path.relpath(os.path.join(parent, name), files) for name in names]
    return sorted(found)


def _foreign(files, manifest):
    """What is not that of the cluster of the snapshot, by the checksums in its manifest."""
    known = manifest.get("fingerprints") or {}
    found = []
    for name, (path, words) in _FINGERPRINTS.items():
        there = sha256_of_file(os.path.join(files, path)) if files else None
        if there and known.get(name) and there != known[name]:
            found.append("%s (%s)" % (words, path))
    return found
