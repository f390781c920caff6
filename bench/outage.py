# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""API downtime during a restore: ours, the documented procedure (textbook), and the restart-only baseline (floor).

    make bench-outage [RUNS=7] [SIZES="small large"] [NODES=1] [VARIANTS="ours textbook floor"] [AGAINST=DIR] [REST=kubelet+25] [SANDBOX_NAME=bench] [KEEP=1]

RESTORE_VARS='{"etcd_restore_...": ...}' adds to the variables of ours.  See README.md beside this file.
Ends with code 0 whatever the times are, and with 1 when a run failed.
"""

from __future__ import annotations

import calendar
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

from cluster import Probe, SandboxError, wait_for  # noqa: E402
from restore_sandbox import Cluster  # noqa: E402

REPORT = ROOT / "reports" / "bench-outage.json"
LOG = REPORT.with_suffix(".log")
NAMESPACE = "bench"
BACKUPS = "/var/backups/bench"
MANIFESTS = "/etc/kubernetes/manifests"
MEGABYTES = {"small": 1, "large": 1100, "huge": 8000}  # beside what Kubernetes keeps there itself
# etcd's quota is 2 GB where kubeadm's manifest does not say otherwise.
QUOTA = 10 << 30
# The targets for the outage: (ratio, limit).
TARGETS = {
    "ours / floor": 1.1,
    "ours / against": 0.5,
    "ours / textbook": 0.2,
    "worst / median of ours": 1.3,
    "large / small of ours": 1.2,
    "huge / small of ours": 1.1,
}
# Seconds from the command to the question of a restore.
BEFORE_QUESTION = 60
# With three nodes starting three API servers takes most of it, by whatever procedure; what two by hand once took on two cores, in seconds.
TARGETS_MEMBERS = dict(TARGETS, **{"ours / floor": 1.0, "ours / textbook": 0.9, "ours / 17.5 s": 0.9, "ours / 22.5 s": 0.9})
QUESTIONS = {"readyz": "/readyz", "read": "read", "write": "write"}
# What comes before a run, one word for each round in turns. A kubelet that was just restarted is slow to stop Pods, and one that was not remembers
# back-offs of the run before: "kubelet+25" is 25 s after it was restarted, "60" a minute after the cluster worked again, with kubelet left alone.
REST = (os.environ.get("REST", "") or "kubelet+25").split()
AGAINST = os.environ.get("AGAINST", "")

# The documented procedure, with every wait as short as correctness allows (the documentation has two of 20 s):
#   kubernetes.io, "Operating etcd clusters for Kubernetes", Restoring an etcd cluster: stop all API servers, restore etcd, start the
#     API servers again; restart scheduler, controller-manager and kubelet, so that they do not rely on stale data.
#   kubernetes.io, "Certificate Management with kubeadm": a static Pod is stopped by moving its file out of the manifests, wait until kubelet
#     has ended it, move the file back.
#   etcd.io, "Disaster recovery": snapshot restore with name, initial cluster and peer URLs, --bump-revision 1000000000 --mark-compacted.
TEXTBOOK = r"""
set -eu
stamp() { echo "$1 $(date +%s.%N)"; }
stamp stopping
mkdir -p @MANIFESTS@.textbook
mv @MANIFESTS@/*.yaml @MANIFESTS@.textbook/
while pgrep -x 'etcd|kube-apiserver|kube-controller|kube-scheduler' >/dev/null; do sleep 0.2; done
stamp stopped
mv /var/lib/etcd /var/lib/etcd.textbook
etcdutl snapshot restore "$1" --data-dir /var/lib/etcd --name "$2" --initial-cluster "$3" --initial-advertise-peer-urls "$4" \
  --bump-revision "$5" --mark-compacted 2>&1
stamp swapped
mv @MANIFESTS@.textbook/*.yaml @MANIFESTS@/
until curl -fsk -m 2 -o /dev/null https://127.0.0.1:6443/readyz; do sleep 0.2; done
stamp started
systemctl restart kubelet
rmdir @MANIFESTS@.textbook
""".replace("@MANIFESTS@", MANIFESTS)

# By hand, the best way that was found for several members: as above, with all members from one snapshot as etcd.io tells; etcd before the API servers,
# the API servers not left the 30 s that they would take, and every node at the same step before any takes the next: at each line that is read.
# kubelet is kept: it takes 6 s to start, while every node waits for it.
BY_HAND = r"""
set -eu
stamp() { echo "$1 $(date +%s.%N)"; }
names='etcd|kube-apiserver|kube-controller|kube-scheduler'
pods=$(for pid in $(pgrep -x "$names"); do grep -o 'pod[0-9a-f]\{32\}' /proc/$pid/cgroup || :; done | sort -u)
stamp stopping
mkdir -p @MANIFESTS@.textbook
for name in kube-scheduler kube-controller-manager kube-apiserver etcd; do mv @MANIFESTS@/$name.yaml @MANIFESTS@.textbook/; done
sleep 0.5
pkill -KILL -x kube-apiserver || :
# their sandboxes too, or kubelet starts containers in one that it is about to end, and backs off
while pgrep -x "$names" >/dev/null || grep -qsF "$pods" /proc/[0-9]*/cgroup; do sleep 0.1; done
stamp stopped
read -r go
mv /var/lib/etcd /var/lib/etcd.textbook
etcdutl snapshot restore "$1" --data-dir /var/lib/etcd --name "$2" --initial-cluster "$3" --initial-advertise-peer-urls "$4" \
  --bump-revision "$5" --mark-compacted --initial-cluster-token "$6" 2>&1
stamp swapped
read -r go
mv @MANIFESTS@.textbook/etcd.yaml @MANIFESTS@/
until curl -fs -m 2 http://127.0.0.1:2381/health | grep -q true; do sleep 0.1; done
stamp etcd-started
read -r go
mv @MANIFESTS@.textbook/*.yaml @MANIFESTS@/
until curl -fsk -m 2 -o /dev/null https://127.0.0.1:6443/readyz; do sleep 0.1; done
stamp started
systemctl restart kubelet
rmdir @MANIFESTS@.textbook
""".replace("@MANIFESTS@", MANIFESTS)

# The restart-only baseline: the order of a restore without the restore; each line that is read waits for the other nodes only.
FLOOR = r"""
import os, re, signal, ssl, sys, time, urllib.request
MANIFESTS, HELD = "@MANIFESTS@", "@MANIFESTS@.floor"
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
TLS = ssl._create_unverified_context()

def processes():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = os.path.basename(open("/proc/%s/cmdline" % pid).read().split("\0")[0])
            pod = re.search(r"pod([0-9a-f]{32})", open("/proc/%s/cgroup" % pid).read())
        except OSError:
            continue
        if name and pod:
            yield int(pid), name, pod.group(1)

def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2, context=TLS if url.startswith("https") else None).status == 200
    except OSError:
        return False

def wait(condition, what):
    start = time.monotonic()
    while not condition():
        if time.monotonic() > start + 120:
            sys.exit("%s: not within 120 s" % what)
        time.sleep(0.05)

def stamp(state):
    print(state, time.time(), flush=True)

def gone():
    left = [process for process in processes() if process[2] in pods]
    for pid, name, pod in left:
        if name == "kube-apiserver" and time.monotonic() > moved + 0.5:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    return not left

def give_back(name):
    # as another Pod, of which kubelet has no back-off
    path = "%s/%s.yaml" % (HELD, name)
    text = re.sub(r"(?m)^    k8s-dr.bench: .*\n", "", open(path).read())
    open(path, "w").write(text.replace("  labels:\n", "  labels:\n    k8s-dr.bench: '%d'\n" % time.time(), 1))
    os.rename(path, "%s/%s.yaml" % (MANIFESTS, name))

os.makedirs(HELD, exist_ok=True)
pods = {pod for pid, name, pod in processes() if name in NAMES}
stamp("stopping")
for name in reversed(NAMES):
    os.rename("%s/%s.yaml" % (MANIFESTS, name), "%s/%s.yaml" % (HELD, name))
moved = time.monotonic()
wait(gone, "the Pods end")
stamp("stopped")
sys.stdin.readline()
stamp("swapped")
give_back("etcd")
wait(lambda: answers("http://127.0.0.1:2381/health"), "etcd serves")
stamp("etcd-started")
sys.stdin.readline()
for name in NAMES[1:]:
    give_back(name)
wait(lambda: answers("https://127.0.0.1:6443/readyz"), "the API server is ready")
stamp("started")
os.rmdir(HELD)
""".replace("@MANIFESTS@", MANIFESTS)

# Values of a megabyte of noise under a prefix that Kubernetes does not use.
FILL = r"""
import base64, http.client, json, os, ssl, sys
PKI = "/etc/kubernetes/pki/etcd/"
tls = ssl.create_default_context(cafile=PKI + "ca.crt")
tls.load_cert_chain(PKI + "server.crt", PKI + "server.key")
etcd = http.client.HTTPSConnection("127.0.0.1", 2379, context=tls, timeout=60)

def put(*pair):
    etcd.request("POST", "/v3/kv/put", json.dumps(dict(zip(("key", "value"), (base64.b64encode(raw).decode() for raw in pair)))))
    answer = etcd.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(text.decode())

for number in range(int(sys.argv[1])):
    put(b"/bench/%06d" % number, os.urandom(1 << 20))
# etcd keeps the last 15,000 requests in memory (3.6.16 and 3.7.3: server/etcdserver/server.go, DefaultSnapshotCount and DefaultSnapshotCatchUpEntries):
# of a cluster that grew over years these are no gigabytes.
for number in range(15000 if int(sys.argv[1]) > 1500 else 0):
    put(b"/bench/small", b"")
"""

# kubelet forgets its back-off when it is restarted; the documented procedure does that itself at its end.
RESTARTED = r"""
age() { ps -o etimes= -C "$1" | sort -n | head -n 1; }
[ "$(age kubelet)" -lt "$(age kube-apiserver)" ] || systemctl restart kubelet
until age kubelet | grep .; do sleep 0.2; done
"""

# After a run that failed: the data first, then the manifests.
HEAL = r"""
[ -e /var/lib/etcd/member ] || [ ! -e /var/lib/etcd.textbook/member ] || { rm -rf /var/lib/etcd; mv /var/lib/etcd.textbook /var/lib/etcd; }
for file in @MANIFESTS@.textbook/*.yaml @MANIFESTS@.floor/*.yaml; do [ ! -e "$file" ] || mv "$file" @MANIFESTS@/; done
rm -rf @MANIFESTS@.textbook @MANIFESTS@.floor
systemctl restart kubelet
""".replace("@MANIFESTS@", MANIFESTS)


class Watch(Probe):
    """A probe that also writes."""

    path = "/api/v1/namespaces/%s/configmaps/probe" % NAMESPACE

    def __init__(self, kubeconfig):
        super().__init__(kubeconfig, self.path)
        self.samples["write"] = []
        self._threads.append(threading.Thread(target=self._loop, args=("write", "write"), daemon=True))

    def _ask(self, path):
        if path != "write":
            return super()._ask(path)
        connection = http.client.HTTPSConnection(self.server.hostname, self.server.port, timeout=2, context=self.context)
        try:
            patch = json.dumps({"data": {"time": str(time.time())}})
            connection.request("PATCH", self.path, patch, {"Content-Type": "application/merge-patch+json"})
            response = connection.getresponse()
            response.read()
            return response.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Bench:
    """One sandbox, and the ways to stop and start it."""

    log = LOG

    def __init__(self, name, nodes):
        self.name, self.wanted = name, nodes
        self.snapshots = {}
        self.cluster = None
        # when the last playbook began each of its tasks, in seconds
        self.tasks = {}

    # -- the sandbox ----------------------------------------------------------------------------------------------

    def script(self, what):
        """Run tests/sandbox/up or down."""
        environment = dict(os.environ, SANDBOX_NAME=self.name, NODES=str(self.wanted))
        subprocess.run([str(ROOT / "tests" / "sandbox" / what)], check=True, env=environment)

    def up(self):
        """Start it, with etcd's tools, and as small as it was at first."""
        self.script("up")
        self.snapshots = {}
        self.cluster = Cluster(self.name)
        self.cluster.wait_ready()
        self.playbook("install.yml")
        if self.megabytes() > 50:
            revision = self.cluster.etcdctl("del", "--prefix", "/bench/")["header"]["revision"]
            for command in (("compact", "--physical", str(revision)), ("--command-timeout=120s", "defrag")):
                # neither answers in JSON
                with contextlib.suppress(ValueError):
                    self.cluster.etcdctl(*command)

    def megabytes(self):
        """Size of the database."""
        return self.cluster.etcdctl("endpoint", "status")[0]["Status"]["dbSize"] / 1e6

    def playbook(self, *args, timeout=1800, **how):
        """Run a playbook; its output, which also goes to the log."""
        began, lines, self.tasks = time.monotonic(), [], {}
        process = self.cluster.playbook(*args, background=True, **how)
        end = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGTERM))
        end.start()
        try:
            with open(self.log, "a", encoding="utf-8") as log:
                log.write("$ ansible-playbook %s\n" % " ".join(args))
                for line in process.stdout:
                    log.write("%6.1f  %s" % (time.monotonic() - began, line))
                    if line.startswith("TASK ["):
                        self.tasks[line[6:].partition("]")[0].rpartition(" : ")[2]] = time.monotonic() - began
                    lines.append(line)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            end.cancel()
            process.wait()
        output = "".join(lines)
        if process.returncode != 0:
            why = re.findall(r'^fatal: .*?"msg": "(.*?)"[,}]', output, re.MULTILINE) or output.strip().splitlines()[-1:]
            raise SandboxError("%s ended with code %d: %s" % (args[0], process.returncode, why[0]))
        return output

    def prepare(self, size):
        """A database of this size, and a snapshot of it."""
        cluster = self.cluster
        if size in self.snapshots:
            return
        if MEGABYTES[size] > 1500:
            cluster.run("cp1", "sed", "-i", r"s/^\( *\)- --name=.*/&\n\1- --quota-backend-bytes=%d/" % QUOTA, MANIFESTS + "/etcd.yaml")
            wait_for(lambda: "quota-backend-bytes" in cluster.run("cp1", "sh", "-c", "tr '\\0' ' ' </proc/$(pgrep -x etcd)/cmdline"), 120, "etcd has its quota")
            cluster.wait_ready()
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        cluster.apply(configmap("probe"), configmap("before"))
        cluster.run("cp1", "python3", "-c", FILL, str(MEGABYTES[size]), timeout=900)
        place = "%s/%s" % (BACKUPS, size)
        cluster.run("cp1", "rm", "-rf", place)
        self.playbook("snapshot.yml", "-l", "cp1", "-e", "etcd_snapshot_dir=" + place)
        self.snapshots[size] = cluster.run("cp1", "sh", "-c", "ls -t %s/*.db | head -n 1" % place).strip()
        if len(cluster.nodes) > 1:
            # what an operator has brought there before anything is stopped, at a place where ours does not look
            for host in cluster.nodes:
                self.bring(self.snapshots[size], host, "%s/%s.copy" % (BACKUPS, size))

    def bring(self, source, host, target):
        """Copy a file of the first node to another node."""
        cluster = self.cluster
        script = '%s exec "$1" cat "$2" | %s exec -i "$3" sh -c \'mkdir -p -m 700 "${1%%/*}" && cat >"$1"\' sh "$4"' % (cluster.engine, cluster.engine)
        subprocess.run(["bash", "-o", "pipefail", "-c", script, "bring", cluster.nodes["cp1"], source, cluster.nodes[host], target], check=True)

    def settle(self, number):
        """What is to come before a run of this round: nothing in flight, and kubelet as REST has it."""
        rest = REST[(number - 1) % len(REST)]
        self.cluster.wait_ready()
        age = 0
        if rest.startswith("kubelet+"):
            age = min(int(self.cluster.run(host, "sh", "-c", RESTARTED)) for host in self.cluster.nodes)
        for host in self.cluster.nodes:
            self.cluster.run(host, "sync")
        time.sleep(max(0, int(rest.removeprefix("kubelet+")) - age))
        self.cluster.wait_ready()

    def heal(self):
        """The sandbox as it was, or a new one."""
        try:
            for host in self.cluster.nodes:
                self.cluster.run(host, "sh", "-c", HEAL, check=False)
            self.cluster.playbook("rollback.yml", background=True).communicate(timeout=900)
            self.cluster.wait_ready()
        except (SandboxError, subprocess.SubprocessError) as exc:
            print("  the sandbox does not recover (%s), making a new one" % exc, flush=True)
            self.script("down")
            self.up()

    # -- the variants ---------------------------------------------------------------------------------------------

    def against(self, size):
        """The same of another checkout."""
        return self.ours(size, collections=pathlib.Path(AGAINST).resolve() / "playbooks/collections")

    def ours(self, size, **how):
        """restore.yml, as an operator runs it."""
        hosts = ",".join(self.cluster.nodes)
        settings = {
            "etcd_restore_confirm": True,
            "etcd_restore_snapshot": self.snapshots[size],
            # what comes once the cluster serves again is no part of the outage, and takes time and room
            "etcd_restore_keep": 1,
            "etcd_restore_safety_snapshot": False,
            "etcd_restore_report_dir": "",
        }
        settings.update(json.loads(os.environ.get("RESTORE_VARS", "") or "{}"))
        self.playbook("restore.yml", "-l", hosts, "-e", json.dumps(settings), **how)
        self.before_question = round(self.tasks["Show the plan"], 1)
        newest = self.cluster.transactions()[-1].path
        return latest([read_log(self.cluster.run(host, "cat", newest + "/log")) for host in self.cluster.nodes])

    def textbook(self, size):
        """The documentation's commands, by one script in the node."""
        if len(self.cluster.nodes) > 1:
            return self.textbook_members(size)
        flags = dict(re.findall(r"--([a-z-]+)=(\S+)", self.cluster.run("cp1", "cat", MANIFESTS + "/etcd.yaml")))
        # the documentation's number; above the live revision too, which earlier runs have raised
        bump = str(1000000000 + self.cluster.revision())
        arguments = [self.snapshots[size], flags["name"], flags["initial-cluster"], flags["initial-advertise-peer-urls"], bump]
        return read_stamps(self.cluster.run("cp1", "sh", "-c", TEXTBOOK, "textbook", *arguments, timeout=600))

    def textbook_members(self, size):
        """By one script in each node, each with its own copy of the snapshot."""
        cluster = self.cluster
        flags = {host: dict(re.findall(r"--([a-z-]+)=(\S+)", cluster.run(host, "cat", MANIFESTS + "/etcd.yaml"))) for host in cluster.nodes}
        all_of_them = ",".join("%(name)s=%(initial-advertise-peer-urls)s" % flags[host] for host in cluster.nodes)
        bump = str(1000000000 + max(cluster.revision(host) for host in cluster.nodes))
        token = "textbook-%d" % time.time()
        copy = "%s/%s.copy" % (BACKUPS, size)
        arguments = {
            host: ["sh", "-c", BY_HAND, "by-hand", copy, flags[host]["name"], all_of_them, flags[host]["initial-advertise-peer-urls"], bump, token]
            for host in cluster.nodes
        }
        return self.together(arguments, ("stopped", "swapped", "etcd-started", "started"))

    def floor(self, dummy):
        """Stop and start, by one script in each node."""
        return self.together({host: ["python3", "-c", FLOOR] for host in self.cluster.nodes}, ("stopped", "etcd-started", "started"))

    def together(self, commands, barriers):
        """A script in each node; all nodes end one step before any begins the next.  When the last of them ended each."""
        output, running = {}, {}
        try:
            for host, command in commands.items():
                argv = [self.cluster.engine, "exec", "-i", self.cluster.nodes[host], *command]
                running[host] = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for barrier in barriers:
                for host, process in running.items():
                    for line in process.stdout:
                        output[host] = output.get(host, "") + line
                        if line.startswith(barrier + " "):
                            break
                    else:
                        raise SandboxError("the script on %s ended before %s: %s" % (host, barrier, output.get(host, "").strip()))
                for process in running.values():
                    if barrier != barriers[-1]:
                        process.stdin.write("\n")
                        process.stdin.flush()
            for process in running.values():
                process.communicate()
        finally:
            for process in running.values():
                process.kill()
        return latest([read_stamps(text) for text in output.values()])

    # -- one run --------------------------------------------------------------------------------------------------

    def measure(self, size, variant, number):
        """One run, as a dictionary."""
        run = {"size": size, "variant": variant, "number": number, "problem": None}
        began = time.monotonic()
        try:
            self.prepare(size)
            self.settle(number)
            run["megabytes"] = round(self.megabytes())
            after = "after-%d" % time.time()
            self.cluster.apply(configmap(after))
            etcd = self.cluster.etcd_process()
            run["reading"] = self.read_once(self.snapshots[size])
            with Watch(self.cluster.kubeconfig) as watch:
                time.sleep(1)
                began_run = time.monotonic()
                stamps = getattr(self, variant)(size)
                run["seconds"] = round(time.monotonic() - began_run, 1)
                run["before"] = self.before_question if variant == "ours" else None
                time.sleep(3)
            run["outage"] = {gap.what: round(gap.seconds, 2) for gap in watch.gaps()}
            run["phases"] = phases(stamps, run["outage"]["readyz"])
            # nothing was asked well before, or after
            unseen = [what for what, seconds in run["outage"].items() if not seconds]
            run["problem"] = "no outage was seen by %s" % ", ".join(unseen) if unseen else self.proven(variant, etcd, after)
            for host in self.cluster.nodes:
                self.cluster.run(host, "rm", "-rf", "/var/lib/etcd.textbook")
        except (SandboxError, subprocess.SubprocessError, OSError) as exc:
            run["problem"] = str(exc)
        run["all_seconds"] = round(time.monotonic() - began, 1)
        return run

    def read_once(self, path):
        """Seconds to read a file of the first node once; nothing of it is in memory before, nor afterwards."""
        forget = "sync; dd if=%s iflag=nocache count=0 status=none" % path
        script = "%s; date +%%s.%%N; cat %s >/dev/null; date +%%s.%%N; %s" % (forget, path, forget)
        begin, end = map(float, self.cluster.run("cp1", "sh", "-c", script, timeout=600).split())
        return round(end - begin, 2)

    def proven(self, variant, etcd, after):
        """Why this was no restore, or no restart; None when it was."""

        def there(name):
            return self.cluster.get("-n", NAMESPACE, "configmap/" + name) is not None

        wait_for(lambda: self.cluster.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok", 60, "the API server is ready")
        if self.cluster.etcd_process() == etcd:
            return "etcd was not restarted"
        if not there("before"):
            return "what the snapshot holds is not there"
        if there(after) != (variant == "floor"):
            return "what was written after the snapshot is lost" if variant == "floor" else "what was written after the snapshot is still there"
        return None


def configmap(name):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": {"name": name}}


def read_stamps(output):
    """{state: time} of what the scripts print."""
    return {state: float(when) for state, when in re.findall(r"^([a-z-]+) (\d+\.\d+)$", output, re.MULTILINE)}


def read_log(text):
    """{state: time} of a restore's own log."""
    stamps = {}
    for line in text.splitlines():
        state, when = line.split()
        whole, dot, fraction = when.rstrip("Z").partition(".")
        stamps[state] = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0" + dot + fraction)
    return stamps


def latest(nodes):
    """{state: when the last node had come to it}; the first to stop is the beginning."""
    stamps = {state: max(node[state] for node in nodes) for state in nodes[0] if all(state in node for node in nodes)}
    stamps["stopping"] = min(node["stopping"] for node in nodes)
    return stamps


def phases(stamps, outage):
    """Seconds by phase; `around` is what the outage is longer than these, by the reaction of who asks."""
    result = {}
    for name, begin, end in (("stop", "stopping", "stopped"), ("data", "stopped", "swapped"), ("start", "swapped", "started")):
        result[name] = round(stamps[end] - stamps[begin], 2)
    if "etcd-started" in stamps:
        result["etcd"] = round(stamps["etcd-started"] - stamps["swapped"], 2)
        result["apiserver"] = round(stamps["started"] - stamps["etcd-started"], 2)
    result["around"] = round(outage - (stamps["started"] - stamps["stopping"]), 2)
    return result


# -- what is printed --------------------------------------------------------------------------------------------------


def table(rows):
    """Print rows of cells, the first of them as the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))
    print(flush=True)


def summarize(runs, targets):
    """{size: {variant: {n, failed, question: {median, worst}, phases}}} and {(ratio, size): {question: value}}."""
    summary, ratios = {}, {}
    for run in runs:
        entry = summary.setdefault(run["size"], {}).setdefault(run["variant"], {"good": [], "failed": 0})
        if run["problem"]:
            entry["failed"] += 1
        else:
            entry["good"].append(run)
    for entry in (entry for variants in summary.values() for entry in variants.values()):
        good = entry.pop("good")
        entry["n"] = len(good)
        for question in QUESTIONS if good else ():
            values = [run["outage"][question] for run in good]
            entry[question] = {"median": statistics.median(values), "worst": max(values)}
        entry["phases"] = {name: round(statistics.median(run["phases"][name] for run in good), 2) for name in (good[0]["phases"] if good else ())}

    def ratio(name, size, above, below):
        if above.get("n") and below.get("n"):
            upper = "worst" if name.startswith("worst") else "median"
            ratios[name, size] = {question: above[question][upper] / below[question]["median"] for question in QUESTIONS if below[question]["median"]}

    for size, variants in summary.items():
        ours = variants.get("ours", {})
        ratio("ours / floor", size, ours, variants.get("floor", {}))
        for name in targets if ours.get("n") else ():
            if name.startswith("ours / ") and name.endswith(" s"):
                ratios[name, size] = {question: ours[question]["median"] / float(name.split()[2]) for question in QUESTIONS}
        for other in ("textbook", "against"):
            ratio("ours / " + other, size, ours, variants.get(other, {}))
        ratio("worst / median of ours", size, ours, ours)
    for size in ("large", "huge"):
        ratio(size + " / small of ours", "", summary.get(size, {}).get("ours", {}), summary.get("small", {}).get("ours", {}))
    return summary, ratios


def show(runs, about):
    """The tables, and the same as JSON."""
    targets = TARGETS if about["nodes"] == 1 else TARGETS_MEMBERS
    summary, ratios = summarize(runs, targets)
    print("\nHow long the API was away, in seconds: median / worst; new connections every 0.2 s from outside\n")
    rows = [("database", "variant", "runs", "failed", *QUESTIONS)]
    for size, variants in summary.items():
        for variant, entry in variants.items():
            cells = ["%.1f / %.1f" % (entry[question]["median"], entry[question]["worst"]) if entry["n"] else "-" for question in QUESTIONS]
            rows.append((size, variant, str(entry["n"]), str(entry["failed"]), *cells))
    table(rows)

    print("Where it goes (medians): `around` is from the last answer to the first step and from the last step to the first answer\n")
    names = ("stop", "data", "start", "etcd", "apiserver", "around")
    rows = [("database", "variant", "stop", "data", "start", "= etcd", "+ API server", "around")]
    for size, variants in summary.items():
        for variant, entry in variants.items():
            rows.append((size, variant, *("%.1f" % entry["phases"][name] if name in entry["phases"] else "-" for name in names)))
    table(rows)

    print("From the command to the question, and how long it takes to read the snapshot once, which is not in memory before (medians of ours)\n")
    rows = [("database", "snapshot", "before the question", "at most", "read once")]
    for size in summary:
        good = [run for run in runs if run["size"] == size and run["variant"] == "ours" and not run["problem"]]
        if good:
            before, reading = (statistics.median(run[name] for run in good) for name in ("before", "reading"))
            verdict = "%d s: %s" % (BEFORE_QUESTION, "yes" if before <= BEFORE_QUESTION else "NO")
            rows.append((size, "%d MB" % good[0]["megabytes"], "%.1f s" % before, verdict, "%.1f s" % reading))
    table(rows)

    print("Against the targets\n")
    rows = [("ratio", "database", "at most", *QUESTIONS)]
    for (name, size), values in ratios.items():
        limit = targets[name]
        rows.append((name, size, str(limit), *("%.2f %s" % (values[q], "yes" if values[q] <= limit else "NO") if q in values else "-" for q in QUESTIONS)))
    table(rows)

    for run in runs:
        if run["problem"]:
            print("FAILED: %(size)s %(variant)s, run %(number)d: %(problem)s" % run)
    named = [dict(values, ratio=name, size=size, limit=targets[name]) for (name, size), values in ratios.items()]
    REPORT.write_text(json.dumps(dict(about, summary=summary, ratios=named, runs=runs), indent=2) + "\n")
    print("All of it: %s and %s" % (REPORT.relative_to(ROOT), LOG.name), flush=True)


def plan(sizes, rounds, variants):
    """[(size, variant, number)]: the variants in turn, each round beginning with another one."""
    steps = []
    for size in sizes:
        for number in range(rounds):
            turn = number % len(variants)
            steps += [(size, variant, number + 1) for variant in variants[turn:] + variants[:turn]]
    return steps


def left(steps, runs):
    """Minutes that the remaining steps take, by what such steps took so far."""
    typical = {"ours": 100, "against": 110, "textbook": 80, "floor": 40}
    known = {}
    for run in runs:
        known[run["size"], run["variant"]] = run["all_seconds"]
    return sum(known.get((size, variant), typical[variant]) for size, variant, dummy in steps[len(runs) :]) / 60


def main():
    """Run all of it."""
    rounds = int(os.environ.get("RUNS", "") or 7)
    sizes = (os.environ.get("SIZES", "") or "small large").split()
    nodes = int(os.environ.get("NODES", "") or 1)
    possible = ["ours", *(["against"] if AGAINST else []), "textbook", "floor"]
    variants = os.environ.get("VARIANTS", "").split() or possible
    if not set(variants) <= set(possible):
        sys.exit("VARIANTS may hold %s, and against where AGAINST is a checkout of another commit, not '%s'." % (" ".join(possible), " ".join(variants)))
    if not all(re.fullmatch(r"(kubelet\+)?\d+", word) for word in REST):
        sys.exit("REST may hold seconds, and kubelet+SECONDS, not '%s'." % " ".join(REST))
    for size in sizes:
        if size not in MEGABYTES:
            sys.exit("SIZES may hold %s, not '%s'." % (" and ".join(MEGABYTES), size))
    bench = Bench(os.environ.get("SANDBOX_NAME", "") or "bench", nodes)
    REPORT.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    about = {"began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "nodes": nodes, "rounds": rounds, "rest": REST}
    steps, runs = plan(sizes, rounds, variants), []
    # a kill gets the same end as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bench.up()
        for index, (size, variant, number) in enumerate(steps):
            what = ", ".join((size, REST[(number - 1) % len(REST)], variant))
            print("%2d of %d, about %.0f min left: %s" % (index + 1, len(steps), left(steps, runs), what), flush=True)
            run = bench.measure(size, variant, number)
            runs.append(run)
            if run["problem"]:
                print("  FAILED: %s" % run["problem"], flush=True)
                bench.heal()
            else:
                print("  %s   (%s)" % (pairs(run["outage"]), pairs(run["phases"])), flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted after %d of %d runs" % (len(runs), len(steps)))
    finally:
        if runs:
            show(runs, about)
        if os.environ.get("KEEP", "") in ("", "0"):
            bench.script("down")
        elif len(runs) < len(steps) and bench.cluster:
            bench.heal()
    return 1 if len(runs) < len(steps) or any(run["problem"] for run in runs) else 0


def pairs(values):
    return ", ".join("%s %.1f s" % item for item in values.items())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SandboxError, subprocess.CalledProcessError) as error:
        sys.exit("The benchmark could not go on: %s" % error)
