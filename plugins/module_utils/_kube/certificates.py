# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From when until when certificates are valid and whom they name, with the standard library alone.  Private to this collection.

A certificate is DER: elements of a tag, a length and that many bytes, nested.  Of it only the path to the two times and the subject is walked:

    Certificate SEQUENCE
        tbsCertificate SEQUENCE
            [0] version, left out in version 1
            serialNumber INTEGER, signature SEQUENCE, issuer SEQUENCE
            validity SEQUENCE
                notBefore, notAfter     UTCTime (YYMMDDhhmmssZ, to 2049) or GeneralizedTime (YYYYMMDDhhmmssZ)
            subject SEQUENCE
                SET of SEQUENCE         OBJECT IDENTIFIER, and a string of one of several kinds
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_INTEGER, _OBJECT, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _SET, _VERSION = 0x02, 0x06, 0x17, 0x18, 0x30, 0x31, 0xA0
# UTF8String, PrintableString, T61String, IA5String, BMPString
_STRINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
# 2.5.4.3 and 2.5.4.10, in DER
_COMMON_NAME, _ORGANIZATION = b"\x55\x04\x03", b"\x55\x04\x0a"


class CertificateError(ValueError):
    """What is wrong with a certificate, to follow the name of its file."""


class _Elements:
    """The elements inside one constructed element, one after the other."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def peek(self):
        """The tag of the next element, None at the end."""
        return self.data[self.at] if self.at < len(self.data) else None

    def next(self, *tags):
        """(tag, contents) of the next element, which must have one of these tags."""
        tag = self.peek()
        if tag not in tags or self.at + 2 > len(self.data):
            raise CertificateError("holds no certificate that could be read")
        length, start = self.data[self.at + 1], self.at + 2
        if length >= 0x80:
            # DER knows no indefinite length (0x80), and more than four bytes of length no certificate has
            count = length & 0x7F
            octets = self.data[start : start + count]
            if not 1 <= count <= 4 or len(octets) != count:
                raise CertificateError("holds no certificate that could be read")
            length, start = int.from_bytes(octets, "big"), start + count
        contents = self.data[start : start + length]
        if len(contents) != length:
            raise CertificateError("holds a certificate that is cut off")
        self.at = start + length
        return tag, contents


def _time(tag, contents):
    text = contents.decode("ascii", "replace")
    if tag == _UTC_TIME:
        # by RFC 5280 two digits from 50 on are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    if not re.match(r"^[0-9]{14}Z$", text):
        raise CertificateError("holds a certificate whose times cannot be read")
    try:
        return datetime.datetime(*[int(text[at : at + 2 + 2 * (at == 0)]) for at in (0, 4, 6, 8, 10, 12)], tzinfo=datetime.timezone.utc)
    except ValueError:
        raise CertificateError("holds a certificate whose times cannot be read") from None


def _from_validity_on(der):
    """The elements of one certificate, from its validity on."""
    certificate = _Elements(_Elements(der).next(_SEQUENCE)[1])
    body = _Elements(certificate.next(_SEQUENCE)[1])
    if body.peek() == _VERSION:
        body.next(_VERSION)
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):
        body.next(tag)
    return body


def validity_of_der(der):
    """(notBefore, notAfter) of one certificate, as datetimes in UTC; raises CertificateError for anything else."""
    validity = _Elements(_from_validity_on(der).next(_SEQUENCE)[1])
    return tuple(_time(*validity.next(_UTC_TIME, _GENERALIZED_TIME)) for dummy in range(2))


def ders(pem):
    """Every certificate in the bytes of a PEM file, in their order; raises CertificateError when there is none."""
    try:
        found = [base64.b64decode(b"".join(body.split()), validate=True) for body in _PEM.findall(pem)]
    except binascii.Error:
        raise CertificateError("holds a certificate that is not base64") from None
    if not found:
        raise CertificateError("holds no certificate in PEM")
    return found


def validities(pem):
    """(notBefore, notAfter) of every certificate in the bytes of a PEM file, in their order; raises CertificateError when there is none."""
    return [validity_of_der(der) for der in ders(pem)]


def subject(pem):
    """(common name, [organizations]) of the first certificate in PEM, which is what Kubernetes takes for user and groups; raises CertificateError."""
    body = _from_validity_on(ders(pem)[0])
    body.next(_SEQUENCE)
    name, organizations = "", []
    names = _Elements(body.next(_SEQUENCE)[1])
    while names.peek() is not None:
        several = _Elements(names.next(_SET)[1])
        while several.peek() is not None:
            pair = _Elements(several.next(_SEQUENCE)[1])
            kind = pair.next(_OBJECT)[1]
            tag, contents = pair.next(*_STRINGS)
            text = contents.decode(_STRINGS[tag], "replace")
            if kind == _COMMON_NAME:
                name = text
            elif kind == _ORGANIZATION:
                organizations.append(text)
    return name, organizations


def name_and_key(der):
    """What makes a certificate of a CA the one that others are checked with: its name and its public key, which stay when it is renewed; as DER."""
    body = _from_validity_on(der)
    body.next(_SEQUENCE)
    return b"".join(body.next(_SEQUENCE)[1] for dummy in range(2))


def describe(path, what, pem, now, authority=False):
    """One entry of what etcd_restore_info returns.

    pem: its bytes, or the sentence that says why there are none.  Of several certificates the first one counts, which is the
    owner's; in a file of authorities, the one that lasts longest: while they are exchanged, old and new ones stand in it.
    """
    entry = {"path": path, "what": what, "expires": None, "expired": False, "days_left": None, "problem": None}
    if isinstance(pem, str):
        return dict(entry, problem="%s (%s) %s" % (path, what, pem))
    try:
        found = validities(pem)
    except CertificateError as exc:
        return dict(entry, problem="%s (%s) %s" % (path, what, exc))
    begin, end = max(found, key=lambda pair: pair[1]) if authority else found[0]
    entry["expires"] = _iso(end)
    entry["expired"] = end < now
    entry["days_left"] = (end - now).days
    if entry["expired"]:
        entry["problem"] = "%s (%s) expired on %s" % (path, what, _iso(end))
    elif begin > now:
        entry["problem"] = "%s (%s) is not valid before %s" % (path, what, _iso(begin))
    return entry


def _iso(moment):
    return moment.replace(tzinfo=None).isoformat() + "Z"


def client_certificate(kubeconfig):
    """(path, None) or (None, PEM as bytes) of the client certificate that the text of a kubeconfig names or holds; (None, None) without one."""
    found = _of_kubeconfig(kubeconfig, "client-certificate")
    return (None, found) if isinstance(found, bytes) else (found, None)


def client_pair(kubeconfig):
    """(certificate, key) that the text of a kubeconfig names (a path) or holds (PEM as bytes); None for what is not there."""
    return _of_kubeconfig(kubeconfig, "client-certificate"), _of_kubeconfig(kubeconfig, "client-key")


def authority(kubeconfig):
    """The CA that the text of a kubeconfig names (a path) or holds (PEM as bytes); None without one."""
    return _of_kubeconfig(kubeconfig, "certificate-authority")


def _of_kubeconfig(text, what):
    match = re.search(r"""^\s*(?:- )?["']?%s-data["']?:\s*["']?([A-Za-z0-9+/=]+)""" % what, text, re.MULTILINE)
    if match:
        try:
            return base64.b64decode(match.group(1), validate=True)
        except binascii.Error:
            return b""
    match = re.search(r"""^\s*(?:- )?["']?%s["']?:\s*["']?([^"'\s,]+)""" % what, text, re.MULTILINE)
    return match.group(1) if match else None
