# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every command on a page exists and is accepted as it is written, or a comment on the page says why no test runs it:

    <!-- not run: a machine that joins for good is in molecule/ha/tests/test_three_control_planes.py -->

Playbooks are given to ansible-playbook with all their options, and their variables to the roles' own specifications; commands by hand are run by the test
that EXECUTED names.
"""

from __future__ import annotations

import ast
import collections
import fnmatch
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tokenize

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "roles/*/README.md", "tests/sandbox/*.md", "bench/*.md") for path in ROOT.glob(pattern))
# Where a test runs what is below a heading of a page; it names both.
EXECUTED = {
    ("docs/worst-day.md", "E: nothing is left"): "tests/tools/remote_cluster.py",
    ("docs/worst-day.md", "By hand"): "molecule/default/tests/test_7_by_hand.py",
    ("docs/restore.md", "Failed and unfinished restores"): "molecule/default/tests/test_5_failures.py",
    ("docs/encryption.md", "Keys"): "tests/integration/test_encryption.py",
    ("docs/encryption.md", "What a new cluster would need"): "tests/integration/test_encryption.py",
    ("docs/encryption.md", "Restoring"): "tests/integration/test_encryption.py",
    ("docs/signing.md", "Keys"): "tests/integration/test_signing.py",
    ("docs/signing.md", "By hand"): "tests/integration/test_signing.py",
}
PROGRAMS = {
    *("ansible-playbook", "ansible-galaxy", "ansible-builder", "make", "pre-commit", "git"),
    *("kubectl", "kubeadm", "systemctl", "cat", "age", "age-keygen", "sha256sum", "rclone"),
}
NOT_RUN = re.compile(r"<!-- not run: (.{20,}) -->")
Block = collections.namedtuple("Block", "page heading line language text excuse")


def blocks_in(page):
    """Everything on a page that is set as code: between fences, or indented below an empty line."""
    found, heading, excuse, fence, inside = [], "", None, None, []
    lines = [*page.read_text(encoding="utf-8").splitlines(), ""]
    indented = None
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        if fence is not None:
            if bare == "```":
                found.append(Block(str(page.relative_to(ROOT)), heading, number, fence, "\n".join(inside), excuse))
                fence, inside, excuse = None, [], None
            else:
                inside.append(line)
            continue
        if bare.startswith("```"):
            fence = bare[3:]
            continue
        if indented is not None and not line.startswith(indented):
            found.append(Block(str(page.relative_to(ROOT)), heading, number, "", "\n".join(one[len(indented) :] for one in inside), excuse))
            indented, inside, excuse = None, [], None
        if indented is None and line.startswith("    ") and not lines[number - 2].strip() and not re.match(r"\s+([-*]|\d+\.) ", line):
            indented = line[: len(line) - len(line.lstrip())]
        if indented is not None:
            inside.append(line)
            continue
        if line.startswith("## "):
            heading = line[3:]
        if bare:
            match = NOT_RUN.search(line)
            excuse = match.group(1) if match else None
    return found


BLOCKS = [block for page in PAGES for block in blocks_in(page)]


def commands_of(block):
    """The lines of a block that an operator would type, without a prompt; [] for one that shows something else."""
    typed = []
    for line in block.text.replace("\\\n", "").splitlines():
        match = re.match(r"(?:\$ |\w+# )?((\S+).*)", line)
        if not match or (block.language == "console" and not line.startswith("$ ")):
            continue
        if block.language in ("sh", "console") or match.group(2) in PROGRAMS:
            typed.append(match.group(1))
    return typed


TYPED = [(block, command) for block in BLOCKS for command in commands_of(block)]
# and in the middle of a sentence
TYPED += [
    (Block(str(page.relative_to(ROOT)), "", 0, "", command, None), command)
    for page in PAGES
    for command in re.findall(r"`(ansible-playbook [^`]+)`", page.read_text(encoding="utf-8").replace("\n", " "))
    if "NAME" not in command
]
PLAYED = sorted({command.partition(" #")[0].strip() for _block, command in TYPED if command.startswith("ansible-playbook ") and not _block.excuse})


def options():
    """{variable: its specification} of all roles, as Ansible's own validator takes it."""
    found = {"k8s_dr_hosts": {"type": "str"}}
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for spec in yaml.safe_load(path.read_text())["argument_specs"].values():
            for name, option in spec["options"].items():
                found[name] = {key: value for key, value in option.items() if key in ("type", "elements", "choices")}
    return found


OPTIONS = options()


def why_not(variables):
    """Why the roles would refuse variables; empty when they would accept them."""
    unknown = [name for name in variables if name not in OPTIONS]
    if unknown:
        return "no role has %s" % ", ".join(unknown)
    return "; ".join(ArgumentSpecValidator({name: OPTIONS[name] for name in variables}).validate(variables).error_messages)


def test_there_is_something_to_test():
    """A parser that finds nothing finds no fault either."""
    assert len(BLOCKS) > 60 and len(PLAYED) > 40 and sum(block.language == "sh" for block in BLOCKS) >= 8


def test_the_emergency_runbook_says_which_inventory():
    """Ansible reads none from the current directory, and ends with code 0 when it finds no hosts."""
    commands = [command for block, command in TYPED if block.page == "docs/worst-day.md" and command.startswith("ansible-playbook ")]
    before_all = next(block.text for block in BLOCKS if block.page == "docs/worst-day.md")
    assert commands and before_all == "export ANSIBLE_INVENTORY=$PWD/inventory.yml"


def parsed(command):
    """The values of -e, and all other words but -i, of a command."""
    extra, rest = [], []
    words = iter(shlex.split(command)[1:])
    for word in words:
        if word == "-e":
            extra.append(next(words))
        elif word == "-i":
            next(words)
        else:
            rest.append(word)
    return extra, tuple(rest)


@pytest.mark.parametrize("command", PLAYED)
def test_a_role_takes_the_variables(command):
    given = {}
    for value in parsed(command)[0]:
        given.update(json.loads(value) if value.startswith("{") else dict([value.split("=", 1)]))
    assert why_not(given) == ""


def playbook_of(command):
    """(the file of its playbook, its other words without -e and -i)."""
    rest = parsed(command)[1]
    [playbook] = [word for word in rest if re.fullmatch(r"k8s_dr\.etcd\.\w+|\w+\.yml", word)]
    path = ROOT / "playbooks" / (playbook.removeprefix("k8s_dr.etcd.").removesuffix(".yml") + ".yml")
    return path, tuple(word for word in rest if word != playbook)


# Commands that differ in their playbooks and variables only are one call of Ansible's, which takes a second.
@pytest.mark.parametrize("words", sorted({playbook_of(command)[1] for command in PLAYED}), ids=lambda words: " ".join(words) or "no options")
def test_ansible_takes_the_commands(words, tmp_path):
    alike = [command for command in PLAYED if playbook_of(command)[1] == words]
    extra = [value for command in alike for value in parsed(command)[0]]
    paths = sorted({playbook_of(command)[0] for command in alike})
    assert [path for path in paths if not path.exists()] == [], "there is no such playbook"
    limit = words[words.index("-l") + 1].split(",") if "-l" in words else []
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"control_plane": {"hosts": {name: {} for name in ("cp1", "cp2", "cp3", "drillhost")}}}))
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", inventory, *paths, "--list-hosts", *words]
    argv += [word for value in extra for word in ("-e", value.replace("$PWD", str(tmp_path)))]
    process = subprocess.run(argv, cwd=ROOT / "playbooks", env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert process.returncode == 0, process.stdout + process.stderr
    listed = re.split(r"^playbook: ", process.stdout, flags=re.MULTILINE)[1:]
    assert len(listed) == len(paths), process.stdout
    assert all(re.search(r"^ +%s$" % name, part, re.MULTILINE) for part in listed for name in limit), process.stdout


@pytest.mark.parametrize(("block", "command"), TYPED, ids=["%s: %s" % (block.page, command[:60]) for block, command in TYPED])
def test_every_command_is_run_or_says_why_not(block, command):
    if block.excuse or command.startswith("ansible-playbook "):
        return
    if command.startswith("make "):
        target = shlex.split(command, comments=True)[1]
        assert re.search(r"^%s:" % re.escape(target), (ROOT / "Makefile").read_text(), re.MULTILINE), "the Makefile has no %s" % target
        return
    where = EXECUTED.get((block.page, block.heading))
    assert where, "%s, line %d: no test runs this, and no <!-- not run: ... --> above it says why" % (block.page, block.line)


@pytest.mark.parametrize(("page", "heading"), EXECUTED)
def test_the_executing_test_names_the_page(page, heading):
    assert 'blocks_of("%s", "%s")' % (page, heading) in (ROOT / EXECUTED[page, heading]).read_text()
    assert any(block.page == page and block.heading == heading for block in BLOCKS)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda block: "%s:%d" % (block.page, block.line))
def test_variables_are_those_of_the_roles(block):
    def look(value):
        if isinstance(value, dict):
            ours = {key: one for key, one in value.items() if str(key).startswith(("etcd_", "k8s_dr_", "cluster_validate_")) and "{{" not in str(one)}
            assert why_not(ours) == "", ours
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    look(yaml.safe_load(block.text))


LEFT_OUT = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["build_ignore"]


def is_in_artifact(path):
    """Is that file in the artifact, or does galaxy.yml keep it, or a directory that it is in, out?"""
    path = path.relative_to(ROOT)
    return not any(fnmatch.fnmatch(str(part), pattern) for part in (path, *path.parents) for pattern in LEFT_OUT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(https://github\.com/k8s-dr/etcd/(?:blob|tree)/main/([^)#\s]+)", text):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _hash, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert is_in_artifact(other) or not is_in_artifact(page), "%s is not where this page is, in the artifact: link to the repository" % target
        if anchor and other.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in anchors, "%s has no heading for #%s" % (path or page.name, anchor)


# docs/style.md lists some of them to say that they are avoided, in italics.
OLD_PHRASES = re.compile(
    r"\b(whoever|nobody|somebody|to be had|is told of|are told of|held against|what came of|what became of|gone on with|is none|was not got|"
    r"put aside|takes? it back|taken back|brought back|can be relied on|so it would not start again|are well|is well|must be well|was not proven|proves and|"
    r"as far as can be said|nothing to rely on|proven|rungs?|census|misfortunes?)\b",
    re.IGNORECASE,
)
PROSE = [page for page in PAGES if page.name != "CHANGELOG.md"]


def prose_of(page):
    """The text of a page without code blocks, code in sentences, and quoted (italic) words."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\s+", " ", re.sub(r"`[^`]*`|(?<!\*)\*[^*]+\*(?!\*)", "", text))


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_old_phrases_stay_away(page):
    assert OLD_PHRASES.findall(prose_of(page)) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/meta/argument_specs.yml")), ids=lambda path: path.parts[-3])
def test_old_phrases_stay_away_from_options(path):
    assert OLD_PHRASES.findall(re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))) == []


PLUGINS = sorted(path for path in (ROOT / "plugins").glob("*/*.py") if path.parent.name != "module_utils")


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_old_phrases_stay_away_from_documentation_and_examples(path):
    found = re.findall(r'^(?:DOCUMENTATION|RETURN|EXAMPLES) = r"""(.*?)"""', path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = re.sub(r"\s+", " ", " ".join(found))
    assert OLD_PHRASES.findall(re.sub(r"{{.*?}}|there is none", "", text)) == []


@pytest.mark.parametrize("path", sorted([*ROOT.glob("roles/*/defaults/main.yml"), ROOT / "galaxy.yml", *ROOT.glob("docs/**/*.yml")]), ids=str)
def test_old_phrases_stay_away_from_settings(path):
    text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
    assert OLD_PHRASES.findall(re.sub(r"{{.*?}}|there is none", "", text)) == []


CODE = sorted(path for part in ("tests", "bench", "molecule") for path in (ROOT / part).rglob("*.py") if not {"fixtures", "output"} & set(path.parts))


def words_of(path):
    """Comments, docstrings and names of tests."""
    source = path.read_text(encoding="utf-8")
    yield from (token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name.replace("_", " ")


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_old_phrases_stay_away_from_tests_and_benchmarks(path):
    assert [words for words in words_of(path) if OLD_PHRASES.search(re.sub(r"\s+", " ", words))] == []


def test_old_phrases_stay_away_from_make_help():
    assert OLD_PHRASES.findall((ROOT / "Makefile").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_prose_have_at_most_100_characters(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 100 and not re.match(r"\||    |\s*<!--|\[", line)] == []
