# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of the module etcd_snapshot_transfer, which is documented there."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import zlib

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import sha256_of_file
from ansible_collections.k8s_dr.etcd.plugins.modules.etcd_snapshot_transfer import SENT, check_version, read_piece, version_of

MODULE = "k8s_dr.etcd.etcd_snapshot_transfer"
# Seconds between two lines about how far it is.
TELL = 15


def check_sha256(path, found, wanted):
    if found != wanted:
        raise AnsibleActionFail("%s is not the file that is wanted, so nothing of it was kept: its SHA-256 is %s, and not %s" % (path, found, wanted))


class ActionModule(ActionBase):
    """Asks for one piece after the other."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """See the module."""
        super().run(tmp, task_vars)
        begun = time.monotonic()
        dummy, args = self.validate_argument_spec(
            {
                "path": {"type": "path", "required": True},
                "dest": {"type": "path"},
                "sha256": {"type": "str", "default": ""},
                "to": {"type": "str", "choices": ["controller", "host"], "default": "controller"},
                "timeout": {"type": "int", "default": 3600},
                "reserve": {"type": "int", "default": 0},
            }
        )
        if args["to"] == "host":
            if not args["dest"]:
                raise AnsibleActionFail("dest is missing, which to=host needs")
            return self._send(task_vars, os.path.abspath(args["path"]), args["dest"], begun, args["timeout"], args["sha256"], args["reserve"])
        if args["dest"]:
            return self._fetch(task_vars, args["path"], os.path.abspath(args["dest"]), begun, args["timeout"], args["sha256"])
        own = tempfile.mkdtemp(prefix="k8s-dr-")
        try:
            if self._task.check_mode:
                os.rmdir(own)
            return self._fetch(task_vars, args["path"], os.path.join(own, os.path.basename(args["path"])), begun, args["timeout"], args["sha256"])
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            raise

    def _fetch(self, task_vars, path, dest, begun, timeout, wanted):
        """From the host to the controller."""
        here = sha256_of_file(dest) if os.path.isfile(dest) else None
        # one question less where nothing is there to compare with
        what = {"checksum": True} if here is not None else {} if self._task.check_mode else {"offset": 0}
        first = self._ask(task_vars, path=path, dest=dest, **what)
        size, sha256 = first["size"], first.get("sha256")
        changed = here is None or here != sha256
        if changed and not self._task.check_mode:
            sha256 = self._transfer(task_vars, first, path, dest, begun, timeout, wanted)
        elif wanted and sha256:
            check_sha256(path, sha256, wanted)
        return {"changed": changed, "dest": dest, "size": size, "sha256": sha256, "seconds": round(time.monotonic() - begun, 2)}

    def _ask(self, task_vars, **args):
        found = self._execute_module(MODULE, module_args=args, task_vars=task_vars)
        if found.get("failed") or "version" not in found:
            raise AnsibleActionFail(str(found.get("msg") or found.get("module_stderr") or "the host returned no message"), result={"rc": found.get("rc")})
        return found

    def _tell(self, path, have, size, begun, told, timeout):
        """Say now and then how far it is; when that was said last."""
        now = time.monotonic()
        if now - begun > timeout and have < size:
            raise AnsibleActionFail("%s was not copied within %d seconds: %d of %d bytes were" % (path, timeout, have, size))
        if now - told < TELL:
            return told
        self._display.display("%s: %.0f of %.0f MB copied in %.0f s" % (os.path.basename(path), have / 1e6, size / 1e6, now - begun))
        return now

    def _send(self, task_vars, path, dest, begun, timeout, wanted, reserve):
        """From the controller to the host."""
        if not os.path.isfile(path):
            raise AnsibleActionFail("%s is not a regular file on the controller" % path)
        there = self._ask(task_vars, path=path, dest=dest, to="host")
        try:
            size = os.path.getsize(path)
            # what is not there is not compared
            sha256 = wanted or (sha256_of_file(path) if there["sha256"] else None)
        except OSError as exc:
            raise AnsibleActionFail("%s cannot be read on the controller: %s" % (path, exc.strerror)) from exc
        changed = there["sha256"] is None or there["sha256"] != sha256
        if changed and there["free"] < size + reserve:
            kept = ", of which %d MB must stay free" % (reserve // 10**6) if reserve else ""
            raise AnsibleActionFail(
                "%s needs %d MB, and its file system has %d MB free%s: free some space" % (dest, size // 10**6 + 1, there["free"] // 10**6, kept)
            )
        if changed and not self._task.check_mode:
            try:
                sha256 = self._send_pieces(task_vars, path, dest, begun, timeout, wanted)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._ask(task_vars, path=path, dest=dest, to="host", discard=True)
                raise
        return {"changed": changed, "dest": dest, "size": size, "sha256": sha256, "seconds": round(time.monotonic() - begun, 2)}

    def _send_pieces(self, task_vars, path, dest, begun, timeout, wanted):
        """The SHA-256 of all; each piece lies in the home of the user who logs in only until the host has compared and appended it."""
        digest, have, told, shell = hashlib.sha256(), 0, begun, self._connection._shell
        with open(path, "rb", buffering=0) as stream, tempfile.NamedTemporaryFile(dir=constants.DEFAULT_LOCAL_TMP) as local:
            version, size = version_of(stream), os.fstat(stream.fileno()).st_size
            last = False
            while not last:
                one = hashlib.sha256()
                plain, packed = read_piece(stream, have, SENT, (digest, one))
                last = have + plain >= size
                try:
                    check_version(stream, version)
                except ValueError as exc:
                    raise AnsibleActionFail("%s %s" % (path, exc)) from exc
                if last and wanted:
                    check_sha256(path, digest.hexdigest(), wanted)
                local.seek(0)
                local.truncate()
                local.write(packed)
                local.flush()
                if not shell.tmpdir:
                    self._make_tmp_path()
                remote = shell.join_path(shell.tmpdir, "piece")
                self._transfer_file(local.name, remote)
                self._fixup_perms2((shell.tmpdir, remote), execute=False)
                self._ask(task_vars, path=path, dest=dest, to="host", piece=remote, offset=have, piece_sha256=one.hexdigest(), last=last)
                have += plain
                told = self._tell(path, have, size, begun, told, timeout)
        return digest.hexdigest()

    def _transfer(self, task_vars, first, path, dest, begun, timeout, wanted):
        """Write dest; its sha256.  Nothing is left of what is not whole."""
        digest, have, told = hashlib.sha256(), 0, begun
        partial = "%s.%d.partial" % (dest, os.getpid())
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as stream:
                while have < first["size"]:
                    piece = first if have == 0 and "packed" in first else self._ask(task_vars, path=path, dest=dest, offset=have)
                    plain = zlib.decompress(base64.b64decode(piece["packed"]))
                    if piece["version"] != first["version"] or not plain:
                        raise AnsibleActionFail("%s changed while it was read, so nothing of it was kept" % path)
                    stream.write(plain)
                    digest.update(plain)
                    have += len(plain)
                    told = self._tell(path, have, first["size"], begun, told, timeout)
                stream.flush()
                if wanted:
                    check_sha256(path, digest.hexdigest(), wanted)
                os.fsync(stream.fileno())
            os.rename(partial, dest)
        except OSError as exc:
            raise AnsibleActionFail("%s cannot be written on the controller: %s" % (dest, exc.strerror)) from exc
        finally:
            with contextlib.suppress(OSError):
                os.unlink(partial)
        return digest.hexdigest()
