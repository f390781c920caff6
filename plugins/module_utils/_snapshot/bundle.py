# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a new cluster would need besides the snapshot.  Private to this collection."""

from __future__ import annotations

import base64
import json
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.named_files import named_files
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import encryption, fingerprints
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.objects import data_of_configmap
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def bundle_files(pki_dir, manifests_dir, pods, client):
    """{name in the bundle: path, or bytes}; Refused where something is missing without which it would be of no use.

    pods: the static Pods in manifests_dir.  client: of the etcd that is asked for kubeadm's configuration, or None.
    """
    found = {}
    for directory, prefix in ((pki_dir, "pki"), (manifests_dir, "manifests")):
        for parent, _directories, names in os.walk(directory):
            inner = os.path.relpath(parent, directory)
            found.update({os.path.normpath(os.path.join(prefix, inner, name)): os.path.join(parent, name) for name in names})
    found = {name: path for name, path in found.items() if os.path.isfile(path) and encryption.NAME.match(name)}
    if not any(name.startswith("pki/") and name.endswith(".key") for name in found):
        raise Refused("there are no private keys in %s, and without them a bundle is of no use; give `pki_dir`. No snapshot was taken" % pki_dir)
    apiserver = pods.get("kube-apiserver")
    flags = apiserver.flags if apiserver else {}
    if flags.get("encryption-provider-config"):
        path = fingerprints.encryption_configuration_file(apiserver)
        if not path:
            raise Refused(
                "the EncryptionConfiguration %s cannot be read on this host, and without it nobody could read the Secrets of the bundle. No snapshot was taken"
                % flags["encryption-provider-config"]
            )
        found["encryption-configuration.yaml"] = path
    there = [os.path.abspath(pki_dir), found.get("encryption-configuration.yaml") or pki_dir]
    found.update({"files" + path: path for path in named_files(pods, there) if encryption.NAME.match("files" + path)})
    configuration = _cluster_configuration(client, flags.get("etcd-prefix", "/registry")) if client else None
    if configuration:
        found["kubeadm-config.yaml"] = configuration
    return found


def _cluster_configuration(client, prefix):
    """kubeadm's ClusterConfiguration as the cluster has it, or None: not every cluster is one of kubeadm's, and it may be encrypted."""
    try:
        answer = json.loads(client.run("get", prefix.rstrip("/") + "/configmaps/kube-system/kubeadm-config", "--write-out=json").stdout)
        return data_of_configmap(base64.b64decode(answer["kvs"][0]["value"])).get("ClusterConfiguration")
    except (ToolError, ValueError, LookupError):
        return None
