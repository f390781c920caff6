# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether new Pods of the control plane could start once those of now were stopped: their images, file systems and addresses.

What runs has needed none of it since it started.  Each answer is a sentence for an operator: what, where, and what to do about it.
Private to this collection.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import re
import socket
from urllib.parse import urlsplit

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import processes
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import existing

# Four Pods with their sandboxes, logs and the runtime's own database.
_FEW_INODES, _FEW_BYTES = 256, 16 * 1024 * 1024
# Where a runtime with such a socket keeps what it unpacks, and what runs, where crictl does not say.
_RUNTIME_DIRS = {"containerd": ("/var/lib/containerd", "/run/containerd"), "crio": ("/var/lib/containers", "/run/containers")}
_SECONDS = 5
# Flags with addresses that a component listens at, and those at which it says that others reach it.
_LISTENS = ("bind-address", "listen-client-urls", "listen-client-http-urls", "listen-peer-urls", "listen-metrics-urls")
_ADVERTISES = ("advertise-address", "advertise-client-urls", "initial-advertise-peer-urls")


class Runtime:
    """The container runtime as crictl, which kubeadm's packages bring along, sees it; without crictl nothing is known of images."""

    def __init__(self, path, proc="/proc"):
        """path: of its socket; empty when it does not answer."""
        self.path, self.proc = path, proc
        self.crictl = find_tool("crictl") if path else None
        self.info = self._json("info")

    def _run(self, *args):
        """The ToolResult of crictl, None when it tells nothing."""
        if not self.crictl:
            return None
        endpoint = "unix://" + self.path
        try:
            result = run_tool([self.crictl, "--runtime-endpoint", endpoint, "--image-endpoint", endpoint] + list(args), _SECONDS)
        except ToolError:
            return None
        if result.timed_out:
            # once is enough
            self.crictl = None
        return result

    def _json(self, *args):
        result = self._run(*args)
        try:
            found = json.loads(result.stdout) if result and result.rc == 0 else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def has(self, image):
        """Whether it has an image; None when it does not say."""
        result = self._run("inspecti", "-q", image)
        if result is None or result.rc == 0:
            return None if result is None else True
        # cri-tools 1.37.0: cmd/crictl/image.go
        return False if "no such image" in result.stderr else None

    @property
    def sandbox_image(self):
        """The image of each Pod's sandbox (pause); empty if it is not configured.

        CRI-O and containerd up to 1.7 say it to everybody who asks for their state (cri-o: server/runtime_status.go).  containerd 2 has it in its
        configuration alone (2.4.2: internal/cri/server/podsandbox/sandbox_run.go, getSandboxImageName).
        """
        config = self.info.get("config")
        told = config.get("sandboxImage") if isinstance(config, dict) else ""
        return told if told else self._of_containerd()

    def _of_containerd(self):
        for process in processes(self.proc) if self.path else []:
            if process.name != "containerd" or process.pod:
                continue
            try:
                with open("%s/%d/cmdline" % (self.proc, process.pid), "rb") as stream:
                    given = re.search(r"\0(?:--config|-c)[=\0]([^\0]+)", stream.read().decode("utf-8", "replace"))
                argv = ["%s/%d/exe" % (self.proc, process.pid)] + (["--config", given.group(1)] if given else []) + ["config", "dump"]
                text = run_tool(argv, _SECONDS).stdout
            except (OSError, ToolError):
                continue
            # there may be one of Docker's beside it
            addresses = re.findall(r"""^\s*address = ["']([^"']+)["']""", text, re.MULTILINE)
            image = re.search(r"""^\s*sandbox(?:_image)? = ["']([^"']+)["']""", text, re.MULTILINE)
            if image and os.path.realpath(self.path) in [os.path.realpath(address) for address in addresses]:
                return image.group(1)
        return ""

    @property
    def directories(self):
        """Where it keeps what it unpacks and runs, as far as known."""
        config = self.info.get("config")
        found = [config.get(name) for name in ("containerdRootDir", "stateDir")] if isinstance(config, dict) else []
        result = self._run("imagefsinfo")
        found += re.findall(r'"mountpoint":\s*"([^"]+)"', result.stdout) if result else []
        usual = [path for name, paths in _RUNTIME_DIRS.items() if name in os.path.basename(self.path) for path in paths]
        told = [path for path in dict.fromkeys(found) if isinstance(path, str) and os.path.isdir(path)]
        return told or [path for path in usual if os.path.isdir(path)]


def look(pods, kubelet, runtime):
    """(obstacles, warnings).  pods: {component: StaticPod}."""
    obstacles, warnings = _of_images(pods, runtime)
    obstacles += _of_file_systems(kubelet, runtime)
    for component, pod in sorted(pods.items()):
        obstacles += [
            "%s would listen at %s (--%s), which is not an address of this host, so it could not restart: give the host that address, or change %s"
            % (component, address, flag, pod.path)
            for flag, address in _foreign(pod, _LISTENS)
        ]
        warnings += [
            "%s tells others to reach it at %s (--%s), which is not an address of this host: this needs a proxy or NAT" % (component, address, flag)
            for flag, address in _foreign(pod, _ADVERTISES)
        ]
    return obstacles, warnings


def _of_images(pods, runtime):
    obstacles, warnings = [], []
    wanted = {}
    for component, pod in sorted(pods.items()):
        for image, policy in pod.images:
            if image:
                wanted.setdefault((image, policy or _policy(image)), []).append(component)
    if runtime.sandbox_image:
        wanted[(runtime.sandbox_image, "IfNotPresent")] = ["every Pod's sandbox"]
    for (image, policy), owners in wanted.items():
        whose = "the image %s (of %s)" % (image, ", ".join(owners))
        if policy == "Always":
            warnings.append("%s is fetched from its registry at each start (imagePullPolicy: Always), so nothing starts while that does not answer" % whose)
        elif runtime.has(image) is False:
            if policy == "Never":
                obstacles.append(
                    "%s is not on this node, and is never fetched (imagePullPolicy: Never), so it could not restart: load it, for example "
                    "with ctr -n k8s.io images import" % whose
                )
            else:
                warnings.append("%s is not on this node, and will be fetched from its registry: to be sure, first run crictl pull %s" % (whose, image))
    return obstacles, warnings


def _policy(image):
    """The imagePullPolicy where none is given (1.34.4 and 1.37.2: pkg/apis/core/v1/defaults.go, SetDefaults_Container; pkg/util/parsers)."""
    name, digest, dummy = image.partition("@")
    return "Always" if name.endswith(":latest") or (not digest and re.search(r"(^|/)[^:/]+$", name)) else "IfNotPresent"


def _of_file_systems(kubelet, runtime):
    """What is read-only or full of what a start writes to; several directories of one file system are one finding."""
    places = [("the logs of Pods", kubelet.pod_logs), ("kubelet", kubelet.root_dir)] + [("the container runtime", path) for path in runtime.directories]
    devices = {}
    for what, path in places:
        where = existing(path)
        devices.setdefault(os.stat(where).st_dev, {}).setdefault(what, where)
    found = []
    for names in devices.values():
        where = next(iter(names.values()))
        # all of them run as root, for whom a file system has a reserve
        space = os.statvfs(where)
        what = "the file system of %s" % ", ".join("%s (%s)" % item for item in names.items())
        if space.f_flag & os.ST_RDONLY:
            found.append("%s is mounted read-only, so no Pod would start: find the reason first (dmesg), and then mount it for writing" % what)
        elif (space.f_files and space.f_ffree < _FEW_INODES) or space.f_bfree * space.f_frsize < _FEW_BYTES:
            found.append("%s has less than %d MB or %d inodes free, so no Pod would start: free some space there" % (what, _FEW_BYTES >> 20, _FEW_INODES))
    return found


def _foreign(pod, flags):
    """(flag, address) of addresses that are none of this host's.  Names are not resolved here."""
    found = []
    for flag in flags if pod.host_network else ():
        for value in pod.flags.get(flag, "").split(","):
            try:
                address = str(ipaddress.ip_address(urlsplit(value.strip()).hostname if "://" in value else value.strip()))
            except ValueError:
                continue
            if not is_own(address):
                found.append((flag, address))
    return list(dict.fromkeys(found))


def is_own(address):
    """Whether something on this host could listen at an address; also when that cannot be told."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((address, 0))
    except OSError as exc:
        return exc.errno != errno.EADDRNOTAVAIL
    return True
