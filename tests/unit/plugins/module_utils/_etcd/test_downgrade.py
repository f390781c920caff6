# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import downgrade
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def status(version="3.7.3", target=""):
    return {"version": version, "downgrade_target": target}


def test_the_minor_version_before_is_accepted():
    downgrade.check(status(), "3.7.3", "3.6")
    downgrade.check(status("3.6.16"), "3.6.16", "3.5")
    # an administrator has begun the same
    downgrade.check(status(target="3.6.0"), "3.7.3", "3.6")


@pytest.mark.parametrize(
    ("found", "etcdctl", "target", "words"),
    [
        (status(), "3.7.3", "3.5", "etcd 3.7.3 can store its data only as etcd 3.6 would, not as etcd 3.5 would; nothing was taken"),
        (status(), "3.7.3", "3.7", "etcd 3.7.3 can store its data only as etcd 3.6 would, not as etcd 3.7 would"),
        (status("3.5.35"), "3.7.3", "3.4", "etcd 3.5.35 can store its data in no other way, not as etcd 3.4 would"),
        (status(), "3.5.35", "3.6", "etcdctl 3.5.35 cannot have a cluster store its data as etcd 3.6 would; use that of etcd 3.7.3"),
        (status(target="3.5.0"), "3.7.3", "3.6", "etcd is being downgraded to 3.5.0; nothing was taken"),
    ],
)
def test_what_is_refused(found, etcdctl, target, words):
    with pytest.raises(Refused) as caught:
        downgrade.check(found, etcdctl, target)
    assert str(caught.value).startswith(words)


class Client:
    """A member that does what it is told, after some questions."""

    def __init__(self, target="", slow=2, fails=()):
        self.target, self.storage, self.slow, self.fails, self.asked = target, "3.6.0" if target else "3.7.0", slow, fails, []
        self.wanted = None

    def run(self, *args):
        self.asked.append(" ".join(args))
        if args[1] in self.fails:
            raise ToolError("it cannot be asked")
        if args[1] == "enable":
            self.target, self.wanted = args[2] + ".0", [args[2] + ".0", self.slow]
        if args[1] == "cancel":
            self.target, self.wanted = "", ["3.7.0", self.slow]

    def status(self):
        if self.wanted:
            self.wanted[1] -= 1
            if self.wanted[1] < 0:
                self.storage, self.wanted = self.wanted[0], None
        return {"version": "3.7.3", "storage_version": self.storage, "downgrade_target": self.target}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    clock = itertools.count(step=0.5)
    monkeypatch.setattr(downgrade.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(downgrade.time, "sleep", lambda seconds: None)


def test_it_lasts_as_long_as_the_snapshot():
    client = Client()
    with downgrade.Downgrade(client, "3.6") as found:
        assert client.storage == "3.6.0"
    assert client.asked == ["downgrade validate 3.6", "downgrade enable 3.6", "downgrade cancel"]
    assert (client.storage, client.target, found.problem) == ("3.7.0", "", None)


def test_one_that_was_begun_before_goes_on():
    client = Client("3.6.0")
    with downgrade.Downgrade(client, "3.6") as found:
        assert client.storage == "3.6.0"
    assert (client.asked, client.target, found.problem) == ([], "3.6.0", None)


def test_it_ends_when_no_snapshot_was_taken():
    client = Client()
    with pytest.raises(ToolError, match="no snapshot"), downgrade.Downgrade(client, "3.6"):
        raise ToolError("no snapshot")
    assert client.asked[-1] == "downgrade cancel" and client.storage == "3.7.0"


def test_a_cluster_that_does_not_begin_is_told_that_it_is_over():
    client = Client(slow=1000)
    with pytest.raises(Refused, match=r"did not begin to store its data as etcd 3\.6 would within 60 seconds"), downgrade.Downgrade(client, "3.6"):
        pytest.fail("it has not begun")
    assert client.asked[-1] == "downgrade cancel"


def test_what_cannot_be_ended_is_said():
    client = Client(fails=("cancel",))
    with downgrade.Downgrade(client, "3.6") as found:
        pass
    assert found.problem == "the cluster is told to downgrade to etcd 3.6: run `etcdctl downgrade cancel`"
    client = Client(fails=("cancel",))
    with pytest.raises(Refused, match=r"^no snapshot; the cluster is told to downgrade to etcd 3\.6: run"), downgrade.Downgrade(client, "3.6"):
        raise ToolError("no snapshot")


def test_one_that_is_refused_changes_nothing():
    client = Client(fails=("validate",))
    with pytest.raises(ToolError), downgrade.Downgrade(client, "3.6"):
        pytest.fail("it has not begun")
    # another run may have begun one by now
    assert client.asked == ["downgrade validate 3.6"]


def test_one_that_another_run_ends_meanwhile_is_noticed():
    client = Client("3.6.0")
    with pytest.raises(Refused, match="was cancelled while the snapshot was taken"), downgrade.Downgrade(client, "3.6"):
        client.run("downgrade", "cancel")
