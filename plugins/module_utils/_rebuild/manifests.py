# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the manifests of a control plane set beyond kubeadm's own, as plain values.  Private to this collection."""

from __future__ import annotations

import os

from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import block_yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.named_files import named_paths
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import COMPONENTS, StaticPod

_NAMES = tuple(component + ".yaml" for component in COMPONENTS)


def described(text):
    """{component, image, version, flags: {name: [values]}, volumes, named: {path in the container: path on the host}} of a manifest."""
    pod = StaticPod("", text)
    return {
        "component": pod.component,
        "name": pod.name,
        "image": pod.image,
        "version": pod.image_version,
        "flags": {flag: [str(value) for value in pod.values(flag)] for flag in pod.flags if pod.values(flag)},
        "volumes": _volumes(text, pod),
        "named": named_paths(pod),
    }


def described_in(directory):
    """({component: described()}, names of other static Pods) of the manifests in a directory; nothing where there is no such directory."""
    pods, others = {}, []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        path = os.path.join(directory, name)
        if name.startswith(".") or not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as stream:
            found = described(stream.read())
        # two of one component are those that were kept beside it
        if found["component"] in COMPONENTS and (found["component"] not in pods or name in _NAMES):
            pods[found["component"]] = found
        elif found["component"] not in COMPONENTS:
            others.append(found["name"] or name)
    return pods, others


def _volumes(text, pod):
    """[{name, hostPath, mountPath, readOnly, pathType}] as kubeadm's extraVolumes have them, of all host paths that the component mounts."""
    parsed = block_yaml.parse(text)
    spec = parsed.get("spec") if isinstance(parsed, dict) else None
    found = spec.get("volumes") if isinstance(spec, dict) else None
    paths = {str(one.get("name")): one["hostPath"] for one in _dicts(found) if isinstance(one.get("hostPath"), dict)}
    container = next((one for one in pod.containers if one.get("name") == pod.component), (pod.containers or [{}])[0])
    volumes = []
    for mount in _dicts(container.get("volumeMounts")):
        host = paths.get(str(mount.get("name")))
        if host:
            volumes.append(
                {
                    "name": str(mount["name"]),
                    "hostPath": str(host.get("path") or ""),
                    "mountPath": str(mount.get("mountPath") or ""),
                    "readOnly": str(mount.get("readOnly") or "") == "true",
                    "pathType": str(host.get("type") or ""),
                }
            )
    return volumes


def _dicts(value):
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
