# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encrypted snapshots with the real zstd and age (Debian 12's), and with a real etcd."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import time

import harness
import pytest
import servers
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import encryption
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest
from restore_sandbox import blocks_of
from test_drill import IN_A_SECRET, SECRET, change, copy, drill, hide, hosts_with, manifest_of, master, read  # noqa: F401
from test_snapshot_role import VERSION, play


class Key:
    """A pair of keys as age-keygen makes it."""

    def __init__(self, path):
        self.identity = path
        subprocess.run([servers.program("age-keygen"), "-o", str(path)], check=True, capture_output=True)
        self.recipient = next(line.split()[-1] for line in path.read_text().splitlines() if "public key" in line)


@pytest.fixture(autouse=True)
def with_age(monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("age")) + os.pathsep + os.environ["PATH"])


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return Key(tmp_path_factory.mktemp("key") / "identity.txt")


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    return Key(tmp_path_factory.mktemp("another") / "identity.txt")


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain"
    path.write_bytes(os.urandom(1000000) + bytes(3000000))
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(plain, compression, recipients):
    return {"packing": encryption.description(compression, recipients), "plain": {"size": plain.stat().st_size, "sha256": digest(plain)}}


def decrypt(packed_file, back, known, identity=None, files=None):
    named = {"format": 1, "file": "a.db", "hash": None, "revision": 5, "verified": True, "host": "cp1", "created": "2026-01-02T03:04:05Z"}
    return encryption.decrypt(str(packed_file), str(back), Manifest(dict(named, **known["plain"], **known)), identity and str(identity), files=files)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_encrypt_and_decrypt(tmp_path, plain, key, another, compression, encrypted):
    recipients = [another.recipient, key.recipient] if encrypted else []
    packed_file, back = tmp_path / "encrypted", tmp_path / "back"
    found = encryption.encrypt(str(plain), str(packed_file), compression, recipients)
    assert found == {"size": packed_file.stat().st_size, "sha256": digest(packed_file)} and packed_file.stat().st_mode & 0o777 == 0o600
    assert (found["size"] < 1500000) == (compression == "zstd")
    assert (b"age-encryption.org" in packed_file.read_bytes()[:100]) == encrypted
    found = decrypt(packed_file, back, manifest(plain, compression, recipients), key.identity if encrypted else None)
    assert found["sha256"] == digest(plain)
    assert back.read_bytes() == plain.read_bytes() and back.stat().st_mode & 0o777 == 0o600


BROKEN_KEYS = {
    "empty": lambda _text: "",
    "cut": lambda text: text[:-12],
    "another line": lambda text: text + "what is this\n",
    "no key": lambda _text: "# created: 2026-01-01T00:00:00Z\n",
}


@pytest.mark.parametrize("how", BROKEN_KEYS)
def test_a_broken_key_says_nothing_about_the_snapshot(tmp_path, plain, key, how):
    packed_file = tmp_path / "encrypted"
    encryption.encrypt(str(plain), str(packed_file), "zstd", [key.recipient])
    # a name with none of the words that would give it away
    broken = tmp_path / "backup.txt"
    broken.write_text(BROKEN_KEYS[how](key.identity.read_text()))
    refused(tmp_path, packed_file, manifest(plain, "zstd", [key.recipient]), broken, "identity", "the file with the private key cannot be used")


@pytest.mark.parametrize("name", ["age", "zstd"])
def test_a_program_that_is_killed_says_nothing_about_the_snapshot(tmp_path, plain, key, monkeypatch, name):
    packed_file = tmp_path / "encrypted"
    encryption.encrypt(str(plain), str(packed_file), "zstd", [key.recipient])
    (tmp_path / "bin").mkdir()
    killed = tmp_path / "bin" / name
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    refused(tmp_path, packed_file, manifest(plain, "zstd", [key.recipient]), key.identity, "other", "%s was ended by signal 9" % name)


def refused(tmp_path, packed_file, known, identity, kind, words):
    with pytest.raises(encryption.EncryptionError) as caught:
        decrypt(packed_file, tmp_path / "back", known, identity)
    assert caught.value.kind == kind and words in str(caught.value), caught.value
    assert not (tmp_path / "back").exists()


def test_what_cannot_be_decrypted_leaves_nothing_behind(tmp_path, plain, key, another):
    packed_file = tmp_path / "encrypted"
    encryption.encrypt(str(plain), str(packed_file), "zstd", [key.recipient])
    known = manifest(plain, "zstd", [key.recipient])
    refused(tmp_path, packed_file, known, None, "identity", "give the file with a private key of it")
    refused(tmp_path, packed_file, known, another.identity, "identity", "is not encrypted to the private key that was given")
    refused(tmp_path, packed_file, known, tmp_path / "nowhere", "identity", "there is no file")
    refused(tmp_path, packed_file, known, plain, "identity", "the file with the private key cannot be used")
    whole = packed_file.read_bytes()
    for damaged in (whole[:-1], whole[:50], b"", b"x" + whole[1:], whole[:9000] + b"\0\0\0\0" + whole[9004:], whole + b"x"):
        packed_file.write_bytes(damaged)
        refused(tmp_path, packed_file, known, key.identity, "corrupt", "is damaged")
    # another snapshot, encrypted as well
    plain.write_bytes(os.urandom(1000))
    encryption.encrypt(str(plain), str(packed_file), "zstd", [key.recipient])
    refused(tmp_path, packed_file, known, key.identity, "corrupt", "does not hold the snapshot that was encrypted")
    plain.write_bytes(bytes(9000000))
    encryption.encrypt(str(plain), str(packed_file), "zstd", [key.recipient])
    refused(tmp_path, packed_file, known, key.identity, "corrupt", "holds more than the snapshot that was encrypted")


def test_damage_that_only_zstd_detects(tmp_path, plain):
    packed_file = tmp_path / "encrypted"
    encryption.encrypt(str(plain), str(packed_file), "zstd", [])
    whole = packed_file.read_bytes()
    for damaged in (whole[:-1], whole[:5000], b"junk" + whole, whole[:9000] + b"\0\0\0\0" + whole[9004:]):
        packed_file.write_bytes(damaged)
        refused(tmp_path, packed_file, manifest(plain, "zstd", []), None, "corrupt", "")


@pytest.mark.parametrize(
    ("compression", "recipients", "words"),
    [
        ("gzip", [], "the compression is gzip, which is none of: none, zstd"),
        ("none", ["age1short"], "age on this host does not encrypt to the recipients age1short: .*malformed recipient"),
        ("none", ["age1yubikey1qgq6km4jtdn23uwqtxlcpxxrp5yhr4lk8s2dqcqsxpvxq8g6pzs0gwt3qgl"], "does not encrypt to the recipients age1yubikey1.*: "),
        ("none", ["another age1"], "'another age1' is no public key"),
        ("none", ["AGE-SECRET-KEY-1QQQ"], "a private key was given"),
        ("none", [7], "'7' is no public key"),
    ],
)
def test_what_cannot_be_packed_so(compression, recipients, words):
    with pytest.raises(encryption.EncryptionError, match=words):
        encryption.check(compression, recipients)


def test_every_key_that_age_accepts_is_accepted(tmp_path, monkeypatch):
    """Keys of a newer age than the tests have, as post-quantum ones: no pattern of ours is asked."""
    age = tmp_path / "age"
    age.write_text("#!/bin/sh\n[ \"$1 $2 $3\" = '--encrypt --recipient age1pq1qqqq' ]\n")
    age.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    encryption.check("none", ["age1pq1qqqq"])


def test_a_missing_program(monkeypatch, key):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(encryption, "DIRECTORIES", ())
    with pytest.raises(encryption.EncryptionError, match="there is no program age on this host; install the package age"):
        encryption.check("none", [key.recipient])


def test_the_commands_of_the_page(plain, tmp_path):
    """The commands of docs/encryption.md that need only the two programs, as they are printed there."""
    pages = [
        blocks_of("docs/encryption.md", "Keys"),
        blocks_of("docs/encryption.md", "What a new cluster would need"),
        blocks_of("docs/encryption.md", "Restoring"),
    ]
    [[making], [unpacking], [_playbook, decrypting]] = pages

    def typed(block):
        command = "\n".join(line[2:] for line in block.splitlines() if line.startswith("$ "))
        return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)

    said = typed(making)
    recipient = re.search(r"^Public key: (\S+)$", said.stdout + said.stderr, re.MULTILINE).group(1)
    encryption.encrypt(str(plain), str(tmp_path / "etcd-cp1-20260102T030405Z.db.zst.age"), "zstd", [recipient])
    assert typed(decrypting).stdout.split()[0] == digest(plain)
    (tmp_path / "ca.crt").write_text("of the cluster")
    encryption.pack(str(plain), str(tmp_path / "bundle"), {"pki/ca.crt": str(tmp_path / "ca.crt")})
    encryption.encrypt(str(tmp_path / "bundle"), str(tmp_path / "etcd-cp1-20260102T030405Z.tar.zst.age"), "zstd", [recipient])
    typed(unpacking)
    assert digest(tmp_path / "snapshot.db") == digest(plain) and (tmp_path / "pki/ca.crt").read_text() == "of the cluster"


@pytest.mark.parametrize("compression, encrypted", [("none", True), ("zstd", True), ("zstd", False)])
def test_a_full_disk_is_reported(plain, key, tmp_path, compression, encrypted):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(OSError, match="No space left") as raised:
            encryption.encrypt(str(plain), str(small / "encrypted"), compression, [key.recipient] * encrypted)
        assert raised.value.filename == str(small / "encrypted")
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ---- the modules, with a real etcd


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with harness.Etcd(VERSION, tmp_path_factory.mktemp("packing")) as member:
        harness.fill(member)
        yield member


def take(etcd, directory, check_mode=False, **more):
    options = dict(etcd.connection, directory=directory, manifests_dir=directory / "none", pki_dir=directory / "none", **more)
    return harness.run_module("etcd_snapshot", check_mode=check_mode, diff=True, **options)


def visible(directory):
    return sorted(name for name in os.listdir(directory) if name != ".lock")


def decrypted(path, dest, key=None, check_mode=False):
    return harness.run_module("etcd_snapshot_decrypt", check_mode=check_mode, path=path, dest=dest, **({"identity_file": key.identity} if key else {}))


def test_a_snapshot_is_encrypted_and_decrypted(etcd, tmp_path, key, another):
    backups, dest = tmp_path / "backups", tmp_path / "dest"
    dest.mkdir(mode=0o700)
    packing = {"compression": "zstd", "recipients": [key.recipient, another.recipient]}
    rc, predicted = take(etcd, backups, check_mode=True, **packing)
    assert rc == 0 and predicted["snapshot"]["path"].endswith(".db.zst.age") and not backups.exists(), predicted
    rc, result = take(etcd, backups, **packing)
    assert rc == 0, result
    path = pathlib.Path(result["snapshot"]["path"])
    # nothing else is there, above all no copy that anybody could read
    assert visible(backups) == [path.name, path.name + ".json"] and path.name.endswith(".db.zst.age")
    written = json.loads((backups / (path.name + ".json")).read_text())
    assert written["sha256"] == digest(path) and written["size"] == path.stat().st_size and written["plain"]["size"] > written["size"]
    assert written["packing"] == {"compression": "zstd", "encryption": "age", "recipients": [key.recipient, another.recipient]}
    assert written["verified"] and written["level"] == "status" and written["inventory"]["names"] == {} and written["inventory"]["objects"]
    rc, listed = harness.run_module("etcd_snapshot_list", directory=backups, checksum=True)
    assert rc == 0 and listed["latest"] == str(path), listed

    rc, result = harness.run_module("etcd_snapshot_info", path=path, **harness.tools(VERSION))
    assert rc == 1 and "is encrypted or compressed" in result["msg"] and "etcd_snapshot_decrypt" in result["msg"], result

    rc, result = decrypted(path, dest, another, check_mode=True)
    assert rc == 0 and result["changed"] and visible(dest) == [], result
    rc, result = decrypted(path, dest, another)
    assert rc == 0 and result["changed"], result
    plain = pathlib.Path(result["path"])
    assert visible(dest) == [plain.name, plain.name + ".json"] and plain.name == path.name[: -len(".zst.age")]
    assert digest(plain) == written["plain"]["sha256"] and plain.stat().st_mode & 0o777 == 0o600
    rc, result = harness.run_module("etcd_snapshot_info", path=plain, **harness.tools(VERSION))
    assert rc == 0 and result["manifest"]["revision"] == written["revision"] == result["snapshot"]["revision"], result
    for check_mode in (True, False):
        rc, result = decrypted(path, dest, key, check_mode)
        assert rc == 0 and not result["changed"], result
    # a changed decrypted snapshot is replaced
    plain.write_bytes(b"")
    rc, result = decrypted(path, dest, key)
    assert rc == 0 and result["changed"] and digest(plain) == written["plain"]["sha256"], result


def test_other_packings(etcd, tmp_path, key):
    for number, (packing, suffix) in enumerate((({"compression": "zstd"}, ".db.zst"), ({"recipients": [key.recipient]}, ".db.age"), ({}, ".db"))):
        backups, dest = tmp_path / ("backups%d" % number), tmp_path / ("dest%d" % number)
        dest.mkdir()
        rc, result = take(etcd, backups, **packing)
        assert rc == 0 and result["snapshot"]["path"].endswith(suffix), result
        assert ("packing" in result["snapshot"]) == bool(packing) and bool(result["snapshot"]["inventory"]["names"]) == ("recipients" not in packing)
        rc, result = decrypted(result["snapshot"]["path"], dest, key)
        assert rc == 0, result
        rc, result = harness.run_module("etcd_snapshot_info", path=result["path"], **harness.tools(VERSION))
        assert rc == 0 and result["manifest_problem"] is None, result


APISERVER = """apiVersion: v1
kind: Pod
metadata:
  labels:
    component: kube-apiserver
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --encryption-provider-config=%s
    image: registry.k8s.io/kube-apiserver:v1.31.2
"""


def test_a_bundle(etcd, tmp_path, key):
    """What a new cluster would need comes with the snapshot, and needs the key."""
    pki, manifests, backups, dest = (tmp_path / name for name in ("pki", "manifests", "backups", "dest"))
    wanted = {"pki/ca.crt": b"a certificate", "pki/ca.key": b"-- PRIVATE KEY --", "pki/etcd/ca.key": b"another"}
    wanted["encryption-configuration.yaml"] = b"kind: EncryptionConfiguration"
    (pki / "etcd").mkdir(parents=True)
    manifests.mkdir()
    dest.mkdir()
    options = dict(etcd.connection, directory=backups, manifests_dir=manifests, pki_dir=pki, bundle=True, compression="zstd")
    rc, result = harness.run_module("etcd_snapshot", **options)
    assert rc == 1 and "private keys of the cluster" in result["msg"] and not backups.exists(), result
    options["recipients"] = [key.recipient]
    rc, result = harness.run_module("etcd_snapshot", **options)
    assert rc == 1 and "there are no private keys in" in result["msg"] and not backups.exists(), result
    for name, text in wanted.items():
        (tmp_path / name).write_bytes(text)
    manifest_text = APISERVER % (tmp_path / "encryption-configuration.yaml")
    (manifests / "kube-apiserver.yaml").write_text(manifest_text)
    wanted["manifests/kube-apiserver.yaml"] = manifest_text.encode()
    etcd.put("/registry/configmaps/kube-system/kubeadm-config", kubeadm_config(b"kind: ClusterConfiguration\n"))
    wanted["kubeadm-config.yaml"] = b"kind: ClusterConfiguration\n"

    rc, predicted = harness.run_module("etcd_snapshot", check_mode=True, **options)
    assert rc == 0 and predicted["snapshot"]["path"].endswith(".tar.zst.age"), predicted
    rc, result = harness.run_module("etcd_snapshot", **options)
    assert rc == 0, result
    path = pathlib.Path(result["snapshot"]["path"])
    assert visible(backups) == [path.name, path.name + ".json"] and path.name.endswith(".tar.zst.age")
    assert result["snapshot"]["packing"]["bundle"] == sorted(wanted)
    assert "PRIVATE KEY" not in json.dumps(read(path)) and b"PRIVATE KEY" not in path.read_bytes()

    rc, result = decrypted(path, dest, key)
    assert rc == 0 and result["files"] is None and result["path"].endswith("Z.db") and len(visible(dest)) == 2, result
    rc, result = harness.run_module("etcd_snapshot_info", path=result["path"], **harness.tools(VERSION))
    assert rc == 0 and result["manifest_problem"] is None, result
    rc, result = harness.run_module("etcd_snapshot_decrypt", path=path, dest=dest, identity_file=key.identity, files=True)
    files = pathlib.Path(result["files"])
    assert rc == 0 and result["changed"] and files.stat().st_mode & 0o777 == 0o700, result
    found = {str(one.relative_to(files)): one for one in files.rglob("*") if one.is_file()}
    assert {name: one.read_bytes() for name, one in found.items()} == wanted
    assert all(one.stat().st_mode & 0o777 == 0o600 for one in found.values())
    rc, result = harness.run_module("etcd_snapshot_decrypt", path=path, dest=dest, identity_file=key.identity, files=True)
    assert rc == 0 and not result["changed"], result

    (tmp_path / "encryption-configuration.yaml").unlink()
    rc, result = harness.run_module("etcd_snapshot", **options)
    assert rc == 1 and "the EncryptionConfiguration" in result["msg"] and "cannot be read on this host" in result["msg"], result
    assert visible(backups) == [path.name, path.name + ".json"]


def kubeadm_config(text):
    """A ConfigMap as the API server stores it."""

    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    entry = field(1, b"ClusterConfiguration") + field(2, text)
    return b"k8s\0" + field(1, field(1, b"v1") + field(2, b"ConfigMap")) + field(2, field(1, field(1, b"kubeadm-config")) + field(2, entry))


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "pki/../../out", "..", "pki/", "a//../b"])
def test_a_bundle_cannot_write_outside_its_directory(tmp_path, plain, key, name):
    """Its author has a key that counts, and yet no file is written outside the directory."""
    packed_file, packed = tmp_path / "encrypted", tmp_path / "packed"
    found = encryption.pack(str(plain), str(packed), {"pki/ca.crt": b"x"})
    with tarfile.open(packed, "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    found.update(bundle=[name], packed={"size": packed.stat().st_size, "sha256": digest(packed)})
    encryption.encrypt(str(packed), str(packed_file), "none", [key.recipient])
    known = manifest(plain, "none", [key.recipient])
    known["packing"].update(found)
    with pytest.raises(encryption.EncryptionError, match="holds something that its manifest does not name"):
        decrypt(packed_file, tmp_path / "back", known, key.identity, files=str(tmp_path / "files"))
    assert not (tmp_path / "back").exists() and not (tmp_path / "back.tar").exists() and not (tmp_path / "files").exists()


def test_a_refused_decryption_says_why(etcd, tmp_path, key, another):
    backups, dest = tmp_path / "backups", tmp_path / "dest"
    dest.mkdir()
    rc, result = take(etcd, backups, recipients=[key.recipient])
    path = pathlib.Path(result["snapshot"]["path"])
    for given, words in ((None, "give the file with a private key"), (another, "is not encrypted to the private key that was given")):
        rc, result = decrypted(path, dest, given)
        assert rc == 1 and words in result["msg"] and visible(dest) == [], result
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    rc, result = decrypted(path, dest, key)
    assert rc == 1 and "its sha256 has changed" in result["msg"] and visible(dest) == [], result
    # damage that a recomputed checksum hides
    manifest_file = pathlib.Path(str(path) + ".json")
    manifest_file.write_text(json.dumps(dict(json.loads(manifest_file.read_text()), sha256=digest(path))))
    rc, result = decrypted(path, dest, key)
    assert rc == 1 and "is damaged" in result["msg"] and visible(dest) == [], result


def test_no_plain_text_is_left_when_encryption_fails_or_is_killed(etcd, tmp_path, key, monkeypatch):
    backups = tmp_path / "backups"
    rc, result = take(etcd, backups, recipients=[key.recipient, "age1nonsense"])
    assert rc == 1 and "does not encrypt to the recipients" in result["msg"] and "No snapshot was taken" in result["msg"] and not backups.exists(), result
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    age = fakes / "age"
    # before anything is done, whether it takes the recipients, with nothing to encrypt
    asked = "#!/bin/sh\n[ -n \"$(head -c 1 | od -An -c)\" ] || exit 0\n"
    monkeypatch.setenv("PATH", str(fakes) + os.pathsep + os.environ["PATH"])
    age.write_text(asked + "cat >/dev/null\necho 'age: error: it broke' >&2\nexit 1\n")
    age.chmod(0o755)
    rc, result = take(etcd, backups, recipients=[key.recipient])
    assert rc == 1 and "could not be compressed or encrypted" in result["msg"] and "it broke" in result["msg"] and visible(backups) == [], result

    marker = tmp_path / "encryption"
    age.write_text(asked + "touch %s\nexec sleep 60\n" % marker)
    options = dict(etcd.connection, directory=str(backups), manifests_dir="/nowhere", pki_dir="/nowhere", recipients=[key.recipient])
    process = subprocess.Popen(
        [sys.executable, str(harness.ROOT / "plugins/modules/etcd_snapshot.py")],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=dict(os.environ, PYTHONPATH=str(harness.COLLECTIONS)), text=True,
    )  # fmt: skip
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    process.stdin.close()
    end = time.monotonic() + 60
    while not marker.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.wait()
    # only in a directory that root alone may enter, and gone with the next run
    [left] = visible(backups)
    assert left.startswith(".etcd-") and left.endswith(".db.age.partial") and (backups / left).stat().st_mode & 0o777 == 0o700
    age.unlink()
    rc, result = take(etcd, backups, recipients=[key.recipient], keep=1)
    assert rc == 0, result
    path = pathlib.Path(result["snapshot"]["path"])
    assert visible(backups) == [path.name, path.name + ".json"]


# ---- proving what is encrypted


def encrypt_stored(path, key, compression="zstd"):
    """Encrypt a snapshot in a store as if it had been taken so; where it is now."""
    packed_file = path.with_name(path.name[: -len(".db")] + encryption.suffix(compression, [key.recipient]))
    stored = encryption.encrypt(str(path), str(packed_file), compression, [key.recipient])
    plain = {"size": path.stat().st_size, "sha256": digest(path)}
    known = dict(read(path), file=packed_file.name, plain=plain, packing=encryption.description(compression, [key.recipient]), **stored)
    manifest_of(packed_file).write_text(json.dumps(known))
    path.unlink()
    manifest_of(path).unlink()
    return packed_file


def refit(path):
    """Make the manifest's checksum fit what is stored now."""
    change(path, size=path.stat().st_size, sha256=digest(path))


def broken_ways(master, directory, key):  # noqa: F811
    """A store with one of each kind of damage, encrypted: {name: what is said of it}."""
    said = {}

    def damaged(number, words, before=lambda path: None):
        path = copy(master, directory, "etcd-cp1-202601%02dT000000Z.db" % number)
        before(path)
        path = encrypt_stored(path, key)
        said[path.name] = words
        return path

    path = damaged(1, "its sha256 has changed")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path = damaged(2, "bytes, and had")
    path.write_bytes(path.read_bytes()[:-100])
    path = damaged(3, "bytes, and had")
    path.write_bytes(path.read_bytes() + b"x")
    path = damaged(4, "its sha256 has changed")
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(1024) + data[5120:])
    path = damaged(5, "has 0 bytes, and had")
    path.write_bytes(b"")
    path = damaged(6, "has no manifest")
    manifest_of(path).unlink()
    path = damaged(7, "is not JSON")
    manifest_of(path).write_text(manifest_of(path).read_text()[:100])
    path = damaged(8, "belongs to")
    change(path, file="etcd-cp1-20250101T000000Z.db.zst.age")
    path = damaged(9, "is missing, or not a regular file")
    path.unlink()
    # and what a recomputed checksum hides
    path = damaged(10, "is damaged: ")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refit(path)
    path = damaged(11, "does not hold the snapshot that was encrypted")
    other = directory / "other"
    other.write_bytes(b"another one" * 1000)
    encryption.encrypt(str(other), str(path), "zstd", [key.recipient])
    other.unlink()
    refit(path)
    damaged(12, "1 of 4 secrets cannot be read", lambda path: hide(path, IN_A_SECRET, bytes(len(IN_A_SECRET))))
    return said


def test_the_levels_of_an_encrypted_snapshot(master, tmp_path, key, another):  # noqa: F811
    path = encrypt_stored(copy(master, tmp_path / "backups"), key)
    code, result = drill(path, tmp_path / "work")
    assert code == 1 and "give the file with a private key of it" in result["msg"] and read(path)["level"] == "checksum", result
    code, result = drill(path, tmp_path / "work", identity_file=another.identity)
    # nothing is wrong with the snapshot
    assert code == 1 and "is not encrypted to the private key" in result["msg"] and result["snapshot"]["failed"] is None, result
    code, result = drill(path, tmp_path / "work", identity_file=key.identity)
    assert (code, result["snapshot"]["level"], read(path)["level"]) == (0, "drill", "drill"), result
    path = encrypt_stored(copy(master, tmp_path / "backups"), key, "none")
    assert drill(path, tmp_path / "work", identity_file=key.identity)[1]["snapshot"]["level"] == "drill"


@pytest.mark.parametrize("place", ["on the host", "off-site"])
def test_verify_finds_all_damage_to_encrypted_snapshots(master, tmp_path, key, monkeypatch, place):  # noqa: F811
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("rclone")) + os.pathsep + os.environ["PATH"])
    store = tmp_path / ("backups" if place == "on the host" else "remote")
    said = broken_ways(master, store, key)
    good = encrypt_stored(copy(master, store), key)
    hosts = hosts_with(tmp_path, etcd_drill_level="drill", etcd_drill_identity_file=str(key.identity))
    if place == "off-site":
        hosts["cp1"].update(etcd_drill_off_site=str(store), etcd_drill_rclone_config="/dev/null")
    rc, output, _recap = play("playbooks/verify.yml", tmp_path, hosts)
    assert rc == 2 and "12 of 13 snapshots on cp1 were not verified" in output, output
    lines = [line for line in output.splitlines() if '"msg": "' in line]
    for name, words in said.items():
        assert any("DAMAGED" in line and name in line and (words in line or place == "off-site") for line in lines), (name, words, output)
    assert any(good.name in line and "and checked in" in line for line in lines), output
    assert list((tmp_path / "work").iterdir()) == [] and "AGE-SECRET-KEY" not in output
