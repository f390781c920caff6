# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's checks get what they need to decide: unchanged tasks of the role, on nodes that are only facts.

What is decided has unit tests: test_preflight.py.
"""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "etcd_restore"
MB = 1024 * 1024
CERTIFICATE = {"path": "/pki/a.crt", "what": "a's", "expires": "2026-12-01T00:00:00Z", "expired": False, "problem": None}
NODE = {
    "etcd": {"name": "cp1", "version": "3.6.14-0", "initial_cluster": "cp1=https://192.0.2.11:2380"},
    "kubernetes_version": "1.30.1",
    "data_dir": "/var/lib/etcd",
    "mount_point": False,
    "transactions_dir": "/var/lib/etcd.restore",
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
LIVE = {"reachable": True, "revision": 600, "members": [], "alarms": [], "cluster_id": "aa", "is_learner": False, "error": None}
SEEN = {"permitted": True, "identity": "/etc/kubernetes/admin.conf", "lasting": "a certificate made with ca.key", "layers": {}}
MANIFEST = {"host": "cp1", "cluster_id": "aa", "kubernetes_version": "v1.30.0"}

def play_of(tmp_path, hosts, tasks):
    """What ansible-playbook says of these tasks on these hosts, {host: variables}."""
    variables = [yaml.safe_load((ROLE / part / "main.yml").read_text()) for part in ("defaults", "vars")]
    inventory = {"all": {"hosts": hosts}}
    inventory["all"]["vars"] = dict(variables[0], ansible_connection="local", ansible_python_interpreter=sys.executable, etcd_client_manifests_dir="/manifests")
    play = {"hosts": "all", "gather_facts": False, "vars": variables[1], "tasks": [{"any_errors_fatal": True, "block": tasks}]}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(ANSIBLE_NOCOLOR="1", ANSIBLE_FORKS="2", LC_ALL="C.UTF-8", ANSIBLE_COLLECTIONS_PATH=str(ROOT / "playbooks/collections"))
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml"]
    process = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)
    return process.stdout + process.stderr


def facts(host, **changes):
    """The host variables of one node."""
    # by when the play comes there
    node = dict(NODE, time="{{ now().timestamp() | float }}", controller_time="{{ now().timestamp() - 1 }}", **changes)
    number = host[2:]
    node["etcd"] = dict(node["etcd"], name=host, peer_urls="https://192.0.2.1%s:2380" % number, client_url="https://192.0.2.1%s:2379" % number)
    return {
        "__etcd_restore_node": node,
        "__etcd_restore_answer": {"changed": False, "etcd": LIVE},
        "__etcd_restore_live": LIVE,
        "__etcd_restore_about": {},
        "__etcd_restore_resumed": False,
        "__etcd_restore_is_whole": True,
        # prepare.yml says so of the task of members.yml
        "__etcd_restore_declared_lost": "{{ __etcd_restore_lost_members }}",
        "__etcd_restore_before": {"validation": dict(SEEN, reachable=True)},
        "__etcd_restore_source": "cp1",
        "__etcd_restore_file": "/b/a.db",
        "__etcd_restore_proof_node": {
            "snapshot": {"size": 100 * MB, "revision": 582, "sha256": "00", "storage_version": None, "integrity": "ok"},
            "manifest": MANIFEST,
        },
        "__etcd_restore_tools": {"save": "etcdctl", "restore": "etcdutl", "bump_revision": True},
    }


def every(tasks):
    """All tasks, those in blocks included."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from every(task.get(part, ()))


def task_of(file, name):
    return next(task for task in every(yaml.safe_load((ROLE / "tasks" / file).read_text())) if task["name"] == name)


CHECKS = (
    task_of("main.yml", "Check the nodes"),
    task_of("members.yml", "Match play hosts to cluster members"),
    task_of("prepare.yml", "Check the cluster"),
    task_of("snapshot.yml", "Check the snapshot"),
)


def test_checks_that_find_nothing(tmp_path):
    made = task_of("snapshot.yml", "Make the plan")
    show = {"name": "Show", "ansible.builtin.debug": {"msg": "raised by {{ __etcd_restore_bump }}, members {{ __etcd_restore_initial_cluster }}"}}
    said = play_of(tmp_path, {host: facts(host) for host in ("cp1", "cp2")}, [*CHECKS, made, show])
    assert "raised by 1000018, members cp1=https://192.0.2.11:2380,cp2=https://192.0.2.12:2380" in said and "failed=0" in said, said


def test_all_findings_of_all_nodes_are_reported_at_once(tmp_path):
    hosts = {"cp1": facts("cp1", obstacles=["/a is full"]), "cp2": facts("cp2", kubelet_running=False)}
    said = play_of(tmp_path, hosts, CHECKS)
    assert "1. On cp1 /a is full." in said and "2. No kubelet runs on cp2" in said, said


def test_no_node_is_stopped_when_one_became_unreachable(tmp_path):
    """One that is lost in a task that may fail, as the watch, just leaves the play."""
    hosts = {host: facts(host) for host in ("cp1", "cp2", "cp3")}
    with socket.create_server(("127.0.0.1", 0)) as gone:
        hosts["cp1"].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=gone.getsockname()[1])
    harmless = {"name": "Watch", "ansible.builtin.ping": {}, "any_errors_fatal": False}
    stop = {"name": "Stop", "ansible.builtin.debug": {"msg": "stopped {{ inventory_hostname }}"}}
    said = play_of(tmp_path, hosts, [harmless, task_of("switch_several.yml", "Check that every node is still reachable"), stop])
    assert "UNREACHABLE" in said and "cp1 cannot be reached any more, and would go on with the old data: nothing is stopped now" in said, said
    assert "stopped cp" not in said
