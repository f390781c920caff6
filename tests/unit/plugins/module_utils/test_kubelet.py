# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What kubelet was told, in every way that it can be told, and whether its runtime answers."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils import _kubelet
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kubelet import Kubelet, parse_config, parse_flags, runtime_answers

CONTAINERD = "/run/containerd/containerd.sock"


def test_flags():
    words = ["--a=1", "--b", "2", "--c", "--d=", "positional", "--e=x=y", "--f"]
    assert parse_flags(words) == {"a": "1", "b": "2", "c": "true", "d": "", "e": "x=y", "f": "true"}


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: kubelet.config.k8s.io/v1beta1\nauthentication:\n  staticPodPath: /wrong\nstaticPodPath: /pods # mine\n",
        'staticPodPath: "/pods"\n',
        '{"staticPodPath": "/pods", "maxPods": 110}',
    ],
)
def test_configuration(text):
    assert parse_config(text)["staticPodPath"] == "/pods"


@pytest.fixture
def host(tmp_path):
    """host(command line, kubeadm-flags.env, config.yaml) -> Kubelet"""
    proc = tmp_path / "proc"
    (proc / "self/ns").mkdir(parents=True)
    os.symlink("net:[1]", proc / "self/ns/net")

    def make(command=(), env="", config=""):
        if command:
            (proc / "5/ns").mkdir(parents=True)
            os.symlink("net:[1]", proc / "5/ns/net")
            (proc / "5/cmdline").write_bytes(b"\0".join(word.encode() for word in ["/usr/bin/kubelet", *command]) + b"\0")
            (proc / "5/cgroup").write_text("0::/system.slice/kubelet.service\n")
        (tmp_path / "flags.env").write_text(env)
        (tmp_path / "config.yaml").write_text(config)
        return Kubelet(str(proc), str(tmp_path / "flags.env"), str(tmp_path / "config.yaml"))

    make.path = tmp_path
    return make


@pytest.mark.parametrize(
    ("command", "env", "config", "path"),
    [
        ([], "", "", CONTAINERD),
        (["--container-runtime-endpoint=unix:///run/crio/crio.sock"], "", "", "/run/crio/crio.sock"),
        (["--container-runtime-endpoint", "/run/crio/crio.sock"], "", "", "/run/crio/crio.sock"),
        ([], 'KUBELET_KUBEADM_ARGS="--container-runtime=remote --container-runtime-endpoint=unix:///run/crio/crio.sock"', "", "/run/crio/crio.sock"),
        (["--v=2"], 'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///stale.sock"', "", CONTAINERD),
        ([], "", "containerRuntimeEndpoint: unix:///run/crio/crio.sock\n", "/run/crio/crio.sock"),
        ([], "", 'containerRuntimeEndpoint: ""\n', CONTAINERD),
        (["--container-runtime-endpoint=unix:///flag.sock"], "", "containerRuntimeEndpoint: unix:///config.sock\n", "/flag.sock"),
        (["--container-runtime-endpoint=tcp://192.0.2.1:1"], "", "", ""),
        ([], "KUBELET_KUBEADM_ARGS='cut off", "", CONTAINERD),
    ],
)
def test_socket_of_the_runtime(host, command, env, config, path):
    assert host(command, env, config).runtime_socket == path


def test_directory_of_configuration(host):
    directory = host.path / "conf.d"
    directory.mkdir()
    (directory / "10-a.conf").write_text("staticPodPath: /a\n")
    (directory / "20-b.conf").write_text("staticPodPath: /b\n")
    (directory / "30-c.txt").write_text("staticPodPath: /c\n")
    kubelet = host(["--config-dir=%s" % directory, "--kubeconfig=/k"], config="staticPodPath: /0\n")
    assert (kubelet.static_pods, kubelet.kubeconfig) == ("/b", "/k")


def test_named_configuration_and_defaults(host):
    other = host.path / "other.yaml"
    other.write_text("staticPodPath: /other\n")
    kubelet = host(["--config=%s" % other], config="staticPodPath: /0\n")
    assert (kubelet.static_pods, kubelet.kubeconfig) == ("/other", _kubelet.KUBECONFIG)


def serve(path, answer):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def talk():
        connection = server.accept()[0]
        connection.recv(1000)
        if answer:
            connection.sendall(answer)
        connection.close()

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    return server


def test_a_runtime_that_answers(tmp_path):
    server = serve(tmp_path / "s", b"\0\0\0\4\0\0\0\0\0")
    assert runtime_answers(str(tmp_path / "s"), 5)
    server.close()


def test_a_runtime_that_hangs(tmp_path):
    """The kernel accepts connections for it."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(5)
    assert not runtime_answers(str(tmp_path / "s"), 0.2)
    server.close()
    assert not runtime_answers(str(tmp_path / "s"), 0.2)


@pytest.mark.parametrize("path", ["", "/nonexistent", "/" + "x" * 200, "/a\0b"])
def test_no_runtime(path):
    assert not runtime_answers(path, 0.2)
