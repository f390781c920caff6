# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network in which the copy of a cluster runs during a drill, and how all of it is removed again.  Private to this collection.

kubelet and the container runtime get a network namespace of their own by a drop-in of systemd, and so do the containers in the network of the host.  A link
leads from there to this machine and no further: there is no other route.  The drop-ins outlive a reboot, the namespace does not, so neither of the two starts
outside of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import shutil
import signal
import time
from urllib.parse import urlsplit

from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import machine
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild.source import SERVER
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool

NAMESPACE = "k8s-dr-drill"
NETWORK = "/run/netns/" + NAMESPACE
_OWN_NETWORK = "/proc/self/ns/net"
# Of setns(2); Python has it from 3.12 on.
_CLONE_NEWNET = 0x40000000
_INNER_LINK = "k8s-dr-inner"
# (address of this machine, address of the copy) at the two ends of the link, of ranges for documentation (RFC 5737, RFC 3849), which no one uses.
_IPV4, _IPV6 = ("203.0.113.1", "203.0.113.2"), ("2001:db8:6b38::1", "2001:db8:6b38::2")
_UNITS = "/etc/systemd/system"
_DROP_IN = "90-k8s-dr-drill.conf"
# Each starts containers itself, so that they are in its network.  Docker's are not started by what kubelet asks.
_RUNTIMES = ("containerd", "crio")
_KUBERNETES_DIR = "/etc/kubernetes"
# What of Kubernetes' is in the network of this machine if the isolation failed.
_KUBERNETES = ("kubelet", *machine.COMPONENTS)
# Seconds that processes may take to end once they were killed.
_KILL_SECONDS = 10


def address_like(subnets):
    """The address of the copy, of the family of the first of these ranges: kube-apiserver wants both to be of one."""
    first = subnets.split(",")[0].strip()
    with contextlib.suppress(ValueError):
        if ipaddress.ip_network(first, strict=False).version == 6:
            return _IPV6[1]
    return _IPV4[1]


class Isolation:
    """Of this machine.  timeout: seconds for each command."""

    def __init__(self, timeout):
        self._timeout = timeout

    def _run(self, *argv, allowed=(0,)):
        path = find_tool(argv[0])
        if not path:
            raise Refused("there is no %s on this machine" % argv[0])
        result = run_tool([path, *argv[1:]], self._timeout)
        if result.rc not in allowed:
            raise Refused("`%s` %s: %s" % (" ".join(argv), result.how(), result.last_words()))
        return result

    def runtime(self, socket):
        """The unit of the container runtime.  socket: kubeadm's criSocket, or ""."""
        found = [name for name in _RUNTIMES if self._active(name)]
        if len(found) > 1 and socket:
            found = [name for name in found if name in socket]
        if len(found) != 1:
            raise Refused(
                "a drill needs containerd or CRI-O as the only container runtime that systemd runs, and finds %s; nothing was started"
                % (" and ".join(found) or "neither")
            )
        return found[0]

    def containers(self, socket):
        """Ids of the containers that the container runtime has for Kubernetes, whether they run or not."""
        if self.runtime(socket) == "crio":
            return self._run("crictl", "--runtime-endpoint", socket or "unix:///run/crio/crio.sock", "pods", "--quiet").stdout.split()
        address = ["--address", socket.partition("://")[2] or socket] if socket else []
        return self._run("ctr", *address, "--namespace", "k8s.io", "containers", "list", "--quiet").stdout.split()

    def _active(self, unit):
        return self._run("systemctl", "is-active", unit, allowed=(0, 3, 4)).stdout.strip() == "active"

    # ---- begin

    def begin(self, address, runtime):
        """Refused when the runtime is not isolated by it; release() removes it then, too.  runtime: its unit, which the record has by now."""
        self._run("systemctl", "stop", "kubelet", allowed=(0, 5))
        self._link(address)
        for unit in ("kubelet", runtime):
            directory = _drop_ins(unit)
            os.makedirs(directory, 0o755, exist_ok=True)
            write_durably(os.path.join(directory, _DROP_IN), "[Service]\nNetworkNamespacePath=%s\n" % NETWORK, 0o644)
        self._run("systemctl", "daemon-reload")
        self._run("systemctl", "restart", runtime)
        self._check(runtime)

    def _link(self, address):
        outer, inner = _IPV6 if ":" in address else _IPV4
        length = "/126" if ":" in address else "/30"
        options = ["nodad"] if ":" in address else []
        self._run("ip", "netns", "add", NAMESPACE)
        self._run("ip", "link", "add", NAMESPACE, "type", "veth", "peer", "name", _INNER_LINK, "netns", NAMESPACE)
        self._run("ip", "address", "add", outer + length, "dev", NAMESPACE, *options)
        self._run("ip", "link", "set", NAMESPACE, "up")
        self._run("ip", "-n", NAMESPACE, "address", "add", inner + length, "dev", _INNER_LINK, *options)
        for link in ("lo", _INNER_LINK):
            self._run("ip", "-n", NAMESPACE, "link", "set", link, "up")

    def _check(self, runtime):
        pid = self._run("systemctl", "show", "--property", "MainPID", runtime).stdout.strip().partition("=")[2]
        # systemd before 242 ignores the setting
        if not os.path.samefile("/proc/%s/ns/net" % pid, NETWORK):
            raise Refused("systemd did not start %s in a network of its own, for which it has to be 242 or later; nothing of the cluster was started" % runtime)

    # ---- end

    def release(self, made, state_dir, manifests_dir, ours=False):
        """Remove all that a drill made but its state_dir.  made: what it wrote down when it began.  ours: whether it is the drill of this very run."""
        self._check_owner(made, state_dir, ours)
        try:
            self._remove(made, manifests_dir)
        except (Refused, ToolError, OSError) as exc:
            raise Refused(
                "not all of the drill could be removed: %s. The disk of this machine may still hold keys and Secrets of the cluster. Run the drill again when "
                "that is solved: it removes them first" % (os_error_words(exc) if isinstance(exc, OSError) else exc)
            ) from exc

    def _remove(self, made, manifests_dir):
        self._run("systemctl", "stop", "kubelet", allowed=(0, 5))
        # kubeadm would ask the API server that these name
        for name in machine.KUBECONFIGS:
            _unlink(os.path.join(_KUBERNETES_DIR, name))
        # by the record: an earlier removal may have ended between the drop-in and the restart
        isolated = [made["runtime"]] if made.get("runtime") else []
        started = all(self._active(name) for name in isolated)
        if not started:
            # after a reboot there is no namespace, and no container
            self._lift(isolated)
        reset = ["kubeadm", "reset", "--force"] + (["--cri-socket=" + made["cri_socket"]] if made.get("cri_socket") else [])
        self._run(*reset)
        if started:
            self._lift(isolated)
        if self._end_processes():
            # it only warns of containers that it cannot remove (1.37.2: cmd/kubeadm/app/cmd/phases/reset/cleanupnode.go)
            self._run(*reset)
        self._run("ip", "link", "delete", NAMESPACE, allowed=(0, 1))
        self._run("ip", "netns", "delete", NAMESPACE, allowed=(0, 1))
        for directory in (made["pki_dir"], made["data_dir"]):
            _empty(directory)
        for path in made["files"]:
            _unlink(path)
            with contextlib.suppress(OSError):
                os.removedirs(os.path.dirname(path))
        for path in made.get("created", ()):
            if os.path.lexists(path):
                _remove(path)
        left = machine.remains(os.path.dirname(manifests_dir), manifests_dir, made["pki_dir"], made["data_dir"])
        if left or os.path.lexists(NETWORK):
            raise Refused("; ".join(left or [NETWORK + " exists"]))

    def _check_owner(self, made, state_dir, ours):
        """Refuse to remove what belongs to a cluster of which this machine became a node since the drill."""
        found, drop_ins = [], [os.path.join(_drop_ins(unit), _DROP_IN) for unit in ("kubelet", *_RUNTIMES)]
        for name in machine.KUBECONFIGS:
            path = os.path.join(_KUBERNETES_DIR, name)
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as stream:
                servers = [url for dummy, url in SERVER.findall(stream.read())]
                found += ["%s names %s" % (path, url) for url in servers if urlsplit(url).hostname != made["address"]]
        if not ours:
            # a drill's own run in its network
            found += ["%s runs (process %d)" % (process.name, process.pid) for process in machine.processes() if process.name in machine.COMPONENTS]
        if found:
            raise Refused(
                "this machine is a node of another cluster than the drill's by now: %s. Nothing was removed. If that cluster is in use, take the machine out "
                "of the group of machines for drills, remove %s, and run `systemctl daemon-reload`. If not, run `kubeadm reset --force`, and the drill again"
                % ("; ".join(found), " and ".join([state_dir, *filter(os.path.exists, drop_ins)]))
            )

    def _end_processes(self):
        """Kill what still runs in the network of the drill, as containers that could not be removed do; whether there was something."""
        found, end = False, time.monotonic() + _KILL_SECONDS
        while os.path.lexists(NETWORK):
            left = [int(pid) for pid in self._run("ip", "netns", "pids", NAMESPACE).stdout.split()]
            if not left:
                break
            if os.getpid() in left or time.monotonic() > end:
                raise Refused("process %s in its network does not end; restart the machine" % ", ".join(map(str, left)))
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            found = True
            time.sleep(0.2)
        return found

    def _lift(self, runtimes):
        for unit in ("kubelet", *runtimes):
            _unlink(os.path.join(_drop_ins(unit), _DROP_IN))
            with contextlib.suppress(OSError):
                os.rmdir(_drop_ins(unit))
        self._run("systemctl", "daemon-reload")
        for unit in runtimes:
            self._run("systemctl", "restart", unit)


def enter():
    """Have this process ask nothing outside the network of the drill; returns the network that it left, for check_outside().

    The copy and the living cluster have the same CA, so a certificate does not tell one from the other; out of here the living one cannot be reached.
    """
    left = os.readlink(_OWN_NETWORK)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(NETWORK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(descriptor, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)
    except OSError as exc:
        words = "the network of the drill, %s, cannot be entered (%s), so no API server was asked; run the drill again" % (NETWORK, exc.strerror)
        raise Refused(words) from exc
    if os.readlink(_OWN_NETWORK) == left:
        raise Refused("%s is the network of the machine, and no drill's, so no API server was asked; run the drill again" % NETWORK)
    return left


def check_outside(network):
    """Refused when Kubernetes runs in the network of this machine.  network: as enter() returned it."""
    found = ["%s (process %d)" % (process.name, process.pid) for process in machine.processes(network=network) if process.name in _KUBERNETES]
    if found:
        raise Refused("the drill is not isolated from the network of the machine: %s" % ", ".join(found))


def _drop_ins(unit):
    return os.path.join(_UNITS, unit + ".service.d")


def _unlink(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _empty(directory):
    """Remove what is in a directory, which may be a mount point."""
    for name in os.listdir(directory) if os.path.isdir(directory) else []:
        if name != "lost+found":
            _remove(os.path.join(directory, name))


def _remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
