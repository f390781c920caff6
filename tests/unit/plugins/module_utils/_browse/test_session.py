# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import types
from operator import itemgetter

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import session
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import isolated_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import space
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, ToolResult
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import WorkDir

PROGRAMS = ("etcdctl", "etcdutl", "etcd", "kube-apiserver")
ETCDUTL = """case "$*" in version) echo etcdutl version: 3.7.3;; *--help) echo --data-dir; echo '  restore x';; *) %s;; esac"""


def program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with all that is needed, as options of a session; what systemd is asked is in `asked`."""
    (tmp_path / "run").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "snapshot.db").write_bytes(b"x" * 1000)
    for name, value in (
        ("DIRECTORY", str(tmp_path / "run/browse")),
        ("TMPFILES", str(tmp_path / "tmpfiles/browse.conf")),
        ("_STATE", str(tmp_path / "run/browse/state.json")),
        ("_SYSTEMD", str(tmp_path)),
    ):
        monkeypatch.setattr(session, name, value)
    asked, unit = [], ["inactive"]

    def run_tool(argv, timeout, **_more):
        asked.append(argv)
        if argv[0] == "/bin/sh":
            # what the unit would run as well
            subprocess.run(argv, check=True)
        return ToolResult(argv, 0, "ActiveState=%s\n" % ("inactive" if "stop" in map(itemgetter(1), asked) else unit[0]) if "show" in argv else "", "")

    monkeypatch.setattr(session, "run_tool", run_tool)
    tools = {name: tmp_path / name for name in PROGRAMS}
    program(tools["etcd"], "echo etcd Version: 3.7.3")
    program(tools["kube-apiserver"], "echo Kubernetes v1.37.2")
    program(tools["etcdctl"], "echo etcdctl version: 3.7.3")
    program(tools["etcdutl"], ETCDUTL % "true")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    options = {name.replace("-", "_"): str(path) for name, path in tools.items()}
    options.update(path=str(tmp_path / "snapshot.db"), temporary=False, sha256="", ttl=60, port=port, work_dir=str(tmp_path / "work"), encryption_config=None)
    options.update(manifests_dir=str(tmp_path / "none"), timeout=None, verify=False)
    return types.SimpleNamespace(options=options, asked=asked, unit=unit, path=tmp_path, port=port)


def refusal(host, **options):
    with pytest.raises(Refused) as caught, session.Session(dict(host.options, **options)) as one:
        one.check()
    assert not os.path.exists(session.DIRECTORY) and os.listdir(host.path / "work") == []
    return str(caught.value)


def test_a_host_with_everything_is_accepted(host):
    with session.Session(host.options) as one:
        one.check()


def test_one_sentence_for_what_is_missing(host, monkeypatch):
    assert refusal(host, etcd=str(host.path / "none")).endswith("none cannot be run: No such file or directory")
    assert "is not kube-apiserver" in refusal(host, kube_apiserver=host.options["etcd"])
    assert "there is neither etcdutl nor an etcdctl" in refusal(host, etcdutl=host.options["etcdctl"])
    assert "cannot be read on this host" in refusal(host, encryption_config="/nowhere")
    monkeypatch.setattr(session, "_SYSTEMD", "/nowhere")
    assert "systemd does not run on this host" in refusal(host)


def test_without_an_api_server(host, monkeypatch):
    monkeypatch.setattr(session, "_apiservers", list)
    assert refusal(host, kube_apiserver=None) == "no kube-apiserver runs on this host and no image of it is unpacked; give the path of one"


def test_a_taken_port(host):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert refusal(host, port=taken) == "port %d of 127.0.0.1 cannot be used on this host: Address already in use; choose another one" % taken
        # that of what is ended first is free by then
        with session.Session(dict(host.options, port=taken)) as one:
            one.check(replaces=True)
            with pytest.raises(Refused, match="Address already in use"):
                one.start()


def test_no_room(host, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda _path: 600_000_000)
    # of which 500 MB stay free
    assert refusal(host) == "%s has 600.0 MB free and serving the snapshot needs 667.8 MB" % host.options["work_dir"]


def test_no_memory(host, monkeypatch, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable:     400000 kB\n")
    check = isolated_server.check_memory
    monkeypatch.setattr(isolated_server, "check_memory", lambda size, **more: check(size, str(meminfo), **more))
    assert refusal(host) == "this host has 409 MB of memory available, and serving the snapshot needs 550 MB"


def test_a_snapshot_that_is_not_there(host):
    assert refusal(host, path="/nowhere/x.db") == "/nowhere/x.db cannot be read: No such file or directory"


def test_the_same_snapshot_asked_for_in_the_same_way_is_served_already(host):
    one = session.Session(dict(host.options))
    found = {"sha256": one.sha256, "asked": {name: host.options[name] for name in session._DECISIVE}, "expires": utc(time.time() + 50)}
    assert one.is_served(found) and not one.is_served(None)
    # another key may read what the last one could not
    assert not session.Session(dict(host.options, encryption_config="/new")).is_served(found)
    assert not session.Session(dict(host.options, sha256="0" * 64)).is_served(found)
    # what must not be replaced may be served in another way
    for options, is_served in (({"encryption_config": "/new"}, True), ({"port": 1}, False), ({"verify": True}, False)):
        assert session.Session(dict(host.options, replace=False, **options)).is_served(found) == is_served


@pytest.mark.parametrize(("left", "ttl", "timeout", "again"), [(190, 1800, None, True), (170, 1800, None, False), (40, 60, None, True), (20, 60, 15, True)])
def test_what_ends_soon_is_served_anew(host, left, ttl, timeout, again):
    one = session.Session(dict(host.options, ttl=ttl, timeout=timeout))
    found = {"sha256": one.sha256, "asked": {name: host.options[name] for name in session._DECISIVE}, "expires": utc(time.time() + left)}
    assert one.is_served(found) == again


def test_only_the_snapshot_that_is_meant_is_ended(host):
    os.mkdir(session.DIRECTORY)
    # another run begins
    session.end("a" * 64)
    with open(session._STATE, "w", encoding="utf-8") as stream:
        json.dump({"sha256": "b" * 64}, stream)
    session.end("a" * 64)
    assert not session.is_there("a" * 64) and session.is_there("b" * 64)
    session.end("b" * 64)
    assert not session.is_there()


def test_the_unit(host):
    one = session.Session(host.options)
    one._start_unit()
    (argv,) = host.asked
    settings = dict(argv[number + 1].split("=", 1) for number, word in enumerate(argv) if word == "--property")
    assert settings["RuntimeMaxSec"] == "60" and settings["ExecStopPost"] == "/bin/sh %s/remove" % session.DIRECTORY
    assert settings["OOMScoreAdjust"] == "1000" and settings["UMask"] == "0077" and settings["KillSignal"] == "SIGKILL"
    assert "--collect" in argv and argv[argv.index("--unit") + 1] == session.UNIT
    assert argv[-2:] == [session.DIRECTORY + "/supervisor.py", session.DIRECTORY]


def test_a_unit_that_does_not_start(host, monkeypatch):
    monkeypatch.setattr(session, "run_tool", lambda argv, timeout: ToolResult(argv, 1, "", "Failed to start: no bus"))
    with pytest.raises(Refused, match="the unit k8s-dr-browse cannot be started: `systemd-run` ended with code 1: Failed to start: no bus"):
        session.Session(host.options)._start_unit()

    def missing(argv, timeout):
        raise ToolError("systemd-run cannot be run: No such file or directory")

    monkeypatch.setattr(session, "run_tool", missing)
    with pytest.raises(Refused, match="systemd-run cannot be run"):
        session.Session(host.options)._start_unit()


def test_a_failed_start_leaves_nothing(host):
    program(host.path / "etcdutl", ETCDUTL % "exit 1")
    with session.Session(host.options) as one:
        one.check()
        with pytest.raises(Refused, match="the snapshot cannot be restored: `etcdutl snapshot restore` ended with code 1"):
            one.start()
    assert os.listdir(host.path / "run") == [] and os.listdir(host.path / "work") == [] and os.listdir(host.path / "tmpfiles") == []


@pytest.fixture
def copied(host):
    """The directory of a copy of the snapshot that was made for this."""
    directory = host.path / ".k8s-dr-copy"
    directory.mkdir()
    (host.path / "snapshot.db").rename(directory / "snapshot.db")
    host.options.update(path=str(directory / "snapshot.db"), temporary=True)
    return directory


def test_a_copy_is_removed_once_it_is_restored(host, copied, monkeypatch):
    left = []
    monkeypatch.setattr(session.Session, "_start_program", lambda self, *_program: left.append(copied.exists()))
    monkeypatch.setattr(session.read_only_etcd, "Gateway", lambda _socket: (_ for _ in ()).throw(Refused("enough")))
    with session.Session(host.options) as one:
        one.check()
        with pytest.raises(Refused, match="enough"):
            one.start()
    assert left == [False]


def test_a_copy_that_a_killed_run_leaves_is_removed_by_systemd(host, copied, monkeypatch):
    """While it is restored, the script of the unit and tmpfiles.d(5) know of it."""
    written = []

    def killed(self):
        with open(session.DIRECTORY + "/remove") as script, open(session.TMPFILES) as tmpfiles:
            written.extend([script.read(), tmpfiles.read()])
        raise Refused("killed")

    monkeypatch.setattr(session.Session, "_left", killed)
    with session.Session(host.options) as one:
        one.check()
        with pytest.raises(Refused, match="killed"):
            one.start()
    assert "rm -rf -- %s\n" % copied in written[0] and "R! %s\n" % copied in written[1]
    session.remove_copy(host.options)
    session.remove_copy(host.options)
    assert not copied.exists()


def test_only_a_directory_that_was_made_for_it_is_removed(host):
    with pytest.raises(Refused, match=r"is no temporary copy, since the name of its directory does not begin with \.k8s-dr-"):
        session.remove_copy(dict(host.options, temporary=True))
    session.remove_copy(host.options)
    assert os.path.exists(host.options["path"])


def test_one_at_a_time(host):
    os.mkdir(session.DIRECTORY)
    with session.locked(session.DIRECTORY), pytest.raises(Refused, match="another run begins to serve a snapshot"):
        session.end()
    session.end()
    assert not os.path.exists(session.DIRECTORY)


def test_a_run_that_begins_while_another_one_looks_is_left_alone(host, monkeypatch):
    """The other one found no directory, and removes nothing that was made since."""
    mkdir = os.mkdir
    monkeypatch.setattr(session.os, "mkdir", lambda path, mode: (mkdir(path, mode), stack.enter_context(session.locked(path)), mkdir(path, mode)))
    with contextlib.ExitStack() as stack:
        with pytest.raises(Refused, match="another run begins to serve a snapshot"):
            session.end()
        assert os.path.isdir(session.DIRECTORY)
        monkeypatch.setattr(session.os, "mkdir", mkdir)
        with session.Session(host.options) as one, pytest.raises(Refused, match="another run begins to serve a snapshot"):
            one.start()


def test_the_removal_takes_all_and_only_that(host, monkeypatch):
    monkeypatch.setattr(session, "run_tool", lambda argv, timeout: ToolResult(argv, subprocess.run(argv, check=False).returncode, "", ""))
    monkeypatch.setattr(session, "has_ended", lambda: True)
    strange = host.path / "work/it's a\\nstrange %s place"
    for path in (strange, host.path / "work/other", host.path / "tmpfiles", host.path / "run/browse"):
        path.mkdir()
    (host.path / "run/browse/remove").write_text(session._removal([str(strange)]))
    (host.path / "tmpfiles/browse.conf").write_text("")
    assert session.is_there()
    session.end()
    assert sorted(os.listdir(host.path / "work")) == ["other"] and os.listdir(host.path / "run") == [] and os.listdir(host.path / "tmpfiles") == []
    assert not session.is_there()


@pytest.mark.parametrize("unit", ["active", "activating", "deactivating", ""])
def test_a_unit_that_has_not_ended_is_waited_for(host, unit):
    """One whose time is over removes its files a moment later; those of the next one would be at the same place."""
    host.unit[0] = unit
    assert session.is_there() and session.is_active() == (unit == "active")
    session.end()
    assert ["systemctl", "stop", "k8s-dr-browse.service"] in host.asked and not session.is_there()


def test_a_unit_that_has_ended_needs_no_end(host):
    for host.unit[0] in ("inactive", "failed"):
        session.end()
    assert [argv[1] for argv in host.asked] == ["show", "show"]


def test_the_directory_that_holds_the_lock_goes_last(host, monkeypatch):
    for path in (session.DIRECTORY, os.path.dirname(session.TMPFILES)):
        os.mkdir(path)
    open(session.TMPFILES, "w").close()
    monkeypatch.setattr(session.shutil, "rmtree", lambda path, **_how: os.path.exists(session.TMPFILES) and pytest.fail("its lock is gone already"))
    session.end()


def test_a_path_in_tmpfiles():
    assert session._escaped("/var/lib/.k8s-dr-x") == "/var/lib/.k8s-dr-x"
    assert session._escaped("/a b/100%/x*") == "/a\\x20b/100%%/x[*]"


def test_a_state_counts_only_while_the_unit_runs(host, monkeypatch):
    os.mkdir(session.DIRECTORY)
    with open(session._STATE, "w", encoding="utf-8") as stream:
        json.dump({"revision": 1}, stream)
    assert session.state() is None
    monkeypatch.setattr(session, "is_active", lambda: True)
    assert session.state() == {"revision": 1}


def test_what_the_log_says(tmp_path):
    with open(tmp_path / "api", "w+b") as apiserver, open(tmp_path / "etcd", "w+b") as etcd:
        log = session._Log(apiserver, etcd)
        assert log.words("no") == "no" and log.fatal() == "" and not log.refused()
        etcd.write(b'{"level":"fatal","msg":"discovery failed","error":"no data"}\n')
        assert log.words("no") == "no: discovery failed no data"
        apiserver.write(b'E1130 09:20:38.0 1 autoregister_controller.go:198] "Unhandled Error" err="v1.apps failed with : etcdserver: permission denied"\n')
        assert log.refused() and log.fatal() == ""
        apiserver.write(b'F1130 09:20:39.1    2459 hooks.go:203] PostStartHook "x" failed: etcdserver: permission denied\n')
        assert log.words("no") == 'no: PostStartHook "x" failed: etcdserver: permission denied'


def test_a_directory_that_is_handed_over_is_in_use_until_its_new_owner_ends(tmp_path):
    with WorkDir(str(tmp_path)) as work:
        work.share()
        # without a shell, or its child would go on
        other = subprocess.Popen(["flock", "--shared", "--no-fork", work.lock, "sleep", "60"], stdout=subprocess.PIPE)
        time.sleep(0.5)
        work.hand_over()
    with WorkDir(str(tmp_path)):
        assert os.path.isdir(work.path)
    other.kill()
    other.communicate()
    with WorkDir(str(tmp_path)):
        assert not os.path.exists(work.path)


@pytest.mark.parametrize(("cluster", "fits"), [("1.38.0", False), ("1.37.9", True), ("1.20.2", True), ("", True)])
def test_a_snapshot_of_a_newer_kubernetes(host, cluster, fits):
    with session.Session(host.options) as one:
        one.check()
        reader = types.SimpleNamespace(cluster_version=lambda: cluster)
        if fits:
            one._check_version(reader)
            return
        with pytest.raises(Refused, match=r"the snapshot is of Kubernetes 1\.38\.0, and kube-apiserver 1\.37\.2 does not know all that is in it"):
            one._check_version(reader)


class Waits:
    """A reader whose answers are given, one for each question; the last one stays."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def waits_for(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def serving(host, monkeypatch):
    """A function that waits for a server of these answers, with this log: (what it returns, as which users the API server was started)."""
    monkeypatch.setattr(session, "_STUCK", 0.2)
    monkeypatch.setattr(session, "_SLOW", 1.0)
    monkeypatch.setattr(session, "is_active", lambda: True)

    def wait(*answers, refused=False, corrupt=False, fatal="", seconds=5):
        one = session.Session(dict(host.options, timeout=seconds))
        clients = []
        one._start_apiserver = lambda work, client: clients.append(client)
        log = types.SimpleNamespace(refused=lambda: refused, corrupt=lambda: corrupt, fatal=lambda: fatal)
        return one._serve("", Waits(*answers), log), clients

    return wait


NEEDS, ENCRYPTED = {"autoregister-completion"}, {"informer-sync"}


def test_a_server_that_gets_ready(serving):
    assert serving(None, {"ready"}, NEEDS, set()) == ((False, True), ["reading"])


def test_what_is_refused_and_needed_is_completed(serving):
    assert serving(*[NEEDS] * 8, set(), refused=True) == ((True, True), ["reading", "completing"])


def test_a_slow_machine_gets_time_before_anything_is_completed(serving):
    assert serving(*[NEEDS] * 5, set()) == ((False, True), ["reading"])
    assert serving(*[NEEDS] * 30, set()) == ((True, True), ["reading", "completing"])


def test_a_server_that_ended_for_a_refused_write_is_started_again(serving):
    assert serving(None, None, set(), fatal="unable to add default system priority classes: etcdserver: permission denied")[1] == ["reading", "completing"]


def test_without_a_key_the_rest_is_served(serving):
    assert serving(ENCRYPTED, corrupt=True) == ((False, False), ["reading"])
    assert serving(*[ENCRYPTED | NEEDS] * 8, ENCRYPTED, refused=True, corrupt=True)[0] == (True, False)


def test_what_does_not_get_ready_is_named(serving):
    with pytest.raises(Refused, match=r"did not serve it in time, it waits for informer-sync"):
        serving(ENCRYPTED, seconds=1)


def test_what_ended_is_reported(serving, monkeypatch):
    monkeypatch.setattr(session, "is_active", lambda: False)
    with pytest.raises(Refused, match="the API server does not start with it"):
        serving(None)
