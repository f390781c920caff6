# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All of the module refuse, which is documented there."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.k8s_dr.etcd.plugins.plugin_utils import loaded_filters  # pylint: disable=unused-import # noqa: F401


class ActionModule(ActionBase):
    """Fails with the reason that it is given, unless that is empty."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """See the module."""
        result = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(argument_spec={"reason": {"type": "raw", "required": True}})
        if args["reason"]:
            result.update(failed=True, msg=args["reason"])
        return dict(result, changed=False)
