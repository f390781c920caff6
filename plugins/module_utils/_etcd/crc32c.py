# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRC-32C, in both directions and over any number of zeros.  Private to this collection.

A state is the checksum with all of its bits turned around; the one before the first byte is START.
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78
START = 0xFFFFFFFF


def _table():
    table = []
    for value in range(256):
        for dummy in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()
# The highest byte of an entry is that of no other.
_INDEX = {value >> 24: index for index, value in enumerate(_TABLE)}


def forwards(state, data):
    """The state behind some bytes."""
    for byte in data:
        state = state >> 8 ^ _TABLE[(state ^ byte) & 0xFF]
    return state


def backwards(state, data):
    """The state before some bytes."""
    for byte in reversed(data):
        index = _INDEX[state >> 24]
        state = (state ^ _TABLE[index]) << 8 & START | index ^ byte
    return state


def over_zeros(state, count):
    """The state behind so many bytes that are zero."""
    # what becomes of each bit of a state
    step = [forwards(1 << bit, b"\0") for bit in range(32)]
    while count:
        if count & 1:
            state = _apply(step, state)
        step = [_apply(step, column) for column in step]
        count >>= 1
    return state


def _apply(step, state):
    result = bit = 0
    while state:
        if state & 1:
            result ^= step[bit]
        state >>= 1
        bit += 1
    return result


def checksum(crc, data):
    """The checksum of `data` behind something with the checksum `crc`."""
    return forwards(crc ^ START, data) ^ START
