# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One change of the live cluster, and why it was refused, in words.  Private to this collection."""

from __future__ import annotations

import re
import time
from urllib.parse import urlencode

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError

MANAGER = "k8s-dr-recover"
MERGE = "application/merge-patch+json"
_INTERVAL = 0.5
# What a cluster says for some moments about what was just made in it.
_TRANSIENT = (
    re.compile(r"status unknown for quota"),
    re.compile(r"error looking up service account"),
    re.compile(r"the server could not find the requested resource|^404 page not found"),
    re.compile(r"unable to create new content in namespace \S+ because it is being created"),
    re.compile(r"object has been modified; please apply your changes to the latest version"),
)


class ChangeRefused(Exception):
    """Why one object was not changed, to follow its name; the others are not concerned."""

    def __init__(self, message, answer=None):
        super().__init__(message)
        self.answer = answer or {}

    @property
    def is_certain(self):
        """Whether nothing was changed: an error of the server may come after the change."""
        return self.answer.get("code", 0) < 500

    def fields(self):
        """The fields that the API server names."""
        return [str(cause.get("field") or "") for cause in (self.answer.get("details") or {}).get("causes") or []]


class Writer:
    """Changes objects through a Session."""

    def __init__(self, session, patience=10):
        """patience: seconds for which an answer that will soon be another one is asked for again."""
        self.session, self.patience = session, patience

    def create(self, resource, namespace, body, dry_run=False):
        """The object that was made; one that is there already is refused.  A server-side apply would merge into it."""
        return self._send("POST", resource.path(namespace), body, "application/json", dry_run)

    def merge(self, resource, namespace, name, patch, version, dry_run=False):
        """The object after a merge patch, made only if its resourceVersion still is this one."""
        body = dict(patch, metadata=dict(patch.get("metadata") or {}, resourceVersion=version))
        return self._send("PATCH", resource.path(namespace, name), body, MERGE, dry_run, patience=0)

    def delete(self, resource, namespace, name, metadata):
        """Delete this very object, if it is as it was read; False where it is gone."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        body["preconditions"] = {field: metadata[field] for field in ("uid", "resourceVersion")}
        try:
            self._send("DELETE", resource.path(namespace, name), body, "application/json", patience=0)
        except ChangeRefused as exc:
            if exc.answer.get("code") == 404 or exc.answer.get("reason") == "NotFound":
                return False
            raise
        return True

    def _send(self, method, path, body, content_type, dry_run=False, patience=None):
        query = dict({"fieldManager": MANAGER} if method != "DELETE" else {}, **({"dryRun": "All"} if dry_run else {}))
        end = time.monotonic() + (0 if dry_run else self.patience if patience is None else patience)
        while True:
            status, answer = self.session.request(method, path + ("?" + urlencode(query) if query else ""), body, content_type)
            if status in (200, 201, 202):
                return answer
            if status in (401, 429, 502, 503, 504) and not answer.get("details"):
                raise KubeError("%s answers %d to %s %s: %s" % (self.session.name, status, method, path, _message(answer)), status)
            if time.monotonic() >= end or not any(one.search(_message(answer)) for one in _TRANSIENT):
                raise ChangeRefused(sentence(status, answer), dict(answer, code=status))
            time.sleep(_INTERVAL)


def is_ours(found):
    """Whether this collection has made or changed it."""
    return any(one.get("manager") == MANAGER for one in found["metadata"].get("managedFields") or [])


def sentence(status, answer):
    """Why, in one sentence to follow the name of the object, and what to do."""
    text = _message(answer)
    webhook = re.search(r'failed calling webhook "([^"]+)"', text)
    if webhook:
        return "is refused, since the webhook %s does not answer; recover it first, or remove its configuration: %s" % (webhook.group(1), _short(text))
    denied = re.search(r'admission webhook "([^"]+)" denied the request', text)
    if denied:
        return "is refused by the webhook %s: %s" % (denied.group(1), _short(text.partition(denied.group(0))[2].lstrip(": ")))
    if "exceeded quota" in text:
        return "is refused by a quota; raise it, or make room, and run this again: %s" % _short(text.partition("exceeded quota")[2].lstrip(": "))
    if "because it is being terminated" in text:
        return "is refused, since its namespace is being deleted; run this again when it is gone"
    if answer.get("reason") == "AlreadyExists":
        return "was made by something else meanwhile, and stays as it is; run this again to compare it"
    if status == 409:
        return "was changed by something else meanwhile; run this again: %s" % _short(text)
    causes = (answer.get("details") or {}).get("causes") or []
    # the last one is of a roleRef, up to 1.36 at least (1.34.4, 1.36.3: pkg/apis/rbac/validation/validation.go)
    fixed = [cause for cause in causes if re.search(r"immutable|may not (be )?change|updates to|cannot change", str(cause.get("message")))]
    if status in (403, 422) and (fixed or "immutable" in text):
        fields = ", ".join(sorted({str(cause.get("field")) for cause in fixed})) or "a field"
        return "cannot be overwritten, since %s cannot be changed; delete the live object and run this again" % fields
    return "is refused (%d): %s" % (status, _short(text))


def _message(answer):
    return str(answer.get("message") or "")


def _short(text):
    return text if len(text) < 400 else text[:400] + "..."
