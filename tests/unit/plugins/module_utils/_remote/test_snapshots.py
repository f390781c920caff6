# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots in off-site storage."""

from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import snapshots as remote_snapshots, store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import manifest as snapshot_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import latest_verified
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError

NAME = "etcd-cp1-20260102T030405Z.db"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def test_listing_says_which_snapshots_are_verified(far):
    store, remote = far.store, far.remote
    older, cut, bare, gone = ("etcd-cp1-2026010%dT030405Z.db" % day for day in (1, 3, 4, 5))
    far.add()
    far.add(name=older, created="2026-01-01T03:04:05Z")
    far.add(name=cut, created="2026-01-03T03:04:05Z")
    (store / cut).write_bytes(b"sn")
    (store / bare).write_bytes(b"snapshot")
    far.add(name=gone, created="2026-01-05T03:04:05Z")
    (store / gone).unlink()
    (store / "etcd-x.db.json").write_text("{")
    (store / "notes.txt").write_text("mine")
    entries = remote_snapshots.list_snapshots(remote)
    assert [entry["file"] for entry in entries[:4]] == [gone, cut, NAME, older]
    assert {entry["file"] for entry in entries[4:]} == {bare, "etcd-x.db"}
    by_name = {entry["file"]: entry for entry in entries}
    assert [name for name, entry in by_name.items() if entry["verified"]] == [NAME, older]
    assert "has 2 bytes" in by_name[cut]["problem"] and "has no manifest" in by_name[bare]["problem"]
    assert "is gone" in by_name[gone]["problem"] and "is not JSON" in by_name["etcd-x.db"]["problem"]
    assert by_name[NAME]["path"] == "far:" + NAME and by_name[NAME]["remote"] == "far:"
    assert latest_verified(entries) == "far:" + NAME
    # without what names every object
    brief = remote_snapshots.list_snapshots(remote, brief=True)
    assert brief == [{name: value for name, value in entry.items() if name != "inventory"} for entry in entries]


def test_a_place_that_does_not_exist_yet_holds_no_snapshots(far):
    remote = remote_store.Remote("far:new", binary=far.remote.rclone.binary)
    assert remote_snapshots.list_snapshots(remote) == []
    with pytest.raises(RcloneError, match="cannot be listed"):
        remote_snapshots.list_snapshots(remote, missing_ok=False)


def test_removing_twice_is_removing_once(far):
    far.add()
    for dummy in range(2):
        remote_snapshots.remove(far.remote, NAME)
        assert list(far.store.iterdir()) == []


def test_a_manifest_is_read_alone(far):
    store, remote = far.store, far.remote
    assert remote_snapshots.read_manifest(remote, NAME) is None
    far.add()
    assert remote_snapshots.read_manifest(remote, NAME).sha256 == digest(b"snapshot")
    (store / (NAME + ".json")).write_text("[]")
    with pytest.raises(snapshot_manifest.ManifestError, match="^far:" + NAME):
        remote_snapshots.read_manifest(remote, NAME)


LEVELS = {"checksum": {"at": "2026-01-03T03:04:05Z", "ok": True, "seconds": 0.1, "problem": None}}


def test_a_result_is_recorded_off_site(far):
    store, remote = far.store, far.remote
    far.configure(far={"type": "s3"})
    far.add()
    sha256 = digest(b"snapshot")
    before = (store / (NAME + ".json")).read_bytes()
    remote_snapshots.note(remote, NAME, sha256, LEVELS, check_mode=True)
    with pytest.raises(snapshot_manifest.ManifestError, match="was replaced meanwhile"):
        remote_snapshots.note(remote, NAME, digest(b"another"), LEVELS)
    assert (store / (NAME + ".json")).read_bytes() == before
    remote_snapshots.note(remote, NAME, sha256, LEVELS)
    found = remote_snapshots.read_manifest(remote, NAME)
    assert (found.levels, found.values["level"], found.sha256) == (LEVELS, "checksum", sha256)


def names(far):
    return sorted(path.name for path in far.store.iterdir())


def test_results_go_beside_what_is_there(far):
    remote, sha256 = far.remote, digest(b"snapshot")
    far.add()
    manifest = (far.store / (NAME + ".json")).read_bytes()
    for number in (1, 2):
        remote_snapshots.note(remote, NAME, sha256, {"drill": {"ok": True, "seconds": number}})
        # the one before is removed
        assert names(far) == [NAME, "%s.%d.note" % (NAME, number), NAME + ".json"]
    assert (far.store / (NAME + ".json")).read_bytes() == manifest
    (far.store / (NAME + ".2.note")).rename(far.store / (NAME + ".10.note"))
    remote_snapshots.note(remote, NAME, sha256, {"drill": {"ok": True, "seconds": 11}})
    # where nothing can be removed the newest of them counts, by its number
    (far.store / (NAME + ".9.note")).write_text(json.dumps({"sha256": sha256, "levels": {"drill": {"ok": False}}}))
    for found in (remote_snapshots.read_manifest(remote, NAME).values, remote_snapshots.list_snapshots(remote)[0]):
        assert found["levels"] == {"drill": {"ok": True, "seconds": 11}} and found["file"] == NAME
    # nor does one count that did not arrive whole, or that is about another file
    (far.store / (NAME + ".12.note")).write_text('{"sha256": ')
    (far.store / (NAME + ".13.note")).write_text("[]")
    (far.store / (NAME + ".14.note")).write_text(json.dumps({"sha256": "0" * 64}))
    (entry,) = remote_snapshots.list_snapshots(remote)
    assert entry["levels"] == {"drill": {"ok": True, "seconds": 11}}
    remote_snapshots.remove(remote, NAME)
    assert names(far) == []


def write_note(far, number, sha256=None, **recorded):
    (far.store / ("%s.%d.note" % (NAME, number))).write_text(json.dumps(dict(recorded, sha256=sha256 or digest(b"snapshot"))))


def test_there_are_not_endless_notes(far):
    far.add()
    for number in range(1, 101):
        write_note(far, number)
    far.plan(["deletefile", "error", ["AccessDenied: Access Denied, status code: 403"]])
    with pytest.raises(RcloneError, match="has 100 notes beside it, and the oldest cannot be removed: deletes are forbidden"):
        remote_snapshots.note(far.remote, NAME, digest(b"snapshot"), LEVELS)
    assert len(names(far)) == 102
    # what could not be removed when it was written may be by now
    remote_snapshots.note(far.remote, NAME, digest(b"snapshot"), LEVELS)
    assert names(far) == [NAME, NAME + ".101.note", NAME + ".json"]


HOLD = {"reason": "mine", "by": "alice", "at": "2026-01-03T03:04:05Z"}
FAILED = {"restore": {"at": "2026-01-03T03:04:05Z", "ok": False, "seconds": 0.1, "problem": "it is damaged"}}


def test_a_snapshot_whose_note_cannot_be_read_is_not_relied_on(far):
    far.add()
    write_note(far, 1, hold=HOLD)
    # the manifests come, and the note does not, when it is asked for again either
    denied = ["copy", "deny", [NAME + ".1.note"]]
    far.plan(["copy", "go"], denied, denied)
    (entry,) = remote_snapshots.list_snapshots(far.remote)
    assert not entry["verified"] and "created" not in entry and "what is recorded of it cannot be read: access was refused" in entry["problem"]
    far.plan(["copy", "go"], denied)
    (entry,) = remote_snapshots.list_snapshots(far.remote)
    assert entry["verified"] and entry["hold"] == HOLD
    far.plan(["cat", "go"], *[["cat", "error", ["AccessDenied: Access Denied, status code: 403"]]] * 3)
    with pytest.raises(RcloneError, match="access was refused"):
        remote_snapshots.read_manifest(far.remote, NAME)


def test_a_note_that_is_replaced_while_it_is_read_is_not_missed(far):
    far.add()
    write_note(far, 1, hold=HOLD)
    far.plan(["copy", "go"], ["copy", "replace", NAME + ".1.note", NAME + ".2.note"])
    (entry,) = remote_snapshots.list_snapshots(far.remote)
    assert entry["verified"] and entry["hold"] == HOLD and far.planned() == []
    before = far.remote.names()
    (far.store / (NAME + ".2.note")).rename(far.store / (NAME + ".3.note"))
    assert remote_snapshots.read_manifest(far.remote, NAME, before).hold == HOLD


def test_a_note_that_is_too_long_does_not_count(far):
    far.add()
    write_note(far, 1, hold=HOLD)
    for number in (2, 3, 4):
        (far.store / ("%s.%d.note" % (NAME, number))).write_bytes(b" " * (1024 * 1024 + 1))
    assert remote_snapshots.list_snapshots(far.remote)[0]["hold"] == HOLD
    assert remote_snapshots.read_manifest(far.remote, NAME).hold == HOLD
    remote_snapshots.note(far.remote, NAME, digest(b"snapshot"), LEVELS)
    assert names(far) == [NAME, NAME + ".5.note", NAME + ".json"]


def test_of_many_notes_only_the_newest_are_got(far):
    far.add()
    for number in range(1, 10):
        write_note(far, number, hold=dict(HOLD, reason=str(number)))
    asked, get_named = [], far.remote.get_named
    far.remote.get_named = lambda wanted, *args: asked.extend(wanted) or get_named(wanted, *args)
    (entry,) = remote_snapshots.list_snapshots(far.remote)
    assert entry["hold"]["reason"] == "9" and asked == [NAME + ".9.note", NAME + ".8.note"]
    assert [argv[0] for argv, _environment in far.calls()].count("copy") == 2


def test_what_is_recorded_at_the_same_time_replaces_nothing(far):
    far.add()
    remote, sha256, put = far.remote, digest(b"snapshot"), far.remote.put
    others = [{"drill": {"ok": True, "seconds": 1}}, {"drill": {"ok": True, "seconds": 2}}, {"drill": {"ok": True, "seconds": 3}}]

    def replaced(*args, **options):
        put(*args, **options)
        if others:
            (far.store / options["name"]).write_text(json.dumps({"sha256": sha256, "levels": others.pop(0)}))

    remote.put = replaced
    with pytest.raises(RcloneError, match="at the same time"):
        remote_snapshots.note(remote, NAME, sha256, hold=HOLD)
    remote_snapshots.note(remote, NAME, sha256, hold=HOLD)
    found = remote_snapshots.read_manifest(remote, NAME)
    assert found.hold == HOLD and found.levels == {"drill": {"ok": True, "seconds": 3}}


def test_a_snapshot_that_seems_gone_is_not_removed(far):
    far.add()
    remote, listed = far.remote, far.remote.names
    answers = iter([None, NAME])

    def seen(*args, **options):
        sizes, hidden = listed(*args, **options), next(answers, None)
        return {name: size for name, size in sizes.items() if name != hidden}

    remote.names = seen
    with pytest.raises(snapshot_manifest.ManifestError, match="is gone"):
        remote_snapshots.note(remote, NAME, digest(b"snapshot"), LEVELS)
    assert names(far) == [NAME]


def test_in_a_directory_nothing_stays_beside_the_manifest(far):
    far.add()
    remote = remote_store.Remote(str(far.store), binary=far.remote.rclone.binary)
    sha256, there = digest(b"snapshot"), remote_snapshots.read_manifest(remote, NAME)
    remote_snapshots.put_manifest(remote, NAME, there.with_levels(LEVELS), names(far), there)
    assert names(far) == [NAME, NAME + ".json"]
    remote_snapshots.note(remote, NAME, sha256, FAILED)
    remote_snapshots.note(remote, NAME, sha256, hold=HOLD)
    (entry,) = remote_snapshots.list_snapshots(remote)
    assert entry["hold"] == HOLD and entry["levels"] == dict(LEVELS, **FAILED) and not entry["verified"]
    # one that came through SFTP counts until something is recorded here, which has it too
    write_note(far, 3, hold=dict(HOLD, reason="other"), levels=LEVELS)
    assert remote_snapshots.list_snapshots(remote)[0]["hold"]["reason"] == "other"
    remote_snapshots.note(remote, NAME, sha256, {"drill": {"ok": True, "seconds": 1}})
    assert names(far) == [".lock", NAME, NAME + ".json"]
    found = remote_snapshots.read_manifest(remote, NAME)
    assert found.hold["reason"] == "other" and set(found.levels) == {"checksum", "restore", "drill"}
    write_note(far, 4, levels=FAILED)
    remote_snapshots.put_manifest(remote, NAME, there, names(far), remote_snapshots.read_manifest(remote, NAME))
    assert names(far) == [".lock", NAME, NAME + ".json"] and remote_snapshots.read_manifest(remote, NAME).levels == {}


def test_a_manifest_that_says_the_same_is_not_sent_again(far):
    store, remote = far.store, far.remote
    far.add()
    there = remote_snapshots.read_manifest(remote, NAME)
    before = names(far)
    remote_snapshots.put_manifest(remote, NAME, there, before, there)
    assert names(far) == before
    remote_snapshots.put_manifest(remote, NAME, there.with_levels(LEVELS), before, there)
    assert names(far) == [NAME, NAME + ".1.note", NAME + ".json"]
    assert remote_snapshots.read_manifest(remote, NAME).levels == LEVELS
    # one that lost its signature is, and a note about what was there before does not outlast it
    signed = snapshot_manifest.Manifest(dict(there.values, signature={"statement": "x"}))
    remote_snapshots.put_manifest(remote, NAME, signed, names(far), remote_snapshots.read_manifest(remote, NAME))
    found = remote_snapshots.read_manifest(remote, NAME)
    assert found.values["signature"] and found.levels == {} and json.loads((store / (NAME + ".json")).read_bytes())["signature"]


def test_one_run_asks_for_the_locks_of_all(far):
    names = [NAME.replace("02T", "%02dT" % day) for day in range(1, 6)]
    for name in names:
        far.add(name=name)
    # one begins as another one does, and one belongs to none that is asked for
    longer = names[0] + ".zst"
    far.add(name=longer)
    locks = {name: "2026-02-0%dT00:00:00Z" % number for number, name in enumerate(names[:3], 1)}
    far.lock(**{names[1] + ".json": "2026-02-09T00:00:00Z", longer: "2026-02-08T00:00:00Z"}, **locks)

    def asked(**sections):
        far.configure(**sections)
        far.remote.names()
        before = len(far.calls())
        found = remote_snapshots.locked_until(far.remote, [*names[:2], names[4]])
        return found, sum("--dump=headers" in call[0] for call in far.calls()[before:])

    assert asked(far={"type": "s3"}) == ({names[0]: "2026-02-01T00:00:00Z", names[1]: "2026-02-09T00:00:00Z"}, 1)
    # there S3 has other names
    found, runs = asked(far={"type": "crypt", "remote": "below:"}, below={"type": "s3"})
    assert found[names[1]] == "2026-02-09T00:00:00Z" and names[4] not in found and runs == 3
    before = len(far.calls())
    assert remote_snapshots.locked_until(far.remote, []) == {} and len(far.calls()) == before


def test_a_version_whose_manifest_cannot_be_read_hides_no_other(far):
    far.configure(far={"type": "s3"})
    other = NAME.replace("02T", "01T")
    far.add()
    far.add(name=other)
    far.plan(["copy", "lack", [NAME + ".json"]])
    found = remote_snapshots.list_versions(far.remote)
    assert {one["file"]: one["problem"] for one in found} == {other: None, NAME: "far:%s cannot be relied on: its manifest cannot be read" % NAME}
    far.plan(["copy", "lack", [NAME + ".json", other + ".json"]])
    with pytest.raises(RcloneError, match="the manifests in far: cannot be read"):
        remote_snapshots.list_versions(far.remote)


def test_a_lock_is_that_of_the_file_that_is_locked_longest(far):
    far.add()
    remote_snapshots.note(far.remote, NAME, digest(b"snapshot"), LEVELS)
    locks = {NAME: "2026-02-01T00:00:00Z", NAME + ".1.note": "2026-02-03T00:00:00.000Z", NAME + ".json": "2026-02-02T00:00:00Z"}
    locks["other"] = "2027-01-01T00:00:00Z"
    far.lock(**locks)
    # of anything but S3 nothing is asked
    assert remote_snapshots.locked_until(far.remote, [NAME]) == {}
    far.configure(far={"type": "s3"})
    assert remote_snapshots.locked_until(far.remote, [NAME]) == {NAME: "2026-02-03T00:00:00Z"}
    far.lock()
    assert remote_snapshots.locked_until(far.remote, [NAME]) == {}
    (far.store / "etcd-cp1-20260102T030405Z-v2026-01-02-030405-000.db").write_bytes(b"an older version")
    remote_snapshots.remove(far.remote, NAME, versions=True)
    assert names(far) == []


def test_a_snapshot_that_was_removed_meanwhile_is_not_recreated(far):
    store, remote = far.store, far.remote
    far.configure(far={"type": "s3"})
    far.add()
    (store / NAME).unlink()
    with pytest.raises(snapshot_manifest.ManifestError, match="is gone"):
        remote_snapshots.note(remote, NAME, digest(b"snapshot"), LEVELS)
    assert names(far) == [NAME + ".json"]
    (store / (NAME + ".json")).unlink()
    with pytest.raises(snapshot_manifest.ManifestError, match="no manifest any more"):
        remote_snapshots.note(remote, NAME, digest(b"snapshot"), LEVELS)


def test_a_hold_is_noted_and_released_off_site(far):
    store, remote = far.store, far.remote
    far.configure(far={"type": "s3"})
    far.add()
    sha256, hold = digest(b"snapshot"), {"reason": "mine", "by": "alice", "at": "2026-01-03T03:04:05Z"}
    before = (store / (NAME + ".json")).read_bytes()
    remote_snapshots.note(remote, NAME, sha256, check_mode=True, hold=hold)
    assert (store / (NAME + ".json")).read_bytes() == before
    remote_snapshots.note(remote, NAME, sha256, hold=hold)
    remote_snapshots.note(remote, NAME, sha256, LEVELS)
    found = remote_snapshots.read_manifest(remote, NAME)
    assert found.hold == hold and found.levels == LEVELS
    remote_snapshots.note(remote, NAME, sha256, hold={})
    assert "hold" not in remote_snapshots.read_manifest(remote, NAME).values
