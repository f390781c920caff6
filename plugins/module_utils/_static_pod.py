# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading kubeadm's static Pod manifests without a YAML library.  Private to this collection."""

from __future__ import annotations

import json
import os
import re
import textwrap

# The control plane's own Pods, in the order in which a restore brings them back.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class StaticPod:
    """One manifest as kubeadm writes it: one container, its command a list of `--flag=value`."""

    def __init__(self, path, text):
        self.path = path
        self.component = _first(r"^component:\s*(\S+)", _block("labels", _block("metadata", text)))
        self.image = _first(r"^\s*-?\s*image:\s*(\S+)", text)
        self.flags = {}
        for raw in re.findall(r"^\s*-\s+(.+?)\s*$", text, re.MULTILINE):
            match = re.match(r"--([a-z0-9-]+)(?:=(.*))?$", _unquote(raw))
            if match:
                self.flags[match.group(1)] = match.group(2) if match.group(2) is not None else "true"

    @property
    def image_version(self):
        """'1.20.2' of 'k8s.gcr.io/kube-apiserver:v1.20.2', '3.5.16-0' of an etcd image; '' for one named by digest alone."""
        match = re.search(r":v?([0-9][^/]*)$", self.image.split("@")[0])
        return match.group(1) if match else ""


def _unquote(text):
    if text[:1] == '"' and text[-1:] == '"':
        try:
            return json.loads(text)
        except ValueError:
            return text[1:-1]
    if text[:1] == "'" and text[-1:] == "'":
        return text[1:-1].replace("''", "'")
    return text


def _block(key, text):
    """The lines below `key:` at the left margin, moved to it; '' when there are none."""
    found = re.search(r"^%s:[ \t]*(?:#.*)?\n((?:[ \t]+\S.*(?:\n|$)|[ \t]*(?:#.*)?\n)+)" % key, text, re.MULTILINE)
    return textwrap.dedent(found.group(1)) if found else ""


def _first(pattern, text):
    match = re.search(pattern, text, re.MULTILINE)
    return _unquote(match.group(1)) if match else ""


def read_static_pods(directory):
    """{component: StaticPod} for the control plane's own manifests in a directory; others there are not touched or returned.

    A Pod is recognised by what kubeadm writes into it (the label `component`), not by the file's name.
    """
    pods = {}
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        # kubelet reads any file here that does not start with a dot
        if name.startswith(".") or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as stream:
            pod = StaticPod(path, stream.read())
        if pod.component in COMPONENTS:
            if pod.component in pods:
                raise ValueError("%s and %s are both manifests of %s" % (pods[pod.component].path, path, pod.component))
            pods[pod.component] = pod
    return pods


def other_static_pods(directory):
    """Names of the static Pods in a directory that are not the control plane's own, as kube-vip or haproxy: nobody moves them."""
    names = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name.startswith(".") or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        if StaticPod(path, text).component not in COMPONENTS:
            names.append(_first(r"^name:[ \t]*(\S+)", _block("metadata", text)) or name)
    return names


def annotated(text, key, value):
    """A static Pod's manifest with this annotation, everything else as it was; unchanged when its form is none that kubeadm writes.

    kubelet derives a static Pod's uid from its manifest, so this makes it another Pod of the same name.
    """
    lines = text.splitlines(True)
    starts = [number for number, line in enumerate(lines) if re.match(r"metadata:\s*$", line)]
    if len(starts) != 1:
        return text
    block = starts[0] + 1
    end = next((number for number in range(block, len(lines)) if re.match(r"[^\s#]", lines[number])), len(lines))
    indent = re.match(r" *", lines[block]).group(0) if block < end else ""
    if not indent:
        return text
    entry = '%s: "%s"\n' % (key, value)
    for number in range(block, end):
        found = re.match(indent + r"annotations:(.*)$", lines[number])
        if found:
            if found.group(1).strip():
                return text
            inner = re.match(r" *", lines[number + 1]).group(0) if number + 1 < end else ""
            if len(inner) <= len(indent):
                return text
            kept = [line for line in lines[number + 1 :] if not line.startswith(inner + key + ":")]
            return "".join(lines[: number + 1] + [inner + entry] + kept)
    return "".join(lines[:block] + [indent + "annotations:\n", indent * 2 + entry] + lines[block:])


def with_flags(text, flags):
    """A static Pod's manifest whose command has these flags ({flag: value}), replaced where they stand, else added after the last one.

    Everything else stays byte for byte as it was.  Raises ValueError when the manifest is of no form that kubeadm writes.
    """
    wanted = dict(StaticPod("", text).flags, **flags)
    lines = text.splitlines(True)
    # a probe may have a command of its own, which has no flags
    commands = [found for found in (_command_items(lines, number) for number in range(len(lines))) if found]
    if len(commands) != 1:
        raise ValueError("it has %d lists of flags where kubeadm writes one" % len(commands))
    items, left = commands[0], dict(flags)
    for number, (indent, flag, ending) in items.items():
        if flag in flags:
            lines[number] = _flag_line(indent, flag, flags[flag], ending)
            left.pop(flag, None)
    last = max(items)
    indent, dummy, ending = items[last]
    lines[last + 1 : last + 1] = [_flag_line(indent, flag, left[flag], ending) for flag in sorted(left)]
    new = "".join(lines)
    if StaticPod("", new).flags != wanted:
        raise ValueError("its flags are not written one to a line, as kubeadm does")
    return new


def _command_items(lines, start):
    """{line number: (what stands before the flag, flag, line ending)} of the command that begins at this line; {} when none with flags does."""
    begin = re.match(r"( *(?:- +)?)command:\s*$", lines[start])
    items, indent = {}, None
    for number in range(start + 1, len(lines) if begin else 0):
        line = lines[number]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        item = re.match(r"( *)- +(.*?)\s*$", line)
        if not item or len(item.group(1)) < len(begin.group(1)) or (indent is not None and item.group(1) != indent):
            if items and indent is not None and len(line) - len(line.lstrip(" ")) > len(indent):
                raise ValueError("a value in its command goes on over several lines")
            break
        indent = item.group(1)
        flag = re.match(r"--([A-Za-z0-9-]+)(?:=.*)?$", _unquote(item.group(2)))
        if flag:
            items[number] = (line[: item.start(2)], flag.group(1), line[len(line.rstrip("\r\n")) :])
        elif items:
            raise ValueError("its command has something between its flags")
    return items


def _flag_line(before, flag, value, ending):
    text = "--%s=%s" % (flag, value)
    # what YAML would not read as these very characters is quoted; JSON's strings are YAML's
    if re.search(r"[^\x21-\x7e]|[#'\"\\{}&*!|>`]|:$", text):
        text = json.dumps(text)
    return before + text + (ending or "\n")
