# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where etcd is asked."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import client as etcd_client
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod


def client(endpoint):
    return etcd_client.EtcdClient({"endpoint": endpoint, "timeout": 1, "cacert": None, "cert": None, "key": None, "etcdctl": "/bin/true"})


@pytest.mark.parametrize(
    ("endpoint", "open_at", "asked"),
    [
        (etcd_client.LOCAL, (etcd_client.LOCAL,), etcd_client.LOCAL),
        (etcd_client.LOCAL, (etcd_client.LOCAL, etcd_client.LOCAL_IPV6), etcd_client.LOCAL),
        (etcd_client.LOCAL, (etcd_client.LOCAL_IPV6,), etcd_client.LOCAL_IPV6),
        # what does not answer is told of under the name that everybody knows
        (etcd_client.LOCAL, (), etcd_client.LOCAL),
        # whoever says where it is means it
        ("https://127.0.0.1:12379", (etcd_client.LOCAL_IPV6,), "https://127.0.0.1:12379"),
        ("https://[fd00::1]:2379", (etcd_client.LOCAL_IPV6,), "https://[fd00::1]:2379"),
    ],
)
def test_default_is_found_on_ipv6_as_well(monkeypatch, endpoint, open_at, asked):
    monkeypatch.setattr(etcd_client, "listens", lambda url: url in open_at)
    assert client(endpoint).endpoint == asked


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_somebody_listens(family, address):
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no %s" % address)
        url = "https://%s:%d" % ("[%s]" % address if ":" in address else address, server.getsockname()[1])
        assert not etcd_client.listens(url)
        server.listen()
        assert etcd_client.listens(url)
    assert not etcd_client.listens(url)


def test_something_that_is_no_address():
    assert not etcd_client.listens("https://[::1:2379")
    assert not etcd_client.listens("nonsense")


def test_tools_get_neither_etcds_variables_nor_a_proxy(monkeypatch):
    for name in ("ETCDCTL_ENDPOINTS", "ETCD_NAME", "HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    said = etcd_client.run_tool(["/usr/bin/env"], 10).stdout
    assert "192.0.2.1" not in said
    assert "ETCDCTL_API=3\n" in said


def test_a_directory_is_looked_into_before_the_usual_places(monkeypatch, tmp_path):
    usual, own = tmp_path / "usual", tmp_path / "own"
    for directory in (usual, own):
        directory.mkdir()
        (directory / "etcdctl").write_text("#!/bin/sh\n")
        (directory / "etcdctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(usual))
    monkeypatch.setattr(etcd_client, "TOOL_DIRS", ())
    assert etcd_client.find_tool("etcdctl") == str(usual / "etcdctl")
    assert etcd_client.find_tool("etcdctl", str(own)) == str(own / "etcdctl")
    (own / "etcdctl").unlink()
    assert etcd_client.find_tool("etcdctl", str(own)) == str(usual / "etcdctl")
    # a file that was named is used or missed
    assert etcd_client.find_tool("etcdctl", str(own / "etcdctl")) == str(own / "etcdctl")
    assert etcd_client.find_tool("etcdutl", str(own)) is None


def test_where_usr_cannot_be_written_tools_are_below_opt(monkeypatch, tmp_path):
    usual, own, found = tmp_path / "usr" / "local" / "bin", tmp_path / "opt" / "bin", tmp_path / "found"
    for directory in (own, found):
        directory.mkdir(parents=True)
        (directory / "etcdctl").write_text("#!/bin/sh\n")
        (directory / "etcdctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(found))
    monkeypatch.setattr(etcd_client, "BIN_DIR", str(usual))
    monkeypatch.setattr(etcd_client, "WRITABLE_BIN_DIR", str(own))
    # a directory that has to be made first is asked of its parent
    assert etcd_client.bin_dir(str(usual)) == str(usual)
    assert etcd_client.find_tool("etcdctl", str(usual)) == str(found / "etcdctl")
    monkeypatch.setattr(etcd_client.os, "access", lambda path, mode: False)
    assert etcd_client.bin_dir(str(usual) + "/") == str(own)
    # what somebody chose is not changed
    assert etcd_client.bin_dir(str(found)) == str(found)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(found))
    monkeypatch.setattr(etcd_client, "bin_dir", lambda wanted: str(own) if wanted == str(usual) else wanted)
    monkeypatch.setattr(etcd_client, "BIN_DIR", str(usual))
    for there in (False, True):
        if there:
            usual.mkdir(parents=True)
        assert etcd_client.find_tool("etcdctl", str(usual)) == str(own / "etcdctl")


def test_a_record_that_a_tool_quotes_is_left_out():
    said = r'Error: error during bucket key iteration, name: "key" err: cannot unmarshal value, key: "\x00_" value: "\v/registry/secrets/a\"pass\x12word"'
    for stderr in (said + " err: proto: wrong wireType = 3 for field Key\n", said[:-20]):
        result = etcd_client.ToolResult([], 1, "", stderr)
        for words in (result.last_words(), etcd_client.EtcdError("", result).details()["stderr"]):
            assert "value: (left out)" in words and "secrets" not in words and "pass" not in words
    assert "for field Key" in etcd_client.ToolResult([], 1, "", said + " err: for field Key").last_words()


def etcd_of(image):
    text = "metadata:\n  labels:\n    component: etcd\nspec:\n  containers:\n  - command: [\"etcd\", \"--data-dir=/var/lib/etcd\"]\n    image: %s\n"
    return StaticPod("etcd.yaml", text % image)


@pytest.mark.parametrize(
    ("image", "data", "pod", "version"),
    [
        ("example/etcd:3.5.16-0@sha256:00", "/var/lib/etcd", "x", "3.5.16-0"),
        ("example/etcd@sha256:00", "/var/lib/etcd", "x", "3.6.1"),
        ("example/etcd:stable", "/var/lib/etcd", "x", "3.6.1"),
        # Calico's, and one that is no Pod
        ("example/etcd@sha256:00", "/var/etcd/calico-data", "x", ""),
        ("example/etcd@sha256:00", "/var/lib/etcd", None, ""),
    ],
)
def test_the_version_that_the_image_or_else_the_running_program_says(tmp_path, monkeypatch, image, data, pod, version):
    (tmp_path / "7").mkdir()
    program = tmp_path / "7/exe"
    program.write_text("#!/bin/sh\necho 'etcd Version: 3.6.1'\necho 'Git SHA: 0'\n")
    program.chmod(0o755)
    monkeypatch.setattr(etcd_client.procs, "processes", lambda proc: [etcd_client.procs.Process(7, "etcd", pod, data)])
    assert etcd_client.server_version(etcd_of(image), proc=str(tmp_path)) == version


def test_a_program_that_says_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(etcd_client.procs, "processes", lambda proc: [etcd_client.procs.Process(7, "etcd", "x")])
    assert etcd_client.server_version(etcd_of("example/etcd@sha256:00"), proc=str(tmp_path)) == ""
