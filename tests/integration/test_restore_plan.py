# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore would delete, re-create and modify, of snapshots of real etcds."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import time

import harness
import pytest


@pytest.fixture
def work(tmp_path):
    """Where keys are sorted; nothing may be left in it."""
    directory = tmp_path / "work"
    directory.mkdir()
    yield directory
    assert list(directory.iterdir()) == []


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


def plan(live, snapshot, work, check_mode=False, limit=120, **options):
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


def test_what_only_an_etcd_can_read_is_not_compared(etcd, later, work):
    code, result = plan(etcd, later, work)
    found = result["comparison"]
    assert (code, found["compared"], found["snapshot"]) == (0, False, None)
    assert re.fullmatch("revision [0-9]+ of %s has a record that this collection does not understand" % re.escape(str(later)), found["reason"])


def test_a_live_etcd_that_does_not_answer(etcd, snapshot, work):
    port = harness.free_ports(1)[0]
    code, result = plan(etcd, snapshot, work, endpoint="https://127.0.0.1:%d" % port, timeout=2)
    found = result["comparison"]
    assert (code, found["compared"], found["vanish"], found["live"]) == (0, False, None, None)
    assert found["reason"].startswith("the live etcd does not answer (")
    assert found["snapshot"]["kinds"]["pods"] == 36


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


def test_time_that_is_over_is_no_failure(etcd, snapshot, work):
    """It is said what the snapshot holds."""
    slow, start = work.parent / "slow", time.monotonic()
    slow.write_text('#!/bin/sh\ncase "$*" in *keys-only*--limit=1\\ *) ;; *keys-only*) sleep 100;; esac\nexec %s "$@"\n' % (etcd.dir / "etcdctl"))
    slow.chmod(0o755)
    code, result = plan(etcd, snapshot, work, etcdctl=slow, compare_timeout=3)
    assert (code, result["comparison"]["reason"]) == (0, "it was not finished within 3 s")
    assert result["comparison"]["snapshot"]["kinds"]["pods"] == 36
    assert time.monotonic() - start < 20


def test_a_snapshot_that_cannot_be_read_is_not_compared(etcd, snapshot, work):
    """The verification before the plan refuses it; here it is no failure."""
    broken = harness.copy(snapshot, work.parent / "broken.db")
    with broken.open("r+b") as stream:
        stream.truncate(8192)
    code, result = plan(etcd, broken, work)
    assert (code, result["comparison"]["compared"], result["comparison"]["snapshot"]) == (0, False, None)
    assert str(broken) in result["comparison"]["reason"]


def test_authentication_is_enabled(version, tmp_path, work):
    """The certificate is that of a user."""
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
        # and one who is no user learns why not
        etcd.etcdctl("user", "delete", "localhost")
        code, result = plan(etcd, snapshot, work)
        found = result["comparison"]
    assert (code, found["compared"]) == (0, False)
    assert found["reason"].startswith("the live etcd does not answer (")
    assert found["snapshot"]["total"] == 1


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


def test_no_room_to_sort(version, tmp_path):
    with harness.Etcd(version, tmp_path, flags=["--unsafe-no-fsync"] if version != "3.4" else []) as etcd:
        etcd.put_all({"/registry/pods/%s/pod-%06d" % ("n" * 60, number): b"" for number in range(60000)})
        snapshot = etcd.save(tmp_path / "a.db")
        etcd.delete("/registry/pods/%s/pod-000000" % ("n" * 60))
        small = tmp_path / "small"
        small.mkdir()
        for megabytes, compared in ((200, True), (100, False)):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % megabytes, "tmpfs", str(small)], check=True)
            try:
                code, result = plan(etcd, snapshot, small)
                left = list(small.iterdir())
            finally:
                subprocess.run(["umount", str(small)], check=True)
            found = result["comparison"]
            assert (code, found["compared"], left) == (0, compared, []), found
            assert found["reappear"]["count"] == 1 if compared else "sorting the keys of the snapshot needs" in found["reason"]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing_that_stays(etcd, snapshot, tmp_path, sig):
    work = tmp_path / "work"
    work.mkdir()
    slow = tmp_path / "etcdctl"
    slow.write_text('#!/bin/sh\ncase "$*" in *status*) sleep 30;; esac\nexec %s "$@"\n' % (etcd.dir / "etcdctl"))
    slow.chmod(0o755)
    options = dict(etcd.connection, etcdctl=str(slow), snapshot=str(snapshot), work_dir=str(work), manifests_dir="/none")
    module = harness.start_module("etcd_restore_plan", **options)
    harness.wait_for(lambda: list(work.iterdir()))
    time.sleep(1)
    module.send_signal(sig)
    module.stdout.read()
    module.wait(20)
    if sig == signal.SIGKILL:
        assert len(list(work.iterdir())) == 1
        compare(etcd, snapshot, work)
    assert list(work.iterdir()) == []


def test_compaction_while_it_compares(version, tmp_path, work):
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put_all({"/registry/pods/default/pod-%05d" % number: b"" for number in range(45000)})
        snapshot = etcd.save(tmp_path / "a.db")
        # Between two windows of the live one (up to 3.6 of 500 keys, since a key seems to hold much) everything moves on.
        etcd.put("/registry/large/default/one", b"x" * 1400000)
        for number in range(140):
            etcd.put("/registry/large/default/%d" % number, b"x" * 1400000)
        state = tmp_path / "state"
        state.write_text("")
        moving = tmp_path / "etcdctl"
        moving.write_text(
            '#!/bin/sh\nreal="%s %s"\ncase "$*" in *https://*keys-only*) echo >> %s; if [ $(wc -l < %s) -ge 3 ] && mkdir %s.d; then\n'
            "$real put /registry/pods/default/zzz new; $real del /registry/pods/default/pod-00000\n"
            '$real compact "$($real put a b --write-out=fields | sed -n \'s/^"Revision" : //p\')"; fi >&2;; esac\nexec %s "$@"\n'
            % (
                etcd.dir / "etcdctl",
                " ".join(["--endpoints=" + etcd.endpoint] + ["--%s=%s" % item for item in etcd.pki.items()]),
                state,
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


