# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of an earlier commit, to compare with."""

from __future__ import annotations

import io
import pathlib
import subprocess
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


class NoCheckout(Exception):
    """The commit cannot be read."""


def unpack(commit, target):
    """Unpack a commit into the directory `target`, which git does not know, so that nothing of it stays in the checkout; returns its collections."""
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", "--format=tar", commit], check=False, capture_output=True)
    if packed.returncode != 0:
        raise NoCheckout("BASE=%s cannot be read: %s" % (commit, packed.stderr.decode().strip()))
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(target, filter="data")
    return pathlib.Path(target) / "playbooks" / "collections"
