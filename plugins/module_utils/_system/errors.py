# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors that packages tell each other about without knowing each other.  Private to this collection."""

from __future__ import annotations


class Refused(Exception):
    """One sentence for the operator: nothing was done, and why."""


class RcloneError(Exception):
    """One sentence for the operator.

    kind: config, refused (these credentials, this clock), denied (what they may not do), immutable, undeletable, absent, full, unreachable, timeout,
    corrupt (there), local (corrupt here), tool or other.
    """

    def __init__(self, message, kind="other"):
        super().__init__(message)
        self.message = message
        self.kind = kind


def os_error_words(exc, where=None):
    """What an OSError says for the operator: the file, and what is wrong with it.  where: a file for errors that name none."""
    path = exc.filename if isinstance(exc.filename, str) else where
    return "%s%s" % (path + ": " if path else "", exc.strerror or exc)
