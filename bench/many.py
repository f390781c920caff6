# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What many snapshots in one place cost the modules that look at all of them, and how that grows with their number.

    make bench-many [SNAPSHOTS="200 2000"] [RUNS=3]

See README.md beside this file.  What is written goes to a directory of its own under TMPDIR, which is removed.
Ends with code 0 whatever the times are, and with 1 when a run failed.
"""

from __future__ import annotations

import datetime
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
import servers  # noqa: E402

VERSION = harness.VERSIONS[-1]
SNAPSHOTS = [int(count) for count in (os.environ.get("SNAPSHOTS") or "200 2000").split()]
RUNS = int(os.environ.get("RUNS") or 3)
REPORTS = ROOT / "reports"
# The most that may be read for each byte of the manifests; off-site rclone reads them as well, and lists all names.
WANTED_READ, WANTED_READ_OFF_SITE = 1.2, 2.4
MEASURES = (
    ("seconds", "seconds", "%.2f"),
    ("processor", "processor s", "%.2f"),
    ("memory", "MB of memory", "%.1f"),
    ("read", "MB read", "%.2f"),
    ("calls", "rclone calls", "%d"),
)
# Runs a module, and writes what it has used in the end.  wait4() would say how much memory this process had when it forked, if that was more.
LAUNCH = """
import atexit, json, re, runpy, sys
module, target = sys.argv[1], sys.argv[2]
del sys.argv[1:]

def number(name, file):
    return int(re.search(name + r":\\s+([0-9]+)", open("/proc/self/" + file).read()).group(1))

def end():
    json.dump({"read": number("rchar", "io") / 1e6, "memory": number("VmHWM", "status") / 1024}, open(target, "w"))

atexit.register(end)
runpy.run_path(module, run_name="__main__")
"""
COUNTING = '#!/bin/sh\necho "$1" >>"%s"\nexec "%s" "$@"\n'


def taken(place):
    """(path, manifest) of a real snapshot, whose manifest has as much in it as that of a cluster with 60 resources and 200 Deployments."""
    with harness.Etcd(VERSION, place) as member:
        member.put_all(("/registry/resource-%02d/namespace-%d/one" % (number % 60, number % 7), b"x") for number in range(420))
        member.put_all(("/registry/deployments/namespace-%d/deployment-%03d" % (number % 7, number), b"x") for number in range(200))
        options = dict(member.connection, directory=str(place / "one"), manifests_dir="/nonexistent", pki_dir="/nonexistent", host="cp1")
        code, result = harness.run_module("etcd_snapshot", **options)
        if code:
            sys.exit("No snapshot was taken: %s" % result.get("msg"))
    path = pathlib.Path(result["snapshot"]["path"])
    return path, json.loads(path.with_name(path.name + ".json").read_text())


def fill(directory, count, path, manifest):
    """So many snapshots, one for each hour of the past; the bytes of all manifests.  The files are links to one, so that they need no room."""
    directory.mkdir()
    now, size = datetime.datetime.now(datetime.timezone.utc), 0
    for number in range(count):
        at = now - datetime.timedelta(hours=number)
        name = "etcd-cp1-%s.db" % at.strftime("%Y%m%dT%H%M%SZ")
        text = json.dumps(dict(manifest, file=name, created=at.strftime("%Y-%m-%dT%H:%M:%SZ")), sort_keys=True, indent=1) + "\n"
        (directory / (name + ".json")).write_text(text)
        os.link(path, directory / name)
        size += len(text)
    return size


def run(module, place, **options):
    """One run of a module, as Ansible runs it on a node: what it took, and what it returned."""
    environment = dict(os.environ, PYTHONPATH=str(harness.COLLECTIONS))
    ended, output = place / "ended", place / "output"
    start = time.monotonic()
    with output.open("w") as stream:
        command = [sys.executable, "-c", LAUNCH, str(ROOT / "plugins" / "modules" / (module + ".py")), str(ended)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT, text=True, env=environment)
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
        process.stdin.close()
        _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    found = dict(json.loads(ended.read_text()), seconds=time.monotonic() - start, processor=used.ru_utime + used.ru_stime)
    try:
        result = json.loads(output.read_text())
    except ValueError:
        result = {"failed": True, "msg": output.read_text()[-500:]}
    found["problem"] = result.get("msg") if process.returncode or result.get("failed") else None
    return found, result


def measured(module, place, check, options):
    """The medians of runs of a module, one for each of `options`.  check: is told what a run returned, and says whether that is right."""
    calls, runs = place / "calls", []
    for more in options:
        calls.write_text("")
        found, result = run(module, place, **more)
        if not found["problem"] and not check(result):
            found["problem"] = "it returned something else: %s" % str(result)[:300]
        runs.append(dict(found, calls=len(calls.read_text().splitlines())))
    medians = {name: statistics.median(one[name] for one in runs) for name, _what, _form in MEASURES}
    return dict(medians, problem=next((one["problem"] for one in runs if one["problem"]), None))


def one_count(count, place, path, manifest):
    """The runs of all modules with so many snapshots."""
    place.mkdir()
    for name in ("manifests", "textfiles"):
        (place / name).mkdir()
    size = fill(place / "backups", count, path, manifest)
    fill(place / "off-site", count, path, manifest)
    rclone, config = place / "rclone", place / "rclone.conf"
    rclone.write_text(COUNTING % (place / "calls", servers.program("rclone")))
    rclone.chmod(0o755)
    config.write_text("[far]\ntype = alias\nremote = %s\n" % (place / "off-site"))
    config.chmod(0o600)
    here = {"directory": str(place / "backups")}
    # as list.yml wants it
    brief = {"inventory": False}
    far = {"remote": "far:", "rclone_config": str(config), "rclone": str(rclone)}
    report = {"textfile_dir": str(place / "textfiles"), "success": True}
    node = {"manifests_dir": str(place / "manifests"), "data_dir": str(place / "data"), "snapshot_dir": here["directory"]}
    surplus = {"keep": {"last": 24, "daily": 30, "monthly": 12}, "_ansible_check_mode": True}
    # what a day makes surplus where two snapshots are taken
    daily = [{"keep": count - 2 * number} for number in range(1, RUNS + 1)]

    def is_listed(result):
        return len(result["snapshots"]) == count and result["latest"]

    def is_judged(result):
        return len(result["kept"]) + len(result["removed"]) == count

    rows = {
        "list": ("etcd_snapshot_list", is_listed, [dict(here, **brief)] * RUNS),
        "list with inventories": ("etcd_snapshot_list", is_listed, [here] * RUNS),
        "metrics": ("etcd_snapshot_metrics", lambda result: result["metrics"]["stored"]["true"] == count, [dict(here, **report)] * RUNS),
        "newest for a restore": ("etcd_restore_info", lambda result: result["restore"]["snapshots"]["latest"], [node] * RUNS),
        "prune --check": ("etcd_snapshot_prune", is_judged, [dict(here, **surplus)] * RUNS),
        "prune 2": ("etcd_snapshot_prune", lambda result: len(result["removed"]) == 2, [dict(here, **one) for one in daily]),
        "list off-site": ("etcd_snapshot_list", is_listed, [dict(far, **brief)] * RUNS),
        "prune --check off-site": ("etcd_snapshot_prune", is_judged, [dict(far, **surplus)] * RUNS),
        "prune 2 off-site": ("etcd_snapshot_prune", lambda result: len(result["removed"]) == 2, [dict(far, **one) for one in daily]),
    }
    found = {name: measured(module, place, check, options) for name, (module, check, options) in rows.items()}
    shutil.rmtree(place)
    return {"snapshots": count, "manifests": size / 1e6, "rows": found}


def show(counts):
    for found in counts:
        print("\n%d snapshots, whose manifests have %.2f MB; medians of %d" % (found["snapshots"], found["manifests"], RUNS))
        print("  %-24s" % "" + "".join("%14s" % what for _name, what, _form in MEASURES))
        for name, row in found["rows"].items():
            print("  %-24s" % name + "".join("%14s" % (form % row[one]) for one, _what, form in MEASURES))
            if row["problem"]:
                print("    FAILED: %s" % row["problem"])


def judge(counts):
    """How it grows from the first number of snapshots to the last: rows for the report."""
    few, many = counts[0], counts[-1]
    times = many["snapshots"] / few["snapshots"]
    print("\nfrom %d to %d snapshots" % (few["snapshots"], many["snapshots"]))
    print("  %-24s%16s%26s%22s" % ("", "processor time", "MB for one of manifests", "more calls of rclone"))
    lines = []
    for name, row in many["rows"].items():
        before = few["rows"][name]
        growth = row["processor"] / before["processor"]
        read = (row["read"] - before["read"]) / (many["manifests"] - few["manifests"])
        calls = row["calls"] - before["calls"]
        wanted = WANTED_READ_OFF_SITE if "off-site" in name else WANTED_READ
        good = growth <= times and read <= wanted and calls <= 0
        print("  %-24s%15.1fx%26.2f%22d  %s" % (name, growth, read, calls, "yes" if good else "NO"))
        lines.append({"what": name, "growth": round(growth, 2), "read": round(read, 2), "calls": calls, "good": good})
    print("  wanted: <= %.1fx, <= %.1f and off-site <= %.1f, 0" % (times, WANTED_READ, WANTED_READ_OFF_SITE))
    return lines


def main():
    REPORTS.mkdir(exist_ok=True)
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-many-"))
    counts = []
    try:
        path, manifest = taken(place)
        for count in SNAPSHOTS:
            counts.append(one_count(count, place / str(count), path, manifest))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    show(counts)
    report = {"etcd": VERSION, "runs": RUNS, "counts": counts, "verdict": judge(counts) if len(counts) > 1 else []}
    (REPORTS / "bench-many.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(row["problem"] for found in counts for row in found["rows"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
