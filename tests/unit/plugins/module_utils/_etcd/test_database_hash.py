# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import crc32c, database_hash
from hypothesis import given, strategies as st

BUCKETS = st.dictionaries(
    st.sampled_from([b"alarm", b"auth", b"cluster", b"lease", b"members", b"meta"]), st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=40)))
)
META = [(b"consistent_index", b"\0" * 8), (b"finishedCompactRev", b"\1" * 17), (b"storageVersion", b"3.6.0"), (b"term", b"\2" * 8)]


def hash_of(buckets, ignored=()):
    """What etcd computes of all buckets."""
    parts = []
    for name in sorted(buckets):
        parts.append(name)
        for key, value in buckets[name]:
            if name != b"meta" or key not in ignored:
                parts += [key, value]
    return crc32c.checksum(0, b"".join(parts))


def test_the_checksum():
    assert crc32c.checksum(0, b"") == 0
    # RFC 3720, appendix B.4
    assert crc32c.checksum(0, bytes(32)) == 0x8A9136AA
    assert crc32c.checksum(0, bytes(range(32))) == 0x46DD794E
    assert crc32c.checksum(crc32c.checksum(0, b"one"), b"two") == crc32c.checksum(0, b"onetwo")


@given(st.integers(0, 0xFFFFFFFF), st.binary(), st.integers(0, 300))
def test_both_directions_and_zeros(state, data, count):
    assert crc32c.backwards(crc32c.forwards(state, data), data) == state
    assert crc32c.over_zeros(state, count) == crc32c.forwards(state, bytes(count))


@given(BUCKETS, BUCKETS, st.lists(st.tuples(st.binary(min_size=17, max_size=18), st.binary(max_size=300)), max_size=20))
def test_small_buckets_do_not_matter(before, after, records):
    size = sum(len(key) + len(value) for key, value in records)
    expected = crc32c.checksum(0, b"".join(key + value for key, value in records))
    for others in (before, after):
        assert database_hash.of_keys(hash_of({**others, b"key": records}), others, size) == expected


def test_what_etcd_leaves_out_of_its_hash():
    records = [(b"\0" * 17, b"value")]
    others = {b"members": [(b"1", b"{}")], b"meta": META}
    expected = crc32c.checksum(0, b"\0" * 17 + b"value")
    for ignored in database_hash.IGNORED:
        whole = hash_of({**others, b"key": records}, ignored)
        assert database_hash.of_keys(whole, others, 22, ignored) == expected
        assert database_hash.of_keys(whole, others, 22) != expected
    assert database_hash.without_volatile(others)[b"meta"] == [META[1]]


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_other_byte_is_found(value, data):
    other = bytearray(value)
    other[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    hashes = [database_hash.of_keys(hash_of({b"meta": META, b"key": [(b"r", one)]}), {b"meta": META}, 1 + len(value)) for one in (value, bytes(other))]
    assert hashes[0] != hashes[1]
