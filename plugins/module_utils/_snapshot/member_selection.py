# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which member a snapshot is taken of, and what is said of the others: by the filter member_selection, and on nodes that have no controller.

Private to this collection.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit


def text_of(value):
    """Text for people.  Where it came from it may hold braces, which up to ansible-core 2.18 would be taken for a template."""
    return re.sub(r"\{(?=[{%#])", "{ ", str(value if value is not None else "")).strip()


def words_of(result):
    """Why a task failed, on one line and without what Ansible 2.19 and later put before it."""
    return re.sub(r"^(?:Task failed: |Action failed: )+", "", " ".join(text_of(mapping(result).get("msg")).split()))


def mapping(value):
    return value if isinstance(value, Mapping) else {}


def one_spelling(host):
    """An address as one spelling of it, a name in lower case; '' for what every host calls itself."""
    try:
        address = ipaddress.ip_address(str(host).strip("[]"))
        return "" if address.is_loopback else str(address)
    except ValueError:
        return "" if str(host).lower() == "localhost" else str(host).lower()


def is_address(spelling):
    """Whether what one_spelling returned is an address, and no name."""
    try:
        return bool(ipaddress.ip_address(spelling))
    except ValueError:
        return False


def place_of(url):
    try:
        return one_spelling(urlsplit(str(url)).hostname or "")
    except ValueError:
        return ""


def named(etcd, which):
    """Name of the member that one of its ids is of."""
    return text_of(next((one.get("name") for one in etcd.get("members") or [] if one.get("id") == etcd.get(which)), ""))


class Host:
    """One host, and what it and its etcd said."""

    def __init__(self, number, name, facts):
        facts = mapping(facts)
        self.number, self.name = number, name
        self.prefers = text_of(facts.get("from"))
        self.result = mapping(facts.get("asked"))
        self.first = mapping(self.result.get("etcd"))
        again = mapping(mapping(facts.get("again")).get("etcd"))
        # what it said last counts
        self.etcd = again or self.first
        self.node = mapping(mapping(facts.get("node")).get("restore"))
        self.manifest = mapping(self.node.get("etcd"))
        self.problem = words_of({"msg": facts.get("problem")})
        lost = next((result for result in (facts.get("reached"), self.result, facts.get("again")) if mapping(result).get("unreachable")), None)
        if not facts:
            self.problem = "it had left the play before it was asked"
        elif lost:
            self.problem = "it cannot be reached: " + words_of(lost)
        elif not self.problem and not self.first:
            self.problem = words_of(self.result) or "it was not asked"
        self.answers = bool(self.first.get("cluster_id")) and not self.problem
        self.cluster = text_of(self.first.get("cluster_id")) if self.answers else ""
        self.authorities = set(self.first.get("authorities") or [])
        self.member = named(self.etcd, "member_id") or named(self.first, "member_id") or text_of(self.manifest.get("name"))
        self.leads = bool(self.etcd.get("is_leader"))
        # its manifest says what the others know of it
        self.is_described = bool(self.manifest.get("name") and self.manifest.get("peer_urls"))
        # what the inventory calls it, and all that it is called
        self.called = {one_spelling(known) for known in (name, facts.get("address")) if known} - {""}
        self.names = self.called | {one_spelling(known) for known in (self.member, self.node.get("host")) if known}
        self.names |= {place_of(url) for url in (text_of(self.manifest.get("peer_urls"))).split(",") if url}
        self.names.discard("")

    @property
    def label(self):
        """The host, and its member's name where that is another."""
        return "%s (etcd member %s)" % (self.name, self.member) if self.member and self.member != self.name else self.name

    def member_ids(self):
        """Ids of all members that it knows of."""
        return {text_of(one.get("id")) for etcd in (self.first, self.etcd) for one in etcd.get("members") or []}

    def member_id(self):
        return text_of(self.etcd.get("member_id") or self.first.get("member_id"))

    def doubles(self, other):
        """Whether another host says to be the same member, and cannot be this one under another name."""
        return bool(self.member_id()) and self.member_id() == other.member_id() and not self.called & other.called

    def knows(self, other):
        """Whether each has the other among its members."""
        return other.member_id() in self.member_ids() and self.member_id() in other.member_ids()

    def unfit(self, reached):
        """Why no snapshot is taken of this member, or ''; `reached` is the revision that the cluster had reached."""
        if self.problem:
            return self.problem
        retired = mapping(self.node.get("retired"))
        if not self.first.get("reachable"):
            said = text_of(self.first.get("error"))
            if retired:
                return "restore %s of other members stopped it for good; the playbook k8s_dr.etcd.rejoin returns it" % text_of(retired.get("id"))
            return said or "its etcd does not answer"
        if self.etcd.get("is_learner"):
            return "it is a learner, whose data may be incomplete"
        if "CORRUPT" in (self.etcd.get("alarms") or []):
            return "etcd has raised the alarm CORRUPT: members disagree about the data"
        if str(self.etcd.get("leader_id")) == "0":
            return "it has no leader, so it has no quorum"
        if not self.etcd.get("members_agreed"):
            return text_of(self.etcd.get("error")) or "it is not part of a quorum"
        # An alarm NOSPACE does not rule a member out: that is when a snapshot is wanted.
        if not self.etcd.get("healthy") and not self.etcd.get("alarms"):
            return text_of(self.etcd.get("error")) or "it does not serve"
        if (self.etcd.get("revision") or 0) < reached:
            return "it is behind: it has revision %d, and its cluster had %d before" % (self.etcd.get("revision") or 0, reached)
        return ""


def names_of(member):
    """Name and addresses of a member, as one_spelling has them."""
    urls = list(member.get("peer_urls") or []) + list(member.get("client_urls") or [])
    return ({place_of(url) for url in urls} | {one_spelling(member.get("name") or "")}) - {""}


class Cluster:
    """The hosts of one cluster, as far as they say so."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.absent = []
        self.reached = max(host.first.get("revision") or 0 for host in hosts)
        self.members = {}
        for host in hosts:
            for member in host.etcd.get("members") or []:
                self.members[text_of(member.get("id"))] = member
        # Whether the inventory calls all that answer by names, or by addresses, that their members have: then those of others tell something, too.
        self.tells = {True, False}
        for host in hosts:
            own = self.members.get(text_of(host.etcd.get("member_id")))
            self.tells &= {is_address(known) for known in host.called & (names_of(own) if own else set())}
        for host in hosts:
            self.members.pop(text_of(host.etcd.get("member_id")), None)

    def may_have(self, host):
        """Whether a host that claim() did not find may be one of this cluster all the same."""
        if not self.members or host.is_described:
            return False
        return not any(is_address(known) in self.tells for known in host.names)

    def claim(self, host):
        """Whether a host that does not say so is one of this cluster, by name or address."""
        for known, member in list(self.members.items()):
            if names_of(member) & host.names:
                del self.members[known]
                if not host.member:
                    host.member = text_of(member.get("name"))
                self.absent.append(host)
                return True
        return False


def in_order(hosts):
    return sorted(hosts, key=lambda host: host.number)


def order(cluster):
    """(candidates in the order in which they try, [(host, why not)], what was asked for and is none of them)"""
    unfit = [(host, host.unfit(cluster.reached)) for host in cluster.hosts]
    fit = [host for host, why in unfit if not why]
    wanted = next((host.prefers for host in cluster.hosts if host.prefers), "")
    fit.sort(key=lambda host: (not (wanted and wanted in (host.name, host.member)), host.leads))
    return fit, [(host, why) for host, why in unfit if why], wanted


def why_first(fit, cluster, wanted):
    first, others = fit[0], len(cluster.hosts) + len(cluster.absent) + len(cluster.members) > 1
    state = "it is caught up (revision %d)" % (first.etcd.get("revision") or 0)
    if wanted and wanted in (first.name, first.member):
        return "as etcd_snapshot_from says; %s%s" % (state, ", and the leader" if first.leads else "")
    if not first.leads:
        leader = next((host.label for host in cluster.hosts if host.leads), "") or named(first.etcd, "leader_id")
        return "%s and not the leader%s" % (state, ", which is " + leader if leader else "")
    if not others:
        return "%s and the only member" % state
    if len(cluster.hosts) + len(cluster.absent) == 1:
        return "%s, and no other member is in this play, so it was chosen although it is the leader" % state
    return "%s, and no other member is healthy, so it was chosen although it is the leader" % state


def no_snapshot(cluster, reasons):
    """The sentence for a cluster that has no member to rely on."""
    everyone = in_order(cluster.hosts + cluster.absent)
    text = "No snapshot was taken, since no etcd member of %s is healthy. " % ", ".join(host.name for host in everyone)
    text += " ".join("%s: %s." % (host.label, why.rstrip(".")) for host, why in sorted(reasons, key=lambda one: one[0].number))
    if any(host.first.get("reachable") and not host.etcd.get("members_agreed") and not host.etcd.get("is_learner") for host in cluster.hosts):
        text += (
            " The cluster has no quorum, or none that answers in time. Start the members that are down; when they are gone for good, what the others"
            " have on disk can be rescued with the playbook k8s_dr.etcd.salvage (docs/quorum-loss.md)."
        )
    return text


def left_out(host, why):
    return "%s was left out of the backup: %s." % (host.label, why.rstrip("."))


def warnings_of(fit, unfit, cluster, wanted):
    found = [left_out(host, why) for host, why in sorted(unfit, key=lambda one: one[0].number)]
    # one member may be known by several names in the inventory
    leaders = list({host.etcd.get("member_id"): host.label for host in fit if host.leads}.values())
    if len(leaders) > 1:
        found.append("%s both say that they lead the cluster. It may have split in two, and the snapshot holds the data of one side." % " and ".join(leaders))
    if wanted and not (fit and wanted in (fit[0].name, fit[0].member)):
        found.append("etcd_snapshot_from is %s, which is not a healthy host or member, so another one was chosen." % wanted)
    return found


def clusters_of(hosts):
    """Those that answer, by cluster.

    Its id alone does not tell one from others: etcd makes it, and that of the first member, of that one's peer URL and a token which kubeadm
    leaves alone (3.4.45 to 3.7.3: etcdserver/api/membership/member.go), so all clusters whose first control plane has the same address have the same.
    What differs is etcd's CA.
    """
    known = []
    for host in hosts:
        joined = set(host.authorities)
        for one in [one for one in known if one & joined]:
            known.remove(one)
            joined |= one
        known.append(joined)
    authority = {host: next((number for number, one in enumerate(known) if one & host.authorities), None) for host in hosts}

    def together(host, other):
        if host.cluster != other.cluster or host.doubles(other):
            return False
        return None in (authority[host], authority[other]) or authority[host] == authority[other]

    groups = []
    # a host without a CA belongs to the cluster that knows it
    for host in sorted(hosts, key=lambda host: (authority[host] is None, host.number)):
        fitting = [group for group in groups if all(together(host, one) for one in group)]
        fitting.sort(key=lambda group: not all(host.knows(one) for one in group))
        if fitting:
            fitting[0].append(host)
        else:
            groups.append([host])
    return [Cluster(in_order(group)) for group in sorted(groups, key=lambda group: min(host.number for host in group))]


def member_selection(facts, hosts):
    """What the filter of this name documents."""
    known = {one["host"]: one for one in facts}
    # one that has no tools in check mode can be asked nothing
    hosts = [name for name in hosts if not (known.get(name) or {}).get("predicted")]
    everyone = [Host(number, name, known.get(name)) for number, name in enumerate(hosts)]
    clusters = clusters_of([host for host in everyone if host.answers])
    silent = [host for host in everyone if not host.answers]
    silent = [host for host in silent if not any(cluster.claim(host) for cluster in clusters)]
    # that a host runs no etcd at all is known once it was looked at
    idle = [host for host in silent if host.node and "etcd" in (host.node.get("missing") or [])]
    silent = [host for host in silent if host not in idle]
    refused, together = {}, []
    if not clusters:
        nobody = no_snapshot(Silence(silent + idle), [(host, host.unfit(0) or "it answers no more") for host in silent + idle])
        return {"clusters": [], "refused": dict.fromkeys([host.name for host in everyone], nobody), "rounds": 0}
    possible = [cluster for cluster in clusters if any(cluster.may_have(host) for host in silent)]
    strangers = [host for host in silent if not any(cluster.may_have(host) for cluster in clusters)]
    silent = [host for host in silent if host not in strangers]
    # the others can only be counted
    if len(silent) > sum(len(cluster.members) for cluster in possible):
        strangers, silent = in_order(strangers + silent), []
    for host in strangers:
        refused[host.name] = left_out(host, host.unfit(0)) + (
            " It is not a member of any cluster that answers. If it is of another cluster, that has no snapshot now. Otherwise remove it from the inventory."
        )
    if len(clusters) == 1:
        clusters[0].absent += silent
    else:
        together = silent
    answer = []
    for cluster in clusters:
        fit, unfit, wanted = order(cluster)
        unfit += [(host, host.unfit(0)) for host in cluster.absent]
        sentence = "" if fit else no_snapshot(cluster, unfit)
        refused.update(dict.fromkeys([host.name for host in cluster.hosts + cluster.absent], sentence) if sentence else {})
        answer.append(
            {
                "id": cluster.hosts[0].cluster,
                "hosts": [host.name for host in in_order(cluster.hosts + cluster.absent)],
                "candidates": [host.name for host in fit],
                "labels": {host.name: host.label for host in fit},
                "why": why_first(fit, cluster, wanted) if fit else "",
                "refused": sentence,
                "warnings": warnings_of(fit, unfit, cluster, wanted) if fit else [],
            }
        )
    # hosts of no known cluster are reported with the first cluster
    for one in [one for one in answer if one["candidates"]][:1]:
        one["warnings"] += [left_out(host, host.unfit(0)) for host in together + idle]
    return {"clusters": answer, "refused": refused, "rounds": max(len(one["candidates"]) for one in answer)}


class Silence:
    """Hosts of which none answers."""

    def __init__(self, hosts):
        self.hosts, self.absent = hosts, []
