# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The off-site storage of snapshots, the key that decrypts them, and a new cluster that is made of nothing else, as docs/worst-day.md says."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
import sys

import pytest
import yaml
from cluster import ROOT
from restore_sandbox import NO_CONTAINERS, blocks_of

sys.path.insert(0, str(ROOT / "tests" / "integration"))

import servers


@pytest.fixture
def far(cluster, tmp_path, monkeypatch):
    """An S3 server that nodes and controller reach, and an rclone and an age on all of them."""
    for name in ("rclone", "age"):
        program = servers.program(name)
        monkeypatch.setenv("PATH", os.path.dirname(program) + os.pathsep + os.environ["PATH"])
        for node in cluster.nodes.values():
            subprocess.run([cluster.engine, "cp", program, node + ":/usr/local/bin/" + name], check=True)
    gateway = cluster.run("cp1", "sh", "-c", "ip route show default").split()[2]
    with servers.S3(tmp_path / "far", host=gateway) as server:
        yield server
    for host in cluster.nodes:
        cluster.run(host, "rm", "-f", "/usr/local/bin/rclone", "/usr/local/bin/age")


@pytest.fixture
def key(tmp_path):
    """(file with the private key, public key)"""
    path = tmp_path / "identity.txt"
    subprocess.run([servers.program("age-keygen"), "-o", str(path)], check=True, capture_output=True)
    return path, next(line.split()[-1] for line in path.read_text().splitlines() if "public key" in line)


INVENTORY = """
control_plane:
  hosts:
    cp1: {ansible_host: %(node)s}
  vars:
    ansible_connection: ssh
    ansible_user: root
    ansible_become: true
    ansible_python_interpreter: /usr/bin/python3
    ansible_ssh_pipelining: true
    ansible_ssh_executable: %(root)s/tests/sandbox/node-ssh
    ansible_ssh_transfer_method: piped
    ansible_ssh_args: ''
"""


@pytest.fixture
def new_machine(cluster, tmp_path):
    """make(NAME[, HOSTNAME[, ADDRESS]]): a machine that was never part of a cluster, as a cluster with an inventory of its own."""
    made = []

    def script(*words):
        command = [str(ROOT / "tests/sandbox/machine"), *words]
        process = subprocess.run(command, env=dict(os.environ, SANDBOX_NAME=cluster.name), check=False, capture_output=True, text=True)
        assert process.returncode == 0, "%s: %s" % (" ".join(words), process.stderr)
        return process.stdout.strip()

    def make(name, *more):
        made.append(name)
        machine = copy.copy(cluster)
        machine._addresses = {"cp1": script("up", name, *more)}
        machine.nodes = {"cp1": "%s-%s" % (cluster.name, name)}
        machine.inventory = tmp_path / (name + ".yml")
        machine.inventory.write_text(INVENTORY % {"node": machine.nodes["cp1"], "root": ROOT})
        return machine

    yield make
    for name in made:
        script("down", name)


# As far as a machine that is gone goes in a container: nothing of Kubernetes' is left, and no container.
GONE = """
kubeadm reset -f >/dev/null 2>&1
systemctl stop kubelet
rm -rf /etc/kubernetes/* /var/lib/etcd/* /var/lib/etcd.restore /var/backups/etcd
ls -A /etc/kubernetes /var/lib/etcd
"""


def lose_machines(cluster, *hosts):
    """All of them at once: none is left that another could say goodbye to."""
    for host in hosts:
        cluster.run(host, "sh", "-c", NO_CONTAINERS, timeout=300)
    for host in hosts:
        assert cluster.run(host, "sh", "-c", GONE, timeout=300).split() == ["/etc/kubernetes:", "/var/lib/etcd:"]


def kubeadm_documents(cluster, host):
    """What is known of a cluster elsewhere than in a bundle: documents for kubeadm that are about the machine and not about Kubernetes."""
    return [document for document in yaml.safe_load_all(cluster.run(host, "cat", "/kind/kubeadm.conf")) if document["kind"] != "ClusterConfiguration"]


def begin_anew(cluster, host, where, config, identity, machine, directory):
    """The commands of the page as they are printed there, up to an empty control plane on a new machine; the path of the key, which goes where they want it."""
    decrypting, beginning = blocks_of("docs/worst-day.md", "E: nothing is left")
    decrypted = directory / "decrypted"
    decrypted.mkdir()
    identity = identity.rename(decrypted / "etcd-backups.txt")
    remote, name = where.rsplit("/", 1)
    decrypting = decrypting.replace("etcd-cp1-20260102T030405Z.tar.zst.age", name).replace("s3:backups/prod", remote)
    # what the tests' own machine has set for some cloud is no part of this
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", decrypting], cwd=decrypted, env=dict(env, RCLONE_CONFIG=config), check=True)
    configuration = decrypted / "kubeadm-config.yaml"
    configuration.write_text(yaml.safe_dump_all([yaml.safe_load(configuration.read_text()), *machine]))
    cluster.run(host, "mkdir", "-m", "700", "/root/new")
    for what in ("pki", configuration.name):
        subprocess.run([cluster.engine, "cp", str(decrypted / what), cluster.nodes[host] + ":/root/new/"], check=True)
    # a container's kernel and memory are nothing that kubeadm would accept, and ours has no crictl
    beginning = "cd /root/new\n" + beginning.replace("--skip-phases=", "--skip-phases=preflight,")
    cluster.run(host, "bash", "-e", stdin=beginning, timeout=400)
    cluster.run(host, "rm", "-rf", "/root/new")
    return identity


def handed_out(cluster):
    """A token of a ServiceAccount: the Secret that was made with it, before Kubernetes 1.24."""
    found = cluster.get("-n", "shop", "secrets", "--field-selector", "type=kubernetes.io/service-account-token")
    return base64.b64decode(found["items"][0]["data"]["token"]).decode() if found else cluster.kubectl("-n", "shop", "create", "token", "default").strip()


def is_accepted(cluster, token):
    """Is a token that was handed out before still worth something?"""
    who = ["--kubeconfig", "/dev/null", "--server", "https://%s:6443" % cluster.address("cp1"), "--insecure-skip-tls-verify", "--token", token]
    return "selfsubjectaccessreviews" in cluster.run("cp1", "kubectl", *who, "auth", "can-i", "--list", check=False)
