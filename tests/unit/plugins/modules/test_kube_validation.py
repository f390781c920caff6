# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which controllers have a lease that tells whether they work."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._static_pod import StaticPod
from ansible_collections.k8s_dr.etcd.plugins.modules.kube_validation import elects

CONFIGURATION = "kind: KubeSchedulerConfiguration\nleaderElection:\n  leaderElect: %s\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], True),
        (["--leader-elect=true"], True),
        (["--leader-elect"], True),
        (["--leader-elect=false"], False),
        (["--leader-elect=False"], False),
        (["--config=%s"], None),
        (["--config=/nonexistent/scheduler.yaml"], True),
    ],
)
@pytest.mark.parametrize("configured", ["true", "false"])
def test_who_elects_a_leader(tmp_path, flags, expected, configured):
    path = tmp_path / "scheduler.yaml"
    path.write_text(CONFIGURATION % configured)
    lines = "".join("    - %s\n" % (flag % path if "%s" in flag else flag) for flag in flags)
    pod = StaticPod("", "metadata:\n  labels:\n    component: kube-scheduler\nspec:\n  containers:\n  - command:\n    - kube-scheduler\n" + lines)
    assert elects(pod) is (configured == "true" if expected is None else expected)
