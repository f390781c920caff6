# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Selected objects of a snapshot as files, one object each.  Private to this collection."""

from __future__ import annotations

import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover import left_out
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.block_text import dump
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import clean
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.plan import unreadable
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import problems
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.resources import Resources
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import check_kinds, check_namespaces
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

# Where objects without a namespace are: no namespace is called so, and `kubectl apply -R` reads it first.
CLUSTER = "_cluster"
SUFFIX = ".yaml"


class Export:
    """What is exported, one file after the other, so that they need not be in memory together."""

    def __init__(self, snapshot, entries, secrets):
        """snapshot: a Session.  entries: of selection.parse().  secrets: whether Secrets are exported."""
        self.snapshot, self.entries, self.secrets = snapshot, entries, secrets
        self.there = Resources(snapshot)
        check_kinds(entries, self.there)
        check_namespaces(entries, snapshot)
        self._left_out = left_out.LeftOut(snapshot, self.there)
        self.left_out, self.secrets_left_out, self.warnings = [], 0, []
        # kinds of which not all objects could be read
        self.unreadable = []

    def files(self):
        """(name, text, whether it is a Secret) of each."""
        seen = set()
        for entry in self.entries:
            found = False
            for resource in self.there:
                if not entry.takes(resource):
                    continue
                if resource.id in left_out.NEVER:
                    if entry.kind:
                        raise Refused("objects of kind %s are not exported: %s" % (resource.kind, left_out.NEVER[resource.id]))
                    continue
                for version, one in self._objects(entry, resource):
                    found, name = True, file_name(version, one)
                    if name not in seen:
                        seen.add(name)
                        yield from self._file(version, one, name)
            if not found and not self.unreadable:
                self.warnings.append("The snapshot has nothing that the selection (%s) means" % entry)

    def _objects(self, entry, resource):
        """(Resource, object) of what the entry means, in the first version that can be read: no conversion webhook is within reach of the snapshot."""
        problem = None
        for version in self.there.versions(resource.id):
            path, query = entry.query(version)
            try:
                for one in self.snapshot.items(path, **query):
                    yield version, one
                return
            except KubeError as exc:
                if exc.status == 0:
                    raise
                problem = problem or exc
        # how many Secrets there are is only said
        if self.secrets or resource.id != "secrets":
            self.unreadable.append({"object": "%s of the selection (%s)" % (resource.kind, entry), "reason": unreadable(problem, self.snapshot)})

    def lines(self):
        """What was not exported, as text."""
        text = ["%d Secrets were not exported, since that was not asked for" % self.secrets_left_out] if self.secrets_left_out else []
        return text + ["Not exported: %s" % one for one in problems(self.left_out)]

    def _file(self, resource, found, name):
        metadata = found["metadata"]
        reason = self._left_out.reason(resource, found)
        owner = "" if reason else self._left_out.owner_left_out(found)
        if reason or owner:
            where = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
            self.left_out.append({"object": "%s %s" % (resource.kind, where), "reason": reason or "belongs to %s, which is not exported" % owner})
        elif resource.id == "secrets" and not self.secrets:
            self.secrets_left_out += 1
        else:
            yield name, text_of(resource, found), resource.id == "secrets"


def text_of(resource, found):
    """The object as kubectl would apply it: an owner is named by a UID, which another cluster does not have."""
    found = clean(found, resource.id, resource.has_status)
    found["metadata"].pop("ownerReferences", None)
    annotations = found["metadata"].get("annotations") or {}
    # kubectl writes it again, and of a Secret it is a copy
    annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    if not annotations:
        found["metadata"].pop("annotations", None)
    if resource.id == "services" and found.get("spec", {}).get("clusterIP") != "None":
        for name in ("clusterIP", "clusterIPs"):
            found["spec"].pop(name, None)
    first = {key: found.pop(key) for key in ("apiVersion", "kind", "metadata") if key in found}
    return dump(dict(first, **found))


def file_name(resource, found):
    """shop/Deployment.apps_web.yaml"""
    name = re.sub(r"[^A-Za-z0-9._:-]", lambda character: "%%%02x" % ord(character.group()), found["metadata"]["name"])
    return "%s/%s_%s%s" % (found["metadata"].get("namespace") or CLUSTER, resource.full_kind, name, SUFFIX)
