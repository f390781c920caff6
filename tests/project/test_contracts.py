"""What is said in two places says the same in both."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.doc_fragments.etcd import ModuleDocFragment
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import CONNECTION_SPEC

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_describes_the_defaults(role):
    defaults = load("roles/%s/defaults/main.yml" % role)
    specs = load("roles/%s/meta/argument_specs.yml" % role)["argument_specs"]
    assert "main" in specs
    for point, spec in specs.items():
        assert (ROOT / "roles" / role / "tasks" / (point + ".yml")).exists()
        assert set(spec["options"]) == set(defaults), point
        for name, option in spec["options"].items():
            assert name.startswith(role + "_")
            if "default" in option and "{{" not in str(defaults[name]):
                assert option["default"] == defaults[name], name


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
    assert [play["strategy"] for play in load("playbooks/%s.yml" % playbook)] == ["ansible.builtin.linear"]


def tasks_of(found):
    """All tasks of a list, those in blocks included."""
    for task in found or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_of(task.get(part))


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/*/*.yml")), ids=lambda path: "-".join(path.parts[-3:]))
def test_nothing_on_the_controller_becomes_anybody(path):
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


def test_no_task_sets_an_option_of_the_user():
    """A fact is overruled by -e and by a survey, so that some tasks would go by the one and some by the other."""
    options = {name for role in ROLES for name in load("roles/%s/defaults/main.yml" % role)}
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        for task in tasks_of(load(path.relative_to(ROOT))):
            wrong = (set(task.get("ansible.builtin.set_fact", ())) | {task.get("register")}) & options
            assert not wrong, "%s: %s: %s" % (path.relative_to(ROOT), task.get("name"), wrong)
