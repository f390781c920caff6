# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""YAML in block style, compared with PyYAML, which does not run on nodes."""

from __future__ import annotations

import pathlib
from random import Random

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.block_yaml import doubt, parse
from hypothesis import given, strategies as st

RENDERED = sorted((pathlib.Path(__file__).resolve().parents[3] / "fixtures").glob("*/*.yaml.txt"))


def expected(text):
    """What PyYAML reads, with every scalar as it stands there."""
    return next(iter(yaml.load_all(text, Loader=yaml.BaseLoader)))


@pytest.mark.parametrize("path", [path for path in RENDERED if path.name != "config.yaml.txt"], ids=lambda path: path.name)
def test_what_kubeadm_writes(path):
    assert parse(path.read_text()) == expected(path.read_text())
    assert parse(path.read_text().replace("\n", "\r\n")) == expected(path.read_text())


def test_there_is_something_to_read():
    assert len(RENDERED) == 5


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n- x\n- y: 1\n  z:\n  - 2\nc: {}\nd: []\n",
        "---\n# first\n\na: b # why\n  # deeper\nc:\n\n  d: e\n---\na: second\n",
        "a:\n  - - b\n    - c\n  -\n    d: e\n  -   f: g\n      h: i\n",
        "a: |\n  - --data-dir=/wrong\n  b: c\n\n  # text\nd: |-\n   x\n    y\ne: |+\n  z\n\nf: |2\n    g\n",
        "a: >-\n  one\n  two\n\n  three\nb: one\n  two # end\nc: 'it''s\n\n  two'\nd: \"a\\\n  \\  b\\tc\\u00e9 \\x41\\\" \\\n  d\"\n",
        "\"a b\": 1\n'c: d': 2\ne#f: g#h\nurl: http://x:1\ntime: 10:00\ndash: -1\n-x: y\n",
        "a:\nb: ''\nc: null\nd: ~\ne: true # not a word\nf: [\"x\", {\"y\": \"1\"}]\n",
        "- a\n- b: c\n- 'd'\n- |\n  e\n-\n- f\n",
        "a: [b, --data-dir=/x, -c, 'd e', \"f\", 1.50, null]\nb: [ALL]\nc: [ kms ,\n  --listen=/run/kms.sock]\n",
        "just text\n",
        '\n{"a": "b # c",\n "d": [1.50, true, null]}\n',
        "# first\n\n--- # then\na: b\n---\nc: d\n",
        "a: b\n...\nc: d\n",
    ],
)
def test_forms(text):
    assert parse(text) == expected(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ""),
        ("# nothing\n", ""),
        ("a: b\n   what is this\n  {\nc: d\n", {"a": "b what is this {", "c": "d"}),
        ("a:\n  b: c\n ?\nd: e\n", {"a": {"b": "c"}, "d": "e"}),
        ("a: [b, &c]\nd: &e f\n", {"a": "[b, &c]", "d": "&e f"}),
        ("a: 'never closed\nb: c\n", {"a": "'never closed b: c"}),
        ("a: b\n- c\nd: e\n", {"a": "b", "d": "e"}),
        ('a: "\\UFFFFFFFF"\n', {"a": "UFFFFFFFF"}),
        ("- " * 10000 + "a\n", ""),
    ],
)
def test_what_fits_nowhere_is_left_out(text, found):
    assert parse(text) == found


def test_lines():
    text = "spec:\n  command:\n  - a\n  # said\n  - 'b\n\n    c'\n  - |\n    d\n  - e f\n    g # h\n"
    lines = [(word.first, word.last) for word in parse(text)["spec"]["command"]]
    # of a literal the empty lines at its end are none
    assert lines == [(2, 2), (4, 6), (7, 8), (9, 10)]
    assert parse('a: ["b"]\n')["a"][0].first is None


# what YAML cannot hold, and what PyYAML itself does not read back
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff", include_characters="\n\t"), max_size=120)
KEYS = TEXTS.filter(lambda key: len(key) < 60)
DOCUMENTS = st.recursive(TEXTS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)))


@given(DOCUMENTS.filter(lambda document: isinstance(document, (dict, list))), st.sampled_from([60, 80, 10**6]), st.booleans(), st.sampled_from([2, 4]))
def test_whatever_is_written_in_block_style(document, width, unicode, indent):
    text = yaml.safe_dump(document, default_flow_style=False, width=width, allow_unicode=unicode, indent=indent)
    if "? " in text:
        # a key that is no line
        return
    assert parse(text) == expected(text)


@given(st.text(max_size=200), st.text(st.sampled_from("a: -|>\"'\\#\n[]{}&* "), max_size=60))
def test_the_parser_never_fails(anything, likely):
    parse(anything)
    parse(likely)


# What YAML is made of, and what looks like it.
FRAGMENTS = [
    "a", "b", "-", "?", ":", ",", "[", "]", "{", "}", "#", "&", "*", "!", "|", ">", "%", "@", "'", '"', "\\", "~", ".", "---", "...", "<<", "null",
    "true", "1", "0x1f", "1e3", "a:", "b:", "k:", "l:", "'c'", '"d"', "[]", "{}", "[a]", "[a, -b]", "[a, 'b',]", "[--a=b", ", ", "]",
     '["a"]', '{"a":1}', "&x", "*x", "!!str", "!t", "|-", ">-",
    "|2", ">+", '"a\\tb"', '"\\q"', "--data-dir=/x", "http://x:1",
    "- ", "- ", "- - ", "- a: ", "k: ", "l: ", ": ", " # c", " ", "  ", "\t", "\r", "\u2028", "\ufeff", "\x85", '{"a": 1.50}',
]


def likely(random):
    """A few lines of them."""
    indents = random.choices((0, 0, 0, 1, 2, 2, 4), k=random.randrange(8))
    return "\n".join(" " * indent + "".join(random.choices(FRAGMENTS, k=random.randrange(5))) for indent in indents)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_pyyaml_reads_otherwise_is_in_doubt(seed):
    random, certain = Random(seed), 0
    for dummy in range(10000):
        text = likely(random)
        if doubt(text):
            continue
        try:
            document = next(iter(yaml.load_all(text, Loader=yaml.BaseLoader)), "")
        except yaml.YAMLError:
            # tabs between what they cannot change: kubelet's library reads them, PyYAML does not
            assert "\t" in text, text
            continue
        certain += 1
        assert parse(text) == document, text
    assert certain > 1000


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.name)
def test_nothing_that_kubeadm_writes_is_in_doubt(path):
    assert doubt(path.read_text()) is None


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: b\nc: [d, e: f]\n", 2, "flow style that is neither JSON nor a list of words"),
        ("a: {b: c}\n", 1, "flow style that is neither JSON nor a list of words"),
        ("a: &x b\nc: *x\n", 1, "an anchor, an alias or a tag"),
        ("a: b\na: c\n", 2, "the key a a second time"),
        ("a:\n  <<: {}\n", 2, "a key of a kind that this collection does not read"),
        ("a:\n- 'b'\n c\n", 3, "a line that does not belong to what stands above it"),
        ("a:\n\t- b\n", 2, "a tab where YAML has blanks"),
        ("a: 'b\n", 1, "a quoted value that does not end, or goes on behind its quotes"),
        ("a: |\n   b\n  c\n", 1, "a block of text of a form that this collection does not read"),
        ("a: b\u2028c: d\n", 1, "a character that is no text"),
        ("--- a\n", 1, "a document that begins on the line of its mark"),
        ("just text\n", 1, "neither a mapping nor a list"),
    ],
)
def test_what_is_in_doubt(text, line, what):
    assert doubt(text) == (line, what)
