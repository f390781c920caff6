# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The flags of the control plane's own programs that name files are those that test_obstacles.py tests.

`PYTHONPATH=playbooks/collections tests/tools/venv dev python tests/integration/test_flags.py` rewrites the list, from all programs that are built here.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import harness
import pytest

LIST = harness.ROOT / "tests/unit/fixtures/flags-that-name-files.txt"
CACHE = pathlib.Path(os.environ.get("K8S_DR_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "k8s-dr-etcd"))
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
MINORS = ("1.34", "1.35", "1.36", "1.37")


def built(minor):
    """The directory of the newest programs of a minor version that the sandbox has built on this machine, or None."""
    found = [path for path in CACHE.glob("kubernetes/v%s.*" % minor) if all((path / name).exists() for name in COMPONENTS)]
    return max(found, key=lambda path: int(path.name.rpartition(".")[2]), default=None)


def flags(program):
    """{flag: help} of a program, where the help speaks of files."""
    process = subprocess.run([str(program), "--help"], capture_output=True, text=True, check=True, env=harness.clean_environment(), timeout=30)
    helps, flag = {}, None
    for line in (process.stdout + process.stderr).splitlines():
        match = re.match(r"^\s+(?:-\w, )?--([a-z0-9-]+)(.*)$", line)
        if match:
            flag = match.group(1)
            helps[flag] = match.group(2)
        elif flag:
            helps[flag] += " " + line.strip()
    assert len(helps) > 50
    about = re.compile(r"\b(files?|filename|paths?|director(y|ies)|dir|kubeconfig|socket)\b", re.IGNORECASE)
    return {flag: " ".join(text.split()) for flag, text in helps.items() if about.search(flag.replace("-", " ") + " " + text)}


def listed(component):
    return {line.split(":")[0].split(" ")[1] for line in LIST.read_text().splitlines() if line.startswith(component + " ")}


def test_flags_of_etcd(version):
    assert set(flags(harness.bin_dir(version) / "etcd")) <= listed("etcd")


@pytest.mark.parametrize("minor", MINORS)
def test_flags_of_kubernetes(minor):
    directory = built(minor)
    if directory is None:
        pytest.skip("no Kubernetes %s is built on this machine: tests/sandbox/kubernetes %s does" % (minor, minor))
    for component in COMPONENTS:
        assert set(flags(directory / component)) <= listed(component)


if __name__ == "__main__":
    programs = [("etcd", harness.bin_dir(version) / "etcd") for version in ("3.4", "3.5", "3.6", "3.7")]
    programs += [(component, built(minor) / component) for minor in MINORS if built(minor) for component in COMPONENTS]
    found = {(component, flag): text for component, program in programs for flag, text in flags(program).items()}
    LIST.write_text("".join("%s %s: %s\n" % (component, flag, text[:110].strip()) for (component, flag), text in sorted(found.items())))
