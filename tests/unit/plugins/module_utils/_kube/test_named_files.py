# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a host that the flags of a control plane name."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.named_files import named_files, named_paths
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod

APISERVER = """
kind: Pod
metadata:
  labels: {component: kube-apiserver}
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --audit-policy-file=/etc/audit/policy.yaml
    - --audit-log-path=/etc/audit/audit.log
    - --tls-sni-cert-key=/pki/sni.crt,/pki/sni.key:*.example.com
    - --service-cluster-ip-range=10.96.0.0/16
    - --etcd-servers=https://127.0.0.1:2379
    - --authentication-token-webhook-config-file=/etc/audit/webhook.yaml
    - --authorization-config=/inside/of/the/image
    volumeMounts:
    - {mountPath: /etc/audit, name: audit}
    - {mountPath: /pki, name: pki}
  volumes:
  - hostPath: {path: %(there)s/audit}
    name: audit
  - hostPath: {path: %(there)s/pki}
    name: pki
"""


def pod(there):
    text = (APISERVER % {"there": there}).replace("{component: kube-apiserver}", "\n      component: kube-apiserver")
    text = text.replace("- {mountPath: /etc/audit, name: audit}", "- mountPath: /etc/audit\n      name: audit")
    text = text.replace("- {mountPath: /pki, name: pki}", "- mountPath: /pki\n      name: pki")
    text = text.replace("hostPath: {path: %s/audit}" % there, "hostPath:\n      path: %s/audit" % there)
    return StaticPod("", text.replace("hostPath: {path: %s/pki}" % there, "hostPath:\n      path: %s/pki" % there))


def test_paths_of_flags_lead_to_the_host_and_logs_do_not(tmp_path):
    assert named_paths(pod("/srv")) == {
        "/etc/audit/policy.yaml": "/srv/audit/policy.yaml",
        "/etc/audit/webhook.yaml": "/srv/audit/webhook.yaml",
        "/pki/sni.crt": "/srv/pki/sni.crt",
        "/pki/sni.key": "/srv/pki/sni.key",
    }


def test_files_and_what_they_name_in_turn(tmp_path):
    there = str(tmp_path)
    for name in ("audit/policy.yaml", "audit/audit.log", "audit/webhook-ca.crt", "pki/sni.key", "pki/sni.crt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (tmp_path / "audit/webhook.yaml").write_text("clusters:\n- cluster: {certificate-authority: /etc/audit/webhook-ca.crt, server: https://a/b/c}\n")
    pods = {"kube-apiserver": pod(there)}
    expected = ["audit/policy.yaml", "audit/webhook-ca.crt", "audit/webhook.yaml", "pki/sni.crt", "pki/sni.key"]
    assert named_files(pods) == ["%s/%s" % (there, name) for name in expected]
    assert named_files(pods, [there + "/pki", there + "/audit/policy.yaml"]) == [there + "/audit/webhook-ca.crt", there + "/audit/webhook.yaml"]


def test_what_is_large_or_missing_or_no_file_is_left_out(tmp_path):
    (tmp_path / "audit/policy.yaml").mkdir(parents=True)
    (tmp_path / "audit/webhook.yaml").write_bytes(b"x" * (1024 * 1024 + 1))
    assert named_files({"kube-apiserver": pod(str(tmp_path))}) == []
