# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of the module kube_export, which is documented there."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.encryption import NAME
from ansible_collections.k8s_dr.etcd.plugins.plugin_utils.other_action import transfer

MODULE = "k8s_dr.etcd.kube_export"


def unpack(archive, dest, check_mode):
    """Write the files of the archive that differ from those in `dest`; their names, sorted."""
    written = []
    with tarfile.open(archive, "r:") as tar:
        for entry in tar:
            # what the archive says of where a file goes is not believed
            if not entry.isreg() or entry.name.count("/") != 1 or not NAME.match(entry.name):
                raise AnsibleActionFail("the archive holds something that is no exported object: %r" % entry.name[:100])
            content, path = tar.extractfile(entry).read(), os.path.join(dest, entry.name)
            if read(path) == content and not os.stat(path).st_mode & 0o077:
                continue
            written.append(entry.name)
            if not check_mode:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                write(path, content)
    return sorted(written)


def write(path, content):
    """Replace a file: one that is there may have a wide mode, or be open elsewhere."""
    descriptor, new = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise


def read(path):
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


class ActionModule(ActionBase):
    """Has the module write an archive, copies it, and unpacks it here.  Nothing stays on the host."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """See the module."""
        result = super().run(tmp, task_vars)
        args, check_mode = self._task.args.copy(), self._task.check_mode
        dest = os.path.abspath(os.path.expanduser(args.get("dest") or ""))
        # the host and the controller get temporary files in check mode, too
        self._task.check_mode = False
        place, here = None, tempfile.mkdtemp(prefix="k8s-dr-")
        try:
            made = self._execute_module(
                "ansible.builtin.tempfile", {"state": "directory", "path": args.get("work_dir", "/run"), "prefix": ".k8s-dr-export-"}, task_vars=task_vars
            )
            if made.get("failed"):
                return dict(result, **made)
            place = made["path"]
            archive = os.path.join(place, "objects.tar")
            found = self._execute_module(MODULE, dict(args, archive=archive), task_vars=task_vars)
            result.update(found)
            if found.get("failed") or "files" not in found:
                return result
            transfer(self, task_vars, path=archive, dest=os.path.join(here, "objects.tar"))
            if not check_mode:
                os.makedirs(dest, mode=0o700, exist_ok=True)
            written = unpack(os.path.join(here, "objects.tar"), dest, check_mode)
            lines = ["%d files for %s, %d of them new or changed" % (len(found["files"]), dest, len(written)), *found["lines"]]
            result.update(dest=dest, written=written, changed=bool(written), lines=lines)
        except OSError as exc:
            raise AnsibleActionFail("the files cannot be written to %s on the controller: %s" % (dest, exc.strerror or exc)) from exc
        finally:
            shutil.rmtree(here, ignore_errors=True)
            if place:
                self._execute_module("ansible.builtin.file", {"path": place, "state": "absent"}, task_vars=task_vars)
            self._task.check_mode = check_mode
        return result
