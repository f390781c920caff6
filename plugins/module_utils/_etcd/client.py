# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How to talk to one etcd member.  Private to this collection."""

from __future__ import annotations

import json
import os
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import listens
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool

# Where kubeadm has etcd listen for its own node, and where it does on one that is set up for IPv6.
LOCAL, LOCAL_IPV6 = "https://127.0.0.1:2379", "https://[::1]:2379"
# What every module that talks to etcd accepts; documented once in the `etcd` doc fragment.
CONNECTION_SPEC = {
    "endpoint": {"type": "str", "default": LOCAL},
    "cacert": {"type": "path", "default": "/etc/kubernetes/pki/etcd/ca.crt"},
    "cert": {"type": "path", "default": "/etc/kubernetes/pki/etcd/server.crt"},
    "key": {"type": "path", "default": "/etc/kubernetes/pki/etcd/server.key", "no_log": False},
    "etcdctl": {"type": "path"},
    "etcdutl": {"type": "path"},
    "timeout": {"type": "int", "default": 10},
}
# An etcd with authentication, to who is none of its users or may not do that (3.4.23 to 3.7.3: rpctypes/error.go, auth/store.go).
_DENIED = re.compile(
    "etcdserver: (user name (is empty|not found)|permission denied|invalid auth token|authentication failed, invalid user)|auth: user not found"
)


def is_denied(text):
    """Whether these are the words of an etcd that has authentication enabled and does not take us for a user of it that may ask."""
    return bool(_DENIED.search(text))


def _target_of(downgrade):
    """The version that a cluster is told to downgrade to, "" for none."""
    return downgrade.get("targetVersion", "") if downgrade.get("enabled") else ""


class EtcdClient:
    """One member of a cluster, reached through etcdctl over TLS."""

    def __init__(self, params, cwd="/"):
        self.endpoint = params["endpoint"]
        if self.endpoint == LOCAL and not listens(LOCAL) and listens(LOCAL_IPV6):
            self.endpoint = LOCAL_IPV6
        self.timeout = params["timeout"]
        # what the path of a Unix socket is relative to
        self.cwd = cwd
        self.tls = {name: params[name] for name in ("cacert", "cert", "key")}
        self.binary = find_tool("etcdctl", params.get("etcdctl"))
        if not self.binary:
            raise ToolError("there is no etcdctl on this host: run `ansible-playbook k8s_dr.etcd.install` or set etcd_client_bin_dir")

    def argv(self, *args, **kwargs):
        """The whole command line.  Keys are named by path only; nothing secret is on it."""
        timeout = kwargs.get("command_timeout", self.timeout)
        command = [self.binary, "--endpoints=" + self.endpoint, "--command-timeout=%ds" % timeout, "--dial-timeout=%ds" % min(timeout, 5)]
        if self.endpoint.startswith("https:"):
            for name, path in self.tls.items():
                if not os.access(path, os.R_OK):
                    raise ToolError("%s (etcd's %s) cannot be read on this host" % (path, name))
            command += ["--%s=%s" % item for item in self.tls.items()]
        return command + list(args)

    def run(self, *args, **kwargs):
        """Run etcdctl; anything but code 0 raises ToolError."""
        timeout = kwargs.get("command_timeout", self.timeout)
        result = run_tool(self.argv(*args, **kwargs), timeout + 10, cwd=self.cwd)
        if result.rc != 0:
            raise ToolError("etcd at %s: `etcdctl %s` %s: %s" % (self.endpoint, " ".join(args), result.how(), self.words(result)), result)
        return result

    def words(self, result):
        """Why etcdctl failed: its last words, or what they come from."""
        if not is_denied(result.stderr):
            return result.last_words()
        return (
            "this etcd has authentication enabled, and the common name of %s is not a user with the role root (%s). Name a certificate of such a user "
            "with etcd_client_cert and etcd_client_key, or turn authentication off with `etcdctl auth disable`" % (self.tls["cert"], result.last_words())
        )

    def _json(self, *args):
        result = self.run("--write-out=json", *args)
        try:
            return json.loads(result.stdout)
        except ValueError as exc:
            raise ToolError("`etcdctl %s` printed something that is not JSON" % " ".join(args), result) from exc

    def status(self):
        """Version, ids, leader, revision and sizes of this very member."""
        status = self._json("endpoint", "status")[0]["Status"]
        header = status["header"]
        return {
            "version": status.get("version", ""),
            "cluster_id": "%x" % header["cluster_id"],
            "member_id": "%x" % header["member_id"],
            "leader_id": "%x" % status.get("leader", 0),
            "is_learner": bool(status.get("isLearner", False)),
            "revision": header.get("revision", 0),
            "raft_index": status.get("raftIndex", 0),
            "raft_applied_index": status.get("raftAppliedIndex", 0),
            "raft_term": status.get("raftTerm", 0),
            "db_size": status.get("dbSize", 0),
            "db_size_in_use": status.get("dbSizeInUse", 0),
            # from 3.6 on, also of etcdctl
            "storage_version": status.get("storageVersion", ""),
            "downgrade_target": _target_of(status.get("downgradeInfo") or {}),
        }

    def members(self, *args):
        """Every member as etcd knows it; `name` is empty for one that never started.  `args` are more flags of `member list`."""
        return [
            {
                "id": "%x" % member["ID"],
                "name": member.get("name", ""),
                "peer_urls": member.get("peerURLs", []),
                "client_urls": member.get("clientURLs", []),
                "is_learner": bool(member.get("isLearner", False)),
            }
            for member in self._json("member", "list", *args).get("members", [])
        ]

    def alarms(self):
        """Names of the alarms that are raised: NOSPACE, CORRUPT."""
        names = {1: "NOSPACE", 2: "CORRUPT"}
        return sorted({names.get(alarm.get("alarm"), str(alarm.get("alarm"))) for alarm in self._json("alarm", "list").get("alarms", [])})

    def hash_kv(self, revision=0):
        """(hash, compact revision, revision) over the live keys; equal on all healthy members at one revision."""
        answer = self._json("endpoint", "hashkv", "--rev=%d" % revision)[0]["HashKV"]
        return answer.get("hash", 0), answer.get("compact_revision", 0), answer.get("header", {}).get("revision", 0)
