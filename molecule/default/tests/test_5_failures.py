# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores that fail after the stop: each leaves the cluster as it was.

What may happen to the controller, the connection or the node is in the scenario "faults", state by state; here is what may
happen to the restore itself.  The collection has no hooks for tests.  A shell in the node waits until the restore's own state says that it got so far, and
then injects the fault.
"""

from __future__ import annotations

import os
import re
import signal

import pytest
from cluster import wait_for
from restore_sandbox import blocks_of

# $t is the directory of the restore that is running: the one that was not there before
WATCH = """
set -u
for i in $(seq 6000); do
  for t in {data}.restore/*; do
    case " {known} " in *" $t "*) continue;; esac
    grep -q '^{state} ' $t/log 2>/dev/null && break 2
  done
  sleep 0.02
done
grep '^{state} ' $t/log || exit 1
{action}
"""


@pytest.fixture
def interrupt(cluster):
    """interrupt(state, action): run a shell script in the node as soon as the next restore has got that far."""
    started = []

    def start(state, action):
        known = " ".join(transaction.path for transaction in cluster.transactions())
        started.append(cluster.start("cp1", WATCH.format(data=cluster.data, known=known, state=state, action=action)))

    yield start
    for process in started:
        output = process.communicate(timeout=150)[0]
        print(output)
        assert process.returncode == 0, "the fault did not happen: " + output


@pytest.fixture
def before(cluster):
    """Something that the snapshot does not hold: it must survive a restore that fails.  Returns what is live."""
    cluster.wait_ready()
    cluster.kubectl("-n", cluster.namespace, "delete", "configmap/newest", "--ignore-not-found")
    cluster.snapshot()
    cluster.note("newest", "written after the snapshot")
    return cluster.live()


def assert_as_before(cluster, before, state="rolled-back"):
    """The old data is live, and the cluster works."""
    cluster.wait_ready()
    assert cluster.live() == before
    assert cluster.noted("newest") == "written after the snapshot"
    assert cluster.transactions()[-1].state == state
    assert cluster.run("cp1", "sh", "-c", "ls -d /etc/kubernetes/manifests*").split() == ["/etc/kubernetes/manifests"]
    cluster.apply(cluster.workload("alive", cluster.namespace, "marker-alive"))
    cluster.wait_running("alive", "marker-alive")
    cluster.kubectl("-n", cluster.namespace, "delete", "deployment/alive")
    cluster.wait_gone("marker-alive")


def test_etcd_does_not_start_on_the_restored_data(cluster, before, interrupt):
    interrupt("staged", "dd if=/dev/urandom of=$t/staged/member/snap/db bs=4096 count=64 conv=notrunc 2>&1")
    process = cluster.restore("-e", "etcd_restore_start_timeout=20", check=False)
    assert process.returncode != 0
    assert "rolled back" in process.stdout
    assert_as_before(cluster, before)


def test_a_rollback_script_at_the_console_is_enough(cluster, before, interrupt):
    """No Ansible at all: the operator runs the script beside the data, twice."""
    process = cluster.playbook("restore.yml", *cluster.confirmed, background=True)
    known = len(cluster.transactions())
    # on a busy machine they may pass between two looks
    late = ("swapped", "starting-etcd", "etcd-started", "starting", "started")
    wait_for(lambda: len(cluster.transactions()) > known and cluster.transactions()[-1].state in late, 180, "the swap")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    left = cluster.transactions()[-1]
    looking, going_back = blocks_of("docs/restore.md", "Failed and unfinished restores")
    assert "etcd-restore-" in cluster.run("cp1", "bash", "-e", stdin=looking)
    going_back = re.sub(r"^ID=\S+", "ID=" + os.path.basename(left.path), going_back, flags=re.MULTILINE)
    for dummy in range(2):
        printed = cluster.run("cp1", "bash", "-e", stdin=going_back, timeout=300)
        assert left.path in printed, printed
    assert_as_before(cluster, before)


def test_the_second_of_two_restores_in_one_run_is_rolled_back_like_any(cluster, before, interrupt):
    """After all that a restore works, and what is known of it afterwards does not keep the next one, whose staged data vanishes, from going back."""
    known = " ".join(transaction.path for transaction in cluster.transactions())
    interrupt("committed", "first=$t\n" + WATCH.format(data=cluster.data, known=known + " $first", state="stopping", action="rm -rf $t/staged"))
    process = cluster.playbook("restore.yml", "restore.yml", *cluster.confirmed, check=False)
    assert process.returncode != 0
    assert "The restore was rolled back: cp1 has its previous data" in " ".join(process.stdout.split())
    cluster.wait_ready()
    assert [transaction.state for transaction in cluster.transactions()[-2:]] == ["committed", "rolled-back"]
    assert cluster.noted("newest") is None
