# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import harness


@pytest.fixture(scope="session", params=harness.VERSIONS)
def version(request):
    """Every version of etcd under test.  One that was asked for and is not at hand is an error, not a skip."""
    harness.bin_dir(request.param)
    return request.param


@pytest.fixture(scope="session")
def etcd(version, tmp_path_factory):
    """A running etcd of that version with keys as Kubernetes has them.  Do not break it: the tests of a version share it."""
    with harness.Etcd(version, tmp_path_factory.mktemp("etcd-" + version)) as member:
        harness.fill(member)
        yield member


@pytest.fixture(scope="session")
def snapshot(etcd, tmp_path_factory):
    """A good snapshot of it.  Do not write to it; take a `harness.copy`."""
    return etcd.save(tmp_path_factory.mktemp("snapshot-" + etcd.version) / "good.db")
