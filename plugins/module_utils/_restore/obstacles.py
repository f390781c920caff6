# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would keep a restore from moving what it has to move, or the control plane from starting again, found by looking.

Each answer is a list of sentences for an operator: what, where, and what to do about it.  Private to this collection.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import certificates as kube_certificates
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout, held_directory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import existing

# ioctl FS_IOC_GETFLAGS, _IOR('f', 1, long); what `chattr +i` and `chattr +a` set
_GET_FLAGS = (2 << 30) | (struct.calcsize("l") << 16) | (ord("f") << 8) | 1
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
_FEW_INODES = 32
_FEW_BYTES = 256 * 1024

# Flags of the control plane that name certificates: (component, flag, what it is, whether it is a file of authorities).
CERTIFICATE_FLAGS = (
    ("etcd", "trusted-ca-file", "etcd's CA", True),
    ("etcd", "peer-trusted-ca-file", "the CA of etcd's peers", True),
    ("etcd", "cert-file", "etcd's server certificate", False),
    ("etcd", "peer-cert-file", "etcd's peer certificate", False),
    ("kube-apiserver", "client-ca-file", "the cluster's CA", True),
    ("kube-apiserver", "tls-cert-file", "the API server's certificate", False),
    ("kube-apiserver", "etcd-cafile", "the CA that the API server knows etcd by", True),
    ("kube-apiserver", "etcd-certfile", "the API server's certificate for etcd", False),
    ("kube-apiserver", "kubelet-client-certificate", "the API server's certificate for kubelets", False),
    ("kube-apiserver", "requestheader-client-ca-file", "the front proxy's CA", True),
    ("kube-apiserver", "proxy-client-cert-file", "the API server's front proxy certificate", False),
)
# Flags that name a file without which a component does not start, or does not do its work: of those whose --help speaks of files, in Kubernetes 1.34 to 1.37
# and etcd 3.4 to 3.7 (tests/unit/fixtures/flags-that-name-files.txt).
_NEEDED = re.compile(
    r"(cert|key|ca|crl|config|policy|auth)-?file$|-client-(certificate|key)$|kubeconfig$|"
    r"^(authentication-|authorization-|encryption-provider-|leader-migration-)?config$|"
    r"^kubelet-certificate-authority$|^tls-sni-cert-key$|^pv-recycler-pod-template-filepath-|^auth-token$"
)
# Those of people: nothing on the node needs them.
_ADMINISTRATORS = ("admin.conf", "super-admin.conf")


def seen_by(pod, path):
    """Where this host has a file that a flag of a StaticPod names, which may be mounted from elsewhere.  None when it is nowhere.

    pod: None for what is no Pod.
    """
    mounted = pod.host_path(path) if pod else None
    if mounted:
        return mounted if os.path.exists(mounted) else None
    if os.path.exists(path):
        return path
    inside = ["/proc/%d/root%s" % (process.pid, path) for process in procs.remaining((pod.component,))] if pod else []
    return next((candidate for candidate in inside if os.path.exists(candidate)), None)


def _unmovable(path):
    """Whether `chattr` keeps this very file or directory from being renamed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        flags = struct.unpack("l", fcntl.ioctl(handle, _GET_FLAGS, struct.pack("l", 0)))[0]
        return bool(flags & (_IMMUTABLE | _APPEND_ONLY))
    except OSError:
        # a file system that knows no such thing
        return False
    finally:
        os.close(handle)


def obstacles(pods, manifests_dir, data_dir, static_pods=""):
    """pods: {component: StaticPod}.  static_pods: the directory that kubelet says it reads them from."""
    found = []
    manifests_dir, layout = os.path.realpath(manifests_dir), DataLayout(data_dir)
    if static_pods and os.path.realpath(static_pods) != manifests_dir:
        found.append(
            "kubelet reads static Pods from %s, and not from %s, so moving manifests there would stop nothing: set etcd_client_manifests_dir=%s"
            % (static_pods, manifests_dir, static_pods)
        )
    found += _of_the_data(pods, layout)
    held = os.path.dirname(held_directory(manifests_dir, "x"))
    manifests = [os.path.join(manifests_dir, os.path.basename(pod.path)) for pod in pods.values()]
    for path in manifests:
        if os.path.islink(path):
            # moved away, one that is relative would lead nowhere
            found.append("%s is a symbolic link: put the file itself in its place, with cp --remove-destination %s %s" % (path, os.path.realpath(path), path))
        elif procs.mount_of(path) == path:
            found.append("%s is mounted by itself, so it cannot be renamed: put a plain file in its place" % path)
    moved = manifests + [manifests_dir, held, layout.live, os.path.dirname(layout.live), layout.transactions_dir]
    for path in dict.fromkeys(path for path in moved if _unmovable(path)):
        found.append("%s is immutable or append-only, so nothing can be renamed in or out of it: chattr -i -a %s" % (path, path))
    found += _of_processes(pods, layout)
    return found + _of_file_systems(layout.transactions_dir, held) + _files_that_are_missing(pods)


def _of_the_data(pods, layout):
    found = []
    data_dir, base = layout.data_dir, layout.transactions_dir
    if os.path.lexists(base) and (os.path.islink(base) or not os.path.isdir(base)):
        found.append("%s is not a directory: move it away, since restores of %s are kept there" % (base, data_dir))
    elif layout.crosses_file_systems():
        found.append(
            "%s is a file system of its own, so data cannot be renamed between it and %s: unmount it, or mount one on %s itself" % (base, data_dir, data_dir)
        )
    for name in ("member", "member/snap", "member/wal"):
        path = os.path.join(data_dir, name)
        if procs.mount_of(path) == path:
            found.append("%s is a file system of its own inside etcd's data, which could not be exchanged with it: move it to %s itself" % (path, data_dir))
    etcd = pods.get("etcd")
    for path in etcd.mounted_below(etcd.flags.get("data-dir", "")) if etcd else []:
        found.append(
            "%s mounts something of its own at %s, inside etcd's data, which could not be exchanged with it: move it to %s itself, and drop that mount"
            % (etcd.path, path, data_dir)
        )
    wal = etcd.flags.get("wal-dir") if etcd else None
    if wal and os.path.realpath(etcd.file("wal-dir")) != os.path.join(data_dir, "member", "wal"):
        found.append(
            "etcd keeps its write-ahead log outside its data, in %s (--wal-dir), where it would not be exchanged with it: move it to %s/member/wal and drop "
            "the flag" % (wal, data_dir)
        )
    return found


def _of_processes(pods, layout):
    """What stops and what still runs is known by the Pods' control groups, whose names hold their uids."""
    try:
        used = procs.database_is_locked(layout.database)
    except OSError:
        used = False
    if not used or "etcd" not in pods or procs.remaining(("etcd",), data_dir=pods["etcd"].flags.get("data-dir", "")):
        return []
    return [
        "etcd has its database in %s in use, but no process of it is in a Pod that can be recognised, so its stop cannot be confirmed: does kubelet "
        "keep no control groups for Pods (cgroupsPerQOS: false), or does its manifest set a uid?" % layout.data_dir
    ]


def _of_file_systems(base, held):
    found = []
    for what, path in (("etcd's data", base), ("the manifests", held)):
        where = existing(path)
        space = os.statvfs(where)
        if space.f_flag & os.ST_RDONLY:
            found.append("the file system of %s (%s) is mounted read-only: find the reason first (dmesg), and then mount it for writing" % (what, where))
        elif (space.f_files and space.f_favail < _FEW_INODES) or space.f_bavail * space.f_frsize < _FEW_BYTES:
            found.append("the file system of %s (%s) is full: free some space there" % (what, where))
    return found


def _files_that_are_missing(pods):
    found = []
    for component, pod in sorted(pods.items()):
        # one that is repeated, as --service-account-key-file, names several
        named = [(flag, value) for flag in sorted(pod.flags) if _NEEDED.search(flag) for value in pod.values(flag) or [pod.flags[flag]]]
        for flag, value in named:
            missing = [path for path in _paths(flag, value) if path.startswith("/") and seen_by(pod, path) is None]
            # an unreadable file is not known to be missing
            missing = [path for path in missing if not pod.hides(path) or procs.remaining((component,))]
            found += ["%s (--%s of %s) is missing, so it could not restart: put it back" % (path, flag, component) for path in missing]
    return found


def _paths(flag, value):
    """The files that the value of a flag names."""
    if flag == "tls-sni-cert-key":
        # CERT,KEY or CERT,KEY:NAME,NAME
        return [path.strip() for path in value.partition(":")[0].split(",")]
    if flag == "auth-token":
        # simple, or jwt,pub-key=PATH,priv-key=PATH,...
        return [part.partition("=")[2] for part in value.split(",") if part.startswith(("pub-key=", "priv-key="))]
    return [value]


def certificates(pods, kubeconfig, now):
    """An entry of kube_certificates.describe() for each certificate that the node's control plane and kubelet live on.

    kubeconfig: kubelet's.  now: a datetime in UTC.  A file that a flag names and that is missing is an obstacle, and not listed here.
    Of kubelet only what that kubeconfig names counts: where kubelet rotates its certificate, this is a link to the newest one, and the older ones stay
    beside it for good (1.37.2: client-go's util/certificate/certificate_store.go).  One that has expired keeps kubelet from starting again, even
    with a newer one beside it, since there is no bootstrap-kubelet.conf on such a node (1.37.2: pkg/kubelet/certificate/bootstrap/bootstrap.go).
    What it serves with, kubelet.crt, it makes itself, and goes on with when that has expired (1.37.2: cmd/kubelet/app/server.go, InitializeTLS); the
    API server does not look, since kubeadm gives it no --kubelet-certificate-authority (1.37.2: phases/controlplane/manifests.go).
    """
    entries, known = [], set()

    def add(component, path, what, authority=False):
        where = seen_by(pods.get(component), path)
        if where is not None and path not in known:
            known.add(path)
            entries.append(kube_certificates.describe(path, what, _bytes(where), now, authority))

    for component, flag, what, authority in CERTIFICATE_FLAGS:
        path = pods[component].flags.get(flag, "") if component in pods else ""
        if path.startswith("/"):
            add(component, path, what, authority)
    if "etcd" in pods:
        # no flag names it: kubeadm's own checks and many a backup script use it
        beside = os.path.dirname(pods["etcd"].flags.get("cert-file", ""))
        add("etcd", os.path.join(beside, "healthcheck-client.crt"), "etcd's health check certificate")
    owners = [(component, pods[component].flags.get("kubeconfig", "")) for component in ("kube-controller-manager", "kube-scheduler") if component in pods]
    for component, path in owners + [("kubelet", kubeconfig)]:
        what = component + "'s client certificate"
        where = seen_by(pods.get(component), path) if path else None
        if where is None:
            continue
        named, held = kube_certificates.client_certificate(_bytes(where, b"").decode("utf-8", "replace"))
        if held is not None:
            entries.append(kube_certificates.describe(path, what, held, now))
        elif named:
            named = os.path.join(os.path.dirname(path), named)
            if seen_by(pods.get(component), named) is None:
                entries.append(kube_certificates.describe(named, what, "is missing, although %s names it" % path, now))
            add(component, named, what)
    for name in _ADMINISTRATORS:
        path = os.path.join(os.path.dirname(kubeconfig), name)
        held = kube_certificates.client_certificate(_bytes(path, b"").decode("utf-8", "replace"))[1]
        entry = kube_certificates.describe(path, "an administrator's client certificate", held or b"", now)
        if entry["expires"]:
            entries.append(dict(entry, problem=None))
    return entries


def _bytes(path, otherwise=None):
    """What is in a file, or else the words that say why that cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(4 * 1024 * 1024)
    except OSError as exc:
        return otherwise if otherwise is not None else "cannot be read: %s" % (exc.strerror or exc)
