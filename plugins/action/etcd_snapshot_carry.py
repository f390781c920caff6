# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of the module etcd_snapshot_carry, which is documented there."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import time
import zlib

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.k8s_dr.etcd.plugins.module_utils._fingerprints import sha256_of_file

MODULE = "k8s_dr.etcd.etcd_snapshot_carry"
# Seconds between two lines about how far it is.
TELL = 15


class ActionModule(ActionBase):
    """Asks for one piece after the other."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """See the module."""
        super().run(tmp, task_vars)
        begun = time.monotonic()
        dummy, args = self.validate_argument_spec(
            {"path": {"type": "path", "required": True}, "dest": {"type": "path", "required": True}, "timeout": {"type": "int", "default": 3600}}
        )
        path, dest = args["path"], os.path.abspath(args["dest"])
        here = sha256_of_file(dest) if os.path.isfile(dest) else None
        first = self._ask(task_vars, path=path, dest=dest, checksum=here is not None)
        size, sha256 = first["size"], first.get("sha256")
        changed = here is None or here != sha256
        if changed and not self._task.check_mode:
            sha256 = self._carry(task_vars, first, path, dest, begun, args["timeout"])
        return {"changed": changed, "dest": dest, "size": size, "sha256": sha256, "seconds": round(time.monotonic() - begun, 2)}

    def _ask(self, task_vars, **args):
        found = self._execute_module(MODULE, module_args=args, task_vars=task_vars)
        if found.get("failed") or "version" not in found:
            raise AnsibleActionFail(str(found.get("msg") or found.get("module_stderr") or "the host said nothing"), result={"rc": found.get("rc")})
        return found

    def _carry(self, task_vars, first, path, dest, begun, timeout):
        """Write dest; its sha256.  Nothing is left of what is not whole."""
        digest, have, told = hashlib.sha256(), 0, begun
        partial = "%s.%d.partial" % (dest, os.getpid())
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as stream:
                while have < first["size"]:
                    piece = self._ask(task_vars, path=path, dest=dest, offset=have)
                    plain = zlib.decompress(base64.b64decode(piece["packed"]))
                    if piece["version"] != first["version"] or not plain:
                        raise AnsibleActionFail("%s changed while it was read, so nothing of it was kept" % path)
                    stream.write(plain)
                    digest.update(plain)
                    have += len(plain)
                    now = time.monotonic()
                    if now - begun > timeout and have < first["size"]:
                        raise AnsibleActionFail("%s did not come within %d seconds: %d of %d bytes did" % (path, timeout, have, first["size"]))
                    if now - told >= TELL:
                        told = now
                        sentence = "%s: %.0f of %.0f MB came in %.0f s" % (os.path.basename(path), have / 1e6, first["size"] / 1e6, now - begun)
                        self._display.display(sentence)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(partial, dest)
        except OSError as exc:
            raise AnsibleActionFail("%s cannot be written on the controller: %s" % (dest, exc.strerror)) from exc
        finally:
            with contextlib.suppress(OSError):
                os.unlink(partial)
        return digest.hexdigest()
