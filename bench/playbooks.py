# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The time that the playbooks take from the command to the prompt: this checkout beside an earlier commit, in turns on one sandbox.

    make bench-playbooks [RUNS=7] [BASE=97e024d] [NODES=1] [REST=kubelet+25] [SANDBOX_NAME=bench] [KEEP=1]

See README.md beside this file.  Ends with code 0 whatever the times are, and with 1 when a run failed.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "tools"))

from checkout import NoCheckout, unpack
from cluster import ROOT, SandboxError, wait_for
from outage import REST, Bench, table
from restore_sandbox import Cluster

REPORT = ROOT / "reports" / "bench-playbooks.json"
NAMESPACE = "bench-playbooks"
VARIANTS = ("base", "this")
SECONDS = ("snapshot", "check", "restore", "outage")
# {what: the most that this checkout may take, as a part of what the base takes}
LIMITS = {"snapshot": 0.5, "check": 0.5, "restore": 0.45, "outage": 1.0}
# Three API servers start on the same processors, whatever the playbook does meanwhile.
LIMITS_MEMBERS = dict(LIMITS, restore=0.6)
TASKS = 60
ENDED = ("committed", "rejoined", "rolled-back", "pruned")
# The base asks the API server with this certificate, which may do nothing since Kubernetes 1.36 (kubeadm 1.36.3: phases/certs/certlist.go).
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": NAMESPACE},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-kubelet-client"}],
}


class PlaybookBench(Bench):
    """A sandbox, and two checkouts whose playbooks run on it."""

    log = REPORT.with_suffix(".log")

    def __init__(self, name, nodes, place, base):
        super().__init__(name, nodes)
        self.place = pathlib.Path(place)
        self.collections = {"this": ROOT / "playbooks/collections", "base": unpack(base, self.place / "base")}
        # a sandbox that runs already is used as it is, and stays
        self.is_ours = not (ROOT / "inventory" / ("sandbox.yml" if name == "dr" else name + ".yml")).exists()

    def up(self):
        """Start the sandbox, with etcd's tools by both checkouts, and with what the base needs."""
        if self.is_ours:
            self.script("up")
        self.cluster = Cluster(self.name)
        self.wait_works()
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, BINDING)
        for variant in VARIANTS:
            self.playbook("install.yml", collections=self.collections[variant])

    def down(self):
        """Remove the sandbox, or leave it as it was."""
        if self.is_ours and os.environ.get("KEEP", "") in ("", "0"):
            self.script("down")
        elif self.cluster:
            try:
                self.heal()
            finally:
                self.cluster.kubectl("delete", "--ignore-not-found", "clusterrolebinding/" + NAMESPACE, "namespace/" + NAMESPACE)

    def wait_works(self):
        """Wait until every node and every Pod of kube-system is ready."""

        def ready():
            pods = self.cluster.get("-n", "kube-system", "pods")["items"]
            conditions = [{each["type"]: each["status"] for each in pod["status"].get("conditions", [])} for pod in pods]
            return pods and all(each.get("Ready") == "True" for each in conditions)

        self.cluster.wait_ready()
        wait_for(ready, 180, "the Pods of kube-system are ready")

    def heal(self):
        """Roll back a restore that a run left unfinished."""
        if any(transaction.state not in ENDED for host in self.cluster.nodes for transaction in self.cluster.transactions(host)):
            self.playbook("rollback.yml", collections=self.collections["this"])
        self.wait_works()

    def measure(self, variant, number):
        """One snapshot, one check and one restore, as a dictionary."""
        run = {"variant": variant, "number": number, "problem": None, "seconds": {}, "tasks": {}, "skipped": {}}
        name = "%s-%d-%d" % (variant, number, time.time())
        reports = self.place / name
        began = time.monotonic()
        try:
            self.wait_works()
            self.note("before-" + name)
            self.timed(run, "snapshot", "snapshot.yml")
            self.note("after-" + name)
            self.wait_works()
            self.timed(run, "check", "restore.yml", "--check")
            self.settle(number)
            self.wait_works()
            etcd = {host: self.cluster.etcd_process(host) for host in self.cluster.nodes}
            self.timed(run, "restore", "restore.yml", "-e", "etcd_restore_confirm=true", "-e", "etcd_restore_report_dir=%s" % reports)
            run["seconds"]["outage"] = self.outage(reports)
            run["problem"] = self.find_problem(name, etcd)
        except (SandboxError, subprocess.SubprocessError, OSError) as exc:
            run["problem"] = str(exc)
        run["all_seconds"] = round(time.monotonic() - began, 1)
        return run

    def note(self, name):
        self.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}})

    def timed(self, run, what, *args):
        """Run a playbook of the run's checkout; its seconds and its tasks."""
        began = time.monotonic()
        output = self.playbook(*args, timeout=600, collections=self.collections[run["variant"]])
        run["seconds"][what] = round(time.monotonic() - began, 2)
        run["tasks"][what], run["skipped"][what] = count_tasks(output)

    @staticmethod
    def outage(reports):
        """`outage.seconds` of the restore's own report: how long the worst API server was away, asked from outside."""
        [path] = reports.glob("*.json")
        seconds = json.loads(path.read_text())["outage"]["seconds"]
        if seconds is None:
            raise SandboxError("the report %s has no outage.seconds: nothing measured it from outside" % path.name)
        return seconds

    def find_problem(self, name, etcd):
        """Why this was no restore; None when it was."""
        self.wait_works()
        for host, before in etcd.items():
            if self.cluster.etcd_process(host) == before:
                return "etcd on %s was not restarted" % host
        if self.cluster.get("-n", NAMESPACE, "configmap/before-" + name) is None:
            return "an object from before the snapshot is missing"
        if self.cluster.get("-n", NAMESPACE, "configmap/after-" + name) is not None:
            return "an object from after the snapshot is still there"
        return None


def count_tasks(output):
    """(TASK lines that a playbook printed, how many of them only say that they were skipped)."""
    shown = skipped = 0
    for section in re.split(r"^(?=[A-Z]+(?: [A-Z]+)* \[)", output, flags=re.MULTILINE):
        if re.match(r"(TASK|RUNNING HANDLER) \[", section):
            results = re.findall(r"^(ok|changed|included|skipping|fatal|failed|unreachable|rescued|ignored)\b[^\n]*: \[", section, re.MULTILINE)
            results += re.findall(r"^(included): ", section, re.MULTILINE)
            shown += 1
            skipped += bool(results) and set(results) == {"skipping"}
    return shown, skipped


def medians(runs):
    """{variant: {"seconds"|"tasks"|"skipped": {what: median}}} of the runs that did not fail."""
    found = {}
    for variant in VARIANTS:
        good = [run for run in runs if run["variant"] == variant and not run["problem"]]
        if good:
            found[variant] = {
                kind: {what: statistics.median(run[kind][what] for run in good) for what in good[0][kind]} for kind in ("seconds", "tasks", "skipped")
            }
    return found


def compare(found, limits, tasks):
    """[{what, unit, base, this, ratio, limit, holds}]; limit and holds are None where there is no limit."""
    rows = []
    for kind, unit, names in (("seconds", "s", SECONDS), ("tasks", "tasks", SECONDS[:3]), ("skipped", "of them skipped", SECONDS[:3])):
        for what in names:
            base, this = (found.get(variant, {}).get(kind, {}).get(what) for variant in VARIANTS)
            ratio = round(this / base, 3) if base and this is not None else None
            # the limit of the tasks is a number, that of a time a ratio
            judged, limit = (this, tasks) if (kind, what) == ("tasks", "restore") else (ratio, limits.get(what) if kind == "seconds" else None)
            holds = None if limit is None or judged is None else judged <= limit
            rows.append({"what": what, "unit": unit, "base": base, "this": this, "ratio": ratio, "limit": limit, "holds": holds})
    return rows


def show(runs, about):
    """The table, and the same as JSON."""
    one = about["nodes"] == 1
    found = compare(medians(runs), LIMITS if one else LIMITS_MEMBERS, TASKS if one else None)
    counts = {variant: sum(1 for run in runs if run["variant"] == variant and not run["problem"]) for variant in VARIANTS}
    print("\nFrom the command to the prompt, medians of %(base)d runs of the base and %(this)d of this checkout; the outage is outage.seconds" % counts)
    print("of the restore's report\n")

    def cell(value, form):
        return "-" if value is None else form % value

    rows = [("what", "", "base", "this", "this / base", "at most", "holds")]
    for entry in found:
        form = "%.1f" if entry["unit"] == "s" else "%.0f"
        holds = "-" if entry["holds"] is None else "yes" if entry["holds"] else "NO"
        values = (cell(entry["base"], form), cell(entry["this"], form), cell(entry["ratio"], "%.2f"), cell(entry["limit"], "%g"), holds)
        rows.append((entry["what"], entry["unit"], *values))
    table(rows)
    for run in runs:
        if run["problem"]:
            print("FAILED: %(variant)s, run %(number)d: %(problem)s" % run)
    REPORT.write_text(json.dumps(dict(about, compared=found, runs=runs), indent=2) + "\n")
    print("All of it: %s and %s" % (REPORT.relative_to(ROOT), PlaybookBench.log.name), flush=True)


def ignore_signals():
    """Nothing interrupts the end, which leaves things as they were."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main():
    """Run all of it."""
    rounds = int(os.environ.get("RUNS", "") or 7)
    base = os.environ.get("BASE", "") or "97e024d"
    if not all(re.fullmatch(r"(kubelet\+)?\d+", word) for word in REST):
        sys.exit("REST may hold seconds, and kubelet+SECONDS, not '%s'." % " ".join(REST))
    REPORT.parent.mkdir(exist_ok=True)
    PlaybookBench.log.write_text("")
    # in turns, each round beginning with the other one
    steps = [(variant, number + 1) for number in range(rounds) for variant in VARIANTS[:: -1 if number % 2 else 1]]
    runs = []
    # a kill gets the same end as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="bench-playbooks-") as place:
        bench = PlaybookBench(os.environ.get("SANDBOX_NAME", "") or "bench", int(os.environ.get("NODES", "") or 1), place, base)
        about = {"began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "base": base, "rounds": rounds, "rest": REST}
        try:
            bench.up()
            for variant, number in steps:
                print("%2d of %d: %s" % (len(runs) + 1, len(steps), variant), flush=True)
                run = bench.measure(variant, number)
                runs.append(run)
                if run["problem"]:
                    print("  FAILED: %s" % run["problem"], flush=True)
                    bench.heal()
                else:
                    print("  " + ", ".join("%s %.1f s" % (what, run["seconds"][what]) for what in SECONDS), flush=True)
        except KeyboardInterrupt:
            print("\ninterrupted after %d of %d runs" % (len(runs), len(steps)), flush=True)
        finally:
            ignore_signals()
            if runs:
                show(runs, dict(about, nodes=len(bench.cluster.nodes)))
            bench.down()
    return 1 if len(runs) < len(steps) or any(run["problem"] for run in runs) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SandboxError, NoCheckout, subprocess.CalledProcessError) as error:
        sys.exit("The benchmark could not go on: %s" % error)
