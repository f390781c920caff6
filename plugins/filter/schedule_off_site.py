# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: schedule_off_site
short_description: Lists what a node's own timer does at each off-site place
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.etcd_schedule#role).
positional: _input, settings, common, directory
options:
  _input:
    description: The places, as P(k8s_dr.etcd.off_site_places#filter) lists them.
    type: list
    elements: dict
    required: true
  settings:
    description: V(keep), V(bwlimit), V(rclone_config) and V(rclone_config_source) for places that do not have their own.
    type: dict
    required: true
  common:
    description: Arguments of V(upload) and of V(prune) that are the same at each place.
    type: dict
    required: true
  directory:
    description: Directory on the node for rclone's configurations that come from the controller.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the steps
  ansible.builtin.debug:
    msg: "{{ ('s3:dr' | k8s_dr.etcd.off_site_places | k8s_dr.etcd.schedule_off_site(settings, common, '/etc/k8s-dr-etcd')).steps }}"
"""

RETURN = r"""
_value:
  description: >-
    V(steps), for the program of the timer; V(configs), with V(source) on the controller and V(path) on the node of each configuration of rclone that is
    copied; V(problem), why a place cannot be used, or an empty text.
  type: dict
"""


def schedule_off_site(places, settings, common, directory):
    """See RETURN."""
    steps, configs = [], []
    for number, place in enumerate(places, 1):
        own = dict(settings, **place)
        config = own["rclone_config"]
        if own["rclone_config_source"]:
            config = "%s/rclone%s.conf" % (directory, "-%d" % number if number > 1 else "")
            configs.append({"source": own["rclone_config_source"], "path": config})
        upload, prune = ("upload", "prune") if len(places) == 1 else ("upload to %s" % own["remote"], "prune at %s" % own["remote"])
        there = {"remote": own["remote"], "rclone_config": config}
        args = dict(common["upload"], bwlimit=own["bwlimit"], keep=(own["keep"] or 0) if own["fill"] else 0, **there)
        args["object_lock_days"] = own.get("object_lock_days", 0)
        # both are of a file that check mode does not make
        steps.append({"name": upload, "module": "etcd_snapshot_upload", "args": args, "needs": ["take"], "in_check": False})
        if own["keep"] not in (0, "0", "", {}):
            # what is there is not made less before the new one is there
            args = dict(common["prune"], keep=own["keep"], **there)
            steps.append({"name": prune, "module": "etcd_snapshot_prune", "args": args, "needs": [upload], "in_check": False})
    return {"steps": steps, "configs": configs, "problem": next((place["problem"] for place in places if place["problem"]), "")}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.schedule_off_site."""

    def filters(self):
        return {"schedule_off_site": schedule_off_site}
