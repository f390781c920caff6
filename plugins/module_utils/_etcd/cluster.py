# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one member of etcd says of itself and of its cluster.  Private to this collection."""

from __future__ import annotations

import contextlib
import json
from urllib.parse import urlsplit

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import is_denied
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError

UNKNOWN = {
    "reachable": False,
    "healthy": False,
    "error": None,
    "permitted": None,
    "version": None,
    "cluster_id": None,
    "member_id": None,
    "leader_id": None,
    "is_learner": None,
    "is_leader": None,
    "revision": None,
    "raft_index": None,
    "raft_applied_index": None,
    "raft_term": None,
    "db_size": None,
    "db_size_in_use": None,
    "storage_version": None,
    "downgrade_target": None,
    "alarms": [],
    "hash": None,
    "members_agreed": False,
    "members": [],
    "authorities": [],
}


def remembered_members(client):
    """The members as this one remembers them, which needs no quorum; [] when it does not tell.

    etcdctl asks for what the cluster agrees on, and has a flag for less from 3.6 on only (ctlv3/command/member_command.go of 3.5.35, 3.6.16, 3.7.3).
    Before that its JSON gateway is asked, which --enable-grpc-gateway=false and --listen-client-http-urls take away.
    """
    with contextlib.suppress(ToolError):
        return client.members("--consistency=s")
    # what takes 0.03 s is left to those who need it
    import http.client  # noqa: PLC0415

    from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context  # noqa: PLC0415

    url = urlsplit(client.endpoint)
    try:
        if url.scheme == "https":
            context = tls_context(client.tls["cacert"], cert=client.tls["cert"], key=client.tls["key"])
            connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=client.timeout, context=context)
        else:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=client.timeout)
        try:
            connection.request("POST", "/v3/cluster/member/list", "{}", {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read().decode("utf-8"))
        finally:
            connection.close()
        return [
            {
                "id": "%x" % int(member["ID"]),
                "name": member.get("name", ""),
                "peer_urls": member.get("peerURLs", []),
                "client_urls": member.get("clientURLs", []),
                "is_learner": bool(member.get("isLearner", False)),
            }
            for member in answer.get("members", [])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException):
        return []


def ask(client):
    """(what is known, the ToolError that stopped it or None): each question needs more of the cluster than the one before."""
    etcd = dict(UNKNOWN)
    try:
        etcd.update(client.status(), reachable=True)
        etcd["is_leader"] = etcd["member_id"] == etcd["leader_id"]
        etcd["members"] = client.members()
        etcd["alarms"] = client.alarms()
        # Up to 3.4 the list of members comes from this member alone (3.4.45: etcdserver/api/v3rpc/member.go, MemberList); the alarms come through the
        # quorum in every version (3.7.3: etcdserver/v3_server.go, Alarm).
        etcd["members_agreed"] = True
        if etcd["alarms"]:
            etcd["error"] = "etcd at %s has raised the alarm %s" % (client.endpoint, ", ".join(etcd["alarms"]))
        else:
            # What `endpoint health` asks, which takes no permission for an answer: a read through the quorum, except on a learner, which serves none.
            if not etcd["is_learner"]:
                client.run("get", "health", "--keys-only")
                etcd["permitted"] = True
            etcd["healthy"] = True
    except ToolError as exc:
        etcd["error"] = exc.message
        if exc.result and is_denied(exc.result.stderr):
            etcd["permitted"] = False
        if etcd["reachable"] and not etcd["members"]:
            etcd["members"] = remembered_members(client)
        return etcd, exc
    return etcd, None


def hash_at(client, revision):
    """RV(etcd.hash) of the module etcd_cluster_info; never raises, since a revision may have been compacted since it was chosen."""
    answer = {"revision": revision, "hash": None, "compact_revision": None, "reason": None}
    try:
        answer["hash"], answer["compact_revision"] = client.hash_kv(revision)[:2]
    except ToolError as exc:
        said = exc.result.stderr + exc.result.stdout if exc.result else ""
        answer["reason"] = exc.message
        for words, what in (("has been compacted", "was compacted"), ("future revision", "lies in its future")):
            if words in said:
                answer["reason"] = "etcd at %s has no hash of revision %d, which %s" % (client.endpoint, revision, what)
    return answer
