# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an API server shows every object that etcd holds.  Private to this collection.

It lists each resource, for which it decrypts and decodes all of it, and finds as many objects as etcd has keys.  Where a list fails, each of its objects is
asked for, so that those can be named that cannot be decoded.
"""

from __future__ import annotations

import json
import math
import os
import time
import urllib.parse

from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.read_only_etcd import COMPLETED
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.reader import ApiError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.inventory import parse_key
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

# What API servers store for themselves, and no API shows (1.34.4 to 1.37.2: pkg/controlplane/instance.go, core/rest/storage_core.go).
_INTERNAL = ("masterleases", "peerserverleases", "ranges")
# Lists what does not come from etcd.
_NOT_STORED = ("componentstatuses",)
# What ends by itself, or is removed by an API server (1.37.2: pkg/controlplane/controller/apiserverleasegc).
_PASSING = ("events", "leases")
# Objects that are named.
_MOST = 20


class Resource:
    """One resource of an API: `name` as kubectl has it, and the `path` of its list."""

    def __init__(self, group, version, found):
        self.plural, self.group = found["name"], group
        self.name = "%s.%s" % (self.plural, group) if group else self.plural
        self.path = "/%s/%s/" % ("apis/" + group if group else "api", version)
        self.namespaced = bool(found.get("namespaced"))

    @property
    def list_path(self):
        return self.path + self.plural

    def path_of(self, namespace, name):
        """The path of one object."""
        parts = (["namespaces", namespace] if self.namespaced else []) + [self.plural, name]
        return self.path + "/".join(urllib.parse.quote(part, safe="") for part in parts)


class Stored:
    """What etcd holds, by its keys: `counts` is {resource: number}.  The names are in a file, since there may be millions of them."""

    def __init__(self, path):
        self._path = path
        self.counts = {}

    def read(self, gateway, prefix):
        """Read the keys, and return this."""
        with open(self._path, "w", encoding="utf-8") as stream:
            for key in gateway.keys(prefix):
                parsed = parse_key(key, prefix)
                if parsed:
                    self.counts[parsed[0]] = self.counts.get(parsed[0], 0) + 1
                    stream.write(json.dumps(parsed) + "\n")
        return self

    def names(self, resource):
        """(namespace, name) of each object of a resource."""
        with open(self._path, encoding="utf-8") as stream:
            for line in stream:
                found, namespace, name = json.loads(line)
                if found == resource:
                    yield namespace, name

    def remove(self):
        """Remove the file."""
        os.unlink(self._path)


def resources(reader):
    """Every Resource that can be listed and comes from etcd, once, in the version that the API server prefers."""
    # an aggregated API is that of a server which is out of reach
    services = (reader.get("/apis/apiregistration.k8s.io/v1/apiservices") or {}).get("items") or []
    elsewhere = {(each["spec"].get("group") or "", each["spec"]["version"]) for each in services if each["spec"].get("service")}
    versions = [("", "v1")]
    for group in (reader.get("/apis") or {}).get("groups") or []:
        preferred = (group.get("preferredVersion") or {}).get("version")
        versions += sorted(((group["name"], each["version"]) for each in group["versions"]), key=lambda version: version[1] != preferred)
    found = {}
    for group, version in versions:
        if (group, version) in elsewhere:
            continue
        for each in (reader.get("/%s/%s" % ("apis/" + group if group else "api", version)) or {}).get("resources") or []:
            if "/" in each["name"] or "list" not in each.get("verbs", ()) or each["name"] in _NOT_STORED:
                continue
            # events have two APIs, and one place in etcd
            if group == "events.k8s.io" and "events" in found:
                continue
            resource = Resource(group, version, each)
            found.setdefault(resource.name, resource)
    return list(found.values())


def compare(reader, held, completed=False, deadline=math.inf, living=False):
    """What was found.  held: a Stored, from before the API server started.  completed: whether it may have written objects of its own.
    living: whether a kubelet may have done so as well, and events have ended.  Raises Refused at the deadline, a number of time.monotonic().

    {objects, resources: how many were shown; undecodable: ["RESOURCE NAMESPACE/NAME: why"], with the number of all in undecodable_objects;
    differences: one sentence for each resource of which another number is shown; unserved: {resource: number} of which this API server has no API}
    """
    custom = {name for dummy, name in held.names("customresourcedefinitions.apiextensions.k8s.io")}
    left, shown, listed = dict(held.counts), 0, 0
    undecodable, failed, differences = [], 0, []
    own = {place.rstrip("/").rpartition("/")[2] for place in COMPLETED} if completed else set()
    for resource in resources(reader):
        # a built-in resource has its group in its key only where that says which API server serves it
        key = resource.name if resource.name in held.counts or resource.name in custom else resource.plural
        wanted = left.pop(key, 0)
        try:
            number = sum(1 for dummy in _in_time(reader.names(resource.list_path), deadline))
        except ApiError:
            number, broken = 0, 0
            for problem in _one_by_one(reader, resource, _in_time(held.names(key), deadline)):
                number, broken = number + (problem is None), broken + bool(problem)
                if problem and len(undecodable) < _MOST:
                    undecodable.append(problem)
            failed, wanted = failed + broken, wanted - broken
        shown, listed = shown + number, listed + bool(number)
        expected = living and (number > wanted or resource.plural in _PASSING)
        if number != wanted and resource.plural not in own and not expected:
            differences.append("%d %s are shown, and etcd has %d" % (number, resource.name, wanted))
    return {
        "objects": shown,
        "resources": listed,
        "undecodable": undecodable,
        "undecodable_objects": failed,
        "differences": differences,
        "unserved": {name: number for name, number in sorted(left.items()) if name not in _INTERNAL},
    }


def _one_by_one(reader, resource, names):
    """For each of these objects None when it can be read, "" when it is not shown, or one sentence that says why it cannot be decoded."""
    for namespace, name in names:
        try:
            yield None if reader.get(resource.path_of(namespace, name), metadata=True) is not None else ""
        except ApiError as exc:
            yield "%s %s: %s" % (resource.name, "%s/%s" % (namespace, name) if namespace else name, exc)


def _in_time(found, deadline):
    for each in found:
        if time.monotonic() > deadline:
            raise Refused("not every object was listed in time; allow more time, or find out why this host is so slow")
        yield each
