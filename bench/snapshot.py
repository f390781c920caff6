# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cost of a snapshot with snapshot.yml, beside an earlier commit and beside `etcdctl snapshot save` and `sha256sum` alone, what encrypting it costs, and
many clusters in one run.

    make bench-snapshot [RUNS=5] [SIZES="3 1024"] [BASE=97e024d] [FLEET=20] [FORKS="1 5 20"]

See bench/README.md.  Everything runs on loopback; what is written goes to a directory of its own under TMPDIR, which is removed.
"""

from __future__ import annotations

import contextlib
import functools
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
from checkout import NoCheckout, unpack  # noqa: E402

VERSION = harness.VERSIONS[-1]
RUNS = int(os.environ.get("RUNS") or 5)
SIZES = [int(size) for size in (os.environ.get("SIZES") or "3 1024").split()]
BASE = os.environ.get("BASE") or "97e024d"
FLEET = int(os.environ.get("FLEET") or 20)
FORKS = [int(forks) for forks in (os.environ.get("FORKS") or "1 5 20").split()]
REPORTS = ROOT / "reports"
# What the project wants: of the seconds that the base takes longer than by hand with a small database, of those by hand with a large one, MB of one process
# of ours, and of the seconds of zstd and age.
WANTED_FIXED, WANTED_RATIO, WANTED_MEMORY, WANTED_ENCRYPTION = 0.5, 1.1, 64, 1.1
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
    """An inventory of one host for each etcd, whose snapshots are in a directory below `place`."""
    place.mkdir(exist_ok=True)
    common = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable, "etcd_snapshot_keep": 1}
    hosts = {}
    for name, member in members.items():
        own = {"etcd_client_%s" % key: member.connection[key] for key in ("endpoint", "cacert", "cert", "key")}
        own.update(etcd_client_bin_dir=str(harness.bin_dir(VERSION)), etcd_client_manifests_dir=str(place / name / "manifests"))
        hosts[name] = dict(common, etcd_snapshot_dir=str(place / name / "backups"), **own)
    path = place / "inventory.json"
    path.write_text(json.dumps({"control_plane": {"hosts": hosts}}))
    return path


def processor():
    """Seconds that all that has ended so far has computed; the etcd is not among it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def playbook(checkout, inventory, log, forks=5):
    """snapshot.yml of a checkout: its seconds and processor time, the seconds that etcd_snapshot names, MB of the largest process, and the return code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ETCD")) and name != "PYTHONPATH"}
    environment.update(ANSIBLE_NOCOLOR="1", ANSIBLE_SHOW_CUSTOM_STATS="1", ANSIBLE_FORKS=str(forks))
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", str(inventory), str(checkout / "playbooks" / "snapshot.yml")]
    start, before = time.monotonic(), processor()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=str(checkout))
    memory = Memory(process.pid)
    memory.start()
    output = process.communicate()[0]
    seconds = time.monotonic() - start
    memory.done.set()
    log.write(output)
    # 97e024d has another word for it
    match = re.search(r"taken and (?:verified|proven) in ([0-9.]+) s", output)
    return {
        "seconds": seconds,
        "processor": processor() - before,
        "module": float(match.group(1)) if match else None,
        "memory": memory.peak,
        "failed": process.returncode != 0,
    }


def by_hand(member, place):
    """The seconds and processor time of `etcdctl snapshot save` and `sha256sum`, and the seconds of each."""
    target = place / "by-hand.db"
    start, before = time.monotonic(), processor()
    member.etcdctl("snapshot", "save", target, timeout=600)
    middle = time.monotonic()
    subprocess.run(["sha256sum", str(target)], stdout=subprocess.DEVNULL, check=True)
    end = time.monotonic()
    target.unlink()
    return {"seconds": end - start, "processor": processor() - before, "save": middle - start, "sha256sum": end - middle, "failed": False}


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


def one_size(found, place, checkouts, log):
    """One database: this checkout, the base, and by hand, in turns.  found: what is measured goes there."""
    place.mkdir()
    with harness.Etcd(VERSION, place, flags=["--quota-backend-bytes", str(8 << 30)]) as member:
        fill(member, found["megabytes"])
        found["size"] = member.db.stat().st_size
        variants = {name: functools.partial(playbook, at, inventory_of({"cp1": member}, place / name), log) for name, at in checkouts.items()}
        variants["by_hand"] = functools.partial(by_hand, member, place)
        names = list(variants)
        # the first round is for caches alone
        for number in range(-1, RUNS):
            for name in (names * 2)[number % len(names) :][: len(names)]:
                settle()
                run = variants[name]()
                found["failed"] += run["failed"]
                if number >= 0 and not run["failed"]:
                    found["runs"][name].append(run)
        found.update(encrypting(member, place))


def values(found, name, what="seconds"):
    """One number of all runs of a variant."""
    return [run[what] for run in found["runs"].get(name, []) if run[what] is not None]


def print_size(found):
    print("\n%d MB (database %.1f MB), median of %d, seconds" % (found["megabytes"], found["size"] / 1e6, len(found["runs"]["this"])))
    for what, numbers in (
        ("snapshot.yml, all of it", values(found, "this")),
        ("  of which taking and verifying", values(found, "this", "module")),
        ("  processor time", values(found, "this", "processor")),
        ("snapshot.yml of %s" % BASE, values(found, "base")),
        ("  of which taking and verifying", values(found, "base", "module")),
        ("  processor time", values(found, "base", "processor")),
        ("etcdctl snapshot save + sha256sum", values(found, "by_hand")),
        ("  of which save", values(found, "by_hand", "save")),
        ("  of which sha256sum", values(found, "by_hand", "sha256sum")),
        ("  processor time", values(found, "by_hand", "processor")),
        ("encrypting it with zstd and age", found["encrypt"]),
        ("zstd -T0 | age", found["encrypt_by_hand"]),
    ):
        print("  %-36s %8s  (%s)" % (what, median(numbers), " ".join("%.2f" % value for value in sorted(numbers))))
    print("  peak memory of our own code on the host: %.1f MB%s" % (peak(found), ", %d runs FAILED" % found["failed"] if found["failed"] else ""))


def peak(found):
    return round(max(values(found, "this", "memory"), default=0), 1)


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
            run = playbook(ROOT, inventory, log, forks)
            seconds, failed = run["seconds"], run["failed"]
            found.append({"forks": forks, "clusters": FLEET, "seconds": round(seconds, 2), "per_cluster": round(seconds / FLEET, 2), "failed": failed})
            print("  forks %3d: %7.1f s, %5.2f s for each cluster%s" % (forks, seconds, seconds / FLEET, "  FAILED" if failed else ""))
    return found


def judge(sizes):
    """What the project wants, and whether it is so here."""
    lines = []

    def line(what, value, wanted, form="%.2f"):
        lines.append((what, form % value, "<= %g" % wanted, value <= wanted))

    complete = [one for one in sizes if all(one["runs"][name] for name in ("this", "base", "by_hand"))]
    more = {}
    if complete and complete[0] is sizes[0]:
        more = {name: median(values(sizes[0], name)) - median(values(sizes[0], "by_hand")) for name in ("this", "base")}
        what = "%d MB, longer than by hand: %.2f s, of base's %.2f s" % (sizes[0]["megabytes"], more["this"], more["base"])
        line(what, more["this"] / more["base"], WANTED_FIXED)
    for one in [one for one in complete if one["megabytes"] >= 900 and more]:
        ratio = (median(values(one, "this")) - more["this"]) / median(values(one, "by_hand"))
        line("%d MB without that, times by hand" % one["megabytes"], ratio, WANTED_RATIO)
    for one in [one for one in sizes if one["megabytes"] >= 900 and one.get("encrypt")]:
        line("encrypting %d MB, times by hand" % one["megabytes"], median(one["encrypt"]) / median(one["encrypt_by_hand"]), WANTED_ENCRYPTION)
    for one in sizes:
        line("peak memory in MB, %d MB" % one["megabytes"], peak(one), WANTED_MEMORY, "%.1f")
    return lines


def main():
    REPORTS.mkdir(exist_ok=True)
    report = {"etcd": VERSION, "base": BASE, "runs": RUNS, "sizes": [], "fleet": []}
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-snapshot-"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        unpack(BASE, place / "base")
        checkouts = {"this": ROOT, "base": place / "base"}
        with open(REPORTS / "bench-snapshot.log", "w", encoding="utf-8") as log:
            for megabytes in SIZES:
                found = {"megabytes": megabytes, "size": 0, "failed": 0, "runs": {"this": [], "base": [], "by_hand": []}, "encrypt": [], "encrypt_by_hand": []}
                report["sizes"].append(found)
                try:
                    one_size(found, place / str(megabytes), checkouts, log)
                finally:
                    print_size(found)
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
        print("  %-62s %8s   wanted %-8s %s" % (what, is_so, wanted, "yes" if good else "NO"))
    (REPORTS / "bench-snapshot.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(one["failed"] for one in report["sizes"] + report["fleet"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCheckout as error:
        sys.exit("The benchmark could not go on: %s" % error)
