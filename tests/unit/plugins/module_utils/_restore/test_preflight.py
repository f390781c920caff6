# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore refuses, warns of and plans, from what is known of the nodes."""

from __future__ import annotations

import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_members import restore_members
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_plan import restore_plan
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import plan as planning, preflight, restored as restore_restored

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


def case(name, moment, expect, changes=(), **hosts):
    """A case: the moment; words that are said of each host, None where nothing is; changes to what is known of every host."""
    CASES[name] = (moment, expect, dict(changes), hosts or {"cp1": {}})


case("clock-right", "nodes", {"cp1": None}, cp1={"node": {"time": 0, "controller_time": -1}})
case("clock-ahead", "nodes", {"cp1": "s ahead of the controller's"}, cp1={"node": {"time": 3600, "controller_time": -1}})
case("clock-behind", "nodes", {"cp1": "s behind the controller's"}, cp1={"node": {"time": -3600, "controller_time": -1}})
# the question was under way for 100 s, so the skew is not known
case("clock-slow", "nodes", {"cp1": None}, cp1={"node": {"time": -50, "controller_time": -100}})
case(
    "clock-apart",
    "nodes",
    {"cp1": "s ahead of that of clock-apart-cp2", "cp2": None},
    cp1={"node": {"time": 25, "controller_time": -1}},
    cp2={"node": {"time": -25, "controller_time": -1}},
)

# The filter that this is based on has tests of its own; here is what comes of it.
TWO = [{"name": "cp1", "peer_urls": ["https://192.0.2.11:2380"]}, {"name": "cp2", "peer_urls": ["https://192.0.2.12:2380"]}]
BOTH = {"live": {"members": TWO}}
case("members-all", "cluster", {"cp1": None}, {"live": {"members": TWO[:1]}})
case("members-absent", "cluster", {"cp1": "does not reach: cp2 (named by etcd of members-absent-cp1). Restoring only members-absent-cp1 would"}, BOTH)
ALONE = 'drop the -l and add -e \'{"etcd_restore_members": ["members-alone-cp1"]}\''
case("members-alone", "cluster", {"cp1": ALONE}, BOTH)
case("members-retired", "cluster", {"cp1": None, "cp2": None}, dict(BOTH, etcd_restore_members=["members-retired-cp1"]), cp1={}, cp2={})
case("members-by-etcd-name", "cluster", {"cp1": None, "cp2": None}, dict(BOTH, etcd_restore_members=["cp1"]), cp1={}, cp2={})
case("members-lost", "cluster", {"cp1": None}, dict(BOTH, etcd_restore_lost_members=["cp2"]))
ON_DISK = {"live": {"members": []}, "node": {"members_on_disk": TWO}}
case("members-on-disk", "cluster", {"cp1": "cp2 (named by the data of members-on-disk-cp1)"}, ON_DISK)

case("names-list", "nodes", {"cp1": None}, {"etcd_restore_members": ["cp1"]})
case("names-text", "nodes", {"cp1": 'written as -e \'{"etcd_restore_members": ["cp1"]}\''}, {"etcd_restore_members": "[cp1]"})
case("names-lost", "nodes", {"cp1": "have to be lists"}, {"etcd_restore_lost_members": "cp2"})
case("names-known", "nodes", {"cp1": None}, {"etcd_restore_members": ["cp1", "names-known-cp1"]})
NAMED = "names cp7, but the hosts of this run are names-unknown-cp1 (in etcd cp1). Nothing was done"
case("names-unknown", "nodes", {"cp1": NAMED}, {"etcd_restore_members": ["cp1", "cp7"]})

INSIDE = {"node": {"controller_inside": True}}
case("inside", "nodes", {"cp1": "runs in a Pod of the very cluster that inside-cp1 belongs to"}, INSIDE)
case("inside-allowed", "nodes", {"cp1": None}, dict(INSIDE, etcd_restore_from_inside=True))

GONE = {"node": {"retired": {"id": "20260101T000000Z-0000", "path": "/r", "state": "committed", "held": "/h"}, "complete": False, "missing": ["etcd"]}}
ONLY = {"etcd_restore_members": ["cp1"]}
case("retired-not", "nodes", {"cp1": None})
case("retired-before", "nodes", {"cp1": "rejoin -l retired-before-cp1"}, GONE)
case("retired-left-out", "nodes", {"cp1": None, "cp2": None}, ONLY, cp1={}, cp2=GONE)
BROKEN = {"node": {"complete": False, "missing": ["etcd"]}}
case("complete-not", "nodes", {"cp1": "has no manifest of etcd"}, BROKEN)
OLDER = "/etc/kubernetes/tmp/kubeadm-backup-manifests-2026-11-28-10-00-00/etcd.yaml"
case("complete-kept", "nodes", {"cp1": "left older ones there: " + OLDER}, {"node": dict(BROKEN["node"], kept_by_kubeadm={"etcd": OLDER})})
case("complete-before", "nodes", {"cp1": None, "cp2": None}, ONLY, cp1={}, cp2=GONE)
case("complete-to-retire", "nodes", {"cp1": None, "cp2": "has no manifest of etcd"}, ONLY, cp1={}, cp2=BROKEN)
RUNS_THERE = "On kubeadm-upgrade-cp1 `kubeadm upgrade apply` runs (process 4711, for 95 s) and changes the control plane"
UPGRADE = {"node": {"kubeadm": [{"pid": 4711, "command": "kubeadm upgrade apply", "seconds": 95}]}}
case("kubeadm", "nodes", {"cp1": None})
case("kubeadm-upgrade", "nodes", {"cp1": RUNS_THERE}, UPGRADE)
case("kubeadm-to-retire", "nodes", {"cp1": None, "cp2": "`kubeadm upgrade apply` runs"}, ONLY, cp1={}, cp2=UPGRADE)
STOPPED = {"node": {"kubelet_running": False}}
case("findings-none", "nodes", {"cp1": None, "cp2": None}, cp1={}, cp2={})
case("kubelet-to-retire", "nodes", {"cp1": None, "cp2": "No kubelet runs on kubelet-to-retire-cp2"}, ONLY, cp1={}, cp2=STOPPED)
case("kubelet-before", "nodes", {"cp1": None, "cp2": None}, ONLY, cp1={}, cp2={"node": dict(STOPPED["node"], **GONE["node"])})
case("runtime-hangs", "nodes", {"cp1": "runtime of runtime-hangs-cp1 does not answer at the address"}, {"node": {"runtime": {"socket": "", "running": False}}})
EXPIRED = {"node": {"certificates": [dict(CERTIFICATE, problem="/pki/a.crt (a's) expired on 2026-01-01", days_left=-9)]}}
case("certificate-expired", "nodes", {"cp1": "On certificate-expired-cp1 /pki/a.crt (a's) expired on 2026-01-01, and what is stopped now would not"}, EXPIRED)
NO_TIMER = {"node": {"systemd": False}}
case("systemd", "nodes", {"cp1": "systemd-cp1 does not run systemd"}, NO_TIMER)
case("systemd-unwanted", "nodes", {"cp1": None}, dict(NO_TIMER, etcd_restore_rollback_after=0))
ALL = "On findings-all-cp1 /a is full. Nothing was done. On findings-all-cp1 /b is missing"
TO_COME = {"node": {"kubelet_running": False, "obstacles": ["/c is immutable"]}}
FULL = {"node": {"obstacles": ["/a is full", "/b is missing"]}}
case("findings-all", "nodes", {"cp1": ALL, "cp2": "On findings-all-cp2 /c is immutable"}, cp1=FULL, cp2=TO_COME)

LOST = dict(BOTH, etcd_restore_lost_members=["cp2"])
case("lost-here", "cluster", {"cp1": "names cp2, a host of this run", "cp2": None}, LOST, cp1={}, cp2={})
case("lost-nowhere", "cluster", {"cp1": "names cp9, but the members of this cluster are cp1, cp2."}, dict(BOTH, etcd_restore_lost_members=["cp2", "cp9"]))
case("lost-somewhere", "cluster", {"cp1": None}, LOST)
# documentation addresses do not answer
case("lost-silent", "cluster", {"cp1": None}, dict(LOST, knocked=[{"item": {"member": "cp2", "host": "192.0.2.12", "port": 2380}}]))
KNOCKED = [{"item": {"member": "cp2", "host": "192.0.2.12", "port": port}, "state": "started"} for port in (2379, 2380)]
ANSWERS = "cp2 is declared lost, but answers lost-answers-cp1 at 192.0.2.12 port 2379, 192.0.2.12 port 2380. Nothing was done. It runs, so include it"
case("lost-answers", "cluster", {"cp1": ANSWERS}, dict(LOST, knocked=KNOCKED))

WRONG = {"node": {"etcd_servers": ["https://127.0.0.1:2379", "https://192.0.2.12:2379"]}}
ASKS = "would ask cp2, no member of the restored cluster, since its --etcd-servers has https://192.0.2.12:2379:"
case("servers-of-members", "cluster", {"cp1": None, "cp2": None}, dict(BOTH, **WRONG), cp1={}, cp2={})
case("servers-retired", "cluster", {"cp1": ASKS, "cp2": None}, dict(BOTH, **WRONG, **ONLY), cp1={}, cp2={})
case("servers-lost", "cluster", {"cp1": ASKS}, dict(BOTH, **WRONG, etcd_restore_lost_members=["cp2"]))

LONELY = {"chosen": {"revision": 582}, "live": {"members": []}}
case("newer", "survivors", {"cp1": "has reached revision 583, and the snapshot is of 582"}, dict(LONELY, node={"revision_on_disk": 583}))
REMEMBERED = {"revision": 600, "members": TWO[:1], "members_agreed": False}
case("newer-live", "survivors", {"cp1": "k8s_dr.etcd.salvage -l newer-live-cp1"}, dict(LONELY, live=REMEMBERED))
case("newer-not", "survivors", {"cp1": None}, dict(LONELY, node={"revision_on_disk": 582}))
case("newer-quorum", "survivors", {"cp1": None}, {"chosen": {"revision": 582}, "live": {"revision": 600, "members": TWO[:1]}})

case("permitted", "cluster", {"cp1": None}, {"live": {"permitted": True}})
case("permitted-unknown", "cluster", {"cp1": None})
case("permitted-not", "cluster", {"cp1": "permitted-not-cp1: it wants a user. After"}, {"live": {"permitted": False, "error": "it wants a user"}})

case("asked", "cluster", {"cp1": None})
case("asked-worst-day", "cluster", {"cp1": None}, {"live": {"reachable": False}, "api": False})
case("asked-in-vain", "cluster", {"cp1": "it cannot be asked there: bad certificate."}, {"live": {"reachable": False, "error": "bad certificate"}})

IDLE = {"node": {"data_in_use": False}}
case("data", "cluster", {"cp1": None})
case("data-elsewhere", "cluster", {"cp1": "no process uses the database in /var/lib/etcd, which its manifest mounts at its --data-dir"}, IDLE)
case("data-of-nobody", "cluster", {"cp1": None}, dict(IDLE, live={"reachable": False}, api=False))



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
case("same-keys", "snapshot", {"cp1": None}, prints(("c", K1), ("c", K1)))
case("added-key", "snapshot", {"cp1": None}, prints(("c", K1), ("c", K2)))
case("removed-key", "snapshot", {"cp1": "the EncryptionConfiguration of removed-key-cp1 does not have: secrets (aescbc k2)."}, LOST_KEY)
# that it is of another cluster is no answer to how its Secrets are read
case("removed-key-foreign", "snapshot", {"cp1": "-e etcd_restore_undecryptable=true"}, dict(LOST_KEY, etcd_restore_foreign=True))
case("removed-key-allowed", "snapshot", {"cp1": None}, dict(LOST_KEY, etcd_restore_undecryptable=True))
case("another-ca", "snapshot", {"cp1": "was taken on a cluster with another CA than another-ca-cp1 has now"}, OTHER_CA)
case("another-ca-allowed", "snapshot", {"cp1": None}, dict(OTHER_CA, etcd_restore_foreign=True))
case("another-ca-undecryptable", "snapshot", {"cp1": "etcd_restore_foreign=true"}, dict(OTHER_CA, etcd_restore_undecryptable=True))
# what could not be read is not known to differ, nor what an earlier version wrote down
case("unread-then", "snapshot", {"cp1": None}, prints(("c", "unreadable"), ("c", K1)))
case("unread-now", "snapshot", {"cp1": None}, prints(("c", K1), ("c", "unreadable")))
case("earlier-version", "snapshot", {"cp1": None}, prints(("x", "whole file"), ("c", K1)))

# there are two here
THREE, FIVE = ({"cp%d" % number: {} for number in range(1, nodes + 1)} for nodes in (3, 5))
case("forks", "cluster", {"cp1": None}, **THREE)
case("forks-too-few", "cluster", {"cp1": "would work on 2 of 5 nodes at a time (forks)"}, **FIVE)
case("forks-of-restored", "cluster", {"cp1": None}, {"etcd_restore_members": ["cp1", "cp2", "cp3"]}, **FIVE)

OLD_TOOLS = {"etcd_client_tools": {"restore": None}}
case("tools-cannot-restore", "cluster", {"cp1": "Neither etcdctl nor etcdutl on tools-cannot-restore-cp1 can restore"}, OLD_TOOLS)

TOOLS = {"etcd_client_tools": {"bump_revision": True}}
OF_582 = dict(TOOLS, chosen={"revision": 582})
for name, changes, raised in (
    ("live", {"live": {"revision": 600}}, 18 + 1000000),
    ("cannot", {"live": {"revision": 600}, "etcd_client_tools": {"bump_revision": False}}, 0),
    ("told-not-to", {"live": {"revision": 600}, "etcd_restore_bump_revision": False}, 0),
    ("down", {"live": {"reachable": False, "revision": 0}}, 1000000000),
    # what a database that no etcd serves had reached
    ("down-on-disk", {"live": {"reachable": False, "revision": 0}, "node": {"revision_on_disk": 1000050582}}, 1000050000 + 1000000000),
    # its data is lost, and the restore before had raised it, too
    ("empty-again", {"live": {"revision": 3}, "node": {"revision_on_disk": 3, "cluster_ids": ["aa", "bb"]}}, 3000000000),
):
    case("revision-" + name, "bump", {"cp1": "raised by %d." % raised}, dict(OF_582, **changes))

AFTER = {"cluster_id": "cc", "healthy": True, "revision": 700, "members": [{"name": "cp1", "peer_urls": ["https://192.0.2.11:2380"]}]}
RESTORED = {"chosen": {"revision": 582}, "after": AFTER}
case("after", "restored", {"cp1": None}, RESTORED)
case("after-the-same", "restored", {"cp1": "is not what was restored: cluster ids aa (before: aa)"}, dict(RESTORED, after=dict(AFTER, cluster_id="aa")))
case("after-of-unknown", "restored", {"cp1": None}, dict(RESTORED, live={"reachable": False, "cluster_id": None}))
case("after-behind", "restored", {"cp1": "revision 581"}, dict(RESTORED, after=dict(AFTER, revision=581)))

# Which nodes are waited for after a restore: what was healthy before, and all that were restored.
BEFORE = {"observed": {"cp1": True, "w1": True, "w2": False}}
case("waited", "baseline", {"cp1": "nodes cp1 True, w1 True, w2 False."}, BEFORE)
# it had been deleted, and the snapshot holds it
case("waited-for-the-deleted", "baseline", {"cp1": "nodes cp1 True, w1 True."}, {"observed": {"w1": True}})
case("waited-for-nobody-knows", "baseline", {"cp1": "nodes cp1 True."})
case("waited-not-lost", "baseline", {"cp1": "nodes cp1 True, cp2 False."}, dict(BEFORE, etcd_restore_lost_members=["cp2"]))
# a kubelet that has no API server but its own cannot renew a lease
case("waited-not-retired", "baseline", {"cp1": "nodes cp1 True, cp2 False."}, dict(BEFORE, etcd_restore_members=["cp1"]), cp1={}, cp2={})

case("ids-live", "snapshot", {"cp1": None})
case("ids-other", "snapshot", {"cp1": "the one of ids-other-cp1 is or was bb: it is a snapshot of another"}, {"live": {"cluster_id": "bb"}})
case("ids-earlier", "snapshot", {"cp1": None}, {"live": {"cluster_id": "bb"}, "node": {"cluster_ids": ["cc", "aa"]}})
case("ids-of-all-nodes", "snapshot", {"cp1": None, "cp2": None}, {"live": {"cluster_id": "bb"}}, cp1={}, cp2={"node": {"cluster_ids": ["aa"]}})
case("ids-unknown", "snapshot", {"cp1": None}, {"live": {"cluster_id": None}})
case("ids-without-manifest", "snapshot", {"cp1": None}, {"live": {"cluster_id": "bb"}, "manifest": None})
case("ids-allowed", "snapshot", {"cp1": None}, {"live": {"cluster_id": "bb"}, "etcd_restore_foreign": True})


case("age-fine", "snapshot", {"cp1": None}, {"created": -6.9})
case("age-old", "snapshot", {"cp1": "-e etcd_restore_max_age_days=8"}, {"created": -7.1})
case("age-any", "snapshot", {"cp1": None}, {"created": -700, "etcd_restore_max_age_days": 0})
case("age-unknown", "snapshot", {"cp1": None}, {"manifest": None})
case("age-now", "snapshot", {"cp1": None}, {"created": 15 / 86400})
case("age-future", "snapshot", {"cp1": "hours from now"}, {"created": 0.01})
case("age-future-any", "snapshot", {"cp1": None}, {"created": 1, "etcd_restore_max_age_days": 0})

case("version-known", "snapshot", {"cp1": None})
DIGEST = {"image": "example/etcd@sha256:00", "version": ""}
case("version-unknown", "snapshot", {"cp1": "The image of etcd on version-unknown-cp1, example/etcd@sha256:00, has no version"}, {"node": {"etcd": DIGEST}})

for storage, server, refused in (
    (None, "3.6.14-0", None),
    ("3.6.0", "3.6.14-0", None),
    ("3.7.0", "3.6.14-0", "was written by etcd 3.7"),
    ("3.7.0", "3.5.16-0", None),
    ("3.10.0", "3.9.1", "Upgrade etcd to 3.10 first"),
    ("3.9.0", "3.10.1", None),
):
    name = "storage-%s-on-%s" % (storage, server)
    case(name, "snapshot", {"cp1": refused}, {"chosen": {"storage_version": storage}, "node": {"etcd": dict(NODE["etcd"], version=server)}})

# 302 MB for what is staged of a snapshot of 100 MB
ELSEWHERE = {"path": "/mnt/backups", "free_bytes": 101 * MB, "same_file_system": False}
case("space-all", "snapshot", {"cp1": None}, {"node": {"free_bytes": 610 * MB}})
LATER = "later 300.00 MB for a snapshot of what is discarded. Nothing was done. Make room, or"
case("space-too-little", "snapshot", {"cp1": LATER}, {"node": {"free_bytes": 600 * MB}})
case("space-of-the-others", "snapshot", {"cp1": LATER, "cp2": None}, {"node": {"free_bytes": 420 * MB}}, cp1={}, cp2={})
case("space-without-safety", "snapshot", {"cp1": None}, {"node": {"free_bytes": 310 * MB}, "etcd_restore_safety_snapshot": False})
case("space-staged", "snapshot", {"cp1": "Make room there."}, {"node": {"free_bytes": 300 * MB}, "etcd_restore_safety_snapshot": False})
COPIED = {"node": {"free_bytes": 390 * MB}, "etcd_restore_safety_snapshot": False, "source": "localhost"}
case("space-copied", "snapshot", {"cp1": "100.00 MB for a copy"}, COPIED)
case("space-two-file-systems", "snapshot", {"cp1": None}, {"node": {"free_bytes": 510 * MB, "snapshot_dir": ELSEWHERE}})
FULL = dict(ELSEWHERE, free_bytes=99 * MB)
case("space-elsewhere", "snapshot", {"cp1": "has 99.00 MB free in the file system of /mnt/backups"}, {"node": {"snapshot_dir": FULL}})
case("space-no-data", "snapshot", {"cp1": None}, {"node": {"free_bytes": 310 * MB, "data_bytes": 0, "database_bytes": 0}})

NOBODY = {"seen": {"permitted": False, "layers": {"system": {"problems": ["the API server lets nobody in"]}}}}
case("unseen-well", "cluster", {"cp1": None})
UNCHECKED = "On unseen-cp1 the API server lets nobody in. After a restore nodes, kube-system and workloads could not be checked"
case("unseen", "cluster", {"cp1": UNCHECKED}, NOBODY)
case("unseen-wanted", "cluster", {"cp1": None}, dict(NOBODY, etcd_restore_without_validation=True))
case("unseen-down", "cluster", {"cp1": None}, dict(NOBODY, api=False))

case("warn-nothing", "warnings", {"cp1": None})
IMAGE = "WARNING: on warn-image-cp1 the image x is not on this node"
case("warn-image", "warnings", {"cp1": IMAGE}, {"node": {"warnings": ["the image x is not on this node"]}})
case("warn-certificate", "warnings", {"cp1": "/pki/a.crt (a's) expires on"}, {"node": {"certificates": [dict(CERTIFICATE, days_left=6)]}})
PAST = dict(CERTIFICATE, expired=True, days_left=-2)
case("warn-administrator", "warnings", {"cp1": "/pki/a.crt (a's) expired on"}, {"node": {"certificates": [PAST]}})
OLD_MEMBER = dict(TWO[0], id="a1", name="old")
AGREED = {"members_agreed": True, "members": [dict(TWO[0], id="b2")]}
OF_NOBODY = {"node": {"members_on_disk": [dict(TWO[0], id="b2"), OLD_MEMBER]}, "live": AGREED}
case("warn-leftover", "warnings", {"cp1": "that the cluster does not have, old (id a1, https://192.0.2.11:2380), which an upgrade to etcd 3.6"}, OF_NOBODY)
case("warn-earlier-version", "warnings", {"cp1": "the EncryptionConfiguration of warn-earlier-version-cp1 is another file"}, prints(("c", "whole"), ("c", K1)))
case("warn-space", "warnings", {"cp1": "alarm NOSPACE"}, {"live": {"alarms": ["NOSPACE"]}})
case("warn-corrupt", "warnings", {"cp1": "alarm CORRUPT"}, {"live": {"alarms": ["CORRUPT"]}})
case("warn-learner", "warnings", {"cp1": "is a learner"}, {"live": {"is_learner": True}})
case("warn-manifest", "warnings", {"cp1": "/b/a.db has no manifest"}, {"manifest": None})
case("warn-lasting", "warnings", {"cp1": "on warn-lasting-cp1 only /etc/kubernetes/admin.conf may read the API"}, {"seen": {"lasting": ""}})
case("warn-version", "warnings", {"cp1": "is of Kubernetes 1.29, and warn-version-cp1 runs 1.30"}, {"manifest": {"kubernetes_version": "v1.29.3"}})




def known_of(name, changes, hosts):
    """What the role would know in this case."""

    def merged(key, base, own):
        return dict(base, **(changes.get(key) or {}), **(own.get(key) or {}))

    now = time.time()
    options = {
        "members": [], "lost_members": [], "from_inside": False, "without_validation": False, "foreign": False, "undecryptable": False, "max_age_days": 7,
        "safety_snapshot": True, "bump_revision": True, "snapshot_dir": "/var/backups/etcd", "keep": 3, "rollback_after": 900, "trial_start": True,
    }  # fmt: skip
    options.update({key[len("etcd_restore_") :]: value for key, value in changes.items() if key.startswith("etcd_restore_")})
    nodes, live, before = {}, {}, {}
    for host, own in hosts.items():
        number, named = host[2:], "%s-%s" % (name, host)
        node = merged("node", NODE, own)
        for clock in ("time", "controller_time"):
            node[clock] = now + node.get(clock, 0)
        node["etcd"] = dict(
            node["etcd"], name=host, peer_urls="https://192.0.2.1%s:2380" % number, client_url="https://192.0.2.1%s:2379" % number
        )
        nodes[named], live[named] = node, merged("live", LIVE, own)
        before[named] = dict(SEEN, reachable=changes.get("api", True), **changes.get("seen", {}))
    manifest = {} if changes.get("manifest", {}) is None else merged("manifest", MANIFEST, {})
    if "created" in changes:
        manifest["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + changes["created"] * 86400))
    every = list(nodes)
    names = options["members"]
    restored = [host for host in every if not names or isinstance(names, str) or host in names or nodes[host]["etcd"]["name"] in names] or every
    tools = dict({"save": "etcdctl", "restore": "etcdutl", "bump_revision": True}, **changes.get("etcd_client_tools", {}))
    return {
        "hosts": every,
        "restored": restored,
        "voters": restored + [host for host in every if host not in restored and not nodes[host]["retired"]],
        "first": restored[0],
        "nodes": nodes,
        "live": live,
        "before": before,
        "tools": dict.fromkeys(every, tools),
        "rollback_after": dict.fromkeys(every, options["rollback_after"]),
        "answering": {every[0]: {"results": changes.get("knocked", [])}},
        "membership": restore_members([(host, nodes[host], live[host]) for host in every], restored, options["lost_members"]),
        "proof": {"snapshot": merged("chosen", {"size": 100 * MB, "storage_version": None}, {}), "manifest": manifest},
        "path": "/b/a.db",
        "source": changes.get("source", "%s-cp1" % name),
        "now": now,
        "forks": 2,
        "check_mode": False,
        "manifests_dir": "/manifests",
        "clock_tolerance": 30,
        "own_ca": "",
        "options": options,
    }


def serving(known, changes):
    """The same for a restored cluster."""
    nodes, restored = known["nodes"], known["restored"]
    ready = {name: {"ready": well} for name, well in changes.get("observed", {}).items()}
    return {
        "hosts": restored,
        "after": dict.fromkeys(restored, changes.get("after")),
        "cluster_id": known["live"][known["first"]].get("cluster_id") or "",
        "initial_cluster": planning.initial_cluster(known),
        "revision": known["proof"]["snapshot"].get("revision") or 0,
        "observed": {"nodes": ready} if ready else {},
        "names": [nodes[host]["etcd"]["name"] for host in restored],
        "retired": [nodes[host]["etcd"]["name"] for host in known["hosts"] if host not in restored],
        "lost": known["options"]["lost_members"],
    }


def said(name):
    """{host: all that is said of it}"""
    moment, dummy, changes, hosts = CASES[name]
    known = known_of(name, changes, hosts)
    first = known["first"]
    if moment == "warnings":
        return {first: " ".join(preflight.warnings(known))}
    if moment == "survivors":
        return {first: " ".join(planning.survivors(known))}
    if moment == "bump":
        return {first: "raised by %d." % planning.bump_revision(known)}
    if moment == "restored":
        return {first: restore_restored.member_differences(serving(known, changes), first)}
    if moment == "baseline":
        nodes = restore_restored.baseline(serving(known, changes))["nodes"]
        return {first: "nodes %s." % ", ".join("%s %s" % (node, nodes[node]["ready"]) for node in sorted(nodes))}
    found = {}
    for host, problem, advice in preflight.MOMENTS[moment](known):
        found[host] = found.get(host, "") + "%s. Nothing was done. %s " % (preflight.plain(problem), advice)
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_message_of_each_finding(name):
    found = said(name)
    for host, words in CASES[name][1].items():
        text = " ".join(found.get("%s-%s" % (name, host), "").split())
        if words is None:
            assert not text
        else:
            assert words in text


def test_several_findings_are_one_list_and_one_is_a_sentence():
    known = known_of("two", {}, {"cp1": {"node": {"kubelet_running": False}}, "cp2": {"node": {"obstacles": ["/c is immutable"], "systemd": False}}})
    text = preflight.refusal(preflight.nodes(known))
    assert text[0] == "Nothing was done. 3 things stand in the way:" and len(text) == 4
    assert text[1] == "1. No kubelet runs on two-cp1, so nothing would stop or start its etcd. Run on the node: systemctl start kubelet."
    known = known_of("one", {}, {"cp1": {"node": {"obstacles": ["/c is immutable"]}}})
    assert preflight.refusal(preflight.nodes(known)) == "On one-cp1 /c is immutable. Nothing was done."
    assert preflight.refusal([]) == ""


def test_a_snapshot_that_failed_its_verification_is_refused():
    """The role does not let the task fail, so the answer has a `msg` beside the snapshot."""
    known = known_of("proof", {}, {"cp1": {}})
    known["proof"].update(msg="/b/a.db is damaged.", failed=False)
    assert preflight.refusal(preflight.snapshot(known)) == "/b/a.db is damaged. Nothing was done."
    known["proof"] = {"msg": "/b/a.db cannot be read"}
    assert preflight.refusal(preflight.snapshot(known)) == "/b/a.db cannot be read. Nothing was done."
    known["proof"] = {"snapshot": {}, "manifest_problem": "the manifest is of another file"}
    assert "move the manifest away" in preflight.refusal(preflight.snapshot(known))


def choose(wanted="", here=None, off_site="", unchecked=None, **nodes):
    """What is chosen of these: {node: (newest, given)}."""
    held = {
        host: {"snapshots": {"latest": latest, "given": {"path": wanted, "manifest": bool(given)} if given is not None else {}, "problem": problem}}
        for host, (latest, given, problem) in nodes.items()
    }
    for host, why in (unchecked or {}).items():
        held[host]["snapshots"]["unchecked"] = why
    known = {"hosts": list(held), "first": "cp1", "nodes": held, "wanted": wanted, "off_site": off_site, "options": {"snapshot_dir": "/b"}}
    return planning.choose_source(dict(known, on_controller=here or {"exists": False}))


def newest(created, path="/b/a.db"):
    return {"path": path, "created": created, "manifest": True}


def test_the_newest_verified_snapshot_of_all_nodes_is_chosen():
    chosen = choose(cp1=(newest("2026-01-01T00:00:00Z"), None, ""), cp2=(newest("2026-01-02T00:00:00Z", "/b/b.db.zst"), None, ""), cp3=({}, None, ""))
    assert chosen == {"host": "cp2", "path": "/b/b.db.zst", "packed": True, "refusal": ""}
    same = choose(cp1=(newest("2026-01-02T00:00:00Z"), None, ""), cp2=(newest("2026-01-02T00:00:00Z"), None, ""))
    assert same["host"] == "cp1", "of two of the same second that of the first host"
    old = choose(unchecked={"cp2": "ssh-keygen is too old"}, cp1=(newest("2026-01-02T00:00:00Z"), None, ""), cp2=({}, None, ""))
    assert not old["host"] and "in /b cannot be checked: ssh-keygen is too old. Nothing was done. Name one" in old["refusal"], "cp2 may have the newest"
    none = choose(cp1=({}, None, ""), cp2=({}, None, "/b cannot be read: Permission denied"))
    assert none["host"] == "" and "/b cannot be read" in none["refusal"][1] and "There is no verified snapshot in /b on cp1, cp2" in none["refusal"][2]


def test_a_snapshot_that_is_named_is_taken_from_a_node_before_the_controller():
    here = {"exists": True, "path": "/here/a.db", "manifest": False}
    found = choose("/b/a.db.age", here, cp1=({}, None, ""), cp2=({}, True, ""))
    assert (found["host"], found["path"], found["packed"]) == ("cp2", "/b/a.db.age", True)
    # what others compressed has no manifest of ours: the verification says what it is, and how it is unpacked
    assert not choose("/b/a.db.zst", here, cp1=({}, False, ""))["packed"]
    assert not choose("/b/a.db", here, cp1=({}, True, ""))["packed"]
    assert choose("a.db", here, cp1=({}, None, ""))["host"] == "localhost"
    assert choose("/b/a.db", here, off_site="s3:b", cp1=({}, True, ""))["host"] == "localhost", "a node may have an older one of that name"
    assert "a.db exists neither on cp1 nor on the controller. Nothing was done. Set" in choose("a.db", cp1=({}, None, ""))["refusal"]


def compared(**changes):
    kinds = {"count": 1, "objects": 1, "kinds": []}
    found = {"compared": True, "reason": None, "vanish": kinds, "reappear": kinds, "change": kinds, "lines": ["vanish  1  pods  default  a"], "seconds": 2.1}
    found.update(snapshot={"total": 358, "kinds": {"pods": 12}}, live={"total": 360, "moved": False}, list="/r/plan.txt")
    return dict(found, **changes)


def test_lines_about_objects():
    said = planning.objects(compared(), True, "cp1")
    assert said[0].startswith("OBJECTS   1 deleted, 1 re-created, 1 modified, leases and events aside (360 live keys, 358 in the snapshot")
    assert said[1:] == ["vanish  1  pods  default  a", "all of them: /r/plan.txt"]
    silent = planning.objects(compared(compared=False, reason="the live etcd does not answer."), True, "cp1")
    assert silent == ["OBJECTS   not compared: the live etcd does not answer", "the snapshot holds 358 keys: pods 12"]
    assert "etcd_restore_compare is false" in planning.objects({}, False, "cp1")[0]
    assert "tools are not on cp2 yet" in planning.objects({}, True, "cp2")[0]


def tried(drill=None, server="3.6.14-0", sha256="aa", **options):
    """Whether a restore tries first whether etcd starts, and what the plan says of it."""
    known = known_of("trial", {}, {"cp1": {}})
    known["nodes"]["trial-cp1"]["etcd"]["version"] = server
    known["proof"]["snapshot"]["sha256"] = "aa"
    known["proof"]["manifest"] = dict(MANIFEST, sha256=sha256, **({"levels": {"drill": drill}} if drill else {}))
    known["options"].update(options)
    return planning.trial_start(known)


PASSED = {"at": "2026-11-29T02:00:00Z", "ok": True, "problem": None, "etcd_version": "3.6.16"}
TRIES = "; the restore tries whether etcd starts on it, before it stops anything"


def test_a_drill_of_the_same_file_with_an_etcd_of_the_same_minor_version_saves_the_trial():
    proved = "a drill at 2026-11-29T02:00:00Z proved that etcd 3.6.16 starts on it"
    assert tried(PASSED) == (False, proved)
    assert tried(PASSED, trial_start=False) == (False, proved)
    assert tried(PASSED, "v3.7.3") == (True, proved + ", and trial-cp1 has etcd v3.7.3" + TRIES)
    assert tried(PASSED, "") == (True, proved + ", and trial-cp1 has etcd of an unknown version" + TRIES)
    assert tried(dict(PASSED, etcd_version=None), "")[0], "neither version is known"
    assert tried(PASSED, sha256="bb") == (True, "it was never drilled" + TRIES), "the manifest is of another file"


def test_what_no_drill_has_proved_is_tried_before_anything_is_stopped():
    assert tried() == (True, "it was never drilled" + TRIES)
    assert tried(trial_start=False) == (
        False,
        "it was never drilled; the restore does not try whether etcd starts on it (etcd_restore_trial_start is false)",
    )
    assert tried(dict(PASSED, ok=False, problem="it panics.")) == (True, "the drill at 2026-11-29T02:00:00Z failed: it panics" + TRIES)
    # what a damaged manifest may have
    assert tried("yes") == (True, "it was never drilled" + TRIES)
    known = known_of("trial", {"manifest": None}, {"cp1": {}})
    known["proof"]["snapshot"]["sha256"] = "aa"
    assert planning.trial_start(dict(known, proof=dict(known["proof"], manifest=None))) == (True, "it was never drilled" + TRIES)


def test_a_controller_with_the_ca_of_the_cluster_runs_inside_it():
    known = known_of("own", {}, {"cp1": {"node": {"fingerprints": {"ca": "aa"}}}})
    assert preflight.nodes(known) == []
    known["own_ca"] = "aa"
    assert "runs in a Pod of the very cluster" in preflight.refusal(preflight.nodes(known))


def test_check_mode_does_not_refuse_tools_that_it_would_install():
    known = known_of("tools", OLD_TOOLS, {"cp1": {}})
    assert preflight.cluster(dict(known, check_mode=True)) == []


def test_lines_of_the_plan():
    known = known_of("plan", {"etcd_restore_members": ["cp1"]}, {"cp1": {}, "cp2": {}})
    node = {"mount_point": True, "transactions_dir": "/var/lib/etcd/.restore", "other_static_pods": ["kube-vip"]}
    known["nodes"]["plan-cp1"].update(node)
    known["live"]["plan-cp1"].update(revision=600)
    known["proof"]["snapshot"].update(sha256="0123456789abcdef", integrity="ok", revision=582)
    known.update(label="/b/a.db", origin="cp1", bump=1000018)
    said = "\n".join(planning.lines(known))
    for words in (
        "RESTORE of plan-cp1 (etcd 3.6.14-0, Kubernetes 1.30.1)",
        "sha256 0123456789ab, verified",
        "starts    it was never drilled; the restore tries",
        "lost      everything written after revision 582",
        "raised by 1000018",
        "these static Pods keep running: kube-vip",
        "rejoin -l plan-cp2",
        "/var/lib/etcd/member to /var/lib/etcd/.restore/<id>/old",
        "rolls back by itself after 900 s",
        "before    the API server answers; all is well",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("taken_of", "stored", "server", "older"),
    [
        ("3.7.3", "3.6.0", "3.7.3-0", "3.6"),
        # 3.5 stores no version
        ("3.6.16", None, "3.6.16-0", "3.5"),
        # on the older one there is nothing to cancel
        ("3.7.3", "3.6.0", "3.6.16-0", None),
        # of an upgrade, and of what is as it should be
        ("3.6.16", "3.6.0", "3.7.3-0", None),
        ("3.7.3", "3.7.0", "3.7.3-0", None),
        ("3.5.35", None, "3.6.16-0", None),
        ("", None, "3.6.16-0", None),
    ],
)
def test_a_snapshot_for_an_older_etcd_tells_the_restored_one_to_downgrade(taken_of, stored, server, older):
    known = known_of("plan", {}, {"cp1": {}})
    known["nodes"]["plan-cp1"]["etcd"]["version"] = server
    known["proof"]["snapshot"]["storage_version"] = stored
    known["proof"]["manifest"] = dict(MANIFEST, etcd_version=taken_of)
    found = planning._downgrade(known)
    words = "it was taken for etcd %s, and tells the restored cluster to downgrade to it: run `etcdctl downgrade cancel` afterwards"
    assert found == (["downgrade " + words % older] if older else [])


def test_lines_of_a_plan_without_safeguards():
    changes = dict(BOTH, etcd_restore_lost_members=["cp2"], etcd_restore_safety_snapshot=False, etcd_restore_rollback_after=0)
    known = known_of("plan", changes, {"cp1": {}})
    known["nodes"]["plan-cp1"].update(mount_point=False, transactions_dir="/var/lib/etcd.restore")
    known["live"]["plan-cp1"].update(reachable=False)
    known["proof"]["snapshot"].update(sha256="0123456789abcdef", integrity="unproven")
    known.update(label="a.db", origin="off-site", bump=0)
    said = "\n".join(planning.lines(known))
    for words in (
        "a.db (off-site)",
        "sha256 0123456789ab, unproven",
        "after revision ?; the live etcd is at an unknown revision (it does not answer)",
        "not raised",
        "declared lost: cp2. Do NOT start them again",
        "no snapshot of the discarded data",
        "no node rolls back by itself",
    ):
        assert words in said


def test_the_filter_makes_the_plan_with_the_revision_that_it_decides():
    known = known_of("plan", dict(TOOLS, live={"revision": 600}, chosen={"revision": 582}), {"cp1": {}})
    known["nodes"]["plan-cp1"].update(mount_point=False, transactions_dir="/var/lib/etcd.restore")
    known["proof"]["snapshot"].update(sha256="0123456789abcdef", integrity="ok")
    known.update(label="/b/a.db", origin="cp1")
    plan = restore_plan(known)
    assert plan["trial_start"] and plan["bump"] == 1000018 and any("raised by 1000018" in line for line in plan["lines"])
    assert plan["initial_cluster"] == "cp1=https://192.0.2.11:2380" and plan["warnings"] == []
    assert "it has reached revision 600, and the snapshot is of 582" in plan["survivors"][0]


def test_members_hold_the_same():
    known = serving(known_of("restored", RESTORED, {"cp1": {}}), RESTORED)
    [etcd] = known["after"].values()

    def said(*hashes):
        known["after"] = {"cp%d" % number: dict(etcd, hash=found) for number, found in enumerate(hashes, 1)}
        return restore_restored.member_differences(known, "cp1")

    same, later = {"hash": 7, "compact_revision": 5}, {"hash": 9, "compact_revision": 6}
    # one on its own is not asked
    assert said(None) == said(same, same, later) == ""
    assert "cp1 7 (compacted at 5), cp2 8 (compacted at 5)" in said(same, {"hash": 8, "compact_revision": 5}, later)
    for silent in (None, {"hash": None, "compact_revision": 5}):
        assert "do not say so: cp1 7 (compacted at 5), cp2 None" in said(same, silent, later)
