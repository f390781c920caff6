# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a member of etcd serves, asked over its own ports without etcd's client.  Private to this collection."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit


def listens(url, timeout=1):
    """Whether a process accepts connections at the address in a URL.  Never raises."""
    try:
        parts = urlsplit(url)
        socket.create_connection((parts.hostname, parts.port), timeout).close()
        return True
    except (OSError, ValueError):
        return False


def urls_for_health(flags):
    """The URLs without a path at which this etcd says /health, the surest first; [] when it says it nowhere.

    flags: {flag: value} of its command line.

    With --listen-client-http-urls its client URLs speak gRPC only; --listen-metrics-urls has it as well, over TLS where it is https (serveClients and
    serveMetrics in server/embed/etcd.go of etcd 3.5.35, 3.6.16 and 3.7.3).
    """
    named = [flags.get(name) for name in ("listen-client-http-urls", "listen-metrics-urls")]
    named += [] if named[0] else [flags.get("advertise-client-urls")]
    urls = [url.strip() for text in named if text for url in text.split(",")]
    # listening everywhere is no address to ask
    return [url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:") for url in urls if url.startswith("http")]


def etcd_health(url, tls, query=""):
    """What /health of one member says: "true" when it has a leader, can read through the quorum and has no alarm (but one that `query` excludes), "false",
    "slow" when it takes the question and says nothing in time, as without a quorum, and "" where nothing says /health.  Never raises.
    """
    # every module that asks etcd has this file, and few ask /health: this takes 0.03 s
    import http.client  # noqa: PLC0415

    from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context  # noqa: PLC0415

    parts = urlsplit(url)
    connection = None
    try:
        if parts.scheme == "https":
            context = tls_context(tls["cacert"], cert=tls["cert"], key=tls["key"])
            connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=2)
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=2)
        connection.request("GET", "/health" + query)
        return "true" if json.loads(connection.getresponse().read()).get("health") in ("true", True) else "false"
    except socket.timeout:  # TimeoutError from Python 3.10 on
        return "slow"
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        return ""
    finally:
        if connection is not None:
            connection.close()
