# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading kubeadm's static Pod manifests without a YAML library.  Private to this collection."""

from __future__ import annotations

import json
import os
import re

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import block_yaml

# The control plane's own Pods, in the order in which a restore brings them back.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class StaticPod:
    """One manifest as kubeadm writes it: one container, its command a list of `--flag=value`.

    Of several, as kubeadm's patches can add them, the one counts that is called like the component, as kubeadm calls it.
    """

    def __init__(self, path, text):
        self.path = path
        pod = block_yaml.parse(text)
        self.component = _text(_inside(pod, "metadata", "labels", "component"))
        # where kubelet might read something else: (number of the line, what is there)
        self.doubt = block_yaml.doubt(text)
        # a text that no mapping was read of; any other file, as a certificate, is no Pod
        unread = [each for each in (pod, _inside(pod, "metadata"), _inside(pod, "metadata", "labels")) if isinstance(each, str) and each[:1] in tuple("{&*!")]
        self.may_be_ours = self.component in COMPONENTS or bool(unread)
        self.name = _text(_inside(pod, "metadata", "name"))
        found = _inside(pod, "spec", "containers")
        self.containers = [container for container in found if isinstance(container, dict)] if isinstance(found, list) else []
        container = next((each for each in self.containers if _inside(each, "name") == self.component), (self.containers or [{}])[0])
        # a container's own wins over its Pod's
        contexts = [_inside(each, "securityContext") for each in (container, _inside(pod, "spec"))]
        self._owner = [next((_number(_inside(each, name)) for each in contexts if _inside(each, name)), None) for name in ("runAsUser", "runAsGroup")]
        self._mounts, self._volumes = _mounts(container), _host_paths(pod)
        self.image = _text(container.get("image"))
        # [(image, imagePullPolicy)] of all its containers
        every = self.containers + [each for each in _inside(pod, "spec", "initContainers") or [] if isinstance(each, dict)]
        self.images = [(_text(each.get("image")), _text(each.get("imagePullPolicy"))) for each in every]
        self.host_network = _text(_inside(pod, "spec", "hostNetwork")) == "true"
        self.command = _texts(container.get("command"))
        self._given = _flags(self.command + _texts(container.get("args")))
        # The last one counts: so do etcd (flag.FlagSet, 3.7.3: server/embed/config.go) and kube-apiserver, but for what values() is for.
        self.flags = {flag: values[-1] for flag, values in self._given.items()}
        if self.component == "etcd":
            # a flag that is not given is taken from there (3.7.3: pkg/flags/flag.go, SetFlagsFromEnv); v1beta4 has extraEnvs
            for name, value in _environment(container):
                if name.startswith("ETCD_") and value:
                    self.flags.setdefault(name[len("ETCD_") :].lower().replace("_", "-"), value)

    def values(self, flag):
        """All values of a flag that may be repeated, as kube-apiserver's --etcd-servers, where they add up; [] without it."""
        return self._given.get(flag, [])

    def host_path(self, path):
        """Where this host has what the container sees at an absolute path: by the deepest mount over it, as in the kernel.

        None when it is nowhere on this host: in the image, in a volume of another kind, or behind a subPathExpr.
        """
        path = os.path.normpath(path)
        for mount, volume, inside in self._mounts:
            if path == mount or path.startswith(mount.rstrip("/") + "/"):
                base = self._volumes.get(volume) if inside is not None else None
                return os.path.normpath(os.path.join(base, inside, os.path.relpath(path, mount))) if base else None
        return None

    def hides(self, path):
        """Whether a volume that is no directory of this host is mounted over a path, as an emptyDir: what is in it only the Pod knows."""
        path = os.path.normpath(path)
        return self.host_path(path) is None and any(path.startswith(mount.rstrip("/") + "/") for mount, dummy, dummy2 in self._mounts)

    def mounted_below(self, path):
        """Where something of its own is mounted in the container below a path."""
        return sorted(mount for mount, dummy, dummy2 in self._mounts if mount.startswith(os.path.normpath(path).rstrip("/") + "/"))

    def file(self, flag, otherwise=""):
        """The file of this host that a flag names, else the very name: a program that runs may see it where we do not."""
        path = self.flags.get(flag, otherwise)
        return (self.host_path(path) if path.startswith("/") else None) or path

    @property
    def owner(self):
        """[uid, gid] that its program runs as, which kubeadm's RootlessControlPlane writes down; None for root, -1 for a group that is not named."""
        uid, gid = self._owner
        return None if uid is None else [uid, -1 if gid is None else gid]

    @property
    def data_dir(self):
        """etcd's data on this host.  Raises ValueError when the manifest does not say where that is."""
        path = self.flags.get("data-dir", "")
        found = self.host_path(path) if path.startswith("/") else None
        if found is None:
            raise ValueError(
                "%s keeps etcd's data in no directory of this host: its --data-dir is %s, and no volume of type hostPath is mounted there"
                % (self.path or "the manifest", path or "not given")
            )
        return found

    @property
    def image_version(self):
        """'1.20.2' of 'k8s.gcr.io/kube-apiserver:v1.20.2', '3.5.16-0' of an etcd image; '' for one named by digest alone, or by a tag like 'stable'."""
        match = re.search(r":v?([0-9]+\.[0-9][^/]*)$", self.image.partition("@")[0])
        return match.group(1) if match else ""


def _inside(value, *keys):
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value):
    return str(value) if isinstance(value, str) else ""


def _number(value):
    return int(value) if isinstance(value, str) and re.match(r"[0-9]{1,10}$", value) else None


def _texts(value):
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _mounts(container):
    """[(path in the container, name of the volume, path inside that or None when only kubelet can tell)], the deepest first."""
    found = container.get("volumeMounts")
    mounts = []
    for each in found if isinstance(found, list) else []:
        path = _text(_inside(each, "mountPath"))
        if path:
            # a path that is not absolute is below / (1.34.4 to 1.37.2: pkg/kubelet/kubelet_pods.go, makeMounts)
            inside = None if _text(_inside(each, "subPathExpr")) else _text(_inside(each, "subPath"))
            mounts.append((os.path.normpath("/" + path.lstrip("/")), _text(_inside(each, "name")), inside))
    return sorted(mounts, key=lambda mount: len(mount[0]), reverse=True)


def _host_paths(pod):
    """{name of a volume: the directory or file of this host that it is}."""
    found = _inside(pod, "spec", "volumes")
    volumes = {_text(_inside(each, "name")): _text(_inside(each, "hostPath", "path")) for each in (found if isinstance(found, list) else [])}
    return {name: path for name, path in volumes.items() if path.startswith("/")}


def _flags(words):
    """{flag: [values]} of --flag=value, --flag value and --flag."""
    found, before = {}, None
    for word in words:
        match = re.match(r"--([a-z0-9-]+)(?:=(.*))?$", word, re.DOTALL)
        if match:
            value = match.group(2)
            found.setdefault(match.group(1), []).append("true" if value is None else value)
            before = match.group(1) if value is None else None
        else:
            if before is not None and not word.startswith("-"):
                found[before][-1] = str(word)
            before = None
    return found


def _environment(container):
    found = container.get("env")
    return [(_text(each.get("name")), _text(each.get("value"))) for each in (found if isinstance(found, list) else []) if isinstance(each, dict)]


def read_static_pods(directory):
    """{component: StaticPod} for the control plane's own manifests in a directory; others there are not touched or returned.

    A Pod is recognised by what kubeadm writes into it (the label `component`), not by the file's name.  Raises ValueError when one of them cannot be
    read for certain, and when two files are manifests of the same component.
    """
    pods = {}
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        # kubelet reads any file here that does not start with a dot (1.34.4 to 1.37.2: pkg/kubelet/config/file.go, extractFromDir)
        if name.startswith(".") or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as stream:
            pod = StaticPod(path, stream.read())
        if pod.doubt and pod.may_be_ours:
            raise ValueError(
                "%s has %s in line %d, so what kubelet reads there is not certain; write it as kubeadm does, one item to a line, without anchors and tags"
                % (path, pod.doubt[1], pod.doubt[0])
            )
        if pod.component in COMPONENTS:
            if pod.component in pods:
                raise ValueError("%s and %s are both manifests of %s" % (pods[pod.component].path, path, pod.component))
            pods[pod.component] = pod
    return pods


def read_control_plane(manifests_dir):
    """{component: StaticPod} of a complete stacked control plane.  Raises ValueError with what is missing, or cannot be read."""
    if not os.path.isdir(manifests_dir):
        raise ValueError("%s does not exist: this host is no kubeadm control plane" % manifests_dir)
    pods = read_static_pods(manifests_dir)
    missing = [component for component in COMPONENTS if component not in pods]
    if missing:
        raise ValueError("no manifest of %s in %s" % (", ".join(missing), manifests_dir))
    return pods


def other_static_pods(directory):
    """Names of the static Pods in a directory that are not the control plane's own, as kube-vip or haproxy. They are never moved."""
    names = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name.startswith(".") or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as stream:
            pod = StaticPod(path, stream.read())
        if pod.component not in COMPONENTS:
            names.append(pod.name or name)
    return names


def annotated(text, key, value):
    """A static Pod's manifest with this annotation, everything else as it was; unchanged in a form that kubeadm does not write.

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
    pod = StaticPod("", text)
    if len(pod.containers) > 1 and pod.component not in [_inside(container, "name") for container in pod.containers]:
        raise ValueError("it has %d containers where kubeadm writes one, and none is called like the component" % len(pod.containers))
    given = [_flags([word]) for word in pod.command]
    begin = next((number for number, flag in enumerate(given) if flag), len(given))
    if not all(given[begin:]):
        raise ValueError("its command has something between its flags")
    if begin == len(given) or any(word.first is None for word in pod.command):
        raise ValueError("its flags are not written one to a line, as kubeadm does")
    lines, left, added = re.findall(r"[^\n]*\n|[^\n]+", text), dict(flags), []
    last = pod.command[-1]
    for word, flag in zip(pod.command[begin:], given[begin:]):
        (name,) = flag
        line = lines[word.first]
        # what stands before the flag, and how the line ends
        before, ending = re.match(r" *- +", line), line[len(line.rstrip("\r\n")) :]
        if before is None:
            raise ValueError("its flags are not written one to a line, as kubeadm does")
        if name in flags:
            # a long value with blanks goes on over several lines
            lines[word.first : word.last + 1] = [_flag_line(before.group(0), name, flags[name], ending)] + [""] * (word.last - word.first)
            left.pop(name, None)
        if word is last:
            added = [_flag_line(before.group(0), name, left[name], ending) for name in sorted(left)]
    lines[last.last + 1 : last.last + 1] = added
    new = "".join(lines)
    if StaticPod("", new).flags != dict(pod.flags, **flags):
        raise ValueError("its flags are not written one to a line, as kubeadm does")
    return new


def _flag_line(before, flag, value, ending):
    text = "--%s=%s" % (flag, value)
    # what YAML would not read as these very characters is quoted; JSON's strings are YAML's
    if re.search(r"[^\x21-\x7e]|[#'\"\\{}&*!|>`]|:$", text):
        text = json.dumps(text)
    return before + text + (ending or "\n")
