# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a client of etcd or of the API server speaks TLS.  Private to this collection."""

from __future__ import annotations

import ssl

# ssl.VERIFY_X509_PARTIAL_CHAIN, which Python names since 3.10 (openssl/x509_vfy.h)
_PARTIAL_CHAIN = 0x80000


def tls_context(cafile=None, cadata=None, cert=None, key=None, pinned=False):
    """A context that trusts this CA and nothing else; raises OSError (ssl.SSLError is one) for files that cannot be used.

    pinned: they are the servers' own certificates. A server has to hold the key of one of them, whoever signed it and whatever it is called.

    Not ssl.create_default_context(): from Python 3.13 on that refuses CAs without key identifiers, as kubeadm made them up to 1.18 and others do still,
    which Kubernetes and etcd themselves accept (https://docs.python.org/3/library/ssl.html#ssl.create_default_context).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=cafile, cadata=cadata)
    if pinned:
        context.check_hostname = False
        context.verify_flags |= _PARTIAL_CHAIN
    if cert:
        context.load_cert_chain(cert, key)
    return context
