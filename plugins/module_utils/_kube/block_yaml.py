# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads YAML in block style, which is how kubeadm writes manifests and kubelet's configuration, without a YAML library.

    mapping   a dict, sequence   a list, anything else   a Text, as it stands there, so numbers and null are not converted

Values in flow style are read where they are JSON as well, as `{}` is, or a list of plain words; otherwise they are a Text.  There are no anchors and
no tags, and of several documents only the first one counts, as for kubelet (1.34.4 to 1.37.2: pkg/kubelet/config/common.go, by sigs.k8s.io/yaml, which
reads one).  It never fails: a line that fits nowhere is left out, and doubt() says where a YAML library might read something else.

Private to this collection.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re

_KEY = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'\[\]{}#&*!|>%@`,](?:(?!\s\#|:(?:\s|$)).)*?)[ \t]*:(?=\s|$)""", re.ASCII)
_DASH = re.compile(r"-(?=\s|$)", re.ASCII)
_QUOTED = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')(?=\s|$)""", re.DOTALL | re.ASCII)
# what people put into a list between brackets, as in `command: [kms, --listen=/run/kms.sock]`
_WORD = re.compile(r"""-{0,2}[A-Za-z0-9_/.][A-Za-z0-9_/.=@+-]*|'[^'\\\n]*'|"[^"\\\n]*\"""")
_WORDS = re.compile(r"\[ *(?:%s)(?: *, *(?:%s))* *\]$" % (_WORD.pattern, _WORD.pattern))
_COMMENT = re.compile(r"(?:^|\s)#.*$", re.ASCII)
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U00(?:0[0-9A-Fa-f]|10)[0-9A-Fa-f]{4}|.)", re.DOTALL)
# What YAML takes for blank; Python's own idea of it has other characters besides.
_BLANK = " \t\r"
# What YAML 1.1 takes for the end of a line, or allows only at the beginning of a file or not at all.
_ODD = re.compile("\r(?!\n)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
_ESCAPES = dict(zip('0abt\tnvfre "/\\N_LP', '\0\a\b\t\t\n\v\f\r\x1b "/\\\x85\xa0\u2028\u2029'))


class Text(str):
    """A scalar.  `first` and `last` are the numbers of its lines, from 0; None for one inside something in flow style."""

    def __new__(cls, value, first=None, last=None):
        text = super().__new__(cls, value)
        text.first, text.last = first, last
        return text


def parse(text):
    """What the first document of a file holds."""
    return _read(text)[0]


def doubt(text):
    """The first place at which a YAML library might read something else, or nothing at all: (number of the line, from 1, and what is there), or None."""
    return min(_read(text)[1], key=lambda doubt: doubt[0], default=None)


@functools.lru_cache(maxsize=16)
def _read(text):
    # the same manifests are read several times in one module, and what is returned is changed by nobody
    if text.lstrip(_BLANK + "\n").startswith("{"):
        # as kubelet does (1.37.2: apimachinery's pkg/util/yaml/decoder.go, ToJSON): in JSON a # is no comment and a tab is a blank
        with contextlib.suppress(ValueError):
            return _flow(text), []
    reader = _Reader(text)
    try:
        value = reader.block(0)
        if isinstance(value, str) and reader.at > reader.start:
            reader.doubt(reader.start, "neither a mapping nor a list")
        elif reader.next() != -1:
            reader.doubt(reader.at, "a line that does not belong to what stands above it")
        return value, reader.doubts
    except RecursionError:
        return Text(""), [(1, "more than can be read, one inside the other")]


def _indent(line):
    return len(line) - len(line.lstrip(" "))


def _fold(lines):
    """The lines of one scalar as YAML joins them: by a blank, or by as many line breaks as there are empty lines between two."""
    text, empty, escaped = lines[0].strip(_BLANK), 0, False
    for line in lines[1:]:
        if not line.strip(_BLANK):
            empty += 1
            continue
        # in double quotes, a line break that is escaped is none
        escaped = text[:1] == '"' and (len(text) - len(text.rstrip("\\"))) % 2 == 1 and not empty
        text = (text[:-1] if escaped else text + ("\n" * empty or " ")) + line.strip(_BLANK)
        empty = 0
    return text


def _unquote(text):
    if text[:1] == "'":
        return text[1:-1].replace("''", "'")
    if text[:1] == '"':
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found.group(1)) or _character(found.group(1)), text[1:-1])
    return text


def _character(escape):
    return chr(int(escape[1:], 16)) if len(escape) > 1 else escape


def _flow(text):
    """What JSON holds, with a Text for every scalar; of numbers the characters, not the value.  And what a list of plain words holds."""
    if _WORDS.match(text):
        text = _WORD.sub(lambda word: word.group(0) if word.group(0)[0] == '"' else json.dumps(word.group(0).strip("'")), text)
    return _texts(json.loads(text, parse_float=str, parse_int=str, parse_constant=str))


def _texts(value):
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return Text(value if isinstance(value, str) else json.dumps(value))


class _Reader:
    def __init__(self, text):
        self.lines = [line.rstrip("\r") for line in text.split("\n")]
        self.doubts = []
        for number, line in enumerate(re.findall(r"[^\n]*\n|[^\n]+", text)):
            if _ODD.search(line):
                self.doubt(number, "a character that is no text")
            if re.match(r"[-?: ]*\t|.*:\t", line):
                self.doubt(number, "a tab where YAML has blanks")
        self.at = self.start = 0
        while self.at < len(self.lines) and re.match(r"[ \t]*(#|$)", self.lines[self.at]):
            self.at += 1
        if self.at < len(self.lines) and re.match(r"---[ \t]*($|[ \t]#)", self.lines[self.at]):
            self.at += 1
        self.start = self.at

    def doubt(self, line, what):
        """Remember that this line, from 0, may mean something else."""
        self.doubts.append((line + 1, what))

    def next(self):
        """The indentation of the next line that says something; -1 at the end."""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if re.match(r"(---|\.\.\.)(\s|$)", line):
                if self.at == self.start and line.strip(_BLANK) != "---":
                    self.doubt(self.at, "a document that begins on the line of its mark")
                return -1
            if line.strip(_BLANK) and not line.lstrip(_BLANK).startswith("#"):
                return _indent(line)
            self.at += 1
        return -1

    def block(self, least):
        """The value that begins on the next line, if that is indented by at least so much."""
        indent = self.next()
        if indent < least:
            return Text("")
        line = self.lines[self.at][indent:]
        if _DASH.match(line):
            return self._sequence(indent)
        return self._mapping(indent) if _KEY.match(line) else self._scalar(line, least)

    def _sequence(self, indent):
        found = []
        while True:
            here = self.next()
            line = self.lines[self.at] if here >= indent else ""
            if here > indent:
                self.doubt(self.at, "a line that does not belong to what stands above it")
                self.at += 1
            elif here < indent or not _DASH.match(line[indent:]):
                return found
            else:
                content = line[indent + 1 :].lstrip(" ")
                if not content or content.startswith("#"):
                    self.at += 1
                    found.append(self.block(indent + 1))
                elif _DASH.match(content) or _KEY.match(content):
                    # what stands behind the dash begins a block that goes on below it
                    self.lines[self.at] = " " * (len(line) - len(content)) + content
                    found.append(self.block(indent + 1))
                else:
                    found.append(self._scalar(content, indent + 1))

    def _mapping(self, indent):
        found = {}
        while True:
            here = self.next()
            if here < indent:
                return found
            line = self.lines[self.at][indent:]
            key = None if here > indent or _DASH.match(line) else _KEY.match(line)
            if not key:
                self.doubt(self.at, "a line that does not belong to what stands above it")
                self.at += 1
                continue
            name = _unquote(key.group(1))
            if name in found:
                self.doubt(self.at, "the key %s a second time" % name)
            elif re.match(r"\?(\s|$)|<<$|:(\s|$)", key.group(1)) or self._odd_quote(key.group(1)):
                self.doubt(self.at, "a key of a kind that this collection does not read")
            rest = line[key.end() :].strip(_BLANK)
            if not rest or rest.startswith("#"):
                self.at += 1
                # the dashes of a list may stand right below its key
                listed = self.next() == indent and _DASH.match(self.lines[self.at][indent:])
                value = self._sequence(indent) if listed else self.block(indent + 1)
            else:
                value = self._scalar(rest, indent + 1)
            found[name] = value

    def _scalar(self, content, least):
        """A scalar, or something in flow style, that begins on this line with `content` and goes on in lines indented by at least `least`."""
        first = self.at
        if re.match(r"[|>][-+0-9]*(\s|$)", content):
            return self._literal(content, least)
        self.at += 1
        lines = [content]
        if content[0] in "\"'":
            while not _QUOTED.match(_fold(lines)) and self.at < len(self.lines):
                lines.append(self.lines[self.at])
                self.at += 1
            whole = _fold(lines)
            quoted = _QUOTED.match(whole)
            if not quoted or not re.match(r"\s*(#|$)", whole[quoted.end() :]):
                self.doubt(first, "a quoted value that does not end, or goes on behind its quotes")
            elif self._odd_quote(quoted.group(0)) or any(re.search(r"\\[ \t]+$", line) for line in lines):
                self.doubt(first, "a quoted value with an escape that this collection does not read")
            return Text(_unquote(quoted.group(0)) if quoted else whole, first, self.at - 1)
        while self._goes_on(least):
            lines.append(self.lines[self.at])
            self.at += 1
        bare = [_COMMENT.sub("", line) for line in lines]
        whole = _fold(bare)
        if content[0] in "[{":
            try:
                return _flow(whole)
            except ValueError:
                self.doubt(first, "flow style that is neither JSON nor a list of words")
        elif content[0] in "&*!":
            self.doubt(first, "an anchor, an alias or a tag")
        elif content[0] in "|>%@`,]}#" or re.match(r"[-?:](\s|$)", content) or re.search(r":(\s|$)", whole):
            self.doubt(first, "a value of a kind that this collection does not read")
        elif bare[:-1] != lines[:-1]:
            self.doubt(first, "a comment inside a value")
        return Text(whole, first, self.at - 1)

    @staticmethod
    def _odd_quote(quoted):
        """Whether a quoted text has an escape that YAML does not know."""
        return quoted[:1] == '"' and any(
            len(found.group(1)) == 1 and found.group(1) not in _ESCAPES and found.group(1) != "\n" for found in _ESCAPE.finditer(quoted[1:-1])
        )

    def _goes_on(self, least):
        """Whether a scalar without quotes goes on in the next line, or after empty ones."""
        for line in self.lines[self.at :]:
            if line.strip(_BLANK):
                return _indent(line) >= least and not line.lstrip(_BLANK).startswith("#")
        return False

    def _literal(self, header, least):
        first, marks = self.at, header.split()[0]
        self.at += 1
        lines = []
        while self.at < len(self.lines) and (not self.lines[self.at].strip(_BLANK) or _indent(self.lines[self.at]) >= least):
            lines.append(self.lines[self.at])
            self.at += 1
        said = re.search(r"[1-9]", marks)
        indent = least - 1 + int(said.group(0)) if said else min([_indent(line) for line in lines if line.strip(_BLANK)] or [0])
        begun = next((number for number, line in enumerate(lines) if line.strip(_BLANK)), len(lines))
        odd = not re.match(r"([|>][-1-9]?|\|\+|[|>][1-9]-|[|>]-[1-9])(\s+(#.*)?)?$", header) or any(len(line) > indent for line in lines[:begun])
        odd = odd or any(_indent(line) < indent for line in lines if line.strip(_BLANK))
        odd = odd or (begun < len(lines) and not said and _indent(lines[begun]) != indent)
        lines = [line[indent:] for line in lines]
        last = len(lines)
        if odd or (header[0] == ">" and (begun or not last or any(line != line.strip(_BLANK) for line in lines))):
            self.doubt(first, "a block of text of a form that this collection does not read")
        while last and not lines[last - 1]:
            last -= 1
        joined = "\n".join(lines[:last]) if header[0] == "|" else _fold(lines[:last] or [""])
        # the very last line of a file may end in nothing
        end = "" if "-" in marks or not last or first + last + 1 == len(self.lines) else "\n"
        if "+" in marks:
            end = "\n" * (len(lines) - last + bool(last))
        return Text(joined + end, first, first + last)
