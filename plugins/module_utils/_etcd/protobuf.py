# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small messages of protobuf, with numbers and bytes only.  Private to this collection."""

from __future__ import annotations


def varint(data, at):
    """(the number there, where what is behind it begins); IndexError or ValueError without one."""
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("has an invalid number")


def encoded(number):
    """A number as bytes."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(data):
    """{number of the field: value}; IndexError or ValueError, which ends the sentence about the message, for anything else."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            fields[tag >> 3], at = varint(data, at)
        elif tag & 7 == 2:
            length, at = varint(data, at)
            if at + length > len(data):
                raise ValueError("is cut off")
            fields[tag >> 3] = data[at : at + length]
            at += length
        else:
            raise ValueError("has an unknown form")
    return fields
