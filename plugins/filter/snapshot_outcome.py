# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.member_selection import mapping, text_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.retention import locked_words

DOCUMENTATION = r"""
name: snapshot_outcome
short_description: Decides whether a host's cluster has its snapshot where it should be
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Says on each host what was done and what failed. A snapshot that was taken and did not get to each place that is configured is a failure.
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
positional: _input
options:
  _input:
    description: >-
      Results of one host and of those that may take the snapshot of its cluster, as P(k8s_dr.etcd.snapshot_known#filter) puts them together.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show why this host's cluster has no snapshot
  ansible.builtin.debug:
    msg: "{{ (['cp1'] | k8s_dr.etcd.snapshot_known(hostvars) | k8s_dr.etcd.snapshot_outcome).problem }}"
"""

RETURN = r"""
_value:
  description: >-
    V(problem), what fails this host, or empty; V(lines), the report of this host; V(warnings); V(ok), whether nothing failed; V(is_off_site), whether the
    snapshot is at all off-site places; V(seconds), how long the snapshot and its uploads took; V(artifacts), what a job hands on of the snapshot, or empty.
  type: dict
"""


def sentence(text):
    return text if text.endswith("?") else text.rstrip(". \t\n") + "." if text else ""


def refusal(host, choice, cluster, taken, failures):
    """Why the cluster of this host has no snapshot, or ''."""
    if host in choice["refused"]:
        return text_of(choice["refused"][host])
    candidates = cluster.get("candidates") or []
    if not candidates or any(mapping(taken.get(one)).get("snapshot") for one in candidates):
        return ""
    return " ".join(["No snapshot was taken."] + failures)


def off_site_results(result):
    """(place, whether the snapshot is there, what was uploaded to it, what was removed from it, why it could not be used) of each one that is configured."""
    at = {one.get("remote"): one for one in map(mapping, result.get("at") or [])}
    for place in result.get("off_site") or []:
        found = mapping(at.get(place))
        uploaded = mapping(found.get("uploaded"))
        # a host that is lost in the middle says nothing
        is_there = uploaded.get("uploaded") is not None and uploaded.get("msg") is None
        yield place, is_there, uploaded, mapping(found.get("pruned")), text_of(found.get("problem"))


def missing_copies(result, places):
    """What was taken and is not where it should be, and what else failed after it."""
    was_taken = bool(result.get("snapshot")) and not result.get("check_mode")
    found = [text_of(mapping(result.get("metrics")).get("msg"))]
    for place, is_there, uploaded, pruned, problem in places:
        if was_taken and problem:
            path = mapping(result["snapshot"]).get("path")
            found.append("%s Nothing is lost: %s is complete on this host, and the next run uploads it" % (sentence(problem), path))
        elif was_taken and not is_there:
            lost = "the snapshot is not at %s, since the connection to this host was lost; the snapshot is complete on it" % place
            found.append(text_of(uploaded.get("msg")) or lost)
        if pruned.get("msg") is not None:
            found.append("the snapshot is off-site, and those that are surplus there could not be removed: " + text_of(pruned["msg"]))
    if result.get("fetch") and was_taken and not result.get("is_fetched"):
        why = text_of(result.get("fetch_problem")) or "the host was lost"
        found.append("the snapshot could not be fetched to %s on the controller: %s; it is complete on the host that took it" % (result["fetch"], why))
    return ". ".join(text.rstrip(". \t\n") for text in found if text)


def copies(result, places):
    """Where the snapshot is besides the node, in one line."""
    if not result.get("snapshot"):
        return ""
    if result.get("check_mode"):
        return "It would be sent to %s." % " and to ".join(place[0] for place in places) if places else ""
    found = []
    for place, is_there, uploaded, pruned, _problem in places:
        if not is_there:
            continue
        earlier = len(uploaded.get("uploaded") or []) - 1
        removed = len(pruned.get("removed") or [])
        locked = locked_words(pruned.get("locked") or [])
        text = "It is off-site at %s, and was verified there" % place
        text += ", as %d of earlier runs" % earlier if earlier > 0 else ""
        text += "; %d older were removed there" % removed if removed else ""
        found.append(text + ("; of those that are surplus there, %s." % locked if locked else "."))
    if result.get("fetch") and result.get("is_fetched"):
        found.append("It is in %s on the controller." % result["fetch"])
    return " ".join(found)


def snapshot_line(result, own):
    """The snapshot that was taken or would be, in one line."""
    snapshot = mapping(own.get("snapshot"))
    if not snapshot:
        if not result.get("predicted"):
            return ""
        return (
            "This host has no etcd tools yet. They would be installed, and then a snapshot would be taken into %s if this is the host that is chosen for"
            " its cluster." % result.get("directory")
        )
    removed = len(own.get("removed") or [])
    if result.get("check_mode"):
        directory = str(snapshot["path"]).rpartition("/")[0]
        return "A snapshot of etcd %s would be taken into %s, and %d older removed." % (snapshot["etcd_version"], directory, removed)
    return "%s: revision %s, %s keys, %s, sha256 %s, taken%s in %.1f s, %d older removed." % (
        snapshot["path"],
        snapshot["revision"],
        snapshot.get("total_keys") or "?",
        bytes_to_human(int(snapshot["size"])),
        str(snapshot["sha256"])[:12],
        ", verified and packed" if "packing" in snapshot else " and verified",
        sum(mapping(own.get("seconds")).values()),
        removed,
    )


def artifacts(host, snapshot, warnings, there):
    """What a job hands on of a snapshot that was taken.  there: the places off-site that it is at."""
    found = {name: snapshot.get(name) for name in ("path", "sha256", "size", "revision", "level", "created", "cluster_id")}
    member = mapping(snapshot.get("member"))
    found.update(host=host, member=member.get("name"), leader=member.get("leader"), off_site=there[0] if there else "", off_site_places=there)
    return {"etcd_snapshot": found, "etcd_snapshots": [found], "etcd_snapshot_warnings": warnings}


def snapshot_outcome(result):
    """See RETURN."""
    host, choice, taken, tried = (result[name] for name in ("host", "choice", "taken", "tried"))
    own = mapping(taken.get(host))
    result = dict(result, snapshot=own.get("snapshot"))
    cluster = next((one for one in choice["clusters"] if host in one["hosts"]), {})
    candidates = cluster.get("candidates") or []
    failures = ["%s: %s" % (cluster["labels"][one], sentence(text_of(tried[one]))) for one in candidates if tried.get(one)]
    places = list(off_site_results(result))
    refused, missing = refusal(host, choice, cluster, taken, failures), missing_copies(result, places)
    warnings = [text_of(text) for text in cluster.get("warnings") or []] + ["No snapshot was taken on " + text for text in failures]
    why = "%s takes the snapshot: %s." % (cluster["labels"][host], cluster["why"]) if candidates[:1] == [host] else ""
    lines = [line for line in (why, snapshot_line(result, own), copies(result, places)) if line]
    sent = [one for place in places for one in place[2].get("uploaded") or []]
    seconds = sum(mapping(own.get("seconds")).values()) + sum(one.get("seconds") or 0 for one in sent)
    there = [place[0] for place in places if place[1]]
    return {
        "problem": " ".join(text for text in (refused, sentence(missing)) if text),
        "lines": lines + (["WARNING: " + text for text in warnings] if result["snapshot"] else []),
        "warnings": warnings,
        "artifacts": artifacts(host, own["snapshot"], warnings, there) if own.get("snapshot") else {},
        "ok": not refused and not missing,
        "is_off_site": bool(places) and len(there) == len(places),
        "refused": bool(refused),
        "seconds": seconds,
    }


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.snapshot_outcome."""

    def filters(self):
        return {"snapshot_outcome": snapshot_outcome}
