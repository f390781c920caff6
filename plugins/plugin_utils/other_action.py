# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One action that runs another one.  Private to this collection."""

from __future__ import annotations

TRANSFER = "k8s_dr.etcd.etcd_snapshot_transfer"


def transfer(action, task_vars, **args):
    """Copy a file between the controller and the host of `action`, on the same connection; see etcd_snapshot_transfer for the arguments and the result."""
    task = action._task.copy()
    task.args = args
    other = action._shared_loader_obj.action_loader.get(
        TRANSFER,
        task=task,
        connection=action._connection,
        play_context=action._play_context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=action._shared_loader_obj,
    )
    return other.run(task_vars=task_vars)
