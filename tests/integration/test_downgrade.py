# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot of an etcd that also serves on the version before it, and one that does not."""

from __future__ import annotations

import harness
import pytest

# Versions whose data the one before does not start on; whatever other tests run with.
PAIRS = [("3.7", "3.6"), ("3.6", "3.5")]


@pytest.fixture(params=PAIRS, ids=lambda pair: "%s-%s" % pair)
def pair(request):
    for version in request.param:
        try:
            harness.bin_dir(version)
        except harness.Unavailable as exc:
            pytest.skip("etcd %s is not at hand: %s" % (version, exc))
    return request.param


def take(etcd, directory, **more):
    options = dict(etcd.connection, directory=str(directory), manifests_dir="/nonexistent", pki_dir="/nonexistent", host="cp1", **more)
    return harness.run_module("etcd_snapshot", **options)


def serves(version, path, directory):
    """The value of /registry/a that an etcd of this version serves of a snapshot, None when it does not start."""
    data = directory / "restored"
    assert harness.restore(version, path, data).returncode == 0
    other = harness.Etcd(version, directory, data_dir=data, force_new_cluster=True)
    try:
        other.start()
        return other.get("/registry/a")
    except RuntimeError:
        return None
    finally:
        other.kill()


def test_it_serves_on_both_and_the_cluster_is_as_before(pair, tmp_path):
    newer, older = pair
    with harness.Etcd(newer, tmp_path) as etcd:
        etcd.put("/registry/a", b"one")
        code, plain = take(etcd, tmp_path / "plain")
        assert code == 0, plain
        code, result = take(etcd, tmp_path / "backups", storage_version=older, check_mode=True)
        assert code == 0 and not (tmp_path / "backups").exists(), result
        code, result = take(etcd, tmp_path / "backups", storage_version=older)
        assert code == 0 and not result.get("warnings"), result
        assert '"enabled":true' not in etcd.etcdctl("endpoint", "status", "--write-out=json").stdout
        etcd.put("/registry/a", b"two")
        code, after = take(etcd, tmp_path / "after")
        assert code == 0 and after["snapshot"]["storage_version"] == plain["snapshot"]["storage_version"], after
    assert (result["snapshot"]["storage_version"] or "3.5").startswith(older) and result["snapshot"]["etcd_version"].startswith(newer)
    (tmp_path / "a").mkdir()
    assert serves(older, result["snapshot"]["path"], tmp_path / "a") == b"one"
    (tmp_path / "b").mkdir()
    assert serves(newer, result["snapshot"]["path"], tmp_path / "b") == b"one"
    (tmp_path / "c").mkdir()
    # this is what it is for
    assert (serves(older, plain["snapshot"]["path"], tmp_path / "c") is None) == (older == "3.6")


def test_what_it_refuses(pair, tmp_path):
    newer, older = pair
    with harness.Etcd(newer, tmp_path) as etcd:
        for wanted, words in (("3.3", "can store its data only as etcd %s would, not as etcd 3.3 would" % older), ("three", "must be a minor version of etcd")):
            code, result = take(etcd, tmp_path / "backups", storage_version=wanted)
            assert code == 1 and words in result["msg"], result
        etcd.etcdctl("downgrade", "enable", older)
        # it goes on, and the next snapshot says so
        code, result = take(etcd, tmp_path / "backups", storage_version=older)
        assert code == 0, result
        code, result = take(etcd, tmp_path / "backups")
        assert code == 0 and "the cluster is told to downgrade to etcd %s" % older in str(result["warnings"]), result
