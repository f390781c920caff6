# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Off-site snapshots on real servers; servers.py says which, and how each starts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time

import harness
import pytest
import servers
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import store as remote_store
from test_snapshot_role import LARGE, VERSION, play, stats, with_tools

MB = 1024 * 1024


@pytest.fixture(scope="module", params=["s3", "sftp"])
def kind(request):
    return {"s3": servers.S3, "sftp": servers.Sftp}[request.param]


@pytest.fixture
def place():
    """A directory into which a user that is not root gets, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="k8s-dr-") as directory:
        path = pathlib.Path(directory)
        path.chmod(0o711)
        yield path


@pytest.fixture
def far(kind, place):
    with kind(place / "far") as server:
        yield server


def make(directory, day=2, size=300000, host="cp1", name=None, **more):
    """A file that passes for a snapshot, with its manifest: nothing here looks into it."""
    directory.mkdir(exist_ok=True)
    name = name or "etcd-%s-202601%02dT030405Z.db" % (host, day)
    path = directory / name
    path.write_bytes(os.urandom(size))
    manifest = {"format": 1, "file": name, "size": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "hash": "be5ab8f4", "revision": day}
    manifest.update(verified=True, level="status", host=host, created="2026-01-%02dT03:04:05Z" % day, fingerprints={"etcd_ca": "a" * 64})
    manifest.update(more)
    pathlib.Path(str(path) + ".json").write_text(json.dumps(manifest))
    return path


def upload(server, place, rclone="rclone", wrong=False, check_mode=False, limit=120, **more):
    config = server.config(place / "rclone.conf", wrong=wrong)
    options = dict({"remote": server.where, "rclone_config": config, "rclone": servers.program(rclone), "retries": 2}, **more)
    return harness.run_module("etcd_snapshot_upload", check_mode=check_mode, diff=True, limit=limit, **options)


def fetch(server, place, directory, rclone="rclone", check_mode=False, **more):
    config = server.config(place / "rclone.conf")
    options = dict({"remote": server.where, "rclone_config": config, "rclone": servers.program(rclone), "directory": directory, "retries": 2}, **more)
    return harness.run_module("etcd_snapshot_fetch", check_mode=check_mode, diff=True, **options)


def manifest_of(path):
    return json.loads(pathlib.Path(str(path) + ".json").read_text())


def whole(path, content):
    """The local snapshot is as it was."""
    assert path.read_bytes() == content and manifest_of(path)["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
def test_upload_and_download(far, place, rclone):
    path = make(place / "local")
    rc, result = upload(far, place, rclone, path=path, check_mode=True)
    assert rc == 0 and result["changed"] and [one["file"] for one in result["uploaded"]] == [path.name], result
    assert not far.stored(path.name).exists()
    rc, result = upload(far, place, rclone, path=path)
    assert rc == 0 and result["changed"] and result["waiting"] == [], result
    # by what the server itself computed of what it stores
    assert result["uploaded"][0]["verified_by"] == {"S3": "md5", "Sftp": "sha1"}[type(far).__name__]
    assert far.stored(path.name).read_bytes() == path.read_bytes()
    assert [(copy["remote"], copy["file"]) for copy in manifest_of(path)["off_site"]] == [(far.where, path.name)]
    rc, result = upload(far, place, rclone, path=path, directory=place / "local")
    assert rc == 0 and not result["changed"] and result["present"] == [path.name], result

    rc, result = fetch(far, place, place / "back", rclone, check_mode=True)
    assert rc == 0 and result["changed"] and result["snapshot"]["revision"] == 2 and not (place / "back").exists(), result
    rc, result = fetch(far, place, place / "back", rclone)
    assert rc == 0 and result["changed"], result
    back = pathlib.Path(result["snapshot"]["path"])
    assert back.read_bytes() == path.read_bytes() and manifest_of(back)["sha256"] == manifest_of(path)["sha256"]
    assert back.stat().st_mode & 0o777 == 0o600 and back.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(back.parent)) == [".lock", back.name, back.name + ".json"]
    rc, result = fetch(far, place, place / "back", rclone, name=path.name)
    assert rc == 0 and not result["changed"], result


def test_wrong_credentials_then_all_waiting_snapshots(far, place):
    older, newer = make(place / "local", 2), make(place / "local", 3)
    content = newer.read_bytes()
    rc, result = upload(far, place, wrong=True, path=newer, directory=place / "local")
    assert rc == 1 and "access was refused" in result["msg"] and "are complete on this host" in result["msg"], result
    assert str(newer) in result["msg"] and result["waiting"] == [str(newer), str(older)]
    assert far.secret not in json.dumps(result) if hasattr(far, "secret") else True
    whole(newer, content)
    rc, result = upload(far, place, directory=place / "local")
    assert rc == 0 and [one["file"] for one in result["uploaded"]] == [newer.name, older.name], result
    rc, result = fetch(far, place, place / "back")
    assert rc == 0 and result["snapshot"]["file"] == newer.name, result


def kill_when(condition, server):
    """Kill a server once something is so."""

    def wait():
        end = time.monotonic() + 60
        while time.monotonic() < end and not condition():
            time.sleep(0.05)
        server.kill()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_server_that_is_killed_midway(far, place):
    # more than the buffers between the two hold
    path = make(place / "local", size=12 * MB)
    content = path.read_bytes()
    begun = time.monotonic()
    killer = kill_when(lambda: time.monotonic() > begun + 3, far)
    rc, result = upload(far, place, path=path, bwlimit="1M", retries=1)
    killer.join()
    assert rc == 1 and "it cannot be reached" in result["msg"] and str(path) in result["msg"], result
    whole(path, content)
    far.start()
    # what is there now is nothing that anybody takes for a snapshot
    rc, result = fetch(far, place, place / "back")
    assert rc == 1 and ("holds no verified snapshot" in result["msg"] or "it is not there" in result["msg"]), result
    rc, result = upload(far, place, directory=place / "local")
    assert rc == 0 and far.stored(path.name).read_bytes() == content, result

    # and on the way back, where what came before is not asked for again
    partial = place / "back" / (".%s.partial" % path.name) / "snapshot"
    killer = kill_when(lambda: partial.exists() and partial.stat().st_size > 0, far)
    rc, result = fetch(far, place, place / "back", bwlimit="1M", retries=1)
    killer.join()
    assert rc == 1 and "cannot be" in result["msg"], result
    came = partial.stat()
    assert 0 < came.st_size < len(content) and not (place / "back" / path.name).exists()
    far.start()
    rc, result = fetch(far, place, place / "back")
    assert rc == 0 and (place / "back" / path.name).read_bytes() == content, result
    assert (place / "back" / path.name).stat().st_ino == came.st_ino


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d" % size, "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk(kind, place):
    with small_disk(place / "disk", 8 * MB) as disk, kind(place / "far", data=disk / "data") as far:
        path = make(place / "local", size=6 * MB)
        content = path.read_bytes()
        (disk / "filler").write_bytes(bytes(4 * MB))
        rc, result = upload(far, place, path=path)
        assert rc == 1 and "no room left" in result["msg"] and str(path) in result["msg"], result
        whole(path, content)
        (disk / "filler").unlink()
        rc, result = upload(far, place, directory=place / "local")
        assert rc == 0 and far.stored(path.name).read_bytes() == content, result


def test_a_damaged_object_is_refused_and_replaced(far, place):
    path = make(place / "local")
    content = path.read_bytes()
    assert upload(far, place, path=path)[0] == 0
    with open(far.stored(path.name), "r+b") as stream:
        stream.seek(1000)
        stream.write(b"damage")
    rc, result = fetch(far, place, place / "back")
    assert rc == 1 and "is damaged" in result["msg"], result
    assert not (place / "back" / path.name).exists()
    rc, result = upload(far, place, path=path, verify="read")
    assert rc == 0 and result["changed"], result
    assert far.stored(path.name).read_bytes() == content
    # a damaged manifest
    far.stored(path.name + ".json").write_bytes(b"{")
    rc, result = fetch(far, place, place / "back")
    assert rc == 1 and "is not JSON" in result["msg"], result
    assert upload(far, place, path=path)[0] == 0
    rc, result = fetch(far, place, place / "back")
    assert rc == 0 and (place / "back" / path.name).read_bytes() == content, result
    whole(path, content)


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
def test_a_level_verified_off_site_is_recorded_there(far, place, rclone):
    def prove(**more):
        config = far.config(place / "rclone.conf")
        options = {"path": path.name, "remote": far.where, "rclone_config": config, "rclone": servers.program(rclone), "level": "checksum"}
        return harness.run_module("etcd_snapshot_drill", diff=True, **dict(options, **more))

    path = make(place / "local")
    content = path.read_bytes()
    assert upload(far, place, rclone, path=path)[0] == 0
    stored, beside = (far.stored(path.name + suffix) for suffix in (".json", ".1.note"))
    before = stored.read_bytes()
    for check_mode in (True, False):
        assert not beside.exists()
        rc, result = prove(check_mode=check_mode)
        assert rc == 0 and result["changed"] and result["snapshot"]["recorded"], result
    found = json.loads(beside.read_bytes())
    assert found["levels"]["checksum"]["ok"] and set(found) == {"file", "sha256", "levels", "level"}

    with open(far.stored(path.name), "r+b") as stream:
        stream.seek(1000)
        stream.write(b"damage")
    rc, result = prove()
    assert rc == 1 and result["snapshot"]["failed"] == "checksum" and result["changed"], result
    # that is known without a read of the whole file, and a host that has it whole uploads it again
    rc, result = fetch(far, place, place / "back", rclone)
    assert rc == 1 and "failed the verification level checksum" in result["msg"], result
    rc, result = upload(far, place, rclone, path=path)
    assert rc == 0 and result["uploaded"][0]["file"] == path.name, result
    assert far.stored(path.name).read_bytes() == content and stored.read_bytes() == before
    assert upload(far, place, rclone, path=path)[1]["changed"] is False
    assert prove()[0] == 0
    assert sorted(one.name for one in far.stored("").iterdir()) == [path.name, path.name + ".4.note", path.name + ".json"]


def test_a_damaged_snapshot_is_not_uploaded(far, place):
    path = make(place / "local")
    path.write_bytes(os.urandom(300000))
    rc, result = upload(far, place, path=path)
    assert rc == 1 and "is not the file that was taken" in result["msg"], result
    assert not far.stored(path.name).exists() and "Nothing is lost" not in result["msg"]


def test_two_clusters_in_one_place(far, place):
    path = make(place / "local")
    other = make(place / "other", fingerprints={"etcd_ca": "b" * 64})
    assert upload(far, place, path=path)[0] == 0
    rc, result = upload(far, place, path=other)
    assert rc == 1 and "give each cluster a path of its own" in result["msg"], result
    assert far.stored(path.name).read_bytes() == path.read_bytes()
    newer = make(place / "other", 3, host="cp9", fingerprints={"etcd_ca": "b" * 64})
    assert upload(far, place, path=newer)[0] == 0
    rc, result = fetch(far, place, place / "back")
    assert rc == 1 and "several clusters" in result["msg"], result
    rc, result = fetch(far, place, place / "back", etcd_ca="a" * 64)
    assert rc == 0 and result["snapshot"]["file"] == path.name, result
    rc, result = fetch(far, place, place / "back", name="etcd-cp7-20260101T030405Z.db")
    assert rc == 1 and newer.name in result["msg"], result


def test_without_a_shell_it_is_read_back(place):
    with servers.Sftp(place / "far", shell=False) as far:
        path = make(place / "local")
        rc, result = upload(far, place, path=path)
        assert rc == 0 and result["uploaded"][0]["verified_by"] == "read", result


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
def test_rclone_uploads_in_parts_from_the_expected_size(rclone):
    """What is in parts is read back: test_settings_in_the_configuration_are_not_overridden."""
    flags = subprocess.run([servers.program(rclone), "help", "flags"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"--s3-upload-cutoff .*\(default %dMi\)" % (remote_store.ONE_PIECE // MB), flags)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """One that tests share, each with a place of its own."""
    with servers.S3(tmp_path_factory.mktemp("s3")) as server:
        yield server


def documented_actions():
    """{feature: the S3 actions that docs/off-site.md says it needs}"""
    table = (harness.ROOT / "docs" / "off-site.md").read_text().partition("| feature |")[2].partition("\n\n")[0]
    rows = [row.split("|") for row in table.splitlines()[2:]]
    return {row[1].strip(): set(re.findall(r"s3:\w+", row[2])) for row in rows}


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
def test_each_feature_needs_what_the_docs_say_and_no_more(s3, place, rclone):
    documented = documented_actions()
    local, where = make(place / "local"), "far:backups/needs-" + rclone
    make(place / "local", 1)

    def try_it(feature, act):
        with servers.Proxy(s3, lambda action, path: None if action in documented[feature] else (403, "AccessDenied", "Access Denied")) as far:
            rc, result = act(far)
            assert rc == 0 and not result.get("undeletable"), (feature, far.actions, result)
            # an upload that breaks off
            assert far.actions == documented[feature] - {"s3:AbortMultipartUpload"}, feature

    def options(far):
        return {"rclone_config": far.config(place / "rclone.conf"), "rclone": servers.program(rclone), "remote": where}

    def drill(far):
        return harness.run_module("etcd_snapshot_drill", path=local.name, level="checksum", **options(far))

    try_it("upload and verification", lambda far: upload(far, place, rclone, directory=place / "local", remote=where))
    try_it("list", lambda far: harness.run_module("etcd_snapshot_list", directory=place / "none", **options(far)))
    try_it("download, restore", lambda far: fetch(far, place, place / "back", rclone, remote=where))
    # with the result of one before
    drill(s3)
    try_it("`verify`, `drill`", drill)
    hold = {"name": local.name, "reason": "mine"}
    try_it("`hold`", lambda far: harness.run_module("etcd_snapshot_hold", **hold, **options(far)))
    assert harness.run_module("etcd_snapshot_hold", name=local.name, state="absent", **options(s3))[0] == 0
    try_it("retention, `delete`", lambda far: harness.run_module("etcd_snapshot_prune", keep=1, etcd_ca="a" * 64, **options(far)))
    deletion = {"name": local.name, "etcd_ca": "a" * 64, "force": True}
    try_it("retention, `delete`", lambda far: harness.run_module("etcd_snapshot_delete", **deletion, **options(far)))


# The words of AWS, but where another one is named: its API reference, and versitygw 1.8.0, s3err/s3err.go.
FAULTS = [
    ("s3:PutObject", (403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."), "set this host's clock"),
    ("s3:PutObject", (403, "AccessDenied", "Access Denied because object protected by object lock."), "an object lock or a retention policy protects it"),
    ("s3:PutObject", (403, "QuotaExceeded", "Your request was denied due to quota exceeded."), "raise the quota"),
    # MinIO, cmd/api-errors.go
    ("s3:PutObject", (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."), "there is no room left"),
    ("s3:PutObject", (403, "AccessDenied", "Access Denied"), "they need to be allowed to write and to read (S3: s3:PutObject"),
    ("s3:ListBucket", (403, "AccessDenied", "Access Denied"), "they need to be allowed to list (S3: s3:ListBucket)"),
]


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
@pytest.mark.parametrize("action, fault, words", FAULTS, ids=[fault[1] + "-" + action[3:] for action, fault, _words in FAULTS])
def test_a_refusal_of_the_storage_is_reported_with_the_remedy(s3, place, rclone, action, fault, words):
    path = make(place / "local")
    with servers.Proxy(s3, lambda asked, path: fault if asked == action else None) as far:
        rc, result = upload(far, place, rclone, path=path, remote="far:backups/faults", retries=1)
    assert rc == 1 and words in result["msg"] and "Nothing is lost" in result["msg"], result


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
def test_a_bucket_with_keys_of_kms(s3, place, rclone):
    path, where = make(place / "local"), "far:backups/kms-" + rclone
    # as AWS has it for SSE-KMS: no MD5, and looking like one
    with servers.Proxy(s3, etag="0123456789abcdef0123456789abcdef") as far:
        rc, result = upload(far, place, rclone, path=path, remote=where)
        assert rc == 1 and "SSE-KMS" in result["msg"] and "set server_side_encryption = aws:kms, and sse_kms_key_id" in result["msg"], result
        config = pathlib.Path(far.config(place / "kms.conf"))
        config.write_text(config.read_text() + "server_side_encryption = aws:kms\nsse_kms_key_id = arn:aws:kms:us-east-1:1:key/2\n")
        rc, result = upload(far, place, rclone, path=path, remote=where, rclone_config=str(config))
        # what rclone shows for an MD5 then is what the sender said
        assert rc == 0 and result["uploaded"][0]["verified_by"] == "read", result


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
def test_forbidden_deletes_are_one_warning_and_no_failure(s3, place, rclone):
    where = "far:backups/worm-" + rclone
    paths = [make(place / "local", day) for day in (1, 2, 3, 4)]
    assert upload(s3, place, directory=place / "local", remote=where)[0] == 0
    there = [where + "/" + path.name for path in reversed(paths[:3])]
    asked = []

    def prune(rule):
        with servers.Proxy(s3, rule) as far:
            options = {"remote": where, "rclone_config": far.config(place / "rclone.conf"), "rclone": servers.program(rclone), "etcd_ca": "a" * 64, "keep": 1}
            return harness.run_module("etcd_snapshot_prune", **options)

    def forbidden(action, path):
        if action == "s3:DeleteObject":
            asked.append(path)
            return (403, "AccessDenied", "Access Denied")
        return None

    rc, result = prune(forbidden)
    assert rc == 0 and not result["changed"] and result["removed"] == [] and result["undeletable"] == there, result
    assert len(result["warnings"]) == 1
    assert "3 surplus snapshots stay: deletes are forbidden at %s: leave them to the storage's lifecycle rules" % where in json.dumps(result["warnings"])
    # the others would fare the same
    assert len(set(asked)) == 1
    locked = (403, "AccessDenied", "Access Denied because object protected by object lock.")
    rc, result = prune(lambda action, path: locked if action == "s3:DeleteObject" and paths[2].name in path else None)
    assert rc == 0 and result["removed"] == there[1:] and result["undeletable"] == there[:1], result
    assert len(result["warnings"]) == 1
    assert re.search("1 surplus snapshots stay: .*an object lock or a retention policy protects it", json.dumps(result["warnings"])), result


def test_later_levels_are_not_uploaded_where_nothing_may_be_replaced(s3, place):
    path, where = make(place / "local"), "far:backups/immutable"
    assert upload(s3, place, path=path, remote=where)[0] == 0
    local = pathlib.Path(str(path) + ".json")
    local.write_text(json.dumps(dict(json.loads(local.read_text()), level="drill", levels={"drill": {"ok": True, "at": "2026-01-05T03:04:05Z"}})))
    locked = (403, "AccessDenied", "Access Denied because object protected by object lock.")
    with servers.Proxy(s3, lambda action, path: locked if action == "s3:PutObject" else None) as far:
        rc, result = upload(far, place, path=path, remote=where)
    assert rc == 0 and not result["changed"] and result["present"] == [path.name] and "are not recorded there" in json.dumps(result["warnings"]), result


@pytest.mark.parametrize("rclone", ["rclone", "rclone-new"])
def test_settings_in_the_configuration_are_not_overridden(s3, place, rclone):
    path, where = make(place / "local", size=6 * MB), "far:backups/own-" + rclone
    config = pathlib.Path(s3.config(place / "own.conf"))
    config.write_text(config.read_text() + "upload_cutoff = 5M\nchunk_size = 5M\n")
    rc, result = upload(s3, place, rclone, path=path, remote=where, rclone_config=str(config))
    # it was uploaded in parts, so it has no MD5 to compare
    assert rc == 0 and result["uploaded"][0]["verified_by"] == "read", result
    # and a bucket is made where the user wants that
    config.write_text(config.read_text() + "no_check_bucket = false\n")
    rc, result = upload(s3, place, rclone, path=path, remote="far:made-" + rclone, rclone_config=str(config))
    assert rc == 0 and (s3.data / ("made-" + rclone)).is_dir(), result


def test_a_missing_bucket_is_not_created(place):
    with servers.S3(place / "far") as far:
        path = make(place / "local")
        rc, result = upload(far, place, path=path, remote="far:elsewhere/prod")
        assert rc == 1 and "it is not there" in result["msg"], result
        assert not (far.data / "elsewhere").exists()
        rc, result = upload(far, place, path=path, remote="near:backups")
        assert rc == 1 and "no remote of that name" in result["msg"], result


def test_a_mounted_directory(place):
    path = make(place / "local")
    (place / "share").mkdir()
    options = {"path": path, "remote": str(place / "share"), "rclone": servers.program("rclone")}
    rc, result = harness.run_module("etcd_snapshot_upload", **options)
    assert rc == 0 and result["uploaded"][0]["verified_by"] == "read", result
    assert (place / "share" / path.name).read_bytes() == path.read_bytes()


def test_a_share_that_is_no_longer_mounted(place):
    """The directory below a mount point takes every file, and is not off-site."""
    local, share = place / "local", place / "share"
    paths = [make(local, day) for day in (1, 2)]
    options = {"remote": str(share), "rclone": servers.program("rclone")}
    with small_disk(share, 8 * MB):
        rc, result = harness.run_module("etcd_snapshot_upload", path=paths[0], **options)
        assert rc == 0 and manifest_of(paths[0])["off_site"][0]["mount"] == str(share), result
    rc, result = harness.run_module("etcd_snapshot_upload", path=paths[1], directory=local, **options)
    assert rc == 1 and "%s was mounted at earlier uploads to" % share in result["msg"] and str(paths[1]) in result["msg"], result
    assert not list(share.iterdir())


def test_a_deleted_copy_is_uploaded_again_unless_it_was_replaced(far, place):
    local = place / "local"
    paths = [make(local, day) for day in (1, 2, 3)]
    rc, result = upload(far, place, directory=local)
    assert rc == 0 and len(result["uploaded"]) == 3, result
    # as retention does it
    far.stored(paths[0].name).unlink()
    pathlib.Path(str(far.stored(paths[0].name)) + ".json").unlink()
    rc, result = upload(far, place, directory=local)
    assert rc == 0 and not result["changed"] and result["uploaded"] == [], result
    for path in paths[1:]:
        far.stored(path.name).unlink()
        pathlib.Path(str(far.stored(path.name)) + ".json").unlink()
    rc, predicted = upload(far, place, directory=local, check_mode=True)
    rc, result = upload(far, place, directory=local)
    assert rc == 0 and [one["file"] for one in result["uploaded"]] == [path.name for path in reversed(paths)], result
    assert [one["file"] for one in predicted["uploaded"]] == [one["file"] for one in result["uploaded"]]
    assert far.stored(paths[2].name).read_bytes() == paths[2].read_bytes()


def test_a_wrong_copy_is_uploaded_again(far, place):
    local = place / "local"
    paths = [make(local, day) for day in (1, 2, 3, 4)]
    rc, result = upload(far, place, directory=local)
    assert rc == 0 and len(result["uploaded"]) == 4, result
    # one was cut off, a drill found another one damaged, and one has lost its manifest
    far.stored(paths[0].name).write_bytes(paths[0].read_bytes()[:1000])
    drilled = far.stored(paths[1].name + ".json")
    failed = {"checksum": {"ok": False, "at": "2026-01-05T03:04:05Z", "problem": "its sha256 has changed"}}
    drilled.write_text(json.dumps(dict(json.loads(drilled.read_text()), levels=failed)))
    far.stored(paths[2].name + ".json").unlink()
    rc, predicted = upload(far, place, directory=local, check_mode=True)
    rc, result = upload(far, place, directory=local)
    again = [path.name for path in reversed(paths[:3])]
    assert rc == 0 and [one["file"] for one in result["uploaded"]] == again and result["waiting"] == [], result
    assert [one["file"] for one in predicted["uploaded"]] == again
    assert far.stored(paths[0].name).read_bytes() == paths[0].read_bytes()
    # the manifest stays, and what is beside it says that nothing is known of the new copy
    assert json.loads(far.stored(paths[1].name + ".1.note").read_text())["levels"] == {}
    rc, result = upload(far, place, directory=local)
    assert rc == 0 and not result["changed"] and result["uploaded"] == [], result


def test_a_silent_server_is_given_up(kind, place):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        far = kind(place / "far")
        far.port = silent.getsockname()[1]
        path = make(place / "local")
        start = time.monotonic()
        rc, result = upload(far, place, path=path, timeout=5, retries=1)
        assert rc == 1 and time.monotonic() - start < 30, result
        assert "not done in time" in result["msg"] and str(path) in result["msg"], result


def test_snapshot_yml_uploads_and_downloads_and_fails_when_it_cannot(place, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("rclone")) + os.pathsep + os.environ["PATH"])
    backups, jobs = tmp_path / "backups", tmp_path / "jobs"

    def run(*arguments, **more):
        more.update(etcd_snapshot_off_site=far.where, etcd_snapshot_rclone_config_source=far.config(place / "rclone.conf"))
        more.update(etcd_snapshot_progress_interval=1, ansible_async_dir=str(jobs))
        hosts = {"cp1": with_tools(etcd, tmp_path, etcd_snapshot_fetch=str(place / "here"), **more)}
        return play("playbooks/snapshot.yml", tmp_path, hosts, *arguments)

    with harness.Etcd(VERSION, tmp_path) as etcd, servers.S3(place / "far") as far:
        harness.fill(etcd)
        far.kill()
        rc, output, _recap = run()
        assert rc == 2 and "Nothing is lost: %s/etcd-" % backups in output and "it cannot be reached" in output, output
        (first,) = (name for name in os.listdir(backups) if name.endswith(".db"))
        # the one place knows nothing of the other
        assert sorted(os.listdir(place / "here")) == [first, first + ".json"]
        assert (place / "here" / first).read_bytes() == (backups / first).read_bytes()
        assert (place / "here" / first).stat().st_mode & 0o777 == 0o600 and (place / "here").stat().st_mode & 0o777 == 0o700
        far.start()
        # the progress of a large one is reported; each place has its own rules, and is pruned only once the new one is there
        for number in range(8):
            etcd.put("/big/%d" % number, os.urandom(1000000))
        keep = {"etcd_snapshot_off_site_keep": {"last": 1}, "etcd_snapshot_keep": {"last": 2, "daily": 1}}
        rc, output, _recap = run(*LARGE, etcd_snapshot_off_site_bwlimit="1M", **keep)
        assert rc == 0 and "It is off-site at far:backups/prod, and was verified there, as 1 of earlier runs; 1 older" in output, output
        second = max(name for name in os.listdir(backups) if name.endswith(".db"))
        lines = re.findall(re.escape(second) + r": ([0-9.]+ \S+) of ([0-9.]+ MB) are at far:backups/prod.* after ([0-9]+) s", output)
        assert len(lines) >= 2 and any(" MB" in sent for sent, _size, _seconds in lines) and len({size for _sent, size, _seconds in lines}) == 1, output
        assert re.search(r"are at far:backups/prod.* s, [0-9.]+ [KM]B/s", output), output
        assert jobs.is_dir() and list(jobs.iterdir()) == []
        assert far.stored(second).read_bytes() == (backups / second).read_bytes() and far.secret not in output
        assert sorted(os.listdir(far.stored("").parent / "prod")) == [second, second + ".json"]
        both = [first, first + ".json", second, second + ".json"]
        assert sorted(os.listdir(place / "here")) == both == sorted(name for name in os.listdir(backups) if not name.startswith("."))
    assert not list(pathlib.Path("/run").glob("k8s-dr-etcd-*"))


def test_a_place_that_is_away_stops_no_other_and_the_next_run_fills_its_gap(place, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("rclone")) + os.pathsep + os.environ["PATH"])
    share = place / "share"
    share.mkdir()

    def run(*places):
        hosts = {"cp1": with_tools(etcd, tmp_path, etcd_snapshot_off_site=list(places), etcd_snapshot_textfile_dir=str(tmp_path))}
        rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts, "-e", "etcd_snapshot_keep=5")
        handed = stats(output)["etcd_snapshot"]
        return rc, " ".join(output.split()), handed, os.path.basename(handed["path"])

    def of_metrics(name):
        return re.search(r"^k8s_dr_etcd_snapshot_%s (\S+)$" % name, (tmp_path / "k8s_dr_etcd_snapshot.prom").read_text(), re.MULTILINE)

    def there(directory):
        return sorted(name for name in os.listdir(directory) if name.endswith(".db"))

    with harness.Etcd(VERSION, tmp_path) as etcd, servers.S3(place / "far") as far:
        harness.fill(etcd)
        away = {"remote": far.where, "keep": 2, "rclone_config_source": far.config(place / "rclone.conf")}
        far.kill()
        names = []
        for _night in range(3):
            rc, output, handed, name = run(away, str(share))
            names.append(name)
            assert rc == 2 and "far:backups/prod cannot be listed" in output and "it cannot be reached" in output, output
            assert "It is off-site at %s, and was verified there" % share in output and there(share) == names
            assert (handed["off_site"], handed["off_site_places"]) == (str(share), [str(share)])
            assert of_metrics("last_run_success").group(1) == "0" and of_metrics("last_off_site_timestamp_seconds") is None
        far.start()
        rc, output, handed, name = run(away, str(share))
        names.append(name)
        assert rc == 0 and "It is off-site at far:backups/prod, and was verified there, as 1 of earlier runs." in output, output
        assert handed["off_site_places"] == [far.where, str(share)] and there(share) == names
        # what the place would not keep was not uploaded to it
        assert there(far.stored("").parent / "prod") == names[2:]
        assert of_metrics("last_run_success").group(1) == "1" and of_metrics("last_off_site_timestamp_seconds")
        # settings that are wrong cost the other places nothing either
        rc, output, handed, name = run(dict(away, rclone_config_source=str(place / "none")), {"remote": "x:y", "colour": 1}, str(share))
        assert rc == 2 and handed["off_site_places"] == [str(share)] and there(share) == [*names, name], output
        assert "nothing was done at far:backups/prod; is %s a file on the controller? Nothing is lost" % (place / "none") in output, output
        assert "the off-site place x:y has the setting colour" in output and far.secret not in output
    assert not list(pathlib.Path("/run").glob("k8s-dr-etcd-*"))


def test_clusters_whose_hosts_have_the_same_name_keep_their_own_copies(place, tmp_path):
    """Of one second, both are called the same: then one of them is told that it has no copy."""
    with harness.Etcd(VERSION, tmp_path / "a") as first, harness.Etcd(VERSION, tmp_path / "b") as second:
        hosts = {}
        for name, etcd, objects in (("a", first, 300), ("b", second, 100)):
            harness.fill(etcd, objects=objects)
            (tmp_path / ("on-" + name)).mkdir()
            hosts[name] = with_tools(etcd, tmp_path / ("on-" + name), etcd_snapshot_fetch=str(place / "here"))
        rc, output, recap = play("playbooks/snapshot.yml", tmp_path, hosts)
        of_host = {one["host"]: one for one in stats(output)["etcd_snapshots"]}
        assert set(of_host) == {"a", "b"}, output
        theirs = {host: place / "here" / os.path.basename(one["path"]) for host, one in of_host.items()}
        own = [host for host, path in theirs.items() if hashlib.sha256(path.read_bytes()).hexdigest() == of_host[host]["sha256"]]
        told = [host for host in of_host if recap[host]["failed"]]
        # no host reports the copy of another one as its own
        assert sorted(own + told) == ["a", "b"] and (told == []) == (theirs["a"] != theirs["b"]) == (rc == 0), output
        assert sorted(os.listdir(place / "here")) == sorted(path.name + suffix for path in {theirs[host] for host in own} for suffix in ("", ".json"))
