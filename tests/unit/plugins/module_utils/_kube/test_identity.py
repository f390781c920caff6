# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The identity with which the API server is asked, against a real HTTPS server that judges client certificates by their groups as Kubernetes does."""

from __future__ import annotations

import base64
import functools
import glob
import http.server
import json
import shutil
import ssl
import subprocess
import threading
import types

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import api as kube_api, validation
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.certificates import CertificateError, client_pair, subject, validities
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.health import missing_roles
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import StaticPod
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.tls import tls_context

ADMINS = "kubeadm:cluster-admins"
MASTERS = "system:masters"
# (file, organization) of kubeadm 1.37.2 and 1.28: its certs/certlist.go and kubeconfig/kubeconfig.go
TODAY = {"super-admin.conf": MASTERS, "admin.conf": ADMINS, "apiserver-kubelet-client": None}
OF_1_28 = {"admin.conf": MASTERS, "apiserver-kubelet-client": MASTERS}


def openssl(*argv):
    subprocess.run(["openssl", *map(str, argv)], check=True, capture_output=True)


def sign(pki, path, user, group):
    """A client certificate and its key, path.crt and path.key, that the cluster's CA signed."""
    name = "%s/CN=%s" % ("/O=" + group if group else "", user)
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", name, "-keyout", "%s.key" % path, "-out", "%s.csr" % path)
    openssl("x509", "-req", "-in", "%s.csr" % path, "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-set_serial", "7", "-days", "2", "-out", "%s.crt" % path)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The cluster's CA, and what serves with a certificate of it."""
    pki = tmp_path_factory.mktemp("authority")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=kubernetes",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pki / "ca.key", "-out", pki / "ca.crt")  # fmt: skip
    return pki


@pytest.fixture
def node(tmp_path, authority):
    """Makes /etc/kubernetes of a node: node({file: organization}, ca_key=True)."""

    def make(files, ca_key=True):
        pki = tmp_path / "pki"
        pki.mkdir()
        shutil.copy(authority / "ca.crt", pki)
        if ca_key:
            shutil.copy(authority / "ca.key", pki)
        for name, group in files.items():
            if not name.endswith(".conf"):
                sign(authority, pki / name, "kube-apiserver-kubelet-client", group)
                continue
            sign(authority, tmp_path / name, "kubernetes-" + name[:-5], group)
            data = {what: base64.b64encode((tmp_path / ("%s.%s" % (name, what))).read_bytes()).decode() for what in ("crt", "key")}
            (tmp_path / name).write_text(
                "apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user:\n    client-certificate-data: %(crt)s\n    client-key-data: %(key)s\n" % data
            )
        return tmp_path

    return make


@pytest.fixture
def cluster(authority):
    """An API server: `groups` are those that it lets in, `asked` who came, `reviews` what subjectaccessreviews say of a user."""
    state = types.SimpleNamespace(groups={MASTERS, ADMINS}, asked=[], reviews={}, status=403, unauthenticated=403)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            parts = [pair for several in (self.connection.getpeercert() or {}).get("subject", ()) for pair in several]
            user = next((value for key, value in parts if key == "commonName"), "")
            groups = {value for key, value in parts if key == "organizationName"}
            state.asked.append((user, self.path))
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            if groups & state.groups:
                code, answer = 200, {"items": [], "status": {"allowed": state.reviews.get(body.get("spec", {}).get("user"), True)}}
            else:
                code, answer = state.status if user else state.unauthenticated, {"message": 'User "%s" cannot list things' % user}
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "ca.crt", authority / "ca.key")
    context.load_verify_locations(authority / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def api(directory):
        pki = directory / "pki"
        flags = {"advertise-address": "127.0.0.1", "secure-port": server.server_address[1], "client-ca-file": pki / "ca.crt"}
        flags.update({"kubelet-client-certificate": pki / "apiserver-kubelet-client.crt", "kubelet-client-key": pki / "apiserver-kubelet-client.key"})
        manifest = "spec:\n  containers:\n  - command:\n" + "".join("    - --%s=%s\n" % item for item in flags.items())
        return KubeApi(StaticPod("x", manifest), kubernetes_dir=str(directory))

    state.api = api
    yield state
    server.shutdown()
    server.server_close()


def who(api):
    return api.identity.name.rpartition("/")[2]


@pytest.mark.parametrize(
    ("files", "let_in", "expected"),
    [
        (TODAY, {MASTERS, ADMINS}, "super-admin.conf"),
        # a node that joined
        ({"admin.conf": ADMINS, "apiserver-kubelet-client": None}, {MASTERS, ADMINS}, "admin.conf"),
        # the restore took the binding away
        ({"admin.conf": ADMINS, "apiserver-kubelet-client": None}, {MASTERS}, "ca.key"),
        ({"apiserver-kubelet-client": None}, {MASTERS, ADMINS}, "ca.key"),
        # an upgraded cluster: its certificates are what they were, whatever their names say today
        ({"apiserver-kubelet-client": MASTERS}, {MASTERS}, "apiserver-kubelet-client.crt"),
        ({"apiserver-kubelet-client": ADMINS}, {MASTERS, ADMINS}, "apiserver-kubelet-client.crt"),
        ({"admin.conf": ADMINS, "apiserver-kubelet-client": MASTERS}, {MASTERS}, "apiserver-kubelet-client.crt"),
        (OF_1_28, {MASTERS}, "admin.conf"),
    ],
)
def test_the_first_identity_that_is_accepted_is_used(node, cluster, files, let_in, expected):
    cluster.groups = let_in
    api = cluster.api(node(files))
    assert api.get("/api/v1/nodes") == {"items": [], "status": {"allowed": True}}
    assert who(api) == expected
    # and goes on asking, with no detour
    cluster.asked.clear()
    api.get("/api/v1/pods")
    assert len(cluster.asked) == 1


def test_another_identity_is_used_when_a_restore_removes_the_rights(node, cluster):
    api = cluster.api(node({"admin.conf": ADMINS, "apiserver-kubelet-client": None}))
    api.get("/api/v1/nodes")
    assert who(api) == "admin.conf"
    cluster.groups = {MASTERS}
    api.get("/api/v1/nodes")
    assert who(api) == "ca.key"


def test_no_certificate_is_accepted(node, cluster):
    """Who was refused what, who could not ask, and the remedy, in one sentence."""
    cluster.groups = set()
    api = cluster.api(node({"admin.conf": ADMINS, "apiserver-kubelet-client": None}, ca_key=False))
    with pytest.raises(Refused) as caught:
        api.get("/apis/coordination.k8s.io/v1/leases?limit=1")
    text = str(caught.value)
    assert caught.value.status == 403
    for words in (
        'GET /apis/coordination.k8s.io/v1/leases: ',
        'admin.conf (403: User "kubernetes-admin" cannot list things)',
        "apiserver-kubelet-client.crt (403: ",
        "super-admin.conf (does not exist)",
        "ca.key is not on this node",
        "kubeadm init phase kubeconfig super-admin",
    ):
        assert words in text, text


def test_a_node_with_no_certificate_at_all_still_asks_whether_it_is_ready(node, cluster):
    cluster.unauthenticated = 200
    api = cluster.api(node({}, ca_key=False))
    assert api.ready()
    assert cluster.asked == [("", "/readyz")]


def test_one_refusal_is_not_final(node, cluster, monkeypatch):
    """An API server that has just started has not read its roles yet; where it decides for good, it serves."""
    cluster.groups = set()
    api = cluster.api(node({"admin.conf": ADMINS, "apiserver-kubelet-client": None}, ca_key=False))
    assert not api.ready()
    monkeypatch.setattr(kube_api, "REFUSAL_IS_FINAL", 0)
    assert api.ready()
    cluster.groups = {ADMINS}
    assert api.ready() and api.refused_for() == 0


def test_a_certificate_of_one_hour_leaves_nothing(node, cluster, monkeypatch):
    directory = node({"apiserver-kubelet-client": None})
    made = cluster.api(directory).identities[-1]
    held = []
    real = shutil.rmtree

    def look(path, **how):
        held.extend(open(name, "rb").read() for name in glob.glob(path + "/client.crt"))
        real(path, **how)

    monkeypatch.setattr(shutil, "rmtree", look)

    def left():
        return set(glob.glob("/run/k8s-dr-*") + glob.glob("/dev/shm/k8s-dr-*")) | {str(path) for path in directory.rglob("*")}

    before = left()
    assert made.context(functools.partial(tls_context, str(directory / "pki/ca.crt")))
    assert (made.user, made.groups) == ("k8s-dr-etcd", [MASTERS])
    begin, end = validities(held[0])[0]
    assert 3600 < (end - begin).total_seconds() <= 3900
    assert left() == before


def test_without_openssl_none_is_made(node, cluster, monkeypatch):
    directory = node({})
    made = cluster.api(directory).identities[-1]
    monkeypatch.setattr(shutil, "which", lambda *args, **how: None)
    assert made.context(functools.partial(tls_context, str(directory / "pki/ca.crt"))) is None
    assert "there is no openssl" in made.problem


def test_a_key_that_is_not_the_authoritys(node, cluster, tmp_path):
    directory = node({})
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", directory / "pki/ca.key")
    made = cluster.api(directory).identities[-1]
    assert made.context(functools.partial(tls_context, str(directory / "pki/ca.crt"))) is None
    assert "cannot be made: `openssl ca` " in made.problem


@pytest.mark.parametrize("damage", ["", "users: []\n", "    client-certificate-data: AAAA\n    client-key-data: AAAA\n", "    client-certificate: /none\n"])
def test_a_damaged_kubeconfig_is_skipped(node, cluster, damage):
    directory = node({"admin.conf": ADMINS, "apiserver-kubelet-client": None})
    (directory / "super-admin.conf").write_text(damage)
    api = cluster.api(directory)
    api.get("/api/v1/nodes")
    assert who(api) == "admin.conf" and api.identities[0].problem


def test_a_kubeconfig_that_names_files(node, cluster):
    directory = node({"admin.conf": ADMINS, "apiserver-kubelet-client": None})
    (directory / "admin.conf").write_text('users:\n- user:\n    "client-certificate": "admin.conf.crt"\n    client-key: %s\n' % (directory / "admin.conf.key"))
    api = cluster.api(directory)
    api.get("/api/v1/nodes")
    assert who(api) == "admin.conf"


@pytest.mark.parametrize(
    ("files", "ca_key", "expected"),
    [
        (TODAY, True, "super-admin.conf"),
        ({"admin.conf": ADMINS, "apiserver-kubelet-client": None}, True, "ca.key"),
        # an external CA
        ({"admin.conf": ADMINS, "apiserver-kubelet-client": None}, False, None),
        (OF_1_28, False, "admin.conf"),
    ],
)
def test_identities_that_work_whatever_etcd_holds(node, cluster, files, ca_key, expected):
    lasting = cluster.api(node(files, ca_key)).lasting()
    assert (lasting and lasting.name.rpartition("/")[2]) == expected


def test_roles_that_a_snapshot_lacks_are_reported_with_the_command(node, cluster):
    api = cluster.api(node(TODAY))
    assert missing_roles(api) == []
    cluster.reviews = {"kubernetes-admin": False, "kube-apiserver-kubelet-client": False}
    admin, kubelets = missing_roles(api)
    assert "admin.conf may not administer this cluster any more, since its group kubeadm:cluster-admins" in admin
    assert "super-admin.conf create clusterrolebinding kubeadm:cluster-admins --clusterrole=cluster-admin --group=kubeadm:cluster-admins" in admin
    assert "kubectl logs and kubectl exec fail" in kubelets and "kubeadm init" not in kubelets
    assert kubelets.endswith(
        "super-admin.conf create clusterrolebinding kubeadm:apiserver-kubelet-client --clusterrole=system:kubelet-api-admin "
        "--user=kube-apiserver-kubelet-client"
    )


def test_where_only_the_authoritys_key_helps_the_command_makes_an_administrator_first(node, cluster):
    cluster.groups = {MASTERS}
    cluster.reviews = {"kubernetes-admin": False}
    api = cluster.api(node({"admin.conf": ADMINS, "apiserver-kubelet-client": None}))
    api.get("/api/v1/nodes")
    assert "Run on the node: kubeadm init phase kubeconfig super-admin && kubectl --kubeconfig %s" % api.identities[0].name in missing_roles(api)[0]


class Asked:
    """What kube_validation asks of an API server that refuses everybody."""

    def __init__(self, refusals):
        self.refusals, self.looks = refusals, 0
        self.identity = types.SimpleNamespace(name="/etc/kubernetes/admin.conf")

    def items(self, path):
        self.looks += 1
        if self.refusals:
            self.refusals -= 1
            raise Refused("nobody may", 403)
        return []

    def get(self, path):
        return {"items": []}

    def refused_for(self):
        return self.looks

    def lasting(self):
        return self.identity


def validate(monkeypatch, refusals, **params):
    monkeypatch.setattr(validation.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(validation, "missing_roles", lambda api: [])
    asked = Asked(refusals)
    params = {"names": None, "baseline": None, "scope": "all", "settle_time": 0, "since_revision": 0, "wait_timeout": 0, **params}
    return validation.wait(asked, params, {}), asked


def test_validation_waits_out_a_temporary_refusal(monkeypatch):
    validation, asked = validate(monkeypatch, refusals=5)
    assert validation["permitted"] and validation["observed"] is not None and asked.looks > 5
    assert validation["identity"] == validation["lasting"] == "/etc/kubernetes/admin.conf"


def test_validation_gives_up_on_a_refusal_that_stays_long_before_its_time(monkeypatch):
    validation, asked = validate(monkeypatch, refusals=10000, wait_timeout=240)
    assert (validation["reachable"], validation["permitted"], validation["ok"], validation["observed"]) == (True, False, False, None)
    assert asked.looks == 15
    assert validation["layers"]["system"]["problems"] == ["nobody may"]


@pytest.mark.parametrize(("name", "groups"), [("kubernetes-admin", ["kubeadm:cluster-admins"]), ("Müller", ["a", "b c"]), ("x", [])])
def test_subject(tmp_path, authority, name, groups):
    text = "".join("/O=" + group for group in groups) + "/CN=" + name
    openssl("req", "-x509", "-utf8", "-key", authority / "ca.key", "-days", "1", "-subj", text, "-out", tmp_path / "a.crt")
    assert subject((tmp_path / "a.crt").read_bytes()) == (name, groups)


@pytest.mark.parametrize("body", [None, b"MAA=", b"!"])
def test_no_subject(body):
    with pytest.raises(CertificateError):
        subject(b"" if body is None else b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n" % body)


def test_client_pair_of_json():
    assert client_pair('{"users": [{"user": {\n"client-certificate-data": "YQ==",\n"client-key-data": "Yg=="}}]}') == (b"a", b"b")
