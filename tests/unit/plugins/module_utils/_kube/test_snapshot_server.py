# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import re
import socket

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import snapshot_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

# kubeadm 1.34.4 to 1.37.2 write the same flags (cmd/kubeadm/app/phases/controlplane/manifests.go).
MANIFEST = (pathlib.Path(__file__).resolve().parents[3] / "fixtures/kubeadm-1.37.2/kube-apiserver.yaml.txt").read_text()
# What a cluster may have besides, and what must not be taken over: it lets others in, reaches something, writes, or is the cluster's own.
DANGEROUS = {
    "admission-control-config-file": "/etc/kubernetes/admission.yaml",
    "anonymous-auth": "true",
    "api-audiences": "x",
    "audit-log-path": "/var/log/audit.log",
    "audit-policy-file": "/etc/kubernetes/audit.yaml",
    "audit-webhook-config-file": "/etc/kubernetes/audit-webhook.yaml",
    "authentication-config": "/etc/kubernetes/authn.yaml",
    "authentication-token-webhook-config-file": "/etc/kubernetes/webhook.yaml",
    "authorization-config": "/etc/kubernetes/authz.yaml",
    "authorization-webhook-config-file": "/etc/kubernetes/webhook.yaml",
    "egress-selector-config-file": "/etc/kubernetes/egress.yaml",
    "etcd-servers-overrides": "/events#https://10.0.0.9:2379",
    "oidc-issuer-url": "https://login.example.com",
    "token-auth-file": "/etc/kubernetes/tokens",
    "tracing-config-file": "/etc/kubernetes/tracing.yaml",
}
OWN = {
    "advertise-address": "127.0.0.1",
    "anonymous-auth": "false",
    "authorization-mode": "ABAC",
    "bind-address": "127.0.0.1",
    "client-ca-file": "/run/x/reader.crt",
    "endpoint-reconciler-type": "none",
    "etcd-servers": "https://127.0.0.1:2379",
    "etcd-cafile": "/run/x/server.crt",
    "etcd-certfile": "/run/x/reading.crt",
    "etcd-keyfile": "/run/x/reading.key",
    "secure-port": "6443",
    "service-account-key-file": "/run/x/server.crt",
    "tls-cert-file": "/run/x/server.crt",
    "watch-cache": "false",
}


def manifest(**flags):
    """The manifest with more flags."""
    lines = "".join("    - --%s=%s\n" % (name.replace("_", "-"), value) for name, value in flags.items())
    return StaticPod("/x", MANIFEST.replace("    - --etcd-cafile", lines + "    - --etcd-cafile", 1))


def flags_of(argv):
    assert argv[0] == "kube-apiserver"
    found = [word[2:].partition("=")[::2] for word in argv[1:]]
    assert all(value for dummy, value in found)
    return found


@pytest.mark.parametrize("pod", [None, manifest(), manifest(**DANGEROUS)], ids=["without a manifest", "kubeadm's", "with all that is dangerous"])
def test_only_the_reader_is_let_in(pod):
    found = dict(flags_of(snapshot_server.arguments(pod, "/run/x", "https://127.0.0.1:2379", 6443)))
    assert {name: found[name] for name in OWN} == OWN
    assert set(DANGEROUS) & set(found) == {"anonymous-auth"}
    left_out = ("kubelet-client-certificate", "requestheader-client-ca-file", "enable-bootstrap-token-auth", "proxy-client-cert-file", "etcd-servers-overrides")
    assert not [name for name in left_out if name in found]
    # nothing of the cluster's own keys
    assert not [value for value in found.values() if value.startswith("/etc/kubernetes")]


def test_what_decides_how_objects_are_read_is_taken_over():
    pod = manifest(
        feature_gates="A=true", etcd_prefix="/other", runtime_config="api/all=true", emulated_version="1.36", service_node_port_range="30000-31000"
    )
    found = flags_of(snapshot_server.arguments(pod, "/run/x", "https://127.0.0.1:2379", 6443, "/etc/kubernetes/enc.yaml", "completing"))
    for flag in (
        ("feature-gates", "A=true"),
        ("etcd-prefix", "/other"),
        ("runtime-config", "api/all=true"),
        ("emulated-version", "1.36"),
        ("service-node-port-range", "30000-31000"),
        ("service-cluster-ip-range", pod.flags["service-cluster-ip-range"]),
        ("encryption-provider-config", "/etc/kubernetes/enc.yaml"),
        ("etcd-certfile", "/run/x/completing.crt"),
    ):
        assert found.count(flag) == 1
    assert snapshot_server.prefix_of(pod) == "/other/" and snapshot_server.prefix_of(None) == "/registry/"


def test_flags_that_add_up_are_all_taken_over():
    pod = StaticPod("/x", MANIFEST.replace("    - --etcd-cafile", "    - --feature-gates=A=true\n    - --feature-gates=B=false\n    - --etcd-cafile", 1))
    found = flags_of(snapshot_server.arguments(pod, "/run/x", "https://127.0.0.1:2379", 6443))
    assert [value for name, value in found if name == "feature-gates"] == ["A=true", "B=false"]


def test_what_judges_writes_is_disabled():
    text = """
      --disable-admission-plugins strings            admission plugins that should be disabled although they are in the default enabled plugins list \
(NamespaceLifecycle, ServiceAccount,
                 ResourceQuota). Comma-delimited list of admission plugins: AlwaysAdmit (x).
      --enable-admission-plugins strings             in addition to default enabled ones (NamespaceLifecycle).
"""
    found = snapshot_server.admission_plugins(text)
    assert found == "NamespaceLifecycle,ServiceAccount,ResourceQuota" and snapshot_server.admission_plugins("") == ""
    argv = snapshot_server.arguments(None, "/run/x", "https://127.0.0.1:2379", 6443, admission=found)
    assert "--disable-admission-plugins=" + found in argv and not [word for word in snapshot_server.arguments(None, "/x", "", 1) if "admission" in word]


def test_the_policy_is_read_only():
    policy = json.loads(snapshot_server.policy())
    assert policy["spec"]["readonly"] is True and policy["spec"]["user"] == snapshot_server.READER and "group" not in policy["spec"]


@pytest.fixture
def mounted(tmp_path):
    """A manifest with an EncryptionConfiguration in a directory that has another name in the Pod."""
    text = MANIFEST.replace("    - --etcd-cafile", "    - --encryption-provider-config=/enc/enc.yaml\n    - --etcd-cafile", 1)
    text = text.replace("    volumeMounts:\n", "    volumeMounts:\n    - mountPath: /enc\n      name: enc\n    - mountPath: /kms\n      name: kms\n", 1)
    for name, path in (("kms", "/run/plugin"), ("enc", tmp_path)):
        text = text.replace("  volumes:\n", "  volumes:\n  - hostPath:\n      path: %s\n    name: %s\n" % (path, name), 1)
    return StaticPod("/x", text)


def test_the_encryption_configuration_is_found_on_the_host(mounted, tmp_path):
    path = tmp_path / "enc.yaml"
    path.write_text("resources: []\n")
    assert snapshot_server.encryption_configuration(mounted) == (str(path), None)
    assert snapshot_server.encryption_configuration(manifest()) == (None, None)
    assert snapshot_server.encryption_configuration(None) == (None, None)


def test_the_socket_of_a_kms_plugin_is_that_of_the_host(mounted, tmp_path):
    path = tmp_path / "enc.yaml"
    path.write_text("- kms:\n    endpoint: unix:///kms/one.sock\n- kms: {endpoint: 'unix:///elsewhere/two.sock'}\n")
    assert snapshot_server.encryption_configuration(mounted) == (
        str(path),
        "- kms:\n    endpoint: unix:///run/plugin/one.sock\n- kms: {endpoint: 'unix:///elsewhere/two.sock'}\n",
    )


def configuration(*endpoints):
    return "/x", "".join("- kms:\n    endpoint: %s\n" % endpoint for endpoint in endpoints)


def test_a_kms_plugin_that_does_not_answer_is_named(tmp_path):
    address = "%s/one.sock" % tmp_path
    with pytest.raises(Refused, match=r"^the KMS plugin at %s does not answer \(No such file or directory\); start it, or give an Enc" % re.escape(address)):
        snapshot_server.check_kms(configuration("unix://" + address))
    with socket.socket(socket.AF_UNIX) as plugin:
        plugin.bind(address)
        with pytest.raises(Refused, match=r"does not answer \(Connection refused\)"):
            snapshot_server.check_kms(configuration("unix://" + address))
        plugin.listen()
        # what is commented out counts for nothing
        snapshot_server.check_kms(configuration("'unix://%s'" % address, "unix:/%s # unix:///other" % address, "x\n#   endpoint: unix:///nowhere"))
        with pytest.raises(Refused, match="the KMS plugin at /nowhere does not"):
            snapshot_server.check_kms(configuration("unix://" + address, "unix:///nowhere"))


def test_an_abstract_socket_is_of_another_network():
    with pytest.raises(Refused, match="the KMS plugin at /@kms cannot be reached, because an abstract socket belongs to the network of the host"):
        snapshot_server.check_kms(configuration("unix:///@kms"))


def test_without_a_kms_nothing_is_asked(tmp_path):
    snapshot_server.check_kms((None, None))
    path = tmp_path / "enc.yaml"
    path.write_text("resources: []\n")
    snapshot_server.check_kms((str(path), None))
    path.write_text("- kms: {endpoint: 'unix:///nowhere'}\n")
    with pytest.raises(Refused, match="the KMS plugin at /nowhere does not answer"):
        snapshot_server.check_kms((str(path), None))


def test_an_encryption_configuration_that_is_not_there_is_refused(mounted):
    with pytest.raises(Refused, match=r"enc\.yaml cannot be read on this host: No such file"):
        snapshot_server.encryption_configuration(mounted)
    with pytest.raises(Refused, match="/nowhere cannot be read"):
        snapshot_server.encryption_configuration(None, "/nowhere")
