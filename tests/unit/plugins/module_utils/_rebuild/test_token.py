# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose tokens a rebuilt cluster accepts."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import token
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused


class Api:
    """Accepts the tokens in `valid`."""

    name = "the API server"

    def __init__(self, secrets=(), valid=()):
        self.secrets, self.valid = secrets, valid

    def items(self, path, **query):
        if path.endswith("/serviceaccounts"):
            return iter([{"metadata": {"namespace": "shop", "name": "web"}}])
        assert query == {"fieldSelector": "type=kubernetes.io/service-account-token"}
        return iter([{"metadata": {"labels": labels}, "data": {"token": base64.b64encode(text).decode()}} for text, labels in self.secrets])

    def request(self, method, path, body):
        if path.endswith("/token"):
            return 201, {"status": {"token": "new"}}
        there = body["spec"]["token"] in self.valid
        return 201, {"status": {"authenticated": there, "user": {"username": "system:serviceaccount:shop:web"}}}


INVALID = {"kubernetes.io/legacy-token-invalid-since": "2026-01-02"}


def test_tokens_from_before_count_first():
    assert token.accepted(Api([(b"a", {}), (b"b", {})], ["b"])) == "system:serviceaccount:shop:web, by a Secret from before"
    assert token.accepted(Api([(b"a", INVALID)], ["new"])) == "system:serviceaccount:shop:web, by a new token"
    assert token.accepted(Api([], ["new"])) == "system:serviceaccount:shop:web, by a new token"


def test_no_token_is_accepted():
    with pytest.raises(Refused, match=r"none of 1 tokens in Secrets.* is another one, or these tokens are from before a rotation"):
        token.accepted(Api([(b"a", {})], ["new"]))
    with pytest.raises(Refused, match=r"sa\.key and sa\.pub, are no pair"):
        token.accepted(Api())
