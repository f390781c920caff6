# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which servers a client of etcd and of the API server trusts.  Its use against real servers is in test_api.py and the integration tests."""

from __future__ import annotations

import ssl

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.crt"
    path.write_text(CA)
    return path


# Made by `openssl req -x509` with no extensions at all: neither key identifiers nor constraints.
CA = """\
-----BEGIN CERTIFICATE-----
MIIBHjCBxQIURcA2elKFXCFfUxUB/27s6VcY5BQwCgYIKoZIzj0EAwIwETEPMA0G
A1UEAwwGb2xkLWNhMCAXDTI2MTEyNzAyNDMzNFoYDzIxMjYxMTAzMDI0MzM0WjAR
MQ8wDQYDVQQDDAZvbGQtY2EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASpZQOW
zEkMGN2u3IKbX6NDIxTkyAZffV2/MFg22uzsn1Pe51Skgs4cMnOoQP/pBDPS8Z/D
sQvqXE3v4OJolnvTMAoGCCqGSM49BAMCA0gAMEUCIQCOHdqkFh5eShiJdmntlUvK
lkbS2ZWH33LXvFS1OyOmuAIgMVTJXA1jJYhu4+++L60Nu7l9/QBJJ50y/corr5AQ
4e0=
-----END CERTIFICATE-----
"""


def test_chain_and_name_are_checked_and_key_identifiers_are_not_asked_for(ca):
    context = tls_context(str(ca))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    # Python 3.13 sets it in create_default_context()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert [dict(item[0] for item in found["subject"])["commonName"] for found in context.get_ca_certs()] in ([], ["old-ca"])
    assert context.cert_store_stats()["x509"] == 1


def test_from_text(ca):
    assert tls_context(cadata=CA).cert_store_stats()["x509"] == 1


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        tls_context(str(tmp_path / "nothing"))
    (tmp_path / "bad").write_text("no certificate")
    with pytest.raises(OSError, match=r".+"):
        tls_context(str(tmp_path / "bad"))
