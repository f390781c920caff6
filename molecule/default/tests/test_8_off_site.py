# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything on the node is lost, the data and its snapshots, and then the node itself with its certificates: restores straight from an S3 server, where the
snapshots were encrypted, with the private key that only the controller has."""

from __future__ import annotations

import json
import pathlib

from cluster import wait_for
from remote_cluster import begin_anew, handed_out, is_accepted, kubeadm_documents, lose_machines


def test_everything_on_the_node_is_lost(cluster, far, key, tmp_path, monkeypatch):
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.setenv("TMPDIR", str(landing))
    config = far.config(tmp_path / "rclone.conf")
    cluster.wait_ready()
    cluster.note("survivor", "off-site")
    identity, recipient = key
    packing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient]}
    away = {"etcd_snapshot_off_site": far.where, "etcd_snapshot_rclone_config_source": config}
    cluster.run("cp1", "rm", "-rf", "/var/backups/etcd")
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(packing, **away)))
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
    decryption = ["-e", "etcd_restore_confirm=true", "-e", "etcd_restore_identity_file=%s" % identity]
    output = cluster.playbook("restore.yml", "-l", "cp1", *off_site, *decryption).stdout
    assert "from      %s/%s" % (far.where, name) in output
    assert cluster.run("cp1", "sh", "-c", "grep -rl AGE-SECRET-KEY /etc /root /tmp /run /var/lib/etcd.restore 2>/dev/null || true").strip() == ""
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    assert cluster.transactions()[-1].state == "committed"
    # with an encrypted one on the node it is the same
    cluster.playbook("snapshot.yml", "-e", json.dumps(packing))
    cluster.note("latecomer")
    output = cluster.playbook("restore.yml", "-l", "cp1", *decryption).stdout
    assert ".db.zst.age on cp1" in output
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    # and nothing of it on the controller
    assert list(landing.glob("k8s-dr-*")) == [] and pathlib.Path(config).exists()


def test_the_cluster_is_lost(cluster, far, key, tmp_path):
    """A new control plane from off-site storage, and nothing else."""
    identity, recipient = key
    config = far.config(tmp_path / "rclone.conf")
    cluster.wait_ready()
    cluster.note("survivor", "off-site")
    packing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient], "etcd_snapshot_bundle": True}
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(packing, etcd_snapshot_off_site=far.where, etcd_snapshot_rclone_config_source=config)))
    [name] = [path.name for path in far.stored("").iterdir() if path.name.endswith(".tar.zst.age")]
    cluster.note("latecomer")
    token = handed_out(cluster)
    machine = kubeadm_documents(cluster, "cp1")

    lose_machines(cluster, "cp1")
    identity = begin_anew(cluster, "cp1", far.where + "/" + name, config, identity, machine, tmp_path)
    assert cluster.noted("survivor") is None

    cluster.playbook(
        *("restore.yml", "-l", "cp1", "-e", "etcd_restore_confirm=true"),
        *("-e", "etcd_restore_off_site=" + far.where, "-e", "etcd_restore_rclone_config=" + config),
        *("-e", "etcd_restore_identity_file=%s" % identity, "-e", "etcd_restore_foreign=true"),
    )
    cluster.wait_ready()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    # It is the old cluster and no other: what was handed out before is still worth something, and what ran runs again.
    assert is_accepted(cluster, token)
    wait_for(lambda: {pod["status"]["phase"] for pod in cluster.get("-n", "shop", "pods")["items"]} == {"Running"}, 120, "the shop's Pods run")
