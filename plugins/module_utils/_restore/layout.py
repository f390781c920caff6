# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a node has etcd's data, what restores keep of it, and the manifests that restores keep from kubelet.  Private to this collection."""

from __future__ import annotations

import contextlib
import glob
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import mount_of


class DataLayout:
    """All that follows from the path of a data directory, which need not exist.

    data_dir          the directory itself, without symbolic links
    mount_point       whether it is one, which cannot be renamed
    live              what a swap renames: the directory, or `member` inside a mount point
    database          etcd's database
    transactions_dir  where its restores are: meant to be in its own file system, so that every move is a rename
    """

    def __init__(self, data_dir):
        self.data_dir = os.path.realpath(data_dir)
        self.mount_point = mount_of(self.data_dir) == self.data_dir
        self.live = os.path.join(self.data_dir, "member") if self.mount_point else self.data_dir
        self.database = database_path(self.data_dir)
        # inside a mount point etcd only warns of what is not called `member` (3.4.23 to 3.7.3: etcdmain/etcd.go, identifyDataDirOrDie)
        self.transactions_dir = os.path.join(self.data_dir, ".restore") if self.mount_point else self.data_dir + ".restore"
        self._cluster_ids = os.path.join(self.transactions_dir, "cluster-ids")

    def crosses_file_systems(self):
        """Whether transactions_dir is in another file system than the data, so that nothing can be renamed between them."""
        return mount_of(self.transactions_dir) != mount_of(self.data_dir)

    def cluster_ids(self):
        """The cluster ids that etcd had on this node before and after its restores, oldest first: each restore makes a new one.  [] before the first."""
        with contextlib.suppress(FileNotFoundError), open(self._cluster_ids, encoding="utf-8") as stream:
            return stream.read().split()
        return []

    def remember_cluster_id(self, cluster_id):
        """So that a snapshot from before an earlier restore is known as this cluster's.  Raises OSError when it cannot be written."""
        known = self.cluster_ids()
        if cluster_id and cluster_id not in known:
            write_durably(self._cluster_ids, "".join(each + "\n" for each in known + [cluster_id]))


def held_directory(manifests_dir, transaction_id):
    """Path where the manifests of a restore wait: outside the directory that kubelet watches, in the same file system, which need not be the data's.

    It follows from manifests_dir, however that is written.  Inside it when it is a mount point: kubelet does not descend into directories, nor read what
    starts with a dot (pkg/kubelet/config/file.go).
    """
    manifests_dir = os.path.realpath(manifests_dir)
    name = "restore-" + transaction_id
    return os.path.join(manifests_dir, "." + name) if mount_of(manifests_dir) == manifests_dir else "%s.%s" % (manifests_dir, name)


def held_static_pods(manifests_dir):
    """{component: StaticPod} of the manifests that restores keep from kubelet now, as an unfinished one does.  Raises ValueError as read_static_pods."""
    pods = {}
    for held in sorted(glob.glob(glob.escape(held_directory(manifests_dir, "")) + "*")):
        if os.path.isdir(held):
            pods.update(read_static_pods(held))
    return pods
