# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The error of a failed restore."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.failed_task import FilterModule as FailedTask, failed_task
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_outcome import FilterModule, restore_outcome

HERE = {"here": True, "task": "Start", "msg": "it did not start"}
ELSEWHERE = {"here": False, "task": "a task on another node", "msg": "see the task above"}
BACK = {"transaction": {"state": "rolled-back"}}
AGAIN = {"ok": True, "reachable": True, "layers": {}}
ROLLBACK = "Try again with: ansible-playbook k8s_dr.etcd.rollback -l cp1,cp2"


def known(**more):
    found = {"host": "cp1", "hosts": ["cp1", "cp2"], "failures": [HERE, ELSEWHERE], "present": [True, True], "restored": ["cp1", "cp2"], "retired": []}
    return dict(found, **dict({"begun": True, "kept": False, "before": False, "back": BACK, "again": AGAIN, "rollback_after": "900", "path": "/r/1"}, **more))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"begun": False}, "Nothing was changed."),
        ({"begun": False, "before": True}, "Nothing was changed: cp1 is stopped, as an earlier restore left it."),
        (
            {"kept": True},
            ("All nodes had voted, so cp1 keeps the restored data, and nothing is left to finish there. Validate the cluster with: ansible-playbook "
            "k8s_dr.etcd.validate -l cp1,cp2. If another node says that its restore is unfinished, finish it with: ansible-playbook k8s_dr.etcd.restore "
            "-l cp1,cp2 -e etcd_restore_unfinished=resume"),
        ),
        # the module that committed was killed, and the rollback refused; `resume` would begin a new restore
        (
            {"hosts": ["cp1"], "failures": [HERE], "present": [True], "restored": ["cp1"],
             "back": {"msg": "it was committed", "transaction": {"state": "committed"}}},
            ("The restore had committed, so cp1 keeps the restored data, and nothing is left to finish there. Validate the cluster with: ansible-playbook "
            "k8s_dr.etcd.validate -l cp1"),
        ),
        (
            {},
            ("The restore was rolled back: cp1 has its previous data, and the cluster works as before. The attempt is kept in /r/1. "
            "Validate the cluster with: ansible-playbook k8s_dr.etcd.validate -l cp1"),
        ),
        ({"again": {"reachable": True, "layers": {"a": {"problems": ["x is down"]}, "b": {"problems": ["y"]}}}}, "answers again, but: x is down; y. The"),
        ({"again": {"reachable": False, "layers": {"a": {"problems": ["no answer"]}}}}, "cluster does not answer yet: no answer. The attempt"),
        ({"again": None}, "cluster does not answer yet: no validation ran. The attempt"),
        (
            {"back": {"failed": False, "msg": "kubelet hangs.\n", "transaction": {"state": "swapped"}}},
            ('cp1 could NOT be rolled back: kubelet hangs. Its state is "swapped" (the control plane is stopped, with the restored data). Finish it with: '
            "ansible-playbook k8s_dr.etcd.restore -l cp1,cp2 -e etcd_restore_unfinished=resume. Or t" + ROLLBACK[1:]),
        ),
        ({"back": {"msg": "etcd does not stop", "transaction": {"state": "rolling-back"}}}, "(its rollback was interrupted). " + ROLLBACK),
        # where another node has gone back, to finish it would be a new restore
        ({"back": {"msg": "it is busy", "transaction": {"state": "swapped"}}, "backs": [{"transaction": {"state": "swapped"}}, BACK]}, "data). " + ROLLBACK),
        ({"back": {"msg": "it is busy", "transaction": {"state": "swapped"}}, "backs": [{"transaction": {"state": "swapped"}}, {}]}, "data). " + ROLLBACK),
        (
            {"back": {"msg": "there is no old data, so nothing was done", "transaction": {"state": "started"}}},
            "Finish it with: ansible-playbook k8s_dr.etcd.restore -l cp1,cp2 -e etcd_restore_unfinished=resume",
        ),
        ({"back": {"failed": False, "msg": "it crashed"}}, "cp1 could NOT be rolled back: it crashed. Its state is not known. " + ROLLBACK),
        ({"back": {}}, "cp1 could NOT be rolled back: no reason was given. Its state is not known. "),
        (
            {"retired": ["cp1"], "restored": ["cp2"], "back": {"skipped": True, "changed": False}},
            "cp1 stays stopped, because it is not confirmed that cp2 no longer serve the restored data. Its timer rolls it back later than theirs. " + ROLLBACK,
        ),
        ({"retired": ["cp1"], "restored": ["cp2"], "back": {"failed": False, "msg": "no"}}, "cp1 could NOT be rolled back: no."),
    ],
)
def test_where_the_host_is(more, words):
    found = restore_outcome(known(**more))
    assert found["message"].startswith('The restore failed on cp1 at "Start": it did not start. ') and words in found["message"]
    assert found["error"] == "cp1: Start: it did not start"


def test_a_failure_elsewhere():
    found = restore_outcome(known(failures=[ELSEWHERE, HERE]))
    assert found["message"].startswith('The restore failed on cp1 at "a task on another node": see the task above. The restore was rolled back')
    assert found["error"] == "cp2: Start: it did not start"


def test_a_host_that_became_unreachable():
    gone = {"failures": [ELSEWHERE, {}], "present": [True, False]}
    found = restore_outcome(known(**gone))
    assert found["message"].startswith(
        "The restore failed on cp1 at a task for which cp2 became unreachable. The rollback timer of cp2 decides there, 900 s after it was armed. The restore"
    )
    assert found["error"] == "a node became unreachable"
    assert "timer" not in restore_outcome(known(**gone, rollback_after=0))["message"]
    assert "timer" not in restore_outcome(known(**gone, begun=False))["message"]
    # its own failure says more
    assert '"Start"' in restore_outcome(known(failures=[HERE, {}], present=[True, False]))["message"]


def test_failed_task():
    assert failed_task({"msg": "no {{ braces }} {% x %}. \n"}, "Start") == {"here": True, "task": "Start", "msg": "no { { braces }} { % x %}"}
    assert failed_task({}, "Start")["msg"] == "see the task above"
    # what ansible-core 2.21 gives of a module that got SIGKILL; an earlier one says "MODULE FAILURE"
    killed = {"msg": "Module result deserialization failed: No start of json char found", "module_stdout": "", "module_stderr": "Killed\n", "rc": 137}
    assert failed_task(killed, "Start")["msg"] == "the module was killed on the node, as the kernel does when there is no memory left"
    assert failed_task({}) == failed_task(None) == ELSEWHERE
    # what was rescued before was no failure of the restore
    assert failed_task({"msg": "x"}, "Compare", "Compare") == ELSEWHERE


def test_ansible_finds_them():
    assert FilterModule().filters()["restore_outcome"] is restore_outcome and FailedTask().filters()["failed_task"] is failed_task
    with pytest.raises(AnsibleFilterError, match="a host and all hosts"):
        restore_outcome({})
