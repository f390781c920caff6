# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many requests to one API server, as one identity and over one connection.  Private to this collection.

KubeApi tries every identity of the node when one is refused; here a refusal is an answer, since quotas, webhooks and namespaces that are being deleted
refuse with 403 as well.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from functools import partial
from urllib.parse import quote, urlsplit

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, KubeError, url_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.block_yaml import parse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.certificates import authority
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.identity import Kubeconfig
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context

# A webhook may take 30 s.
TIMEOUT = 40
_BUSY = (429, 503)


class Session:
    """Requests to the API server at an address; a context, which closes the connection."""

    def __init__(self, host, port, context, name, timeout=TIMEOUT):
        """context: as whom, as an SSLContext.  name: what the server is called in messages."""
        self.host, self.port, self.name = host, port, name
        self._connect = partial(http.client.HTTPSConnection, host, port, context=context, timeout=timeout)
        self._connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self._close()

    def _close(self):
        if self._connection:
            self._connection.close()
        self._connection = None

    def request(self, method, path, body=None, content_type="application/json", patience=10):
        """(HTTP code, the JSON of the answer); KubeError when there is none.

        A server that is busy, or that closed the connection meanwhile, is asked again for `patience` seconds: what is sent here may be sent twice.
        """
        end = time.monotonic() + patience
        while True:
            fresh = self._connection is None
            try:
                status, answer = self._ask(method, path, body, content_type)
                if status not in _BUSY or time.monotonic() > end:
                    return status, answer
            except (OSError, http.client.HTTPException) as exc:
                self._close()
                if fresh and time.monotonic() > end:
                    raise KubeError("%s does not answer: %s" % (self.name, exc or type(exc).__name__)) from exc
                if not fresh:
                    continue
            time.sleep(0.5)

    def _ask(self, method, path, body, content_type):
        if self._connection is None:
            self._connection = self._connect()
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        self._connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        answer = self._connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        if answer.will_close:
            self._close()
        try:
            found = json.loads(text)
        except ValueError:
            found = {"message": text.strip()[:300]}
        return answer.status, found if isinstance(found, dict) else {"message": str(found)[:300]}

    def get(self, path, absent=None, patience=10):
        """The JSON at a path; `absent` where there is nothing."""
        status, answer = self.request("GET", path, patience=patience)
        if status == 404:
            return absent
        if status != 200:
            raise KubeError("%s answers %d to GET %s: %s" % (self.name, status, path, answer.get("message", "")), status)
        return answer

    def items(self, path, page=500, **query):
        """Every object of a list, a page at a time, so that neither side holds them all.  query: as in the address, such as labelSelector."""
        token = ""
        while True:
            words = dict(query, limit=page, **({"continue": token} if token else {}))
            answer = self.get(path + "?" + "&".join("%s=%s" % (name, quote(str(value), safe="")) for name, value in sorted(words.items())), {})
            for item in answer.get("items") or []:
                item.setdefault("apiVersion", answer.get("apiVersion", ""))
                item.setdefault("kind", (answer.get("kind") or "").rpartition("List")[0])
                yield item
            token = answer.get("metadata", {}).get("continue") or ""
            if not token:
                return


def session_of_node(pod, timeout=TIMEOUT):
    """A Session with this node's own API server, as the first of its identities that may read namespaces.  pod: the StaticPod of kube-apiserver."""
    api = KubeApi(pod)
    api.request("GET", "/api/v1/namespaces?limit=1")
    return Session(api.host, api.port, api.identity.context(api.trust), "the API server at %s" % api.url, timeout)


def session_of_manifests(manifests_dir):
    """session_of_node(), by the static Pods in this directory; Refused where there is no API server."""
    try:
        pods = read_static_pods(manifests_dir)
    except (OSError, ValueError) as exc:
        raise Refused("the static Pods of this host cannot be read: %s" % exc) from exc
    if "kube-apiserver" not in pods:
        raise Refused("there is no manifest of kube-apiserver in %s; run this on a control plane node" % manifests_dir)
    return session_of_node(pods["kube-apiserver"])


def session_of_kubeconfig(path, timeout=TIMEOUT):
    """A Session with the server of a kubeconfig that has a client certificate; raises KubeError for one that cannot be used."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(4 * 1024 * 1024)
    except OSError as exc:
        raise KubeError("the kubeconfig %s cannot be read: %s" % (path, exc.strerror or exc)) from exc
    address = urlsplit(_server(text))
    if address.scheme != "https" or not address.hostname:
        raise KubeError("the kubeconfig %s names no server at https://" % path)
    identity = Kubeconfig(path)
    ca = authority(text)
    try:
        trust = partial(tls_context, **({"cadata": ca.decode("ascii", "replace")} if isinstance(ca, bytes) else {"cafile": _beside(path, ca)}))
        trust()
    except (OSError, ValueError) as exc:
        raise KubeError("the CA of the kubeconfig %s cannot be used: %s" % (path, exc)) from exc
    context = identity.context(trust)
    if context is None:
        raise KubeError("the kubeconfig %s %s" % (path, identity.problem))
    port = address.port or 443
    return Session(address.hostname, port, context, "the API server at %s" % url_of(address.hostname, port), timeout)


def _server(text):
    """The server of the first cluster."""
    found = parse(text)
    clusters = found.get("clusters") if isinstance(found, dict) else None
    first = clusters[0] if isinstance(clusters, list) and clusters and isinstance(clusters[0], dict) else {}
    return str((first.get("cluster") or {}).get("server") or "") if isinstance(first.get("cluster"), dict) else ""


def _beside(path, name):
    return os.path.join(os.path.dirname(path), name or "")
