# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a client of etcd or of the API server speaks TLS.  Private to this collection."""

from __future__ import annotations

import ssl


def tls_context(cafile=None, cadata=None, cert=None, key=None):
    """A context that trusts this CA and nothing else; raises OSError (ssl.SSLError is one) for files that cannot be used.

    Not ssl.create_default_context(): from Python 3.13 on that refuses CAs without key identifiers, as kubeadm made them up to 1.18 and others do still,
    which Kubernetes and etcd themselves accept (https://docs.python.org/3/library/ssl.html#ssl.create_default_context).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=cafile, cadata=cadata)
    if cert:
        context.load_cert_chain(cert, key)
    return context
