# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The private packages of plugins/module_utils import each other one way only, as docs/architecture.md has it."""

from __future__ import annotations

import ast
import pathlib
import re

import graphlib
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UTILS = ROOT / "plugins/module_utils"
PREFIX = "ansible_collections.k8s_dr.etcd.plugins."
# What each package may import besides itself, lowest first.
ALLOWED = {
    "_system": set(),
    "_etcd": {"_system"},
    "_kube": {"_system"},
    "_snapshot": {"_etcd", "_kube", "_system"},
    "_browse": {"_etcd", "_kube", "_snapshot", "_system"},
    "_remote": {"_snapshot", "_system"},
    "_recover": {"_kube", "_system"},
    "_rebuild": {"_etcd", "_kube", "_snapshot", "_system"},
    "_restore": {"_etcd", "_kube", "_snapshot", "_system"},
}
FILES = sorted(UTILS.rglob("*.py"))


def imported(path):
    """Every module of this collection that a file imports, by its name below plugins."""
    names = set(UTILS.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PREFIX):
            base = node.module[len(PREFIX) :]
            for alias in node.names:
                whole = base + "." + alias.name
                yield whole if ROOT.joinpath("plugins", *whole.split(".")).with_suffix(".py") in names else base


def test_all_private_code_lies_in_a_package():
    assert {path.parent.name for path in FILES} == set(ALLOWED)
    assert {path.name for path in UTILS.iterdir() if path.name != "__pycache__"} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(UTILS)))
def test_imports_go_one_way(path):
    for name in imported(path):
        kind, package = name.split(".")[:2]
        assert kind == "module_utils", "%s imports %s, and what is private to it is below it" % (path.name, name)
        allowed = ALLOWED[path.parent.name] | {path.parent.name}
        assert package in allowed, "%s imports %s; it may import %s" % (path.relative_to(UTILS), name, ", ".join(sorted(allowed)))


def test_no_two_modules_import_each_other():
    graph = {"module_utils.%s.%s" % (path.parent.name, path.stem): set(imported(path)) for path in FILES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_no_two_packages_import_each_other():
    assert list(graphlib.TopologicalSorter(ALLOWED).static_order())


def test_the_page_has_the_same_table():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(_\w+)` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE))
    assert {package: set(re.findall(r"`(_\w+)`", cell)) for package, cell in rows.items()} == ALLOWED
