# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot of an etcd with a space alarm: the restored data has the alarm as well, and takes writes again."""

from __future__ import annotations

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.health import etcd_health
from ansible_collections.k8s_dr.etcd.plugins.modules.etcd_restore_transaction import clear_nospace_alarm

QUOTA = 3 * 1024 * 1024


def without_room(version, directory):
    """A snapshot of an etcd whose database is full of what was overwritten."""
    with harness.Etcd(version, directory, flags=["--quota-backend-bytes", str(QUOTA)]) as etcd:
        etcd.put("/registry/configmaps/default/before", "yes")
        with pytest.raises(ValueError, match="space"):
            for number in range(200):
                etcd.put("/registry/configmaps/default/busy", bytes([number]) * 50 * 1024)
        return etcd.save(directory / "full.db")


def test_what_is_restored_takes_writes_again(version, tmp_path):
    """With the quota that it was too small for, since old revisions go first. The tools of 3.4 mark none as compacted: there the quota has to be raised."""
    snapshot = without_room(version, tmp_path)
    quota = QUOTA * (2 if version == "3.4" else 1)
    again = harness.Etcd(version, tmp_path, data_dir=tmp_path / "restored", flags=["--quota-backend-bytes", str(quota)])
    argv = ["--name", again.name, "--initial-cluster", "%s=%s" % (again.name, again.peer_url), "--initial-advertise-peer-urls", again.peer_url]
    if version != "3.4":
        argv += ["--bump-revision=1000000000", "--mark-compacted"]
    assert harness.restore(version, snapshot, again.data_dir, *argv).returncode == 0
    with again:
        tls = again.pki
        assert etcd_health(again.endpoint, tls) != "true"
        assert etcd_health(again.endpoint, tls, "?exclude=NOSPACE") == "true"
        with pytest.raises(ValueError, match="space"):
            again.put("/registry/configmaps/default/after", "yes")
        clear_nospace_alarm(EtcdClient(again.connection))
        assert etcd_health(again.endpoint, tls) == "true"
        for number in range(20):
            again.put("/registry/configmaps/default/after", bytes([number]) * 50 * 1024)
        assert etcd_health(again.endpoint, tls) == "true"
        assert again.get("/registry/configmaps/default/before") == b"yes"
