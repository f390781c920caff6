# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What etcd's tools can do, and the version of the server."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import tools as etcd_tools
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import Tool, server_version
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


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


PROGRAM = """#!/bin/sh
echo "$*" >> %(calls)s
case "$*" in
version) echo '%(name)s version: 3.5.16' ;;
'snapshot --help') printf 'COMMANDS:\\n\\tsave\\tStores\\n\\trestore\\tRestores\\n' ;;
'snapshot restore --help') echo '      --data-dir=""' ;;
esac
"""


def tool(tmp_path, name="etcdctl"):
    path = tmp_path / name
    path.write_text(PROGRAM % {"calls": tmp_path / "calls", "name": name})
    path.chmod(0o755)
    return Tool(str(path))


def test_it_is_asked_for_what_is_needed_and_once(tmp_path):
    found = tool(tmp_path)
    assert (found.name, found.version) == ("etcdctl", "3.5.16")
    assert (tmp_path / "calls").read_text() == "version\n"
    assert found.can_save and not found.can_status
    assert (tmp_path / "calls").read_text() == "version\nsnapshot --help\n"
    assert found.can_restore and not found.can_bump and found.describe()["restore"]
    assert (tmp_path / "calls").read_text() == "version\nsnapshot --help\nsnapshot restore --help\n"


def test_only_etcdctl_saves(tmp_path):
    assert not tool(tmp_path, "etcdutl").can_save


def test_another_program_is_refused(tmp_path):
    with pytest.raises(ToolError, match="is not an etcdctl or etcdutl"):
        tool(tmp_path, "etcd")
