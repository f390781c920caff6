# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plan of a restore says about selected objects."""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.filter.restore_changes import restore_changes

LINES = ["Modified (1):", "  ConfigMap shop/prices", '    data.apple: "2", in the snapshot "1"']


def found(**others):
    parts = {"recreated": {"count": 0, "objects": []}, "deleted": {"count": 2, "objects": ["a", "b"]}, "modified": {"count": 1, "objects": [{}]}}
    return dict(dict(parts, same=40, compared=True, reason=None, lines=LINES, seconds=1.2), **others)


def test_all_was_compared():
    said = restore_changes(found())
    head = "CHANGES   0 re-created, 2 deleted, 1 modified, 40 the same, of what etcd_restore_changes selects (compared in 1.2 s)"
    assert said == {"compared": True, "reason": "", "lines": [head, *LINES]}


def test_some_was_compared():
    said = restore_changes(found(compared=False, reason="it was not finished within 300 s"))
    assert not said["compared"] and said["reason"] == "it was not finished within 300 s"
    assert said["lines"][0] == "CHANGES   not all compared: it was not finished within 300 s; until then 0 re-created, 2 deleted, 1 modified, 40 the same"
    assert said["lines"][1:] == LINES


def test_nothing_was_compared():
    assert restore_changes(found(compared=False, reason="it is away", lines=[]))["lines"] == ["CHANGES   not compared: it is away"]
    assert restore_changes({}, "/s.db is not served: there is too little memory.") == {
        "compared": False,
        "reason": "/s.db is not served: there is too little memory",
        "lines": ["CHANGES   not compared: /s.db is not served: there is too little memory"],
    }


def test_what_still_serves_the_snapshot_is_named():
    lines = restore_changes(found(), stays="what is served was not ended: systemd does not answer.")["lines"]
    assert lines[-1] == (
        "The snapshot is still served: what is served was not ended: systemd does not answer. "
        "To end that: ansible-playbook k8s_dr.etcd.browse -e etcd_browse_state=absent"
    )


def test_what_looks_like_a_template_does_not_become_one():
    said = restore_changes(found(lines=["    data.a: \"{{ lookup('pipe', 'id') }}\"", "  {% if %}{# #}"]))
    assert "{{" not in str(said) and said["lines"][1].startswith('    data.a: "{ {')
    assert "{%" not in str(said) and "{#" not in str(said)
