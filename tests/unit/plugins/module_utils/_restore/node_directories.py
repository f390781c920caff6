# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node for tests of a restore: plain directories, real sh, no etcd and no kubelet."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess

from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import steps
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.control_plane import ControlPlane
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import Transaction, list_transactions

FILES = ["etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"]


class Node:
    """A node's directories: the data says "old" or "new", the manifests are empty files."""

    def __init__(self, root, mount_point):
        self.data_dir = root / "var/lib/etcd"
        self.live = self.data_dir / "member" if mount_point else self.data_dir
        self.manifests = root / "etc/kubernetes/manifests"
        self.manifests.mkdir(parents=True)
        for name in [*FILES, "kube-vip.yaml"]:
            (self.manifests / name).write_text("component: x\n")
        self.make_data(self.data_dir, "old")
        base = self.data_dir / ".restore" if mount_point else root / "var/lib/etcd.restore"
        self.path = base / "20261122T170501Z-4f1c"
        self.transaction = Transaction(str(self.path))
        self.plan = {
            "id": self.path.name,
            "path": str(self.path),
            "host": "cp1",
            "data_dir": str(self.data_dir),
            "live": str(self.live),
            "manifests_dir": str(self.manifests),
            "held": str(root / "etc/kubernetes/manifests.restore-x"),
            "files": FILES,
            "health_urls": ["https://127.0.0.1:2379"],
            "listen_urls": [],
            "health_url": "",
            "unit": str(root / "units/etcd-restore-x"),
        }
        self.root = root
        self.begin()
        self.systemctl = root / "bin/systemctl"
        self.systemctl.parent.mkdir()
        self.systemctl.write_text('#!/bin/sh\necho "$*" >> "%s.log"\n' % self.systemctl)
        self.systemctl.chmod(0o755)
        self.environment = dict(os.environ, PATH="%s:%s" % (self.systemctl.parent, os.environ["PATH"]))

    def quick(self, name):
        """A program that the rollback script finds and that does nothing."""
        program = self.systemctl.parent / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)

    def begin(self):
        self.transaction.begin(self.plan)
        # The machine that runs the tests may be a node itself: neither its processes nor its kubelet are meant, or waited for.
        script = self.path / "rollback"
        script.write_text(script.read_text().replace("/proc/[0-9]*", str(self.root / "proc/[0-9]*")))

    def kubelet(self):
        """What was asked of systemd."""
        return (self.systemctl.parent / "systemctl.log").read_text().splitlines()

    @staticmethod
    def make_data(directory, words):
        (directory / "member/snap").mkdir(parents=True)
        (directory / "member/snap/db").write_text(words)

    def stage(self):
        with self.transaction.step("staging", "staged"):
            self.make_data(self.path / "staged", "new")

    def data(self):
        return (self.data_dir / "member/snap/db").read_text()

    def listed(self):
        """The node's restores as the modules return them."""
        return list_transactions(DataLayout(str(self.data_dir)))

    def manifest_names(self):
        return sorted(path.name for path in self.manifests.iterdir())

    def start(self):
        """What start_etcd and start do to the manifests."""
        for doing, done, names in (("starting-etcd", "etcd-started", FILES[:1]), ("starting", "started", FILES[1:])):
            with self.transaction.step(doing, done):
                for name in names:
                    ControlPlane(self.transaction).give_back(name)

    def rollback(self, *args):
        return subprocess.run(["sh", str(self.path / "rollback"), *args], capture_output=True, text=True, timeout=60, check=False, env=self.environment)

    def is_old(self):
        assert self.data() == "old"
        assert self.manifest_names() == sorted([*FILES, "kube-vip.yaml"])
        assert not os.path.exists(self.plan["held"])
        assert not (self.path / "old").exists()
        assert self.transaction.state()[0] == "rolled-back"


# every point at which a controller, a node or a disk can stop: what was done so far
POINTS = ["begun", "staged", "stopping", "stopped", "swapping-1", "swapping-2", "swapped", "etcd-started", "started"]


def bring_to(node, point):
    if point == "begun":
        return
    node.stage()
    if point == "staged":
        return
    if point == "stopping":
        with contextlib.suppress(KeyboardInterrupt), node.transaction.step("stopping", "stopped"):
            os.mkdir(node.plan["held"])
            os.rename(node.manifests / FILES[3], os.path.join(node.plan["held"], FILES[3]))
            raise KeyboardInterrupt
        return
    steps.stop(node.transaction, 5)
    if point == "stopped":
        return
    if point.startswith("swapping"):
        with contextlib.suppress(KeyboardInterrupt), node.transaction.step("swapping", "swapped"):
            os.rename(node.live, node.path / "old")
            if point == "swapping-2":
                staged = node.path / "staged"
                os.rename(staged / "member" if node.live.name == "member" else staged, node.live)
            raise KeyboardInterrupt
        return
    steps.swap(node.transaction)
    if point == "swapped":
        return
    if point == "etcd-started":
        with node.transaction.step("starting-etcd", "etcd-started"):
            ControlPlane(node.transaction).give_back(FILES[0])
        return
    node.start()


def units(node):
    """What systemd would find."""
    directory = pathlib.Path(node.plan["unit"]).parent
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()) if directory.exists() else []


ARMED = ["etcd-restore-x.service", "etcd-restore-x.timer", "multi-user.target.wants/etcd-restore-x.service"]
