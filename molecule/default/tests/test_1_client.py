# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/install.yml, which converge ran."""

from __future__ import annotations

import pytest
from cluster import changes


@pytest.mark.parametrize("tool", ["etcdctl", "etcdutl"])
def test_tools_are_those_of_the_running_etcd(cluster, cp1, tool):
    server = cluster.etcdctl("endpoint", "status")[0]["Status"]["version"]
    if tool == "etcdutl" and server.startswith("3.4."):
        pytest.skip("etcd 3.4 has no etcdutl")
    binary = cp1.file("/usr/local/bin/" + tool)
    assert (binary.user, binary.group, binary.mode) == ("root", "root", 0o755)
    assert "%s version: %s\n" % (tool, server) in cp1.check_output("%s version", binary.path)


def test_a_second_run_changes_nothing(cluster):
    assert changes(cluster.playbook("install.yml")) == dict.fromkeys(cluster.nodes, 0)
