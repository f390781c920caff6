# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  remote:
    description:
      - Where snapshots are off-site, as C(NAME:PATH) with a NAME that rclone's configuration has, for example V(s3:backups/prod).
      - Also the absolute path of an existing directory, such as a mounted share.
      - Do not write settings into it, since every user on the host can read command lines.
    type: str
    required: true
  rclone_config:
    description:
      - Path of rclone's configuration file on the managed host, which holds the credentials.
      - C(RCLONE_*) of the environment is ignored.
      - Default is that of the user who runs the module.
    type: path
  rclone:
    description: Path of C(rclone), 1.60 or later. By default the module searches C(PATH) and the usual directories.
    type: path
  timeout:
    description:
      - Seconds that moving one file may take.
      - Default is 600, plus one for every 100 kB. A connection that moves nothing for a minute is closed in any case.
    type: int
  retries:
    description: How often to try when the storage cannot be reached or the connection breaks.
    type: int
    default: 3
  bwlimit:
    description: >-
      Most that rclone may move in a second, as its option C(--bwlimit) has it, for example V(10M) for ten megabytes.
    type: str
"""
