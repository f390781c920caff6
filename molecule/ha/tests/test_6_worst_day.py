# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All three machines are lost, with everything on them: one new control plane is made from off-site storage, and two join it."""

from __future__ import annotations

import json

from cluster import wait_for
from remote_cluster import begin_anew, handed_out, is_accepted, kubeadm_documents, lose_machines


def test_all_three_control_planes_are_lost(cluster, far, key, tmp_path):
    identity, recipient = key
    config = far.config(tmp_path / "rclone.conf")
    cluster.wait_ready(300)
    cluster.note("survivor", "off-site")
    packing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient], "etcd_snapshot_bundle": True}
    away = {"etcd_snapshot_off_site": far.where, "etcd_snapshot_rclone_config_source": config, "etcd_snapshot_from": "cp1"}
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(packing, **away)))
    [name] = [path.name for path in far.stored("").iterdir() if path.name.endswith(".tar.zst.age")]
    cluster.note("latecomer")
    token = handed_out(cluster)
    machine = kubeadm_documents(cluster, "cp1")
    others = [cluster.run(host, "hostname").strip() for host in ("cp2", "cp3")]

    lose_machines(cluster, *cluster.nodes)
    cluster.power("off", "cp2", "cp3")
    identity = begin_anew(cluster, "cp1", far.where + "/" + name, config, identity, machine, tmp_path)
    assert cluster.noted("survivor") is None

    said = cluster.playbook(
        *("restore.yml", "-l", "cp1", "-e", "etcd_restore_confirm=true", "-e", "etcd_restore_foreign=true"),
        *("-e", "etcd_restore_off_site=" + far.where, "-e", "etcd_restore_rclone_config=" + config, "-e", "etcd_restore_identity_file=%s" % identity),
    ).stdout
    # the snapshot has them as nodes, and they are not waited for
    assert all("the kubelet of node %s does not renew its lease, and was not seen in the cluster before" % other in said for other in others)
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    assert is_accepted(cluster, token)

    cluster.kubectl("delete", "node", *others)
    cluster.power("on", "cp2", "cp3")
    for host in ("cp2", "cp3"):
        wait_for(lambda host=host: cluster.run(host, "systemctl", "is-system-running", check=False).strip() in ("running", "degraded"), 120, host + " boots")
        cluster.join(host)
    cluster.wait_ready(300)
    cluster.prove_one_cluster()
    assert cluster.noted("survivor") == "off-site" and cluster.noted("latecomer") is None
    wait_for(lambda: {pod["status"]["phase"] for pod in cluster.get("-n", "shop", "pods")["items"]} == {"Running"}, 180, "the shop's Pods run")
