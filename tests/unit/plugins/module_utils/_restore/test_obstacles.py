# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would keep a restore from moving files, with simulated mount points and file systems."""

from __future__ import annotations

import base64
import datetime
import fcntl
import os
import pathlib
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import layout, obstacles

from .._kube.test_certificates import expired, make

MANIFEST = """
metadata:
  labels:
    component: {component}
  name: {component}
spec:
  containers:
  - command:
    - {component}
{flags}
"""


class Node:
    """A control plane on disk."""

    def __init__(self, base):
        self.manifests, self.pki, self.data = base / "etc/kubernetes/manifests", base / "etc/kubernetes/pki", base / "var/lib/etcd"
        self.kubelet_conf = base / "etc/kubernetes/kubelet.conf"
        for directory in (self.manifests, self.pki, self.data / "member/snap", self.data / "member/wal"):
            directory.mkdir(parents=True)
        pem, key = make(300)
        for name in ("ca", "server", "healthcheck-client", "apiserver"):
            (self.pki / (name + ".crt")).write_bytes(pem)
            (self.pki / (name + ".key")).write_bytes(key)
        (self.pki / "scheduler.conf").write_text("users:\n- user:\n    client-certificate: ca.crt\n")
        (self.pki / "client.pem").write_bytes(pem + key)
        self.kubelet_conf.write_text("    client-certificate: %s\n" % (self.pki / "client.pem"))
        self.etcd = {"trusted-ca-file": self.pki / "ca.crt", "cert-file": self.pki / "server.crt", "data-dir": self.data}
        self.write()

    def write(self):
        self._manifest("etcd", self.etcd)
        self._manifest("kube-apiserver", {"tls-cert-file": self.pki / "apiserver.crt", "client-ca-file": self.pki / "ca.crt", "audit-log-path": "/none"})
        self._manifest("kube-controller-manager", {"cluster-signing-key-file": '""'})
        self._manifest("kube-scheduler", {"kubeconfig": self.pki / "scheduler.conf"})

    def _manifest(self, component, flags):
        text = MANIFEST.format(component=component, flags="\n".join("    - --%s=%s" % item for item in flags.items()))
        (self.manifests / (component + ".yaml")).write_text(text)

    def look(self, static_pods=""):
        return obstacles.obstacles(read_static_pods(str(self.manifests)), str(self.manifests), str(self.data), static_pods)

    def certificates(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        return obstacles.certificates(read_static_pods(str(self.manifests)), str(self.kubelet_conf), now)


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(obstacles.procs, "remaining", lambda names, **dummy: [])
    return Node(tmp_path)


@pytest.fixture
def mounted(monkeypatch):
    """Have these paths be mount points, as far as everybody can see."""
    points = {"/"}

    def mount_of(path):
        path = os.path.realpath(path)
        while path not in points:
            path = os.path.dirname(path)
        return path

    monkeypatch.setattr(layout, "mount_of", mount_of)
    monkeypatch.setattr(obstacles.procs, "mount_of", mount_of)
    return points


def only(found):
    assert len(found) == 1, found
    return found[0]


def test_a_sound_node(node, mounted):
    assert node.look() == []
    assert node.look(str(node.manifests)) == []
    mounted.add(str(node.data))
    assert node.look() == []
    mounted.add(str(node.manifests))
    assert node.look() == []


def test_nothing_there_yet(node):
    for path in (node.data / "member/snap", node.data / "member/wal", node.data / "member", node.data):
        path.rmdir()
    assert node.look() == []


def test_the_place_for_restores_is_another_file_system(node, mounted):
    place = str(node.data) + ".restore"
    os.mkdir(place)
    mounted.add(place)
    assert only(node.look()).startswith(place + " is a file system of its own, so data cannot be renamed")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_the_place_for_restores_is_no_directory(node, kind):
    place = str(node.data) + ".restore"
    if kind == "link":
        os.symlink("/tmp", place)
    else:
        open(place, "w").close()
    assert only(node.look()).startswith(place + " is not a directory")


@pytest.mark.parametrize("name", ["member", "member/wal", "member/snap"])
@pytest.mark.parametrize("own", [True, False])
def test_a_file_system_inside_the_data(node, mounted, name, own):
    mounted.add(str(node.data / name))
    if own:
        mounted.add(str(node.data))
    assert only(node.look()).startswith(str(node.data / name) + " is a file system of its own inside")


def test_a_log_outside_the_data(node):
    node.etcd["wal-dir"] = "/fast/wal"
    node.write()
    assert "in /fast/wal (--wal-dir)" in only(node.look())
    node.etcd["wal-dir"] = node.data / "member/wal"
    node.write()
    assert node.look() == []


@pytest.mark.parametrize("target", ["../elsewhere/etcd.yaml", "%s/elsewhere/etcd.yaml"])
def test_a_manifest_that_is_a_symbolic_link(node, target):
    path = node.manifests / "etcd.yaml"
    elsewhere = node.manifests.parent / "elsewhere/etcd.yaml"
    elsewhere.parent.mkdir()
    path.rename(elsewhere)
    path.symlink_to(target.replace("%s", str(node.manifests.parent)))
    assert only(node.look()) == "%s is a symbolic link: put the file itself in its place, with cp --remove-destination %s %s" % (path, elsewhere, path)


def test_a_manifest_that_is_mounted(node, mounted):
    mounted.add(str(node.manifests / "etcd.yaml"))
    assert only(node.look()).startswith(str(node.manifests / "etcd.yaml") + " is mounted by itself")


def test_kubelet_reads_from_elsewhere(node):
    assert only(node.look("/etc/kubelet.d")).endswith("set etcd_client_manifests_dir=/etc/kubelet.d")


@pytest.mark.parametrize("which", ["manifest", "directory", "data"])
def test_what_is_immutable(node, monkeypatch, which):
    path = str({"manifest": node.manifests / "etcd.yaml", "directory": node.manifests, "data": node.data}[which])
    monkeypatch.setattr(obstacles, "_unmovable", lambda candidate: candidate == path)
    assert only(node.look()) == "%s is immutable or append-only, so nothing can be renamed in or out of it: chattr -i -a %s" % (path, path)


def test_flags_of_a_real_file(node, tmp_path):
    """Whatever file system the tests run on: it answers or knows no such thing."""
    assert obstacles._unmovable(str(tmp_path)) is False
    assert obstacles._unmovable(str(node.manifests / "etcd.yaml")) is False
    assert obstacles._unmovable(str(tmp_path / "none")) is False


@pytest.mark.parametrize(
    ("change", "word"),
    [({"f_flag": os.ST_RDONLY}, "read-only"), ({"f_favail": 3}, "is full"), ({"f_bavail": 3}, "is full"), ({"f_files": 0, "f_favail": 0}, None)],
)
def test_file_systems(node, monkeypatch, change, word):
    values = dict({"f_flag": 0, "f_files": 1000, "f_favail": 900, "f_bavail": 10**6, "f_frsize": 4096}, **change)
    monkeypatch.setattr(obstacles.os, "statvfs", lambda path: types.SimpleNamespace(**values))
    found = node.look()
    assert len(found) == (2 if word else 0)
    for sentence in found:
        assert word in sentence


def test_files_that_the_control_plane_needs(node):
    (node.pki / "apiserver.crt").unlink()
    assert only(node.look()) == "%s/apiserver.crt (--tls-cert-file of kube-apiserver) is missing, so it could not restart: put it back" % node.pki


@pytest.mark.parametrize(
    "flag",
    [
        "authentication-config",
        "authorization-config",
        "encryption-provider-config",
        "admission-control-config-file",
        "audit-policy-file",
        "audit-webhook-config-file",
        "token-auth-file",
        "kubelet-certificate-authority",
        "service-account-key-file",
    ],
)
def test_files_of_configuration(node, flag):
    node.write()
    path = node.manifests / "kube-apiserver.yaml"
    path.write_text(path.read_text() + "    - --%s=/nonexistent/file\n" % flag)
    assert only(node.look()).startswith("/nonexistent/file (--%s of kube-apiserver) is missing" % flag)


FLAGS = pathlib.Path(__file__).parents[3] / "fixtures" / "flags-that-name-files.txt"
# Flags whose --help speaks of files without naming one that has to be there, and why not.
NOT_NEEDED = {
    "is written": "audit-log-path cert-dir debug-socket-path flex-volume-plugin-dir write-config-to",
    "speaks of other files": "audit-log-compress audit-log-maxage audit-log-maxbackup audit-log-maxsize authentication-skip-lookup contention-profiling "
    "enable-log-rotation encryption-provider-config-automatic-reload kube-api-burst kube-api-content-type kube-api-qps log-package-levels master "
    "max-snapshots max-wals peer-auto-tls profiling requestheader-allowed-names socket-reuse-address socket-reuse-port unsafe-no-fsync vmodule "
    "watch-progress-notify-interval",
    "a path of HTTP or of etcd": "authorization-always-allow-paths etcd-prefix",
    "looked at with the data": "data-dir wal-dir",
    # etcd with data does not ask others for its members (3.7.3: server/etcdserver/bootstrap.go)
    "read where there is no data only": "discovery-cert discovery-key",
    # component-base 0.34.4 to 0.37.2: metrics, SetLabelAllowListFromManifest
    "is an error in the log only": "allow-metric-labels-manifest",
    # 1.34.4 to 1.37.2: nothing but the cloud-controller-manager reads it
    "is not read": "cloud-config",
    "another program's socket, which may come later": "service-account-signing-endpoint",
}


def test_every_flag_that_speaks_of_files_is_known():
    """Of the programs' own --help, see tests/integration/test_flags.py."""
    flags = {line.split(":")[0].split(" ")[1] for line in FLAGS.read_text().splitlines()}
    others = {flag for names in NOT_NEEDED.values() for flag in names.split()}
    assert {flag for flag in flags if not obstacles._NEEDED.search(flag)} == others


@pytest.mark.parametrize(
    ("component", "flag", "value", "missing"),
    [
        ("kube-apiserver", "tls-sni-cert-key", "/none/a.crt,/none/a.key:a.example.org,*.b.example.org", ["/none/a.crt", "/none/a.key"]),
        ("kube-apiserver", "egress-selector-config-file", "/none/egress.yaml", ["/none/egress.yaml"]),
        ("kube-apiserver", "tracing-config-file", "/none/tracing.yaml", ["/none/tracing.yaml"]),
        ("kube-controller-manager", "leader-migration-config", "/none/migration.yaml", ["/none/migration.yaml"]),
        ("kube-controller-manager", "pv-recycler-pod-template-filepath-nfs", "/none/pod.yaml", ["/none/pod.yaml"]),
        ("kube-scheduler", "config", "/none/scheduler.yaml", ["/none/scheduler.yaml"]),
        ("etcd", "client-crl-file", "/none/crl.pem", ["/none/crl.pem"]),
        ("etcd", "auth-token", "simple", []),
        ("etcd", "auth-token", "jwt,pub-key=/none/pub,priv-key=/none/priv,sign-method=RS256,ttl=10m", ["/none/pub", "/none/priv"]),
    ],
)
def test_files_of_today(node, component, flag, value, missing):
    path = node.manifests / (component + ".yaml")
    path.write_text(path.read_text() + '    - "--%s=%s"\n' % (flag, value))
    assert node.look() == ["%s (--%s of %s) is missing, so it could not restart: put it back" % (each, flag, component) for each in missing]


def test_what_is_no_file_that_is_needed(node):
    path = node.manifests / "kube-apiserver.yaml"
    path.write_text(path.read_text() + "    - --runtime-config=/v1=true\n    - --cert-dir=/none\n    - --etcd-prefix=/none\n    - --cloud-config=/none\n")
    assert node.look() == []


def test_each_of_several_files_that_one_flag_names(node):
    path = node.manifests / "kube-apiserver.yaml"
    path.write_text(path.read_text() + "    - --service-account-key-file=/nonexistent/old.pub\n    - --service-account-key-file=%s\n" % (node.pki / "ca.crt"))
    assert only(node.look()).startswith("/nonexistent/old.pub (--service-account-key-file of kube-apiserver) is missing")


def test_a_log_outside_the_data_that_only_the_environment_names(node):
    path = node.manifests / "etcd.yaml"
    path.write_text(path.read_text() + "    env:\n    - name: ETCD_WAL_DIR\n      value: /fast/wal\n")
    assert "in /fast/wal (--wal-dir)" in only(node.look())


def mount(node, component, inside, outside):
    """Have a component's manifest mount a directory of this host."""
    path = node.manifests / (component + ".yaml")
    text = "    volumeMounts:\n    - mountPath: %s\n      name: v\n  volumes:\n  - name: v\n    hostPath:\n      path: %s\n"
    path.write_text(path.read_text() + text % (inside, outside))


def test_an_etcd_whose_pod_cannot_be_recognised(node, monkeypatch):
    database = node.data / "member/snap/db"
    database.write_text("x")
    assert node.look() == []
    with open(database) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "no process of it is in a Pod that can be recognised" in only(node.look())
        asked = []
        monkeypatch.setattr(obstacles.procs, "remaining", lambda names, data_dir="": asked.append((names, data_dir)) or ["a process"])
        assert node.look() == []
    assert asked == [(("etcd",), str(node.data))]


def test_something_mounted_inside_the_data(node):
    mount(node, "etcd", "%s/member/wal" % node.data, "/fast/wal")
    assert "mounts something of its own at %s/member/wal, inside etcd's data" % node.data in only(node.look())


def test_a_file_is_looked_for_where_it_is_mounted_from(node, tmp_path):
    """The file of the same name on the host is another file."""
    elsewhere = tmp_path / "elsewhere"
    mount(node, "kube-apiserver", node.pki, elsewhere)
    assert len(node.look()) == 2
    assert only([each for each in node.look() if "apiserver.crt (--tls-cert-file of kube-apiserver) is missing" in each])
    node.pki.rename(elsewhere)
    node.pki.mkdir()
    assert not [each for each in node.look() if "kube-apiserver" in each]


def test_a_file_in_a_volume_that_only_the_pod_knows(node, monkeypatch):
    """An init container may put it there."""
    path = node.manifests / "kube-apiserver.yaml"
    volume = "    volumeMounts:\n    - mountPath: /made\n      name: m\n  volumes:\n  - name: m\n    emptyDir: {}\n"
    path.write_text(path.read_text() + "    - --oidc-ca-file=/made/oidc.crt\n" + volume)
    assert node.look() == []
    # one that runs shows what is in it
    monkeypatch.setattr(obstacles.procs, "remaining", lambda names, **dummy: [types.SimpleNamespace(pid=999999999)])
    assert only(node.look()).startswith("/made/oidc.crt (--oidc-ca-file of kube-apiserver) is missing")


def test_a_file_that_only_the_pod_sees(node, monkeypatch):
    """Its volume may come from elsewhere on the host."""
    (node.pki / "apiserver.crt").unlink()
    inside = "/proc/7/root" + str(node.pki / "apiserver.crt")
    monkeypatch.setattr(obstacles.procs, "remaining", lambda names, **dummy: [types.SimpleNamespace(pid=7)])
    exists = os.path.exists
    monkeypatch.setattr(obstacles.os.path, "exists", lambda path: path == inside or exists(path))
    assert node.look() == []
    assert obstacles.seen_by(read_static_pods(str(node.manifests))["kube-apiserver"], str(node.pki / "apiserver.crt")) == inside


def test_certificates(node):
    found = {entry["what"]: entry for entry in node.certificates()}
    assert sorted(found) == [
        "etcd's CA",
        "etcd's health check certificate",
        "etcd's server certificate",
        "kubelet's client certificate",
        "the API server's certificate",
    ]
    assert {entry["problem"] for entry in found.values()} == {None}
    assert {entry["days_left"] for entry in found.values()} == {299}


def test_an_expired_certificate_and_an_invalid_one(node):
    (node.pki / "healthcheck-client.crt").write_bytes(expired())
    (node.pki / "server.crt").write_text("not a certificate")
    problems = [entry["problem"] for entry in node.certificates() if entry["problem"]]
    assert len(problems) == 2
    assert problems[0] == "%s/server.crt (etcd's server certificate) holds no certificate in PEM" % node.pki
    assert problems[1].startswith("%s/healthcheck-client.crt (etcd's health check certificate) expired on " % node.pki)


def test_kubelet_without_its_certificate(node):
    (node.pki / "client.pem").unlink()
    (problem,) = [entry["problem"] for entry in node.certificates() if entry["problem"]]
    assert problem == "%s/client.pem (kubelet's client certificate) is missing, although %s names it" % (node.pki, node.kubelet_conf)


# As `kubeadm init phase kubelet-finalize` of 1.37.2 leaves it.
KUBELET_CONF = """apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTg==
    server: https://192.0.2.11:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: system:node:cp1
  name: system:node:cp1@kubernetes
current-context: system:node:cp1@kubernetes
kind: Config
users:
- name: system:node:cp1
  user:
    client-certificate: {path}
    client-key: {path}
"""


def kubelets(node, current=300):
    """kubelet's directory after a rotation; returns its entries."""
    pki = node.manifests.parents[2] / "var/lib/kubelet/pki"
    pki.mkdir(parents=True)
    good, key = make(300)
    (pki / "kubelet-client-2024-01-01-00-00-00.pem").write_bytes(expired() + key)
    (pki / "kubelet-client-2026-01-01-00-00-00.pem").write_bytes((good if current > 0 else expired()) + key)
    (pki / "kubelet-client-current.pem").symlink_to(pki / "kubelet-client-2026-01-01-00-00-00.pem")
    # what it serves with
    (pki / "kubelet.crt").write_bytes(expired())
    (pki / "kubelet-server-current.pem").write_bytes(expired() + key)
    node.kubelet_conf.write_text(KUBELET_CONF.format(path=pki / "kubelet-client-current.pem"))
    return [entry for entry in node.certificates() if str(pki) in entry["path"]]


def test_a_certificate_that_kubelet_rotated(node):
    (entry,) = kubelets(node)
    assert entry["path"].endswith("/kubelet-client-current.pem")
    assert (entry["what"], entry["problem"], entry["days_left"]) == ("kubelet's client certificate", None, 299)


def test_a_certificate_that_kubelet_did_not_rotate_in_time(node):
    (entry,) = kubelets(node, current=0)
    assert "(kubelet's client certificate) expired on " in entry["problem"]


def test_certificates_of_users_are_returned(node):
    good, dummy = make(5)
    for name, pem in (("admin.conf", expired()), ("super-admin.conf", good)):
        data = base64.b64encode(pem).decode()
        (node.kubelet_conf.parent / name).write_text("users:\n- user:\n    client-certificate-data: %s\n" % data)
    found = {os.path.basename(entry["path"]): entry for entry in node.certificates() if "admin" in entry["path"]}
    assert {name: (entry["expired"], entry["problem"]) for name, entry in found.items()} == {"admin.conf": (True, None), "super-admin.conf": (False, None)}
    assert found["super-admin.conf"]["days_left"] == 4
    assert {entry["what"] for entry in found.values()} == {"an administrator's client certificate"}


@pytest.mark.parametrize("text", ["", "users: []\n", "    client-certificate: /none\n", "    client-certificate-data: AAAA\n"])
def test_a_kubeconfig_of_a_user_without_a_certificate_is_left_out(node, text):
    (node.kubelet_conf.parent / "admin.conf").write_text(text)
    assert not [entry for entry in node.certificates() if "admin" in entry["path"]]


def test_no_private_key_is_returned(node):
    assert "PRIVATE" not in str(node.certificates()) and "PRIVATE" not in str(node.look())
