# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between two objects: paths, text for people, and the patch that makes one of the other.  Private to this collection."""

from __future__ import annotations

import copy
import json

HIDDEN = "(hidden)"
ABSENT = object()
_LONGEST = 80
# Values of any field may be the Secret's own: kubectl keeps a copy of all of it in an annotation.
_SECRET = ("secrets",)


def fields(before, after, path=""):
    """[(path, value before, value after), ...] of what differs, such as spec.template.spec.containers[0].image, in their order; ABSENT for no value."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for key in sorted(set(before) | set(after)):
            one = "%s[%s]" % (path, key) if "." in key or "/" in key else path + "." + key if path else key
            found += fields(before.get(key, ABSENT), after.get(key, ABSENT), one)
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [one for number, pair in enumerate(zip(before, after)) for one in fields(*pair, path="%s[%d]" % (path, number))]
    return [] if before == after else [(path, before, after)]


def sentences(found, identifier):
    """What fields() found, for people: the live value first.  Of a Secret the paths alone."""
    for path, before, after in found:
        yield path if identifier in _SECRET else "%s: %s, in the snapshot %s" % (path, _short(before), _short(after))


def _short(value):
    text = "nothing" if value is ABSENT else json.dumps(value, sort_keys=True)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def shown(found, identifier):
    """The object as text for a diff; of a Secret without any value."""
    if found is None:
        return ""
    if identifier in _SECRET:
        found = copy.deepcopy(found)
        for key in ("data", "stringData"):
            if key in found:
                found[key] = dict.fromkeys(found[key] or {}, HIDDEN)
        if found["metadata"].get("annotations"):
            found["metadata"]["annotations"] = dict.fromkeys(found["metadata"]["annotations"], HIDDEN)
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def patch(before, after):
    """The JSON merge patch (RFC 7386) that makes `after` of `before`; {} where they are equal."""
    found = {}
    for key in set(before) | set(after):
        if key not in after:
            found[key] = None
        elif key not in before:
            found[key] = after[key]
        elif isinstance(before[key], dict) and isinstance(after[key], dict):
            inner = patch(before[key], after[key])
            if inner:
                found[key] = inner
        elif before[key] != after[key]:
            found[key] = after[key]
    return found
