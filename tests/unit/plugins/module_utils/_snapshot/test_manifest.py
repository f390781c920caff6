# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.levels import result
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import FORMAT, Manifest, ManifestError
from hypothesis import given, strategies as st

VALUES = {
    "format": 1,
    "file": "a.db",
    "sha256": "0" * 64,
    "size": 4,
    "hash": "02059de8",
    "revision": 5,
    "verified": True,
    "host": "cp1",
    "created": "2026-01-02T03:04:05Z",
}
PLAIN = {"size": 9, "sha256": "1" * 64}

json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


def manifest(**changes):
    return Manifest(dict(VALUES, **changes))


def test_round_trip():
    found = Manifest.parse(manifest(inventory=None).text.encode(), "/b/a.db", "a.db")
    assert found.values == dict(VALUES, inventory=None)
    assert (found.file, found.size, found.sha256, found.host, found.created, found.verified) == ("a.db", 4, "0" * 64, "cp1", VALUES["created"], True)
    assert list(json.loads(found.text)) == sorted(found.values)


@given(st.dictionaries(st.sampled_from([*sorted(VALUES), "inventory", "levels", "packing", "plain"]), json_values))
def test_a_manifest_of_any_content_is_read_or_refused_in_words(changes):
    text = json.dumps(dict(VALUES, **changes)).encode()
    try:
        found = Manifest.parse(text, "/b/a.db", "a.db")
    except ManifestError as exc:
        assert "/b/a.db.json" in str(exc)
        return
    assert found.file == "a.db" and found.values["format"] == FORMAT and len(found.sha256) == 64
    assert isinstance(found.values["revision"], int) and not isinstance(found.values["revision"], bool)
    # whatever else it holds is judged without an exception
    assert isinstance(found.is_packed, bool) and found.tar_size == 0
    assert found.distrust("a.db") is None or "a.db" in found.distrust("a.db")


@given(st.binary(max_size=60))
def test_an_invalid_manifest_is_refused_in_words(content):
    with pytest.raises(ManifestError, match=r"^/b/a\.db\.json is "):
        Manifest.parse(content, "/b/a.db")


def test_a_manifest_that_is_written_can_be_read():
    for changes in ({"sha256": "0"}, {"created": "today"}, {"revision": True}, {"format": 2}):
        with pytest.raises(ManifestError):
            manifest(**changes)


def test_the_manifest_of_a_file_that_has_another_name_now(tmp_path):
    path = str(tmp_path / "b.db")
    (tmp_path / "b.db.json").write_text(manifest().text)
    with pytest.raises(ManifestError, match=r"belongs to \"a\.db\""):
        Manifest.read(path)
    assert Manifest.read(path, renamed=True).was_renamed(path)
    with pytest.raises(ManifestError, match="has no manifest"):
        Manifest.read(str(tmp_path / "c.db"))


def test_what_is_stored_is_compared_with_what_was_taken():
    assert manifest().differs("a.db") is None and manifest().differs("a.db", 4, "0" * 64) is None
    assert manifest().differs("a.db", 3) == "a.db has 3 bytes, and had 4 when it was taken"
    assert manifest().differs("a.db", 4, "1" * 64) == "a.db is not the file that was taken: its sha256 has changed"


def test_the_reasons_to_distrust_a_snapshot():
    assert manifest().distrust("a.db") is None and manifest(levels=[]).distrust("a.db") is None
    assert manifest(verified=False).distrust("a.db") == "a.db was not verified when it was taken"
    failed = manifest().with_levels({"drill": result(False, 1, "it did not start")}).distrust("a.db")
    assert failed.startswith("a.db is not to be relied on: it failed the verification level drill at ") and failed.endswith(": it did not start")


def test_levels_are_replaced_by_name_and_all_are_kept():
    found = manifest(level="status", levels={"checksum": result(True, 1), "status": result(True, 1)})
    again = found.with_levels({"checksum": result(False, 2, "it differs")})
    assert sorted(again.levels) == ["checksum", "status"] and again.values["level"] is None
    assert again.with_levels({"checksum": result(True, 2)}).values["level"] == "status"
    # what it was made from is as it was
    assert found.levels["checksum"]["ok"] and found.values["level"] == "status"


def test_off_site_copies_are_merged_by_remote_and_file():
    one, two = {"remote": "s3:bucket", "file": "a", "at": "1"}, {"remote": "sftp:x", "file": "a", "at": "1"}
    found = manifest().with_copies([one]).with_copies([two])
    assert found.values["off_site"] == [one, two]
    again = dict(one, at="2")
    assert found.with_copies([again]).values["off_site"] == [two, again]


def test_a_hold_stays_until_it_is_released():
    hold = {"reason": "before the upgrade", "by": "alice", "at": "2026-01-03T03:04:05Z"}
    found = manifest().changed("/b/a.db", "0" * 64, hold=hold)
    assert found.hold == hold and manifest().hold == {}
    later = found.changed("/b/a.db", "0" * 64, {"checksum": result(True, 1)}, [{"remote": "s3:bucket", "file": "a"}])
    assert later.hold == hold
    released = later.changed("/b/a.db", "0" * 64, hold={})
    assert "hold" not in released.values and released.levels == later.levels


def test_what_is_recorded_elsewhere_is_judged_like_a_manifest():
    passed, failed = result(True, 1), result(False, 1, "it is damaged")
    found = manifest(levels={"checksum": passed}, level="checksum").with_recorded({"levels": {"checksum": passed, "status": failed}, "level": "objects"})
    assert (found.levels, found.values["level"]) == ({"checksum": passed, "status": failed}, "checksum")
    assert manifest(hold={"reason": "audit"}).with_recorded({}).values == VALUES
    # a verification that failed is not forgotten
    for damaged in ({}, {"levels": None}, {"levels": []}, {"levels": {}, "hold": "x"}):
        with pytest.raises(ManifestError, match=r"recorded of a\.db is damaged"):
            manifest(levels={"checksum": failed}).with_recorded(damaged)


def test_a_change_is_about_one_file():
    with pytest.raises(ManifestError, match=r"^/b/a\.db was replaced meanwhile"):
        manifest().changed("/b/a.db", "1" * 64, levels={"checksum": result(True, 1)})
    found = manifest().changed("/b/a.db", "0" * 64, {"checksum": result(True, 1)}, [{"remote": "s3:bucket", "file": "a"}])
    assert found.values["level"] == "checksum" and len(found.values["off_site"]) == 1


@pytest.mark.parametrize(
    ("packing", "packed", "encrypted"),
    [
        (None, False, False),
        ({"compression": "none", "encryption": "none", "bundle": []}, False, False),
        ({"compression": "zstd"}, True, False),
        ({"compression": "zstd", "encryption": "age"}, True, True),
        ({"bundle": ["pki/ca.key"]}, True, False),
        (["damaged"], False, False),
    ],
)
def test_how_a_snapshot_lies_in_its_file(packing, packed, encrypted):
    found = manifest(packing=packing, plain=PLAIN)
    assert (found.is_packed, found.is_encrypted) == (packed, encrypted)
    assert found.plain == (PLAIN if packed else {"size": 4, "sha256": "0" * 64})


def test_the_manifest_of_what_was_decrypted():
    packing = {"compression": "zstd", "encryption": "age", "packed": {"size": 99}}
    stored = manifest(packing=packing, plain=PLAIN, off_site=[{"remote": "s3:bucket"}], inventory={"names": {}}, hold={"reason": "mine"})
    found = stored.of_decrypted("b.db")
    assert (found.file, found.size, found.sha256) == ("b.db", 9, "1" * 64) and stored.tar_size == 99
    assert set(found.values) == set(VALUES) | {"inventory"}
