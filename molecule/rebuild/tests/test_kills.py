# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rebuild that is killed again and again, on the controller and on the machine, ends as one that is not."""

from __future__ import annotations

import os
import random
import signal
import time

from rebuild_sandbox import bundled, prove, until

KILLS = 10
# From the first change of the machine to the last but the removal of the record, after which it is done.
TASKS = (
    "Make the directory of the rebuild",
    "Have kubeadm check the machine",
    "Write down what is begun",
    "Make the directories of keys",
    "Put keys and files in place",
    "Sign the certificates",
    "Copy the snapshot to the machine",
    "Restore the snapshot as the data",
    "Write the manifests of the control plane",
    "Start kubelet",
    "Wait for the API",
    "Write down kubeadm's configuration",
    "Validate nodes",
)
# Of a run that goes on these are not there.
ONCE = ("Have kubeadm check the machine",)
# Whatever runs on the machine by a command from outside, with what it has started: such processes have no parent there.  $1: so often it looks for them.
KILL = """
end() { for child in $(pgrep -P $1); do end $child; done; kill -KILL $1 2>/dev/null && echo $1; }
for look in $(seq $1); do
  hit=$(for status in /proc/[0-9]*/status; do
    pid=$(echo $status | cut -d/ -f3)
    [ $pid = 1 ] || [ $pid = $$ ] || [ "$(sed -n 's/^PPid:.//p' $status 2>/dev/null)" != 0 ] || end $pid
  done)
  [ -z "$hit" ] || { echo $hit; break; }
done
"""


def killed_run(machine, given, task, later, machine_first):
    """A run that gets SIGKILL so many seconds into a task; how many processes of it were killed on the machine.

    machine_first: when the next one runs there, and then the playbook.
    """
    process = machine.playbook("rebuild.yml", *given, background=True)
    lines = until(process, task)
    time.sleep(later)
    assert process.poll() is None, "it ended before the task %s:\n%s" % (task, "".join(lines[-60:]))
    hit = machine.run("cp1", "sh", "-c", KILL, "kill", "1000").split() if machine_first else []
    os.killpg(process.pid, signal.SIGKILL)
    hit += machine.run("cp1", "sh", "-c", KILL, "kill", "1").split()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return len(hit)


def test_killed_at_ten_random_moments(edited, far, key, new_machine, lost, tmp_path):
    given, token = bundled(edited, far, key, tmp_path)
    lost()
    machine = new_machine("killed")
    seed = int(os.environ.get("SEED", "") or time.time())
    print("SEED=%d" % seed)
    draw, hits = random.Random(seed), []
    for number in range(KILLS):
        begun = bool(machine.run("cp1", "sh", "-c", "cat /var/lib/k8s-dr-rebuild/record.json 2>/dev/null || true"))
        task, later = draw.choice([one for one in TASKS if not (begun and one in ONCE)]), draw.uniform(0, 1.5)
        hits.append(killed_run(machine, given, task, later, number % 2 == 0))
        print("kill %d, %.1f s into \"%s\": %d processes on the machine" % (number + 1, later, task, hits[-1]), flush=True)
    assert len(hits) == KILLS and sum(1 for hit in hits if hit) >= KILLS // 2
    machine.playbook("rebuild.yml", *given)
    prove(machine, machine.nodes["cp1"], token)


def test_a_machine_out_of_reach_and_two_runs_at_once(edited, far, key, new_machine, lost, tmp_path, monkeypatch):
    given, token = bundled(edited, far, key, tmp_path)
    lost()
    machine = new_machine("twice")
    monkeypatch.setenv("NODE_SSH_CUT", str(tmp_path / "cut"))
    cut = tmp_path / ("cut." + machine.nodes["cp1"])
    process = machine.playbook("rebuild.yml", *given, background=True)
    until(process, "Sign the certificates")
    cut.touch()
    output = process.communicate()[0]
    assert process.returncode == 4 and "UNREACHABLE" in output, output
    cut.unlink()

    first = machine.playbook("rebuild.yml", *given, background=True)
    until(first, "Put keys and files in place")
    machine.playbook("rebuild.yml", *given)
    output = first.communicate()[0]
    assert first.returncode != 0 and "another run of this playbook has taken over" in " ".join(output.split()), output
    prove(machine, machine.nodes["cp1"], token)
