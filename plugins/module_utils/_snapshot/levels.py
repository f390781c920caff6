# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verification levels: what is recorded of each, and whether it counts as passed.  Private to this collection.

`levels` is {name: result} as manifests have it.  A damaged manifest may hold anything, so what is not a result counts as not tried.
"""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc

# Lowest first: the bytes, the database in them, a trial restore, an etcd that serves what was restored, an API server that shows every object.
LEVELS = ("checksum", "status", "restore", "drill", "objects")
# What the highest level may be called, lowest first: `structure` is `status` without etcd's own tool.
NAMES = ("checksum", "structure", "status", "restore", "drill", "objects")


def result(ok, seconds, problem=None, **more):
    """What is recorded of a level that was tried just now."""
    return dict(more, at=utc(), ok=ok, seconds=round(seconds, 2), problem=problem)


def results(levels):
    """Those of `levels` that are results, by name, lowest level first."""
    found = levels if isinstance(levels, dict) else {}
    return {name: found[name] for name in LEVELS if isinstance(found.get(name), dict)}


def passed(levels, name):
    """The result of a level that passed when it was last tried, else None."""
    found = results(levels).get(name, {})
    return found if found.get("ok") is True else None


def failed(levels):
    """Name of the lowest level that failed when it was last tried, or None."""
    return next((name for name, found in results(levels).items() if found.get("ok") is False), None)


def failure(levels):
    """One sentence about the lowest level that failed, or None."""
    name = failed(levels)
    return name and "it failed the verification level %s at %s: %s" % (name, levels[name].get("at"), levels[name].get("problem"))


def highest(levels):
    """One of NAMES: the highest level that was reached without a gap, or None."""
    reached = None
    for name in LEVELS:
        found = passed(levels, name)
        if found is None:
            break
        reached = "structure" if name == "status" and found.get("tool", True) is None else name
    return reached


def is_higher(name, other):
    """Whether one level, as highest() names it, proves more than another; `structure` and `status` prove the same of the file."""
    order = [None, *LEVELS]
    first, second = ("status" if one == "structure" else one for one in (name, other))
    return (order.index(first) if first in order else 0) > (order.index(second) if second in order else 0)
