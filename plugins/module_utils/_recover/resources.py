# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which resources an API server has.  Private to this collection."""

from __future__ import annotations

from urllib.parse import quote

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError

# Both groups hold the same objects as others: networking.k8s.io and apps have them, too (1.20).
_DOUBLE = ("extensions",)
# What says nothing of the kind that was asked for.
_AWAY = (401, 429, 503)


class Resource:
    """One resource in one version, as discovery describes it."""

    def __init__(self, group, version, found):
        self.group, self.version = group, version
        self.name, self.kind = found["name"], found["kind"]
        self.singular = found.get("singularName") or self.kind.lower()
        self.namespaced = bool(found.get("namespaced"))
        self.verbs = found.get("verbs") or []
        self.has_status = False

    @property
    def id(self):
        """What it is in any version, as CRDs are called: deployments.apps."""
        return self.name + ("." + self.group if self.group else "")

    @property
    def full_kind(self):
        return self.kind + ("." + self.group if self.group else "")

    @property
    def api_version(self):
        return (self.group + "/" if self.group else "") + self.version

    def path(self, namespace="", name=""):
        """Where the API server has all of them, those of a namespace, or one."""
        parts = ["/apis/" + self.group if self.group else "/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.name)
        if name:
            parts.append(quote(name, safe=""))
        return "/".join(parts)

    def is_called(self, word):
        """Whether an operator may mean this one: Deployment, deployments or deployment, each with .apps or without, in any case."""
        word = word.lower()
        names = {self.kind.lower(), self.name.lower(), self.singular.lower()}
        return word in names or word in {name + "." + self.group for name in names}


class Resources:
    """All that an API server serves, once it has been asked."""

    def __init__(self, session):
        self.session = session
        self._versions, self._before = {}, {}
        # groups that could not be asked, as those of an aggregated API server that is away
        self.silent = []
        self.ask()

    def ask(self):
        """Look again, as after a CRD was made.  A group that does not answer now keeps what it served before."""
        self._before, self._versions, self.silent = self._versions, {}, []
        self._add("", "v1", "/api/v1")
        for group in self.session.get("/apis", {}).get("groups") or []:
            preferred = (group.get("preferredVersion") or {}).get("version")
            versions = [one["version"] for one in group.get("versions") or []]
            for version in sorted(versions, key=lambda one: one != preferred):
                if group["name"] not in _DOUBLE:
                    self._add(group["name"], version, "/apis/%s/%s" % (group["name"], version))

    def _add(self, group, version, path):
        try:
            found = self.session.get(path, {}, patience=0).get("resources") or []
        except KubeError:
            self.silent.append(path)
            for resource in [one for versions in self._before.values() for one in versions if (one.group, one.version) == (group, version)]:
                self._versions.setdefault(resource.id, []).append(resource)
            return
        names = {one["name"] for one in found}
        for one in found:
            # what cannot be made and deleted is no content, as PodMetrics
            if "/" in one["name"] or not {"get", "list", "create", "delete"} <= set(one.get("verbs") or []):
                continue
            resource = Resource(one.get("group") or group, one.get("version") or version, one)
            resource.has_status = one["name"] + "/status" in names
            self._versions.setdefault(resource.id, []).append(resource)

    def silent_of(self, group):
        """The paths of this group that could not be asked."""
        return [path for path in self.silent if path.startswith("/apis/%s/" % group)]

    def __iter__(self):
        return iter(versions[0] for versions in self._versions.values())

    def versions(self, identifier):
        """A resource in every version, the preferred one first; none where it is not served."""
        return self._versions.get(identifier, [])

    def find(self, identifier):
        """A resource in its preferred version; None where it is not served."""
        return next(iter(self.versions(identifier)), None)

    def of_owner(self, reference):
        """What an ownerReference names, in whichever version; None where it is not served."""
        group = reference.get("apiVersion", "").rpartition("/")[0]
        return next((one for one in self if one.kind == reference.get("kind") and one.group == group), None)


def is_away(exc, snapshot=None):
    """Whether a KubeError says nothing of the kind that was asked for, but that an API server is away.  snapshot: the Session of that, if there is one."""
    return exc.status == 0 or ((snapshot is None or snapshot.name not in str(exc)) and exc.status in _AWAY)


def pairs(there, here):
    """[(resource there, resource here), ...] in each version that both serve, in the order of `here`; the latter is None where there is no such version."""
    return [(other, one) for one in here for other in there if one.version == other.version] or [(other, None) for other in there]


def common(there, here):
    """The first of pairs()."""
    return pairs(there, here)[0]
