# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API server of this very node, against a real HTTPS server on either family of addresses."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import KubeApi, KubeError, release_leaders, url_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._static_pod import StaticPod
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
    # the certificate was held against the address, and the name sent along is well-formed
    assert set(hosts) == {"%s:%d" % (shown, port)}


def test_outage_is_watched_at_either_family(pki, server):
    address, port, _hosts = server
    url = url_of(address, port)
    params = {"urls": [url], "ca": (pki / "ca.crt").read_text(), "interval": 0.02, "timeout": 1.0, "max_seconds": 0.3, "stop_file": None}
    seen = watch(dict(params, ready_file=None, while_process=None))["apis"][url]
    assert seen["answering_at_start"] and seen["answering_at_end"] and seen["failures"] == 0, seen


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
    # by whoever renews it meanwhile it is kept
    assert api.asked == [("DELETE", "kube-controller-manager", {"uid": "uid-of-kube-controller-manager", "resourceVersion": "582"})]


def test_leaders_that_nobody_may_release_expire():
    api = Leases(kube_scheduler=5)
    api.request = lambda *args: (409, "it was renewed")
    assert release_leaders(api, ["kube-system/kube-scheduler"], 582) == []

    def refuse(path):
        raise KubeError("403", 403)

    api.get = refuse
    assert release_leaders(api, ["kube-system/kube-scheduler"], 582) == []
