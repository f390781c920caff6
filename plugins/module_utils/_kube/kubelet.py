# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What kubelet was told, and whether its container runtime answers.  Private to this collection."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import block_yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import processes

DEFAULT_ENDPOINT = "unix:///run/containerd/containerd.sock"
# What kubeadm's unit of kubelet (10-kubeadm.conf of its packages) reads flags from, in the order in which they are given to it.
FLAGS_FILES = ("/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet")
# With kubeadm 1.34 and later the runtime's socket is in here, and no longer in kubeadm-flags.env (1.34.4 and 1.37.2: phases/kubelet/config.go,
# flags.go). The instance-config.yaml beside it only says what kubeadm puts in here the next time: kubelet does not read it.
CONFIG_FILE = "/var/lib/kubelet/config.yaml"
KUBECONFIG = "/etc/kubernetes/kubelet.conf"
ROOT_DIR = "/var/lib/kubelet"


def parse_flags(words):
    """{name: value} of --name=value, --name value and --name."""
    flags, name = {}, None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            # kubelet takes both (1.37.2: cmd/kubelet/app/server.go, WordSepNormalizeFunc)
            name = name.replace("_", "-")
            flags[name] = value if equals else "true"
            name = None if equals else name
        elif name is not None:
            flags[name], name = word, None
    return flags


def parse_environment(text):
    """The words in the values of a file that systemd reads as EnvironmentFile=."""
    words = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.lstrip().startswith(("#", ";")):
            # a quote that is never closed
            with contextlib.suppress(ValueError):
                words += " ".join(shlex.split(line.partition("=")[2])).split()
    return words


def parse_config(text):
    """The scalars at the top of a KubeletConfiguration, whether YAML or JSON; one that is null there is empty."""
    with contextlib.suppress(ValueError):
        parsed = json.loads(text)
        if isinstance(parsed, dict):
            return {key: value or "" for key, value in parsed.items() if value is None or isinstance(value, str)}
    parsed = block_yaml.parse(text)
    scalars = {key: str(value) for key, value in parsed.items() if isinstance(value, str)} if isinstance(parsed, dict) else {}
    return {key: "" if value in ("null", "~") else value for key, value in scalars.items()}


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _drop_ins(directory):
    """The files of --config-dir in the order in which kubelet merges them: by name, those of directories within it where these stand."""
    found = [os.path.join(here, name) for here, dummy, names in os.walk(directory) for name in names if name.endswith(".conf")]
    return sorted(found, key=lambda path: path.split(os.sep))


class Kubelet:
    """The kubelet of this host: what the running one was started with, else what kubeadm wrote down for it."""

    def __init__(self, proc="/proc", flags_files=FLAGS_FILES, config_file=CONFIG_FILE):
        self.flags = {}
        for process in processes(proc):
            if process.name == "kubelet":
                self.flags = parse_flags(_read(os.path.join(proc, str(process.pid), "cmdline")).split("\0")[1:])
        if not self.flags:
            self.flags = parse_flags([word for path in flags_files for word in parse_environment(_read(path))])
        config_file = self.flags.get("config") or config_file
        self.config = parse_config(_read(config_file))
        if self.config.get("staticPodPath"):
            # from where the file lies (1.37.2: pkg/kubelet/kubeletconfig/configfiles/configfiles.go, resolveRelativePaths)
            self.config["staticPodPath"] = os.path.join(os.path.dirname(config_file), self.config["staticPodPath"])
        # the last file wins, also with nothing, which is the default then; flags win over all of them (1.37.2: cmd/kubelet/app/server.go)
        for path in _drop_ins(self.flags["config-dir"]) if self.flags.get("config-dir") else []:
            self.config.update(parse_config(_read(path)))

    @property
    def runtime_socket(self):
        """Path of the container runtime's socket; empty when it is no socket of this host."""
        endpoint = self.flags.get("container-runtime-endpoint") or self.config.get("containerRuntimeEndpoint") or DEFAULT_ENDPOINT
        path = endpoint[len("unix://") :] if endpoint.startswith("unix://") else endpoint
        return path if path.startswith("/") else ""

    @property
    def static_pods(self):
        """The directory that static Pods are read from; empty if it is not configured."""
        return self.flags.get("pod-manifest-path") or self.config.get("staticPodPath") or ""

    @property
    def root_dir(self):
        return self.flags.get("root-dir") or ROOT_DIR

    @property
    def pod_logs(self):
        """The directory of the Pods' logs, podLogsDir (1.37.2: pkg/kubelet/apis/config/v1beta1/defaults.go)."""
        return self.config.get("podLogsDir") or "/var/log/pods"

    @property
    def kubeconfig(self):
        return self.flags.get("kubeconfig") or KUBECONFIG


def restart(timeout=60):
    """Restart the kubelet of this host; the time at which the new one was started, in seconds since 1970.  Raises ToolError with what the service manager says.

    Static Pods run on meanwhile.
    """
    argv = ["systemctl", "restart", "kubelet"] if os.path.isdir("/run/systemd/system") else ["service", "kubelet", "restart"]
    result = run_tool(argv, timeout)
    if result.rc != 0:
        raise ToolError("kubelet was not restarted: `%s` %s: %s" % (" ".join(argv), result.how(), result.last_words()))
    return time.time()


def runtime_answers(path, timeout=10):
    """Whether a process serves gRPC at this socket.  The kernel alone accepts connections for a server that hangs; HTTP/2 begins with frames of both."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(path)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            return bool(connection.recv(1))
        except (OSError, ValueError):
            return False
