# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every version that docs/versions.md says is supported, run for real; prints the table of that page, with what passed in each cell.

MATRIX="core-2.20 python-3.8-units etcd" names cells, or beginnings of them; without it all are run. A cell that fails is a run that fails, and so is a version
that this machine has not: that is no result.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports" / "matrix"
CORES = ("2.17", "2.18", "2.19", "2.20", "2.21")
# of managed nodes
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
ETCDS = ("3.4", "3.5", "3.6", "3.7")
# All those Pythons are known to this one.
CORE_FOR_PYTHONS = "2.19"
KUBERNETES = ("1.34", "1.35", "1.36", "1.37")
# What is done on real control planes, by its name in the table: a Molecule scenario and tests of it. The undo is done with the oldest ansible-core.
ON_KUBERNETES = {
    "snapshot": ("default", "test_1_client.py", "test_2_snapshot.py"),
    "drill": ("default", "test_2_snapshot_proof.py"),
    "restore": ("default", "test_3_restore.py"),
    "failed-restore": ("default", "test_5_failures.py"),
    "undo": ("faults", "test_oldest_core.py"),
    "who-asks": ("faults", "test_who_asks.py"),
    "rejoin": ("ha", "test_3_rejoin.py::test_a_wiped_host_rejoins_twice", "test_3_rejoin.py::test_a_restore_of_one_member_ends_with_three"),
}
# Playbooks from end to end; modules with a real etcd, by the Python of a managed node; and what depends on the version of etcd.
PLAYBOOKS = (
    *("test_snapshot_role.py::test_one_snapshot_per_cluster", "test_snapshot_role.py::test_hosts_that_are_down_do_not_fail_the_backup"),
    *("test_restore_refusals.py", "test_prune.py"),
)
MODULES = ("test_cluster_info.py", "test_drill.py", "test_member.py", "test_restore_plan.py", "test_snapshot.py", "test_snapshot_info.py")
DATA = (*MODULES, "test_decision.py", "test_membership.py", "test_quorum_loss.py", "test_snapshot_of_data.py")


def tool(name, *args):
    """A script beside this one."""
    return [str(ROOT / "tests" / "tools" / name), *args], {}


def pytest(environment, files, **env):
    """The tests with a real etcd, in that environment."""
    return [
        *(str(ROOT / "tests" / "tools" / "venv"), environment, "pytest", "-n", "3", "--dist", "loadfile", "-q"),
        *(str(ROOT / "tests" / "integration" / name) for name in files),
    ], {"PYTHONPATH": str(ROOT / "playbooks" / "collections"), **env}


def interpreter(version):
    """Where that Python is: `tests/tools/python` knows how to look for one."""
    return subprocess.run([ROOT / "tests/tools/python", version], capture_output=True, text=True, check=True).stdout.strip()


def rows():
    """(row, {column: how to run the cell}) of all that is supported."""
    for core in CORES:
        yield (
            "core-" + core,
            {
                "sanity": lambda core=core: tool("sanity", core),
                "units": lambda core=core: tool("units", core),
                "integration": lambda core=core: tool("targets", core),
                "playbooks": lambda core=core: pytest("test-core-" + core, PLAYBOOKS, ETCD_VERSIONS="3.5"),
            },
        )
    for python in PYTHONS:
        yield (
            "python-" + python,
            {
                "units": lambda python=python: tool("units", CORE_FOR_PYTHONS, python),
                "modules": lambda python=python: pytest("dev", MODULES, ETCD_VERSIONS="3.5", MODULE_PYTHON=interpreter(python)),
            },
        )
    for etcd in ETCDS:
        yield "etcd-" + etcd, {"data": lambda etcd=etcd: pytest("dev", DATA, ETCD_VERSIONS=etcd)}
    for version in KUBERNETES:
        cells = {name: lambda what=what, version=version: tool("on_kubernetes", version, *what) for name, what in ON_KUBERNETES.items()}
        yield "kubernetes-" + version, cells


def run(name, how):
    """What the cell says, and whether it passed."""
    log = REPORTS / (name + ".log")
    start = time.monotonic()
    try:
        argv, env = how()
        with open(log, "w", encoding="utf-8") as file:
            code = subprocess.run(argv, cwd=ROOT, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    except subprocess.CalledProcessError as exc:
        code = exc.returncode
        log.write_text(exc.stderr)
    text = log.read_text(encoding="utf-8", errors="replace")
    passed = sum(int(count) for count in re.findall(r"(\d+) passed", text))
    said = "%d passed" % passed if passed else "passed"
    if code:
        said = "FAILED"
        print(text[-3000:])
    print("%-24s %-12s %5.0f s" % (name, said, time.monotonic() - start), flush=True)
    return said, not code


def table(done):
    """The tables as Markdown: one for each kind of row."""
    lines = []
    for kind, title in (("core-", "ansible-core"), ("python-", "Python of the managed nodes"), ("etcd-", "etcd"), ("kubernetes-", "Kubernetes")):
        found = {row: cells for row, cells in done.items() if row.startswith(kind)}
        if not found:
            continue
        columns = list(dict.fromkeys(column for cells in found.values() for column in cells))
        lines += ["| %s | %s |" % (title, " | ".join(columns).replace("-", " ")), "|" + "---|" * (len(columns) + 1)]
        lines += ["| %s | %s |" % (row[len(kind) :], " | ".join(cells.get(column, ("not run",))[0] for column in columns)) for row, cells in found.items()]
        lines.append("")
    return "\n".join(lines)


def main():
    """Run the rows that are asked for."""
    wanted = os.environ.get("MATRIX", "").split()
    every = {row: {column: "%s-%s" % (row, column) for column in cells} for row, cells in rows()}
    lost = [one for one in wanted if not any(cell.startswith(one) for cells in every.values() for cell in cells.values())]
    if lost:
        sys.exit("MATRIX names %s, and there is %s." % (" ".join(lost), ", ".join(cell for cells in every.values() for cell in cells.values())))
    REPORTS.mkdir(parents=True, exist_ok=True)
    done = {}
    for row, cells in rows():
        chosen = {column: how for column, how in cells.items() if not wanted or any(every[row][column].startswith(one) for one in wanted)}
        if chosen:
            done[row] = {column: run(every[row][column], how) for column, how in chosen.items()}
            if row.startswith("kubernetes-"):
                subprocess.run([ROOT / "tests/tools/on_kubernetes", row.partition("-")[2], "down"], check=True)
    text = table(done)
    (REPORTS / "matrix.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    failed = ["%s %s" % (row, column) for row, cells in done.items() for column, (_said, passed) in cells.items() if not passed]
    if failed:
        sys.exit("These cells failed: %s. What they printed is in %s." % (", ".join(failed), REPORTS))


if __name__ == "__main__":
    main()
