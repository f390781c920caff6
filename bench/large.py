# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the comparison before a restore costs with a large snapshot: this checkout beside an earlier commit, in turns on one etcd.

    make bench-large [RUNS=3] [KEYS="320000 1000000"] [VALUE=4000] [BASE=97e024d] [ETCD=3.7]

See README.md beside this file.  Everything runs on loopback; what is written goes to a directory of its own under TMPDIR, which is removed.
Ends with code 0 whatever the times are, and with 1 when a run failed.
"""

from __future__ import annotations

import json
import os
import pathlib
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
from usage import Disk, memory_of, processor_of_children  # noqa: E402
from writer import FLAGS, Writer  # noqa: E402

# That of the newest Kubernetes.
VERSION = os.environ.get("ETCD") or "3.7"
RUNS = int(os.environ.get("RUNS") or 3)
SIZES = [int(size) for size in (os.environ.get("KEYS") or "320000").split()]
VALUE = int(os.environ.get("VALUE") or 4000)
BASE = os.environ.get("BASE") or "97e024d"
REPORTS = ROOT / "reports"
# The most that this checkout may take with so many keys, as a part of what the base takes; MB of memory; and how much the time of a key may grow from
# the smallest to the largest size.  The base does not run with more keys than BASE_UP_TO.
WANTED, LARGE, WANTED_MEMORY, WANTED_GROWTH = 0.2, 320000, 64, 1.1
BASE_UP_TO = int(os.environ.get("BASE_UP_TO") or 2000000)
VARIANTS = ("base", "this")
MEASURED = (
    ("seconds", "s", "comparison"),
    ("processor", "s", "processor time, that of the live etcd included"),
    ("live", "s", "  of which the live etcd"),
    ("memory", "MB", "peak memory of the module"),
    ("read", "MB", "read from the disk, by all that runs"),
    ("written", "MB", "written to the disk, by all that runs"),
)
TICKS = os.sysconf("SC_CLK_TCK")


def key(number):
    return "/registry/pods/namespace-%02d/pod-%07d" % (number % 40, number)


def prepare(member, snapshot, keys):
    """As many keys as wanted, a snapshot of them, and then a thousandth deleted, changed and added."""
    Writer(member).put_all(range(keys), lambda number: (key(number), os.urandom(VALUE)), VALUE)
    member.etcdctl("snapshot", "save", snapshot, timeout=1800)
    for number in range(0, keys, 1000):
        member.delete(key(number))
        member.put(key(number + 1), b"changed")
        member.put(key(keys + number), b"added")


def processor_of(pid):
    """Seconds that a process has computed."""
    return sum(map(int, pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[11:13])) / TICKS


def measure(collections, member, snapshot, place):
    """One comparison by the module of a checkout, as Ansible runs it on a node."""
    work = place / "work"
    work.mkdir(exist_ok=True)
    module = collections / "ansible_collections" / "k8s_dr" / "etcd" / "plugins" / "modules" / "etcd_restore_plan.py"
    options = dict(member.connection, snapshot=str(snapshot), work_dir=str(work), manifests_dir="/nonexistent", compare_timeout=3600)
    if "  etcd:" in module.read_text():
        # it starts one on the snapshot
        options["etcd"] = str(member.dir / "etcd")
    environment = dict(os.environ, PYTHONPATH=str(collections), PYTHONDONTWRITEBYTECODE="1")
    # what one variant wrote is not paid for by the next
    os.sync()
    time.sleep(1)
    disk = Disk(place)
    live, children, start, memory = processor_of(member.pid), processor_of_children(), time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, str(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    process.stdin.close()
    while process.poll() is None:
        memory = max(memory, memory_of(process.pid))
        time.sleep(0.05)
    seconds = time.monotonic() - start
    live, children = processor_of(member.pid) - live, processor_of_children() - children
    run = {"seconds": round(seconds, 2), "processor": round(live + children, 2), "live": round(live, 2), "memory": round(memory, 1)}
    os.sync()
    run.update(disk.used(), problem=None, counts=None)
    output = process.stdout.read()
    try:
        comparison = json.loads(output)["comparison"]
        run["problem"] = comparison["reason"]
    except (ValueError, KeyError):
        run["problem"] = output[-500:]
    if not run["problem"]:
        run["counts"] = [comparison[state]["count"] for state in ("vanish", "reappear", "change")]
    return run


def wanted(name, keys, this, ratio):
    """How a limit holds, in words; "" without a limit."""
    if name == "seconds" and ratio is not None and keys >= LARGE:
        return "  wanted <= %.1f of the base: %s" % (WANTED, "yes" if ratio <= WANTED else "NO")
    if name == "memory":
        return "  wanted <= %d MB: %s" % (WANTED_MEMORY, "yes" if this <= WANTED_MEMORY else "NO")
    return ""


def show(runs, keys, size):
    """The table of one size, and its rows for the report."""
    good = {variant: [run for run in runs if run["variant"] == variant and not run["problem"]] for variant in VARIANTS}
    counted = (keys, size / 1e6, VERSION, len(good["base"]), BASE, len(good["this"]))
    print("\n%d keys, a snapshot of %.1f MB, etcd %s, medians of %d runs of %s and %d of this checkout" % counted)
    print("  %-48s %11s %11s %12s" % ("", "base", "this", "this / base"))
    rows = []
    for name, unit, what in MEASURED:
        base, this = (statistics.median(run[name] for run in good[variant]) if good[variant] else None for variant in VARIANTS)
        ratio = this / base if base and this is not None else None
        rows.append({"what": name, "base": base, "this": this, "ratio": ratio and round(ratio, 3)})
        if this is not None:
            shown = ["-" if value is None else "%.1f %s" % (value, unit) for value in (base, this)] + ["-" if ratio is None else "%.2f" % ratio]
            print("  %-48s %11s %11s %12s%s" % (what, *shown, wanted(name, keys, this, ratio)))
    return rows


def show_growth(reports):
    """How the time of a key grows, and by how much."""
    times = {report["keys"]: next(row["this"] for row in report["compared"] if row["what"] == "seconds") for report in reports}
    each = {keys: seconds / keys * 1e6 for keys, seconds in times.items() if seconds}
    if len(each) < 2:
        return None
    growth = each[max(each)] / each[min(each)]
    words = ", ".join("%.2f us with %d" % (each[keys], keys) for keys in sorted(each))
    print("\nTime of a key: %s; growth %.2f, wanted <= %.1f: %s" % (words, growth, WANTED_GROWTH, "yes" if growth <= WANTED_GROWTH else "NO"))
    return round(growth, 3)


def bench(keys, checkouts):
    """All runs with one number of keys, as a report."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-large-"))
    snapshot, runs, size, early = place / "large.db", [], 0, False
    variants = [variant for variant in VARIANTS if variant == "this" or keys <= BASE_UP_TO]
    try:
        with harness.Etcd(VERSION, place, flags=FLAGS) as member:
            print("writing %d keys" % keys, flush=True)
            prepare(member, snapshot, keys)
            size = snapshot.stat().st_size
            # In turns, each round beginning with the other one. The first round is for caches alone.
            for number in range(-1, RUNS):
                for variant in variants[:: -1 if number % 2 else 1]:
                    run = dict(measure(checkouts[variant], member, snapshot, place), variant=variant)
                    print("%s: %s" % (variant, run["problem"] or "%(seconds).1f s, %(processor).1f s of processor time" % run), flush=True)
                    if number >= 0 or run["problem"]:
                        runs.append(run)
    except KeyboardInterrupt:
        early = True
        print("ended early")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = show(runs, keys, size)
    found = {tuple(run["counts"]) for run in runs if run["counts"]}
    if len(found) > 1:
        print("FAILED: the two found different objects: %s" % sorted(found))
    return {"keys": keys, "size": size, "compared": rows, "runs": runs, "early": early, "ok": len(found) == 1 and not any(run["problem"] for run in runs)}


def main():
    REPORTS.mkdir(exist_ok=True)
    place, reports = pathlib.Path(tempfile.mkdtemp(prefix="bench-large-")), []
    try:
        checkouts = {"base": unpack(BASE, place), "this": harness.COLLECTIONS}
        for keys in SIZES:
            reports.append(bench(keys, checkouts))
            if reports[-1]["early"]:
                break
    finally:
        shutil.rmtree(place, ignore_errors=True)
    growth = show_growth(reports)
    (REPORTS / "bench-large.json").write_text(json.dumps({"etcd": VERSION, "base": BASE, "growth": growth, "sizes": reports}, indent=1) + "\n")
    return 0 if all(report["ok"] for report in reports) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCheckout as error:
        sys.exit("The benchmark could not go on: %s" % error)
