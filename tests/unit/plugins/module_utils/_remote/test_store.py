# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is made of rclone's words and answers; tests/integration/test_upload.py has the real one."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import manifest as snapshot_manifest

# An rclone that keeps what is in `far:` in the directory STORE, and does what PLAN says before.
FAKE = r"""#!%s
import json, os, shutil, sys, time
store, argv = os.environ["STORE"], sys.argv[1:]
with open(store + ".calls", "a") as calls:
    calls.write(json.dumps([argv, sorted(n for n in os.environ if n.startswith("RCLONE_"))]) + "\n")
options = [one for one in argv if one.startswith("--")]
plain = [one for one in argv[1:] if not one.startswith("--")]
offset = next((int(one.split("=")[1]) for one in options if one.startswith("--offset=")), 0)
def there(name):
    return os.path.join(store, name[4:].lstrip("/")) if name.startswith("far:") else name
def die(code, *words):
    for word in words:
        sys.stderr.write(json.dumps({"level": "error", "msg": word}) + "\n")
    sys.exit(code)
plan = store + ".plan"
steps = json.load(open(plan)) if os.path.exists(plan) else []
step = next((one for one in steps if one[0] == argv[0]), None)
if step:
    steps.remove(step)
    json.dump(steps, open(plan, "w"))
    if step[1] == "hang":
        time.sleep(60)
    if step[1] == "error":
        die(1, *step[2])
if argv[0] == "lsjson":
    path = there(plain[0])
    def item(one):
        return {"Name": os.path.basename(one), "Size": os.path.getsize(one), "IsDir": os.path.isdir(one)}
    if "--stat" in options:
        print(json.dumps(item(path) if os.path.exists(path) else {"Name": "x", "Size": -1, "IsDir": True}))
    elif not os.path.isdir(path):
        die(3, "error listing: directory not found")
    else:
        print(json.dumps([item(os.path.join(path, one)) for one in os.listdir(path)]))
elif argv[0] == "copyto":
    shutil.copyfile(plain[0], there(plain[1]))
    if step and step[1] == "damage":
        with open(there(plain[1]), "r+b") as stream:
            stream.write(b"X")
    sys.stderr.write(json.dumps({"level": "notice", "msg": "", "stats": {"bytes": 3}}) + "\n")
elif argv[0] == "copy":
    for one in os.listdir(there(plain[0])):
        if one.startswith("etcd-") and one.endswith(".json"):
            shutil.copyfile(os.path.join(there(plain[0]), one), os.path.join(plain[1], one))
elif argv[0] == "cat":
    with open(there(plain[0]), "rb") as stream:
        stream.seek(offset)
        data = stream.read()
    if step and step[1] == "break":
        sys.stdout.buffer.write(data[: step[2]])
        sys.stdout.flush()
        die(1, "read tcp 127.0.0.1: connection reset by peer")
    sys.stdout.buffer.write(data)
elif argv[0] == "deletefile":
    if not os.path.exists(there(plain[0])):
        die(4, "far: object not found")
    os.unlink(there(plain[0]))
elif argv[0] == "config":
    print(open(store + ".conf").read() if os.path.exists(store + ".conf") else '{"far": {"type": "memory"}}')
else:
    die(1, "unknown command")
"""
NAME = "etcd-cp1-20260102T030405Z.db"


@pytest.fixture
def far(tmp_path, monkeypatch):
    store = tmp_path / "store"
    store.mkdir()
    program = tmp_path / "rclone"
    program.write_text(FAKE % sys.executable)
    program.chmod(0o755)
    monkeypatch.setenv("STORE", str(store))
    monkeypatch.setenv("RCLONE_CONFIG_FAR_TYPE", "local")
    return store, remote_store.Remote("far:", binary=str(program), retry_sleep=0)


def plan(store, *steps):
    (store.parent / "store.plan").write_text(json.dumps(steps))


def calls(store):
    return [json.loads(line) for line in (store.parent / "store.calls").read_text().splitlines()]


def manifest(data, **changes):
    found = {"format": 1, "file": NAME, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "hash": None, "revision": 7, "verified": True}
    return dict(dict(found, host="cp1", created="2026-01-02T03:04:05Z"), **changes)


def store_snapshot(store, data=b"snapshot", name=NAME, **changes):
    (store / name).write_bytes(data)
    (store / (name + ".json")).write_text(json.dumps(manifest(data, **dict({"file": name}, **changes))))


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "words, kind",
    [
        ("Failed to create file system for \"x:\": didn't find section in config file", "config"),
        ("operation error S3: PutObject, https response error StatusCode: 403, api error SignatureDoesNotMatch", "refused"),
        ("couldn't connect SSH: ssh: handshake failed: ssh: unable to authenticate, attempted methods [none password]", "refused"),
        ("dial tcp 127.0.0.1:1: connect: connection refused", "unreachable"),
        ("Failed to copy: s3 upload: 404 Not Found: NoSuchBucket: The specified bucket does not exist", "absent"),
        ("Update ReadFrom failed: write /mnt/x: no space left on device", "full"),
        # S3 and versitygw 1.8.0; MinIO, cmd/api-errors.go; Azure's and Google's lists of error codes
        ("RequestTimeTooSkewed: The difference between the request time and the current time is too large.\n\tstatus code: 403", "refused"),
        ("403 Server failed to authenticate the request: AuthenticationFailed; Request date header too old: 'Sun, 29 Nov 2026 13:00:00 GMT'", "refused"),
        ("AccessDenied: Access Denied because object protected by object lock.", "immutable"),
        ("InvalidRequest: Object is WORM protected and cannot be overwritten", "immutable"),
        ("RESPONSE 409: 409 This operation is not permitted as the blob is immutable due to a policy. ERROR CODE: BlobImmutableDueToPolicy", "immutable"),
        ("RESPONSE 409: 409 ERROR CODE: BlobImmutableDueToLegalHold", "immutable"),
        ("googleapi: Error 403: Object 'backups/x' is subject to bucket's retention policy and cannot be deleted, retentionPolicyNotMet", "immutable"),
        ("googleapi: Error 403: The user's Drive storage quota has been exceeded., storageQuotaExceeded", "full"),
        ("XMinioStorageFull: Storage backend has reached its minimum free drive threshold.", "full"),
        ("write /mnt/x: disk quota exceeded", "full"),
        ("Cannot upload files, storage cap exceeded (403 storage_cap_exceeded)", "full"),
        ("AccessDenied: Access Denied\n\tstatus code: 403", "denied"),
        ("sftp: \"permission denied\" (SSH_FX_PERMISSION_DENIED)", "denied"),
        ("something that nobody has seen before", "other"),
    ],
)
def test_words_of_rclone_are_told_apart(words, kind):
    assert remote_store.trouble([words])[0] == kind


@pytest.mark.parametrize("where", [":s3,access_key_id=AKIA,secret_access_key=x:bucket", "far,password=x:dir", "relative/path", "", "-flag:x"])
def test_places_that_are_none_or_hold_secrets_are_refused(far, where):
    with pytest.raises(remote_store.RcloneError) as caught:
        remote_store.Remote(where, binary=far[1].binary)
    assert caught.value.kind == "config"
    assert "AKIA" not in str(caught.value) and "password=x" not in str(caught.value)


def test_a_share_that_is_not_mounted_is_refused(far, tmp_path):
    with pytest.raises(remote_store.RcloneError, match="is it mounted"):
        remote_store.Remote(str(tmp_path / "absent"), binary=far[1].binary)


def test_a_configuration_that_cannot_be_read_is_said_and_others_eyes_are_warned_of(far, tmp_path):
    with pytest.raises(remote_store.RcloneError, match="cannot be read"):
        remote_store.Remote("far:", config=str(tmp_path / "absent"), binary=far[1].binary)
    config = tmp_path / "rclone.conf"
    config.write_text("")
    config.chmod(0o644)
    remote = remote_store.Remote("far:", config=str(config), binary=far[1].binary)
    assert "0600" in remote.config_warning()
    config.chmod(0o600)
    assert remote.config_warning() is None


def test_what_was_sent_is_read_back_and_progress_told(far, tmp_path):
    store, remote = far
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")
    seen = []
    result = remote.put(str(local), 8, digest(b"snapshot"), progress=seen.append)
    assert result["verified_by"] == "read" and (store / NAME).read_bytes() == b"snapshot"
    assert seen == [3, 8]
    # nothing of the caller's environment, nothing that is not asked for
    assert all(environment == [] for _argv, environment in calls(store))


def test_what_landed_damaged_is_sent_again_and_then_said(far, tmp_path):
    store, remote = far
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")
    plan(store, ["copyto", "damage"])
    remote.put(str(local), 8, digest(b"snapshot"))
    assert (store / NAME).read_bytes() == b"snapshot"
    plan(store, ["copyto", "damage"], ["copyto", "damage"])
    with pytest.raises(remote_store.RcloneError, match="reads back differently") as caught:
        remote.put(str(local), 8, digest(b"snapshot"))
    assert caught.value.kind == "corrupt" and local.read_bytes() == b"snapshot"


def test_what_is_not_what_was_taken_is_never_sent(far, tmp_path):
    store, remote = far
    local = tmp_path / NAME
    local.write_bytes(b"snapshoT")
    with pytest.raises(remote_store.RcloneError, match="not the file that was taken"):
        remote.put(str(local), 8, digest(b"snapshot"))
    assert not (store / NAME).exists()


def test_an_outage_is_tried_again_and_refused_access_is_not(far, tmp_path):
    store, remote = far
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")
    plan(store, ["copyto", "error", ["connection refused"]], ["copyto", "error", ["connection refused"]])
    remote.put(str(local), 8, digest(b"snapshot"))
    plan(store, *[["copyto", "error", ["AccessDenied: no"]]] * 3)
    with pytest.raises(remote_store.RcloneError, match=r"could not be sent to far:: access was refused \(AccessDenied: no\)"):
        remote.put(str(local), 8, digest(b"snapshot"))
    assert len(json.loads((store.parent / "store.plan").read_text())) == 2


def test_what_hangs_is_ended(far):
    store, remote = far
    remote.timeout = 1
    plan(store, ["cat", "hang"], ["cat", "hang"])
    store_snapshot(store)
    with pytest.raises(remote_store.RcloneError, match="not done in time") as caught:
        remote.digest(NAME)
    assert caught.value.kind == "timeout"


def test_a_download_goes_on_where_it_broke_off(far, tmp_path):
    store, remote = far
    data = os.urandom(100000)
    store_snapshot(store, data)
    plan(store, ["cat", "break", 40000], ["cat", "break", 20000])
    target = tmp_path / "got"
    remote.get(NAME, str(target), len(data), digest(data))
    assert target.read_bytes() == data and target.stat().st_mode & 0o777 == 0o600
    offsets = [one for argv, _environment in calls(store) for one in argv if one.startswith("--offset")]
    assert offsets == ["--offset=0", "--offset=40000", "--offset=60000"]


def test_a_download_goes_on_with_what_an_earlier_run_left_unless_that_was_something_else(far, tmp_path):
    store, remote = far
    store_snapshot(store, b"abcdefgh")
    target = tmp_path / "got"
    target.write_bytes(b"abcd")
    remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    assert target.read_bytes() == b"abcdefgh"
    target.write_bytes(b"XXXX")
    remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    assert target.read_bytes() == b"abcdefgh"


def test_a_damaged_object_is_not_got(far, tmp_path):
    store, remote = far
    store_snapshot(store, b"abcdefgh")
    (store / NAME).write_bytes(b"abcdefgX")
    target = tmp_path / "got"
    with pytest.raises(remote_store.RcloneError, match="is damaged"):
        remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    assert not target.exists()
    (store / NAME).write_bytes(b"abc")
    with pytest.raises(remote_store.RcloneError, match="has 3 bytes, and had 8"):
        remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    with pytest.raises(remote_store.RcloneError, match="is not there"):
        remote.get("etcd-other.db", str(target), 8, digest(b"abcdefgh"))


def test_listing_tells_what_can_be_relied_on(far):
    store, remote = far
    older, cut, bare, gone = ("etcd-cp1-2026010%dT030405Z.db" % day for day in (1, 3, 4, 5))
    store_snapshot(store)
    store_snapshot(store, name=older, created="2026-01-01T03:04:05Z")
    store_snapshot(store, name=cut, created="2026-01-03T03:04:05Z")
    (store / cut).write_bytes(b"sn")
    (store / bare).write_bytes(b"snapshot")
    store_snapshot(store, name=gone, created="2026-01-05T03:04:05Z")
    (store / gone).unlink()
    (store / "etcd-x.db.json").write_text("{")
    (store / "notes.txt").write_text("mine")
    entries = remote.snapshots()
    assert [entry["file"] for entry in entries[:4]] == [gone, cut, NAME, older]
    assert {entry["file"] for entry in entries[4:]} == {bare, "etcd-x.db"}
    by_name = {entry["file"]: entry for entry in entries}
    assert [name for name, entry in by_name.items() if entry["verified"]] == [NAME, older]
    assert "has 2 bytes" in by_name[cut]["problem"] and "has no manifest" in by_name[bare]["problem"]
    assert "is gone" in by_name[gone]["problem"] and "is not JSON" in by_name["etcd-x.db"]["problem"]
    assert by_name[NAME]["path"] == "far:" + NAME and by_name[NAME]["remote"] == "far:"
    assert snapshot_manifest.latest_verified(entries) == "far:" + NAME


def test_a_place_that_does_not_exist_yet_is_empty_when_that_is_well(far):
    _store, remote = far
    remote.where = "far:new"
    assert remote.snapshots() == []
    with pytest.raises(remote_store.RcloneError, match="cannot be listed"):
        remote.names()


def test_a_manifest_is_read_alone(far):
    store, remote = far
    assert remote.manifest(NAME) is None
    store_snapshot(store)
    assert remote.manifest(NAME)["sha256"] == digest(b"snapshot")
    (store / (NAME + ".json")).write_text("[]")
    with pytest.raises(snapshot_manifest.ManifestError, match="^far:" + NAME):
        remote.manifest(NAME)


def test_flags_are_for_what_the_configuration_says_nothing_of(far):
    store, remote = far
    store_snapshot(store)

    def flags(**sections):
        (store.parent / "store.conf").write_text(json.dumps(sections))
        remote._sections = None
        remote.names()
        return sorted(one for one in calls(store)[-1][0] if one.startswith("--s3-"))

    assert flags(far={"type": "s3"}) == flags(far={"type": "sftp"}) == ["--s3-no-check-bucket=true", "--s3-upload-concurrency=2"]
    assert flags(far={"type": "s3", "upload_concurrency": "8"}) == ["--s3-no-check-bucket=true"]
    # of what it is made of, and of no other
    crypt = {"far": {"type": "crypt", "remote": "below:bucket/x"}, "other": {"type": "s3", "upload_concurrency": "8"}}
    assert flags(**crypt, below={"type": "s3", "no_check_bucket": "false"}) == ["--s3-upload-concurrency=2"]
    assert flags(far={"type": "union", "upstreams": "/mnt below:bucket:ro"}, below={"type": "s3", "no_check_bucket": "false"}) == ["--s3-upload-concurrency=2"]


def test_an_etag_is_believed_only_where_it_is_what_the_server_computed(far):
    store, remote = far

    def limit(**more):
        (store.parent / "store.conf").write_text(json.dumps({"far": dict(more, type="s3")}))
        remote._sections = None
        return remote._one_piece()

    # rclone sends what has the size of the cutoff in parts
    assert limit() == limit(upload_cutoff="1G") == 200 * 1024 * 1024 - 1
    assert limit(upload_cutoff="5Mi") == limit(upload_cutoff="5M") == limit(upload_cutoff="5120") == 5 * 1024 * 1024 - 1
    assert limit(upload_cutoff="off") == limit(directory_bucket="true") == 0
    assert limit(server_side_encryption="aws:kms") == limit(sse_customer_algorithm="AES256") == 0


def test_removing_twice_is_removing_once(far):
    store, remote = far
    store_snapshot(store)
    remote.remove(NAME)
    remote.remove(NAME)
    assert list(store.iterdir()) == []
    plan(store, ["deletefile", "error", ["AccessDenied"]])
    with pytest.raises(remote_store.RcloneError, match="cannot be removed"):
        remote.delete(NAME)


def test_time_grows_with_size():
    assert remote_store.budget(0) == 600
    assert remote_store.budget(10**9) > 10000
    assert remote_store.budget(10**9, "10M") == remote_store.budget(10**9)
    # KiB without a unit, bits never; of a timetable and of two directions the slowest
    for limit in ("64", "64k", "08:00,64k 18:00,10M", "10M:64k", "00:00,off 08:00,64Ki", "0.0625M"):
        assert remote_store.budget(10**9, limit) == 600 + 10**9 // 65536, limit
    assert remote_store.budget(10**9, "off") == remote_store.budget(10**9, "") == remote_store.budget(10**9)


LEVELS = {"checksum": {"at": "2026-01-03T03:04:05Z", "ok": True, "seconds": 0.1, "problem": None}}


def test_what_was_found_is_noted_there(far):
    store, remote = far
    (store.parent / "store.conf").write_text('{"far": {"type": "s3"}}')
    store_snapshot(store)
    sha256 = digest(b"snapshot")
    before = (store / (NAME + ".json")).read_bytes()
    remote.note(NAME, sha256, LEVELS, check_mode=True)
    with pytest.raises(remote_store.snapshot_manifest.ManifestError, match="was replaced meanwhile"):
        remote.note(NAME, digest(b"another"), LEVELS)
    assert (store / (NAME + ".json")).read_bytes() == before
    remote.note(NAME, sha256, LEVELS)
    found = remote.manifest(NAME)
    assert (found["levels"], found["level"], found["sha256"]) == (LEVELS, "checksum", sha256)


def test_a_manifest_that_could_be_lost_is_left_alone(far):
    store, remote = far
    store_snapshot(store)
    for check_mode in (True, False):
        with pytest.raises(remote_store.RcloneError, match="could lose the manifest"):
            remote.note(NAME, digest(b"snapshot"), LEVELS, check_mode)
    assert "levels" not in remote.manifest(NAME)


def test_what_was_removed_meanwhile_does_not_come_back(far):
    store, remote = far
    (store.parent / "store.conf").write_text('{"far": {"type": "s3"}}')
    store_snapshot(store)
    (store / NAME).unlink()
    remote.note(NAME, digest(b"snapshot"), LEVELS)
    assert list(store.iterdir()) == []
    with pytest.raises(remote_store.snapshot_manifest.ManifestError, match="no manifest any more"):
        remote.note(NAME, digest(b"snapshot"), LEVELS)
