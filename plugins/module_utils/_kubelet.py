# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What kubelet was told, and whether its container runtime answers.  Private to this collection."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shlex
import socket

from ansible_collections.k8s_dr.etcd.plugins.module_utils._procs import processes

DEFAULT_ENDPOINT = "unix:///run/containerd/containerd.sock"
FLAGS_FILE = "/var/lib/kubelet/kubeadm-flags.env"
CONFIG_FILE = "/var/lib/kubelet/config.yaml"
KUBECONFIG = "/etc/kubernetes/kubelet.conf"
ROOT_DIR = "/var/lib/kubelet"


def parse_flags(words):
    """{name: value} of --name=value, --name value and --name."""
    flags, name = {}, None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flags[name] = value if equals else "true"
            name = None if equals else name
        elif name is not None:
            flags[name], name = word, None
    return flags


def parse_config(text):
    """The scalars at the top of a KubeletConfiguration, whether YAML or JSON."""
    with contextlib.suppress(ValueError):
        parsed = json.loads(text)
        if isinstance(parsed, dict):
            return {key: value for key, value in parsed.items() if isinstance(value, str)}
    return dict(re.findall(r"""^([A-Za-z]+):[ \t]*["']?([^"'#\s]+)""", text, re.MULTILINE))


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


class Kubelet:
    """The kubelet of this host: what the running one was started with, else what kubeadm wrote down for it."""

    def __init__(self, proc="/proc", flags_file=FLAGS_FILE, config_file=CONFIG_FILE):
        self.flags = {}
        for process in processes(proc):
            if process.name == "kubelet":
                self.flags = parse_flags(_read(os.path.join(proc, str(process.pid), "cmdline")).split("\0")[1:])
        if not self.flags:
            with contextlib.suppress(ValueError):
                for word in shlex.split(_read(flags_file), comments=True):
                    self.flags.update(parse_flags(word.partition("=")[2].split()))
        self.config = parse_config(_read(self.flags.get("config") or config_file))
        # the last file wins; flags win over all of them
        for path in sorted(glob.glob(os.path.join(self.flags["config-dir"], "*.conf"))) if self.flags.get("config-dir") else []:
            self.config.update(parse_config(_read(path)))

    @property
    def runtime_socket(self):
        """Path of the container runtime's socket; empty when it is no socket of this host."""
        endpoint = self.flags.get("container-runtime-endpoint") or self.config.get("containerRuntimeEndpoint") or DEFAULT_ENDPOINT
        path = endpoint[len("unix://") :] if endpoint.startswith("unix://") else endpoint
        return path if path.startswith("/") else ""

    @property
    def static_pods(self):
        """The directory that static Pods are read from; empty when nobody says."""
        return self.flags.get("pod-manifest-path") or self.config.get("staticPodPath") or ""

    @property
    def root_dir(self):
        return self.flags.get("root-dir") or ROOT_DIR

    @property
    def kubeconfig(self):
        return self.flags.get("kubeconfig") or KUBECONFIG


def runtime_answers(path, timeout=10):
    """Whether somebody serves gRPC at this socket.  The kernel alone accepts connections for a server that hangs; HTTP/2 begins with frames of both."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(path)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            return bool(connection.recv(1))
        except (OSError, ValueError):
            return False
