# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot as the data of a new etcd, on a machine that has none.  Private to this collection.

The data gets its name by one rename, after the name of the snapshot was written beside it.  So whatever is in the data directory is whole, and a run
after one that was killed knows whether it is what it would restore.
"""

from __future__ import annotations

import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import database_path, packed_file
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.members_on_disk import in_words, without_leftovers
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, offline_tool, restore_misfit, version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import rename_durably, sync_tree, write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import shortage
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

# Beside etcd's `member`, so that a mount point may be the data directory; etcd looks at nothing else in there.
MARK = ".k8s-dr-rebuilt"
# The write-ahead logs of the restored etcd.
_LOGS = 192 * 1024 * 1024


def is_there(data_dir, sha256):
    """Whether the data directory has the data of this snapshot; Refused when it has other data."""
    member = os.path.join(data_dir, "member")
    if not os.path.lexists(member):
        return False
    try:
        with open(os.path.join(data_dir, MARK), encoding="utf-8") as stream:
            found = stream.read().strip()
    except FileNotFoundError:
        found = ""
    if found != sha256:
        raise Refused(
            "%s holds data of %s; nothing was changed. Move it away if it is not needed"
            % (data_dir, "the snapshot with the SHA-256 %s" % found if found else "another etcd")
        )
    return True


def check(params, tool):
    """Refused for what would fail."""
    if tool is None:
        raise Refused("neither etcdctl nor etcdutl on this machine can restore a snapshot; give etcdutl")
    packed = packed_file(params["path"])
    if packed:
        raise Refused(packed)
    misfit = restore_misfit(tool.version, params["etcd_version"])
    if misfit:
        raise Refused(misfit)
    if params["bump_revision"] and not tool.can_bump:
        raise Refused("%s %s cannot raise the revision (--bump-revision)" % (tool.name, tool.version))
    short = shortage(params["data_dir"], int(os.path.getsize(params["path"]) * 1.1) + _LOGS, "the restored data")
    if short:
        raise Refused(short)


def restore(params, warn, look_only=False):
    """Restore unless the data is there; whether that was to be done.  Raises Refused, ToolError and OSError."""
    data_dir = params["data_dir"]
    if is_there(data_dir, params["sha256"]):
        return False
    tool = offline_tool("restore", *find_tools(params["etcdctl"], params["etcdutl"]))
    check(params, tool)
    if look_only:
        return True
    os.makedirs(data_dir, 0o700, exist_ok=True)
    os.chmod(data_dir, 0o700)
    with WorkDir(data_dir) as work:
        restored = os.path.join(work.path, "data")
        argv = [tool.path, "snapshot", "restore", params["path"], "--data-dir", restored, "--name=" + params["name"]]
        argv += ["--initial-cluster=" + params["initial_cluster"], "--initial-advertise-peer-urls=" + params["peer_urls"]]
        argv += ["--initial-cluster-token=" + params["cluster_token"]]
        if params["bump_revision"]:
            argv += ["--bump-revision=%d" % params["bump_revision"], "--mark-compacted"]
        result = run_tool(argv, params["timeout"])
        if result.rc != 0 or not os.path.isfile(database_path(restored)):
            raise Refused("`%s snapshot restore` %s: %s" % (tool.name, result.how(), result.last_words()))
        try:
            left = without_leftovers(restored, params["initial_cluster"], version_tuple(tool.version)[:2] >= (3, 5))
        except ValueError as exc:
            raise Refused("%s %s: %s" % (tool.name, tool.version, exc)) from exc
        if left:
            warn("members of the cluster from before were removed from the restored data: %s" % in_words(left))
        sync_tree(restored)
        write_durably(os.path.join(data_dir, MARK), params["sha256"] + "\n")
        rename_durably(os.path.join(restored, "member"), os.path.join(data_dir, "member"))
    return True
