# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
import yaml
from ansible.errors import AnsibleLookupError
from ansible_collections.k8s_dr.etcd.plugins.lookup import schedule_program

ROOT = pathlib.Path(__file__).resolve().parents[4]


def scheduled_modules():
    return yaml.safe_load((ROOT / "roles/etcd_schedule/vars/main.yml").read_text())["__etcd_schedule_modules"]


def test_equal_modules_make_equal_bytes_and_know_what_they_import():
    files = schedule_program.contents(["etcd_snapshot"])
    assert schedule_program.archive(files) == schedule_program.archive(schedule_program.contents(["etcd_snapshot"]))
    for name in ("_etcd/client", "_snapshot/scheduler", "_snapshot/manifest", "_etcd/isolated_server"):
        assert "ansible_collections/k8s_dr/etcd/plugins/module_utils/%s.py" % name in files
    assert "ansible/module_utils/basic.py" in files and "ansible/module_utils/urls.py" not in files
    assert not any("kube_" in name or "/filter/" in name for name in files)


def test_every_scheduled_module_starts_without_an_installed_ansible(tmp_path):
    modules = ["etcd_cluster_info"] + scheduled_modules()
    program = tmp_path / "program.pyz"
    program.write_bytes(schedule_program.archive(schedule_program.contents(modules)))
    for name in modules:
        # an option that no module has, so that none does anything
        args = json.dumps({"ANSIBLE_MODULE_ARGS": {"no_such_option": 1}})
        command = [sys.executable, "-I", "-S", str(program), "module", name]
        found = subprocess.run(command, input=args, capture_output=True, text=True, timeout=60, check=False)
        said = json.loads(found.stdout)["msg"]
        assert "no_such_option" in said or "missing required arguments" in said, (name, found)


def test_an_unknown_module_is_refused():
    with pytest.raises(AnsibleLookupError, match="no module no_such"):
        schedule_program.contents(["no_such"])


def test_imports_of_every_form_are_seen():
    source = "import a.b\nfrom . import c\nfrom ..d import e\nx = 'ansible.module_utils.six'\ndef f():\n    from g import h\n"
    assert set(schedule_program.imports("p.q.r", False, source)) == {"a.b", "p.q", "p.q.c", "p.d", "p.d.e", "ansible.module_utils.six", "g", "g.h"}
    assert "p.q.r.c" in set(schedule_program.imports("p.q.r", True, source))
