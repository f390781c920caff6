# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a real etcd starts on a snapshot, tried while that is restored beside the live data."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import mvcc

ID = "20260101T000000Z-0000"


class Place:
    """A node's data directory, empty, and a restore that was begun."""

    def __init__(self, directory):
        self.directory = directory
        self.data = directory / "etcd"
        self.path = directory / "etcd.restore" / ID
        self.data.mkdir(parents=True)
        self.path.mkdir(parents=True)
        plan = {"id": ID, "kind": "restore", "data_dir": str(self.data), "manifests_dir": str(directory / "none")}
        for name, text in (("plan.json", json.dumps(plan)), ("state", "begun\n"), ("lock", "")):
            (self.path / name).write_text(text)

    def state(self):
        return (self.path / "state").read_text().split()[0]

    def left(self):
        """What is there besides the data and the restore."""
        return sorted(path.name for path in self.directory.iterdir() if path not in (self.data, self.path.parent))


def servers_in(directory):
    """Process ids of the isolated etcds that run below a directory."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            where = os.readlink("/proc/%s/cwd" % entry)
        except OSError:
            continue
        if where.startswith("%s/" % directory):
            found.append(int(entry))
    return found


@pytest.fixture
def place(tmp_path):
    """Nothing of a trial may be left in it, and no throw-away etcd anywhere."""
    (tmp_path / "node").mkdir()
    found = Place(tmp_path / "node")
    yield found
    assert found.left() == []
    assert servers_in(found.directory) == []


def arguments(live, snapshot, place, **options):
    given = dict(live.connection, **harness.tools(live.version), path=place.path, state="staged", snapshot=snapshot, etcd=live.dir / "etcd", trial_timeout=30)
    given.update(name=live.name, initial_cluster="%s=%s" % (live.name, live.peer_url), peer_urls=live.peer_url, cluster_token="another")
    return dict(given, **options)


def stage(*args, **options):
    return harness.run_module("etcd_restore_transaction", **arguments(*args, **options))


def program(path, script):
    path.write_text("#!/bin/sh\n%s\n" % script)
    path.chmod(0o755)
    return path


def test_a_snapshot_that_starts(etcd, snapshot, place):
    """By the program of the etcd that runs; and what is staged is what it is without a trial."""
    code, result = stage(etcd, snapshot, place, etcd=None)
    assert (code, result["start"], place.state()) == (0, {"tested": True, "reason": None}, "staged"), result
    assert "not tested" not in str(result.get("warnings"))
    assert (place.path / "staged/member/snap/db").exists() and result["seconds"] < 20
    code, result = stage(etcd, snapshot, place)
    assert (code, result["changed"], "start" in result) == (0, False, False)


def test_no_trial_is_made_where_none_is_asked_for_and_none_in_check_mode(etcd, snapshot, place):
    refuses = program(place.path.parent / "refuses", "exit 2")
    code, result = harness.run_module("etcd_restore_transaction", check_mode=True, **arguments(etcd, snapshot, place, etcd=refuses))
    assert (code, "start" in result, place.state()) == (0, False, "begun")
    code, result = stage(etcd, snapshot, place, etcd=refuses, trial_timeout=0)
    assert (code, "start" in result, place.state()) == (0, False, "staged")


def test_several_members(etcd, snapshot, place):
    """The isolated etcd is a cluster of its own."""
    urls = ["https://127.0.0.1:%d" % port for port in harness.free_ports(3)]
    cluster = ",".join("m%d=%s" % item for item in enumerate(urls))
    code, result = stage(etcd, snapshot, place, name="m0", initial_cluster=cluster, peer_urls=urls[0])
    assert (code, result["start"], place.state()) == (0, {"tested": True, "reason": None}, "staged"), result


def test_a_snapshot_that_does_not_start_is_a_failure(etcd, snapshot, place):
    refuses = program(
        place.path.parent / "refuses", "case $1 in --version) exec %s --version;; esac\necho 'panic: member unknown'\nexit 2" % (etcd.dir / "etcd")
    )
    code, result = stage(etcd, snapshot, place, etcd=refuses)
    assert (code, place.state()) == (1, "staging")
    assert result["msg"].startswith("%s does not start: etcd %s" % (snapshot, etcd.version))
    assert result["msg"].endswith("panic: member unknown. Nothing was done; choose another snapshot")
    assert not (place.path / "staged").exists()
    # and the step can be taken again
    code, result = stage(etcd, snapshot, place)
    assert (code, place.state()) == (0, "staged"), result


def test_a_snapshot_that_cannot_be_restored_is_a_failure(etcd, snapshot, place):
    broken = harness.copy(snapshot, place.path.parent / "broken.db")
    with broken.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\0" if stream.read(1) != b"\0" else b"\1")
    code, result = stage(etcd, broken, place)
    assert (code, place.state()) == (1, "staging")
    assert "snapshot restore %s` ended with code 1: " % broken in result["msg"]


def rewrite(snapshot, path, old, new):
    """A copy with other bytes and a checksum that fits."""
    data = snapshot.read_bytes()[:-32]
    assert old in data and len(old) == len(new)
    data = data.replace(old, new)
    path.write_bytes(data + hashlib.sha256(data).digest())
    return path


def test_damage_outside_the_keys_that_stops_an_etcd(version, tmp_path, place):
    """Its checksum is right and its keys can be read, so nothing else but a start finds it."""
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put("/registry/pods/default/a")
        # the record of a lease: ID, TTL and what is left of it, behind its name in 8 bytes
        name = 0x1122334455667788
        etcd.call("/v3/lease/grant", ID=name, TTL=100000)
        snapshot = etcd.save(tmp_path / "a.db")
        stored = b"\x08\x88\xef\x99\xab\xc5\xe8\x8c\x91\x11\x10\xa0\x8d\x06"
        damaged = rewrite(snapshot, tmp_path / "damaged.db", stored, b"\x0b" + stored[1:])
        with mvcc.SnapshotKeys(str(damaged), str(tmp_path)) as keys:
            assert (keys.read(), [entry[0] for entry in keys]) == (2, [b"/registry/pods/default/a"])
        code, result = stage(etcd, damaged, place)
        assert (code, place.state()) == (1, "staging"), result
        # `restore` of 3.4 reads them, too
        assert ("snapshot restore %s` " % damaged if version == "3.4" else "%s does not start: etcd " % damaged) in result["msg"]
        code, result = stage(etcd, snapshot, place)
        assert (code, result["start"]["tested"]) == (0, True), result


def test_authentication_is_enabled(version, tmp_path, place):
    """In the isolated etcd, which takes no certificate, it counts as a start that it asks for one."""
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put("/registry/pods/default/a")
        for command in (("user", "add", "root", "--new-user-password=x"), ("user", "grant-role", "root", "root"), ("auth", "enable")):
            etcd.etcdctl(*command)
        # without a user none is saved
        snapshot = tmp_path / "a.db"
        etcd.etcdctl("--user=root:x", "snapshot", "save", snapshot)
        code, result = stage(etcd, snapshot, place)
    assert (code, result["start"]) == (0, {"tested": True, "reason": None}), result


def test_what_cannot_be_tried_is_a_warning(etcd, snapshot, tmp_path, place):
    for server, reason in (
        ("/nonexistent/etcd", "/nonexistent/etcd cannot be run: No such file or directory"),
        ("/bin/true", "/bin/true is not an etcd server: `/bin/true --version` ended with code 0"),
    ):
        (place.path / "state").write_text("begun\n")
        code, result = stage(etcd, snapshot, place, etcd=server)
        assert (code, result["start"], place.state()) == (0, {"tested": False, "reason": reason}, "staged")
        assert "it was not tested whether etcd starts on %s: %s" % (snapshot, reason) in str(result["warnings"])


def test_time_that_is_over_is_a_warning(etcd, snapshot, place):
    slow, start = place.path.parent / "slow", time.monotonic()
    program(slow, "case $1 in --version) exec %s --version;; esac\nexec sleep 100" % (etcd.dir / "etcd"))
    code, result = stage(etcd, snapshot, place, etcd=slow, trial_timeout=2)
    assert (code, result["start"]["tested"], place.state()) == (0, False, "staged")
    assert result["start"]["reason"].startswith("etcd %s" % etcd.version) and result["start"]["reason"].endswith("did not serve it in time")
    assert time.monotonic() - start < 20


def test_no_room(etcd, snapshot, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(small)], check=True)
    try:
        found = Place(small)
        code, result = stage(etcd, snapshot, found)
        left, state = found.left(), found.state()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert (code, state, left, result["start"]["tested"]) == (0, "staged", [], False)
    assert result["start"]["reason"].startswith("%s has " % small)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_etcd_and_nothing_that_stays(etcd, snapshot, place, sig):
    slow = program(place.path.parent / "slow", "case $1 in --version) exec %s --version;; esac\nexec sleep 60" % (etcd.dir / "etcd"))
    module = harness.start_module("etcd_restore_transaction", **arguments(etcd, snapshot, place, etcd=slow))
    harness.wait_for(lambda: servers_in(place.directory))
    module.send_signal(sig)
    answer = module.stdout.read()
    module.wait(20)
    harness.wait_for(lambda: not servers_in(place.directory), 5)
    if sig == signal.SIGTERM:
        assert json.loads(answer)["msg"] == "the snapshot was not restored beside the live data: it was ended by SIGTERM"
    else:
        # the next one removes it
        assert len(place.left()) == 1
    assert place.state() == "staging"
    code, result = stage(etcd, snapshot, place)
    assert (code, place.state()) == (0, "staged"), result


def test_the_isolated_etcd_is_unreachable_and_reaches_no_network(etcd, snapshot, tmp_path, place):
    """And it is the first to go when memory runs out."""
    seen = tmp_path / "seen"
    spy = program(
        place.path.parent / "spy",
        "case $1 in --version) exec %s --version;; esac\n"
        "cat /proc/$$/net/tcp /proc/$$/net/tcp6 /proc/$$/net/dev >%s; ls -ld . >%s.dir; cat /proc/$$/oom_score_adj >%s.oom\n"
        'exec %s "$@"' % (etcd.dir / "etcd", seen, seen, seen, etcd.dir / "etcd"),
    )
    code, result = stage(etcd, snapshot, place, etcd=spy)
    assert (code, result["start"]["tested"]) == (0, True), result
    lines = seen.read_text().splitlines()
    assert len([line for line in lines if "sl " in line]) == 2
    # no socket, and no interface but its own loopback, which is down
    assert [line.split()[0] for line in lines if ":" in line] == ["lo:"]
    assert (tmp_path / "seen.dir").read_text().startswith("drwx------")
    assert (tmp_path / "seen.oom").read_text() == "1000\n"


def test_what_a_trial_adds_to_a_small_snapshot(etcd, snapshot, tmp_path, place):
    """Less than the second that it may add to a restore, with room for a busy machine."""
    without = Place(tmp_path / "without")
    took = {}
    for name, where, seconds in (("without", without, 0), ("with", place, 30)):
        code, result = stage(etcd, snapshot, where, trial_timeout=seconds)
        assert code == 0, result
        took[name] = result["seconds"]
    assert took["with"] - took["without"] < 3, took
