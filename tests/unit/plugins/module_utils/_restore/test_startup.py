# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether new Pods of the control plane could start, with simulated answers of crictl and containerd."""

from __future__ import annotations

import json
import os
import pathlib
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import startup

FIXTURES = pathlib.Path(__file__).parents[3] / "fixtures" / "kubeadm-1.37.2"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PAUSE = "registry.k8s.io/pause:3.10.2"


def manifests(**changes):
    """{component: StaticPod} as kubeadm 1.37.2 writes them, with one text for another in all."""
    pods = {}
    for component in COMPONENTS:
        text = (FIXTURES / (component + ".yaml.txt")).read_text()
        for old, new in changes.get("replace", ()):
            text = text.replace(old, new)
        pods[component] = StaticPod("/manifests/%s.yaml" % component, text)
    return pods


@pytest.fixture
def kubelet(tmp_path):
    return types.SimpleNamespace(pod_logs=str(tmp_path / "log"), root_dir=str(tmp_path / "kubelet"))


class Crictl:
    """A runtime with some images.  info, images: what it says, in the words of cri-tools 1.37.0 with containerd 2.4.2."""

    def __init__(self, directory, monkeypatch, images, info=None, hangs=False):
        self.log = directory / "log"
        (directory / "info").write_text(json.dumps(info if info is not None else {"config": {"sandboxImage": PAUSE}}))
        self.path = directory / "crictl"
        self.path.write_text(
            "#!/bin/sh\nshift 4\necho \"$*\" >> %s\n%s\ncase $1 in info) cat %s ;; imagefsinfo) echo '{\"fsId\": {\"mountpoint\": \"%s\"}}' ;;\n"
            "inspecti) case ' %s ' in *\" $3 \"*) ;; *) echo \"level=error msg=\\\"no such image \\\\\\\"$3\\\\\\\" present\\\"\" >&2; exit 1 ;; esac ;; esac\n"
            % (self.log, "sleep 60" if hangs else "", directory / "info", directory, " ".join(images))
        )
        self.path.chmod(0o755)
        monkeypatch.setattr(startup, "find_tool", lambda name: str(self.path))


@pytest.fixture
def images():
    return [image for pod in manifests().values() for image, _policy in pod.images] + [PAUSE]


@pytest.fixture
def own(monkeypatch):
    """All addresses are this host's but these."""
    foreign = set()
    monkeypatch.setattr(startup, "is_own", lambda address: address not in foreign)
    return foreign


def test_a_sound_node(tmp_path, monkeypatch, kubelet, images, own):
    assert len(images) == 5
    Crictl(tmp_path, monkeypatch, images)
    assert startup.look(manifests(), kubelet, startup.Runtime("/s.sock")) == ([], [])


@pytest.mark.parametrize("gone", [0, 4])
def test_an_image_that_is_not_there_is_fetched(tmp_path, monkeypatch, kubelet, images, own, gone):
    Crictl(tmp_path, monkeypatch, images[:gone] + images[gone + 1 :])
    obstacles, (warning,) = startup.look(manifests(), kubelet, startup.Runtime("/s.sock"))
    whose = ["etcd", "", "", "", "every Pod's sandbox"][gone]
    assert obstacles == []
    assert warning == (
        "the image %s (of %s) is not on this node, and will be fetched from its registry: to be sure, first run crictl pull %s"
        % (images[gone], whose, images[gone])
    )


def test_an_image_that_is_never_fetched(tmp_path, monkeypatch, kubelet, images, own):
    Crictl(tmp_path, monkeypatch, images[1:])
    pods = manifests(replace=[("imagePullPolicy: IfNotPresent", "imagePullPolicy: Never")])
    (obstacle,), warnings = startup.look(pods, kubelet, startup.Runtime("/s.sock"))
    assert obstacle.startswith("the image %s (of etcd) is not on this node, and is never fetched (imagePullPolicy: Never)" % images[0])
    assert warnings == []


@pytest.mark.parametrize(
    ("image", "policy"), [("e:1", "Always"), ("e", ""), ("r.example:5000/e", ""), ("r.example:5000/e:latest", ""), ("e:latest@sha256:00", "")]
)
def test_an_image_that_is_fetched_each_time(tmp_path, monkeypatch, kubelet, own, image, policy):
    Crictl(tmp_path, monkeypatch, [image, PAUSE])
    pods = {"etcd": types.SimpleNamespace(images=[(image, policy)], host_network=False, flags={}, path="")}
    obstacles, (warning,) = startup.look(pods, kubelet, startup.Runtime("/s.sock"))
    assert obstacles == [] and "the image %s (of etcd) is fetched from its registry at each start" % image in warning


@pytest.mark.parametrize("image", ["e:1", "r.example:5000/e:1", "e@sha256:00", "r.example/e:1@sha256:00"])
def test_an_image_that_is_not_fetched_again(tmp_path, monkeypatch, kubelet, own, image):
    Crictl(tmp_path, monkeypatch, [image, PAUSE])
    pods = {"etcd": types.SimpleNamespace(images=[(image, "")], host_network=False, flags={}, path="")}
    assert startup.look(pods, kubelet, startup.Runtime("/s.sock")) == ([], [])


def test_sidecars_and_init_containers_need_images_as_well(tmp_path, monkeypatch, kubelet, images, own):
    Crictl(tmp_path, monkeypatch, images)
    more = "  initContainers:\n  - image: i:1\n    name: i\n  containers:\n  - image: s:1\n    name: s\n"
    text = (FIXTURES / "etcd.yaml.txt").read_text().replace("  containers:\n", more)
    warnings = startup.look({"etcd": StaticPod("x", text)}, kubelet, startup.Runtime("/s.sock"))[1]
    assert [warning.split(" (of")[0] for warning in warnings] == ["the image s:1", "the image i:1"]


def test_without_crictl_or_a_runtime_nothing_is_known(tmp_path, monkeypatch, kubelet, own):
    monkeypatch.setattr(startup, "find_tool", lambda name: None)
    assert startup.look(manifests(), kubelet, startup.Runtime("/s.sock")) == ([], [])
    crictl = Crictl(tmp_path, monkeypatch, [])
    assert startup.look(manifests(), kubelet, startup.Runtime("")) == ([], [])
    assert not crictl.log.exists()


def test_a_crictl_that_hangs_is_asked_once(tmp_path, monkeypatch, kubelet, own):
    monkeypatch.setattr(startup, "_SECONDS", 0.2)
    crictl = Crictl(tmp_path, monkeypatch, [], hangs=True)
    assert startup.look(manifests(), kubelet, startup.Runtime("/s.sock")) == ([], [])
    assert crictl.log.read_text().splitlines() == ["info"]


# Of `containerd config dump`, 2.4.2 and 1.7.
DUMPS = {
    2: "[grpc]\n  address = '%s'\n\n[plugins]\n  [plugins.'io.containerd.cri.v1.images']\n    [plugins.'io.containerd.cri.v1.images'.pinned_images]\n"
    "      sandbox = 'example.org/pause:2'\n    x.sandboxer = 'podsandbox'\n",
    1: '[grpc]\n  address = "%s"\n\n[plugins]\n  [plugins."io.containerd.grpc.v1.cri"]\n    sandbox_image = "example.org/pause:1"\n',
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("socket", ["/s.sock", "/docker.sock"])
def test_the_sandbox_image_of_containerd_is_in_its_configuration(tmp_path, monkeypatch, version, socket):
    Crictl(tmp_path, monkeypatch, [], info={"config": {"rootDir": "/x"}})
    process = tmp_path / "proc/7"
    process.mkdir(parents=True)
    (process / "cmdline").write_text("/usr/bin/containerd\0--config\0/etc/c.toml\0")
    (process / "exe").write_text('#!/bin/sh\n[ "$*" = "--config /etc/c.toml config dump" ] && cat %s\n' % (tmp_path / "dump"))
    (process / "exe").chmod(0o755)
    (tmp_path / "dump").write_text(DUMPS[version] % socket)
    monkeypatch.setattr(startup, "processes", lambda proc: [types.SimpleNamespace(pid=7, name="containerd", pod=None)])
    runtime = startup.Runtime("/s.sock", proc=str(tmp_path / "proc"))
    assert runtime.sandbox_image == ("example.org/pause:%d" % version if socket == "/s.sock" else "")


def test_where_the_runtime_keeps_its_things(tmp_path, monkeypatch):
    for name in ("root", "default", "crio"):
        (tmp_path / name).mkdir()
    root = str(tmp_path / "root")
    Crictl(tmp_path, monkeypatch, [], info={"config": {"containerdRootDir": root, "stateDir": 7}})
    default = (str(tmp_path / "default"), "/nonexistent", root)
    monkeypatch.setattr(startup, "_RUNTIME_DIRS", {"containerd": default, "crio": (str(tmp_path / "crio"),)})
    assert startup.Runtime("/run/crio/containerd.sock").directories == [root, str(tmp_path)]
    monkeypatch.setattr(startup, "find_tool", lambda name: None)
    # what Podman has beside it is nothing that a Pod needs
    assert startup.Runtime("/run/crio/containerd.sock").directories == [default[0], root]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"f_flag": os.ST_RDONLY}, "is mounted read-only"), ({"f_ffree": 3}, "less than 16 MB or 256 inodes"), ({"f_bfree": 3}, "less than 16 MB")]
    + [({"f_files": 0, "f_ffree": 0}, None)],
)
def test_file_systems_that_a_start_writes_to(tmp_path, monkeypatch, kubelet, change, word):
    """One finding for each, whatever it holds."""
    monkeypatch.setattr(startup, "find_tool", lambda name: None)
    monkeypatch.setattr(startup, "_RUNTIME_DIRS", {"s.sock": (str(tmp_path),)})
    values = dict({"f_flag": 0, "f_files": 1000, "f_ffree": 900, "f_bfree": 10**6, "f_frsize": 4096}, **change)
    monkeypatch.setattr(startup.os, "statvfs", lambda path: types.SimpleNamespace(**values))
    found = startup.look({}, kubelet, startup.Runtime("/s.sock"))[0]
    assert len(found) == bool(word)
    for sentence in found:
        assert word in sentence
        assert sentence.startswith("the file system of the logs of Pods (%s), kubelet (%s), the container runtime (%s) " % ((tmp_path,) * 3))


def test_addresses_that_the_host_does_not_have(monkeypatch, kubelet, own):
    monkeypatch.setattr(startup, "find_tool", lambda name: None)
    pods = manifests()
    address = pods["kube-apiserver"].flags["advertise-address"]
    assert startup.look(pods, kubelet, startup.Runtime("")) == ([], [])
    own.add(address)
    obstacles, warnings = startup.look(pods, kubelet, startup.Runtime(""))
    end = "which is not an address of this host, so it could not restart: give the host that address, or change /manifests/etcd.yaml"
    assert obstacles == ["etcd would listen at %s (--%s), %s" % (address, flag, end) for flag in ("listen-client-urls", "listen-peer-urls")]
    assert [warning.split(" tells")[0] for warning in warnings] == ["etcd", "etcd", "kube-apiserver"]
    assert "kube-apiserver tells others to reach it at %s (--advertise-address), which is not an address of this host" % address in warnings[-1]


def test_names_and_sockets_are_no_addresses(monkeypatch, kubelet, own):
    own.update({"localhost", "c"})
    pod = types.SimpleNamespace(host_network=True, images=[], path="x", flags={"listen-client-urls": "https://localhost:2379,unix://c:1,https://[::1]:2379,:"})
    assert startup._foreign(pod, startup._LISTENS) == []
    own.add("::1")
    assert startup._foreign(pod, startup._LISTENS) == [("listen-client-urls", "::1")]
    # in a network of its own it listens at addresses of its own
    pod.host_network = False
    assert startup._foreign(pod, startup._LISTENS) == []


def test_whose_an_address_is():
    assert startup.is_own("127.0.0.1") and startup.is_own("::")
    # documentation's
    assert not startup.is_own("192.0.2.1")
