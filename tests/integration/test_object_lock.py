# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots in a bucket with S3 Object Lock in the mode COMPLIANCE, on a real server: what is locked is neither replaced nor deleted, and later it goes."""

from __future__ import annotations

import datetime
import functools
import json
import os
import subprocess

import harness
import pytest
import servers
from test_hold import delete, hold, off_site
from test_prune import prune
from test_snapshot_role import VERSION, play, with_tools
from test_upload import fetch, make, manifest_of, place, upload  # noqa: F401

NOW = functools.partial(datetime.datetime.now, datetime.timezone.utc)
OWN = {"etcd_ca": "a" * 64}
RCLONES = ["rclone", "rclone-new"]


@pytest.fixture
def far(place):  # noqa: F811
    with servers.S3(place / "far", locked=True) as server:
        yield server


def drill(name, **there):
    return harness.run_module("etcd_snapshot_drill", path=name, level="checksum", **there)


def files(*paths):
    return sorted(path.name + suffix for path in paths for suffix in ("", ".json"))


def test_what_is_locked_stays_until_its_lock_ends(far, place):  # noqa: F811
    local, there = place / "local", off_site(far, place, "rclone-new")
    paths = [make(local, day) for day in (1, 2, 3)]
    rc, result = upload(far, place, "rclone-new", directory=local, object_lock_days=30)
    assert rc == 0 and len(result["uploaded"]) == 3, result
    assert far.everything() == files(*paths)
    before = {path.name: path.read_bytes() for path in far.stored("").glob("etcd-*")}

    # what is recorded later goes beside
    assert drill(paths[2].name, **there)[1]["snapshot"]["recorded"]
    for state in ("present", "absent"):
        rc, result = hold(paths[0], reason="audit", state=state, **there)
        assert rc == 0 and result["changed"] and not result.get("warnings"), result
    assert {path.name: path.read_bytes() for path in far.stored("").glob("etcd-*") if not path.name.endswith(".note")} == before
    assert upload(far, place, "rclone-new", directory=local, object_lock_days=30)[1]["changed"] is False

    for check_mode in (True, False):
        rc, result = prune(check_mode, keep=1, **OWN, **there)
        assert rc == 0 and not result["changed"] and result["undeletable"] == [] and not result.get("warnings"), result
        assert [one["path"] for one in result["locked"]] == [far.where + "/" + path.name for path in (paths[1], paths[0])], result
        days = [(datetime.datetime.fromisoformat(one["until"][:-1] + "+00:00") - NOW()).total_seconds() / 86400 for one in result["locked"]]
        assert all(29.9 < one < 30.1 for one in days), result
        rc, result = delete(paths[0], check_mode, **OWN, **there)
        assert rc == 1 and "is protected by S3 Object Lock until 20" in result["msg"] and "was not deleted" in result["msg"], result

    far.advance(29.9)
    assert prune(keep=1, **OWN, **there)[1]["removed"] == []
    far.advance(0.2)
    # the versions themselves go, and no delete marker stays
    rc, result = delete(paths[1], **OWN, **there)
    assert rc == 0, result
    rc, result = prune(keep=1, **OWN, **there)
    assert rc == 0 and result["removed"] == [far.where + "/" + paths[0].name] and result["locked"] == [], result
    assert far.everything() == sorted([*files(paths[2]), paths[2].name + ".1.note"])


@pytest.mark.parametrize("rclone", RCLONES)
def test_what_is_not_locked_is_a_failure(place, rclone):  # noqa: F811
    path = make(place / "local")
    # a bucket without Object Lock
    with servers.S3(place / "far") as far:
        for _run in range(2):
            rc, result = upload(far, place, rclone, path=path, object_lock_days=30)
            words = "Object Lock does not protect it. rclone 1.74 and later sets" if rclone == "rclone" else "the bucket has no Object Lock"
            assert rc == 1 and words in result["msg"] and str(path) in result["msg"], result
            assert not far.stored(path.name + ".json").exists() and "off_site" not in manifest_of(path)
        # what was not asked for is not missed
        assert upload(far, place, rclone, path=path)[0] == 0


def test_an_older_rclone_needs_a_default_retention(far, place):  # noqa: F811
    path = make(place / "local", name=NOW().strftime("etcd-cp1-%Y%m%dT%H%M%SZ.db"), created=NOW().strftime("%Y-%m-%dT%H:%M:%SZ"))
    with servers.Proxy(far, retention=30) as bucket:
        # whatever the runs before left there
        for _run in range(3):
            rc, result = upload(bucket, place, path=path, object_lock_days=60)
            assert rc == 1 and "S3 Object Lock protects it only until 20" in result["msg"] and "at least 60 days" in result["msg"], result
            assert "off_site" not in manifest_of(path)
        rc, result = upload(bucket, place, path=path, object_lock_days=30)
        assert rc == 0 and result["uploaded"][0]["file"] == path.name, result
    rc, result = prune(keep=1, **OWN, **off_site(far, place))
    assert rc == 0 and result["kept"][0]["by"] == ["last"], result
    rc, result = delete(path, force=True, **OWN, **off_site(far, place))
    assert rc == 1 and "is protected by S3 Object Lock until 20" in result["msg"], result


def test_snapshot_yml_locks_what_it_uploads_and_reports_what_is_locked(far, place, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("rclone-new")) + os.pathsep + os.environ["PATH"])
    away = {"remote": far.where, "keep": 1, "object_lock_days": 20, "rclone_config_source": far.config(place / "rclone.conf")}
    with harness.Etcd(VERSION, tmp_path) as etcd:
        harness.fill(etcd)
        hosts = {"cp1": with_tools(etcd, tmp_path, etcd_snapshot_off_site=[away])}
        for words in ("was verified there.", "was verified there; of those that are surplus there, 1 is locked until 20"):
            rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts)
            assert rc == 0 and words in " ".join(output.split()), output
        rc, output, _recap = play("playbooks/prune.yml", tmp_path, hosts)
        assert rc == 0 and "far:backups/prod: 1 stay, 0 removed (0.00 Bytes), 1 is locked until 20" in " ".join(output.split()), output
        far.advance(21)
        rc, output, _recap = play("playbooks/prune.yml", tmp_path, hosts)
        assert rc == 0 and "far:backups/prod: 1 stay, 1 removed" in " ".join(output.split()) and len(far.everything()) == 2, output


NIGHTS = int(os.environ.get("NIGHTS", "20"))
KEEP, LOCKED = {"last": 3, "weekly": 2}, 5


def test_every_night_is_green(far, place):  # noqa: F811
    """Nights in a row, NIGHTS of them: 20, or 365 for a year, which takes half an hour.

    The server refuses by its own clock, and the modules judge by theirs; both are right.  A night that passes moves what the server has stored: each lock ends
    a day earlier.  The snapshots are dated from the past up to now, since retention goes by their dates.
    """
    local, there = place / "local", off_site(far, place, "rclone-new")
    first = NOW().replace(hour=3, minute=4, second=5, microsecond=0) - datetime.timedelta(NIGHTS + 1)
    uploaded, held = {}, None
    for night in range(NIGHTS):
        date = first + datetime.timedelta(night)
        path = make(local, size=1000, name="etcd-cp1-%s.db" % date.strftime("%Y%m%dT%H%M%SZ"), created=date.strftime("%Y-%m-%dT%H:%M:%SZ"))
        away = night % 60 == 13
        if away:
            far.kill()
        # the older one is quick to give up
        rc, result = upload(far, place, RCLONES[not away], path=path, directory=local, keep=KEEP, object_lock_days=LOCKED, retries=1)
        if away:
            assert rc == 1 and "cannot be reached" in result["msg"], result
            far.start()
        else:
            assert rc == 0 and not result.get("warnings"), (night, result)
            # the gap is filled
            assert len(result["uploaded"]) == (2 if night % 60 == 14 else 1), (night, result)
            uploaded.update((one["file"], night) for one in result["uploaded"])
            rc, result = prune(keep=KEEP, **OWN, **there)
            assert rc == 0 and not result.get("warnings") and result["undeletable"] == [], (night, result.get("msg"), result)
            for one in result["removed"]:
                assert night - uploaded.pop(os.path.basename(one)) >= LOCKED and one != held, (night, one)
        if night % 10 == 7:
            rc, result = drill(sorted(uploaded)[-1], **there)
            assert rc == 0 and result["snapshot"]["recorded"] and not result.get("warnings"), (night, result)
        if night % 25 in (3, 22):
            held = far.where + "/" + sorted(uploaded)[-1] if night % 25 == 3 else held
            rc, result = hold(path, name=os.path.basename(held), state="present" if night % 25 == 3 else "absent", **there)
            assert rc == 0 and result["changed"] and not result.get("warnings"), (night, result)
            held = held if night % 25 == 3 else None
        # the node keeps four
        for name in sorted(path.name for path in local.glob("*.db"))[:-4]:
            (local / name).unlink()
            (local / (name + ".json")).unlink()
        if night % 5 == 4:
            # nothing goes early, nothing stays for ever: what is locked, what the rules keep, and what is held or was
            stored = far.everything()
            assert sorted(name for name in stored if name.endswith(".db")) == sorted(uploaded), night
            assert len(uploaded) <= LOCKED + 7 and len(stored) <= 3 * len(uploaded), (night, stored)
            assert not [name for name in stored if "-v20" in name], (night, stored)
        far.advance(1)


@pytest.mark.parametrize("rclone", RCLONES)
def test_what_an_intruder_deletes_or_replaces_is_found_and_fetched(far, place, rclone):  # noqa: F811
    local, there = place / "local", off_site(far, place, rclone)
    paths = [make(local, day) for day in (1, 2, 3)]
    assert upload(far, place, "rclone-new", directory=local, object_lock_days=30)[0] == 0

    def listed(**more):
        rc, result = harness.run_module("etcd_snapshot_list", directory=place / "none", **dict(there, **more))
        assert rc == 0, result
        return {one["file"]: one["verified"] for one in result["snapshots"]}, json.dumps(result.get("warnings"))

    everything = {path.name: True for path in paths}
    assert listed() == (everything, "null")

    def intrude(*args):
        far.rclone("--config", there["rclone_config"], "--s3-no-check-bucket", *args, name="rclone-new")

    # deleted, replaced by other data of the same size, and a manifest that is damaged
    for name in files(paths[2]):
        intrude("deletefile", "%s/%s" % (far.where, name))
    (place / "garbage").write_bytes(os.urandom(paths[1].stat().st_size))
    intrude("copyto", str(place / "garbage"), "%s/%s" % (far.where, paths[1].name))
    intrude("copyto", "--ignore-times", str(place / "garbage"), "%s/%s.json" % (far.where, paths[0].name))
    found, warnings = listed()
    assert found == {paths[1].name: True, paths[0].name: False}
    assert "in far:backups/prod were deleted or replaced" in warnings and "versions=true: " + ", ".join(path.name for path in reversed(paths)) in warnings
    # nothing of that can be deleted for good; one by one, since versitygw 1.8.0 looks for a lock and moves versions without a lock of its own
    with pytest.raises(subprocess.CalledProcessError):
        intrude("delete", "--s3-versions", "--transfers=1", "--checkers=1", far.where)
    # versitygw 1.8.0 with --sidecar has nothing that is written over a delete marker
    for path in paths[:2]:
        intrude("copyto", "--ignore-times", str(place / "garbage"), "%s/%s" % (far.where, path.name))

    assert listed(versions=True) == (everything, "null")
    for check_mode in (True, False):
        rc, result = fetch(far, place, place / "back", rclone, check_mode, versions=True)
        assert rc == 0 and result["changed"] and result["snapshot"]["file"] == paths[2].name, result
    for path in paths:
        rc, result = fetch(far, place, place / "back", rclone, versions=True, name=path.name)
        assert rc == 0 and result["changed"] is (path != paths[2]), result
        assert (place / "back" / path.name).read_bytes() == path.read_bytes() and manifest_of(place / "back" / path.name)["file"] == path.name
    rc, result = fetch(far, place, place / "back", rclone, versions=True, name="etcd-cp9-20260101T030405Z.db")
    assert rc == 1 and "has no version of a snapshot etcd-cp9" in result["msg"], result


@pytest.mark.parametrize("rclone", RCLONES)
def test_an_sftp_account_that_may_only_add_files(place, rclone):  # noqa: F811
    local = place / "local"
    paths = [make(local, day) for day in (1, 2, 3)]
    with servers.Sftp(place / "far", append_only=True) as far:
        there = off_site(far, place, rclone)
        rc, result = upload(far, place, rclone, path=paths[0])
        assert rc == 0 and not result.get("warnings"), result
        before = {path.name: path.read_bytes() for path in far.stored("").iterdir()}
        assert sorted(before) == files(paths[0])
        for _night in range(2):
            assert drill(paths[0].name, **there)[1]["snapshot"]["recorded"]
        for state in ("present", "absent", "present"):
            rc, result = hold(paths[0], reason="audit", state=state, **there)
            assert rc == 0 and result["changed"] and not result.get("warnings"), result
        assert {name: far.stored(name).read_bytes() for name in before} == before
        rc, result = harness.run_module("etcd_snapshot_list", **there)
        assert rc == 0 and result["snapshots"][0]["hold"]["reason"] == "audit" and "checksum" in result["snapshots"][0]["levels"], result

        # what an interrupted upload leaves is in the way of no other
        partial = far.stored(paths[1].name)
        partial.write_bytes(paths[1].read_bytes()[:1000])
        os.chown(partial, 4242, 4242)
        partial.chmod(0o444)
        rc, result = upload(far, place, rclone, directory=local, retries=1)
        assert rc == 1 and "%s/%s is not whole, and may not be replaced; remove it on the server" % (far.where, paths[1].name) in result["msg"], result
        assert result["waiting"] == [str(paths[1])] and far.stored(paths[2].name).read_bytes() == paths[2].read_bytes(), result
        partial.unlink()
        assert upload(far, place, rclone, directory=local)[0] == 0

        rc, result = prune(keep=1, **OWN, **there)
        assert rc == 0 and result["removed"] == [] and len(result["undeletable"]) == 1 and "deletes are forbidden" in json.dumps(result["warnings"]), result
        rc, result = delete(paths[1], **OWN, **there)
        assert rc == 1 and "deletes are forbidden" in result["msg"], result
        assert {path.name for path in far.stored("").glob("*.db")} == {path.name for path in paths}
