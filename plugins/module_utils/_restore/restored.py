# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a restored cluster is what was planned.  Pure functions of what the role etcd_restore knows; private to this collection.

`known` is __etcd_restore_serving of the role's vars/main.yml.
"""

from __future__ import annotations


def member_differences(known, host):
    """Why the etcd of a host is not the restored one with the data of all others, one sentence; "" when it is."""
    after, planned = known["after"], sorted(known["initial_cluster"].split(","))
    ids = list(dict.fromkeys(etcd.get("cluster_id", "") for etcd in after.values()))
    etcd = after[host]
    members = sorted("%s=%s" % (member["name"], url) for member in etcd.get("members", []) for url in member["peer_urls"])
    # each restore makes a new id: etcd may have its data elsewhere than where it was exchanged
    new = len(ids) == 1 and ids[0] and ids[0] != known["cluster_id"]
    if etcd.get("healthy") and new and members == planned and int(etcd["revision"]) >= int(known["revision"]):
        return _hash_differences(after) if len(after) > 1 else ""
    return (
        "etcd on %s is not what was restored: %scluster ids %s (before: %s), members %s, revision %s (planned: members %s, revision from %s on)."
        % (
            host,
            "" if etcd.get("healthy") else "it is not healthy, ",
            ", ".join(ids),
            known["cluster_id"] or "not known",
            ", ".join(members),
            etcd.get("revision"),
            ", ".join(planned),
            known["revision"],
        )
    )


def _hash_differences(after):
    """Why several members do not hold the same data, one sentence; "" when they do."""
    hashes = {host: etcd.get("hash") or {"hash": None, "compact_revision": None} for host, etcd in after.items()}
    # what was compacted in between is in the one and not in the other
    seen = {}
    for found in hashes.values():
        seen.setdefault(found["compact_revision"], set()).add(found["hash"])
    if all(found["hash"] is not None for found in hashes.values()) and all(len(values) == 1 for values in seen.values()):
        return ""
    said = ", ".join("%s %s (compacted at %s)" % (host, found["hash"], found["compact_revision"]) for host, found in sorted(hashes.items()))
    return "The restored members do not hold the same data, or do not say so: %s." % said


def baseline(known):
    """What a validation goes by: every node that was restored is to work, also one that had been deleted before.

    With fewer control plane nodes than before, not all that was well can be; those that are lost or retired are not waited for.
    """
    observed = {} if known["retired"] or known["lost"] else dict(known["observed"])
    nodes = {name: {"ready": True, "control_plane": True} for name in known["names"]}
    nodes.update(observed.get("nodes", {}))
    nodes.update({name: {"ready": False} for name in known["lost"] + known["retired"]})
    return dict(observed, nodes=nodes)
