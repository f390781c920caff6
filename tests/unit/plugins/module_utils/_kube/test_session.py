# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many requests over one connection, to a real HTTPS server."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import subprocess
import threading

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import session
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.session import session_of_kubeconfig, session_of_node
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=kube"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(directory / "ca.key"), "-out", str(directory / "ca.crt")],
        check=True,
        capture_output=True,
    )
    return directory


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.server.seen.append((self.command, self.path, self.rfile.read(length).decode(), self.headers.get("Content-Type")))
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, {"items": []})
        text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if self.server.closes:
            # without a word, as a server that restarts
            self.close_connection = True
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PATCH = do_DELETE = _answer

    def log_message(self, *args):
        pass


@pytest.fixture
def server(pki, monkeypatch):
    monkeypatch.setattr(session.time, "sleep", lambda _seconds: None)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.seen, made.answers, made.closes, made.connections = [], [], False, 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pki / "ca.crt"), str(pki / "ca.key"))
    context.load_verify_locations(str(pki / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    made.socket = context.wrap_socket(made.socket, server_side=True)
    original = made.finish_request

    def finish_request(*args):
        made.connections += 1
        return original(*args)

    made.finish_request = finish_request
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def kubeconfig(directory, pki, url, in_files=False):
    def value(what, name):
        path = pki / name
        return "%s: %s" % (what, path) if in_files else "%s-data: %s" % (what, base64.b64encode(path.read_bytes()).decode())

    cluster = "clusters:\n- cluster:\n    %s\n    server: %s\n  name: x\n" % (value("certificate-authority", "ca.crt"), url)
    user = "users:\n- name: x\n  user:\n    %s\n    %s\n" % (value("client-certificate", "ca.crt"), value("client-key", "ca.key"))
    path = directory / "kubeconfig"
    path.write_text("apiVersion: v1\nkind: Config\n" + cluster + user)
    return str(path)


@pytest.mark.parametrize("in_files", [False, True])
def test_one_connection_for_many_requests(tmp_path, pki, server, in_files):
    url = "https://127.0.0.1:%d" % server.server_address[1]
    with session_of_kubeconfig(kubeconfig(tmp_path, pki, url, in_files)) as asked:
        assert asked.name == "the API server at %s" % url
        for dummy in range(3):
            assert asked.get("/version") == {"items": []}
        assert asked.request("PATCH", "/x", {"a": 1}, "application/merge-patch+json") == (200, {"items": []})
    assert server.connections == 1
    assert server.seen[-1] == ("PATCH", "/x", '{"a": 1}', "application/merge-patch+json")


def test_a_connection_that_was_closed_is_made_again(tmp_path, pki, server):
    server.closes = True
    with session_of_kubeconfig(kubeconfig(tmp_path, pki, "https://127.0.0.1:%d" % server.server_address[1])) as asked:
        assert [asked.get("/a"), asked.get("/b")] == [{"items": []}] * 2
    assert server.connections >= 2


def test_answers(tmp_path, pki, server):
    with session_of_kubeconfig(kubeconfig(tmp_path, pki, "https://127.0.0.1:%d" % server.server_address[1])) as asked:
        server.answers = [(404, {}), (429, {}), (200, {"a": 1}), (200, "no json"), (403, {"message": "no"})]
        assert asked.get("/gone", "nothing") == "nothing"
        assert asked.get("/busy") == {"a": 1}
        assert asked.request("GET", "/odd") == (200, {"message": "no json"})
        with pytest.raises(KubeError, match="answers 403 to GET /secret: no") as caught:
            asked.get("/secret")
        assert caught.value.status == 403


def test_pages(tmp_path, pki, server):
    with session_of_kubeconfig(kubeconfig(tmp_path, pki, "https://127.0.0.1:%d" % server.server_address[1])) as asked:
        page = {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"continue": "a b"}, "items": [{"metadata": {"name": "a"}}]}
        server.answers = [(200, page), (200, dict(page, metadata={}))]
        found = list(asked.items("/api/v1/configmaps", labelSelector="a=b"))
    assert [(one["kind"], one["apiVersion"]) for one in found] == [("ConfigMap", "v1")] * 2
    assert [path for dummy, path, dummy, dummy in server.seen] == [
        "/api/v1/configmaps?labelSelector=a%3Db&limit=500",
        "/api/v1/configmaps?continue=a%20b&labelSelector=a%3Db&limit=500",
    ]


def test_kubeconfigs_that_cannot_be_used(tmp_path, pki):
    with pytest.raises(KubeError, match="cannot be read"):
        session_of_kubeconfig(str(tmp_path / "none"))
    for url in ("http://127.0.0.1:1", "x"):
        with pytest.raises(KubeError, match="names no server at https"):
            session_of_kubeconfig(kubeconfig(tmp_path, pki, url))
    path = tmp_path / "bare"
    path.write_text("clusters:\n- cluster:\n    certificate-authority: %s\n    server: https://127.0.0.1:1\n" % (pki / "ca.crt"))
    with pytest.raises(KubeError, match="holds no client certificate"):
        session_of_kubeconfig(str(path))
    path.write_text("clusters:\n- cluster:\n    certificate-authority: nothing.crt\n    server: https://127.0.0.1:1\n")
    with pytest.raises(KubeError, match=r"the CA of the kubeconfig .* cannot be used"):
        session_of_kubeconfig(str(path))


def test_a_server_that_does_not_answer(tmp_path, pki):
    with session_of_kubeconfig(kubeconfig(tmp_path, pki, "https://127.0.0.1:1")) as asked, pytest.raises(KubeError, match="does not answer"):
        asked.request("GET", "/", patience=0)


def test_the_node_is_asked_as_the_first_identity_that_is_accepted(pki, server):
    flags = {"advertise-address": "127.0.0.1", "secure-port": server.server_address[1], "client-ca-file": pki / "ca.crt", "tls-cert-file": pki / "ca.crt"}
    flags.update({"kubelet-client-certificate": pki / "ca.crt", "kubelet-client-key": pki / "ca.key"})
    pod = StaticPod("x", "spec:\n  containers:\n  - command:\n" + "".join("    - --%s=%s\n" % item for item in flags.items()))
    with session_of_node(pod) as asked:
        server.answers = [(403, {"message": "exceeded quota"})]
        # a refusal is an answer
        assert asked.request("PATCH", "/x", {}) == (403, {"message": "exceeded quota"})
