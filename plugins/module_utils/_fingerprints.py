# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fingerprints of what a cluster's data is worthless without, or belongs to.  Private to this collection."""

from __future__ import annotations

import hashlib
import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils import _procs, _static_pod

UNREADABLE = "unreadable"


def sha256_of_file(path):
    """Hex digest of a file of any size, or None when there is no such file."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1024 * 1024), b""):
                digest.update(block)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def fingerprints(manifests_dir="/etc/kubernetes/manifests", pki_dir="/etc/kubernetes/pki"):
    """sha256 of the cluster's CA, etcd's CA, the public service account key and the EncryptionConfiguration.

    None stands for a file that is not there, and for a cluster that encrypts nothing.  One that encrypts with a file that
    cannot be found from here says UNREADABLE, which is not the same.
    """
    ambiguous = False
    try:
        pods = _static_pod.read_static_pods(manifests_dir)
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
    found["encryption_configuration"] = UNREADABLE if ambiguous else _encryption_configuration(apiserver)
    return found


def _encryption_configuration(apiserver):
    if apiserver is None or not apiserver.flags.get("encryption-provider-config"):
        return None
    found = encryption_configuration_file(apiserver)
    return sha256_of_file(found) if found else UNREADABLE


def encryption_configuration_file(apiserver):
    """Where the file can be read that this API server's flag names; None when it cannot be found from here."""
    path = apiserver.flags["encryption-provider-config"]
    # as a running one sees it, when its manifest does not say where that is
    inside = ["/proc/%d/root%s" % (process.pid, path) for process in _procs.remaining(("kube-apiserver",))]
    mounted = apiserver.host_path(path)
    for candidate in [mounted] if mounted else [path] + inside:
        try:
            if sha256_of_file(candidate):
                return candidate
        except OSError:
            continue
    return None
