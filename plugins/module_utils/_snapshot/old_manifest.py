# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests that were written before their keys got the names of today.  Private to this collection.

This is the only place that knows the old names.  A manifest that is changed is written with the new ones.
"""

from __future__ import annotations

KEYS = {"census": "inventory", "census_problem": "inventory_problem", "rung": "level", "rungs": "levels", "seal": "packing"}


def current(manifest):
    """The manifest with the keys of today; where it has a key under both names, the new one counts."""
    if not isinstance(manifest, dict):
        return manifest
    found = {name: value for name, value in manifest.items() if name not in KEYS}
    for old, new in KEYS.items():
        if old in manifest:
            found.setdefault(new, manifest[old])
    return found


def current_record(about):
    """What an unfinished restore recorded of itself, with the manifest and the list entry of its snapshot in the words of today."""
    return dict(about, **{name: current(about[name]) for name in ("manifest", "snapshot") if name in about})
