# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node's own timer runs: the modules of this collection, one after the other, without a controller.

    PROGRAM run [OPTION ...] [CONFIG]          the steps of CONFIG; 0: done, or not this node's turn; 1: a step failed; 75: another run is under way
    PROGRAM module NAME                        that module, as Ansible runs it: arguments as JSON on stdin, result as JSON on stdout
    PROGRAM calendar EXPRESSION                a line for each time in the next year that does not exist where clocks go forward

PROGRAM is an archive that the lookup plugin schedule_program makes.  CONFIG is what the role etcd_schedule writes:

    {"format": 1, "host": NAME, "take": "one" or "every", "from": MEMBER, "delay": S, "wait": S, "timeout": S, "lock_timeout": S,
     "state_dir": DIR, "connection": {…}, "steps": [{"name": …, "module": …, "args": {…}, "needs": [NAME, …], "always": BOOL, "in_check": BOOL}, …]}

A step runs when every step that it needs did what it should; one with "always": true also when no step could be begun.  {"$from":
"take.snapshot.path"} as an argument is what that step returned; "run" is a step of that kind that always is there: {"ok", "problem", "started",
"seconds", "well": {NAME: BOOL}, "off_site": whether all uploads went well} of this run so far.  Private to this collection.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import member_selection as snapshot_selection
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import write_durably
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.lock import Busy, NamedLock
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import run_tool

CONFIG = "/etc/k8s-dr-etcd/schedule.json"
MODULES = "ansible_collections.k8s_dr.etcd.plugins.modules."
FORMAT = 1
NUMBERS = ("delay", "wait", "timeout", "lock_timeout")
BUSY = 75
# An object inventory of a hundred thousand namespaces has some 50 MB.
MAX_OUTPUT = 256 * 1024 * 1024
# What the role etcd_schedule looks for.
NOTHING = "Nothing to do on this node."
# Seconds that a step has which is always run, however long the others took.
ALWAYS = 60
HALF_AN_HOUR = 1800
MOMENT = "%Y-%m-%d %H:%M:%S"
SECOND = datetime.timedelta(seconds=1)
# Seconds in which a module that is ended puts away what is half done.
PUT_AWAY = 60


class Failed(Exception):
    """One sentence for the operator."""


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read_config(path):
    try:
        with open(path, "rb") as stream:
            config = json.loads(stream.read().decode("utf-8"))
    except OSError as exc:
        raise Failed("%s cannot be read: %s; the playbook k8s_dr.etcd.schedule writes it" % (path, exc.strerror)) from exc
    except ValueError:
        raise Failed("%s is not JSON; write it again with the playbook k8s_dr.etcd.schedule" % path) from None
    if not isinstance(config, dict) or config.get("format") != FORMAT or not isinstance(config.get("steps"), list):
        raise Failed("%s is not of format %d, as of another version of this program; write it again with the playbook k8s_dr.etcd.schedule" % (path, FORMAT))
    # Up to ansible-core 2.18 numbers may come as text.
    for name in NUMBERS:
        config[name] = int(config[name])
    return config


class State:
    """The directory that tells of the last run, and the lock that lets one run at a time; a context."""

    def __init__(self, directory, timeout):
        self.path = os.path.join(directory, "last-run.json")
        self.timeout = timeout
        self.lock = None

    def __enter__(self):
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        holder = "by process %d since %s" % (os.getpid(), utc())
        self.lock = NamedLock(os.path.join(os.path.dirname(self.path), "lock"), holder, "another run is under way%s; nothing was done", self.timeout)
        self.lock.__enter__()
        return self

    def __exit__(self, *exc):
        self.lock.__exit__(*exc)

    def read(self):
        """What the last run wrote; {} when there was none, or when what is there is damaged."""
        try:
            with open(self.path, "rb") as stream:
                found = json.loads(stream.read().decode("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, run):
        """Write what is known of a run.  On a full disk it goes on all the same: it may be what makes room."""
        try:
            self.write(run)
        except OSError as exc:
            say("WARNING: the result of the run cannot be recorded in %s: %s" % (self.path, exc.strerror))

    def write(self, run):
        write_durably(self.path, json.dumps(run, sort_keys=True, indent=1) + "\n")


def scratch():
    """A file that is gone with its last user, and on no disk, which may be full."""
    # from Python 3.8 on
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("k8s-dr-etcd"), "w+b")
    return tempfile.TemporaryFile()


def call_module(name, args, check, seconds):
    """The result of a module as a dict, that of one that ended without a word included; whatever ends this process ends the module first."""
    args = dict(args, _ansible_check_mode=check, _ansible_diff=False, _ansible_module_name=name)
    with scratch() as given, scratch() as out, scratch() as err:
        given.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode("utf-8"))
        given.seek(0)
        # AnsibleModule.run_command is for modules, and this is none
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [sys.executable, "-I", os.path.abspath(sys.argv[0]), "module", name], stdin=given, stdout=out, stderr=err, cwd="/", start_new_session=True
        )
        late = False
        try:
            process.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            late = True
        finally:
            end(process)
        out.seek(0)
        err.seek(0)
        text, words = out.read(MAX_OUTPUT).decode("utf-8", "replace"), err.read(65536).decode("utf-8", "replace")
    try:
        result = json.loads(text)
    except ValueError:
        last = next((line.strip() for line in reversed((words + text).splitlines()) if line.strip()), "")
        result = {"failed": True, "msg": "the module %s ended with code %s and no result: %s" % (name, process.returncode, last[:300])}
    if late:
        result = {"failed": True, "msg": "it did not finish in %d seconds and was ended" % seconds}
    return result


def end(process):
    """End a module that still runs: it is asked to, and gets its time."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PUT_AWAY)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def resolve(value, results):
    """Arguments with what earlier steps returned in the place of each {"$from": "take.snapshot.path"}."""
    if isinstance(value, dict):
        if set(value) == {"$from"}:
            found = results
            for name in value["$from"].split("."):
                found = found.get(name) if isinstance(found, dict) else None
            return found
        return {name: resolve(one, results) for name, one in value.items()}
    if isinstance(value, list):
        return [resolve(one, results) for one in value]
    return value


class Choice:
    """Whose turn it is among the members of the cluster: made by each node for itself, by the rule of the playbook."""

    def __init__(self, config, ask):
        self.config, self.ask = config, ask

    def asked(self, endpoint=None):
        connection = dict(self.config["connection"], required=False)
        return self.ask(dict(connection, endpoint=endpoint) if endpoint else connection)

    def wait_for_etcd(self, sleep=time.sleep, clock=time.monotonic):
        """What this node's member says once it answers; after a boot that takes a while."""
        stop = clock() + self.config["wait"]
        said = False
        while True:
            result = self.asked()
            etcd = snapshot_selection.mapping(result.get("etcd"))
            if etcd.get("members_agreed"):
                return result
            problem = etcd.get("error") or result.get("msg") or "etcd does not answer"
            # never after one question alone, which may take as long as the waiting
            if said and clock() >= stop:
                raise Failed("no snapshot was taken on this node after %d seconds of waiting: %s" % (self.config["wait"], problem))
            if not said:
                say("Waiting up to %d seconds for etcd: %s" % (self.config["wait"], problem))
                said = True
            sleep(5)

    def ask_member(self, member):
        """What one member says, at the first of its addresses that answers."""
        result = {"msg": "etcd knows no address of it, so it was never started"}
        for url in member.get("client_urls") or []:
            result = self.asked(url)
            if snapshot_selection.mapping(result.get("etcd")).get("reachable"):
                break
        return result

    def make(self, own):
        """(whether it is this node's turn, why or whose, warnings); Failed when no member can be relied on."""
        me = own["etcd"]["member_id"]
        members = sorted(own["etcd"]["members"], key=lambda member: (member["name"], member["id"]))
        if len(members) == 1:
            return True, "its etcd is the only member", []
        name_of = {member["id"]: member["name"] or member["id"] for member in members}
        first = {member["id"]: own if member["id"] == me else self.ask_member(member) for member in members}
        # A second query tells a member that lags behind from one that was asked first.
        again = {member["id"]: self.asked() if member["id"] == me else self.ask_member(member) for member in members}
        facts = []
        for member in members:
            asked, url = first[member["id"]], (member.get("client_urls") or [""])[0]
            etcd = snapshot_selection.mapping(asked.get("etcd"))
            fact = {"host": name_of[member["id"]], "address": urlsplit(url).hostname or "", "from": self.config["from"], "asked": asked}
            facts.append(dict(fact, again=again[member["id"]], problem="" if etcd.get("reachable") else etcd.get("error") or asked.get("msg") or ""))
        choice = snapshot_selection.member_selection(facts, [fact["host"] for fact in facts])
        cluster = next((one for one in choice["clusters"] if name_of[me] in one["hosts"]), None)
        if not cluster or not cluster["candidates"]:
            raise Failed(choice["refused"].get(name_of[me]) or "No snapshot was taken: this node's etcd is not a member of any cluster that answers.")
        chosen = cluster["candidates"][0]
        return chosen == name_of[me], "%s: %s" % (chosen, cluster["why"]), cluster["warnings"]

    def is_mine(self, check=False, now=False, sleep=time.sleep):
        """Whether this node takes the snapshot.

        One that does not looks again when all others have looked once: the timers go off within `delay` seconds of each other, and so no single
        change of the leader meanwhile leaves a snapshot that each leaves to another.
        """
        own = self.wait_for_etcd()
        if self.config["take"] == "every":
            say("This node takes a snapshot, as every one does.")
            return True
        for look in (1, 2):
            mine, why, warnings = self.make(own)
            for warning in warnings:
                say("WARNING: " + warning)
            if mine:
                say("This node takes the snapshot: %s." % why)
                return True
            if look == 2 or check or now:
                break
            say("Another member takes the snapshot: %s. Looking again in %d seconds." % (why, self.config["delay"]))
            sleep(self.config["delay"])
            own = self.wait_for_etcd()
        say("Another member takes the snapshot: %s. %s" % (why, "On this node it would be:" if check else NOTHING))
        return False


def summary(result):
    """What a step did, in a few words."""
    snapshot = result.get("snapshot")
    if isinstance(snapshot, dict) and snapshot.get("path"):
        words = str(snapshot["path"])
        if isinstance(snapshot.get("size"), int):
            words += ", revision %s, %.2f MB, sha256 %s" % (snapshot.get("revision"), snapshot["size"] / 1e6, str(snapshot.get("sha256"))[:12])
        return words
    return str(result.get("msg") or "")


def run_steps(config, check, run, call=call_module, clock=time.monotonic):
    """Run the steps, after a problem only those that are always run; what became of each is in run["steps"].  Returns whether all went well."""
    start = clock()
    results = {}
    well = {}
    uploads = [step["name"] for step in config["steps"] if step["module"] == "etcd_snapshot_upload"]
    for step in config["steps"]:
        if run["problem"] and not step.get("always"):
            continue
        name = step["name"]
        problem = run["problem"] or next((one["problem"] for one in run["steps"] if one["problem"]), None)
        results["run"] = {"ok": problem is None, "problem": problem, "started": run["started"], "seconds": round(clock() - start, 2)}
        results["run"]["well"] = dict(well)
        results["run"]["off_site"] = all(well[one] for one in uploads) if uploads and all(one in well for one in uploads) else None
        missing = [need for need in step.get("needs", []) if not well.get(need)]
        if missing:
            say("%s: left out, since %s did not end well" % (name, " and ".join(missing)))
            run["steps"].append({"name": name, "ok": None, "problem": None, "seconds": 0.0})
            continue
        if check and not step.get("in_check", True):
            say("%s: would be done" % name)
            well[name] = True
            continue
        begun = clock()
        left = config["timeout"] - (clock() - start)
        # what tells of a run that took too long needs time itself
        result = call(step["module"], resolve(step["args"], results), check, max(left, ALWAYS) if step.get("always") else left)
        seconds = round(clock() - begun, 2)
        for warning in result.get("warnings") or []:
            say("WARNING: %s: %s" % (name, warning))
        well[name] = not result.get("failed")
        problem = None if well[name] else str(result.get("msg") or "it failed without a word")
        run["steps"].append({"name": name, "ok": well[name], "problem": problem, "seconds": seconds})
        results[name] = result
        if isinstance(result.get("snapshot"), dict) and well[name] and not check:
            run["snapshot"] = result["snapshot"].get("path")
        words = problem or summary(result)
        say("%s: %s in %.1f s%s" % (name, "done" if well[name] else "FAILED", seconds, ": " + words if words else ""))
    return all(one["problem"] is None for one in run["steps"])


def verdict(run):
    """The last line, for who reads only that."""
    failed = ["%s: %s" % (one["name"], one["problem"]) for one in run["steps"] if one["problem"]]
    if run["problem"]:
        failed.append(run["problem"])
    if not failed:
        return ""
    kept = run.get("snapshot")
    return "FAILED: %s%s" % (" ".join(text.rstrip(".") + "." for text in failed), " The snapshot is complete at %s." % kept if kept else "")


def do_run(config, check=False, now=False, call=call_module):
    """One run from lock to last line; returns the exit code."""
    with State(config["state_dir"], config["lock_timeout"]) as state:
        before = state.read()
        if before.get("started") and not before.get("ended"):
            say("WARNING: the run that began at %s did not end: it was killed, or the machine went down" % before["started"])
        run = {"format": FORMAT, "started": utc(), "ended": None, "ok": None, "mine": None, "problem": None, "snapshot": None, "steps": []}
        run["last_success"] = before.get("last_success")
        run["failures"] = int(before.get("failures") or 0) + (1 if before.get("started") and not before.get("ended") else 0)
        if not check:
            state.note(run)
        try:
            run["mine"] = Choice(config, lambda args: call("etcd_cluster_info", args, check, config["timeout"])).is_mine(check, now)
            # What would be done is worth knowing on every node: another time it is another one's turn.
            run["ok"] = run_steps(config, check, run, call) if run["mine"] or check else True
        except Failed as exc:
            run["ok"], run["problem"] = False, str(exc)
            run_steps(config, check, run, call)
        except signals.Ended as exc:
            run["ok"], run["problem"] = False, "the run did not finish: %s" % exc
        run["ended"] = utc()
        if run["ok"] and run["mine"]:
            run["last_success"] = run["started"]
        run["failures"] = 0 if run["ok"] else run["failures"] + 1
        if not check:
            state.note(run)
        if verdict(run):
            again = " %d runs in a row failed." % run["failures"] if run["failures"] > 1 else ""
            say(verdict(run) + again + (" The last that did not: %s." % run["last_success"] if run["last_success"] else ""))
        return 0 if run["ok"] else 1


def elapses(expression, after):
    """The first time of a calendar expression after `after`, on a clock that never goes forward or back; None where systemd-analyze says none.

    Options of systemd 244 and later; an older one only leaves the question open.
    """
    argv = ["env", "LC_ALL=C", "TZ=UTC", "systemd-analyze", "calendar", "--base-time=%s" % after.strftime(MOMENT), "--iterations=1", expression]
    match = re.search(r"Next elapse: \w+ (\d+-\d+-\d+ \d+:\d+:\d+)", run_tool(argv, 30).stdout)
    return datetime.datetime.strptime(match.group(1), MOMENT).replace(tzinfo=datetime.timezone.utc) if match else None


def gaps(zone, now=None):
    """The hours that clocks leave out in the next year, as [first, end) of the wall clock, which is called UTC here.  zone: this host's own when empty."""
    os.environ.pop("TZ", None)
    if zone:
        os.environ["TZ"] = zone
    time.tzset()
    start = int(now if now is not None else time.time()) // HALF_AN_HOUR * HALF_AN_HOUR
    found, before = [], time.localtime(start).tm_gmtoff
    # every zone changes on a half-hour of UTC
    for moment in range(start, start + 366 * 86400, HALF_AN_HOUR):
        offset = time.localtime(moment).tm_gmtoff
        if offset > before:
            found.append(tuple(datetime.datetime.fromtimestamp(moment + one, datetime.timezone.utc) for one in (before, offset)))
        before = offset
    return found


def lost_runs(expression, now=None):
    """Sentences about the times of a calendar expression that do not exist where clocks go forward: systemd leaves those runs out, and makes up for none.

    (Seen with 252.)  A run that has another one in its place within an hour, as of hourly ones, is not lost.
    """
    match = re.search(r"Normalized form: (.*)", run_tool(["env", "LC_ALL=C", "systemd-analyze", "calendar", expression], 30).stdout)
    wall, space, zone = (match.group(1).strip() if match else "").rpartition(" ")
    # a time is the last word of one that names no zone
    if re.match(r"[\d*]", zone):
        wall, zone = wall + space + zone, ""
    found = []
    for first, end in gaps(zone, now) if match else []:
        missing = elapses(wall, first - SECOND)
        following = elapses(wall, end - SECOND)
        if missing and missing < end and (not following or (following - end) - (missing - first) > datetime.timedelta(hours=1)):
            found.append(
                "no run on %s at %s: clocks go from %s to %s then, and systemd makes up for no time that does not exist; take a time that always does, such as "
                "04:00:00, or one in UTC" % (missing.strftime("%a %Y-%m-%d"), missing.time(), first.strftime("%H:%M"), end.strftime("%H:%M"))
            )
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="k8s-dr-etcd", description="Takes, verifies and keeps snapshots of this node's etcd.")
    commands = parser.add_subparsers(dest="command")
    commands.required = True
    running = commands.add_parser("run", help="what the timer does")
    running.add_argument("--check", action="store_true", help="say what would be done, and change nothing")
    running.add_argument("--now", action="store_true", help="when it is another node's turn, do not wait to look again")
    running.add_argument("--wait", type=int, metavar="SECONDS", help="how long to wait for etcd, instead of what the settings say")
    running.add_argument("config", nargs="?", default=CONFIG)
    module = commands.add_parser("module", help="one module, as Ansible runs it")
    module.add_argument("name")
    asking = commands.add_parser("calendar", help="which of the timer's times do not exist where clocks go forward")
    asking.add_argument("expression")
    options = parser.parse_args(arguments)
    if options.command == "calendar":
        for sentence in lost_runs(options.expression):
            say(sentence)
        return 0
    if options.command == "module":
        sys.argv = [options.name]
        runpy.run_module(MODULES + options.name, run_name="__main__", alter_sys=True)
        return 0
    os.umask(0o077)
    signals.raise_when_ended()
    try:
        config = read_config(options.config)
        return do_run(config if options.wait is None else dict(config, wait=options.wait), options.check, options.now)
    except Busy as exc:
        say("FAILED: %s" % exc)
        return BUSY
    except Failed as exc:
        say("FAILED: %s" % exc)
        return 1
    except signals.Ended as exc:
        say("FAILED: the run did not finish: %s" % exc)
        return 1
