# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: restore_members
short_description: Matches the hosts of an etcd restore to the cluster's members
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - The members are those that an etcd with a quorum names. Without one they are all that any etcd remembers, any database holds and any manifest
    names, since each of these may be out of date.
  - A member is one of these hosts when it has its name or one of its peer URLs, as one that was added and never started has no name.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role).
positional: _input, restored, lost, addresses
options:
  _input:
    description: >-
      For each host its name in the inventory, what M(k8s_dr.etcd.etcd_restore_info) said, and what M(k8s_dr.etcd.etcd_cluster_info) said.
    type: list
    elements: list
    required: true
  restored:
    description: Those of the hosts that get the snapshot.
    type: list
    elements: str
    default: []
  lost:
    description: Members that are declared lost, by name, peer URL, or name in the inventory.
    type: list
    elements: str
    default: []
  addresses:
    description: Addresses of hosts in the inventory, by name. Where one is empty, the name is the address.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Say which members this run does not reach
  ansible.builtin.debug:
    msg: "{{ ([['cp1', found.restore, asked.etcd]] | k8s_dr.etcd.restore_members(['cp1'])).absent }}"
"""

RETURN = r"""
_value:
  description: >-
    V(members), each with V(label), V(name), V(peer_urls), V(client_urls), V(role), which is V(restored), V(retired), V(lost) or V(absent), and V(source),
    who names it; V(labels) of all; V(quorum), whether an etcd with a quorum named them; V(absent), labels of those that are no host and not
    lost, with who names them; V(lost_here), what is declared lost and is a host; V(lost_unknown), what is declared lost and no member; V(lost),
    labels of what is; V(lost_addresses) and V(absent_addresses), with V(member), V(host) and V(port); V(asked), API servers of restored hosts
    that would ask a retired or lost member, with V(host), V(url) and V(member).
  type: dict
"""

# etcd's own, where a URL names none
_PEER = 2380
_CLIENT = 2379


def _address(url):
    """(host, port) of a URL, the host as one spelling of it; None for the node's own."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    try:
        parsed = ipaddress.ip_address(host)
        host, own = str(parsed), parsed.is_loopback or parsed.is_unspecified
    except ValueError:
        own = host in ("", "localhost")
    return None if own else (host, port)


def _hosts(urls):
    return {address[0] for address in map(_address, urls) if address}


def _of_manifest(text):
    """Members in an --initial-cluster."""
    members = {}
    for item in filter(None, text.split(",")):
        name, dummy, url = item.partition("=")
        members.setdefault(name, {"name": name, "peer_urls": []})["peer_urls"].append(url)
    return list(members.values())


def _named(hosts):
    """(whether a quorum says so, [(member, who names it)])"""
    agreed = []
    for host in hosts:
        live = host["live"]
        if live.get("members") and live.get("members_agreed", True):
            agreed += [(member, "etcd of " + host["host"]) for member in live["members"]]
    if agreed:
        return True, agreed
    found = []
    for host in hosts:
        found += [(member, "etcd of %s, which has no quorum" % host["host"]) for member in host["live"].get("members") or []]
        found += [(member, "the data of " + host["host"]) for member in host["node"].get("members_on_disk") or []]
    for host in hosts:
        listed = _of_manifest((host["node"].get("etcd") or {}).get("initial_cluster") or "")
        found += [(member, "the manifest of " + host["host"]) for member in listed]
    return False, found


def _merged(named):
    """One entry per member: those of a name, and those without one by what they have in common with others."""
    members = []
    for known, source in sorted(named, key=lambda item: not item[0].get("name")):
        name, urls = str(known.get("name") or ""), [str(url) for url in known.get("peer_urls") or []]
        same = [member for member in members if (name and member["name"] == name) or (not name and set(urls) & set(member["peer_urls"]))]
        if not same:
            same = [{"name": name, "peer_urls": [], "client_urls": [], "source": source}]
            members += same
        for kind, values in (("peer_urls", urls), ("client_urls", known.get("client_urls") or [])):
            same[0][kind] += [str(value) for value in values if value not in same[0][kind]]
    for member in members:
        member["label"] = member["name"] or ",".join(member["peer_urls"])
    return sorted(members, key=lambda member: member["label"])


def _own(host):
    """(names, URLs) of a host's own member."""
    etcd = host["node"].get("etcd") or {}
    return etcd.get("name") or "", [url for url in (etcd.get("peer_urls") or "").split(",") + [etcd.get("client_url") or ""] if url]


def _host_of(member, hosts):
    for host in hosts:
        if member["name"] and member["name"] == _own(host)[0]:
            return host
    return next((host for host in hosts if set(member["peer_urls"]) & set(_own(host)[1])), None)


def restore_members(hosts, restored=(), lost=(), addresses=None):
    """See RETURN."""
    try:
        hosts = [{"host": str(name), "restored": name in restored, "node": node or {}, "live": live or {}} for name, node, live in hosts]
    except (TypeError, ValueError) as exc:
        raise AnsibleFilterError("restore_members needs a list of hosts with what is known of each, not %r" % (hosts,)) from exc
    lost = [str(name) for name in lost or []]
    addresses = {name: str(address or name) for name, address in (addresses or {}).items()}
    quorum, named = _named(hosts)
    members = _merged(named)
    found_lost = set()
    for member in members:
        host = _host_of(member, hosts)
        where = _hosts(member["peer_urls"])
        names = [name for name in lost if name in [member["name"], member["label"]] + member["peer_urls"] or str(addresses.get(name, name)) in where]
        found_lost.update(names)
        member["role"] = ("restored" if host["restored"] else "retired") if host else "lost" if names else "absent"
        member["host"] = host["host"] if host else ""
    here = {name for host in hosts for name in (host["host"], _own(host)[0]) if name}
    here |= {member["label"] for member in members if member["host"]}
    # what only a manifest names proves that there is such a member, not that there is no other
    sure = quorum or any(host["node"].get("members_on_disk") for host in hosts)
    unknown = [name for name in lost if name not in found_lost and name not in here]
    answer = {
        "quorum": quorum,
        "members": members,
        "labels": [member["label"] for member in members],
        "absent": ["%s (named by %s)" % (member["label"], member["source"]) for member in members if member["role"] == "absent"],
        "lost": [member["label"] for member in members if member["role"] == "lost"] + ([] if sure else unknown),
        "lost_here": [name for name in lost if name in here],
        "lost_unknown": unknown if sure else [],
    }
    answer["lost_addresses"] = _addresses([member for member in members if member["role"] == "lost"], unknown, addresses)
    answer["absent_addresses"] = _addresses([member for member in members if member["role"] == "absent"])
    answer["asked"] = _asked(hosts, members)
    return answer


def _addresses(members, unknown=(), addresses=None):
    """Where these would answer, if they ran."""
    found = []
    for member in members:
        places = [address for address in map(_address, member["peer_urls"] + member["client_urls"]) if address]
        if not member["client_urls"]:
            places += [(host, _CLIENT) for host in sorted(_hosts(member["peer_urls"]))]
        found += [{"member": member["label"], "host": host, "port": port or _PEER} for host, port in places]
    for name in unknown:
        if name in (addresses or {}):
            found += [{"member": name, "host": str(addresses[name]), "port": port} for port in (_PEER, _CLIENT)]
    return [item for number, item in enumerate(found) if item not in found[:number]]


def _asked(hosts, members):
    """API servers of restored hosts that still name a removed member."""
    gone, kept = {}, set()
    for member in members:
        where = _hosts(member["peer_urls"] + member["client_urls"])
        if member["role"] == "restored":
            kept |= where
        elif member["role"] in ("retired", "lost"):
            gone.update(dict.fromkeys(where, member["label"]))
    for host in hosts:
        name, urls = _own(host)
        if host["restored"]:
            kept |= _hosts(urls)
        else:
            gone.update(dict.fromkeys(_hosts(urls), name or host["host"]))
    found = []
    for host in hosts:
        for url in (host["node"].get("etcd_servers") or []) if host["restored"] else []:
            for where in _hosts([url]) & set(gone) - kept:
                found.append({"host": host["host"], "url": str(url), "member": gone[where]})
    return found


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.restore_members."""

    def filters(self):
        return {"restore_members": restore_members}
