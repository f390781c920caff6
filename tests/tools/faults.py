# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults at a chosen state of a restore.

The collection has no hooks for tests.  What stops it at a state lies in the node for as long as a test needs it: Python's
os.rename and the command mv, which is how states become durable, wait there after they have written the wanted one.

    /run/failpoint/die      state at which the process that wrote it ends with SIGKILL
                   hold     state at which it waits; the first to get there takes the file away
                   reached  is there from then on
                   go       lets it go on, or ends it with SIGKILL when that is what it says
                   moves    a number: the script that calls mv for that many a time ends with SIGKILL when it has moved

Of several nodes that vote, two moments that are no states have names too: `voted`, before a node asks what all have decided, and
`decided`, when it knows.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from cluster import SandboxError, wait_for
from restore_sandbox import DATA, Cluster, Transaction

MANIFESTS = ["etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"]

# `begun` counts from plan.json on: without it, the directory is not taken for a restore.
PYTHON = r"""
import os, signal, subprocess, time
P = "/run/failpoint/"
real = os.rename
asked = False
def wanted(name, state):
    try:
        with open(P + name) as stream:
            return stream.read().strip() == state
    except OSError:
        return False
def at(state):
    if wanted("die", state):
        os.unlink(P + "die")
        os.kill(os.getpid(), signal.SIGKILL)
    if wanted("hold", state):
        os.unlink(P + "hold")
        open(P + "reached", "w").close()
        end = time.time() + 300
        while not os.path.exists(P + "go") and time.time() < end:
            time.sleep(0.05)
        if wanted("go", "die"):
            os.kill(os.getpid(), signal.SIGKILL)
def rename(source, target, **kw):
    real(source, target, **kw)
    path = os.fspath(target)
    if not isinstance(path, str) or ".restore" not in path:
        return
    base = os.path.basename(path)
    if base == "plan.json":
        at("begun")
    elif base == "state":
        with open(path) as stream:
            state = stream.read().split(" ")[0].strip()
        if state != "begun":
            at("decided" if state == "committing" and asked else state)
class Popen(subprocess.Popen):
    def __init__(self, args, *rest, **kw):
        global asked
        if isinstance(args, list) and args[-1] == "--timer" and args[-2].endswith("/decide"):
            at("voted")
            asked = True
        super().__init__(args, *rest, **kw)
if os.path.isdir(P):
    os.rename = rename
    subprocess.Popen = Popen
"""
MV = r"""#!/bin/sh
# stands before the real one, see tests/tools/faults.py
p=/run/failpoint
/usr/bin/mv "$@" || exit
[ ! -e $p/moves ] || {
  left=$(($(cat $p/moves) - 1)); echo $left >$p/moves
  [ $left -gt 0 ] || { rm $p/moves; kill -9 $PPID; exit; }
}
for target; do :; done
case $target in */state) read -r state rest <"$target";; *) exit 0;; esac
[ "$(cat $p/hold 2>/dev/null)" = "$state" ] || exit 0
rm $p/hold; : >$p/reached
n=0; until [ -e $p/go ] || [ $n -ge 3000 ]; do sleep 0.1; n=$((n + 1)); done
[ "$(cat $p/go 2>/dev/null)" != die ] || kill -9 $PPID
"""
INSTALL = r"""
set -e
rm -rf /run/failpoint; mkdir -p /run/failpoint
d=$(/usr/bin/python3 -c 'import site; print(site.getsitepackages()[0])'); mkdir -p "$d"
cat >"$d/failpoint_k8s_dr.py"
echo 'import failpoint_k8s_dr' >"$d/failpoint_k8s_dr.pth"
"""
REMOVE = r"""
rm -rf /run/failpoint /usr/local/bin/mv
d=$(/usr/bin/python3 -S -c 'import site; print(site.getsitepackages()[0])')
rm -f "$d"/failpoint_k8s_dr.*
"""
# To the last byte: what is left when there is no room for a block any more is nothing that could be written to.
FILL = r"""
cd %s
fallocate -l $(($(stat -f -c '%%a * %%S' .))) filler 2>/dev/null || :
for size in 1M 4k 1k 1; do
  [ $(stat -f -c %%a .) = 0 ] || dd if=/dev/zero of=filler bs=$size oflag=append conv=notrunc 2>/dev/null || :
done
sync
[ $(stat -f -c %%a .) = 0 ]
""" % DATA
# A disk that failed may have lost the state's text, see Transaction.state() of the collection.
STATE = r"tail -qn 1 $d/log $d/state 2>/dev/null | tr -d '\0' | grep . | tail -n 1"
FORGET = r"""
rm -rf %s/.restore/*/
systemctl stop 'etcd-restore-*.timer' 'etcd-restore-*.service'
cd /etc/systemd/system; rm -f etcd-restore-* *.wants/etcd-restore-*; systemctl daemon-reload; systemctl reset-failed 'etcd-restore-*' 2>/dev/null || :
""" % DATA
# as one would see it on the disk, whatever has become of the processes
FACTS = r"""
cd %s
for d in .restore/*/; do [ ! -e $d/plan.json ] || echo "transaction ${d%%/} $(%s)"; done
for d in .restore/*/; do ! grep -q '^swapped ' $d/log 2>/dev/null || [ -e $d/old ] || echo "undone $(ls -d $d/undone.1/snap/db)"; done
find * .restore -inum $INODE -path '*/snap/db' 2>/dev/null | sed 's/^/inode /'
ls -A /etc/kubernetes/manifests | sed 's/^/manifest /'
ls -d /etc/kubernetes/manifests?* /etc/kubernetes/manifests/.restore* 2>/dev/null | sed 's/^/held /'
ls -d /etc/systemd/system/etcd-restore-* /etc/systemd/system/*.wants/etcd-restore-* 2>/dev/null | sed 's/^/unit /'
systemctl list-timers --all --no-legend 'etcd-restore-*' | sed 's/^/armed /'
sha256sum $SNAPSHOT | sed 's/^/sha256 /'
stat -f -c 'free %%a' .
echo "kubelet $(systemctl is-active kubelet)"
""" % (DATA, STATE)

MEMBER_FACTS = r"""
cd %s.restore 2>/dev/null && for d in *; do [ ! -e $d/plan.json ] || echo "transaction $d $(%s)"; done
find %s %s.restore -inum $INODE -path '*/snap/db' 2>/dev/null | sed 's/^/inode /'
ls -A /etc/kubernetes/manifests | sed 's/^/manifest /'
ls -d /etc/kubernetes/manifests?*/* 2>/dev/null | sed 's/^/held /'
ls -d /etc/systemd/system/etcd-restore-* /etc/systemd/system/*.wants/etcd-restore-* 2>/dev/null | sed 's/^/unit /'
systemctl list-timers --all --no-legend 'etcd-restore-*' | sed 's/^/armed /'
""" % (DATA, STATE, DATA, DATA)
SSH_RULES = (("INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP"), ("OUTPUT", "-p", "tcp", "--sport", "22", "-j", "DROP"))
CUT_PEERS = r"""
set -e
iptables -w -N CUT-PEERS
for port in 2379 2380 6443; do iptables -w -A CUT-PEERS -p tcp --dport $port -j DROP; done
for other in $1; do iptables -w -I INPUT -s $other -j CUT-PEERS; iptables -w -I OUTPUT -d $other -j CUT-PEERS; done
"""
HEAL_PEERS = r"""
iptables -w -S 2>/dev/null | grep -e '-j CUT-PEERS' | sed 's/^-A/-D/' | while read -r rule; do iptables -w $rule; done
iptables -w -F CUT-PEERS 2>/dev/null && iptables -w -X CUT-PEERS || :
"""


class FaultyCluster(Cluster):
    """A cluster of one node with a data disk of its own, and faults, which hit `node`."""

    node = "cp1"
    # minutes by which move_clock() has moved the clock
    moved = 0
    # where its restores lie, below the data directory that is a mount point
    restores = DATA + "/.restore"

    def on(self, host):
        """The same cluster, with faults that hit another node."""
        other = copy.copy(self)
        other.node = host
        return other

    def transactions(self, host=None):
        """As Cluster's, of what was begun."""
        script = "cd %s 2>/dev/null && for d in *; do [ ! -e $d/plan.json ] || echo $d $(%s); done || :" % (self.restores, STATE)
        lines = self.run(host or self.node, "sh", "-c", script).splitlines()
        return [Transaction("%s/%s" % (self.restores, line.split()[0]), *line.split()[:2]) for line in lines]

    def facts(self, inode="0", snapshot="/dev/null"):
        """{kind: [rest of the line]} of FACTS."""
        found = {}
        text = self.run(self.node, "env", "INODE=" + inode, "SNAPSHOT=" + snapshot, "sh", "-c", FACTS)
        for line in text.splitlines():
            kind, dummy, rest = line.partition(" ")
            found.setdefault(kind, []).append(rest)
        return found

    # -- what a snapshot holds and what not -----------------------------------------------------------------------

    marks_each = 4

    def mark(self, *sides):
        """Objects of two kinds for each side."""
        objects = []
        for side in sides:
            for kind in ("ConfigMap", "Secret"):
                for number in range(self.marks_each // 2):
                    name = {"name": "%s-%d" % (side, number), "namespace": self.namespace, "labels": {"side": side}}
                    objects.append({"apiVersion": "v1", "kind": kind, "metadata": name})
        self.apply(*objects)

    def unmark(self, side):
        """Delete them."""
        self.kubectl("-n", self.namespace, "delete", "configmap,secret", "-l", "side=" + side)

    def marks(self):
        """{side: how many of its objects there are}."""
        found = {}
        for line in self.kubectl("-n", self.namespace, "get", "configmap,secret", "-l", "side", "-L", "side", "--no-headers").splitlines():
            if line.strip():
                found[line.split()[-1]] = found.get(line.split()[-1], 0) + 1
        return found

    def start_pod(self):
        """A new Pod runs, which takes the whole control plane and the node."""
        spec = self.workload("probe", self.namespace, "marker-probe")["spec"]["template"]["spec"]
        name = "probe-%d" % time.time()
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.namespace}, "spec": spec})
        wait_for(lambda: self.processes(self.node, "marker-probe"), 120, "a new Pod runs")
        self.kubectl("-n", self.namespace, "delete", "pod", name, "--grace-period=0", "--force")
        self.wait_gone("marker-probe")

    def recover(self):
        """From whatever a test left: a cluster that serves, with no trace of a restore but the ids that the cluster had."""
        if not self._is_on():
            self.power("on", self.node)
            time.sleep(5)
        self.run(self.node, "sh", "-c", "mkdir -p /run/failpoint; cd /run/failpoint; rm -f *; touch go")
        self.heal_ssh()
        if self.moved:
            self.move_clock(-self.moved)
        self.free_disk()
        self.run(self.node, "systemctl", "start", "containerd")
        # The back-off of what crashed, which the next restore would wait for before it begins.
        self.run(self.node, "systemctl", "restart", "kubelet")
        for transaction in self.transactions():
            if transaction.state not in ("committed", "rolled-back"):
                self.run(self.node, transaction.path + "/rollback", timeout=700)
        self.wait_ready()
        self.run(self.node, "sh", "-c", FORGET)

    def _is_on(self):
        return subprocess.run(self._argv(self.node, ["true"]), capture_output=True, check=False).returncode == 0

    # -- the failpoint --------------------------------------------------------------------------------------------

    def install_failpoint(self):
        """Into the node's own Python and before its mv; nothing happens yet."""
        self.run(self.node, "sh", "-c", INSTALL, stdin=PYTHON)
        self.run(self.node, "sh", "-c", "cat >/usr/local/bin/mv; chmod 755 /usr/local/bin/mv", stdin=MV)

    def remove_failpoint(self):
        """Whatever waits goes on."""
        self.run(self.node, "sh", "-c", "mkdir -p /run/failpoint; touch /run/failpoint/go; sleep 0.3" + REMOVE)

    def hold_at(self, state, die=None):
        """The next that comes to `state` waits there; before that, the module that comes to the state `die` dies of it."""
        script = "mkdir -p /run/failpoint; cd /run/failpoint; rm -f *; echo %s >hold" % state
        self.run(self.node, "sh", "-c", script + ("; echo %s >die" % die if die else ""))

    def kill_after_moves(self, number):
        """The script that calls mv dies after so many times."""
        self.run(self.node, "sh", "-c", "mkdir -p /run/failpoint; cd /run/failpoint; rm -f *; echo %d >moves" % number)

    def wait_held(self, run, timeout):
        """Until a process waits there; fails when the playbook ends before."""
        watch = self.start(self.node, "until [ -e /run/failpoint/reached ]; do sleep 0.1; done")
        try:
            wait_for(lambda: watch.poll() is not None or run.ended(), timeout, "the restore gets to the state")
            if watch.poll() is None:
                raise SandboxError("the restore ended before the state:\n" + run.output()[-3000:])
        finally:
            watch.kill()
            watch.communicate()

    def let_go(self, die=False):
        """It goes on, or it dies."""
        script = "cd /run/failpoint && echo %s >go.new && mv go.new go" % ("die" if die else "")
        self.run(self.node, "sh", "-c", script)

    # -- faults ---------------------------------------------------------------------------------------------------

    def fill_disk(self):
        """Not a byte is left on the data disk."""
        self.run(self.node, "sh", "-c", FILL)

    def free_disk(self):
        """What an operator would do who does not wait for the back-off of what crashed.

        An API server without its etcd keeps a kubelet that starts waiting for 40 s.
        """
        again = "kill -9 $(pidof kube-apiserver); systemctl restart kubelet"
        self.run(self.node, "sh", "-c", "[ ! -e %s/filler ] || { rm %s/filler; %s; }" % (DATA, DATA, again))

    def cut_ssh(self, run):
        """No packet of it comes in or goes out any more, not even for what is connected: the result of what runs does not get out either."""
        if not self.has_ssh():
            run.cut(self.nodes[self.node])
            return
        for rule in SSH_RULES:
            self.run(self.node, "iptables", "-w", "-I", *rule)

    def has_ssh(self):
        """Or does something stand in for it?"""
        return "/node-ssh" not in self.inventory.read_text()

    def heal_ssh(self):
        """Undo cut_ssh()."""
        for rule in SSH_RULES:
            self.run(self.node, "sh", "-c", "while iptables -w -D %s 2>/dev/null; do :; done" % " ".join(rule))

    def hang_runtime(self, seconds):
        """containerd does nothing for so long; does not wait for it."""
        script = "kill -STOP $1; sleep $2; kill -CONT $1"
        pid = self.run(self.node, "systemctl", "show", "-P", "MainPID", "containerd").strip()
        self.run(self.node, "systemd-run", "--quiet", "sh", "-c", script, "hang", pid, str(seconds))

    def is_container(self):
        """Or is the node a machine of its own, with a clock of its own?"""
        return self.run(self.node, "systemd-detect-virt", "--container", check=False).strip() not in ("", "none")

    def move_clock(self, minutes):
        """Of a node that has its own; recover() sets it back."""
        self.run(self.node, "sh", "-c", "timedatectl set-ntp false 2>/dev/null; date -s @$(($(date +%%s) + %d))" % (60 * minutes))
        self.moved += minutes

    def inject(self, fault, run):
        """One of fault_cells.ONE while `run` runs, but for `module`, which let_go() does."""
        if fault == "controller":
            run.kill()
        elif fault == "ssh":
            self.cut_ssh(run)
        elif fault == "node":
            self.power_cycle()
        elif fault == "disk":
            self.fill_disk()
        elif fault == "read-only":
            self.power("read-only", self.node)
        elif fault == "kubelet":
            self.run(self.node, "systemctl", "stop", "kubelet")
        elif fault == "kubelet-restart":
            self.run(self.node, "systemctl", "restart", "kubelet")
        elif fault == "containerd":
            self.run(self.node, "systemctl", "restart", "containerd")
        elif fault == "runtime-hang":
            self.hang_runtime(30)
        elif fault != "module":
            self.move_clock(20 if fault == "clock-forward" else -20)

    def prove_one_side(self, snapshot, inode):
        """The cluster serves all of the old or all of the new, and nothing is lost.  Returns (old or new, facts, when it served)."""
        self.wait_ready()
        served = time.monotonic()
        marks = self.marks()
        facts = self.facts(inode, snapshot[0])
        print(marks, facts)
        side = {("after", "kept"): "old", ("gone", "kept"): "new"}.get(tuple(sorted(marks)))
        assert side, "neither old nor new: %s" % marks
        assert set(marks.values()) == {self.marks_each}
        places = [path.split("/")[0] if side == "old" else path.split("/")[2] for path in facts.get("inode", [])]
        assert places == ["member" if side == "old" else "old"], "the old database is in %s" % facts.get("inode")
        # what had been restored, and perhaps written to, is kept, too
        assert all(facts.get("undone", []))
        assert facts["sha256"][0].split()[0] == snapshot[1]
        assert sorted(facts["manifest"]) == MANIFESTS
        assert "held" not in facts
        return side, facts, served

    def power_cycle(self):
        """The node goes off, and on again."""
        self.power("off", self.node)
        self.power("on", self.node)
        wait_for(lambda: self.run(self.node, "systemctl", "is-system-running", check=False).strip() in ("running", "degraded", "starting"), 60, "it boots")


class FaultyMembers(FaultyCluster):
    """A cluster of several nodes, and faults of one of them."""

    restores = DATA + ".restore"

    def member_facts(self, inode):
        """{kind: [rest of the line]} of MEMBER_FACTS on this node."""
        found = {}
        for line in self.run(self.node, "env", "INODE=" + inode, "sh", "-c", MEMBER_FACTS).splitlines():
            kind, dummy, rest = line.partition(" ")
            found.setdefault(kind, []).append(rest)
        return found

    def inode(self):
        """Of the live database of this node."""
        return self.run(self.node, "stat", "-c", "%i", DATA + "/member/snap/db").strip()

    def is_armed(self):
        """Does this node still wait for something, or is that not known?"""
        return "no" not in self.run(self.node, "sh", "-c", "ls -d /etc/systemd/system/etcd-restore-* >/dev/null 2>&1 || echo no", check=False, timeout=20)

    def own_marks(self):
        """As marks(), through the API server of this node."""
        found = {}
        args = ("-n", self.namespace, "get", "configmap,secret", "-l", "side", "-L", "side", "--no-headers")
        for line in self.own_kubectl(self.node, *args).splitlines():
            if line.strip():
                found[line.split()[-1]] = found.get(line.split()[-1], 0) + 1
        return found

    def inject(self, fault, run):
        """One of fault_cells.THREE while `run` runs, or of ONE that needs no disk of its own; `power` stays off."""
        if fault == "power":
            self.power("off", self.node)
        elif fault == "peers":
            self.cut_peers()
        elif fault == "step":
            self.run(self.node, "sh", "-c", "kill -9 $(pidof python3) 2>/dev/null || :")
        else:
            super().inject(fault, run)

    def prove_one_side_of_all(self, before):
        """One cluster of three members that serves all of the old or all of the new, and nothing is lost; before: {host: inode() of its old database}.

        Returns (old or new, {host: facts}).
        """
        self.wait_ready(300)
        facts = {host: self.on(host).member_facts(before[host]) for host in self.nodes}
        sides = {host: side_of(found) for host, found in facts.items()}
        print(sides, facts)
        assert len(set(sides.values())) == 1, "split: %s" % sides
        side = sides[self.node]
        assert side in ("old", "new")
        self.prove_one_cluster()
        for host, found in facts.items():
            marks = self.on(host).own_marks()
            assert marks == dict.fromkeys(("kept", "after" if side == "old" else "gone"), self.marks_each), (host, marks)
            assert sorted(found["manifest"]) == MANIFESTS, host
            assert not set(found) & {"held", "unit", "armed"}, (host, found)
        return side, facts

    def cut_peers(self):
        """No packet goes between this node and the others on the ports of etcd and of the API server."""
        others = " ".join(self.address(host) for host in self.nodes if host != self.node)
        self.run(self.node, "sh", "-c", CUT_PEERS, "cut", others)

    def heal_peers(self):
        """Undo cut_peers()."""
        self.run(self.node, "sh", "-c", HEAL_PEERS)

    def recover(self):
        """From whatever a test left: a cluster that serves, with no trace of a restore but the ids that the cluster had."""
        nodes = [self.on(host) for host in self.nodes]
        for node in nodes:
            if not node._is_on():
                node.power("on", node.node)
        for node in nodes:
            wait_for(node._is_on, 60, "%s has power" % node.node)
            node.run(node.node, "sh", "-c", "mkdir -p /run/failpoint; cd /run/failpoint; rm -f *; touch go; systemctl start containerd kubelet")
            node.heal_ssh()
            node.heal_peers()
        for node in nodes:
            for transaction in node.transactions():
                if transaction.state not in ("committed", "rolled-back", "rejoined"):
                    # 3: all nodes had decided to keep the data
                    node.run(node.node, "sh", "-c", "%s/rollback || [ $? = 3 ]" % transaction.path, timeout=700)
        self.wait_ready(300)
        for node in nodes:
            # those that still hold the manifests of a retired node are none of ours
            keep = "h=/etc/kubernetes/manifests.restore-$d; rmdir $h 2>/dev/null; [ -e $h ] || rm -rf ./$d"
            node.run(node.node, "sh", "-c", "cd %s 2>/dev/null || exit 0; for d in *; do [ ! -d $d ] || { %s; }; done" % (self.restores, keep))


def side_of(facts):
    """Which data a node's disk has as the live data: old, new, or something that it never should be."""
    places = facts.get("inode", [])
    if places == [DATA + "/member/snap/db"]:
        return "old"
    if len(places) == 1 and places[0].startswith(DATA + ".restore/") and places[0].endswith("/old/member/snap/db"):
        return "new"
    return "the old database is in %s" % places


def recorded(facts):
    """The states of the restores that facts() has found, oldest first."""
    return [line.split()[1] for line in facts.get("transaction", [])]


class Run:
    """A playbook in the background, with ssh connections of its own, so that all of it can be killed."""

    def __init__(self, cluster, name, *args):
        self.begun = time.monotonic()
        self._place = tempfile.TemporaryDirectory(prefix="faults-")
        args = [*args, "-e", "ansible_control_path_dir=%s/ssh" % self._place.name]
        # inherited by all that belongs to this run, whatever process group it is in; read by tests/sandbox/node-ssh
        os.environ["NODE_SSH_CUT"] = self._place.name + "/cut"
        try:
            self.process = cluster.playbook(name, *args, background=True)
        finally:
            del os.environ["NODE_SSH_CUT"]
        self.log = pathlib.Path(self._place.name, "log")
        # a pipe without a reader would stop it
        self._copy = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=self.log.open("wb"))
        self.process.stdout.close()

    def ended(self):
        return self.process.poll() is not None

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, timeout):
        """Its return code."""
        wait_for(self.ended, timeout, "the playbook ends")
        return self.process.returncode

    def kill(self):
        """The whole process group, and the ssh connection that it left in the background."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._kill_all(b"")

    def cut(self, node):
        """As cut_ssh() where nodes have no sshd: what stands in for ssh to this one ends, and does not begin again."""
        pathlib.Path(self._place.name, "cut." + node).touch()
        self._kill_all(b"\0exec\0-i\0%s\0" % node.encode())

    def _kill_all(self, marker):
        """Every process of this run whose command line holds the marker."""
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._place.name.encode() in (path / "environ").read_bytes() and marker in (path / "cmdline").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)

    def close(self):
        """Leave nothing behind."""
        self.kill()
        self._copy.wait(10)
        self._place.cleanup()
