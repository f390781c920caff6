# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill of a large snapshot costs: this checkout beside an earlier commit, and beside what no drill can do without, in turns.

    make bench-drill [RUNS=3] [KEYS=320000] [VALUE=2700] [BASE=97e024d] [VARIANTS="base this floor"]
    make bench-drill KEYS="1000000 10000000" VALUE=100

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

VERSION = harness.VERSIONS[-1]
RUNS = int(os.environ.get("RUNS") or 3)
SIZES = sorted(int(size) for size in (os.environ.get("KEYS") or "320000").split())
VALUE = int(os.environ.get("VALUE") or 2700)
BASE = os.environ.get("BASE") or "97e024d"
REPORTS = ROOT / "reports"
# The most that a drill may take, as a part of what the base takes and of the floor; MB of memory; and how much the time of a key may grow from the
# smallest to the largest number of keys.
WANTED_OF_BASE, WANTED_OF_FLOOR, WANTED_MEMORY, WANTED_GROWTH = 0.15, 1.5, 64, 1.1
# The base takes minutes for 320,000 keys, so with several numbers of keys it does not run.
VARIANTS = (os.environ.get("VARIANTS") or ("base this floor" if len(SIZES) == 1 else "this floor")).split()
LEAST_METADATA = 1000
# Counting the objects of more keys through etcd, for the manifest, takes much longer than all else.
MOST_COUNTED = 2000000
KINDS = (("Pod", "pods"), ("Secret", "secrets"), ("ConfigMap", "configmaps"))


def field(number, value):
    """One field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def stored(number):
    """(key, value) of an object with the metadata that most objects have; of a small one with its name alone."""
    kind, resource = KINDS[number % len(KINDS)]
    # new ones come between old ones, as those do whose names are generated
    namespace, name = "namespace-%02d" % (number // len(KINDS) % 40), "object-%08x" % (number * 2654435761 % 2**32)
    key = "/registry/%s/%s/%s" % (resource, namespace, name)
    if VALUE < LEAST_METADATA:
        return key, harness.stored(kind, namespace, name, field(1, os.urandom(max(0, VALUE - 64))))
    metadata = field(1, name.encode()) + field(2, b"") + field(3, namespace.encode()) + field(4, b"") + field(5, b"0123456789abcdef" * 2) + field(6, b"")
    metadata += b"\x38\x00" + field(8, b"\x08\x80\x9a\x9e\xb2\x06\x10\x00")
    metadata += b"".join(field(11, field(1, b"example.com/label-%d" % label) + field(2, b"value")) for label in range(5))
    metadata += field(13, field(1, b"ReplicaSet") + field(3, b"web-6f7d8") + field(4, b"0123456789abcdef" * 2) + field(5, b"apps/v1"))
    metadata += b"".join(field(17, field(1, b"kubelet") + field(2, b"Update") + field(3, b"v1") + field(7, b'{"f:metadata":{}}' * 20)) for dummy in range(2))
    rest = os.urandom(max(0, VALUE - len(metadata)) // 2)
    raw = field(1, metadata) + field(2, rest) + field(3, rest)
    value = b"k8s\0" + field(1, field(1, b"v1") + field(2, kind.encode())) + field(2, raw) + field(3, b"") + field(4, b"")
    return key, value


def prepare(place, keys):
    """A snapshot of as many objects as wanted, of which a fiftieth has changed since the last compaction; with its manifest, unless there are too many."""
    with harness.Etcd(VERSION, place, flags=FLAGS) as member:
        writer = Writer(member)
        writer.put_all(range(keys), stored, VALUE)
        writer.compact(member.put("compact_rev_key", b"1"))
        writer.put_all(range(0, keys, 50), stored, VALUE)
        if keys > MOST_COUNTED:
            (place / "backups").mkdir()
            path = place / "backups" / "large.db"
            member.etcdctl("snapshot", "save", path, timeout=1800)
        else:
            options = dict(member.connection, directory=str(place / "backups"), manifests_dir="/nonexistent", pki_dir="/nonexistent", host="cp1")
            code, result = harness.run_module("etcd_snapshot", limit=1200, **options)
            if code:
                sys.exit("No snapshot was taken: %s" % result.get("msg"))
            path = pathlib.Path(result["snapshot"]["path"])
    shutil.rmtree(member.data_dir)
    return path


def cold(path):
    """Nothing of the snapshot is in memory, and what one variant wrote is not paid for by the next."""
    os.sync()
    with path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    time.sleep(1)


def drill(collections, snapshot, place):
    """One drill by the module of a checkout, as Ansible runs it on a node."""
    options = {"path": str(snapshot), "work_dir": str(place), "manifests_dir": "/nonexistent", "bin_dir": str(harness.bin_dir(VERSION)), "record": False}
    options["manifest"] = snapshot.with_name(snapshot.name + ".json").exists()
    environment = dict(os.environ, PYTHONPATH=str(collections), PYTHONDONTWRITEBYTECODE="1")
    module = collections / "ansible_collections" / "k8s_dr" / "etcd" / "plugins" / "modules" / "etcd_snapshot_drill.py"
    start, memory = time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, str(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    process.stdin.close()
    while process.poll() is None:
        memory = max(memory, memory_of(process.pid))
        time.sleep(0.05)
    run = {"seconds": round(time.monotonic() - start, 2), "memory": round(memory, 1), "problem": None, "keys": None}
    output = process.stdout.read()
    try:
        found = json.loads(output)["snapshot"]
        # 97e024d has another name for them
        levels = found["levels"] if "levels" in found else found["rungs"]
        run.update(problem=found["problem"], keys=levels["drill"]["keys"], levels={name: level["seconds"] for name, level in levels.items()})
        if any("read through etcd" in note for note in found["notes"]):
            run["problem"] = found["notes"][0]
    except (ValueError, KeyError):
        run["problem"] = output[-500:]
    return run


def measure(variant, checkouts, snapshot, place):
    """One run of a variant."""
    cold(snapshot)
    disk, before = Disk(place), processor_of_children()
    if variant == "floor":
        # with the priority that the module gives itself
        os.setpriority(os.PRIO_PROCESS, 0, 10)
        try:
            run = floor(snapshot, place)
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    else:
        run = drill(checkouts[variant], snapshot, place)
    used = round(processor_of_children() - before, 2)
    os.sync()
    return dict(run, **disk.used(), variant=variant, processor=used)


def floor(snapshot, place):
    """Restore it, start etcd until it answers, and read the file once."""
    data, start = place / "floor", time.monotonic()
    restored = harness.restore(VERSION, snapshot, data, timeout=1200)
    middle = time.monotonic()
    try:
        with harness.Etcd(VERSION, place, name="default", data_dir=data, initial_cluster="default=http://localhost:2380", wait=False) as member:
            member.ready(600)
            served = time.monotonic()
    finally:
        shutil.rmtree(data, ignore_errors=True)
    again = time.monotonic()
    with snapshot.open("rb", buffering=0) as stream:
        while stream.read(1 << 20):
            pass
    read = time.monotonic() - again
    run = {"seconds": round(served - start + read, 2), "restore": round(middle - start, 2), "start": round(served - middle, 2), "read": round(read, 2)}
    return dict(run, problem=restored.stderr[-300:] if restored.returncode else None, keys=None)


def medians(runs):
    """{variant: the median seconds of its runs}"""
    found = {variant: [run["seconds"] for run in runs if run["variant"] == variant and not run["problem"]] for variant in VARIANTS}
    return {variant: statistics.median(seconds) for variant, seconds in found.items() if seconds}


def compared(what, value, wanted):
    """Print whether a limit holds; its row for the report."""
    print("  %-34s %7.2f  wanted <= %s: %s" % (what, value, wanted, "yes" if value <= wanted else "NO"))
    return {"what": what, "value": round(value, 3), "wanted": wanted}


def show(runs, keys, size):
    """The table of one number of keys, and its rows for the report."""
    good = {variant: [run for run in runs if run["variant"] == variant and not run["problem"]] for variant in VARIANTS}
    seconds = medians(runs)
    print("\n%d keys, a snapshot of %.1f MB, medians of %s runs" % (keys, size / 1e6, ", ".join("%d" % len(good[variant]) for variant in VARIANTS)))
    for variant, what in (("base", BASE), ("this", "this checkout"), ("floor", "restore, start, read once")):
        if variant in seconds:
            used = statistics.median(run["processor"] for run in good[variant])
            print("  %-28s %7.1f s, %.1f s of processor time, %.1f us a key" % (what, seconds[variant], used, seconds[variant] / keys * 1e6))
            if good[variant][0]["read"] is not None:
                moved = [statistics.median(run[name] for run in good[variant]) for name in ("read", "written")]
                print("  %-28s %7d MB read from the disk, %d MB written" % ("", *moved))
    rows = []
    for other, wanted in (("base", WANTED_OF_BASE), ("floor", WANTED_OF_FLOOR)):
        if "this" in seconds and other in seconds:
            rows.append(compared("this / %s" % other, seconds["this"] / seconds[other], wanted))
    if "this" in seconds:
        rows.append(compared("MB of memory of this checkout", max(run["memory"] for run in good["this"]), WANTED_MEMORY))
    return rows


def bench(keys, place, checkouts):
    """All runs with one number of keys, as a report."""
    runs = []
    print("writing %d keys" % keys, flush=True)
    snapshot = prepare(place, keys)
    size = snapshot.stat().st_size
    try:
        for number in range(RUNS):
            # each round begins with another one
            first = number % len(VARIANTS)
            for variant in VARIANTS[first:] + VARIANTS[:first]:
                run = measure(variant, checkouts, snapshot, place)
                print("%s: %s" % (variant, run["problem"] or "%(seconds).1f s, %(processor).1f s of processor time" % run), flush=True)
                runs.append(run)
    finally:
        shutil.rmtree(snapshot.parent)
    rows = show(runs, keys, size)
    found = {run["keys"] for run in runs if run["variant"] != "floor" and not run["problem"]}
    if len(found) > 1:
        print("FAILED: they found different numbers of keys: %s" % sorted(found))
    return {"keys": keys, "size": size, "compared": rows, "runs": runs, "failed": len(found) > 1 or any(run["problem"] for run in runs)}


def growth(reports):
    """How much the time of a key grows from the smallest to the largest number of keys, of this checkout and of the floor."""
    each = [{variant: seconds / report["keys"] for variant, seconds in medians(report["runs"]).items()} for report in (reports[0], reports[-1])]
    print("\nfrom %d to %d keys the time of a key grows to" % (reports[0]["keys"], reports[-1]["keys"]))
    return [compared(variant, each[1][variant] / each[0][variant], WANTED_GROWTH) for variant in ("this", "floor") if all(variant in one for one in each)]


def main():
    REPORTS.mkdir(exist_ok=True)
    reports, rows = [], []
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-drill-"))
    try:
        checkouts = {"base": unpack(BASE, place / "base") if "base" in VARIANTS else None, "this": harness.COLLECTIONS}
        for keys in SIZES:
            reports.append(bench(keys, place, checkouts))
        if len(reports) > 1:
            rows = growth(reports)
    except KeyboardInterrupt:
        print("ended early")
        return 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    report = {"etcd": VERSION, "base": BASE, "growth": rows, "sizes": reports}
    (REPORTS / "bench-drill.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(one["failed"] for one in reports) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCheckout as error:
        sys.exit("The benchmark could not go on: %s" % error)
