# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking one API server of a kubeadm control plane, from its own node, with what kubeadm put there.  Private to this collection."""

from __future__ import annotations

import http.client
import json
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._tls import tls_context


class KubeError(Exception):
    """The API server did not give what was asked; `status` is the HTTP code, 0 when it did not answer at all."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


def url_of(host, port):
    """An address as a URL."""
    return "https://%s:%d" % ("[%s]" % host if ":" in host else host, port)


class KubeApi:
    """The API server of this very node, not the load balancer in front of all of them.

    It is asked with the client certificate that kubeadm makes for the API server's own calls to kubelets
    (/etc/kubernetes/pki/apiserver-kubelet-client.crt), which every kubeadm release binds to cluster-admin; so neither
    kubectl nor an admin.conf is needed on the node.
    """

    def __init__(self, pod, timeout=5):
        """pod: the StaticPod of kube-apiserver.  timeout: seconds for one request."""
        flags = pod.flags
        self.host = flags.get("advertise-address") or "127.0.0.1"
        self.port = int(flags.get("secure-port") or 6443)
        self.timeout = timeout
        cert = flags.get("kubelet-client-certificate", "/etc/kubernetes/pki/apiserver-kubelet-client.crt")
        key = flags.get("kubelet-client-key", "/etc/kubernetes/pki/apiserver-kubelet-client.key")
        pki = os.path.dirname(flags.get("client-ca-file", "/etc/kubernetes/pki/ca.crt"))
        try:
            self.context = tls_context(os.path.join(pki, "ca.crt"), cert=cert, key=key)
        except OSError as exc:
            raise KubeError("the certificates for asking the API server (%s, %s) cannot be used: %s" % (pki, cert, exc)) from exc

    @property
    def url(self):
        return url_of(self.host, self.port)

    def request(self, method, path, body=None, content_type="application/json"):
        """(HTTP code, body as text); raises KubeError when there is no answer."""
        connection = http.client.HTTPSConnection(self.host, self.port, context=self.context, timeout=self.timeout)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as exc:
            raise KubeError("the API server at %s does not answer: %s" % (self.url, exc or type(exc).__name__)) from exc
        finally:
            connection.close()

    def get(self, path):
        """The JSON at a path."""
        status, text = self.request("GET", path)
        if status != 200:
            raise KubeError("the API server at %s answers %d to GET %s" % (self.url, status, path), status)
        return json.loads(text)

    def items(self, path, page=500):
        """Every object of a list, a page at a time, so that neither side holds them all."""
        token = ""
        while True:
            answer = self.get("%s?limit=%d%s" % (path, page, "&continue=" + token if token else ""))
            yield from answer.get("items") or []
            token = answer.get("metadata", {}).get("continue") or ""
            if not token:
                return

    def ready(self):
        """Whether /readyz says ok; never raises."""
        try:
            return self.request("GET", "/readyz")[0] == 200
        except KubeError:
            return False
