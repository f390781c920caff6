# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in the way of a restore, in the three moments at which more is known.  Pure functions; private to this collection.

All of them take `known`, a dictionary that the role etcd_restore makes (vars/main.yml, __etcd_restore_known), and return findings:
[(host, what is wrong, what to do next)].  What concerns all hosts is found once, for the first of them.
"""

from __future__ import annotations

import calendar
import re
import time

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.fingerprints import differences

MB = 1024 * 1024
# etcd's write-ahead logs are preallocated, 64 MB each, and one is being written while another is complete
_LOGS = 192 * MB
_DAY = 86400


def plain(text):
    """A sentence without its full stop."""
    return re.sub(r"[.\s]*$", "", str(text or ""))


def refusal(findings):
    """What a failing task says: one sentence, or a list where there are several findings; "" without any."""
    # a finding about every host reads the same for each
    findings = list(dict.fromkeys((problem, advice) for dummy, problem, advice in findings))
    if not findings:
        return ""
    if len(findings) == 1:
        problem, advice = findings[0]
        return " ".join(part for part in (plain(problem) + ". Nothing was done.", advice) if part)
    return ["Nothing was done. %d things stand in the way:" % len(findings)] + [
        "%d. %s." % (number, ". ".join(plain(part) for part in finding if part)) for number, finding in enumerate(findings, 1)
    ]


def _options_of_members(known):
    options = known["options"]
    for name in ("members", "lost_members"):
        if isinstance(options[name], str):
            yield (
                known["first"],
                "etcd_restore_members and etcd_restore_lost_members have to be lists",
                "On a command line they are written as -e '{\"etcd_restore_%s\": [\"cp1\"]}'" % name,
            )
            return
    names = [known["nodes"][host].get("etcd", {}).get("name", "") for host in known["hosts"]]
    unknown = [name for name in options["members"] if name not in known["hosts"] + names]
    if unknown:
        yield (
            known["first"],
            "etcd_restore_members names %s, but the hosts of this run are %s (in etcd %s)"
            % (", ".join(unknown), ", ".join(known["hosts"]), ", ".join(filter(None, names)) or "not known"),
            "Name some of these, or leave it out to restore all of them.",
        )


def clock_differences(known):
    """[(host, by how much its clock differs)] beyond the tolerance.

    An answer is older than it looks by what the question took, so each difference counts from the side that makes it smaller.
    """
    tolerance, seen = known["clock_tolerance"], {}
    for host in known["restored"]:
        node = known["nodes"][host]
        # ansible-core before 2.19 makes text of a number that is templated
        seen[host] = float(node["controller_time"]), float(node["time"]), float(known["now"])
    for host, (asked, there, answered) in seen.items():
        if there - answered > tolerance:
            yield host, "the clock of %s is at least %d s ahead of the controller's" % (host, there - answered)
        if asked - there > tolerance:
            yield host, "the clock of %s is at least %d s behind the controller's" % (host, asked - there)
        for other, (others_asked, others_there, dummy) in seen.items():
            apart = there - answered - others_there + others_asked
            if apart > tolerance:
                yield host, "the clock of %s is at least %d s ahead of that of %s" % (host, apart, other)


_WAIT_FOR_KUBEADM = (
    "Wait until it has ended, and run this again. If it waits for an answer or hangs, end it on the node, and look whether all four manifests are in %s"
)


def _node(host, node, known):
    """What is wrong with one node that takes part."""
    directory = known["manifests_dir"]
    for kubeadm in node["kubeadm"]:
        yield (
            host,
            "On %s `%s` runs (process %s, for %s s) and changes the control plane that this restore would stop"
            % (host, kubeadm["command"], kubeadm["pid"], kubeadm["seconds"]),
            _WAIT_FOR_KUBEADM % directory,
        )
    if not node["complete"]:
        kept = sorted(node["kept_by_kubeadm"].values())
        yield (
            host,
            "%s has no manifest of %s in %s, so it is not a complete stacked control plane" % (host, ", ".join(node["missing"]), directory),
            "Put the manifests back, or leave the host out with -l.%s" % (" An upgrade by kubeadm left older ones there: " + ", ".join(kept) if kept else ""),
        )
    if not node["kubelet_running"]:
        yield host, "No kubelet runs on %s, so nothing would stop or start its etcd" % host, "Run on the node: systemctl start kubelet"
    if not node["runtime"]["running"]:
        yield (
            host,
            "The container runtime of %s does not answer at %s, so nothing would stop or start its etcd"
            % (host, node["runtime"]["socket"] or "the address that kubelet has"),
            "Start it on the node, for example: systemctl restart containerd",
        )
    for certificate in node["certificates"]:
        if certificate["problem"]:
            yield (
                host,
                "On %s %s, and what is stopped now would not work again" % (host, certificate["problem"]),
                "Run on the node: kubeadm certs renew all (for kubelet's own, see its log: journalctl -u kubelet), and then restart what uses it",
            )
    for obstacle in node["obstacles"]:
        yield host, "On %s %s" % (host, obstacle), ""
    if not node["systemd"] and int(known["rollback_after"].get(host, 0)) != 0:
        yield (
            host,
            "%s does not run systemd, so no timer can roll the restore back if this controller dies" % host,
            "To restore without a timer, add -e etcd_restore_rollback_after=0",
        )


def nodes(known):
    """What the nodes alone show, before etcd or the API is asked."""
    findings = list(_options_of_members(known))
    # the hosts that take part are not known then
    if findings:
        return findings
    findings += [
        (
            host,
            "The clocks differ: %s. The age of snapshots and certificates, and the leases of the restored cluster, would be judged wrongly" % difference,
            "Set the clocks right, for example: chronyc makestep",
        )
        for host, difference in clock_differences(known)
    ]
    for host in known["restored"]:
        retired = known["nodes"][host]["retired"]
        if retired:
            findings.append(
                (
                    host,
                    "%s was stopped for good by the restore %s of other members, and is no longer a member" % (host, retired.get("id", "")),
                    "First return it with: ansible-playbook k8s_dr.etcd.rejoin -l %s\nOr leave it out with -l, or with etcd_restore_members." % host,
                )
            )
    for host in known["voters"]:
        node = known["nodes"][host]
        if not node["retired"]:
            findings += _node(host, node, known)
        inside = node.get("controller_inside") or (known["own_ca"] and known["own_ca"] == node["fingerprints"].get("ca"))
        if inside and not known["options"]["from_inside"]:
            findings.append(
                (
                    host,
                    "This controller runs in a Pod of the very cluster that %s belongs to, so the restore would end its own job in the middle" % host,
                    "Run it from a host outside the cluster, or, if the rollback timer may decide, add -e etcd_restore_from_inside=true",
                )
            )
    return findings


_TWO_WAYS = (
    "There are two ways. Restore all members: drop the -l, and have all of them in the inventory. Or restore a cluster of %s alone on purpose: drop the "
    "-l and add -e '{\"etcd_restore_members\": %s}'; the others are then stopped for good, and lose their membership, until rejoin.yml brings them back as "
    "new members. Of these, machines that are gone for good are left out and named instead: -e '{\"etcd_restore_lost_members\": [\"NAME\"]}'"
)
_ADD_KEYS = (
    "Add these providers and keys to the EncryptionConfiguration, behind those that it has (identity stands for objects that are not encrypted), and restart "
    "the API server. If the keys are lost, and these objects with them, add -e etcd_restore_undecryptable=true."
)


def _members(known):
    membership, hosts, restored = known["membership"], known["hosts"], known["restored"]
    if int(known["forks"]) <= len(restored) // 2:
        # none of them serves before a majority of them runs
        yield (
            known["first"],
            "Ansible would work on %s of %d nodes at a time (forks), and an etcd that waits for a majority would keep the others from starting"
            % (known["forks"], len(restored)),
            "Add -f %d, or have AWX's job template allow as many forks." % len(restored),
        )
    if membership["absent"]:
        names = "[%s]" % ", ".join('"%s"' % host for host in restored)
        yield (
            known["first"],
            "This cluster has etcd members that this run does not reach: %s. Restoring only %s would split the cluster in two"
            % (", ".join(membership["absent"]), ", ".join(hosts)),
            _TWO_WAYS % (", ".join(restored), names),
        )
    if membership["lost_here"]:
        yield (
            known["first"],
            "etcd_restore_lost_members names %s, a host of this run, so it is not lost" % ", ".join(membership["lost_here"]),
            "Take it out of etcd_restore_lost_members, and it is stopped or restored as the others; if its machine is gone for good, leave it out with -l.",
        )
    if membership["lost_unknown"]:
        yield (
            known["first"],
            "etcd_restore_lost_members names %s, but the members of this cluster are %s"
            % (", ".join(membership["lost_unknown"]), ", ".join(membership["labels"])),
            "Name those that are gone for good as etcd does.",
        )
    for host in restored:
        results = (known["answering"].get(host) or {}).get("results") or []
        # only a port that was reached has a state
        answering = [result["item"] for result in results if "state" in result]
        if answering:
            yield (
                host,
                "%s is declared lost, but answers %s at %s"
                % (
                    ", ".join(dict.fromkeys(place["member"] for place in answering)),
                    host,
                    ", ".join("%s port %s" % (place["host"], place["port"]) for place in answering),
                ),
                "It runs, so include it in the play instead, where it can be stopped. A machine that cannot be reached otherwise has to be switched off first.",
            )
    for host in restored:
        asked = [server for server in membership["asked"] if server["host"] == host]
        if asked:
            yield (
                host,
                "The API server of %s would ask %s, no member of the restored cluster, since its --etcd-servers has %s: whatever that serves is the old data"
                % (host, ", ".join(dict.fromkeys(server["member"] for server in asked)), ", ".join(server["url"] for server in asked)),
                "Have the flag in %s/kube-apiserver.yaml name only the node's own etcd, for example https://127.0.0.1:2379" % known["manifests_dir"],
            )


def cluster(known):
    """What etcd, its tools and the API server show."""
    findings = []
    for host in known["restored"]:
        if known["tools"].get(host, {}).get("restore") is None and not known["check_mode"]:
            findings.append(
                (
                    host,
                    "Neither etcdctl nor etcdutl on %s can restore a snapshot" % host,
                    "Install etcdutl 3.5.16 or later (ansible-playbook k8s_dr.etcd.install -e etcd_client_source=archive ...).",
                )
            )
    for host in known["voters"]:
        node, live = known["nodes"][host], known["live"].get(host) or {}
        if live.get("reachable") and not node["data_in_use"]:
            findings.append(
                (
                    host,
                    "etcd of %s serves, but no process uses the database in %s, which its manifest mounts at its --data-dir: it was started from another "
                    "manifest than %s/etcd.yaml, or a moment ago" % (host, node["data_dir"], known["manifests_dir"]),
                    "Run this again; if it is still so, restart kubelet, so that etcd runs as its manifest says, and check which data it has.",
                )
            )
    findings += _members(known)
    for host in known["voters"]:
        live, before = known["live"].get(host) or {}, known["before"].get(host) or {}
        error = plain(live.get("error"))
        if host in known["restored"] and before.get("reachable") and not before.get("permitted") and not known["options"]["without_validation"]:
            findings.append(
                (
                    host,
                    "On %s %s. After a restore nodes, kube-system and workloads could not be checked"
                    % (host, plain("; ".join(before.get("layers", {}).get("system", {}).get("problems", [])))),
                    "To restore all the same, with etcd's members and data checked alone, add -e etcd_restore_without_validation=true",
                )
            )
        if live.get("permitted") is False:
            findings.append((host, "%s: %s. After a restore what it serves could not be checked" % (host, error), ""))
        # where the tools would only be installed, it could not be asked yet
        elif not live.get("reachable") and before.get("reachable") and known["tools"].get(host, {}).get("save") is not None:
            findings.append(
                (
                    host,
                    "The API server of %s answers, so its etcd serves; but it cannot be asked there: %s. After a restore what it serves could not be checked"
                    % (host, error),
                    "Set etcd_client_endpoint, etcd_client_cacert, etcd_client_cert and etcd_client_key to what this etcd accepts.",
                )
            )
    return findings


def _foreign(host, known, manifest, path):
    found = differences(manifest.get("fingerprints") or {}, known["nodes"][host]["fingerprints"])
    if found["foreign"] and not known["options"]["foreign"]:
        yield (
            host,
            "%s was taken on a cluster with another %s than %s has now: restored here, its certificates or tokens could not be used"
            % (path, ", ".join(found["foreign"]), host),
            "Put the matching files back, or, if you are sure, add -e etcd_restore_foreign=true.",
        )
    if found["lost"] and not known["options"]["undecryptable"]:
        yield (
            host,
            "%s may hold objects encrypted with keys that the EncryptionConfiguration of %s does not have: %s. The API server could not read them"
            % (path, host, ", ".join(found["lost"])),
            _ADD_KEYS,
        )


def _age(known, manifest, path):
    allowed, first = float(known["options"]["max_age_days"]), known["first"]
    if not allowed or not manifest.get("created"):
        return
    age = float(known["now"]) - calendar.timegm(time.strptime(manifest["created"], "%Y-%m-%dT%H:%M:%SZ"))
    if age < -known["clock_tolerance"]:
        yield (
            first,
            "%s says that it was taken at %s, which is %.1f hours from now: the clock of %s, where it was taken, was wrong, or this controller's is"
            % (path, manifest["created"], -age / 3600, manifest.get("host", "")),
            "Set the clocks right, or, if you are sure that it is the right one, add -e etcd_restore_max_age_days=0",
        )
    elif age > allowed * _DAY:
        yield (
            first,
            "%s was taken at %s, %.1f days ago, and etcd_restore_max_age_days allows %g" % (path, manifest["created"], age / _DAY, allowed),
            "Name a newer one, or add -e etcd_restore_max_age_days=%d" % -(-age // _DAY),
        )


def minor(version):
    """(3, 6) of "3.6.14-0"; () without one."""
    found = re.match(r"v?(\d+)\.(\d+)", str(version or ""))
    return tuple(int(part) for part in found.groups()) if found else ()


def _version(host, known, chosen, path):
    etcd = known["nodes"][host]["etcd"]
    server, storage = minor(etcd.get("version")), minor(chosen.get("storage_version"))
    if not server:
        yield (
            host,
            "The image of etcd on %s, %s, has no version in its tag, and etcd does not run, so it is not known whether etcd would start on %s"
            % (host, etcd.get("image", ""), path),
            "Name it with its version in %s/etcd.yaml: NAME:3.6.16-0@sha256:..." % known["manifests_dir"],
        )
    # measured with 3.4.23, 3.5.35, 3.6.16 and 3.7.3: up to 3.5 a server does not look; from 3.6 on it does not start on data of a later minor version
    elif server >= (3, 6) and storage > server:
        stored = "%d.%d" % storage
        yield (
            host,
            "%s was written by etcd %s, and %s runs etcd %d.%d, which would not start on it" % ((path, stored, host) + server),
            "Upgrade etcd to %s first, or restore an older snapshot, or one that was taken with etcd_snapshot_storage_version=%d.%d." % ((stored,) + server),
        )


def space_needed(known, host, size):
    """(in the data's file system, [what it is for], in the file system of the snapshots) in bytes."""
    node = known["nodes"][host]
    # the database, two write-ahead logs, and a tenth more
    staged = int(size * 1.1) + _LOGS
    # Gone before the old data is copied, as is what a trial start needs, which is left out where there is no room for it.
    copied = 0 if host == known["source"] else size
    # for the snapshot of what is discarded, which the first node makes: a copy of the old data while it is made, and itself
    makes = known["options"]["safety_snapshot"] and host == known["first"]
    kept, safety = (node["data_bytes"], node["database_bytes"]) if makes else (0, 0)
    later = kept + (safety if node["snapshot_dir"]["same_file_system"] else 0)
    parts = ["%s for the restored data" % bytes_to_human(staged)]
    parts += ["%s for a copy of the snapshot" % bytes_to_human(copied)] if copied else []
    parts += ["later %s for a snapshot of what is discarded" % bytes_to_human(later)] if kept else []
    return staged + max(copied, later), parts, safety


def _space(host, known, chosen):
    node = known["nodes"][host]
    needed, parts, safety = space_needed(known, host, chosen["size"])
    beside = node["snapshot_dir"]
    lacks = []
    if node["free_bytes"] < needed:
        lacks.append(
            "%s free in the file system of %s, and needs %s there: %s"
            % (bytes_to_human(node["free_bytes"]), node["data_dir"], bytes_to_human(needed), ", ".join(parts))
        )
    if not beside["same_file_system"] and beside["free_bytes"] < safety:
        lacks.append(
            "%s free in the file system of %s, and needs %s there for a snapshot of what is discarded"
            % (bytes_to_human(beside["free_bytes"]), beside["path"], bytes_to_human(safety))
        )
    if lacks:
        advice = "Make room, or leave the snapshot of what is discarded out with -e etcd_restore_safety_snapshot=false" if safety else "Make room there."
        yield host, "%s has %s" % (host, ", and ".join(lacks)), advice


def snapshot(known):
    """What the snapshot that was chosen shows."""
    proof, first = known["proof"], known["first"]
    # the task that asks does not fail itself, so what failed is known by what it says
    if proof.get("msg") or "snapshot" not in proof:
        return [(first, proof.get("msg") or "the snapshot could not be examined", "")]
    if proof.get("manifest_problem"):
        return [(first, proof["manifest_problem"], "Copy both again from where they were taken, or move the manifest away to restore without it.")]
    path, chosen, manifest = known["path"], proof["snapshot"], proof.get("manifest") or {}
    findings = []
    for host in known["restored"]:
        findings += _foreign(host, known, manifest, path)
    ids = [(known["live"].get(host) or {}).get("cluster_id") for host in known["hosts"]]
    ids = list(dict.fromkeys(filter(None, ids + [each for host in known["hosts"] for each in known["nodes"][host]["cluster_ids"]])))
    if manifest.get("cluster_id") and ids and manifest["cluster_id"] not in ids and not known["options"]["foreign"]:
        findings.append(
            (
                first,
                "%s was taken of the etcd cluster with the id %s, but the one of %s is or was %s: it is a snapshot of another cluster, or from before this "
                "one was restored by other means" % (path, manifest["cluster_id"], ", ".join(known["hosts"]), ", ".join(ids)),
                "If you are sure that it is the right one, add -e etcd_restore_foreign=true.",
            )
        )
    findings += _age(known, manifest, path)
    for host in known["restored"]:
        findings += _version(host, known, chosen, path)
        findings += _space(host, known, chosen)
    return findings


MOMENTS = {"nodes": nodes, "cluster": cluster, "snapshot": snapshot}


def warnings(known):
    """What a restore goes on with, and an operator should know before saying yes: sentences."""
    proof = known["proof"]
    manifest, path = proof.get("manifest") or {}, known["path"]
    said = []
    for host in known["hosts"]:
        node, live, before = known["nodes"][host], known["live"].get(host) or {}, known["before"].get(host) or {}
        for certificate in node["certificates"]:
            if not certificate["problem"] and certificate["days_left"] < 7:
                said.append(
                    "on %s %s (%s) %s on %s; soon run: kubeadm certs renew all"
                    % (host, certificate["path"], certificate["what"], "expired" if certificate["expired"] else "expires", certificate["expires"])
                )
        said += ["on %s %s" % (host, sentence) for sentence in node["warnings"]]
        if "NOSPACE" in live.get("alarms", []):
            said.append(
                "etcd on %s has raised the alarm NOSPACE and takes no writes. A snapshot that was taken since carries the alarm: the restore defragments and "
                "disarms it. Where the quota is too small for the data, raise --quota-backend-bytes first" % host
            )
        if "CORRUPT" in live.get("alarms", []):
            said.append(
                "etcd on %s has raised the alarm CORRUPT: its members do not hold the same data. Make sure that the snapshot is from before that" % host
            )
        if before.get("permitted") and not before.get("lasting"):
            said.append(
                "on %s only %s may read the API, by a role that is an object in etcd. Where the snapshot does not have it, the restored cluster cannot be "
                "validated from here. To be sure, first run on the node: kubeadm init phase kubeconfig super-admin" % (host, before.get("identity", ""))
            )
        if live.get("members_agreed"):
            members = [member["id"] for member in live["members"]]
            said += [
                "the store of etcd on %s holds a member that the cluster does not have, %s (id %s, %s), which an upgrade to etcd 3.6 would bring to life. "
                "The restore removes it. If you do not restore, first upgrade to etcd 3.5.26 or later, which removes it when it starts"
                % (host, member["name"] or "without a name", member["id"], " ".join(member["peer_urls"]))
                for member in node["members_on_disk"]
                if member["id"] not in members
            ]
        if live.get("is_learner"):
            said.append("the etcd of %s is a learner, and has a vote after the restore" % host)
        if host in known["restored"]:
            said += [
                "the %s of %s is another file than when %s was taken, and its contents then or now are not known. Make sure that everything of then is "
                "still in it" % (words, host, path)
                for words in differences(manifest.get("fingerprints") or {}, node["fingerprints"])["unknown"]
            ]
            then, now = minor(manifest.get("kubernetes_version")), minor(node["kubernetes_version"])
            if then and now and then != now and host == known["first"]:
                said.append(
                    "the snapshot is of Kubernetes %d.%d, and %s runs %d.%d: objects in a form that only one of them knows are unreadable for the other"
                    % (then + (host,) + now)
                )
    if not manifest:
        said.append("%s has no manifest, so it is not known how old it is, and whether it is of this cluster" % path)
    return ["WARNING: " + sentence for sentence in said]
