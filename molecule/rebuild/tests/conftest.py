# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cluster that is lost, and machines for the new one."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests" / "tools"))

from rebuild_sandbox import edited, lost  # noqa: F401
from remote_cluster import far, key, new_machine  # noqa: F401
from restore_sandbox import Cluster


@pytest.fixture(scope="session")
def cluster():
    """The cluster, with a namespace for the tests."""
    return Cluster().open()
