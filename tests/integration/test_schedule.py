# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node's own timer runs, as the role etcd_schedule installs it.  There is no systemd here: the timer itself is tested on a node."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import harness
import pytest
import servers
from test_snapshot_role import databases, play, with_tools

VERSION = harness.VERSIONS[-1]
PLAYBOOK = """
- hosts: control_plane
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: k8s_dr.etcd.etcd_schedule
        tasks_from: program
"""


def settings(member, place, **more):
    found = with_tools(member, place, etcd_client_timeout=3, **more)
    found.update(
        etcd_schedule_program_dir=str(place / "lib"),
        etcd_schedule_config_dir=str(place / "config"),
        etcd_schedule_state_dir=str(place / "state"),
        etcd_schedule_command_dir=str(place / "sbin"),
        etcd_snapshot_off_site=str(place / "off-site"),
        etcd_snapshot_off_site_keep={"last": 3},
        etcd_snapshot_textfile_dir=str(place / "textfile"),
        etcd_schedule_random_delay=1,
        etcd_schedule_lock_timeout=1,
        etcd_schedule_wait_timeout=5,
    )
    return found


def put(tmp_path, hosts, *arguments):
    """The role on all hosts: as `play`, where the collection is found by its name."""
    for name in hosts:
        (tmp_path / name / "sbin").mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "textfile").mkdir(exist_ok=True)
    playbook = tmp_path / "k8s_dr.etcd.yml"
    playbook.write_text(PLAYBOOK)
    return play(playbook, tmp_path, hosts, *arguments)


def test_where_usr_is_read_only_the_program_goes_below_opt(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    names = ("__etcd_schedule_program_dir", "__etcd_schedule_command_dir", "etcd_schedule_state_dir")
    role = {"name": "k8s_dr.etcd.etcd_schedule", "tasks_from": "place", "public": True}
    told = {"ansible.builtin.debug": {"msg": "PLACES " + " ".join("{{ %s }}" % name for name in names)}}
    playbook = [{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.import_role": role}, told]}]
    (tmp_path / "playbook.json").write_text(json.dumps(playbook))
    mounts = "mount --bind /usr/local /usr/local; mount -o remount,bind,ro /usr/local; "
    command = ["unshare", "-m", "sh", "-ec", mounts + 'exec "$@"', "sh", os.path.join(os.path.dirname(sys.executable), "ansible-playbook")]
    command += ["-i", "localhost,", "-c", "local", "-e", "ansible_python_interpreter=" + sys.executable, str(tmp_path / "playbook.json")]
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(harness.COLLECTIONS), ANSIBLE_NOCOLOR="1")
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    expected = "PLACES /opt/lib/k8s-dr-etcd /opt/bin /var/lib/k8s-dr-etcd"
    assert process.returncode == 0 and expected in process.stdout, process.stdout + process.stderr


class Node:
    """What the role left on one host."""

    def __init__(self, place, command=None):
        self.place = pathlib.Path(place)
        self.command = command or self.place / "sbin" / "k8s-dr-etcd-snapshot"
        self.backups = self.place / "backups"

    def another(self, place, member):
        """As the role would leave it on another host, without its half a minute."""
        [program] = self.place.glob("lib/*/program.pyz")
        (place / "config").mkdir(parents=True)
        settings = json.loads((self.place / "config" / "schedule.json").read_text())
        settings["state_dir"] = str(place / "state")
        settings["connection"].update(endpoint=member.endpoint, **member.pki)
        settings["steps"] = settings["steps"][:1]
        settings["steps"][0]["args"].update(settings["connection"], directory=str(place / "backups"))
        (place / "config" / "schedule.json").write_text(json.dumps(settings))
        command = place / "command"
        command.write_text('#!/bin/sh\n[ $# -gt 0 ] || set -- run\nexec %s -I %s "$@" %s\n' % (sys.executable, program, place / "config" / "schedule.json"))
        command.chmod(0o755)
        return Node(place, command)

    def start(self, *arguments):
        # as bare as what systemd gives to a service
        environment = {"PATH": os.path.dirname(servers.program("rclone")) + os.pathsep + os.environ["PATH"]}
        return subprocess.Popen([str(self.command)] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def run(self, *arguments):
        process = self.start(*arguments)
        output = process.communicate(timeout=120)[0]
        return process.returncode, output

    def last(self):
        return json.loads((self.place / "state" / "last-run.json").read_text())

    def change(self, **changes):
        path = self.place / "config" / "schedule.json"
        path.write_text(json.dumps(dict(json.loads(path.read_text()), **changes)))


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    with harness.Etcd(VERSION, tmp_path_factory.mktemp("schedule")) as etcd:
        harness.fill(etcd)
        yield etcd


@pytest.fixture(scope="module")
def scheduled(member, tmp_path_factory):
    """(node, output of the play) of a cluster of one."""
    tmp_path = tmp_path_factory.mktemp("node")
    hosts = {"cp1": settings(member, tmp_path / "cp1")}
    (tmp_path / "cp1" / "off-site").mkdir(parents=True)
    rc, output, _recap = put(tmp_path, hosts, "--check")
    assert rc == 0 and not (tmp_path / "cp1" / "lib").exists(), output
    rc, output, recap = put(tmp_path, hosts)
    assert rc == 0 and recap["cp1"]["changed"] > 0, output
    # in check mode alone, for a machine that systemd does run
    rc, output, recap = play("playbooks/schedule.yml", tmp_path, hosts, "--check")
    if "not by systemd, so it can have no timer" in output:
        assert recap["cp1"]["changed"] == 0, output
    else:
        assert rc == 0 and "would take the snapshot of its cluster" in output, output
    return Node(tmp_path / "cp1")


def test_check_mode_reports_changes_and_makes_none(scheduled):
    rc, output = scheduled.run("run", "--check")
    assert rc == 0 and "This node takes the snapshot: its etcd is the only member." in output, output
    assert "take: done" in output and "upload: would be done" in output, output
    assert not scheduled.backups.exists() and not (scheduled.place / "state" / "last-run.json").exists()


def test_a_run_takes_verifies_and_retains_without_ansible(scheduled):
    for _run in range(4):
        rc, output = scheduled.run()
        assert rc == 0 and "take: done in" in output and "revision" in output, output
        time.sleep(1)
    names = databases(scheduled.backups)
    assert len(names) == 2, names
    rc, result = harness.run_module("etcd_snapshot_info", path=scheduled.backups / names[-1], **harness.tools(VERSION))
    assert rc == 0 and result["snapshot"]["integrity"] == "ok", result
    # the off-site storage has rules of its own
    away = scheduled.place / "off-site"
    assert len(databases(away)) == 3 and (away / names[-1]).read_bytes() == (scheduled.backups / names[-1]).read_bytes(), output
    told = (scheduled.place / "textfile" / "k8s_dr_etcd_snapshot.prom").read_text()
    assert "k8s_dr_etcd_snapshot_runs_total 4\n" in told and "k8s_dr_etcd_snapshot_failures_total 0\n" in told, told
    assert "k8s_dr_etcd_snapshot_last_off_site_timestamp_seconds" in told
    last = scheduled.last()
    assert last["ok"] and last["mine"] and last["snapshot"].endswith(names[-1]) and last["failures"] == 0
    assert oct((scheduled.place / "config" / "schedule.json").stat().st_mode)[-3:] == "600"
    # the program contains all that it imports
    [program] = scheduled.place.glob("lib/*/program.pyz")
    args = json.dumps({"ANSIBLE_MODULE_ARGS": {"directory": str(scheduled.backups)}})
    found = subprocess.run([sys.executable, "-I", "-S", str(program), "module", "etcd_snapshot"], input=args, capture_output=True, text=True, check=False)
    assert json.loads(found.stdout)["failed"] and "Error" not in found.stderr, found


def test_one_run_at_a_time(scheduled):
    with open(scheduled.place / "state" / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        rc, output = scheduled.run()
        assert rc == 75 and "another run is under way" in output, output
    before = databases(scheduled.backups)
    with open(scheduled.backups / ".lock", "w") as held:
        # a playbook takes one right now
        fcntl.flock(held, fcntl.LOCK_EX)
        rc, output = scheduled.run()
        assert rc == 1 and "take: FAILED" in output and "another snapshot is being taken" in output, output
    assert databases(scheduled.backups) == before and scheduled.last()["failures"] == 1
    rc, output = scheduled.run()
    assert rc == 0 and scheduled.last()["failures"] == 0, output


def test_a_failed_upload_is_repeated_by_the_next_run(scheduled):
    away = scheduled.place / "off-site"
    away.rename(scheduled.place / "not-mounted")
    rc, output = scheduled.run()
    last = output.strip().splitlines()[-1]
    assert rc == 1 and "take: done" in output and last.startswith("FAILED: upload: ") and "The snapshot is complete at" in last, output
    assert "prune: left out, since upload did not end well" in output, output
    assert "k8s_dr_etcd_snapshot_last_run_success 0\n" in (scheduled.place / "textfile" / "k8s_dr_etcd_snapshot.prom").read_text()
    missed = scheduled.last()["snapshot"]
    assert os.path.exists(missed) and not away.exists()
    (scheduled.place / "not-mounted").rename(away)
    rc, output = scheduled.run()
    assert rc == 0 and os.path.basename(missed) in databases(away), output


def test_a_step_that_fails_stops_only_what_needs_it_and_fails_the_run(scheduled):
    steps = json.loads((scheduled.place / "config" / "schedule.json").read_text())["steps"]
    proof = {"module": "etcd_cluster_info", "args": dict(steps[0]["args"], endpoint="https://127.0.0.1:1")}
    connection = ("endpoint", "cacert", "cert", "key", "timeout", "etcdctl", "etcdutl")
    proof["args"] = {name: value for name, value in proof["args"].items() if name in connection}
    more = [dict(proof, name="far", needs=["take"]), dict(proof, name="after", needs=["far"])]
    more.append({"name": "last", "module": "no_such_module", "args": {"path": {"$from": "take.snapshot.path"}}})
    scheduled.change(steps=steps + more)
    try:
        rc, output = scheduled.run()
    finally:
        scheduled.change(steps=steps)
    assert rc == 1 and "far: FAILED" in output and "after: left out, since far did not end well" in output and "last: FAILED" in output, output
    last = output.strip().splitlines()[-1]
    assert last.startswith("FAILED: far: ") and "The snapshot is complete at %s" % scheduled.last()["snapshot"] in last, output
    assert os.path.exists(scheduled.last()["snapshot"])


def test_a_missed_run_is_made_up_for_once_etcd_serves(scheduled, tmp_path):
    member = harness.Etcd(VERSION, tmp_path / "etcd")
    with member:
        harness.fill(member, objects=10)
    node = scheduled.another(tmp_path / "cp1", member)
    rc, output = node.run()
    assert rc == 1 and "Waiting up to 5 seconds for etcd" in output and output.strip().splitlines()[-1].startswith("FAILED: no snapshot was taken"), output
    assert node.last()["failures"] == 1
    # as after a boot: the timer is there before etcd is
    node.change(wait=60)
    process = node.start()
    time.sleep(1)
    with member:
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0 and len(databases(node.backups)) == 1, output
        assert node.last()["failures"] == 0 and node.last()["last_success"]
        # the next run reports one that was killed
        state = node.place / "state" / "last-run.json"
        state.write_text(json.dumps(dict(node.last(), ended=None)))
        rc, output = node.run()
        assert rc == 0 and "did not end: it was killed" in output, output


def test_a_run_that_is_stopped_leaves_nothing_unfinished(member, scheduled, tmp_path):
    node = scheduled.another(tmp_path / "cp1", member)
    etcdctl = tmp_path / "etcdctl"
    real = harness.bin_dir(VERSION) / "etcdctl"
    etcdctl.write_text('#!/bin/sh\ncase "$*" in *"snapshot save"*) sleep 60;; esac\nexec %s "$@"\n' % real)
    etcdctl.chmod(0o755)
    steps = json.loads((node.place / "config" / "schedule.json").read_text())["steps"]
    steps[0]["args"]["etcdctl"] = str(etcdctl)
    node.change(steps=steps)
    process = node.start()
    end = time.monotonic() + 30
    while time.monotonic() < end and not list(node.backups.glob(".*.partial")):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "the run did not finish: it was ended by SIGTERM" in output, output
    assert os.listdir(node.backups) == [".lock"] and node.last()["ok"] is False


def test_one_of_three_members_takes_the_snapshot(scheduled, tmp_path):
    cluster = harness.members(VERSION, tmp_path / "three", names=("n1", "n2", "n3"))
    (tmp_path / "three").mkdir(exist_ok=True)
    with cluster[0], cluster[1], cluster[2]:
        assert all(member.ready() for member in cluster)
        harness.fill(cluster[0], objects=10)
        nodes = {"cp%d" % number: scheduled.another(tmp_path / ("cp%d" % number), member) for number, member in enumerate(cluster, 1)}
        running = {name: node.start() for name, node in nodes.items()}
        output = {name: process.communicate(timeout=120)[0] for name, process in running.items()}
        assert all(process.returncode == 0 for process in running.values()), output
        takers = [name for name, node in nodes.items() if node.backups.exists()]
        assert len(takers) == 1, output
        assert "and not the leader, which is" in output[takers[0]]
        for name in set(nodes) - set(takers):
            assert "Looking again in 1 seconds" in output[name] and "Nothing to do on this node" in output[name], output[name]
            assert nodes[name].last()["ok"] and not nodes[name].last()["mine"]
        # without that one another does, even if it leads
        cluster[int(takers[0][2]) - 1].kill()
        results = {name: node.run("run", "--now", "--wait", "30") for name, node in nodes.items() if name != takers[0]}
        assert all(rc == 0 for rc, _output in results.values()), results
        second = [name for name in results if nodes[name].backups.exists()]
        assert len(second) == 1 and "was left out of the backup" in results[second[0]][1], results
        # where each host takes its own snapshot, no other member is asked
        for name in results:
            nodes[name].change(take="every")
            rc, output = nodes[name].run()
            assert rc == 0 and "as every one does" in output and databases(nodes[name].backups), output
