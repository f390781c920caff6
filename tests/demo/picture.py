# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/demo.svg: the demo, run for this, as it looks on a terminal. Of the tasks of a playbook only the first and the last are shown."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

from rich.console import Console
from rich.text import Text

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "demo.svg"
WIDTH = 132
TASK = re.compile(r"\s+\d+\.\d s  ")
FIRST, LAST = 2, 9


def shortened(lines):
    """The lines, and of each long row of tasks its ends."""
    shown, tasks = [], []
    for line in [*lines, ""]:
        if TASK.match(Text.from_ansi(line).plain):
            tasks.append(line)
            continue
        if len(tasks) > FIRST + LAST + 1:
            tasks[FIRST:-LAST] = ["\033[2m              ... %d more\033[0m" % (len(tasks) - FIRST - LAST)]
        shown += [*tasks, line]
        tasks = []
    return shown


def main():
    """Run the demo and draw it."""
    lines = []
    demo = [sys.executable, "-u", str(ROOT / "tests" / "demo" / "demo.py")]
    with subprocess.Popen(demo, env=dict(os.environ, FORCE_COLOR="1"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    if process.returncode:
        sys.exit("The demo failed; no picture is made of that.")
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True, color_system="standard")
    console.print(Text.from_ansi("\033[1m$ make demo\033[0m"))
    for line in shortened(lines):
        console.print(Text.from_ansi(line), overflow="ellipsis", no_wrap=True)
    svg = console.export_svg(title="k8s_dr.etcd", clear=False)
    # the fonts of a page that a reader's browser would have to ask for
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
    print("%s: %d lines" % (PICTURE.relative_to(ROOT), len(shortened(lines)) + 1))


if __name__ == "__main__":
    main()
