# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore of all data would do to selected objects: those of a snapshot beside the live ones, in both directions.  Private to this collection.

An object is read as _recover/plan.py reads it, without what the RULES of _recover/clean.py remove.  Of live objects only checksums are kept.
"""

from __future__ import annotations

import collections

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import left_out
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import clean, digest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.differences import fields, sentences
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import unreadable
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import shortened
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resources, is_away, pairs

# How many objects of each part are returned, and read again for their fields.
_MOST = 200
_SERVICES = "apiservices.apiregistration.k8s.io"
Live = collections.namedtuple("Live", "digest maker")


class Part:
    """Objects to which the same happens: how many, and the first of them."""

    def __init__(self):
        self.count, self.objects = 0, []

    @property
    def is_full(self):
        return len(self.objects) >= _MOST

    def add(self, one):
        self.count += 1
        if not self.is_full:
            self.objects.append(one)

    def described(self):
        return {"count": self.count, "objects": self.objects}


class Changes:
    """What find() has found, also where it ends early."""

    def __init__(self, status=False):
        """status: whether it is compared where it is a subresource."""
        self.status = status
        self.recreated, self.deleted, self.modified = Part(), Part(), Part()
        self.same = 0
        self.made = collections.Counter()
        self.unreadable, self.warnings = [], []
        self._snapshot = self._live = self._there = self._here = None
        self._seen, self._met, self._selectors = set(), 0, {}

    def described(self):
        """What was found, as data."""
        return {
            "recreated": self.recreated.described(),
            "deleted": self.deleted.described(),
            "modified": self.modified.described(),
            "same": self.same,
            "made": [{"kind": kind, "reason": reason, "count": count} for (kind, reason), count in sorted(self.made.items())],
            "unreadable": self.unreadable,
            "warnings": self.warnings,
        }

    def find(self, snapshot, live, entries):
        """Compare all that is selected; raises KubeError where an API server does not answer.

        snapshot, live: Sessions.  entries: of selection.parse().
        """
        self._snapshot, self._live = snapshot, live
        self._there, self._here = Resources(snapshot), Resources(live)
        elsewhere = self._groups_elsewhere()
        resources = {one.id: one for one in [*self._here, *self._there] if one.group not in elsewhere}
        # an object counts once, and what something makes only where its kind is named
        for entry in sorted(entries, key=lambda one: not one.kind):
            before = self._met
            for resource in resources.values():
                if entry.takes(resource) and (entry.kind or resource.id not in left_out.NEVER):
                    self._read(entry, resource)
            if self._met == before:
                self.warnings.append("Neither the snapshot nor the live cluster has anything that the selection (%s) means" % entry)
        return self

    def _groups_elsewhere(self):
        """API groups that another API server serves: their objects are not in etcd."""
        found = set()
        for session, resources in ((self._snapshot, self._there), (self._live, self._here)):
            services = resources.find(_SERVICES)
            for one in session.items(services.path()) if services else ():
                if (one.get("spec") or {}).get("service"):
                    found.add(one["spec"].get("group"))
        return found

    def _read(self, entry, resource):
        """One resource, in the first version in which both can be read: a conversion webhook may be out of reach."""
        there, here = self._there.versions(resource.id), self._here.versions(resource.id)
        problem = self._not_served(resource, there, here)
        if not problem:
            for one, other in pairs(there, here) if there else [(None, one) for one in here]:
                try:
                    return self._list(entry, one, other)
                except KubeError as exc:
                    if is_away(exc, self._snapshot):
                        raise
                    problem = problem or unreadable(exc, self._snapshot)
        self._met += 1
        return self.unreadable.append({"object": "%s of the selection (%s)" % (resource.kind, entry), "reason": problem})

    def _not_served(self, resource, there, here):
        """Why objects of a resource are not found by asking for them; "" where they are."""
        if there and here:
            common = {one.version for one in there} & {one.version for one in here}
            served = [", ".join(one.version for one in versions) for versions in (here, there)]
            return "" if common else "is served as %s live, and in the snapshot as %s" % tuple(served)
        side, where = (self._here, "live") if there else (self._there, "in the snapshot")
        silent = [path for path in side.silent if path.startswith("/apis/%s/" % resource.group)]
        return "cannot be compared, since %s is not served %s now" % (silent[0], where) if silent else ""

    def _list(self, entry, there, here):
        live = {}
        if here:
            path, query = entry.query(here)
            for found in self._live.items(path, **query):
                live[_where(found)] = Live(digest(self._cleaned(found, here)), self._maker(entry, found, here))
        if there:
            path, query = entry.query(there)
            for found in self._snapshot.items(path, **query):
                self._compare(entry, there, here, found, live.pop(_where(found), None))
        for where, one in live.items():
            # the snapshot's may have other labels
            found = self._snapshot.get(there.path(*where)) if there and entry.labels else None
            if found:
                self._compare(entry, there, here, found, one)
            elif self._is_new(here, where, one.maker):
                self.deleted.add(_called(here, where))

    def _compare(self, entry, there, here, found, live):
        """An object of the snapshot with that of the live cluster.  live: None where it was not listed."""
        where = _where(found)
        if live is None and here and entry.labels:
            # the live one may have other labels
            other = self._live.get(here.path(*where))
            live = Live(digest(self._cleaned(other, here)), "") if other else None
        if not self._is_new(there, where, self._maker(entry, found, there) or (live and live.maker)):
            return
        wanted = self._cleaned(found, there)
        if live is None:
            self.recreated.add(_called(there, where))
        elif live.digest == digest(wanted):
            self.same += 1
        elif self.modified.is_full:
            # counted; its fields would need one more request
            self.modified.add(None)
        else:
            self._add_fields(there, here, where, wanted)

    def _add_fields(self, there, here, where, wanted):
        other = self._live.get(here.path(*where))
        differing = fields(self._cleaned(other, here), wanted) if other else []
        if other is None:
            self.recreated.add(_called(there, where))
        elif differing:
            self.modified.add({"object": _called(there, where), "differences": shortened(list(sentences(differing, there.id)))})
        else:
            self.same += 1

    def _is_new(self, resource, where, maker):
        """Whether an object is to be counted: no entry before selected it, and nothing in the cluster makes it."""
        self._met += 1
        if (resource.id, where) in self._seen:
            return False
        self._seen.add((resource.id, where))
        if maker:
            self.made[resource.kind, maker] += 1
        return not maker

    def _maker(self, entry, found, resource):
        """What makes this object by itself; "" where nothing does, or an entry names its kind."""
        selectors = self._selecting(entry.namespace) if resource.id == "endpoints" and not entry.kind else ()
        return "" if entry.kind else left_out.maker(resource.id, found, selectors)

    def _selecting(self, namespace):
        """(namespace, name) of the Services of both that select Pods."""
        if namespace not in self._selectors:
            both = (self._snapshot, self._there), (self._live, self._here)
            self._selectors[namespace] = set().union(*(left_out.selecting(session, resources, namespace) for session, resources in both))
        return self._selectors[namespace]

    def _cleaned(self, found, resource):
        return clean(found, resource.id, resource.has_status and not self.status)


def _where(found):
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]


def _called(resource, where):
    return "%s %s" % (resource.kind, "/".join(filter(None, where)))
