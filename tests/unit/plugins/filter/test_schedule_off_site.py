# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.schedule_off_site import schedule_off_site
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote.places import places

SETTINGS = {"keep": 0, "bwlimit": "", "rclone_config": "", "rclone_config_source": ""}
COMMON = {"upload": {"directory": "/b"}, "prune": {"manifests_dir": "/m"}}


def scheduled(option, **settings):
    return schedule_off_site(places(option), dict(SETTINGS, **settings), COMMON, "/etc/k8s-dr-etcd")


def test_no_place():
    assert scheduled("") == {"steps": [], "configs": [], "problem": ""}


def test_one_place_has_the_settings_of_the_role():
    found = scheduled("s3:dr", keep={"last": 3}, bwlimit="10M", rclone_config_source="~/rclone.conf")
    upload, prune = found["steps"]
    there = {"remote": "s3:dr", "rclone_config": "/etc/k8s-dr-etcd/rclone.conf"}
    assert upload["args"] == dict(there, directory="/b", bwlimit="10M", keep=0, object_lock_days=0)
    assert prune["args"] == dict(there, manifests_dir="/m", keep={"last": 3})
    assert (upload["name"], upload["needs"], prune["name"], prune["needs"]) == ("upload", ["take"], "prune", ["upload"])
    assert found["configs"] == [{"source": "~/rclone.conf", "path": "/etc/k8s-dr-etcd/rclone.conf"}]
    assert [step["name"] for step in scheduled("s3:dr", keep="0")["steps"]] == ["upload"]


def test_several_places_do_not_need_each_other():
    listed = ["s3:dr", {"remote": "vault:x", "keep": 9, "bwlimit": "1M", "rclone_config_source": "~/v.conf"}, {"remote": "/mnt", "rclone_config": "/r.conf"}]
    listed[1]["object_lock_days"] = 30
    found = scheduled(listed, rclone_config_source="~/rclone.conf")
    assert [(step["name"], step["needs"]) for step in found["steps"]] == [
        ("upload to s3:dr", ["take"]),
        ("upload to vault:x", ["take"]),
        ("prune at vault:x", ["upload to vault:x"]),
        ("upload to /mnt", ["take"]),
    ]
    configs = [step["args"]["rclone_config"] for step in found["steps"]]
    assert configs == ["/etc/k8s-dr-etcd/rclone.conf", *["/etc/k8s-dr-etcd/rclone-2.conf"] * 2, "/r.conf"]
    assert [config["source"] for config in found["configs"]] == ["~/rclone.conf", "~/v.conf"]
    assert [step["args"].get("object_lock_days") for step in found["steps"]] == [0, 30, None, 0]
    # earlier snapshots are uploaded as far as the place would keep them
    assert [step["args"]["keep"] for step in found["steps"]] == [0, 9, 9, 0]
    # a survey leaves it empty
    assert [step["args"]["keep"] for step in scheduled(["s3:dr"], keep="")["steps"]] == [0]


def test_a_wrong_place():
    assert "is listed twice" in scheduled(["s3:dr", "s3:dr"])["problem"]
