# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Uploads to off-site storage and downloads from it."""

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import store as remote_store
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError

NAME = "etcd-cp1-20260102T030405Z.db"


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("where", [":s3,access_key_id=AKIA,secret_access_key=x:bucket", "far,password=x:dir", "relative/path", "", "-flag:x"])
def test_invalid_remotes_and_remotes_with_secrets_are_refused(far, where):
    with pytest.raises(RcloneError) as caught:
        remote_store.Remote(where, binary=far.remote.rclone.binary)
    assert caught.value.kind == "config"
    assert "AKIA" not in str(caught.value) and "password=x" not in str(caught.value)


def test_a_share_that_is_not_mounted_is_refused(far, tmp_path):
    with pytest.raises(RcloneError, match="is it mounted"):
        remote_store.Remote(str(tmp_path / "absent"), binary=far.remote.rclone.binary)


def test_an_upload_is_read_back_and_progress_is_reported(far, tmp_path):
    store, remote = far.store, far.remote
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")
    seen = []
    result = remote.put(str(local), 8, digest(b"snapshot"), progress=seen.append)
    assert result["verified_by"] == "read" and (store / NAME).read_bytes() == b"snapshot"
    assert seen == [3, 8]
    # nothing of the caller's environment, nothing that is not asked for
    assert all(environment == [] for _argv, environment in far.calls())


def test_a_damaged_upload_is_repeated_and_then_reported(far, tmp_path):
    store, remote = far.store, far.remote
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")
    far.plan(["copyto", "damage"])
    remote.put(str(local), 8, digest(b"snapshot"))
    assert (store / NAME).read_bytes() == b"snapshot"
    far.plan(["copyto", "damage"], ["copyto", "damage"])
    with pytest.raises(RcloneError, match="reads back differently") as caught:
        remote.put(str(local), 8, digest(b"snapshot"))
    assert caught.value.kind == "corrupt" and local.read_bytes() == b"snapshot"


def test_a_failure_for_lack_of_space_says_so(far, tmp_path):
    """SFTP servers give no reason."""
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")
    far.plan(["copyto", "error", ["Failure"]])
    with pytest.raises(RcloneError, match=r"there is no room left \(Failure\); free some") as caught:
        far.remote.put(str(local), 8, digest(b"snapshot"))
    assert caught.value.kind == "full"


def test_a_changed_snapshot_is_never_uploaded(far, tmp_path):
    store, remote = far.store, far.remote
    local = tmp_path / NAME
    local.write_bytes(b"snapshoT")
    with pytest.raises(RcloneError, match="not the file that was taken"):
        remote.put(str(local), 8, digest(b"snapshot"))
    assert not (store / NAME).exists()


def test_an_outage_is_retried_and_refused_access_is_not(far, tmp_path):
    remote = far.remote
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")
    far.plan(["copyto", "error", ["connection refused"]], ["copyto", "error", ["connection refused"]])
    remote.put(str(local), 8, digest(b"snapshot"))
    far.plan(*[["copyto", "error", ["AccessDenied: no"]]] * 3)
    with pytest.raises(RcloneError, match=r"could not be sent to far:: access was refused \(AccessDenied: no\)"):
        remote.put(str(local), 8, digest(b"snapshot"))
    assert len(far.planned()) == 2


def test_what_is_not_whole_and_may_not_be_replaced_has_to_be_removed(far, tmp_path):
    local = tmp_path / NAME
    local.write_bytes(b"snapshot")

    def put(*steps):
        far.plan(*steps, ["copyto", "error", ["permission denied"]])
        with pytest.raises(RcloneError) as caught:
            far.remote.put(str(local), 8, digest(b"snapshot"))
        return caught.value.kind, "far:%s is not whole, and may not be replaced; remove it on the server" % NAME in str(caught.value)

    assert put() == ("denied", False)
    # what this very upload left
    assert put(["copyto", "damage"]) == ("corrupt", True)
    (far.store / NAME).write_bytes(b"snap")
    assert put() == ("corrupt", True)
    # nothing is wrong with it
    (far.store / NAME).write_bytes(b"snapshot")
    assert put() == ("denied", False)


def test_an_interrupted_download_is_resumed(far, tmp_path):
    remote = far.remote
    data = os.urandom(100000)
    far.add(data)
    far.plan(["cat", "break", 40000], ["cat", "break", 20000])
    target = tmp_path / "got"
    remote.get(NAME, str(target), len(data), digest(data))
    assert target.read_bytes() == data and target.stat().st_mode & 0o777 == 0o600
    offsets = [one for argv, _environment in far.calls() for one in argv if one.startswith("--offset")]
    assert offsets == ["--offset=0", "--offset=40000", "--offset=60000"]


def test_a_download_resumes_that_of_an_earlier_run_unless_it_was_another_file(far, tmp_path):
    remote = far.remote
    far.add(b"abcdefgh")
    target = tmp_path / "got"
    target.write_bytes(b"abcd")
    remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    assert target.read_bytes() == b"abcdefgh"
    target.write_bytes(b"XXXX")
    remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    assert target.read_bytes() == b"abcdefgh"


def test_a_damaged_object_is_not_downloaded(far, tmp_path):
    store, remote = far.store, far.remote
    far.add(b"abcdefgh")
    (store / NAME).write_bytes(b"abcdefgX")
    target = tmp_path / "got"
    with pytest.raises(RcloneError, match="is damaged"):
        remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    assert not target.exists()
    (store / NAME).write_bytes(b"abc")
    with pytest.raises(RcloneError, match="has 3 bytes, and had 8"):
        remote.get(NAME, str(target), 8, digest(b"abcdefgh"))
    with pytest.raises(RcloneError, match="is not there"):
        remote.get("etcd-other.db", str(target), 8, digest(b"abcdefgh"))


def test_a_missing_directory_is_empty_where_that_is_allowed(far):
    remote = remote_store.Remote("far:new", binary=far.remote.rclone.binary)
    assert remote.names(missing_ok=True) == {}
    with pytest.raises(RcloneError, match="cannot be listed"):
        remote.names()


def test_an_etag_is_trusted_only_where_the_server_computed_it(far):
    remote = far.remote

    def limit(**more):
        far.configure(far=dict(more, type="s3"))
        return remote._one_piece()

    # rclone sends what has the size of the cutoff in parts
    assert limit() == limit(upload_cutoff="1G") == 200 * 1024 * 1024 - 1
    assert limit(upload_cutoff="5Mi") == limit(upload_cutoff="5M") == limit(upload_cutoff="5120") == 5 * 1024 * 1024 - 1
    assert limit(upload_cutoff="off") == limit(directory_bucket="true") == 0
    assert limit(server_side_encryption="aws:kms") == limit(sse_customer_algorithm="AES256") == 0


def test_deleting_twice_is_deleting_once(far):
    remote = far.remote
    far.add()
    assert remote.delete(NAME) and not remote.delete(NAME)
    assert not (far.store / NAME).exists()
    far.plan(["deletefile", "error", ["AccessDenied"]])
    with pytest.raises(RcloneError, match="cannot be removed"):
        remote.delete(NAME)


def test_object_lock_is_set_and_seen(far, tmp_path, monkeypatch):
    path = tmp_path / "etcd-cp1-20260102T030405Z.db"
    path.write_bytes(b"snapshot")
    sha256 = hashlib.sha256(b"snapshot").hexdigest()
    monkeypatch.setattr(remote_store.time, "time", lambda: 1767323045.0)

    def put(**section):
        far.configure(far=dict({"type": "s3"}, **section))
        remote = remote_store.Remote("far:", binary=far.remote.rclone.binary, retry_sleep=0, object_lock_days=30)
        remote.put(str(path), 8, sha256)

    with pytest.raises(RcloneError, match=r"Object Lock does not protect it\..*1\.74 and later.*at least 30 days") as caught:
        put()
    assert caught.value.kind == "config"
    far.lock(**{path.name: "2026-01-31T00:00:00Z"})
    with pytest.raises(RcloneError, match="protects it only until 2026-01-31T00:00:00Z"):
        put()
    far.lock(**{path.name: "2026-02-01T03:04:04Z"})
    put()
    # an rclone that does not know the option ignores it there, and its configuration says more
    assert [call[1] for call in far.calls() if call[0][0] == "copyto"][-1] == ["RCLONE_S3_OBJECT_LOCK_MODE", "RCLONE_S3_OBJECT_LOCK_RETAIN_UNTIL_DATE"]
    put(object_lock_mode="GOVERNANCE")
    assert [call[1] for call in far.calls() if call[0][0] == "copyto"][-1] == ["RCLONE_S3_OBJECT_LOCK_RETAIN_UNTIL_DATE"]
    far.configure(far={"type": "sftp"})
    with pytest.raises(RcloneError, match="is not S3"):
        remote_store.Remote("far:", binary=far.remote.rclone.binary, object_lock_days=30)
