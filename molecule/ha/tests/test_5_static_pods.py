# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Static Pods of others beside the control plane's, as a load balancer for its endpoint and the etcd of a network, keep running during restores."""

from __future__ import annotations

import json
import re

import pytest
from cluster import wait_for

MANIFESTS = "/etc/kubernetes/manifests"
CONFIRMED = ("-e", "etcd_restore_confirm=true")


def pod(name, image, command, labels=None, volume=None):
    """A static Pod in the node's network, as YAML that kubeadm did not write."""
    mounts = "    volumeMounts:\n    - {name: data, mountPath: %s}\n" % volume if volume else ""
    volumes = "  volumes:\n  - name: data\n    hostPath: {path: %s, type: DirectoryOrCreate}\n" % volume if volume else ""
    return (
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: kube-system\n%sspec:\n  hostNetwork: true\n  containers:\n  - name: %s\n"
        "    image: %s\n    imagePullPolicy: IfNotPresent\n    command: %s\n%s%s"
    ) % (name, "  labels:\n    component: %s\n" % labels if labels else "", name, image, json.dumps(command), mounts, volumes)


def image_of(cluster, host, component):
    return re.search(r"^\s+image: (\S+)", cluster.run(host, "cat", "%s/%s.yaml" % (MANIFESTS, component)), re.MULTILINE).group(1)


def started(cluster, host, marker):
    """{process id: when it was started} of the processes whose command line holds this text: other ones have other ids or times."""
    script = r"for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline | grep -q -- '%s' && echo ${p#/proc/} $(cut -d' ' -f22 $p/stat); done 2>/dev/null"
    lines = cluster.run(host, "sh", "-c", script % marker.replace("-", "[-]", 1), check=False).splitlines()
    return dict(line.split() for line in lines)


MARKERS = {"haproxy": "-f /etc/haproxy", "kube-vip": "kube-vip-manager", "calico-etcd": "--data-dir=/var/etcd/calico-data"}


@pytest.fixture(scope="module")
def others(cluster):
    """Three such Pods on each node: one without labels, one whose label is like the control plane's, and a real etcd."""
    cluster.wait_ready(300)
    pause = cluster.get("-n", "shop", "deployment/web")["spec"]["template"]["spec"]["containers"][0]
    for host in cluster.nodes:
        etcd = ["etcd", "--name=calico", MARKERS["calico-etcd"], "--listen-client-urls=http://127.0.0.1:6666", "--listen-peer-urls=http://127.0.0.1:6667"]
        etcd += ["--advertise-client-urls=http://127.0.0.1:6666"]
        run = (pause.get("command") or ["/pause"])[:1] if "pause" in pause["image"] else ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait", "sh"]
        texts = {
            "haproxy": pod("haproxy", pause["image"], run + MARKERS["haproxy"].split()),
            "kube-vip": pod("kube-vip", pause["image"], [*run, MARKERS["kube-vip"]], labels="kube-vip"),
            "calico-etcd": pod("calico-etcd", image_of(cluster, host, "etcd"), etcd, volume="/var/etcd/calico-data"),
        }
        for name, text in texts.items():
            cluster.run(host, "sh", "-c", "cat > /tmp/x && mv /tmp/x %s/%s.yaml" % (MANIFESTS, name), stdin=text)
    for host in cluster.nodes:
        for name, marker in MARKERS.items():
            wait_for(lambda at=host, text=marker: started(cluster, at, text), 120, "%s runs on %s" % (name, host))
    yield
    for host in cluster.nodes:
        cluster.run(host, "sh", "-c", "cd %s && rm -f haproxy.yaml kube-vip.yaml calico-etcd.yaml" % MANIFESTS)
    for host in cluster.nodes:
        for name, marker in MARKERS.items():
            wait_for(lambda at=host, text=marker: not started(cluster, at, text), 120, "%s of %s is gone" % (name, host))
        cluster.run(host, "rm", "-rf", "/var/etcd")


def seen(cluster):
    """What must not change: the processes, and the manifests as files."""
    found = {}
    for host in cluster.nodes:
        for name, marker in MARKERS.items():
            found[host, name] = (started(cluster, host, marker), cluster.run(host, "stat", "-c", "%i %Z", "%s/%s.yaml" % (MANIFESTS, name)).strip())
    return found


def test_other_static_pods_keep_running_during_a_restore_and_its_undo(cluster, others):
    cluster.note("kept")
    cluster.playbook("snapshot.yml")
    cluster.note("newest")
    before = seen(cluster)
    assert all(processes for processes, _manifest in before.values())

    cluster.playbook("restore.yml", *CONFIRMED)
    cluster.wait_ready(300)
    assert (cluster.noted("kept"), cluster.noted("newest")) == ("yes", None)
    assert seen(cluster) == before

    # the rollback script stops processes by their names, so that it can be run without Ansible
    cluster.playbook("rollback.yml", "-e", "etcd_restore_undo=true")
    cluster.wait_ready(300)
    assert (cluster.noted("kept"), cluster.noted("newest")) == ("yes", "yes")
    assert seen(cluster) == before


def test_other_static_pods_are_named_in_the_plan(cluster, others):
    process = cluster.playbook("restore.yml", "--check")
    assert "haproxy" in process.stdout and "kube-vip" in process.stdout
