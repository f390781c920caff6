# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.rebuild_failure import FilterModule

rebuild_failure = FilterModule().filters()["rebuild_failure"]
KUBEADM = """W0101 03:04:05.000000    4711 x.go:1] something else
error execution phase certs/apiserver: failed to write {{ file }}
To see the stack trace of this error execute with --v=5 or higher
"""


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"msg": "non-zero return code", "stderr": KUBEADM}, "error execution phase certs/apiserver: failed to write { { file }}."),
        # of a loop that of the first item that failed
        ({"msg": "One or more items failed", "results": [{"failed": False}, {"failed": True, "msg": "non-zero", "stderr": "no room.\n"}]}, "no room."),
        ({"msg": "the snapshot was not restored: no room", "stderr": ""}, "the snapshot was not restored: no room."),
        ({"msg": "non-zero return code", "stderr": "W0101 only this"}, "non-zero return code."),
        ({}, "it did not say why."),
        (None, "it did not say why."),
    ],
)
def test_the_reason_is_what_the_program_said(result, text):
    assert rebuild_failure(result) == text
