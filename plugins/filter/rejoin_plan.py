# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.members_on_disk import voters_needed

DOCUMENTATION = r"""
name: rejoin_plan
short_description: Determines how a control plane host rejoins the running etcd cluster, or why it must not
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Determines the rejoin case of the host from the state of the host, of the host that it rejoins through, and of the cluster.
  - Facts that are not known yet are left out. The filter judges only known facts.
  - Used by the role P(k8s_dr.etcd.etcd_rejoin#role).
positional: _input
options:
  _input:
    description: >-
      V(host), its name in the inventory; V(node), the result of M(k8s_dr.etcd.etcd_restore_info) for it, or V(problem), why there is none; V(others), the
      results of M(k8s_dr.etcd.etcd_cluster_info) in a loop over the names of the other control plane hosts; V(own), its result on the host itself, empty
      before that; V(there), the result of M(k8s_dr.etcd.etcd_restore_info) on the host V(via); V(members), those that M(k8s_dr.etcd.etcd_member) returned;
      V(lost), names of members that are gone for good; V(discard), whether data that is served may be moved aside.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show how cp2 rejoins
  ansible.builtin.debug:
    msg: "{{ {'host': 'cp2', 'node': found.restore, 'others': asked.results} | k8s_dr.etcd.rejoin_plan }}"
"""

RETURN = r"""
_value:
  description: >-
    V(via), the host through which the cluster is changed; V(cluster_id); V(case), V(member) (nothing to do), V(learner) (only its vote is missing),
    V(retired) (by a restore), V(retire) (must be stopped first), V(retiring) and V(rejoining) (interrupted there), V(again) (an interrupted rejoin must be
    rolled back first); V(refusals), sentences; V(stale), members to remove; V(entry), an existing entry to use; V(path) of the transaction on the host,
    empty for a new one; V(why), the findings in words; V(first_state) of the added member; V(reach), peer URLs of the healthy voters that stay; V(message),
    the plan in words, empty while it is unknown.
  type: dict
"""

_KEYS = {
    "ca": "CA of the cluster (/etc/kubernetes/pki/ca.crt)",
    "etcd_ca": "CA of etcd (/etc/kubernetes/pki/etcd/ca.crt)",
    "service_account": "service-account key (/etc/kubernetes/pki/sa.pub)",
}
# The write-ahead log is made in pieces of 64 MB, one ahead.
_BESIDE_THE_DATABASE = 150 * 1024 * 1024
# States of a transaction in which nothing but a stop was begun.
_RETIRING = ("begun", "stopping", "stopped", "swapping", "swapped", "committing")


# What is done about each case.
_ACTIONS = {
    "learner": "it gets its vote once it has caught up",
    "retired": "it is added without a vote, and its etcd starts with an empty data directory",
    "retire": (
        "its control plane is stopped, its data and manifests are moved aside, it is added without a vote, and its etcd starts with an empty data directory"
    ),
    "retiring": "the stop is completed, it is added without a vote, and its etcd starts with an empty data directory",
    "rejoining": "that rejoin continues",
    "again": "that rejoin is rolled back, and the host is added again",
}


def _minor(version):
    found = re.match(r"v?(\d+)\.(\d+)", version or "")
    return tuple(int(part) for part in found.groups()) if found else ()


def _words(member):
    return "%s (id %s, %s)" % (member.get("name") or "a member that never started", member["id"], ",".join(member["peer_urls"]))


def _choose(facts):
    """(the host to go through with its answer or None, refusals): the first whose etcd is healthy; all healthy ones must be of one cluster."""
    healthy = [other for other in facts["others"] if other["etcd"].get("healthy") and not other["etcd"].get("is_learner")]
    ids = sorted({other["etcd"]["cluster_id"] for other in healthy})
    if len(ids) > 1:
        serving = ["%s serves %s" % (other["host"], other["etcd"]["cluster_id"]) for other in healthy]
        return None, [
            "There is more than one cluster: %s. Choose the one that %s rejoins by naming a host of it: -e etcd_rejoin_via=%s"
            % (", ".join(serving), facts["host"], healthy[0]["host"])
        ]
    if healthy:
        return healthy[0], []
    reasons = ["%s: %s" % (other["host"], other["problem"] or other["etcd"].get("error") or "it is a learner") for other in facts["others"]]
    return None, [
        "No other control plane host has a healthy etcd with a quorum, so there is no cluster that %s could become a member of (%s). Start etcd there; "
        "where the quorum is lost for good: ansible-playbook k8s_dr.etcd.restore"
        % (facts["host"], "; ".join(reason.rstrip(".") for reason in reasons) or "the inventory has no other")
    ]


def _transaction(node):
    """(the transaction that this host is in the middle of, or kept retired by; a refusal when it is not ours to go on with)."""
    retired = node.get("retired") or {}
    unfinished = [one for one in node.get("unfinished") or [] if one["id"] != retired.get("id")]
    for one in unfinished:
        if one.get("kind") == "retire" and (one["state"] == "rejoining" or (one["state"] in _RETIRING and (one.get("about") or {}).get("rejoin"))):
            return one, ""
        return {}, (
            'On %s the restore %s is unfinished: it is "%s". Roll it back or finish it first: ansible-playbook k8s_dr.etcd.rollback (on all hosts of that '
            "restore), or ansible-playbook k8s_dr.etcd.restore -e etcd_restore_unfinished=resume"
        ) % (node["host"], one["id"], one["state"])
    return retired, ""


def _manifests(facts, via):
    """A refusal for a host that has no control plane to start."""
    node, host = facts["node"], facts["host"]
    missing = node.get("missing") or []
    if not node:
        nothing = facts["problem"] or "it could not be read"
    elif len(missing) == 4 and not (node.get("fingerprints") or {}).get("ca"):
        nothing = "it has neither manifests of a control plane nor a CA"
    else:
        return (
            "%s has no manifest of %s in kubelet's directory, and no restore has moved it. Put all four back, or reset the host "
            "(kubeadm reset) and join it again (kubeadm join --control-plane)" % (host, ", ".join(missing))
        )
    names = {host, node.get("host", host)}
    stale = [member for member in (via or {"etcd": {}})["etcd"].get("members", []) if member["name"] in names]
    return (
        "%s cannot rejoin: %s. Add a fresh host with kubeadm: %son %s run `kubeadm init phase upload-certs "
        "--upload-certs` and `kubeadm token create --print-join-command`, then on %s what that printed with `--control-plane --certificate-key KEY`"
        % (
            host,
            nothing.rstrip("."),
            "".join("first remove its stale entries (`etcdctl member remove %s`, and `kubectl delete node %s`); " % (one["id"], one["name"]) for one in stale),
            (via or {"host": "a control plane host that works"})["host"],
            host,
        )
    )


def _dead(facts, via, besides):
    """Refusals for voters that are down, where etcd takes no new member for that."""
    known = {member["id"] for member in besides}
    voters = [member for member in facts["members"] or [] if not member["is_learner"] and member["id"] not in known]
    dead = [member for member in voters if not member["healthy"]]
    version = via["etcd"]["version"]
    needed = voters_needed(version, len(voters))
    if len(voters) - len(dead) >= needed:
        return []
    return [
        "etcd %s takes a new member only while %d of the other %d voters run, and %s is down. Start it; or, if it is gone for good, add "
        "-e etcd_rejoin_lost_members=%s, and it is removed first" % (version, needed, len(voters), _words(member), member["name"] or member["id"])
        for member in dead
    ]


def _same_contents(node, there, key):
    """Whether two files that differ have the same certificates or keys, in whatever order and form."""
    here, expected = ((((one.get("fingerprints") or {}).get("contents") or {}).get(key)) for one in (node, there))
    return bool(here) and here == expected


def _fitness(facts, via):
    """Refusals of a host that has all it takes, by what is wrong with it now."""
    node, there, host = facts["node"], facts["there"], facts["host"]
    found = []
    for key, words in sorted(_KEYS.items()) if there else ():
        here, expected = (node.get("fingerprints") or {}).get(key), (there.get("fingerprints") or {}).get(key)
        if expected and here != expected and not _same_contents(node, there, key):
            found.append(
                "The %s of %s %s that of %s: it is of another cluster, or was reinstalled. Copy keys and certificates from %s, or "
                "reset it and rejoin it (kubeadm join --control-plane)" % (words, host, "is not" if here else "is missing, unlike", via["host"], via["host"])
            )
    mine = node["etcd"].get("version", "")
    theirs = min((other["etcd"]["version"] for other in facts["others"] if other["etcd"].get("healthy")), key=_minor)
    if _minor(mine) and _minor(mine) < _minor(theirs):
        found.append(
            "etcd of %s is of version %s, and the cluster's of %s: an older one cannot become a member. Upgrade it first (the image in its manifest)"
            % (host, mine, theirs)
        )
    found += [
        "On %s `%s` runs (process %s) and changes the control plane that is to rejoin. Wait until it has ended" % (host, one["command"], one["pid"])
        for one in node.get("kubeadm") or []
    ]
    if not node.get("kubelet_running"):
        found.append("No kubelet runs on %s, so nothing would stop or start its etcd. Run there: systemctl start kubelet" % host)
    if not (node.get("runtime") or {}).get("running", True):
        found.append("The container runtime of %s does not answer. Start it there, for example: systemctl restart containerd" % host)
    problems = [one["problem"] for one in node.get("certificates") or [] if one.get("problem")]
    if problems:
        found.append("On %s %s. Run there: kubeadm certs renew all" % (host, ", and ".join(problems)))
    found += ["On %s %s" % (host, sentence.rstrip(".")) for sentence in node.get("obstacles") or []]
    needed = via["etcd"].get("db_size", 0) * 3 // 2 + _BESIDE_THE_DATABASE
    if node.get("free_bytes", needed) < needed:
        found.append(
            "The file system of %s on %s has %d MB free, and the cluster's data takes up to %d MB there beside the previous data. Free some space"
            % (node["data_dir"], host, node["free_bytes"] // 1048576, needed // 1048576)
        )
    return found


def _standing(facts, via, matched):
    """(case, refusal, what was found) from the etcd that runs on the host, or (None, ...) when none that counts runs."""
    own, host = facts["own"], facts["host"]
    others = via["etcd"] if via else {}
    listed = {member["id"]: member for member in others.get("members", [])}
    if not own.get("reachable"):
        answering = [member for member in facts["members"] or [] if member["id"] in matched and member["healthy"]]
        if answering and not own:
            # its tools are to be installed yet, so it could not be asked
            return "member", "", "it is a healthy member"
        if answering:
            return (
                None,
                (
                    "The cluster's member %s answers at %s, but etcd of %s does not answer on the host itself (%s): that is another machine with its name or "
                    "address, or etcd_client_endpoint is wrong" % (_words(answering[0]), ",".join(answering[0]["client_urls"]), host, own.get("error"))
                ),
                "",
            )
        return None, "", "its etcd does not answer"
    if via is None or (own["cluster_id"] == others["cluster_id"] and own["member_id"] in listed):
        if own.get("is_learner"):
            return "learner", "", "it is a member without a vote"
        if own.get("healthy"):
            return "member", "", "it is a healthy member with a vote"
        if facts["discard"]:
            return None, "", "its etcd is a member and not healthy"
        return (
            None,
            (
                "etcd of %s runs and is a member, but is not healthy (%s). Repair that. Or, to move its data aside and copy the cluster's, "
                "add -e etcd_rejoin_discard=true" % (host, own.get("error"))
            ),
            "",
        )
    if own["cluster_id"] == others["cluster_id"]:
        return None, "", "its etcd was removed from the cluster"
    if own.get("healthy") and not facts["discard"]:
        return (
            None,
            (
                "etcd of %s is healthy and serves another cluster (id %s, revision %s) than %s (id %s, revision %s). To stop what %s serves, add "
                "-e etcd_rejoin_discard=true: its data is moved aside and kept"
                % (host, own["cluster_id"], own["revision"], via["host"], others["cluster_id"], others["revision"], host)
            ),
            "",
        )
    return None, "", "its etcd is of another cluster (id %s)" % own["cluster_id"]


def _case(facts, via, matched, transaction):
    """(case, refusal, why)"""
    ids = [member["id"] for member in matched]
    case, refusal, why = _standing(facts, via, ids)
    if transaction.get("state") == "rejoining":
        # as a voter, too: its API server may be what is still missing
        if case in ("member", "learner") or matched:
            return "rejoining", "", "a rejoin was interrupted"
        return "again", "", "a rejoin was interrupted, and its member was removed"
    if transaction and transaction["state"] != "committed":
        return "retiring", "", "a rejoin was interrupted while it stopped the control plane"
    if transaction:
        return "retired", "", "it is stopped, and its previous data is in %s/old" % transaction["path"]
    if case or refusal:
        return case or "", refusal, why
    return "retire", "", why


def rejoin_plan(facts):
    """See RETURN."""
    if not isinstance(facts, dict) or "host" not in facts:
        raise AnsibleFilterError("rejoin_plan needs a dict with a host, not %r" % (facts,))
    facts = dict({"problem": "", "lost": [], "discard": False}, **facts)
    asked = bool(facts.get("own"))
    facts["own"] = (facts.get("own") or {}).get("etcd") or {}
    for name in ("node", "there"):
        facts[name] = facts.get(name) or {}
    facts["members"] = facts.get("members")
    facts["others"] = [_other(result) for result in facts.get("others") or []]
    answer = _decide(facts, asked)
    answer.update(reach=[], message="")
    if answer["case"] and not answer["refusals"]:
        answer.update(reach=_reach(facts, answer), message=_message(facts, answer))
    return answer


def _other(result):
    """What a host of the loop said, and why it said nothing."""
    problem = "it cannot be reached" if result.get("unreachable") else result.get("msg") or ""
    return {"host": result["item"], "etcd": result.get("etcd") or {}, "problem": problem}


def _reach(facts, answer):
    """The peer URL of each voter that runs and stays. etcd accepts a member while others are down; where it does not, there is a refusal."""
    leave = {member["id"] for member in answer["stale"]}
    stay = [member for member in facts["members"] or [] if member["id"] not in leave and member["name"] != facts["node"]["etcd"].get("name")]
    return [member["peer_urls"][0] for member in stay if member["healthy"] and not member["is_learner"]]


def _message(facts, answer):
    if answer["case"] == "member":
        return "%s: %s (cluster %s); nothing was done." % (facts["host"], answer["why"], answer["cluster_id"])
    names = ", ".join(sorted(member["name"] or "one that never started" for member in facts["members"] or []))
    first = ""
    if answer["stale"]:
        first = " First removed from it: %s." % ", ".join(_words(member) for member in answer["stale"])
    elif answer["entry"] and answer["case"] != "learner":
        first = " The entry %s of an earlier run is used." % answer["entry"]["id"]
    return "%s: %s; %s. The cluster is %s, changed through %s, with the members %s.%s" % (
        facts["host"], answer["why"], _ACTIONS[answer["case"]], answer["cluster_id"], answer["via"], names, first,
    )  # fmt: skip


def _decide(facts, asked):
    via, refusals = _choose(facts)
    answer = {"via": via["host"] if via else "", "cluster_id": via["etcd"]["cluster_id"] if via else "", "case": "", "stale": [], "entry": {}}
    # etcd knows learners from 3.4 on
    answer.update(path="", why="", refusals=[], first_state="voter" if via and _minor(via["etcd"]["version"]) < (3, 4) else "learner")
    if not facts["node"]:
        return dict(answer, refusals=[_manifests(facts, via)])
    transaction, refusal = _transaction(facts["node"])
    if refusal:
        return dict(answer, refusals=[refusal])
    if via is None and not transaction and facts["node"].get("complete") and _alone(facts):
        # the only one that works, as the one that was restored
        return dict(answer, case="member", why="it is a healthy member with a vote, the only one that could be asked", cluster_id=facts["own"]["cluster_id"])
    name, urls = facts["node"]["etcd"].get("name", ""), set((facts["node"]["etcd"].get("peer_urls") or "").split(",")) - {""}
    members = via["etcd"].get("members", []) if via else []
    matched = [member for member in members if (name and member["name"] == name) or urls & set(member["peer_urls"])]
    if not transaction and not facts["node"].get("complete"):
        refusals = [_manifests(facts, via)]
    elif not refusals and asked:
        answer["case"], refusal, answer["why"] = _case(facts, via, matched, transaction)
        refusals = [refusal] if refusal else []
    answer.update(refusals=refusals, path=transaction.get("path", ""))
    if refusals or answer["case"] in ("", "member"):
        return answer
    exact = [member for member in matched if not member["name"] and set(member["peer_urls"]) == urls]
    if answer["case"] not in ("rejoining", "learner"):
        answer["stale"] = [member for member in matched if member not in exact]
    answer["entry"] = (exact + matched + [{}])[0] if answer["case"] in ("rejoining", "learner") else (exact + [{}])[0]
    health = {member["id"]: member["healthy"] for member in facts["members"] or []}
    for lost in facts["lost"]:
        for member in members:
            if lost in (member["name"], member["id"]) and member not in matched:
                if health.get(member["id"]):
                    answer["refusals"].append("%s is declared lost, but it answers and is healthy. Remove it from etcd_rejoin_lost_members" % _words(member))
                answer["stale"].append(member)
    others = [member for member in members if member["is_learner"] and member not in matched and member not in answer["stale"]]
    if others and not answer["entry"]:
        answer["refusals"].append(
            "etcd takes one learner at a time, and %s is one. Finish that first (rejoin that host), or: etcdctl member remove %s"
            % (_words(others[0]), others[0]["id"])
        )
    if answer["case"] != "learner":
        answer["refusals"] += _fitness(facts, via)
    if not answer["entry"]:
        answer["refusals"] += _dead(facts, via, answer["stale"] + matched)
    return answer


def _alone(facts):
    """Whether only this host's etcd works."""
    return facts["own"].get("healthy") and not facts["own"].get("is_learner") and not any(other["etcd"].get("healthy") for other in facts["others"])


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.rejoin_plan."""

    def filters(self):
        return {"rejoin_plan": rejoin_plan}
