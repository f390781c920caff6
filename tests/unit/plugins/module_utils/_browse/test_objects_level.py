# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import objects_level, session
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.reading import OutOfReach, Unproven
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

OBJECTS = {"objects": 362, "resources": 41, "undecodable": [], "undecodable_objects": 0, "differences": [], "unserved": {"gadgets": 1}}
ADVICE = "give the EncryptionConfiguration that they were written with, or a kube-apiserver of the snapshot's version"
OPTIONS = {"work_dir": "/var/lib", "etcd": None, "level": "objects", "timeout": 5}


class Session:
    """Serves what it is told to, or refuses."""

    def __init__(self, done, given, outcome):
        self.done, self.given, self.outcome = done, given, outcome

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.done.append("left")

    def check(self):
        self.done.append("checked")
        if isinstance(self.outcome, Exception):
            raise self.outcome

    def start(self):
        self.done.append("started")
        return {"sha256": "a" * 64, "kubernetes_version": "1.37.2", "completed": False, "objects": dict(OBJECTS, **self.outcome)}


@pytest.fixture
def served(monkeypatch):
    """Verify with this outcome: (what the level returns, what was done, the options of the session)."""
    monkeypatch.setattr(session, "state", lambda: None)
    done, given = [], {}
    monkeypatch.setattr(session, "end", lambda sha256="": done.append("ended " + sha256))

    def go(outcome, left=30.9):
        monkeypatch.setattr(session, "Session", lambda options: given.update(options) or Session(done, options, outcome))
        return objects_level.show(OPTIONS)("/b/1.db", left)

    return go, done, given


def test_what_is_recorded(served):
    go, done, given = served
    assert go({}) == {"kubernetes_version": "1.37.2", "completed": False, "objects": 362, "resources": 41, "unserved": {"gadgets": 1}}
    # what a killed module left is removed before, and what is served afterwards
    assert done == ["checked", "ended ", "started", "left", "ended " + "a" * 64]
    assert (given["path"], given["verify"], given["timeout"], given["ttl"], given["temporary"]) == ("/b/1.db", True, 30, 90, False)
    assert 0 < given["port"] < 65536


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ({"differences": ["1 pods are shown, and etcd has 2"]}, "not every object is shown: 1 pods are shown, and etcd has 2"),
        (
            {"undecodable": ["secrets shop/a: no key"], "undecodable_objects": 1},
            "not every object is shown: 1 object cannot be decrypted or decoded by this API server: secrets shop/a: no key; " + ADVICE,
        ),
        (
            {"undecodable": ["secrets shop/%d: no key" % each for each in range(20)], "undecodable_objects": 50},
            "not every object is shown: 50 objects cannot be decrypted or decoded by this API server: %s; and 47 more; %s"
            % ("; ".join("secrets shop/%d: no key" % each for each in range(3)), ADVICE),
        ),
        (Refused("this host has no room"), "the verification level objects could not be tried: this host has no room"),
        (OSError(28, "No space left on device"), "the verification level objects could not be tried: No space left on device"),
    ],
)
def test_what_makes_it_fail(served, outcome, words):
    with pytest.raises(Unproven) as caught:
        served[0](outcome)
    assert str(caught.value) == words
    # nothing stays served
    assert served[1][-1] in ("left", "ended " + "a" * 64)


def test_a_host_that_never_can(served):
    with pytest.raises(OutOfReach, match="no kube-apiserver"):
        served[0](session.Unavailable("no kube-apiserver"))


def test_one_that_is_served_already_is_not_replaced(served, monkeypatch):
    monkeypatch.setattr(session, "state", lambda: {"sha256": "b" * 64})
    with pytest.raises(Unproven, match="another snapshot is served on this host; run this again when that has ended"):
        served[0]({})
    assert served[1] == []
