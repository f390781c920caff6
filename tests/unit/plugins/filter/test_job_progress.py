# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.filter.job_progress import FilterModule, job_progress

SEEN = {"began": 1000.0, "at": 1100.0}
BOUNDS = {"limit": 600, "pause": 10, "patience": 300, "what": "it"}
LOST = {"unreachable": True, "msg": "no route"}
GOING = {"finished": 0, "started": 1}


def test_a_task_that_has_ended():
    for ended in (True, 1, "1", "True"):
        poll = {"finished": ended, "msg": "no space left"}
        assert job_progress(poll, SEEN, 9999, BOUNDS) == {"finished": True, "told": True, "unasked": "", "result": poll}
    assert FilterModule().filters() == {"job_progress": job_progress}


def test_a_task_that_goes_on():
    for going in (False, 0, "0"):
        found = job_progress({"finished": going}, SEEN, 1105, BOUNDS)
        assert (found["finished"], found["told"], found["unasked"]) == (False, True, "")


@pytest.mark.parametrize(("now", "finished"), [(1660, False), (1661, True)])
def test_a_task_that_hangs_is_given_up_a_minute_after_its_limit(now, finished):
    found = job_progress(GOING, SEEN, now, BOUNDS)
    assert found["finished"] is finished and found["result"] == {"msg": "it did not end within 600 seconds"}


@pytest.mark.parametrize(("now", "finished"), [(1410, False), (1411, True)])
def test_a_host_that_is_lost_is_waited_for(now, finished):
    found = job_progress(LOST, SEEN, now, BOUNDS)
    assert (found["finished"], found["told"], found["unasked"]) == (finished, False, "no route")
    assert found["result"] == {"msg": "this host could not be asked for %d seconds whether it has ended: no route" % (now - 1100)}


def test_a_host_that_cannot_run_the_question():
    found = job_progress({"finished": 0, "msg": "no python"}, SEEN, 1101, BOUNDS)
    assert (found["finished"], found["told"], found["unasked"]) == (False, False, "no python")
    assert job_progress({}, SEEN, 1101, BOUNDS)["unasked"] == "it said nothing"


def test_numbers_that_arrive_as_text():
    seen = {name: str(value) for name, value in SEEN.items()}
    bounds = dict(BOUNDS, limit="600", pause="10", patience="300")
    assert job_progress(LOST, seen, "1411.5", bounds) == job_progress(LOST, SEEN, 1411.5, BOUNDS)
