# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster on machines that never were a part of it, of nothing but a bundle off-site and the private key that decrypts it."""

from __future__ import annotations

import base64
import re

from cluster import wait_for
from rebuild_sandbox import CONTAINER, OBSTACLE, bundled, options, prove, ready_nodes, secret, take_bundle, write
from remote_cluster import handed_out


def test_the_cluster_on_another_machine(edited, far, key, new_machine, lost, tmp_path, monkeypatch):
    """With another name and another address."""
    cluster, (identity, recipient) = edited, key
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.setenv("TMPDIR", str(landing))
    config = far.config(tmp_path / "rclone.conf")
    cluster.note("survivor", "bundle")
    take_bundle(cluster, far, recipient, config)
    cluster.note("latecomer")
    token, old = handed_out(cluster), cluster.run("cp1", "hostname").strip()
    given = options(far.where, config, identity, cluster_rebuild_confirm=True)

    machine = new_machine("other")
    name = machine.nodes["cp1"]
    process = machine.playbook("rebuild.yml", *given, check=False)
    assert process.returncode != 0 and "The control plane from before still answers: " + old in process.stdout
    lost()
    process = machine.playbook("rebuild.yml", *options(far.where, config, identity), check=False)
    assert process.returncode != 0 and "The rebuild was not confirmed, so nothing was done" in process.stdout
    process = machine.playbook("rebuild.yml", *given, "--check")
    assert "Node objects that are removed: %s" % old in process.stdout and "--audit-policy-file, --encryption-provider-config" in process.stdout
    assert machine.run("cp1", "sh", "-c", "ls -A /etc/kubernetes /var/lib/etcd /var/lib/k8s-dr-rebuild 2>/dev/null || true") == ""

    output = machine.playbook("rebuild.yml", *given).stdout
    assert "%s serves the cluster at https://%s:6443" % (name, machine.address("cp1")) in output
    prove(machine, name, token)
    process = machine.playbook("rebuild.yml", *given, check=False)
    assert process.returncode != 0 and "the machine is or was part of a cluster" in process.stdout
    assert secret(machine) == "visible"
    assert list(landing.glob("k8s-dr-*")) == [], "nothing stays on the controller"


def test_the_same_name_and_a_failure_on_the_way(edited, far, key, new_machine, lost, tmp_path):
    (given, token), name = bundled(edited, far, key, tmp_path), edited.run("cp1", "hostname").strip()
    lost()

    machine = new_machine("same", name)
    # kubelet does not start
    machine.run("cp1", "sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "write", OBSTACLE, stdin="[Service]\nExecStartPre=/bin/false\n")
    process = machine.playbook("rebuild.yml", *given, "-e", "cluster_rebuild_start_timeout=10", check=False)
    machine.run("cp1", "rm", OBSTACLE)
    machine.run("cp1", "systemctl", "daemon-reload")
    assert process.returncode != 0 and "The rebuild of cp1 is unfinished." in process.stdout and "Run the same command" in process.stdout
    # certificates that are half written, as those of a killed kubeadm
    machine.run("cp1", "sh", "-c", "truncate -s 100 /etc/kubernetes/pki/apiserver.crt; rm /etc/kubernetes/admin.conf")
    machine.playbook("rebuild.yml", *given)
    prove(machine, name, token)


def joined(first, host, machine):
    """Have kubeadm make a machine a control plane of the rebuilt cluster, by the commands of docs/rebuild.md."""
    first.nodes[host], first._addresses[host] = machine.nodes["cp1"], machine.address("cp1")
    # what kubeadm does not copy
    for path in ("encryption/config.yaml", "policies/audit.yaml"):
        write(machine, "/etc/kubernetes/" + path, first.run("cp1", "cat", "/etc/kubernetes/" + path))
    key = first.run("cp1", "kubeadm", "init", "phase", "upload-certs", "--upload-certs").split()[-1]
    join = first.run("cp1", "kubeadm", "token", "create", "--print-join-command", "--certificate-key", key).split()
    first.run(host, *join, "--ignore-preflight-errors=" + ",".join(CONTAINER), timeout=400)


def test_more_control_planes_join_and_kubeadm_is_content(edited, far, key, new_machine, lost, tmp_path):
    given, token = bundled(edited, far, key, tmp_path)
    lost()
    first = new_machine("first")
    first.playbook("rebuild.yml", *given)
    prove(first, first.nodes["cp1"], token)

    for host, name in (("cp2", "second"), ("cp3", "third")):
        joined(first, host, new_machine(name))
    names = sorted(first.nodes.values())
    assert sorted(member["name"] for member in first.etcdctl("member", "list")["members"]) == names
    wait_for(lambda: ready_nodes(first) == names, 240, "all three nodes are ready")
    # each API server serves the same, and has the key of Secrets
    for host in first.nodes:
        found = first.own_kubectl(host, "-n", first.namespace, "get", "secret/hidden", "-o", "jsonpath={.data.a}")
        assert base64.b64decode(found) == b"visible"
    # with the version, so that nothing is asked of the internet (1.37.2: cmd/kubeadm/app/cmd/upgrade/plan.go)
    version = first.run("cp1", "kubeadm", "version", "-o", "short").strip()
    plan = first.run("cp1", "kubeadm", "upgrade", "plan", version, "--ignore-preflight-errors=" + ",".join(CONTAINER), timeout=300)
    assert "Running cluster health checks" in plan and "FATAL" not in plan
    for host in first.nodes:
        expiration = first.run(host, "kubeadm", "certs", "check-expiration")
        assert "RESIDUAL TIME" in expiration and "<invalid>" not in expiration
        # a node that joins gets none (1.37.2: cmd/kubeadm/app/phases/kubeconfig/kubeconfig.go, CreateJoinControlPlaneKubeConfigFiles)
        assert re.findall(r"^!MISSING! (\S+)", expiration, re.MULTILINE) == ([] if host == "cp1" else ["super-admin.conf"])
