# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's processes and mounts as /proc shows them, whatever container runtime made them.  Private to this collection."""

from __future__ import annotations

import fcntl
import glob
import os
import re

# kubelet's cgroup of a Pod, with the cgroupfs driver (.../pod<uid>/...) and with systemd's (...-pod<uid>.slice/...);
# a static Pod's uid is 32 hex digits (up to 1.34 an MD5, from 1.35 on an FNV-1a: pkg/kubelet/config/common.go), an ordinary one a UUID whose dashes systemd
# turns into underscores.
_POD = re.compile(r"pod([0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?=[./]|$)")


class Process:
    """One process: `pid`, the name it was started by, the uid of its Pod, if it belongs to one, and what its command line calls --data-dir."""

    def __init__(self, pid, name, pod, data_dir=""):
        self.pid = pid
        self.name = name
        self.pod = pod
        self.data_dir = data_dir

    def serves_other(self, data_dir):
        """Whether it is another etcd, such as Calico's, which must be left alone; one without a sign of that counts as the control plane's."""
        return bool(self.name == "etcd" and self.data_dir and data_dir) and os.path.realpath(self.data_dir) != os.path.realpath(data_dir)


def _read(path):
    with open(path, "rb") as stream:
        return stream.read().decode("utf-8", "replace")


def _data_dir(arguments):
    for number, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "data-dir" and argument.startswith("-"):
            return value if equals else "".join(arguments[number + 1 : number + 2])
    return ""


def processes(proc="/proc", network=""):
    """Every live process that shares this host's network, as static Pods of a control plane do.

    On a machine that hosts kind nodes or other containers this leaves out the processes of theirs.
    network: what /proc/self/ns/net led to, for a process that has left that network.
    """
    found = []
    network = network or os.readlink(os.path.join(proc, "self/ns/net"))
    for entry in os.listdir(proc):
        if not entry.isdigit():
            continue
        base = os.path.join(proc, entry)
        try:
            arguments = _read(base + "/cmdline").split("\0")
            if not arguments[0] or os.readlink(base + "/ns/net") != network:
                continue
            pod = _POD.search(_read(base + "/cgroup"))
        except OSError:
            # it ended while we looked
            continue
        found.append(Process(int(entry), os.path.basename(arguments[0]), pod.group(1) if pod else None, _data_dir(arguments)))
    return found


def remaining(names, pods=(), proc="/proc", data_dir=""):
    """The processes of any Pod that are called one of `names`, and all those of the Pods `pods` (their sandboxes included).

    data_dir: what the manifest's --data-dir is; an etcd that serves another one is none of them.
    """
    found = [process for process in processes(proc) if process.pod]
    return [process for process in found if process.pod in pods or (process.name in names and not process.serves_other(data_dir))]


def static_pods_begun(kubelet_dir="/var/lib/kubelet", cgroups="/sys/fs/cgroup"):
    """The uids of all static Pods that kubelet has begun to start and not yet forgotten.

    SyncPod of kubelet (1.34 to 1.37: pkg/kubelet/kubelet.go) first makes the Pod's control group, and, where it has none (cgroupsPerQOS: false) or a moment
    later, its directory.  Control groups of version 1 are in one hierarchy for each resource, and below a parent of their own on kind's nodes.
    """
    names = glob.glob(os.path.join(glob.escape(kubelet_dir), "pods", "*"))
    for parent in ("", "*/", "*/*/"):
        for classes in ("", "*/"):
            names += glob.glob("%s/%s*kubepods*/%s*pod*" % (glob.escape(cgroups), parent, classes))
    found = (re.search(r"^(?:.*-)?(?:pod)?([0-9a-f]{32})(?:\.slice)?$", os.path.basename(name)) for name in names)
    return {match.group(1) for match in found if match}


def kubelet_is_running():
    return any(process.name == "kubelet" for process in processes())


def age(pid, proc="/proc"):
    """Seconds since a process started; 0 when it is gone."""
    try:
        # the name, in parentheses, may hold anything
        start = int(_read("%s/%d/stat" % (proc, pid)).rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0
    return float(_read(os.path.join(proc, "uptime")).split()[0]) - start


def kubelet_backs_off(names, proc="/proc", logs="/var/log/pods"):
    """Whether kubelet may delay the next start of one of the static Pods `names`.

    It keeps a back-off of 10 s to 5 min in memory, for up to 10 minutes after it had to start a container again (1.34.4 to 1.37.2: pkg/kubelet/kubelet.go,
    crashLoopBackOff): when one is not running now, or when it was this very kubelet that lately started one which had run before.
    """
    running = processes(proc)
    kubelet = max([age(process.pid, proc) for process in running if process.name == "kubelet"] or [0])
    for name in names:
        ages = [age(process.pid, proc) for process in running if process.name == name and process.pod]
        if not ages or (min(ages) < 600 and min(ages) < kubelet and _ran_before(name, logs)):
            return True
    return False


def _ran_before(name, logs):
    """Whether this is not the first container of the static Pod.  True when there are none to see.

    kubelet numbers their logs from 0 (1.34.4 to 1.37.2: pkg/kubelet/kuberuntime/kuberuntime_container.go, calcRestartCountByLogDir).
    """
    found = glob.glob(os.path.join(logs, "kube-system_%s-*" % name, name, "*.log"))
    numbers = [int(number) for number in (os.path.basename(path)[: -len(".log")] for path in found) if number.isdigit()]
    return not numbers or max(numbers) > 0


def database_is_locked(path):
    """Whether a process, in any container and under any name, holds the bolt database at `path`.

    etcd holds an exclusive flock on the file's inode for as long as it runs (bbolt 1.3.12 to 1.5.0: db.go, flock); it follows a rename.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def mount_of(path):
    """The mount point that holds `path`, which need not exist.

    From the kernel's table: a bind mount has the device of what it shows, so os.path.ismount() does not see it, but
    rename(2) does not cross it.
    """
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        # blanks are written as \\040
        points = {re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), line.split(" ")[4]) for line in stream}
    path = os.path.realpath(path)
    while path not in points and path != "/":
        path = os.path.dirname(path)
    return path
