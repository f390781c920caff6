# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From when until when certificates are valid, with the standard library alone.  Private to this collection.

A certificate is DER: elements of a tag, a length and that many bytes, nested.  Of it only the path to the two times is walked:

    Certificate SEQUENCE
        tbsCertificate SEQUENCE
            [0] version, left out in version 1
            serialNumber INTEGER, signature SEQUENCE, issuer SEQUENCE
            validity SEQUENCE
                notBefore, notAfter     UTCTime (YYMMDDhhmmssZ, to 2049) or GeneralizedTime (YYYYMMDDhhmmssZ)
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_INTEGER, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _VERSION = 0x02, 0x17, 0x18, 0x30, 0xA0


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


def validity_of_der(der):
    """(notBefore, notAfter) of one certificate, as datetimes in UTC; raises CertificateError for anything else."""
    certificate = _Elements(_Elements(der).next(_SEQUENCE)[1])
    body = _Elements(certificate.next(_SEQUENCE)[1])
    if body.peek() == _VERSION:
        body.next(_VERSION)
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):
        body.next(tag)
    validity = _Elements(body.next(_SEQUENCE)[1])
    return tuple(_time(*validity.next(_UTC_TIME, _GENERALIZED_TIME)) for dummy in range(2))


def validities(pem):
    """(notBefore, notAfter) of every certificate in the bytes of a PEM file, in their order; raises CertificateError when there is none."""
    found = []
    for body in _PEM.findall(pem):
        try:
            der = base64.b64decode(b"".join(body.split()), validate=True)
        except binascii.Error:
            raise CertificateError("holds a certificate that is not base64") from None
        found.append(validity_of_der(der))
    if not found:
        raise CertificateError("holds no certificate in PEM")
    return found


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
    match = re.search(r'^\s*"?client-certificate-data"?:\s*"?([A-Za-z0-9+/=]+)', kubeconfig, re.MULTILINE)
    if match:
        try:
            return None, base64.b64decode(match.group(1), validate=True)
        except binascii.Error:
            return None, b""
    match = re.search(r"""^\s*"?client-certificate"?:\s*["']?([^"'\s,]+)""", kubeconfig, re.MULTILINE)
    return (match.group(1) if match else None), None
