# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain data as YAML in block style, without a YAML library.  Private to this collection."""

from __future__ import annotations

import json
import re

# Text that no version of YAML takes for anything else; all other text is quoted, or a block of lines.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@+=-]*(?: [A-Za-z0-9_./@+=()-]+)*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan"}
# YAML has these as escapes only.
_HIDDEN = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def dump(value):
    """The text of one document."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value):
    """The lines of a value, the first of which may follow a key or a dash if it is the only one, or begins with a |."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            # lists are written as kubectl does, not indented
            yield from _below("%s:" % _scalar(str(key)), one, "" if isinstance(one, list) else "  ")
    elif isinstance(value, list) and value:
        for one in value:
            inner = list(_lines(one))
            yield "- " + inner[0]
            yield from ("  " + line if line else "" for line in inner[1:])
    elif isinstance(value, str) and _is_block(value):
        yield from _block(value)
    else:
        yield "{}" if value == {} and isinstance(value, dict) else "[]" if isinstance(value, list) else _scalar(value)


def _below(key, value, indent):
    inner = list(_lines(value))
    if isinstance(value, (dict, list)) and value:
        yield key
        yield from (indent + line if line else "" for line in inner)
    else:
        yield "%s %s" % (key, inner[0])
        yield from inner[1:]


def _scalar(value):
    if not isinstance(value, str):
        # YAML 1.1 takes 1e+16 for text
        return re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value))
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _HIDDEN.sub(lambda found: "\\u%04x" % ord(found.group()), json.dumps(value, ensure_ascii=False))


def _is_block(text):
    """Whether it can be read as lines: the first of them says how far they are indented."""
    first = next((line for line in text.split("\n") if line), "")
    return "\n" in text.rstrip("\n") and first[:1] not in ("", " ", "\t") and not re.search("[\\x00-\\x08\\x0b-\\x1f\x85]", text) and not _HIDDEN.search(text)


def _block(text):
    body = text.rstrip("\n")
    ending = len(text) - len(body)
    yield "|" + ("-" if ending == 0 else "" if ending == 1 else "+")
    for line in body.split("\n") + [""] * (ending - 1):
        yield "  " + line if line else ""
