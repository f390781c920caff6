# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import HealthCheck, configuration, settings

# Otherwise it leaves a directory of its own in the checkout.
configuration.set_hypothesis_home_dir(pathlib.Path(__file__).resolve().parents[2] / ".cache" / "hypothesis")

# On a busy machine slowness is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def umask():
    """A program that is tested in this process sets one for itself, and the tests after it expect another."""
    before = os.umask(0o022)
    yield
    os.umask(before)
