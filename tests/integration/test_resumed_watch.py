# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client whose watch outlives a restore: it resumes by itself, at the revision after the last that it has seen, and has to hear that it must list again.

Kubelets, controllers and API servers are such clients.
"""

from __future__ import annotations

import subprocess

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.plan import bump_revision


def planned(snapshot, live):
    """By how much a restore on one node raises the revision."""
    return bump_revision(
        {
            "hosts": ["cp1"],
            "restored": ["cp1"],
            "options": {"bump_revision": True},
            "tools": {"cp1": {"bump_revision": True}},
            "proof": {"snapshot": {"revision": snapshot}},
            "live": {"cp1": {"revision": live}},
            "nodes": {"cp1": {}},
        }
    )


def resumed(version, directory, bump):
    """What such a watch prints after a restore that raises the revision by bump(snapshot, last): until it ends, or sees a key that is written then."""
    before = harness.Etcd(version, directory)
    printed = directory / "printed"
    with before, open(printed, "wb") as stdout:
        before.put("/registry/a", "snapshot")
        snapshot = before.put("/registry/b", "snapshot")
        saved = before.save(directory / "saved.db")
        for name in "abcdef":
            last = before.put("/registry/" + name, "discarded")
        argv = [str(before.dir / "etcdctl"), "--endpoints", before.endpoint] + ["--%s=%s" % item for item in before.pki.items()]
        argv += ["watch", "--prefix", "/registry/", "--rev", str(snapshot)]
        client = subprocess.Popen(argv, stdout=stdout, stderr=stdout, env=harness.clean_environment())
        harness.wait_for(lambda: b"/registry/f" in printed.read_bytes())
    try:
        known = printed.stat().st_size
        after = harness.Etcd(version, directory, data_dir=directory / "restored", client_port=before.client_port, peer_port=before.peer_port)
        argv = ["--name", after.name, "--initial-cluster", "%s=%s" % (after.name, after.peer_url), "--initial-advertise-peer-urls", after.peer_url]
        argv += ["--bump-revision=%d" % bump(snapshot, last), "--mark-compacted"]
        assert harness.restore(version, saved, after.data_dir, *argv).returncode == 0

        def heard():
            after.put("/registry/new", "restored")
            return client.poll() is not None or b"/registry/new" in printed.read_bytes()[known:]

        with after:
            harness.wait_for(heard)
    finally:
        client.kill()
        client.wait(30)
    return printed.read_bytes()[known:].decode()


def test_a_client_hears_that_it_has_to_list_again(version, tmp_path):
    if version == "3.4":
        pytest.skip("etcdctl 3.4.23 cannot raise the revision")
    said = resumed(version, tmp_path, planned)
    assert "required revision has been compacted" in said and "/registry/" not in said, said


def test_one_more_than_the_last_revision_is_not_enough(version, tmp_path):
    """Why the plan leaves room: only what is below the compacted revision is told (3.5.35 to 3.7.3: mvcc/watcher_group.go, chooseAll)."""
    if version == "3.4":
        pytest.skip("etcdctl 3.4.23 cannot raise the revision")
    said = resumed(version, tmp_path, lambda snapshot, last: last + 1 - snapshot)
    # it goes on, and never hears which keys the restore changed
    assert "compacted" not in said and "/registry/new" in said and "/registry/a" not in said, said
