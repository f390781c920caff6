# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every stage of the tests, the quick ones first, and ends with one line that says how many tests ran.

The first stage that fails ends it; with KEEP_GOING=1 the others run all the same.  STAGES="unit build" runs only these.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports"
STAGES = ("lint", "unit", "build", "reference", "integration", "sandbox", "molecule", "faults", "sanity")
# What needs no processor for long, and two clusters that mostly wait, with what needs nothing but a processor: what they print is shown one after the other.
TOGETHER = (("unit", "lint", "build", "reference"), ("molecule", "faults", "sanity"))
# What gets only what the others leave idle.
IDLE = ("sanity",)
WRITES = {"molecule": "molecule-default.xml", "faults": "molecule-faults.xml"}


def counts(files):
    """[passed, failed, skipped] of JUnit files."""
    passed = failed = skipped = 0
    for path in files:
        for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 (our own tools wrote it)
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif case.find("skipped") is not None:
                skipped += 1
            else:
                passed += 1
    return [passed, failed, skipped]


def run(stage, log=None):
    """(stage, exit code, seconds, [passed, failed, skipped])"""
    start = time.monotonic()
    command = ["make", "--no-print-directory", stage]
    how = {"cwd": ROOT, "stdout": log, "stderr": subprocess.STDOUT if log else None}
    if log and stage in IDLE:
        with idle(command, **how) as process:
            code = process.wait()
    else:
        code = subprocess.run(command, check=False, **how).returncode
    seconds = time.monotonic() - start
    result = counts(sorted(REPORTS.glob(WRITES.get(stage, stage + "*.xml"))))
    if not any(result):  # a stage that is one check in itself
        result = [0, 1, 0] if code else [1, 0, 0]
    elif code and not result[1]:
        result[1] = 1  # it died without a test that failed
    return stage, code, seconds, result


_IDLE_PROCESSES = []


@contextlib.contextmanager
def idle(command, **how):
    """A process that gets the processors and the disk only when no other process wants them; it ends with this context."""
    disk = ["ionice", "-c", "3"] if shutil.which("ionice") else []
    process = subprocess.Popen(["nice", "-n", "19", *disk, *command], start_new_session=True, **how)
    _IDLE_PROCESSES.append(process)
    # where the kernel gives each session its own share (sched_autogroup_enabled), nice counts only within one
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/%d/autogroup" % process.pid).write_text("19")
    try:
        yield process
    finally:
        end(process)
        process.wait()
        _IDLE_PROCESSES.remove(process)


def end(process):
    """End a process of idle() with all that it started, which no Ctrl-C reaches in its own session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)


def run_together(stages):
    """The rows of several stages, of which the first prints as it goes."""
    with contextlib.ExitStack() as stack:
        logs = [None] + [stack.enter_context(open(REPORTS / (stage + ".log"), "w+")) for stage in stages[1:]]
        with concurrent.futures.ThreadPoolExecutor(len(stages)) as pool:
            running = [pool.submit(run, stage, log) for stage, log in zip(stages, logs)]
            try:
                concurrent.futures.wait(running)
            except KeyboardInterrupt:
                for process in list(_IDLE_PROCESSES):
                    end(process)
                raise
        for stage, log in zip(stages[1:], logs[1:]):
            log.seek(0)
            print("\n===== %s, meanwhile" % stage, flush=True)
            shutil.copyfileobj(log, sys.stdout)
            sys.stdout.flush()
        return [one.result() for one in running]


@contextlib.contextmanager
def head_start():
    """The sandbox's programs are built with what the stages before it leave idle. If that is unfinished or failed, the sandbox continues it."""
    with open(REPORTS / "programs.log", "w") as log, idle([ROOT / "tests/sandbox/up", "--programs"], stdout=log, stderr=log):
        yield


def main():
    """Run the stages."""
    stages = os.environ.get("STAGES", "").split() or STAGES
    keep_going = os.environ.get("KEEP_GOING", "") not in ("", "0")
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir()
    begun, rows = time.monotonic(), []
    with contextlib.ExitStack() as ahead:
        for stage in stages:
            if stage in [row[0] for row in rows]:
                continue
            if not keep_going and any(row[1] for row in rows):
                rows.append((stage, None, 0, [0, 0, 0]))
                continue
            if stage == "integration" and "sandbox" in stages and not os.environ.get("NODE_IMAGE"):
                ahead.enter_context(head_start())
            group = next(([one for one in several if one in stages] for several in TOGETHER if stage in several), [stage])
            print("\n===== %s" % " and ".join(group), flush=True)
            rows += run_together(group)
            if stage == "sandbox":
                ahead.close()

    print("\n%-14s %8s %8s %8s %8s" % ("stage", "seconds", "passed", "failed", "skipped"))
    for stage, code, seconds, result in rows:
        if code is None:
            print("%-14s %8s" % (stage, "not run"))
        else:
            print("%-14s %8.0f %8d %8d %8d" % (stage, seconds, *result))
    print("%-14s %8.0f" % ("all", time.monotonic() - begun))
    failed = any(row[1] or row[3][1] for row in rows)
    print("%d passed, %d failed, %d skipped" % tuple(sum(row[3][i] for row in rows) for i in range(3)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
