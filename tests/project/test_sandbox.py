# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox's scripts, as far as they can be tested without a cluster: which versions they mean, that an interrupted build is
resumed, and what they do without Go modules."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SANDBOX = ROOT / "tests" / "sandbox"
SCRIPTS = (
    *("up", "down", "power", "machine", "etcd", "kubernetes", "kubernetes-debian", "runtime", "node-image", "node-ssh"),
    *("lib.sh", "cluster.sh", "node/load-balancer"),
)
SET = ("KUBERNETES", "ETCD", "ETCD_MOUNT", "ETCD_DISK_MB", "NODES", "NODE_IMAGE", "KIND_VERSION", "SANDBOX_NAME")
MODULES = """
printf '%s\\n' "$*" >>"$LOG"
case "$1 $2" in
  "env GOVERSION") echo go1.99;;
  "mod download") printf '\\t"GoMod": "%s",\\n' "$GO_MOD";;
  "list -m") exit "$NO_MODULES";;
esac
[ "$1" != build ] || { [ ! -e "$BREAK" ] || case $* in *kube-scheduler*) exit 1;; esac; while [ "$1" != -o ]; do shift; done; echo >"$2"; chmod +x "$2"; }
"""


@pytest.fixture
def machine(tmp_path):
    """(environment, run): programs that only note how they were called, and a cache of their own."""
    env = {name: value for name, value in os.environ.items() if name not in SET}
    env.update(PATH="%s:%s" % (tmp_path / "bin", env["PATH"]), K8S_DR_CACHE=str(tmp_path / "cache"), LOG=str(tmp_path / "log"), BREAK=str(tmp_path / "break"))
    env.update(GO_MOD=str(tmp_path / "theirs"), NO_MODULES="0", KIND_EXPERIMENTAL_PROVIDER="docker")
    (tmp_path / "bin").mkdir()
    for name, script in {"go": MODULES, "docker": "exit 1", "gcc": 'while [ "$1" != -o ]; do shift; done; echo >"$2"; chmod +x "$2"'}.items():
        (tmp_path / "bin" / name).write_text("#!/bin/bash\n" + script)
        (tmp_path / "bin" / name).chmod(0o755)

    def run(*argv, **more):
        return subprocess.run(list(map(str, argv)), env=dict(env, **more), capture_output=True, text=True, check=False)

    return env, run


def ask(words, **more):
    """What lib.sh says."""
    return subprocess.run(["bash", "-euc", '. "$0/lib.sh"; ' + words, SANDBOX], env=dict(os.environ, **more), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_reads_it(script):
    subprocess.run(["bash", "-n", SANDBOX / script], check=True)


def test_the_readme_names_the_versions_that_it_makes(tmp_path):
    readme = (SANDBOX / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (1\.\d[^|]*) \| (1\.[^|]*) \| [^|]* \| (3\.\d+\.\d+)[^|]* \|$", readme, re.MULTILINE)
    shorts = [short for row in rows for short in re.findall(r"1\.\d+", row[0])]
    assert shorts[0] == re.search(r"^newest=(\S+)", (SANDBOX / "up").read_text(), re.MULTILINE).group(1) and len(shorts) == 5
    for row in rows:
        for short, exact in zip(re.findall(r"1\.\d+", row[0]), re.findall(r"1\.\d+\.\d+", row[1])):
            said = ask('kubernetes_version %s; etcd_for "$(kubernetes_version %s)"' % (short, short), K8S_DR_CACHE=str(tmp_path))
            assert said.stdout.split() == [exact, row[2]]


@pytest.mark.parametrize("version", ["1.38", "1.20.3", "v1.37.2", "1.37.0-rc.1", "latest"])
def test_an_invalid_version_is_refused(tmp_path, version):
    said = ask("kubernetes_version %s" % version, K8S_DR_CACHE=str(tmp_path))
    assert said.returncode == 1 and "'%s' is no version of Kubernetes; say 1.20, " % version in said.stderr


def test_kubeadms_flags_are_not_for_old_etcds(machine):
    _env, run = machine
    said = run(SANDBOX / "up", ETCD="3.5")
    assert said.returncode == 1 and "does not go with etcd 3.5.35; it needs 3.6 or later." in said.stderr


def test_a_build_is_resumed(machine, tmp_path):
    env, run = machine
    (tmp_path / "theirs").write_text("module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n")
    (tmp_path / "break").touch()
    broken = run(SANDBOX / "kubernetes", "1.99.4")
    assert broken.returncode == 1 and "this failed: go build" in broken.stderr and not broken.stdout
    module = pathlib.Path(env["K8S_DR_CACHE"]) / "kubernetes" / "module-v1.99.4"
    assert "replace k8s.io/api => k8s.io/api v0.99.4\n" in (module / "go.mod").read_text()

    (tmp_path / "break").unlink()
    (tmp_path / "log").unlink()
    goes_on = run(SANDBOX / "kubernetes", "1.99.4")
    assert goes_on.returncode == 0, goes_on.stderr
    called = (tmp_path / "log").read_text()
    assert re.findall(r"kubernetes/cmd/(\S+)", called) == ["kube-scheduler", "kube-proxy", "kubectl"] and "mod tidy" not in called
    directory = pathlib.Path(goes_on.stdout.strip())
    assert {path.name for path in directory.iterdir() if not path.name.startswith(".")} == {
        *("kubeadm", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"),
    }
    # the next time nothing is even looked for
    (tmp_path / "log").unlink()
    assert run(SANDBOX / "kubernetes", "1.99.4").stdout == goes_on.stdout and not (tmp_path / "log").exists()


@pytest.fixture
def builders(machine, tmp_path):
    """`up --programs` of a copy whose builders only note what they are asked for."""
    env, run = machine
    tree = tmp_path / "tree" / "sandbox"
    shutil.copytree(SANDBOX, tree)
    for name in ("kubernetes", "runtime", "etcd"):
        (tree / name).write_text('#!/bin/bash\necho "%s $*" >>"$LOG"\n' % name)
    debians_kind = pathlib.Path(env["K8S_DR_CACHE"]) / "kind" / "0.27.0" / "kind"
    debians_kind.parent.mkdir(parents=True)
    debians_kind.write_text("#!/bin/bash\n")
    debians_kind.chmod(0o755)
    return lambda **more: run(tree / "up", "--programs", **more)


def asked_for(tmp_path):
    return [line for line in (tmp_path / "log").read_text().splitlines() if line.split()[0] in ("kubernetes", "runtime", "etcd")]


def put_there(env, version):
    """All that nodes of this version are made from."""
    words = """
      for p in "${kubernetes_programs[@]}"; do echo "$(kubernetes_dir VERSION)/$p"; done
      for p in "${runtime_programs[@]}" kind; do runtime_path "$p"; done
      echo "$cache/etcd/$(etcd_for VERSION)/etcd"
    """.replace("VERSION", version)
    for path in map(pathlib.Path, ask(words, K8S_DR_CACHE=env["K8S_DR_CACHE"]).stdout.split()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/bash\n")
        path.chmod(0o755)


def test_without_go_modules_it_is_debians_and_says_so(builders, tmp_path):
    said = builders(NO_MODULES="1")
    assert said.returncode == 0, said.stderr
    assert "the Go module proxy does not answer, so the sandbox gets Kubernetes 1.20 out of Debian's sources instead of 1.37.2" in said.stderr
    assert asked_for(tmp_path) == ["kubernetes 1.20.2", "etcd 3.5.16"]


def test_without_go_modules_what_was_asked_for_by_name_is_refused(builders, tmp_path):
    said = builders(NO_MODULES="1", KUBERNETES="1.36")
    assert said.returncode == 1 and not asked_for(tmp_path)
    assert "the Go module proxy does not answer, so Kubernetes 1.36.3 cannot be had; KUBERNETES=1.20 needs nothing but Debian." in said.stderr


def test_debians_asks_for_no_go_modules(builders, tmp_path):
    assert builders(NO_MODULES="1", KUBERNETES="1.20").returncode == 0
    assert asked_for(tmp_path) == ["kubernetes 1.20.2", "etcd 3.5.16"] == (tmp_path / "log").read_text().splitlines()


def test_what_is_here_already_needs_no_go_modules(machine, builders, tmp_path):
    put_there(machine[0], "1.37.2")
    said = builders(NO_MODULES="1")
    assert said.returncode == 0 and "proxy" not in said.stderr, said.stderr
    assert "kubernetes 1.37.2" in asked_for(tmp_path) and "etcd 3.7.3" in asked_for(tmp_path)


def test_with_go_modules_it_is_the_newest(builders, tmp_path):
    assert builders().returncode == 0
    found = asked_for(tmp_path)
    assert "kubernetes 1.37.2" in found and "etcd 3.7.3" in found and any(line.startswith("runtime containerd ") for line in found)


def test_haproxy_gets_the_servers_that_kind_lists_for_envoy():
    listed = "".join(
        "      - endpoint:\n          address:\n            socket_address:\n              address: %s\n              port_value: 6443\n" % name
        for name in "ab"
    )
    config = subprocess.run(["awk", "-f", SANDBOX / "node/load-balancer.awk"], input=listed, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  server (.*)$", config, re.MULTILINE) == ["a a:6443", "b b:6443"]
