# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each state of a restore means for the cluster, in words for an operator, and for who comes next."""

from __future__ import annotations

MEANINGS = {
    "begun": "the cluster was not touched",
    "staging": "the cluster was not touched",
    "staged": "the cluster was not touched",
    "stopping": "the control plane is being stopped, with its previous data",
    "stopped": "the control plane is stopped, with its previous data",
    "swapping": "the control plane is stopped, and its data directories are being swapped",
    "swapped": "the control plane is stopped, with the restored data",
    "starting-etcd": "etcd starts on the restored data",
    "etcd-started": "etcd serves the restored data, and the API server is stopped",
    "starting": "etcd serves the restored data, and the API server starts",
    "started": "the cluster serves the restored data, which was not validated",
    "committing": "the cluster serves the restored data, which was validated; with several nodes, this one has voted to keep it",
    "committed": "all nodes keep the restored data",
    "rolling-back": "its rollback was interrupted",
    "rejoining": "a restore of other members retired the node, and rejoin.yml is returning it",
}

# From where a restore can be finished: its data is staged, and no node began to roll back.
RESUMABLE = (
    "staged", "stopping", "stopped", "swapping", "swapped", "starting-etcd", "etcd-started", "starting", "started", "committing", "committed",
)  # fmt: skip


def in_words(state):
    """A state and its meaning: `"swapped" (the control plane is ...)`."""
    return '"%s"%s' % (state, " (%s)" % MEANINGS[state] if state in MEANINGS else "")
