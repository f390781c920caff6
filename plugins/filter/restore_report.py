# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: restore_report
short_description: Builds the report of an etcd restore from the results of its tasks
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Computes the times of each phase, the API downtime, and the next steps for the operator.
  - Used by the role P(k8s_dr.etcd.etcd_restore#role), whose C(README.md) describes the report. Its templates only lay it out.
positional: _input
options:
  _input:
    description: The variables of each host of the play, in their order. A host that was lost has no C(__etcd_restore_present).
    type: list
    elements: dict
    required: true
  known:
    description: >-
      What is the same for all hosts, as the role's C(tasks/record.yml) has it: C(first), C(retired), C(committed), C(clock), C(question), C(label),
      C(origin), C(chosen), C(manifest), C(raised_by), C(after), C(validated), C(comparison), C(changes) and C(report_dir). All of it may be missing.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Make the report
  ansible.builtin.set_fact:
    report: "{{ ansible_play_hosts_all | map('extract', hostvars) | k8s_dr.etcd.restore_report({'first': 'cp1', 'committed': true}) }}"
"""

RETURN = r"""
_value:
  description: The report, as described in the role's C(README.md).
  type: dict
"""

# What the states in a node's log begin and end.  `validate` is between two states of its own.
_PHASES = (
    ("stage", "staging", "staged"),
    ("stop", "stopping", "stopped"),
    ("swap", "swapping", "swapped"),
    ("start etcd", "starting-etcd", "etcd-started"),
    ("start API", "starting", "started"),
    ("validate", "started", "committing"),
    ("commit", "committing", "committed"),
    ("roll back", "rolling-back", "rolled-back"),
)
ORDER = ("preflight", "question") + tuple(phase[0] for phase in _PHASES) + ("safety snapshot",)
_SNAPSHOT = ("path", "source", "created", "host", "revision", "size", "sha256", "integrity", "etcd_version", "kubernetes_version")
_SAFETY = ("path", "created", "revision", "size", "sha256", "total_keys")
_NUMBERS = ("revision", "size", "total_keys")
_KINDS = 300
# What the first node registers of the step that tries whether etcd starts on the snapshot.
_STAGED = ("__etcd_restore_beginning", "__etcd_restore_staged")
# Clocks that differ by less are left as they are: the difference is noise of how it is measured.
_SKEW = 5.0


def parse(text):
    """The time in '2026-11-22T17:05:01.123Z', '2026-11-22T17:05:01Z' or '20261122T170501Z'; None for anything else."""
    for form in ("%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ", "%Y%m%dT%H%M%SZ"):
        try:
            return datetime.datetime.strptime(str(text or ""), form).replace(tzinfo=datetime.timezone.utc)
        except ValueError:
            continue
    return None


def show(moment):
    """As in the logs."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + "%03dZ" % (moment.microsecond // 1000) if moment else None


def no_template(value):
    """Text as it is.  Where it came from it may hold braces, which up to ansible-core 2.18 would be taken for a template."""
    return re.sub(r"\{(?=[{%#])", "{ ", str(value if value is not None else ""))


def text_of(value):
    """Text for people."""
    return no_template(value).strip()


def number(value):
    """An integer, None for anything else (up to ansible-core 2.18 text arrives where a number was meant)."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def mapping(value):
    return value if isinstance(value, Mapping) else {}


def some(source, names):
    """Those of a dict's entries that are known: nothing else of it gets into the report."""
    source = mapping(source)
    found = {}
    for name in names:
        value = number(source.get(name)) if name in _NUMBERS else text_of(source.get(name))
        if value is not None and value != "":
            found[name] = value
    return found


def phase(name, begun, ended, finished=True):
    return {"name": name, "from": begun, "to": ended, "finished": finished}


class Node:
    """What one node's log says, in the controller's time."""

    def __init__(self, host, facts):
        self.host = host
        # a host that was lost on the way has nothing to say
        self.facts = facts = mapping(facts)
        self.states = []
        for line in facts.get("log") or []:
            state, dummy, at = str(line).partition(" ")
            moment = parse(at)
            if moment:
                self.states.append((state, moment))
        # by how much the node's clock is behind the controller's
        self.skew = 0.0
        seen, logged = parse(mapping(facts.get("clock")).get("committed")), self.last("committed")
        if seen and logged and abs((seen - logged).total_seconds()) >= _SKEW:
            self.skew = (seen - logged).total_seconds()
            self.states = [(state, moment + datetime.timedelta(seconds=self.skew)) for state, moment in self.states]

    def first(self, state):
        return next((moment for known, moment in self.states if known == state), None)

    def last(self, state):
        return next((moment for known, moment in reversed(self.states) if known == state), None)

    def phases(self):
        """What was finished, and what was broken off by a rollback."""
        found = []
        for name, doing, done in _PHASES:
            # a restore that was taken up again entered a state twice
            begun, ended = self.first(doing), self.last(done)
            if begun and ended and ended >= begun:
                found.append(phase(name, begun, ended))
            elif begun and name != "roll back":
                broken = next((moment for state, moment in self.states if state == "rolling-back" and moment >= begun), None)
                after = [moment for state, moment in self.states if moment > begun and not state.startswith("roll")]
                if broken and not after:
                    found.append(phase(name, begun, broken, finished=False))
        return found

    def inside(self):
        """Seconds from the stop until the API server was ready, by the node itself; None when it did not get there, or not for good."""
        begun, ended = self.first("stopping"), self.last("started") if not self.first("rolling-back") else None
        return round((ended - begun).total_seconds(), 3) if begun and ended else None

    def outside(self):
        """What the probe saw of its API server."""
        watched = mapping(self.facts.get("watched"))
        url = text_of(watched.get("url"))
        candidates = []
        for where in ("controller", "node"):
            probe = mapping(watched.get(where))
            seen = mapping(mapping(probe.get("apis")).get(watched.get("url")))
            if seen:
                candidates.append((where, probe, seen))
        answer = {"url": url, "where": None, "seconds": None, "complete": False, "gaps": [], "remark": ""}
        if self.facts.get("retired"):
            answer["remark"] = "stopped until rejoin.yml returns the node"
            return answer
        if not candidates:
            answer["remark"] = "not measured: %s" % (text_of(watched.get("reason")) or "there was no watch")
            return answer
        # the controller's, unless only the node itself reached it
        where, probe, seen = next((one for one in candidates if one[2].get("first_good")), candidates[0])
        answer["where"] = where
        for name in ("how", "samples", "failures", "latency_median", "answering_at_start", "answering_at_end"):
            answer[name] = seen.get(name)
        answer["how"] = text_of(answer["how"])
        answer["interval"] = probe.get("interval")
        answer["from"], answer["to"] = probe.get("from"), probe.get("to")
        answer["gaps"] = [dict(gap) for gap in seen.get("gaps") or []]
        longest = mapping(seen.get("longest_gap"))
        answer["seconds"] = longest.get("seconds", 0.0)
        answer["complete"] = bool(seen.get("answering_at_start") and seen.get("answering_at_end"))
        if not seen.get("first_good"):
            answer["seconds"] = None
            answer["remark"] = "not measured: it never answered there (%s)" % text_of(seen.get("last_error"))
        elif not seen.get("answering_at_start"):
            answer["remark"] = "it did not answer before the restore either, so it was away for longer than this"
        elif probe.get("ended_by") != "stop_file":
            answer["complete"] = False
            answer["remark"] = "the watch ended before the restore did, so it may have been away for longer than this"
        elif not seen.get("answering_at_end"):
            answer["remark"] = "it did not answer yet when the watch ended"
        return answer

    def report(self):
        facts = self.facts
        outside = self.outside()
        return {
            "host": self.host,
            "name": text_of(facts.get("name")),
            "etcd_version": text_of(facts.get("etcd_version")),
            "kubernetes_version": text_of(facts.get("kubernetes_version")),
            "state": self.states[-1][0] if self.states else "" if facts else "unknown",
            "states": [{"state": state, "at": show(moment)} for state, moment in self.states],
            "clock_behind": round(self.skew, 1),
            "outage": {"outside": outside, "inside": self.inside()},
            "retired": bool(facts.get("retired")),
            "transaction": text_of(facts.get("transaction")),
            "old_data": text_of(facts.get("old_data")),
            "error": text_of(facts.get("error")) if facts else "it was not reached any more",
            "error_task": text_of(facts.get("error_task")),
            "again": text_of(facts.get("again")),
            "rollback": [text_of(line) for line in facts.get("rollback") or []],
        }


def timeline(facts, nodes):
    """(beginning, end, phases of all hosts together, [phases of each node])."""
    clock = mapping(facts.get("clock"))
    begun, staged = parse(clock.get("begun")), parse(str(facts.get("id") or "")[:16])
    committed, ended = parse(clock.get("committed")), parse(clock.get("ended"))
    each = [node.phases() for node in nodes]
    together = []
    if begun and staged and staged >= begun:
        waited = datetime.timedelta(seconds=float(clock.get("question") or 0))
        together.append(phase("preflight", begun, max(begun, staged - waited)))
        if waited.total_seconds() >= 1:
            together.append(phase("question", max(begun, staged - waited), staged))
    for name in ORDER:
        same = [one for phases in each for one in phases if one["name"] == name]
        if same:
            together.append(
                phase(name, min(one["from"] for one in same), max(one["to"] for one in same), all(one["finished"] for one in same))
            )
    if any(facts.get("safety") or []) and committed and ended and ended >= committed:
        together.append(phase("safety snapshot", committed, ended))
    moments = [moment for one in together for moment in (one["from"], one["to"])]
    # of a restore that was taken up again, only what this run saw is drawn
    begun = begun or (min(moments) if moments else None)
    ended = max(moments + ([ended] if ended else [])) if moments or ended else None
    for one in together + [one for phases in each for one in phases]:
        one["seconds"] = round((one["to"] - one["from"]).total_seconds(), 3)
        one["offset"] = round((one["from"] - begun).total_seconds(), 3) if one["to"] >= begun else None
        one["from"], one["to"] = show(one["from"]), show(one["to"])
    return begun, ended, together, each


def add_offsets(outside, begun, skew):
    """What a gap needs to be drawn beside the phases."""
    for gap in outside["gaps"]:
        at = parse(gap.get("from"))
        offset = (at - begun).total_seconds() + (skew if outside["where"] == "node" else 0) if at and begun else None
        gap.update(name="API away", offset=None if offset is None else round(offset, 3))


def outage(nodes):
    """One answer for the cluster: the worst of the API servers that it still has."""
    nodes = [node for node in nodes if not node["retired"]]
    measured = [node for node in nodes if node["outage"]["outside"]["seconds"] is not None]
    inside = [node["outage"]["inside"] for node in nodes if node["outage"]["inside"] is not None]
    answer = {"seconds": None, "inside": max(inside) if inside else None, "complete": False, "where": None, "sentence": ""}
    if measured:
        worst = max(measured, key=lambda node: node["outage"]["outside"]["seconds"])["outage"]["outside"]
        answer.update(seconds=worst["seconds"], where=worst["where"])
        answer["complete"] = all(node["outage"]["outside"]["complete"] for node in nodes)
        sentence = "%.1f s seen from the %s" % (worst["seconds"], "controller" if worst["where"] == "controller" else "node itself")
        sentence += ", %s of %s questions failed" % (worst.get("failures"), worst.get("samples"))
    else:
        sentence = "not measured from outside"
    remarks = sorted({node["outage"]["outside"]["remark"] for node in nodes} - {""})
    answer["sentence"] = "; ".join([sentence] + remarks)
    if answer["inside"] is not None:
        answer["sentence"] += "; %.1f s by the node's own log (from the stop until it was ready)" % answer["inside"]
    return answer


def validated(facts):
    """What the validation counted."""
    facts = mapping(facts)
    if not facts:
        return {}
    found = {name: number(facts.get(name)) for name in ("nodes", "workloads", "members")}
    found.update(secret_read=bool(facts.get("secret_read")), seconds=float(facts.get("seconds") or 0))
    found["unchecked"] = text_of(facts.get("unchecked"))
    found["warnings"] = [text_of(sentence) for sentence in facts.get("warnings") or []]
    return found


def objects(facts):
    """How many objects a restore deleted, re-created and modified, as the plan said; no names."""
    facts = mapping(facts)
    if not facts:
        return {}
    found = {"compared": bool(facts.get("compared")), "reason": text_of(facts.get("reason")), "list": text_of(facts.get("list")), "kinds": []}
    for name, word in (("vanish", "lost"), ("reappear", "back"), ("change", "changed")):
        difference = mapping(facts.get(name))
        found[word] = number(difference.get("objects"))
        for kind in difference.get("kinds") or []:
            row = {"kind": text_of(kind.get("kind")), "namespace": text_of(kind.get("namespace")), "count": number(kind.get("count"))}
            found["kinds"].append(dict(row, what=word))
    del found["kinds"][_KINDS:]
    return found


def changes(facts):
    """What changes in selected objects, as the plan said; {} where that was not asked for."""
    facts = mapping(facts)
    if not facts:
        return {}
    return {
        "compared": bool(facts.get("compared")),
        "reason": text_of(facts.get("reason")),
        # those of an object are indented
        "lines": [no_template(line) for line in facts.get("lines") or []],
    }


def of_node(facts, known):
    """What one host's facts say of its part; nothing of a host that was lost on the way."""
    if not facts.get("__etcd_restore_present"):
        return {}
    host = facts.get("inventory_hostname")
    fact = {name: mapping(facts.get("__etcd_restore_" + name)) for name in ("node", "clock", "watch", "seen", "seen_here", "failed", "again", "end")}
    back = next((one for one in (mapping(facts.get("__etcd_restore_" + name)) for name in ("rolled_back", "unretired")) if one.get("output") is not None), {})
    records = [mapping(facts.get("__etcd_restore_" + name)).get("transaction") for name in ("rolled_back", "unretired", "end")]
    path = "%s/%s" % (fact["node"].get("transactions_dir"), known.get("id"))
    failed = fact["failed"] if fact["failed"].get("here") else {}
    again = mapping(fact["again"].get("validation"))
    return {
        "host": host,
        "name": fact["node"].get("host") or "",
        "etcd_version": mapping(fact["node"].get("etcd")).get("version") or "",
        "kubernetes_version": fact["node"].get("kubernetes_version") or "",
        "retired": host in (known.get("retired") or []),
        "transaction": path if facts.get("__etcd_restore_touched") else "",
        "old_data": path + "/old" if facts.get("__etcd_restore_committed") else "",
        "log": next((record.get("log") for record in records if isinstance(record, Mapping)), None) or [],
        "clock": fact["clock"],
        "watched": {
            "url": next(iter(fact["watch"].get("urls") or []), ""),
            "reason": facts.get("__etcd_restore_unwatched") or fact["watch"].get("msg") or fact["seen"].get("msg") or "",
            "controller": fact["seen"].get("probe") or {},
            "node": fact["seen_here"].get("probe") or {},
        },
        "error": failed.get("msg") or "",
        "error_task": failed.get("task") or "",
        "rollback": back.get("output") or [],
        "again": "" if not again else "works as before" if again.get("ok") else "; ".join(text_of(one) for one in sentences(again, "problems")),
    }


def sentences(validation, name):
    return [sentence for layer in mapping(validation.get("layers")).values() for sentence in mapping(layer).get(name) or []]


def of_validation(validation, members):
    """What the validation counted, of a restore that was kept."""
    validation = mapping(validation)
    if not validation:
        return {}
    observed = mapping(validation.get("observed"))
    return {
        "nodes": len(observed.get("nodes") or {}),
        "workloads": len(observed.get("workloads") or {}),
        "secret_read": observed.get("secret_read") or False,
        "unchecked": "" if validation.get("permitted") else "; ".join(text_of(one) for one in sentences(validation, "problems")),
        "members": len(members or []),
        "seconds": validation.get("seconds"),
        "warnings": sentences(validation, "warnings"),
    }


def gather(hosts, known):
    """All that a report is made of, from the facts of all hosts and from what is the same for all of them."""
    known, hosts = mapping(known), list(hosts)
    first = next((facts for facts in hosts if facts.get("inventory_hostname") == known.get("first")), {})
    known = dict(known, id=text_of(first.get("__etcd_restore_id")))
    committed = bool(known.get("committed"))
    etcd = mapping(mapping(known.get("after")).get("etcd"))
    manifest = mapping(known.get("manifest"))
    snapshot = dict(mapping(known.get("chosen")), path=known.get("label"), source=known.get("origin"))
    snapshot.update({name: manifest.get(name) or "" for name in ("created", "host", "etcd_version", "kubernetes_version")})
    safety = [mapping(facts.get("__etcd_restore_safety")) if committed else {} for facts in hosts]
    problem = mapping(first.get("__etcd_restore_safety"))
    stem = text_of(known.get("report_dir"))
    stem = os.path.join(os.path.expanduser(stem), "restore-" + (known["id"] or "unknown")) if stem else ""
    return {
        "id": known["id"],
        "result": "restored" if committed else "",
        "clock": dict(mapping(known.get("clock")), question=known.get("question") or 0),
        "snapshot": snapshot,
        "revision": {
            "before": max([number(mapping(facts.get("__etcd_restore_live")).get("revision")) or 0 for facts in hosts] or [0]),
            "snapshot": snapshot.get("revision"),
            "raised_by": known.get("raised_by"),
            "after": etcd.get("revision") if committed else "",
        },
        "validated": of_validation(mapping(known.get("validated")).get("validation"), etcd.get("members")) if committed else {},
        "comparison": known.get("comparison"),
        "changes": known.get("changes"),
        "hosts": [facts.get("inventory_hostname") for facts in hosts],
        "untested": next(filter(None, (mapping(mapping(first.get(name)).get("start")).get("reason") for name in _STAGED)), ""),
        "safety": [mapping(one.get("snapshot")) for one in safety],
        "safety_problem": "" if not committed or problem.get("skipped") or problem.get("snapshot") else problem.get("msg") or "",
        "nodes": [of_node(facts, known) for facts in hosts],
        "files": {"json": stem + ".json", "html": stem + ".html"} if stem else {},
    }


def of_hosts(hosts, known):
    """The filter; see the documentation."""
    return restore_report(gather(hosts, known))


def restore_report(facts):
    """The report, of what gather() found."""
    if not isinstance(facts, Mapping):
        raise AnsibleFilterError("restore_report wants a dict of what is known of a restore, and got %s" % type(facts).__name__)
    hosts = [text_of(host) for host in facts.get("hosts") or []]
    known = [Node(host, node) for host, node in zip(hosts, facts.get("nodes") or [])]
    begun, ended, together, each = timeline(facts, known)
    nodes = [node.report() for node in known]
    for one, node, phases in zip(known, nodes, each):
        node["phases"] = phases
        add_offsets(node["outage"]["outside"], begun, one.skew)
    safety = [dict(some(one, _SAFETY), host=host) for host, one in zip(hosts, facts.get("safety") or []) if mapping(one).get("path")]
    raised = number(mapping(facts.get("revision")).get("raised_by")) or 0
    limit = ",".join(hosts)
    result = facts.get("result")
    if result != "restored":
        back = {node["state"] for node in nodes} <= {"", "begun", "rolled-back"}
        result = "rolled back" if back else "failed"
    hints = []
    rollback = "ansible-playbook k8s_dr.etcd.rollback -l " + limit
    undo = {"restored": rollback + " -e etcd_restore_undo=true", "failed": rollback}.get(result, "")
    if result == "restored" and not raised:
        hints.append(
            "The revision was not raised, so kubelets of workers outside this inventory keep stale objects. "
            "Run on each of them: systemctl restart kubelet"
        )
    problem = text_of(facts.get("safety_problem")).rstrip(".")
    if result == "restored" and problem:
        hints.append("There is no snapshot of what was discarded (%s). All of it is still in the previous data directory." % problem)
    unchecked = validated(facts.get("validated")).get("unchecked")
    if result == "restored" and unchecked:
        hints.append(
            "etcd serves the snapshot with the planned members, but whether nodes, kube-system and workloads are healthy could not be checked. "
            "Once that is repaired, run: ansible-playbook k8s_dr.etcd.validate -l " + limit
        )
    untested = text_of(facts.get("untested")).rstrip(".")
    if result != "restored" and untested:
        hints.append("Before anything was stopped it could not be tested whether etcd starts on this snapshot: %s." % untested)
    if result == "rolled back":
        hints.append("Validate the cluster again with: ansible-playbook k8s_dr.etcd.validate -l " + limit)
    for node in nodes:
        if node["clock_behind"]:
            hints.append(
                "The clock of %s is %.0f s %s the controller's; the times of its phases are the controller's here."
                % (node["host"], abs(node["clock_behind"]), "behind" if node["clock_behind"] > 0 else "ahead of")
            )
    return {
        "format": 1,
        "id": text_of(facts.get("id")),
        "result": result,
        "error": next((node["error"] for node in nodes if node["error"]), ""),
        "from": show(begun),
        "to": show(ended),
        "seconds": round((ended - begun).total_seconds(), 3) if begun and ended else None,
        "hosts": hosts,
        "snapshot": some(facts.get("snapshot"), _SNAPSHOT),
        "revision": dict(
            {name: number(mapping(facts.get("revision")).get(name)) or None for name in ("before", "snapshot", "after")}, raised_by=raised
        ),
        "outage": outage(nodes),
        "phases": together,
        "nodes": nodes,
        "validated": validated(facts.get("validated")),
        "objects": objects(facts.get("comparison")),
        "changes": changes(facts.get("changes")),
        "safety": safety,
        "undo": undo,
        "hints": hints,
        "files": some(facts.get("files"), ("json", "html")),
    }


class FilterModule:
    """Makes the filter known."""

    def filters(self):
        return {"restore_report": of_hosts}
