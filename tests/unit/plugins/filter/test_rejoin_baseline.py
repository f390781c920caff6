# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which nodes must be Ready after a host has rejoined."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.rejoin_baseline import rejoin_baseline

SEEN = {name: {"ready": True, "control_plane": name.startswith("cp")} for name in ("cp1", "cp2", "cp3", "worker")}


@pytest.mark.parametrize(
    ("nodes", "members", "ready"),
    [
        # a restore retired cp3, too: Ready in the snapshot, and no member
        (SEEN, ["cp1"], {"cp1": True, "cp2": True, "cp3": False, "worker": True}),
        (SEEN, ["cp1", "cp3"], {"cp1": True, "cp2": True, "cp3": True, "worker": True}),
        (dict(SEEN, cp2={"ready": False, "control_plane": True}), ["cp1", "cp2", "cp3"], dict.fromkeys(SEEN, True)),
        (dict(SEEN, worker={"ready": False, "control_plane": False}), ["cp1", "cp3"], dict(dict.fromkeys(SEEN, True), worker=False)),
    ],
    ids=["retired together", "the last one", "was not Ready itself", "a worker was down"],
)
def test_which_nodes_must_be_ready(nodes, members, ready):
    baseline = rejoin_baseline({"nodes": nodes, "workloads": {"a": 1}}, [{"name": name} for name in members], "cp2")
    assert {node: state["ready"] for node, state in baseline["nodes"].items()} == ready
    assert baseline["nodes"]["cp2"]["control_plane"] is True
    assert baseline["workloads"] == {"a": 1}


@pytest.mark.parametrize("observed", [{}, None, {"nodes": None}])
def test_nothing_was_observed(observed):
    assert rejoin_baseline(observed, [{"name": "cp1"}], "cp2")["nodes"] == {"cp2": {"ready": True, "control_plane": True}}
