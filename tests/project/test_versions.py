# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the project says of itself in several places is the same in all of them; and the workflow of the public CI, as far as it can be judged where it does
not run: it asks for what there is, and for what it is said to run."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"
JOBS = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]


def commands():
    return [(job, shlex.split(step["run"].replace("${{ ", "${{").replace(" }}", "}}"))) for job in JOBS.values() for step in job["steps"] if "run" in step]


def test_every_step_is_a_target_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = commands()
    assert len(found) == len(JOBS)
    for _job, words in found:
        assert words[:2] == [".github/in-debian", "make"]
        assert re.search(r"^%s:" % re.escape(words[2]), makefile, re.MULTILINE), words


def test_the_stages_are_all_that_need_no_cluster():
    [stages] = [word.partition("=")[2].split() for _job, words in commands() for word in words if word.startswith("STAGES=")]
    everything = re.search(r"^STAGES = (\(.*\))$", (ROOT / "tests/tools/run_all.py").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert stages == [name for name in re.findall(r'"(\w+)"', everything) if name not in ("sandbox", "molecule", "faults")]


def test_three_versions_of_kubernetes_with_one_and_three_control_planes():
    job = JOBS["node-images"]
    matrix = job["strategy"]["matrix"]
    versions = [re.fullmatch(r"v1\.(\d+)\.\d+@sha256:[0-9a-f]{64}", image).group(1) for image in matrix["image"]]
    newest = int(versions[0])
    assert [int(version) for version in versions] == [newest, newest - 1, newest - 2]
    assert {one["scenario"]: one["nodes"] for one in matrix["include"]} == {"default": 1, "ha": 3}
    assert all((ROOT / "molecule" / name / "molecule.yml").exists() for name in matrix["scenario"])
    script = (ROOT / ".github/in-debian").read_text(encoding="utf-8")
    passed = re.search(r"^for name in (.+); do$", script, re.MULTILINE).group(1).split()
    assert set(job["env"]) <= set(passed)


@pytest.fixture(scope="module")
def matrix():
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "tests/tools/matrix.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_rows_of_the_matrix_are_there(matrix):
    assert set(JOBS["versions"]["strategy"]["matrix"]["row"]) <= {row for row, _cells in matrix.rows()}


def test_the_same_versions_are_supported_everywhere(matrix):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "| ansible-core | %s |" % ", ".join(matrix.CORES) in readme
    assert "| Python on the nodes | %s to %s;" % (matrix.PYTHONS[0], matrix.PYTHONS[-1]) in readme
    assert "| etcd | %s |" % ", ".join(matrix.ETCDS) in readme
    assert "| Kubernetes | %s (kubeadm" % ", ".join(matrix.KUBERNETES) in readme
    versions = (ROOT / "docs/versions.md").read_text(encoding="utf-8")
    for row, cells in matrix.rows():
        [line] = re.findall(r"^\| %s \|.*$" % re.escape(row.partition("-")[2]), versions, re.MULTILINE)
        # a cell that failed is no support
        assert re.fullmatch(r"\| \S+ (\| (\d+ )?passed ){%d}\|" % len(cells), line), line
    environments = (ROOT / "tests/tools/venv").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^  core-([\d.]+)\)", environments, re.MULTILINE)) == matrix.CORES
    requires = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))["requires_ansible"]
    assert requires == ">=%s.0" % matrix.CORES[0]
    assert {path.name for path in (ROOT / "tests/sanity").glob("ignore-*.txt")} == {"ignore-%s.txt" % core for core in matrix.CORES}
    lib = (ROOT / "tests/sandbox/lib.sh").read_text(encoding="utf-8")
    assert all(re.search(r"\b%s\) echo %s\." % (re.escape(one), re.escape(one)), lib) for one in matrix.ETCDS)


def test_what_runs_before_a_commit_is_there():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    stages = {stage for repo in config["repos"] for hook in repo["hooks"] for stage in hook.get("stages", ["pre-commit"])}
    # what `pre-commit install` installs
    assert set(config["default_install_hook_types"]) == stages
    hooks = [hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"] for hook in repo["hooks"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        words = shlex.split(hook["entry"])
        if words[0] == "make":
            assert re.search(r"^%s:" % re.escape(words[1]), makefile, re.MULTILINE)
        else:
            # with the options that `make lint` has
            line = " ".join(words[words.index("dev") + 1 :]).replace(" --fix", "")
            assert line in makefile and "tests/tools/venv dev" in hook["entry"], hook


def test_editors_follow_the_linters():
    width = re.search(r"^line-length = (\d+)$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert "max_line_length = %s\n" % width in (ROOT / ".editorconfig").read_text(encoding="utf-8")
    assert yaml.safe_load((ROOT / ".yamllint").read_text(encoding="utf-8"))["rules"]["line-length"]["max"] == int(width)


def test_the_script_is_one_that_bash_reads():
    subprocess.run(["bash", "-n", ROOT / ".github/in-debian"], check=True)


def program(path, script):
    """A program that does nothing but this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/usr/bin/env bash\n%s\n" % script)
    path.chmod(0o755)


def environment(tmp_path):
    """The programs in bin are found before all others, and nothing is left elsewhere."""
    env = {name: value for name, value in os.environ.items() if name != "REPORTS"}
    return dict(env, PATH="%s:%s" % (tmp_path / "bin", env["PATH"]), K8S_DR_CACHE=str(tmp_path / "the cache"))


@pytest.mark.parametrize("code", [0, 3])
def test_files_of_a_container_belong_to_its_caller(tmp_path, code):
    """Root's reports cannot be uploaded, and root's cache cannot be saved, by who runs the workflow."""
    program(tmp_path / "bin/docker", 'for word; do shift; case $word in *=*) export "${word?}";; docker.io/*) exec "$@";; esac; done')
    for name in ("apt-get", "git"):
        program(tmp_path / "bin" / name, ":")
    program(tmp_path / "bin/make", 'printf "%s," make "$@" >>"$LOG"; exit "$2"')
    # a file that was there a moment ago is no reason to fail
    program(tmp_path / "bin/chown", 'printf "%s," "$PWD" "$@" >>"$LOG"; exit 1')
    env = dict(environment(tmp_path), LOG=str(tmp_path / "log"))
    process = subprocess.run([ROOT / ".github/in-debian", "make", "test", str(code)], env=env, check=False)
    assert process.returncode == code
    said = ["make", "test", code, ROOT, "-R", "%d:%d" % (os.getuid(), os.getgid()), ".", env["K8S_DR_CACHE"], ""]
    assert (tmp_path / "log").read_text() == ",".join(map(str, said))


@pytest.mark.parametrize("has_it", [True, False])
def test_a_core_that_sanity_leaves_out_is_named(tmp_path, has_it):
    """Debian 12 has no Python for the newest."""
    tree = tmp_path / "tree"
    for path in ("tests/tools/sanity", "tests/tools/collection_path.sh", "tests/tools/get_pip.py", "tests/sandbox/lib.sh"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tree / path)
    missing = "" if has_it else 'case $1 in core-2.21) echo "it needs a Python 3.12" >&2; exit 1;; esac'
    program(tree / "tests/tools/venv", missing + "\n[ $# -gt 1 ] || echo '%s'" % (tmp_path / "venv"))
    program(tree / "tests/tools/copy_tree", ":")
    program(tree / "tests/tools/python", "exit 1")
    program(tmp_path / "venv/bin/python", '[ "$1" = - ] && echo get_pip.py || echo 3.11')
    program(tmp_path / "bin/ansible-test", ":")
    process = subprocess.run([tree / "tests/tools/sanity"], env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert ("ansible-test sanity of core 2.21" in process.stderr) == has_it, process.stderr
    assert ("core 2.21 is left out: it needs a Python 3.12" in process.stderr) != has_it, process.stderr
