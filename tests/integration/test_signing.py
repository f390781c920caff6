# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signed snapshots of a real etcd, with the ssh-keygen of this host (Debian 12's OpenSSH 9.2), the real age, rclone and an S3 server.

An intruder who can write wherever snapshots are, and has all public keys, gets no snapshot accepted.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import harness
import pytest
import servers
import yaml
from restore_sandbox import blocks_of
from test_drill import change, copy, drill, manifest_of, read
from test_encryption import Key as AgeKey, visible
from test_restore_refusals import ROLE, facts, play_of
from test_snapshot_role import VERSION, play, with_tools

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen on this host")


class Cluster:
    """What identifies a cluster, and the key of its control plane."""

    def __init__(self, directory):
        self.pki = directory / "pki"
        (self.pki / "etcd").mkdir(parents=True)
        (self.pki / "etcd" / "ca.crt").write_text("the etcd CA below %s" % directory)
        self.name = hashlib.sha256((self.pki / "etcd" / "ca.crt").read_bytes()).hexdigest()
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.public = self.key.with_suffix(".pub").read_text().strip()
        self.line = "%s %s" % (self.name, self.public)

    def take(self, etcd, directory, **more):
        options = dict(etcd.connection, directory=str(directory), manifests_dir="/nonexistent", pki_dir=str(self.pki), host="cp1", signing_key=str(self.key))
        return harness.run_module("etcd_snapshot", **dict(options, **more))

    def sign(self, path):
        """What the key makes of the manifest of any file, as an intruder with a key would sign it."""
        statement = path.with_name("statement")
        facts = {name: value for name, value in read(path).items() if name not in ("levels", "level", "off_site", "inventory", "signature")}
        facts["inventory_sha256"] = hashlib.sha256(json.dumps(read(path).get("inventory"), sort_keys=True).encode()).hexdigest()
        statement.write_text(json.dumps(facts, sort_keys=True))
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(self.key), "-n", "snapshot@k8s-dr.etcd", str(statement)]
        subprocess.run(command, check=True, capture_output=True)
        signed = statement.with_name("statement.sig")
        change(path, signature={"statement": statement.read_text(), "ssh": signed.read_text()})
        statement.unlink()
        signed.unlink()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with harness.Etcd(VERSION, tmp_path_factory.mktemp("signing")) as member:
        harness.fill(member)
        yield member


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Cluster(tmp_path_factory.mktemp("other"))


def taken(cluster, etcd, directory, **more):
    code, result = cluster.take(etcd, directory, **more)
    assert code == 0, result
    return pathlib.Path(result["snapshot"]["path"])


@pytest.fixture(scope="module")
def master(cluster, etcd, tmp_path_factory):
    """A good signed snapshot, to be copied."""
    return taken(cluster, etcd, tmp_path_factory.mktemp("master"))


@pytest.fixture(scope="module")
def foreign(other, etcd, tmp_path_factory):
    """A good signed snapshot of another cluster."""
    return taken(other, etcd, tmp_path_factory.mktemp("foreign"), host="cp2")


@pytest.fixture
def with_age(monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(servers.program("age")) + os.pathsep + os.environ["PATH"])


def listed(directory=None, **more):
    code, result = harness.run_module("etcd_snapshot_list", **dict({"directory": directory} if directory else {}, **more))
    assert code == 0, result
    return result


def test_what_only_an_unsigned_manifest_records_is_asked_again(cluster, other, master):
    def tool_asked(signer):
        options = dict(harness.tools(VERSION), path=str(master), recorded=True, signers=[signer], verify=False)
        code, result = harness.run_module("etcd_snapshot_info", **options)
        assert code == 0, result
        return result["snapshot"]["tool"]["path"]

    assert tool_asked(cluster.line) is None
    assert tool_asked(other.line)


def warned_of(result, names):
    """How many of these snapshots its warnings name."""
    text = json.dumps(result.get("warnings"))
    return sum(name in text for name in names)


def forgeries(directory, master, foreign, cluster, other):
    """{name: the words that say what is wrong}: what an intruder puts beside good snapshots, and most of it newer than these."""
    found = {}

    def add(day, words, source=master, sign=None, data=None, **changes):
        path = directory / ("etcd-cp1-202701%02dT030405Z.db" % day)
        shutil.copyfile(source, path)
        shutil.copyfile(manifest_of(source), manifest_of(path))
        if data:
            path.write_bytes(data)
            changes.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        change(path, file=path.name, created="2027-01-%02dT03:04:05Z" % day, **changes)
        if sign:
            sign.sign(path)
        found[path.name] = words
        return path

    # other data, and all checksums fit
    add(1, "is not signed", data=master.read_bytes() + b"!" * 32, signature=None)
    add(2, "was signed under the name", data=master.read_bytes() + b"!" * 32)
    # an old one that passes for a new one
    add(3, "was signed under the name %s" % master.name)
    # as it is, under another name
    path = add(4, "belongs to")
    shutil.copyfile(manifest_of(master), manifest_of(path))
    # a good one of another cluster
    copy(foreign, directory)
    found[foreign.name] = "does not allow for the cluster %s" % other.name[:12]
    # the same, that passes for a new one of this cluster
    add(5, "does not allow for the cluster %s" % other.name[:12], source=foreign, fingerprints=read(master)["fingerprints"])
    # a key of the intruder's own
    add(6, "does not allow for the cluster %s" % cluster.name[:12], sign=other)
    # a signature that was removed
    add(7, "is not signed", signature=None)
    # what was signed is rewritten
    signature = read(master)["signature"]
    path = add(8, "does not fit what was signed")
    statement = json.dumps(dict(json.loads(signature["statement"]), file=path.name, created=read(path)["created"]), sort_keys=True)
    change(path, signature=dict(signature, statement=statement))
    return found


def test_an_intruder_gets_no_snapshot_accepted(master, foreign, cluster, other, tmp_path):
    directory = tmp_path / "backups"
    good = copy(master, directory)
    said = forgeries(directory, master, foreign, cluster, other)
    rclone = {"rclone": servers.program("rclone"), "rclone_config": "/dev/null"}
    signers = {"signers": [cluster.line]}
    assert listed(directory)["latest"] != str(good)
    for where in ({"directory": directory}, dict(rclone, remote=str(directory))):
        found = listed(**where, **signers)
        assert found["latest"] == str(good)
        problems = {entry["file"]: entry["problem"] for entry in found["snapshots"] if not entry["verified"]}
        assert set(problems) == set(said)
        assert all(said[name] in problem and name in problem for name, problem in problems.items()), problems

    # downloads
    code, result = harness.run_module("etcd_snapshot_fetch", remote=str(directory), directory=tmp_path / "got", **rclone, **signers)
    assert code == 0 and result["snapshot"]["file"] == good.name and warned_of(result, said) == 3, result
    for name, words in said.items():
        code, result = harness.run_module("etcd_snapshot_fetch", remote=str(directory), directory=tmp_path / "got", name=name, **rclone, **signers)
        assert code == 1 and words in result["msg"], result
    assert visible(tmp_path / "got") == [good.name, good.name + ".json"]

    # a restore's choice, and each one that is named
    (tmp_path / "manifests").mkdir()
    options = {"manifests_dir": tmp_path / "manifests", "data_dir": tmp_path / "data", "snapshot_dir": directory}
    code, result = harness.run_module("etcd_restore_info", **options, **signers)
    assert code == 0 and result["restore"]["snapshots"]["latest"]["path"] == str(good), result
    assert len(result["restore"]["snapshots"]["skipped"]) == warned_of(result, said) == 3
    for name, words in said.items():
        code, result = harness.run_module("etcd_snapshot_info", path=directory / name, **harness.tools(VERSION), **signers)
        # what is no snapshot is refused for that
        assert code == 1 and (words in result["msg"] or result["snapshot"]["integrity"] != "ok"), result
        code, result = drill(directory / name, tmp_path / "work", level="checksum", **signers)
        # a signature that is missing is no damage
        failed = "checksum" if words == "belongs to" else None
        assert code == 1 and words in result["msg"] and not result["changed"] and result["snapshot"]["failed"] == failed, result
        code, result = drill(name, tmp_path / "work", level="checksum", remote=str(directory), **rclone, **signers)
        assert code == 1 and words in result["msg"] and not result["changed"], result
    code, result = harness.run_module("etcd_snapshot_info", path=good, **harness.tools(VERSION), **signers)
    assert code == 0 and result["manifest"]["file"] == good.name, result

    # retention counts none of them, so that they displace no good one
    for where in ({"directory": directory, "manifests_dir": "/nonexistent"}, dict(rclone, remote=str(directory), etcd_ca=cluster.name)):
        code, result = harness.run_module("etcd_snapshot_prune", keep=1, **where, **signers)
        assert code == 0 and result["removed"] == [] and [one["path"] for one in result["kept"]] == [str(good)], result


def test_a_file_that_needs_no_manifest_needs_one_with_signers(master, cluster, tmp_path):
    path = copy(master, tmp_path / "backups")
    renamed = path.with_name("found.db")
    shutil.copyfile(path, renamed)
    signers = {"signers": [cluster.line]}
    for beside, words in ((False, "has no manifest"), (True, "belongs to")):
        if beside:
            shutil.copyfile(manifest_of(path), manifest_of(renamed))
        code, result = drill(renamed, tmp_path / "work", level="checksum", manifest=False)
        assert code == 0, result
        code, result = drill(renamed, tmp_path / "work", level="checksum", manifest=False, **signers)
        assert code == 1 and words in result["msg"], result
        code, result = harness.run_module("etcd_snapshot_info", path=renamed, **harness.tools(VERSION), **signers)
        assert code == 1 and words in result["msg"], result
        code, result = harness.run_module("etcd_snapshot_info", path=renamed, verify=False, **harness.tools(VERSION), **signers)
        assert code == 0 and result["manifest"] is None and words in result["manifest_problem"], result


def test_a_damaged_file_with_a_good_signature_is_found(master, cluster, tmp_path):
    path = copy(master, tmp_path / "backups")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert listed(path.parent, signers=[cluster.line])["latest"] == str(path)
    code, result = drill(path, tmp_path / "work", level="checksum", signers=[cluster.line])
    assert code == 1 and "its sha256 has changed" in result["msg"], result


def test_a_retired_key_is_accepted_for_what_it_signed_in_its_time(master, cluster, other, tmp_path):
    path = copy(master, tmp_path / "backups")
    day = read(path)["created"][:10].replace("-", "")
    old = '%s valid-before="%%s" %s' % (cluster.name, cluster.public)
    new = "%s %s" % (cluster.name, other.public)
    assert listed(path.parent, signers=[old % "20990101", new])["latest"] == str(path)
    found = listed(path.parent, signers=[old % day, new])
    assert found["latest"] is None and "key has expired" in found["snapshots"][0]["problem"]


@pytest.mark.parametrize("level, reached", [("checksum", "status"), ("drill", "drill")])
def test_the_signature_holds_from_the_snapshot_to_the_drill_of_what_was_fetched(cluster, etcd, tmp_path, with_age, level, reached):
    key = AgeKey(tmp_path / "identity.txt")
    signers = {"signers": [cluster.line]}
    path = taken(cluster, etcd, tmp_path / "backups", compression="zstd", recipients=[key.recipient])
    signature = read(path)["signature"]
    assert listed(path.parent, checksum=True, **signers)["latest"] == str(path)
    with servers.S3(tmp_path / "far") as far:
        rclone = {"remote": far.where, "rclone_config": far.config(tmp_path / "rclone.conf"), "rclone": servers.program("rclone")}
        code, result = harness.run_module("etcd_snapshot_upload", path=path, **rclone)
        assert code == 0 and result["changed"], result
        # the copy is noted here, the level there
        code, result = drill(path.name, tmp_path / "work", level=level, identity_file=key.identity, **rclone, **signers)
        assert code == 0 and result["changed"] and result["snapshot"]["recorded"], result
        assert read(path)["off_site"] and json.loads(far.stored(path.name + ".1.note").read_text())["level"] == reached
        assert listed(**rclone, **signers)["latest"] == "%s/%s" % (far.where, path.name)
        code, result = harness.run_module("etcd_snapshot_fetch", directory=tmp_path / "got", **rclone, **signers)
        assert code == 0 and warned_of(result, [path.name]) == 0, result
        got = pathlib.Path(result["snapshot"]["path"])
        # what is refused off-site is refused where it was fetched before
        change(got, revision=1)
        (tmp_path / "plain").mkdir()
        code, result = harness.run_module("etcd_snapshot_decrypt", path=got, dest=tmp_path / "plain", identity_file=key.identity, **signers)
        assert code == 1 and "its `revision` is another one" in result["msg"] and visible(tmp_path / "plain") == [], result
        manifest_of(got).unlink()
        code, result = harness.run_module("etcd_snapshot_fetch", directory=tmp_path / "got", **rclone, **signers)
        assert code == 0 and result["changed"], result
    code, result = drill(got, tmp_path / "work", level=level, identity_file=key.identity, **signers)
    assert code == 0 and result["changed"], result
    code, result = harness.run_module("etcd_snapshot_decrypt", path=got, dest=tmp_path / "plain", identity_file=key.identity, **signers)
    assert code == 0, result
    plain = pathlib.Path(result["path"])
    code, result = harness.run_module("etcd_snapshot_info", path=plain, **harness.tools(VERSION), **signers)
    assert code == 0 and result["manifest"]["level"] == reached, result
    assert read(plain)["signature"] == read(got)["signature"] == read(path)["signature"] == signature
    code, result = drill(plain, tmp_path / "work", level=level, **signers)
    assert code == 0 and listed(plain.parent, **signers)["latest"] == str(plain), result


def test_an_unsigned_snapshot_is_as_good_as_ever_without_signers(cluster, etcd, tmp_path):
    path = taken(cluster, etcd, tmp_path / "backups", signing_key=None)
    assert "signature" not in read(path)
    assert listed(path.parent)["latest"] == str(path)
    assert listed(path.parent, signers=[])["latest"] == str(path)
    found = listed(path.parent, signers=[cluster.line])
    assert found["latest"] is None and "is not signed" in found["snapshots"][0]["problem"]
    code, result = harness.run_module("etcd_snapshot_fetch", remote=str(path.parent), directory=tmp_path / "got", rclone=servers.program("rclone"),
                                      rclone_config="/dev/null", signers=[cluster.line])  # fmt: skip
    assert code == 1 and "holds no verified snapshot: " in result["msg"] and "is not signed" in result["msg"], result


def test_retention_removes_nothing_that_only_it_would_replace(cluster, other, etcd, tmp_path):
    directory = tmp_path / "backups"
    signed = taken(cluster, etcd, directory)
    # after a rotation whose new key is not in `signers`, or with none
    options = {"signing_key": str(other.key), "signers": [cluster.line], "keep": 1}
    for more, words in (
        (options, "is signed with the key"),
        (dict(options, signing_key=None), "is not signed"),
        (dict(options, signers=["no line"]), "line 1 of `signers` is not CLUSTER"),
    ):
        code, result = cluster.take(etcd, directory, **more)
        said = json.dumps(result.get("warnings"))
        assert code == 0 and result["removed"] == [] and signed.exists() and "no older snapshot was removed" in said and words in said, result
    code, result = cluster.take(etcd, directory, signers=[cluster.line], keep=1)
    assert code == 0 and result["removed"] == [str(signed)] and "warnings" not in result, result
    # what is not accepted is not counted
    assert len(listed(directory)["snapshots"]) == 4


def test_an_upload_repairs_a_signature_there(master, cluster, tmp_path):
    path, far = copy(master, tmp_path / "backups"), tmp_path / "far"
    far.mkdir()
    options = {"directory": path.parent, "remote": str(far), "rclone": servers.program("rclone"), "rclone_config": "/dev/null"}

    def upload(**more):
        code, result = harness.run_module("etcd_snapshot_upload", **dict(options, **more))
        assert code == 0, result
        return [one["file"] for one in result["uploaded"]]

    assert upload(signers=[cluster.line]) == [path.name]
    change(far / path.name, signature=None)
    assert upload() == []
    assert upload(signers=[cluster.line]) == [path.name]
    assert read(far / path.name)["signature"] == read(path)["signature"]
    assert upload(signers=[cluster.line]) == []
    # whatever is wrong with the signers, what was just taken is uploaded
    shutil.rmtree(far)
    far.mkdir()
    code, result = harness.run_module("etcd_snapshot_upload", path=path, signers=["no line"], **options)
    assert code == 1 and "earlier snapshots were not uploaded: line 1 of `signers`" in result["msg"] and visible(far) == [path.name, path.name + ".json"]


def test_the_only_accepted_snapshot_is_not_deleted_by_mistake(cluster, etcd, tmp_path):
    signed = taken(cluster, etcd, tmp_path / "backups")
    unsigned = taken(cluster, etcd, tmp_path / "backups", signing_key=None)
    options = {"directory": tmp_path / "backups", "signers": [cluster.line]}
    code, result = harness.run_module("etcd_snapshot_delete", name=signed.name, **options)
    assert code == 1 and "is the only verified snapshot" in result["msg"] and signed.exists(), result
    code, result = harness.run_module("etcd_snapshot_hold", name=unsigned.name, **options)
    assert code == 0 and "is held, and is not verified" in json.dumps(result["warnings"]), result
    harness.run_module("etcd_snapshot_hold", name=unsigned.name, state="absent", **options)
    code, result = harness.run_module("etcd_snapshot_delete", name=unsigned.name, **options)
    assert code == 0 and not unsigned.exists() and not result["snapshot"]["verified"], result


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_key_that_cannot_sign_is_refused_before_a_snapshot_is_taken(cluster, etcd, tmp_path, check_mode):
    mine = tmp_path / "key"
    shutil.copyfile(cluster.key, mine)
    mine.chmod(0o644)
    options = dict(etcd.connection, directory=tmp_path / "backups", manifests_dir="/nonexistent", pki_dir=cluster.pki, signing_key=mine)
    for change_it, words in (
        (lambda: None, "others may read the key that signs snapshots"),
        (lambda: (mine.chmod(0o600), subprocess.run(["ssh-keygen", "-q", "-p", "-N", "closed", "-f", str(mine)], check=True)), "has a passphrase"),
        (lambda: mine.write_text("no key"), "is not a private key that can sign snapshots"),
        (mine.unlink, "cannot be read: No such file or directory"),
    ):
        change_it()
        code, result = harness.run_module("etcd_snapshot", check_mode=check_mode, **options)
        assert code == 1 and words in result["msg"] and "No snapshot was taken" in result["msg"] and not (tmp_path / "backups").exists(), result
    code, result = harness.run_module("etcd_snapshot", check_mode=check_mode, **dict(options, signing_key=cluster.key, pki_dir="/nonexistent"))
    assert code == 1 and "names the cluster by its etcd CA" in result["msg"] and not (tmp_path / "backups").exists(), result


def test_a_snapshot_that_cannot_be_signed_leaves_nothing_behind(cluster, etcd, tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssh-keygen"
    # the trial beforehand works
    text = '#!/bin/sh\n[ "$1" != -Y ] || mkdir "$0.tried" || { echo "it broke" >&2; exit 255; }\nexec %s "$@"\n'
    program.write_text(text % shutil.which("ssh-keygen"))
    program.chmod(0o755)
    path = {"PATH": "%s:%s" % (program.parent, os.environ["PATH"])}
    options = dict(etcd.connection, directory=tmp_path / "backups", manifests_dir="/nonexistent", pki_dir=cluster.pki, signing_key=cluster.key)
    code, result = harness.run_module("etcd_snapshot", environment=path, **options)
    assert code == 1 and "no snapshot was kept, since it could not be signed" in result["msg"] and "it broke" in result["msg"], result
    assert visible(tmp_path / "backups") == []


# ---- the playbooks


def hosts_of(etcd, tmp_path, cluster, **more):
    found = with_tools(etcd, tmp_path, etcd_snapshot_signing_key=str(cluster.key), etcd_client_signers=[cluster.line])
    found.update(etcd_drill_work_dir=str(tmp_path / "work"), etcd_drill_bin_dir=str(harness.bin_dir(VERSION)), **more)
    (tmp_path / "work").mkdir(exist_ok=True)
    return {"cp1": found}


POD = """apiVersion: v1
kind: Pod
metadata:
  name: etcd
  labels:
    component: etcd
spec:
  containers:
  - name: etcd
    image: registry.example/etcd:%(version)s
    command:
    - etcd
    - --data-dir=/nonexistent
    - --trusted-ca-file=/pki/etcd/ca.crt
    volumeMounts:
    - mountPath: /nonexistent
      name: data
    - mountPath: /pki
      name: pki
  volumes:
  - name: data
    hostPath:
      path: /nonexistent
  - name: pki
    hostPath:
      path: %(pki)s
"""


def test_the_playbooks_take_signed_snapshots_and_accept_no_others(cluster, other, foreign, etcd, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rclone").symlink_to(servers.program("rclone"))
    off_site = tmp_path / "off-site"
    off_site.mkdir()
    hosts = hosts_of(etcd, tmp_path, cluster, etcd_snapshot_off_site=str(off_site), etcd_snapshot_rclone_config="/dev/null", etcd_snapshot_off_site_keep=1)
    # the cluster's CA is that of the static Pod
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "etcd.yaml").write_text(POD % {"pki": cluster.pki, "version": etcd.version})
    before = os.environ["PATH"]
    os.environ["PATH"] = "%s:%s" % (tmp_path / "bin", before)
    try:
        rc, output, _recap = play("playbooks/snapshot.yml", tmp_path, hosts)
        assert rc == 0, output
        [good] = [path for path in (tmp_path / "backups").iterdir() if path.suffix == ".db"]
        assert read(good)["signature"] and visible(off_site) == [good.name, good.name + ".json"]
        said = forgeries(tmp_path / "backups", good, foreign, cluster, other)
        for name in said:
            shutil.copyfile(tmp_path / "backups" / name, off_site / name)
            shutil.copyfile(manifest_of(tmp_path / "backups" / name), manifest_of(off_site / name))
        rc, output, _recap = play("playbooks/list.yml", tmp_path, hosts)
        assert rc == 0 and "20 snapshots, 2 of them verified" in output, output
        assert all(output.count(words) >= 2 for words in said.values()), output
        rc, output, _recap = play("playbooks/prune.yml", tmp_path, hosts)
        assert rc == 0 and good.exists() and (off_site / good.name).exists(), output
        rc, output, _recap = play("playbooks/verify.yml", tmp_path, hosts, "-e", "etcd_drill_level=checksum")
        assert rc == 2 and "9 of 10 snapshots on cp1 were not verified" in output, output
        for name in said:
            (tmp_path / "backups" / name).unlink()
            manifest_of(tmp_path / "backups" / name).unlink()
        rc, output, _recap = play("playbooks/drill.yml", tmp_path, hosts)
        assert rc == 0 and "%s: restored by" % good in output, output
        assert read(good)["level"] == "drill" and listed(good.parent, signers=[cluster.line])["latest"] == str(good)
    finally:
        os.environ["PATH"] = before


def choose(tmp_path, cluster, directory, **options):
    """What a restore says that chooses and verifies its snapshot, which is before it stops anything."""
    tasks = yaml.safe_load((ROLE / "tasks" / "snapshot.yml").read_text())
    for task in tasks:
        if "ansible.builtin.include_tasks" in task:
            task["ansible.builtin.include_tasks"] = str(ROLE / "tasks" / task["ansible.builtin.include_tasks"])
    given = {"path": options["etcd_restore_snapshot"], "manifest": True} if options["etcd_restore_snapshot"].startswith(str(directory)) else {}
    host = dict(facts("cp1", snapshots={"latest": {}, "given": given, "problem": ""}), etcd_client_signers=[cluster.line], **options)
    host.update(etcd_client_connection=harness.tools(VERSION), etcd_restore_foreign=True, etcd_restore_rclone_config="/dev/null")
    for name in ("__etcd_restore_source", "__etcd_restore_file", "__etcd_restore_proof_node"):
        del host[name]
    host.update(__etcd_restore_proof_node={}, __etcd_restore_proof_controller={}, __etcd_restore_membership={"quorum": True, "lost": []})
    return play_of(tmp_path, {"cp1": host}, tasks)


def test_a_restore_refuses_a_forgery_before_it_stops_anything(master, foreign, cluster, other, tmp_path, monkeypatch):
    directory, elsewhere = tmp_path / "backups", tmp_path / "controller"
    good = copy(master, directory)
    said = forgeries(directory, master, foreign, cluster, other)
    replayed = "etcd-cp1-20270103T030405Z.db"
    shutil.copytree(directory, elsewhere)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rclone").symlink_to(servers.program("rclone"))
    monkeypatch.setenv("PATH", "%s:%s" % (tmp_path / "bin", os.environ["PATH"]))
    for place in ("node", "controller", "off-site"):
        where = {"node": str(directory) + "/", "controller": str(elsewhere) + "/", "off-site": ""}[place]
        options = {"etcd_restore_off_site": str(directory)} if place == "off-site" else {}
        output = choose(tmp_path, cluster, directory, etcd_restore_snapshot=where + replayed, **options)
        assert said[replayed] in output and "Nothing was done" in output and "failed=1" in output, output
        output = choose(tmp_path, cluster, directory, etcd_restore_snapshot=where + good.name, **options)
        assert "failed=0" in output, output
    # the newest that was signed
    output = choose(tmp_path, cluster, directory, etcd_restore_snapshot="", etcd_restore_off_site=str(directory))
    assert "failed=0" in output and "is not signed" in output, output


# ---- the page


def test_the_commands_of_the_page(cluster, etcd, tmp_path):
    [making] = blocks_of("docs/signing.md", "Keys")
    [checking] = blocks_of("docs/signing.md", "By hand")

    def run(block):
        block = block.replace("/etc/k8s-dr-signing", str(tmp_path / "signing")).replace("/etc/kubernetes/pki", str(cluster.pki))
        return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    line = run(making).strip()
    assert line.startswith(cluster.name + " ssh-ed25519 ") and (tmp_path / "signing").stat().st_mode & 0o777 == 0o700
    path = taken(cluster, etcd, tmp_path / "backups", signing_key=str(tmp_path / "signing" / "key"))
    assert listed(path.parent, signers=[line])["latest"] == str(path)
    (tmp_path / "signers").write_text(line + "\n")
    said = run(checking.replace("etcd-cp1-20260102T030405Z.db.json", str(manifest_of(path))))
    assert 'Good "snapshot@k8s-dr.etcd" signature for %s' % cluster.name in said
    assert json.loads((tmp_path / "statement").read_text())["sha256"] == read(path)["sha256"]
