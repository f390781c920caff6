# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fingerprints of what a cluster's data is worthless without, or belongs to.  Private to this collection."""

from __future__ import annotations

import base64
import hashlib
import os
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import block_yaml, certificates as kube_certificates, static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import sha256_of_file

UNREADABLE = "unreadable"
_MOST = 16 * 1024 * 1024
_PUBLIC = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
# How an API server stores what it does not encrypt: as it is.
_PLAIN = "identity"
# Stands for every resource, or every group, that no configuration names.
_ANOTHER = "?"


def fingerprints(manifests_dir="/etc/kubernetes/manifests", pki_dir="/etc/kubernetes/pki"):
    """sha256 of the cluster's CA, etcd's CA, the public service account key and the EncryptionConfiguration, and in `contents` what is in each.

    None stands for a file that is not there, and for a cluster that encrypts nothing.  One that encrypts with a file that
    cannot be found from here says UNREADABLE, which is not the same.

    A file that was only written anew has other bytes and the same contents: of CAs and service account keys a list of what each certificate and key
    hashes to, of the EncryptionConfiguration what provider_ids() has.  None there stands for what is not known.  No key can be told from any of it.
    """
    ambiguous = False
    try:
        pods = static_pods.read_static_pods(manifests_dir)
    except (FileNotFoundError, NotADirectoryError):
        pods = {}
    except ValueError:
        # two manifests of one component, of which only kubelet knows which one counts
        pods, ambiguous = {}, True
    apiserver, etcd = pods.get("kube-apiserver"), pods.get("etcd")
    ca, etcd_ca = apiserver.file("client-ca-file") if apiserver else "", etcd.file("trusted-ca-file") if etcd else ""
    paths = {
        "ca": ca or os.path.join(pki_dir, "ca.crt"),
        "etcd_ca": etcd_ca or os.path.join(pki_dir, "etcd", "ca.crt"),
        "service_account": os.path.join(pki_dir, "sa.pub"),
    }
    found = {name: sha256_of_file(path) for name, path in paths.items()}
    # it may be given several times, and each file may hold several (1.37.2: pkg/kubeapiserver/options/authentication.go)
    accepted = [apiserver.host_path(path) or path for path in apiserver.values("service-account-key-file")] if apiserver else []
    contents = {
        "ca": _authorities(paths["ca"]),
        "etcd_ca": _authorities(paths["etcd_ca"]),
        "service_account": _public_keys(accepted or [paths["service_account"]]),
        "encryption_configuration": None,
    }
    found["encryption_configuration"] = UNREADABLE
    if not ambiguous:
        found["encryption_configuration"], contents["encryption_configuration"] = _encryption_configuration(apiserver)
    return dict(found, contents=contents)


def _read(path):
    """Up to so many bytes; b"" for what cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_MOST)
    except OSError:
        return b""


def _authorities(path):
    try:
        return sorted({hashlib.sha256(kube_certificates.name_and_key(der)).hexdigest() for der in kube_certificates.ders(_read(path))})
    except kube_certificates.CertificateError:
        return None


def _public_keys(paths):
    found = set()
    for path in paths:
        blocks = _PUBLIC.findall(_read(path))
        # of a private key, which may be given as well, nothing is written down
        if not blocks or any(kind not in (b"PUBLIC KEY", b"RSA PUBLIC KEY", b"CERTIFICATE") for kind, _body in blocks):
            return None
        found |= {hashlib.sha256(b"".join(body.split())).hexdigest() for _kind, body in blocks}
    return sorted(found) or None


def _encryption_configuration(apiserver):
    """(sha256 of the file, what provider_ids() makes of it)"""
    if apiserver is None:
        return None, None
    if not apiserver.flags.get("encryption-provider-config"):
        return None, {}
    found = encryption_configuration_file(apiserver)
    return (sha256_of_file(found), provider_ids(_read(found))) if found else (UNREADABLE, None)


def provider_ids(data):
    """{resource as the EncryptionConfiguration names it: ids of all that objects of it may have been stored with}; None when that cannot be told.

    An id is the provider, and the name of its key and a hash of it, or the name of the KMS; what is stored begins with the names (apiserver 0.34.4 to
    0.37.2: pkg/server/options/encryptionconfig/config.go).  Several entries for one resource add up there.
    """
    try:
        text = data.decode("utf-8")
        if block_yaml.doubt(text):
            return None
        found = {}
        for entry in block_yaml.parse(text)["resources"]:
            ids = {one for provider in entry["providers"] for one in _ids(provider)}
            if not ids:
                raise ValueError
            for resource in _listed(entry["resources"]):
                found.setdefault(str(resource), set()).update(ids)
        return {resource: sorted(ids) for resource, ids in sorted(found.items())} or None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _listed(value):
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError
    return value


def _ids(provider):
    """Raises one of what provider_ids() expects for what is no provider."""
    (kind, settings), = provider.items()
    if kind == _PLAIN:
        return [_PLAIN]
    if kind == "kms":
        # v1 when it is not said (pkg/apis/apiserver/v1/defaults.go)
        return ["kms %s %s" % (settings.get("apiVersion") or "v1", settings["name"])]
    if kind not in ("aescbc", "aesgcm", "secretbox"):
        raise ValueError
    named = [(str(key["name"]), base64.b64decode("".join(key["secret"].split()), validate=True)) for key in settings["keys"]]
    return ["%s %s %s" % (kind, name, hashlib.sha256(b"\0".join([kind.encode(), name.encode(), secret])).hexdigest()) for name, secret in named]


def differences(then, now):
    """What of a snapshot's fingerprints speaks against a cluster that has these now.

    foreign     what shows that it was another cluster's: CA, service-account key
    lost        what objects of it may be encrypted with that the cluster does not have: ["secrets (aescbc key1)"]
    unknown     what has other bytes now, while nobody can tell whether the contents differ
    """
    result = {"foreign": [], "lost": [], "unknown": []}
    if not then:
        return result
    ours, theirs = now.get("contents") or {}, then.get("contents") or {}
    for name, words in (("ca", "CA"), ("service_account", "service-account key"), ("encryption_configuration", "EncryptionConfiguration")):
        before, after = then.get(name), now.get(name)
        if before == after or UNREADABLE in (before, after):
            continue
        mine, its = ours.get(name), theirs.get(name)
        if name == "encryption_configuration":
            # of a cluster that encrypts nothing no more is to be said, which an earlier version left out
            its = {} if its is None and name in then and before is None and "contents" not in then else its
        if mine is None or its is None:
            result["unknown"].append(words)
        elif name == "ca":
            # of a bundle that others were added to, or were taken from, one is enough to be the same cluster
            result["foreign"] += [] if set(mine) & set(its) else [words]
        elif name == "service_account":
            # tokens may be signed by each of them
            result["foreign"] += [] if set(its) <= set(mine) else [words]
        else:
            result["lost"] = _lost(its, mine)
    return result


def _lost(then, now):
    lost = []
    for resource, group in _witnesses(then, now):
        missing = _providers(then, resource, group) - _providers(now, resource, group)
        if missing:
            name = "all others" if resource == _ANOTHER else resource + ("." + group if group else "")
            name += " of " + (group or "the core group") if resource == _ANOTHER and group != _ANOTHER else ""
            lost.append("%s (%s)" % (name, ", ".join(sorted(" ".join(one.split(" ")[: 3 if one.startswith("kms ") else 2]) for one in missing))))
    return lost


def _witnesses(*configurations):
    """(resource, group) of each that is named, and one that stands for all others of each group and of no group that is named."""
    pairs = {_pair(name) for configuration in configurations for name in configuration}
    groups = {group for _resource, group in pairs} - {"*"}
    return sorted({pair for pair in pairs if pair[0] != "*"} | {(_ANOTHER, group) for group in groups} | {(_ANOTHER, _ANOTHER)})


def _pair(name):
    resource, _dot, group = name.partition(".")
    return resource, group


def _providers(configuration, resource, group):
    """The first that fits, from the most specific one on: transformerFromOverrides of the same file."""
    by_pair = {}
    for name, ids in configuration.items():
        by_pair.setdefault(_pair(name), set()).update(ids)
    for pair in ((resource, group), ("*", group), ("*", "*")):
        if pair in by_pair:
            return by_pair[pair]
    return {_PLAIN}


def encryption_configuration_file(apiserver):
    """Where the file can be read that this API server's flag names; None when it cannot be found from here."""
    path = apiserver.flags["encryption-provider-config"]
    # as a running one sees it, when its manifest does not say where that is
    inside = ["/proc/%d/root%s" % (process.pid, path) for process in procs.remaining(("kube-apiserver",))]
    mounted = apiserver.host_path(path)
    for candidate in [mounted] if mounted else [path] + inside:
        try:
            if sha256_of_file(candidate):
                return candidate
        except OSError:
            continue
    return None
