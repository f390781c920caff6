# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control plane of a node is stopped and started by taking its manifests away from kubelet and giving them back.

Private to this collection.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import listens
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, leader_lease, release_leaders
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.kubelet import Kubelet
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import COMPONENTS, StaticPod, annotated, with_flags
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import TransactionError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import rename_durably, rewrite, sync_directory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import run_tool
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.procs import database_is_locked, remaining, static_pods_begun
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import free_bytes

# kubelet and the runtime need time to see a removed manifest (0.2 s); the API server is not left its 30 s (kubeadm sets no terminationGracePeriodSeconds, and
# it waits up to 60 s for its clients: 0.34.4 and 0.37.2 of apiserver, pkg/server/config.go, ShutdownTimeout).
_KILL_AFTER = 0.5
# An etcd that was asked to end listens no more, and then waits up to 7 s for requests at each of its addresses, and as long for a member to hand its leadership
# to, which are ending as well (3.4.45 to 3.7.3: embed/etcd.go, Close; etcdserver/server.go, Stop; ReqTimeout is 5 s and two election timeouts). What it has
# acknowledged is in its log by then.
_HANDOVER = 2.0
# A kubelet that was started while no API server answered, as after a power failure without a quorum, starts static Pods but never stops one: it
# skips deletions until it has heard of all its Pods (1.34.4 to 1.37.2: pkg/kubelet/kubelet.go, deletePod). From here on it is done for it, as it would:
# first asked, 10 s later killed.
_END_AFTER = 15.0
# A kubelet that has backed off (10 s to 5 min by default: kubelet.go, newCrashLoopBackOff) forgets it when it is restarted. So does one that waits to be rid of
# the mirror Pod of the etcd before (1.37.2: kubelet_pods.go, HandlePodCleanups, in its main loop; kubelet.go, SyncPod): an API server that is alive while etcd
# is not answers it only after 34 s, each time (apiserver 0.34.4 to 0.37.2: pkg/endpoints/handlers/rest.go, requestTimeoutUpperBound). Ours are ended before;
# a load balancer may know others.
_RESTART_KUBELET_AFTER = 8.0
# Another annotation makes another Pod, since kubelet derives a static Pod's uid from its manifest (1.34.4 to 1.37.2: pkg/kubelet/config/common.go,
# applyDefaults): of the one that was stopped a moment ago it still has sandboxes, a status, and a back-off that counts each end as a crash (10, 20, 40 s).
_ANNOTATION = "k8s-dr.etcd/restore"
# kubelet (since 1.22; read in 1.34 to 1.37: pkg/kubelet/pod_workers.go, allowPodStart) starts no static Pod while one of the same name is not gone from its
# workers, and looks again only after 10 to 15 s, or when it hears of yet another Pod of that name. So it is given another annotation, which costs nothing, as
# long as it has not begun. Nearly always the old one is gone within a second, now and then only after three. Growing, in case it has and does not show it.
_GIVE_AGAIN_AFTER = (0.3,) * 8 + (0.4, 0.5, 0.6, 0.8, 1.2)
_POLL = 0.05


class ControlPlane:
    """The static Pods that the plan of a Transaction names: etcd, the API server, and the others, which are its clients.

    Their manifests lie where kubelet reads them, or in the directory `held` of the plan.
    """

    def __init__(self, transaction):
        self._transaction = transaction
        self._plan = transaction.plan
        self._etcd, self._apiserver, *self._others = self._plan["files"]

    def running(self, components, pods=()):
        """The Processes of these components, and all those of the Pods `pods`; an etcd that serves other data is none of them."""
        return remaining(components, pods, "/proc", self._plan.get("served", self._plan["data_dir"]))

    def etcd_runs(self):
        """Whether there is a process of this node's own etcd, whatever it does."""
        return bool(self.running(("etcd",)))

    # -- stop -----------------------------------------------------------------------------------------------------

    def stop(self, timeout):
        """Take the manifests away from kubelet and wait for proof that etcd is gone.

        Raises TransactionError with what still runs after `timeout` seconds.
        """
        plan = self._plan
        pods = {process.pod for process in self.running(COMPONENTS)}
        os.makedirs(plan["held"], mode=0o700, exist_ok=True)
        sync_directory(os.path.dirname(plan["held"]))
        # Files, not the directory: kubelet sees a moved file within 0.2 s, a moved directory at its 20 s poll (1.34.4 to 1.37.2: pkg/kubelet/config,
        # file_linux.go and fileCheckFrequency).
        # The API server first: nothing may be left that writes to an etcd that is going. One that ran on would decide by what it remembers of the old data:
        # quotas of a higher revision win for good (apiserver 0.34.4 to 0.37.2: pkg/admission/plugin/resourcequota/resource_access.go, checkCache), node ports
        # are not read again at a revision that it knows (kubernetes 1.37.2: pkg/registry/core/service/allocator/storage/storage.go, tryUpdate).
        for name in reversed(plan["files"]):
            source = os.path.join(plan["manifests_dir"], name)
            if os.path.exists(source):
                rename_durably(source, os.path.join(plan["held"], name))
        self._wait_until_stopped(pods, timeout)

    def _wait_until_stopped(self, pods, timeout):
        database = self._transaction.layout.database
        start = time.monotonic()
        asked = set()
        while True:
            left = self.running(COMPONENTS, pods)
            elapsed = time.monotonic() - start
            locked = database_is_locked(database)
            listening = [listens(url, 0.5) for url in self._plan["listen_urls"]]
            if not left and not locked and not any(listening):
                return
            if elapsed > timeout:
                names = ", ".join(sorted({"%s (process %d)" % (process.name, process.pid) for process in left})) or "another process"
                raise TransactionError(
                    "%s still ran %d s after kubelet was told to stop the control plane%s; the data was not touched"
                    % (names, timeout, ", and the database is in use" if locked else "")
                )
            for process in left if elapsed > _KILL_AFTER else ():
                # The API server has nothing to save, and would use its whole 30 s of grace.
                kill = process.name == "kube-apiserver" or elapsed > _END_AFTER + 10
                kill = kill or (process.name == "etcd" and elapsed > _HANDOVER and not all(listening))
                if kill or (elapsed > _END_AFTER and process.pid not in asked):
                    asked.add(process.pid)
                    with contextlib.suppress(OSError):
                        os.kill(process.pid, signal.SIGKILL if kill else signal.SIGTERM)
            time.sleep(_POLL)

    # -- start ----------------------------------------------------------------------------------------------------

    def start_etcd(self, serves, timeout, otherwise):
        """Give etcd's manifest back and wait until `serves()` is true.

        Raises TransactionError after `timeout` seconds, in the words `otherwise`.
        """
        self._start(self._etcd, "etcd", serves, timeout, otherwise)

    def start_others(self, timeout, snapshot_revision=0):
        """Give the other manifests back, the API server's first, and wait until that is ready.

        snapshot_revision: controllers need not wait for leaders that nobody has heard of since; 0 where they do.  Raises TransactionError when the API
        server is not ready after `timeout` seconds.
        """
        api = KubeApi(self._pod(self._apiserver), timeout=2)
        self._start(self._apiserver, "kube-apiserver", api.ready, timeout, "the API server at %s was not ready" % api.url)
        if snapshot_revision:
            leases = [leader_lease(self._pod(name)) for name in self._others]
            release_leaders(api, [lease for lease in leases if lease], snapshot_revision)
        # They can do nothing without an API server, and would take the processor from it.
        for name in self._others:
            self.give_back(name)

    def set_etcd_flags(self, flags):
        """Write these flags ({flag: value}) into etcd's manifest, unless kubelet has it already.  Raises ValueError as with_flags does."""
        held = os.path.join(self._plan["held"], self._etcd)
        if os.path.exists(held):
            with open(held, encoding="utf-8") as stream:
                text = stream.read()
            new = with_flags(text, flags)
            if new != text:
                rewrite(held, new)

    def remove_held(self):
        """Remove the directory where the manifests waited, if it is empty.  Never raises."""
        with contextlib.suppress(OSError):
            os.rmdir(self._plan["held"])

    def _places(self, name):
        """(where one of the plan's files waits, where kubelet reads it)."""
        return os.path.join(self._plan["held"], name), os.path.join(self._plan["manifests_dir"], name)

    def _pod(self, name):
        """The StaticPod of one of the plan's files, which kubelet has or not."""
        held, given = self._places(name)
        with open(held if os.path.exists(held) else given, encoding="utf-8") as stream:
            return StaticPod("", stream.read())

    def give_back(self, name, again=0):
        """Have kubelet start this manifest; `again` makes it another Pod than the one it was given before.

        Raises TransactionError when the manifest is nowhere.
        """
        held, given = self._places(name)
        if again:
            rename_durably(given, held)
        if os.path.exists(held):
            self._annotate(held, again)
            rename_durably(held, given)
        elif not os.path.exists(given):
            raise TransactionError("the manifest %s is neither in %s nor in %s" % (name, self._plan["held"], self._plan["manifests_dir"]))

    def _annotate(self, path, again):
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        name = self._transaction.id
        new = annotated(text, _ANNOTATION, "%s.%d" % (name, again) if again else name)
        if new != text:
            rewrite(path, new)

    def _start(self, name, component, condition, timeout, otherwise):
        """Give a manifest back, and again while kubelet puts it off, until what it starts does what it should."""
        kubelet_dir = Kubelet().root_dir
        known = static_pods_begun(kubelet_dir)
        self.give_back(name)
        start = given = time.monotonic()
        restarted, again = False, 0
        while not condition():
            elapsed = time.monotonic() - start
            if elapsed > timeout:
                # etcd ends at its first write then, and says so in a log that nobody reads now
                full = "; the file system of %s is full" % self._transaction.path if free_bytes(self._transaction.path) < 65536 else ""
                raise TransactionError("%s within %d s%s" % (otherwise, timeout, full))
            if restarted or self.running((component,)):
                pass
            elif elapsed > _RESTART_KUBELET_AFTER:
                # costs nothing: there is nothing that it would have to stop
                run_tool(["systemctl", "restart", "kubelet"], 60)
                restarted = True
            elif again < len(_GIVE_AGAIN_AFTER) and time.monotonic() - given > _GIVE_AGAIN_AFTER[again] and static_pods_begun(kubelet_dir) <= known:
                again += 1
                self.give_back(name, again)
                given = time.monotonic()
            time.sleep(_POLL)
