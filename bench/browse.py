# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long it takes to look into a snapshot with browse.yml, beside the same by hand, and to recover many objects with recover.yml; on one sandbox.

    make bench-browse [RUNS=3] [SIZES="small large"] [OBJECTS=500] [SANDBOX_NAME=bench] [KEEP=1]

See README.md beside this file.  Ends with code 0 whatever the times are, and with 1 when a run failed.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "tools"))

from cluster import ROOT, SandboxError, wait_for
from outage import MEGABYTES, Bench

REPORT = ROOT / "reports" / "bench-browse.json"
NAMESPACE = "bench-browse"
KUBECONFIG = "/run/k8s-dr-browse/kubeconfig"
# Seconds for a small database, a part of what it takes by hand for a large one, MB, and seconds for so many objects.
WANTED_SECONDS, WANTED_RATIO, WANTED_MEMORY, WANTED_RECOVER = 15, 1.5, 500, 30

# With the node's own programs, and without any of the barriers: a restore, etcd, an API server that is ready, one question.
BY_HAND = r"""
import os, shutil, ssl, subprocess, sys, time, urllib.request
directory, pki, etcd_url = "/var/lib/bench-browse", "/etc/kubernetes/pki/", "http://127.0.0.1:22379"
programs = {name: "/proc/%s/exe" % subprocess.run(["pgrep", "-ox", name], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
            for name in ("etcd", "kube-apiserver")}
shutil.rmtree(directory, ignore_errors=True)
began, started = time.monotonic(), []
def start(name, **flags):
    argv = [name] + ["--%s=%s" % (flag.replace("_", "-"), value) for flag, value in flags.items()]
    started.append(subprocess.Popen(argv, executable=programs[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
try:
    subprocess.run(["etcdutl", "snapshot", "restore", sys.argv[1], "--data-dir", directory], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    start("etcd", data_dir=directory, listen_client_urls=etcd_url, advertise_client_urls=etcd_url, listen_peer_urls="http://127.0.0.1:22380",
          quota_backend_bytes=-1)
    start("kube-apiserver", etcd_servers=etcd_url, bind_address="127.0.0.1", secure_port=26443, authorization_mode="AlwaysAllow",
          endpoint_reconciler_type="none", client_ca_file=pki + "ca.crt", tls_cert_file=pki + "apiserver.crt", tls_private_key_file=pki + "apiserver.key",
          service_account_issuer="https://kubernetes.default.svc", service_account_key_file=pki + "sa.pub",
          service_account_signing_key_file=pki + "sa.key", service_cluster_ip_range="10.96.0.0/16")
    # it lets nobody in without a certificate of the cluster
    context = ssl._create_unverified_context()
    context.load_cert_chain(pki + "apiserver-kubelet-client.crt", pki + "apiserver-kubelet-client.key")
    while True:
        try:
            if urllib.request.urlopen("https://127.0.0.1:26443/readyz", timeout=2, context=context).status == 200:
                break
        except OSError:
            pass
        if any(process.poll() is not None for process in started) or time.monotonic() > began + 300:
            sys.exit("it does not serve")
        time.sleep(0.05)
    subprocess.run(["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "--server", "https://127.0.0.1:26443", "--insecure-skip-tls-verify",
                    "get", "namespaces"], stdout=subprocess.DEVNULL, check=True)
    print(time.monotonic() - began)
finally:
    for process in started:
        process.kill()
        process.wait()
    shutil.rmtree(directory, ignore_errors=True)
"""
# MB of memory that only these processes have; what is mapped from a file is not theirs.
MEMORY = r"""
import re, subprocess
main = subprocess.run(["systemctl", "show", "-p", "MainPID", "--value", "k8s-dr-browse"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
pids = [main] + open("/proc/%s/task/%s/children" % (main, main)).read().split()
print(sum(int(re.search(r"RssAnon:\s+(\d+)", open("/proc/%s/status" % pid).read()).group(1)) for pid in pids) / 1024)
"""


class BrowseBench(Bench):
    """A sandbox, and snapshots of it."""

    log = REPORT.with_suffix(".log")

    def browse(self, size):
        """{seconds, memory} from the command to the first answer of kubectl."""
        began = time.monotonic()
        self.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_snapshot=" + self.snapshots[size])
        self.cluster.run("cp1", "kubectl", "--kubeconfig", KUBECONFIG, "get", "namespaces")
        seconds = time.monotonic() - began
        memory = float(self.cluster.run("cp1", "python3", "-c", MEMORY))
        self.playbook("browse.yml", "-l", "cp1", "-e", "etcd_browse_state=absent")
        return {"seconds": round(seconds, 2), "memory": round(memory)}

    def by_hand(self, size):
        """The seconds of the same without the playbook and without what keeps others out."""
        return {"seconds": round(float(self.cluster.run("cp1", "python3", "-c", BY_HAND, self.snapshots[size], timeout=400)), 2)}

    def recover(self, objects):
        """The seconds that recover.yml takes for so many objects of a namespace that was deleted."""
        cluster = self.cluster
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        maps = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map-%d" % one, "namespace": NAMESPACE}} for one in range(objects)]
        cluster.apply(*maps)
        self.playbook("snapshot.yml", "-l", "cp1", "-e", "etcd_snapshot_dir=/var/backups/bench/recover")
        cluster.kubectl("delete", "namespace", NAMESPACE, timeout=300)
        snapshot = cluster.run("cp1", "sh", "-c", "ls -t /var/backups/bench/recover/*.db | head -n 1").strip()
        began = time.monotonic()
        options = ["-e", "etcd_browse_snapshot=" + snapshot, "-e", "etcd_recover_namespace=" + NAMESPACE, "-e", "etcd_recover_confirm=true"]
        self.playbook("recover.yml", "-l", "cp1", *options)
        seconds = time.monotonic() - began
        found = len([one for one in cluster.get("-n", NAMESPACE, "configmaps")["items"] if one["metadata"]["name"].startswith("map-")])
        cluster.kubectl("delete", "namespace", NAMESPACE, timeout=300)
        wait_for(lambda: cluster.get("namespace/" + NAMESPACE) is None, 120, "the namespace is gone")
        if found != objects:
            raise SandboxError("%d of %d objects are there" % (found, objects))
        return {"seconds": round(seconds, 2)}


def judged(what, value, wanted, unit):
    """Print whether a limit holds; its row for the report."""
    print("  %-58s %7.2f %s  wanted <= %g: %s" % (what, value, unit, wanted, "yes" if value <= wanted else "NO"))
    return {"what": what, "value": value, "wanted": wanted}


def show(runs, sizes, objects):
    """The table, and the same as JSON."""

    def median(key, name="seconds"):
        return statistics.median(run[name] for run in runs[key])

    print("\nMedians of %d runs" % min(len(each) for each in runs.values()))
    rows = []
    for size in sizes:
        browse, hand = median(("browse", size)), median(("by hand", size))
        print("  %s: browse.yml to the first answer %.1f s, by hand %.1f s" % (size, browse, hand))
        rows.append(judged("browse.yml, %s" % size, browse, WANTED_SECONDS, "s") if size == "small" else judged(size, browse / hand, WANTED_RATIO, "of it"))
        rows.append(judged("memory of etcd, API server and supervisor, %s" % size, median(("browse", size), "memory"), WANTED_MEMORY, "MB"))
    rows.append(judged("recover.yml, %d objects" % objects, median(("recover", "")), WANTED_RECOVER, "s"))
    REPORT.write_text(json.dumps({"limits": rows, "runs": {" ".join(key).strip(): value for key, value in runs.items()}}, indent=1) + "\n")


def main():
    """Run all of it."""
    rounds, objects = int(os.environ.get("RUNS", "") or 3), int(os.environ.get("OBJECTS", "") or 500)
    sizes = (os.environ.get("SIZES", "") or "small large").split()
    if not set(sizes) <= set(MEGABYTES):
        sys.exit("SIZES may hold %s, not '%s'." % (", ".join(MEGABYTES), " ".join(sizes)))
    REPORT.parent.mkdir(exist_ok=True)
    BrowseBench.log.write_text("")
    bench, runs = BrowseBench(os.environ.get("SANDBOX_NAME", "") or "bench", 1), {}
    try:
        bench.up()
        steps = [(bench.recover, "recover", "")] * rounds
        for size in sizes:
            steps += [(bench.prepare, "", size)] + [(bench.browse, "browse", size), (bench.by_hand, "by hand", size)] * rounds
        for do, what, size in steps:
            found = do(*([objects] if what == "recover" else [size]))
            if what:
                runs.setdefault((what, size), []).append(found)
                print("%s %s: %s" % (what, size, found), flush=True)
        show(runs, sizes, objects)
    finally:
        if os.environ.get("KEEP", "") in ("", "0"):
            bench.script("down")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SandboxError, subprocess.SubprocessError) as error:
        sys.exit("The benchmark could not go on: %s" % error)
