# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that would leave out hosts or tasks; tests/integration/test_whole_runs.py has Ansible start such runs."""

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.whole_run import incomplete

RUN = {"playbook": "restore", "tags": ["all"], "skip_tags": [], "hosts": ["cp1", "cp2", "cp3"], "batch": ["cp1", "cp2", "cp3"], "workflow": "", "template": ""}
SLICE = {"workflow": "Restore", "template": "Restore"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        # no task has a tag of its own
        ({"skip_tags": ["docker"]}, None),
        ({"tags": ["all", "dr"]}, None),
        ({"tags": ["dr"]}, "for example: ansible-playbook k8s_dr.etcd.restore"),
        ({"tags": ["untagged"], "playbook": "rollback"}, "for example: ansible-playbook k8s_dr.etcd.rollback"),
        ({"skip_tags": ["tagged"]}, "--tags and --skip-tags"),
        ({"skip_tags": ["docker", "all"]}, "--tags and --skip-tags"),
        ({"skip_tags": ["untagged"]}, "--tags and --skip-tags"),
        ({"batch": ["cp1", "cp3"]}, "cp2 is in this play, but not in this batch of it"),
        ({"batch": ["cp1"]}, "cp2, cp3 are in this play, but not in this batch of it"),
        (SLICE, 'This job is a slice of "Restore"'),
        # only a restore needs to know all members of the inventory
        (dict(SLICE, playbook="rollback"), None),
        ({"template": "Restore"}, None),
        ({"workflow": "Nightly", "template": "Restore"}, None),
    ],
)
def test_a_run_that_leaves_out_hosts_or_tasks(changes, words):
    found = incomplete(dict(RUN, **changes))
    assert (words in found and "Nothing was done." in found) if words else found == ""
