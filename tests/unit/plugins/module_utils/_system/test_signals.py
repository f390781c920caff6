# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What takes too long is interrupted, wherever it waits."""

from __future__ import annotations

import signal
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.signals import OutOfTime, limited


def test_what_takes_too_long_is_interrupted():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTime, match="it was not finished within 1 s"), limited(1):
        time.sleep(30)
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_nothing_happens_to_what_is_in_time():
    with limited(1):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
