# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything on the node is lost, the data and its snapshots, and then the node itself with its certificates: restores straight from an S3 server, where the
snapshots were sealed, with the private key that only the controller has."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess

import yaml
from cluster import wait_for
from story import blocks_of


def test_everything_on_the_node_is_lost(cluster, far, key, tmp_path, monkeypatch):
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.setenv("TMPDIR", str(landing))
    config = far.config(tmp_path / "rclone.conf")
    cluster.wait_ready()
    cluster.note("survivor", "off-site")
    identity, recipient = key
    sealing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient]}
    away = {"etcd_snapshot_off_site": far.where, "etcd_snapshot_rclone_config_source": config}
    cluster.run("cp1", "rm", "-rf", "/var/backups/etcd")
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(sealing, **away)))
    [name] = [path.name for path in far.stored("").iterdir() if path.suffix == ".age"]
    assert name.endswith(".db.zst.age") and b"survivor" not in far.stored(name).read_bytes()
    # no copy that anybody could read is left
    assert cluster.run("cp1", "sh", "-c", "ls -A /var/backups/etcd").split() == [".lock", name, name + ".json"]
    # neither rclone's configuration nor anything else of it stays on the node
    assert cluster.run("cp1", "sh", "-c", "ls -d /run/k8s-dr-* /root/.config/rclone 2>/dev/null || true").strip() == ""
    cluster.note("latecomer")

    cluster.run("cp1", "sh", "-c", "rm -rf /var/backups/etcd /var/lib/etcd; kill -9 $(pgrep -x etcd)")
    wait_for(
        lambda: (
            cluster.kubectl("get", "--raw", "/readyz", check=False, timeout=30).strip() == "ok"
            and cluster.kubectl("get", "namespaces", "-o", "name", check=False, timeout=30).count("\n") > 2
        ),
        240,
        "an empty cluster takes the place of the lost one",
    )

    off_site = ["-e", "etcd_restore_off_site=" + far.where, "-e", "etcd_restore_rclone_config=" + config]
    process = cluster.playbook("restore.yml", "-l", "cp1", *off_site, "-e", "etcd_restore_confirm=true", "-e", "etcd_restore_snapshot=absent.db", check=False)
    assert process.returncode != 0 and "has no snapshot absent.db" in process.stdout and "Nothing was done" in process.stdout
    process = cluster.playbook("restore.yml", "-l", "cp1", *off_site, "-e", "etcd_restore_confirm=true", check=False)
    assert process.returncode != 0 and "etcd_restore_identity_file=PATH" in process.stdout and "Nothing was done" in process.stdout
    opening = ["-e", "etcd_restore_confirm=true", "-e", "etcd_restore_identity_file=%s" % identity]
    output = cluster.playbook("restore.yml", "-l", "cp1", *off_site, *opening).stdout
    assert "from      %s/%s" % (far.where, name) in output
    assert cluster.run("cp1", "sh", "-c", "grep -rl AGE-SECRET-KEY /etc /root /tmp /run /var/lib/etcd.restore 2>/dev/null || true").strip() == ""
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    assert cluster.transactions()[-1].state == "committed"
    # with a sealed one on the node it is the same
    cluster.playbook("snapshot.yml", "-e", json.dumps(sealing))
    cluster.note("latecomer")
    output = cluster.playbook("restore.yml", "-l", "cp1", *opening).stdout
    assert ".db.zst.age on cp1" in output
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    # and nothing of it on the controller
    assert list(landing.glob("k8s-dr-*")) == [] and pathlib.Path(config).exists()


# As far as a machine that is gone goes in a container: nothing of Kubernetes' is left, and no container.
GONE = """
kubeadm reset -f >/dev/null 2>&1
systemctl stop kubelet
ctr -n k8s.io tasks ls -q | xargs -r -n 1 ctr -n k8s.io tasks kill -s KILL
rm -rf /etc/kubernetes/* /var/lib/etcd/* /var/lib/etcd.restore /var/backups/etcd
ls -A /etc/kubernetes /var/lib/etcd
"""


def handed_out(cluster):
    """A token of a ServiceAccount: the Secret that was made with it, before Kubernetes 1.24."""
    found = cluster.get("-n", "shop", "secrets", "--field-selector", "type=kubernetes.io/service-account-token")["items"]
    return base64.b64decode(found[0]["data"]["token"]).decode() if found else cluster.kubectl("-n", "shop", "create", "token", "default").strip()


def test_nothing_is_left(cluster, far, key, tmp_path):
    """The commands of docs/worst-day.md as they are printed there: a new control plane out of what lies off-site, and nothing else."""
    identity, recipient = key
    config = far.config(tmp_path / "rclone.conf")
    cluster.wait_ready()
    cluster.note("survivor", "off-site")
    sealing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient], "etcd_snapshot_bundle": True}
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(sealing, etcd_snapshot_off_site=far.where, etcd_snapshot_rclone_config_source=config)))
    [name] = [path.name for path in far.stored("").iterdir() if path.name.endswith(".tar.zst.age")]
    cluster.note("latecomer")
    # What was known of this cluster elsewhere than in the bundle: of its machine, and not of Kubernetes.
    machine = [document for document in yaml.safe_load_all(cluster.run("cp1", "cat", "/kind/kubeadm.conf")) if document["kind"] != "ClusterConfiguration"]
    token = handed_out(cluster)

    assert cluster.run("cp1", "sh", "-c", GONE, timeout=300).split() == ["/etc/kubernetes:", "/var/lib/etcd:"]

    opening, beginning = blocks_of("docs/worst-day.md", "E: nothing is left")
    opened = tmp_path / "opened"
    opened.mkdir()
    identity.rename(opened / "etcd-backups.txt")
    opening = opening.replace("etcd-cp1-20260102T030405Z.tar.zst.age", name).replace("s3:backups/prod", far.where)
    # what the tests' own machine has set for some cloud is no part of this
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", opening], cwd=opened, env=dict(env, RCLONE_CONFIG=config), check=True)
    configuration = opened / "kubeadm-config.yaml"
    configuration.write_text(yaml.safe_dump_all([yaml.safe_load(configuration.read_text()), *machine]))
    cluster.run("cp1", "mkdir", "-m", "700", "/root/new")
    for what in ("pki", configuration.name):
        subprocess.run([cluster.engine, "cp", str(opened / what), cluster.nodes["cp1"] + ":/root/new/"], check=True)
    # a container's kernel and memory are nothing that kubeadm would accept, and ours has no crictl
    beginning = "cd /root/new\n" + beginning.replace("--skip-phases=", "--skip-phases=preflight,")
    cluster.run("cp1", "bash", "-e", stdin=beginning, timeout=400)
    assert cluster.noted("survivor") is None

    cluster.playbook(
        *("restore.yml", "-l", "cp1", "-e", "etcd_restore_confirm=true"),
        *("-e", "etcd_restore_off_site=" + far.where, "-e", "etcd_restore_rclone_config=" + config),
        *("-e", "etcd_restore_identity_file=%s" % (opened / "etcd-backups.txt"), "-e", "etcd_restore_foreign=true"),
    )
    cluster.run("cp1", "rm", "-rf", "/root/new")
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    # It is the old cluster and no other: what was handed out before is still worth something, and what ran runs again.
    who = ["--kubeconfig", "/dev/null", "--server", "https://%s:6443" % cluster.address("cp1"), "--insecure-skip-tls-verify", "--token", token]
    assert "selfsubjectaccessreviews" in cluster.run("cp1", "kubectl", *who, "auth", "can-i", "--list")
    wait_for(lambda: {pod["status"]["phase"] for pod in cluster.get("-n", "shop", "pods")["items"]} == {"Running"}, 120, "the shop's Pods run")
