# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest of a snapshot: what no tool can find out later.  Private to this collection.

It belongs to one file, by the SHA-256 of it, and is named like the file with `.json` behind.  _snapshot/directory.py puts both in place.
"""

from __future__ import annotations

import json
import os
import re
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels as verification_levels, old_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import MOMENT

FORMAT = 1
SUFFIX = ".json"
# A manifest of a hundred thousand namespaces has some 50 MB.
MAX_MANIFEST = 256 * 1024 * 1024
# What a restore relies on: name -> types; all others are free to be absent.
_REQUIRED = {
    "format": (int,),
    "file": (str,),
    "sha256": (str,),
    "size": (int,),
    "hash": (str, type(None)),
    "revision": (int,),
    "verified": (bool,),
    "host": (str,),
    "created": (str,),
}

_RECORDED = ("levels", "level", "hold")


class ManifestError(Exception):
    """One sentence for the operator."""


def manifest_path(path):
    return path + SUFFIX


def _dict(value):
    """What a manifest has, unless it is damaged."""
    return value if isinstance(value, dict) else {}


class Manifest:
    """What is known of one snapshot, checked.  `values` are what the file holds, under the keys of today.

    file, size, sha256, host, created, verified: of the file as it is stored.  None of it changes; a changed manifest is another Manifest.
    """

    def __init__(self, values, where="the manifest"):
        """where: names the manifest in sentences about what is wrong with it (ManifestError)."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise ManifestError("%s is no manifest of format %d (its format is %s)" % (where, FORMAT, json.dumps(found)[:40]))
        for name, types in _REQUIRED.items():
            # bool is an int to Python
            if not isinstance(values.get(name), types) or (types == (int,) and isinstance(values[name], bool)):
                raise ManifestError("%s is damaged: its `%s` is missing or of the wrong type" % (where, name))
        if not re.match(r"^[0-9a-f]{64}$", values["sha256"]):
            raise ManifestError("%s is damaged: its `sha256` is none" % where)
        try:
            time.strptime(values["created"], MOMENT)
        except ValueError:
            raise ManifestError("%s is damaged: its `created` is no time" % where) from None
        self.values = old_manifest.current(values)
        self.file = values["file"]
        self.size = values["size"]
        self.sha256 = values["sha256"]
        self.host = values["host"]
        self.created = values["created"]
        self.verified = values["verified"]

    @classmethod
    def parse(cls, text, path, name=None):
        """Of the bytes of the manifest of the snapshot `path`; ManifestError when they cannot be that, or of one that had another name than `name`."""
        where = manifest_path(path)
        try:
            values = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError):
            raise ManifestError("%s is not JSON" % where) from None
        found = cls(values, where)
        if name is not None and found.file != name:
            raise ManifestError("%s belongs to %s" % (where, json.dumps(found.file)[:200]))
        return found

    @classmethod
    def read(cls, path, renamed=False):
        """That of the snapshot `path`; ManifestError when there is none or it cannot be one of this file.

        renamed: the snapshot may have had another name when it was taken; then its checksum tells whether the manifest is its own.
        """
        where = manifest_path(path)
        try:
            with open(where, "rb") as stream:
                text = stream.read(MAX_MANIFEST)
        except FileNotFoundError:
            raise ManifestError("%s has no manifest (%s)" % (path, os.path.basename(where))) from None
        except OSError as exc:
            raise ManifestError("%s cannot be read: %s" % (where, exc.strerror)) from exc
        return cls.parse(text, path, None if renamed else os.path.basename(path))

    @property
    def text(self):
        return json.dumps(self.values, sort_keys=True, indent=1) + "\n"

    @property
    def brief(self):
        """Its values without the object inventory and the signature, which are long."""
        return {name: value for name, value in self.values.items() if name not in ("inventory", "signature")}

    def was_renamed(self, path):
        return self.file != os.path.basename(path)

    # -- what is recorded of its verification

    @property
    def levels(self):
        return _dict(self.values.get("levels"))

    @property
    def hold(self):
        """Why (`reason`), by whom (`by`) and since when (`at`) it stays until it is released; empty where it is not held."""
        return self.values.get("hold") or {}

    def differs(self, where, size=None, sha256=None):
        """One sentence when what is stored at `where` is not the file that was taken, or None; what is not given is not compared."""
        if size is not None and size != self.size:
            return "%s has %d bytes, and had %d when it was taken" % (where, size, self.size)
        if sha256 is not None and sha256 != self.sha256:
            return "%s is not the file that was taken: its sha256 has changed" % where
        return None

    def distrust(self, where):
        """Why the snapshot at `where` is not to be relied on, whatever is stored there: one sentence, or None."""
        if not self.verified:
            return "%s was not verified when it was taken" % where
        failure = verification_levels.failure(self.levels)
        return failure and "%s is not to be relied on: %s" % (where, failure)

    def with_levels(self, results):
        """With what was found of levels: each replaces the one of its name, so that a level is passed or failed and never forgotten."""
        merged = dict(self.levels, **results)
        return Manifest(dict(self.values, levels=merged, level=verification_levels.highest(merged)))

    def with_copies(self, copies):
        """With what was found of copies off-site: each replaces the one of its remote and file."""
        new = {(copy["remote"], copy["file"]) for copy in copies}
        kept = [copy for copy in self.values.get("off_site") or [] if (copy.get("remote"), copy.get("file")) not in new]
        return Manifest(dict(self.values, off_site=kept + list(copies)))

    def with_hold(self, hold):
        """Held as `hold` says, or released where it is empty."""
        values = {name: value for name, value in self.values.items() if name != "hold"}
        return Manifest(dict(values, hold=hold) if hold else values)

    @property
    def recorded(self):
        """What may be recorded of it later, wherever a copy lies: its levels and its hold."""
        found = {"levels": self.levels, "level": self.values.get("level")}
        return dict(found, hold=self.hold) if self.hold else found

    @property
    def unchanging(self):
        """What is the same in every manifest of it, wherever a copy lies."""
        return {name: value for name, value in self.values.items() if name not in _RECORDED and name != "off_site"}

    def with_recorded(self, found):
        """With what another manifest has `recorded`, in the place of its own; ManifestError where that cannot be what one has."""
        levels, hold = found.get("levels"), found.get("hold", {})
        if not isinstance(hold, dict) or not isinstance({} if levels is None and not self.levels else levels, dict):
            raise ManifestError("what is recorded of %s is damaged" % self.file)
        if levels is None:
            return self.with_hold(hold)
        # where neither has levels, there is nothing to say against what the manifest names
        level = verification_levels.highest(levels) if levels or self.levels else self.values.get("level")
        return Manifest(dict(self.values, levels=levels, level=level)).with_hold(hold)

    def changed(self, path, sha256, levels=None, off_site=None, hold=None):
        """With what is given; ManifestError when the file that it is about, by its SHA-256, is not the one that this describes."""
        if self.sha256 != sha256:
            raise ManifestError("%s was replaced meanwhile, so nothing was noted in its manifest" % path)
        found = self if levels is None else self.with_levels(levels)
        found = found if off_site is None else found.with_copies(off_site)
        return found if hold is None else found.with_hold(hold)

    # -- how the snapshot lies in the stored file

    @property
    def packing(self):
        """How it is compressed, encrypted and bundled; {} where it is stored as it is."""
        return _dict(self.values.get("packing"))

    @property
    def is_packed(self):
        """Whether the stored file is something else than the snapshot itself."""
        packing = self.packing
        return packing.get("compression", "none") != "none" or packing.get("encryption", "none") != "none" or bool(packing.get("bundle"))

    @property
    def is_encrypted(self):
        return self.packing.get("encryption") == "age"

    @property
    def plain(self):
        """`size` and `sha256` of the snapshot itself, as far as the manifest of a packed one names them."""
        return _dict(self.values.get("plain")) if self.is_packed else {"size": self.size, "sha256": self.sha256}

    @property
    def tar_size(self):
        """Bytes of the tar of a bundle, 0 where there is none."""
        return _dict(self.packing.get("packed")).get("size") or 0

    def of_decrypted(self, name):
        """That of the snapshot itself in a file of its own: nothing of how it was stored."""
        values = {key: value for key, value in self.values.items() if key not in ("packing", "plain", "off_site", "hold")}
        return Manifest(dict(values, file=name, **self.plain))
