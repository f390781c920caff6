# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # How modules reach a place off-site that do not move large files; those that do have the fragment rclone.
    DOCUMENTATION = r"""
options:
  rclone_config:
    description: Path of the configuration of C(rclone), which holds the credentials. Default is that of the user who runs the module.
    type: path
  rclone:
    description: Path of C(rclone). By default the module searches C(PATH) and the usual directories.
    type: path
"""
