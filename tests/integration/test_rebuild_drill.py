# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill of a rebuild says when it fails before it begins, with the real `ansible-playbook` and no cluster."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import harness
import pytest

ROLE = harness.ROOT / "roles" / "cluster_rebuild"
NO_MACHINE = "This run has no machine for drills"
NO_SNAPSHOT = "There is no snapshot to rebuild from"


def run(tmp_path, playbook, *arguments, inventory="drill1,", **variables):
    """(code, what it says with each run of blanks as one, its custom stats)"""
    command = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), "-c", "local", str(playbook), *arguments]
    given = {"ansible_python_interpreter": sys.executable, "ansible_become": False, "__cluster_rebuild_state_dir": str(tmp_path / "state"), **variables}
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env.update(ANSIBLE_NOCOLOR="1", ANSIBLE_COLLECTIONS_PATH=str(harness.COLLECTIONS), ANSIBLE_HOME=str(tmp_path / "ansible"), ANSIBLE_SHOW_CUSTOM_STATS="1")
    process = subprocess.run(
        [*command, "-e", json.dumps(given)], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )
    output, _mark, stats = process.stdout.partition("CUSTOM STATS:")
    stats = stats.partition("RUN: ")[2].strip()
    return process.returncode, " ".join((output + process.stderr).split()), json.loads(stats)["cluster_rebuild_drill"] if stats else None


@pytest.mark.parametrize(
    ("hosts", "arguments", "words"),
    [
        ("", [], NO_MACHINE),
        ("[control_plane]\ncp1\n", [], NO_MACHINE),
        ("[control_plane]\ncp1\n[rebuild_drill]\ndrill1\n", ["-l", "cp1"], NO_MACHINE),
        ("[control_plane]\ncp1\n[rebuild_drill]\ndrill1\n", ["-l", "drill1"], NO_SNAPSHOT),
        ("[control_plane]\ncp1\n[rebuild_drill]\ndrill1\n", [], NO_SNAPSHOT),
        ("[elsewhere]\ndrill2\n", ["-e", "k8s_dr_hosts=elsewhere"], NO_SNAPSHOT),
    ],
)
def test_a_drill_without_a_machine_fails(tmp_path, hosts, arguments, words):
    """A schedule would call it a success."""
    (tmp_path / "hosts").write_text(hosts)
    code, output, stats = run(tmp_path, harness.ROOT / "playbooks/rebuild_drill.yml", "--check", *arguments, inventory=tmp_path / "hosts")
    assert code != 0 and words in output, output
    assert stats is None if words == NO_MACHINE else (stats["result"], stats["snapshot"]) == ("failed", "")


def test_a_drill_that_fails_before_it_begins_has_a_result(tmp_path):
    """A bundle is not enough most often where it is fetched, decrypted and read."""
    code, output, stats = run(tmp_path, harness.ROOT / "playbooks/rebuild_drill.yml", k8s_dr_hosts="all", cluster_rebuild_snapshot=str(tmp_path / "no.db"))
    assert code != 0 and 'The drill on drill1 failed at "Read which cluster it is of"' in output, output
    assert (stats["result"], stats["snapshot"]) == ("failed", str(tmp_path / "no.db")) and "isolation" not in stats["phases"]
    assert stats["error"].startswith('"Read which cluster it is of" failed: ') and str(tmp_path / "no.db") in stats["error"]
    assert "would fail as well" not in output


BEFORE, AFTER = {"images": 1}, {"images": 1, "isolation": 2}


@pytest.mark.parametrize(
    ("phases", "holder", "said"),
    [
        (BEFORE, None, False),
        # another run has taken over
        (AFTER, "other", False),
        (AFTER, "", False),
        (AFTER, "mine", True),
    ],
)
def test_a_failed_drill_says_only_what_it_has_found_out(tmp_path, phases, holder, said):
    given = {"__cluster_rebuild_phases": phases, "__cluster_rebuild_run": "mine", "__cluster_rebuild_got": {"source": "s3:b/one.db"}}
    given.update({} if holder is None else {"__cluster_rebuild_holder": {"stdout": holder}})
    fails = {"name": "Fail", "ansible.builtin.fail": {"msg": "why"}}
    tasks = [{"block": [fails], "rescue": [{"ansible.builtin.import_tasks": str(ROLE / "tasks/failed.yml")}]}]
    play = {"hosts": "all", "gather_facts": False, "vars_files": [str(ROLE / "vars/main.yml"), str(ROLE / "defaults/main.yml")], "tasks": tasks}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    code, output, stats = run(tmp_path, tmp_path / "play.json", **given)
    assert code != 0 and 'The drill on drill1 failed at "Fail": why.' in output, output
    assert ("Unless the cause is this machine, a rebuild from s3:b/one.db would fail as well. Logs of" in output) == said
    assert ("made is removed next." in output) == said and "Run the same command again when that is solved." in output
    assert stats == {"result": "failed", "error": '"Fail" failed: why.', "snapshot": "s3:b/one.db", "phases": phases}


def test_the_words_and_the_command_of_a_drill(tmp_path):
    proof = {"objects": 7, "resources": 2, "unserved": {"old.example.com/things": 3}, "token": "system:serviceaccount:shop:web, by a new token"}
    given = {"__cluster_rebuild_drill": True, "__cluster_rebuild_kubeadm": "/usr/bin/kubeadm", "__cluster_rebuild_proven": {"proof": proof}}
    given.update(__cluster_rebuild_phases={"start": 1}, __cluster_rebuild_got={"source": "s3:b/one.db"})
    shown = {name: "{{ __cluster_rebuild_%s }}" % name for name in ("drilled", "init")}
    tasks = [{"ansible.builtin.copy": {"content": "{{ %s | to_json }}" % json.dumps(shown).replace('"{{ ', "").replace(' }}"', ""), "dest": "{{ out }}"}}]
    play = {"hosts": "all", "gather_facts": False, "vars_files": [str(ROLE / "vars/main.yml"), str(ROLE / "defaults/main.yml")], "tasks": tasks}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    code, output, _stats = run(tmp_path, tmp_path / "play.json", out=str(tmp_path / "out.json"), **given)
    assert code == 0, output
    found = json.loads((tmp_path / "out.json").read_text())
    assert 'It has no API for these, so they were only counted: {"old.example.com/things": 3}.' in " ".join(found["drilled"])
    # without the proxies of /etc/environment: kubeadm would ask them for the copy
    before = found["init"].index("nsenter")
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "http://192.0.2.3:3128")
    left = subprocess.run([*found["init"][:before], "env"], env=dict(os.environ, **proxies), capture_output=True, text=True, check=True).stdout
    assert "192.0.2.3" not in left and "PATH=" in left
    assert found["init"][before:] == ["nsenter", "--net=/run/netns/k8s-dr-drill", "/usr/bin/kubeadm", "init", "phase"]
