# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An etcd that lets an API server read all that a snapshot holds, and change nothing.  Private to this collection.

kube-apiserver writes while it starts: APIServices, flow schemas, addresses, leases.  Here etcd's own access control refuses that, by the common name of the
client's certificate.  It keeps its users and roles apart from the keys, so the revision stays that of the snapshot.

The API server (1.34.4 to 1.37.2) serves without these writes, but ends by itself when some fail that it cannot do without:

    ranges/                                       numbers of ports that are in use (core/rest/storage_core.go); no API shows them, so it may write them
    flowschemas/, prioritylevelconfigurations/    after 5 minutes, where its own defaults are not there (flowcontrol/rest/storage_flowcontrol.go)
    ipaddresses/, servicecidrs/                   after 1 minute, where the address of a Service is not there, as up to 1.32 (core/rest/storage_core.go)
    apiregistration.k8s.io/apiservices/           never, but an API is not found whose APIService is not there

Where the snapshot lacks such objects, as one of an older Kubernetes does, a second user may complete them.
"""

from __future__ import annotations

import base64
import json
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import is_denied
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.gateway import UnixConnection
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

# Common names of client certificates, and users of etcd.
READING, COMPLETING = "k8s-dr-reading", "k8s-dr-completing"
_ALWAYS = ("ranges/",)
# What the API server completes, and the names of its readiness checks that wait for it.
COMPLETED = {
    "apiregistration.k8s.io/apiservices/": "autoregister-completion",
    "flowschemas/": "poststarthook/priority-and-fairness-config-producer",
    "prioritylevelconfigurations/": "poststarthook/priority-and-fairness-config-producer",
    "servicecidrs/": "poststarthook/start-kubernetes-service-cidr-controller",
    "ipaddresses/": "poststarthook/start-service-ip-repair-controllers",
    "priorityclasses/": "poststarthook/scheduling/bootstrap-system-priority-classes",
}
# The gateway speaks of bytes in base64; one zero as the first key and as the end of a range means all keys.
_ALL = "AA=="
_ROOT = "root"


def _encoded(text):
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def _range(prefix):
    """{key, range_end} of all keys with a prefix that ends in a slash."""
    return {"key": _encoded(prefix), "range_end": _encoded(prefix[:-1] + "0")}


def rules(prefix):
    """What is asked of etcd's gateway one after the other: (path, body)."""
    for name in (_ROOT, READING, COMPLETING):
        yield "auth/role/add", {"name": name}
        yield "auth/user/add", {"name": name, "options": {"no_password": True}}
        yield "auth/user/grant", {"user": name, "role": name}
    for name, writes in ((READING, _ALWAYS), (COMPLETING, _ALWAYS + tuple(sorted(COMPLETED)))):
        yield "auth/role/grant", {"name": name, "perm": {"permType": "READ", "key": _ALL, "range_end": _ALL}}
        for place in writes:
            yield "auth/role/grant", {"name": name, "perm": dict(_range(prefix + place), permType="READWRITE")}
    yield "auth/enable", {}


class Gateway:
    """etcd's JSON gateway on the Unix socket at `path`."""

    def __init__(self, path):
        self._path = path

    def ask(self, what, question, timeout=10):
        """(HTTP code, its answer as text)"""
        connection = UnixConnection(self._path, timeout)
        try:
            # Without this header etcd takes the gateway's certificate for the client's (3.4.23 to 3.7.3: auth/store.go, AuthInfoFromTLS).
            connection.request("POST", "/v3/" + what, json.dumps(question), {"Accept": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def revision(self, timeout=1):
        """The revision that it serves, None while it does not; Refused when it has users of its own."""
        try:
            status, text = self.ask("kv/range", {"key": _ALL, "count_only": True}, timeout)
        except OSError:
            return None
        if is_denied(text):
            raise Refused(
                "the snapshot is of an etcd with authentication enabled, which serves nothing without a user; a snapshot that is taken after "
                "`etcdctl auth disable` can be browsed"
            )
        return int(json.loads(text)["header"]["revision"]) if status == 200 else None

    def wait(self, deadline, alive):
        """The revision, once it serves.  alive: whether it still runs."""
        while True:
            found = self.revision()
            if found is not None:
                return found
            if not alive():
                raise Refused("etcd does not start with it")
            if time.monotonic() > deadline:
                raise Refused("etcd did not serve it in time")
            time.sleep(0.03)

    def keys(self, prefix, page=2000):
        """All keys with a prefix that ends in a slash, in order."""
        question = dict(_range(prefix), limit=page, keys_only=True)
        while True:
            status, text = self.ask("kv/range", question, 60)
            if status != 200:
                raise Refused("etcd does not list its keys: %s" % text.strip()[:200])
            found = json.loads(text)
            keys = [base64.b64decode(each["key"]) for each in found.get("kvs") or []]
            yield from (key.decode("utf-8", "replace") for key in keys)
            if not found.get("more"):
                return
            question["key"] = base64.b64encode(keys[-1] + b"\0").decode("ascii")

    def lock(self, prefix):
        """From now on only the two users are let in, and change nothing that the API shows."""
        for what, question in rules(prefix):
            status, text = self.ask(what, question)
            # a snapshot may hold users from a time when authentication was enabled
            if status != 200 and "already exists" not in text:
                raise Refused("etcd does not take its access control: %s: %s" % (what, text.strip()[:200]))
        status, text = self.ask("kv/range", {"key": _ALL, "count_only": True})
        if not is_denied(text):
            raise Refused("etcd answers without a user (%d), so nothing is served" % status)
