# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from collections.abc import Mapping

DOCUMENTATION = r"""
name: drill_report
short_description: Summarizes the verification results of a host
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.etcd_drill#role).
positional: _input, host
options:
  _input:
    description: The results of M(k8s_dr.etcd.etcd_snapshot_drill), one for each snapshot, with its path in V(item).
    type: list
    elements: dict
    required: true
  host:
    description: Name of the host.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the verification levels
  ansible.builtin.debug:
    msg: "{{ (drilled.results | k8s_dr.etcd.drill_report(inventory_hostname)).lines }}"
"""

RETURN = r"""
_value:
  description: >-
    V(snapshots), with V(host), V(path), V(ok), V(level), V(failed), V(problem), V(seconds) and V(levels) of each; V(lines), one of text for each;
    V(problem), one text about those that were not verified, empty when all were.
  type: dict
"""


def text_of(value):
    """Text for people.  Where it came from it may hold braces, which up to ansible-core 2.18 would be taken for a template."""
    text = re.sub(r"\{(?=[{%#])", "{ ", str(value if value is not None else "")).strip()
    return re.sub(r"^(?:Task failed: |Action failed: )+", "", text)


def mapping(value):
    return value if isinstance(value, Mapping) else {}


def line_of(one, notes):
    """What was found of one snapshot."""
    if one["problem"]:
        return "%s %s: %s" % ("DAMAGED" if one["failed"] else "NOT VERIFIED", one["path"], one["problem"])
    if one["gone"]:
        return "%s was removed meanwhile." % one["path"]
    restore, drill, objects = (mapping(one["levels"].get(name)) for name in ("restore", "drill", "objects"))
    if drill:
        text = "restored by %s in %s s, served by etcd %s and checked in %s s: revision %s, %s keys, %s objects of %s kinds, %s Secrets" % (
            restore.get("tool"),
            restore.get("seconds"),
            drill.get("etcd_version"),
            drill.get("seconds"),
            *(drill.get(name) for name in ("revision", "keys", "objects", "resources", "secrets")),
        )
        if objects:
            text += "; %s objects of %s resources shown by kube-apiserver %s in %s s" % tuple(
                objects.get(name) for name in ("objects", "resources", "kubernetes_version", "seconds")
            )
            unserved = mapping(objects.get("unserved"))
            if unserved:
                text += ", which has no API for %s" % ", ".join("%s %s" % (number, name) for name, number in sorted(unserved.items()))
    else:
        text = "%s in %s s" % (one["level"], one["seconds"])
    return "%s: %s.%s" % (one["path"], text, "".join(" (%s.)" % note for note in notes))


def drill_report(results, host):
    snapshots, lines = [], []
    for result in results or []:
        result = mapping(result)
        found = mapping(result.get("snapshot"))
        problem = text_of(found.get("problem")) if found else text_of(result.get("msg")) or "the module did not end"
        one = {
            "host": host,
            "path": text_of(found.get("path") or result.get("item")),
            "ok": not problem,
            "level": found.get("level"),
            "failed": found.get("failed"),
            "problem": problem or None,
            "gone": bool(found.get("gone")),
            "seconds": found.get("seconds"),
            "levels": found.get("levels") or {},
        }
        snapshots.append(one)
        lines.append(line_of(one, [text_of(note) for note in found.get("notes") or []]))
    bad = [one for one in snapshots if one["problem"]]
    problem = "%d of %d snapshots on %s were not verified. %s" % (len(bad), len(snapshots), host, " ".join(one["problem"] + "." for one in bad)) if bad else ""
    return {"snapshots": snapshots, "lines": lines, "problem": problem}


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.drill_report."""

    def filters(self):
        return {"drill_report": drill_report}
