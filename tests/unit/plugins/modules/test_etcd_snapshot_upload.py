# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots of a directory need not be uploaded again."""

from __future__ import annotations

import hashlib
import json
import types
from unittest import mock

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import retention
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError, Refused
from ansible_collections.k8s_dr.etcd.plugins.modules import etcd_snapshot_upload

NAME = "etcd-cp1-20260102T030405Z.db"
NEWER = "etcd-cp1-20260103T030405Z.db"
ENTRY = {"file": NAME, "size": 10, "created": "2026-01-02T03:04:05Z", "off_site": [{"remote": "far:backups", "file": NAME}]}
WHOLE = {NAME: 10, NAME + ".json": 500}


FAR = types.SimpleNamespace(where="far:backups")


def stays(sizes, found=(), entry=ENTRY):
    """found: what a list says, or the exception that it raises."""
    with mock.patch.object(etcd_snapshot_upload.remote_snapshots, "list_snapshots", side_effect=[found]):
        failed = etcd_snapshot_upload.failed_there(etcd_snapshot_upload.described_there(FAR, sizes, [entry], {}))
    return etcd_snapshot_upload.stays_away(entry, FAR, sizes, failed, etcd_snapshot_upload.newest_there(sizes))


def test_a_copy_that_is_correct():
    assert stays(WHOLE, [{"file": NAME, "levels": {"checksum": {"ok": True}}}])
    # what was never noted has to be looked at
    assert not stays(WHOLE, entry=dict(ENTRY, off_site=[]))
    # unreadable manifests keep nothing here, and upload nothing
    assert stays(WHOLE, RcloneError("no route", "unreachable"))


def test_a_copy_that_is_wrong():
    assert not stays(dict(WHOLE, **{NAME: 9}))
    assert not stays({NAME: 10})
    assert not stays(WHOLE, [{"file": NAME, "levels": {"checksum": {"ok": False, "at": "", "problem": ""}}}])


def test_a_copy_that_is_missing():
    assert not stays({})
    assert not stays({NAME + ".json": 500})
    # as retention removes it
    assert stays({NEWER: 10})


def snapshot(day, path="/b/", **more):
    name = "etcd-cp1-202601%02dT030405Z.db" % day
    found = {"file": name, "path": path + name, "created": "2026-01-%02dT03:04:05Z" % day, "verified": True, "host": "cp1", "fingerprints": {"etcd_ca": "aa"}}
    return dict(found, **more)


def surplus(there, others, keep, first=()):
    found = etcd_snapshot_upload.surplus_there([snapshot(day, "far:") for day in there], list(first), others, retention.rules(keep))
    return sorted(int(name[15:17]) for name in found)


def test_a_gap_is_filled_with_what_the_place_would_keep():
    others = [snapshot(day) for day in (3, 4, 5, 6)]
    # it was away for four nights, and this is the fifth
    assert surplus([1, 2], others, 3, [snapshot(7)]) == [3, 4]
    assert surplus([1, 2], others, {"daily": 5}, [snapshot(7)]) == []
    # older ones fill no gap where newer ones are there
    assert surplus([7, 8, 9], others, 3) == [3, 4, 5, 6]
    assert surplus([], others, 0) == []
    # what is there already is not judged here
    assert surplus([3, 4, 5, 6], others, 1) == []


def test_a_held_snapshot_fills_a_gap_whatever_its_age():
    assert surplus([7, 8], [snapshot(1, hold={"by": "alice"}), snapshot(2)], 2) == [2]


def test_the_hold_of_a_copy_stays_as_it_is_there(tmp_path):
    path = tmp_path / NAME
    local = dict(snapshot(2), format=1, sha256="0" * 64, size=4, hash=None, revision=5, hold={"by": "alice"})
    (tmp_path / (NAME + ".json")).write_text(json.dumps(local))
    there = Manifest(local).with_hold({})
    assert etcd_snapshot_upload.manifest_to_send(str(path), None).values == local
    assert etcd_snapshot_upload.manifest_to_send(str(path), Manifest(local)).values == local
    assert etcd_snapshot_upload.manifest_to_send(str(path), there).hold == {}
    assert etcd_snapshot_upload.manifest_to_send(str(path), there.with_hold({"by": "bob"})).hold == {"by": "bob"}


def test_a_file_there_that_may_not_be_read_keeps_no_other_here(monkeypatch):
    """As where a bucket encrypts with SSE-KMS, and the account may not decrypt."""
    entries = [snapshot(day, size=4, sha256="0" * 64, level="status") for day in (1, 2)]
    sizes = {entries[0]["file"]: 4}
    remote = types.SimpleNamespace(
        where="far:backups",
        path="far:backups/{}".format,
        names=lambda dummy=None, missing_ok=False: sizes,
        rclone=types.SimpleNamespace(config_warning=lambda: None),
        mount=lambda: None,
    )

    def upload(dummy, there, entry, step, *_more):
        assert step == ("manifest" if entry["file"] in sizes else "all")
        if entry["file"] in denied:
            raise RcloneError("%s cannot be read: access was refused" % entry["file"], "denied")
        return etcd_snapshot_upload.describe(there, entry)

    def run():
        params = dict.fromkeys(("rclone_config", "rclone", "timeout", "retries", "bwlimit", "object_lock_days"), None)
        module = types.SimpleNamespace(params=dict(params, remote="far:backups", keep=0), check_mode=False)
        result = {"uploaded": [], "present": []}
        with pytest.raises((Refused, RcloneError)) as caught:
            etcd_snapshot_upload.run(module, result)
        return str(caught.value), [one["file"] for one in result["uploaded"]], result["waiting"]

    monkeypatch.setattr(etcd_snapshot_upload, "stored_here", lambda dummy: (None, entries, None, None))
    monkeypatch.setattr(etcd_snapshot_upload.remote_store, "Remote", lambda *_args, **_more: remote)
    monkeypatch.setattr(etcd_snapshot_upload, "upload", upload)
    first, second = (entry["file"] for entry in entries)
    denied = [first]
    assert run() == (first + " cannot be read: access was refused", [second], [entries[0]["path"]])
    # what is not there yet would fail for all
    denied = [second]
    entries.reverse()
    assert run() == (second + " cannot be read: access was refused", [], [entries[0]["path"], entries[1]["path"]])


def test_what_a_failed_run_left_is_sent_again_unless_it_is_locked(tmp_path, monkeypatch):
    entry, sizes, locked = local(tmp_path, 2), {}, {}
    entry.update(path=str(tmp_path / entry["file"]), sha256=hashlib.sha256(b"data").hexdigest())
    (tmp_path / (entry["file"] + ".json")).write_text(json.dumps(entry))
    there = Manifest(entry)
    sent = []
    remote = types.SimpleNamespace(
        where="far:backups",
        path="far:backups/{}".format,
        check=lambda *_args: (None, "md5"),
        put=lambda *_args, **_more: sent.append(entry["file"]) or {"verified_by": "md5"},
        lock_problem=lambda name, since: None if locked.get(name) or since != 1767323045 else "does not protect it",
    )

    def put_manifest(dummy, name, dummy_manifest, dummy_names, manifest):
        if manifest is None:
            sent.append(name + ".json")

    def run(step, *names, **noted):
        del sent[:]
        locked.clear()
        locked.update(dict.fromkeys(names, True))
        module = types.SimpleNamespace(params={"verify": "auto", "progress": None})
        etcd_snapshot_upload.upload(module, remote, dict(entry, **noted), step, None if step == "manifest" else there, sizes)
        return sent

    monkeypatch.setattr(etcd_snapshot_upload.remote_snapshots, "put_manifest", put_manifest)
    monkeypatch.setattr(etcd_snapshot_upload, "note", lambda *_args: None)
    name, manifest = entry["file"], entry["file"] + ".json"
    for step in ("levels", "note"):
        assert run(step) == [name, manifest]
        assert run(step, manifest) == [name]
        assert run(step, name) == [manifest]
        assert run(step, name, manifest) == []
        # it was checked then
        assert run(step, off_site=[{"remote": "far:backups", "file": name}]) == []
    assert run("manifest") == [name, manifest]
    assert run("manifest", name) == [manifest]


class Signers:
    """Accepts what has a signature."""

    def problem(self, manifest, where):
        return None if manifest.values.get("signature") else "%s is not signed" % where


def local(directory, day, **more):
    """A snapshot there, with its manifest."""
    known = snapshot(day, str(directory) + "/", format=1, sha256="0" * 64, size=4, hash=None, revision=5, level="status", **more)
    (directory / known["file"]).write_bytes(b"data")
    (directory / (known["file"] + ".json")).write_text(json.dumps(known))
    return known


def test_what_no_signer_signed_fills_no_gap(tmp_path, monkeypatch):
    monkeypatch.setattr(etcd_snapshot_upload.signature, "signers_of", lambda lines: Signers() if lines else None)
    local(tmp_path, 1, signature={"ssh": "good"})
    local(tmp_path, 2)
    named = tmp_path / local(tmp_path, 3)["file"]
    options = {"path": str(named), "directory": str(tmp_path), "signers": ["a key"]}
    first, others, signers, trouble = etcd_snapshot_upload.stored_here(options)
    # what was just taken is uploaded all the same, and counts for nothing
    assert first["path"] == str(named) and not first["verified"] and signers and trouble is None
    assert [entry["file"] for entry in others] == [snapshot(1)["file"]]
    assert surplus([], others, 1, [first]) == []
    first, others, signers, trouble = etcd_snapshot_upload.stored_here(dict(options, signers=[]))
    assert first["verified"] and len(others) == 2 and signers is None and trouble is None


def test_what_was_just_taken_is_uploaded_whatever_is_wrong_with_the_signers(tmp_path):
    named = tmp_path / local(tmp_path, 3)["file"]
    local(tmp_path, 2)
    first, others, signers, trouble = etcd_snapshot_upload.stored_here({"path": str(named), "directory": str(tmp_path), "signers": ["no line"]})
    assert first["path"] == str(named) and others == [] and signers is None
    assert trouble.startswith("earlier snapshots were not uploaded: line 1 of `signers` is not CLUSTER")


def test_a_forgery_there_keeps_nothing_here():
    there = [dict(snapshot(2, "far:"), verified=False), dict(snapshot(9, "far:"), verified=False)]
    with mock.patch.object(etcd_snapshot_upload.remote_snapshots, "list_snapshots", return_value=there):
        # what is gone there matters as well: a forgery may be newer
        assert etcd_snapshot_upload.described_there(FAR, {}, [ENTRY], {}, Signers()) == there
    failed = etcd_snapshot_upload.failed_there(there, Signers())
    assert failed == {NAME, snapshot(9)["file"]} and etcd_snapshot_upload.failed_there(there) == set()
    assert not etcd_snapshot_upload.stays_away(ENTRY, FAR, WHOLE, failed, "")


def test_a_manifest_there_without_its_signature_is_replaced(tmp_path):
    signed = Manifest(local(tmp_path, 2, signature={"ssh": "good"}))
    unsigned = Manifest(local(tmp_path, 2))
    remote = types.SimpleNamespace(where="far:backups", path="far:backups/{}".format)
    entry = dict(signed.values, off_site=ENTRY["off_site"], verified=True)
    for there, verified, signers, step in (
        (unsigned, True, Signers(), "manifest"),
        (signed, True, Signers(), "nothing"),
        (unsigned, False, Signers(), "nothing"),
        (unsigned, True, None, "nothing"),
    ):
        with mock.patch.object(etcd_snapshot_upload.remote_snapshots, "read_manifest", return_value=there):
            assert etcd_snapshot_upload.find(remote, dict(entry, verified=verified), {NAME: 4, NAME + ".json": 500}, signers) == (step, there)
