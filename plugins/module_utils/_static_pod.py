# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading kubeadm's static Pod manifests without a YAML library.  Private to this collection."""

from __future__ import annotations

import json
import os
import re

# The control plane's own Pods, in the order in which a restore brings them back.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class StaticPod:
    """One manifest as kubeadm writes it: one container, its command a list of `--flag=value`."""

    def __init__(self, path, text):
        self.path = path
        self.component = _first(r"^\s+component:\s*(\S+)", text)
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
            body = re.search(r"^metadata:[ \t]*\n((?:[ \t]+.*\n?)+)", text, re.MULTILINE)
            indent = re.match(r"[ \t]+", body.group(1)).group(0) if body else ""
            names.append((_first(r"^%sname:[ \t]*(\S+)" % indent, body.group(1)) if body else "") or name)
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
