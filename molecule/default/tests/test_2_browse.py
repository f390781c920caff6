# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""playbooks/browse.yml on a control plane that serves: what is shown, who is let in, what can be written, and what stays."""

from __future__ import annotations

import json
import re

import pytest
from cluster import changes, wait_for
from restore_sandbox import NAMESPACE, keys, left

KUBECONFIG = "/run/k8s-dr-browse/kubeconfig"
# Asks a path of the API server with each method, as each identity of the node: {identity: {method: HTTP code}}.  An identity that is not there is left out.
ASK = r"""
import base64, http.client, json, os, re, ssl, subprocess, sys, tempfile
port, resource, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
directory = "/run/k8s-dr-browse"
def context(cert=None, key=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(directory + "/server.crt")
    if cert:
        made.load_cert_chain(cert, key)
    return made
def of_kubeconfig(path):
    text = open(path).read()
    found = []
    for what in ("client-certificate", "client-key"):
        data = re.search(what + r"-data: (\S+)", text)
        if data:
            handle, file = tempfile.mkstemp()
            os.write(handle, base64.b64decode(data.group(1)))
            found.append(file)
        else:
            found.append(re.search(what + r": (\S+)", text).group(1))
    return context(*found)
who = {"reader": (context(directory + "/reader.crt", directory + "/reader.key"), {}), "without a certificate": (context(), {})}
for file in ("admin", "super-admin", "kubelet", "controller-manager", "scheduler"):
    if os.path.exists("/etc/kubernetes/%s.conf" % file):
        who[file] = (of_kubeconfig("/etc/kubernetes/%s.conf" % file), {})
pki = "/etc/kubernetes/pki/"
for pair in ("apiserver-kubelet-client", "front-proxy-client", "etcd/server"):
    who[pair] = (context(pki + pair + ".crt", pki + pair + ".key"), {})
who["front proxy for an administrator"] = (who["front-proxy-client"][0], {"X-Remote-User": "kubernetes-admin", "X-Remote-Group": "system:masters"})
token = subprocess.run(["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "-n", "kube-system", "create", "token", "namespace-controller"],
                       capture_output=True, text=True)
if token.returncode == 0:
    who["service account"] = (context(), {"Authorization": "Bearer " + token.stdout.strip()})
who["reader for an administrator"] = (who["reader"][0], {"Impersonate-User": "kubernetes-admin", "Impersonate-Group": "system:masters"})
body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
calls = [("list", "GET", resource, None, ""), ("get", "GET", resource + "/" + name, None, ""), ("create", "POST", resource, body, "application/json"),
         ("update", "PUT", resource + "/" + name, body, "application/json"),
         ("patch", "PATCH", resource + "/" + name, '{"data": {"a": "b"}}', "application/merge-patch+json"),
         ("apply", "PATCH", resource + "/" + name + "?fieldManager=t&force=true", body, "application/apply-patch+yaml"),
         ("delete", "DELETE", resource + "/" + name, None, ""), ("deletecollection", "DELETE", resource, None, ""),
         ("dry run", "POST", resource + "?dryRun=All", body, "application/json"),
         ("token", "POST", "/api/v1/namespaces/kube-system/serviceaccounts/namespace-controller/token", '{"apiVersion": "authentication.k8s.io/v1", '
          '"kind": "TokenRequest", "spec": {}}', "application/json")]
found = {}
for person, (tls, headers) in who.items():
    for verb, method, path, text, kind in calls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=10)
        connection.request(method, path, text, dict(headers, **({"Content-Type": kind} if kind else {})))
        found.setdefault(person, {})[verb] = connection.getresponse().status
        connection.close()
print(json.dumps(found))
"""
READS = {"list", "get"}
VERBS = {"list", "get", "create", "update", "patch", "apply", "delete", "deletecollection", "dry run", "token"}


def browse(cluster, *args, **how):
    """Run the playbook."""
    return cluster.playbook("browse.yml", *args, **how)


def kubectl(cluster, *args, check=True):
    """Run kubectl on the node, on what is served."""
    return cluster.run("cp1", "kubectl", "--kubeconfig", KUBECONFIG, *args, check=check)


@pytest.fixture(scope="module")
def snapshot(cluster):
    """A snapshot with a ConfigMap that is deleted afterwards."""
    cluster.note("before-browse")
    path = cluster.snapshot()
    cluster.note("after-browse")
    cluster.kubectl("-n", NAMESPACE, "delete", "configmap", "before-browse")
    yield path
    cluster.playbook("browse.yml", "-e", "etcd_browse_state=absent")


@pytest.fixture(scope="module")
def served(cluster, snapshot):
    """It is served, and this is what the playbook said."""
    before = keys(cluster)
    output = browse(cluster, "-e", "etcd_browse_snapshot=" + snapshot).stdout
    return before, output


def test_nothing_is_left_beforehand(cp1, snapshot):
    assert left(cp1) == []


def test_check_mode_predicts_it(cluster, cp1, snapshot):
    process = browse(cluster, "-e", "etcd_browse_snapshot=" + snapshot, "--check")
    assert changes(process)["cp1"] == 1 and "would be served on cp1" in process.stdout
    assert left(cp1) == []


def test_the_printed_command_shows_what_was_deleted(cluster, served):
    _before, output = served
    command = re.search(r"kubectl --kubeconfig \S+ get all -n", output).group(0)
    assert command == "kubectl --kubeconfig %s get all -n" % KUBECONFIG
    assert "deployment.apps/web" in kubectl(cluster, "get", "all", "-n", "shop")
    assert json.loads(kubectl(cluster, "-n", NAMESPACE, "get", "configmap", "before-browse", "-o", "json"))["data"] == {"text": "yes"}
    assert kubectl(cluster, "-n", "shop", "get", "secret", "payment-key", "-o", "jsonpath={.data.key}")
    assert cluster.noted("before-browse") is None


def test_it_shows_the_revision_of_the_snapshot(cluster, cp1, snapshot, served):
    revision = json.loads(cp1.file(snapshot + ".json").content_string)["revision"]
    listed = json.loads(kubectl(cluster, "get", "--raw", "/api/v1/configmaps"))
    assert int(listed["metadata"]["resourceVersion"]) == revision
    assert all(int(item["metadata"]["resourceVersion"]) <= revision for item in listed["items"])
    names = {item["metadata"]["name"] for item in json.loads(kubectl(cluster, "get", "--raw", "/api/v1/namespaces/%s/configmaps" % NAMESPACE))["items"]}
    assert "before-browse" in names and "after-browse" not in names


def test_every_verb_of_every_identity_is_refused_but_those_that_read(cluster, served):
    found = json.loads(cluster.run("cp1", "python3", "-", "6440", "/api/v1/namespaces/%s/configmaps" % NAMESPACE, "before-browse", stdin=ASK))
    assert {"reader", "admin", "kubelet", "controller-manager", "scheduler", "apiserver-kubelet-client", "front-proxy-client"} <= set(found)
    assert all(set(answers) == VERBS for answers in found.values())
    for who, answers in found.items():
        expected = {verb: (200 if verb in READS else 403) if who == "reader" else 403 if who.startswith("reader") else 401 for verb in VERBS}
        assert answers == expected, who


def test_it_reaches_nothing(cluster, served):
    """Neither kubelet nor a Service nor another member of the cluster."""
    pod = json.loads(kubectl(cluster, "-n", "shop", "get", "pods", "-o", "json"))["items"][0]["metadata"]["name"]
    for args in (["-n", "shop", "logs", pod], ["-n", "shop", "exec", pod, "--", "true"], ["get", "--raw", "/api/v1/namespaces/shop/services/web/proxy/"]):
        with pytest.raises(Exception, match=r"unreachable|forbidden|unable to handle|error"):
            kubectl(cluster, *args)
    pid = cluster.run("cp1", "sh", "-c", "systemctl show -p MainPID --value k8s-dr-browse").strip()
    devices = cluster.run("cp1", "nsenter", "-t", pid, "-n", "cat", "/proc/net/dev")
    assert re.findall(r"^\s*([^\s:]+):", devices, re.MULTILINE) == ["lo"]


def test_etcd_refuses_what_the_api_server_would_write(cluster, cp1, served):
    """The second barrier, without the first one: what the API server itself tries."""
    log = cp1.check_output("cat /var/lib/.k8s-dr-*/kube-apiserver.log")
    assert "etcdserver: permission denied" in log


def test_only_root_can_read_the_kubeconfig(cp1, served):
    assert (cp1.file(KUBECONFIG).user, cp1.file(KUBECONFIG).mode) == ("root", 0o600)
    assert cp1.file("/run/k8s-dr-browse").mode == 0o700
    assert cp1.check_output("stat -f -c %T /run/k8s-dr-browse") == "tmpfs"


def test_a_second_run_changes_nothing(cluster, snapshot, served):
    process = browse(cluster, "-e", "etcd_browse_snapshot=" + snapshot)
    assert changes(process)["cp1"] == 0
    assert re.search(r"until (\S+)\.", process.stdout).group(1) == re.search(r"until (\S+)\.", served[1]).group(1)


def test_the_live_etcd_is_as_it_was(cluster, served):
    assert keys(cluster) == served[0]


def test_another_snapshot_replaces_it(cluster, cp1, served):
    other = cluster.snapshot()
    output = browse(cluster).stdout
    assert other in output and "It was ended for this one" in output
    assert len([line for line in cluster.processes("cp1", "/run/k8s-dr-browse/") if line.startswith("kube-apiserver ")]) == 1
    with pytest.raises(Exception, match="not found"):
        kubectl(cluster, "-n", NAMESPACE, "get", "configmap", "before-browse")


def test_absent_leaves_nothing(cluster, cp1, served):
    process = browse(cluster, "-e", "etcd_browse_state=absent")
    assert changes(process)["cp1"] == 1
    assert left(cp1) == []
    assert changes(browse(cluster, "-e", "etcd_browse_state=absent"))["cp1"] == 0


def test_it_ends_by_itself(cluster, cp1, snapshot):
    browse(cluster, "-e", "etcd_browse_ttl=25", "-e", "etcd_browse_snapshot=" + snapshot)
    assert left(cp1)
    wait_for(lambda: not left(cp1), 40, "the end of what is served")


def test_what_is_killed_is_removed(cluster, cp1, snapshot):
    browse(cluster, "-e", "etcd_browse_snapshot=" + snapshot)
    cp1.check_output("pkill -KILL -f '^kube-apiserver .*k8s-dr-browse'")
    wait_for(lambda: not left(cp1), 30, "the end of what is served")


def test_a_start_that_is_killed_ends_by_itself(cluster, cp1, snapshot):
    process = browse(cluster, "-e", "etcd_browse_ttl=20", "-e", "etcd_browse_snapshot=" + snapshot, background=True)
    script = "until systemctl is-active --quiet k8s-dr-browse; do sleep 0.02; done; sleep 0.5"
    script += "; for p in $(pgrep -x python3); do grep -q supervisor /proc/$p/cmdline || kill -KILL $p; done"
    cluster.run("cp1", "sh", "-c", script)
    assert process.communicate()[0] and process.returncode != 0
    assert left(cp1)
    wait_for(lambda: not left(cp1), 40, "the end of what a killed module began")


def test_a_reboot_removes_the_data(cluster, cp1, snapshot):
    """What systemd does when a node boots, after a power cut: /run is empty then."""
    browse(cluster, "-e", "etcd_browse_snapshot=" + snapshot)
    cp1.check_output("cp /run/k8s-dr-browse/remove /root/remove-browse; echo : > /run/k8s-dr-browse/remove; systemctl kill -s KILL k8s-dr-browse")
    wait_for(lambda: cp1.run("systemctl is-active k8s-dr-browse").rc != 0, 30, "the end of the unit")
    assert len([path for path in left(cp1) if path.startswith("/var/lib/.k8s-dr-")]) == 1
    cp1.check_output("rm -r /run/k8s-dr-browse; systemd-tmpfiles --remove --boot /etc/tmpfiles.d/k8s-dr-browse.conf; rm /root/remove-browse")
    assert left(cp1) == []


def test_every_object_is_listed(cluster, cp1, snapshot):
    output = browse(cluster, "-e", "etcd_browse_snapshot=" + snapshot, "-e", "etcd_browse_verify=true").stdout
    number = int(re.search(r"(\d+) objects of \d+ resources were listed and decoded", output).group(1))
    counted = json.loads(cp1.file(snapshot + ".json").content_string)["inventory"]["objects"]
    internal = ("ranges", "masterleases", "peerserverleases")
    assert number == sum(sum(counts.values()) for resource, counts in counted.items() if resource not in internal)
    assert "It has no API for" not in output
    browse(cluster, "-e", "etcd_browse_state=absent")


def test_a_taken_port_is_refused(cluster, cp1, snapshot):
    process = browse(cluster, "-e", "etcd_browse_port=10250", "-e", "etcd_browse_snapshot=" + snapshot, check=False)
    assert process.returncode == 2 and "port 10250 of 127.0.0.1 cannot be used on this host" in process.stdout
    assert left(cp1) == []


def test_no_room_is_refused(cluster, cp1, snapshot):
    cp1.check_output("mkdir /root/small && mount -t tmpfs -o size=300m tmpfs /root/small")
    process = browse(cluster, "-e", "etcd_browse_work_dir=/root/small", "-e", "etcd_browse_snapshot=" + snapshot, check=False)
    cp1.check_output("umount /root/small && rmdir /root/small")
    assert process.returncode == 2 and re.search(r"/root/small has \d+\.\d MB free and serving the snapshot needs \d+\.\d MB", process.stdout)
    assert left(cp1) == []


def test_a_damaged_snapshot_is_refused(cluster, cp1, snapshot):
    cp1.check_output("cp %s /root/damaged.db; printf x | dd of=/root/damaged.db conv=notrunc bs=1 seek=20000 status=none", snapshot)
    process = browse(cluster, "-e", "etcd_browse_snapshot=/root/damaged.db", check=False)
    assert process.returncode == 2 and "the snapshot cannot be restored" in process.stdout
    assert left(cp1) == []
    cp1.check_output("rm /root/damaged.db")


def test_an_encrypted_one_from_off_site_and_from_the_node(cluster, cp1, far, key, tmp_path, monkeypatch):
    """The controller downloads and decrypts it, as for a restore, and the copies are gone afterwards."""
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.setenv("TMPDIR", str(landing))
    config = far.config(tmp_path / "rclone.conf")
    identity, recipient = key
    directory = "/var/backups/molecule-browse"
    packing = {"etcd_snapshot_compression": "zstd", "etcd_snapshot_encryption_recipients": [recipient], "etcd_snapshot_dir": directory}
    cluster.note("encrypted")
    cluster.playbook("snapshot.yml", "-e", json.dumps(dict(packing, etcd_snapshot_off_site=far.where, etcd_snapshot_rclone_config_source=config)))
    cluster.kubectl("-n", NAMESPACE, "delete", "configmap", "encrypted")
    off_site = ["-e", "etcd_browse_off_site=" + far.where, "-e", "etcd_browse_rclone_config=" + config]
    process = browse(cluster, *off_site, check=False)
    assert process.returncode == 2 and left(cp1) == []
    for where in (off_site, ["-e", "etcd_browse_snapshot_dir=" + directory]):
        output = browse(cluster, *where, "-e", "etcd_browse_identity_file=%s" % identity).stdout
        assert ".db.zst.age, revision" in output
        assert kubectl(cluster, "-n", NAMESPACE, "get", "configmap", "encrypted", "-o", "jsonpath={.data.text}") == "yes"
        assert list(landing.glob("k8s-dr-*")) == [] and len([path for path in left(cp1) if path.startswith("/var/lib/")]) == 1
        browse(cluster, "-e", "etcd_browse_state=absent")
        assert left(cp1) == []
    assert cluster.run("cp1", "sh", "-c", "grep -rl AGE-SECRET-KEY /etc /root /tmp /run 2>/dev/null || true").strip() == ""
    cp1.check_output("rm -rf %s", directory)
