# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a restore: the revision that the cluster will have, and what an operator reads before saying yes.

Pure functions of the same `known` as in _restore/preflight.py; private to this collection.
"""

from __future__ import annotations

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.preflight import minor, plain, refusal
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels as verification_levels

# What may be written between the look and the stop.
_WRITTEN_MEANWHILE = 1000000
# Without a live etcd, or with one that is behind the snapshot because its data was lost, it is not known how far it was.
_UNKNOWN = 1000000000
_NAME_ONE = "Name one with -e etcd_restore_snapshot=PATH, on the node or on the controller."
# Parts of what kube_compare returns.
_PARTS = (("recreated", "re-created"), ("deleted", "deleted"), ("modified", "modified"))


def bump_revision(known):
    """By how much the revision is raised, so that it is above anything that a client has seen; 0 where it cannot be, or is not to be.

    All members or none: they have to hold the same.
    """
    hosts, nodes = known["hosts"], known["nodes"]
    if not known["options"]["bump_revision"] or not all(known["tools"].get(host, {}).get("bump_revision") for host in known["restored"]):
        return 0
    snapshot = int(known["proof"]["snapshot"].get("revision") or 0)
    live = max(int((known["live"].get(host) or {}).get("revision") or 0) for host in hosts)
    # of a database that no etcd serves now
    on_disk = max(int(nodes[host].get("revision_on_disk") or 0) for host in hosts)
    ahead = max(live, on_disk) - snapshot
    # each restore before may have raised it as this one does
    restores = max(len(nodes[host].get("cluster_ids") or []) for host in known["restored"])
    return max(ahead, 0) + (_WRITTEN_MEANWHILE if live and live >= snapshot else _UNKNOWN * (1 + restores))


def choose_source(known):
    """Where the snapshot comes from: {host: a node or "localhost", path, packed: whether a manifest of ours says how it was packed, findings}.

    The one that was asked for, on a node before one on the controller; else the newest verified one of all nodes.
    """
    wanted, here, first = known["wanted"], known["on_controller"], known["first"]
    held = {host: known["nodes"][host]["snapshots"] for host in known["hosts"]}
    found, findings = {}, []
    if wanted:
        for host in known["hosts"]:
            if not known["off_site"] and held[host]["given"] and not found:
                found = dict(held[host]["given"], host=host)
        if not found and here["exists"]:
            found = dict(here, host="localhost")
        if not found:
            findings.append(
                (
                    first,
                    "%s exists neither on %s nor on the controller" % (wanted, ", ".join(known["hosts"])),
                    "Set etcd_restore_snapshot to the path of a snapshot on one of them, or leave it out to restore the newest verified one.",
                )
            )
    else:
        # a node of which that is not known may have the newest
        unchecked = "The signatures of the snapshots in %s cannot be checked: %s"
        for host in known["hosts"]:
            if held[host].get("unchecked"):
                findings.append((host, unchecked % (known["options"]["snapshot_dir"], held[host]["unchecked"]), _NAME_ONE))
        newest = [dict(held[host]["latest"], host=host) for host in known["hosts"] if held[host]["latest"] and not findings]
        # of two of the same second that of the first host
        found = max(newest, key=lambda each: each["created"]) if newest else {}
        if not found and not findings:
            findings += [(host, held[host]["problem"], "") for host in known["hosts"] if held[host]["problem"]]
            findings.append(
                (
                    first,
                    "There is no verified snapshot in %s on %s" % (known["options"]["snapshot_dir"], ", ".join(known["hosts"])),
                    _NAME_ONE,
                )
            )
    path = found.get("path", "")
    # what others compressed or encrypted has no manifest of ours: the verification says what it is, and how it is unpacked
    packed = path.endswith((".zst", ".age")) and bool(found.get("manifest"))
    return {"host": found.get("host", ""), "path": path, "packed": packed, "refusal": refusal(findings)}


def initial_cluster(known):
    """All members from all manifests: a node's own lists only those known when it joined."""
    members = []
    for host in known["restored"]:
        etcd = known["nodes"][host]["etcd"]
        members += ["%s=%s" % (etcd["name"], url) for url in etcd["peer_urls"].split(",")]
    return ",".join(members)


def trial_start(known):
    """Whether it is not known yet that etcd starts on the snapshot, so that it is tried before anything is stopped; and a sentence about it."""
    chosen, manifest, first = known["proof"]["snapshot"], known["proof"].get("manifest") or {}, known["first"]
    version = known["nodes"][first]["etcd"].get("version") or ""
    drill = verification_levels.results(manifest.get("levels")).get("drill") if manifest.get("sha256") == chosen["sha256"] else None
    if drill is None:
        so_far = "it was never drilled"
    elif not verification_levels.passed(manifest["levels"], "drill"):
        so_far = "the drill at %s failed: %s" % (drill.get("at"), plain(drill.get("problem")))
    else:
        so_far = "a drill at %s proved that etcd %s starts on it" % (drill.get("at"), drill.get("etcd_version") or "of an unknown version")
        if minor(version) and minor(drill.get("etcd_version")) == minor(version):
            return False, so_far
        so_far += ", and %s has etcd %s" % (first, version or "of an unknown version")
    if not known["options"]["trial_start"]:
        return False, so_far + "; the restore does not try whether etcd starts on it (etcd_restore_trial_start is false)"
    return True, so_far + "; the restore tries whether etcd starts on it, before it stops anything"


def _downgrade(known):
    """What to do about a cluster that will be told to downgrade, since the snapshot's was (measured: 3.7.3), as a list of at most one sentence."""
    chosen, manifest = known["proof"]["snapshot"], known["proof"].get("manifest") or {}
    # up to 3.5 no version is stored
    stored, server = minor(chosen.get("storage_version") or "3.5"), minor(known["nodes"][known["first"]]["etcd"].get("version"))
    if not (3, 5) < minor(manifest.get("etcd_version")) > stored < server:
        return []
    older = "%d.%d" % stored
    return ["downgrade it was taken for etcd %s, and tells the restored cluster to downgrade to it: run `etcdctl downgrade cancel` afterwards" % older]


def _members(known):
    nodes = known["nodes"]
    names = ", ".join(nodes[host]["etcd"]["name"] for host in known["restored"])
    retired = [host for host in known["hosts"] if host not in known["restored"]]
    lost = known["membership"]["lost"]
    said = "members   %s, and no others" % names
    if retired:
        listed = ",".join(retired)
        said += '; stopped, with their old data kept, until "ansible-playbook k8s_dr.etcd.rejoin -l %s": %s' % (listed, ", ".join(retired))
    if lost:
        said += (
            "; declared lost: %s. Do NOT start them again before they are wiped, since they would serve the previous data beside the restored cluster"
            % ", ".join(lost)
        )
    return said


def lines(known):
    """What the restore does, one fact a line."""
    options, proof, first = known["options"], known["proof"], known["first"]
    node, live = known["nodes"][first], known["live"].get(first) or {}
    chosen, manifest = proof["snapshot"], proof.get("manifest") or {}
    before = known["before"].get(first) or {}
    others = list(dict.fromkeys(pod for host in known["restored"] for pod in known["nodes"][host].get("other_static_pods") or []))
    problems = [problem for layer in before.get("layers", {}).values() for problem in layer["problems"]]
    bump, keep, rollback_after = known["bump"], int(options["keep"]), int(options["rollback_after"])
    return [
        "RESTORE of %s (etcd %s, Kubernetes %s)" % (", ".join(known["restored"]), node["etcd"]["version"], node["kubernetes_version"]),
        "from      %s %s, taken %s, %s, sha256 %s, %s"
        % (
            known["label"],
            "(off-site)" if known["origin"] == "off-site" else "on " + known["origin"],
            manifest.get("created") or "at an unknown time (it has no manifest)",
            bytes_to_human(chosen["size"]),
            chosen["sha256"][:12],
            "verified" if chosen["integrity"] == "ok" else chosen["integrity"],
        ),
        "starts    " + trial_start(known)[1],
        *_downgrade(known),
        "lost      everything written after revision %s; the live etcd is at %s"
        % (chosen.get("revision") or "?", live["revision"] if live.get("reachable") else "an unknown revision (it does not answer)"),
        "revision  "
        + (
            "raised by %d, so that every client lists again" % bump
            if bump
            else "not raised (the tools cannot, or the options say so): restart the kubelets of the workers afterwards"
        ),
        "stopped   etcd, kube-apiserver, kube-controller-manager, kube-scheduler; "
        + ("these static Pods keep running: " + ", ".join(others) if others else "no other static Pod is touched"),
        _members(known),
        "moved     %s%s to %s/<id>/old, where it is kept%s"
        % (node["data_dir"], "/member" if node["mount_point"] else "", node["transactions_dir"], " (the newest %d are)" % keep if keep else ""),
        "kept      "
        + (
            "a verified snapshot of the discarded data, in %s/discarded on %s, once the cluster serves again" % (options["snapshot_dir"], first)
            if options["safety_snapshot"]
            else "no snapshot of the discarded data (etcd_restore_safety_snapshot is false), only the data directory"
        ),
        "in doubt  "
        + (
            "every node rolls back by itself after %d s unless the restore is committed, also when the controller dies or the node restarts" % rollback_after
            if rollback_after
            else "no node rolls back by itself when the controller dies (etcd_restore_rollback_after is 0)"
        ),
        "before    %s; %s" % ("the API server answers" if before.get("reachable") else "the API server does not answer", "; ".join(problems) or "all is well"),
    ]


def survivors(known):
    """Warnings about nodes that hold more than the snapshot while no etcd has a quorum: this may be the only place where the difference still is."""
    if known["membership"]["quorum"]:
        return []
    snapshot = int(known["proof"]["snapshot"].get("revision") or 0)
    created = (known["proof"].get("manifest") or {}).get("created")
    found = []
    for host in known["hosts"]:
        reached = max(int((known["live"].get(host) or {}).get("revision") or 0), int(known["nodes"][host].get("revision_on_disk") or 0))
        if reached > snapshot:
            found.append(
                "WARNING: %s has data that is newer than the snapshot: it has reached revision %d, and the snapshot is of %s%s. No etcd of this run has a "
                "quorum, so this may be the only place where the difference still is. To restore what it holds instead, say no now and run: "
                "ansible-playbook k8s_dr.etcd.salvage -l %s" % (host, reached, snapshot or "?", ", taken " + created if created else "", host)
            )
    return found


def objects(comparison, wanted, comparer):
    """Which objects the restore deletes, re-creates and modifies, as lines."""
    if not wanted:
        return ["OBJECTS   not compared: etcd_restore_compare is false"]
    if not comparison:
        return ["OBJECTS   not compared: etcd's tools are not on %s yet" % comparer]
    return _differences(comparison)


def _differences(comparison):
    if not comparison["compared"]:
        kinds = (comparison.get("snapshot") or {}).get("kinds") or {}
        said = ["OBJECTS   not compared: " + plain(comparison["reason"])]
        if comparison.get("snapshot"):
            listed = ", ".join("%s %s" % item for item in sorted(kinds.items()))
            said.append("the snapshot holds %d keys: %s" % (comparison["snapshot"]["total"], listed))
        return said
    live = comparison["live"]
    said = [
        "OBJECTS   %d deleted, %d re-created, %d modified, leases and events aside (%d live keys, %d in the snapshot, compared in %s s%s)"
        % (
            comparison["vanish"]["objects"],
            comparison["reappear"]["objects"],
            comparison["change"]["objects"],
            live["total"],
            comparison["snapshot"]["total"],
            comparison["seconds"],
            "; more has changed meanwhile" if live["moved"] else "",
        )
    ]
    return said + comparison["lines"] + (["all of them: " + comparison["list"]] if comparison.get("list") else [])


def changes(found, problem, stays=""):
    """What the restore changes in selected objects, as {compared, reason, lines}.

    found: of kube_compare, {} where it did not run.  problem: why it did not.  stays: why what serves the snapshot was not ended, or "".
    """
    reason = plain(found["reason"] if found else problem)
    parts = ["%d %s" % (found[part]["count"], word) for part, word in _PARTS] + ["%d the same" % found["same"]] if found else []
    if parts and not reason:
        head = "%s, of what etcd_restore_changes selects (compared in %s s)" % (", ".join(parts), found["seconds"])
    elif found and found["lines"]:
        head = "not all compared: %s; until then %s" % (reason, ", ".join(parts))
    else:
        head = "not compared: " + reason
    lines = ["CHANGES   " + head] + (found["lines"] if found else [])
    if stays:
        lines.append("The snapshot is still served: %s. To end that: ansible-playbook k8s_dr.etcd.browse -e etcd_browse_state=absent" % plain(stays))
    return {"compared": not reason, "reason": reason, "lines": lines}
