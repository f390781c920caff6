# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/drill.yml and verify.yml on a control plane that serves: what Kubernetes itself stores, and what stays untouched."""

from __future__ import annotations

import json

import pytest

OLDEST = "2.17"


def etcds(cp1):
    """What runs as etcd on the node, by process."""
    return cp1.check_output("pgrep -x etcd -a")


def term_of(cluster):
    return cluster.etcdctl("endpoint", "status")[0]["Status"]["raftTerm"]


@pytest.mark.parametrize("core", [None, OLDEST])
def test_a_drill_beside_the_live_etcd(cluster, cp1, core):
    snapshot = cluster.snapshot()
    before = etcds(cp1), term_of(cluster)
    output = cluster.playbook("drill.yml", **({"core": core} if core else {})).stdout
    assert "%s: restored by etc" % snapshot in output
    # nothing of it is stored in a way that the drill does not know
    assert "only counted" not in output
    levels = json.loads(cp1.file(snapshot + ".json").content_string)["levels"]
    assert all(levels[name]["ok"] for name in ("checksum", "status", "restore", "drill"))
    assert levels["drill"]["secrets"] > 0 and levels["drill"]["keys"] >= levels["drill"]["objects"] > 100
    assert (etcds(cp1), term_of(cluster)) == before
    assert cp1.check_output("find /var/lib -maxdepth 1 -name '.k8s-dr-*'") == ""


def test_an_api_server_shows_every_object(cluster, cp1):
    snapshot = cluster.snapshot()
    before = etcds(cp1), term_of(cluster)
    named = ("-e", "etcd_drill_level=objects", "-e", "etcd_drill_snapshot=" + snapshot)
    output = cluster.playbook("verify.yml", *named).stdout
    found = json.loads(cp1.file(snapshot + ".json").content_string)
    objects = found["levels"]["objects"]
    assert "; %d objects of %d resources shown by kube-apiserver " % (objects["objects"], objects["resources"]) in output
    assert (found["level"], objects["ok"], objects["unserved"]) == ("objects", True, {})
    counts = found["inventory"]["objects"].items()
    assert objects["objects"] == sum(sum(each.values()) for resource, each in counts if resource not in ("ranges", "masterleases", "peerserverleases"))
    assert (etcds(cp1), term_of(cluster)) == before
    nothing = "ls -d /run/k8s-dr-browse /etc/tmpfiles.d/k8s-dr-browse.conf /var/lib/.k8s-dr-* 2>/dev/null || true"
    assert cp1.check_output(nothing) == ""
    # one that an administrator looks into stays
    cluster.playbook("browse.yml", "-e", "etcd_browse_snapshot=" + snapshot)
    process = cluster.playbook("verify.yml", *named, check=False)
    assert process.returncode == 2 and "another snapshot is served on this host; run this again when that has ended" in process.stdout
    cp1.check_output("kubectl --kubeconfig /run/k8s-dr-browse/kubeconfig get namespaces")
    cluster.playbook("browse.yml", "-e", "etcd_browse_state=absent")
    assert cp1.check_output(nothing) == ""


@pytest.mark.parametrize("core", [None, OLDEST])
def test_damage_is_found_and_reported(cluster, cp1, core):
    more = {"core": core} if core else {}
    directory = "/var/backups/molecule-proof"
    variables = ("-e", "etcd_snapshot_dir=" + directory)
    cp1.check_output("rm -rf %s", directory)
    cluster.playbook("snapshot.yml", *variables)
    cluster.playbook("verify.yml", *variables, **more)
    (name,) = [name for name in cp1.check_output("ls %s", directory).split() if name.endswith(".db")]
    cp1.check_output("printf '{{ braces }}' | dd of=%s conv=notrunc bs=1 seek=20000 status=none", "%s/%s" % (directory, name))
    result = cluster.playbook("verify.yml", *variables, check=False, **more)
    assert result.returncode == 2 and "its sha256 has changed" in result.stdout
    cp1.check_output("rm -rf %s", directory)
