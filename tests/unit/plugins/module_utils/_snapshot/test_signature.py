# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures with the ssh-keygen of this host; tests/integration/test_signing.py has whole snapshots."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import signature
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.levels import result
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import process
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

CLUSTER, OTHER = "c" * 64, "d" * 64
NAME = "etcd-cp1-20260102T030405Z.db"
PATH = "/backups/" + NAME
VALUES = {
    "format": 1,
    "file": NAME,
    "sha256": "0" * 64,
    "size": 4,
    "hash": "02059de8",
    "revision": 5,
    "verified": True,
    "host": "cp1",
    "created": "2026-01-02T03:04:05Z",
    "cluster_id": "aa",
    "fingerprints": {"etcd_ca": CLUSTER},
    "inventory": {"objects": {"pods": {"default": 3}}},
    "levels": {"checksum": result(True, 1)},
    "level": "checksum",
}
PACKED = {
    "file": NAME + ".zst.age",
    "packing": {"compression": "zstd", "encryption": "age", "recipients": ["age1x"]},
    "plain": {"size": 9, "sha256": "1" * 64},
}

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen on this host")


class Key:
    """A pair of keys."""

    def __init__(self, directory, name="key", passphrase="", kind="ed25519"):
        self.path = str(directory / name)
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", name, "-f", self.path], check=True)
        with open(self.path + ".pub", encoding="ascii") as stream:
            self.public = stream.read().strip()

    def line(self, cluster=CLUSTER, options=""):
        return "%s %s%s" % (cluster, options + " " if options else "", self.public)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return Key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    return Key(tmp_path_factory.mktemp("another"))


@pytest.fixture
def signed(key, tmp_path):
    """Signs a manifest, and reads it as another host would."""

    def sign(**changes):
        (tmp_path / "sign").mkdir()
        try:
            manifest = signature.sign(Manifest(dict(VALUES, **changes)), key.path, str(tmp_path / "sign"))
        finally:
            shutil.rmtree(tmp_path / "sign")
        return Manifest.parse(manifest.text.encode(), PATH)

    return sign


def problem(manifest, *lines, path=PATH):
    return signature.signers_of(list(lines)).problem(manifest, path)


def changed(manifest, **changes):
    return Manifest(dict(manifest.values, **changes))


@needs_ssh_keygen
def test_a_signed_snapshot_is_accepted_whatever_is_recorded_later(signed, key, another):
    manifest = signed()
    assert problem(manifest, key.line()) is None
    assert problem(manifest, another.line(), another.line(OTHER), key.line("%s,%s" % (OTHER, CLUSTER))) is None
    later = manifest.with_levels({"drill": result(True, 3)}).with_copies([{"remote": "s3:bucket", "file": NAME}])
    assert problem(Manifest.parse(later.text.encode(), PATH), key.line()) is None
    # and what another version may record
    assert problem(changed(later, hold="until the audit"), key.line()) is None


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_keys_of_other_types_sign_as_well(tmp_path, kind):
    key = Key(tmp_path, kind=kind)
    signature.check_key(key.path)
    manifest = signature.sign(Manifest(VALUES), key.path, str(tmp_path))
    assert problem(manifest, key.line()) is None
    assert "its `size`" in problem(changed(manifest, size=5), key.line())


@needs_ssh_keygen
@pytest.mark.parametrize(
    "name, value",
    [
        ("sha256", "2" * 64),
        ("size", 5),
        ("created", "2026-06-02T03:04:05Z"),
        ("revision", 6),
        ("host", "cp2"),
        ("cluster_id", "bb"),
        ("fingerprints", {"etcd_ca": OTHER}),
        ("packing", PACKED["packing"]),
        ("plain", PACKED["plain"]),
        ("inventory", {"objects": {}}),
        ("inventory", None),
    ],
)
def test_a_forged_manifest_is_found(signed, key, name, value):
    found = problem(changed(signed(), **{name: value}), key.line(), key.line(OTHER))
    assert found == "the manifest of %s was changed after it was signed: its `%s` is another one" % (PATH, name)


@needs_ssh_keygen
def test_an_old_snapshot_under_a_new_name_is_found(signed, key):
    name = "etcd-cp1-20260601T030405Z.db"
    found = problem(changed(signed(), file=name), key.line(), path="/backups/" + name)
    assert found == "/backups/%s was signed under the name %s" % (name, NAME)


@needs_ssh_keygen
def test_a_statement_that_was_rewritten_is_found(signed, key):
    manifest = signed()
    statement = manifest.values["signature"]["statement"].replace("2026-01-02", "2026-06-02")
    forged = changed(manifest, created="2026-06-02T03:04:05Z", signature=dict(manifest.values["signature"], statement=statement))
    assert problem(forged, key.line()) == "the signature of %s does not fit what was signed: one of the two was changed" % PATH
    # the text is the same but for a blank
    forged = changed(manifest, signature=dict(manifest.values["signature"], statement=manifest.values["signature"]["statement"] + " "))
    assert "does not fit what was signed" in problem(forged, key.line())


@needs_ssh_keygen
def test_a_snapshot_of_another_cluster_is_found(signed, key, another):
    manifest = signed()
    for lines in ([key.line(OTHER)], [another.line(), key.line(OTHER)]):
        found = problem(manifest, *lines)
        assert found.startswith("%s is signed with the key SHA256:" % PATH)
        assert found.endswith("which `signers` does not allow for the cluster cccccccccccc: no line has both")


@needs_ssh_keygen
def test_a_signature_of_another_key_is_found(signed, another):
    assert "which `signers` does not allow for the cluster cccccccccccc" in problem(signed(), another.line())


@needs_ssh_keygen
def test_a_key_is_valid_for_what_was_taken_in_its_time(signed, key, monkeypatch):
    # times are those of UTC wherever the host is
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    manifest = signed()
    assert problem(manifest, key.line(options='valid-after="20260102030405",valid-before="202601020305"')) is None
    assert "key has expired: verify time 2026-01-02T03:04:05 > valid-before" in problem(manifest, key.line(options='valid-before="20260102030404"'))
    assert "key is not yet valid" in problem(manifest, key.line(options='valid-after="20260103"'))
    assert problem(manifest, key.line(options='valid-before="20260101"'), key.line()) is None
    assert "key is not permitted" in problem(manifest, key.line(options='namespaces="git"'))


@needs_ssh_keygen
def test_a_removed_or_damaged_signature_is_found(signed, key):
    manifest = signed()
    good = manifest.values["signature"]
    bare = Manifest({name: value for name, value in manifest.values.items() if name != "signature"})
    assert problem(bare, key.line()) == "%s is not signed, so anyone who can write there may have made it; without `signers` it is accepted" % PATH
    for found in (None, "signed", [], {}, {"statement": good["statement"]}, {"statement": 1, "ssh": 2}):
        assert "is not signed" in problem(changed(manifest, signature=found), key.line())
    little = json.dumps({"fingerprints": {"etcd_ca": CLUSTER}})
    wrong = json.dumps(dict(json.loads(good["statement"]), fingerprints={"etcd_ca": "-Q"}))
    for statement in ("", "[", "[]", "{}", "\ud800", "[" * 100000, little, wrong):
        assert "is damaged" in problem(changed(manifest, signature=dict(good, statement=statement)), key.line())
    for ssh in ("", "\0", "\ud800", good["ssh"][:-60], good["ssh"].replace("\n", "")):
        assert "does not fit" in problem(changed(manifest, signature=dict(good, ssh=ssh)), key.line())


@needs_ssh_keygen
def test_a_signature_made_for_another_use_is_refused(signed, key, tmp_path):
    manifest = signed()
    (tmp_path / "statement").write_text(manifest.values["signature"]["statement"])
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", key.path, "-n", "git", str(tmp_path / "statement")], check=True, capture_output=True)
    other = dict(manifest.values["signature"], ssh=(tmp_path / "statement.sig").read_text())
    assert "does not fit" in problem(changed(manifest, signature=other), key.line())


@needs_ssh_keygen
def test_the_signature_holds_for_what_was_decrypted(signed, key):
    stored = signed(**PACKED)
    assert problem(stored, key.line(), path=PATH + ".zst.age") is None
    plain = Manifest.parse(stored.of_decrypted(NAME).text.encode(), PATH, NAME)
    assert problem(plain, key.line()) is None
    assert "its `sha256` is another one" in problem(changed(plain, sha256="2" * 64), key.line())
    assert "was signed under the name %s" % NAME in problem(changed(plain, file="etcd-x.db"), key.line())


@needs_ssh_keygen
def test_a_directory_lists_what_is_not_signed_as_not_verified(signed, key, tmp_path):
    names = ["etcd-cp1-2026010%dT030405Z.db" % day for day in (2, 3, 4)]
    manifest = signed()
    plain = SnapshotDirectory(str(tmp_path))
    for name in names:
        (tmp_path / name).write_bytes(b"data")
    plain.write_manifest(manifest)
    plain.write_manifest(changed(manifest, file=names[1], created="2026-01-03T03:04:05Z"))
    plain.write_manifest(changed(manifest, file=names[2], created="2026-01-04T03:04:05Z", signature=None))
    assert [entry["verified"] for entry in plain.snapshots()] == [True] * 3
    signers = signature.signers_of([key.line()])
    listed = SnapshotDirectory(str(tmp_path), signers).snapshots(brief=True)
    assert [(entry["file"], entry["verified"]) for entry in listed] == [(names[2], False), (names[1], False), (names[0], True)]
    assert "signature" not in listed[2]
    skipped = signers.skipped(listed, listed[2]["path"])
    assert len(skipped) == 2 and "is not signed" in skipped[0] and "was signed under the name" in skipped[1]
    assert signers.skipped(listed, listed[1]["path"]) == skipped[:1]


def test_no_signers_ask_for_no_signature():
    assert signature.signers_of([]) is signature.signers_of(None) is signature.signers_of(["", " "]) is None


@pytest.mark.parametrize(
    "line, words",
    [
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHZ1EKczMemsSK+BZ", "line 1 of `signers` has no cluster"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key was given"),
        (CLUSTER, "line 1 of `signers` is not CLUSTER"),
        (CLUSTER + " ssh-ed25519", "is not CLUSTER"),
        ("# a comment", "is not CLUSTER"),
        ("a ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHZ1EK\n* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHZ1EK", "is not CLUSTER"),
    ],
)
def test_lines_that_are_none_of_signers(line, words):
    with pytest.raises(Refused, match=words):
        signature.signers_of([line])


@needs_ssh_keygen
def test_a_line_that_only_ssh_keygen_finds_wrong_says_nothing_about_the_snapshot(signed, key):
    for line in (key.line(options='valid-foo="x"'), CLUSTER + " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP"):
        with pytest.raises(Refused, match=r"^line 2 of `signers` is wrong: (bad options|invalid key)[^\r\n]*$"):
            problem(signed(), key.line(OTHER), line)


def program(directory, monkeypatch, text):
    """Another ssh-keygen than this host's."""
    directory.mkdir()
    path = directory / "ssh-keygen"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:%s" % (directory, os.environ["PATH"]))


@needs_ssh_keygen
@pytest.mark.parametrize(
    "text, words",
    [
        ("echo 'unknown option -- Y' >&2; echo 'usage: ssh-keygen' >&2; exit 1", "its ssh-keygen is too old: it has to be of OpenSSH 8.2 or later"),
        ("kill -9 $$", "was killed by signal 9"),
        ("echo 'cannot fork' >&2; exit 255", "ended with code 255: cannot fork"),
    ],
)
def test_a_host_that_cannot_check_calls_no_signature_wrong(signed, key, tmp_path, monkeypatch, text, words):
    manifest = signed()
    program(tmp_path / "bin", monkeypatch, text)
    with pytest.raises(Refused, match="^the signature of %s could not be checked: .*%s" % (PATH, words)):
        problem(manifest, key.line())


@needs_ssh_keygen
def test_a_host_without_a_temporary_directory(signed, key, monkeypatch):
    manifest = signed()

    def full(**_options):
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr(signature.tempfile, "TemporaryDirectory", full)
    with pytest.raises(Refused, match="^the signature of %s could not be checked: /tmp/x: No space left on device" % PATH):
        problem(manifest, key.line())


def test_a_host_without_ssh_keygen(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "TOOL_DIRS", ())
    with pytest.raises(Refused, match="there is no program ssh-keygen on this host; install the package openssh-client"):
        signature.signers_of([CLUSTER + " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHZ1EKczMemsSK+BZ"])


@needs_ssh_keygen
def test_a_host_whose_ssh_keygen_cannot_sign_takes_no_snapshot(key, tmp_path, monkeypatch):
    real = shutil.which("ssh-keygen")
    program(tmp_path / "bin", monkeypatch, 'test "$1" != -Y || { echo "unknown option -- Y" >&2; exit 1; }; exec %s "$@"' % real)
    with pytest.raises(Refused, match=r"cannot sign snapshots: its ssh-keygen is too old: .* or later\. No snapshot was taken$"):
        signature.check_key(key.path)


@needs_ssh_keygen
def test_keys_that_cannot_sign(tmp_path, monkeypatch):
    good = Key(tmp_path, "good")
    signature.check_key(good.path)
    os.chmod(good.path, 0o640)
    with pytest.raises(Refused, match=r"^others may read the key that signs snapshots, \S+ \(mode 0640\)"):
        signature.check_key(good.path)
    with pytest.raises(Refused, match=r"has a passphrase, which no run can enter\. No snapshot was taken\. Run: ssh-keygen -p -N '' -f "):
        signature.check_key(Key(tmp_path, "closed", "a passphrase").path)
    (tmp_path / "text").write_text("no key")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(Refused, match="is not a private key that can sign snapshots"):
        signature.check_key(str(tmp_path / "text"))
    with pytest.raises(Refused, match=r"none, cannot be read: No such file or directory\. No snapshot was taken"):
        signature.check_key(str(tmp_path / "none"))
    with pytest.raises(Refused, match="is not a regular file"):
        signature.check_key(str(tmp_path))
    other = Key(tmp_path, "other")
    if os.geteuid() == 0:
        os.chown(other.path, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(Refused, match="belongs to another user than root"):
        signature.check_key(other.path)


@pytest.mark.parametrize("fingerprints", [{}, {"etcd_ca": None}, {"etcd_ca": "unreadable"}])
def test_a_signature_names_a_cluster(fingerprints):
    with pytest.raises(Refused, match="names the cluster by its etcd CA, which cannot be read on this host"):
        signature.check_cluster(fingerprints)
    signature.check_cluster({"etcd_ca": CLUSTER})
