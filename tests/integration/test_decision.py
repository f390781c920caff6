# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The script `decide`, over real etcds: one answer for all nodes, in any order of asking, and none that is guessed."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import signal
import socket
import subprocess
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.commit_vote import decide_script

NODES = ("cp1", "cp2", "cp3")


class Restore:
    """What the nodes of a restore have on their disks of the vote."""

    def __init__(self, root, restored, *others, peers=(), before=()):
        """restored: an etcd, others: those at the other client URLs.  peers: URLs.  before: cluster ids before the restore."""
        self.root = root
        connection = restored.connection
        for node in NODES:
            (root / node).mkdir()
            values = {"id": "20261122T170501Z-4f1c", "path": str(root / node), "voter": node, "voters": NODES}
            values["endpoints"] = [*(etcd.endpoint for etcd in others), restored.endpoint, "https://127.0.0.1:%d" % harness.free_ports(1)[0]]
            values["tls"] = {name: connection[name] for name in ("cacert", "cert", "key")}
            values.update(etcdctl=connection["etcdctl"], peers=list(peers), cluster_ids=list(before))
            (root / node / "decide").write_text(decide_script(values))
            (root / node / "restored-cluster").write_text("%d\n%x\n" % ((int(cluster_id(restored), 16),) * 2))

    def ask(self, node, *how):
        """(code, answer)"""
        process = subprocess.run(["sh", str(self.root / node / "decide"), *how], capture_output=True, text=True, timeout=60, check=False)
        return process.returncode, process.stdout.strip()

    def ask_all(self, *how, times=3):
        """The answers to everybody, asking at once."""
        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            return list(pool.map(lambda node: self.ask(node, *how), NODES * times))


def cluster_id(etcd):
    return harness.run_module("etcd_cluster_info", **etcd.connection)[1]["etcd"]["cluster_id"]


@pytest.fixture
def member(version, tmp_path):
    with harness.Etcd(version, tmp_path / "etcd") as etcd:
        yield etcd


@pytest.fixture
def restore(member, tmp_path):
    (tmp_path / "nodes").mkdir()
    return Restore(tmp_path / "nodes", member)


def test_all_keep_the_data_once_all_have_voted(restore):
    assert restore.ask("cp1") == (0, "undecided")
    assert restore.ask_all("vote", times=1) == [(0, "voted")] * 3
    assert restore.ask("cp1") == (0, "undecided")
    assert set(restore.ask_all("--timer")) == {(0, "committed")}
    # and no node rolls back any more
    assert set(restore.ask_all("abort")) == {(0, "committed")}


def test_one_missing_vote_rolls_all_nodes_back(restore):
    for node in NODES[1:]:
        assert restore.ask(node, "vote") == (0, "voted")
    assert restore.ask("cp3", "--timer") == (0, "rolled-back")
    # a vote that comes too late changes nothing
    assert restore.ask("cp1", "vote") == (0, "voted")
    assert set(restore.ask_all()) == {(0, "rolled-back")}


def test_a_node_that_died_before_its_vote_rolls_back(restore):
    """Its state said that it would vote; no node can have decided to keep the data, so it need not ask."""
    (restore.root / "cp1" / "restored-cluster").unlink()
    assert restore.ask("cp1", "--timer") == (0, "rolled-back")
    assert restore.ask("cp1", "abort") == (0, "rolled-back")
    assert restore.ask("cp1", "vote")[0] == 1


@pytest.mark.parametrize("dummy", range(3))
def test_every_node_gets_the_same_answer_in_any_order(restore, dummy):
    restore.ask_all("vote", times=1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda item: restore.ask(*item), [(node, *how) for node in NODES for how in (("--timer",), ("abort",), ("--timer",))]))
    assert len(set(answers)) == 1 and answers[0][1] in ("committed", "rolled-back")


def test_no_node_decides_while_the_restored_etcd_is_unreachable(restore, member):
    restore.ask_all("vote", times=1)
    member.kill(signal.SIGKILL)
    assert restore.ask("cp1") == (1, "")
    assert restore.ask("cp1", "abort") == (1, "")
    assert restore.ask("cp1", "vote") == (1, "")
    member.start()
    member.ready()
    assert restore.ask("cp1", "--timer") == (0, "committed")


def test_no_proxy_is_asked(restore, tmp_path, monkeypatch):
    """etcdctl itself asks none for an address of loopback, so that its environment is looked at."""
    tool = tmp_path / "etcdctl"
    tool.write_text("#!/bin/sh\nenv >>%s\n" % (tmp_path / "environment"))
    tool.chmod(0o755)
    script = restore.root / "cp1" / "decide"
    script.write_text(re.sub("TOOL=.*", "TOOL=%s" % tool, script.read_text()))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    restore.ask("cp1", "vote")
    said = (tmp_path / "environment").read_text()
    assert "ETCDCTL_API=3\n" in said and "192.0.2.1" not in said


def test_a_member_that_serves_other_data_counts_as_rolled_back(version, member, tmp_path):
    """One that knows nothing of a decision has to go back then; one that can read it has to obey it, whatever the others run."""
    with harness.Etcd(version, tmp_path / "etcd", name="old") as old:
        (tmp_path / "nodes").mkdir()
        restore = Restore(tmp_path / "nodes", member, old)
        restore.ask_all("vote", times=1)
        assert restore.ask("cp1", "--timer") == (0, "committed")
        member.kill(signal.SIGKILL)
        assert restore.ask("cp1", "vote") == (1, "")
        assert restore.ask("cp1") == (0, "rolled-back")
        # and nothing was written to the other cluster
        assert old.etcdctl("get", "--prefix", "--keys-only", "k8s-dr.etcd/").stdout.strip() == ""


@contextlib.contextmanager
def without_a_quorum(version, root):
    """A member of two, whose other one is not there."""
    ports = harness.free_ports(3)
    cluster = "alone=https://127.0.0.1:%d,other=https://127.0.0.1:%d" % (ports[1], ports[2])
    etcd = harness.Etcd(version, root, name="alone", initial_cluster=cluster, client_port=ports[0], peer_port=ports[1], wait=False)
    with etcd:
        for dummy in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
                break
            time.sleep(0.1)
        yield etcd


def test_a_node_that_is_alone_in_its_old_cluster_is_known_by_its_peer_url(version, member, tmp_path):
    """Up to etcd 3.5 it answers no client, and the node that has voted would wait for it while it waits for that node."""
    (tmp_path / "nodes").mkdir()
    with without_a_quorum(version, tmp_path / "etcd") as alone:
        restore = Restore(tmp_path / "nodes", member, peers=[member.peer_url, alone.peer_url])
        assert restore.ask("cp1", "vote") == (0, "voted")
        # what the restored etcd says goes first
        assert restore.ask("cp1") == (0, "undecided")
        member.kill(signal.SIGKILL)
        assert restore.ask("cp1", "vote") == (1, "")
        assert restore.ask("cp1", "--timer") == (0, "rolled-back")
    assert restore.ask("cp1", "--timer") == (1, "")


def test_the_peer_urls_of_the_restored_cluster_itself_decide_nothing(version, tmp_path):
    (tmp_path / "nodes").mkdir()
    with harness.Etcd(version, tmp_path / "etcd") as other, without_a_quorum(version, tmp_path / "etcd") as alone:
        restore = Restore(tmp_path / "nodes", other, peers=[alone.peer_url])
        found = restored_id_at(alone)
        for node in NODES:
            (restore.root / node / "restored-cluster").write_text("%d\n%x\n" % (found, found))
        other.kill(signal.SIGKILL)
        assert restore.ask("cp1", "--timer") == (1, "")


def restored_id_at(etcd):
    """The cluster id that a member's peer URL says, as a number."""
    tls = [word for name in ("cacert", "cert", "key") for word in ("--" + name, etcd.pki[name])]
    argv = ["curl", "-s", "--http1.1", "-D", "-", *tls, etcd.peer_url + "/members"]
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
    return int(re.search("(?i)x-etcd-cluster-id: ([0-9a-f]+)", answer).group(1), 16)


def test_a_retired_node_knows_whether_a_restored_one_serves(version, member, tmp_path):
    now = cluster_id(member)
    for number, (before, peers, answer) in enumerate(
        [
            # another cluster than before, and the same one
            (["1234"], [], (0, "serving")),
            ([now], [], (1, "")),
            # one of two clusters that there were
            (["1234", now], [], (1, "")),
            # it is not known which one it was before
            ([], [], (0, "serving")),
            # by its peer URL, too
            ([now], [member.peer_url], (1, "")),
            (["1234", now], [member.peer_url], (1, "")),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        assert Restore(tmp_path / str(number), member, peers=peers, before=before).ask("cp3", "serving") == answer
    with without_a_quorum(version, tmp_path / "etcd") as alone:
        (tmp_path / "nodes").mkdir()
        restore = Restore(tmp_path / "nodes", member, peers=[alone.peer_url], before=[now])
        # it has no quorum yet, and may get one
        assert restore.ask("cp3", "serving") == (0, "serving")
    assert restore.ask("cp3", "serving") == (1, "")
    member.kill(signal.SIGKILL)
    assert restore.ask("cp3", "serving") == (1, "")
