# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long it takes from the command rebuild.yml to a serving cluster, beside `kubeadm init` of an empty one on the same machine (floor).

    make bench-rebuild [RUNS=3] [SANDBOX_NAME=bench] [KEEP=1]

See README.md beside this file.  Ends with code 0 whatever the times are, and with 1 when a run failed.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / "tests" / directory) for directory in ("tools", "integration")]

import servers  # noqa: E402
from cluster import ROOT, SandboxError, wait_for  # noqa: E402
from outage import Bench  # noqa: E402
from rebuild_sandbox import CONTAINER  # noqa: E402
from remote_cluster import INVENTORY  # noqa: E402

REPORT = ROOT / "reports" / "bench-rebuild.json"
BUNDLES = "/var/backups/bench/rebuild"
# The same Pods but for the two of the shop, on a kubelet with the same configuration; the range is that of the CNI in the image, and the etcd is the one that
# the image has.
INIT = """
cat >/run/init.yaml <<'EOF'
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: %s
networking: {podSubnet: 10.244.0.0/16}
etcd: {local: {imageTag: %s}}
---
%s
EOF
exec kubeadm init --config /run/init.yaml --ignore-preflight-errors=""" + ",".join(CONTAINER)
MOMENTS = ("readyz", "command", "pods")
# Of what kubeadm init takes.
WANTED = 2.0


class RebuildBench(Bench):
    """A cluster, its bundle on this machine, and one machine after the other for the new one."""

    log = REPORT.with_suffix(".log")

    def bundle(self, directory):
        """(the bundle, the private key), of the cluster, which is switched off then."""
        key = directory / "key.txt"
        subprocess.run([servers.program("age-keygen"), "-o", str(key)], check=True, capture_output=True)
        public = next(line.split()[-1] for line in key.read_text().splitlines() if "public key" in line)
        node, cluster = self.cluster.nodes["cp1"], self.cluster
        subprocess.run([cluster.engine, "cp", servers.program("age"), node + ":/usr/local/bin/age"], check=True)
        cluster.run("cp1", "rm", "-rf", BUNDLES)
        packing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [public], "etcd_snapshot_bundle": True}
        self.playbook("snapshot.yml", "-e", json.dumps(dict(packing, etcd_snapshot_dir=BUNDLES)))
        cluster.run("cp1", "rm", "/usr/local/bin/age")
        subprocess.run([cluster.engine, "cp", "%s:%s/." % (node, BUNDLES), str(directory)], check=True)
        cluster.power("off", "cp1")
        [found] = directory.glob("*.age")
        return found, key

    @contextlib.contextmanager
    def machine(self, directory):
        """One that was never part of a cluster."""
        command, environment = [str(ROOT / "tests/sandbox/machine")], dict(os.environ, SANDBOX_NAME=self.name)
        try:
            made = subprocess.run([*command, "up", "new"], env=environment, check=True, capture_output=True, text=True)
            found = copy.copy(self.cluster)
            found.nodes, found._addresses = {"cp1": self.name + "-new"}, {"cp1": made.stdout.strip()}
            found.inventory = directory / "new.yml"
            found.inventory.write_text(INVENTORY % {"node": found.nodes["cp1"], "root": ROOT})
            yield found
        finally:
            subprocess.run([*command, "down", "new"], env=environment, check=False)

    def measure(self, directory, start):
        """{readyz, command, pods}: seconds until the API server is ready, the command has ended, and all Pods run.  start(machine): a Popen."""
        with self.machine(directory) as machine, open(self.log, "a", encoding="utf-8") as log:
            began, found = time.monotonic(), {}
            process = start(machine, log)

            def passed(name, reached):
                if name not in found and reached():
                    found[name] = round(time.monotonic() - began, 1)

            def ready():
                return machine.run("cp1", "curl", "-sk", "-m", "2", "https://%s:6443/readyz" % machine.address("cp1"), check=False).strip() == "ok"

            def running():
                pods = (machine.get("pods", "-A") or {"items": []})["items"] if "readyz" in found else []
                return bool(pods) and all(all(one["ready"] for one in pod["status"].get("containerStatuses") or [{"ready": False}]) for pod in pods)

            def all_passed():
                passed("readyz", ready)
                passed("command", lambda: process.poll() is not None)
                if process.poll():
                    raise SandboxError("the command ended with code %d, see %s" % (process.returncode, self.log))
                # as long as it runs, Pods of the nodes from before may be there
                if "command" in found:
                    with contextlib.suppress(SandboxError):
                        passed("pods", running)
                return len(found) == len(MOMENTS)

            try:
                wait_for(all_passed, 600, "all Pods run")
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            return found


def show(runs):
    """The table, and the same as JSON."""
    medians = {what: {name: statistics.median(run[name] for run in found) for name in MOMENTS} for what, found in runs.items()}
    print("\nMedians of %d runs, in seconds: until /readyz, the end of the command, all Pods running" % min(len(each) for each in runs.values()))
    for what, found in medians.items():
        print("  %-12s %s" % (what, "  ".join("%6.1f" % found[name] for name in MOMENTS)))
    ratios = {name: round(medians["rebuild.yml"][name] / medians["kubeadm init"][name], 2) for name in MOMENTS}
    print("  %-12s %s   wanted of the last <= %g: %s" % ("ratio", "  ".join("%6.2f" % ratios[name] for name in MOMENTS), WANTED, ratios["pods"] <= WANTED))
    REPORT.write_text(json.dumps({"medians": medians, "ratios": ratios, "runs": runs}, indent=1) + "\n")


def main():
    """Run all of it."""
    rounds = int(os.environ.get("RUNS", "") or 3)
    REPORT.parent.mkdir(exist_ok=True)
    RebuildBench.log.write_text("")
    bench, runs = RebuildBench(os.environ.get("SANDBOX_NAME", "") or "bench", 1), {}
    try:
        bench.up()
        with tempfile.TemporaryDirectory() as work:
            directory = pathlib.Path(work)
            version = bench.cluster.run("cp1", "kubeadm", "version", "-o", "short").strip()
            etcd = re.search(r"image: \S+/etcd:(\S+)", bench.cluster.run("cp1", "cat", "/etc/kubernetes/manifests/etcd.yaml")).group(1)
            kubelet = bench.cluster.kubectl("-n", "kube-system", "get", "configmap/kubelet-config", "-o", "jsonpath={.data.kubelet}")
            bundle, key = bench.bundle(directory)
            given = {"cluster_rebuild_snapshot": str(bundle), "cluster_rebuild_identity_file": str(key), "cluster_rebuild_confirm": True}
            given["cluster_rebuild_ignore_preflight_errors"] = CONTAINER
            os.environ["PATH"] = "%s:%s" % (os.path.dirname(servers.program("age")), os.environ["PATH"])

            def rebuild(machine, log):
                argv = ["ansible-playbook", "-i", str(machine.inventory), "rebuild.yml", "-e", json.dumps(given)]
                return subprocess.Popen(argv, cwd=ROOT / "playbooks", stdin=subprocess.DEVNULL, stdout=log, stderr=log)

            def init(machine, log):
                return subprocess.Popen([machine.engine, "exec", machine.nodes["cp1"], "sh", "-c", INIT % (version, etcd, kubelet)], stdout=log, stderr=log)

            for what, start in [("rebuild.yml", rebuild), ("kubeadm init", init)] * rounds:
                found = bench.measure(directory, start)
                runs.setdefault(what, []).append(found)
                print("%s: %s" % (what, found), flush=True)
        show(runs)
        bench.cluster.power("on", "cp1")
    finally:
        if os.environ.get("KEEP", "") in ("", "0"):
            bench.script("down")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SandboxError, subprocess.SubprocessError) as error:
        sys.exit("The benchmark could not go on: %s" % error)
