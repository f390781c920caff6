# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two restores of one node that are started at once: one of them begins."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import steps
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import Busy, Transaction, TransactionError
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import POINTS, bring_to


def second(node):
    """(another restore of the node, its plan)"""
    path = node.path.with_name("20261122T170502Z-aaaa")
    return Transaction(str(path)), dict(node.plan, id=path.name, path=str(path))


@pytest.mark.parametrize("point", POINTS)
def test_no_other_begins_while_one_is_unfinished(node, point):
    bring_to(node, point)
    other, plan = second(node)
    with pytest.raises(TransactionError, match=r"restore %s is [a-z-]+ on this host, so no other one was begun; wait" % node.path.name):
        other.begin(plan)
    assert not os.path.exists(other.path)
    # the first was not changed, and can be begun again itself
    node.begin()
    assert node.rollback().returncode == 0
    node.is_old()
    other.begin(plan)
    assert other.exists()


def test_another_begins_after_one_that_has_ended(node):
    bring_to(node, "started")
    steps.commit(node.transaction, keep=3)
    other, plan = second(node)
    other.begin(plan)
    assert other.state()[0] == "begun"


def test_one_that_was_planned_before_another_was_made_does_not_begin(node):
    """Its question stayed open meanwhile: the other has used the revisions up that it would have, and an undo would choose the other."""
    assert node.rollback().returncode == 0
    other, plan = second(node)
    other.begin(plan)
    for state in ("committed", "rolled-back"):
        (node.path.with_name(other.id) / "state").write_text(state + " x\n")
        early = node.path.with_name("20261122T170500Z-0000")
        with pytest.raises(TransactionError, match="was made on this host after this one was planned, so this one was not begun; run it again"):
            Transaction(str(early)).begin(dict(node.plan, id=early.name, path=str(early)))
        assert not early.exists()


@pytest.mark.parametrize("point", ["begun", "staged"])
def test_another_begins_after_one_that_was_left_before_it_stopped_anything(node, point):
    bring_to(node, point)
    os.utime(node.path / "state", (1, 1))
    other, plan = second(node)
    other.begin(plan)
    assert other.exists()


def test_of_two_in_the_same_moment_one_begins(node):
    assert node.rollback().returncode == 0
    other, plan = second(node)
    directory = os.open(node.path.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with pytest.raises(Busy, match="another restore begins on this host right now"):
        other.begin(plan)
    os.close(directory)

    begun, refused, start = [], [], threading.Barrier(8)

    def begin(number):
        path = node.path.with_name("20261122T170502Z-%04d" % number)
        start.wait()
        try:
            Transaction(str(path)).begin(dict(node.plan, id=path.name, path=str(path)))
            begun.append(number)
        except TransactionError as exc:
            refused.append(str(exc))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1 and len(refused) == 7
