# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API server of this very node, against a real HTTPS server on either family of addresses."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, KubeError, release_leaders, url_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.validation import wait
from ansible_collections.k8s_dr.etcd.plugins.modules.kube_api_probe import watch


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A certificate that serves and asks, and is its own CA."""
    directory = tmp_path_factory.mktemp("pki")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=kube"]
        + ["-addext", "subjectAltName=IP:127.0.0.1,IP:::1", "-keyout", str(directory / "ca.key"), "-out", str(directory / "ca.crt")],
        check=True,
        capture_output=True,
    )
    return directory


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request, pki):
    """(address, port) of an API server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"items": [], "path": self.path}).encode())

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in request.param else socket.AF_INET

    hosts = []
    try:
        made = Server((request.param, 0), Handler)
    except OSError:
        pytest.skip("this machine has no %s" % request.param)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pki / "ca.crt"), str(pki / "ca.key"))
    made.socket = context.wrap_socket(made.socket, server_side=True)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield request.param, made.server_address[1], hosts
    made.shutdown()
    made.server_close()


def pod(pki, address, port):
    flags = {"advertise-address": address, "secure-port": port, "client-ca-file": pki / "ca.crt"}
    flags.update({"kubelet-client-certificate": pki / "ca.crt", "kubelet-client-key": pki / "ca.key"})
    return StaticPod("x", "spec:\n  containers:\n  - command:\n" + "".join("    - --%s=%s\n" % item for item in flags.items()))


def test_node_is_asked_at_the_address_that_it_advertises(pki, server):
    address, port, hosts = server
    api = KubeApi(pod(pki, address, port))
    shown = "[::1]" if ":" in address else address
    assert api.url == "https://%s:%d" % (shown, port)
    assert api.ready()
    assert api.get("/api/v1/nodes")["path"] == "/api/v1/nodes"
    # the certificate was compared with the address, and the name sent along is valid
    assert set(hosts) == {"%s:%d" % (shown, port)}


def test_outage_is_watched_at_either_family(pki, server):
    address, port, _hosts = server
    url = url_of(address, port)
    params = {"urls": [url], "ca": (pki / "ca.crt").read_text(), "interval": 0.02, "timeout": 1.0, "max_seconds": 0.3, "stop_file": None}
    seen = watch(dict(params, ready_file=None, while_process=None))["apis"][url]
    assert seen["answering_at_start"] and seen["answering_at_end"] and seen["failures"] == 0, seen


class Node:
    """A control plane node whose API server serves a certificate of a CA of its own, which signs no clients."""

    def __init__(self, directory, pki):
        self.directory, self.pki = directory, directory / "pki"
        self.pki.mkdir()
        for name in ("ca.crt", "ca.key"):
            shutil.copy(pki / name, self.pki)
        # how clients of this cluster prove themselves; the API server's own is signed by `serving`
        self.openssl("req", "-x509", *self.key("serving"), "-days", "2", "-subj", "/CN=serving-ca")
        self.flags = {"advertise-address": "127.0.0.1", "client-ca-file": self.pki / "ca.crt", "tls-cert-file": self.pki / "apiserver.crt"}
        self.flags.update({"kubelet-client-certificate": self.pki / "ca.crt", "kubelet-client-key": self.pki / "ca.key"})
        self.asked = []

    def openssl(self, *argv):
        subprocess.run(["openssl", *map(str, argv)], check=True, capture_output=True)

    def key(self, name):
        key, cert = (self.pki / (name + ending) for ending in (".key", ".crt"))
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert]

    def sign(self, name, names="DNS:api.example.org", by="serving"):
        self.openssl("req", *self.key(name), "-subj", "/CN=kube-apiserver")
        (self.pki / "ext").write_text("subjectAltName=%s\nextendedKeyUsage=serverAuth\n" % names)
        request, cert, ca = (str(self.pki / each) for each in (name + ".crt", name + ".crt", by))
        self.openssl("x509", "-req", "-in", request, "-CA", ca + ".crt", "-CAkey", ca + ".key", "-set_serial", "9", "-days", "2", "-extfile", self.pki / "ext",
                     "-out", cert)  # fmt: skip

    @contextlib.contextmanager
    def serving(self, name="apiserver"):
        """The API that asks it; `asked` is what came through, with the certificate of who asked."""
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                node.asked.append((self.path, bool(self.connection.getpeercert())))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *args: None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self.pki / (name + ".crt")), str(self.pki / (name + ".key")))
        context.load_verify_locations(str(self.pki / "ca.crt"))
        context.verify_mode = ssl.CERT_OPTIONAL
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self.api(server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()

    def api(self, port):
        flags = dict(self.flags, **{"secure-port": port})
        self.manifest = "metadata:\n  labels:\n    component: kube-apiserver\nspec:\n  containers:\n  - command:\n"
        self.manifest += "".join("    - --%s=%s\n" % item for item in flags.items())
        return KubeApi(StaticPod("x", self.manifest), kubernetes_dir=str(self.directory))


@pytest.fixture
def node(tmp_path, pki):
    return Node(tmp_path, pki)


def test_api_server_is_recognized_by_its_own_certificate_with_any_issuer_and_name(node):
    """Its CA need not lie beside --client-ca-file, and it need not name the address asked."""
    node.sign("apiserver")
    with node.serving() as api:
        assert api.ready()
    assert node.asked == [("/readyz", True)]


def test_api_server_that_another_ca_signed_is_watched_from_outside(node):
    node.sign("apiserver")
    node.sign("impostor", by="ca")
    params = {"interval": 0.02, "timeout": 1.0, "max_seconds": 0, "stop_file": None, "ready_file": None, "while_process": None}
    with node.serving() as api, node.serving("impostor") as another:
        # without the cluster's CA, which signed the other one
        (node.pki / "ca.crt").write_text("nothing")
        known = node.api(api.port).certificates
        seen = watch(dict(params, urls=[api.url, another.url], ca=known))["apis"]
    assert [seen[url]["answering_at_start"] for url in (api.url, another.url)] == [True, False], seen


def test_api_server_is_known_by_a_certificate_for_a_name(node):
    node.sign("apiserver")
    node.sign("other")
    node.flags["tls-sni-cert-key"] = "%s,%s:api.example.com" % (node.pki / "other.crt", node.pki / "other.key")
    with node.serving("other") as api:
        assert api.ready()


@pytest.mark.parametrize("inside", [True, False])
def test_certificate_that_was_renewed_on_the_disk_only_is_judged_by_the_ca(node, inside):
    """kubeconfigs know the CA, in them or beside them, where it is not the one that signs clients."""
    node.sign("apiserver", "IP:127.0.0.1")
    shutil.copy(node.pki / "apiserver.crt", node.pki / "old.crt")
    shutil.copy(node.pki / "apiserver.key", node.pki / "old.key")
    node.sign("apiserver", "IP:127.0.0.1")
    data = base64.b64encode((node.pki / "serving.crt").read_bytes()).decode()
    text = "-data: " + data if inside else ": pki/serving.crt"
    (node.directory / "controller-manager.conf").write_text("clusters:\n- cluster:\n    certificate-authority%s\n" % text)
    with node.serving("old") as api:
        assert api.ready() and api.ready()
        # and is tried first from then on
        assert not api.trust.keywords["pinned"]
    assert node.asked == [("/readyz", True)] * 2


@pytest.mark.parametrize(("names", "by"), [("IP:127.0.0.1", "serving"), ("IP:192.0.2.1", "ca")])
def test_another_server_is_asked_nothing_and_shown_no_certificate(node, names, by):
    """Signed by an unknown CA; or by the cluster's, for another address, as any kubelet's."""
    node.sign("apiserver")
    node.sign("impostor", names, by)
    with node.serving("impostor") as api:
        assert not api.ready()
        with pytest.raises(KubeError, match=r"was asked nothing: it is not the certificate in .*apiserver\.crt .*; it is not one that a CA in .*ca.crt or "):
            api.get("/api/v1/nodes")
    assert node.asked == []


def test_an_api_server_that_nothing_here_tells_from_another_is_no_error_before_it_is_asked(node):
    node.sign("apiserver")
    (node.pki / "ca.crt").write_text("nothing")
    node.flags["tls-cert-file"] = "/none/apiserver.crt"
    api = node.api(1)
    assert not api.ready()
    with pytest.raises(KubeError, match=r"nothing here tells it from another server: the certificate in /none/apiserver.crt cannot be read: .*No such file"):
        api.get("/api/v1/nodes")
    params = {"names": None, "baseline": None, "strict": True, "wait_timeout": 0}
    validation = wait(api, params, [])
    assert (validation["ok"], validation["reachable"]) == (False, False)


class Leases:
    """An API server that has leases, by name: their resourceVersion."""

    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/"

    def __init__(self, **leases):
        self.leases = {name.replace("_", "-"): str(version) for name, version in leases.items()}
        self.asked = []

    def get(self, path):
        name = path[len(self.path) :]
        if name not in self.leases:
            raise KubeError("404", 404)
        return {"metadata": {"uid": "uid-of-" + name, "resourceVersion": self.leases[name]}}

    def request(self, method, path, body):
        self.asked.append((method, path[len(self.path) :], json.loads(body)["preconditions"]))
        return 200, ""


def test_leaders_from_before_the_snapshot_are_released_and_no_others():
    """With several nodes the controllers of another one may lead already."""
    api, at = Leases(kube_controller_manager=582, kube_scheduler=1000000583), "kube-system/"
    assert release_leaders(api, [at + "kube-controller-manager", at + "kube-scheduler", at + "nobody"], 582) == [at + "kube-controller-manager"]
    # a leader that renews it meanwhile keeps it
    assert api.asked == [("DELETE", "kube-controller-manager", {"uid": "uid-of-kube-controller-manager", "resourceVersion": "582"})]


def test_leaders_that_cannot_be_released_expire():
    api = Leases(kube_scheduler=5)
    api.request = lambda *args: (409, "it was renewed")
    assert release_leaders(api, ["kube-system/kube-scheduler"], 582) == []

    def refuse(path):
        raise KubeError("403", 403)

    api.get = refuse
    assert release_leaders(api, ["kube-system/kube-scheduler"], 582) == []
