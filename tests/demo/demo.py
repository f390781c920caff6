# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster, a snapshot, an accident, a restore; and a table of the objects before and after.

It ends with code 0 only if everything came back, and what the accident added is gone.
"""

from __future__ import annotations

import base64
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

from cluster import Sandbox, SandboxError, wait_for  # noqa: E402

SHOP = "demo"
LOG = ROOT / "reports" / "demo.log"
BOLD, DIM, RED, GREEN, PLAIN = ("\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m") if sys.stdout.isatty() or os.environ.get("FORCE_COLOR") else ("",) * 5
ABSENT = "-"


def headline(number, text):
    """Print the headline of a step."""
    print("\n%s%d. %s%s" % (BOLD, number, text, PLAIN), flush=True)


def say(text):
    """Print one line."""
    print("   " + text, flush=True)


def run_playbook(sandbox, *args):
    """Run a playbook, print its tasks as they run, keep everything in the log; (output, seconds)."""
    say("%s$ ansible-playbook %s%s" % (BOLD, " ".join(args), PLAIN))
    start = time.monotonic()
    process = sandbox.playbook(*args, background=True)
    lines = []
    name, since = None, 0.0
    with open(LOG, "a", encoding="utf-8") as log:
        for line in process.stdout:
            log.write(line)
            lines.append(line)
            task = re.match(r"(?:TASK|RUNNING HANDLER) \[(?:k8s_dr\.etcd\.\S+ : )?(.*)\] \**$", line)
            if task:
                name, since = task.group(1), time.monotonic() - start
            elif name and re.match(r"(ok|changed|fatal): ", line) and not name.startswith("Validating arguments"):
                print("%s   %6.1f s  %s%s" % (DIM, since, name, PLAIN), flush=True)
                name = None
    output = "".join(lines)
    if process.wait() != 0:
        print(output[-4000:])
        raise SandboxError("ansible-playbook %s ended with code %d; all of its output is in %s" % (args[0], process.returncode, LOG))
    return output, time.monotonic() - start


def configmap(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": SHOP}, "data": data}


def look(sandbox):
    """What the shop is like now: {thing: value}."""

    def value(kind, name, field):
        found = sandbox.get("-n", SHOP, "%s/%s" % (kind, name))
        return field(found) if found else ABSENT

    def secret(found):
        return base64.b64decode(found["data"]["key"]).decode()

    return {
        "ConfigMap prices: apples": value("configmap", "prices", lambda found: found["data"]["apples"]),
        "ConfigMap orders: last": value("configmap", "orders", lambda found: found["data"]["last"]),
        "Secret payment-key": value("secret", "payment-key", secret),
        "Deployment web: replicas": value("deployment", "web", lambda found: str(found["spec"]["replicas"])),
        "Deployment web: processes": str(len(sandbox.processes("cp1", "demo-web-process"))),
        "ConfigMap ransom-note": value("configmap", "ransom-note", lambda dummy: "there"),
        "Deployment miner: processes": str(len(sandbox.processes("cp1", "demo-miner-process"))),
    }


def open_shop(sandbox):
    """A shop that is as new, whatever an earlier demo left."""
    sandbox.kubectl("delete", "namespace", SHOP, "--ignore-not-found", "--wait", timeout=300)
    sandbox.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}},
        configmap("prices", apples="3", pears="4"),
        configmap("orders", last="4711"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "payment-key", "namespace": SHOP}, "stringData": {"key": "not-a-real-key"}},
        sandbox.workload("web", SHOP, "demo-web-process", replicas=2),
    )
    wait_for(lambda: len(sandbox.processes("cp1", "demo-web-process")) == 2, 180, "the shop's Pods run")


def accident(sandbox):
    """Deleted, changed, added."""
    sandbox.kubectl("-n", SHOP, "delete", "secret/payment-key", "configmap/orders", "deployment/web")
    sandbox.apply(configmap("prices", apples="300", pears="4"), configmap("ransom-note", text="pay"), sandbox.workload("miner", SHOP, "demo-miner-process"))
    wait_for(lambda: sandbox.processes("cp1", "demo-miner-process") and not sandbox.processes("cp1", "demo-web-process"), 120, "the accident")


def table(rows):
    """Print rows of cells, the first of them as the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("   " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        if number == 0:
            print("   " + "  ".join("-" * width for width in widths))


def main():
    """Run the demo."""
    began = time.monotonic()
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")

    headline(1, "A kubeadm cluster")
    subprocess.run([str(ROOT / "tests" / "sandbox" / "up")], check=True)
    sandbox = Sandbox()
    open_shop(sandbox)
    say("%s$ kubectl version%s" % (BOLD, PLAIN))
    for line in sandbox.kubectl("version").splitlines():
        say(line)
    version = sandbox.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"]
    say("Kubernetes %s on %s; a shop is open in it." % (version, ", ".join(sandbox.nodes)))
    limit = ",".join(sandbox.nodes)

    headline(2, "A verified snapshot of its etcd")
    run_playbook(sandbox, "install.yml")
    dummy, snapshot_seconds = run_playbook(sandbox, "snapshot.yml")
    before = look(sandbox)
    etcd_version = sandbox.etcdctl("endpoint", "status")[0]["Status"]["version"]

    headline(3, "An accident")
    accident(sandbox)
    broken = look(sandbox)
    say("The payment key, the orders and the web Deployment are deleted; apples cost %s; a miner runs." % broken["ConfigMap prices: apples"])

    headline(4, "One command")
    with sandbox.probe("/api/v1/namespaces/%s/configmaps/prices" % SHOP) as probe:
        dummy, restore_seconds = run_playbook(sandbox, "restore.yml", "-l", limit, "-e", "etcd_restore_confirm=true")
        settled = time.monotonic()
        # what the containers do follows what etcd says, with kubelet's delay
        try:
            wait_for(lambda: look(sandbox) == before, 180, "all is as it was")
        except SandboxError as exc:
            say("%s%s%s" % (RED, exc, PLAIN))
        settled = time.monotonic() - settled
    after = look(sandbox)

    headline(5, "What came back")
    rows = [("", "at the snapshot", "after the accident", "after the restore", "")]
    good = True
    for thing, value in before.items():
        fine = after[thing] == value
        good = good and fine
        if value == broken[thing]:
            verdict = "untouched" if fine else "LOST"
        elif value in (ABSENT, "0"):
            verdict = "gone again" if fine else "STILL THERE"
        else:
            verdict = "came back" if fine else "LOST"
        rows.append((thing, value, broken[thing], after[thing], verdict))
    table(rows)
    print()
    rows = [("the API seen from outside, every 0.2 s", "away for", "questions", "failed")]
    for gap in probe.gaps():
        what = {"readyz": "/readyz", "read": "reading a ConfigMap"}[gap.what]
        rows.append((what, "%.1f s" % gap.seconds, str(gap.samples), str(gap.failures)))
    table(rows)
    print()
    say("etcd %s, Kubernetes %s: snapshot playbook %.0f s, restore playbook %.0f s, all as it was %.0f s later; the whole demo %.0f s."
        % (etcd_version, version, snapshot_seconds, restore_seconds, settled, time.monotonic() - began))
    say("All output of Ansible: %s" % LOG.relative_to(ROOT))
    say("%s%s%s" % ((GREEN, "Everything came back, and nothing else is left.", PLAIN) if good else (RED, "NOT everything came back.", PLAIN)))
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SandboxError, subprocess.CalledProcessError) as error:
        sys.exit("%sThe demo failed:%s %s" % (RED, PLAIN, error))
