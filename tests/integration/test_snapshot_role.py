# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile

import harness
import pytest

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
    inventory.write_text(json.dumps({"control_plane": {"hosts": {name: dict(common, **own) for name, own in hosts.items()}}}))
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
    hosts = {"cp1": variables(etcd, archive, tmp_path)}
    # on a host without tools check mode can say what would happen, and nothing is there afterwards
    rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts, "--check", "--diff", "-l", "cp1")
    assert rc == 0 and "would be installed" in output and "a snapshot would be taken" in output, output
    assert not (tmp_path / "backups").exists()

    for playbook, cwd in (
        ("playbooks/snapshot.yml", harness.ROOT),
        ("snapshot.yml", harness.ROOT / "playbooks"),
        ("k8s_dr.etcd.snapshot", tmp_path),
    ):
        rc, output, recap = play(playbook, tmp_path, hosts, "-l", "cp1", cwd=cwd)
        assert rc == 0 and recap["cp1"]["failed"] == 0, output
        assert "revision" in output and "taken and proven in" in output
    kept = databases(tmp_path / "backups")
    assert len(kept) == 2
    assert '"etcd_snapshot"' in output and kept[-1] in output.partition("CUSTOM STATS")[2]
    for secret in ("PRIVATE KEY",):
        assert secret not in output

    before = sorted(os.listdir(str(tmp_path / "backups")))
    rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts, "--check", "--diff")
    assert rc == 0 and "would be taken" in output and "1 older removed" in output and "CUSTOM STATS" not in output, output
    assert sorted(os.listdir(str(tmp_path / "backups"))) == before


def test_one_snapshot_per_cluster_on_the_first_host_that_can(etcd, tmp_path):
    (tmp_path / "other").mkdir()
    with harness.Etcd(VERSION, tmp_path / "other") as other:
        harness.fill(other)
        own = {name: tmp_path / name for name in ("a1", "a2", "a3", "b1", "b2")}
        hosts = {}
        for name, directory in own.items():
            directory.mkdir()
            hosts[name] = with_tools(etcd if name[0] == "a" else other, directory)
        # the first host of the first cluster does not answer
        hosts["a1"].update(etcd_client_endpoint="https://127.0.0.1:1", etcd_client_timeout=2)
        rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
        assert rc == 0 and all(counts["failed"] == 0 for counts in recap.values()), output
        taken = [name for name, directory in own.items() if (directory / "backups").exists()]
        assert taken == ["a2", "b1"], output


def test_no_member_that_can_be_relied_on_is_a_failure(etcd, tmp_path):
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
