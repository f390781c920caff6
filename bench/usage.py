# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run uses besides seconds: memory, processor time, and the disk."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import resource

_SECTOR = 512


def memory_of(pid):
    """MB of a process of ours and of its copies at this moment; what they share counts once."""
    total = 0
    with contextlib.suppress(OSError, AttributeError):
        children = pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text().split()
        for one in [pid] + [int(child) for child in children]:
            place = pathlib.Path("/proc/%d" % one)
            if os.path.basename(os.readlink(place / "exe")).startswith("python"):
                total += int(re.search(r"^Pss:\s+(\d+)", (place / "smaps_rollup").read_text(), re.M).group(1))
    return total / 1024


def processor_of_children():
    """Seconds that all that has ended so far has computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Disk:
    """MB that have been read and written since, on the disk that has this directory; None where the kernel counts none for its file system."""

    def __init__(self, directory):
        device = os.stat(directory).st_dev
        self._device = [str(os.major(device)), str(os.minor(device))]
        self._before = self._now()

    def _now(self):
        for line in pathlib.Path("/proc/diskstats").read_text().splitlines():
            fields = line.split()
            if fields[:2] == self._device:
                return int(fields[5]) * _SECTOR / 1e6, int(fields[9]) * _SECTOR / 1e6
        return None

    def used(self):
        now = self._now()
        return {name: self._before and round(after - before) for name, before, after in zip(("read", "written"), self._before or (0, 0), now or (0, 0))}
