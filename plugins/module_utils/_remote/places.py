# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The off-site places that an operator names: none, one, or a list of them with settings of their own.  Private to this collection."""

from __future__ import annotations

import json
from collections.abc import Mapping

# What a place may have of its own; everything else is as for all places.
SETTINGS = ("keep", "bwlimit", "object_lock_days", "rclone_config", "rclone_config_source")


def places(option):
    """[{"remote": …, "fill": …, "problem": …} and the place's own SETTINGS] of what an operator writes.

    problem: why a place cannot be used, or an empty text.  It is no exception, since one wrong place must not cost the others their snapshot.
    fill: whether the place gets only those of the earlier snapshots that it would keep; the one place that is no list gets all of them.
    """
    listed = _listed(option)
    if isinstance(listed, str):
        return [{"remote": listed, "fill": False, "problem": ""}] if listed else []
    found = []
    for item in listed:
        place = dict(item) if isinstance(item, Mapping) else {"remote": item}
        problem = _problem(place, [other["remote"] for other in found])
        remote = place["remote"] if isinstance(place.get("remote"), str) else str(item)[:80]
        own = {name: place[name] for name in SETTINGS if name in place}
        if "rclone_config" in own:
            # it is on the node, whatever the others have
            own.setdefault("rclone_config_source", "")
        found.append(dict(own, remote=remote, fill=True, problem=problem))
    return found


def _listed(option):
    """A text or a list.  A list may be text, as -e and surveys have it."""
    if isinstance(option, str) and option.lstrip().startswith(("[", "{")):
        try:
            option = json.loads(option)
        except ValueError:
            return option
    if option is None or isinstance(option, str):
        return option or ""
    return list(option) if isinstance(option, (list, tuple)) else [option]


def _problem(place, before):
    remote = place.get("remote")
    if not isinstance(remote, str) or not remote:
        return "an off-site place has no `remote`; give each as NAME:PATH, or as a dictionary with `remote` and any of: %s" % ", ".join(SETTINGS)
    unknown = sorted(str(name)[:40] for name in place if name != "remote" and name not in SETTINGS)
    if unknown:
        return "the off-site place %s has the setting %s; a place has `remote` and any of: %s" % (remote, unknown[0], ", ".join(SETTINGS))
    if remote in before:
        return "the off-site place %s is listed twice; rclone's configurations need another NAME for each" % remote
    return ""
