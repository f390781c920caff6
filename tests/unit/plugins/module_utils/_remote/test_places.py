# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator may write as off-site places."""

from __future__ import annotations

import json

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote.places import places


@pytest.mark.parametrize("option", ["", None, [], "[]"])
def test_no_place(option):
    assert places(option) == []


def test_one_place_is_as_it_always_was():
    """It gets all earlier snapshots that it lacks, and every setting is that of the role."""
    assert places("s3:backups/prod") == [{"remote": "s3:backups/prod", "fill": False, "problem": ""}]
    assert places("/mnt/backups") == [{"remote": "/mnt/backups", "fill": False, "problem": ""}]
    # a bracket alone is no list; the module refuses it
    assert places("[s3:x") == [{"remote": "[s3:x", "fill": False, "problem": ""}]


LISTED = ["s3:backups/prod", {"remote": "vault:etcd", "keep": {"daily": 14}, "bwlimit": "10M", "rclone_config_source": "~/vault.conf"}]


@pytest.mark.parametrize("option", [LISTED, tuple(LISTED), json.dumps(LISTED)])
def test_a_list_of_places_each_with_settings_of_its_own(option):
    assert places(option) == [
        {"remote": "s3:backups/prod", "fill": True, "problem": ""},
        dict(LISTED[1], fill=True, problem=""),
    ]


def test_a_configuration_on_the_node_replaces_the_one_of_the_controller():
    [place] = places([{"remote": "s3:x", "rclone_config": "/etc/s3.conf"}])
    assert place["rclone_config_source"] == ""
    [place] = places([{"remote": "s3:x", "rclone_config": "/etc/s3.conf", "rclone_config_source": "~/s3.conf"}])
    assert place["rclone_config_source"] == "~/s3.conf"
    assert [place["remote"] for place in places({"remote": "s3:x"})] == ["s3:x"]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"keep": 3}, "an off-site place has no `remote`"),
        ("", "an off-site place has no `remote`"),
        (7, "an off-site place has no `remote`"),
        ({"remote": "s3:x", "retention": 3}, "the off-site place s3:x has the setting retention; a place has `remote` and any of: keep, bwlimit, "),
        ("s3:good", "the off-site place s3:good is listed twice"),
    ],
)
def test_a_wrong_place_leaves_the_others_as_they_are(item, words):
    first, wrong, last = places(["s3:good", item, "s3:last"])
    assert wrong["problem"].startswith(words) and isinstance(wrong["remote"], str)
    assert [first["problem"], last["problem"], last["remote"]] == ["", "", "s3:last"]


def test_something_else_than_places():
    assert [place["problem"][:31] for place in places(7)] == ["an off-site place has no `remot"]
