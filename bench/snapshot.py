# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of a snapshot with snapshot.yml, beside `etcdctl snapshot save` and `sha256sum` alone, what encrypting it costs, and many clusters in one run.

    make bench-snapshot [RUNS=5] [SIZES="3 1024"] [FLEET=20] [FORKS="1 5 20"]

See bench/README.md.  Everything runs on loopback; what is written goes to a directory of its own under TMPDIR, which is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import harness  # noqa: E402
import servers  # noqa: E402

VERSION = harness.VERSIONS[-1]
RUNS = int(os.environ.get("RUNS") or 5)
SIZES = [int(size) for size in (os.environ.get("SIZES") or "3 1024").split()]
FLEET = int(os.environ.get("FLEET") or 20)
FORKS = [int(forks) for forks in (os.environ.get("FORKS") or "1 5 20").split()]
REPORTS = ROOT / "reports"
# What the project wants: seconds more than by hand with a small database, times as long with a large one, MB of one process of ours.
WANTED_FIXED, WANTED_RATIO, WANTED_MEMORY, WANTED_ENCRYPTION = 6.0, 1.15, 64, 1.1
ENCRYPT = """
import sys, time
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import encryption
start = time.monotonic()
encryption.encrypt(sys.argv[1], sys.argv[2], "zstd", [sys.argv[3]])
print(time.monotonic() - start)
"""
ENCRYPT_BY_HAND = 'set -e; zstd -T0 -q -c "$1" | age -r "$3" >"$2"; sync "$2"'


class Memory(threading.Thread):
    """The most that any one process of our own code uses: Python on the managed node, below a process and no other of the machine."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.done = pid, 0, threading.Event()

    def run(self):
        while not self.done.wait(0.02):
            for pid in below(self.pid):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    argv = pathlib.Path("/proc/%d/cmdline" % pid).read_bytes().split(b"\0")
                    if b"python" in os.path.basename(argv[0]) and any(b"AnsiballZ_etcd_snapshot" in word for word in argv):
                        text = pathlib.Path("/proc/%d/status" % pid).read_text()
                        self.peak = max(self.peak, int(re.search(r"VmHWM:\s+(\d+)", text).group(1)) / 1024)


def below(pid):
    """Ids of all processes that come from one."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents.setdefault(int(pathlib.Path("/proc/%s/stat" % entry).read_text().rpartition(")")[2].split()[1]), []).append(int(entry))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def fill(member, megabytes):
    """Values of a megabyte under a prefix of their own, and a few objects as Kubernetes has them."""
    harness.fill(member, objects=300)
    for number in range(megabytes):
        member.put("/bench/%06d" % number, os.urandom(1000000))


def inventory_of(members, place):
    common = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable, "etcd_snapshot_keep": 1}
    hosts = {}
    for name, member in members.items():
        own = {"etcd_client_%s" % key: member.connection[key] for key in ("endpoint", "cacert", "cert", "key")}
        own.update(etcd_client_bin_dir=str(harness.bin_dir(VERSION)), etcd_client_manifests_dir=str(place / name / "manifests"))
        hosts[name] = dict(common, etcd_snapshot_dir=str(place / name / "backups"), **own)
    path = place / "inventory.json"
    path.write_text(json.dumps({"control_plane": {"hosts": hosts}}))
    return path


def ours(inventory, log, forks=5):
    """(seconds, peak MB, what etcd_snapshot itself took, return code) of snapshot.yml."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ETCD"))}
    environment.update(ANSIBLE_NOCOLOR="1", ANSIBLE_SHOW_CUSTOM_STATS="1", ANSIBLE_FORKS=str(forks))
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", str(inventory), str(ROOT / "playbooks" / "snapshot.yml")]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=str(ROOT))
    memory = Memory(process.pid)
    memory.start()
    output = process.communicate()[0]
    seconds = time.monotonic() - start
    memory.done.set()
    log.write(output)
    match = re.search(r"taken and verified in ([0-9.]+) s", output)
    return seconds, memory.peak, float(match.group(1)) if match else None, process.returncode


def by_hand(member, place):
    """Seconds of `etcdctl snapshot save` and `sha256sum`, and of both."""
    target = place / "by-hand.db"
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    start = time.monotonic()
    member.etcdctl("snapshot", "save", target, timeout=600)
    middle = time.monotonic()
    subprocess.run(["sha256sum", str(target)], stdout=subprocess.DEVNULL, check=True)
    end = time.monotonic()
    target.unlink()
    return middle - start, end - middle, end - start


def encrypting(member, place):
    """Seconds of encrypting one snapshot, ours and by hand in turns: what both read is in memory, and both end when what they wrote is on the disk."""
    plain, encrypted, identity = place / "plain.db", place / "encrypted", place / "identity.txt"
    member.etcdctl("snapshot", "save", plain, timeout=600)
    subprocess.run([servers.program("age-keygen"), "-o", str(identity)], check=True, capture_output=True)
    recipient = next(line.split()[-1] for line in identity.read_text().splitlines() if "public key" in line)
    environment = dict(os.environ, PATH=os.path.dirname(servers.program("age")) + os.pathsep + os.environ["PATH"], PYTHONPATH=str(harness.COLLECTIONS))
    arguments = [str(plain), str(encrypted), recipient]

    def run_ours():
        ended = subprocess.run([sys.executable, "-c", ENCRYPT, *arguments], env=environment, check=True, capture_output=True, text=True)
        return float(ended.stdout)

    def run_by_hand():
        start = time.monotonic()
        subprocess.run(["nice", "-n", "10", "bash", "-o", "pipefail", "-c", ENCRYPT_BY_HAND, "encrypt", *arguments], env=environment, check=True)
        return time.monotonic() - start

    found = {run_ours: [], run_by_hand: []}
    for number in range(-1, RUNS):
        for variant in (run_ours, run_by_hand) if number % 2 == 0 else (run_by_hand, run_ours):
            encrypted.unlink(missing_ok=True)
            settle()
            seconds = variant()
            if number >= 0:
                found[variant].append(seconds)
    plain.unlink()
    encrypted.unlink()
    return {"encrypt": found[run_ours], "encrypt_by_hand": found[run_by_hand]}


def settle():
    """What one variant wrote is not paid for by the next."""
    os.sync()
    time.sleep(1)


def median(values):
    return round(statistics.median(values), 2) if values else None


def one_size(megabytes, place, log):
    """One database, both ways in turns."""
    place.mkdir()
    found = {"megabytes": megabytes, "ours": [], "module": [], "by_hand": [], "save": [], "sha256sum": [], "peak_mb": 0.0, "failed": 0}
    with harness.Etcd(VERSION, place, flags=["--quota-backend-bytes", str(8 << 30)]) as member:
        fill(member, megabytes)
        inventory = inventory_of({"cp1": member}, place)

        def run_ours(count=True):
            settle()
            seconds, peak, module, rc = ours(inventory, log)
            if rc:
                found["failed"] += 1
            elif count:
                found["ours"].append(seconds)
                found["module"].append(module)
                found["peak_mb"] = max(found["peak_mb"], round(peak, 1))

        def run_by_hand(count=True):
            settle()
            save, checksum, both = by_hand(member, place)
            if count:
                found["by_hand"].append(both)
                found["save"].append(save)
                found["sha256sum"].append(checksum)

        # the first of each is for caches alone
        run_ours(False)
        run_by_hand(False)
        for number in range(RUNS):
            for variant in (run_ours, run_by_hand) if number % 2 == 0 else (run_by_hand, run_ours):
                variant()
        found["size"] = member.db.stat().st_size
        found.update(encrypting(member, place))
    print_size(found)
    return found


def print_size(found):
    print("\n%d MB (database %.1f MB), median of %d, seconds" % (found["megabytes"], found["size"] / 1e6, len(found["ours"])))
    for name, what in (
        ("ours", "snapshot.yml, all of it"), ("module", "  of which taking and proving"),
        ("by_hand", "etcdctl snapshot save + sha256sum"), ("save", "  of which save"), ("sha256sum", "  of which sha256sum"),
        ("encrypt", "encrypting it with zstd and age"), ("encrypt_by_hand", "zstd -T0 | age"),
    ):
        print("  %-36s %8s  (%s)" % (what, median(found[name]), " ".join("%.2f" % value for value in sorted(found[name]))))
    print("  peak memory of our own code on the host: %.1f MB%s" % (found["peak_mb"], ", %d runs FAILED" % found["failed"] if found["failed"] else ""))


def fleet(place, log):
    """FLEET clusters of one host in one run, with each number of forks."""
    place.mkdir()
    ports = iter(harness.free_ports(2 * FLEET))
    members = {}
    for name in ("cp%03d" % number for number in range(1, FLEET + 1)):
        members[name] = harness.Etcd(VERSION, place, name=name, client_port=next(ports), peer_port=next(ports), wait=False)
    found = []
    with contextlib.ExitStack() as stack:
        for member in members.values():
            stack.enter_context(member)
        for member in members.values():
            if not member.ready():
                raise RuntimeError("an etcd did not get ready: %s" % member.log.read_text()[-500:])
        inventory = inventory_of(members, place)
        print("\n%d clusters in one run" % FLEET)
        for forks in FORKS:
            settle()
            seconds, _peak, _module, rc = ours(inventory, log, forks)
            found.append({"forks": forks, "clusters": FLEET, "seconds": round(seconds, 2), "per_cluster": round(seconds / FLEET, 2), "failed": bool(rc)})
            print("  forks %3d: %7.1f s, %5.2f s for each cluster%s" % (forks, seconds, seconds / FLEET, "  FAILED" if rc else ""))
    return found


def judge(sizes):
    """What the project wants, and whether it is so here."""
    lines = []
    if sizes and sizes[0]["ours"] and sizes[0]["by_hand"]:
        small = sizes[0]
        more = median(small["ours"]) - median(small["by_hand"])
        lines.append(("fixed cost of a run, %d MB" % small["megabytes"], "%.2f s" % more, "<= %.0f s" % WANTED_FIXED, more <= WANTED_FIXED))
        for large in [one for one in sizes[1:] if one["megabytes"] >= 900 and one["ours"] and one["by_hand"]]:
            ratio = (median(large["ours"]) - more) / median(large["by_hand"])
            lines.append(("%d MB without that, times by hand" % large["megabytes"], "%.2f" % ratio, "<= %.2f" % WANTED_RATIO, ratio <= WANTED_RATIO))
    for large in [one for one in sizes if one["megabytes"] >= 900 and one.get("encrypt")]:
        ratio = median(large["encrypt"]) / median(large["encrypt_by_hand"])
        lines.append(("encrypting %d MB, times by hand" % large["megabytes"], "%.2f" % ratio, "<= %.2f" % WANTED_ENCRYPTION, ratio <= WANTED_ENCRYPTION))
    for one in sizes:
        lines.append(("peak memory, %d MB" % one["megabytes"], "%.1f MB" % one["peak_mb"], "<= %d MB" % WANTED_MEMORY, one["peak_mb"] <= WANTED_MEMORY))
    return lines


def main():
    REPORTS.mkdir(exist_ok=True)
    report = {"etcd": VERSION, "runs": RUNS, "sizes": [], "fleet": []}
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-snapshot-"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        with open(REPORTS / "bench-snapshot.log", "w", encoding="utf-8") as log:
            for megabytes in SIZES:
                report["sizes"].append(one_size(megabytes, place / str(megabytes), log))
                shutil.rmtree(place / str(megabytes))
            if FLEET:
                report["fleet"] = fleet(place / "fleet", log)
    except KeyboardInterrupt:
        print("ended early")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    report["verdict"] = judge(report["sizes"])
    print()
    for what, is_so, wanted, good in report["verdict"]:
        print("  %-40s %10s   wanted %-10s %s" % (what, is_so, wanted, "yes" if good else "NO"))
    (REPORTS / "bench-snapshot.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(one["failed"] for one in report["sizes"] + report["fleet"]) else 0


if __name__ == "__main__":
    sys.exit(main())
