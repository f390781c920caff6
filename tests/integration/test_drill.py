# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stored snapshots of real etcds are verified, level by level: every good one passes, and no damage does."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import harness
import pytest
from test_snapshot_role import play

# A version whose tools can do everything; what differs between versions is tested once.
VERSION = harness.VERSIONS[-1]
SECRET = b"correct-horse-battery-staple"
# name and namespace of the one that harness.fill() makes
IN_A_SECRET = b"\n\x05token\x1a\x07default"


def fill(etcd):
    harness.fill(etcd)
    for name in ("blue", "green"):
        etcd.put("/registry/secrets/shop/" + name, harness.stored("Secret", "shop", name, SECRET + name.encode()))
        etcd.put("/registry/configmaps/shop/" + name, harness.stored("ConfigMap", "shop", name, b"x" * 70000))
    etcd.put("/registry/secrets/shop/encrypted", b"k8s:enc:aescbc:v1:key1:" + os.urandom(64))
    etcd.put("/registry/example.com/widgets/shop/crd", json.dumps({"kind": "Widget", "metadata": {"name": "crd", "namespace": "shop"}}))
    etcd.put("compact_rev_key", b"1")
    lease = etcd.call("/v3/lease/grant", TTL=60)["ID"]
    etcd.call("/v3/kv/put", key=b"/registry/masterleases/10.0.0.1", value=harness.stored("Endpoints", "", ""), lease=lease)


def take(etcd, directory, **more):
    options = dict(etcd.connection, directory=str(directory), manifests_dir="/nonexistent", pki_dir="/nonexistent", host="cp1", **more)
    code, result = harness.run_module("etcd_snapshot", **options)
    assert code == 0, result
    return pathlib.Path(result["snapshot"]["path"])


def store_of(version, directory):
    with harness.Etcd(version, directory) as etcd:
        fill(etcd)
        return take(etcd, directory / "backups")


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """A good snapshot with its manifest, to be copied: nothing is noted of it yet."""
    path = store_of(VERSION, tmp_path_factory.mktemp("drill"))
    assert sorted(read(path)["levels"]) == ["checksum", "status"]
    change(path, level=None, levels={})
    return path


def copy(master, directory, name=None):
    directory.mkdir(exist_ok=True)
    path = directory / (name or master.name)
    shutil.copyfile(master, path)
    manifest = json.loads(manifest_of(master).read_text())
    manifest_of(path).write_text(json.dumps(dict(manifest, file=path.name)))
    return path


def manifest_of(path):
    return path.with_name(path.name + ".json")


def read(path):
    return json.loads(manifest_of(path).read_text())


def change(path, **changes):
    manifest_of(path).write_text(json.dumps(dict(read(path), **changes)))


def options_of(path, work, version=VERSION, **more):
    work.mkdir(exist_ok=True)
    return dict({"path": path, "work_dir": work, "manifests_dir": "/nonexistent", "bin_dir": harness.bin_dir(version)}, **more)


def drill(path, work, version=VERSION, check_mode=False, diff=False, **more):
    code, result = harness.run_module("etcd_snapshot_drill", check_mode=check_mode, diff=diff, **options_of(path, work, version, **more))
    assert list(work.iterdir()) == []
    assert (code == 0) is not bool(result.get("failed"))
    return code, result


def hide(path, old, new, manifest=True):
    """Damage the contents, and make every checksum fit again: in the file, and with `manifest` in the manifest, the hash of `status` included."""
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    # a page that is not used any more may hold it, too
    data = data.replace(old, new)
    data = data[:-32] + hashlib.sha256(data[:-32]).digest()
    path.write_bytes(data)
    if manifest:
        status = subprocess.run(
            [harness.offline_tool(VERSION), "--write-out=json", "snapshot", "status", str(path)],
            capture_output=True,
            check=False,
            env=harness.clean_environment(),
        )
        change(path, sha256=hashlib.sha256(data).hexdigest())
        # from 3.6 on `status` reads each record, and has no hash of one that it cannot read
        if status.returncode == 0:
            change(path, hash="%08x" % json.loads(status.stdout)["hash"])


def at_restore(directory, command):
    """An etcdutl that runs a command before it restores."""
    wrapper = directory / "etcdutl"
    wrapper.write_text('#!/bin/sh\ncase "$*" in "snapshot restore /"*) %s;; esac\nexec %s "$@"\n' % (command, harness.offline_tool(VERSION)))
    wrapper.chmod(0o755)
    return wrapper


# ---- good ones


def test_a_host_without_an_api_server_says_that_the_level_objects_is_out_of_reach(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    code, result = drill(path, tmp_path / "work", level="objects")
    assert (code, result["snapshot"]["level"], read(path)["level"]) == (0, "drill", "drill"), result
    assert result["snapshot"]["notes"][-1].startswith("the verification level objects is out of reach: ")


def test_a_good_snapshot_passes_all_levels(version, tmp_path):
    path = store_of(version, tmp_path)
    before = read(path)
    code, result = drill(path, tmp_path / "work", version, check_mode=True, diff=True)
    assert code == 0, result
    assert result["changed"] and result["snapshot"]["recorded"] and '"level": "drill"' in result["diff"]["after"]
    assert read(path) == before

    code, result = drill(path, tmp_path / "work", version)
    assert code == 0, result
    found = result["snapshot"]
    assert (found["level"], found["failed"], found["problem"], found["gone"]) == ("drill", None, None, False)
    # its objects were read from the file, and etcd has shown that it serves the same
    assert not any("read through etcd" in note for note in found["notes"]), found["notes"]
    assert list(found["levels"]) == ["checksum", "status", "restore", "drill"]
    for level in found["levels"].values():
        assert level["ok"] is True and level["problem"] is None and level["seconds"] >= 0
        time.strptime(level["at"], "%Y-%m-%dT%H:%M:%SZ")
    top = found["levels"]["drill"]
    # 40 Pods of which 4 are gone, 2 ConfigMaps, 4 Secrets, a Namespace, a Widget and an address of an API server
    assert (top["revision"], top["keys"], top["objects"], top["resources"], top["secrets"]) == (before["revision"], 46, 45, 6, 4)
    assert top["encrypted"] == {"aescbc": 1}
    assert top["etcd_version"].startswith(version)
    assert 0 < top["start"] <= top["seconds"]
    manifest = read(path)
    assert (manifest["level"], manifest["levels"]) == ("drill", found["levels"])
    assert {name: value for name, value in manifest.items() if name not in ("level", "levels")} == {
        name: value for name, value in before.items() if name not in ("level", "levels")
    }
    for output in (json.dumps(result), manifest_of(path).read_text()):
        assert SECRET.decode() not in output

    # the same again, and the hash is what it was
    code, result = drill(path, tmp_path / "work", version)
    assert (code, result["snapshot"]["levels"]["drill"]["hash_kv"]) == (0, top["hash_kv"])
    change(path, levels=dict(manifest["levels"], drill=dict(top, hash_kv=top["hash_kv"] + 1)))
    code, result = drill(path, tmp_path / "work", version)
    assert code == 1 and "is served, but with the hash" in result["msg"]


def test_the_lower_levels_need_no_etcd(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    for wanted, reached in (("checksum", "checksum"), ("status", "status"), ("restore", "restore")):
        code, result = drill(path, tmp_path / "work", level=wanted, etcd="/nonexistent")
        assert (code, result["snapshot"]["level"], read(path)["level"]) == (0, reached, reached)
    code, result = drill(path, tmp_path / "work", level="checksum", record=False)
    assert (code, result["changed"], result["snapshot"]["recorded"]) == (0, False, False)


def test_a_snapshot_of_a_fresh_cluster(tmp_path):
    with harness.Etcd(VERSION, tmp_path) as etcd:
        path = take(etcd, tmp_path / "backups")
    code, result = drill(path, tmp_path / "work")
    assert code == 0, result
    assert result["snapshot"]["levels"]["drill"]["keys"] == 0


def test_a_snapshot_without_a_manifest_of_its_own(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    manifest_of(path).unlink()
    code, result = drill(path, tmp_path / "work")
    assert code == 1 and "has no manifest" in result["msg"] and result["snapshot"]["failed"] == "checksum"
    code, result = drill(path, tmp_path / "work", manifest=False)
    assert (code, result["changed"], result["snapshot"]["level"]) == (0, False, "drill"), result
    assert result["snapshot"]["notes"] == ["its objects were only counted: it has no manifest to compare them with"]
    assert os.listdir(path.parent) == [path.name]


def test_a_copy_under_another_name(master, tmp_path):
    path = tmp_path / "prod.db"
    shutil.copyfile(master, path)
    shutil.copyfile(manifest_of(master), manifest_of(path))
    # where a directory is gone through, a manifest is that of the file that it names
    code, result = drill(path, tmp_path / "work", level="checksum")
    assert code == 1 and "belongs to" in result["msg"]
    code, result = drill(path, tmp_path / "work", manifest=False)
    assert (code, result["changed"], result["snapshot"]["level"], result["snapshot"]["problem"]) == (0, False, "drill", None), result
    assert result["snapshot"]["notes"][-1] == "it was %s when it was taken, and nothing is noted of it under another name" % master.name
    assert manifest_of(path).read_bytes() == manifest_of(master).read_bytes()
    # that of another file is found out
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, result = drill(path, tmp_path / "work", manifest=False, level="checksum")
    assert code == 1 and "its sha256 has changed" in result["msg"] and result["snapshot"]["failed"] == "checksum"
    assert manifest_of(path).read_bytes() == manifest_of(master).read_bytes()


def test_a_decrypted_snapshot(master, tmp_path):
    """What encrypts it does not matter to the verification, so it is encrypted by turning it around here."""
    path = copy(master, tmp_path / "backups")
    plain = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    decrypted_path = tmp_path / "decrypted.db"
    shutil.copyfile(path, decrypted_path)
    path.write_bytes(path.read_bytes()[:0:-1])
    data = path.read_bytes()
    change(path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), plain=plain, packing={"compression": "none", "encryption": "age"})
    code, result = drill(path, tmp_path / "work")
    assert code == 1 and "only its checksum can be verified without decrypting it" in result["msg"], result
    assert (result["snapshot"]["level"], result["snapshot"]["failed"], read(path)["level"]) == ("checksum", None, "checksum")
    before = decrypted_path.read_bytes()
    code, result = drill(path, tmp_path / "work", decrypted_path=decrypted_path)
    assert (code, result["snapshot"]["level"], read(path)["level"]) == (0, "drill", "drill"), result
    assert decrypted_path.read_bytes() == before
    # another one was encrypted
    hide(decrypted_path, SECRET, SECRET.upper(), manifest=False)
    code, result = drill(path, tmp_path / "work", decrypted_path=decrypted_path)
    assert code == 1 and result["snapshot"]["failed"] == "status" and "its sha256 is " in result["msg"], result
    assert str(decrypted_path) not in json.dumps(result["snapshot"])


# ---- damage that checksums hide


@pytest.mark.parametrize(
    "old, new, words",
    [
        # the metadata of an object
        (IN_A_SECRET, bytes(len(IN_A_SECRET)), "1 of 4 secrets cannot be read (default/token)"),
        (b"\n\x07pod-001\x1a\x07default", bytes(18), "1 of 36 pods cannot be read (default/pod-001)"),
        # a key that leads to another object's name
        (b"/registry/secrets/shop/blue", b"/registry/secrets/shop/blux", "1 of 4 secrets cannot be read (shop/blux)"),
        # an object that is of another kind, or nowhere
        (b"/registry/configmaps/shop/blue", b"/registry/configmapt/shop/blue", "it holds 1 configmaps instead of 2, 1 configmapt instead of 0"),
        (b"/registry/secrets/shop/encrypted", b"/regi\0try/secrets/shop/encrypted", "it holds 3 secrets instead of 4"),
    ],
)
def test_the_drill_finds_what_recomputed_checksums_hide(master, tmp_path, old, new, words):
    path = copy(master, tmp_path / "backups")
    hide(path, old, new)
    code, result = drill(path, tmp_path / "work", level="restore")
    assert (code, result["snapshot"]["level"]) == (0, "restore"), result
    code, result = drill(path, tmp_path / "work")
    assert code == 1, result
    assert words in result["msg"] and result["snapshot"]["failed"] == "drill"
    manifest = read(path)
    assert (manifest["level"], manifest["levels"]["drill"]["ok"]) == ("restore", False)
    assert words in manifest["levels"]["drill"]["problem"]
    # and from now on it does not count as verified
    code, result = harness.run_module("etcd_snapshot_list", directory=path.parent)
    assert (result["latest"], result["snapshots"][0]["verified"]) == (None, False)
    assert words in result["snapshots"][0]["problem"]


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def test_a_record_that_is_of_another_revision(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    key = b"/registry/secrets/shop/blue"
    data = path.read_bytes()
    revision = next(number for number in range(2, 200) if key + b"\x10" + varint(number) + b"\x18" + varint(number) in data)
    hide(path, *(key + b"\x10" + varint(number) + b"\x18" + varint(number) for number in (revision, revision - 1)))
    code, result = drill(path, tmp_path / "work")
    assert code == 1 and "revision %d of it says that it is revision %d" % (revision, revision - 1) in result["msg"], result
    assert (result["snapshot"]["level"], result["snapshot"]["failed"], read(path)["level"]) == ("restore", "drill", "restore")


@pytest.mark.parametrize(
    "old, new, words",
    [
        # nothing that is served shows it, only the hash of all that is
        (SECRET, SECRET.upper(), "serves other records than the file has, although all of them can be read"),
        (b"/registry/pods/default/pod-001", b"/registry/pods/default/pod-0x1", "1 of 36 pods cannot be read (default/pod-0x1)"),
    ],
)
def test_what_is_served_is_not_what_is_in_the_file(master, tmp_path, old, new, words):
    """Damage that comes in while it is restored: of the file nothing bad is known then."""
    path = copy(master, tmp_path / "backups")
    wrapper = tmp_path / "etcdutl"
    damage = "%s -c 'import sys; data = open(sys.argv[1], \"rb\").read(); assert %s in data; open(sys.argv[1], \"wb\").write(data.replace(%s, %s))'"
    literals = tuple('bytes.fromhex(\"%s\")' % text.hex() for text in (old, old, new))
    command = damage % ((sys.executable,) + literals)
    wrapper.write_text(
        '#!/bin/sh\n%s "$@" || exit\ncase "$*" in *--data-dir*) for last; do :; done; exec %s "$last/member/snap/db";; esac\n'
        % (harness.offline_tool(VERSION), command)
    )
    wrapper.chmod(0o755)
    code, result = drill(path, tmp_path / "work", etcdutl=wrapper)
    assert code == 1 and words in result["msg"], result


def test_what_this_collection_cannot_read_is_read_through_etcd(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    # the number of the lease in a field that no etcd has, which etcd skips
    value = harness.stored("Endpoints", "", "")
    hide(path, value + b"\x30", value + b"\x38")
    code, result = drill(path, tmp_path / "work")
    assert code == 0, result
    assert "its objects were read through etcd: revision " in result["snapshot"]["notes"][0], result
    top = result["snapshot"]["levels"]["drill"]
    assert (top["keys"], top["objects"], top["secrets"], top["encrypted"]) == (46, 45, 4, {"aescbc": 1})
    # damage is found as well
    hide(path, IN_A_SECRET, bytes(len(IN_A_SECRET)))
    code, result = drill(path, tmp_path / "work")
    assert code == 1 and "1 of 4 secrets cannot be read (default/token)" in result["msg"], result


def test_what_no_etcd_can_read(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    # the record of one key is no message any more
    hide(path, b"\n\x1b/registry/secrets/shop/blue", b"\x0b\x1b/registry/secrets/shop/blue")
    code, result = drill(path, tmp_path / "work")
    # who reads the records first: `restore` up to 3.4, only the server of 3.5, and `status` from 3.6 on, which quotes them
    failed, level, words = {
        "3.4": ("restore", "status", "cannot be restored"),
        "3.5": ("drill", "restore", "cannot be served: etcd "),
    }.get(VERSION, ("status", "checksum", "value: (left out)"))
    assert code == 1 and result["snapshot"]["failed"] == failed, result
    assert words in result["msg"]
    assert read(path)["level"] == level
    assert b"correct-horse" not in json.dumps(result).encode() + path.with_name(path.name + ".json").read_bytes()


def test_status_finds_what_the_checksums_of_file_and_manifest_hide(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    hide(path, SECRET, SECRET.upper(), manifest=False)
    change(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    code, result = drill(path, tmp_path / "work", level="status")
    assert code == 1 and "its hash is " in result["msg"] and result["snapshot"]["failed"] == "status"


def test_an_inventory_that_is_damaged(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    for inventory in ({"objects": {"pods": 3}}, {"objects": []}):
        change(path, inventory=inventory)
        code, result = drill(path, tmp_path / "work")
        assert code == 1 and "its object inventory is invalid" in result["msg"], result


# ---- failures that are not damage


def test_a_host_that_cannot_run_a_level_says_so_and_calls_no_snapshot_damaged(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    for more, words in (
        ({"etcd": "/bin/true"}, "no etcd server program can serve it: /bin/true is not an etcd server"),
        ({"etcdutl": "/bin/true"}, "/bin/true is not an etcdctl or etcdutl"),
        ({"timeout": 4, "etcdutl": at_restore(tmp_path, "sleep 6")}, "the verification level restore was not finished in time"),
    ):
        code, result = drill(path, tmp_path / "work", **more)
        assert code == 1 and words in result["msg"], result
        assert "was not verified up to the level drill" in result["msg"]
        assert result["snapshot"]["failed"] is None
        assert all(level["ok"] for level in read(path).get("levels", {}).values())
    code, result = harness.run_module("etcd_snapshot_list", directory=path.parent)
    assert result["latest"] == str(path)


def test_a_directory_that_cannot_be_written(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    subprocess.run(["mount", "--bind", str(path.parent), str(path.parent)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path.parent)], check=True)
        code, result = drill(path, tmp_path / "work", level="status")
    finally:
        subprocess.run(["umount", str(path.parent)], check=True)
    assert (code, result["changed"], result["snapshot"]["level"]) == (0, False, "status"), result
    assert "is not recorded in its manifest: Read-only file system" in json.dumps(result["warnings"])


def test_no_free_space_for_a_trial_restore(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(small)], check=True)
    try:
        code, result = drill(path, small)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert code == 1 and "MB free and verifying the snapshot needs" in result["msg"]
    assert result["snapshot"]["level"] == "status"


def test_a_snapshot_that_retention_removes_meanwhile(master, tmp_path):
    path = copy(master, tmp_path / "backups")
    wrapper = at_restore(tmp_path, "rm -f %s*" % path)
    code, result = drill(path, tmp_path / "work", etcdutl=wrapper)
    assert (code, result["snapshot"]["gone"], result["changed"]) == (0, True, False), result


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_drill_that_is_ended_leaves_no_etcd_and_no_copy(master, tmp_path, ending):
    path = copy(master, tmp_path / "backups")
    work = tmp_path / "work"
    args = {name: os.fspath(value) for name, value in options_of(path, work).items()}
    process = subprocess.Popen(
        [sys.executable, str(harness.ROOT / "plugins" / "modules" / "etcd_snapshot_drill.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(harness.COLLECTIONS), PYTHONDONTWRITEBYTECODE="1"),
    )
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode())
    process.stdin.close()

    def servers():
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and str(work).encode() in arguments(pid)]

    end = time.monotonic() + 60
    while not any(b"k8s-dr-throwaway" in arguments(pid) for pid in servers()):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(ending)
    process.wait(30)
    process.stdout.close()
    end = time.monotonic() + 10
    while servers() and time.monotonic() < end:
        time.sleep(0.05)
    assert servers() == []
    assert (list(work.iterdir()) == []) is (ending == signal.SIGTERM)
    code, _result = drill(path, work)
    assert code == 0


def arguments(pid):
    try:
        return pathlib.Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


# ---- the playbooks


def hosts_with(tmp_path, **more):
    directory = tmp_path / "backups"
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    own = {"etcd_drill_snapshot_dir": str(directory), "etcd_drill_work_dir": str(work), "etcd_drill_bin_dir": str(harness.bin_dir(VERSION))}
    return {"cp1": dict(own, etcd_client_manifests_dir="/nonexistent", **more)}


def broken_ways(master, directory):
    """A store with one good snapshot and one of each kind of damage: {name: what is said of it}."""
    said = {}

    def damaged(number, words):
        name = "etcd-cp1-202601%02dT000000Z.db" % number
        said[name] = words
        return copy(master, directory, name)

    path = damaged(1, "its sha256 has changed")
    data = bytearray(path.read_bytes())
    data[data.index(SECRET)] ^= 1
    path.write_bytes(data)
    path = damaged(2, "bytes, and had")
    path.write_bytes(path.read_bytes()[:-4096])
    path = damaged(3, "bytes, and had")
    path.write_bytes(path.read_bytes() + bytes(512))
    path = damaged(4, "its sha256 has changed")
    data = path.read_bytes()
    path.write_bytes(data[:8192] + bytes(4096) + data[12288:])
    path = damaged(5, "has 0 bytes, and had")
    path.write_bytes(b"")
    path = damaged(6, "has no manifest")
    manifest_of(path).unlink()
    path = damaged(7, "is not JSON")
    manifest_of(path).write_text(manifest_of(path).read_text()[:100])
    path = damaged(8, "belongs to")
    shutil.copyfile(manifest_of(master), manifest_of(path))
    path = damaged(9, "is missing, or not a regular file")
    path.unlink()
    path = damaged(10, "is missing, or not a regular file")
    path.unlink()
    path.symlink_to(master)
    # a database without the checksum behind it, and a manifest that fits
    path = damaged(11, "lacks the SHA-256")
    path.write_bytes(path.read_bytes()[:-32])
    change(path, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    # the contents changed, and all checksums with them
    path = damaged(12, "its hash is")
    hide(path, SECRET, SECRET.upper(), manifest=False)
    change(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    path = damaged(13, "1 of 4 secrets cannot be read")
    hide(path, IN_A_SECRET, bytes(len(IN_A_SECRET)))
    return said


def test_verify_finds_every_kind_of_damage_and_no_false_one(master, tmp_path):
    said = broken_ways(master, tmp_path / "backups")
    good = copy(master, tmp_path / "backups")
    hosts = hosts_with(tmp_path, etcd_drill_level="drill")
    rc, output, recap = play("playbooks/verify.yml", tmp_path, hosts)
    assert rc == 2 and recap["cp1"]["failed"] == 1, output
    assert "13 of 14 snapshots on cp1 were not verified" in output
    lines = [line for line in output.splitlines() if '"msg": "' in line]
    for name, words in said.items():
        assert any("DAMAGED" in line and name in line and words in line for line in lines), (name, words, output)
    assert read(good)["level"] == "drill"
    assert list((tmp_path / "work").iterdir()) == []
    # what is damaged is not what a restore would take
    _code, result = harness.run_module("etcd_snapshot_list", directory=tmp_path / "backups")
    assert [one["path"] for one in result["snapshots"] if one["verified"]] == [str(good)]
    # of the newest one alone there is nothing to complain about
    newest = "etcd-cp1-20270101T000000Z.db"
    change(copy(master, tmp_path / "backups", newest), created="2027-01-01T00:00:00Z")
    rc, output, _recap = play("playbooks/verify.yml", tmp_path, dict(hosts), "-e", "etcd_drill_last=1")
    assert rc == 0 and newest in output, output


def test_a_drill_of_the_newest_and_of_a_random_older_one(master, tmp_path):
    directory = tmp_path / "backups"
    paths = []
    for year in (2024, 2025, 2030):
        paths.append(copy(master, directory, "etcd-cp1-%d0101T000000Z.db" % year))
        change(paths[-1], created="%d-01-01T00:00:00Z" % year)
    # the same on two hosts is drilled once
    hosts = hosts_with(tmp_path)
    hosts["cp2"] = hosts["cp1"]
    for playbook, cwd in (("playbooks/drill.yml", harness.ROOT), ("drill.yml", harness.ROOT / "playbooks"), ("k8s_dr.etcd.drill", tmp_path)):
        rc, output, _recap = play(playbook, tmp_path, hosts, cwd=cwd)
        assert rc == 0, output
        assert output.count("and checked in") == 1 and '"etcd_drill"' in output.partition("CUSTOM STATS")[2]
        assert "%s: restored by %s" % (paths[2], os.path.basename(harness.offline_tool(VERSION))) in output
    assert [read(path).get("level") for path in paths] == [None, None, "drill"]
    rc, output, _recap = play("playbooks/drill.yml", tmp_path, hosts, "-e", "etcd_drill_pick=random")
    assert rc == 0, output
    assert {read(path).get("level") for path in paths[:2]} == {"drill", None}

    # check mode proves it, and writes nothing
    before = {path: manifest_of(path).read_bytes() for path in paths}
    rc, output, _recap = play("playbooks/drill.yml", tmp_path, hosts, "--check", "--diff")
    assert rc == 0 and "and checked in" in output, output
    assert {path: manifest_of(path).read_bytes() for path in paths} == before

    # the newest is damaged: that is no reason to prove another one
    hide(paths[2], b"/registry/configmaps/shop/blue", b"/registry/configmapt/shop/blue")
    rc, output, _recap = play("playbooks/drill.yml", tmp_path, hosts)
    assert rc == 2 and "it holds 1 configmaps instead of 2" in output, output


def test_a_drill_on_any_host_that_has_the_file(master, tmp_path):
    path = copy(master, tmp_path / "elsewhere")
    hosts = hosts_with(tmp_path)
    rc, output, _recap = play("playbooks/drill.yml", tmp_path, hosts, "-e", "etcd_drill_snapshot=%s" % path)
    assert rc == 0 and "%s: restored by" % path in output, output
    manifest_of(path).unlink()
    rc, output, _recap = play("playbooks/drill.yml", tmp_path, hosts, "-e", "etcd_drill_snapshot=%s" % path)
    assert rc == 0 and "it has no manifest to compare them with" in output, output
    rc, output, _recap = play("playbooks/drill.yml", tmp_path, hosts, "-e", "etcd_drill_snapshot=%s" % (tmp_path / "none"))
    assert rc == 2 and "is on none of cp1" in output, output
    for playbook in ("drill", "verify"):
        rc, output, _recap = play("playbooks/%s.yml" % playbook, tmp_path, hosts)
        assert rc == 2 and "There is no snapshot in %s on cp1" % (tmp_path / "backups") in output, output


# ---- off-site


@pytest.fixture(scope="module")
def rclone():
    """The oldest one that is supported; a directory of this host is off-site enough to be damaged."""
    found = subprocess.run([str(harness.ROOT / "tests" / "tools" / "programs"), "rclone"], capture_output=True, text=True, check=True)
    return found.stdout.split()[1]


def test_off_site_snapshots_are_verified_there_or_after_a_download(master, tmp_path, rclone):
    good = copy(master, tmp_path / "remote")
    bad = copy(master, tmp_path / "remote", "etcd-cp1-20260101T000000Z.db")
    bad.write_bytes(bad.read_bytes()[:-1] + b"!")
    before = {path: path.read_bytes() for path in (tmp_path / "remote").iterdir()}
    off_site = {"remote": str(tmp_path / "remote"), "rclone": rclone, "rclone_config": "/dev/null"}
    for record in (False, True):
        assert before == {path: path.read_bytes() for path in (tmp_path / "remote").iterdir()}
        for wanted in ("checksum", "drill"):
            code, result = drill(good.name, tmp_path / "work", level=wanted, record=record, **off_site)
            assert (code, result["changed"], result["snapshot"]["level"]) == (0, record, wanted), result
            assert result["snapshot"]["path"] == str(good)
            code, result = drill(bad.name, tmp_path / "work", level=wanted, record=record, **off_site)
            assert (code, result["changed"], result["snapshot"]["failed"]) == (1, record, "checksum"), result
            assert str(tmp_path / "work") not in json.dumps(result["snapshot"])
    assert read(good)["level"] == "drill" and read(bad)["levels"]["checksum"]["ok"] is False
    assert {path.name for path in before} | {".lock"} == {path.name for path in (tmp_path / "remote").iterdir()}
    # who cannot get there has learned nothing
    code, result = drill(good.name, tmp_path / "work", **dict(off_site, remote="nowhere:backups"))
    assert code == 1 and "was not verified" in result["msg"] and "snapshot" not in result, result


def test_the_playbooks_find_all_damage_off_site(master, tmp_path, rclone):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rclone").symlink_to(rclone)
    said = broken_ways(master, tmp_path / "remote")
    good = copy(master, tmp_path / "remote")
    hosts = hosts_with(tmp_path, etcd_drill_level="drill", etcd_drill_off_site=str(tmp_path / "remote"))
    hosts["cp2"] = dict(hosts["cp1"])
    for host in hosts.values():
        host.update(ansible_remote_tmp=str(tmp_path / "ansible"), etcd_drill_rclone_config="/dev/null")
    path = os.environ["PATH"]
    os.environ["PATH"] = "%s:%s" % (tmp_path / "bin", path)
    try:
        rc, output, _recap = play("playbooks/verify.yml", tmp_path, hosts)
        rc_of_drill, drilled, _recap = play("playbooks/drill.yml", tmp_path, hosts, "-e", "etcd_drill_snapshot=" + good.name)
    finally:
        os.environ["PATH"] = path
    assert rc == 2 and "13 of 14 snapshots on cp1 were not verified" in output and "on cp2 were not" not in output, output
    lines = [line for line in output.splitlines() if '"msg": "' in line]
    for name in said:
        # a link is nothing that rclone reads
        assert any(("DAMAGED" if "20260110" not in name else "NOT VERIFIED") in line and name in line for line in lines), (name, output)
    assert list((tmp_path / "work").iterdir()) == []
    assert rc_of_drill == 0 and "%s: restored by" % good in drilled, drilled
