# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An etcd with authentication enabled: the error says so, and a certificate of one of its users works."""

from __future__ import annotations

import subprocess

import harness
import pytest


@pytest.fixture(scope="module")
def guarded(version, tmp_path_factory):
    """(etcd that asks for a user, a snapshot that its user root took)"""
    directory = tmp_path_factory.mktemp("guarded-" + version)
    with harness.Etcd(version, directory) as etcd:
        harness.fill(etcd)
        etcd.etcdctl("user", "add", "root:secret")
        # from 3.5 on it is there
        etcd.etcdctl("role", "add", "root", check=False)
        etcd.etcdctl("user", "grant-role", "root", "root")
        etcd.etcdctl("auth", "enable")
        etcd.etcdctl("--user", "root:secret", "snapshot", "save", directory / "guarded.db")
        yield etcd, directory / "guarded.db"


SAYS = "has authentication enabled, and the common name of %s is not a user with the role root"


def test_the_error_names_the_cause_and_the_remedy(guarded, tmp_path):
    etcd, _snapshot = guarded
    rc, result = harness.run_module("etcd_cluster_info", required=False, **etcd.connection)
    assert rc == 0, result
    found = result["etcd"]
    assert (found["reachable"], found["members_agreed"], found["permitted"], found["healthy"]) == (True, True, False, False)
    assert SAYS % etcd.pki["cert"] in found["error"] and "etcdctl auth disable" in found["error"] and "etcd_client_cert" in found["error"]
    rc, result = harness.run_module("etcd_snapshot", directory=tmp_path / "kept", **etcd.connection)
    assert (rc, SAYS % etcd.pki["cert"] in result["msg"]) == (1, True), result


def test_certificate_of_a_user_of_it_takes_a_snapshot(guarded, tmp_path):
    """etcd takes the common name for the user, over gRPC."""
    etcd, _snapshot = guarded
    own = {"cert": str(tmp_path / "root.crt"), "key": str(tmp_path / "root.key")}
    authority = etcd.pki["cacert"]
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=root", "-keyout", own["key"],
                    "-out", tmp_path / "root.csr"], capture_output=True, check=True)  # fmt: skip
    subprocess.run(["openssl", "x509", "-req", "-days", "2", "-in", tmp_path / "root.csr", "-CA", authority, "-CAkey", authority.replace("ca.crt", "ca.key"),
                    "-set_serial", "77", "-out", own["cert"]], capture_output=True, check=True)  # fmt: skip
    connection = dict(etcd.connection, **own)
    rc, result = harness.run_module("etcd_cluster_info", hash_revision=1, **connection)
    assert (rc, result["etcd"]["permitted"], result["etcd"]["healthy"]) == (0, True, True), result
    rc, result = harness.run_module("etcd_snapshot", directory=tmp_path / "kept", **connection)
    assert rc == 0, result


def test_drill_of_its_snapshot_says_so_at_once(guarded, version):
    _etcd, snapshot = guarded
    rc, result = harness.run_module(
        "etcd_snapshot_drill", path=snapshot, manifest=False, record=False, etcd=harness.bin_dir(version) / "etcd", timeout=60, **harness.tools(version)
    )
    assert rc == 1 and result["snapshot"]["level"] == "restore", result
    assert "it is of an etcd with authentication enabled" in result["msg"] and "`etcdctl auth disable`" in result["msg"]
    assert result["snapshot"]["seconds"] < 20
