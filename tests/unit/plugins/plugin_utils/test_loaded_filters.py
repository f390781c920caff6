# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugins that runs begin with load all filters, so that no task has to."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

FILTERS = {path.stem for path in (pathlib.Path(__file__).parents[4] / "plugins" / "filter").glob("*.py")}
PREFIX = "ansible_collections.k8s_dr.etcd.plugins."


@pytest.mark.parametrize("action", ["refuse", "etcd_cluster_info"])
def test_an_action_loads_all_filters(action):
    code = "import sys, %saction.%s; print(*sys.modules)" % (PREFIX, action)
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {name[len(PREFIX + "filter.") :] for name in found if name.startswith(PREFIX + "filter.")} == FILTERS
