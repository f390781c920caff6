# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing many keys to an etcd for a benchmark."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import sys

BATCH = 10 * 1000 * 1000
# What an etcd needs for batches of that size; and its list of what it applied slowly is left out.
FLAGS = ["--quota-backend-bytes", str(16 << 30), "--max-txn-ops", "10000", "--max-request-bytes", str(4 * BATCH), "--log-level", "error"]


class Writer:
    """Puts many keys in few requests, over one connection."""

    def __init__(self, member):
        context = ssl.create_default_context(cafile=member.pki["cacert"])
        context.load_cert_chain(member.pki["cert"], member.pki["key"])
        self._connection = http.client.HTTPSConnection(member.host, member.client_port, timeout=1800, context=context)

    def _call(self, url, **body):
        self._connection.request("POST", url, json.dumps(body))
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit("The keys were not written: %s" % text[:300].decode(errors="replace"))

    def put(self, pairs):
        """Store them in one transaction."""
        puts = [{"request_put": {"key": base64.b64encode(name.encode()).decode(), "value": base64.b64encode(value).decode()}} for name, value in pairs]
        self._call("/v3/kv/txn", success=puts)

    def compact(self, revision):
        """Compact up to a revision, to the end: what is left of it goes on in each etcd that is restored from a snapshot, beside all else."""
        self._call("/v3/kv/compaction", revision=revision, physical=True)

    def put_all(self, numbers, pair, size):
        """Store pair(number) of all numbers, each of about `size` bytes."""
        batch = max(100, min(5000, BATCH // (size + 200)))
        for at in range(0, len(numbers), batch):
            self.put(map(pair, numbers[at : at + batch]))
