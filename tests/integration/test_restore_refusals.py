# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conditions of a restore that no single node shows: tasks of the role as they are, on nodes that are only facts.

Each case is a play with hosts of its own; all of them are one run of ansible-playbook.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "etcd_restore"
MB = 1024 * 1024
CERTIFICATE = {"path": "/pki/a.crt", "what": "a's", "expires": "2026-12-01T00:00:00Z", "expired": False, "problem": None}
NODE = {
    "etcd": {"name": "cp1", "version": "3.6.14-0", "initial_cluster": "cp1=https://192.0.2.11:2380"},
    "kubernetes_version": "1.30.1",
    "data_dir": "/var/lib/etcd",
    "data_bytes": 200 * MB,
    "database_bytes": 100 * MB,
    "free_bytes": 10000 * MB,
    "snapshot_dir": {"path": "/var/backups/etcd", "free_bytes": 10000 * MB, "same_file_system": True},
    "cluster_ids": [],
    "complete": True,
    "missing": [],
    "kept_by_kubeadm": {},
    "kubeadm": [],
    "kubelet_running": True,
    "runtime": {"socket": "/run/containerd/containerd.sock", "running": True},
    "obstacles": [],
    "warnings": [],
    "systemd": True,
    "retired": {},
    "unfinished": [],
    "transactions": [],
    "members_on_disk": [],
    "revision_on_disk": 0,
    "data_in_use": True,
    "etcd_servers": [],
    "certificates": [dict(CERTIFICATE, days_left=300)],
    "fingerprints": {},
}
LIVE = {"reachable": True, "members": [], "alarms": [], "cluster_id": "aa", "is_learner": False, "error": None}
SEEN = {"permitted": True, "identity": "/etc/kubernetes/admin.conf", "lasting": "a certificate made with ca.key", "layers": {}}
MANIFEST = {"host": "cp1", "cluster_id": "aa", "kubernetes_version": "v1.30.0"}

CASES = {}


def case(name, task, expect, changes=(), **hosts):
    """A case: the task by its name, after those that it needs; words that its refusal holds for each host, None where it goes on; changes to the
    facts of every host.
    """
    CASES[name] = ((task,) if isinstance(task, str) else task, expect, dict(changes), hosts or {"cp1": {}})


CLOCKS = "Refuse clocks that disagree"
case("clock-right", CLOCKS, {"cp1": None}, cp1={"node": {"time": 0, "controller_time": -1}})
case("clock-ahead", CLOCKS, {"cp1": "s ahead of the controller's"}, cp1={"node": {"time": 3600, "controller_time": -1}})
case("clock-behind", CLOCKS, {"cp1": "s behind the controller's"}, cp1={"node": {"time": -3600, "controller_time": -1}})
# the question was under way for 100 s, so nobody can tell
case("clock-slow", CLOCKS, {"cp1": None}, cp1={"node": {"time": -50, "controller_time": -100}})
case(
    "clock-apart",
    CLOCKS,
    {"cp1": "s ahead of that of clock-apart-cp2", "cp2": None},
    cp1={"node": {"time": 25, "controller_time": -1}},
    cp2={"node": {"time": -25, "controller_time": -1}},
)

# The filter that this is based on has tests of its own; here is what comes of it.
MEMBERS, HELD = "Refuse a restore of only some of the members", "Match play hosts to cluster members"
TWO = [{"name": "cp1", "peer_urls": ["https://192.0.2.11:2380"]}, {"name": "cp2", "peer_urls": ["https://192.0.2.12:2380"]}]
BOTH = {"live": {"members": TWO}}
case("members-all", (HELD, MEMBERS), {"cp1": None}, {"live": {"members": TWO[:1]}})
case("members-absent", (HELD, MEMBERS), {"cp1": "does not reach: cp2 (named by etcd of members-absent-cp1). Restoring only members-absent-cp1 would"}, BOTH)
ALONE = 'drop the -l and add -e \'{"etcd_restore_members": ["members-alone-cp1"]}\''
case("members-alone", (HELD, MEMBERS), {"cp1": ALONE}, BOTH)
case("members-retired", (HELD, MEMBERS), {"cp1": None, "cp2": None}, dict(BOTH, etcd_restore_members=["members-retired-cp1"]), cp1={}, cp2={})
case("members-by-etcd-name", (HELD, MEMBERS), {"cp1": None, "cp2": None}, dict(BOTH, etcd_restore_members=["cp1"]), cp1={}, cp2={})
case("members-lost", (HELD, MEMBERS), {"cp1": None}, dict(BOTH, etcd_restore_lost_members=["cp2"]))
ON_DISK = {"live": {"members": []}, "node": {"members_on_disk": TWO}}
case("members-on-disk", (HELD, MEMBERS), {"cp1": "cp2 (named by the data of members-on-disk-cp1)"}, ON_DISK)

LISTS, STRANGE = "Refuse names that are no list", "Refuse members to restore that are no hosts of this run"
case("names-list", LISTS, {"cp1": None}, {"etcd_restore_members": ["cp1"]})
case("names-text", LISTS, {"cp1": 'written as -e \'{"etcd_restore_members": ["cp1"]}\''}, {"etcd_restore_members": "[cp1]"})
case("names-lost", LISTS, {"cp1": "have to be lists"}, {"etcd_restore_lost_members": "cp2"})
case("names-known", STRANGE, {"cp1": None}, {"etcd_restore_members": ["cp1", "names-known-cp1"]})
NAMED = "names cp7, but the hosts of this run are names-strange-cp1 (in etcd cp1). Nothing was done"
case("names-strange", STRANGE, {"cp1": NAMED}, {"etcd_restore_members": ["cp1", "cp7"]})

RETIRED = "Refuse to restore a node that an earlier restore retired"
GONE = {"node": {"retired": {"id": "20260101T000000Z-0000", "path": "/r", "state": "committed", "held": "/h"}, "complete": False, "missing": ["etcd"]}}
ONLY = {"etcd_restore_members": ["cp1"]}
case("retired-not", RETIRED, {"cp1": None})
case("retired-before", RETIRED, {"cp1": "rejoin -l retired-before-cp1"}, GONE)
case("retired-left-out", RETIRED, {"cp1": None, "cp2": None}, ONLY, cp1={}, cp2=GONE)
COMPLETE = "Refuse a host that is no complete stacked control plane"
BROKEN = {"node": {"complete": False, "missing": ["etcd"]}}
case("complete-not", COMPLETE, {"cp1": "has no manifest of etcd"}, BROKEN)
OLDER = "/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-11-28-10-00-00/etcd.yaml"
case("complete-kept", COMPLETE, {"cp1": "left older ones there: " + OLDER}, {"node": dict(BROKEN["node"], kept_by_kubeadm={"etcd": OLDER})})
case("complete-before", COMPLETE, {"cp1": None, "cp2": None}, ONLY, cp1={}, cp2=GONE)
case("complete-to-retire", COMPLETE, {"cp1": None, "cp2": "has no manifest of etcd"}, ONLY, cp1={}, cp2=BROKEN)
KUBEADM = "Refuse a node that kubeadm is changing"
RUNS_THERE = "On kubeadm-upgrade-cp1 `kubeadm upgrade apply` runs (process 4711, for 95 s) and changes the control plane"
UPGRADE = {"node": {"kubeadm": [{"pid": 4711, "command": "kubeadm upgrade apply", "seconds": 95}]}}
case("kubeadm", KUBEADM, {"cp1": None})
case("kubeadm-upgrade", KUBEADM, {"cp1": RUNS_THERE}, UPGRADE)
case("kubeadm-to-retire", KUBEADM, {"cp1": None, "cp2": "`kubeadm upgrade apply` runs"}, ONLY, cp1={}, cp2=UPGRADE)
FINDINGS = "Refuse nodes that could not be stopped, started again or taken back"
STOPPED = {"node": {"kubelet_running": False}}
case("findings-none", FINDINGS, {"cp1": None, "cp2": None}, cp1={}, cp2={})
case("kubelet-to-retire", FINDINGS, {"cp1": "No kubelet runs on kubelet-to-retire-cp2", "cp2": None}, ONLY, cp1={}, cp2=STOPPED)
case("kubelet-before", FINDINGS, {"cp1": None, "cp2": None}, ONLY, cp1={}, cp2={"node": dict(STOPPED["node"], **GONE["node"])})
case("runtime-hangs", FINDINGS, {"cp1": "runtime of runtime-hangs-cp1 does not answer at the address"}, {"node": {"runtime": {"socket": "", "running": False}}})
EXPIRED = {"node": {"certificates": [dict(CERTIFICATE, problem="/pki/a.crt (a's) expired on 2026-01-01", days_left=-9)]}}
case("certificate-expired", FINDINGS, {"cp1": "On certificate-expired-cp1 /pki/a.crt (a's) expired on 2026-01-01, and what is stopped now would not"}, EXPIRED)
NO_TIMER = {"node": {"systemd": False}}
case("systemd", FINDINGS, {"cp1": "systemd-cp1 is not run by systemd"}, NO_TIMER)
case("systemd-unwanted", FINDINGS, {"cp1": None}, dict(NO_TIMER, etcd_restore_deadman=0))
ALL = "On findings-all-cp1 /a is full. On findings-all-cp1 /b is missing. No kubelet runs on findings-all-cp2"
TO_COME = {"node": {"kubelet_running": False, "obstacles": ["/c is immutable"]}}
case("findings-all", FINDINGS, {"cp1": ALL, "cp2": None}, cp1={"node": {"obstacles": ["/a is full", "/b is missing"]}}, cp2=TO_COME)
case("findings-last", FINDINGS, {"cp1": "On findings-last-cp2 /c is immutable. Nothing was done."}, cp1={}, cp2=TO_COME)

HERE, NONE = "Refuse lost members that are hosts of this run", "Refuse lost members that are no members"
LOST = dict(BOTH, etcd_restore_lost_members=["cp2"])
case("lost-here", (HELD, HERE), {"cp1": "names cp2, a host of this run", "cp2": "a host of this run"}, LOST, cp1={}, cp2={})
case("lost-nowhere", (HELD, NONE), {"cp1": "names cp9, but the members of this cluster are cp1, cp2."}, dict(BOTH, etcd_restore_lost_members=["cp2", "cp9"]))
case("lost-somewhere", (HELD, NONE), {"cp1": None}, LOST)
KNOCK, RUNS = "Knock where lost members would answer", "Refuse to call a member lost that runs"
# documentation addresses answer nobody
case("lost-silent", (HELD, KNOCK, RUNS), {"cp1": None}, LOST)
ANSWERS = "cp2 is said to be lost, but answers lost-answers-cp1 at 0x7f000001 port "
case("lost-answers", (HELD, KNOCK, RUNS), {"cp1": ANSWERS}, dict(LOST, listener=True))

SERVERS = "Refuse API servers that would ask members of the old cluster"
WRONG = {"node": {"etcd_servers": ["https://127.0.0.1:2379", "https://192.0.2.12:2379"]}}
ASKS = "would ask cp2, no member of the restored cluster, since its --etcd-servers has https://192.0.2.12:2379:"
case("servers-of-members", (HELD, SERVERS), {"cp1": None, "cp2": None}, dict(BOTH, **WRONG), cp1={}, cp2={})
case("servers-retired", (HELD, SERVERS), {"cp1": ASKS, "cp2": None}, dict(BOTH, **WRONG, **ONLY), cp1={}, cp2={})
case("servers-lost", (HELD, SERVERS), {"cp1": ASKS}, dict(BOTH, **WRONG, etcd_restore_lost_members=["cp2"]))

NEWER = "Warn that a survivor of a lost quorum has newer data than the snapshot"
LONELY = {"chosen": {"revision": 582}, "live": {"members": []}}
case("newer", (HELD, NEWER), {"cp1": "has reached revision 583, and the snapshot is of 582"}, dict(LONELY, node={"revision_on_disk": 583}))
REMEMBERED = {"revision": 600, "members": TWO[:1], "members_agreed": False}
case("newer-live", (HELD, NEWER), {"cp1": "k8s_dr.etcd.salvage -l newer-live-cp1"}, dict(LONELY, live=REMEMBERED))
case("newer-not", (HELD, NEWER), {"cp1": None}, dict(LONELY, node={"revision_on_disk": 582}))
case("newer-quorum", (HELD, NEWER), {"cp1": None}, {"chosen": {"revision": 582}, "live": {"revision": 600, "members": TWO[:1]}})

LETS_IN = "Refuse an etcd that lets nobody here read"
case("permitted", LETS_IN, {"cp1": None}, {"live": {"permitted": True}})
case("permitted-unknown", LETS_IN, {"cp1": None})
case("permitted-not", LETS_IN, {"cp1": "permitted-not-cp1: it wants a user. After"}, {"live": {"permitted": False, "error": "it wants a user"}})

ASKED = "Refuse an etcd that serves but cannot be asked"
case("asked", ASKED, {"cp1": None})
case("asked-worst-day", ASKED, {"cp1": None}, {"live": {"reachable": False}, "api": False})
case("asked-in-vain", ASKED, {"cp1": "it cannot be asked there: bad certificate."}, {"live": {"reachable": False, "error": "bad certificate"}})

ELSEWHERE_DATA = "Refuse to move data that is not what etcd serves"
IDLE = {"node": {"data_in_use": False}}
case("data", ELSEWHERE_DATA, {"cp1": None})
case("data-elsewhere", ELSEWHERE_DATA, {"cp1": "nobody uses the database in /var/lib/etcd, which its manifest mounts at its --data-dir"}, IDLE)
case("data-of-nobody", ELSEWHERE_DATA, {"cp1": None}, dict(IDLE, live={"reachable": False}))

ANOTHER, KEYS = "Refuse a snapshot of another cluster", "Refuse a snapshot that the API server could not decrypt"


def prints(then, now):
    """Fingerprints of a snapshot and of the node, from (contents of the CA, ids of the encryption of Secrets; text for a file of which no more is known)."""
    found = []
    for ca, encryption in (then, now):
        whole = {"ca": str(ca), "service_account": "s", "encryption_configuration": str(encryption)}
        known = {"ca": [ca], "encryption_configuration": {"secrets": encryption}}
        found.append(whole if isinstance(encryption, str) else dict(whole, contents=known))
    return {"manifest": {"fingerprints": found[0]}, "node": {"fingerprints": found[1]}}


K1, K2 = ["aescbc k1 00", "identity"], ["aescbc k2 00", "aescbc k1 00", "identity"]
OTHER_CA = prints(("x", K1), ("c", K1))
LOST_KEY = prints(("c", K2), ("c", K1))
case("same-keys", (ANOTHER, KEYS), {"cp1": None}, prints(("c", K1), ("c", K1)))
case("added-key", KEYS, {"cp1": None}, prints(("c", K1), ("c", K2)))
case("removed-key", KEYS, {"cp1": "the EncryptionConfiguration of removed-key-cp1 does not have: secrets (aescbc k2)."}, LOST_KEY)
case("removed-key-another-cluster", ANOTHER, {"cp1": None}, LOST_KEY)
# that it is of another cluster is no answer to how its Secrets are read
case("removed-key-foreign", KEYS, {"cp1": "-e etcd_restore_undecryptable=true"}, dict(LOST_KEY, etcd_restore_foreign=True))
case("removed-key-allowed", KEYS, {"cp1": None}, dict(LOST_KEY, etcd_restore_undecryptable=True))
case("another-ca", ANOTHER, {"cp1": "was taken on a cluster with another CA than another-ca-cp1 has now"}, OTHER_CA)
case("another-ca-allowed", ANOTHER, {"cp1": None}, dict(OTHER_CA, etcd_restore_foreign=True))
case("another-ca-undecryptable", ANOTHER, {"cp1": "etcd_restore_foreign=true"}, dict(OTHER_CA, etcd_restore_undecryptable=True))
# what could not be read is not known to differ, nor what an earlier version wrote down
case("unread-then", (ANOTHER, KEYS), {"cp1": None}, prints(("c", "unreadable"), ("c", K1)))
case("unread-now", (ANOTHER, KEYS), {"cp1": None}, prints(("c", K1), ("c", "unreadable")))
case("earlier-version", (ANOTHER, KEYS), {"cp1": None}, prints(("x", "whole file"), ("c", K1)))

FORKS = "Refuse to start one etcd after the other"
# there are two here
THREE, FIVE = ({"cp%d" % number: {} for number in range(1, nodes + 1)} for nodes in (3, 5))
case("forks", FORKS, {"cp1": None}, **THREE)
case("forks-too-few", FORKS, {"cp1": "would work on 2 of 5 nodes at a time (forks)"}, **FIVE)
case("forks-of-restored", FORKS, {"cp1": None}, {"etcd_restore_members": ["cp1", "cp2", "cp3"]}, **FIVE)

REVISION = "Work out the revision that the cluster will have"
SHOW = "Say by how much the revision is raised"
TOOLS = {"etcd_client_tools": {"bump_revision": True}}
OF_582 = dict(TOOLS, chosen={"revision": 582})
for name, changes, raised in (
    ("live", {"live": {"revision": 600}}, 18 + 1000000),
    ("cannot", {"live": {"revision": 600}, "etcd_client_tools": {"bump_revision": False}}, 0),
    ("told-not-to", {"live": {"revision": 600}, "etcd_restore_bump_revision": False}, 0),
    ("down", {"live": {"reachable": False, "revision": 0}}, 1000000000),
    # what a database that nobody serves had reached
    ("down-on-disk", {"live": {"reachable": False, "revision": 0}, "node": {"revision_on_disk": 1000050582}}, 1000050000 + 1000000000),
    # its data is lost, and the restore of before had raised it as well
    ("empty-again", {"live": {"revision": 3}, "node": {"revision_on_disk": 3, "cluster_ids": ["aa", "bb"]}}, 3000000000),
):
    case("revision-" + name, (REVISION, SHOW), {"cp1": "raised by %d." % raised}, dict(OF_582, **changes))

PLANNED = "Compare the restored etcd with the plan"
AFTER = {"cluster_id": "cc", "healthy": True, "revision": 700, "members": [{"name": "cp1", "peer_urls": ["https://192.0.2.11:2380"]}]}
RESTORED = {"chosen": {"revision": 582}, "after": AFTER}
case("after", PLANNED, {"cp1": None}, RESTORED)
case("after-the-same", PLANNED, {"cp1": "is not what was restored: cluster ids aa (before: aa)"}, dict(RESTORED, after=dict(AFTER, cluster_id="aa")))
case("after-of-unknown", PLANNED, {"cp1": None}, dict(RESTORED, live={"reachable": False, "cluster_id": None}))
case("after-behind", PLANNED, {"cp1": "revision 581"}, dict(RESTORED, after=dict(AFTER, revision=581)))

# Which nodes are waited for after a restore: what was well before, and all that were restored.
WAITED = "Say which nodes are held against the restore"
BEFORE = {"observed": {"cp1": True, "w1": True, "w2": False}}
case("waited", WAITED, {"cp1": "nodes cp1 True, w1 True, w2 False."}, BEFORE)
# it had been deleted, and the snapshot is to bring it back
case("waited-for-the-deleted", WAITED, {"cp1": "nodes cp1 True, w1 True."}, {"observed": {"w1": True}})
case("waited-for-nobody-knows", WAITED, {"cp1": "nodes cp1 True."})
case("waited-not-lost", WAITED, {"cp1": "nodes cp1 True, cp2 False."}, dict(BEFORE, etcd_restore_lost_members=["cp2"]))
# a kubelet that has no API server but its own cannot renew a lease
case("waited-not-retired", WAITED, {"cp1": "nodes cp1 True, cp2 False."}, dict(BEFORE, etcd_restore_members=["cp1"]), cp1={}, cp2={})

# The filter has unit tests; here is that the tasks give it what it needs, and heed its answer. What a resume restores is what was recorded, whatever -e
# says: options in the inventory and a fact stand for it.
DECIDE, UNFINISHED = "Decide about unfinished restores", "Check that no unfinished restore is in the way"
BEGUN = {"id": "20261129T000000Z-0000", "state": "begun", "since": "", "kind": "restore", "untouched": False}
SINCE = "On unfinished-cp1 the restore 20261129T000000Z-0000 is unfinished: its state is \"begun\" (the cluster was not touched) since its beginning."
case("unfinished", (DECIDE, UNFINISHED), {"cp1": SINCE}, {"node": {"unfinished": [BEGUN]}})
case("unfinished-none", (DECIDE, UNFINISHED), {"cp1": None})
RECORD = {"retired": ["x"], "lost": ["cp8"], "label": "/b/a.db", "off_site": "", "bump": 5, "snapshot": {"path": "/b/a.db"}}


def resumed(name, **options):
    record = dict(RECORD, hosts=[name + "-cp1"])
    left = dict(BEGUN, state="swapped", hosts=record["hosts"], about=record)
    return dict({"etcd_restore_unfinished": "resume", "node": {"unfinished": [left]}}, **options)


WITH_OTHERS = 'etcd_restore_members was ["resume-other-cp1"] and is ["cp9"]; etcd_restore_lost_members was ["cp8"] and is ["cp2"]. Nothing was done.'
OTHERS = {"etcd_restore_members": ["cp9"], "etcd_restore_lost_members": ["cp2"]}
case("resume-other", (DECIDE, UNFINISHED), {"cp1": WITH_OTHERS}, resumed("resume-other", **OTHERS))
RECORDED = "Say whom a resume restores"
case("resume-record", (DECIDE, RECORDED), {"cp1": "restores resume-record-cp1, lost cp8."}, resumed("resume-record", etcd_restore_lost_members=["cp8"]))

IDS = "Refuse a snapshot of an etcd cluster that this one never was"
case("ids-live", IDS, {"cp1": None})
case("ids-other", IDS, {"cp1": "the one of ids-other-cp1 is or was bb: it is a snapshot of another"}, {"live": {"cluster_id": "bb"}})
case("ids-earlier", IDS, {"cp1": None}, {"live": {"cluster_id": "bb"}, "node": {"cluster_ids": ["cc", "aa"]}})
case("ids-of-all-nodes", IDS, {"cp1": None, "cp2": None}, {"live": {"cluster_id": "bb"}}, cp1={}, cp2={"node": {"cluster_ids": ["aa"]}})
case("ids-unknown", IDS, {"cp1": None}, {"live": {"cluster_id": None}})
case("ids-without-manifest", IDS, {"cp1": None}, {"live": {"cluster_id": "bb"}, "manifest": None})
case("ids-allowed", IDS, {"cp1": None}, {"live": {"cluster_id": "bb"}, "etcd_restore_foreign": True})

# One that others compressed has no manifest of ours, and is left to the proof, which says how it is unpacked.
OPEN = "Open a snapshot that is sealed"
case("open-sealed", OPEN, {"cp1": "opened."}, {"file": "/b/a.db.zst", "sealed": True})
case("open-compressed-by-others", OPEN, {"cp1": None}, {"file": "/b/a.db.zst", "sealed": False})
case("open-plain", OPEN, {"cp1": None}, {"sealed": True})

OLD, FUTURE = "Refuse a snapshot that is older than allowed", "Refuse a snapshot from the future"
case("age-fine", OLD, {"cp1": None}, {"created": -6.9})
case("age-old", OLD, {"cp1": "-e etcd_restore_max_age=8"}, {"created": -7.1})
case("age-any", OLD, {"cp1": None}, {"created": -700, "etcd_restore_max_age": 0})
case("age-unknown", OLD, {"cp1": None}, {"manifest": None})
case("age-now", FUTURE, {"cp1": None}, {"created": 15 / 86400})
case("age-future", FUTURE, {"cp1": "hours from now"}, {"created": 0.01})
case("age-future-any", FUTURE, {"cp1": None}, {"created": 1, "etcd_restore_max_age": 0})

VERSION = "Refuse when nobody can tell which etcd would serve the snapshot"
case("version-known", VERSION, {"cp1": None})
DIGEST = {"image": "example/etcd@sha256:00", "version": ""}
case("version-unknown", VERSION, {"cp1": "The image of etcd on version-unknown-cp1, example/etcd@sha256:00, has no version"}, {"node": {"etcd": DIGEST}})

STORAGE = "Refuse a snapshot that this etcd is too old for"
for storage, server, refused in (
    (None, "3.6.14-0", None),
    ("3.6.0", "3.6.14-0", None),
    ("3.7.0", "3.6.14-0", "was written by etcd 3.7"),
    ("3.7.0", "3.5.16-0", None),
    ("3.10.0", "3.9.1", "Upgrade etcd to 3.10 first"),
    ("3.9.0", "3.10.1", None),
):
    name = "storage-%s-on-%s" % (storage, server)
    case(name, STORAGE, {"cp1": refused}, {"chosen": {"storage_version": storage}, "node": {"etcd": dict(NODE["etcd"], version=server)}})

# 302 MB for what is staged of a snapshot of 100 MB
SPACE = "Refuse when what the restore writes would not fit"
ELSEWHERE = {"path": "/mnt/backups", "free_bytes": 101 * MB, "same_file_system": False}
case("space-all", SPACE, {"cp1": None}, {"node": {"free_bytes": 610 * MB}})
LATER = "later 300.00 MB for a snapshot of what is discarded. Nothing was done. Make room, or"
case("space-too-little", SPACE, {"cp1": LATER}, {"node": {"free_bytes": 600 * MB}})
case("space-of-the-others", SPACE, {"cp1": LATER, "cp2": None}, {"node": {"free_bytes": 420 * MB}}, cp1={}, cp2={})
case("space-without-safety", SPACE, {"cp1": None}, {"node": {"free_bytes": 310 * MB}, "etcd_restore_safety_snapshot": False})
case("space-staged", SPACE, {"cp1": "Make room there."}, {"node": {"free_bytes": 300 * MB}, "etcd_restore_safety_snapshot": False})
case("space-copied", SPACE, {"cp1": "100.00 MB for a copy"}, {"node": {"free_bytes": 390 * MB}, "etcd_restore_safety_snapshot": False, "source": "localhost"})
case("space-two-file-systems", SPACE, {"cp1": None}, {"node": {"free_bytes": 510 * MB, "snapshot_dir": ELSEWHERE}})
FULL = dict(ELSEWHERE, free_bytes=99 * MB)
case("space-elsewhere", SPACE, {"cp1": "has 99.00 MB free in the file system of /mnt/backups"}, {"node": {"snapshot_dir": FULL}})
case("space-no-data", SPACE, {"cp1": None}, {"node": {"free_bytes": 310 * MB, "data_bytes": 0, "database_bytes": 0}})

UNSEEN = "Refuse a cluster that could not be validated afterwards"
NOBODY = {"seen": {"permitted": False, "layers": {"system": {"problems": ["the API server lets nobody in"]}}}}
case("unseen-well", UNSEEN, {"cp1": None})
case("unseen", UNSEEN, {"cp1": "On unseen-cp1 the API server lets nobody in. After a restore nobody could check nodes"}, NOBODY)
case("unseen-wanted", UNSEEN, {"cp1": None}, dict(NOBODY, etcd_restore_without_validation=True))
case("unseen-down", UNSEEN, {"cp1": None}, dict(NOBODY, api=False))

WARNINGS = "Say what is no obstacle but good to know"
case("warn-nothing", WARNINGS, {"cp1": None})
case("warn-image", WARNINGS, {"cp1": "WARNING: on warn-image-cp1 the image x is not on this node"}, {"node": {"warnings": ["the image x is not on this node"]}})
case("warn-certificate", WARNINGS, {"cp1": "/pki/a.crt (a's) expires on"}, {"node": {"certificates": [dict(CERTIFICATE, days_left=6)]}})
PAST = dict(CERTIFICATE, expired=True, days_left=-2)
case("warn-administrator", WARNINGS, {"cp1": "/pki/a.crt (a's) expired on"}, {"node": {"certificates": [PAST]}})
OLD_MEMBER = dict(TWO[0], id="a1", name="old")
AGREED = {"members_agreed": True, "members": [dict(TWO[0], id="b2")]}
OF_NOBODY = {"node": {"members_on_disk": [dict(TWO[0], id="b2"), OLD_MEMBER]}, "live": AGREED}
case("warn-leftover", WARNINGS, {"cp1": "that the cluster does not have, old (id a1, https://192.0.2.11:2380), which an upgrade to etcd 3.6"}, OF_NOBODY)
case("warn-earlier-version", WARNINGS, {"cp1": "the EncryptionConfiguration of warn-earlier-version-cp1 is another file"}, prints(("c", "whole"), ("c", K1)))
case("warn-space", WARNINGS, {"cp1": "alarm NOSPACE"}, {"live": {"alarms": ["NOSPACE"]}})
case("warn-corrupt", WARNINGS, {"cp1": "alarm CORRUPT"}, {"live": {"alarms": ["CORRUPT"]}})
case("warn-learner", WARNINGS, {"cp1": "is a learner"}, {"live": {"is_learner": True}})
case("warn-manifest", WARNINGS, {"cp1": "/b/a.db has no manifest"}, {"manifest": None})
case("warn-lasting", WARNINGS, {"cp1": "on warn-lasting-cp1 only /etc/kubernetes/admin.conf may read the API"}, {"seen": {"lasting": ""}})
case("warn-version", WARNINGS, {"cp1": "is of Kubernetes 1.29, and warn-version-cp1 runs 1.30"}, {"manifest": {"kubernetes_version": "v1.29.3"}})


def facts(name, host, changes, own):
    """The host variables of one node of a case."""

    def merged(key, base):
        return dict(base, **(changes.get(key) or {}), **(own.get(key) or {}))

    now = time.time()
    node = merged("node", NODE)
    for clock in ("time", "controller_time"):
        # by when the play comes there
        node[clock] = "{{ now().timestamp() + %d }}" % node.get(clock, 0)
    manifest = {} if changes.get("manifest", {}) is None else merged("manifest", MANIFEST)
    if "created" in changes:
        manifest["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + changes["created"] * 86400))
    observed = {"nodes": {known: {"ready": ready} for known, ready in changes["observed"].items()}} if "observed" in changes else None
    number = host[2:]
    node["etcd"] = dict(node["etcd"], name=host, peer_urls="https://192.0.2.1%s:2380" % number, client_url="https://192.0.2.1%s:2379" % number)
    return {
        "__etcd_restore_node": node,
        "__etcd_restore_live": merged("live", LIVE),
        "__etcd_restore_manifest": manifest,
        "__etcd_restore_chosen": merged("chosen", {"size": 100 * MB, "storage_version": None}),
        "__etcd_restore_file": changes.get("file", "/b/a.db"),
        "__etcd_restore_sealed": {"stat": {"exists": changes.get("sealed", False)}},
        "__etcd_restore_source": changes.get("source", "%s-cp1" % name),
        "__etcd_restore_answer": {"changed": False, "etcd": merged("live", LIVE)},
        "__etcd_restore_after": {"etcd": changes.get("after")},
        "__etcd_restore_bump": 0,
        "__etcd_restore_found": {"restore": node},
        "__etcd_restore_before": {
            "validation": dict(SEEN, reachable=changes.get("api", True), observed=observed, **changes.get("seen", {})),
        },
        **{key: value for key, value in changes.items() if key.startswith(("etcd_restore_", "etcd_client_"))},
    }


def every(tasks):
    """All tasks, those in blocks as well."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from every(task.get(part, ()))


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """{host: what a task refused with, or said; None when it went on}"""
    directory = tmp_path_factory.mktemp("refusals")
    files = [yaml.safe_load((ROLE / "tasks" / (name + ".yml")).read_text()) for name in ("unfinished", "members", "preflight", "snapshot", "plan", "validate")]
    tasks = {task["name"]: task for file in files for task in every(file)}
    nodes = "{% for name, node in cluster_validate_baseline.nodes | dictsort %}{{ name }} {{ node.ready }}{{ '' if loop.last else ', ' }}{% endfor %}"
    held = tasks["Validate nodes, kube-system and workloads against the snapshot"]["vars"]
    tasks[WAITED] = {"name": WAITED, "ansible.builtin.debug": {"msg": "nodes %s." % nodes}, "vars": held}
    tasks[OPEN] = {"name": OPEN, "ansible.builtin.debug": {"msg": "opened."}, "when": tasks[OPEN]["when"]}
    told = "restores {{ __etcd_restore_hosts | join(' ') }}, lost {{ __etcd_restore_lost_members | join(' ') }}."
    tasks[RECORDED] = {"name": RECORDED, "ansible.builtin.debug": {"msg": told}}
    tasks[SHOW] = {"name": SHOW, "ansible.builtin.debug": {"msg": "raised by {{ __etcd_restore_bump }}."}}
    variables = [yaml.safe_load((ROLE / part / "main.yml").read_text()) for part in ("defaults", "vars")]
    inventory, plays = {}, []
    listener = socket.create_server(("127.0.0.1", 0))
    # spelled so that it does not look like the node's own address, which is nobody else's
    answers = "https://0x7f000001:%d" % listener.getsockname()[1]
    for name, (task, _expect, changes, hosts) in CASES.items():
        if changes.pop("listener", None):
            changes["live"] = {"members": [TWO[0], dict(TWO[1], peer_urls=[answers], client_urls=[answers])]}
        inventory[name] = {"hosts": {"%s-%s" % (name, host): facts(name, host, changes, own) for host, own in hosts.items()}}
        play = {"name": name, "hosts": name, "gather_facts": False, "vars": variables[1]}
        show = {"ansible.builtin.debug": {"msg": "SAID {{ {'host': inventory_hostname, 'said': result.msg | default(none)} | to_json }}"}}
        play["tasks"] = [tasks[each] for each in task[:-1]] + [dict(tasks[task[-1]], register="result", ignore_errors=True), show]
        plays.append(play)
    inventory["all"] = {"vars": dict(variables[0], ansible_connection="local", ansible_python_interpreter=sys.executable)}
    inventory["all"]["vars"]["etcd_client_manifests_dir"] = "/manifests"
    for path, content in (("inventory.yml", inventory), ("play.yml", plays)):
        (directory / path).write_text(yaml.safe_dump(content))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(ANSIBLE_NOCOLOR="1", ANSIBLE_FORKS="2", LC_ALL="C.UTF-8", ANSIBLE_COLLECTIONS_PATH=str(ROOT / "playbooks/collections"))
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml"]
    process = subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)
    found = {}
    for line in process.stdout.splitlines():
        if '"msg": "SAID ' in line:
            answer = json.loads(json.loads("{%s}" % line)["msg"][5:])
            found[answer["host"]] = answer["said"]
    listener.close()
    assert len(found) == sum(len(hosts["hosts"]) for name, hosts in inventory.items() if name != "all"), process.stdout[-4000:] + process.stderr[-2000:]
    return found


@pytest.mark.parametrize("name", CASES)
def test_refusal(said, name):
    for host, words in CASES[name][1].items():
        text = said["%s-%s" % (name, host)]
        if words is None:
            assert text in (None, "All assertions passed")
        else:
            assert words in " ".join((text if isinstance(text, str) else " ".join(text)).split())


def test_a_node_that_went_silent_keeps_the_others_from_being_stopped(tmp_path):
    """One that is lost in a task that may fail, as the watch, just leaves the play."""
    tasks = {task["name"]: task for task in yaml.safe_load((ROLE / "tasks" / "switch.yml").read_text())}
    variables = [yaml.safe_load((ROLE / part / "main.yml").read_text()) for part in ("defaults", "vars")]
    inventory = {"all": {"hosts": {host: facts("silent", host, {}, {}) for host in ("cp1", "cp2", "cp3")}}}
    inventory["all"]["vars"] = dict(variables[0], ansible_connection="local", ansible_python_interpreter=sys.executable)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        inventory["all"]["hosts"]["cp1"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=gone.getsockname()[1])
    harmless = {"name": "Watch", "ansible.builtin.ping": {}, "any_errors_fatal": False}
    stop = {"name": "Stop", "ansible.builtin.debug": {"msg": "stopped {{ inventory_hostname }}"}}
    block = [harmless, tasks["Refuse to stop anything when a node has gone silent"], stop]
    play = {"hosts": "all", "gather_facts": False, "vars": variables[1], "tasks": [{"any_errors_fatal": True, "block": block}]}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml"]
    said = subprocess.run(argv, cwd=tmp_path, env=dict(env, ANSIBLE_NOCOLOR="1"), capture_output=True, text=True, check=False, timeout=120).stdout
    assert "UNREACHABLE" in said and "cp1 cannot be reached any more, and would go on with the old data: nothing is stopped now" in said, said
    assert "stopped cp" not in said
