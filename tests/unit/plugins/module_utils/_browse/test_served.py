# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import served
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """What serves the snapshot with the SHA-256 aa."""
    monkeypatch.setattr(served, "DIRECTORY", str(tmp_path))
    (tmp_path / "state.json").write_text(json.dumps({"sha256": "aa"}))
    return tmp_path


def refused(directory, words, sha256="aa"):
    with pytest.raises(Refused, match=re.escape(words)), served.in_use(str(directory / "kubeconfig"), sha256):
        pass


def test_what_is_read_is_not_replaced(directory):
    reads, again = served.in_use(str(directory / "kubeconfig"), "aa"), served.in_use(str(directory / "kubeconfig"))
    words = "or reads what is served; run this again when it has ended"
    with reads, again, pytest.raises(served.InUse, match=words), served.locked(str(directory)):
        pass
    with served.locked(str(directory)):
        refused(directory, "another run begins to serve a snapshot on this host right now")


def test_the_lock_of_a_directory_that_was_replaced_does_not_count(directory, monkeypatch):
    flock = served.fcntl.flock
    place = directory / "place"
    place.mkdir()

    def late(handle, how):
        flock(handle, how)
        # the other run keeps its number from being used again
        place.rename(directory / "removed")
        place.mkdir()

    monkeypatch.setattr(served.fcntl, "flock", late)
    with pytest.raises(served.InUse), served.locked(str(place)):
        pass


def test_another_snapshot_than_the_confirmed_one_is_refused(directory):
    refused(directory, "another run serves another snapshot on this host now, with the SHA-256 aa instead of bb; run this again", "bb")


def test_what_has_ended_is_explained(directory):
    ended = "the snapshot is not served any more, because its time (etcd_browse_ttl) was over or another run ended it; run "
    os.unlink(directory / "state.json")
    refused(directory, ended + "this again")
    os.rmdir(directory)
    refused(directory, ended + "this again")
    refused(directory, ended + "ansible-playbook k8s_dr.etcd.browse, and then this again", "")


@pytest.mark.parametrize(("sha256", "again"), [("aa", "this again"), ("", "ansible-playbook k8s_dr.etcd.browse, and then this again")])
def test_what_ends_meanwhile_is_explained(directory, monkeypatch, sha256, again):
    """The reader is refused the connection; systemd has removed the files by then."""
    place = str(directory / "place")
    monkeypatch.setattr(served, "DIRECTORY", place)
    os.mkdir(place)
    (directory / "state.json").rename(directory / "place/state.json")
    refusal = KubeError("the API server at https://127.0.0.1:6440 does not answer: Connection refused")
    with pytest.raises(KubeError) as caught, served.in_use(place + "/kubeconfig", sha256):
        raise refusal
    assert caught.value is refusal
    words = "the snapshot is not served any more, because its time (etcd_browse_ttl) was over or another run ended it; run " + again
    with pytest.raises(KubeError, match=re.escape(words) + "$"), served.in_use(place + "/kubeconfig", sha256):
        shutil.rmtree(place)
        # another run serves the next one by now
        os.mkdir(place)
        (directory / "place/state.json").write_text(json.dumps({"sha256": "aa"}))
        raise refusal


def test_a_kubeconfig_of_something_else_is_no_concern_of_this(directory):
    with served.in_use("/nowhere/kubeconfig", "its name"):
        pass
