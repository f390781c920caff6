# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is read of a snapshot's file is what an etcd serves that was restored from it."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import reading, verify
from hypothesis import HealthCheck, configuration, given, settings, strategies as st

# Otherwise it leaves a directory of its own in the checkout.
configuration.set_hypothesis_home_dir(harness.ROOT / ".cache" / "hypothesis")

# Few and small, so that they are deleted and made again; none that holds a NUL at its end alone, since etcd takes an empty key for none.
KEYS = st.sampled_from([b"a", b"a\0", b"a\0\0", b"a\0\xff", b"b", b"\xff\xfe", b"\0\1", b"/registry/pods/default/web", b"c" * 127, b"c" * 128, b"c" * 3000])
VALUES = st.sampled_from([b"", b"v", b"v" * 127, b"v" * 128, b"v" * 5000, b"v" * 90000])
PUTS = st.tuples(st.just("put"), KEYS, VALUES, st.booleans())
OPERATIONS = st.one_of(
    PUTS,
    PUTS,
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("delete from"), KEYS),
    # each key once, which etcd insists on
    st.tuples(st.just("transaction"), st.dictionaries(KEYS, VALUES | st.none(), min_size=2, max_size=8)),
    st.tuples(st.just("compact"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("revoke")),
)


def encoded(data):
    return base64.b64encode(data).decode()


class Writer:
    def __init__(self, etcd):
        self.etcd = etcd
        self.revision = 1
        self.leases = []

    def apply(self, operation):
        kind, arguments = operation[0], operation[1:]
        getattr(self, kind.replace(" ", "_"))(*arguments)

    def call(self, url, **body):
        self.revision = int(self.etcd.call(url, **body)["header"]["revision"])

    def put(self, key, value, leased):
        if leased:
            self.leases.append(self.etcd.call("/v3/lease/grant", TTL=3600)["ID"])
        self.call("/v3/kv/put", key=key, value=value, **({"lease": self.leases[-1]} if leased else {}))

    def delete(self, key):
        self.call("/v3/kv/deleterange", key=key)

    def delete_from(self, key):
        self.call("/v3/kv/deleterange", key=key, range_end=b"\0")

    def transaction(self, changes):
        operations = [
            {"request_delete_range": {"key": encoded(key)}} if value is None else {"request_put": {"key": encoded(key), "value": encoded(value)}}
            for key, value in changes.items()
        ]
        self.call("/v3/kv/txn", success=operations)

    def compact(self, back, physical):
        try:
            self.etcd.call("/v3/kv/compaction", revision=max(1, self.revision - back), physical=physical)
        except ValueError as exc:
            assert "has been compacted" in str(exc)

    def revoke(self):
        if self.leases:
            self.call("/v3/lease/revoke", ID=self.leases.pop(0))


def served(version, snapshot, directory):
    """(revision, entries in their order) of an etcd that was restored from a snapshot."""
    data = directory / "restored"
    try:
        assert harness.restore(version, snapshot, data).returncode == 0
        with harness.Etcd(version, directory, name="default", data_dir=data, initial_cluster="default=http://localhost:2380") as etcd:
            answer = etcd.call("/v3/kv/range", key=b"\0", range_end=b"\0", keys_only=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    entries = [
        (base64.b64decode(kv["key"]), int(kv["create_revision"]), int(kv["mod_revision"]), int(kv["version"]))
        for kv in answer.get("kvs", [])
    ]
    return int(answer["header"]["revision"]), entries


def read(snapshot, directory):
    with mvcc.SnapshotKeys(str(snapshot), str(directory), time.monotonic() + 60) as opened:
        return opened.read(), list(opened)


@pytest.fixture(scope="module")
def directory(version, tmp_path_factory):
    return tmp_path_factory.mktemp("histories-" + version)


@settings(max_examples=12, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=st.lists(OPERATIONS, min_size=10, max_size=60), part=st.sampled_from([0, 1 << 30]))
def test_any_history(version, directory, operations, part):
    """Also with parts of a page, which are sorted on the disk."""
    data, snapshot = directory / "written", directory / "a.db"
    try:
        with harness.Etcd(version, directory, data_dir=data) as etcd:
            writer = Writer(etcd)
            for operation in operations:
                writer.apply(operation)
            etcd.save(snapshot)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mvcc, "_PART_BYTES", part)
            found = read(snapshot, directory)
        assert found == served(version, snapshot, directory)
        assert found[0] == writer.revision
    finally:
        shutil.rmtree(data, ignore_errors=True)
        snapshot.unlink()


@settings(max_examples=6, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=st.lists(OPERATIONS, min_size=10, max_size=60))
def test_any_history_is_drilled_from_its_file(version, directory, operations):
    """etcd's hash, its counts and what it answers are those of the file, also with parts of a few keys."""
    data, snapshot = directory / "drilled", directory / "a.db"
    options = dict({"etcdutl": None}, **harness.tools(version), etcd=str(harness.bin_dir(version) / "etcd"))
    options.update(work_dir=str(directory), manifests_dir="/nonexistent", timeout=60)
    try:
        with harness.Etcd(version, directory, data_dir=data) as etcd:
            writer = Writer(etcd)
            for operation in operations:
                writer.apply(operation)
            etcd.save(snapshot)
            count = int(etcd.call("/v3/kv/range", key=b"\0", range_end=b"\0", count_only=True).get("count", 0))
        verification = verify.Verification(str(snapshot), None, options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reading, "_PART_KEYS", 2)
            verification.to("drill")
        assert verification.levels["drill"]["keys"] == count
        through_etcd = [note for note in verification.notes if "read through etcd" in note]
        assert not through_etcd or "it was taken during a compaction" in through_etcd[0]
    finally:
        shutil.rmtree(data, ignore_errors=True)
        snapshot.unlink()


def test_new_etcd(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        snapshot = etcd.save(tmp_path / "a.db")
    assert read(snapshot, tmp_path) == (1, []) == served(version, snapshot, tmp_path)


def test_everything_was_deleted_and_compacted(version, tmp_path):
    with harness.Etcd(version, tmp_path) as etcd:
        for number in range(20):
            etcd.put("key %d" % number)
            etcd.delete("key %d" % number)
        etcd.compact(41)
        snapshot = etcd.save(tmp_path / "a.db")
    assert read(snapshot, tmp_path) == (41, []) == served(version, snapshot, tmp_path)


def test_snapshot_of_what_was_restored_with_a_raised_revision(version, tmp_path):
    """Such a restore puts a record of no key at the new revision, which stays until a compaction."""
    with harness.Etcd(version, tmp_path) as etcd:
        etcd.put("/registry/a", b"1")
        first = etcd.save(tmp_path / "first.db")
    if not etcd_bumps(version):
        pytest.skip("the etcdutl of etcd %s cannot raise the revision" % version)
    assert harness.restore(version, first, tmp_path / "data", "--bump-revision=1000000", "--mark-compacted").returncode == 0
    with harness.Etcd(version, tmp_path, data_dir=tmp_path / "data", force_new_cluster=True) as etcd:
        etcd.put("/registry/b", b"2")
        snapshot = etcd.save(tmp_path / "second.db")
    found = read(snapshot, tmp_path)
    assert found[0] > 1000000 and [entry[0] for entry in found[1]] == [b"/registry/a", b"/registry/b"]
    assert found == served(version, snapshot, tmp_path)
    options = dict({"etcdutl": None}, **harness.tools(version), etcd=str(harness.bin_dir(version) / "etcd"))
    options.update(work_dir=str(tmp_path), manifests_dir="/nonexistent", timeout=60)
    verification = verify.Verification(str(snapshot), None, options)
    verification.to("drill")
    assert verification.levels["drill"]["keys"] == 2 and not [note for note in verification.notes if "does not understand" in note]


def etcd_bumps(version):
    """Whether the tool of this version that restores can raise the revision."""
    tool = harness.offline_tool(version)
    return "--bump-revision" in subprocess.run([tool, "snapshot", "restore", "--help"], capture_output=True, text=True, check=False).stdout


def test_lease_that_has_ended_since(version, tmp_path):
    """Its keys are in the snapshot, and in the etcd that is restored from it until their time is over again."""
    with harness.Etcd(version, tmp_path) as etcd:
        lease = etcd.call("/v3/lease/grant", TTL=2)["ID"]
        etcd.call("/v3/kv/put", key=b"leased", lease=lease)
        snapshot = etcd.save(tmp_path / "a.db")
        end = time.monotonic() + 20
        while etcd.get("leased") is not None and time.monotonic() < end:
            time.sleep(0.1)
        assert etcd.get("leased") is None
    assert read(snapshot, tmp_path) == (2, [(b"leased", 2, 2, 1)]) == served(version, snapshot, tmp_path)

