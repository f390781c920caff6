# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores that the first version began are listed, resumed and rolled back."""

from __future__ import annotations

import json
import pathlib
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import control_plane, steps, timer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import ORDER, RETIRE, Transaction
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_restore_transaction as module
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import FILES, POINTS, Node, bring_to

FIRST = pathlib.Path(__file__).parents[3] / "fixtures" / "first"


class FirstNode(Node):
    """A node with the files that the first version to write them (commit 97e024d) left when its controller was killed."""

    plan_of = "plan.json"

    def __init__(self, root):
        self.base = root
        super().__init__(root, False)
        # the real ones would wait, and ask a server
        for name, text in (("sleep", ""), ("sync", ""), ("curl", "echo '{\"health\": \"true\"}'\n")):
            (self.systemctl.parent / name).write_text("#!/bin/sh\n" + text)
            (self.systemctl.parent / name).chmod(0o755)

    def adapted(self, name):
        """A file of theirs, with the paths of this node."""
        text = (FIRST / name).read_text()
        for path in ("/var/lib/etcd", "/etc/kubernetes", "/proc/[0-9]*"):
            text = text.replace(path, str(self.base / path[1:]))
        return text.replace("/etc/systemd/system", str(self.base / "units"))

    def begin(self):
        self.plan = json.loads(self.adapted(self.plan_of))
        self.path = pathlib.Path(self.plan["path"])
        self.path.mkdir(parents=True)
        for name, source in (("plan.json", self.plan_of), ("rollback", "rollback.txt")):
            (self.path / name).write_text(self.adapted(source))
        (self.path / "lock").touch()
        (self.path / "state").write_text("begun\n")
        self.transaction = Transaction(str(self.path))

    def left_at(self, point):
        """As the controller's end left it: what the steps do to the disk, in the words of their log."""
        bring_to(self, point)
        state = self.transaction.state()[0]
        since = (FIRST / "log.txt").read_text().split()[1]
        (self.path / "state").write_text((FIRST / "state.txt").read_text() if state == "swapped" else "%s %s\n" % (state, since))
        self.transaction = Transaction(str(self.path))


@pytest.fixture
def first_node(tmp_path, monkeypatch):
    monkeypatch.setattr(control_plane, "listens", lambda url, timeout: False)
    return FirstNode(tmp_path)


def test_states_of_the_first_version_have_their_names():
    assert json.loads((FIRST / "states.json").read_text()) == {"ORDER": ORDER, "RETIRE": RETIRE}


@pytest.mark.parametrize("point", POINTS[1:])
def test_a_restore_of_the_first_version_is_listed_resumed_and_rolled_back(first_node, monkeypatch, point):
    first_node.left_at(point)
    [listed] = first_node.listed()
    assert listed["id"] == first_node.path.name and listed["since"].startswith("2026-11-29T19:27:") and not listed["ended"]
    assert listed["hosts"] == ["cp1"] and listed["about"]["snapshot"]["revision"] == 6005764
    asked = set()
    monkeypatch.setattr(steps, "etcd_health", lambda url, tls, query="": asked.add(url) or "true")
    monkeypatch.setattr(control_plane, "KubeApi", lambda *args, **kw: types.SimpleNamespace(ready=lambda: True, url=""))
    monkeypatch.setattr(control_plane, "StaticPod", lambda *args: None)
    module.forward(first_node.transaction, "started", {"cacert": "", "cert": "", "key": "", "stop_timeout": 5, "step_timeout": 5, "snapshot_revision": 0})
    assert first_node.data() == "new" and first_node.transaction.state()[0] == "started"
    assert first_node.manifest_names() == sorted([*FILES, "kube-vip.yaml"])
    assert asked == (set() if point in ("etcd-started", "started") else {"https://192.0.2.11:2379"})
    # with the script that it wrote
    done = first_node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    first_node.is_old()


@pytest.mark.parametrize("point", POINTS)
def test_the_script_of_the_first_version_rolls_back_from_every_point(first_node, monkeypatch, point):
    monkeypatch.setenv("PATH", first_node.environment["PATH"])
    first_node.left_at(point)
    first_node.transaction.roll_back(False, 60)
    first_node.is_old()
    assert first_node.listed()[0]["ended"]


def test_an_etcd_that_the_first_version_started_is_asked_where_its_plan_says(first_node):
    assert first_node.transaction.plan["health_urls"] == ["https://192.0.2.11:2379", "http://127.0.0.1:2381"]
    first_node.plan.update(health_url="")
    (first_node.path / "plan.json").write_text(json.dumps(first_node.plan))
    assert Transaction(str(first_node.path)).plan["health_urls"] == ["https://192.0.2.11:2379"]


@pytest.mark.parametrize("end", ["armed again", "committed", "rolled back"])
def test_the_timer_of_the_first_version_is_replaced_and_removed(first_node, monkeypatch, end):
    monkeypatch.setenv("PATH", first_node.environment["PATH"])
    units, name = first_node.root / "units", "etcd-restore-" + first_node.path.name
    wants = units / "multi-user.target.wants" / (name + ".service")
    wants.parent.mkdir(parents=True)
    for suffix in ("service", "timer"):
        (units / ("%s.%s" % (name, suffix))).write_text(first_node.adapted(suffix + ".txt"))
    wants.symlink_to(units / (name + ".service"))
    first_node.left_at("started")
    if end == "armed again":
        timer.arm(first_node.transaction, 77)
        assert "OnActiveSec=77" in (units / (name + ".timer")).read_text()
        assert sorted(path.name for path in units.rglob("etcd-restore-*")) == sorted([name + ".service", name + ".timer", name + ".service"])
    elif end == "committed":
        steps.commit(first_node.transaction, keep=3)
        assert not list(units.rglob("etcd-restore-*"))
    else:
        first_node.transaction.roll_back(False, 60)
        assert not list(units.rglob("etcd-restore-*"))


VOTES = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    endpoint) echo '{"cluster_id":123}'; exit ;;
    put) echo "$2" >> "$0.votes"; exit ;;
    txn) cat > /dev/null; [ -e "$0.decision" ] || echo committed > "$0.decision"; exit ;;
    get) cat "$0.decision" 2> /dev/null; exit 0 ;;
  esac
  shift
done
"""


def test_nodes_of_the_first_version_vote_by_the_script_that_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(FirstNode, "plan_of", "plan-three.json")
    node = FirstNode(tmp_path)
    monkeypatch.setenv("PATH", node.environment["PATH"])
    etcdctl = node.systemctl.parent / "etcdctl"
    etcdctl.write_text(VOTES)
    etcdctl.chmod(0o755)
    node.left_at("started")
    (node.path / "decide").write_text(node.adapted("decide.txt").replace("/usr/local/bin/etcdctl", str(etcdctl)))
    steps.vote(node.transaction, "7b", 5)
    steps.commit(node.transaction, keep=3)
    assert node.transaction.state()[0] == "committed"
    assert (etcdctl.parent / "etcdctl.votes").read_text() == "k8s-dr.etcd/restore/%s/votes/cp1\n" % node.path.name
