# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every playbook as AWX runs it: by ansible-runner, out of a checkout of the project, with no terminal, variables and credentials as files, and a job that
is cancelled in the middle of a restore."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import ansible_runner
import pytest
import yaml
from cluster import ROOT, wait_for
from jinja2.nativetypes import NativeEnvironment

CONTROLLER = yaml.load((ROOT / "docs/awx/controller.yml").read_text(encoding="utf-8").replace("!unsafe ", ""), yaml.SafeLoader)
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


class Job:
    """What is left of a job when it has ended."""

    def __init__(self, runner):
        self.status = runner.status
        self.output = runner.stdout.read()
        self.events = list(runner.events)
        self.artifacts = next((event["event_data"].get("artifact_data", {}) for event in self.events if event["event"] == "playbook_on_stats"), {})

    @property
    def failures(self):
        """The sentences with which tasks failed: what a notification would have."""
        failed = [event["event_data"] for event in self.events if event["event"] == "runner_on_failed"]
        return [data["res"].get("msg", "") for data in failed if not data.get("ignore_errors")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The project as AWX has it: what is tracked, and nothing that the tests have made."""
    project = tmp_path_factory.mktemp("project")
    subprocess.run([ROOT / "tests/tools/copy_tree", project], check=True)
    return project


def filled(value, variables):
    """What Ansible makes of the templates in controller.yml."""
    return NativeEnvironment().from_string(value).render(variables) if isinstance(value, str) and "{{" in value else value


@pytest.fixture
def launch(cluster, checkout, tmp_path):
    """launch("etcd: snapshot", **answers): the job template of docs/awx/controller.yml, with the answers of its survey.

    settings: what is at the top of controller.yml; credentials: {type: {input: value}}; cancel: called until it says that the job is to be cancelled.
    """

    def start(name, cancel=None, settings=(), credentials=(), **answers):
        [template] = [one for one in CONTROLLER["controller_templates"] if one["name"] == name]
        here = {**{key: value for key, value in CONTROLLER.items() if key.startswith("k8s_dr_")}, **dict(settings)}
        # AWX hands over every default that there is
        asked = {one["variable"]: filled(one["default"], here) for one in (template.get("survey_spec") or {}).get("spec", [])}
        assert set(answers) <= set(asked), "a survey asks no such thing"
        private = tmp_path / re.sub(r"\W+", "-", "%s %d" % (name, len(list(tmp_path.iterdir()))))
        for directory in ("env", "inventory", "files"):
            (private / directory).mkdir(parents=True)
        (private / "inventory" / "hosts.yml").write_text(cluster.inventory.read_text())
        (private / "project").symlink_to(checkout)
        variables = {key: filled(value, here) for key, value in template.get("extra_vars", {}).items()}
        variables.update(asked, etcd_restore_report_dir=str(private / "reports"), **answers)
        for kind, inputs in dict(credentials).items():
            [kind] = [one for one in CONTROLLER["controller_credential_types"] if one["name"] == kind]
            names = {}
            for key, content in kind["injectors"]["file"].items():
                path = private / "files" / key.partition(".")[2]
                path.write_text(filled(content, inputs))
                path.chmod(0o600)
                names[path.name] = str(path)
            variables.update({key: filled(value, {"tower": {"filename": names}}) for key, value in kind["injectors"]["extra_vars"].items()})
        (private / "env" / "extravars").write_text(yaml.safe_dump(variables))
        runner = ansible_runner.run(
            private_data_dir=str(private),
            playbook=template["playbook"],
            cmdline="--check" if template["job_type"] == "check" else None,
            envvars={"ANSIBLE_FORCE_COLOR": "False", "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"], "JOB_ID": "1", "AWX_HOST": "https://awx.example.com"},
            cancel_callback=cancel,
            quiet=True,
        )
        job = Job(runner)
        print("==== %s: %s\n%s" % (name, job.status, job.output))
        return job

    return start


def test_every_playbook_is_a_job_template():
    assert {pathlib.PurePosixPath(one["playbook"]).stem for one in CONTROLLER["controller_templates"]} == set(PLAYBOOKS)


def test_a_nightly_run(cluster, launch):
    """All that changes no data, in the order of the guide; and what it hands to the next job."""
    cluster.wait_ready()
    assert launch("etcd: install the tools").status == "successful"
    job = launch("etcd: snapshot")
    assert job.status == "successful" and job.artifacts["etcd_snapshot_warnings"] == [], job.artifacts
    taken = job.artifacts["etcd_snapshot"]
    assert taken["path"].startswith("/var/backups/etcd/") and int(taken["revision"]) > 0 and taken["level"], taken
    job = launch("etcd: list")
    assert job.status == "successful" and taken["path"] in str(job.artifacts["etcd_snapshot_list"])
    job = launch("etcd: verify", etcd_drill_level="restore", etcd_drill_last=1)
    assert job.status == "successful" and len(job.artifacts["etcd_drill"]) == 1, job.artifacts
    job = launch("etcd: drill")
    assert job.status == "successful" and job.artifacts["etcd_drill"][0]["level"] == "drill", job.artifacts
    assert launch("etcd: prune").status == "successful"
    assert launch("etcd: validate the cluster").status == "successful"
    assert launch("etcd: schedule on the nodes").status == "successful"
    assert launch("etcd: schedule on the nodes", etcd_schedule_state="absent").status == "successful"


def test_what_a_restore_would_do(cluster, launch):
    cluster.wait_ready()
    live = cluster.live()
    job = launch("etcd: what a restore would do", etcd_restore_snapshot="")
    assert job.status == "successful" and "etcd_restore" not in job.artifacts
    assert cluster.live() == live
    # asked for nothing, answered nothing
    job = launch("etcd: restore")
    assert job.status == "failed" and cluster.live() == live
    assert [words for words in job.failures if "etcd_restore_confirm=true" in words and len(words) < 1000], job.failures


def test_where_there_is_nothing_to_do(cluster, launch):
    cluster.wait_ready()
    live = cluster.live()
    job = launch("etcd: salvage")
    assert job.status == "failed" and len(job.failures) == 1 and "has a quorum" in job.failures[0] and len(job.failures[0]) < 1000, job.failures
    # nothing to roll back, and every host is a member: nothing to do
    assert launch("etcd: roll back").status == "successful"
    assert launch("etcd: rejoin").status == "successful"
    assert cluster.live() == live


def timers(cluster):
    return cluster.run("cp1", "sh", "-c", "cd /etc/systemd/system && ls etcd-restore-*.timer 2>/dev/null || :").split()


def is_held(cluster):
    """Has the restore got to where it waits? Asked again and again while the job runs."""
    return "yes" in cluster.run("cp1", "sh", "-c", "[ ! -e /run/failpoint/reached ] || echo yes")


def test_a_job_is_cancelled_in_the_middle_of_a_restore(cluster, launch):
    """The node is left to its timer, or to the next job: here to the next one, once back and once on."""
    cluster.wait_ready()
    cluster.note("seen", "in the snapshot")
    cluster.snapshot()
    cluster.note("seen", "after it")

    for unfinished, seen, state in (("rollback", "after it", "rolled-back"), ("resume", "in the snapshot", "committed")):
        cluster.hold_at("swapped")
        job = launch("etcd: restore", cancel=lambda: is_held(cluster), etcd_restore_confirm="true")
        cluster.let_go(die=True)
        assert job.status == "canceled"
        left = cluster.transactions()[-1]
        assert left.state == "swapped", left
        # the rollback timer is armed, should no operator come
        assert timers(cluster)

        if unfinished == "rollback":
            job = launch("etcd: roll back")
        else:
            job = launch("etcd: restore", etcd_restore_unfinished="resume", etcd_restore_confirm="true")
            assert job.artifacts["etcd_restore"]["nodes"] == ["cp1"], job.artifacts
        assert job.status == "successful", job.failures
        cluster.wait_ready()
        assert cluster.noted("seen") == seen
        assert {one.state for one in cluster.transactions() if one.path == left.path} == {state}


def test_a_job_that_has_to_start_again_restores_the_same_snapshot(cluster, launch):
    """It was cancelled before its data was staged, and a newer snapshot was taken since: the survey's empty answer is not that one."""
    cluster.wait_ready()
    cluster.note("seen", "in the snapshot")
    chosen = cluster.snapshot()
    cluster.note("seen", "after it")
    cluster.hold_at("staging")
    job = launch("etcd: restore", cancel=lambda: is_held(cluster), etcd_restore_confirm="true")
    cluster.let_go(die=True)
    assert job.status == "canceled"
    wait_for(lambda: cluster.transactions()[-1].state == "staging", 10, "it is left in the middle of staging")
    assert cluster.snapshot() != chosen
    job = launch("etcd: restore", etcd_restore_unfinished="resume", etcd_restore_confirm="true")
    assert job.status == "successful" and job.artifacts["etcd_restore"]["snapshot"] == chosen, job.failures
    cluster.wait_ready()
    assert cluster.noted("seen") == "in the snapshot"


def test_a_restore_of_what_is_encrypted_and_off_site(cluster, launch, far, key, tmp_path):
    """With both of AWX's credentials, which are files for as long as a job runs."""
    identity, recipient = key
    place = {"k8s_dr_off_site": far.where, "k8s_dr_recipients": [recipient]}
    rclone = {"etcd snapshots, rclone": {"config": pathlib.Path(far.config(tmp_path / "rclone.conf")).read_text()}}
    age = {"etcd snapshots, private age key": {"identity": identity.read_text()}}
    cluster.wait_ready()
    cluster.note("seen", "before")
    job = launch("etcd: snapshot", settings=place, credentials=rclone)
    assert job.status == "successful", job.failures
    taken = job.artifacts["etcd_snapshot"]
    # what the workflow does next, without the private key
    job = launch("etcd: verify", settings=place, etcd_drill_last=1)
    assert job.status == "successful" and [one["level"] for one in job.artifacts["etcd_drill"]] == ["checksum"], (job.failures, job.artifacts)
    cluster.note("seen", "after")
    live = cluster.live()
    choice = {"etcd_restore_snapshot": os.path.basename(taken["path"]), "etcd_restore_off_site": far.where, "etcd_restore_confirm": "true"}
    job = launch("etcd: restore", settings=place, credentials=rclone, **choice)
    assert job.status == "failed" and cluster.live() == live and "private key" in str(job.failures), job.failures
    job = launch("etcd: restore", settings=place, credentials={**rclone, **age}, **choice)
    assert job.status == "successful", job.failures
    secret = re.search(r"^AGE-SECRET-KEY\S+", identity.read_text(), re.MULTILINE).group()
    assert secret not in job.output and not any(secret in str(event) for event in job.events)
    result = job.artifacts["etcd_restore"]
    assert os.path.basename(taken["path"]) in result["snapshot"] and result["revision"] == taken["revision"] and result["outage"], result
    assert result["report"] and all(os.path.exists(path) for path in result["report"].values()), result
    # encrypted as all others are
    [discarded] = json.loads(pathlib.Path(result["report"]["json"]).read_text())["safety"]
    assert discarded["path"].endswith(".zst.age"), discarded
    cluster.wait_ready()
    assert cluster.noted("seen") == "before"
    assert timers(cluster) == []
