# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine of a rebuild: its programs, its addresses, what is left of another cluster, a rebuild that is unfinished.  Private to this collection."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import version_tuple
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import kubelet
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import COMPONENTS
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.data import MARK
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.manifests import described
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import processes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

RECORD = "record.json"
# The run of the playbook that has the machine.
_RUN = "run"
KUBECONFIGS = ("admin.conf", "super-admin.conf", "kubelet.conf", "bootstrap-kubelet.conf", "controller-manager.conf", "scheduler.conf")
# Addresses for documentation (RFC 5737, RFC 3849): nothing is sent to them, and the kernel says which of its own it would send from.
_FAR = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))
# None of them is data of an etcd.
_OWN_FILES = ("lost+found", MARK)
# Types of host paths that need not be there.
_MADE = ("", "DirectoryOrCreate", "FileOrCreate")


def programs(timeout):
    """({kubeadm, kubelet: path}, {kubeadm, kubelet: "v1.37.2"}), both "" of one that is not there; raises ToolError when one does not say its version."""
    paths, versions = {}, {}
    for name, words in (("kubeadm", ("version", "-o", "short")), ("kubelet", ("--version",))):
        paths[name], versions[name] = find_tool(name) or "", ""
        if paths[name]:
            result = run_tool([paths[name], *words], timeout)
            numbers = version_tuple(result.stdout) if result.rc == 0 else ()
            if not numbers:
                raise ToolError("`%s` %s: %s" % (" ".join([name, *words]), result.how(), result.last_words()), result)
            versions[name] = "v%d.%d.%d" % numbers
    return paths, versions


def hostname():
    """As kubelet calls the node (1.37.2: pkg/util/node/node.go, GetHostname)."""
    return socket.gethostname().strip().lower()


def default_address():
    """The address that this machine sends from by its default route; "" without one."""
    for family, far in _FAR:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return probe.getsockname()[0]
    return ""


def has_address(address):
    """Whether it is one of this machine's."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
        return True
    except OSError:
        return False


def addresses_of(host):
    """What a name stands for on this machine; an address stands for itself."""
    try:
        return sorted({found[4][0] for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError):
        return []


def remains(kubernetes_dir, manifests_dir, pki_dir, data_dir, kubelet_dir=kubelet.ROOT_DIR):
    """What is left of a cluster on this machine, as sentences without a full stop; the rebuild of one needs a machine without them."""
    found = []
    for process in processes():
        if process.name in COMPONENTS:
            found.append("%s runs (process %d)" % (process.name, process.pid))
    paths = [os.path.join(kubernetes_dir, name) for name in KUBECONFIGS]
    # others, as kube-vip, may be there before
    paths += [os.path.join(manifests_dir, component + ".yaml") for component in COMPONENTS]
    paths += _files_below(pki_dir)[:3]
    paths += [os.path.join(kubelet_dir, "pki", "kubelet-client-current.pem")]
    paths += [path for path in [data_dir.rstrip("/") + ".restore"] if os.path.isdir(path)]
    paths += _inside(data_dir)
    return found + ["%s exists" % path for path in paths if os.path.lexists(path)]


def occupied(manifests_dir, kubelet_dir=kubelet.ROOT_DIR):
    """What else `kubeadm reset` would remove, as sentences without a full stop; a drill needs a machine without it."""
    found = [os.path.join(manifests_dir, name) for name in (sorted(os.listdir(manifests_dir)) if os.path.isdir(manifests_dir) else [])]
    return ["%s exists" % path for path in found + _files_below(kubelet_dir)[:3]]


def to_be_made(manifests):
    """The host paths that kubelet or the runtime would make for these manifests (as preview() returns them), since they are not there."""
    volumes = [volume for component in ("etcd", "kube-apiserver") for volume in manifests[component]["volumes"]]
    # of no type: containerd and CRI-O make a directory
    return sorted({one["hostPath"] for one in volumes if one["pathType"] in _MADE and not os.path.lexists(one["hostPath"])})


def _files_below(directory):
    return sorted(os.path.join(parent, name) for parent, _directories, names in os.walk(directory) for name in names)


def _inside(directory):
    try:
        return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name not in _OWN_FILES]
    except (FileNotFoundError, NotADirectoryError):
        return []


def record(state_dir):
    """What an unfinished rebuild wrote down when it began; {} without one."""
    try:
        with open(os.path.join(state_dir, RECORD), encoding="utf-8") as stream:
            found = json.load(stream)
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused("%s of an earlier rebuild cannot be read; look at it, and remove it" % os.path.join(state_dir, RECORD))
    return found


def write_record(state_dir, made):
    write_durably(os.path.join(state_dir, RECORD), json.dumps(made, indent=4, sort_keys=True) + "\n")


def taken_over(state_dir, run):
    """Whether another run of the playbook than this one has the machine, or may have it in a moment; not for a run "", which takes it over."""
    try:
        with open(os.path.join(state_dir, _RUN), encoding="utf-8") as stream:
            return bool(run) and stream.read().strip() != run
    except FileNotFoundError:
        return bool(run)


def preview(configuration, timeout, ignored=None):
    """What kubeadm would do with this configuration: {manifests: {component: described()}, preflight: what its checks find wrong}.

    Raises ToolError with what it says against the configuration.  Nothing outside a temporary directory is written, and that is removed.
    ignored: names of checks whose errors do not count; None: nothing is checked.
    """
    kubeadm = find_tool("kubeadm")
    if not kubeadm:
        raise ToolError("there is no kubeadm on this machine")
    with WorkDir("/run") as work:
        path, directory = os.path.join(work.path, "kubeadm.yaml"), os.path.join(work.path, "manifests")
        os.mkdir(directory, 0o700)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(configuration)
        # where kubeadm writes instead (1.37.2: cmd/kubeadm/app/constants/constants.go, EnvVarInitDryRunDir)
        os.environ["KUBEADM_INIT_DRYRUN_DIR"] = directory

        def dry_run(*words):
            return run_tool([kubeadm, "init", "phase", *words, "--dry-run", "--config", path], timeout)

        for phase in (("etcd", "local"), ("control-plane", "all")):
            result = dry_run(*phase)
            if result.rc != 0:
                raise ToolError("kubeadm does not take the configuration of the cluster: %s" % _words(result), result)
        found = {"manifests": {}, "preflight": []}
        for component in COMPONENTS:
            with open(os.path.join(directory, component + ".yaml"), encoding="utf-8") as stream:
                found["manifests"][component] = described(stream.read())
        if ignored is not None:
            result = dry_run("preflight", "--ignore-preflight-errors=" + ",".join(ignored))
            if result.rc != 0:
                found["preflight"] = re.findall(r"\[ERROR ([^\n]+)", result.stderr) or [_words(result)]
    return found


def _words(result):
    """What kubeadm says that is wrong; its last line is about a stack trace."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip() and not line.startswith(("To see the stack trace", "W", "I"))]
    return " ".join(lines)[:600] or result.last_words()
