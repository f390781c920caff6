#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_member
short_description: Adds, promotes or removes an etcd member; refuses changes that would lose quorum
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Talks to one healthy member at O(endpoint), and checks every other voter at its own client URLs before it changes anything.
  - Refuses a change that would leave the voters without a healthy majority, or that etcd itself would refuse, and names the members that prevent it.
  - Uses an entry with the same peer URLs that never started, as an interrupted run leaves it, instead of adding another.
  - Starts nothing. Start the new member with RV(initial_cluster) and C(--initial-cluster-state=existing).
extends_documentation_fragment:
  - k8s_dr.etcd.etcd
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  name:
    description: Name of the member, as its own C(--name) says.
    type: str
    required: true
  peer_urls:
    description:
      - Its own peer URLs, as its C(--initial-advertise-peer-urls) says.
      - Required with O(state=learner) and O(state=voter). With O(state=absent) members that have one of them are removed, too.
    type: list
    elements: str
  state:
    description:
      - V(learner) adds it as a learner, without a vote; etcd supports this from 3.4 on. One that has a vote already keeps it, since etcd cannot demote a
        voter.
      - >-
        V(voter) gives it a vote, and tries again for O(wait_timeout) while it has not caught up with the leader. One that is not a member is added
        as a voter at once, which is for etcd 3.3 and is refused where the cluster would have no quorum until it starts.
      - V(absent) removes every member with this O(name) or one of these O(peer_urls), or only the one with O(id).
    type: str
    choices: [learner, voter, absent]
    default: learner
  id:
    description: With O(state=absent) only the member with this id, in hexadecimal, is removed, whatever others are called.
    type: str
  wait_timeout:
    description: >-
      Seconds to try again while etcd refuses for reasons that pass, for example because a learner has not caught up, or members have connected only a
      moment ago.
    type: int
    default: 30
  required:
    description: Whether a learner that has not caught up within O(wait_timeout) is a failure. When V(false), see RV(member.is_learner) and RV(progress).
    type: bool
    default: true
  compare:
    description: Whether to have the member at O(endpoint) and this one hash what they hold at one revision, see RV(hashes). Used with O(state=voter).
    type: bool
    default: false
seealso:
  - module: k8s_dr.etcd.etcd_cluster_info
  - module: k8s_dr.etcd.etcd_restore_transaction
"""

EXAMPLES = r"""
- name: Remove the stale member cp2
  k8s_dr.etcd.etcd_member:
    name: cp2
    peer_urls: ["https://192.0.2.12:2380"]
    state: absent
  delegate_to: cp1

- name: Add cp2 without a vote
  k8s_dr.etcd.etcd_member:
    name: cp2
    peer_urls: ["https://192.0.2.12:2380"]
    state: learner
  delegate_to: cp1
  register: added

- name: Give cp2 its vote once it has caught up
  k8s_dr.etcd.etcd_member:
    name: cp2
    peer_urls: ["https://192.0.2.12:2380"]
    state: voter
    wait_timeout: 600
  delegate_to: cp1
"""

RETURN = r"""
member:
  description: The member afterwards. Empty with O(state=absent).
  returned: success
  type: dict
  contains:
    id:
      description: Id in hexadecimal. Empty in check mode for one that would be added.
      type: str
      sample: 2c5e5a6bd0f2a6d1
    name:
      description: O(name).
      type: str
      sample: cp2
    peer_urls:
      description: URLs that the other members use.
      type: list
      elements: str
      sample: ["https://192.0.2.12:2380"]
    client_urls:
      description: URLs that clients use. Empty for one that never started.
      type: list
      elements: str
      sample: ["https://192.0.2.12:2379"]
    is_learner:
      description: Whether it has no vote.
      type: bool
      sample: true
    started:
      description: Whether it ever started.
      type: bool
      sample: false
initial_cluster:
  description: Value of C(--initial-cluster) for the new member. Empty with O(state=absent).
  returned: success
  type: str
  sample: cp1=https://192.0.2.11:2380,cp2=https://192.0.2.12:2380
members:
  description: >-
    All members as they were before, each with V(id), V(name), V(peer_urls), V(client_urls), V(is_learner), V(started), and V(healthy), whether it
    answered, has a leader and is of this cluster.
  returned: success
  type: list
  elements: dict
removed:
  description: The members that were removed.
  returned: success
  type: list
  elements: dict
progress:
  description: >-
    How far the member has come, as V(raft_index) and V(db_size), beside those of the member at O(endpoint), V(cluster_raft_index) and
    V(cluster_db_size). V(null) for what it does not tell. Empty unless O(state=voter).
  returned: success
  type: dict
hashes:
  description: >-
    V(revision), V(equal), and V(members), the hash that each of the two gave by its name. Empty without O(compare), and when the members could not
    hash the same revision.
  returned: success
  type: dict
  sample:
    revision: 582
    equal: true
    members: {cp1: 2059208, cp2: 2059208}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC, EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.members_on_disk import voters_needed
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError

# What etcd says when a little later it may say something else.
_PASSES = ("unhealthy cluster", "in sync with leader", "timed out", "timeout", "deadline exceeded", "leader changed", "no leader", "too many requests")
_POLL = 0.5
# A dead member must not cost more than this, however long one may wait for a healthy one.
_DEAD_AFTER = 5
# Hashing reads all of the database.
_HASH_TIMEOUT = 120


def normal(urls):
    return {url.rstrip("/") for url in urls}


def describe(member):
    return "%s (id %s, %s)" % (member["name"] or "a member that never started", member["id"], ",".join(member["peer_urls"]))


class Cluster:
    """The cluster, as the member at the endpoint sees it and as the others answer."""

    def __init__(self, params):
        self.params = params
        self.client = EtcdClient(params)
        self.status = {}
        self.members = []

    def look(self):
        """Ask who is a member, and each whether it is well."""
        self.status = self.client.status()
        if self.status["leader_id"] == "0":
            raise Refused("etcd at %s has no leader, so the cluster has no quorum and nothing can be changed in it" % self.client.endpoint)
        self.members = self.listed()
        for member in self.members:
            member["healthy"] = member["id"] == self.status["member_id"] or self.is_healthy(member)

    def listed(self):
        members = self.client.members()
        for member in members:
            member["started"] = bool(member["name"])
        return members

    def ask(self, member, timeout=_DEAD_AFTER):
        """(client, status) of the first of a member's URLs at which it is that very member, else (None, {})."""
        for url in member["client_urls"]:
            try:
                client = EtcdClient(dict(self.params, endpoint=url, timeout=min(self.params["timeout"], timeout)))
                status = client.status()
            except ToolError:
                continue
            # an address as localhost leads to another member
            if (status["member_id"], status["cluster_id"]) == (member["id"], self.status["cluster_id"]):
                return client, status
        return None, {}

    def is_healthy(self, member):
        return self.ask(member)[1].get("leader_id", "0") != "0"

    def voters(self, without=()):
        gone = {member["id"] for member in without}
        return [member for member in self.members if not member["is_learner"] and member["id"] not in gone]

    def initial_cluster(self, member):
        """Everyone, each under a name of its own; who never started has none that etcd knows."""
        pairs = []
        for each in self.members if any(each["id"] == member["id"] for each in self.members) else self.members + [member]:
            name = member["name"] if each["id"] == member["id"] else each["name"] or "unstarted-" + each["id"]
            pairs += ["%s=%s" % (name, url) for url in each["peer_urls"]]
        # they come ordered by id, which a member that is to be added does not have yet
        return ",".join(sorted(pairs))


def remove(module, cluster):
    """Returns the members that were removed, or would be."""
    params = module.params
    wanted = (params["id"] or "").lower()
    if wanted.startswith("0x"):
        wanted = wanted[2:]
    urls = normal(params["peer_urls"] or [])
    if wanted:
        victims = [member for member in cluster.members if member["id"] == wanted]
    else:
        victims = [member for member in cluster.members if member["name"] == params["name"] or normal(member["peer_urls"]) & urls]
    if not victims:
        return []
    for victim in victims:
        if victim["id"] == cluster.status["member_id"]:
            raise Refused("%s is the member that was asked to remove it; ask another one" % describe(victim))
    left = cluster.voters(without=victims)
    healthy = [member for member in left if member["healthy"]]
    if any(not victim["is_learner"] for victim in victims) and len(healthy) < len(left) // 2 + 1:
        raise Refused(
            "without %s the cluster would have %d voters, of which only %d are healthy (not %s), and so no quorum; nothing was removed. Start those first"
            % (" and ".join(map(describe, victims)), len(left), len(healthy), ", ".join(describe(each) for each in left if not each["healthy"]))
        )
    if not module.check_mode:
        for victim in victims:
            remove_one(cluster, victim["id"], params["wait_timeout"])
    return victims


def remove_one(cluster, member_id, timeout):
    again(
        lambda: cluster.client.run("member", "remove", member_id),
        lambda: all(member["id"] != member_id for member in cluster.listed()),
        timeout,
    )


def again(act, done, timeout):
    """Take a step, and take it again while etcd refuses for a reason that passes.

    A step that timed out may have been taken all the same: `done` tells, and has the last word.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            act()
            return
        except ToolError as exc:
            try:
                if done():
                    return
            except ToolError:
                # why the step was refused says more than why the question was
                pass
            words = (exc.message + (exc.result.stderr if exc.result else "")).lower()
            if time.monotonic() >= end or not any(each in words for each in _PASSES):
                raise
        time.sleep(_POLL)


def find(params, members):
    """The entry of this member, or None.  Refuses what is only half it."""
    urls = normal(params["peer_urls"])
    found = None
    for member in members:
        same = normal(member["peer_urls"]) == urls
        if same and member["name"] in ("", params["name"]):
            found = member
        elif member["name"] == params["name"] or normal(member["peer_urls"]) & urls:
            raise Refused(
                "the cluster has a member %s, where %s with %s was to be; remove it first (state absent)"
                % (describe(member), params["name"], ",".join(params["peer_urls"]))
            )
    return dict(found, name=params["name"]) if found else None


def check_addition(params, cluster):
    """Refuse what etcd would refuse, and what would cost the quorum."""
    voters = cluster.voters()
    dead = [member for member in voters if not member["healthy"]]
    needed = voters_needed(cluster.status["version"], len(voters)) if params["state"] == "learner" else len(voters)
    if len(voters) - len(dead) < needed:
        raise Refused(
            "etcd %s takes a new member only while %d of these %d voters run, and %s does not answer at %s; nothing was added. Start it, or remove it if "
            "it is gone for good: etcdctl member remove %s"
            % (
                cluster.status["version"],
                needed,
                len(voters),
                describe(dead[0]),
                ",".join(dead[0]["client_urls"]) or "any client URL",
                dead[0]["id"],
            )
        )
    # always up to 3.5; from 3.6 on --max-learners says how many, 1 by default (3.6.16 and 3.7.3: embed/config.go)
    learners = [member for member in cluster.members if member["is_learner"]]
    if params["state"] == "learner":
        if version_tuple(cluster.status["version"]) < (3, 4):
            raise Refused("etcd %s knows no learners (3.4 is the first that does); nothing was added" % cluster.status["version"])
        if learners:
            raise Refused(
                "etcd takes one learner at a time, and %s is one; nothing was added. Finish or remove that one first: etcdctl member remove %s"
                % (describe(learners[0]), learners[0]["id"])
            )
    elif len(voters) < (len(voters) + 1) // 2 + 1:
        raise Refused(
            "a voter that has not started yet would leave this cluster of %d without a quorum until it does; nothing was added. Add it as a learner"
            % len(voters)
        )


def add(module, cluster):
    """The entry that was added, or would be."""
    params = module.params
    check_addition(params, cluster)
    learner = params["state"] == "learner"
    entry = {"id": "", "name": params["name"], "peer_urls": params["peer_urls"], "client_urls": [], "is_learner": learner, "started": False}
    if module.check_mode:
        return entry
    argv = ["member", "add", params["name"], "--peer-urls=" + ",".join(params["peer_urls"])] + (["--learner"] if learner else [])
    again(lambda: cluster.client.run(*argv), lambda: find(params, cluster.listed()), params["wait_timeout"])
    entry = find(params, cluster.listed())
    if entry is None:
        raise Refused("etcd reported that it added %s, but does not list it" % params["name"])
    return entry


def promote(module, cluster, member):
    """The entry with its vote; or still without when it has not caught up and that is no failure."""
    params = module.params
    if module.check_mode:
        return dict(member, is_learner=False)
    try:
        again(
            lambda: cluster.client.run("member", "promote", member["id"]),
            lambda: not (find(params, cluster.listed()) or member)["is_learner"],
            params["wait_timeout"],
        )
    except ToolError as exc:
        if "in sync with leader" not in exc.message + (exc.result.stderr if exc.result else ""):
            raise
        if params["required"]:
            raise Refused(
                "%s has not caught up with the leader within %d s, and has no vote yet (%s)"
                % (describe(member), params["wait_timeout"], "it never started" if not member["started"] else "it continues to catch up while it runs")
            ) from exc
        return find(params, cluster.listed()) or member
    return find(params, cluster.listed()) or dict(member, is_learner=False)


def progress(cluster, member):
    own = cluster.ask(member)[1]
    theirs = cluster.client.status()
    return {
        "raft_index": own.get("raft_index"),
        "db_size": own.get("db_size"),
        "cluster_raft_index": theirs["raft_index"],
        "cluster_db_size": theirs["db_size"],
    }


def compare(cluster, member, timeout):
    """What two members hold at one revision, which both must still have."""
    end = time.monotonic() + timeout
    while True:
        client, status = cluster.ask(member)
        if client is not None:
            revision = min(status["revision"], cluster.client.status()["revision"])
            try:
                answers = {}
                for name, each in ((own_name(cluster), cluster.client), (member["name"], client)):
                    asked = EtcdClient(dict(cluster.params, endpoint=each.endpoint, timeout=_HASH_TIMEOUT))
                    answers[name] = asked.hash_kv(revision)[:2]
                # a compaction between the two questions changes what is hashed
                if len({compacted for dummy, compacted in answers.values()}) == 1:
                    hashes = {name: hashed for name, (hashed, dummy) in answers.items()}
                    return {"revision": revision, "equal": len(set(hashes.values())) == 1, "members": hashes}
            except ToolError:
                # compacted meanwhile, or not there yet
                pass
        if time.monotonic() >= end:
            return {}
        time.sleep(_POLL)


def own_name(cluster):
    return next((member["name"] for member in cluster.members if member["id"] == cluster.status["member_id"]), cluster.client.endpoint)


def text_of(members):
    """A list of members for a diff."""
    lines = [
        "%s %s%s%s\n" % (member["name"] or "-", ",".join(member["peer_urls"]), " learner" * member["is_learner"], " unstarted" * (not member["started"]))
        for member in members
    ]
    return "".join(sorted(lines))


def take(module, cluster):
    """Bring the member to the state; returns what the module answers."""
    params = module.params
    cluster.look()
    before = cluster.members
    answer = {"changed": False, "member": {}, "initial_cluster": "", "members": before, "removed": [], "progress": {}, "hashes": {}}
    if params["state"] == "absent":
        answer["removed"] = remove(module, cluster)
        answer["changed"] = bool(answer["removed"])
        gone = {member["id"] for member in answer["removed"]}
        after = [member for member in before if member["id"] not in gone]
    else:
        member = find(params, before)
        if member is None:
            member = add(module, cluster)
            answer["changed"] = True
        elif params["state"] == "voter" and member["is_learner"]:
            member = promote(module, cluster, member)
            answer["changed"] = not member["is_learner"]
        if params["state"] == "voter" and not module.check_mode:
            answer["progress"] = progress(cluster, member)
            if params["compare"] and member["started"] and not member["is_learner"]:
                answer["hashes"] = compare(cluster, member, params["wait_timeout"])
        answer["initial_cluster"] = cluster.initial_cluster(member)
        answer["member"] = {key: member[key] for key in ("id", "name", "peer_urls", "client_urls", "is_learner", "started")}
        after = [each for each in before if each["id"] != member["id"]] + [member]
    if module._diff:
        answer["diff"] = {"before": text_of(before), "after": text_of(after)}
    return answer


def main():
    module = AnsibleModule(
        argument_spec=dict(
            CONNECTION_SPEC,
            name={"type": "str", "required": True},
            peer_urls={"type": "list", "elements": "str"},
            state={"type": "str", "choices": ["learner", "voter", "absent"], "default": "learner"},
            id={"type": "str"},
            wait_timeout={"type": "int", "default": 30},
            required={"type": "bool", "default": True},
            compare={"type": "bool", "default": False},
        ),
        required_if=[("state", "learner", ("peer_urls",)), ("state", "voter", ("peer_urls",))],
        supports_check_mode=True,
    )
    try:
        answer = take(module, Cluster(module.params))
    except Refused as exc:
        module.fail_json(msg=str(exc))
    except ToolError as exc:
        module.fail_json(msg=exc.message, **exc.details())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
