# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/awx/controller.yml, compared with what AWX's own modules accept and with this collection's roles and playbooks."""

from __future__ import annotations

import ast
import pathlib
import re

import harness
import pytest
import servers
import yaml
from ansible_collections.k8s_dr.etcd.plugins.filter.snapshot_outcome import artifacts
from jinja2.nativetypes import NativeEnvironment

KINDS = {
    "controller_execution_environments": "execution_environment",
    "controller_projects": "project",
    "controller_inventories": "inventory",
    "controller_credential_types": "credential_type",
    "controller_templates": "job_template",
    "controller_workflows": "workflow_job_template",
    "controller_schedules": "schedule",
}
TYPES = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}


class Loader(yaml.SafeLoader):
    """As Ansible reads it."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def render(value, names):
    """The value with this file's own variables put in."""
    if isinstance(value, dict):
        # what AWX itself is to render
        return {key: value[key] if key == "injectors" else render(value[key], names) for key in value}
    if isinstance(value, list):
        return [render(one, names) for one in value]
    return NativeEnvironment().from_string(value).render(names) if isinstance(value, str) and "{{" in value else value


def controller(**settings):
    """All of the file, with other settings at its top."""
    text = (harness.ROOT / "docs/awx/controller.yml").read_text(encoding="utf-8")
    found = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    return render(found, {**{name: value for name, value in found.items() if name.startswith("k8s_dr_")}, **settings})


ENCRYPTED = {"k8s_dr_recipients": ["age1a"], "k8s_dr_off_site": "s3:b", "k8s_dr_rclone_credential": "r", "k8s_dr_age_credential": "a"}


@pytest.fixture(scope="module", params=[{}, ENCRYPTED])
def defined(request):
    return controller(**request.param)


@pytest.fixture(scope="module")
def accepted():
    """{module: its options}, from the documentation of the modules with which AWX is configured."""
    directory = pathlib.Path(servers.program("awx.awx"))

    def options(module):
        for node in ast.parse((directory / (module + ".py")).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and node.targets[0].id == "DOCUMENTATION":
                return yaml.safe_load(node.value.value)["options"]
        raise AssertionError(module)

    return {module: options(module) for module in [*KINDS.values(), "workflow_job_template_node"]}


def role_options():
    found = {}
    for path in (harness.ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for spec in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            found.update(spec["options"])
    return found


def check(what, given, options):
    assert set(given) <= set(options), (what, set(given) - set(options))
    assert all(name in given for name, option in options.items() if option.get("required")), what
    for name, value in given.items():
        kind = TYPES[options[name].get("type", "str")]
        assert isinstance(value, kind), (what, name, value)
        assert "choices" not in options[name] or value in options[name]["choices"], (what, name, value)


def test_awx_accepts_every_field(defined, accepted):
    assert {name for name in defined if name.startswith("controller_")} == set(KINDS)
    for name, module in KINDS.items():
        assert defined[name], name
        for one in defined[name]:
            # which infra.aap_configuration makes nodes of
            nodes = one.pop("simplified_workflow_nodes", [])
            check((name, one["name"]), one, accepted[module])
            for node in nodes:
                given = dict(node, workflow_job_template=one["name"])
                check((name, one["name"], node["identifier"]), given, accepted["workflow_job_template_node"])
            one.update({"simplified_workflow_nodes": nodes} if nodes else {})


def test_every_playbook_is_a_job(defined):
    playbooks = {"playbooks/" + path.name for path in (harness.ROOT / "playbooks").glob("*.yml")}
    assert {one["playbook"] for one in defined["controller_templates"]} == playbooks


def test_every_name_refers_to_an_existing_object(defined):
    names = {kind: [one["name"] for one in defined[kind]] for kind in KINDS}
    assert all(len(found) == len(set(found)) for found in names.values()), names
    for job in defined["controller_templates"]:
        assert job["project"] in names["controller_projects"] and job["inventory"] in names["controller_inventories"]
        assert job["execution_environment"] in names["controller_execution_environments"]
    for workflow in defined["controller_workflows"]:
        nodes = workflow["simplified_workflow_nodes"]
        for node in nodes:
            assert node["unified_job_template"] in names["controller_templates"]
            assert set(node.get("success_nodes", [])) <= {other["identifier"] for other in nodes}
    for schedule in defined["controller_schedules"]:
        assert schedule["unified_job_template"] in names["controller_templates"] + names["controller_workflows"]
        assert re.fullmatch(r"DTSTART;TZID=\S+:\d{8}T\d{6} RRULE:FREQ=\S+", schedule["rrule"])


def test_what_jobs_are_given_are_options_of_roles(defined):
    options = role_options()
    for job in defined["controller_templates"]:
        assert set(job.get("extra_vars", {})) <= set(options), job["name"]
    for kind in defined["controller_credential_types"]:
        fields = {field["id"] for field in kind["inputs"]["fields"]}
        assert set(kind["injectors"]["extra_vars"]) <= set(options) and all(field.get("secret") for field in kind["inputs"]["fields"])
        # a secret is in a file and nowhere else
        assert not any(re.search(r"{{ *%s *}}" % field, value) for field in fields for value in kind["injectors"]["extra_vars"].values())
        assert {name.removeprefix("template.") for name in kind["injectors"]["file"]} == fields


def test_jobs_and_nodes_store_snapshots_the_same_way(defined):
    own = {job["name"]: job.get("extra_vars", {}) for job in defined["controller_templates"]}
    # a restore makes one of what it discards
    assert own["etcd: snapshot"] == own["etcd: schedule on the nodes"] == own["etcd: restore"] and len(own["etcd: snapshot"]) == 3


def stats_of(tasks):
    """What set_stats is given, in tasks and in the blocks among them."""
    for task in tasks or []:
        if "ansible.builtin.set_stats" in task:
            yield task["ansible.builtin.set_stats"]
        for part in ("block", "rescue", "always"):
            yield from stats_of(task.get(part))


def names_in(data):
    """The artifacts in what set_stats is given, which may be variables of the role etcd_snapshot."""
    if not isinstance(data, str):
        return set(data)
    variables = yaml.safe_load((harness.ROOT / "roles/etcd_snapshot/vars/main.yml").read_text(encoding="utf-8"))
    named = [variables[name] for name in re.findall(r"__\w+", data)]
    named += [variables[name] for text in named for name in re.findall(r"__\w+_stats", text)]
    return {name for found in named for name in (found if isinstance(found, dict) else re.findall(r"'(\w+)':", found))}


def test_the_artifacts_of_the_guide_are_those_that_jobs_have():
    given = [found for path in (harness.ROOT / "roles").glob("*/tasks/*.yml") for found in stats_of(yaml.safe_load(path.read_text(encoding="utf-8")))]
    # of what is one host's own ansible-runner makes no artifact
    assert not [found for found in given if found.get("per_host")]
    rows = re.findall(r"^\| (`(?:etcd|cluster)_.+?) \|", (harness.ROOT / "docs/awx.md").read_text(encoding="utf-8"), re.MULTILINE)
    handed_on = {name for found in given for name in names_in(found["data"])} | set(artifacts("cp1", {}, [], ""))
    assert handed_on == {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_credentials_are_where_they_are_needed_and_nowhere_else():
    own = {job["name"]: job["credentials"] for job in controller(k8s_dr_rclone_credential="r", k8s_dr_age_credential="a")["controller_templates"]}
    assert {name for name, given in own.items() if "a" in given} == {
        *("etcd: browse", "etcd: restore", "etcd: what a restore would do", "etcd: recover", "etcd: what recover would do", "etcd: export"),
        *("etcd: rebuild", "etcd: drill of a rebuild"),
    }
    assert all(given[:2] == ["control plane nodes", "r"] for given in own.values())
    assert all(job["credentials"] == ["control plane nodes"] for job in controller()["controller_templates"])


def test_the_nightly_verification_needs_no_private_key():
    """A drill of an encrypted snapshot would fail every night."""
    for recipients, job, level in (([], "etcd: drill", "status"), (["age1a"], "etcd: verify", "checksum")):
        found = controller(k8s_dr_recipients=recipients)
        assert found["controller_workflows"][0]["simplified_workflow_nodes"][1]["unified_job_template"] == job
        [verify] = [one for one in found["controller_templates"] if one["name"] == "etcd: verify"]
        assert verify["survey_spec"]["spec"][0]["default"] == level


def test_the_answers_of_surveys_are_of_the_right_type(defined):
    options = role_options()
    surveys = [(job, job["survey_spec"]["spec"]) for job in defined["controller_templates"] if "survey_spec" in job]
    assert surveys and all(job["survey_enabled"] for job, _questions in surveys)
    for job, questions in surveys:
        for question in questions:
            what, option = (job["name"], question["variable"]), options[question["variable"]]
            if question["type"] == "integer":
                assert option["type"] == "int" and question["min"] <= question["default"] <= question["max"], what
            elif question["type"] == "multiplechoice":
                assert question["choices"] == (["false", "true"] if option["type"] == "bool" else option["choices"]), what
                assert question["default"] in question["choices"], what
            else:
                assert question["type"] == "text" and option["type"] in ("str", "path") and option.get("default", "") == question["default"], what


@pytest.mark.parametrize(("playbook", "number"), [("restore", 1), ("recover", 2)])
def test_nothing_waits_for_a_terminal(defined, playbook, number):
    """Each asks its one question in the survey, and says no unless it is answered."""
    jobs = [job for job in defined["controller_templates"] if job["playbook"] == "playbooks/%s.yml" % playbook and job["job_type"] == "run"]
    answers = [question for job in jobs for question in job["survey_spec"]["spec"] if question["variable"] == "etcd_%s_confirm" % playbook]
    assert len(answers) == len(jobs) == number and all(answer["default"] == "false" for answer in answers)
