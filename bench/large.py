# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the comparison before a restore costs with a large snapshot: this checkout beside an earlier commit, in turns on one etcd.

    make bench-large [RUNS=3] [KEYS=320000] [VALUE=4000] [BASE=97e024d]

See README.md beside this file.  Everything runs on loopback; what is written goes to a directory of its own under TMPDIR, which is removed.
Ends with code 0 whatever the times are, and with 1 when a run failed.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import harness  # noqa: E402
from checkout import NoCheckout, unpack  # noqa: E402

VERSION = harness.VERSIONS[-1]
RUNS = int(os.environ.get("RUNS") or 3)
KEYS = int(os.environ.get("KEYS") or 320000)
VALUE = int(os.environ.get("VALUE") or 4000)
BASE = os.environ.get("BASE") or "97e024d"
REPORTS = ROOT / "reports"
# The most that this checkout may take, as a part of what the base takes, with so many keys.
WANTED, LARGE = 0.2, 320000
VARIANTS = ("base", "this")
MEASURED = (("seconds", "comparison"), ("processor", "processor time, that of the live etcd included"), ("live", "  of which the live etcd"))
TICKS = os.sysconf("SC_CLK_TCK")


def key(number):
    return "/registry/pods/namespace-%02d/pod-%07d" % (number % 40, number)


def prepare(member, snapshot):
    """As many keys as wanted, a snapshot of them, and then a thousandth deleted, changed and added."""
    for start in range(0, KEYS, 2000):
        member.put_all({key(number): os.urandom(VALUE) for number in range(start, min(start + 2000, KEYS))})
    member.save(snapshot)
    for number in range(0, KEYS, 1000):
        member.delete(key(number))
        member.put(key(number + 1), b"changed")
        member.put(key(KEYS + number), b"added")


def processor_of(pid):
    """Seconds that a process has computed."""
    return sum(map(int, pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[11:13])) / TICKS


def processor_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(collections, member, snapshot, place):
    """One comparison by the module of a checkout, as Ansible runs it on a node."""
    work = place / "work"
    work.mkdir(exist_ok=True)
    options = dict(member.connection, snapshot=str(snapshot), work_dir=str(work), etcd=str(member.dir / "etcd"), manifests_dir="/nonexistent")
    environment = dict(os.environ, PYTHONPATH=str(collections), PYTHONDONTWRITEBYTECODE="1")
    module = collections / "ansible_collections" / "k8s_dr" / "etcd" / "plugins" / "modules" / "etcd_restore_plan.py"
    # what one variant wrote is not paid for by the next
    os.sync()
    time.sleep(1)
    live, children, start = processor_of(member.pid), processor_of_children(), time.monotonic()
    ended = subprocess.run(
        [sys.executable, str(module)], input=json.dumps({"ANSIBLE_MODULE_ARGS": options}), capture_output=True, text=True, env=environment, check=False
    )
    seconds = time.monotonic() - start
    live, children = processor_of(member.pid) - live, processor_of_children() - children
    run = {"seconds": round(seconds, 2), "processor": round(live + children, 2), "live": round(live, 2), "problem": None, "counts": None}
    try:
        comparison = json.loads(ended.stdout)["comparison"]
        run["problem"] = comparison["reason"]
        # the base has no word for it, and compares only what was started
        if not comparison.get("start", {"tested": True})["tested"]:
            run["problem"] = "the start was not tested: %s" % comparison["start"]["reason"]
    except (ValueError, KeyError):
        run["problem"] = (ended.stdout + ended.stderr)[-500:]
    if not run["problem"]:
        run["counts"] = [comparison[state]["count"] for state in ("vanish", "reappear", "change")]
    return run


def show(runs, size):
    """The table, and its rows for the report."""
    good = {variant: [run for run in runs if run["variant"] == variant and not run["problem"]] for variant in VARIANTS}
    print("\n%d keys, a snapshot of %.1f MB, medians of %d runs of %s and %d of this checkout" % (KEYS, size / 1e6, len(good["base"]), BASE, len(good["this"])))
    print("  %-48s %9s %9s %12s" % ("", "base", "this", "this / base"))
    rows = []
    for name, what in MEASURED:
        base, this = (statistics.median(run[name] for run in good[variant]) if good[variant] else None for variant in VARIANTS)
        ratio = this / base if base and this is not None else None
        rows.append({"what": name, "base": base, "this": this, "ratio": ratio and round(ratio, 3)})
        if ratio is not None:
            verdict = "  wanted <= %.1f: %s" % (WANTED, "yes" if ratio <= WANTED else "NO") if name == "seconds" and KEYS >= LARGE else ""
            print("  %-48s %7.1f s %7.1f s %12.2f%s" % (what, base, this, ratio, verdict))
    return rows


def main():
    REPORTS.mkdir(exist_ok=True)
    runs, size = [], 0
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-large-"))
    snapshot = place / "large.db"
    try:
        checkouts = {"base": unpack(BASE, place / "base"), "this": harness.COLLECTIONS}
        with harness.Etcd(VERSION, place, flags=["--quota-backend-bytes", str(8 << 30)]) as member:
            print("writing %d keys" % KEYS, flush=True)
            prepare(member, snapshot)
            size = snapshot.stat().st_size
            # In turns, each round beginning with the other one. The first round is for caches alone.
            for number in range(-1, RUNS):
                for variant in VARIANTS[:: -1 if number % 2 else 1]:
                    run = dict(measure(checkouts[variant], member, snapshot, place), variant=variant)
                    print("%s: %s" % (variant, run["problem"] or "%(seconds).1f s, %(processor).1f s of processor time" % run), flush=True)
                    if number >= 0 or run["problem"]:
                        runs.append(run)
    except KeyboardInterrupt:
        print("ended early")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = show(runs, size)
    found = {tuple(run["counts"]) for run in runs if run["counts"]}
    if len(found) > 1:
        print("FAILED: the two found different objects: %s" % sorted(found))
    report = {"etcd": VERSION, "keys": KEYS, "size": size, "base": BASE, "compared": rows, "runs": runs}
    (REPORTS / "bench-large.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if len(found) != 1 or any(run["problem"] for run in runs) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCheckout as error:
        sys.exit("The benchmark could not go on: %s" % error)
