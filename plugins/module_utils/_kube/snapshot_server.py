# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How kube-apiserver is started to show a snapshot to one reader, and to take no change.  Private to this collection.

What it accepts does not depend on the cluster: system:masters passes every authorizer, so none of the cluster's certificates and tokens may be valid here.
What it reads depends on the node's own API server: its encryption at rest, its feature gates and which APIs it serves.
"""

from __future__ import annotations

import json
import os
import re
import socket

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

READER = "k8s-dr-reader"
# What kubeadm gives to a new cluster (1.34.4 to 1.37.2: apis/kubeadm/v1beta4/defaults.go), for a host that has no manifest.
_SERVICE_RANGE = "10.96.0.0/12"
# Flags that decide what of the data is read, and how.  All others stay away: they let others in, reach something else, or write.
_KEPT = (
    "emulated-version",
    "emulation-forward-compatible",
    "etcd-prefix",
    "feature-gates",
    "min-compatibility-version",
    "runtime-config",
    "runtime-config-emulation-forward-compatible",
    "service-cluster-ip-range",
    "service-node-port-range",
)
_ENCRYPTION = "encryption-provider-config"
# What --help says of --disable-admission-plugins (1.34.4 to 1.37.2: pkg/kubeapiserver/options/admission.go).
_ADMISSION = re.compile(r"--disable-admission-plugins [^(]*\bdefault enabled plugins list \(([^)]*)\)")
# The socket of a KMS plugin in an EncryptionConfiguration.
_SOCKET = re.compile(r"(\bendpoint:\s*[\"']?unix://)(/?/[^\s\"'#]+)")


def policy():
    """The file of --authorization-policy-file: this reader may get, list and watch (1.37.2: pkg/auth/authorizer/abac/abac.go)."""
    spec = {"user": READER, "namespace": "*", "resource": "*", "apiGroup": "*", "nonResourcePath": "*", "readonly": True}
    return json.dumps({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": spec}) + "\n"


def prefix_of(pod):
    """Where in etcd the objects are, with a slash at both ends.  pod: the StaticPod of kube-apiserver, or None."""
    return "/%s/" % ((pod.flags.get("etcd-prefix") if pod else "") or "/registry").strip("/")


def encryption_configuration(pod, explicit=None):
    """(path of the EncryptionConfiguration here, or None; its text where the sockets of KMS plugins are elsewhere than in the Pod, or None)."""
    path = explicit or (pod.file(_ENCRYPTION) if pod else "")
    if not path:
        return None, None
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except OSError as exc:
        raise Refused("the EncryptionConfiguration %s cannot be read on this host: %s" % (path, exc.strerror)) from exc
    if explicit or not pod:
        return path, None
    here = _SOCKET.sub(lambda found: found.group(1) + (pod.host_path(found.group(2)) or found.group(2)), text)
    return path, here if here != text else None


def check_kms(encryption):
    """Refused where a plugin of the EncryptionConfiguration cannot be reached: the API server would wait for it.  encryption: by encryption_configuration()."""
    path, text = encryption
    if path and text is None:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    for line in (text or "").splitlines():
        found = _SOCKET.search(line.partition("#")[0])
        if not found:
            continue
        address = re.sub("^/+", "/", found.group(2))
        if address.startswith("/@"):
            # k8s.io/kms 0.34.4 to 0.37.2: pkg/util/util.go
            problem = "cannot be reached, because an abstract socket belongs to the network of the host, and the snapshot is served in another one"
        else:
            problem = _silence(address)
        if problem:
            raise Refused(
                "the KMS plugin at %s %s; start it, or give an EncryptionConfiguration without it: then what it has encrypted is not shown" % (address, problem)
            )


def _silence(address):
    """Why nothing can be asked there, "" when something listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as plugin:
        plugin.settimeout(5)
        try:
            plugin.connect(address)
        except OSError as exc:
            return "does not answer (%s)" % (exc.strerror or exc)
    return ""


def admission_plugins(text):
    """The admission plugins that are enabled by default, by what `kube-apiserver --help` says; "" when it does not."""
    found = _ADMISSION.search(text)
    return re.sub(r"\s", "", found.group(1)) if found else ""


def arguments(pod, directory, etcd, port, encryption=None, etcd_client="reading", admission=""):
    """The command line of kube-apiserver.

    pod: the StaticPod of the node's own, or None.  directory: holds its files.  etcd: URL.  port: on loopback.  encryption: path of the
    EncryptionConfiguration, or None.  etcd_client: the certificate as which it speaks to etcd.  admission: by admission_plugins().
    """

    def file(name):
        return os.path.join(directory, name)

    flags = [(flag, value) for flag in _KEPT for value in (pod.values(flag) if pod else []) if value]
    if not any(flag == "service-cluster-ip-range" for flag, dummy in flags):
        flags.append(("service-cluster-ip-range", _SERVICE_RANGE))
    if encryption:
        flags.append((_ENCRYPTION, encryption))
    if admission:
        # They judge what is written, and hold all Secrets and other objects in memory for that.
        flags.append(("disable-admission-plugins", admission))
    flags += [
        ("etcd-servers", etcd),
        ("etcd-cafile", file("server.crt")),
        ("etcd-certfile", file(etcd_client + ".crt")),
        ("etcd-keyfile", file(etcd_client + ".key")),
        # etcd would refuse it, or has no need of it
        ("etcd-compaction-interval", "0"),
        ("etcd-count-metric-poll-period", "0"),
        ("etcd-db-metric-poll-interval", "0"),
        # each object would be in memory twice
        ("watch-cache", "false"),
        ("bind-address", "127.0.0.1"),
        ("advertise-address", "127.0.0.1"),
        ("secure-port", "%d" % port),
        ("endpoint-reconciler-type", "none"),
        ("tls-cert-file", file("server.crt")),
        ("tls-private-key-file", file("server.key")),
        ("client-ca-file", file("reader.crt")),
        ("anonymous-auth", "false"),
        ("authorization-mode", "ABAC"),
        ("authorization-policy-file", file("policy")),
        # it does not start without a key for tokens; this one signs none
        ("service-account-issuer", "https://snapshot.invalid"),
        ("service-account-key-file", file("server.crt")),
        ("service-account-signing-key-file", file("server.key")),
        ("profiling", "false"),
    ]
    return ["kube-apiserver"] + ["--%s=%s" % flag for flag in flags]
