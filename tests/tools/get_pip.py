# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in for the script that ansible-test downloads to get pip into a new environment.  Python carries a pip of its own."""

from __future__ import annotations

import subprocess
import sys

# Not in this process: ensurepip would switch pip's configuration off for what comes after it.
subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True)
arguments = [arg for arg in sys.argv[1:] if arg not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=False).returncode)
