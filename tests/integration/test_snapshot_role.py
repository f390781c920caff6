# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import find_tool

# A version whose tools can do everything; what differs between versions is tested at the modules.
VERSION = harness.VERSIONS[-1]


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with harness.Etcd(VERSION, tmp_path_factory.mktemp("role")) as member:
        harness.fill(member)
        yield member


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "etcd-linux-amd64.tar.gz"
    with tarfile.open(str(path), "w:gz", compresslevel=1) as made:
        for tool in harness.tools(VERSION).values():
            made.add(tool, "etcd-linux-amd64/" + os.path.basename(tool))
    return path


def variables(etcd, archive, tmp_path, **more):
    found = {"etcd_client_%s" % name: etcd.connection[name] for name in ("endpoint", "cacert", "cert", "key")}
    found.update(
        etcd_client_source="archive",
        etcd_client_archive=str(archive),
        etcd_client_bin_dir=str(tmp_path / "bin"),
        etcd_client_cache_dir=str(tmp_path / "cache"),
        etcd_client_manifests_dir=str(tmp_path / "manifests"),
        etcd_snapshot_dir=str(tmp_path / "backups"),
        etcd_snapshot_keep=2,
        **more,
    )
    return found


def with_tools(etcd, tmp_path, **more):
    """The same for a host that has its tools."""
    return dict(variables(etcd, "", tmp_path), etcd_client_source="auto", etcd_client_bin_dir=str(harness.bin_dir(VERSION)), **more)


def play(playbook, tmp_path, hosts, *arguments, cwd=harness.ROOT):
    """Run a playbook with connection local: (return code, output, {host: {changed, …}})."""
    common = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    inventory = tmp_path / "inventory.json"
    # as inventories have it whose users are no root: it beats the keyword `become`, and is for the hosts, not for the controller
    everywhere = {"ansible_become": True, "ansible_become_exe": "/bin/false"}
    groups = {"all": {"vars": everywhere}, "control_plane": {"hosts": {name: dict(common, **own) for name, own in hosts.items()}}}
    inventory.write_text(json.dumps(groups))
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", str(inventory), str(playbook)] + list(arguments)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ETCD"))}
    environment.update(ANSIBLE_NOCOLOR="1", ANSIBLE_SHOW_CUSTOM_STATS="1", ANSIBLE_HOME=str(tmp_path / "ansible"))
    if "k8s_dr.etcd" in str(playbook):
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(harness.COLLECTIONS)
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=str(cwd), timeout=300, check=False)
    recap = {}
    for line in process.stdout.partition("PLAY RECAP")[2].splitlines():
        if " : ok=" in line:
            host, _colon, counts = line.partition(":")
            recap[host.strip()] = {name: int(number) for name, number in (count.split("=") for count in counts.split())}
    return process.returncode, process.stdout + process.stderr, recap


def databases(directory):
    return sorted(name for name in os.listdir(str(directory)) if name.endswith(".db"))


def test_install_twice_and_in_check_mode(etcd, archive, tmp_path):
    hosts = {"cp1": variables(etcd, archive, tmp_path)}
    rc, output, recap = play("playbooks/install.yml", tmp_path, hosts, "--check", "--diff")
    assert rc == 0 and "would be installed" in output, output
    assert not (tmp_path / "bin").exists() and not (tmp_path / "cache").exists()
    rc, output, recap = play("playbooks/install.yml", tmp_path, hosts)
    assert rc == 0 and recap["cp1"]["changed"] > 0 and "suit the server" in output, output
    for arguments in ((), ("--check",)):
        rc, output, recap = play("playbooks/install.yml", tmp_path, hosts, *arguments)
        assert rc == 0 and recap["cp1"]["changed"] == 0, output


def test_snapshot_from_the_root_from_playbooks_and_by_its_name(etcd, archive, tmp_path):
    hosts = {"cp1": dict(variables(etcd, archive, tmp_path), etcd_snapshot_keep=1)}
    # check mode can say what would happen, whether this host has other tools already or none, and nothing is there afterwards
    foretold = "no etcd tools yet" if find_tool("etcdctl") is None else "A snapshot of etcd %s" % etcd.version
    rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts, "--check", "--diff", "-l", "cp1")
    assert rc == 0 and "would be installed" in output and foretold in output and "would be taken into %s" % (tmp_path / "backups") in output, output
    assert not (tmp_path / "backups").exists()

    # from the root is how all others run it
    for playbook, cwd in (
        ("snapshot.yml", harness.ROOT / "playbooks"),
        ("k8s_dr.etcd.snapshot", tmp_path),
    ):
        rc, output, recap = play(playbook, tmp_path, hosts, "-l", "cp1", cwd=cwd)
        assert rc == 0 and recap["cp1"]["failed"] == 0, output
        assert "revision" in output and "taken and verified in" in output
    kept = databases(tmp_path / "backups")
    assert len(kept) == 1
    assert '"etcd_snapshot"' in output and kept[-1] in output.partition("CUSTOM STATS")[2]
    for secret in ("PRIVATE KEY",):
        assert secret not in output

    before = sorted(os.listdir(str(tmp_path / "backups")))
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts, "--check", "--diff")
    assert rc == 0 and "would be taken" in output and "1 older removed" in output and "CUSTOM STATS" not in output, output
    assert sorted(os.listdir(str(tmp_path / "backups"))) == before


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("three")
    members = harness.members(VERSION, directory, names=("n1", "n2", "n3"))
    with members[0], members[1], members[2]:
        assert all(member.ready() for member in members)
        harness.fill(members[0])
        yield dict(zip(("cp1", "cp2", "cp3"), members))


@pytest.fixture
def three(cluster):
    """{inventory name: member} of a cluster of three that serves; their own names are others. What a test killed is there again for the next one."""
    for member in cluster.values():
        if member.process.poll() is not None:
            member.start()
    assert all(member.ready() for member in cluster.values())
    return cluster


# Large enough for a test: it runs in the background, and its progress is reported.
LARGE = ("-e", "__etcd_snapshot_large=10000")
# There is no listener, which is like a machine that is off, only faster.
OFF = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


def hosts_of(three, tmp_path, **more):
    hosts = {}
    for name, member in three.items():
        (tmp_path / name).mkdir()
        hosts[name] = with_tools(member, tmp_path / name, etcd_client_timeout=3, **more)
    return hosts


def let_lead(three, name):
    """Make the member of this host the leader."""
    found = json.loads(three[name].etcdctl("endpoint", "status", "--write-out=json").stdout)[0]["Status"]
    if found["leader"] != found["header"]["member_id"]:
        leader = next(member for member in three.values() if leads(member))
        leader.etcdctl("move-leader", "%x" % found["header"]["member_id"])
    assert leads(three[name])


def leads(member):
    found = json.loads(member.etcdctl("endpoint", "status", "--write-out=json").stdout)[0]["Status"]
    return found["leader"] == found["header"]["member_id"]


def taken(tmp_path, names):
    return [name for name in names if (tmp_path / name / "backups").exists() and databases(tmp_path / name / "backups")]


def stats(output):
    """{name: value} of what the play handed on."""
    text = output.partition("CUSTOM STATS")[2].partition("RUN:")[2].strip().splitlines()[0]
    return json.loads(text)


def flat(output):
    """Output without the line breaks and escapes of how Ansible shows text."""
    return " ".join(output.replace('\\"', '"').split())


def test_one_snapshot_of_a_member_that_does_not_lead(three, tmp_path):
    hosts = hosts_of(three, tmp_path)
    let_lead(three, "cp1")
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and all(counts["failed"] == counts["ignored"] == 0 for counts in recap.values()), output
    assert taken(tmp_path, three) == ["cp2"], output
    assert "cp2 (etcd member n2) takes the snapshot: it is caught up" in flat(output) and "which is cp1 (etcd member n1)" in flat(output)
    assert "WARNING:" not in output
    handed = stats(output)
    assert (handed["etcd_snapshot"]["host"], handed["etcd_snapshot"]["member"], handed["etcd_snapshot"]["leader"]) == ("cp2", "n2", False)
    assert handed["etcd_snapshots"] == [handed["etcd_snapshot"]] and handed["etcd_snapshot_warnings"] == []
    manifest = json.loads((tmp_path / "cp2" / "backups" / (databases(tmp_path / "cp2" / "backups")[0] + ".json")).read_text())
    assert (manifest["member"]["name"], manifest["member"]["leader"]) == ("n2", False)
    assert sorted(member["name"] for member in manifest["members"]) == ["n1", "n2", "n3"]
    # the one that is alone in the play is the leader
    rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts, "-l", "cp1")
    assert rc == 0 and taken(tmp_path, three) == ["cp1", "cp2"] and "although it is the leader" in flat(output), output
    assert stats(output)["etcd_snapshot"]["leader"] is True
    # and the one that is asked for may be
    rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts, "-e", "etcd_snapshot_from=n1")
    assert rc == 0 and len(databases(tmp_path / "cp1" / "backups")) == 2 and "as etcd_snapshot_from says" in flat(output), output
    # check mode chooses too, and takes nothing
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts, "--check", *LARGE)
    assert rc == 0 and "would be taken into" in flat(output) and len(databases(tmp_path / "cp2" / "backups")) == 1, output


def test_batches_of_a_play_have_one_snapshot_together(three, tmp_path):
    """`serial` in a playbook of one's own: what an earlier batch took, a later one does not take again."""
    playbook = tmp_path / "k8s_dr.etcd.serial.yml"
    playbook.write_text("- hosts: control_plane\n  gather_facts: false\n  serial: 1\n  roles: [k8s_dr.etcd.etcd_snapshot]\n")
    rc, output, recap = play(playbook, tmp_path, hosts_of(three, tmp_path))
    assert rc == 0 and all(counts["failed"] == 0 for counts in recap.values()) and taken(tmp_path, three) == ["cp1"], output


def test_hosts_that_are_down_do_not_fail_the_backup(three, tmp_path):
    hosts = hosts_of(three, tmp_path)
    let_lead(three, "cp1")
    # one cannot be reached, although its etcd runs
    hosts["cp2"].update(OFF)
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0, output
    assert taken(tmp_path, three) == ["cp3"] and recap["cp3"]["failed"] == 0, output
    assert recap["cp2"]["unreachable"] == recap["cp2"]["failed"] == 0, output
    assert "WARNING: cp2 was left out of the backup: it cannot be reached: Failed to connect" in flat(output), output
    assert len(stats(output)["etcd_snapshot_warnings"]) == 1
    # its etcd is dead too
    three["cp2"].kill()
    del hosts["cp2"]["ansible_connection"]
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and len(databases(tmp_path / "cp3" / "backups")) == 2, output
    assert "WARNING: cp2 was left out of the backup: etcd at " + three["cp2"].endpoint in flat(output), output
    # with only the leader left there is a snapshot all the same
    hosts["cp3"].update(OFF)
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and taken(tmp_path, three) == ["cp1", "cp3"], output
    assert len(stats(output)["etcd_snapshot_warnings"]) == 2 and "although it is the leader" in flat(output)


def test_without_a_quorum_nothing_is_taken(three, tmp_path):
    hosts = hosts_of(three, tmp_path)
    three["cp2"].kill()
    three["cp3"].kill()
    hosts["cp3"].update(OFF)
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 2 and [counts["failed"] for counts in recap.values()] == [1, 1, 1], output
    assert taken(tmp_path, three) == []
    for words in ("No snapshot was taken, since no etcd member of cp1, cp2, cp3 is healthy", "cp1 (etcd member n1): ", "k8s_dr.etcd.salvage"):
        assert words in flat(output), output


def test_no_host_can_be_reached(three, tmp_path):
    hosts = {name: dict(own, **OFF) for name, own in hosts_of(three, tmp_path).items()}
    rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 2 and "No snapshot was taken, since no etcd member of cp1, cp2, cp3 is healthy" in flat(output), output
    assert "salvage" not in output


def wrapper(path, tool, script):
    """An etcdctl that is another one in a single respect."""
    path.mkdir()
    for name, real in harness.tools(VERSION).items():
        text = '#!/bin/sh\ncase "$*" in %s) %s "$@" %s;; esac\nexec %s "$@"\n' % (script[0], real, script[1], real) if name == tool else None
        if text:
            (path / name).write_text(text)
            (path / name).chmod(0o755)
        else:
            (path / name).symlink_to(real)
    return str(path)


def test_a_member_that_lags_behind_is_not_chosen(three, tmp_path):
    hosts = hosts_of(three, tmp_path)
    let_lead(three, "cp1")
    slow = ("*endpoint\\ status*", "| sed 's/\"revision\":[0-9]*/\"revision\":7/'; exit 0")
    hosts["cp2"]["etcd_client_bin_dir"] = wrapper(tmp_path / "slow", "etcdctl", slow)
    rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and taken(tmp_path, three) == ["cp3"], output
    assert "cp2 (etcd member n2) was left out of the backup: it is behind: it has revision 7, and its cluster had " in flat(output), output


def test_when_a_member_fails_the_next_one_takes_the_snapshot(three, tmp_path):
    hosts = hosts_of(three, tmp_path)
    let_lead(three, "cp1")
    (tmp_path / "file").write_text("no directory")
    hosts["cp2"]["etcd_snapshot_dir"] = str(tmp_path / "file")
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and taken(tmp_path, three) == ["cp3"] and recap["cp2"]["failed"] == 0, output
    assert "WARNING: No snapshot was taken on cp2 (etcd member n2): %s is not a directory" % (tmp_path / "file") in flat(output), output
    for own in hosts.values():
        own["etcd_snapshot_dir"] = str(tmp_path / "file")
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts, *LARGE)
    assert rc == 2 and [counts["failed"] for counts in recap.values()] == [1, 1, 1], output
    assert "No snapshot was taken. cp2 (etcd member n2): " in flat(output), output
    # nor does a host without tools cost the others their snapshot
    for name, own in hosts.items():
        own["etcd_snapshot_dir"] = str(tmp_path / name / "backups")
    hosts["cp2"].update(etcd_client_source="archive", etcd_client_archive="/nonexistent/etcd.tar.gz")
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and len(databases(tmp_path / "cp3" / "backups")) == 2 and "WARNING: cp2 was left out" in flat(output), output


def test_one_snapshot_per_cluster(etcd, three, tmp_path):
    hosts = hosts_of(three, tmp_path)
    (tmp_path / "other").mkdir()
    hosts["other"] = with_tools(etcd, tmp_path / "other", etcd_client_timeout=3)
    let_lead(three, "cp1")
    hosts["cp3"].update(OFF)
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and taken(tmp_path, hosts) == ["cp2", "other"], output
    assert sorted(found["host"] for found in stats(output)["etcd_snapshots"]) == ["cp2", "other"]
    # a cluster that is silent as a whole is not taken for a member of another
    hosts["other"]["etcd_client_endpoint"] = "https://127.0.0.1:1"
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 2 and recap["other"]["failed"] == 1 and recap["cp2"]["failed"] == 0, output
    assert len(databases(tmp_path / "cp2" / "backups")) == 2 and "that has no snapshot now" in flat(output), output
    # a control plane that has no etcd, as one that was stopped for good, lacks nothing
    (tmp_path / "other" / "manifests").mkdir()
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc == 0 and recap["other"]["failed"] == 0, output
    assert "WARNING: other was left out of the backup: etcd at https://127.0.0.1:1" in flat(output), output


def test_two_clusters_with_the_same_ids_have_a_snapshot_each(tmp_path):
    """Both were made on a machine of the same address, as at many sites: etcd makes its ids of nothing else."""
    peer = harness.url_of("127.0.0.1", harness.free_ports(1)[0])
    same = {"initial_cluster": "m1=" + peer, "flags": ["--initial-advertise-peer-urls", peer]}
    with harness.Etcd(VERSION, tmp_path / "west-etcd", **same) as west, harness.Etcd(VERSION, tmp_path / "east-etcd", **same) as east:
        ids = {json.loads(member.etcdctl("endpoint", "status", "--write-out=json").stdout)[0]["Status"]["header"]["cluster_id"] for member in (west, east)}
        assert len(ids) == 1
        hosts = {}
        for name, member in (("west", west), ("east", east)):
            (tmp_path / name).mkdir()
            hosts[name] = with_tools(member, tmp_path / name, ansible_host="192.0.2.1")
        rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts)
        assert rc == 0 and taken(tmp_path, hosts) == ["west", "east"], output
        assert sorted(found["host"] for found in stats(output)["etcd_snapshots"]) == ["east", "west"]


def test_without_a_healthy_member_the_run_fails(etcd, tmp_path):
    hosts = {"cp1": with_tools(etcd, tmp_path)}
    hosts["cp1"].update(etcd_client_endpoint="https://127.0.0.1:1", etcd_client_timeout=2)
    rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts)
    assert rc != 0 and "No snapshot was taken" in output and "https://127.0.0.1:1" in output, output
    assert not (tmp_path / "backups").exists()


def test_an_archive_must_be_named_and_a_url_have_a_checksum(etcd, archive, tmp_path):
    hosts = {"cp1": dict(variables(etcd, archive, tmp_path), etcd_client_archive="https://mirror.example/etcd.tar.gz")}
    rc, output, _recap = play("playbooks/install.yml", tmp_path, hosts)
    assert rc != 0 and "etcd_client_archive_checksum" in output
    hosts["cp1"]["etcd_client_archive"] = ""
    rc, output, _recap = play("playbooks/install.yml", tmp_path, hosts)
    assert rc != 0 and "set etcd_client_archive to" in output


def test_progress_of_a_large_snapshot_is_reported(tmp_path):
    with harness.Etcd(VERSION, tmp_path) as member:
        for number in range(16):
            member.put("/big/%d" % number, os.urandom(1000000))
        jobs = tmp_path / "jobs"
        # a limit may be a number, in bytes, as YAML has it
        more = {"etcd_snapshot_progress_interval": 1, "etcd_snapshot_bwlimit": 2000000, "ansible_async_dir": str(jobs)}
        hosts = {"cp1": with_tools(member, tmp_path, **more)}
        rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts, *LARGE)
        assert rc == 0 and recap["cp1"]["failed"] == 0, output
        lines = [line for line in output.splitlines() if " of about " in line]
        assert len(lines) >= 2 and any(re.search(r" s, [0-9.]+ [KM]B/s", line) for line in lines), output
        # the reported progress is correct: never more than may be read, with what etcdctl reads at once
        told = [re.search(r"([0-9.]+) (Bytes|KB|MB) of about [0-9.]+ MB are there after ([0-9]+) s", line).groups() for line in lines]
        assert all(float(read) * {"Bytes": 0, "KB": 0.001, "MB": 1}[unit] <= 2.2 * float(seconds) + 8 for read, unit, seconds in told), lines
        assert "taken and verified in" in output and len(databases(tmp_path / "backups")) == 1
        assert jobs.is_dir() and list(jobs.iterdir()) == []


def test_a_large_snapshot_continues_when_its_host_is_unreachable_for_a_while(tmp_path):
    off, over, jobs = tmp_path / "off", tmp_path / "over", tmp_path / "jobs"

    def lose():
        """Cut the host off for some seconds once its snapshot was begun."""
        while not over.exists() and not (jobs.is_dir() and list(jobs.iterdir())):
            time.sleep(0.1)
        # what began it has returned by then
        time.sleep(3)
        off.touch()
        time.sleep(6)
        off.unlink()

    with harness.Etcd(VERSION, tmp_path) as member:
        for number in range(30):
            member.put("/big/%d" % number, os.urandom(1000000))
        more = {"etcd_snapshot_progress_interval": 1, "etcd_snapshot_bwlimit": "2M", "ansible_async_dir": str(jobs)}
        hosts = {"cp1": with_tools(member, tmp_path, **more)}
        hosts["cp1"].update(OFF, ansible_connection="{{ ('%s' is exists) | ternary('ssh', 'local') }}" % off)
        thread = threading.Thread(target=lose)
        thread.start()
        try:
            rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts, *LARGE)
        finally:
            over.touch()
            thread.join()
    assert rc == 0 and recap["cp1"]["failed"] == 0, output
    assert "waiting for this host, which cannot report its progress: " in flat(output), output
    assert "taken and verified in" in output and len(databases(tmp_path / "backups")) == 1 and list(jobs.iterdir()) == []
