# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times as this collection writes them.  Private to this collection."""

from __future__ import annotations

import time

# ISO 8601 in UTC, to the second.
MOMENT = "%Y-%m-%dT%H:%M:%SZ"


def utc(seconds=None):
    """Seconds since the epoch, or now, as 2026-01-02T03:04:05Z."""
    return time.strftime(MOMENT, time.gmtime(seconds))
