# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rollback script, run by a real sh from every point of a restore."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import rollback_script, steps, timer
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.transaction import ORDER, Transaction, TransactionError
from ansible_collections.k8s_dr.etcd.tests.unit.plugins.module_utils._restore.node_directories import FILES, POINTS, Node, bring_to, units


@pytest.mark.parametrize("point", POINTS)
def test_rollback_from_every_point_and_again(node, point):
    bring_to(node, point)
    first = node.rollback()
    assert first.returncode == 0, first.stdout + first.stderr
    node.is_old()
    # with etcd's manifest it is restarted, so that it neither waits nor backs off, and lists again; without it has to run, and may have died
    assert node.kubelet() == ["start kubelet"] + (["restart kubelet"] if point not in ("begun", "staged", "stopping") else [])
    again = node.rollback()
    assert again.returncode == 0 and "already rolled back" in again.stdout
    node.is_old()


def without_text(node, text):
    """What ext4 with `discard` gives back of a state that a rename replaced shortly before the disk failed."""
    state = node.path / "state"
    before = node.transaction.state()
    state.write_text("\0" * state.stat().st_size if text == "zeros" else "")
    assert node.transaction.state() == before


@pytest.mark.parametrize("text", ["zeros", "nothing"])
@pytest.mark.parametrize("point", POINTS)
def test_a_state_without_its_text_is_in_the_log(node, point, text):
    bring_to(node, point)
    without_text(node, text)
    assert [one["state"] for one in node.listed()] == [node.transaction.state()[0]]
    done = node.rollback("--timer")
    assert done.returncode == 0, done.stdout + done.stderr
    node.is_old()


@pytest.mark.parametrize("text", ["zeros", "nothing"])
def test_a_finished_restore_stays_when_its_state_has_no_text(node, text):
    bring_to(node, "started")
    steps.commit(node.transaction, keep=3)
    without_text(node, text)
    done = node.rollback()
    assert done.returncode == 3 and "this restore was finished (20" in done.stdout
    assert node.rollback("--timer").returncode == 0 and node.data() == "new"
    assert node.rollback("--undo").returncode == 0 and node.data() == "old"


@pytest.mark.parametrize("point", ["stopped", "swapped"])
def test_a_manifest_that_is_a_relative_link_is_moved_back(node, point):
    link = node.manifests / FILES[1]
    elsewhere = node.manifests.parent / "elsewhere"
    elsewhere.mkdir()
    link.rename(elsewhere / "file")
    link.symlink_to("../elsewhere/file")
    bring_to(node, point)
    done = node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    assert link.is_symlink() and link.exists()
    node.is_old()


@pytest.mark.parametrize("point", ["stopping", "stopped", "started"])
def test_a_rollback_is_not_done_while_a_manifest_is_missing(node, point):
    bring_to(node, point)
    name = FILES[2]
    there = next(path for path in (node.manifests / name, pathlib.Path(node.plan["held"]) / name) if path.exists())
    saved = there.read_text()
    there.unlink()
    done = node.rollback()
    assert done.returncode == 8 and "done:" not in done.stdout
    assert "%s is missing, and not in %s: put it in %s by hand" % (name, node.plan["held"], node.manifests) in done.stdout
    assert "Now run: %s/rollback" % node.path in done.stdout
    assert node.transaction.state()[0] == "rolling-back"
    (node.manifests / name).write_text(saved)
    assert node.rollback().returncode == 0
    node.is_old()


@pytest.mark.parametrize("point", ["stopped", "swapping-1", "swapped", "started"])
def test_an_interrupted_rollback_is_finished_by_the_next(node, point):
    """The script is cut after each of its lines that move something; a second run ends it."""
    bring_to(node, point)
    saved = node.path.parents[3 if node.live.name != "member" else 4]
    script = (node.path / "rollback").read_text()
    moves = [number for number, line in enumerate(script.splitlines()) if re.search(r'(^ *|\|\| |; )mv (-T )?"', line)]
    assert len(moves) >= 5
    for number in moves:
        copy = saved.with_name(saved.name + "-%d" % number)
        shutil.copytree(saved, copy)
        lines = (script.replace(str(saved), str(copy))).splitlines()
        (copy / node.path.relative_to(saved) / "rollback").write_text("\n".join([*lines[: number + 1], "kill -9 $$", *lines[number + 1 :]]) + "\n")
        target = copy / node.path.relative_to(saved)
        subprocess.run(["sh", str(target / "rollback")], capture_output=True, check=False, timeout=60, env=node.environment)
        (target / "rollback").write_text("\n".join(lines) + "\n")
        done = subprocess.run(["sh", str(target / "rollback")], capture_output=True, text=True, check=False, timeout=60, env=node.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (copy / node.data_dir.relative_to(saved) / "member/snap/db").read_text() == "old"
        assert sorted(p.name for p in (copy / node.manifests.relative_to(saved)).iterdir()) == sorted([*FILES, "kube-vip.yaml"])


def test_what_was_written_since_is_kept_when_a_finished_restore_is_undone(node):
    bring_to(node, "started")
    steps.commit(node.transaction, keep=3)
    refused = node.rollback()
    assert refused.returncode == 3 and "--undo" in refused.stdout
    assert node.data() == "new"
    done = node.rollback("--undo")
    assert done.returncode == 0, done.stdout
    node.is_old()
    undone = node.path / "undone.1"
    assert ((undone if node.live.name == "member" else undone / "member") / "snap/db").read_text() == "new"


def test_manifests_stay_away_when_the_data_is_gone(node):
    """kubelet would make a brand-new empty cluster of a manifest without data."""
    bring_to(node, "swapping-1")
    shutil.rmtree(node.path / "old")
    done = node.rollback()
    assert done.returncode == 6 and "there is no old data, so nothing was done" in done.stdout
    assert node.manifest_names() == ["kube-vip.yaml"]
    # of several nodes each goes back
    (node.path / "decide").write_text("exit 1\n")
    done = node.rollback()
    assert done.returncode == 6 and "empty cluster" in done.stdout
    assert node.manifest_names() == ["kube-vip.yaml"]


def test_what_came_meanwhile_is_no_place_to_nest_data_in(node):
    """A data directory that is made anew between the two renames."""
    bring_to(node, "started")
    script = node.path / "rollback"
    whole = script.read_text()
    again = 'mkdir -p "$LIVE/member/snap"; flush "$T"; mv -T'
    script.write_text(whole.replace('flush "$T"; mv -T', again))
    done = node.rollback()
    assert done.returncode == 1 and "not empty" in done.stderr.lower()
    assert (node.path / "old").is_dir() and node.manifest_names() == ["kube-vip.yaml"]
    script.write_text(whole)
    assert node.rollback().returncode == 0
    node.is_old()
    assert (node.path / "undone.2").is_dir()


def test_rollback_goes_on_when_the_state_cannot_be_written(node):
    bring_to(node, "swapped")
    os.mkdir(node.path / "state.new")
    done = node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "disk full" in done.stdout
    assert node.data() == "old"


@pytest.mark.parametrize("code", [0, 1])
def test_rollback_writes_out_what_it_moved_and_waits_for_no_other_file_system(node, code):
    """A `sync` of all of them hangs on a dead NFS server.  That etcd has no manifest is on the disk before its data moves."""
    bring_to(node, "started")
    sync = node.systemctl.parent / "sync"
    sync.write_text('#!/bin/sh\necho "$*: $(ls %s | wc -l) $(cat %s/snap/db)" >> "%s.log"\nexit %d\n' % (node.manifests, node.data_dir / "member", sync, code))
    sync.chmod(0o755)
    done = node.rollback()
    assert done.returncode == 0, done.stdout + done.stderr
    node.is_old()
    asked = (sync.parent / "sync.log").read_text().splitlines()
    first, last, data = "-f %s: 1 new" % node.manifests, "-f %s: 5 old" % node.manifests, "-f %s: 1 old" % node.path
    assert {line.split(":")[0] for line in asked} == {"-f %s" % node.path, "-f %s" % node.manifests}
    assert asked.index(first) < asked.index(data) < asked.index(last)


@contextlib.contextmanager
def waiting_rollback(node, looks):
    """The script, once it has looked so often whether etcd has stopped, and slept because it had not."""
    log = node.root / "sleeps"
    log.touch()
    program = node.systemctl.parent / "sleep"
    program.write_text('#!/bin/sh\necho "$*" >> "%s"\ncommand -p sleep "$@"\n' % log)
    program.chmod(0o755)
    end = time.monotonic() + 30
    with subprocess.Popen(["sh", str(node.path / "rollback")], stdout=subprocess.DEVNULL, env=node.environment) as script:
        try:
            while len(log.read_text().splitlines()) < looks:
                assert script.poll() is None and time.monotonic() < end
                time.sleep(0.02)
            yield script
        finally:
            script.kill()


def test_rollback_waits_for_a_database_in_use(node):
    bring_to(node, "started")
    with open(node.data_dir / "member/snap/db") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with waiting_rollback(node, 2) as script:
            assert node.data() == "new"
            fcntl.flock(held, fcntl.LOCK_UN)
            assert script.wait(30) == 0
    node.is_old()


@pytest.mark.parametrize("point", POINTS)
def test_a_restore_onto_nothing(systemd, point):
    """The data was deleted: there is nothing to go back to, and the restore can be finished all the same."""
    node = systemd
    shutil.rmtree(node.live)
    node.begin()
    bring_to(node, point)
    if point not in ("begun", "staged"):
        before = tree(node)
        for argument in ([], ["--timer"]):
            done = node.rollback(*argument)
            assert done.returncode == (0 if argument else 6)
            assert "there is no old data, so nothing was done. Finish the restore: restore.yml" in done.stdout
            assert tree(node) == before
        # what etcd does not start on has to go, so that another snapshot can be restored
        done = node.rollback("--undo")
        assert done.returncode == 6 and "empty cluster" in done.stdout and not (node.data_dir / "member/snap").exists()
        command = re.search("Put the restored data there: (mv -T .*)[.] Now run", done.stdout).group(1)
        subprocess.run(["sh", "-c", command], check=True)
        assert node.rollback().returncode == 0
        assert node.data() == "new" and len(node.manifest_names()) == 5 and node.transaction.state()[0] == "rolled-back"
        return
    assert node.rollback().returncode == 0
    assert node.transaction.state()[0] == "rolled-back" and len(node.manifest_names()) == 5


def test_a_restore_onto_nothing_has_no_timer_left(systemd):
    shutil.rmtree(systemd.live)
    systemd.begin()
    systemd.stage()
    timer.arm(systemd.transaction, 900)
    steps.stop(systemd.transaction, 5)
    steps.swap(systemd.transaction)
    assert systemd.rollback("--timer").returncode == 0 and units(systemd) == []
    systemd.start()
    steps.commit(systemd.transaction, keep=3)
    assert systemd.rollback("--undo").returncode == 6
    assert systemd.data() == "new" and systemd.transaction.state()[0] == "committed"


def test_one_of_several_nodes_that_had_no_data_can_be_served_again(node):
    """Each of them goes back, and what is in undone.N is data to start from."""
    shutil.rmtree(node.live)
    node.begin()
    bring_to(node, "started")
    (node.path / "decide").write_text("exit 1\n")
    done = node.rollback()
    assert done.returncode == 6 and "Put the restored data there: mv -T %s/undone.1 %s." % (node.path, node.live) in done.stdout
    assert node.manifest_names() == ["kube-vip.yaml"]
    subprocess.run(["mv", "-T", str(node.path / "undone.1"), str(node.live)], check=True)
    assert node.rollback().returncode == 0
    assert node.data() == "new" and len(node.manifest_names()) == 5 and node.transaction.state()[0] == "rolled-back"


@pytest.mark.parametrize(
    ("data", "waits"),
    [("--data-dir=/var/etcd/calico-data", False), ("-data-dir\0/elsewhere", False), ("--data-dir=%s", True), ("--data-dir\0%s/", True), ("--name=cp1", True)],
)
@pytest.mark.parametrize("mounted", [False, True])
def test_rollback_does_not_wait_for_another_etcd(node, data, waits, mounted):
    if mounted:
        # its manifest mounts the data under another name, by which its process goes
        node.plan["served"], data = "/inside/etcd", data.replace("%s", "/inside/etcd")
        node.begin()
    bring_to(node, "swapped")
    with subprocess.Popen(["sleep", "60"]) as other:
        process = node.root / "proc" / str(other.pid)
        process.mkdir(parents=True)
        (process / "ns").symlink_to("/proc/self/ns")
        (process / "comm").write_text("etcd\n")
        (process / "cgroup").write_text("0::/kubepods/pod1/x\n")
        (process / "cmdline").write_bytes(("/usr/local/bin/etcd\0%s\0" % data.replace("%s", str(node.data_dir))).encode())
        try:
            if waits:
                with waiting_rollback(node, 1):
                    assert node.data() == "new"
            else:
                assert node.rollback().returncode == 0
                node.is_old()
            assert other.poll() is None
        finally:
            other.kill()


def test_kubelet_lists_again_even_when_the_rollback_was_cut_before_that(node):
    bring_to(node, "started")
    script = node.path / "rollback"
    whole = script.read_text()
    script.write_text(whole.replace("rmdir ", "exit 9; rmdir "))
    assert node.rollback().returncode == 9
    script.write_text(whole)
    assert node.rollback().returncode == 0
    assert node.kubelet()[-1] == "restart kubelet"
    node.is_old()


def test_a_manifest_that_was_being_written_when_the_node_died_is_not_left_behind(node):
    bring_to(node, "stopped")
    with open(os.path.join(node.plan["held"], FILES[0] + ".new"), "w") as stream:
        stream.write("half of")
    assert node.rollback().returncode == 0
    node.is_old()


def test_two_rollbacks_at_once(node):
    bring_to(node, "started")
    both = [subprocess.Popen(["sh", str(node.path / "rollback")], stdout=subprocess.PIPE, text=True, env=node.environment) for dummy in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    node.is_old()


def test_the_script_has_fewer_than_110_lines(node):
    lines = (node.path / "rollback").read_text().splitlines()
    assert len(lines) < 110
    assert lines[0] == "#!/bin/sh"
    assert "@" not in "".join(lines).replace("$@", "")


def test_a_rollback_asks_etcd_and_no_proxy(node):
    """curl would ask the proxy even for 127.0.0.1, and the API server would wait a minute for its answer."""
    asked = []

    class Etcd(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"health":"true"}')

        def log_message(self, *args):
            pass

    bring_to(node, "stopped")
    with http.server.HTTPServer(("127.0.0.1", 0), Etcd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script = node.path / "rollback"
        script.write_text(script.read_text().replace("HEALTH=''", "HEALTH=http://127.0.0.1:%d/health" % server.server_port))
        node.environment.update(dict.fromkeys(("http_proxy", "all_proxy"), "http://127.0.0.1:1"))
        begun = time.monotonic()
        assert node.rollback().returncode == 0
        server.shutdown()
    assert asked == ["/health"] and time.monotonic() - begun < 30
    node.is_old()


def test_after_a_rollback_nothing_is_left_to_swap_in(node):
    """Even where no state can be written: the step that is still to come finds nothing."""
    bring_to(node, "stopped")
    os.mkdir(node.path / "state.new")
    assert node.rollback().returncode == 0
    assert not (node.path / "staged").exists()
    (node.path / "state.new").rmdir()
    with pytest.raises(TransactionError, match="missing"):
        steps.swap(node.transaction)
    assert node.data() == "old"


@pytest.mark.parametrize(
    ("health", "asks"),
    [
        ("http://127.0.0.1:2381/health", "curl -gks  --noproxy '*' -m 2 \"$HEALTH\""),
        ("https://127.0.0.1:2381/health", "curl -gks --cert '/pki/a b.crt' --key /pki/b.key --noproxy '*' -m 2 \"$HEALTH\""),
    ],
)
def test_the_rollback_script_shows_a_certificate_where_etcd_says_health_over_tls(node, health, asks):
    script = rollback_script.rollback_script(dict(node.plan, health_url=health, tls={"cacert": "/pki/ca.crt", "cert": "/pki/a b.crt", "key": "/pki/b.key"}))
    assert asks in script and "HEALTH=%s " % health in script


class PowerCut(BaseException):
    """Nothing after it happens."""


def cut_at(node, state, monkeypatch):
    """Take the restore as far as its durable state `state`, and not a step further."""
    if state == "begun":
        return
    enter = Transaction._enter

    def enter_and_die(transaction, word):
        enter(transaction, word)
        if word == state:
            raise PowerCut

    with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
        patch.setattr(Transaction, "_enter", enter_and_die)
        node.stage()
        steps.stop(node.transaction, 5)
        steps.swap(node.transaction)
        if state in ("rolling-back", "rolled-back"):
            script = node.path / "rollback"
            whole = script.read_text()
            script.write_text(whole.replace("\nstate %s\n" % state, "\nstate %s; kill -9 $$\n" % state))
            assert node.rollback().returncode == -9
            script.write_text(whole)
        else:
            node.start()
            steps.commit(node.transaction, keep=3)
    assert node.transaction.state()[0] == state


def tree(node):
    """{path: content} of all that a restore may touch; of states without their times."""
    found = {}
    for directory, names, files in os.walk(node.root):
        for name in names:
            found[os.path.relpath(os.path.join(directory, name), node.root)] = None
        for name in files:
            path = os.path.join(directory, name)
            with open(path) as stream:
                lines = stream.read().replace(str(node.root), "ROOT").splitlines()
            if name in ("state", "log"):
                # that an undo was asked for comes where it was asked for
                lines = sorted((line.split(" ")[0] for line in lines), key="undo".__eq__)
            found[os.path.relpath(path, node.root)] = lines
    # systemd may be asked twice for what it has done
    return {path: content for path, content in found.items() if not path.startswith("bin")}


STATES = ["begun", *ORDER, "rolling-back", "rolled-back"]


@pytest.mark.parametrize("mount_point", [False, True], ids=["directory", "mount-point"])
@pytest.mark.parametrize("argument", [[], ["--timer"], ["--undo"]], ids=lambda value: "".join(value) or "plain")
@pytest.mark.parametrize("state", STATES)
def test_one_rollback_and_several_have_the_same_result(tmp_path, monkeypatch, state, argument, mount_point):
    # the disk outlives these cuts
    monkeypatch.setattr(os, "fsync", lambda _handle: None)
    ends = []
    # how many at once, one round after the other
    # of two that disagree about a validated restore the first one wins: see the next test
    timer_too = argument != ["--timer"] and state != "committing"
    for rounds in ([[argument], [argument]], [[argument, argument]], *([[[argument, ["--timer"]]]] if timer_too else [])):
        node = Node(tmp_path / str(len(ends)), mount_point)
        # when it writes out what is another test's
        node.quick("sync")
        cut_at(node, state, monkeypatch)
        before = tree(node)
        for together in rounds:
            started = [subprocess.Popen(["sh", str(node.path / "rollback"), *words], stdout=subprocess.DEVNULL, env=node.environment) for words in together]
            for process in started:
                process.wait(60)
            ends.append((rounds, tree(node)))
            if state == "committing" and argument == ["--timer"]:
                assert node.data() == "new" and node.transaction.state()[0] == "committed"
            elif state == "committed" and argument != ["--undo"]:
                assert node.data() == "new"
                assert ends[-1][1] == before
            else:
                node.is_old()
    for rounds, end in ends:
        assert end == ends[0][1], rounds


@pytest.mark.parametrize("argument", [[], ["--undo"]], ids=["plain", "undo"])
def test_a_timer_and_a_rollback_at_once_of_a_validated_restore(tmp_path, monkeypatch, argument):
    monkeypatch.setattr(os, "fsync", lambda _handle: None)
    for number in range(6):
        node = Node(tmp_path / str(number), False)
        node.quick("sync")
        cut_at(node, "committing", monkeypatch)
        argv, how = ["sh", str(node.path / "rollback")], {"stdout": subprocess.DEVNULL, "env": node.environment}
        both = [subprocess.Popen([*argv, *words], **how) for words in (["--timer"], argument)]
        timer_code, code = [process.wait(60) for process in both]
        assert timer_code == 0 and code in (0, 3)
        if code == 3:
            assert node.data() == "new" and node.transaction.state()[0] == "committed" and not argument
        else:
            node.is_old()
