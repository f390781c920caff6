# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the messages and results of rclone are read; tests/integration/test_upload.py has the real one."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import rclone_process, store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError


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
def test_messages_of_rclone_are_classified(words, kind):
    assert rclone_process.trouble([words])[0] == kind


def test_an_unreadable_configuration_is_an_error_and_a_world_readable_one_a_warning(far, tmp_path):
    with pytest.raises(RcloneError, match="cannot be read"):
        remote_store.Remote("far:", config=str(tmp_path / "absent"), binary=far.remote.rclone.binary)
    config = tmp_path / "rclone.conf"
    config.write_text("")
    config.chmod(0o644)
    remote = remote_store.Remote("far:", config=str(config), binary=far.remote.rclone.binary)
    assert "0600" in remote.rclone.config_warning()
    config.chmod(0o600)
    assert remote.rclone.config_warning() is None


def test_a_hanging_rclone_is_ended(far):
    remote = far.remote
    remote.rclone.timeout = 1
    far.plan(["cat", "hang"], ["cat", "hang"])
    far.add()
    with pytest.raises(RcloneError, match="not done in time") as caught:
        remote.digest("etcd-cp1-20260102T030405Z.db")
    assert caught.value.kind == "timeout"


def test_flags_are_only_for_what_the_configuration_does_not_set(far):
    remote = far.remote
    far.add()

    def flags(**sections):
        far.configure(**sections)
        remote.names()
        return sorted(one for one in far.calls()[-1][0] if one.startswith("--s3-"))

    assert flags(far={"type": "s3"}) == flags(far={"type": "sftp"}) == ["--s3-no-check-bucket=true", "--s3-upload-concurrency=2"]
    assert flags(far={"type": "s3", "upload_concurrency": "8"}) == ["--s3-no-check-bucket=true"]
    # of what it is made of, and of no other
    crypt = {"far": {"type": "crypt", "remote": "below:bucket/x"}, "other": {"type": "s3", "upload_concurrency": "8"}}
    assert flags(**crypt, below={"type": "s3", "no_check_bucket": "false"}) == ["--s3-upload-concurrency=2"]
    assert flags(far={"type": "union", "upstreams": "/mnt below:bucket:ro"}, below={"type": "s3", "no_check_bucket": "false"}) == ["--s3-upload-concurrency=2"]


def test_time_grows_with_size():
    assert rclone_process.budget(0) == 600
    assert rclone_process.budget(10**9) > 10000
    assert rclone_process.budget(10**9, "10M") == rclone_process.budget(10**9)
    # KiB without a unit, bits never; of a timetable and of two directions the slowest
    for limit in ("64", "64k", "08:00,64k 18:00,10M", "10M:64k", "00:00,off 08:00,64Ki", "0.0625M"):
        assert rclone_process.budget(10**9, limit) == 600 + 10**9 // 65536, limit
    assert rclone_process.budget(10**9, "off") == rclone_process.budget(10**9, "") == rclone_process.budget(10**9)
