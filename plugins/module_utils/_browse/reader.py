# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the API server that shows a snapshot says of itself and of the snapshot.  Private to this collection."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import urllib.parse

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context

_CHECK = re.compile(r"^\[-\]([^ ]+) ", re.MULTILINE)
# Only names: the values of Secrets do not come over the wire.
_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_OBJECT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class ApiError(Exception):
    """What the API server answers instead: one sentence."""


class Reader:
    """Asks an API server.  context: as whom, as an SSLContext."""

    def __init__(self, context, port, host="127.0.0.1"):
        self._context, self._port, self._host = context, port, host

    @classmethod
    def of(cls, directory, port):
        """As the reader.  directory: has its certificate.  port: on loopback."""
        cert, key = os.path.join(directory, "reader.crt"), os.path.join(directory, "reader.key")
        return cls(tls_context(cafile=os.path.join(directory, "server.crt"), cert=cert, key=key), port)

    def ask(self, path, timeout=5, accept="application/json"):
        """(HTTP code, text); raises OSError while nothing answers."""
        connection = http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Accept": accept})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except http.client.HTTPException as exc:
            raise ConnectionError(str(exc) or type(exc).__name__) from exc
        finally:
            connection.close()

    def waits_for(self):
        """Names of the readiness checks that fail; None while it does not answer."""
        try:
            status, text = self.ask("/readyz?verbose", accept="text/plain")
        except OSError:
            return None
        if status == 200:
            return set()
        # before it is ready it may refuse to say why
        return set(_CHECK.findall(text)) or {"ready"}

    def get(self, path, metadata=False):
        """The JSON at a path, None where there is none.  metadata: of an object that alone."""
        status, text = self.ask(path, 60, _OBJECT if metadata else "application/json")
        return self._parsed(path, status, text)

    def _parsed(self, path, status, text):
        if status == 404:
            return None
        if status != 200:
            raise ApiError(_message(text) or "the API server answers %d to %s" % (status, path))
        return json.loads(text)

    def version(self):
        """Its version, such as 1.37.2."""
        return str((self.get("/version") or {}).get("gitVersion", "")).lstrip("v")

    def cluster_version(self):
        """The version of the snapshot's cluster as kubeadm noted it, "" where it did not, or where that cannot be decrypted."""
        found = {}
        with contextlib.suppress(ApiError):
            found = self.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config") or {}
        match = re.search(r"^kubernetesVersion:\s*[\"']?v?([0-9.]+)", str((found.get("data") or {}).get("ClusterConfiguration", "")), re.MULTILINE)
        return match.group(1) if match else ""

    def names(self, path, page=500):
        """(namespace, name) of each object of a list.  The API server decodes all of it for that."""
        token = ""
        while True:
            page_path = "%s?limit=%d&continue=%s" % (path, page, urllib.parse.quote(token))
            found = self._parsed(path, *self.ask(page_path, 60, _LIST)) or {}
            for item in found.get("items") or []:
                yield item["metadata"].get("namespace") or "", item["metadata"]["name"]
            token = (found.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    def unreadable(self, path):
        """Why not all objects of a list can be read: one sentence of the API server, or None."""
        try:
            for dummy in self.names(path):
                pass
        except ApiError as exc:
            return str(exc)
        return None


def _message(text):
    try:
        return str(json.loads(text).get("message") or "")
    except (ValueError, AttributeError):
        return ""
