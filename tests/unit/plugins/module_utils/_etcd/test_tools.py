# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where etcd is asked."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import tools as etcd_tools
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import server_version
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod


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
    monkeypatch.setattr(etcd_tools.procs, "processes", lambda proc: [etcd_tools.procs.Process(7, "etcd", pod, data)])
    assert server_version(etcd_of(image), proc=str(tmp_path)) == version


def test_a_program_that_says_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(etcd_tools.procs, "processes", lambda proc: [etcd_tools.procs.Process(7, "etcd", "x")])
    assert server_version(etcd_of("example/etcd@sha256:00"), proc=str(tmp_path)) == ""
