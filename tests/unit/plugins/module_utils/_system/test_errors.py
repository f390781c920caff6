# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import os_error_words


@pytest.mark.parametrize(
    "exc, where, words",
    [
        (OSError(errno.ENOSPC, "No space left on device", "/var/x"), None, "/var/x: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device", "/var/x"), "/var/y", "/var/x: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "/var/y", "/var/y: No space left on device"),
        (OSError(errno.EBADF, "Bad file descriptor", 7), None, "Bad file descriptor"),
        (OSError("cannot be moved"), None, "cannot be moved"),
    ],
)
def test_an_error_names_its_file_where_there_is_one(exc, where, words):
    assert os_error_words(exc, where) == words
