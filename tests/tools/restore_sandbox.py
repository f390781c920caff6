# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox, with the helpers of the tests of a restore."""

from __future__ import annotations

import base64
import collections
import re
import time

from cluster import ROOT, Sandbox, wait_for

DATA = "/var/lib/etcd"
NAMESPACE = "molecule"
# kubeadm reset leaves the containers alone where there is no crictl
NO_CONTAINERS = """
systemctl stop kubelet
until [ -z "$(ctr -n k8s.io containers list -q)" ]; do
  for container in $(ctr -n k8s.io containers list -q); do
    ctr -n k8s.io tasks delete --force $container; ctr -n k8s.io containers delete $container
  done >/dev/null 2>&1
done
"""
JOIN = r"""
set -e
sed -e "s/^    token: .*/    token: $1/" -e "s/^controlPlane:$/controlPlane:\n  certificateKey: $2/" /kind/kubeadm.conf >/root/join.conf
kubeadm join --config /root/join.conf --skip-phases=preflight
rm /root/join.conf
"""
Transaction = collections.namedtuple("Transaction", "path id state")


def blocks_of(page, heading):
    """The commands of a page of the documentation, below that heading."""
    text = (ROOT / page).read_text(encoding="utf-8")
    [section] = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(heading + "\n")]
    return re.findall(r"^```(?:sh|console)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def keys(cluster):
    """{key: revision at which it was changed} of the live etcd, without what changes all the time."""
    found = {base64.b64decode(key["key"]).decode(): key["mod_revision"] for key in cluster.etcdctl("get", "/registry/", "--prefix")["kvs"]}
    return {key: revision for key, revision in found.items() if not re.match(r"/registry/(\w*leases|events|minions|pods)/", key)}


def left(cp1):
    """What of a snapshot that is served is on the node, a host of testinfra."""
    where = "find /run/k8s-dr-browse /var/lib/.k8s-dr-* /etc/tmpfiles.d/k8s-dr-browse.conf -maxdepth 0 2>/dev/null"
    units = "systemctl list-units --all --plain --no-legend 'k8s-dr-browse*'"
    processes = "pgrep -f '[k]8s-dr-browse|[.]k8s-dr-'"
    mounts = "grep -E 'k8s-dr-browse|[.]k8s-dr-' /proc/self/mountinfo"
    return [line for command in (where, units, processes, mounts) for line in cp1.run(command).stdout.splitlines()]


class Cluster(Sandbox):
    """A cluster to take snapshots of, to have accidents in, and to restore."""

    data = DATA
    namespace = NAMESPACE
    confirmed = ("-l", "cp1", "-e", "etcd_restore_confirm=true")

    def snapshot(self):
        """Take one; its path."""
        self.playbook("snapshot.yml", "-l", "cp1")
        return self.run("cp1", "sh", "-c", "ls -t /var/backups/etcd/*.db | head -n 1").strip()

    def restore(self, *args, check=True):
        """Restore the newest snapshot on cp1."""
        return self.playbook("restore.yml", *self.confirmed, *args, check=check)

    def note(self, name, text="yes"):
        """Leave a ConfigMap."""
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": {"text": text}})

    def noted(self, name):
        """The text of that ConfigMap, or None."""
        found = self.get("-n", NAMESPACE, "configmap/" + name)
        return found and found["data"]["text"]

    def transactions(self, host="cp1"):
        """The restores that a node has recorded, oldest first."""
        text = self.run(host, "sh", "-c", "cd %s.restore 2>/dev/null && for d in *; do [ ! -e $d/state ] || echo $d $(cat $d/state); done || :" % DATA)
        return [Transaction("%s.restore/%s" % (DATA, line.split()[0]), *line.split()[:2]) for line in text.splitlines()]

    def live(self, host="cp1"):
        """What identifies a data directory of a node."""
        return self.run(host, "stat", "-c", "%d:%i", DATA + "/member/snap/db").strip()

    def etcd_process(self, host="cp1"):
        """When etcd was started: it changes whenever etcd is restarted."""
        return self.run(host, "sh", "-c", "stat -c %Y-%i /proc/$(pgrep -xo etcd)/ns/pid").strip()

    def wait_ready(self, timeout=180):
        """Wait until every API server answers and every node is Ready."""

        def ready():
            if any(self.own_kubectl(host, "get", "--raw", "/readyz", check=False, timeout=30).strip() != "ok" for host in self.nodes):
                return False
            conditions = [item for node in self.get("nodes")["items"] for item in node["status"]["conditions"] if item["type"] == "Ready"]
            return all(item["status"] == "True" for item in conditions)

        wait_for(ready, timeout, "the cluster works")

    def prove_one_cluster(self):
        """Every member knows all by their real addresses, all hold the same, and what is written through an API server is read through each."""
        members = {}
        for host in self.nodes:
            status = self.etcdctl("endpoint", "status", host=host)[0]["Status"]
            listed = self.etcdctl("member", "list", host=host)["members"]
            members[host] = (status["header"]["cluster_id"], sorted((item.get("name", ""), tuple(item["peerURLs"])) for item in listed))
            manifest = self.run(host, "cat", "/etc/kubernetes/manifests/etcd.yaml")
            name, url = (re.search(r"--%s=(\S+)" % flag, manifest).group(1) for flag in ("name", "initial-advertise-peer-urls"))
            assert (name, (url,)) in members[host][1], members
        assert len({str(item) for item in members.values()}) == 1, members
        assert all(len(item[1]) == len(self.nodes) for item in members.values()), members

        def hashes():
            revision = min(self.revision(host) for host in self.nodes)
            return {str(self.etcdctl("endpoint", "hashkv", "--rev=%d" % revision, host=host)[0]["HashKV"]["hash"]) for host in self.nodes}

        # what a compaction in between takes is in the one and not in the other
        wait_for(lambda: len(hashes()) == 1, 20, "all members hold the same at one revision")

        marker = "%d" % time.time()
        for host in self.nodes:
            self.own_kubectl(host, "-n", self.namespace, "create", "configmap", "by-%s-%s" % (host, marker), "--from-literal=text=" + marker)
        for host in self.nodes:
            names = ["configmap/by-%s-%s" % (other, marker) for other in self.nodes]
            read = self.own_kubectl(host, "-n", self.namespace, "get", *names, "-o", "jsonpath={.items[*].data.text}")
            assert read.split() == [marker] * len(names), (host, read)

    def wait_running(self, name, marker, timeout=120):
        """Wait until the Deployment is available and its process really runs."""
        wait_for(
            lambda: ((self.get("-n", NAMESPACE, "deployment/" + name) or {}).get("status", {}).get("availableReplicas") and self.processes("cp1", marker)),
            timeout,
            "Deployment %s runs" % name,
        )

    def wait_gone(self, marker, timeout=120):
        """Wait until no process of these containers is left."""
        wait_for(lambda: not self.processes("cp1", marker), timeout, "the processes of %s end" % marker)

    def join(self, host):
        """Have kubeadm make a machine with nothing on it a control plane of the cluster."""
        key = self.run("cp1", "kubeadm", "init", "phase", "upload-certs", "--upload-certs").split()[-1]
        token = self.run("cp1", "kubeadm", "token", "create").strip()
        self.run(host, "sh", "-c", JOIN, "join", token, key, timeout=400)

    def open(self):
        """Wait until it works, and make a namespace for the tests."""
        self.wait_ready()
        self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", timeout=300)
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        return self
