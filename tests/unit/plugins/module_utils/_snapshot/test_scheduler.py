# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runs of a node's own timer, with modules that only record their calls."""

from __future__ import annotations

import calendar
import json
import pathlib
import time

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.filter import schedule_off_site
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote.places import places
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import scheduler

ROOT = pathlib.Path(__file__).resolve().parents[5]
NAMES = ("n1", "n2", "n3")
# One for each time of the day at which clocks go forward anywhere.
ZONES = (
    "Africa/Cairo", "Atlantic/Canary", "Antarctica/Troll", "Australia/Lord_Howe", "Europe/Berlin",
    "Pacific/Chatham", "Europe/Athens", "Pacific/Easter", "America/Nuuk",
)


def config(tmp_path, **more):
    found = {"format": 1, "host": "cp1", "take": "one", "from": "", "delay": 5, "wait": 0, "timeout": 60, "lock_timeout": 0}
    found.update(state_dir=str(tmp_path / "state"), connection={"endpoint": "own"}, steps=[{"name": "take", "module": "etcd_snapshot", "args": {}}])
    return dict(found, **more)


class Modules:
    """Stands in for call_module on the node of `own`: a cluster whose leader may change from one look to the next, and steps that fail when they should."""

    def __init__(self, own="n1", leaders=("n1",), names=NAMES, down=(), fails=(), alarms=()):
        self.own, self.leaders, self.names, self.down, self.fails = own, list(leaders), names, down, fails
        self.alarms, self.called = list(alarms), []

    def etcd(self, name):
        members = [{"id": "id-" + one, "name": one, "peer_urls": [], "client_urls": [one], "is_learner": False} for one in self.names]
        etcd = {"reachable": True, "healthy": True, "error": None, "cluster_id": "c", "member_id": "id-" + name, "leader_id": "id-" + self.leaders[0]}
        etcd.update(is_leader=name == self.leaders[0], is_learner=False, revision=7, alarms=self.alarms, members_agreed=True, members=members)
        return etcd

    def __call__(self, module, args, check, seconds):
        if module == "etcd_cluster_info":
            name = self.own if args["endpoint"] == "own" else args["endpoint"]
            return {"etcd": {"reachable": False, "error": "it is down"} if name in self.down else self.etcd(name)}
        self.called.append((module, args, check))
        if module in self.fails:
            return {"failed": True, "msg": "it broke."}
        return {"changed": True, "snapshot": {"path": "/b/etcd-cp1.db", "size": 5, "revision": 7, "sha256": "ab" * 32}, "warnings": ["mind this"]}


def look(tmp_path, modules, **more):
    choice = scheduler.Choice(config(tmp_path, **more), lambda args: modules("etcd_cluster_info", args, False, 1))

    def later(_seconds):
        modules.leaders = modules.leaders[1:] or modules.leaders

    return choice.is_mine(sleep=later)


def test_one_of_three_takes_it_and_all_agree_which(tmp_path):
    for leader, taker in (("n1", "n2"), ("n2", "n1"), ("n3", "n1")):
        assert [name for name in NAMES if look(tmp_path, Modules(name, [leader]))] == [taker]
    assert [name for name in NAMES if look(tmp_path, Modules(name, ["n1"]), **{"from": "n3"})] == ["n3"]
    assert [name for name in ("n1", "n3") if look(tmp_path, Modules(name, ["n1"], down=["n2"]))] == ["n3"]
    assert look(tmp_path, Modules("n1", names=["n1"]))
    assert all(look(tmp_path, Modules(name), take="every") for name in NAMES)


@pytest.mark.parametrize("old", NAMES)
@pytest.mark.parametrize("new", NAMES)
def test_one_change_of_the_leader_does_not_leave_the_snapshot_out(tmp_path, old, new):
    # for each node the change comes before its first look, between its looks, or after its second; all first looks come before any second
    early = [[new, new], [old, new]]
    late = [[old, new], [old, old]]
    for when in (early, late):
        for bits in range(8):
            leaders = {name: when[bits >> number & 1] for number, name in enumerate(NAMES)}
            assert any(look(tmp_path, Modules(name, leaders[name])) for name in NAMES), (old, new, leaders)


@pytest.fixture
def slept(monkeypatch):
    """The seconds that a run would sleep while it waits for etcd."""
    found = []
    monkeypatch.setattr(scheduler.Choice.wait_for_etcd, "__defaults__", (found.append, time.monotonic))
    return found


def test_a_node_whose_etcd_is_down_fails(tmp_path, capsys, slept):
    assert scheduler.do_run(config(tmp_path), call=Modules("n1", down=["n1"])) == 1
    assert "FAILED: no snapshot was taken on this node after 0 seconds of waiting: it is down." in capsys.readouterr().out
    assert slept == [5]
    with pytest.raises(scheduler.Failed, match="is healthy"):
        look(tmp_path, Modules("n1", alarms=["CORRUPT"]))


def test_a_run_reports_what_it_did(tmp_path, capsys):
    modules = Modules("n1", names=["n1"])
    upload = {"path": {"$from": "take.snapshot.path"}, "deep": [{"x": {"$from": "take.snapshot.no.such"}}]}
    steps = [
        {"name": "take", "module": "etcd_snapshot", "args": {}},
        {"name": "upload", "module": "upload", "args": upload, "needs": ["take"]},
        {"name": "metrics", "module": "metrics", "args": {"ok": {"$from": "run.ok"}, "why": {"$from": "run.problem"}}},
    ]
    assert scheduler.do_run(config(tmp_path, steps=steps), call=modules) == 0
    assert [called[0] for called in modules.called] == ["etcd_snapshot", "upload", "metrics"]
    assert modules.called[1][1] == {"path": "/b/etcd-cp1.db", "deep": [{"x": None}]}
    assert modules.called[2][1] == {"ok": True, "why": None}
    state = json.loads((tmp_path / "state" / "last-run.json").read_text())
    assert state["ok"] and state["snapshot"] == "/b/etcd-cp1.db" and state["last_success"] == state["started"] and state["ended"]
    assert "WARNING: take: mind this" in capsys.readouterr().out

    # what fails stops what needs it, and nothing else
    modules = Modules("n1", names=["n1"], fails=["etcd_snapshot"])
    assert scheduler.do_run(config(tmp_path, steps=steps), call=modules) == 1
    assert [called[0] for called in modules.called] == ["etcd_snapshot", "metrics"] and modules.called[1][1] == {"ok": False, "why": "it broke."}
    modules = Modules("n1", names=["n1"], fails=["upload"])
    assert scheduler.do_run(config(tmp_path, steps=steps), call=modules) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("FAILED: upload: it broke. The snapshot is complete at /b/etcd-cp1.db. 2 runs in a row failed. The last that did not: ")
    assert json.loads((tmp_path / "state" / "last-run.json").read_text())["failures"] == 2


@pytest.mark.usefixtures("slept")
def test_steps_that_always_run_get_the_failure_of_a_run_that_could_not_begin(tmp_path):
    steps = [
        {"name": "take", "module": "etcd_snapshot", "args": {}},
        {"name": "metrics", "module": "metrics", "args": {"ok": {"$from": "run.ok"}, "why": {"$from": "run.problem"}}, "always": True},
    ]
    modules = Modules("n1", down=["n1"])
    assert scheduler.do_run(config(tmp_path, steps=steps), call=modules) == 1
    [(name, args, _check)] = modules.called
    assert name == "metrics" and args["ok"] is False and "it is down" in args["why"]
    # and of the steps that succeeded before it
    steps.insert(1, {"name": "upload", "module": "upload", "args": {}, "needs": ["take"]})
    steps[2]["args"] = {"off_site": {"$from": "run.well.upload"}, "nothing": {"$from": "run.well.prune"}}
    modules = Modules("n1", names=["n1"], fails=["upload"])
    assert scheduler.do_run(config(tmp_path, steps=steps), call=modules) == 1
    assert modules.called[-1][1] == {"off_site": False, "nothing": None}


@pytest.mark.usefixtures("slept")
def test_a_place_that_is_away_stops_no_other_and_fails_the_run(tmp_path, capsys):
    def steps_to(*places):
        found = [{"name": "take", "module": "etcd_snapshot", "args": {}}]
        for place in places:
            found.append({"name": "upload to " + place, "module": "etcd_snapshot_upload", "args": {"remote": place}, "needs": ["take"]})
            found.append({"name": "prune at " + place, "module": "etcd_snapshot_prune", "args": {"remote": place}, "needs": ["upload to " + place]})
        return [*found, {"name": "metrics", "module": "metrics", "args": {"off_site": {"$from": "run.off_site"}}, "always": True}]

    class Away(Modules):
        def __call__(self, module, args, check, seconds):
            found = super().__call__(module, args, check, seconds)
            return {"failed": True, "msg": "no route."} if args.get("remote") == "far:x" else found

    modules = Away("n1", names=["n1"])
    assert scheduler.do_run(config(tmp_path, steps=steps_to("far:x", "near:y")), call=modules) == 1
    assert [args.get("remote") for _name, args, _check in modules.called] == [None, "far:x", "near:y", "near:y", None]
    assert modules.called[-1][1] == {"off_site": False}
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAILED: upload to far:x: no route. The snapshot is complete at /b/etcd-cp1.db.")
    modules = Modules("n1", names=["n1"])
    assert scheduler.do_run(config(tmp_path, steps=steps_to("far:x", "near:y")), call=modules) == 0
    assert modules.called[-1][1] == {"off_site": True}


def test_a_full_disk_does_not_stop_the_run_that_frees_space(tmp_path, capsys, monkeypatch):
    def write(_state, _run):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scheduler.State, "write", write)
    modules = Modules("n1", names=["n1"])
    assert scheduler.do_run(config(tmp_path, steps=[{"name": "take", "module": "etcd_snapshot", "args": {}}]), call=modules) == 0
    assert [called[0] for called in modules.called] == ["etcd_snapshot"]
    assert "cannot be recorded in %s: No space left" % (tmp_path / "state" / "last-run.json") in capsys.readouterr().out


def test_reporting_steps_have_time_when_others_took_too_long(tmp_path):
    """Above all when all the others took too long."""
    steps = [
        {"name": "take", "module": "etcd_snapshot", "args": {}},
        {"name": "upload", "module": "upload", "args": {}},
        {"name": "metrics", "module": "metrics", "args": {}, "always": True},
    ]
    clock, given = [0.0], []

    def call(_module, _args, _check, seconds):
        given.append(seconds)
        clock[0] += 80
        return {}

    run = {"problem": None, "started": "2026-01-01T00:00:00Z", "steps": []}
    scheduler.run_steps(dict(config(tmp_path, steps=steps), timeout=100), False, run, call, lambda: clock[0])
    assert given == [100, 20, scheduler.ALWAYS]


def test_a_run_in_check_mode_leaves_no_trace(tmp_path, capsys):
    modules = Modules("n2", leaders=["n2"])
    steps = [{"name": "take", "module": "etcd_snapshot", "args": {}}, {"name": "upload", "module": "upload", "args": {}, "needs": ["take"], "in_check": False}]
    assert scheduler.do_run(config(tmp_path, steps=steps), check=True, call=modules) == 0
    assert modules.called == [("etcd_snapshot", {}, True)]
    said = capsys.readouterr().out
    assert "On this node it would be:" in said and "upload: would be done" in said
    assert not (tmp_path / "state" / "last-run.json").exists()


def test_invalid_settings_are_reported(tmp_path, capsys):
    path = tmp_path / "schedule.json"
    for text in (None, "{", "[]", '{"format": 2, "steps": []}'):
        if text is not None:
            path.write_text(text)
        assert scheduler.main(["run", str(path)]) == 1
        assert "playbook k8s_dr.etcd.schedule" in capsys.readouterr().out
    path.write_text(json.dumps(config(tmp_path, wait="5")))
    assert scheduler.read_config(str(path))["wait"] == 5


def test_the_timer_uses_the_arguments_of_the_playbook():
    timer = yaml.safe_load((ROOT / "roles/etcd_schedule/vars/main.yml").read_text())
    common = {"upload": timer["__etcd_schedule_upload"], "prune": timer["__etcd_schedule_prune"]}
    settings = timer["__etcd_schedule_place_settings"]
    for step in schedule_off_site.schedule_off_site(places("{{ __etcd_snapshot_away.remote }}"), settings, common, "/c")["steps"]:
        timer["__etcd_schedule_" + step["name"]] = step["args"]
    # the timer waits longer for the lock; it knows what was taken, and what a place has of its own, in another way
    for step, file, module, different in (
        ("take", "take", "etcd_snapshot", {"lock_timeout"}),
        ("upload", "send", "etcd_snapshot_upload", {"path", "rclone_config", "bwlimit", "keep", "object_lock_days"}),
        ("prune", "prune_off_site", "etcd_snapshot_prune", {"rclone_config", "keep"}),
        ("metrics", "metrics", "etcd_snapshot_metrics", {"success", "seconds", "off_site"}),
    ):
        [playbook] = list(used(yaml.safe_load((ROOT / ("roles/etcd_snapshot/tasks/%s.yml" % file)).read_text()), "k8s_dr.etcd." + module))
        # the timer's run reports no progress
        playbook.pop("progress", None)
        args = timer["__etcd_schedule_" + step]
        # what the playbook gives to a module the timer gives to it as well: add it to __etcd_schedule_take or _metrics, or to the filter schedule_off_site
        assert set(playbook) == set(args), step
        assert {name for name in args if playbook[name] != args[name]} == different, step


def used(tasks, module):
    """What every task that is of a module gives it."""
    for task in tasks:
        if module in task:
            yield task[module]
        for part in ("block", "rescue", "always"):
            yield from used(task.get(part, []), module)


@pytest.mark.parametrize(
    "zone, expression, lost",
    [
        # each seen with systemd 252: `systemd-analyze calendar --base-time=2027-03-27 --iterations=3` has no such day
        ("Europe/Berlin", "*-*-* 02:00:00", "Sun 2027-03-28 at 02:00:00: clocks go from 02:00 to 03:00"),
        ("America/New_York", "*-*-* 02:00:00", "Sun 2027-03-14 at 02:00:00"),
        ("America/Santiago", "daily", "Sun 2027-09-05 at 00:00:00: clocks go from 00:00 to 01:00"),
        ("UTC", "02:30:00 Europe/Berlin", "Sun 2027-03-28 at 02:30:00"),
        ("Europe/Berlin", "Sun 02:00", "Sun 2027-03-28 at 02:00:00"),
        ("America/New_York", "02/3:00", "Sun 2027-03-14 at 02:00:00"),
        # what has another run in its place at once is not lost
        ("Europe/Berlin", "hourly", None),
        ("Europe/Berlin", "*:0/15", None),
        ("Europe/Berlin", "Mon 02:00", None),
        ("Europe/Berlin", "2:00:00 UTC", None),
        ("UTC", "*-*-* 02:00:00", None),
        ("Europe/Berlin", "no expression", None),
    ],
)
def test_a_time_that_does_not_exist_where_clocks_go_forward_is_said(monkeypatch, zone, expression, lost):
    own = scheduler.gaps
    monkeypatch.setattr(scheduler, "gaps", lambda named, now: own(named or zone, now))
    monkeypatch.setenv("TZ", zone)
    try:
        found = scheduler.lost_runs(expression, calendar.timegm((2026, 11, 29, 0, 0, 0)))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (len(found) == 1 and lost in found[0]) if lost else found == []


def test_the_default_exists_every_day_in_every_time_zone():
    default = yaml.safe_load((ROOT / "roles/etcd_schedule/defaults/main.yml").read_text())["etcd_schedule_on_calendar"]
    assert default == "*-*-* 04:00:00"
    try:
        found = {zone: scheduler.gaps(zone) for zone in ZONES}
    finally:
        scheduler.gaps("")
    # of the 600 zones of tzdata these are the hours that are left out anywhere from 2026 to 2038
    assert sum(len(gaps) for gaps in found.values()) >= len(ZONES)
    assert not [zone for zone, gaps in found.items() for first, end in gaps if first.hour <= 4 < end.hour + end.minute / 60]
