# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cells of the fault matrices, which of them a run takes, their results and those of faults at random moments, and the page with the results.

    python tests/tools/fault_cells.py [RESULTS.jsonl ...]   write docs/fault-injection.md from them, by default from reports/faults/

A cell or a seed that these files do not have keeps the result that the page has.

    FAULTS   sample (default): each state once, and each fault; all; none; or names of cells: FAULTS="swapped-node staged-controller"
    SAMPLE   which sample; by default the commit decides, so that over time all cells are run
    SHARD    2/6: of what FAULTS says every sixth cell, from the second on; the results of shards are merged by giving all their files
"""

from __future__ import annotations

import collections
import datetime
import json
import os
import pathlib
import random
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "fault-injection.md"
RESULTS = ROOT / "reports" / "faults"
COLUMNS = ("state", "fault", "serves", "by", "seconds", "date", "commit", "versions")
NOT_RUN = "not run"
RANDOM, RANDOM_COLUMNS = "Random moments", ("nodes", "SEED", "restores", "old", "new", "failed", "last", "commit", "versions")

STARTS = ("begun", "staging", "staged", "stopping", "stopped", "swapping", "swapped", "starting-etcd", "etcd-started", "starting", "started", "committing")
BACK = ("rolling-back", "rolled-back")
Matrix = collections.namedtuple("Matrix", "heading forward faults")
ONE = Matrix(
    "One control plane",
    (*STARTS, "committed"),
    {
        "controller": "the controller is killed",
        "ssh": "SSH is cut",
        "module": "the module is killed on the node, as by a memory limit",
        "node": "the node loses its power",
        "disk": "the data disk is full",
        "read-only": "the data disk becomes read-only, loses what was not synced, and is checked at the next boot",
        "kubelet": "kubelet is stopped",
        "kubelet-restart": "kubelet is restarted",
        "containerd": "containerd is restarted",
        "runtime-hang": "containerd hangs for 30 s",
        "clock-forward": "the node's clock goes 20 minutes forward",
        "clock-back": "the node's clock goes 20 minutes back",
    },
)
THREE = Matrix(
    "Three control planes",
    # In `committing` the victim is about to vote, and the others vote. Then two that are no states: all have voted and none has asked what was decided; and the
    # victim does not write down what was decided, and the others do.
    (*STARTS, "voted", "decided", "committed"),
    {
        "controller": "the controller is killed",
        "power": "a node loses its power",
        "ssh": "SSH to a node is cut",
        "peers": "a node is cut off from the other two",
        "step": "what runs on a node is killed",
    },
)
# Faults that a container cannot have, and why.
NOT_IN_CONTAINERS = dict.fromkeys(("clock-forward", "clock-back"), "a container has the clock of its machine")


def states(matrix):
    """In the order of a restore, then the way back."""
    return (*matrix.forward, *BACK)


def cells(matrix):
    """{name: (state, fault)}"""
    return {"%s-%s" % (state, fault): (state, fault) for state in states(matrix) for fault in matrix.faults}


def commit(length=9):
    """What is checked out, with a mark where it was changed; None without Git."""
    try:
        # the page is written while the cells run
        head, changed = (
            subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head[:length] + ("+" if changed else "")


def sample_seed():
    """What decides the sample."""
    return os.environ.get("SAMPLE", "") or (commit() or "no commit").rstrip("+")


def sample(matrix, seed):
    """A cell of each state, every fault at least once."""
    draw, faults = random.Random(seed), []
    while len(faults) < len(states(matrix)):
        part = [fault for fault in matrix.faults if fault not in NOT_IN_CONTAINERS]
        draw.shuffle(part)
        faults += part
    return ["%s-%s" % cell for cell in zip(states(matrix), faults)]


def chosen(matrix):
    """The names of the cells of this run, and their variants, in the order of the matrix."""
    wanted = os.environ.get("FAULTS", "") or "sample"
    names = list(cells(matrix))
    if wanted == "sample":
        names = sample(matrix, sample_seed())
    elif wanted != "all":
        names = [] if wanted == "none" else wanted.split()
    number, _slash, of = (os.environ.get("SHARD", "") or "1/1").partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        sys.exit("SHARD is '%s', and should be as 2/6." % os.environ["SHARD"])
    return names[int(number) - 1 :: int(of)]


def record(matrix, name, cluster, **result):
    """Keep the result of a cell."""
    state, fault = cells(matrix)[name]
    _keep(cluster, {"state": state, "fault": fault, **result})


def record_random(cluster, seed, number, **result):
    """Keep the result of a restore that was hit at random moments."""
    _keep(cluster, {"seed": seed, "number": number, **result})


def _keep(cluster, result):
    RESULTS.mkdir(parents=True, exist_ok=True)
    host = next(iter(cluster.nodes))
    kubernetes = cluster.run(host, "kubelet", "--version").split()[-1].lstrip("v")
    etcd = re.search(r"image: \S+/etcd:(\d+\.\d+\.\d+)", cluster.run(host, "sh", "-c", "cat /etc/kubernetes/manifests*/etcd.yaml")).group(1)
    now = datetime.datetime.now(datetime.timezone.utc)
    line = {"nodes": len(cluster.nodes), "versions": "%s, etcd %s" % (kubernetes, etcd), "commit": commit()}
    line.update(date=now.date().isoformat(), at=now.isoformat())
    with open(RESULTS / ("%s.jsonl" % cluster.name), "a", encoding="utf-8") as file:
        file.write(json.dumps({**line, **result}) + "\n")


def summary(terminalreporter, title, legend, rows):
    """The cells of this run as a table on the terminal."""
    if not rows:
        return
    terminalreporter.section(title)
    for line in legend:
        terminalreporter.write_line(line)
    width = max(map(len, rows))
    for name, result in rows.items():
        terminalreporter.write_line("%s  %s" % (name.ljust(width), result))


def rows_of(page, matrix):
    """{name of the cell: {column: text}} of what a page says; nothing of cells that have no result there."""
    section = re.search(r"^## %s\n(.*?)(?=^## |\Z)" % matrix.heading, page, re.MULTILINE | re.DOTALL)
    found = {}
    for line in section.group(1).splitlines() if section else ():
        values = [value.strip() for value in line.strip("|").split("|")]
        name = "-".join(values[:2])
        if len(values) == len(COLUMNS) and name in cells(matrix) and values[2] != NOT_RUN:
            found[name] = dict(zip(COLUMNS, values))
    return found


def table(matrix, rows):
    """The rows of all cells as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name, (state, fault) in cells(matrix).items():
        row = rows.get(name) or {"state": state, "fault": fault, "serves": "not possible here" if fault in NOT_IN_CONTAINERS else NOT_RUN}
        lines.append("| " + " | ".join(str(row.get(column, "")) for column in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def random_rows(page):
    """{(nodes, seed): {column: text}} of what a page says."""
    section = page.partition("\n## %s\n" % RANDOM)[2]
    lines = [[value.strip() for value in line.strip("|").split("|")] for line in section.splitlines() if re.match(r"\| \d", line)]
    return {tuple(values[:2]): dict(zip(RANDOM_COLUMNS, values)) for values in lines}


def _random_table(rows, results):
    """Of each seed of the results a row, of each number the newest result; and the other rows."""
    newest = {(str(one["nodes"]), one["seed"], one["number"]): one for one in results}
    for nodes, seed in {name[:2] for name in newest}:
        found = [one for name, one in newest.items() if name[:2] == (nodes, seed)]
        serves = collections.Counter(one["serves"] for one in found)
        last = max(found, key=lambda one: one["at"])
        counts = (len(found), serves["old"], serves["new"], len(found) - serves["old"] - serves["new"])
        rows[nodes, seed] = dict(zip(RANDOM_COLUMNS, (nodes, seed, *map(str, counts), last["date"], last["commit"], last["versions"])))
    lines = ["| " + " | ".join(RANDOM_COLUMNS) + " |", "|" + "---|" * len(RANDOM_COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(rows[name].values()) + " |" for name in sorted(rows)]) + "\n"


def write_page(results):
    """Put the results into the tables of the page, of each cell the newest."""
    results = sorted(results, key=lambda one: one.get("at", ""))
    drawn, results = [one for one in results if "seed" in one], [one for one in results if "seed" not in one]
    page = PAGE.read_text(encoding="utf-8")
    before, heading, rest = page.partition("\n## %s\n" % RANDOM)
    random_table = _random_table(random_rows(page), drawn)
    page = before + heading + re.sub(r"^\|.*?\n(?!\|)", lambda _match: random_table, rest, count=1, flags=re.MULTILINE | re.DOTALL)
    for matrix, nodes in ((ONE, 1), (THREE, 3)):
        rows = rows_of(page, matrix)
        rows.update({"%s-%s" % (one["state"], one["fault"]): one for one in results if one["nodes"] == nodes})
        new, where = table(matrix, rows), r"(^## %s\n.*?)^\| state .*?\n(?!\|)" % matrix.heading
        page = re.sub(where, lambda match, new=new: match.group(1) + new, page, flags=re.MULTILINE | re.DOTALL)
        done = [name for name in cells(matrix) if rows.get(name, {}).get("serves") in ("old", "new")]
        print("%s: %d of %d cells have a result" % (matrix.heading, len(done), len(cells(matrix))))
    PAGE.write_text(page, encoding="utf-8")


def main():
    """Write the page."""
    files = [pathlib.Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("*.jsonl"))
    if not files:
        sys.exit("There are no results in %s; `make test-faults` makes some." % RESULTS)
    write_page([json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()
