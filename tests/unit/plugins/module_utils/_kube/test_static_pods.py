from __future__ import annotations

import copy
import functools
import json
import pathlib
import re
from random import Random

import pytest
import yaml
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import (
    COMPONENTS,
    StaticPod,
    annotated,
    other_static_pods,
    read_control_plane,
    read_static_pods,
    with_flags,
)

ETCD = """apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://10.89.0.2:2379
  labels:
    component: etcd
    tier: control-plane
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://10.89.0.2:2379
    - --data-dir=/var/lib/etcd
    - '--initial-cluster=cp1=https://10.89.0.2:2380,cp2=https://10.89.0.3:2380'
    - "--name=cp1"
    - --experimental-watch-progress-notify-interval=5s
    image: registry.k8s.io/etcd:3.5.16-0
    livenessProbe:
      failureThreshold: 8
  - args: []
"""


def test_flags_of_kubeadms_manifest():
    pod = StaticPod("/etc/kubernetes/manifests/etcd.yaml", ETCD)
    assert pod.component == "etcd"
    assert pod.flags["name"] == "cp1"
    assert pod.flags["data-dir"] == "/var/lib/etcd"
    assert pod.flags["initial-cluster"] == "cp1=https://10.89.0.2:2380,cp2=https://10.89.0.3:2380"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("k8s.gcr.io/etcd:3.5.16-0", "3.5.16-0"),
        ("registry.local:5000/kube-apiserver:v1.31.0", "1.31.0"),
        ("registry.k8s.io/etcd:3.5.16-0@sha256:abcd", "3.5.16-0"),
        ("registry.local:5000/etcd@sha256:0123", ""),
        ("registry.local:5000/etcd:stable", ""),
        ("registry.local:5000/etcd:20261129", ""),
        ("etcd", ""),
    ],
)
def test_version_in_an_image(image, version):
    assert StaticPod("x", "spec:\n  containers:\n  - image: %s\n" % image).image_version == version


def test_pods_are_known_by_their_label_and_others_are_left_alone(tmp_path):
    (tmp_path / "weird-name.yaml").write_text(ETCD)
    (tmp_path / "kube-vip.yaml").write_text("kind: Pod\nmetadata:\n  name: kube-vip\n")
    (tmp_path / ".etcd.yaml.swp").write_text(ETCD)
    (tmp_path / "old").mkdir()
    pods = read_static_pods(str(tmp_path))
    assert list(pods) == ["etcd"]
    assert pods["etcd"].path.endswith("weird-name.yaml")


KUBE_VIP = """apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels:
    component: kube-vip
  name: kube-vip
  namespace: kube-system
spec:
  containers:
  - args:
    - manager
    env:
    - name: address
      value: fd00::100
    image: ghcr.io/kube-vip/kube-vip:v0.8.0
    name: kube-vip
  hostAliases:
  - hostnames:
    - kubernetes
    ip: 127.0.0.1
  hostNetwork: true
"""
# It wants to be where an API server is, which is no reason to take it for one.
HAPROXY = """apiVersion: v1
kind: Pod
metadata:
  # no labels at all
  name: haproxy
spec:
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector:
          matchLabels:
            component: kube-apiserver
        topologyKey: kubernetes.io/hostname
  containers:
  - image: haproxy:2.8
    name: haproxy
"""
CALICO = """apiVersion: v1
kind: Pod
metadata:
  name: calico-etcd
  labels:
    k8s-app: calico-etcd
spec:
  containers:
  - name: calico-etcd
    image: quay.io/coreos/etcd:v3.3.9
    command: ["/usr/local/bin/etcd"]
    args:
    - --name=calico
    - --data-dir=/var/etcd/calico-data
"""


def test_load_balancers_and_other_etcds_are_not_the_control_planes(tmp_path):
    (tmp_path / "etcd.yaml").write_text(ETCD)
    for name, text in (("kube-vip.yaml", KUBE_VIP), ("haproxy.yaml", HAPROXY), ("etcd-calico.yaml", CALICO)):
        (tmp_path / name).write_text(text)
    pods = read_static_pods(str(tmp_path))
    assert list(pods) == ["etcd"] and pods["etcd"].flags["data-dir"] == "/var/lib/etcd"
    assert other_static_pods(str(tmp_path)) == ["calico-etcd", "haproxy", "kube-vip"]


@pytest.mark.parametrize(
    ("text", "component"),
    [
        ("metadata:\n  name: etcd\n  labels:\n    tier: control-plane\n\n    # kubeadm's\n    component: etcd\nspec:\n", "etcd"),
        ('metadata: # of it\n    labels: # these\n        component: "kube-scheduler"\n', "kube-scheduler"),
        ("metadata:\n  annotations:\n    component: etcd\n  labels:\n    a: b\n", ""),
        ("metadata:\n  name: x\nspec:\n  labels:\n    component: etcd\n", ""),
        ("component: etcd\n", ""),
        ("metadata:\n  labels:\n    sub:\n      component: etcd\n", ""),
    ],
)
def test_only_the_pods_own_label_counts(text, component):
    assert StaticPod("x", text).component == component


def test_a_backup_left_in_the_directory_is_named(tmp_path):
    """kubelet would run both."""
    (tmp_path / "etcd.yaml").write_text(ETCD)
    (tmp_path / "etcd.yaml.bak").write_text(ETCD)
    with pytest.raises(ValueError, match=r"etcd\.yaml\.bak are both manifests of etcd"):
        read_static_pods(str(tmp_path))


def test_pods_that_are_not_the_control_planes(tmp_path):
    (tmp_path / "etcd.yaml").write_text("metadata:\n  labels:\n    component: etcd\n  name: etcd\n")
    (tmp_path / "kube-vip.yml").write_text("kind: Pod\nmetadata:\n  creationTimestamp: null\n  labels:\n    name: wrong-depth\n  name: vip\nspec:\n")
    (tmp_path / "haproxy.yaml").write_text('metadata:\n    namespace: kube-system\n    name: "haproxy"\nspec:\n  containers:\n  - name: c\n')
    (tmp_path / "odd.json").write_text('{"kind": "Pod"}')
    (tmp_path / ".hidden.yaml").write_text("metadata:\n  name: hidden\n")
    (tmp_path / "directory").mkdir()
    assert other_static_pods(str(tmp_path)) == ["haproxy", "vip", "odd.json"]


PLAIN = """apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels:
    component: kube-scheduler
  name: kube-scheduler
spec:
  containers: []
"""
WITH = PLAIN.replace("  creationTimestamp: null\n", "  annotations:\n    a/b: c\n  creationTimestamp: null\n")


@pytest.mark.parametrize("text", [PLAIN, WITH, "# a comment\n" + WITH])
def test_an_annotation_and_nothing_else(text):
    for value in ("1", "2"):
        before, new = yaml.safe_load(text), annotated(text, "k/r", value)
        after = yaml.safe_load(new)
        assert after["metadata"]["annotations"].pop("k/r") == value
        assert after["metadata"]["annotations"] == before["metadata"].setdefault("annotations", {})
        after["metadata"].pop("annotations"), before["metadata"].pop("annotations")
        assert after == before
    assert yaml.safe_load(annotated(annotated(text, "k/r", "1"), "k/r", "2"))["metadata"]["annotations"]["k/r"] == "2"


@pytest.mark.parametrize("text", ["", "metadata:\n", "metadata: {}\n", '{"metadata": {}}', WITH.replace("annotations:", "annotations: {}  #")])
def test_a_form_that_is_not_known_stays_as_it_is(text):
    assert annotated(text, "k/r", "1") == text


FULL = ETCD.replace("  - args: []\n", """      exec:
        command:
        - /bin/sh
        - -ec
        - ETCDCTL_API=3 etcdctl --endpoints=https://[127.0.0.1]:2379 get foo
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
  hostNetwork: true
""")
CLUSTER = "cp1=https://10.89.0.2:2380,cp2=https://[fd00::3]:2380"


def command(text):
    return yaml.safe_load(text)["spec"]["containers"][0]["command"]


def test_flags_are_replaced_where_they_stand_and_added_after_the_last():
    new = with_flags(FULL, {"initial-cluster": CLUSTER, "initial-cluster-state": "existing"})
    assert command(new) == [*command(FULL)[:3], "--initial-cluster=" + CLUSTER, *command(FULL)[4:], "--initial-cluster-state=existing"]
    changed = [(old, line) for old, line in zip(FULL.splitlines(), new.splitlines()) if old != line]
    assert changed[0][0].strip().startswith("- '--initial-cluster=")
    # everything else byte for byte
    kept = [line for line in new.splitlines(True) if "initial-cluster" not in line]
    assert kept == [line for line in FULL.splitlines(True) if "initial-cluster" not in line]
    assert with_flags(new, {"initial-cluster": CLUSTER, "initial-cluster-state": "existing"}) == new
    assert StaticPod("", new).flags["initial-cluster-state"] == "existing"


@pytest.mark.parametrize(
    "value",
    ["new", "a=https://[::1]:2380", "ends:", "a b", "a #b", "it's", 'say "x"', "back\\slash", "*any", "{x}", "ünï", "x: y", "", "true", "a&b", "tab\there"]
)
def test_any_value_reads_back_as_it_is(value):
    for flag in ("name", "new-flag"):
        assert "--%s=%s" % (flag, value) in command(with_flags(FULL, {flag: value}))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("    - --", "    # said by hand\n\n    - --"),
        lambda text: re.sub(r"\n    - (?=etcd\n|['\"]?--)", r"\n      - ", text),
        lambda text: text.replace("  - command:", "  - name: etcd\n    command:"),
        lambda text: text.replace("--data-dir=/var/lib/etcd", "--data-dir"),
    ],
    ids=["line endings of Windows", "comments", "indented lists", "not the first key", "a flag without a value"],
)
def test_forms_that_operators_write(change):
    text = change(FULL)
    new = with_flags(text, {"name": "x", "added": "y"})
    before, after = yaml.safe_load(text), yaml.safe_load(new)
    assert command(new) == [*("--name=x" if each == "--name=cp1" else each for each in command(text)), "--added=y"]
    before["spec"]["containers"][0].pop("command"), after["spec"]["containers"][0].pop("command")
    assert before == after
    assert new.count("\r\n") == (new.count("\n") if "\r" in text else 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PLAIN,
        '{"spec": {"containers": [{"command": ["etcd", "--name=cp1"]}]}}',
        "  - command: [etcd, --name=cp1]\n",
        FULL.replace("    - --data-dir=/var/lib/etcd\n", "    - --data-dir\n    - /var/lib/etcd\n"),
        FULL.replace('    - "--name=cp1"', "    -\n      --name=cp1"),
        FULL.replace("    livenessProbe:", "  - command:\n    - sidecar\n    - --name=x\n    livenessProbe:"),
        FULL.replace("    livenessProbe:", "    args:\n    - --name=y\n    livenessProbe:"),
    ],
    ids=["empty", "no command", "json", "one line", "value as an item of its own", "dash alone", "two containers", "said again"],
)
def test_a_form_that_kubeadm_does_not_write_is_refused(text):
    with pytest.raises(ValueError, match=r"kubeadm|between its flags"):
        with_flags(text, {"name": "x"})


def test_a_flag_given_twice_is_set_everywhere():
    text = FULL.replace('    - "--name=cp1"\n', "    - --name=cp1\n    - --name=cp9\n")
    assert [each for each in command(with_flags(text, {"name": "x"})) if each.startswith("--name")] == ["--name=x", "--name=x"]


# What kubeadm 1.37.2 wrote for config.yaml.txt beside it, which says how.
RENDERED = pathlib.Path(__file__).resolve().parents[3] / "fixtures" / "kubeadm-1.37.2"


def rendered(component):
    return (RENDERED / (component + ".yaml.txt")).read_text()


@functools.lru_cache(maxsize=None)
def rendered_document(component):
    return yaml.safe_load(rendered(component))


def test_manifests_of_kubeadm_1_37(tmp_path):
    for component in COMPONENTS:
        (tmp_path / (component + ".yaml")).write_text(rendered(component))
    pods = read_static_pods(str(tmp_path))
    assert sorted(pods) == sorted(COMPONENTS)
    assert {component: pod.image_version for component, pod in pods.items()} == dict(dict.fromkeys(COMPONENTS, "1.37.2"), etcd="3.7.0-0")
    assert other_static_pods(str(tmp_path)) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_flags_of_kubeadm_1_37(component):
    """All of the command and nothing of the environment, of which kubeadm writes lines that look like flags."""
    flags = StaticPod("x", rendered(component)).flags
    expected = dict(word[2:].split("=", 1) for word in command(rendered(component))[1:])
    assert {flag: flags[flag] for flag in expected} == expected
    assert set(flags) - set(expected) == ({"wal-dir"} if component == "etcd" else set())


def with_volumes(mounts, volumes, flags=("--data-dir=/var/lib/etcd",)):
    """etcd's manifest with these: YAML in flow style is JSON."""
    text = "metadata:\n  labels:\n    component: etcd\nspec:\n  containers:\n  - name: etcd\n    command: %s\n    volumeMounts: %s\n  volumes: %s\n"
    return StaticPod("etcd.yaml", text % tuple(json.dumps(part) for part in (["etcd", *flags], mounts, volumes)))


def host(name, path):
    return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}


def test_where_the_host_has_what_a_container_sees():
    assert StaticPod("x", rendered("etcd")).data_dir == "/var/lib/etcd"
    assert StaticPod("x", rendered("etcd")).host_path("/etc/kubernetes/pki/etcd/../etcd/ca.crt") == "/etc/kubernetes/pki/etcd/ca.crt"
    mounts = [
        {"mountPath": "/var/lib", "name": "all"},
        {"mountPath": "/var/lib/etcd/", "name": "etcd-data"},
        {"mountPath": "/sub", "name": "etcd-data", "subPath": "a/b"},
        {"mountPath": "/expression", "name": "etcd-data", "subPathExpr": "$(NODE)"},
        {"mountPath": "/tmp", "name": "tmp"},
        {"mountPath": "/none", "name": "no-such"},
    ]
    pod = with_volumes(mounts, [host("all", "/mnt/all"), host("etcd-data", "/var/lib/etcd-from-backup"), {"name": "tmp", "emptyDir": {}}])
    seen = {
        "/var/lib/etcd": "/var/lib/etcd-from-backup",
        "/var/lib/etcd/member/snap": "/var/lib/etcd-from-backup/member/snap",
        "/var/lib/etcd.old": "/mnt/all/etcd.old",
        "/var/lib": "/mnt/all",
        "/sub/c": "/var/lib/etcd-from-backup/a/b/c",
        "/expression/c": None,
        "/tmp/c": None,
        "/none/c": None,
        "/etc/c": None,
    }
    assert {path: pod.host_path(path) for path in seen} == seen
    assert pod.data_dir == "/var/lib/etcd-from-backup"
    assert pod.mounted_below("/var/lib") == ["/var/lib/etcd"]
    assert pod.mounted_below("/var/lib/etcd") == []


@pytest.mark.parametrize(
    ("flags", "mounts", "volumes", "said"),
    [
        (["--data-dir=/data"], [{"mountPath": "/data", "name": "d"}], [{"name": "d", "emptyDir": {}}], "its --data-dir is /data"),
        (["--data-dir=/data"], [], [], "its --data-dir is /data"),
        (["--data-dir=default.etcd"], [{"mountPath": "/", "name": "d"}], [host("d", "/x")], "its --data-dir is default.etcd"),
        ([], [{"mountPath": "/var/lib/etcd", "name": "d"}], [host("d", "/var/lib/etcd")], "its --data-dir is not given"),
    ],
)
def test_data_that_is_nowhere_on_this_host(flags, mounts, volumes, said):
    with pytest.raises(ValueError, match="etcd.yaml keeps etcd's data in no directory of this host: " + said):
        assert with_volumes(mounts, volumes, flags).data_dir


def test_a_file_that_a_flag_names_where_the_host_has_it():
    pod = with_volumes([{"mountPath": "/pki", "name": "pki"}], [host("pki", "/etc/pki")], ["--cert-file=/pki/a.crt", "--key-file=/image/a.key", "--name=cp1"])
    assert [pod.file(flag) for flag in ("cert-file", "key-file", "name", "none")] == ["/etc/pki/a.crt", "/image/a.key", "cp1", ""]
    assert pod.file("none", "/pki/b") == "/etc/pki/b"


@pytest.mark.parametrize(
    ("of_container", "of_pod", "owner"),
    [
        ({}, {"seccompProfile": {"type": "RuntimeDefault"}}, None),
        ({}, {"runAsUser": 2001, "runAsGroup": 2002, "runAsNonRoot": True}, [2001, 2002]),
        ({"runAsUser": 3001}, {"runAsUser": 2001, "runAsGroup": 2002}, [3001, 2002]),
        ({"runAsUser": 3001, "capabilities": {"drop": ["ALL"]}}, {}, [3001, -1]),
        ({"runAsUser": "somebody"}, {}, None),
    ],
)
def test_the_owner_of_the_data(of_container, of_pod, owner):
    """The second is what kubeadm 1.34.4 to 1.37.2 writes with RootlessControlPlane: app/util/staticpod/utils_linux.go."""
    spec = {"containers": [{"name": "etcd", "securityContext": of_container}], "securityContext": of_pod}
    pod = {"metadata": {"labels": {"component": "etcd"}}, "spec": spec}
    assert StaticPod("x", yaml.safe_dump(pod, default_flow_style=False)).owner == owner


def test_the_environment_says_what_flags_do_not():
    text = rendered("etcd")
    assert StaticPod("x", text).flags["wal-dir"] == "/var/lib/etcd-wal"
    assert StaticPod("x", text.replace("    env:\n", "    - --wal-dir=/flag\n    env:\n")).flags["wal-dir"] == "/flag"
    # which only etcd reads
    assert "wal-dir" not in StaticPod("x", text.replace("component: etcd", "component: kube-scheduler")).flags


def test_flags_that_are_repeated():
    apiserver, etcd = StaticPod("x", rendered("kube-apiserver")), StaticPod("x", rendered("etcd"))
    assert apiserver.values("etcd-servers") == ["https://127.0.0.1:2379", "https://192.0.2.12:2379,https://192.0.2.13:2379"]
    assert apiserver.flags["etcd-servers"] == "https://192.0.2.12:2379,https://192.0.2.13:2379"
    assert (etcd.flags["name"], etcd.values("name"), etcd.values("none")) == ("cp1", ["other", "cp1"], [])


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_annotation_for_kubeadm_1_37(component):
    before, after = yaml.safe_load(rendered(component)), yaml.safe_load(annotated(rendered(component), "k/r", "1"))
    assert after["metadata"]["annotations"].pop("k/r") == "1"
    assert after["metadata"].pop("annotations") == before["metadata"].pop("annotations", {})
    assert before == after


def test_flags_for_kubeadm_1_37():
    """One of its flags goes on over several lines."""
    for component, changed, added in (("etcd", "name", "initial-cluster-state"), ("kube-apiserver", "oidc-required-claim", "z")):
        text = rendered(component)
        new = with_flags(text, {changed: "x", added: "y"})
        before, after = yaml.safe_load(text), yaml.safe_load(new)
        old = before["spec"]["containers"][0].pop("command")
        expected = ["--%s=x" % changed if word.startswith("--%s=" % changed) else word for word in old] + ["--%s=y" % added]
        assert after["spec"]["containers"][0].pop("command") == expected
        assert before == after
    assert command(with_flags(rendered("etcd"), {"name": "x"}))[-1] == "--log-outputs=a\nb"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("--data-dir=/var/lib/etcd\n", "--data-dir=/var/lib/etcd\n      and more\n"),
        lambda text: text.replace("--data-dir=/var/lib/etcd\n", "|-\n      --data-dir=/var/lib/etcd\n"),
        lambda text: text.replace("--experimental-watch-progress-notify-interval=5s\n", "--last=a\n      b\n\n"),
    ],
    ids=["folded", "literal", "last"],
)
def test_values_that_take_several_lines(change):
    text = change(FULL)
    for flag in ("data-dir", "name", "last", "new"):
        new = with_flags(text, {flag: "x"})
        words = ["--%s=x" % flag if word.startswith("--%s=" % flag) else word for word in command(text)]
        assert command(new) == (words if "--%s=x" % flag in words else [*words, "--%s=x" % flag])
        assert [line for line in text.splitlines() if "Probe" in line] == [line for line in new.splitlines() if "Probe" in line]


SIDECAR = """    name: etcd
  - command:
    - exporter
    - --data-dir=/wrong
    - --cert-file=/wrong
    image: exporter:1
    name: exporter
  initContainers:
  - command:
    - prepare
    - --data-dir=/wrong
    image: prepare:1
    name: prepare
"""


def test_containers_that_patches_added():
    text = rendered("etcd")
    first = text.replace("  - command:\n    - etcd\n", SIDECAR.partition("\n")[2].partition("  initContainers")[0] + "  - command:\n    - etcd\n")
    for more in (text.replace("    name: etcd\n", SIDECAR, 1), first):
        assert yaml.safe_load(more)["spec"]["containers"][1]
        assert StaticPod("x", more).flags == StaticPod("x", text).flags
        assert StaticPod("x", more).image_version == "3.7.0-0"
        assert StaticPod("x", with_flags(more, {"name": "x"})).flags["name"] == "x"


def test_values_as_items_of_their_own():
    text = FULL.replace("    - --data-dir=/var/lib/etcd\n", "    - --data-dir\n    - /var/lib/etcd\n    - --client-cert-auth\n")
    flags = StaticPod("x", text).flags
    assert (flags["data-dir"], flags["client-cert-auth"]) == ("/var/lib/etcd", "true")


class Styles(yaml.SafeDumper):
    """Writes every scalar and every collection in a style of its own, with anchors for what is the same object."""

    random = Random()

    def represent_scalar(self, tag, value, style=None):
        """In quotes, as a block or plain."""
        style = self.random.choices((None, "'", '"', "|", ">"), (60, 10, 10, 1, 1))[0] if tag.endswith(":str") else style
        return super().represent_scalar(tag, value, style)

    def represent_sequence(self, tag, sequence, flow_style=None):
        """In block style mostly."""
        return super().represent_sequence(tag, sequence, self.random.random() < 0.005)

    def represent_mapping(self, tag, mapping, flow_style=None):
        """In block style mostly."""
        return super().represent_mapping(tag, mapping, self.random.random() < 0.005)

    def ignore_aliases(self, data):
        """Anchors now and then."""
        return super().ignore_aliases(data) or self.random.random() < 0.9


def another(random):
    """A manifest of kubeadm with what people do to it, in some form of YAML."""
    pod = copy.deepcopy(rendered_document(random.choice(COMPONENTS)))
    (container,) = pod["spec"]["containers"]
    if random.random() < 0.5:
        begin = random.randrange(1, len(container["command"]) + 1)
        container["command"], container["args"] = container["command"][:begin], container["command"][begin:]
    words = container.get("args") or container["command"]
    if len(words) > 1 and random.random() < 0.5:
        words[-1:] = words[-1].split("=", 1)
    if random.random() < 0.5:
        sidecar = {"name": "sidecar", "image": "sidecar:1", "command": ["sidecar", "--data-dir=/wrong", "--secure-port=1"]}
        pod["spec"].setdefault(random.choice(("containers", "initContainers")), []).insert(0, sidecar)
    if random.random() < 0.5:
        container["env"] = [{"name": "ETCD_WAL_DIR", "value": random.choice(("/wal", "a: b", " # ", "yes", "'", "x" * 100, "--name=x"))}]
    if random.random() < 0.3:
        container["resources"] = container["startupProbe"] = container.get("startupProbe", {})
    Styles.random = random
    text = yaml.dump(pod, Dumper=Styles, width=random.choice((40, 80, 1000)), indent=random.choice((2, 4)), sort_keys=random.random() < 0.5)
    lines = text.split("\n")
    for dummy in range(random.randrange(3)):
        number = random.randrange(len(lines))
        lines[number] += random.choice(("  # why", "\n# why", "\n", " "))
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(3))
def test_any_manifest_is_read_as_it_is_or_refused(tmp_path, seed):
    random, read = Random(seed), 0
    for dummy in range(200):
        text = another(random)
        (tmp_path / "x.yaml").write_text(text)
        try:
            (pod,) = read_static_pods(str(tmp_path)).values()
        except ValueError as exc:
            assert re.search("x.yaml has .* in line [0-9]+, so what kubelet reads there is not certain", str(exc))
            continue
        read += 1
        # what is read must be YAML: else this fails
        expected = StaticPod("", json.dumps(yaml.load(text, Loader=yaml.BaseLoader)))  # noqa: S506 (it makes nothing but texts)
        for name in ("component", "name", "image", "command", "flags", "containers", "owner"):
            assert getattr(pod, name) == getattr(expected, name), text
    assert read > 20


@pytest.mark.parametrize(
    "text",
    [
        "metadata: {labels: {component: etcd}}\n",
        "metadata:\n  labels: &x\n    component: etcd\n",
        "{metadata: {labels: {component: etcd}}}\n",
        ETCD + "    command: [&a etcd]\n",
    ],
)
def test_a_pod_that_may_be_the_control_planes_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"x.yaml has .* in line [0-9]+, so what kubelet reads there is not certain"):
        read_static_pods(str(tmp_path))


def test_another_pod_may_be_written_in_any_form(tmp_path):
    (tmp_path / "x.yaml").write_text("metadata:\n  labels:\n    app: x\nspec: {containers: [&x {command: [etcd]}]}\n")
    (tmp_path / "y.yaml").write_text("metadata:\n  name: y\nspec: {containers: [&x {command: [etcd]}]}\n")
    (tmp_path / "ca.crt").write_text("neither YAML nor a Pod\n")
    assert (read_static_pods(str(tmp_path)), other_static_pods(str(tmp_path))) == ({}, ["ca.crt", "x.yaml", "y"])


def test_a_control_plane_is_read_as_a_whole(tmp_path):
    with pytest.raises(ValueError, match="no-directory does not exist: this host is no kubeadm control plane"):
        read_control_plane(str(tmp_path / "no-directory"))
    for component in COMPONENTS:
        with pytest.raises(ValueError, match="no manifest of %s" % ", ".join(COMPONENTS[COMPONENTS.index(component) :])):
            read_control_plane(str(tmp_path))
        (tmp_path / (component + ".yaml")).write_text("metadata:\n  labels:\n    component: %s\n" % component)
    assert list(read_control_plane(str(tmp_path))) == list(COMPONENTS)
