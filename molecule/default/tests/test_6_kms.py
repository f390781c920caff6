# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster whose Secrets a KMS plugin encrypts (KMS v2): what is shown of its snapshots, what comes back, and what is said while the plugin is away.

The plugin is tests/kms/main.go, made with Kubernetes' own library; its keys are files instead of those of a cloud or of an HSM.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess

import pytest
from cluster import ROOT, wait_for
from restore_sandbox import left

SPACE = "kms"
MANIFEST, PLAIN = "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/kube-apiserver.plain"
# The API server's Pod mounts that directory.
CONFIGURATION, WITHOUT = "/etc/kubernetes/pki/kms.yaml", "/root/without-kms.yaml"
KEYS, SOCKET = "/etc/kms-keys", "/run/kms/one.sock"
# In the Pod the directory of the socket has another name than on the node.
PROVIDERS = """
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      %s
      - identity: {}
"""
KMS = """- kms:
          apiVersion: v2
          name: files
          endpoint: unix:///kms/one.sock"""
VOLUME = (
    ("    - kube-apiserver\n", "    - --encryption-provider-config=%s\n" % CONFIGURATION),
    ("    volumeMounts:\n", "    - mountPath: /kms\n      name: kms\n"),
    ("  volumes:\n", "  - hostPath:\n      path: /run/kms\n    name: kms\n"),
)
SELECT = ("-l", "cp1", "-e", "etcd_recover_namespace=" + SPACE, "-e", "etcd_recover_confirm=true")


def start_plugin(cluster):
    cluster.run("cp1", "systemd-run", "--quiet", "--collect", "--unit", "kms-plugin", "/usr/local/bin/kms_plugin", SOCKET, KEYS)
    wait_for(lambda: "kms" in cluster.run("cp1", "sh", "-c", "ss -xl | grep %s || :" % SOCKET), 20, "the plugin listens")


def stop_plugin(cluster):
    cluster.run("cp1", "systemctl", "stop", "kms-plugin")


def add_key(cluster, name):
    cluster.run("cp1", "sh", "-c", "umask 077; head -c 32 /dev/urandom >%s/%s" % (KEYS, name))


def api_server(cluster, manifest):
    """Have kubelet start it with that manifest, and wait until it serves."""
    before = cluster.processes("cp1", "kube-apiserver --")
    cluster.run("cp1", "sh", "-c", "cat >/etc/kubernetes/new.yaml && mv /etc/kubernetes/new.yaml " + MANIFEST, stdin=manifest)
    wait_for(lambda: set(cluster.processes("cp1", "kube-apiserver --")) - set(before), 120, "another API server runs")
    wait_for(lambda: not set(cluster.processes("cp1", "kube-apiserver --")) & set(before), 120, "the one before has ended")
    cluster.wait_ready()


def store(cluster, name, text):
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": SPACE}, "stringData": {"text": text}})


def plain_text(cluster):
    """Of a ConfigMap in what is served, which no plugin encrypts."""
    return json.loads(shown(cluster, "configmap", "plain"))["data"]["text"]


def stored(cluster, name):
    """What etcd holds of a Secret."""
    return base64.b64decode(cluster.etcdctl("get", "/registry/secrets/%s/%s" % (SPACE, name))["kvs"][0]["value"])


def text_of(secret):
    return base64.b64decode(secret["data"]["text"]).decode()


@pytest.fixture(scope="module")
def encrypted(cluster):
    """The plugin runs, and the API server has it encrypt what is written from now on."""
    plain = cluster.run("cp1", "cat", MANIFEST)
    # what an interrupted run has left
    if "/kms" in plain:
        plain = cluster.run("cp1", "cat", PLAIN)
    program = subprocess.run([str(ROOT / "tests/tools/programs"), "kms_plugin"], capture_output=True, text=True, check=True).stdout.split()[1]
    cluster.run("cp1", "systemctl", "stop", "kms-plugin", check=False)
    subprocess.run([cluster.engine, "cp", program, cluster.nodes["cp1"] + ":/usr/local/bin/"], check=True)
    cluster.run("cp1", "mkdir", "-p", "-m", "700", KEYS, os.path.dirname(SOCKET))
    add_key(cluster, "1")
    start_plugin(cluster)
    for path, provider in ((CONFIGURATION, KMS), (WITHOUT, "")):
        cluster.run("cp1", "sh", "-c", "umask 077; cat >" + path, stdin=PROVIDERS % provider)
    cluster.run("cp1", "sh", "-c", "cat >" + PLAIN, stdin=plain)
    manifest = plain
    for line, more in VOLUME:
        assert manifest.count(line) == 1
        manifest = manifest.replace(line, line + more)
    api_server(cluster, manifest)
    cluster.kubectl("create", "namespace", SPACE)
    yield
    # the API server would not show Secrets that it cannot decrypt
    cluster.kubectl("delete", "namespace", SPACE, "--ignore-not-found", timeout=120)
    api_server(cluster, plain)
    stop_plugin(cluster)
    cluster.run("cp1", "rm", "-rf", PLAIN, CONFIGURATION, WITHOUT, KEYS, "/usr/local/bin/kms_plugin", "/run/kms")


@pytest.fixture(scope="module")
def snapshot(cluster, encrypted):
    """A snapshot with an encrypted Secret."""
    store(cluster, "first", "of the snapshot")
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plain", "namespace": SPACE}, "data": {"text": "as it is"}})
    path = cluster.snapshot()
    yield path
    cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_state=absent")
    cluster.run("cp1", "rm", path, path + ".json")


@pytest.fixture
def browse(cluster, snapshot):
    """Serve it, anew each time."""

    def run(*args, **how):
        cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_state=absent")
        return cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_snapshot=" + snapshot, *args, **how)

    return run


def shown(cluster, *args):
    """What kubectl shows of the snapshot."""
    return cluster.run("cp1", "kubectl", "--kubeconfig", "/run/k8s-dr-browse/kubeconfig", "-n", SPACE, "get", *args, "-o", "json", check=False)


def test_the_plugin_encrypts(cluster, snapshot):
    assert stored(cluster, "first").startswith(b"k8s:enc:kms:v2:files:")


def test_every_object_is_shown_decrypted(cluster, browse):
    output = browse("-e", "etcd_browse_verify=true").stdout
    assert "cannot be read" not in output
    assert text_of(json.loads(shown(cluster, "secret", "first"))) == "of the snapshot"


def test_the_level_objects_is_reached(cluster, snapshot):
    cluster.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_state=absent")
    output = cluster.playbook("verify.yml", "-l", "cp1", "-e", "etcd_drill_snapshot=" + snapshot, "-e", "etcd_drill_level=objects").stdout
    assert json.loads(cluster.run("cp1", "cat", snapshot + ".json"))["level"] == "objects", output


def test_a_secret_comes_back_and_is_encrypted_again(cluster, snapshot):
    before = stored(cluster, "first")
    cluster.kubectl("-n", SPACE, "delete", "secret", "first")
    cluster.playbook("recover.yml", *SELECT, "-e", "etcd_browse_snapshot=" + snapshot)
    assert text_of(cluster.get("-n", SPACE, "secret/first")) == "of the snapshot"
    after = stored(cluster, "first")
    assert after.startswith(b"k8s:enc:kms:v2:files:") and after != before


def test_a_key_that_is_lost_costs_what_it_encrypted_and_nothing_else(cluster, cp1, browse):
    """The plugin works, with its next key, which the API server goes over to within a minute."""
    add_key(cluster, "2")
    cluster.run("cp1", "mv", KEYS + "/1", "/root/kms-key-1")
    try:
        output = browse().stdout
    finally:
        cluster.run("cp1", "mv", "/root/kms-key-1", KEYS + "/1")
    assert re.search(r"Not all objects can be read \(.*/registry/secrets/kms/first.*failed to decrypt DEK", output)
    assert plain_text(cluster) == "as it is"


def test_while_the_plugin_is_away_nothing_is_begun(cluster, cp1, browse):
    stop_plugin(cluster)
    try:
        refused = browse(check=False)
        assert refused.returncode != 0 and "the KMS plugin at %s does not answer (" % SOCKET in refused.stdout
        assert left(cp1) == []
        browse("-e", "etcd_browse_encryption_config=" + WITHOUT)
        assert plain_text(cluster) == "as it is"
        assert "of the snapshot" not in shown(cluster, "secret", "first")
    finally:
        start_plugin(cluster)


def test_a_plugin_without_any_key_is_named_within_seconds(cluster, cp1, browse):
    cluster.run("cp1", "mv", KEYS, KEYS + ".away")
    try:
        refused = browse(check=False)
    finally:
        cluster.run("cp1", "mv", KEYS + ".away", KEYS)
    assert refused.returncode != 0 and "a KMS plugin of the EncryptionConfiguration answers, but cannot encrypt or decrypt" in refused.stdout
    assert left(cp1) == []


def test_a_restore_brings_encrypted_secrets_back(cluster, snapshot):
    store(cluster, "second", "written since")
    output = cluster.restore("-e", "etcd_restore_snapshot=" + snapshot).stdout
    cluster.wait_ready()
    assert "etcd_restore_undecryptable" not in output
    assert text_of(cluster.get("-n", SPACE, "secret/first")) == "of the snapshot"
    assert cluster.get("-n", SPACE, "secret/second") is None
    cluster.playbook("rollback.yml", "-l", "cp1", "-e", "etcd_restore_undo=true")
    cluster.wait_ready()
    assert text_of(cluster.get("-n", SPACE, "secret/second")) == "written since"
