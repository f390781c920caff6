"""What stands in two places is the same in both."""

from __future__ import annotations

import functools
import pathlib
import re

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.doc_fragments.etcd import ModuleDocFragment
from ansible_collections.k8s_dr.etcd.plugins.filter import restore_known, snapshot_known
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.client import CONNECTION_SPEC
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.clean import RULES, STATUS
from jinja2.nativetypes import NativeEnvironment

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


@functools.lru_cache(maxsize=None)
def load(path):
    return yaml.safe_load((ROOT / path).read_text())


# An option of a task whose value is an expression without braces.
CONDITIONS = ("when", "that", "failed_when", "changed_when", "until")


def expressions(found, key=""):
    """The Jinja in what a file has, without the text that is quoted in it."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from expressions(value, name)
    elif isinstance(found, list):
        for value in found:
            yield from expressions(value, key)
    elif isinstance(found, str):
        for text in [found] if key in CONDITIONS and "{{" not in found else re.findall(r"{[{%].*?[%}]}", found, re.DOTALL):
            yield re.sub(r"'[^']*'", "", text)


def included(role, task, tasks):
    """The task files that a task includes; where the name is an expression, the files that the variables in it, as these tasks and the role set them, name."""
    for action in ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks"):
        name = str(task.get(action, ""))
        yield from re.findall(r"\w+\.yml", name)
        for variable in re.findall(r"{{ (\w+) }}\.yml", name):
            values = [other["vars"][variable] for other in tasks if variable in other.get("vars", ())]
            values.append(variables_of(role, "vars").get(variable, ""))
            for word in set(re.findall(r"\w+", str(values))):
                if (ROOT / "roles" / role / "tasks" / (word + ".yml")).exists():
                    yield word + ".yml"


def files_of(role, point):
    """The task files that an entry point goes through."""
    found, tasks, todo = set(), [], [point + ".yml"]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            tasks += tasks_of(load("roles/%s/tasks/%s" % (role, name)))
            todo += [other for task in tasks for other in included(role, task, tasks)]
    return sorted(found)


def variables_of(role, kind):
    path = "roles/%s/%s/main.yml" % (role, kind)
    return (load(path) if (ROOT / path).exists() else {}) or {}


def read_by(role, point, options):
    """The options that the tasks of an entry point read, directly or by the role's variables and the defaults of other options."""
    variables = {**variables_of(role, "defaults"), **variables_of(role, "vars")}
    todo = [load("roles/%s/tasks/%s" % (role, name)) for name in files_of(role, point)]
    if "notify" in str(todo):
        todo.append(load("roles/%s/handlers/main.yml" % role))
    tasks = str(todo)
    todo += [[path.read_text()] for path in sorted((ROOT / "roles" / role).glob("templates/*.j2")) if path.stem in tasks]
    found = set()
    # what the first block sets by itself does not come from the role
    own = set(load("roles/%s/tasks/%s.yml" % (role, point))[0].get("vars", ()))
    while todo:
        part = todo.pop()
        names = {name for text in expressions(part) for name in re.findall(r"\b\w+", text)} - found - own
        # the filters that read variables by themselves
        if "restore_known" in names:
            names |= set(restore_known.OPTIONS.values()) | set(restore_known.SWITCHES.values()) - found - own
        if "snapshot_known" in names:
            names |= set(snapshot_known.OPTIONS.values()) - found - own
        found |= names
        todo += [variables[name] for name in sorted(names & set(variables))]
    return found & set(options)


def points_of(role):
    return sorted(load("roles/%s/meta/argument_specs.yml" % role)["argument_specs"])


def handed_on(role, options):
    """What other roles read of the settings of a role that they load: how to reach etcd."""
    found = set()
    for other in set(ROLES) - {role}:
        for point in points_of(other):
            found |= read_by(other, point, options)
    todo = sorted(found)
    while todo:
        names = {name for text in expressions(options[todo.pop()]) for name in re.findall(r"\b\w+", text)} & set(options) - found
        found |= names
        todo += names
    return found


@pytest.mark.parametrize("role", ROLES)
def test_entry_points_describe_the_defaults(role):
    defaults = load("roles/%s/defaults/main.yml" % role)
    specs = load("roles/%s/meta/argument_specs.yml" % role)["argument_specs"]
    assert "main" in specs
    assert {name for spec in specs.values() for name in spec["options"]} == set(defaults)
    for point, spec in specs.items():
        assert (ROOT / "roles" / role / "tasks" / (point + ".yml")).exists()
        for name, option in spec["options"].items():
            assert name.startswith(role + "_")
            if "default" in option and "{{" not in str(defaults[name]):
                assert option["default"] == defaults[name], (point, name)


@pytest.mark.parametrize(("role", "point"), [(role, point) for role in ROLES for point in points_of(role)])
def test_an_entry_point_documents_the_options_that_it_reads(role, point):
    options = load("roles/%s/defaults/main.yml" % role)
    documented = load("roles/%s/meta/argument_specs.yml" % role)["argument_specs"][point]["options"]
    read = read_by(role, point, options)
    if role == "etcd_client":
        # both of its entry points are applied by other roles, which then read its settings
        read |= handed_on(role, options)
    assert set(documented) == read


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_that_a_playbook_uses_is_described(role):
    specs = load("roles/%s/meta/argument_specs.yml" % role)["argument_specs"]
    for playbook in PLAYBOOKS:
        for play in load("playbooks/%s.yml" % playbook):
            for task in play.get("tasks", []):
                used = task.get("ansible.builtin.import_role", {})
                if used.get("name") == "k8s_dr.etcd." + role:
                    assert used.get("tasks_from", "main") in specs


def test_the_connection_is_documented_as_it_is():
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert set(documented) == set(CONNECTION_SPEC)
    for name, spec in CONNECTION_SPEC.items():
        assert documented[name]["type"] == spec["type"]
        assert documented[name].get("default") == spec.get("default")


def test_modules_that_take_the_connection_are_in_the_action_group():
    group = load("meta/runtime.yml")["action_groups"]["etcd"]
    takes = [name for name in MODULES if "CONNECTION_SPEC" in (ROOT / "plugins/modules" / (name + ".py")).read_text()]
    assert sorted(group) == takes


@pytest.mark.parametrize("name", PLAYBOOKS + ROLES + MODULES)
def test_the_readme_names_it(name):
    page = "docs/README.md" if name in MODULES else "README.md"
    text = (ROOT / page).read_text()
    assert "[%s]" % name in text or "`%s`" % name in text


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_every_play_is_linear(playbook):
    """Whatever ANSIBLE_STRATEGY says: hosts wait for each other, and one reads what another has found."""
    assert {play.get("strategy") for play in load("playbooks/%s.yml" % playbook)} == {"ansible.builtin.linear"}


def tasks_of(found):
    """All tasks of a list, those in blocks included."""
    for task in found or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_of(task.get(part))


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/*/*.yml")), ids=lambda path: "-".join(path.parts[-3:]))
def test_nothing_on_the_controller_uses_become(path):
    """ansible_become in the inventory beats the keyword, and is for the hosts."""
    content = load(path)
    for task in tasks_of(content if isinstance(content, list) else []):
        if task.get("delegate_to") == "localhost":
            assert task["vars"]["ansible_become"] is False and "become" not in task, task["name"]


def test_nothing_runs_hashkv_on_a_file():
    """`etcdutl hashkv` changes the snapshot that it reads (tests/integration/test_snapshot_info.py); `endpoint hashkv` asks an etcd."""
    found = []
    for part in ("plugins", "roles", "playbooks", "molecule", "bench", "tests/tools", "tests/sandbox"):
        for path in (ROOT / part).rglob("*"):
            if path.is_file() and not path.is_symlink() and path.suffix not in (".pyc", ".gz") and "ansible_collections" not in path.parts[len(ROOT.parts) :]:
                text = path.read_text(encoding="utf-8", errors="replace")
                found += [(str(path), line) for line in text.splitlines() if re.search(r"\bhashkv\b", line)]
    assert found
    assert [one for one in found if not re.search(r"\bendpoint\W{1,4}hashkv\b", one[1])] == []
    # a warning may name it, a command to be typed may not have it
    commands = [line for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")] for line in path.read_text().splitlines()]
    assert [line for line in commands if re.match(r"\s*(\$ |sudo )?etcdutl\b.*\bhashkv\b", line)] == []
    assert "Do not run `etcdutl hashkv` on a snapshot" in (ROOT / "docs/proof.md").read_text()


def test_every_task_that_can_check_a_signature_does():
    """A module that is not given the signers accepts a snapshot without a signature."""
    able = {"k8s_dr.etcd." + name for name in MODULES if "k8s_dr.etcd.signers" in (ROOT / "plugins/modules" / (name + ".py")).read_text()}
    assert len(able) > 5
    # a copy that is compared with what was just taken; nodes are looked at for other things than snapshots
    others = {"Verify the copy on the controller"}
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        for task in tasks_of(load(path.relative_to(ROOT))):
            for module in sorted(able & set(task)):
                if module != "k8s_dr.etcd.etcd_restore_info" and task["name"] not in others:
                    assert (task[module] or {}).get("signers") == "{{ etcd_client_signers }}", "%s: %s" % (path.relative_to(ROOT), task["name"])
    # what is named or comes from off-site is checked by the tasks above; the newest of a node by the look
    looked = load("roles/etcd_restore/vars/main.yml")["__etcd_restore_look_signers"]
    assert "signers=__etcd_restore_look_signers" in (ROOT / "roles/etcd_restore/tasks/main.yml").read_text()
    for off_site, snapshot, expected in (("", "", ["a key"]), ("s3:x", "", []), ("", "/a.db", [])):
        asked = {"off_site": off_site, "snapshot": snapshot}
        assert NativeEnvironment().from_string(looked).render(etcd_client_signers=["a key"], __etcd_restore_asked=asked) == expected


def test_no_task_sets_an_option_of_the_user():
    """A fact is overruled by -e and by a survey, so that some tasks would go by the one and some by the other."""
    options = {name for role in ROLES for name in load("roles/%s/defaults/main.yml" % role)}
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        for task in tasks_of(load(path.relative_to(ROOT))):
            wrong = (set(task.get("ansible.builtin.set_fact", ())) | {task.get("register")}) & options
            assert not wrong, "%s: %s: %s" % (path.relative_to(ROOT), task.get("name"), wrong)


def test_the_page_shows_what_recover_removes_from_an_object():
    text = (ROOT / "docs/recover.md").read_text()
    for what, why in [STATUS] + [(rule.what, rule.why) for rule in RULES]:
        assert "| %s | %s |" % (what, why) in text
