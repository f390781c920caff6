# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a cluster's keys say about its objects, without reading one value.  Private to this collection."""

from __future__ import annotations

# Where Kubernetes' storage layout and its resource names differ (1.34.4 to 1.37.2:
# pkg/kubeapiserver/default_storage_factory_builder.go, SpecialDefaultResourcePrefixes; podsecuritypolicies were there up to 1.24).
_NAMES = {
    "minions": "nodes",
    "controllers": "replicationcontrollers",
    "ingress": "ingresses",
    "podsecuritypolicy": "podsecuritypolicies",
}
# Objects whose names a validation after a restore looks for.
_NAMED = ("nodes", "deployments", "daemonsets", "statefulsets")


class Inventory:
    """Counts objects by resource and namespace.

    prefix: kube-apiserver's --etcd-prefix.  A resource of an API group is called `resource.group`, as kubectl has it,
    when the group is in the key; the built-in ones are stored without it.  Cluster-scoped objects have the namespace "".
    named: resources whose names are kept.
    """

    def __init__(self, prefix="/registry", named=_NAMED):
        self.prefix = prefix_of(prefix)
        self.objects = {}
        self.names = {name: [] for name in named}

    def add(self, key):
        """Count one key; False for one that is no object's."""
        found = parse_key(key, self.prefix)
        if found is None:
            return False
        self.count(*found)
        return True

    def count(self, resource, namespace, name, number=1):
        """Count one object, or so many, of one of which this is the name."""
        counts = self.objects.get(resource) or self.objects.setdefault(resource, {})
        counts[namespace] = counts.get(namespace, 0) + number
        if resource in self.names:
            self.names[resource].append("%s/%s" % (namespace, name) if namespace else name)

    def as_dict(self):
        return {
            "prefix": self.prefix,
            "objects": {resource: dict(sorted(counts.items())) for resource, counts in sorted(self.objects.items())},
            "names": {resource: sorted(names) for resource, names in self.names.items()},
        }


def prefix_of(text):
    """'/registry/' of whatever --etcd-prefix says; kube-apiserver takes it with and without slashes."""
    return "/%s/" % text.strip("/") if text.strip("/") else "/"


def parse_key(key, prefix="/registry/"):
    """(resource, namespace, name) of a key, or None for one that is no object's."""
    if not key.startswith(prefix):
        return None
    parts = key[len(prefix) :].split("/")
    resource = parts.pop(0)
    if resource == "services" and parts and parts[0] in ("specs", "endpoints"):
        resource = "services" if parts.pop(0) == "specs" else "endpoints"
    elif "." in resource and len(parts) > 1:
        resource = "%s.%s" % (parts.pop(0), resource)
    else:
        resource = _NAMES.get(resource, resource)
    # A name holds no slash, so two parts are a namespace and a name.
    if not resource or not parts or len(parts) > 2 or not all(parts):
        return None
    return resource, parts[0] if len(parts) == 2 else "", parts[-1]
