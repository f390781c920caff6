# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking one API server of a kubeadm control plane, from its own node, with what kubeadm put there.  Private to this collection."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import ssl
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.certificates import CertificateError, authority, ders
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.identity import KUBERNETES_DIR, identities
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context

# An API server that has just started refuses whom it will let in a moment later, until it has read its roles.
REFUSAL_IS_FINAL = 15.0


class KubeError(Exception):
    """The API server did not give what was asked; `status` is the HTTP code, 0 when it did not answer at all."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


class Refused(KubeError):
    """It answers, and says 401 or 403 to every identity that this node has: nothing is known of the cluster, good or bad."""


def url_of(host, port):
    """An address as a URL."""
    return "https://%s:%d" % ("[%s]" % host if ":" in host else host, port)


class KubeApi:
    """The API server of this very node, not the load balancer in front of all of them.

    It is asked with what kubeadm put on the node (see _kube/identity.py): kubectl is not needed.  One identity is used until it is refused, then the next one,
    so that what a restore takes away from the one (a ClusterRoleBinding is an object in etcd) does not end the questions.
    """

    def __init__(self, pod, timeout=5, kubernetes_dir=KUBERNETES_DIR):
        """pod: the StaticPod of kube-apiserver.  timeout: seconds for one request."""
        flags = pod.flags
        self.host = flags.get("advertise-address") or "127.0.0.1"
        self.port = int(flags.get("secure-port") or 6443)
        self.timeout = timeout
        self.identities = identities(pod, kubernetes_dir)
        self.admin, self.kubelets = self.identities[1:3]
        self.identity = self.identities[0]
        self._refused_since = None
        self._trusts, self._unread = [], []
        # all of them in PEM, for who is to watch it from elsewhere
        self.certificates = ""
        for what, found, pinned in (_served(pod), _signed(pod, kubernetes_dir)):
            try:
                pem = "".join(ssl.DER_cert_to_PEM_cert(der) for der in found())
                trust = functools.partial(tls_context, cadata=pem, pinned=pinned)
                trust()
                self._trusts.append((trust, what))
                self.certificates += pem
            except (OSError, CertificateError) as exc:
                self._unread.append("%s cannot be read: %s" % (what, exc))

    @property
    def trust(self):
        """Whom to believe, for Identity.context(); what proved the server last comes first."""
        if not self._trusts:
            raise KubeError(
                "the API server at %s was asked nothing, since nothing here tells it from another server: %s" % (self.url, "; ".join(self._unread))
            )
        return self._trusts[0][0]

    @property
    def url(self):
        return url_of(self.host, self.port)

    def request(self, method, path, body=None, content_type="application/json"):
        """(HTTP code, body as text); raises KubeError when there is no answer, and Refused when no identity gets another one than 401 or 403."""
        refused = []
        for identity in [self.identity] + [each for each in self.identities if each is not self.identity]:
            if identity.context(self.trust) is None:
                continue
            status, text = self._ask(identity, method, path, body, content_type)
            if status not in (401, 403):
                self.identity, self._refused_since = identity, None
                return status, text
            refused.append((identity, status, text))
        if not refused:
            # readiness is public
            status, text = self._ask(None, method, path, body, content_type)
            if status not in (401, 403):
                return status, text
        self._refused_since = self._refused_since or time.monotonic()
        raise Refused(self._refusal(method, path, refused), refused[-1][1] if refused else status)

    def _ask(self, identity, method, path, body, content_type):
        """(HTTP code, body as text), with no certificate where there is no identity.  An unidentified server gets no certificate and no request."""
        said = []
        for trust, what in list(self._trusts):
            context = identity.context(trust) if identity else trust()
            if context is None:
                continue
            connection = http.client.HTTPSConnection(self.host, self.port, context=context, timeout=self.timeout)
            try:
                connection.request(method, path, body, {"Content-Type": content_type} if body else {})
                self._trusts.sort(key=lambda each: each[0] is not trust)
                answer = connection.getresponse()
                return answer.status, answer.read().decode("utf-8", "replace")
            except ssl.SSLCertVerificationError as exc:
                said.append("it is not %s (%s)" % (what, exc.verify_message))
            except (OSError, http.client.HTTPException) as exc:
                raise KubeError("the API server at %s does not answer: %s" % (self.url, exc or type(exc).__name__)) from exc
            finally:
                connection.close()
        # dynamic_serving_content.go of apiserver 0.34.4 to 0.37.2: by inotify, and every minute
        raise KubeError(
            "what answers at %s has a certificate that does not prove it to be this node's API server, so it was asked nothing: %s. The API server takes up "
            "a renewed file within a minute; if this lasts, see what listens there, and have its --tls-cert-file name what it serves"
            % (self.url, "; ".join(said + self._unread))
        )

    def _refusal(self, method, path, refused):
        """One sentence: who was refused what, who could not ask, and the remedy."""
        said = ["%s (%s)" % (identity.name, "%d: %s" % (status, _message(text)) if _message(text) else status) for identity, status, text in refused]
        said += ["%s (%s)" % (identity.name, identity.problem) for identity in self.identities if identity.problem]
        return (
            "the API server at %s answers, but lets no client certificate of this node %s %s: %s. Put a kubeconfig of an administrator there as "
            "%s; where the key of the cluster's CA is, `kubeadm init phase kubeconfig super-admin` makes it"
            % (self.url, method, path.partition("?")[0], "; ".join(said), self.identities[0].name)
        )

    def refused_for(self):
        """Seconds since when every identity is refused; 0 when one is not."""
        return time.monotonic() - self._refused_since if self._refused_since else 0

    def lasting(self):
        """The identity that the API server takes for an administrator whatever etcd holds; None when this node has none that it accepts."""
        for identity in self.identities:
            if identity.context(self.trust) and identity.masters and self._ask(identity, "GET", "/api/v1/namespaces?limit=1", None, "")[0] == 200:
                return identity
        return None

    def may(self, user, groups, verb, resource, subresource=""):
        """Whether the cluster lets this user do that; None when the API server does not say."""
        attributes = {"verb": verb, "resource": resource, "subresource": subresource}
        if resource == "*":
            attributes["group"] = "*"
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        }
        status, text = self.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", json.dumps(body))
        return bool(json.loads(text).get("status", {}).get("allowed")) if status in (200, 201) else None

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
        """Whether /readyz says ok; never raises.  One that goes on refusing everybody decides who may ask: it serves."""
        try:
            return self.request("GET", "/readyz")[0] == 200
        except Refused:
            return self.refused_for() > REFUSAL_IS_FINAL
        except KubeError:
            return False


def _served(pod):
    """(what, how to read them as DER, pinned) of the certificates that this API server serves, by its flags.

    Whoever signed them, and whatever they are called: a serving certificate need not name 127.0.0.1, nor come from the CA that signs clients.
    Where the address asked is one of them, a certificate for a name is served before --tls-cert-file (apiserver 0.34.4 to 0.37.2:
    dynamiccertificates/tlsconfig.go, GetConfigForClient).
    """
    # without the flag it makes one itself (apiserver: options/serving.go; 1.34.4 to 1.37.2: pkg/kubeapiserver/options/serving.go)
    paths = [pod.flags.get("tls-cert-file") or os.path.join(pod.flags.get("cert-dir") or "/var/run/kubernetes", "apiserver.crt")]
    paths += [value.partition(":")[0].partition(",")[0].strip() for value in pod.values("tls-sni-cert-key")]
    paths = [pod.host_path(path) or path for path in paths]
    return "the certificate in %s" % " or ".join(paths), lambda: [ders(_read(path))[0] for path in paths], True


def _signed(pod, kubernetes_dir):
    """(what, how to read them as DER, pinned) of the CAs that may have signed it for this very address: for a certificate that was renewed on the disk only."""
    paths = [os.path.join(os.path.dirname(pod.file("client-ca-file", os.path.join(kubernetes_dir, "pki", "ca.crt"))), "ca.crt")]
    # what a kubeconfig believes need not be the CA that signs clients
    paths += [os.path.join(kubernetes_dir, name) for name in ("super-admin.conf", "admin.conf", "controller-manager.conf")]

    def read():
        found, problems = {}, []
        for path in paths:
            try:
                pem = _read(path)
                if path.endswith(".conf"):
                    pem = authority(pem.decode("utf-8", "replace")) or b""
                    pem = pem if isinstance(pem, bytes) else _read(os.path.join(kubernetes_dir, pem))
                found.update((der, None) for der in ders(pem))
            except (OSError, CertificateError) as exc:
                problems.append(str(exc))
        if not found:
            raise CertificateError(problems[0])
        return list(found)

    return "one that a CA in %s signed for this address" % " or ".join(paths), read, False


def _read(path):
    with open(path, "rb") as stream:
        return stream.read(4 * 1024 * 1024)


def leader_lease(pod):
    """"namespace/name" of the lease by which this controller elects its leader; "" where it elects none.

    A flag says so, else its configuration file, else it is named after the program (kube-scheduler's options.go, ApplyLeaderElectionTo, of 1.34.4 and
    1.37.2; kube-controller-manager has flags alone).
    """
    text = ""
    with contextlib.suppress(OSError), open(pod.file("config"), encoding="utf-8", errors="replace") as stream:
        text = stream.read()

    def setting(flag, field, default):
        found = re.search(r"^\s+[\"']?%s[\"']?:\s*[\"']?([^\s\"',#]+)" % field, text, re.MULTILINE)
        return pod.flags.get(flag) or (found.group(1) if found else default)

    # as Go reads a bool
    if setting("leader-elect", "leaderElect", "true").lower() in ("false", "f", "0"):
        return ""
    return "%s/%s" % (
        setting("leader-elect-resource-namespace", "resourceNamespace", "kube-system"),
        setting("leader-elect-resource-name", "resourceName", pod.component),
    )


def lease_path(lease):
    """Where the API server has the lease "namespace/name"."""
    return "/apis/coordination.k8s.io/v1/namespaces/%s/leases/%s" % tuple(lease.split("/"))


def release_leaders(api, leases, revision):
    """Delete those of these leases ("namespace/name") that were not renewed since the snapshot, and return them.

    Whoever they name was stopped with the old data, and who is to follow would wait until they expire: 15 s from when it first sees them (client-go,
    tools/leaderelection/leaderelection.go, of 1.34.4 and 1.37.2).  revision: that of the snapshot.  Nothing depends on it, so a refusal is no error.
    """
    released = []
    for name in leases:
        path = lease_path(name)
        try:
            lease = api.get(path)["metadata"]
            if int(lease["resourceVersion"]) > revision:
                continue
            body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {field: lease[field] for field in ("uid", "resourceVersion")}}
            if api.request("DELETE", path, json.dumps(body))[0] == 200:
                released.append(name)
        except (KubeError, KeyError, ValueError):
            continue
    return released


def _message(text):
    """What a Status of the API server says."""
    try:
        return str(json.loads(text).get("message") or "")
    except (ValueError, AttributeError):
        return ""
