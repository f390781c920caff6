# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a restore, and the page and the lines that are made of it."""

from __future__ import annotations

import copy
import html.parser
import json
import pathlib
import re

import jinja2
import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.k8s_dr.etcd.plugins.filter.restore_report import FilterModule, gather, of_hosts, parse, restore_report

ROOT = pathlib.Path(__file__).resolve().parents[4]
URL = "https://192.0.2.11:6443"
ROLLBACK = "ansible-playbook k8s_dr.etcd.rollback -l cp1"


def at(seconds):
    return "2026-11-22T17:%02d:%06.3fZ" % (seconds // 60, seconds % 60)


def log(*states, shift=0.0):
    return ["%s %s" % (state, at(moment + shift)) for state, moment in states]


GOOD = (
    ("staging", 10),
    ("staged", 12.5),
    ("stopping", 15),
    ("stopped", 16.1),
    ("swapping", 16.2),
    ("swapped", 16.25),
    ("starting-etcd", 16.3),
    ("etcd-started", 17),
    ("starting", 17.1),
    ("started", 20),
    ("committing", 40),
    ("committed", 40.2),
)
GAP = {"from": at(14.8), "to": at(20.1), "seconds": 5.3}
SEEN = {
    "how": "HTTP 200 from /readyz",
    "answering_at_start": True,
    "answering_at_end": True,
    "first_good": at(13),
    "last_good": at(44),
    "samples": 150,
    "failures": 21,
    "gaps": [GAP],
    "gaps_left_out": 0,
    "longest_gap": GAP,
    "latency_median": 7,
    "last_error": "[Errno 111] Connection refused",
}


def probe(**seen):
    return {"from": at(13), "to": at(44), "interval": 0.2, "ended_by": "stop_file", "apis": {URL: dict(SEEN, **seen)}}


def node(**others):
    facts = {
        "name": "node-1",
        "etcd_version": "3.5.16",
        "kubernetes_version": "1.32.2",
        "transaction": "/var/lib/etcd.restore/x",
        "old_data": "/var/lib/etcd.restore/x/old",
        "log": log(*GOOD),
        "clock": {"begun": at(0), "committed": at(40.4), "ended": at(44)},
        "watched": {"url": URL, "reason": "", "controller": probe(), "node": {}},
        "error": "",
        "error_task": "",
        "rollback": [],
        "again": "",
    }
    return dict(facts, **others)


def difference(count, name):
    kinds = [{"kind": "configmaps", "namespace": "shop", "count": count, "names": [name]}]
    return {"count": count + 5, "objects": count, "kinds": kinds}


COMPARED = {
    "compared": True,
    "reason": None,
    "list": "/home/me/plan.txt",
    "vanish": difference(3, "a"),
    "reappear": difference(2, "b"),
    "change": difference(1, "c"),
    "lines": ["vanish 3 configmaps shop a"],
}


def facts(*nodes, **others):
    nodes = nodes or (node(),)
    known = {
        "id": "20261122T170009Z-4f1c",
        "result": "restored",
        "hosts": ["cp%d" % (i + 1) for i in range(len(nodes))],
        "clock": {"begun": at(0), "committed": at(40.4), "ended": at(44), "question": 0},
        "snapshot": {"path": "/var/backups/etcd/a.db", "source": "cp1", "created": "2026-11-22T16:00:00Z", "revision": 1000, "size": 3000000, "sha256": "ab12"},
        "revision": {"before": 1200, "snapshot": 1000, "raised_by": 1000200, "after": 1001300},
        "validated": {"nodes": 3, "workloads": 9, "members": 1, "secret_read": True, "seconds": 12.1, "warnings": ["Deployment a/b has 0 of 1 Pods ready"]},
        "safety": [{"path": "/var/backups/etcd/safety.db", "revision": 1200}],
        "comparison": COMPARED,
        "nodes": list(nodes),
        "files": {"json": "/home/me/r.json", "html": "/home/me/r.html"},
    }
    return dict(known, **others)


def seconds(phases):
    return {phase["name"]: phase["seconds"] for phase in phases}


def test_the_phases_of_one_node():
    report = restore_report(facts())
    assert seconds(report["phases"]) == {
        "preflight": 9.0,
        "stage": 2.5,
        "stop": 1.1,
        "swap": 0.05,
        "start etcd": 0.7,
        "start API": 2.9,
        "validate": 20.0,
        "commit": 0.2,
        "safety snapshot": 3.6,
    }
    assert [phase["offset"] for phase in report["phases"]][:3] == [0.0, 10.0, 15.0]
    assert (report["from"], report["to"], report["seconds"]) == (at(0), at(44), 44.0)
    assert report["nodes"][0]["states"][0] == {"state": "staging", "at": at(10)}
    assert report["nodes"][0]["state"] == "committed"
    assert FilterModule().filters()["restore_report"] is of_hosts


def test_the_outage_from_outside_and_from_inside():
    report = restore_report(facts())
    assert report["outage"]["seconds"] == 5.3
    assert report["outage"]["inside"] == 5.0
    assert report["outage"]["complete"] is True
    assert report["outage"]["sentence"].startswith("5.3 s seen from the controller, 21 of 150 questions failed")
    outside = report["nodes"][0]["outage"]["outside"]
    assert (outside["where"], outside["url"], outside["remark"]) == ("controller", URL, "")
    assert outside["gaps"] == [dict(GAP, name="API away", offset=14.8)]


def test_time_that_an_operator_took_to_confirm_is_not_the_preflights():
    report = restore_report(facts(clock={"begun": at(0), "question": 5}))
    assert seconds(report["phases"])["preflight"] == 4.0
    assert seconds(report["phases"])["question"] == 5.0


def test_several_nodes_are_as_slow_as_the_slowest():
    slow = log(*[(state, moment + (1.5 if moment > 17 else 0)) for state, moment in GOOD])
    worse = dict(GAP, to=at(21.6), seconds=6.8)
    other = node(log=slow, watched={"url": URL, "controller": probe(longest_gap=worse, gaps=[worse])})
    report = restore_report(facts(node(), other, safety=[{}, {"path": "/s.db"}]))
    assert seconds(report["phases"])["start API"] == 4.4
    assert [round(one["outage"]["outside"]["seconds"], 1) for one in report["nodes"]] == [5.3, 6.8]
    assert report["outage"]["seconds"] == 6.8
    assert report["safety"] == [{"path": "/s.db", "host": "cp2"}]
    assert report["undo"] == "ansible-playbook k8s_dr.etcd.rollback -l cp1,cp2 -e etcd_restore_undo=true"


@pytest.mark.parametrize("skew", [-100.0, 90.0])
def test_a_node_whose_clock_is_wrong_is_put_right(skew):
    report = restore_report(facts(node(log=log(*GOOD, shift=120), clock={"committed": at(160.4 + skew)})))
    one = report["nodes"][0]
    assert one["clock_behind"] == pytest.approx(skew, abs=1)
    assert "clock of cp1" in report["hints"][-1]
    assert "ahead of" in report["hints"][-1] if skew < 0 else "behind" in report["hints"][-1]
    assert one["outage"]["inside"] == 5.0


def test_a_small_difference_of_clocks_is_noise():
    report = restore_report(facts(node(clock={"committed": at(43)})))
    assert (report["nodes"][0]["clock_behind"], report["hints"]) == (0.0, [])


@pytest.mark.parametrize(
    ("watched", "where", "value", "words"),
    [
        ({"url": URL, "reason": "no space left", "controller": {}, "node": {}}, None, None, "not measured: no space left"),
        ({}, None, None, "not measured: there was no watch"),
        ({"url": URL, "controller": probe(first_good=None, answering_at_start=False, last_error="refused")}, "controller", None, "(refused)"),
        ({"url": URL, "controller": probe(first_good=None, answering_at_start=False), "node": probe()}, "node", 5.3, ""),
        ({"url": URL, "controller": probe(answering_at_start=False)}, "controller", 5.3, "did not answer before the restore either"),
        ({"url": URL, "controller": probe(answering_at_end=False)}, "controller", 5.3, "did not answer yet"),
        ({"url": URL, "controller": probe(gaps=[], longest_gap=None)}, "controller", 0.0, ""),
        ({"url": URL, "controller": dict(probe(), ended_by="max_seconds")}, "controller", 5.3, "the watch ended before the restore did"),
    ],
)
def test_what_could_be_seen(watched, where, value, words):
    report = restore_report(facts(node(watched=watched)))
    outside = report["nodes"][0]["outage"]["outside"]
    assert (outside["where"], outside["seconds"]) == (where, value)
    assert words in outside["remark"]
    assert outside["remark"] in report["outage"]["sentence"]
    assert report["outage"]["seconds"] == value
    assert report["outage"]["complete"] is (not outside["remark"])


def test_a_restore_that_was_rolled_back():
    """The stop failed, and what was broken off is said to be."""
    broken = log(*GOOD[:3], ("rolling-back", 60), ("rolled-back", 70))
    broken = [line.replace(".000Z", "Z") if line.startswith("roll") else line for line in broken]  # the script has whole seconds
    one = node(log=broken, error="etcd still ran 30 s after", error_task="Stop", again="works as before", rollback=["done"], old_data="")
    report = restore_report(facts(one, result="", validated={}, safety=[{}]))
    assert report["result"] == "rolled back"
    assert report["error"] == "etcd still ran 30 s after"
    assert seconds(report["phases"])["stop"] == 45.0
    assert seconds(report["phases"])["roll back"] == 10.0
    assert [phase["finished"] for phase in report["phases"] if phase["name"] in ("stop", "roll back")] == [False, True]
    assert report["outage"]["inside"] is None
    assert report["undo"] == ""
    assert report["hints"] == ["Validate the cluster again with: ansible-playbook k8s_dr.etcd.validate -l cp1"]


def test_a_validation_that_failed_was_broken_off():
    one = node(log=log(*GOOD[:10], ("rolling-back", 60), ("rolled-back", 70)), clock={})
    report = restore_report(facts(one, result=""))
    assert seconds(report["phases"])["validate"] == 40.0


@pytest.mark.parametrize("other", [{}, {"log": log(*GOOD[:5]), "error": "the rollback failed"}])
def test_a_restore_that_neither_finished_nor_rolled_back(other):
    """A node that was lost, or whose rollback failed."""
    back = node(log=log(*GOOD[:3], ("rolling-back", 60), ("rolled-back", 70)))
    report = restore_report(facts(back, other, result=""))
    assert report["result"] == "failed"
    assert report["undo"] == "ansible-playbook k8s_dr.etcd.rollback -l cp1,cp2"
    assert report["nodes"][1]["error"]


def test_a_restore_of_which_nothing_was_begun_was_rolled_back_too():
    assert restore_report(facts(node(log=[]), result=""))["result"] == "rolled back"


def test_a_restore_that_was_taken_up_again():
    """It was staged ten minutes ago and its stop was interrupted; only what this run saw is drawn."""
    taken_up = log(*GOOD[:3]) + log(*[(state, moment + 600) for state, moment in GOOD[2:]])
    report = restore_report(facts(node(log=taken_up, clock={}), clock={"begun": at(600)}))
    phases = {phase["name"]: phase for phase in report["phases"]}
    assert "preflight" not in phases
    assert phases["stage"]["offset"] is None
    assert phases["swap"]["offset"] == 16.2
    assert phases["stop"]["seconds"] == 601.1
    assert report["from"] == at(600)


def test_a_revision_that_was_not_raised_has_consequences():
    report = restore_report(facts(revision={"before": 0, "snapshot": "1000", "raised_by": "0", "after": "1010"}))
    assert report["revision"] == {"before": None, "snapshot": 1000, "raised_by": 0, "after": 1010}
    assert "systemctl restart kubelet" in report["hints"][0]


def test_a_snapshot_of_what_was_discarded_that_could_not_be_made():
    report = restore_report(facts(safety=[{}], safety_problem="the disk is full."))
    assert report["hints"] == ["There is no snapshot of what was discarded (the disk is full). All of it is still in the previous data directory."]
    assert "safety snapshot" not in seconds(report["phases"])


def test_a_cluster_that_could_not_be_checked():
    report = restore_report(facts(validated={"members": 1, "unchecked": "no identity is permitted"}))
    assert report["validated"]["unchecked"] == "no identity is permitted"
    assert ["validate -l cp1" in hint for hint in report["hints"]] == [True]


def test_only_what_is_listed_gets_into_it():
    leak = {"private": "PRIVATE KEY", "members": [{"secret": "PRIVATE KEY"}]}
    known = facts(dict(node(), **leak), snapshot=dict(leak, path="/a.db"), safety=[dict(leak, path="/b.db")], **leak)
    known["validated"] = dict(known["validated"], **leak)
    assert "PRIVATE KEY" not in json.dumps(restore_report(known))


def test_the_objects_are_counted_and_not_named():
    found = restore_report(facts())["objects"]
    assert (found["lost"], found["back"], found["changed"], found["list"]) == (3, 2, 1, "/home/me/plan.txt")
    assert found["kinds"][0] == {"what": "lost", "kind": "configmaps", "namespace": "shop", "count": 3}
    many = dict(COMPARED, vanish={"objects": 1000, "kinds": [{"kind": "pods", "namespace": str(i), "count": 1} for i in range(1000)]})
    assert len(restore_report(facts(comparison=many))["objects"]["kinds"]) == 300


@pytest.mark.parametrize("found", [{}, None, {"compared": False, "reason": "etcd does not answer", "vanish": None, "list": ""}])
def test_objects_that_were_not_compared(found):
    report = restore_report(facts(comparison=found))
    text = Page(render("report.html.j2", report)).text
    assert ("Not compared: etcd does not answer" in text) is bool(found)
    assert "objects " not in str(console(report))


FIELD = '    data.b: "{{ x }}", in the snapshot "<2>"'
CHANGED = {"compared": True, "reason": "", "lines": ["CHANGES   1 modified", "Modified (1):", "  ConfigMap shop/a", FIELD]}


def test_changes_of_selected_objects_are_kept():
    report = restore_report(facts(changes=dict(CHANGED, private="PRIVATE KEY")))
    assert report["changes"] == dict(CHANGED, lines=CHANGED["lines"][:3] + [FIELD.replace("{{", "{ {")])
    assert FIELD.replace("{{", "{ {") in Page(render("report.html.j2", report)).text
    assert restore_report(facts())["changes"] == {}
    assert "selected objects" not in Page(render("report.html.j2", restore_report(facts()))).text


def test_nothing_at_all_is_a_report_too():
    report = restore_report({})
    assert (report["nodes"], report["phases"], report["outage"]["seconds"], report["seconds"]) == ([], [], None, None)
    json.dumps(report)


@pytest.mark.parametrize("value", [None, "", []])
def test_what_is_no_dict(value):
    with pytest.raises(AnsibleFilterError, match="dict"):
        restore_report(value)


def test_what_looks_like_a_template_does_not_become_one():
    report = restore_report(facts(node(error="{{ lookup('pipe', 'id') }} {% if %} {# #}")))
    assert not re.search(r"\{[{%#]", json.dumps(report["error"]))


@pytest.mark.parametrize("text", [None, "", "no", "2026-13-01T00:00:00Z"])
def test_what_is_no_time(text):
    assert parse(text) is None


# -- the page ---------------------------------------------------------------------------------------------------------


def render(name, report, **variables):
    """As Ansible renders it: it trims blocks and escapes nothing by itself."""
    loader = jinja2.FileSystemLoader(str(ROOT / "roles/etcd_restore/templates"))
    environment = jinja2.Environment(loader=loader, trim_blocks=True, autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701
    return environment.get_template(name).render(__etcd_restore_report=report, **variables)


class Page(html.parser.HTMLParser):
    """Checks that what is opened is closed, and collects what a browser would see."""

    VOID = {"meta", "br", "hr", "img", "link", "input", "line", "rect"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID or (tag == "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def reports():
    broken = node(log=log(*GOOD[:3], ("rolling-back", 60), ("rolled-back", 70)), error="it broke", error_task="Stop", again="is well", rollback=["a", "b"])
    return {
        "restored": facts(),
        "selected objects": facts(changes=CHANGED),
        "three": facts(node(), node(), node()),
        "unraised": facts(revision={}),
        "went back": facts(broken, result="", validated={}, safety=[]),
        "lost a node": facts(node(log=[]), {}, result=""),
        "not compared": facts(comparison={"compared": False, "reason": "no"}),
        "not watched": facts(node(watched={"reason": "no"}), files={}),
        "nothing known": {},
    }


@pytest.mark.parametrize("name", reports())
def test_the_page_stands_alone(name):
    report = restore_report(reports()[name])
    text = render("report.html.j2", report)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [one for one in page.attributes if one[1] in ("src", "href") or one[1].startswith("on")]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert report["undo"] in page.text
    for host in report["hosts"]:
        assert host in page.text
    for _tag, attribute, value in page.attributes:
        if attribute in ("x", "y", "x1", "x2", "width", "height"):
            assert 0 <= float(value) <= 1000


def test_the_page_shows_the_essentials():
    page = Page(render("report.html.j2", restore_report(facts())))
    for words in ("Restored", "5.3 s", "1001300", "1200 before", "/var/backups/etcd/a.db", "/var/backups/etcd/safety.db", "/var/lib/etcd.restore/x/old"):
        assert words in page.text
    assert ROLLBACK + " -e etcd_restore_undo=true" in page.text
    assert "cp1: stop, 1.1 s" in page.text
    assert "its API away: API away, 5.3 s" in page.text
    assert "9 workloads" in page.text
    assert "Deployment a/b has 0 of 1 Pods ready" in page.text


def poison(value):
    """Every text in it, and every key that it may invent, becomes an attack."""
    if isinstance(value, dict):
        return {key: poison(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poison(one) for one in value]
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\dT|\d{8}T|restored$|rolled back$|failed$|controller$|node$", value):
        return value + "\"'><script>alert(1)</script>&"
    return value


@pytest.mark.parametrize("name", reports())
def test_whatever_a_text_holds_it_stays_text(name):
    report = restore_report(reports()[name])
    names = [phase["name"] for phase in report["phases"]]
    report = poison(copy.deepcopy(report))
    for phase, plain in zip(report["phases"], names):
        phase["name"] = plain
    text = render("report.html.j2", report)
    assert "<script" not in text
    page = Page(text)
    assert "script" not in page.tags
    assert "alert(1)" in page.text or name == "nothing known"
    assert not [one for one in page.attributes if one[1] not in KNOWN_ATTRIBUTES]


KNOWN_ATTRIBUTES = {
    *("lang", "charset", "name", "content", "class", "colspan", "open", "viewbox", "role", "aria-label"),
    *("x", "y", "x1", "x2", "y1", "y2", "width", "height", "rx", "text-anchor", "fill", "stroke"),
}


# -- the lines on the console -----------------------------------------------------------------------------------------


def console(report, host="cp1", **others):
    variables = {
        "inventory_hostname": host,
        "ansible_play_hosts_all": report.get("hosts", [host]),
        "__etcd_restore_recorder": "cp1",
        "__etcd_restore_first": "cp1",
        "__etcd_restore_chosen": {"revision": 1000},
        "__etcd_restore_file": "/var/backups/etcd/a.db",
        "__etcd_restore_path": "/var/lib/etcd.restore/x",
    }
    return render("console.txt.j2", report, **dict(variables, **others)).strip().split("\n")


def test_the_console_after_a_restore():
    assert console(restore_report(facts())) == [
        "RESTORED cp1 to revision 1000 of /var/backups/etcd/a.db",
        "outage     5.3 s, from the last good answer of https://192.0.2.11:6443 to the next, asked by the controller every 0.2 s",
        "           5.0 s by the node's own log, from the stop until its API server was ready",
        (
            "phases     preflight 9.0 s, stage 2.5 s, stop 1.1 s, swap 0.1 s, start etcd 0.7 s, start API 2.9 s, validate 20.0 s, commit 0.2 s, "
            "safety snapshot 3.6 s"
        ),
        "old data   /var/lib/etcd.restore/x/old",
        "revision   1200 before, 1001300 now (raised by 1000200, so that every client lists again)",
        "validated  1 etcd member(s), 3 node(s), 9 workloads, a Secret read back, in 12.1 s",
        "warning    Deployment a/b has 0 of 1 Pods ready",
        "objects    3 lost, 2 back, 1 changed; all of them: /home/me/plan.txt",
        "safety     what was discarded is in /var/backups/etcd/safety.db on cp1 (revision 1200)",
        "report     /home/me/r.json",
        "report     /home/me/r.html",
        "undo       ansible-playbook k8s_dr.etcd.rollback -l cp1 -e etcd_restore_undo=true   (what was written since is kept)",
    ]


def test_the_console_of_the_other_nodes_is_short():
    lines = console(restore_report(facts(node(), node(watched={"reason": "no ssh"}))), host="cp2")
    assert [line.split(" ")[0] for line in lines] == ["RESTORED", "outage", "", "phases", "old"]
    assert lines[1] == "outage     not measured: no ssh"
    assert "preflight" not in lines[3]


def test_the_console_where_nothing_could_be_recorded():
    lines = console({"files": {}})
    assert lines[0].startswith("RESTORED cp1")
    assert lines[-1].startswith("undo ")


# -- the description ----------------------------------------------------------------------------------------------------


def keys(value):
    if isinstance(value, dict):
        return set(value) | {key for one in value.values() for key in keys(one)}
    return {key for one in value for key in keys(one)} if isinstance(value, list) else set()


def test_every_field_is_described():
    text = (ROOT / "roles/etcd_restore/README.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`([a-z_0-9]+)`", text[text.index("## The report") :]))
    assert keys(restore_report(facts())) <= described


# -- from the facts of all hosts --------------------------------------------------------------------------------------


def host(name, **others):
    """The variables of a host after a restore, as far as the report reads them."""
    found = {
        "present": True,
        "node": {"host": "node-1", "etcd": {"version": "3.5.16"}, "kubernetes_version": "1.32.2", "transactions_dir": "/var/lib/etcd.restore"},
        "live": {"revision": 1200},
        "id": "20261122T170009Z-4f1c",
        "touched": True,
        "committed": True,
        "clock": {"begun": at(0), "committed": at(40.4), "ended": at(44)},
        "watch": {"urls": [URL], "directory": "/tmp/x"},
        "seen": {"probe": probe()},
        "end": {"transaction": {"log": log(*GOOD)}},
        "safety": {"snapshot": {"path": "/var/backups/etcd/safety.db", "revision": 1200}},
    }
    return dict({"__etcd_restore_" + key: value for key, value in dict(found, **others).items()}, inventory_hostname=name)


def known(**others):
    seen = {"observed": {"nodes": {"a": 1}, "workloads": {"b": 1, "c": 1}, "secret_read": True}, "permitted": True, "seconds": 12.1}
    seen["layers"] = {"nodes": {"problems": [], "warnings": ["one"]}, "workloads": {"problems": [], "warnings": ["two"]}}
    found = {
        "first": "cp1",
        "retired": [],
        "committed": True,
        "clock": {"begun": at(0), "committed": at(40.4), "ended": at(44)},
        "label": "/var/backups/etcd/a.db",
        "origin": "cp1",
        "chosen": {"revision": 1000},
        "manifest": {"created": "2026-11-22T16:00:00Z"},
        "raised_by": 1000200,
        "after": {"etcd": {"revision": 1001300, "members": [1]}},
        "validated": {"validation": seen},
        "comparison": COMPARED,
        "report_dir": "~/reports",
    }
    return dict(found, **others)


def test_a_restore_from_the_facts_of_its_hosts(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    report = of_hosts(iter([host("cp1"), host("cp2", live={}, safety={"skipped": True})]), known())
    assert report["result"] == "restored" and report["revision"] == {"before": 1200, "snapshot": 1000, "after": 1001300, "raised_by": 1000200}
    assert report["snapshot"] == {"path": "/var/backups/etcd/a.db", "source": "cp1", "created": "2026-11-22T16:00:00Z", "revision": 1000}
    counted = {"nodes": 1, "workloads": 2, "members": 1, "secret_read": True, "seconds": 12.1, "unchecked": "", "warnings": ["one", "two"]}
    assert report["validated"] == counted
    assert report["safety"] == [{"path": "/var/backups/etcd/safety.db", "revision": 1200, "host": "cp1"}] and report["hints"] == []
    assert report["files"]["html"] == "/home/me/reports/restore-20261122T170009Z-4f1c.html"
    for node in report["nodes"]:
        assert node["old_data"] == "/var/lib/etcd.restore/20261122T170009Z-4f1c/old" and node["outage"]["outside"]["seconds"] == 5.3
    assert of_hosts([host("cp1")], known(report_dir=" "))["files"] == {}


def test_what_was_not_watched_or_kept_says_why():
    failed = {"failed": False, "msg": "the disk is full."}
    report = of_hosts([host("cp1", watch={"urls": [URL], "msg": "no room"}, seen={"skipped": True}, safety=failed)], known())
    assert "not measured: no room" in report["outage"]["sentence"]
    assert "(the disk is full)" in report["hints"][0]
    # of an earlier restore in the same run
    assert gather([host("cp1")], known(committed=False))["safety"] == [{}]


@pytest.mark.parametrize("name", ["beginning", "staged"])
def test_a_failed_restore_says_why_the_start_was_not_tested(name):
    """One node alone begins and stages in one step, several in two."""
    start = {"__etcd_restore_%s" % name: {"start": {"tested": False, "reason": "no etcd runs on this host"}}}
    hint = "Before anything was stopped it could not be tested whether etcd starts on this snapshot: no etcd runs on this host."
    assert of_hosts([dict(host("cp1"), **start)], known(committed=False))["hints"][0] == hint
    assert of_hosts([dict(host("cp1"), **start)], known())["hints"] == []
    start = {"__etcd_restore_%s" % name: {"start": {"tested": True, "reason": None}}}
    assert hint not in of_hosts([dict(host("cp1"), **start)], known(committed=False))["hints"]


def test_a_restore_that_failed_on_one_host_and_lost_another():
    back = {"output": ["moved"], "transaction": {"log": log(("staging", 10), ("rolling-back", 20), ("rolled-back", 21))}}
    again = {"validation": {"ok": False, "layers": {"nodes": {"problems": ["a is not ready"]}}}}
    one = host("cp1", committed=False, failed={"here": True, "msg": "broken", "task": "Start"}, rolled_back=back, again=again)
    two = host("cp2", committed=False, failed={"here": False, "msg": "elsewhere"}, rolled_back={}, unretired=back)
    report = of_hosts([one, two, host("cp3", present=False)], known(committed=False, retired=["cp2"]))
    assert report["result"] == "failed" and report["error"] == "broken" and report["validated"] == {} and report["safety"] == []
    nodes = report["nodes"]
    assert [node["state"] for node in nodes] == ["rolled-back", "rolled-back", "unknown"]
    assert [node["error"] for node in nodes] == ["broken", "", "it was not reached any more"]
    assert nodes[0]["rollback"] == nodes[1]["rollback"] == ["moved"] and nodes[0]["again"] == "a is not ready" and nodes[1]["retired"]
    assert nodes[0]["transaction"] and not nodes[0]["old_data"]
    # without any facts, and before anything was begun
    assert of_hosts([{"inventory_hostname": "cp1"}], {})["nodes"][0]["state"] == "unknown"


def test_the_console_in_check_mode_and_after_a_failure():
    assert console({}, ansible_check_mode=True)[0].startswith("Check mode: nothing was stopped")
    report = restore_report(facts(result=""))
    text = console(report, __etcd_restore_committed=False)
    assert text == ["The API was away for: %s." % report["outage"]["sentence"], "The report is /home/me/r.html"]
    assert console({}, __etcd_restore_committed=False) == ["The API was away for: unknown, since there is no report."]
