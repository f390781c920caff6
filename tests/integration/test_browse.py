# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot of each etcd, served by a real kube-apiserver: everything but systemd, which does not run where these tests do."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys
import time

import harness
import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import objects_level, session
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.reader import Reader
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused

CACHE = pathlib.Path(os.environ.get("K8S_DR_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "k8s-dr-etcd")


@pytest.fixture(scope="module")
def apiserver():
    """The path of the newest kube-apiserver that a sandbox has built."""
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    found = sorted(CACHE.glob("kubernetes/v1.[2-9][0-9].*/kube-apiserver"), key=lambda path: [int(part) for part in path.parent.name[1:].split(".")])
    if not found or found[-1].parent.name.startswith("v1.20."):
        pytest.skip("no sandbox has built a kube-apiserver on this machine: make sandbox")
    return str(found[-1])


class Writer:
    """A kube-apiserver that fills an etcd, as a cluster does."""

    def __init__(self, apiserver, etcd, directory):
        (self.port,) = harness.free_ports(1)
        pki = etcd.pki
        argv = [apiserver, "--etcd-servers=" + etcd.endpoint, "--etcd-cafile=" + pki["cacert"], "--etcd-certfile=" + pki["cert"]]
        argv += ["--etcd-keyfile=" + pki["key"], "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]
        argv += ["--secure-port=%d" % self.port, "--client-ca-file=" + pki["cacert"], "--tls-cert-file=" + pki["cert"], "--watch-cache=false"]
        argv += ["--tls-private-key-file=" + pki["key"], "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=AlwaysAllow"]
        argv += ["--service-account-issuer=https://x.invalid", "--service-account-key-file=" + pki["cert"]]
        argv += ["--service-account-signing-key-file=" + pki["key"], "--disable-admission-plugins=ServiceAccount"]
        self.log = directory / "writer.log"
        self.context = ssl.create_default_context(cafile=pki["cacert"])
        self.context.load_cert_chain(pki["cert"], pki["key"])
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=directory)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=10)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def ready(self):
        try:
            return self.ask("GET", "/readyz") == 200
        except OSError:
            return False

    def create(self, path, body):
        # right after the start a namespace may not be known yet
        harness.wait_for(lambda: self.ask("POST", path, body) in (201, 409))

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def snapshots(apiserver, version, tmp_path_factory):
    """{what: path}: of an etcd with the objects of a cluster, and of the same without those that an API server makes by itself."""
    directory = tmp_path_factory.mktemp("browse-" + version)
    with harness.Etcd(version, directory) as etcd:
        writer = Writer(apiserver, etcd, directory)
        try:
            harness.wait_for(writer.ready, 90)
            writer.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
            writer.create("/api/v1/namespaces/shop/configmaps", {"metadata": {"name": "prices"}, "data": {"apples": "3"}})
            writer.create("/api/v1/namespaces/shop/secrets", {"metadata": {"name": "pay"}, "stringData": {"key": "x"}})
            writer.create("/api/v1/namespaces/shop/services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
        finally:
            writer.end()
        whole = etcd.save(directory / "whole.db")
        for prefix in (b"/registry/flowschemas/", b"/registry/ipaddresses/", b"/registry/priorityclasses/"):
            etcd.call("/v3/kv/deleterange", key=prefix, range_end=prefix[:-1] + b"0")
        etcd.delete("/registry/apiregistration.k8s.io/apiservices/v1.apps")
        return {"whole": whole, "lacking": etcd.save(directory / "lacking.db")}


@pytest.fixture
def without_systemd(tmp_path, monkeypatch):
    """Where the session would ask systemd, the supervisor is started and ended here."""
    (tmp_path / "run").mkdir()
    directory = tmp_path / "run" / "browse"
    units = []

    def start(self):
        argv = [sys.executable, str(directory / "supervisor.py"), str(directory)]
        units.append(subprocess.Popen(argv, start_new_session=True, preexec_fn=harness._die_with_parent))

    def end():
        for unit in units:
            if unit.poll() is None:
                os.killpg(unit.pid, signal.SIGKILL)
                unit.wait()
        if (directory / "remove").exists():
            subprocess.run(["sh", str(directory / "remove")], check=True)
        shutil.rmtree(directory, ignore_errors=True)

    for name, value in (
        ("DIRECTORY", str(directory)),
        ("KUBECONFIG", str(directory / "kubeconfig")),
        ("_STATE", str(directory / "state.json")),
        ("TMPFILES", str(tmp_path / "tmpfiles" / "browse.conf")),
        ("_SYSTEMD", str(tmp_path)),
        ("is_active", lambda: bool(units) and units[-1].poll() is None),
        ("_remove", end),
    ):
        monkeypatch.setattr(session, name, value)
    monkeypatch.setattr(session.Session, "_start_unit", start)
    yield directory
    if directory.exists():
        end()
    assert list((tmp_path / "run").iterdir()) == [] and not list(tmp_path.glob(".k8s-dr-*"))


def options(apiserver, version, path, directory, **more):
    found = {"path": str(path), "temporary": False, "sha256": "", "ttl": 600, "port": harness.free_ports(1)[0], "work_dir": str(directory), "timeout": 90}
    found.update(verify=False, kube_apiserver=apiserver, encryption_config=None, manifests_dir="/nowhere", etcd=str(harness.bin_dir(version) / "etcd"))
    found.update({"etcdctl": None, "etcdutl": None}, **harness.tools(version))
    return dict(found, **more)


def serve(given):
    with session.Session(given) as one:
        one.check()
        return one.start()


def status(directory, port, method, path, body=None, kind="application/json"):
    """The HTTP code of a request as the reader."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=Reader.of(str(directory), port)._context, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if body else {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_what_was_in_the_snapshot_is_shown_and_stays(apiserver, version, snapshots, without_systemd, tmp_path):
    given = options(apiserver, version, snapshots["whole"], tmp_path, verify=True)
    found = serve(given)
    assert not found["completed"] and found["unreadable"] is None
    objects = found["objects"]
    assert objects["undecodable"] == objects["differences"] == [] and objects["unserved"] == {} and objects["objects"] > 50 and objects["resources"] > 10
    reader = Reader.of(str(without_systemd), given["port"])
    assert reader.get("/api/v1/namespaces/shop/configmaps/prices")["data"] == {"apples": "3"}
    assert reader.get("/api/v1/namespaces/shop/secrets/pay")["data"] == {"key": "eA=="}
    path = "/api/v1/namespaces/shop/configmaps"
    answers = [status(without_systemd, given["port"], *each) for each in (("POST", path, "{}"), ("PUT", path + "/prices", "{}"), ("DELETE", path + "/prices"))]
    assert answers == [403, 403, 403]
    time.sleep(3)
    # it goes on trying to write, and the revision stays
    (work,) = tmp_path.glob(".k8s-dr-*")
    assert "etcdserver: permission denied" in (work / "kube-apiserver.log").read_text(errors="replace")
    assert int(reader.get("/api/v1/configmaps")["metadata"]["resourceVersion"]) == found["revision"]
    session.end()


def test_the_level_objects_leaves_nothing_served(apiserver, version, snapshots, without_systemd, tmp_path):
    given = options(apiserver, version, snapshots["whole"], tmp_path)
    found = objects_level.show(given)(str(snapshots["whole"]), 90)
    assert found["objects"] > 50 and found["resources"] > 10 and found["unserved"] == {} and apiserver.split("/")[-2] == "v" + found["kubernetes_version"]
    assert not without_systemd.exists()


def test_an_object_that_cannot_be_decoded_is_named(apiserver, version, snapshots, without_systemd, tmp_path):
    with harness.Etcd(version, tmp_path / "damaged", data_dir=tmp_path / "data", force_new_cluster=True) as etcd:
        etcd.kill()
        shutil.rmtree(tmp_path / "data")
        assert harness.restore(version, snapshots["whole"], tmp_path / "data").returncode == 0
        etcd.start()
        etcd.put("/registry/configmaps/shop/broken", b"k8s\0nonsense")
        etcd.put("/registry/gadgets/shop/old", b"{}")
        path = etcd.save(tmp_path / "damaged.db")
    found = serve(options(apiserver, version, path, tmp_path, verify=True))["objects"]
    assert [text.partition(":")[0] for text in found["undecodable"]] == ["configmaps shop/broken"] and found["undecodable_objects"] == 1
    assert found["differences"] == [] and found["unserved"] == {"gadgets": 1}
    session.end()


def test_what_the_snapshot_lacks_is_completed(apiserver, version, snapshots, without_systemd, tmp_path):
    given = options(apiserver, version, snapshots["lacking"], tmp_path)
    found = serve(given)
    assert found["completed"]
    reader = Reader.of(str(without_systemd), given["port"])
    assert reader.waits_for() == set()
    changed = [
        item["metadata"]["name"]
        for path in ("/api/v1/configmaps", "/api/v1/secrets", "/api/v1/services", "/api/v1/namespaces")
        for item in reader.get(path)["items"]
        if int(item["metadata"]["resourceVersion"]) > found["revision"]
    ]
    assert changed == []
    assert reader.get("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas")["items"]
    session.end()


def test_an_etcd_with_users_is_refused(apiserver, version, without_systemd, tmp_path):
    with harness.Etcd(version, tmp_path / "users") as etcd:
        etcd.put("/registry/x", b"y")
        etcd.etcdctl("user", "add", "root:secret")
        etcd.etcdctl("role", "add", "root", check=False)
        etcd.etcdctl("user", "grant-role", "root", "root")
        etcd.etcdctl("auth", "enable")
        etcd.etcdctl("--user", "root:secret", "snapshot", "save", tmp_path / "users.db")
    with pytest.raises(Refused, match="etcd with authentication enabled"):
        serve(options(apiserver, version, tmp_path / "users.db", tmp_path))
