# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decisions are functions with unit tests: no block of Jinja in a role or a playbook is longer than two lines."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = [path for top in ("roles", "playbooks") for path in sorted((ROOT / top).rglob("*.yml")) if not {"collections", "meta"} & set(path.parts)]
# What Ansible evaluates without braces.
CONDITIONS = ("when", "that", "failed_when", "changed_when", "until", "loop")
TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)


def blocks(text):
    """Each expression, and each statement up to its end."""
    depth, begin = 0, 0
    for tag in TAG.finditer(text):
        found = re.match(r"\{%-?\s*(\w+)", tag.group(0))
        word = found.group(1) if found else ""
        begin = begin if depth else tag.start()
        opens = word in ("for", "if", "macro", "block", "filter", "call") or (word == "set" and "=" not in tag.group(0))
        depth += opens - word.startswith("end")
        if not depth:
            yield text[begin : tag.end()]


def scalars(node, key=""):
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from scalars(value, name.value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from scalars(value, key)
    else:
        yield node, key


def long_blocks(text):
    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        for node, key in scalars(document) if document else ():
            raw = text[node.start_mark.index : node.end_mark.index]
            found = list(blocks(raw))
            if key in CONDITIONS and "{{" not in raw:
                # without the sign of a folded text
                found.append("\n".join(line for line in raw.strip().splitlines() if not re.match(r"\s*[>|][-+]?$", line)))
            yield from ((node.start_mark.line + 1, block) for block in found if len(block.splitlines()) > 2)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_block_of_logic_is_longer_than_two_lines(path):
    assert list(long_blocks(path.read_text())) == []


def test_long_blocks_are_found():
    """Text between expressions is no logic."""
    message = "msg: >-\n  {{ a }}\n  is\n  {{ b }}\n"
    assert list(long_blocks(message)) == []
    for text in (
        "msg: >-\n  {{ a\n     | b\n     | c }}\n",
        "msg: >-\n  {%- for x in a -%}\n  {{ x }}\n  {%- endfor -%}\n",
        "when: >-\n  a\n  and b\n  and c\n",
        "assert:\n  that:\n    - >-\n      a\n      or b\n      or c\n",
    ):
        assert len(list(long_blocks(text))) == 1, text
