# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The members of a cluster as the database of one of them names them, whether its etcd runs or not.  Private to this collection."""

from __future__ import annotations

import json
import mmap
import os
import re
import struct

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.boltdb import DATABASE, LEAF, PAGE, Corrupt, SnapshotFile, database_path
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple

_MEMBERS, _REMOVED, _KEYS = b"members", b"members_removed", b"key"
# How a member that started tells its name and client URLs to the others: in the log, and in the state that the log begins with.
_TOLD = (
    ("snap", ".snap", re.compile(rb'"Path":"/0/members/([0-9a-f]{1,16})/attributes"[^{}]{0,300}"Value":("(?:[^"\\]|\\.){0,4000}")')),
    ("wal", ".wal", re.compile(rb'/0/members/([0-9a-f]{1,16})/attributes".{1,3}?(\{"name":"[^"]{0,300}"(?:,"clientURLs":\[[^\]]{0,3000}\])?\})', re.DOTALL)),
)


def voters_needed(version, voters):
    """How many of so many voters an etcd of this version must be connected to, itself included, before it takes a new member, a learner too.

    All of them up to 3.4.45, 3.5.29 and 3.6.10; since 3.5.30, 3.6.11 and 3.7.0 a majority of one more than there are, so of three still all, of four and
    five all but one.  Run with 3.4.23, 3.5.16, 3.5.35, 3.6.16 and 3.7.3; mayAddMember in etcdserver/server.go, which asks only with
    --strict-reconfig-check, the default.
    """
    known = version_tuple(version)
    if known < {(3, 5): (3, 5, 30), (3, 6): (3, 6, 11)}.get(known[:2], (3, 7)):
        return voters
    return 1 if voters == 1 else (voters + 1) // 2 + 1


def on_disk(data_dir):
    """(members as EtcdClient.members() has them, revision) of a data directory; ([], 0) when nothing is to be read.

    etcd writes members and keys to its log first and to the database up to 0.1 s later.  Never raises.
    """
    return in_member(os.path.join(data_dir, "member"))


def in_member(directory):
    """The same of what is called `member` in a data directory."""
    members, keys = _read(os.path.join(directory, DATABASE))
    if not all(member["name"] and member["client_urls"] for member in members):
        _complete(members, directory)
    revisions = [int.from_bytes(key[:8], "big") for key in keys if len(key) in (17, 18)]
    return members, max(revisions or [0])


def in_database(path):
    """The members that a database, or a snapshot of one, names; those that joined an etcd 3.5 later have no name there.  Never raises."""
    return _read(path)[0]


def _read(path):
    """(members, keys of the last page of revisions)"""
    with SnapshotFile(path) as database:
        found = database.glance((_MEMBERS, _REMOVED), last=(_KEYS,)) or {}
    removed = found.get(_REMOVED, {})
    members = [_member(key, value) for key, value in sorted(found.get(_MEMBERS, {}).items()) if key not in removed]
    return [member for member in members if member], found.get(_KEYS, {})


def leftovers(stored, members):
    """Those of the members in a database that the cluster does not have.

    etcd up to 3.5 goes by its v2 store and never looks at them; from 3.6 on they are members (etcd issue 20967).  They come from `etcdctl snapshot
    restore` up to 3.4.39, from --force-new-cluster, and from crashes; a member of etcd 3.5.26 or later removes them when it starts (read in 3.5.35:
    membership/cluster.go, CleanupZombieMembersIfNeeded).
    """
    known = {member["id"] for member in members}
    return [member for member in stored if member["id"] not in known]


def warning(left, where):
    """The message about leftovers."""
    return (
        "etcd's store %s holds members that the cluster does not have: %s. etcd up to 3.5 ignores them; an upgrade to 3.6 would bring them to life, and could "
        "cost the quorum. Before it, upgrade every member to etcd 3.5.26 or later, which removes them when it starts" % (where, in_words(left))
    )


def in_words(members):
    return ", ".join("%s (id %s, %s)" % (member["name"] or "without a name", member["id"], " ".join(member["peer_urls"])) for member in members)


def without_leftovers(data_dir, initial_cluster, trims):
    """Have restored data, which no etcd has served yet, hold no members but those of initial_cluster; returns the others, which were removed.

    trims: whether the tool that restored it removes them, as `snapshot restore` does from 3.5 on. That of 3.4 leaves them all (3.4.23 and 3.4.39:
    clientv3/snapshot/v3_snapshot.go deletes keys that are called like members, of which there are none), and writes none of the new ones. Raises
    ValueError when some are left.
    """
    path = database_path(data_dir)
    planned = {}
    for item in initial_cluster.split(",") if trims else ():
        name, _equals, url = item.partition("=")
        planned.setdefault(name.strip(), set()).add(url.strip())

    def unknown_members():
        return [member for member in in_database(path) if set(member["peer_urls"]) not in planned.values()]

    before = left = unknown_members()
    if before and not trims:
        _empty(path, _MEMBERS, _REMOVED)
        left = unknown_members()
    if left:
        raise ValueError("the restored data has members that the restored cluster does not have: %s" % in_words(left))
    return before


def _empty(path, *buckets):
    """Empty small buckets of an unused database: the page of each counts no elements any more, as that of a new one."""
    with SnapshotFile(path) as database, open(path, "r+b") as stream:
        for bucket in buckets:
            try:
                found = database.page_of(bucket)
            except (Corrupt, struct.error) as exc:
                raise ValueError("the restored data cannot be read: %s" % exc) from None
            if found and found[1] == LEAF and found[2]:
                at = found[0]
                stream.seek(at)
                head = list(PAGE.unpack(stream.read(PAGE.size)))
                head[2] = 0
                stream.seek(at)
                stream.write(PAGE.pack(*head))


def _complete(members, directory):
    """Add what etcd 3.5 does not write to the database: the names and client URLs of members that joined later.

    Up to 3.5.19, where a member that is there is not written again (etcdserver/api/membership/store.go, unsafeSaveMemberToBackend); seen with 3.5.16, and
    no more with 3.5.35.
    """
    told = {}
    for part, suffix, pattern in _TOLD:
        there = os.path.join(directory, part)
        for name in sorted(os.listdir(there)) if os.path.isdir(there) else []:
            if name.endswith(suffix):
                told.update(_told(os.path.join(there, name), pattern))
    for member in members:
        attributes = told.get(member["id"], {})
        member["name"] = member["name"] or str(attributes.get("name") or "")
        member["client_urls"] = member["client_urls"] or [str(url) for url in attributes.get("clientURLs") or []]


def _told(path, pattern):
    found = {}
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for match in pattern.finditer(data):
                text = json.loads(match.group(2).decode("utf-8"))
                attributes = json.loads(text) if isinstance(text, str) else text
                if isinstance(attributes, dict):
                    found["%x" % int(match.group(1), 16)] = attributes
    except (OSError, ValueError):
        # what is damaged, or empty
        pass
    return found


def _member(key, value):
    """What etcd stores below a member's id; None if it is invalid."""
    try:
        stored = json.loads(value.decode("utf-8"))
        return {
            "id": "%x" % int(key.decode("ascii"), 16),
            "name": str(stored.get("name") or ""),
            "peer_urls": [str(url) for url in stored.get("peerURLs") or []],
            "client_urls": [str(url) for url in stored.get("clientURLs") or []],
            "is_learner": bool(stored.get("isLearner", False)),
        }
    except (ValueError, AttributeError, TypeError):
        return None
