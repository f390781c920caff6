# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

from ansible_collections.k8s_dr.etcd.plugins.module_utils import _fingerprints

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
    assert _fingerprints.fingerprints(*make(tmp_path)) == {
        "ca": digest("ca"),
        "etcd_ca": digest("etcd ca"),
        "service_account": digest("sa"),
        "encryption_configuration": None,
    }


def test_the_encryption_configuration(tmp_path):
    config = tmp_path / "enc.yaml"
    config.write_text("key")
    found = _fingerprints.fingerprints(*make(tmp_path, "    - --encryption-provider-config=%s" % config))
    assert found["encryption_configuration"] == digest("key")


def test_encryption_with_a_file_that_is_not_here_is_not_no_encryption(tmp_path):
    found = _fingerprints.fingerprints(*make(tmp_path, "    - --encryption-provider-config=/nowhere/enc.yaml"))
    assert found["encryption_configuration"] == _fingerprints.UNREADABLE


def test_a_stray_copy_of_a_manifest_leaves_it_open_whether_there_is_encryption(tmp_path):
    manifests, pki = make(tmp_path)
    (tmp_path / "manifests" / "kube-apiserver.yaml.bak").write_text(APISERVER.format(pki=pki, more=""))
    found = _fingerprints.fingerprints(manifests, pki)
    assert found["ca"] == digest("ca") and found["encryption_configuration"] == _fingerprints.UNREADABLE


def test_a_host_that_is_no_control_plane(tmp_path):
    assert set(_fingerprints.fingerprints(str(tmp_path / "none"), str(tmp_path / "none")).values()) == {None}
