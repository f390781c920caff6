# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the report of a snapshot run is given, from the variables of a play."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.snapshot_known import FilterModule, snapshot_known
from jinja2.runtime import Undefined, missing

ROLE = {
    "inventory_hostname": "cp1",
    "etcd_snapshot_dir": "/b",
    "etcd_snapshot_off_site": "s3:dr",
    "etcd_snapshot_fetch": "",
    "__etcd_snapshot_standing": {"predicted": True},
    "__etcd_snapshot_at": [{"remote": "s3:dr", "uploaded": {"uploaded": []}}],
    "__etcd_snapshot_metrics": {"msg": "disk full"},
    "__etcd_snapshot_is_fetched": "yes",
    "__etcd_snapshot_fetch_problem": "why",
    "__etcd_snapshot_selection": {"clusters": []},
    "ansible_check_mode": False,
    "groups": {"all": ["cp1"]},
}
HOSTVARS = {
    "cp1": {"etcd_snapshot_taken": {"snapshot": 1}, "__etcd_snapshot_final": {"problem": "full"}},
    "cp2": {"etcd_snapshot_taken": Undefined(name="x"), "__etcd_snapshot_tried": "disk"},
}


class Context:
    def __init__(self, variables):
        self.variables = variables

    def resolve_or_missing(self, name):
        return self.variables.get(name, missing)


def test_what_is_known_of_this_host_and_of_all():
    assert snapshot_known(Context(ROLE), ["cp1", "cp2"], HOSTVARS) == {
        "host": "cp1",
        "directory": "/b",
        "off_site": ["s3:dr"],
        "fetch": "",
        "predicted": True,
        "check_mode": False,
        "at": [{"remote": "s3:dr", "uploaded": {"uploaded": []}}],
        "metrics": {"msg": "disk full"},
        "is_fetched": True,
        "fetch_problem": "why",
        "choice": {"clusters": []},
        "taken": {"cp1": {"snapshot": 1}, "cp2": {}},
        "tried": {"cp1": "", "cp2": "disk"},
        "problems": {"cp1": "full", "cp2": ""},
        "groups": {"all": ["cp1"]},
    }
    assert list(FilterModule().filters()) == ["snapshot_known"]


def test_a_host_that_was_lost_at_once_has_no_facts():
    found = snapshot_known(Context({"inventory_hostname": "cp1"}), ["cp2"], {"cp2": {}})
    assert (found["predicted"], found["is_fetched"], found["taken"], found["problems"]) == (False, False, {"cp2": {}}, {"cp2": ""})
