# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.retention import locked_words

DOCUMENTATION = r"""
name: prune_lines
short_description: Reports which snapshots were removed from one place
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.etcd_snapshot#role).
positional: _input, place, predicted
options:
  _input:
    description: What M(k8s_dr.etcd.etcd_snapshot_prune) returned.
    type: dict
    required: true
  place:
    description: The directory, or the place off-site.
    type: str
    required: true
  predicted:
    description: Whether the snapshots would only be removed, in check mode.
    type: bool
    required: true
"""

EXAMPLES = r"""
- name: Report which snapshots were removed
  ansible.builtin.debug:
    msg: "{{ pruned | k8s_dr.etcd.prune_lines('/var/backups/etcd', false) }}"
"""

RETURN = r"""
_value:
  description: One line for each snapshot that was removed, and a sum.
  type: list
  elements: str
"""


def prune_lines(pruned, place, predicted):
    """See RETURN."""
    verb = "would be removed" if predicted else "removed"
    removed = list(pruned["removed"])
    held = sum("hold" in one["by"] for one in pruned["kept"])
    locked = locked_words(pruned["locked"])
    total = "%s: %d stay%s, %d %s (%s)%s, %d are not verified or of another cluster, and were left alone" % (
        place,
        len(pruned["kept"]),
        ", %d of them held" % held if held else "",
        len(removed),
        verb,
        bytes_to_human(int(pruned["freed"])),
        ", %s and stay as long" % locked if locked else "",
        len(pruned["untouched"]),
    )
    return ["%s: %s" % (one, verb) for one in removed] + [total]


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.prune_lines."""

    def filters(self):
        return {"prune_lines": prune_lines}
