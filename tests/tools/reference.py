# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reference of modules, filters, roles and playbooks as a site, by antsibull-docs and Sphinx. Run it in the environment `docs`.

Whatever is wrong with a description ends it: a field that is missing, an option that does not exist, a link that leads nowhere.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE = ROOT / "reports" / "reference"
CONF = """
project = "k8s_dr.etcd"
html_title = "k8s_dr.etcd {version}"
extensions = ["sphinx_antsibull_ext"]
html_theme = "alabaster"
html_theme_options = {{"nosidebar": True, "page_width": "72em"}}
"""
# What Ansible's own site explains is linked by name, and is not at hand here.
ELSEWHERE = (
    *("ansible_collections.ansible.builtin.%s_module" % name for name in ("assert", "copy", "fetch")),
    *("action_plugins", "ansible_configuration_settings", "common_return_values"),
)


def run(*args):
    """What a program of this environment said, which must not fail."""
    command = [pathlib.Path(sys.executable).with_name(args[0]), *map(str, args[1:])]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if process.returncode:
        sys.exit("%s ended with code %d:\n%s" % (args[0], process.returncode, process.stdout))
    return process.stdout


def role_of(play):
    """(role, entry point) of a play."""
    if "roles" in play:
        return play["roles"][0]["role"], "main"
    [task] = play["tasks"]
    role = task["ansible.builtin.import_role"]
    return role["name"], role.get("tasks_from", "main")


def playbooks():
    """A page about them, out of what they say themselves: antsibull-docs knows none."""
    yield from [".. _ansible_collections.k8s_dr.etcd.docsite.playbooks:", "", "Playbooks", "=========", ""]
    yield "Each runs as ``ansible-playbook k8s_dr.etcd.NAME``; all variables of a playbook are those of its role's entry point."
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        text = path.read_text(encoding="utf-8")
        # the last one does the work, what stands before it checks that there is a machine for it
        *_, play = yaml.safe_load(text)
        role, entry = role_of(play)
        yield from ["", path.stem, "-" * len(path.stem), "", play["name"] + ".", ""]
        for line in re.findall(r"^# (.+)$", text, re.MULTILINE):
            yield from ["``%s``" % line if line.startswith("ansible-playbook") else line, ""]
        yield "Variables: :ref:`%s <ansible_collections.%s_role>`, entry point ``%s``." % (role, role, entry)


def main():
    """Rebuild the site."""
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    with tempfile.TemporaryDirectory() as work:
        collection = pathlib.Path(work, "ansible_collections", "k8s_dr", "etcd")
        source = pathlib.Path(work, "rst")
        collection.mkdir(parents=True)
        source.mkdir()
        # it refuses what others could write to
        source.chmod(0o755)
        subprocess.run([ROOT / "tests/tools/copy_tree", collection], check=True)
        docsite = collection / "docs" / "docsite"
        (docsite / "rst").mkdir(parents=True)
        (docsite / "rst" / "playbooks.rst").write_text("\n".join(playbooks()) + "\n", encoding="utf-8")
        (docsite / "extra-docs.yml").write_text(yaml.safe_dump({"sections": [{"title": "Playbooks", "toctree": ["playbooks"]}]}), encoding="utf-8")
        os.environ["ANSIBLE_COLLECTIONS_PATH"] = work
        run("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", "--validate-collection-refs", "self", collection)
        run("antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error", "--dest-dir", source, "k8s_dr.etcd")
        pathlib.Path(work, "conf.py").write_text(CONF.format(version=version), encoding="utf-8")
        said = run("sphinx-build", "-q", "-n", "-E", "-c", work, "-d", pathlib.Path(work, "doctrees"), source, SITE)
    wrong = [line for line in said.splitlines() if "WARNING" in line and not any("undefined label: '%s'" % name in line for name in ELSEWHERE)]
    if wrong:
        sys.exit("\n".join(wrong))
    pages = list(SITE.rglob("*.html"))
    print("%s: %d pages" % (SITE / "index.html", len(pages)))


if __name__ == "__main__":
    main()
