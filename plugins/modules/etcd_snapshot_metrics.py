#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_metrics
short_description: Writes the result of a snapshot run as node_exporter textfile metrics
version_added: 0.1.0
description:
  - Writes C(k8s_dr_etcd_snapshot.prom) into the directory that the textfile collector of Prometheus' C(node_exporter) reads.
  - Says when the last run was and whether it succeeded, counts runs and failures, and describes the newest verified snapshot in O(directory).
  - The file is replaced atomically, so that a reader never sees half of it.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details:
      - Every run counts.
options:
  textfile_dir:
    description: The directory of C(node_exporter --collector.textfile.directory). It must exist.
    type: path
    required: true
  directory:
    description: Directory of the snapshots.
    type: path
    default: /var/backups/etcd
  success:
    description: Whether the run succeeded.
    type: bool
    required: true
  seconds:
    description: Duration of the run in seconds.
    type: float
  off_site:
    description: Whether the snapshot was verified off-site in this run. Omit it when no off-site storage is configured.
    type: bool
  labels:
    description: Labels that every metric gets, such as the name of the cluster. Values are text.
    type: dict
    default: {}
seealso:
  - module: k8s_dr.etcd.etcd_snapshot
"""

EXAMPLES = r"""
- name: Record a successful backup for Prometheus
  k8s_dr.etcd.etcd_snapshot_metrics:
    textfile_dir: /var/lib/node_exporter/textfile_collector
    success: true
    seconds: 2.5
    labels:
      cluster: prod
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /var/lib/node_exporter/textfile_collector/k8s_dr_etcd_snapshot.prom
metrics:
  description: >-
    Values by name without the prefix C(k8s_dr_etcd_snapshot_). C(newest_level) is a name, and C(stored) the number of verified and of other snapshots.
  returned: success
  type: dict
  sample: {runs_total: 12, failures_total: 1, newest_revision: 582, newest_level: status, stored: {"true": 7, "false": 0}}
"""

import calendar
import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import levels as verification_levels
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import SnapshotDirectory
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words

FILE = "k8s_dr_etcd_snapshot.prom"
PREFIX = "k8s_dr_etcd_snapshot_"
# In the order of the file: name, type, help.
METRICS = (
    ("runs_total", "counter", "Runs that were to take a snapshot on this host."),
    ("failures_total", "counter", "Those that did not do all they had to do."),
    ("last_run_timestamp_seconds", "gauge", "When the last run ended."),
    ("last_run_success", "gauge", "Whether it did all it had to do."),
    ("last_run_duration_seconds", "gauge", "What it took."),
    ("last_success_timestamp_seconds", "gauge", "When the last run ended that did all it had to do."),
    ("last_off_site_timestamp_seconds", "gauge", "When a run last verified its snapshot off-site."),
    ("last_drill_timestamp_seconds", "gauge", "When a stored snapshot last passed a drill: restored, and served with all that is in the file."),
    ("newest_timestamp_seconds", "gauge", "When the newest verified snapshot was taken."),
    ("newest_size_bytes", "gauge", "Its size."),
    ("newest_revision", "gauge", "Its revision."),
    ("newest_level", "gauge", "Its verification level."),
    ("stored", "gauge", "Snapshots on this host, by whether they are verified."),
)
# What is carried over from the file that is there.
KEPT = ("runs_total", "failures_total", "last_success_timestamp_seconds", "last_off_site_timestamp_seconds", "last_drill_timestamp_seconds")
LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")


def seconds_of(text):
    """Of a manifest's time, or None."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except (TypeError, ValueError):
        return None


def read_before(path):
    """(text, {name: value} of what is carried over) of the file that is there; nothing of one that is damaged."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(1024 * 1024)
    except FileNotFoundError:
        return "", {}
    found = {}
    for name in KEPT:
        match = re.search(r"^%s%s(?:\{.*\})? ([0-9.]+(?:e\+?[0-9]+)?)$" % (PREFIX, name), text, re.MULTILINE)
        if match:
            found[name] = int(float(match.group(1)))
    return text, found


def collect(params, before, snapshots, now):
    """{name: value} of all that is known."""
    found = dict(before)
    found["runs_total"] = before.get("runs_total", 0) + 1
    found["failures_total"] = before.get("failures_total", 0) + (0 if params["success"] else 1)
    found["last_run_timestamp_seconds"] = now
    found["last_run_success"] = 1 if params["success"] else 0
    if params["seconds"] is not None:
        found["last_run_duration_seconds"] = params["seconds"]
    if params["success"]:
        found["last_success_timestamp_seconds"] = now
    if params["off_site"]:
        found["last_off_site_timestamp_seconds"] = now
    newest = next((one for one in snapshots if one["verified"]), None)
    if newest:
        found["newest_timestamp_seconds"] = seconds_of(newest["created"])
        found["newest_size_bytes"] = newest["size"]
        found["newest_revision"] = newest["revision"]
        found["newest_level"] = newest.get("level") if newest.get("level") in verification_levels.NAMES else None
    drills = [verification_levels.passed(one.get("levels"), "drill") for one in snapshots]
    passed = [seconds_of(one.get("at")) or 0 for one in drills if one]
    # the one that was drilled may not be kept as long as it matters when that was
    found["last_drill_timestamp_seconds"] = max(passed + [before.get("last_drill_timestamp_seconds", 0)]) or None
    verified = len([one for one in snapshots if one["verified"]])
    found["stored"] = {"true": verified, "false": len(snapshots) - verified}
    return {name: value for name, value in found.items() if value is not None}


def labelled(labels):
    """{a="b",c="d"}, or nothing."""
    words = ",".join('%s="%s"' % (name, str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return "{%s}" % words if words else ""


def expose(metrics, labels):
    """Prometheus' text format."""
    lines = []
    common = sorted(labels.items())
    for name, kind, words in METRICS:
        if name not in metrics:
            continue
        lines += ["# HELP %s%s %s" % (PREFIX, name, words), "# TYPE %s%s %s" % (PREFIX, name, kind)]
        value = metrics[name]
        if name == "newest_level":
            rows = [(common + [("level", level)], 1 if level == value else 0) for level in verification_levels.NAMES]
        elif isinstance(value, dict):
            rows = [(common + [("verified", state)], count) for state, count in sorted(value.items())]
        else:
            rows = [(common, value)]
        lines += ["%s%s%s %s" % (PREFIX, name, labelled(one), number) for one, number in rows]
    return "".join(line + "\n" for line in lines)


def check_labels(labels):
    for name in labels:
        if not LABEL.match(str(name)) or str(name).startswith("__"):
            raise Refused("`labels` has the name %s, which Prometheus does not allow: letters, digits and underscores" % name)
        if name in ("level", "verified"):
            raise Refused("`labels` has the name %s, which some of the metrics have themselves" % name)


def main():
    module = AnsibleModule(
        argument_spec={
            "textfile_dir": {"type": "path", "required": True},
            "directory": {"type": "path", "default": "/var/backups/etcd"},
            "success": {"type": "bool", "required": True},
            "seconds": {"type": "float"},
            "off_site": {"type": "bool"},
            "labels": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = os.path.join(params["textfile_dir"], FILE)
    try:
        check_labels(params["labels"])
        if not os.path.isdir(params["textfile_dir"]):
            raise Refused("%s is not a directory; give that of node_exporter's option --collector.textfile.directory" % params["textfile_dir"])
        before, kept = read_before(path)
        snapshots = SnapshotDirectory(os.path.realpath(params["directory"])).snapshots(brief=True)
        metrics = collect(params, kept, snapshots, int(time.time()))
        text = expose(metrics, params["labels"])
        if not module.check_mode:
            # node_exporter is another user, and reads what ends with .prom
            write_durably(path, text, 0o644, "%s.%d.new" % (path, os.getpid()))
    except Refused as exc:
        module.fail_json(msg="No metrics were written: %s" % exc)
    except OSError as exc:
        module.fail_json(msg="No metrics were written: %s" % os_error_words(exc, path))
    diff = {"before": before, "after": text, "before_header": path, "after_header": path}
    module.exit_json(changed=True, path=path, metrics=metrics, diff=diff)


if __name__ == "__main__":
    main()
