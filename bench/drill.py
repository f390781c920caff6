# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill of a large snapshot costs: this checkout beside an earlier commit, and beside what no drill can do without, in turns.

    make bench-drill [RUNS=3] [KEYS=320000] [VALUE=2700] [BASE=97e024d]

See README.md beside this file.  Everything runs on loopback; what is written goes to a directory of its own under TMPDIR, which is removed.
Ends with code 0 whatever the times are, and with 1 when a run failed.
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
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import harness  # noqa: E402
from checkout import NoCheckout, unpack  # noqa: E402

VERSION = harness.VERSIONS[-1]
RUNS = int(os.environ.get("RUNS") or 3)
KEYS = int(os.environ.get("KEYS") or 320000)
VALUE = int(os.environ.get("VALUE") or 2700)
BASE = os.environ.get("BASE") or "97e024d"
REPORTS = ROOT / "reports"
# The most that a drill may take, as a part of what the base takes and of the floor; and MB of memory.
WANTED_OF_BASE, WANTED_OF_FLOOR, WANTED_MEMORY = 0.15, 1.5, 64
VARIANTS = ("base", "this", "floor")
KINDS = (("Pod", "pods"), ("Secret", "secrets"), ("ConfigMap", "configmaps"))


def field(number, value):
    """One field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def stored(number):
    """(key, value) of an object with the metadata that most objects have."""
    kind, resource = KINDS[number % len(KINDS)]
    namespace, name = "namespace-%02d" % (number // len(KINDS) % 40), "object-%07d" % number
    metadata = field(1, name.encode()) + field(2, b"") + field(3, namespace.encode()) + field(4, b"") + field(5, b"0123456789abcdef" * 2) + field(6, b"")
    metadata += b"\x38\x00" + field(8, b"\x08\x80\x9a\x9e\xb2\x06\x10\x00")
    metadata += b"".join(field(11, field(1, b"example.com/label-%d" % label) + field(2, b"value")) for label in range(5))
    metadata += field(13, field(1, b"ReplicaSet") + field(3, b"web-6f7d8") + field(4, b"0123456789abcdef" * 2) + field(5, b"apps/v1"))
    metadata += b"".join(field(17, field(1, b"kubelet") + field(2, b"Update") + field(3, b"v1") + field(7, b'{"f:metadata":{}}' * 20)) for dummy in range(2))
    rest = os.urandom(max(0, VALUE - len(metadata)) // 2)
    raw = field(1, metadata) + field(2, rest) + field(3, rest)
    value = b"k8s\0" + field(1, field(1, b"v1") + field(2, kind.encode())) + field(2, raw) + field(3, b"") + field(4, b"")
    return "/registry/%s/%s/%s" % (resource, namespace, name), value


def prepare(place):
    """A snapshot of as many objects as wanted, of which a fiftieth has changed since the last compaction; with its manifest."""
    with harness.Etcd(VERSION, place, flags=["--quota-backend-bytes", str(16 << 30)]) as member:
        for start in range(0, KEYS, 1000):
            member.put_all(stored(number) for number in range(start, min(start + 1000, KEYS)))
        member.call("/v3/kv/compaction", revision=member.put("compact_rev_key", b"1"))
        for start in range(0, KEYS, 50000):
            member.put_all(stored(number) for number in range(start, min(start + 50000, KEYS), 50))
        options = dict(member.connection, directory=str(place / "backups"), manifests_dir="/nonexistent", pki_dir="/nonexistent", host="cp1")
        code, result = harness.run_module("etcd_snapshot", limit=1200, **options)
        if code:
            sys.exit("No snapshot was taken: %s" % result.get("msg"))
    shutil.rmtree(member.data_dir)
    return pathlib.Path(result["snapshot"]["path"])


def cold(path):
    """Nothing of the snapshot is in memory, and what one variant wrote is not paid for by the next."""
    os.sync()
    with path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    time.sleep(1)


def drill(collections, snapshot, place):
    """One drill by the module of a checkout, as Ansible runs it on a node."""
    options = {"path": str(snapshot), "work_dir": str(place), "manifests_dir": "/nonexistent", "bin_dir": str(harness.bin_dir(VERSION)), "record": False}
    environment = dict(os.environ, PYTHONPATH=str(collections), PYTHONDONTWRITEBYTECODE="1")
    module = collections / "ansible_collections" / "k8s_dr" / "etcd" / "plugins" / "modules" / "etcd_snapshot_drill.py"
    start, memory = time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, str(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    process.stdin.close()
    while process.poll() is None:
        with contextlib.suppress(OSError, AttributeError):
            memory = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/%d/status" % process.pid).read_text()).group(1)) / 1024
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


def processor():
    """Seconds that all that has ended so far has computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(variant, checkouts, snapshot, place):
    """One run of a variant."""
    cold(snapshot)
    before = processor()
    if variant == "floor":
        # with the priority that the module gives itself
        os.setpriority(os.PRIO_PROCESS, 0, 10)
        try:
            run = floor(snapshot, place)
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    else:
        run = drill(checkouts[variant], snapshot, place)
    return dict(run, variant=variant, processor=round(processor() - before, 2))


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


def show(runs, size):
    """The table, and its rows for the report."""
    good = {variant: [run for run in runs if run["variant"] == variant and not run["problem"]] for variant in VARIANTS}
    seconds = {variant: statistics.median(run["seconds"] for run in good[variant]) if good[variant] else None for variant in VARIANTS}
    print("\n%d keys, a snapshot of %.1f MB, medians of %s runs" % (KEYS, size / 1e6, ", ".join("%d" % len(good[variant]) for variant in VARIANTS)))
    for variant, what in (("base", BASE), ("this", "this checkout"), ("floor", "restore, start, read once")):
        if seconds[variant] is not None:
            print("  %-28s %7.1f s, %.1f s of processor time" % (what, seconds[variant], statistics.median(run["processor"] for run in good[variant])))
    rows = []
    memory = max((run["memory"] for run in good["this"]), default=None)
    for what, value, wanted in (
        ("this / base", seconds["this"] / seconds["base"] if seconds["this"] and seconds["base"] else None, WANTED_OF_BASE),
        ("this / floor", seconds["this"] / seconds["floor"] if seconds["this"] and seconds["floor"] else None, WANTED_OF_FLOOR),
        ("MB of memory of this checkout", memory, WANTED_MEMORY),
    ):
        if value is not None:
            print("  %-34s %7.2f  wanted <= %s: %s" % (what, value, wanted, "yes" if value <= wanted else "NO"))
            rows.append({"what": what, "value": round(value, 3), "wanted": wanted})
    return rows


def main():
    REPORTS.mkdir(exist_ok=True)
    runs, size = [], 0
    place = pathlib.Path(tempfile.mkdtemp(prefix="bench-drill-"))
    try:
        checkouts = {"base": unpack(BASE, place / "base"), "this": harness.COLLECTIONS}
        print("writing %d keys" % KEYS, flush=True)
        snapshot = prepare(place)
        size = snapshot.stat().st_size
        for number in range(RUNS):
            # each round begins with another one
            for variant in (VARIANTS * 2)[number % 3 : number % 3 + 3]:
                run = measure(variant, checkouts, snapshot, place)
                print("%s: %s" % (variant, run["problem"] or "%(seconds).1f s, %(processor).1f s of processor time" % run), flush=True)
                runs.append(run)
    except KeyboardInterrupt:
        print("ended early")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = show(runs, size)
    found = {run["keys"] for run in runs if run["variant"] != "floor" and not run["problem"]}
    if len(found) > 1:
        print("FAILED: they found different numbers of keys: %s" % sorted(found))
    report = {"etcd": VERSION, "keys": KEYS, "size": size, "base": BASE, "compared": rows, "runs": runs}
    (REPORTS / "bench-drill.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if len(found) != 1 or any(run["problem"] for run in runs) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoCheckout as error:
        sys.exit("The benchmark could not go on: %s" % error)
