# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run over fifty clusters, each a real etcd."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import harness
import pytest
from test_snapshot_role import databases, flat, stats, with_tools

VERSION = harness.VERSIONS[-1]
CLUSTERS = 50


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """{name of cluster: member}, all of which serve."""
    place = tmp_path_factory.mktemp("fleet")
    ports = iter(harness.free_ports(2 * CLUSTERS))
    members = {}
    for name in ("c%02d" % number for number in range(CLUSTERS)):
        members[name] = harness.Etcd(VERSION, place, name=name, client_port=next(ports), peer_port=next(ports), wait=False)
    with contextlib.ExitStack() as stack:
        for member in members.values():
            stack.enter_context(member)
        for name, member in members.items():
            assert member.ready(), member.log.read_text()[-1000:]
            member.put("/registry/namespaces/" + name, harness.stored("Namespace", "", name))
        yield members


def run(tmp_path, hosts, *arguments, forks=10):
    """snapshot.yml over clusters of one host each, which the inventory calls prod-NAME: (return code, output)."""
    common = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    groups = {"prod_" + name: {"hosts": {"cp-" + name: dict(common, **own)}} for name, own in hosts.items()}
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"control_plane": {"children": groups}}))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ETCD"))}
    environment.update(ANSIBLE_NOCOLOR="1", ANSIBLE_SHOW_CUSTOM_STATS="1", ANSIBLE_HOME=str(tmp_path / "ansible"), ANSIBLE_FORKS=str(forks))
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", str(inventory), "playbooks/snapshot.yml"] + list(arguments)
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=str(harness.ROOT), timeout=600, check=False)
    return process.returncode, process.stdout + process.stderr


def test_fifty_clusters_in_one_run(fleet, tmp_path):
    hosts = {}
    for name, member in fleet.items():
        (tmp_path / name).mkdir()
        hosts[name] = with_tools(member, tmp_path / name, etcd_client_timeout=30)
    # one whose etcd does not answer, one that has no place for it
    hosts["c07"]["etcd_client_endpoint"] = "https://127.0.0.1:1"
    (tmp_path / "file").write_text("no directory")
    hosts["c23"]["etcd_snapshot_dir"] = str(tmp_path / "file")
    rc, output = run(tmp_path, hosts)
    assert rc == 2, output
    for name in sorted(set(fleet) - {"c07", "c23"}):
        assert len(databases(tmp_path / name / "backups")) == 1, (name, output)
    found = stats(output)["etcd_snapshot_fleet"]
    assert (found["ok"], found["failed"]) == (48, 2), found
    rows = {row["name"]: row for row in found["clusters"]}
    assert sorted(rows) == sorted("prod_" + name for name in fleet)
    assert rows["prod_c00"]["host"] == "cp-c00" and rows["prod_c00"]["path"].startswith(str(tmp_path / "c00")) and rows["prod_c00"]["revision"] == 2
    assert "https://127.0.0.1:1" in rows["prod_c07"]["problem"] and "is not a directory" in rows["prod_c23"]["problem"]
    summary = flat(output.partition("TASK [k8s_dr.etcd.etcd_snapshot : Report the snapshot]")[2])
    assert "48 of 50 clusters are backed up, 2 are not" in summary, output
    assert "prod_c00 ok cp-c00:" in summary and "prod_c07 FAILED" in summary
    # of the hosts only those two fail
    assert output.count("failed=1") == 2 and output.count("failed=0") == 48, output
