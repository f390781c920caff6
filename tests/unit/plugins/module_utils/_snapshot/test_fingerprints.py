# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import json
import random
import subprocess

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import fingerprints

APISERVER = """
apiVersion: v1
kind: Pod
metadata:
  labels:
    component: kube-apiserver
spec:
  containers:
  - command:
    - kube-apiserver
    - --client-ca-file={pki}/ca.crt
{more}
    image: registry.example/kube-apiserver:v1.30.1
"""


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def make(tmp_path, more=""):
    pki, manifests = tmp_path / "pki", tmp_path / "manifests"
    (pki / "etcd").mkdir(parents=True)
    manifests.mkdir()
    (pki / "ca.crt").write_text("ca")
    (pki / "etcd" / "ca.crt").write_text("etcd ca")
    (pki / "sa.pub").write_text("sa")
    (manifests / "kube-apiserver.yaml").write_text(APISERVER.format(pki=pki, more=more))
    return str(manifests), str(pki)


def test_a_cluster_without_encryption(tmp_path):
    assert fingerprints.fingerprints(*make(tmp_path)) == {
        "ca": digest("ca"),
        "etcd_ca": digest("etcd ca"),
        "service_account": digest("sa"),
        "encryption_configuration": None,
        # without PEM the answer is not known
        "contents": {"ca": None, "etcd_ca": None, "service_account": None, "encryption_configuration": {}},
    }


def test_the_encryption_configuration(tmp_path):
    config = tmp_path / "enc.yaml"
    config.write_text("key")
    found = fingerprints.fingerprints(*make(tmp_path, "    - --encryption-provider-config=%s" % config))
    assert found["encryption_configuration"] == digest("key")


def test_encryption_with_a_file_that_is_not_here_is_not_no_encryption(tmp_path):
    found = fingerprints.fingerprints(*make(tmp_path, "    - --encryption-provider-config=/nowhere/enc.yaml"))
    assert found["encryption_configuration"] == fingerprints.UNREADABLE


def test_a_stray_copy_of_a_manifest_leaves_it_open_whether_there_is_encryption(tmp_path):
    manifests, pki = make(tmp_path)
    (tmp_path / "manifests" / "kube-apiserver.yaml.bak").write_text(APISERVER.format(pki=pki, more=""))
    found = fingerprints.fingerprints(manifests, pki)
    assert found["ca"] == digest("ca") and found["encryption_configuration"] == fingerprints.UNREADABLE


def test_a_host_that_is_no_control_plane(tmp_path):
    found = fingerprints.fingerprints(str(tmp_path / "none"), str(tmp_path / "none"))
    # nor is it known whether the cluster encrypts
    assert set(found.pop("contents").values()) == set(found.values()) == {None}


# ---- contents


def secret(number):
    return base64.b64encode(bytes([number]) * 32).decode()


def key(name, number=None):
    return {"name": name, "secret": secret(ord(name[-1]) if number is None else number)}


def config(*entries):
    """An EncryptionConfiguration, from (resources, providers)."""
    return {
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{"resources": list(resources), "providers": list(providers)} for resources, providers in entries],
    }


def cbc(*keys):
    return {"aescbc": {"keys": list(keys)}}


def kms(name, version="v2", **more):
    return {"kms": dict(more, name=name, apiVersion=version)}


PLAIN = {"identity": {}}
SECRETS = ["secrets"]


def written(wanted):
    # a copy of each part, or there would be anchors
    return yaml.safe_dump(json.loads(json.dumps(wanted)))


def ids(wanted):
    return fingerprints.provider_ids(written(wanted).encode())


def lost(then, now):
    """What speaks against a snapshot from under one configuration for a cluster with another; None for no encryption."""

    def known(one):
        return {"encryption_configuration": json.dumps(one) if one else None, "contents": {"encryption_configuration": ids(one) if one else {}}}

    found = fingerprints.differences(known(then), known(now))
    assert found["foreign"] == found["unknown"] == []
    return found["lost"]


ONE = config((SECRETS, [cbc(key("k1")), PLAIN]))


@pytest.mark.parametrize(
    "now",
    [
        config((SECRETS, [cbc(key("k2"), key("k1")), PLAIN])),
        config((SECRETS, [PLAIN, cbc(key("k1"))])),
        config((SECRETS, [kms("vault"), cbc(key("k1")), PLAIN])),
        config((["configmaps"], [cbc(key("k9")), PLAIN]), (SECRETS, [cbc(key("k1"))]), (SECRETS, [PLAIN])),
        # a wildcard has what the resource had
        config((["*.*"], [cbc(key("k1")), PLAIN])),
        config((["*."], [cbc(key("k1")), PLAIN]), (["*.*"], [PLAIN])),
    ],
    ids=["key-added", "another-order", "provider-added", "entries-added", "everything", "core-group"],
)
def test_a_configuration_that_still_reads_it(now):
    assert lost(ONE, now) == []


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (ONE, config((SECRETS, [cbc(key("k2")), PLAIN])), ["secrets (aescbc k1)"]),
        # another key under the same name
        (ONE, config((SECRETS, [cbc(key("k1", 7)), PLAIN])), ["secrets (aescbc k1)"]),
        # what is stored begins with the name
        (ONE, config((SECRETS, [cbc(dict(key("k1"), name="k3")), PLAIN])), ["secrets (aescbc k1)"]),
        (ONE, config((SECRETS, [{"aesgcm": {"keys": [key("k1")]}}, PLAIN])), ["secrets (aescbc k1)"]),
        (ONE, None, ["secrets (aescbc k1)"]),
        (ONE, config((["configmaps"], [cbc(key("k1")), PLAIN])), ["secrets (aescbc k1)"]),
        # objects that were stored as they are
        (ONE, config((SECRETS, [cbc(key("k1"))])), ["secrets (identity)"]),
        (None, config((SECRETS, [cbc(key("k1"))])), ["secrets (identity)"]),
        (None, ONE, []),
        (config((SECRETS, [kms("vault")])), config((SECRETS, [kms("vault", endpoint="unix:///b.sock", cachesize=5)])), []),
        (config((SECRETS, [kms("vault")])), config((SECRETS, [kms("vault", "v1")])), ["secrets (kms v2 vault)"]),
        (config((["*.apps"], [cbc(key("k1"))])), config((["*.apps"], [PLAIN])), ["all others of apps (aescbc k1)"]),
        # the more specific entry counts alone
        (config((["*.*"], [cbc(key("k1"))])), config((["deployments.apps"], [cbc(key("k2"))]), (["*.*"], [cbc(key("k1"))])), ["deployments.apps (aescbc k1)"]),
    ],
)
def test_what_it_could_not_read(then, now, expected):
    assert lost(then, now) == expected


def test_every_configuration_reads_what_it_stored():
    """Also once something was added to it, in any order."""
    chance = random.Random(4)
    for dummy in range(60):
        names = chance.sample(["secrets", "configmaps", "deployments.apps", "*.apps", "pods.example.com", "*.", "*.*"], chance.randint(1, 5))
        entries = [([name], [cbc(key("k%d" % chance.randint(1, 4))), PLAIN][: chance.randint(1, 2)]) for name in names]
        more = [(resources, chance.sample([*providers, kms("added"), cbc(key("k8"))], len(providers) + 2)) for resources, providers in entries]
        assert lost(config(*entries), config(*entries)) == lost(config(*entries), config(*more)) == []


def test_no_key_is_written_down():
    found = json.dumps(ids(ONE))
    assert secret(ord("1")) not in found and "k1" in found
    # nor what would be the same for the same key elsewhere
    assert hashlib.sha256(b"1" * 32).hexdigest() not in found and hashlib.sha256(secret(ord("1")).encode()).hexdigest() not in found


def test_comments_and_another_style_are_no_difference():
    text = written(ONE).replace("resources:", "# moved by hand\nresources:", 1)
    assert text != written(ONE) and ids(ONE)
    assert fingerprints.provider_ids(text.encode()) == fingerprints.provider_ids(json.dumps(ONE).encode()) == ids(ONE)


@pytest.mark.parametrize("text", ["", "key", "resources: []", "resources: *anchor", "resources:\n- resources: [secrets]\n  providers: []", "\xff"])
def test_what_cannot_be_read_for_certain_is_not_known(text):
    assert fingerprints.provider_ids(text.encode("latin-1")) is None


def prints(**more):
    return dict({"ca": "1", "service_account": "1", "encryption_configuration": None}, **more)


@pytest.mark.parametrize(
    ("then", "now", "unknown"),
    [
        # of an earlier version, which knew nothing but the whole file
        (prints(ca="1", encryption_configuration="1"), prints(ca="1", encryption_configuration="1", contents={"encryption_configuration": {}}), []),
        (
            prints(ca="2", service_account="2", encryption_configuration="2"),
            prints(contents={"ca": ["a"], "service_account": ["b"], "encryption_configuration": {}}),
            ["CA", "service-account key", "EncryptionConfiguration"],
        ),
        (prints(encryption_configuration="unreadable"), prints(encryption_configuration="2"), []),
        ({}, prints(), []),
    ],
)
def test_what_is_not_known_is_not_different(then, now, unknown):
    assert fingerprints.differences(then, now) == {"foreign": [], "lost": [], "unknown": unknown}


def test_an_earlier_version_knew_that_nothing_was_encrypted():
    now = {"encryption_configuration": "2", "contents": {"encryption_configuration": ids(config((SECRETS, [cbc(key("k1"))])))}}
    assert fingerprints.differences(dict(prints(), ca=None, service_account=None), dict(now, ca=None, service_account=None))["lost"] == ["secrets (identity)"]


@pytest.mark.parametrize(
    ("name", "then", "now", "foreign"),
    [
        ("ca", ["a"], ["a", "b"], False),
        ("ca", ["a", "b"], ["b"], False),
        ("ca", ["a"], ["b"], True),
        ("service_account", ["a"], ["b", "a"], False),
        ("service_account", ["a", "b"], ["b"], True),
    ],
)
def test_bundles(name, then, now, foreign):
    before, after = prints(contents={name: then}), prints(contents={name: now}, **{name: "2"})
    assert bool(fingerprints.differences(before, after)["foreign"]) is foreign


def test_a_renewed_ca_and_an_added_key(tmp_path):
    """With certificates and keys as openssl makes them."""

    def openssl(*argv):
        subprocess.run(["openssl", *argv], cwd=tmp_path, check=True, capture_output=True)

    for name in ("a", "b"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name)
        openssl("req", "-x509", "-key", name, "-out", name + ".crt", "-subj", "/CN=ca")
        openssl("pkey", "-in", name, "-pubout", "-out", name + ".pub")
    openssl("req", "-x509", "-key", "a", "-out", "renewed.crt", "-days", "400", "-subj", "/CN=ca")
    manifests, pki = make(tmp_path)
    there = tmp_path / "pki"

    def state(certificates, keys):
        (there / "ca.crt").write_text("".join("# a comment\n" + (tmp_path / one).read_text() for one in certificates))
        (there / "sa.pub").write_text("".join((tmp_path / one).read_text() for one in keys))
        return fingerprints.fingerprints(manifests, pki)

    first = state(["a.crt"], ["a.pub"])
    assert (tmp_path / "a.crt").read_text() != (tmp_path / "renewed.crt").read_text()
    for later in (state(["renewed.crt"], ["a.pub"]), state(["b.crt", "a.crt"], ["b.pub", "a.pub"])):
        assert fingerprints.differences(first, later) == {"foreign": [], "lost": [], "unknown": []}
    assert fingerprints.differences(first, state(["b.crt"], ["b.pub"]))["foreign"] == ["CA", "service-account key"]


def test_the_keys_that_the_api_server_accepts(tmp_path):
    """Not the one that kubeadm made: the flag may be given several times."""
    (tmp_path / "more.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    (tmp_path / "old.pub").write_text("-----BEGIN PUBLIC KEY-----\nBBBB\n-----END PUBLIC KEY-----\n")
    flags = "\n".join("    - --service-account-key-file=%s" % (tmp_path / name) for name in ("more.pub", "old.pub"))
    manifests = make(tmp_path, flags)
    assert fingerprints.fingerprints(*manifests)["contents"]["service_account"] == sorted([digest("AAAA"), digest("BBBB")])
    (tmp_path / "old.pub").write_text("-----BEGIN EC PRIVATE KEY-----\nBBBB\n-----END EC PRIVATE KEY-----\n")
    assert fingerprints.fingerprints(*manifests)["contents"]["service_account"] is None
