# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots that are held until they are released, and snapshots that are deleted by their name: in a directory, and off-site on real servers."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib

import harness
import pytest
import servers
from test_prune import names, of_cluster, prune
from test_snapshot_role import play
from test_upload import far, kind, make, manifest_of, place, upload  # noqa: F401


def hold(path, check_mode=False, **options):
    return harness.run_module("etcd_snapshot_hold", check_mode=check_mode, diff=True, **dict({"directory": path.parent, "name": path.name}, **options))


def delete(path, check_mode=False, **options):
    return harness.run_module("etcd_snapshot_delete", check_mode=check_mode, diff=True, **dict({"directory": path.parent, "name": path.name}, **options))


def off_site(server, place, rclone="rclone"):  # noqa: F811
    """Options that name the place instead of the directory."""
    return {"remote": server.where, "rclone_config": server.config(place / "rclone.conf"), "rclone": servers.program(rclone)}


def test_a_held_snapshot_stays_until_it_is_released(tmp_path):
    directory = tmp_path / "backups"
    paths = [make(directory, day, size=1000) for day in (1, 2, 3, 4)]
    before = manifest_of(paths[0])
    rc, predicted = hold(paths[0], True, reason="before the  upgrade ", by="alice")
    assert rc == 0 and predicted["changed"] and manifest_of(paths[0]) == before and not (directory / ".lock").exists(), predicted
    rc, result = hold(paths[0], reason="before the  upgrade ", by="alice")
    assert rc == 0 and result["changed"], result
    found = manifest_of(paths[0])
    assert {name: found["hold"][name] for name in ("reason", "by")} == {"reason": "before the upgrade", "by": "alice"}
    assert dict(before, hold=found["hold"]) == found and result["snapshot"]["hold"] == found["hold"]
    for one in (predicted, result):
        assert json.loads(one["diff"]["before"]) == {"hold": None} and json.loads(one["diff"]["after"])["hold"]["by"] == "alice"
    assert pathlib.Path(str(paths[0]) + ".json").stat().st_mode & 0o777 == 0o600
    # once is enough, also where another user does it again
    for more in ({}, {"reason": "before the upgrade", "by": "bob"}):
        rc, result = hold(paths[0], **more)
        assert rc == 0 and not result["changed"] and manifest_of(paths[0]) == found, result
    rc, result = hold(paths[0], reason="audit")
    assert rc == 0 and result["changed"] and manifest_of(paths[0])["hold"]["reason"] == "audit", result

    # no rule removes it, and none counts it
    rc, result = prune(directory=directory, keep=2)
    assert rc == 0 and result["removed"] == [str(paths[1])], result
    assert [(one["path"], one["by"]) for one in result["kept"]] == [(str(paths[3]), ["last"]), (str(paths[2]), ["last"]), (str(paths[0]), ["hold"])]
    rc, result = delete(paths[0], force=True)
    assert rc == 1 and "is held since" in result["msg"] and ": audit. Release it first" in result["msg"] and paths[0].exists(), result

    for check_mode in (True, False):
        rc, result = hold(paths[0], check_mode, state="absent")
        assert rc == 0 and result["changed"] and result["snapshot"]["hold"] is None, result
    assert manifest_of(paths[0]) == before
    rc, result = hold(paths[0], state="absent")
    assert rc == 0 and not result["changed"], result
    rc, result = prune(directory=directory, keep=2)
    assert rc == 0 and result["removed"] == [str(paths[0])], result


def test_what_cannot_be_held(tmp_path):
    path = make(tmp_path / "backups")
    stranger = path.parent / "etcd-cp1-20250101T030405Z.db"
    stranger.write_bytes(b"unknown")
    rc, result = hold(stranger)
    assert rc == 1 and "is not known to be a snapshot of this collection" in result["msg"] and result["msg"].endswith("was not held"), result
    missing = path.parent / "etcd-cp9-20260102T030405Z.db"
    rc, result = hold(missing)
    assert rc == 1 and "there are: " + path.name in result["msg"], result
    rc, result = hold(missing, required=False)
    assert rc == 0 and not result["changed"] and result["snapshot"] is None, result
    for name in ("../" + path.name, str(path), ""):
        rc, result = hold(path, name=name)
        assert rc == 1 and "is not the name of a snapshot" in result["msg"], result
    rc, result = hold(path, reason="x" * 201)
    assert rc == 1 and "`reason` has 201 characters" in result["msg"] and "hold" not in manifest_of(path), result
    with open(path.parent / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rc, result = hold(path, lock_timeout=1)
        assert rc == 1 and "another snapshot is being taken" in result["msg"], result
    # a damaged one may be kept, for example to look into it
    path.write_bytes(b"short")
    rc, result = hold(path)
    assert rc == 0 and result["changed"] and "is not verified" in json.dumps(result["warnings"]), result


def test_a_snapshot_is_deleted_with_its_manifest(tmp_path):
    directory = tmp_path / "backups"
    paths = [make(directory, day, size=1000) for day in (1, 2, 3)]
    before = names(directory)
    rc, predicted = delete(paths[2], True)
    assert rc == 0 and predicted["changed"] and names(directory) == before and not (directory / ".lock").exists(), predicted
    rc, result = delete(paths[2])
    for answer in (predicted, result):
        answer.pop("invocation", None)
    assert rc == 0 and result == predicted and result["snapshot"]["size"] == 1000, result
    assert names(directory) == sorted(path.name + suffix for path in paths[:2] for suffix in ("", ".json"))
    rc, result = delete(paths[2])
    assert rc == 1 and "has no snapshot" in result["msg"], result
    rc, result = delete(paths[2], required=False)
    assert rc == 0 and not result["changed"], result
    # a damaged one, and what is left of a lost one
    paths[0].write_bytes(b"short")
    rc, result = delete(paths[0])
    assert rc == 0 and not result["snapshot"]["verified"] and names(directory) == [paths[1].name, paths[1].name + ".json"], result
    lost = make(directory, 9)
    lost.unlink()
    rc, result = delete(lost)
    assert rc == 0 and names(directory) == [paths[1].name, paths[1].name + ".json"], result


def test_what_is_not_deleted(tmp_path):
    directory = tmp_path / "backups"
    path = make(directory)
    # neither what is damaged nor what is of another host makes it less the only one
    make(directory, 3).write_bytes(b"short")
    make(directory, 4, host="cp2")
    stranger = directory / "etcd-cp1-20250101T030405Z.db"
    stranger.write_bytes(b"unknown")
    pathlib.Path(str(make(directory, 5)) + ".json").write_text("{")
    before = names(directory)
    for check_mode in (True, False):
        rc, result = delete(path, check_mode)
        assert rc == 1 and "is the only verified snapshot of the host cp1 in %s" % directory in result["msg"], result
        assert result["msg"].endswith("%s was not deleted" % path.name)
        rc, result = delete(stranger, check_mode, force=True)
        assert rc == 1 and "is not known to be a snapshot" in result["msg"] and "has no manifest" in result["msg"], result
        rc, result = delete(directory / "etcd-cp1-20260105T030405Z.db", check_mode, force=True)
        assert rc == 1 and "is not known to be a snapshot" in result["msg"], result
        rc, result = delete(path, check_mode, etcd_ca="b" * 64, force=True)
        assert rc == 1 and "is of another cluster" in result["msg"], result
    assert names(directory) == before
    rc, result = delete(path, force=True)
    assert rc == 0 and not path.exists(), result


def test_off_site(far, place):  # noqa: F811
    local = place / "local"
    paths = [make(local, day) for day in (1, 2, 3)]
    assert upload(far, place, directory=local)[0] == 0
    there = off_site(far, place)
    own = {"etcd_ca": "a" * 64}
    stored, note = (pathlib.Path(str(far.stored(paths[0].name)) + suffix) for suffix in (".json", ".1.note"))
    before = stored.read_bytes()
    for check_mode in (True, False):
        assert not note.exists()
        rc, result = hold(paths[0], check_mode, reason="audit", **there)
        assert rc == 0 and result["changed"] and result["snapshot"]["path"] == far.where + "/" + paths[0].name, result
    assert stored.read_bytes() == before and json.loads(note.read_bytes())["hold"]["reason"] == "audit" and "hold" not in manifest_of(paths[0])
    rc, result = prune(keep=1, **own, **there)
    assert rc == 0 and [os.path.basename(path) for path in result["removed"]] == [paths[1].name], result
    rc, result = delete(paths[0], **own, **there)
    assert rc == 1 and "Release it first" in result["msg"] and stored.exists(), result

    # a copy that is replaced stays held, as it was there
    with open(far.stored(paths[0].name), "r+b") as stream:
        stream.write(b"damage")
    rc, result = upload(far, place, path=paths[0], verify="read")
    assert rc == 0 and result["changed"] and json.loads(note.read_bytes())["hold"]["reason"] == "audit", result
    assert far.stored(paths[0].name).read_bytes() == paths[0].read_bytes()

    rc, result = hold(paths[0], state="absent", **there)
    note = note.with_name(paths[0].name + ".2.note")
    assert rc == 0 and result["changed"] and "hold" not in json.loads(note.read_bytes()), result
    # of another cluster it counts as not there
    rc, result = delete(paths[0], required=False, manifests_dir=place / "nothing", **there)
    assert rc == 0 and not result["changed"] and "is of another cluster" in json.dumps(result["warnings"]) and stored.exists(), result
    rc, result = delete(paths[0], **own, **there)
    assert rc == 0 and not list(far.stored("").glob(paths[0].name + "*")), result
    rc, result = delete(paths[2], **own, **there)
    assert rc == 1 and "is the only verified snapshot of its cluster at %s" % far.where in result["msg"], result
    # the first step of a deletion
    far.stored(paths[2].name).unlink()
    rc, result = delete(paths[2], **own, **there)
    assert rc == 0 and result["snapshot"]["size"] is None and not list(far.stored("").glob("etcd-*")), result

    # what is uploaded after it was held is held there
    assert hold(paths[1], reason="mine")[0] == 0
    assert upload(far, place, path=paths[1])[0] == 0
    assert json.loads(pathlib.Path(str(far.stored(paths[1].name)) + ".json").read_bytes())["hold"]["reason"] == "mine"
    far.kill()
    for act in (hold, delete):
        rc, result = act(paths[1], **there)
        assert rc == 1 and "cannot be reached" in result["msg"], result


def _hold(path):
    """What the newest note beside a snapshot says of a hold, or else its manifest."""
    beside = sorted(path.parent.glob(path.name + ".*.note"))
    return (json.loads(beside[-1].read_bytes()) if beside else manifest_of(path)).get("hold", {})


@pytest.mark.parametrize("kind", [servers.S3], indirect=False)
def test_hold_yml_and_delete_yml(kind, place, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("rclone")) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("USER", "alice")
    with kind(place / "far") as far:  # noqa: F811
        hosts, share = {}, place / "share"
        share.mkdir()
        config = far.config(place / "rclone.conf")
        places = [{"remote": far.where, "rclone_config_source": config, "keep": 2}, str(share)]
        for host in ("cp1", "cp2"):
            directory = tmp_path / host
            manifests, authority = of_cluster(tmp_path / (host + "-pki"), b"one CA")
            for day in (1, 2, 3):
                make(directory, day, host=host, fingerprints={"etcd_ca": authority})
            for there in ({}, {"remote": str(share)}):
                assert upload(far, place, directory=directory, **there)[0] == 0
            hosts[host] = {"etcd_client_manifests_dir": manifests, "etcd_snapshot_dir": str(directory), "etcd_snapshot_keep": 1}
            hosts[host]["etcd_snapshot_off_site"] = places
        name = "etcd-cp1-20260101T030405Z.db"
        copies = [tmp_path / "cp1" / name, far.stored(name), share / name]

        def held():
            return [_hold(path).get("reason") for path in copies]

        def run(playbook, *arguments):
            rc, output, recap = play("playbooks/%s.yml" % playbook, tmp_path, hosts, *arguments)
            assert far.secret not in output
            return rc, output, recap

        wanted = ("-e", "etcd_snapshot_hold=" + name, "-e", json.dumps({"etcd_snapshot_hold_reason": "before the upgrade"}))
        rc, output, recap = run("hold", *wanted, "--check", "--diff")
        assert rc == 0 and output.count("would be held") == 3 and held() == [None] * 3, output
        rc, output, recap = run("hold", *wanted)
        assert rc == 0 and held() == ["before the upgrade"] * 3 and output.count(": held") == 3, output
        assert manifest_of(copies[0])["hold"]["by"] == "alice"
        rc, output, recap = run("hold", *wanted)
        assert rc == 0 and [one["changed"] for one in recap.values()] == [0, 0], output
        rc, output, recap = run("list")
        assert rc == 0 and output.count(name + " (held)") == 3 and output.count(" by alice: before the upgrade") >= 3, output

        rc, output, recap = run("prune")
        assert rc == 0 and all(path.exists() for path in copies), output
        assert "%s: 2 stay, 1 of them held" % (tmp_path / "cp1") in output and "far:backups/prod: 3 stay, 1 of them held" in output, output
        rc, output, recap = run("delete", "-e", "etcd_snapshot_delete=" + name, "-e", "etcd_snapshot_delete_confirm=true")
        assert rc == 2 and "Release it first" in output and all(path.exists() for path in copies), output

        rc, output, recap = run("hold", "-e", "etcd_snapshot_release=" + name)
        assert rc == 0 and held() == [None] * 3, output
        for arguments, words in (
            ((), "No snapshot is named"),
            ((*wanted, "-e", "etcd_snapshot_release=" + name), "or two are"),
            (("-e", "etcd_snapshot_hold=etcd-cp9-20260101T030405Z.db"), "no off-site place has a snapshot etcd-cp9"),
        ):
            rc, output, recap = run("hold", *arguments)
            assert rc == 2 and words in " ".join(output.split()), output

        # every place is asked before anything is deleted: the last one of a host refuses
        last = "etcd-cp1-20260103T030405Z.db"
        (tmp_path / "cp1" / name).unlink()
        rc, output, recap = run("delete", "-e", "etcd_snapshot_delete=" + last, "-e", "etcd_snapshot_delete_confirm=true")
        assert rc == 2 and "is the only verified snapshot of the host cp1" in output and far.stored(last).exists() and (share / last).exists(), output
        wanted = ("-e", "etcd_snapshot_delete=" + last, "-e", "etcd_snapshot_delete_force=true")
        rc, output, recap = run("delete", *wanted, "--check")
        assert rc == 0 and output.count("Z would be deleted") == 3 and far.stored(last).exists(), output
        # there is no terminal
        rc, output, recap = run("delete", *wanted)
        assert rc == 2 and "This was not confirmed, so nothing was deleted" in " ".join(output.split()) and far.stored(last).exists(), output
        far.kill()
        rc, output, recap = run("delete", *wanted, "-e", "etcd_snapshot_delete_confirm=true")
        assert rc == 2 and "it cannot be reached" in output and (share / last).exists() and (tmp_path / "cp1" / last).exists(), output
        far.start()
        rc, output, recap = run("delete", *wanted, "-e", "etcd_snapshot_delete_confirm=true")
        assert rc == 0 and not far.stored(last).exists() and not (share / last).exists() and not (tmp_path / "cp1" / last).exists(), output
        assert (recap["cp1"]["changed"], recap["cp2"]["changed"]) == (3, 0), output
        assert far.stored("etcd-cp2-20260103T030405Z.db").exists()
        rc, output, recap = run("delete", *wanted, "-e", "etcd_snapshot_delete_confirm=true")
        assert rc == 2 and "has a snapshot %s" % last in " ".join(output.split()), output
