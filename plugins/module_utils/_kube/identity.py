# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client certificates of a control plane node that may ask its API server.  Private to this collection.

They are tried in this order, and the first one that the API server does not refuse is used:

    file                          organization (kubeadm 1.34.4 to 1.37.2: certs/certlist.go and kubeconfig/kubeconfig.go)
    super-admin.conf              system:masters; since 1.29, only where `kubeadm init` ran
    admin.conf                    system:masters up to 1.28, then kubeadm:cluster-admins
    apiserver-kubelet-client.crt  system:masters up to 1.28, kubeadm:cluster-admins in 1.29 to 1.35, none from 1.36 on
    made for one hour             system:masters; where the key of the cluster's CA and openssl are on the node

A certificate that was renewed keeps what it had, so clusters that were upgraded differ from new ones: the name of a file tells nothing.
The API server lets system:masters do everything, whatever etcd holds.  What kubeadm:cluster-admins may do is an object in etcd
(ClusterRoleBinding kubeadm:cluster-admins), which a snapshot from before 1.29 does not have.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.certificates import CertificateError, client_pair, subject
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool

KUBERNETES_DIR = "/etc/kubernetes"
MASTERS = "system:masters"
MADE_NAME = "k8s-dr-etcd"
_MADE_SECONDS = 3600
# Clocks of several control planes differ a little.
_MADE_BEFORE = 300


class IdentityError(Exception):
    """Why a certificate cannot be used, to follow its name."""


class Identity:
    """One client certificate: `name` for people, `user` and `groups` as Kubernetes reads them from its subject."""

    def __init__(self, name):
        self.name = name
        self.user, self.groups = "", []
        self.problem = ""
        self._contexts = {}

    @property
    def masters(self):
        """Whether the API server lets it do everything, whatever etcd holds.  Known once its context was made."""
        return MASTERS in self.groups

    def context(self, trust):
        """How to speak TLS as this one, None (and `problem`) when it cannot be used.  Made once.

        trust: tls_context() with whom it trusts, to be called with the certificate.
        """
        if trust not in self._contexts and not self.problem:
            try:
                self._contexts[trust] = self._load(trust)
            except (IdentityError, CertificateError, ToolError) as exc:
                self.problem = str(exc)
            except FileNotFoundError:
                self.problem = "does not exist"
            except (OSError, ValueError) as exc:
                self.problem = "cannot be used: %s" % exc
        return self._contexts.get(trust)

    def _load(self, trust):
        raise NotImplementedError

    def _named(self, pem):
        self.user, self.groups = subject(pem)


class CertificateFiles(Identity):
    """A certificate and its key in files of their own."""

    def __init__(self, cert, key):
        super().__init__(cert)
        self.key = key

    def _load(self, trust):
        self._named(_read(self.name))
        return trust(cert=self.name, key=self.key)


class Kubeconfig(Identity):
    """The client certificate of a kubeconfig.  Which server that names does not matter: the node's own is asked."""

    def _load(self, trust):
        cert, key = client_pair(_read(self.name).decode("utf-8", "replace"))
        if not cert or not key:
            raise IdentityError("holds no client certificate")
        with _private_directory() as directory:
            paths = []
            for what, value in (("cert", cert), ("key", key)):
                path = value if isinstance(value, str) else os.path.join(directory, what)
                if not isinstance(value, str):
                    _write(path, value)
                paths.append(os.path.join(os.path.dirname(self.name), path))
            self._named(_read(paths[0]))
            return trust(cert=paths[0], key=paths[1])


class MadeForAnHour(Identity):
    """A certificate that the cluster's CA signs now.  No file of it is left when it is in use."""

    def __init__(self, ca_cert, ca_key):
        super().__init__("a certificate made with %s" % ca_key)
        self.ca_cert, self.ca_key = ca_cert, ca_key

    def _load(self, trust):
        if not os.path.exists(self.ca_key):
            raise IdentityError("cannot be made: %s is not on this node" % self.ca_key)
        openssl = shutil.which("openssl", path=os.environ.get("PATH", "") + ":/usr/bin:/bin")
        if openssl is None:
            raise IdentityError("cannot be made: there is no openssl on this node")
        with _private_directory() as directory:
            cert, key = os.path.join(directory, "client.crt"), os.path.join(directory, "client.key")
            make_certificate(openssl, directory, self.ca_cert, self.ca_key, cert, key)
            self._named(_read(cert))
            return trust(cert=cert, key=key)


# `openssl ca`, since `openssl x509` counts validity in days.
_CONFIG = """[ca]
default_ca = here
[here]
database = {0}/index
serial = {0}/serial
new_certs_dir = {0}
default_md = sha256
policy = named
[named]
organizationName = supplied
commonName = supplied
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
[req]
distinguished_name = nothing
[nothing]
"""


def make_certificate(openssl, directory, ca_cert, ca_key, cert, key):
    """Have openssl make a key and a client certificate of system:masters, valid for an hour."""
    config = os.path.join(directory, "config")
    for name, text in (("config", _CONFIG.format(directory)), ("index", ""), ("serial", "01%s\n" % secrets.token_hex(15))):
        _write(os.path.join(directory, name), text.encode())
    request = os.path.join(directory, "request")
    now = time.time()
    start, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(moment)) for moment in (now - _MADE_BEFORE, now + _MADE_SECONDS))
    for argv in (
        ["req", "-new", "-config", config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", request]
        + ["-subj", "/O=%s/CN=%s" % (MASTERS, MADE_NAME)],
        ["ca", "-batch", "-notext", "-config", config, "-extensions", "client", "-startdate", start, "-enddate", end, "-cert", ca_cert, "-keyfile", ca_key]
        + ["-in", request, "-out", cert],
    ):
        result = run_tool([openssl] + argv, 30, cwd=directory)
        if result.rc != 0:
            raise IdentityError("cannot be made: `openssl %s` %s: %s" % (argv[0], result.how(), result.last_words()))


@contextlib.contextmanager
def _private_directory():
    """A directory for keys, in memory where there is such a file system, that is gone at the end."""
    memory = next((path for path in ("/run", "/dev/shm") if os.path.isdir(path) and os.access(path, os.W_OK)), None)  # noqa: S108 (mkdtemp makes it)
    directory = tempfile.mkdtemp(prefix="k8s-dr-", dir=memory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _write(path, data):
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)


def _read(path):
    with open(path, "rb") as stream:
        return stream.read(4 * 1024 * 1024)


def identities(apiserver, kubernetes_dir=KUBERNETES_DIR):
    """Those of this node in their order.  apiserver: the StaticPod of its API server."""
    pki = os.path.dirname(apiserver.file("client-ca-file", os.path.join(kubernetes_dir, "pki", "ca.crt")))
    cert = apiserver.file("kubelet-client-certificate", os.path.join(pki, "apiserver-kubelet-client.crt"))
    key = apiserver.file("kubelet-client-key", os.path.join(pki, "apiserver-kubelet-client.key"))
    return [
        Kubeconfig(os.path.join(kubernetes_dir, "super-admin.conf")),
        Kubeconfig(os.path.join(kubernetes_dir, "admin.conf")),
        CertificateFiles(cert, key),
        MadeForAnHour(os.path.join(pki, "ca.crt"), os.path.join(pki, "ca.key")),
    ]
