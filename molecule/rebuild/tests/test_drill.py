# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill of a rebuild, on a machine of its own, while the cluster lives."""

from __future__ import annotations

import os
import re
import signal
import time

from rebuild_sandbox import options, ready_nodes, secret, take_bundle, until

# All that a drill could leave on a machine, but images, etcd's tools and logs.
LEFT = """
find /etc/kubernetes /var/lib/etcd /var/lib/kubelet /var/lib/k8s-dr-rebuild /etc/systemd/system -not -type d 2>/dev/null | sort
ls -A /run/netns 2>/dev/null; ip -br link | cut -d' ' -f1 | sort; systemctl is-enabled kubelet; systemctl is-active containerd
ctr -n k8s.io containers list -q; pgrep -l 'etcd|kube-'
:
"""
# Whether the copy's API server reaches that address, and is reached from its machine.
REACH = r"""
pid=$(pgrep -ox kube-apiserver) || exit 0
ask() { "$@" curl -sk -m 3 -o /dev/null -w '%%{http_code}' "https://$address:6443/livez" || :; }
address=%s; echo "outside $(ask nsenter --net=/proc/$pid/ns/net)"
address=203.0.113.2; echo "inside $(ask)"
"""


def left(machine):
    return machine.run("cp1", "sh", "-c", LEFT)


def test_a_drill_beside_the_living_cluster(edited, far, key, new_machine, tmp_path):
    cluster, (identity, recipient) = edited, key
    config = far.config(tmp_path / "rclone.conf")
    take_bundle(cluster, far, recipient, config)
    nodes = ready_nodes(cluster)
    machine = new_machine("drill")
    given = [*options(far.where, config, identity), "-e", "k8s_dr_hosts=cp1"]
    bare = left(machine)
    output = machine.playbook("rebuild_drill.yml", *given, "--check").stdout
    assert "in a network of its own" in output and left(machine) == bare
    # what kubeadm would remove with the copy
    machine.run("cp1", "sh", "-c", "mkdir -p /var/lib/kubelet; touch /var/lib/kubelet/config.json")
    process = machine.playbook("rebuild_drill.yml", *given, check=False)
    assert process.returncode != 0 and "/var/lib/kubelet/config.json exists" in " ".join(process.stdout.split())
    machine.run("cp1", "rm", "/var/lib/kubelet/config.json")
    assert left(machine) == bare

    # killed at its most dangerous moment, and looked at while it runs alone
    process = machine.playbook("rebuild_drill.yml", *given, background=True)
    until(process, "Wait for the API, and prove")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    reach, end = "", time.monotonic() + 120
    while "inside 200" not in reach and time.monotonic() < end:
        reach = machine.run("cp1", "sh", "-c", REACH % cluster.address("cp1"))
        time.sleep(1)
    assert reach.split() == ["outside", "000", "inside", "200"], reach
    assert cluster.run("cp1", "sh", "-c", "curl -sk -m 3 -o /dev/null https://%s:6443/livez || echo none" % machine.address("cp1")).strip() == "none"
    rebuild = machine.playbook("rebuild.yml", *options(far.where, config, identity, cluster_rebuild_confirm=True), check=False)
    assert rebuild.returncode != 0 and "a drill of a rebuild was interrupted on this machine" in rebuild.stdout

    output = machine.playbook("rebuild_drill.yml", *given).stdout
    assert "The drill passed" in output and re.search(r"accepts a token of\s+system:serviceaccount:", output)
    assert left(machine) == bare
    assert ready_nodes(cluster) == nodes and secret(cluster) == "visible", "the cluster saw nothing of it"


def test_a_drill_finds_a_bundle_that_is_not_enough(edited, far, key, new_machine, tmp_path):
    """The EncryptionConfiguration has another key than the one that Secrets were encrypted with."""
    cluster, (identity, recipient) = edited, key
    config, path = far.config(tmp_path / "rclone.conf"), "/etc/kubernetes/encryption/config.yaml"
    # the API server has read it, and the bundle gets the file
    before = cluster.run("cp1", "cat", path)
    cluster.run("cp1", "sed", "-i", "s/secret: ./secret: Z/", path)
    try:
        take_bundle(cluster, far, recipient, config)
    finally:
        cluster.run("cp1", "sh", "-c", 'cat >"$1"', "write", path, stdin=before)
    machine = new_machine("drill")
    bare = left(machine)
    given = [*options(far.where, config, identity, cluster_rebuild_start_timeout=60), "-e", "k8s_dr_hosts=cp1"]
    process = machine.playbook("rebuild_drill.yml", *given, check=False)
    assert process.returncode != 0 and "The drill on cp1 failed at" in process.stdout and "secrets" in process.stdout.lower()
    assert left(machine) == bare
