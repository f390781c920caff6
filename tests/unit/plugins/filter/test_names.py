# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible finds each filter under the name of its file."""

from __future__ import annotations

import importlib
import pathlib

import pytest

PACKAGE = "ansible_collections.k8s_dr.etcd.plugins.filter."
FILTERS = sorted(path.stem for path in (pathlib.Path(__file__).resolve().parents[4] / "plugins/filter").glob("*.py"))


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_has_the_name_of_its_file(name):
    [(found, function)] = importlib.import_module(PACKAGE + name).FilterModule().filters().items()
    assert found == name and callable(function)
