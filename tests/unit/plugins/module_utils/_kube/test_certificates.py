# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The times of certificates: those that openssl makes, and invalid ones."""

from __future__ import annotations

import base64
import datetime
import functools
import re
import subprocess
import tempfile

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import certificates as kube_certificates
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.certificates import CertificateError
from hypothesis import example, given, strategies as st

UTC = datetime.timezone.utc


@functools.lru_cache(maxsize=None)
def make(days, kind="ec", name="/CN=test"):
    """(PEM of a certificate that is valid for so many days, its private key)"""
    with tempfile.TemporaryDirectory() as directory:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ec" else ["-newkey", "rsa:2048"]
        run = functools.partial(subprocess.run, check=True, capture_output=True, cwd=directory)
        run(["openssl", "req", "-new", *key, "-nodes", "-subj", name, "-keyout", "key", "-out", "request"])
        run(["openssl", "x509", "-req", "-in", "request", "-signkey", "key", "-days", str(days), "-out", "cert"])
        with open(directory + "/cert", "rb") as cert, open(directory + "/key", "rb") as private:
            return cert.read(), private.read()


def openssl_dates(pem):
    text = subprocess.run(["openssl", "x509", "-noout", "-dates"], input=pem, check=True, capture_output=True).stdout.decode()
    return tuple(datetime.datetime.strptime(line.split("=")[1], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC) for line in text.splitlines())


def expired():
    """A certificate whose last day is long over: no version of openssl makes one in the same way."""
    der = bytearray(der_of(make(365)[0]))
    last = [match.start(1) for match in re.finditer(rb"\x17\x0d([0-9]{12})Z", der)][1]
    der[last : last + 6] = b"200101"
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def der_of(pem):
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


@pytest.mark.parametrize(("days", "kind"), [(1, "ec"), (365, "rsa"), (20000, "ec"), (700000, "ec")])
def test_a_real_certificate(days, kind):
    """365 days end in a UTCTime, 20000 days after 2050 in a GeneralizedTime."""
    pem = make(days, kind)[0]
    assert kube_certificates.validities(pem) == [openssl_dates(pem)]


def test_a_long_name_makes_longer_lengths():
    pem = make(9, name="/O=" + "o" * 60 + "".join("/OU=%s" % (letter * 60) for letter in "abcdefgh") + "/CN=system:node:cp1")[0]
    assert kube_certificates.validities(pem) == [openssl_dates(pem)]


def test_a_certificate_with_its_key_and_text_around():
    """As kubelet keeps its own."""
    pem, key = make(30)
    assert kube_certificates.validities(b"subject=CN = x\r\n" + pem.replace(b"\n", b"\r\n") + key) == [openssl_dates(pem)]


def test_the_first_one_counts_and_of_authorities_the_last():
    old, new = expired(), make(365)[0]
    now = datetime.datetime.now(UTC)
    assert kube_certificates.describe("/p", "w", old + new, now)["expired"] is True
    assert kube_certificates.describe("/p", "w", new + old, now)["expired"] is False
    assert kube_certificates.describe("/p", "w", old + new, now, authority=True)["expired"] is False


def test_description():
    pem = make(30)[0]
    begin, end = openssl_dates(pem)
    good = kube_certificates.describe("/pki/a.crt", "a's", pem, end - datetime.timedelta(days=6, hours=1))
    assert good == {"path": "/pki/a.crt", "what": "a's", "expires": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "expired": False, "days_left": 6, "problem": None}
    bad = kube_certificates.describe("/pki/a.crt", "a's", pem, end + datetime.timedelta(seconds=1))
    assert bad["expired"] is True and bad["days_left"] == -1
    assert bad["problem"] == "/pki/a.crt (a's) expired on " + end.strftime("%Y-%m-%dT%H:%M:%SZ")
    early = kube_certificates.describe("/pki/a.crt", "a's", pem, begin - datetime.timedelta(hours=1))
    assert early["expired"] is False and "is not valid before" in early["problem"]
    none = kube_certificates.describe("/pki/a.crt", "a's", b"", end)
    assert none["problem"] == "/pki/a.crt (a's) holds no certificate in PEM" and none["expires"] is None
    assert kube_certificates.describe("/pki/a.crt", "a's", "cannot be read: no", end)["problem"] == "/pki/a.crt (a's) cannot be read: no"


def test_a_key_alone_is_no_certificate_and_is_not_shown():
    key = make(30)[1]
    with pytest.raises(CertificateError) as caught:
        kube_certificates.validities(key)
    assert str(caught.value) == "holds no certificate in PEM"


def test_every_cut():
    der = der_of(make(1)[0])
    for length in range(len(der)):
        with pytest.raises(CertificateError):
            kube_certificates.validity_of_der(der[:length])


def element(tag, contents):
    return bytes([tag, len(contents)]) + contents


def certificate(begin, end, tag=0x17):
    validity = element(0x30, element(tag, begin) + element(tag, end))
    return element(0x30, element(0x30, element(2, b"\1") + element(0x30, b"") + element(0x30, b"") + validity))


def test_both_forms_of_time_and_version_1():
    begin, end = kube_certificates.validity_of_der(certificate(b"491231235959Z", b"500101000000Z"))
    assert (begin.year, end.year) == (2049, 1950)
    end = kube_certificates.validity_of_der(certificate(b"20500101000000Z", b"99991231235959Z", tag=0x18))[1]
    assert kube_certificates._iso(end) == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize("time", [b"", b"Z", b"491331000000Z", b"490230000000Z", b"4901010000Z", b"490101000000", b"490101000000+0100", b"\xff" * 13])
def test_times_that_are_none(time):
    with pytest.raises(CertificateError, match="times cannot be read"):
        kube_certificates.validity_of_der(certificate(b"490101000000Z", time))


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80\0\0", b"\x30\x85\0\0\0\0\1\0", b"\x30\x84\xff\xff\xff\xff", b"\x31\0", b"\x30\0", b"\x30\x82\1"])
def test_bad_lengths(der):
    with pytest.raises(CertificateError):
        kube_certificates.validity_of_der(der)


def survives(call, *args):
    try:
        begin, end = call(*args)
        assert begin.tzinfo is UTC and end.tzinfo is UTC
    except CertificateError as exc:
        assert str(exc).startswith("holds ")


@given(st.binary(max_size=300))
@example(b"\x30\x03\x30\x01\xa0")
def test_garbage_gives_one_clear_error(data):
    survives(kube_certificates.validity_of_der, data)
    survives(lambda: kube_certificates.validities(b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----")[0])
    survives(lambda: kube_certificates.validities(b"-----BEGIN CERTIFICATE-----" + data + b"-----END CERTIFICATE-----")[0])


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_one_wrong_byte_gives_one_clear_error_or_another_time(position, byte):
    der = bytearray(der_of(make(1)[0]))
    der[position % len(der)] = byte
    survives(kube_certificates.validity_of_der, bytes(der))


def test_client_certificates_of_kubeconfigs():
    find = kube_certificates.client_certificate
    assert find("users:\n- user:\n    client-certificate: /a/b.pem\n    client-key: /k\n") == ("/a/b.pem", None)
    assert find("    client-certificate: '/a/b.pem'\n") == ("/a/b.pem", None)
    assert find("    client-certificate-data: %s\n" % base64.b64encode(b"pem").decode()) == (None, b"pem")
    assert find('{"users": [{"user": {\n"client-certificate-data": "cGVt"}}]}') == (None, b"pem")
    assert find("    client-certificate-data: cGV\n") == (None, b"")
    assert find("    token: abc\n") == (None, None)
