# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels


def passed(**more):
    return levels.result(True, 1.234, **more)


FAILED = levels.result(False, 1, "it differs")


@pytest.mark.parametrize(
    ("found", "highest", "failed"),
    [
        ({"checksum": passed()}, "checksum", None),
        # no gap is jumped over
        ({"checksum": passed(), "drill": passed()}, "checksum", None),
        ({"checksum": passed(), "status": passed(tool=None)}, "structure", None),
        ({"checksum": passed(), "status": passed(tool="etcdutl 3.5.16")}, "status", None),
        ({name: passed() for name in levels.LEVELS[:-1]}, "drill", None),
        ({name: passed() for name in levels.LEVELS}, "objects", None),
        (dict({name: passed() for name in levels.LEVELS}, checksum=FAILED, drill=FAILED), None, "checksum"),
        # what is damaged counts as not tried
        ({"checksum": True, "status": passed(), "drill": {"ok": 1}}, None, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_which_levels_count(found, highest, failed):
    assert (levels.highest(found), levels.failed(found)) == (highest, failed)
    assert bool(levels.failure(found)) == bool(failed)


def test_a_result():
    assert passed(tool="x")["seconds"] == 1.23 and passed()["problem"] is None
    assert levels.passed({"drill": FAILED}, "drill") is None and levels.passed({"drill": passed(keys=3)}, "drill")["keys"] == 3
    assert levels.failure({"status": FAILED}) == "it failed the verification level status at %s: it differs" % FAILED["at"]


def test_the_order_of_levels():
    assert levels.is_higher("checksum", None) and levels.is_higher("drill", "restore") and levels.is_higher("structure", "checksum")
    assert levels.is_higher("objects", "drill")
    assert not levels.is_higher("structure", "status") and not levels.is_higher("status", "structure")
    assert not levels.is_higher(None, None) and not levels.is_higher("unknown", "checksum")
