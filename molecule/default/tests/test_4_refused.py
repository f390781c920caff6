# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore refuses while the cluster still serves.

Each time: code not 0; one sentence that names the cause and the way out; the API server answered all the while; nothing on the
disk is another file, or has another name, mode, size or time than before; and etcd is the same process.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import io
import json
import pathlib
import re
import tarfile
import time

import pytest
import yaml

DIRECTORY = "/var/backups/refused"
OWN_CA = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")

# Every name with all that identifies a file. Of etcd's own data only what etcd does not write all the time.
TREE = r"""
find /etc/kubernetes /var/lib/etcd.restore /etc/systemd/system -printf '%p %y %l %m %U:%G %s %T@ %i\n' 2>/dev/null
find /var/lib/etcd -type d -printf '%p %m %U:%G %i\n'
find /var/lib/etcd -name db -printf '%p %m %U:%G %i\n'
find /var/lib -maxdepth 1 '(' -name 'etcd*' -o -name '.*' ')' -printf '%p %y %m %i\n'
"""


def tree(cluster):
    """The state of the node's disk, and its etcd."""
    return sorted(cluster.run("cp1", "sh", "-c", TREE).splitlines()), cluster.live(), cluster.etcd_process()


def watched(cluster, *args):
    """Run a restore; (its result, what the API server missed of it)."""
    with cluster.probe() as probe:
        process = cluster.playbook("restore.yml", "-l", "cp1", *args, check=False)
    return process, [(gap.what, gap.seconds, gap.failures) for gap in probe.gaps() if gap.seconds or gap.failures]


@pytest.fixture
def refused(cluster):
    """Run a restore that must be refused without a trace; returns what the operator was told."""

    def run(*args, confirm=True, nothing="Nothing was done"):
        confirmed = ["-e", "etcd_restore_confirm=true"] if confirm else []
        before = tree(cluster)
        for attempt in range(3):
            process, missed = watched(cluster, *confirmed, *args)
            assert process.returncode != 0
            assert tree(cluster) == before
            # An answer that took too long on a busy machine does not come again; what the restore itself did would.
            if not missed:
                break
            print("attempt %d: %s" % (attempt, missed))
        assert missed == []
        assert "Traceback" not in process.stdout
        said = re.findall(r"^\[ERROR\]: .*$|^fatal: .*?(?=^\S|\Z)", process.stdout, re.MULTILINE | re.DOTALL)
        text = " ".join(" ".join(said).split())
        assert nothing in text, process.stdout
        return text

    return run


@pytest.fixture(scope="module")
def good(cluster):
    """The path of a good snapshot, taken once for all of these tests."""
    return cluster.snapshot()


@pytest.fixture
def snapshot(cp1, good):
    """A copy of the good snapshot with its manifest, to be damaged."""
    cp1.check_output("rm -rf %s && mkdir -m 700 %s && cp -p %s %s.json %s/" % (DIRECTORY, DIRECTORY, good, good, DIRECTORY))
    return DIRECTORY + "/" + good.rsplit("/", 1)[1]


@pytest.fixture
def on_the_node(cluster):
    """on_the_node(do, undo): change something on the node for as long as the test runs."""
    with contextlib.ExitStack() as stack:

        def change(do, undo):
            stack.callback(cluster.run, "cp1", "sh", "-ec", undo)
            cluster.run("cp1", "sh", "-ec", do)

        yield change


def of(snapshot):
    """The arguments that name it."""
    return "-e", "etcd_restore_snapshot=" + snapshot


def change_manifest(cluster, snapshot, change):
    """Have the manifest say something else."""
    manifest = json.loads(cluster.run("cp1", "cat", snapshot + ".json"))
    change(manifest)
    cluster.run("cp1", "sh", "-c", 'cat >"$0"', snapshot + ".json", stdin=json.dumps(manifest, sort_keys=True))


def created(days):
    """The time so many days from now, as a manifest has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * 86400))


# -- without being asked for -----------------------------------------------------------------------------------------


def test_without_a_confirmation(refused, snapshot):
    assert "etcd_restore_confirm=true" in refused(*of(snapshot), confirm=False, nothing="nothing was done")


def test_check_mode_only_reports(cluster, snapshot, on_the_node):
    """Beside the control plane's own there is a static Pod as kube-vip is one: the plan names it as what stays."""
    pod = cluster.workload("kube-vip", "kube-system", "marker-vip")["spec"]["template"]["spec"]
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube-vip", "namespace": "kube-system"}, "spec": dict(pod, hostNetwork=True)}
    path = "/etc/kubernetes/manifests/kube-vip.yaml"
    on_the_node(":", "rm -f " + path)
    cluster.run("cp1", "sh", "-c", 'cat >"$0"', path, stdin=yaml.safe_dump(manifest, sort_keys=False))
    before = tree(cluster)
    text = cluster.playbook("restore.yml", "-l", "cp1", "--check", *of(snapshot)).stdout
    assert "nothing was stopped" in text
    assert snapshot in text
    assert "these static Pods keep running: kube-vip" in text
    assert tree(cluster) == before


def test_while_an_earlier_restore_is_unfinished(refused, on_the_node):
    path = "/var/lib/etcd.restore/20260101T000000Z-0000"
    on_the_node(
        "mkdir -p -m 700 {0}; echo '{{\"about\": {{}}}}' >{0}/plan.json; echo 'stopped 2026-01-01T00:00:00.000Z' >{0}/state".format(path),
        "rm -rf %s; rmdir /var/lib/etcd.restore 2>/dev/null || :" % path,
    )
    text = refused()
    assert "20260101T000000Z-0000 is unfinished" in text
    assert "k8s_dr.etcd.rollback" in text


def test_to_finish_a_restore_where_none_is_unfinished(refused, snapshot):
    """Else an operator who comes after the rollback timer would begin another one, with AWX without a question."""
    text = refused("-e", "etcd_restore_unfinished=resume", *of(snapshot), nothing="Nothing was done")
    assert "No restore is unfinished on cp1" in text and "without etcd_restore_unfinished" in text


# -- the snapshot ----------------------------------------------------------------------------------------------------


def test_a_snapshot_with_one_flipped_bit(cp1, refused, snapshot):
    cp1.check_output(
        "python3 -c 'import sys; f = open(sys.argv[1], \"r+b\"); f.seek(-5000, 2); b = f.read(1); f.seek(-1, 1); f.write(bytes([b[0] ^ 1]))' %s", snapshot
    )
    assert snapshot in refused(*of(snapshot))


def test_a_snapshot_that_is_cut_off(cp1, refused, snapshot):
    cp1.check_output("truncate -s -32 %s", snapshot)
    assert snapshot in refused(*of(snapshot))


def test_a_snapshot_that_is_not_there(refused):
    text = refused(*of("/var/backups/none.db"))
    assert "/var/backups/none.db exists neither on cp1 nor on the controller" in text


def test_an_empty_directory(cp1, refused):
    cp1.check_output("rm -rf %s && mkdir -m 700 %s" % (DIRECTORY, DIRECTORY))
    # where they are taken is where the newest is looked for
    text = refused("-e", "etcd_snapshot_dir=" + DIRECTORY)
    assert "no verified snapshot in %s on cp1" % DIRECTORY in text
    assert "etcd_restore_snapshot=PATH" in text


@pytest.mark.parametrize(
    ("fingerprint", "contents", "name", "option"),
    [
        ("ca", ["0" * 64], "another CA", "etcd_restore_foreign=true"),
        ("service_account", ["0" * 64], "another service-account key", "etcd_restore_foreign=true"),
        ("encryption_configuration", {"secrets": ["aescbc gone " + "0" * 64]}, "secrets (aescbc gone)", "etcd_restore_undecryptable=true"),
    ],
)
def test_a_snapshot_of_another_cluster(cluster, refused, snapshot, fingerprint, contents, name, option):
    def differ(manifest):
        manifest["fingerprints"][fingerprint] = "0" * 64
        manifest["fingerprints"]["contents"][fingerprint] = contents

    change_manifest(cluster, snapshot, differ)
    text = refused(*of(snapshot))
    assert name in text
    assert option in text


def test_a_snapshot_of_another_etcd_cluster(cluster, refused, snapshot):
    """With the same CA, as of a cluster that was cloned."""
    change_manifest(cluster, snapshot, lambda manifest: manifest.update(cluster_id="deadbeefdeadbeef"))
    text = refused(*of(snapshot))
    assert "deadbeefdeadbeef" in text
    assert "etcd_restore_foreign=true" in text


def test_a_snapshot_that_is_too_old(cluster, refused, snapshot):
    change_manifest(cluster, snapshot, lambda manifest: manifest.update(created=created(-9.5)))
    text = refused(*of(snapshot))
    assert "9.5 days ago, and etcd_restore_max_age_days allows 7" in text
    assert "-e etcd_restore_max_age_days=10" in text


def test_a_snapshot_from_the_future(cluster, refused, snapshot):
    change_manifest(cluster, snapshot, lambda manifest: manifest.update(created=created(0.5)))
    text = refused(*of(snapshot))
    assert re.search(r"1[12]\.\d hours from now", text)


def test_a_manifest_of_another_file(cluster, refused, snapshot):
    change_manifest(cluster, snapshot, lambda manifest: manifest.update(sha256="0" * 64))
    text = refused(*of(snapshot))
    assert snapshot + ".json describes another file" in text
    assert "move the manifest away" in text


# -- the node --------------------------------------------------------------------------------------------------------


def test_an_expired_certificate(cluster, refused, on_the_node):
    """The node's own one, with another last day: the signature of an expired one is not checked."""
    path = "/etc/kubernetes/pki/etcd/healthcheck-client.crt"
    pem = cluster.run("cp1", "cat", path)
    der = bytearray(base64.b64decode("".join(pem.split("-----")[2].split())))
    last = [match.start(1) for match in re.finditer(rb"\x17\x0d([0-9]{12})Z", der)][1]
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    der[last : last + 6] = yesterday.strftime("%y%m%d").encode()
    on_the_node("cp -p %s /root/saved.crt" % path, "cat /root/saved.crt >%s; rm /root/saved.crt" % path)
    text = "-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % base64.encodebytes(bytes(der)).decode()
    cluster.run("cp1", "sh", "-c", 'cat >"$0"', path, stdin=text)
    text = refused()
    assert "%s (etcd's health check certificate) expired on %s" % (path, yesterday.strftime("%Y-%m-%d")) in text
    assert "kubeadm certs renew all" in text


def test_a_key_that_was_moved_away(refused, on_the_node):
    """What runs has read it long ago, and would not start again."""
    path = "/etc/kubernetes/pki/ca.key"
    on_the_node("mv %s %s.away" % (path, path), "mv %s.away %s" % (path, path))
    assert path + " (--cluster-signing-key-file of kube-controller-manager) is missing" in refused()


def test_a_manifest_that_was_moved_away(cluster, refused, on_the_node):
    """The scheduler's, without which the cluster works for a while. What starts with a dot kubelet does not read."""
    directory = "/etc/kubernetes/manifests/"
    on_the_node("mv {0}kube-scheduler.yaml {0}.kube-scheduler.yaml".format(directory), "mv {0}.kube-scheduler.yaml {0}kube-scheduler.yaml".format(directory))
    assert "cp1 has no manifest of kube-scheduler in /etc/kubernetes/manifests" in refused()


def test_a_manifest_that_is_a_symbolic_link(refused, on_the_node):
    path = "/etc/kubernetes/manifests/kube-scheduler.yaml"
    on_the_node(
        "mv {0} /etc/kubernetes/scheduler.yaml; ln -s ../scheduler.yaml {0}".format(path), "rm {0}; mv /etc/kubernetes/scheduler.yaml {0}".format(path)
    )
    assert path + " is a symbolic link: put the file itself in its place" in refused()


def test_a_manifest_that_cannot_be_moved(refused, on_the_node):
    path = "/etc/kubernetes/manifests/etcd.yaml"
    on_the_node("chattr +i " + path, "chattr -i " + path)
    text = refused()
    assert path + " is immutable" in text
    assert "chattr -i" in text


def test_manifests_on_a_file_system_that_is_read_only(refused, on_the_node):
    on_the_node("mount --bind /etc/kubernetes /etc/kubernetes; mount -o remount,ro,bind /etc/kubernetes", "umount /etc/kubernetes")
    assert "the manifests (/etc/kubernetes) is mounted read-only" in refused()


def test_a_place_for_restores_on_another_file_system(refused, on_the_node):
    place = "/var/lib/etcd.restore"
    on_the_node("mkdir -p -m 700 {0}; mount -t tmpfs -o size=1m none {0}".format(place), "umount {0}; rmdir {0} 2>/dev/null || :".format(place))
    assert place + " is a file system of its own, so data cannot be renamed between it and /var/lib/etcd" in refused()


def test_no_room_for_the_snapshot_of_what_is_discarded(cp1, refused, on_the_node, good):
    cp1.check_output("rm -rf %s && mkdir -m 700 %s" % (DIRECTORY, DIRECTORY))
    on_the_node("mount -t tmpfs -o size=64k none " + DIRECTORY, "umount " + DIRECTORY)
    text = refused("-e", "etcd_restore_snapshot_dir=" + DIRECTORY, *of(good))
    assert re.search(r"64.00 KB free in the file system of %s, and needs \S+ MB there" % DIRECTORY, text), text
    assert "etcd_restore_safety_snapshot=false" in text


def test_a_node_without_systemd(refused, on_the_node):
    """As everybody who looks for systemd sees it, sd_booted(3)."""
    on_the_node("mv /run/systemd/system /run/systemd/system.away", "mv /run/systemd/system.away /run/systemd/system")
    assert "-e etcd_restore_rollback_after=0" in refused()


def test_a_clock_that_is_an_hour_ahead(cluster, refused, on_the_node):
    """A container has the clock of its host; so Python on the node gets another time."""
    on_the_node("mkdir /opt/ahead", "rm -r /opt/ahead")
    for name, text in (
        ("python", '#!/bin/sh\nexec env PYTHONPATH=/opt/ahead python3 "$@"\n'),
        ("sitecustomize.py", "import time\nright = time.time\ntime.time = lambda: right() + 3600\n"),
    ):
        cluster.run("cp1", "sh", "-c", 'cat >"$0"; chmod 755 "$0"', "/opt/ahead/" + name, stdin=text)
    text = refused("-e", "ansible_python_interpreter=/opt/ahead/python")
    seconds = int(re.search(r"the clock of cp1 is at least (\d+) s ahead of the controller's", text).group(1))
    assert 3500 < seconds <= 3600


def test_an_etcd_that_the_tools_may_not_ask(refused):
    """It serves, but not with these certificates: after a restore that could not be verified."""
    pki = "/etc/kubernetes/pki/apiserver-kubelet-client"
    text = refused("-e", "etcd_client_cert=%s.crt" % pki, "-e", "etcd_client_key=%s.key" % pki)
    assert "etcd_client_cert" in text


def test_tools_that_cannot_restore(refused, snapshot, on_the_node, tmp_path):
    """As etcdctl is from 3.6 on: it takes snapshots and does no more with them."""
    script = b"""#!/bin/sh
case $* in
  version) echo 'etcdctl version: 3.6.14'; echo 'API version: 3.6' ;;
  'snapshot --help') printf 'COMMANDS:\n\tsave\tStores an etcd node backend snapshot to a given file\n' ;;
esac
"""
    archive = tmp_path / "etcd-v3.6.14-linux-amd64.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("etcd-v3.6.14-linux-amd64/etcdctl")
        info.size, info.mode = len(script), 0o755
        tar.addfile(info, io.BytesIO(script))
    on_the_node("mkdir /opt/refused", "rm -r /opt/refused")
    # the ones that the node has must not be found
    on_the_node("mkdir /root/saved; mv /usr/local/bin/etcd* /root/saved/", "mv /root/saved/* /usr/local/bin/; rmdir /root/saved")
    where = ["etcd_client_source=archive", "etcd_client_archive=%s" % archive, "etcd_client_bin_dir=/opt/refused/bin", "etcd_client_cache_dir=/opt/refused"]
    text = refused(*of(snapshot), *[word for each in where for word in ("-e", each)], nothing="set etcd_client_source to another source")
    assert "etcd-v3.6.14-linux-amd64.tar.gz cannot take, check and restore snapshots" in text


def test_a_runtime_that_hangs(refused, on_the_node):
    """The kernel goes on accepting connections for it."""
    on_the_node("kill -STOP $(pidof containerd)", "kill -CONT $(pidof containerd)")
    assert "container runtime of cp1 does not answer at /run/containerd/containerd.sock" in refused()


def test_a_kubelet_that_does_not_run(cluster, refused, on_the_node):
    """The last one of the node: a kubelet that was just started has no back-off from the tests before."""
    on_the_node("systemctl stop kubelet", "systemctl start kubelet")
    text = refused()
    assert "No kubelet runs on cp1" in text
    assert "systemctl start kubelet" in text


# -- the members -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"etcd_restore_members": ["cp7"]}, "etcd_restore_members names cp7, but the hosts of this run are cp1"),
        ({"etcd_restore_members": "cp1"}, "have to be lists"),
        ({"etcd_restore_lost_members": ["cp1"]}, "names cp1, a host of this run, so it is not lost"),
        ({"etcd_restore_lost_members": ["cp9"]}, "names cp9, but the members of this cluster are"),
    ],
)
def test_names_that_fit_nothing(refused, names, said):
    assert said in refused("-e", json.dumps(names))


# -- the controller --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(OWN_CA.exists(), reason="the tests themselves run in a Pod")
def test_a_controller_in_a_pod_of_this_very_cluster(cluster, refused):
    """Of the kind that is given a token, and with it the CA."""
    ca = cluster.run("cp1", "cat", "/etc/kubernetes/pki/ca.crt")
    try:
        OWN_CA.parent.mkdir(parents=True, exist_ok=True)
        OWN_CA.write_text(ca)
        text = refused()
    finally:
        OWN_CA.unlink()
        with contextlib.suppress(OSError):
            for directory in list(OWN_CA.parents)[:3]:
                directory.rmdir()
    assert "etcd_restore_from_inside=true" in text


def test_a_controller_that_is_a_job_of_this_very_cluster(cluster, refused, monkeypatch):
    """AWX gives its jobs no token; but their host name is that of their Pod."""
    cluster.wait_ready()
    pod = cluster.get("-n", "shop", "pods")["items"][0]["metadata"]["name"]
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("HOSTNAME", pod)
    assert "etcd_restore_from_inside=true" in refused()
