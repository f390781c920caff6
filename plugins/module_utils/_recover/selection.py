# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator names to have it recovered.  Private to this collection."""

from __future__ import annotations

from urllib.parse import quote

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

# The option of the modules.
SPEC = {
    "type": "list",
    "elements": "dict",
    "options": {"namespace": {"type": "str"}, "kind": {"type": "str"}, "name": {"type": "str"}, "labels": {"type": "dict"}},
}
KEYS = ("namespace", "kind", "name", "labels")
_EXAMPLE = '[{"namespace": "shop"}, {"kind": "Secret", "namespace": "pay", "name": "key"}]'


class Entry:
    """One entry: each key narrows it down."""

    def __init__(self, namespace="", kind="", name="", labels=None):
        self.namespace, self.kind, self.name = namespace, kind, name
        self.labels = labels or {}

    def __str__(self):
        words = ["%s %s" % (key, getattr(self, key)) for key in KEYS[:3] if getattr(self, key)]
        words += ["label %s" % self.selector] if self.labels else []
        return ", ".join(words)

    @property
    def selector(self):
        return ",".join("%s=%s" % pair for pair in sorted(self.labels.items()))

    @property
    def is_whole_namespace(self):
        """Whether the Namespace itself is meant as well."""
        return bool(self.namespace) and not (self.kind or self.name or self.labels)

    def takes(self, resource):
        """Whether objects of this resource can be meant.  A namespace alone means what is in it, and the Namespace."""
        if self.kind and not resource.is_called(self.kind):
            return False
        if not self.namespace:
            return True
        return resource.namespaced or (self.is_whole_namespace and resource.id == "namespaces")

    def query(self, resource):
        """(path, query) of the list that holds what is meant, and nothing else."""
        query = {}
        name = self.namespace if self.namespace and not resource.namespaced else self.name
        if name:
            query["fieldSelector"] = "metadata.name=" + name
        if self.labels:
            query["labelSelector"] = self.selector
        return resource.path(self.namespace), query


def parse(entries):
    """[Entry, ...] of what was given; Refused for what is not understood, or would be everything."""
    if not isinstance(entries, list) or not entries:
        raise Refused("nothing is selected; name namespaces, kinds, names or labels, as in %s" % _EXAMPLE)
    return [_entry(number, one) for number, one in enumerate(map(given, entries), 1)]


def given(entry):
    """An entry without the keys that Ansible adds for those that were not given."""
    return {key: value for key, value in entry.items() if value is not None} if isinstance(entry, dict) else entry


def _entry(number, found):
    where = "entry %d of the selection" % number
    if not isinstance(found, dict):
        raise Refused("%s is not a dictionary; write entries as in %s" % (where, _EXAMPLE))
    unknown = sorted(set(map(str, found)) - set(KEYS))
    if unknown:
        raise Refused("%s has the key %s; possible are %s" % (where, ", ".join(unknown), ", ".join(KEYS)))
    for key in KEYS[:3]:
        if key in found and (not isinstance(found[key], str) or not found[key].strip()):
            raise Refused("%s has a %s that is empty or not text" % (where, key))
    labels = found.get("labels")
    if "labels" in found and (not isinstance(labels, dict) or not labels or not all(isinstance(value, str) for value in labels.values())):
        raise Refused('%s has labels that are not a dictionary of text, such as {"app": "web"}' % where)
    if not found:
        raise Refused("%s is empty, which would select everything; name a namespace, a kind, a name or labels" % where)
    if "name" in found and not ("kind" in found or "namespace" in found):
        raise Refused("%s has a name only; add its kind or its namespace" % where)
    return Entry(*(found.get(key, "").strip() for key in KEYS[:3]), labels=labels)


def check_kinds(entries, resources):
    """Refused where an entry names a kind that is not there, or a namespace for a kind that has none.  resources: those of the snapshot."""
    for entry in entries:
        if not entry.kind:
            continue
        called = [one for one in resources if one.is_called(entry.kind)]
        if not called:
            raise Refused("the snapshot has no kind %s" % entry.kind)
        if entry.namespace and not any(one.namespaced for one in called):
            raise Refused("objects of kind %s are in no namespace; leave the namespace %s out" % (called[0].kind, entry.namespace))


def check_namespaces(entries, snapshot):
    """Refused where an entry names a namespace that the snapshot, a Session, does not have."""
    for entry in entries:
        if entry.namespace and snapshot.get("/api/v1/namespaces/" + quote(entry.namespace, safe="")) is None:
            raise Refused("the snapshot has no namespace %s; correct its name, or choose another snapshot with -e etcd_browse_snapshot=PATH" % entry.namespace)
