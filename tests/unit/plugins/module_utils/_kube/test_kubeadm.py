# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether kubeadm changes the node now, and what it left there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import kubeadm

from .._system.test_procs import add, proc

__all__ = ["proc"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("upgrade apply v1.37.2 -y", "upgrade apply"),
        ("upgrade apply --yes=true 1.37.2", "upgrade apply"),
        ("-v 5 upgrade node", "upgrade node"),
        ("--v=5 --rootfs /host upgrade --v 5 apply v1.37.2", "upgrade apply"),
        ("upgrade node phase control-plane", "upgrade node"),
        ("init --config /root/upgrade", "init"),
        ("init phase etcd local", "init"),
        ("join 192.0.2.11:6443 --token a.b --control-plane", "join"),
        ("reset -f", "reset"),
        ("certs renew all", "certs renew"),
        ("upgrade plan", ""),
        ("upgrade diff v1.37.2", ""),
        ("upgrade", ""),
        ("upgrade apply --help", ""),
        ("certs check-expiration", ""),
        ("token create --print-join-command", ""),
        ("config images pull", ""),
        ("version", ""),
        ("", ""),
    ],
)
def test_what_changes_a_node(proc, arguments, command):
    add(proc, 7, ["/usr/bin/kubeadm", *arguments.split()], "0::/user.slice\n", started=9900)
    expected = [{"pid": 7, "command": "kubeadm " + command, "seconds": 100}] if command else []
    assert kubeadm.running(str(proc)) == expected


@pytest.mark.parametrize(
    ("name", "found"),
    [("kubeadm", 1), ("./kubeadm-v1.37.2", 1), ("kubeadm_1.37", 1), ("kubeadm1.37", 1), ("vim", 0), ("kubeadm-helper", 0), ("sudo", 0)],
)
def test_which_programs(proc, name, found):
    add(proc, 7, [name, "upgrade", "apply", "kubeadm"], "0::/\n")
    assert len(kubeadm.running(str(proc))) == found


def test_the_oldest_first_and_none_of_other_networks(proc):
    add(proc, 7, ["kubeadm", "reset"], "0::/\n", started=9990)
    add(proc, 8, ["kubeadm", "upgrade", "apply"], "0::/\n", started=9000)
    # of a kind node on this machine
    add(proc, 9, ["kubeadm", "upgrade", "apply"], "0::/\n", network="net:[2]")
    assert [(each["pid"], each["seconds"]) for each in kubeadm.running(str(proc))] == [(8, 1000), (7, 10)]


def test_one_that_runs_here(tmp_path):
    (tmp_path / "upgrade").write_text("import sys; print('here', flush=True); sys.stdin.read()")
    argv = ["kubeadm", "upgrade", "node"]
    with subprocess.Popen(argv, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout.readline() == b"here\n"
        found = [each for each in kubeadm.running() if each["pid"] == process.pid]
        assert [each["command"] for each in found] == ["kubeadm upgrade node"]
        assert 0 <= found[0]["seconds"] < 60
        process.stdin.close()


@pytest.mark.parametrize("backwards", [True, False])
def test_manifests_that_an_upgrade_kept(tmp_path, monkeypatch, backwards):
    # a directory has no order
    look = kubeadm.glob.glob
    monkeypatch.setattr(kubeadm.glob, "glob", lambda pattern: sorted(look(pattern), reverse=backwards))
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    assert kubeadm.kept_manifests(str(manifests), ["etcd"]) == {}
    for name, components in {
        "kubeadm-backup-manifests-2025-01-01-00-00-00": ("etcd", "kube-apiserver"),
        "kubeadm-backup-manifests-2026-01-01-00-00-00": ("etcd",),
        "kubeadm-backup-manifests-2026-02-01-00-00-00": (),
        "kubeadm-upgraded-manifests123": ("etcd", "kube-apiserver"),
        "kubeadm-backup-etcd-2026-01-01-00-00-00": ("etcd",),
    }.items():
        (tmp_path / "tmp" / name).mkdir(parents=True)
        for component in components:
            (tmp_path / "tmp" / name / (component + ".yaml")).write_text("x")
    kept = str(tmp_path / "tmp/kubeadm-backup-manifests-202%s-01-01-00-00-00/%s.yaml")
    expected = {"etcd": kept % (6, "etcd"), "kube-apiserver": kept % (5, "kube-apiserver")}
    assert kubeadm.kept_manifests(str(manifests), ["etcd", "kube-apiserver", "kube-scheduler"]) == expected
    assert kubeadm.kept_manifests(str(manifests), []) == {}
    os.symlink(manifests, tmp_path / "elsewhere")
    assert kubeadm.kept_manifests(str(tmp_path / "elsewhere"), ["etcd"]) == {"etcd": expected["etcd"]}
