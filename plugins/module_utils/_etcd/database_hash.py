# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What etcd's hashes of a whole database say about bucket `key` alone.  Private to this collection.

`snapshot status` of a file, and Maintenance.Hash of an etcd that serves, are CRC-32C of one and the same: of every bucket in their order its name and
then each key and value in it (3.4.23, 3.5.35, 3.6.16 and 3.7.3: etcdctl or etcdutl, snapshot/v3_snapshot.go, Status; mvcc/backend/backend.go, Hash).
A restore and a start change small buckets, such as the one of the members, and not bucket `key`.  A CRC can be computed forwards and backwards from
any state, and it is linear.  So what is before and after bucket `key`, which is little, can be taken out of such a hash without reading bucket `key`.
What is left is equal when bucket `key` is, byte for byte.

HashKV cannot be compared in this way: it leaves out records that a compaction would remove (mvcc/hash.go, WriteKeyValue).
"""

from __future__ import annotations

from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import crc32c

_KEYS = b"key"
_META = b"meta"
# What Maintenance.Hash leaves out of bucket `meta`: of 3.4, of 3.5, and from 3.6 on (schema/bucket.go, DefaultIgnores).
IGNORED = ((b"consistent_index",), (b"consistent_index", b"term"), (b"consistent_index", b"term", b"storageVersion"))


def without_volatile(others):
    """The same buckets without what an etcd that serves changes at any time."""
    return {name: [pair for pair in pairs if name != _META or pair[0] not in IGNORED[-1]] for name, pairs in others.items()}


def of_keys(whole, others, size, ignored=()):
    """CRC-32C of bucket `key`.

    whole: the hash of the database.  others: {name: [(key, value)]} of all other buckets.  size: bytes of all keys and values in bucket `key`.
    ignored: keys of bucket `meta` that are not in the hash.
    """
    parts = {True: [], False: []}
    for name in sorted(others):
        before = parts[name < _KEYS]
        before.append(name)
        for pair in others[name]:
            if name != _META or pair[0] not in ignored:
                before += pair
    before = crc32c.forwards(crc32c.START, b"".join(parts[True]) + _KEYS)
    state = crc32c.backwards(whole ^ crc32c.START, b"".join(parts[False]))
    # what is left of the state before is as if there were none
    return state ^ crc32c.over_zeros(before ^ crc32c.START, size) ^ crc32c.START
