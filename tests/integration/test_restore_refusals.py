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
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "etcd_restore"
MB = 1024 * 1024
CERTIFICATE = {"path": "/pki/a.crt", "what": "a's", "expires": "2026-12-01T00:00:00Z", "problem": None}
NODE = {
    "etcd": {"name": "cp1", "version": "3.6.14-0", "initial_cluster": "cp1=https://192.0.2.11:2380"},
    "kubernetes_version": "1.30.1",
    "data_dir": "/var/lib/etcd",
    "data_bytes": 200 * MB,
    "database_bytes": 100 * MB,
    "free_bytes": 10000 * MB,
    "snapshot_dir": {"path": "/var/backups/etcd", "free_bytes": 10000 * MB, "same_file_system": True},
    "cluster_ids": [],
    "certificates": [dict(CERTIFICATE, days_left=300)],
}
LIVE = {"reachable": True, "members": [], "alarms": [], "cluster_id": "aa", "is_learner": False, "error": None}
MANIFEST = {"host": "cp1", "cluster_id": "aa", "kubernetes_version": "v1.30.0"}

CASES = {}


def case(name, task, expect, changes=(), **hosts):
    """A case: the task by its name; words that its refusal holds for each host, None where it goes on; changes to the facts of every host."""
    CASES[name] = (task, expect, dict(changes), hosts or {"cp1": {}})


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

MEMBERS = "Refuse a restore of only some of the members"
TWO = [{"name": "cp1", "peer_urls": ["https://192.0.2.11:2380"]}, {"name": "", "peer_urls": ["https://192.0.2.12:2380"]}]
case("members-all", MEMBERS, {"cp1": None}, {"live": {"members": TWO[:1]}})
case("members-unstarted", MEMBERS, {"cp1": "does not reach: https://192.0.2.12:2380."}, {"live": {"members": TWO}})
case("members-unknown", MEMBERS, {"cp1": "does not reach: cp2."}, {"node": {"etcd": dict(NODE["etcd"], initial_cluster="cp1=https://a,cp2=https://b")}})

ASKED = "Refuse an etcd that serves but cannot be asked"
case("asked", ASKED, {"cp1": None})
case("asked-worst-day", ASKED, {"cp1": None}, {"live": {"reachable": False}, "api": False})
case("asked-in-vain", ASKED, {"cp1": "it cannot be asked there: bad certificate."}, {"live": {"reachable": False, "error": "bad certificate"}})

IDS = "Refuse a snapshot of an etcd cluster that this one never was"
case("ids-live", IDS, {"cp1": None})
case("ids-other", IDS, {"cp1": "the one of ids-other-cp1 is or was bb: it is a snapshot of another"}, {"live": {"cluster_id": "bb"}})
case("ids-earlier", IDS, {"cp1": None}, {"live": {"cluster_id": "bb"}, "node": {"cluster_ids": ["cc", "aa"]}})
case("ids-of-all-nodes", IDS, {"cp1": None, "cp2": None}, {"live": {"cluster_id": "bb"}}, cp1={}, cp2={"node": {"cluster_ids": ["aa"]}})
case("ids-unknown", IDS, {"cp1": None}, {"live": {"cluster_id": None}})
case("ids-without-manifest", IDS, {"cp1": None}, {"live": {"cluster_id": "bb"}, "manifest": None})
case("ids-allowed", IDS, {"cp1": None}, {"live": {"cluster_id": "bb"}, "etcd_restore_foreign": True})

OLD, FUTURE = "Refuse a snapshot that is older than allowed", "Refuse a snapshot from the future"
case("age-fine", OLD, {"cp1": None}, {"created": -6.9})
case("age-old", OLD, {"cp1": "-e etcd_restore_max_age=8"}, {"created": -7.1})
case("age-any", OLD, {"cp1": None}, {"created": -700, "etcd_restore_max_age": 0})
case("age-unknown", OLD, {"cp1": None}, {"manifest": None})
case("age-now", FUTURE, {"cp1": None}, {"created": 15 / 86400})
case("age-future", FUTURE, {"cp1": "hours from now"}, {"created": 0.01})
case("age-future-any", FUTURE, {"cp1": None}, {"created": 1, "etcd_restore_max_age": 0})

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

WARNINGS = "Say what is no obstacle but good to know"
case("warn-nothing", WARNINGS, {"cp1": None})
case("warn-certificate", WARNINGS, {"cp1": "/pki/a.crt (a's) expires on"}, {"node": {"certificates": [dict(CERTIFICATE, days_left=6)]}})
case("warn-space", WARNINGS, {"cp1": "alarm NOSPACE"}, {"live": {"alarms": ["NOSPACE"]}})
case("warn-corrupt", WARNINGS, {"cp1": "alarm CORRUPT"}, {"live": {"alarms": ["CORRUPT"]}})
case("warn-learner", WARNINGS, {"cp1": "is a learner"}, {"live": {"is_learner": True}})
case("warn-manifest", WARNINGS, {"cp1": "/b/a.db has no manifest"}, {"manifest": None})
case("warn-version", WARNINGS, {"cp1": "is of Kubernetes 1.29, and warn-version-cp1 runs 1.30"}, {"manifest": {"kubernetes_version": "v1.29.3"}})


def facts(name, host, changes, own):
    """The host variables of one node of a case."""

    def merged(key, base):
        return dict(base, **(changes.get(key) or {}), **(own.get(key) or {}))

    now = time.time()
    node = merged("node", NODE)
    for clock in ("time", "controller_time"):
        node[clock] = now + node.get(clock, 0)
    manifest = {} if changes.get("manifest", {}) is None else merged("manifest", MANIFEST)
    if "created" in changes:
        manifest["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + changes["created"] * 86400))
    node["etcd"] = dict(node["etcd"], name=host)
    return {
        "__etcd_restore_node": node,
        "__etcd_restore_live": merged("live", LIVE),
        "__etcd_restore_manifest": manifest,
        "__etcd_restore_chosen": merged("chosen", {"size": 100 * MB, "storage_version": None}),
        "__etcd_restore_file": "/b/a.db",
        "__etcd_restore_source": changes.get("source", "%s-cp1" % name),
        "__etcd_restore_answer": {"changed": False},
        "__etcd_restore_before": {"validation": {"reachable": changes.get("api", True)}},
        **{key: value for key, value in changes.items() if key.startswith("etcd_restore_")},
    }


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """{host: what a task refused with, or said; None when it went on}"""
    directory = tmp_path_factory.mktemp("refusals")
    tasks = {task["name"]: task for file in ("preflight", "snapshot") for task in yaml.safe_load((ROLE / "tasks" / (file + ".yml")).read_text())}
    variables = [yaml.safe_load((ROLE / part / "main.yml").read_text()) for part in ("defaults", "vars")]
    inventory, plays = {}, []
    for name, (task, _expect, changes, hosts) in CASES.items():
        inventory[name] = {"hosts": {"%s-%s" % (name, host): facts(name, host, changes, own) for host, own in hosts.items()}}
        play = {"name": name, "hosts": name, "gather_facts": False, "vars": variables[1]}
        show = {"ansible.builtin.debug": {"msg": "SAID {{ {'host': inventory_hostname, 'said': result.msg | default(none)} | to_json }}"}}
        play["tasks"] = [dict(tasks[task], register="result", ignore_errors=True), show]
        plays.append(play)
    inventory["all"] = {"vars": dict(variables[0], ansible_connection="local", ansible_python_interpreter=sys.executable)}
    for path, content in (("inventory.yml", inventory), ("play.yml", plays)):
        (directory / path).write_text(yaml.safe_dump(content))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(ANSIBLE_NOCOLOR="1", ANSIBLE_FORKS="2", LC_ALL="C.UTF-8")
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml"]
    process = subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)
    found = {}
    for line in process.stdout.splitlines():
        if '"msg": "SAID ' in line:
            answer = json.loads(json.loads("{%s}" % line)["msg"][5:])
            found[answer["host"]] = answer["said"]
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
