# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is ended, replaced and removed, without a systemd."""

from __future__ import annotations

import contextlib

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.served import InUse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.modules import kube_snapshot_server


class Host:
    """What serves a snapshot, in place of _browse/session.py."""

    KUBECONFIG = "/run/x/kubeconfig"

    def __init__(self):
        self.served, self.in_use, self.refusal, self.removed = None, False, None, []
        self.url = "https://127.0.0.1:{}".format
        self.has_ended = lambda: self.served is None
        self.directory_of_copy = lambda params: None
        self.remove_copy = lambda params: self.removed.append(params["path"])

    def state(self):
        return self.served

    def is_there(self, sha256=""):
        return self.served is not None and sha256 in ("", self.served["sha256"])

    def end(self, sha256=""):
        if self.in_use:
            raise InUse
        self.served = None

    def Session(self, params):
        @contextlib.contextmanager
        def entered():
            yield self

        def start():
            self.served = dict(params, sha256=params["path"], revision=7)
            return self.served

        def check(replaces):
            if self.refusal:
                raise self.refusal

        one = entered()
        one.is_served = lambda found: bool(found) and found["sha256"] == params["path"]
        one.check, one.start = check, start
        return one


@pytest.fixture
def host(monkeypatch):
    found = Host()
    monkeypatch.setattr(kube_snapshot_server, "browse_session", found)
    found.present = lambda path, check_mode=False, replace=True: kube_snapshot_server.present({"path": path, "port": 6440, "replace": replace}, check_mode)
    return found


def test_what_was_ended_for_another_snapshot_is_returned(host):
    assert host.present("aa")["replaced"] is None
    again = host.present("aa")
    assert (again["changed"], again["replaced"]) == (False, None)
    for check_mode in (True, False):
        assert host.present("bb", check_mode)["replaced"] == "aa"
    assert host.served["sha256"] == "bb"


def test_another_snapshot_is_left_where_that_is_asked_for(host):
    assert host.present("aa", replace=False)["changed"]
    # it is the one that is wanted
    assert not host.present("aa", replace=False)["changed"]
    for check_mode in (True, False):
        with pytest.raises(Refused, match="this host serves a snapshot already, with the SHA-256 aa; end that with"):
            host.present("bb", check_mode, replace=False)
    assert host.served["sha256"] == "aa"


def test_what_another_run_serves_meanwhile_is_left(host):
    real = host.Session

    def slow(params):
        one = real(params)
        one.check = lambda replaces: setattr(host, "served", {"sha256": "aa"})
        return one

    host.Session = slow
    with pytest.raises(Refused, match="this host serves a snapshot already, with the SHA-256 aa"):
        host.present("bb", replace=False)
    assert host.served["sha256"] == "aa"


def test_a_copy_is_removed_whatever_happens(host):
    host.present("aa", True)
    assert host.removed == []
    host.present("aa")
    # it is served already
    host.present("aa")
    host.refusal = Refused("no room")
    with pytest.raises(Refused, match="no room"):
        host.present("bb")
    assert host.removed == ["aa", "aa", "bb"]


def test_what_is_read_is_not_replaced(host):
    host.present("aa")
    host.in_use = True
    with pytest.raises(InUse):
        host.present("bb")
    assert host.served["sha256"] == "aa"


def test_a_run_ends_only_what_it_has_served(host):
    host.present("bb")
    assert not kube_snapshot_server.absent("aa", False)["changed"] and host.served
    assert kube_snapshot_server.absent("bb", True)["changed"] and host.served
    assert kube_snapshot_server.absent("bb", False)["changed"] and not host.served


def test_what_another_run_reads_goes_on(host):
    host.present("aa")
    host.in_use = True
    assert not kube_snapshot_server.absent("aa", False)["changed"] and host.served
    with pytest.raises(InUse):
        kube_snapshot_server.absent("", False)
