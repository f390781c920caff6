#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_restore_plan
short_description: Compares a snapshot with the live etcd and reports objects to delete, re-create and modify
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Reads the keys and their revisions from the file of a snapshot, and compares them with those of the live etcd at O(endpoint).
    Values are skipped, of Secrets and of anything else.
  - The checksum of the file is not verified. M(k8s_dr.etcd.etcd_snapshot_info) does that.
  - If the comparison is not possible, RV(comparison.reason) says why, and the module does not fail. This includes a file that this collection does not
    understand, and too little room to sort its keys.
  - Memory does not grow with the number of keys.
extends_documentation_fragment:
  - k8s_dr.etcd.etcd
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - Compares as well, and does not write O(dest).
  diff_mode:
    support: none
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - Nothing is changed but O(dest), which is written every time it is given.
options:
  snapshot:
    description: Path of the snapshot on this host.
    type: path
    required: true
  work_dir:
    description:
      - Directory in whose file system the keys of a large snapshot are sorted. It may be beside the live data.
      - A directory of mode 0700 is made in it, and removed again whatever happens. The next run removes what a killed run left.
    type: path
    default: /var/lib
  names:
    description: How many names are returned for each kind and namespace.
    type: int
    default: 3
  lines:
    description: How many lines of RV(comparison.lines) each of the three may take. V(0) means as many as there are kinds and namespaces.
    type: int
    default: 30
  dest:
    description: File on this host to which every difference is written, one a line, with mode 0600. It holds names and keys, no values.
    type: path
  list:
    description:
      - File on the controller to which every difference is written, one a line, with mode 0600. Its directory is made with mode 0700 where there is none.
      - If it cannot be written, that is a warning, because the comparison is still valid. RV(comparison.list) is empty then.
    type: path
  from_controller:
    description: Whether O(snapshot) is a file on the controller. It is copied to a directory of mode 0700 in O(work_dir) first, and removed afterwards.
    type: bool
    default: false
  compare_timeout:
    description:
      - Seconds that the comparison may take. After that the module returns what it has, and does not fail.
      - A tenth of the time that is left after the snapshot was read is kept for RV(comparison.snapshot), which is then returned all the same.
    type: int
    default: 900
  manifests_dir:
    description: Where kubelet finds the static Pods of the control plane, one of which says below which prefix the keys of objects are.
    type: path
    default: /etc/kubernetes/manifests
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_info
  - module: k8s_dr.etcd.etcd_snapshot_drill
  - module: k8s_dr.etcd.etcd_restore_transaction
"""

EXAMPLES = r"""
- name: Compare the snapshot with the live data
  k8s_dr.etcd.etcd_restore_plan:
    snapshot: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
  register: plan

- name: Show the differences
  ansible.builtin.debug:
    var: plan.comparison.lines
"""

RETURN = r"""
comparison:
  description: The result.
  returned: success
  type: dict
  contains:
    compared:
      description: Whether the snapshot was compared with the live etcd.
      type: bool
    reason:
      description: Why it was not, one sentence; or V(null).
      type: str
      sample: the live etcd does not answer
    vanish:
      description: Objects that are live and not in the snapshot; a restore deletes them. V(null) when nothing was compared.
      type: dict
      contains: &difference
        count:
          description: How many keys.
          type: int
          sample: 12
        objects:
          description: How many of them are objects other than leases and events.
          type: int
          sample: 3
        kinds:
          description: >-
            The same by C(kind) and C(namespace), each with its C(count) and the first C(names). Resources are named as kubectl does. Leases and
            events are last, without their namespaces. Keys of no object are C(other keys), and the namespace V(*) stands for those beyond the first
            thousand.
          type: list
          elements: dict
          sample: [{kind: pods, namespace: default, count: 3, names: [a, b, c]}]
    reappear:
      description: Objects that are in the snapshot and not live; a restore re-creates them. V(null) when nothing was compared.
      type: dict
      contains: *difference
    change:
      description: Objects in both, with different revisions; a restore modifies them. V(null) when nothing was compared.
      type: dict
      contains: *difference
    snapshot:
      description: C(revision), number of keys in C(total), and C(kinds), the number of objects by kind. V(null) when the snapshot could not be read.
      type: dict
      sample: {revision: 582, total: 358, kinds: {pods: 12}}
    live:
      description: >-
        C(revision), number of keys in C(total), and in C(moved) whether that revision was compacted away meanwhile, so that a newer one was read to
        the end. V(null) when the live etcd does not answer.
      type: dict
      sample: {revision: 990, total: 360, moved: false}
    lines:
      description: The differences as aligned text for a person.
      type: list
      elements: str
      sample: ["vanish  3  pods  default  a, b, c"]
    dest:
      description: The file that was written, or V(null).
      type: str
    list:
      description: The file that was written on the controller, or an empty string.
      type: str
    seconds:
      description: Duration in seconds.
      type: float
      sample: 2.1
"""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC, EtcdClient
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import comparison as restore_comparison
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import inventory as object_inventory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

# A list up to this size, in bytes, travels with the answer; a longer one is fetched by the action plugin.
SHORT = 1024 * 1024
# How many keys are counted at a time while no etcd answers.
_WINDOW = 10000


def prefix_in(manifests_dir):
    """The prefix of the keys of objects."""
    try:
        apiserver = static_pods.read_static_pods(manifests_dir).get("kube-apiserver")
    except (OSError, ValueError):
        apiserver = None
    return object_inventory.prefix_of(apiserver.flags.get("etcd-prefix", "/registry") if apiserver else "/registry")


def live_keys(client, deadline):
    try:
        return restore_comparison.LiveKeys(client, deadline)
    except ToolError as exc:
        raise ToolError("the live etcd does not answer (%s)" % exc.message, exc.result) from exc


def walk(snapshot, live, prefix, names, write):
    """{state: Groups} of all differences."""
    groups = {state: restore_comparison.Groups(names) for state in restore_comparison.STATES}
    for state, key in restore_comparison.differences(snapshot, live):
        kind, namespace, name = restore_comparison.describe(key, prefix)
        groups[state].add(kind, namespace, name)
        write("%s\t%s\t%s\t%s\n" % (state, kind, namespace or "-", name))
    return groups


class Report:
    """The file with all differences; it gets its name when it is whole."""

    def __init__(self, dest):
        self.dest = dest
        self.temporary = "%s.%d.new" % (dest, os.getpid()) if dest else None
        self._stream = None

    def __enter__(self):
        if self.dest:
            descriptor = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            self._stream = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
        return self

    def write(self, line):
        if self._stream:
            self._stream.write(line)

    def __exit__(self, kind, *_exc):
        if self._stream:
            self._stream.close()
            if kind is None:
                os.rename(self.temporary, self.dest)
            else:
                os.unlink(self.temporary)


def in_time(params):
    return "it was not finished within %d s" % params["compare_timeout"]


@contextlib.contextmanager
def reason_in(comparison, params):
    """What prevents the comparison is its `reason`, and no error."""
    try:
        yield
    except (restore_comparison.OutOfTime, boltdb.OutOfTime):
        comparison["reason"] = in_time(params)
    except (mvcc.Unreadable, mvcc.NoRoom) as exc:
        comparison["reason"] = str(exc)
    except ToolError as exc:
        comparison["reason"] = exc.message
    except OSError as exc:
        comparison["reason"] = os_error_words(exc)


def compare_keys(comparison, params, prefix, snapshot, client, deadline, report):
    """Fill in what the snapshot holds, and how it differs from what the live etcd does."""
    live = groups = failed = None
    try:
        # The rest of the time is for the count of what the snapshot holds, which is returned in any case.
        live = live_keys(client, deadline - (deadline - time.monotonic()) / 10)
    except (ToolError, restore_comparison.OutOfTime) as exc:
        failed = exc
    counted = restore_comparison.Counted(snapshot.windows(live.window if live else _WINDOW), prefix)
    if live:
        try:
            with report:
                groups = walk(counted, live, prefix, params["names"], report.write)
        except (ToolError, restore_comparison.OutOfTime) as exc:
            failed = exc
    counted.finish()
    if counted.whole:
        comparison["snapshot"] = {"revision": snapshot.revision, "total": snapshot.seen, "kinds": dict(sorted(counted.kinds.items()))}
    if failed:
        raise failed
    comparison.update(compared=True, dest=report.dest, live={"revision": live.revision, "total": live.seen, "moved": live.moved})
    listed = {state: found.as_list() for state, found in groups.items()}
    for state, found in groups.items():
        comparison[state] = {"count": found.count, "objects": found.objects, "kinds": listed[state]}
    comparison["lines"] = restore_comparison.table(listed, params["lines"])


def compare(params, check_mode):
    """RV(comparison)."""
    started = time.monotonic()
    deadline = started + params["compare_timeout"]
    comparison = dict.fromkeys(("reason", "vanish", "reappear", "change", "snapshot", "live", "dest"), None)
    comparison.update(compared=False, lines=[])
    with contextlib.ExitStack() as stack, reason_in(comparison, params):
        client = EtcdClient(params)
        work = stack.enter_context(WorkDir(params["work_dir"])).path
        snapshot = stack.enter_context(restore_comparison.FileKeys(os.path.abspath(params["snapshot"]), work, deadline))
        report = Report(None if check_mode else params["dest"])
        compare_keys(comparison, params, prefix_in(params["manifests_dir"]), snapshot, client, deadline, report)
    comparison["seconds"] = round(time.monotonic() - started, 1)
    return comparison


def main():
    module = AnsibleModule(
        argument_spec=dict(
            CONNECTION_SPEC,
            snapshot={"type": "path", "required": True},
            work_dir={"type": "path", "default": "/var/lib"},
            names={"type": "int", "default": 3},
            lines={"type": "int", "default": 30},
            dest={"type": "path"},
            list={"type": "path"},
            from_controller={"type": "bool", "default": False},
            compare_timeout={"type": "int", "default": 900},
            manifests_dir={"type": "path", "default": "/etc/kubernetes/manifests"},
        ),
        supports_check_mode=True,
    )
    params = module.params
    for name in ("names", "lines"):
        if params[name] < 0:
            module.fail_json(msg="`%s` must not be negative" % name)
    if params["compare_timeout"] < 1:
        module.fail_json(msg="`compare_timeout` must be at least 1")
    try:
        if not stat.S_ISREG(os.stat(params["snapshot"]).st_mode):
            module.fail_json(msg="%s is not a regular file" % params["snapshot"])
    except OSError as exc:
        module.fail_json(msg="%s cannot be read: %s" % (params["snapshot"], exc.strerror))
    packed = boltdb.packed_file(os.path.abspath(params["snapshot"]))
    if packed:
        module.fail_json(msg=packed)
    signals.raise_when_ended()
    os.umask(0o077)
    # The live etcd and the API server come first, in all that follows.
    os.nice(10)
    place = ""
    if params["list"] and not params["dest"] and os.path.isdir(params["work_dir"]):
        place = tempfile.mkdtemp(prefix=".k8s-dr-copy-", dir=params["work_dir"])
        params["dest"] = os.path.join(place, "list.txt")
    try:
        comparison = compare(params, module.check_mode)
        if place and comparison["dest"] and os.path.getsize(comparison["dest"]) <= SHORT:
            with open(comparison["dest"], encoding="utf-8", errors="backslashreplace") as stream:
                comparison["text"] = stream.read()
            comparison["dest"] = None
    except signals.Ended as exc:
        module.fail_json(msg="nothing was compared: %s" % exc)
    finally:
        if place and not (sys.exc_info()[0] is None and comparison["dest"]):
            shutil.rmtree(place, ignore_errors=True)
    module.exit_json(changed=comparison["dest"] is not None, comparison=comparison)


if __name__ == "__main__":
    main()
