# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every stage of the tests and ends with one line that says how many tests ran.

Two lanes run side by side: what the code is judged by on this machine, the quick ones first, and the clusters, whose tests
mostly wait.  A stage's output is printed when it ends; it is in reports/STAGE.log while it runs.
The first stage that fails ends both lanes; with KEEP_GOING=1 the others run all the same.  STAGES="unit build" runs only these.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports"
LANES = (("lint", "unit", "build", "integration", "sanity"), ("sandbox", "molecule", "faults"))
STAGES = [stage for lane in LANES for stage in lane]
# The JUnit files that a stage writes, below reports/.
FILES = {
    "unit": ("unit.xml",),
    "integration": ("integration.xml",),
    "sanity": ("sanity*.xml", "sanity*/**/*.xml"),
    "molecule": ("molecule-default.xml",),
    "faults": ("molecule-faults.xml",),
}
PRINTING = threading.Lock()


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


def run(stage):
    """(exit code, seconds, [passed, failed, skipped])"""
    log = REPORTS / (stage + ".log")
    start = time.monotonic()
    with open(log, "wb") as stream:
        code = subprocess.run(
            ["make", "--no-print-directory", stage], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, check=False
        ).returncode
    seconds = time.monotonic() - start
    result = counts(sorted(path for pattern in FILES.get(stage, ()) for path in REPORTS.glob(pattern)))
    if not any(result):  # a stage that is one check in itself
        result = [0, 1, 0] if code else [1, 0, 0]
    elif code and not result[1]:
        result[1] = 1  # it died without a test that failed
    with PRINTING:
        print("\n===== %s: %s after %.0f s" % (stage, "failed" if code else "passed", seconds), flush=True)
        with open(log, "rb") as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer)
        sys.stdout.flush()
    return code, seconds, result


def main():
    """Run the stages."""
    wanted = os.environ.get("STAGES", "").split() or STAGES
    keep_going = os.environ.get("KEEP_GOING", "") not in ("", "0")
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir()
    found = {}

    def take(lane):
        for stage in lane:
            if stage in wanted and (keep_going or not any(code for code, dummy, dummy in list(found.values()))):
                print("----- %s begins" % stage, flush=True)
                found[stage] = run(stage)

    start = time.monotonic()
    lanes = [threading.Thread(target=take, args=(lane,)) for lane in LANES]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    rows = [(stage, *found.get(stage, (None, 0, [0, 0, 0]))) for stage in STAGES if stage in wanted]

    print("\n%-14s %8s %8s %8s %8s" % ("stage", "seconds", "passed", "failed", "skipped"))
    for stage, code, seconds, result in rows:
        if code is None:
            print("%-14s %8s" % (stage, "not run"))
        else:
            print("%-14s %8.0f %8d %8d %8d" % (stage, seconds, *result))
    print("%-14s %8.0f" % ("all", time.monotonic() - start))
    failed = any(row[1] != 0 or row[3][1] for row in rows)
    print("%d passed, %d failed, %d skipped" % tuple(sum(row[3][i] for row in rows) for i in range(3)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
