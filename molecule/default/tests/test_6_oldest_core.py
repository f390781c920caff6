# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The oldest ansible-core that is supported makes text of every variable; what works with the newest may fail there."""

from __future__ import annotations

OLDEST = "2.17"


def test_a_restore_from_snapshot_to_undo(cluster):
    cluster.note("seen", "before")
    cluster.playbook("install.yml", core=OLDEST)
    cluster.playbook("snapshot.yml", core=OLDEST)
    cluster.note("seen", "after")
    cluster.playbook("restore.yml", "-l", "cp1", "--check", core=OLDEST)
    assert cluster.noted("seen") == "after"

    cluster.playbook("restore.yml", *cluster.confirmed, core=OLDEST)
    cluster.wait_ready()
    assert cluster.noted("seen") == "before"
    cluster.playbook("validate.yml", core=OLDEST)

    cluster.playbook("rollback.yml", "-l", "cp1", "-e", "etcd_restore_undo=true", core=OLDEST)
    cluster.wait_ready()
    assert cluster.noted("seen") == "after"
