# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a run of Ansible covers all hosts and tasks.  Private to this collection."""

from __future__ import annotations


def incomplete(run):
    """Why a run would leave out hosts or tasks in the middle, one sentence; "" when it does not.

    run: {playbook, tags, skip_tags, hosts: all of the play, batch: those of this batch, workflow and template: AWX's names}.
    """
    # no task has a tag of its own, and what is included does not inherit those that a playbook gives to the role
    if "all" not in run["tags"] or set(run["skip_tags"]) & {"all", "tagged", "untagged"}:
        return (
            "--tags and --skip-tags (in AWX: job tags, skip tags) would leave out parts of what this does. Nothing was done. Run it without them, for "
            "example: ansible-playbook k8s_dr.etcd.%s" % run["playbook"]
        )
    left_out = [host for host in run["hosts"] if host not in run["batch"]]
    if left_out:
        return (
            "%s %s in this play, but not in this batch of it: all nodes have to be stopped and started together. Nothing was done. Take `serial` out of "
            "the play. Where the play has none, these hosts failed or could not be reached before: see above, or leave them out with -l."
            % (", ".join(left_out), "is" if len(left_out) == 1 else "are")
        )
    # AWX tells a job nothing of slices, but a sliced job is a workflow with the template's name (awx/main/models: jobs.py create_unified_job,
    # unified_jobs.py awx_meta_vars). The inventory has no other hosts then, so the members that it lacks may be named by nobody.
    if run["playbook"] == "restore" and run["workflow"] and run["workflow"] == run["template"]:
        return (
            'This job is a slice of "%s", which has only some of the inventory\'s hosts, and nodes have to be restored together. Nothing was done. Set '
            '"Job Slicing" of the template to 1. If that is a workflow of your own with the name of its template, give it another name.' % run["workflow"]
        )
    return ""
