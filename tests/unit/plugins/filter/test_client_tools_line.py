# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.client_tools_line import client_tools_line

INSTALLED = {
    "changed": False,
    "origin": "this host",
    "server_version": "3.6.1-0",
    "tools": [{"path": "/usr/local/bin/etcdctl", "version": "3.6.1"}, {"path": "/usr/local/bin/etcdutl", "version": "3.6.1"}],
}


def test_tools_that_are_there():
    expected = "/usr/local/bin/etcdctl 3.6.1 and /usr/local/bin/etcdutl 3.6.1 from this host suit the server (etcd 3.6.1-0)."
    assert client_tools_line(INSTALLED, False) == expected
    assert client_tools_line(dict(INSTALLED, server_version=""), False) == expected.replace(" (etcd 3.6.1-0)", "")


def test_tools_that_would_be_installed():
    assert client_tools_line(dict(INSTALLED, changed=True, origin="the image"), True) == "etcd's tools would be installed from the image."
    # from a package, whether the host has tools already or none
    for installed in (INSTALLED, {"changed": False, "failed": True, "msg": "none"}):
        assert client_tools_line(installed, True) == "etcd's tools would be installed from the distribution."
