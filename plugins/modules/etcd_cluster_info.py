#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_cluster_info
short_description: Returns the state of one etcd member and its cluster
version_added: 0.1.0
description:
  - Asks the member at O(endpoint) for its version, its ids, its revision and sizes, the members of its cluster and the alarms that are raised.
  - Every request is bounded by O(timeout), so an endpoint that hangs costs seconds and not the play.
  - Without a quorum, the module asks the member which members it remembers, since a snapshot is restored in that situation.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.etcd
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
attributes:
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - This module changes nothing.
options:
  required:
    description:
      - Whether to fail when the member does not answer, or has no leader, so that the cluster cannot agree on its members.
      - With V(false) the module returns what it could read, and RV(etcd.error) says what it could not.
      - The module always fails for a missing or broken C(etcdctl) and for unreadable certificates, since these say nothing about etcd.
    type: bool
    default: true
  tools:
    description:
      - Whether to return in RV(tools) what etcd's tools of this host can do. They are looked for as O(etcdctl) and O(etcdutl) say.
      - Then a missing C(etcdctl) and unreadable certificates fail nothing, and RV(etcd.error) names them.
    type: bool
    default: false
  hash_revision:
    description:
      - Revision of which to return the hash over the live keys in RV(etcd.hash). V(0) is for none.
      - At one revision it is equal on all members that hold the same data. Only hashes whose C(compact_revision) is equal compare.
      - The member answers for itself, so this needs no quorum. It reads the whole database, within O(timeout).
    type: int
    default: 0
seealso:
  - module: k8s_dr.etcd.etcd_client_info
  - module: k8s_dr.etcd.etcd_snapshot_info
"""

EXAMPLES = r"""
- name: Ask the etcd member of this control plane about its cluster
  k8s_dr.etcd.etcd_cluster_info:
  register: cluster

- name: Wait until etcd serves reads and writes again
  k8s_dr.etcd.etcd_cluster_info:
    required: false
    timeout: 2
  register: cluster
  until: cluster.etcd.healthy
  retries: 60
  delay: 1

- name: Ask every member for its hash at one revision
  k8s_dr.etcd.etcd_cluster_info:
    hash_revision: "{{ hostvars[ansible_play_hosts[0]].cluster.etcd.revision }}"
  register: hashed
"""

RETURN = r"""
tools:
  description: What the tools of this host can do, as C(tools) of M(k8s_dr.etcd.etcd_client_info). V(null) unless they suit this etcd.
  returned: O(tools) is set
  type: dict
etcd:
  description: State of the member.
  returned: success
  type: dict
  contains:
    reachable:
      description: Whether the member at O(endpoint) answered at all. When it did not, everything below is V(null) or empty.
      type: bool
      sample: true
    healthy:
      description: Whether it has a leader, serves a consistent read, and no alarm is raised.
      type: bool
      sample: true
    error:
      description: One sentence that says why it is not reachable or not healthy, or V(null).
      type: str
    permitted:
      description:
        - V(false) when etcd has authentication enabled and does not let the user that O(cert) names read. Its state, members and alarms are known
          all the same.
        - V(null) when nothing was read.
      type: bool
      sample: true
    version:
      description: Version of the server.
      type: str
      sample: 3.5.16
    cluster_id:
      description: Id of the cluster, in hexadecimal.
      type: str
      sample: 9d8f5c5a1f6b8b1c
    member_id:
      description: Id of this member, in hexadecimal.
      type: str
      sample: 2c5e5a6bd0f2a6d1
    leader_id:
      description: Id of the leader, in hexadecimal; V(0) when there is none.
      type: str
      sample: 2c5e5a6bd0f2a6d1
    is_learner:
      description: Whether this member is a learner, which has no vote.
      type: bool
      sample: false
    is_leader:
      description: Whether this member is the leader.
      type: bool
      sample: true
    revision:
      description: Revision of the key-value store.
      type: int
      sample: 582
    raft_index:
      description: Index up to which this member knows the raft log to be committed.
      type: int
      sample: 700
    raft_applied_index:
      description: Index up to which it has applied the raft log. What lies between is not in its database yet. V(0) when it does not tell (etcd 3.3).
      type: int
      sample: 700
    raft_term:
      description: Term of the raft log.
      type: int
      sample: 3
    db_size:
      description: Size of the database in bytes.
      type: int
      sample: 937984
    db_size_in_use:
      description: Bytes of it in use.
      type: int
      sample: 811008
    storage_version:
      description: Version of etcd in whose format the data are stored; V("") before etcd 3.6, and where C(etcdctl) is older than that.
      type: str
      sample: 3.6.0
    downgrade_target:
      description: Version that the cluster is told to downgrade to, by C(etcdctl downgrade enable); V("") when it is not.
      type: str
      sample: ""
    alarms:
      description: Names of the alarms that are raised.
      type: list
      elements: str
      sample: [NOSPACE]
    hash:
      description: Hash over the live keys at O(hash_revision); V(null) when O(hash_revision=0), or when the member did not answer at all.
      type: dict
      contains:
        revision:
          description: The revision, as asked for.
          type: int
          sample: 582
        hash:
          description: The hash; V(null) when there is none, as at a revision that was compacted or that the member has not reached.
          type: int
          sample: 3193616628
        compact_revision:
          description: Revision at which the member was compacted. Hashes compare only when it is equal. V(null) along with the hash.
          type: int
          sample: -1
        reason:
          description: One sentence that says why there is no hash, or V(null).
          type: str
    members_agreed:
      description:
        - Whether RV(etcd.members) is what the cluster agrees on.
        - When V(false), as without a quorum, it is what this member itself remembers, which may be out of date or empty.
      type: bool
      sample: true
    members:
      description: All members of the cluster. Empty if they are unknown.
      type: list
      elements: dict
      contains:
        id:
          description: Id in hexadecimal.
          type: str
          sample: 2c5e5a6bd0f2a6d1
        name:
          description: Name; empty for a member that was added and never started.
          type: str
          sample: cp1
        peer_urls:
          description: URLs that the other members use.
          type: list
          elements: str
          sample: ["https://192.0.2.11:2380"]
        client_urls:
          description: URLs that clients use.
          type: list
          elements: str
          sample: ["https://192.0.2.11:2379"]
        is_learner:
          description: Whether it is a learner.
          type: bool
          sample: false
    authorities:
      description:
        - SHA-256 of each certificate in O(cacert), also when the member does not answer. Empty when the file cannot be read.
        - Tells clusters apart. Their ids are the same when their first control planes have the same address.
      type: list
      elements: str
      sample: [2c06958e4a7f3f6ff2cf3a5e8f2b0c3a1d0e5b6a7988c9d0e1f2a3b4c5d6e7f8]
"""

import concurrent.futures
import hashlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC, EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.cluster import UNKNOWN, ask, hash_at
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import Tool, examine_tools, suitable
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import certificates as kube_certificates
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def authorities(path):
    """Of each certificate alone, since a file has two while a CA is replaced."""
    try:
        with open(path, "rb") as stream:
            return sorted({hashlib.sha256(der).hexdigest() for der in kube_certificates.ders(stream.read())})
    except (OSError, kube_certificates.CertificateError):
        return []


def main():
    module = AnsibleModule(
        argument_spec=dict(
            CONNECTION_SPEC,
            required={"type": "bool", "default": True},
            tools={"type": "bool", "default": False},
            hash_revision={"type": "int", "default": 0},
        ),
        supports_check_mode=True,
    )
    params = module.params
    # the tools are looked at while etcd is asked: each of a dozen questions starts one
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        examined = pool.submit(examine_tools, params) if params["tools"] else None
        try:
            client = EtcdClient(params)
            client.argv()
            if not params["tools"]:
                Tool(client.binary, params["timeout"])
        except ToolError as exc:
            if not params["tools"]:
                module.fail_json(msg=exc.message, **exc.details())
            etcd, error = dict(UNKNOWN, error=exc.message), exc
        else:
            etcd, error = ask(client)
            if params["hash_revision"] and etcd["reachable"]:
                etcd["hash"] = hash_at(client, params["hash_revision"])
    etcd["authorities"] = authorities(params["cacert"])
    answer = {"etcd": etcd}
    if examined:
        answer["tools"] = suitable(examined.result(), etcd["version"])
    if params["required"] and not etcd["members_agreed"]:
        module.fail_json(msg=etcd["error"], **answer, **(error.details() if error else {}))
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
