# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a rebuilt cluster accepts tokens of its service accounts.  Private to this collection."""

from __future__ import annotations

import base64
import itertools

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

_TYPE = "kubernetes.io/service-account-token"
# Set by kube-controller-manager on a token that was not used for a year (1.37.2: pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go).
_INVALID = "kubernetes.io/legacy-token-invalid-since"
# The least that the API server signs a token for (1.37.2: pkg/apis/authentication/validation/validation.go).
_SECONDS = 600
# Secrets whose tokens are tried: some may be of service accounts that are gone.
_MOST = 20


def accepted(session):
    """Whose token is accepted, and where the token was from; raises Refused when none is."""
    tried = 0
    for secret in itertools.islice(session.items("/api/v1/secrets", fieldSelector="type=" + _TYPE), _MOST):
        if _INVALID in (secret["metadata"].get("labels") or {}):
            continue
        data = (secret.get("data") or {}).get("token")
        user = _reviewed(session, base64.b64decode(data).decode()) if data else ""
        if user:
            return "%s, by a Secret from before" % user
        tried += bool(data)
    if tried:
        raise Refused(
            "the API server accepts none of %d tokens in Secrets of service accounts: the key of service accounts is another one, "
            "or these tokens are from before a rotation" % tried
        )
    account = next(session.items("/api/v1/serviceaccounts", page=1), None)
    if account is None:
        raise Refused("the cluster has no service account, so no token can be tried")
    path = "/api/v1/namespaces/%(namespace)s/serviceaccounts/%(name)s/token" % account["metadata"]
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [], "expirationSeconds": _SECONDS}}
    status, answer = session.request("POST", path, body)
    if status != 201:
        raise KubeError("%s answers %d to POST %s: %s" % (session.name, status, path, answer.get("message", "")), status)
    user = _reviewed(session, answer["status"]["token"])
    if not user:
        raise Refused("the API server does not accept a token that it signed itself: the two keys of service accounts, sa.key and sa.pub, are no pair")
    return "%s, by a new token" % user


def _reviewed(session, token):
    """The user that a token stands for; "" when it is not accepted."""
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    status, answer = session.request("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}})
    if status not in (200, 201):
        raise KubeError("%s answers %d to POST %s: %s" % (session.name, status, path, answer.get("message", "")), status)
    found = answer.get("status") or {}
    return str((found.get("user") or {}).get("username") or "") if found.get("authenticated") else ""
