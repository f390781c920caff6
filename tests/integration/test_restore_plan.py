# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore would delete, re-create and modify, of snapshots of real etcds."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import mvcc


@pytest.fixture
def work(tmp_path):
    """Where snapshots are served; nothing may be left in it, and no throw-away etcd anywhere."""
    directory = tmp_path / "work"
    directory.mkdir()
    yield directory
    assert list(directory.iterdir()) == []
    assert throwaways(directory) == []


@pytest.fixture(scope="session")
def later(snapshot, tmp_path_factory):
    """A snapshot that only an etcd can read: as of a later one, some of its records have a field that this collection does not know."""
    data = bytearray(snapshot.read_bytes()[:-32])
    key = b"/registry/namespaces/default"
    at = found = 0
    while True:
        at = data.find(b"\x0a" + bytes([len(key)]) + key + b"\x10", at + 1)
        if at < 0:
            break
        found += 1
        # behind three numbers
        behind = at + 2 + len(key)
        for tag in (0x10, 0x18, 0x20):
            assert data[behind] == tag
            behind += 1
            while data[behind] > 127:
                behind += 1
            behind += 1
        assert data[behind] == 0x2A
        data[behind] = 0x7A
    assert found
    path = tmp_path_factory.mktemp("later") / "later.db"
    path.write_bytes(data + hashlib.sha256(data).digest())
    return path


def throwaways(directory):
    """Process ids of throw-away etcds whose data are below a directory."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            command = pathlib.Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"k8s-dr-throwaway\0") and os.fsencode(directory) in command:
            found.append(int(entry))
    return found


def plan(live, snapshot, work, check_mode=False, limit=120, **options):
    options.setdefault("etcd", live.dir / "etcd")
    options.setdefault("manifests_dir", work / "none")
    options = {**live.connection, "snapshot": snapshot, "work_dir": work, **options}
    return harness.run_module("etcd_restore_plan", check_mode=check_mode, limit=limit, **options)


def compare(*args, **options):
    code, result = plan(*args, **options)
    assert code == 0, result
    assert result["comparison"]["compared"], result
    return result["comparison"]


def told(difference):
    return {(group["kind"], group["namespace"]): (group["count"], group["names"]) for group in difference["kinds"]}


def test_what_vanishes_reappears_and_changes(version, tmp_path, work):
    with harness.Etcd(version, tmp_path) as etcd:
        for name in ("kept", "changed", "deleted", "replaced"):
            etcd.put("/registry/configmaps/default/" + name, b"old")
        etcd.put("/registry/minions/worker-1")
        etcd.put("/registry/example.org/widgets/default/old")
        etcd.put("compact_rev_key", b"1")
        # an earlier restore of several nodes has left it; it is not compared
        etcd.put("k8s-dr.etcd/restore/1/decision", b"committed")
        snapshot = etcd.save(tmp_path / "a.db")
        etcd.put("/registry/configmaps/default/changed", b"new")
        etcd.delete("/registry/configmaps/default/deleted")
        etcd.delete("/registry/configmaps/default/replaced")
        etcd.put("/registry/configmaps/default/replaced", b"old")
        etcd.delete("/registry/example.org/widgets/default/old")
        for number in range(5):
            etcd.put("/registry/secrets/shop/secret-%d" % number, b"do not tell")
        etcd.put("/registry/services/specs/shop/web")
        etcd.put("/registry/nodes/not-a-node")
        etcd.put("/registry/events/default/e1")
        etcd.put("/registry/events/shop/e2")
        etcd.put("/registry/leases/kube-node-lease/worker-1")
        etcd.put("compact_rev_key", b"2")
        etcd.delete("k8s-dr.etcd/restore/1/decision")
        revision = etcd.put(b"/registry/pods/default/\xff\xfe\x1b[31m", b"")
        before = etcd.get_keys("/registry/secrets")
        dest = tmp_path / "all.txt"
        found = compare(etcd, snapshot, work, dest=dest)
        assert etcd.get_keys("/registry/secrets") == before
        assert int(etcd.call("/v3/kv/range", key=b"a")["header"]["revision"]) == revision
    assert told(found["vanish"]) == {
        ("nodes", ""): (1, ["not-a-node"]),
        ("pods", "default"): (1, ["\\xff\\xfe\\x1b[31m"]),
        ("secrets", "shop"): (5, ["secret-0", "secret-1", "secret-2"]),
        ("services", "shop"): (1, ["web"]),
        ("events", ""): (2, ["default/e1", "shop/e2"]),
        ("leases", ""): (1, ["kube-node-lease/worker-1"]),
    }
    assert [group["kind"] for group in found["vanish"]["kinds"]][-2:] == ["events", "leases"]
    assert (found["vanish"]["count"], found["vanish"]["objects"]) == (11, 8)
    assert told(found["reappear"]) == {("configmaps", "default"): (1, ["deleted"]), ("widgets.example.org", "default"): (1, ["old"])}
    assert told(found["change"]) == {("configmaps", "default"): (2, ["changed", "replaced"]), ("other keys", ""): (1, ["compact_rev_key"])}
    assert found["snapshot"]["kinds"] == {"configmaps": 4, "nodes": 1, "other keys": 1, "widgets.example.org": 1}
    assert found["server"]["version"].startswith(version)
    assert found["start"] == {"tested": True, "reason": None}
    assert found["live"] == {"revision": revision, "total": found["snapshot"]["total"] + 11 - 3, "moved": False}
    assert "do not tell" not in json.dumps(found)
    assert found["lines"][2].split() == ["vanish", "5", "secrets", "shop", "secret-0,", "secret-1,", "secret-2,", "..."]
    assert [line.split()[2] for line in found["lines"][-2:]] == ["events", "leases"]
    lines = dest.read_text().splitlines()
    assert len(lines) == 11 + 2 + 3
    assert "vanish\tsecrets\tshop\tsecret-4" in lines
    assert "vanish\tpods\tdefault\t\\xff\\xfe\\x1b[31m" in lines
    assert "do not tell" not in dest.read_text()
    assert dest.stat().st_mode & 0o777 == 0o600


def test_nothing_differs_and_check_mode_writes_nothing(etcd, snapshot, tmp_path, work):
    code, result = plan(etcd, snapshot, work, check_mode=True, dest=tmp_path / "all.txt")
    assert (code, result["changed"]) == (0, False)
    found = result["comparison"]
    assert found["compared"]
    assert [found[state]["count"] for state in ("vanish", "reappear", "change")] == [0, 0, 0]
    assert found["lines"] == []
    assert not (tmp_path / "all.txt").exists()


def test_revisions_that_repeat_after_a_restore(version, tmp_path, work):
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put("/registry/pods/a/x")
        snapshot = etcd.save(tmp_path / "a.db")
        etcd.put("/registry/pods/a/y")
    assert harness.restore(version, snapshot, tmp_path / "again").returncode == 0
    with harness.Etcd(version, tmp_path, name="default", data_dir=tmp_path / "again", initial_cluster="default=http://localhost:2380") as etcd:
        later = etcd.put("/registry/pods/a/x", b"other")
        found = compare(etcd, snapshot, work)
        assert later == found["live"]["revision"]
    assert told(found["change"]) == {("pods", "a"): (1, ["x"])}


def test_without_a_server_program_the_comparison_says_so(etcd, snapshot, work):
    for server, reason in (
        ("/nonexistent/etcd", "/nonexistent/etcd cannot be run: No such file or directory"),
        ("/bin/true", "/bin/true is not an etcd server: `/bin/true --version` ended with code 0"),
    ):
        found = compare(etcd, snapshot, work, etcd=server)
        assert (found["server"], found["start"]) == (None, {"tested": False, "reason": reason})
        assert found["snapshot"]["kinds"] == {"namespaces": 1, "pods": 36, "secrets": 1}


def test_what_only_an_etcd_can_read_is_served_with_the_same_answer(etcd, snapshot, later, work):
    """The running one serves it."""
    read, served = compare(etcd, snapshot, work, etcd=None), compare(etcd, later, work, etcd=None)
    assert read["server"]["path"] == "/proc/%d/exe" % etcd.pid
    assert read.pop("seconds") >= 0 and served.pop("seconds") >= 0
    assert read == served


def test_a_live_etcd_that_does_not_answer(etcd, snapshot, work):
    port = harness.free_ports(1)[0]
    code, result = plan(etcd, snapshot, work, endpoint="https://127.0.0.1:%d" % port, timeout=2)
    found = result["comparison"]
    assert (code, found["compared"], found["vanish"], found["live"]) == (0, False, None, None)
    assert found["reason"].startswith("the live etcd does not answer (")
    assert found["snapshot"]["kinds"]["pods"] == 36
    assert found["start"] == {"tested": True, "reason": None}


def test_live_etcd_that_stops_answering(etcd, snapshot, tmp_path, work):
    """What the snapshot holds is said all the same; and nothing is said of the rest."""
    stops = tmp_path / "etcdctl"
    stops.write_text(
        '#!/bin/sh\ncase "$*" in *keys-only*--limit=1\\ *) ;; *keys-only*) echo stopped >&2; exit 1;; esac\nexec %s "$@"\n' % (etcd.dir / "etcdctl")
    )
    stops.chmod(0o755)
    code, result = plan(etcd, snapshot, work, etcdctl=stops, dest=tmp_path / "all.txt")
    found = result["comparison"]
    assert (code, found["compared"], found["vanish"], found["live"], found["dest"]) == (0, False, None, None, None)
    assert found["reason"] == "its keys cannot be read: `etcdctl get` ended with code 1: stopped"
    assert found["snapshot"]["kinds"] == {"namespaces": 1, "pods": 36, "secrets": 1}
    assert not (tmp_path / "all.txt").exists()


def test_without_a_server_program_there_is_a_reason(etcd, later, work):
    """Where only an etcd can read the snapshot."""
    code, result = plan(etcd, later, work, etcd="/nonexistent/etcd")
    reason = "/nonexistent/etcd cannot be run: No such file or directory"
    assert (code, result["comparison"]["reason"], result["comparison"]["start"]["reason"]) == (0, reason, reason)


def test_time_that_is_over_is_no_failure(etcd, snapshot, later, work):
    """Neither of an etcd that is to start, nor of the live one: then it is said what the snapshot holds."""
    over = "it was not finished within 3 s"
    slow = work.parent / "slow"
    slow.write_text("#!/bin/sh\ncase $1 in --version) exec %s --version;; esac\nexec sleep 100\n" % (etcd.dir / "etcd"))
    slow.chmod(0o755)
    start = time.monotonic()
    code, result = plan(etcd, later, work, etcd=slow, compare_timeout=3)
    assert (code, result["comparison"]["reason"], result["comparison"]["snapshot"]) == (0, over, None)
    found = compare(etcd, snapshot, work, etcd=slow, compare_timeout=3)
    assert (found["compared"], found["start"]) == (True, {"tested": False, "reason": over})
    # `snapshot restore` takes too long
    tool = work.parent / "etcdutl"
    tool.write_text('#!/bin/sh\ncase "$*" in "snapshot restore /"*) exec sleep 100;; esac\nexec %s "$@"\n' % harness.offline_tool(etcd.version))
    tool.chmod(0o755)
    found = compare(etcd, snapshot, work, compare_timeout=3, **{"etcdutl" if etcd.version != "3.4" else "etcdctl": tool})
    assert (found["compared"], found["start"]) == (True, {"tested": False, "reason": over})
    slow.write_text('#!/bin/sh\ncase "$*" in *keys-only*--limit=1\\ *) ;; *keys-only*) sleep 100;; esac\nexec %s "$@"\n' % (etcd.dir / "etcdctl"))
    code, result = plan(etcd, snapshot, work, etcdctl=slow, compare_timeout=3)
    assert (code, result["comparison"]["reason"]) == (0, over)
    assert result["comparison"]["snapshot"]["kinds"]["pods"] == 36
    assert time.monotonic() - start < 40


@pytest.mark.parametrize("live", [True, False], ids=["live", "no live etcd"])
def test_a_snapshot_that_does_not_start_is_a_failure(etcd, snapshot, tmp_path, work, live):
    """Also where there is no live etcd to compare it with; and no list of differences is left."""
    refuses = tmp_path / "refuses"
    refuses.write_text("#!/bin/sh\ncase $1 in --version) exec %s --version;; esac\necho 'panic: member unknown'\nexit 2\n" % (etcd.dir / "etcd"))
    refuses.chmod(0o755)
    more = {} if live else {"endpoint": "https://127.0.0.1:%d" % harness.free_ports(1)[0], "timeout": 2}
    code, result = plan(etcd, snapshot, work, etcd=refuses, dest=tmp_path / "all.txt", **more)
    assert code == 1
    assert result["msg"].startswith("%s does not start: etcd %s" % (snapshot, etcd.version))
    assert result["msg"].endswith("panic: member unknown. Nothing was done; choose another snapshot")
    assert not (tmp_path / "all.txt").exists()


def test_a_snapshot_that_cannot_be_restored_is_a_failure(etcd, snapshot, work):
    broken = harness.copy(snapshot, work.parent / "broken.db")
    with broken.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\0" if stream.read(1) != b"\0" else b"\1")
    code, result = plan(etcd, broken, work)
    assert code == 1
    assert result["msg"].startswith("%s cannot be restored, so nothing was done: `" % broken)


def rewrite(snapshot, path, old, new):
    """A copy with other bytes and a checksum that fits."""
    data = snapshot.read_bytes()[:-32]
    assert old in data and len(old) == len(new)
    data = data.replace(old, new)
    path.write_bytes(data + hashlib.sha256(data).digest())
    return path


def test_damage_outside_the_keys_that_stops_an_etcd(version, tmp_path, work):
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
        code, result = plan(etcd, damaged, work, dest=tmp_path / "all.txt")
        assert compare(etcd, snapshot, work)["start"]["tested"]
    assert code == 1, result
    # `restore` of 3.4 reads them, too
    assert result["msg"].startswith("%s %s" % (damaged, "cannot be restored, so nothing was done: " if version == "3.4" else "does not start: etcd "))
    assert not (tmp_path / "all.txt").exists()


def test_authentication_is_enabled(version, tmp_path, work):
    """The certificate is that of a user; in the isolated etcd, which takes none, it counts as a start that it asks for one."""
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put("/registry/pods/default/a")
        # the name in the certificate of the tests
        for command in (
            ("user", "add", "root", "--new-user-password=x"), ("user", "grant-role", "root", "root"), ("user", "add", "localhost", "--new-user-password=x"),
            ("user", "grant-role", "localhost", "root"), ("auth", "enable"),
        ):
            etcd.etcdctl(*command)
        snapshot = etcd.save(tmp_path / "a.db")
        etcd.etcdctl("put", "/registry/pods/default/b", "x")
        found = compare(etcd, snapshot, work)
        assert told(found["vanish"]) == {("pods", "default"): (1, ["b"])}
        assert found["start"] == {"tested": True, "reason": None}
        # and one who is no user learns why not
        etcd.etcdctl("user", "delete", "localhost")
        code, result = plan(etcd, snapshot, work)
        found = result["comparison"]
    assert (code, found["compared"]) == (0, False)
    assert found["reason"].startswith("the live etcd does not answer (")
    assert (found["snapshot"]["total"], found["start"]["tested"]) == (1, True)


def test_leases_compaction_deletes_and_recreations(version, tmp_path, work):
    with harness.Etcd(version, tmp_path) as etcd:
        for name in "abcd":
            etcd.put("/registry/pods/default/" + name)
        lease = etcd.call("/v3/lease/grant", TTL=3600)["ID"]
        etcd.call("/v3/kv/put", key=b"/registry/events/default/leased", lease=lease)
        etcd.delete("/registry/pods/default/a")
        etcd.delete("/registry/pods/default/b")
        etcd.compact(etcd.put("/registry/pods/default/b", b"again"))
        snapshot = etcd.save(tmp_path / "a.db")
        nothing = compare(etcd, snapshot, work)
        etcd.call("/v3/lease/revoke", ID=lease)
        etcd.delete("/registry/pods/default/c")
        etcd.put("/registry/pods/default/c", b"again")
        etcd.put("/registry/pods/default/a", b"again")
        etcd.compact(etcd.put("/registry/pods/default/e"))
        found = compare(etcd, snapshot, work)
    assert [nothing[state]["count"] for state in ("vanish", "reappear", "change")] == [0, 0, 0]
    assert nothing["snapshot"]["total"] == nothing["live"]["total"] == 4
    assert told(found["vanish"]) == {("pods", "default"): (2, ["a", "e"])}
    assert told(found["reappear"]) == {("events", ""): (1, ["default/leased"])}
    assert told(found["change"]) == {("pods", "default"): (1, ["c"])}
    assert found["start"]["tested"]


def test_no_room(etcd, snapshot, later, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(small)], check=True)
    try:
        found = compare(etcd, snapshot, small)
        code, result = plan(etcd, later, small)
        left = list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert not found["start"]["tested"] and found["start"]["reason"].startswith("%s has " % small)
    assert (code, result["comparison"]["reason"]) == (0, result["comparison"]["start"]["reason"])
    assert left == []


def test_no_room_to_sort(version, tmp_path):
    """An etcd serves the snapshot then, where there is room for that."""
    with harness.Etcd(version, tmp_path, flags=["--unsafe-no-fsync"] if version != "3.4" else []) as etcd:
        etcd.put_all({"/registry/pods/%s/pod-%06d" % ("n" * 60, number): b"" for number in range(60000)})
        snapshot = etcd.save(tmp_path / "a.db")
        etcd.delete("/registry/pods/%s/pod-000000" % ("n" * 60))
        small = tmp_path / "small"
        small.mkdir()
        # what sorting leaves free is more than there is once the snapshot is restored
        for megabytes, tested in ((165 + 2 * snapshot.stat().st_size // 1000000, True), (100, False)):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % megabytes, "tmpfs", str(small)], check=True)
            try:
                code, result = plan(etcd, snapshot, small)
                left = list(small.iterdir())
            finally:
                subprocess.run(["umount", str(small)], check=True)
            found = result["comparison"]
            assert (code, found["compared"], found["start"]["tested"], left) == (0, tested, tested, []), found
            assert found["reappear"]["count"] == 1 if tested else "sorting the keys of the snapshot needs" in found["reason"]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_etcd_and_nothing_that_stays(etcd, later, tmp_path, sig):
    work = tmp_path / "work"
    work.mkdir()
    # it serves, and the live one is slow to answer
    slow = tmp_path / "etcdctl"
    slow.write_text('#!/bin/sh\ncase "$*" in *https://*status*) sleep 30;; esac\nexec %s "$@"\n' % (etcd.dir / "etcdctl"))
    slow.chmod(0o755)
    options = dict(etcd.connection, etcdctl=str(slow), snapshot=str(later), work_dir=str(work), etcd=str(etcd.dir / "etcd"), manifests_dir="/none")
    module = subprocess.Popen(
        [sys.executable, str(harness.ROOT / "plugins" / "modules" / "etcd_restore_plan.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(harness.COLLECTIONS), PYTHONDONTWRITEBYTECODE="1"),
    )
    module.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options}).encode())
    module.stdin.close()
    end = time.monotonic() + 30
    while not throwaways(work) and time.monotonic() < end:
        time.sleep(0.05)
    assert throwaways(work)
    time.sleep(1)
    module.send_signal(sig)
    module.wait(20)
    end = time.monotonic() + 5
    while throwaways(work) and time.monotonic() < end:
        time.sleep(0.05)
    assert throwaways(work) == []
    if sig == signal.SIGKILL:
        assert len(list(work.iterdir())) == 1
        compare(etcd, later, work)
    assert list(work.iterdir()) == []


def test_the_isolated_etcd_is_unreachable_and_reaches_no_network(etcd, later, tmp_path, work):
    spy = tmp_path / "etcdctl"
    seen = tmp_path / "seen"
    spy.write_text(
        '#!/bin/sh\ncase "$*" in *unix://*status*) for pid in $(pgrep -f "^k8s-dr-throwaway.*%s"); do\n'
        "cat /proc/$pid/net/tcp /proc/$pid/net/tcp6 /proc/$pid/net/dev > %s; ls -ld $(readlink /proc/$pid/cwd) > %s.dir\n"
        'cat /proc/$pid/oom_score_adj > %s.oom; done;; esac\nexec %s "$@"\n' % (work, seen, seen, seen, etcd.dir / "etcdctl")
    )
    spy.chmod(0o755)
    compare(etcd, later, work, etcdctl=spy)
    lines = seen.read_text().splitlines()
    assert len([line for line in lines if "sl " in line]) == 2
    # no socket, and no interface but its own loopback, which is down
    assert [line.split()[0] for line in lines if ":" in line] == ["lo:"]
    assert (tmp_path / "seen.dir").read_text().startswith("drwx------")
    # and it is the first to go when memory runs out
    assert (tmp_path / "seen.oom").read_text() == "1000\n"


def test_compaction_while_it_compares(version, tmp_path, work):
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put_all({"/registry/pods/default/pod-%05d" % number: b"" for number in range(3000)})
        snapshot = etcd.save(tmp_path / "a.db")
        # Between two pages of the live one (of 500 keys, since a key seems to hold much) everything moves on.
        etcd.put("/registry/large/default/one", b"x" * 1400000)
        for number in range(140):
            etcd.put("/registry/large/default/%d" % number, b"x" * 1400000)
        state = tmp_path / "state"
        state.write_text("")
        moving = tmp_path / "etcdctl"
        moving.write_text(
            '#!/bin/sh\nreal="%s %s"\ncase "$*" in *https://*keys-only*) echo >> %s; if [ $(wc -l < %s) = 3 ]; then\n'
            "$real put /registry/pods/default/zzz new; $real del /registry/pods/default/pod-00000\n"
            '$real compact "$($real put a b --write-out=fields | sed -n \'s/^"Revision" : //p\')"; fi >&2;; esac\nexec %s "$@"\n'
            % (
                etcd.dir / "etcdctl",
                " ".join(["--endpoints=" + etcd.endpoint] + ["--%s=%s" % item for item in etcd.pki.items()]),
                state,
                state,
                etcd.dir / "etcdctl",
            )
        )
        moving.chmod(0o755)
        found = compare(etcd, snapshot, work, etcdctl=moving)
    assert found["live"]["moved"]
    assert told(found["vanish"])["pods", "default"] == (1, ["zzz"])
    assert found["vanish"]["objects"] == 142


def test_a_hundred_thousand_keys_in_little_time_and_memory(version, tmp_path, work):
    with harness.Etcd(version, tmp_path, flags=["--unsafe-no-fsync"] if version != "3.4" else []) as etcd:
        etcd.put_all({"/registry/pods/namespace-%02d/pod-%06d" % (number % 40, number): b"x" * 300 for number in range(100000)})
        snapshot = etcd.save(tmp_path / "a.db")
        for number in range(0, 100000, 1000):
            etcd.delete("/registry/pods/namespace-%02d/pod-%06d" % (number % 40, number))
        found = compare(etcd, snapshot, work, names=100)
    assert found["reappear"]["count"] == 100
    assert found["snapshot"]["total"] == 100000
    assert found["seconds"] < 60, found["seconds"]


def test_a_key_with_a_nul_at_a_page_s_end(version, tmp_path, work):
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put_all({b"/registry/a\0%05d" % number: b"" for number in range(25000)})
        snapshot = etcd.save(tmp_path / "a.db")
        etcd.put(b"/registry/a\0zzz", b"")
        found = compare(etcd, snapshot, work)
    assert found["snapshot"]["total"] == 25000
    assert found["vanish"]["count"] == 1


