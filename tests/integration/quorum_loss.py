# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many acknowledged writes survive the loss of two of three members, for each way to salvage the data of the third.

    python tests/integration/quorum_loss.py [VERSION...]      ROUNDS=3 of each kind

Three members are written to and killed in the middle of it, as when the power fails; one of them comes back, and is without a quorum. Or two are
killed, and the third one runs on. docs/quorum-loss.md has the table that this prints.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import harness

PREFIX = "/registry/events/load/"
WAYS = ("salvage", "force-new-cluster", "snapshot save", "copied db")


def start_three(version, directory):
    """Three members that have a leader: (the leader, the others)."""
    ports = harness.free_ports(6)
    cluster = ",".join("m%d=https://127.0.0.1:%d" % (number, ports[3 + number]) for number in range(3))
    members = [
        harness.Etcd(version, directory, name="m%d" % number, initial_cluster=cluster, client_port=ports[number], peer_port=ports[3 + number], wait=False)
        for number in range(3)
    ]
    for member in members:
        member.start()
    if not all(member.ready() for member in members):
        raise RuntimeError("etcd %s did not get ready" % version)
    status = json.loads(members[0].etcdctl("endpoint", "status", "--cluster", "--write-out=json").stdout)
    leader = next(each["Endpoint"] for each in status if each["Status"]["header"]["member_id"] == each["Status"]["leader"])
    members.sort(key=lambda member: member.endpoint != leader)
    return members[0], members[1:]


def lose(gone, leader, seconds=1.0):
    """Write until these members are killed; the numbers of the writes that were acknowledged."""
    acknowledged, stop = [], threading.Event()

    def write(first):
        number = first
        while not stop.is_set():
            try:
                leader.put("%s%08d" % (PREFIX, number), os.urandom(100))
            except (OSError, ValueError):
                return
            acknowledged.append(number)
            number += 4

    writers = [threading.Thread(target=write, args=(first,)) for first in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(seconds)
    # the leader first, if it is among them: what it acknowledges must not outlive the others
    for member in sorted(gone, key=lambda member: member is not leader):
        member.process.send_signal(signal.SIGKILL)
    stop.set()
    for writer in writers:
        writer.join()
    for member in gone:
        member.kill()
    return acknowledged


def served(version, directory, **how):
    """The numbers that a data directory holds when it is served alone."""
    with harness.Etcd(version, directory, **how) as etcd:
        return numbers(etcd)


def numbers(etcd):
    return {int(key[len(PREFIX) :]) for key in etcd.get_keys(PREFIX)}


def restored(version, directory, snapshot, *flags):
    """The numbers that a snapshot holds."""
    target = pathlib.Path(tempfile.mkdtemp(dir=str(directory)))
    result = harness.restore(version, snapshot, target / "data", *flags)
    if result.returncode != 0:
        raise RuntimeError("restore: " + result.stderr[-500:])
    return served(version, directory, name="default", data_dir=target / "data", initial_cluster="default=http://localhost:2380")


def salvage(etcd, directory):
    """The path of a snapshot of the data of a member that is stopped, as salvage.yml makes it."""
    options = {name: path for name, path in etcd.connection.items() if name not in ("endpoint", "cacert", "cert", "key")}
    code, result = harness.run_module(
        "etcd_snapshot", **options, etcd=etcd.dir / "etcd", data_dir=etcd.data_dir, directory=directory / "backups", manifests_dir="/nonexistent"
    )
    if code != 0:
        raise RuntimeError(result["msg"])
    return result["snapshot"]["path"]


def one_round(version, directory, leader_survives, power_fails=True):
    """(acknowledged numbers, {way: numbers that are found again})."""
    leader, others = start_three(version, directory)
    members = [leader] + others
    survivor = leader if leader_survives else others[0]
    try:
        acknowledged = lose(members if power_fails else [member for member in members if member is not survivor], leader)
        if power_fails:
            survivor.start()
        time.sleep(3)
        running = directory / "running.db"
        try:
            saved = survivor.etcdctl("snapshot", "save", running, check=False, timeout=20).returncode == 0
        except subprocess.TimeoutExpired:
            # one that was started without a quorum does not serve
            saved = False
        survivor.kill(signal.SIGTERM)
    finally:
        for member in members:
            member.kill()
    found = {"snapshot save": restored(version, directory, running) if saved else None}
    found["copied db"] = restored(version, directory, survivor.db, "--skip-hash-check")
    copy = directory / "copy"
    shutil.copytree(survivor.data_dir, copy)
    found["force-new-cluster"] = served(version, directory, name=survivor.name, data_dir=copy, force_new_cluster=True)
    found["salvage"] = restored(version, directory, salvage(survivor, directory))
    return set(acknowledged), found


def main():
    rounds = int(os.environ.get("ROUNDS", "3"))
    print("| etcd | the others | survivor was | acknowledged | %s |" % " | ".join("lost by " + way for way in WAYS))
    print("|---|---|---|---|%s" % ("---|" * len(WAYS)))
    for version in sys.argv[1:] or ["3.4", "3.5", "3.6", "3.7"]:
        for leader_survives, power_fails in ((True, True), (False, True), (False, False)):
            total, lost = 0, {way: [] for way in WAYS}
            for dummy in range(rounds):
                with contextlib.ExitStack() as stack:
                    directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quorum-")))
                    acknowledged, found = one_round(version, directory, leader_survives, power_fails)
                total += len(acknowledged)
                for way in WAYS:
                    lost[way].append("no answer" if found[way] is None else str(len(acknowledged - found[way])))
            cells = " | ".join(", ".join(lost[way]) for way in WAYS)
            how = "with it, in one power failure" if power_fails else "before it, which runs on"
            print("| %s | %s | %s | %d | %s |" % (version, how, "leader" if leader_survives else "follower", total, cells), flush=True)


if __name__ == "__main__":
    main()
