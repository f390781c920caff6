# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of kubelet from every source that it reads, and whether its runtime answers."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import kubelet as kube_kubelet
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.kubelet import Kubelet, parse_config, parse_environment, parse_flags, runtime_answers

CONTAINERD = "/run/containerd/containerd.sock"


def test_flags():
    words = ["--a=1", "--b", "2", "--c", "--d=", "positional", "--e=x=y", "--config_dir=g_h", "--f"]
    assert parse_flags(words) == {"a": "1", "b": "2", "c": "true", "d": "", "e": "x=y", "config-dir": "g_h", "f": "true"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('KUBELET_KUBEADM_ARGS=""\n', []),
        ('KUBELET_KUBEADM_ARGS="--a=1 --b 2"\n', ["--a=1", "--b", "2"]),
        ("# --x=1\n; --y=1\nEXTRA=--a=1 --b=2\nMORE='--c=3'\n", ["--a=1", "--b=2", "--c=3"]),
        ("EXTRA=--a=1 \\\n  --b=2\n", ["--a=1", "--b=2"]),
        ("EXTRA='--a=1\nMORE=--b=2\n", ["--b=2"]),
        ("", []),
    ],
)
def test_files_of_flags(text, words):
    assert parse_environment(text) == words


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
        return Kubelet(str(proc), [str(tmp_path / "flags.env"), str(tmp_path / "extra")], str(tmp_path / "config.yaml"))

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


# As kubeadm 1.37.2 wrote it, with some of the lines left out.
CONFIG = """apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
containerRuntimeEndpoint: unix:///run/crio/crio.sock
crashLoopBackOff: {}
kind: KubeletConfiguration
logging:
  options:
    json:
      infoBufferSize: "0"
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
volumeStatsAggPeriod: 0s
"""
ENV = 'KUBELET_KUBEADM_ARGS="--hostname-override=cp1"\n'


@pytest.mark.parametrize("running", [True, False])
def test_a_node_of_kubeadm_1_37(host, running):
    # which kubelet does not read
    (host.path / "instance-config.yaml").write_text('containerRuntimeEndpoint: "unix:///wrong.sock"\nstaticPodPath: /wrong\n')
    kubelet = host(["--config=%s" % (host.path / "config.yaml"), "--hostname-override=cp1"] if running else [], ENV, CONFIG)
    assert (kubelet.runtime_socket, kubelet.static_pods) == ("/run/crio/crio.sock", "/etc/kubernetes/manifests")
    assert kubelet.flags["hostname-override"] == "cp1"


@pytest.mark.parametrize("running", [True, False])
def test_drop_ins(host, running):
    drop_ins = {
        "10-a.conf": "staticPodPath: /a\ncontainerRuntimeEndpoint: unix:///a.sock\n",
        "20-b/1.conf": '{"staticPodPath": "/b1", "containerRuntimeEndpoint": "unix:///b1.sock"}',
        "20-b/2.conf.d/1.conf": "staticPodPath: /b2\n",
        # a longer name than that of the directory, so behind all that is in it
        "20-b.conf": "staticPodPath: '/last'\n",
        "30-c.yaml": "staticPodPath: /no\n",
    }
    for name, text in drop_ins.items():
        (host.path / "conf.d" / name).parent.mkdir(parents=True, exist_ok=True)
        (host.path / "conf.d" / name).write_text(text)
    flag = "--config-dir=%s" % (host.path / "conf.d")
    (host.path / "extra").write_text("" if running else "KUBELET_EXTRA_ARGS=--v=2 %s\n" % flag)
    kubelet = host(["--config=%s" % (host.path / "config.yaml"), flag] if running else [], ENV, CONFIG)
    assert (kubelet.static_pods, kubelet.runtime_socket) == ("/last", "/b1.sock")


@pytest.mark.parametrize("nothing", ['containerRuntimeEndpoint: ""\n', "containerRuntimeEndpoint: null\n", '{"containerRuntimeEndpoint": null}'])
def test_a_drop_in_that_resets_a_value(host, nothing):
    (host.path / "conf.d").mkdir()
    (host.path / "conf.d/a.conf").write_text(nothing)
    assert host(["--config-dir=%s" % (host.path / "conf.d")], config=CONFIG).runtime_socket == CONTAINERD


def test_flags_prevail(host):
    (host.path / "extra").write_text('KUBELET_EXTRA_ARGS="--container-runtime-endpoint=unix:///extra.sock"\n')
    env = 'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///env.sock --pod-manifest-path=/flag"\n'
    kubelet = host(env=env, config=CONFIG)
    assert (kubelet.runtime_socket, kubelet.static_pods) == ("/extra.sock", "/flag")


def test_a_path_beside_the_configuration(host):
    assert host(config="staticPodPath: pods\n").static_pods == str(host.path / "pods")
    assert host(config="staticPodPath: ''\n").static_pods == ""


def test_named_configuration_and_defaults(host):
    other = host.path / "other.yaml"
    other.write_text("staticPodPath: /other\n")
    kubelet = host(["--config=%s" % other], config="staticPodPath: /0\n")
    assert (kubelet.static_pods, kubelet.kubeconfig) == ("/other", kube_kubelet.KUBECONFIG)


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
