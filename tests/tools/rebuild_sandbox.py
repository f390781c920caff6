# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster that encrypts its Secrets, its bundle off-site, and what has to be true of it on machines that never were a part of it."""

from __future__ import annotations

import base64
import json

import pytest
from cluster import wait_for
from remote_cluster import handed_out, is_accepted

# what kubeadm checks and a container never has; kind leaves out all of its checks
KERNEL = ["FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "FileContent--proc-sys-net-ipv4-ip_forward"]
CONTAINER = ["SystemVerification", "Swap", "NumCPU", "Mem", *KERNEL]
ENCRYPTION = """
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - aescbc: {keys: [{name: key1, secret: %s}]}
      - identity: {}
""" % base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n"
DIRECTORIES = ("encryption", "policies")
MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
# By which kubelet does not start
OBSTACLE = "/etc/systemd/system/kubelet.service.d/99-obstacle.conf"
# An operator's own hand: kubeadm's ClusterConfiguration knows nothing of it.  {a line of the manifest: what is added behind it}
EDITS = {
    "    - --allow-privileged=true": [
        "    - --encryption-provider-config=/etc/kubernetes/encryption/config.yaml",
        "    - --audit-policy-file=/etc/kubernetes/policies/audit.yaml",
    ],
    "    volumeMounts:": [line for what in DIRECTORIES for line in ("    - mountPath: /etc/kubernetes/%s" % what, "      name: %s" % what)],
    "  volumes:": [line for what in DIRECTORIES for line in ("  - hostPath:", "      path: /etc/kubernetes/%s" % what, "    name: %s" % what)],
}


def options(where, config, identity, **more):
    found = {"cluster_rebuild_off_site": where, "cluster_rebuild_rclone_config": config, "cluster_rebuild_identity_file": str(identity)}
    return ["-l", "cp1", "-e", json.dumps(dict(found, cluster_rebuild_ignore_preflight_errors=CONTAINER, **more))]


def take_bundle(cluster, far, recipient, config):
    # an earlier test may have left it, which came after its own bundle
    cluster.kubectl("-n", cluster.namespace, "delete", "configmap", "latecomer", "--ignore-not-found")
    packing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient], "etcd_snapshot_bundle": True}
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(packing, etcd_snapshot_off_site=far.where, etcd_snapshot_rclone_config_source=config)))


def bundled(cluster, far, key, tmp_path):
    """(options of a rebuild from a new bundle off-site, a token from before)"""
    identity, recipient = key
    config = far.config(tmp_path / "rclone.conf")
    cluster.note("survivor", "bundle")
    take_bundle(cluster, far, recipient, config)
    return options(far.where, config, identity, cluster_rebuild_confirm=True), handed_out(cluster)


def secret(cluster):
    return base64.b64decode((cluster.get("-n", cluster.namespace, "secret/hidden") or {"data": {"a": ""}})["data"]["a"]).decode()


def ready_nodes(cluster):
    """Names of the nodes that are ready."""

    def ready(node):
        return any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])

    return sorted(node["metadata"]["name"] for node in cluster.get("nodes")["items"] if ready(node))


def until(process, task):
    """The lines of a playbook that runs in the background until it begins a task, or ends."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("TASK [") and task in line:
            break
    return lines


def write(cluster, path, text):
    """Beside its directory first, since kubelet reads all files in that of manifests."""
    cluster.run("cp1", "sh", "-c", 'mkdir -p "${1%/*}" && cat >/etc/kubernetes/new && mv /etc/kubernetes/new "$1"', "write", path, stdin=text)


@pytest.fixture
def edited(cluster):
    """A cluster that encrypts Secrets, by a manifest that was edited by hand."""

    def restarted(flag):
        def serves():
            as_written = bool(cluster.processes("cp1", "--encryption-provider-config")) == flag
            return as_written and cluster.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok"

        wait_for(serves, 180, "the API server runs as its manifest says")

    cluster.wait_ready()
    before = cluster.run("cp1", "cat", MANIFEST)
    cluster.run("cp1", "mkdir", "-p", *("/etc/kubernetes/" + what for what in DIRECTORIES))
    write(cluster, "/etc/kubernetes/encryption/config.yaml", ENCRYPTION)
    write(cluster, "/etc/kubernetes/policies/audit.yaml", POLICY)
    write(cluster, MANIFEST, "".join("\n".join([line, *EDITS.get(line, [])]) + "\n" for line in before.splitlines()))
    restarted(True)
    cluster.kubectl("-n", cluster.namespace, "create", "secret", "generic", "hidden", "--from-literal=a=visible")
    yield cluster
    cluster.kubectl("-n", cluster.namespace, "delete", "secret", "hidden")
    write(cluster, MANIFEST, before)
    restarted(False)


@pytest.fixture
def lost(edited, far, key):
    """Switches the cluster off; it is on again before anything is removed from it."""
    yield lambda: edited.power("off", "cp1")
    edited.power("on", "cp1")
    edited.wait_ready(300)


def prove(machine, name, token):
    """It is the cluster from before, and works."""
    assert [node["metadata"]["name"] for node in machine.get("nodes")["items"]] == [name]
    assert machine.noted("survivor") == "bundle" and machine.noted("latecomer") is None
    assert secret(machine) == "visible", "Secrets can be read"
    assert is_accepted(machine, token), "tokens from before are valid"
    stored = machine.etcdctl("get", "/registry/secrets/%s/hidden" % machine.namespace)
    assert base64.b64decode(stored["kvs"][0]["value"]).startswith(b"k8s:enc:aescbc:v1:key1:")
    members = machine.etcdctl("member", "list")["members"]
    assert [(member["name"], member["peerURLs"]) for member in members] == [(name, ["https://%s:2380" % machine.address("cp1")])]

    def runs():
        pods = machine.get("-n", "shop", "pods")["items"]
        return bool(pods) and all(pod["status"]["phase"] == "Running" and pod["spec"]["nodeName"] == name for pod in pods)

    wait_for(runs, 180, "the shop's Pods run on the new machine")

    def leads_here():
        slices = machine.get("-n", "default", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes")["items"]
        return [endpoint["addresses"] for one in slices for endpoint in one["endpoints"]] == [[machine.address("cp1")]]

    # the address of the old API server goes with its lease, after 15 s (1.37.2: pkg/controlplane/instance.go, DefaultEndpointReconcilerTTL)
    wait_for(leads_here, 60, "the Service kubernetes leads to the new machine alone")
    assert "RESIDUAL TIME" in machine.run("cp1", "kubeadm", "certs", "check-expiration")
    # nothing of the rebuild stays
    assert machine.run("cp1", "sh", "-c", "ls -d /var/lib/k8s-dr-rebuild /var/lib/etcd/.k8s-dr-* 2>/dev/null || true") == ""
