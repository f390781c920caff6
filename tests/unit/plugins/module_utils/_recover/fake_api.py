# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An API server in memory: discovery, lists in pages, creation, merge patches, and deletions with preconditions."""

from __future__ import annotations

import copy
import json
from urllib.parse import parse_qs, unquote, urlsplit

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.session import Session

VERBS = {"podmetrics": ["get", "list"]}
MANAGER = "k8s-dr-recover"
# (group, version, plural, kind, namespaced, with the subresource status)
BUILT_IN = (
    ("", "v1", "namespaces", "Namespace", False, True),
    ("", "v1", "secrets", "Secret", True, False),
    ("", "v1", "configmaps", "ConfigMap", True, False),
    ("", "v1", "serviceaccounts", "ServiceAccount", True, False),
    ("", "v1", "services", "Service", True, True),
    ("", "v1", "endpoints", "Endpoints", True, False),
    ("", "v1", "events", "Event", True, False),
    ("", "v1", "pods", "Pod", True, True),
    ("", "v1", "nodes", "Node", False, True),
    ("", "v1", "persistentvolumes", "PersistentVolume", False, True),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, True),
    ("apps", "v1", "deployments", "Deployment", True, True),
    ("apps", "v1", "statefulsets", "StatefulSet", True, True),
    ("apps", "v1", "replicasets", "ReplicaSet", True, True),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", True, False),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, False),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False, False),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True, False),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False, True),
)


class FakeApi(Session):
    """`objects` by (plural.group, namespace, name); `refusals` by the same key are answered to changes: (status, Status)."""

    def __init__(self, *objects, resources=BUILT_IN):
        super().__init__("127.0.0.1", 1, None, "the API server at https://127.0.0.1:1")
        self.resources = list(resources)
        self.objects, self.refusals, self.deletions = {}, {}, []
        self.changes = 0
        self.stays = set()
        self.unreadable = set()
        self.number = 100
        self.before_change = lambda *_args: None
        for one in objects:
            self.add(one)

    # -- what tests do ----------------------------------------------------------------------------------------------

    def add(self, found, **metadata):
        found = copy.deepcopy(found)
        group = found["apiVersion"].rpartition("/")[0]
        plural, namespaced = next((one[2], one[4]) for one in self.resources if (one[0], one[3]) == (group, found["kind"]))
        found["metadata"].update(metadata)
        identifier = plural + ("." + group if group else "")
        return self._store((identifier, found["metadata"].get("namespace", "") if namespaced else "", found["metadata"]["name"]), found)

    def find(self, kind, name, namespace=""):
        wanted = (kind, name, namespace)
        return next((one for key, one in self.objects.items() if (one["kind"], key[2], key[1]) == wanted), None)

    def refuse(self, identifier, namespace, name, status, message, causes=()):
        self.refusals[(identifier, namespace, name)] = (status, {"kind": "Status", "message": message, "details": {"causes": list(causes)}})

    # -- a server -----------------------------------------------------------------------------------------------------

    def _store(self, key, found):
        self.number += 1
        metadata = found["metadata"]
        metadata.setdefault("uid", "uid-%d" % self.number)
        metadata["resourceVersion"] = str(self.number)
        self.objects[key] = found
        if key[0] == "customresourcedefinitions.apiextensions.k8s.io":
            spec = found["spec"]
            for version in spec["versions"]:
                one = (spec["group"], version["name"], spec["names"]["plural"], spec["names"]["kind"], spec["scope"] == "Namespaced", True)
                if one not in self.resources:
                    self.resources.append(one)
        return found

    def _ask(self, method, path, body, content_type):
        address = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        body = json.loads(json.dumps(body))
        if parts == ["apis"]:
            return 200, {"groups": self._groups()}
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        if not rest:
            found = self._resources(group, version)
            return (200, {"resources": found}) if found else (404, {"message": "not found"})
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        served = next((one for one in self.resources if one[:3] == (group, version, rest[0])), None)
        if served is None:
            return 404, {"message": "the server could not find the requested resource"}
        identifier = rest[0] + ("." + group if group else "")
        if method == "GET" and (identifier, version) in self.unreadable:
            return 500, {"message": "conversion webhook for %s failed" % identifier}
        if len(rest) == 1 and method == "GET":
            return 200, self._list(served, identifier, namespace, query)
        key = (identifier, namespace, rest[1] if len(rest) > 1 else body["metadata"]["name"])
        if method == "GET":
            return (200, self._shown(served, self.objects[key])) if key in self.objects else (404, {"message": "not found"})
        return self._change(method, served, key, body, content_type, "dryRun" in query)

    def _groups(self):
        found = {}
        for group, version in sorted({one[:2] for one in self.resources if one[0]}):
            found.setdefault(group, []).append({"version": version})
        return [{"name": group, "preferredVersion": versions[0], "versions": versions} for group, versions in found.items()]

    def _resources(self, group, version):
        found = []
        for one in self.resources:
            if one[:2] == (group, version):
                verbs = VERBS.get(one[2], ["get", "list", "patch", "create", "delete"])
                found.append({"name": one[2], "singularName": "", "kind": one[3], "namespaced": one[4], "verbs": verbs})
                found += [{"name": one[2] + "/status", "kind": one[3], "namespaced": one[4], "verbs": ["get"]}] if one[5] else []
        return found

    @staticmethod
    def _shown(served, found):
        return dict(copy.deepcopy(found), apiVersion=(served[0] + "/" if served[0] else "") + served[1])

    def _list(self, served, identifier, namespace, query):
        name = query.get("fieldSelector", "=").partition("=")[2]
        labels = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        found = [
            self._shown(served, one)
            for key, one in sorted(self.objects.items())
            if key[0] == identifier and namespace in ("", key[1]) and name in ("", key[2]) and labels.items() <= (one["metadata"].get("labels") or {}).items()
        ]
        start, limit = int(query.get("continue", 0)), min(int(query["limit"]), 2)
        for one in found:
            # as in the lists of built-in kinds
            del one["apiVersion"], one["kind"]
        more = str(start + limit) if start + limit < len(found) else ""
        api_version = (served[0] + "/" if served[0] else "") + served[1]
        return {"kind": served[3] + "List", "apiVersion": api_version, "metadata": {"continue": more}, "items": found[start : start + limit]}

    def _change(self, method, served, key, body, content_type, dry_run):
        self.before_change(method, key, dry_run)
        if key in self.refusals:
            return self.refusals[key]
        live = self.objects.get(key)
        if (live is None and "merge" in content_type) or (live is None and method == "DELETE"):
            return 404, {"message": "not found", "reason": "NotFound"}
        if served[4] and ("namespaces", "", key[1]) not in self.objects:
            return 404, {"message": 'namespaces "%s" not found' % key[1]}
        if live and method == "POST":
            return 409, {"message": '%s "%s" already exists' % (key[0], key[2]), "reason": "AlreadyExists"}
        wanted = (body.get("preconditions") or {}).get("resourceVersion") or body.get("metadata", {}).get("resourceVersion")
        if live and wanted and wanted != live["metadata"]["resourceVersion"]:
            return 409, {"message": "the object has been modified"}
        if dry_run:
            return (200 if live else 201), live or body
        self.changes += 1
        if method == "DELETE":
            self.deletions.append(key)
            if key not in self.stays:
                del self.objects[key]
                for other in [other for other in self.objects if key[0] == "namespaces" and other[1] == key[2]]:
                    del self.objects[other]
            return 200, {"status": "Success"}
        if "merge" in content_type:
            return 200, self._shown(served, self._store(key, _merged(live, body)))
        found = _merged(copy.deepcopy(live) if live else {}, body)
        entries = found["metadata"].setdefault("managedFields", [])
        entries.append({"manager": MANAGER, "operation": "Update"})
        return (200 if live else 201), self._shown(served, self._store(key, found))


def _merged(found, patch):
    found = copy.deepcopy(found)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = _merged(found[key], value)
        else:
            found[key] = value
    return found


# -- objects ------------------------------------------------------------------------------------------------------------


def made(kind, name, namespace="", api_version="v1", **content):
    """An object as an API server returns it."""
    metadata = dict(content.pop("metadata", {}), name=name, uid="old-%s-%s" % (kind, name), creationTimestamp="2026-01-02T03:04:05Z")
    if namespace:
        metadata["namespace"] = namespace
    return dict(content, apiVersion=api_version, kind=kind, metadata=metadata)


def owned(kind, name, api_version="v1", controller=False):
    """An ownerReference."""
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": "old-%s-%s" % (kind, name), **({"controller": True} if controller else {})}


CRD = made(
    "CustomResourceDefinition",
    "widgets.example.com",
    api_version="apiextensions.k8s.io/v1",
    spec={
        "group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"},
        "scope": "Namespaced",
        "versions": [{"name": "v1"}, {"name": "v1beta1"}],
    },
)
