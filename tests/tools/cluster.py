# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox as tests and the demo see it.

    sandbox = Sandbox()                                  # of inventory/sandbox.yml, or of SANDBOX_NAME's
    sandbox.kubectl("get", "nodes")                      # in the first control plane node, without Ansible and without ssh
    sandbox.playbook("restore.yml", "-l", "cp1", "-e", "etcd_restore_confirm=true")
    with sandbox.probe() as probe: ...                   # how long the API was away, seen from outside
"""

from __future__ import annotations

import base64
import collections
import http.client
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PKI = "/etc/kubernetes/pki/etcd"
# Where the reports of restores go, which would otherwise litter the home directory.
RESTORES = ROOT / "reports" / "restores"
Gap = collections.namedtuple("Gap", "what seconds samples failures")


class SandboxError(Exception):
    """Something that the sandbox was asked to do did not work."""


def wait_for(condition, timeout, what):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise SandboxError("%s: not within %d s" % (what, timeout))
        time.sleep(0.5)


class Sandbox:
    """A cluster of tests/sandbox/up."""

    def __init__(self, name=None):
        self.name = name or os.environ.get("SANDBOX_NAME", "") or "dr"
        stem = ROOT / "inventory" / ("sandbox" if self.name == "dr" else self.name)
        self.inventory = stem.with_suffix(".yml")
        self.kubeconfig = stem.with_suffix(".kubeconfig")
        group = yaml.safe_load(self.inventory.read_text())["control_plane"]
        self.engine = group["vars"]["sandbox_engine"]
        self.nodes = {host: values["sandbox_node"] for host, values in group["hosts"].items()}
        self._addresses = {}

    # -- in a node ------------------------------------------------------------------------------------------------

    def _argv(self, host, argv):
        return [self.engine, "exec", "-i", self.nodes[host], *argv]

    def run(self, host, *argv, stdin=None, check=True, timeout=120):
        """Run a command in a node; its standard output."""
        try:
            process = subprocess.run(self._argv(host, argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as exc:
            if not check:
                return ""
            raise SandboxError("%s on %s did not end within %d s" % (" ".join(argv)[:300], host, timeout)) from exc
        if check and process.returncode != 0:
            raise SandboxError("%s on %s ended with code %d: %s%s" % (" ".join(argv)[:300], host, process.returncode, process.stdout, process.stderr))
        return process.stdout

    def start(self, host, script):
        """Start a shell script in a node and do not wait for it."""
        return subprocess.Popen(self._argv(host, ["sh", "-c", script]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def power(self, way, *hosts):
        """Pull the plug of nodes ("off"), or give them power again ("on")."""
        command = [str(ROOT / "tests/sandbox/power"), way, *(self.nodes[host] for host in hosts)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(os.environ, SANDBOX_NAME=self.name))
        if ended.returncode != 0:
            raise SandboxError(ended.stdout + ended.stderr)

    def kubectl(self, *args, stdin=None, check=True, host="cp1", timeout=120):
        """Run kubectl in a node, as the cluster's administrator."""
        return self.run(host, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *args, stdin=stdin, check=check, timeout=timeout)

    def address(self, host):
        """Where a node's own API server and etcd are reached."""
        if host not in self._addresses:
            manifests = self.run(host, "sh", "-c", "cat /etc/kubernetes/manifests*/kube-apiserver.yaml")
            self._addresses[host] = re.search(r"--advertise-address=(\S+)", manifests).group(1)
        return self._addresses[host]

    def own_kubectl(self, host, *args, **how):
        """As kubectl(), of the node's own API server, and not of whichever the load balancer chooses."""
        return self.kubectl("--server", "https://%s:6443" % self.address(host), *args, host=host, **how)

    def get(self, *args):
        """What `kubectl get` says of an object or a list, parsed; None when there is no such object, or none in the list."""
        text = self.kubectl("get", "-o", "json", "--ignore-not-found", *args)
        return json.loads(text) if text.strip() else None

    def apply(self, *objects):
        """Apply objects."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def etcdctl(self, *args, host="cp1"):
        """Ask the etcd of a node, with the tool that the role installed there; the parsed answer."""
        tls = ["--cacert=%s/ca.crt" % PKI, "--cert=%s/server.crt" % PKI, "--key=%s/server.key" % PKI]
        text = self.run(host, "env", "ETCDCTL_API=3", "/usr/local/bin/etcdctl", "--endpoints=https://127.0.0.1:2379", *tls, "-w", "json", *args)
        return json.loads(text)

    def revision(self, host="cp1"):
        """The revision of etcd on a node."""
        return self.etcdctl("endpoint", "status", host=host)[0]["Status"]["header"]["revision"]

    def processes(self, host, marker):
        """Command lines on a node that hold this text."""
        script = r"for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline; echo; done 2>/dev/null"
        return [line for line in self.run(host, "sh", "-c", script).splitlines() if marker in line]

    def workload(self, name, namespace, marker, replicas=1):
        """A Deployment of an image that the nodes have, whose containers' command lines hold `marker`."""
        image = self.get("-n", "shop", "deployment/web")["spec"]["template"]["spec"]["containers"][0]["image"]
        container = {"name": name, "image": image, "imagePullPolicy": "IfNotPresent"}
        if "pause" in image:
            container["args"] = [marker]
        else:
            container["command"] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait; : " + marker]
        pod = {"automountServiceAccountToken": False, "enableServiceLinks": False, "terminationGracePeriodSeconds": 1}
        pod.update(tolerations=[{"operator": "Exists"}], containers=[container])
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            },
        }

    # -- playbooks ------------------------------------------------------------------------------------------------

    def playbook(self, name, *args, check=True, background=False, core=None, collections=None):
        """Run a playbook of the collection as an operator in playbooks/ would, without a terminal.

        `core` is another version of ansible-core than the tests' own, as "2.17"; `collections` a directory that the collection was installed into: it is run
        from there, and not from the checkout.
        """
        argv = [str(pathlib.Path(sys.executable).with_name("ansible-playbook"))]
        if core:
            argv = [str(ROOT / "tests/tools/venv"), "core-" + core, "ansible-playbook"]
        argv += ["-i", str(self.inventory), "k8s_dr.etcd." + name.removesuffix(".yml") if collections else name, *args]
        if name in ("restore.yml", "rollback.yml") and not any("etcd_restore_report_dir=" in arg for arg in args):
            argv += ["-e", "etcd_restore_report_dir=%s" % RESTORES]
        env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        env.update(ANSIBLE_NOCOLOR="1", ANSIBLE_FORCE_COLOR="0", PYTHONUNBUFFERED="1", LC_ALL="C.UTF-8")
        if collections:
            env["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
        how = {"cwd": collections or ROOT / "playbooks", "env": env, "stdin": subprocess.DEVNULL, "text": True}
        if background:
            return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **how)
        print("$ ansible-playbook %s %s" % (name, " ".join(args)), flush=True)
        process = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **how)
        print(process.stdout, flush=True)
        if check and process.returncode != 0:
            raise SandboxError("ansible-playbook %s ended with code %d:\n%s" % (name, process.returncode, process.stdout[-3000:]))
        return process

    def probe(self, read=None, interval=0.2):
        """See Probe."""
        return Probe(self.kubeconfig, read, interval)


def administrator(kubeconfig):
    """(URL of the API server, TLS context with the administrator's certificate)."""
    config = yaml.safe_load(pathlib.Path(kubeconfig).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    # the certificate may not name the address that the node's port is published on
    context.check_hostname = False
    with tempfile.NamedTemporaryFile("w") as pair:  # 0600
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]).decode())
        pair.flush()
        context.load_cert_chain(pair.name)
    return urlsplit(cluster["server"]), context


def changes(process):
    """{host: changed tasks} of the recap of a playbook."""
    return {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", process.stdout, re.MULTILINE)}


class Probe:
    """Asks the API server from outside, again and again, each time over a new TLS connection; knows how long it was away.

    `read` is a path as /api/v1/namespaces/shop/configmaps/prices: reading it takes more than a health check.
    """

    def __init__(self, kubeconfig, read=None, interval=0.2):
        self.server, self.context = administrator(kubeconfig)
        self.paths = {"readyz": "/readyz"}
        if read:
            self.paths["read"] = read
        self.interval = interval
        self.samples = {what: [] for what in self.paths}  # (begun, ended, good)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._loop, args=item, daemon=True) for item in self.paths.items()]

    def _ask(self, path):
        connection = http.client.HTTPSConnection(self.server.hostname, self.server.port, timeout=2, context=self.context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            # that the object is not there (404) is an answer as well
            return response.status == 200 or (path != "/readyz" and response.status == 404)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _loop(self, what, path):
        due = time.monotonic()
        while not self._stop.is_set():
            begun = time.monotonic()
            good = self._ask(path)
            self.samples[what].append((begun, time.monotonic(), good))
            due = max(due + self.interval, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *dummy):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def gaps(self):
        """For each question the longest time from a good answer to the next good one, when something failed between them."""
        result = []
        for what, samples in self.samples.items():
            longest, last = 0.0, None
            failed = False
            for begun, ended, good in samples:
                if not good:
                    failed = True
                    continue
                if failed and last is not None:
                    longest = max(longest, ended - last)
                last, failed = begun, False
            if failed and last is not None:  # it never came back
                longest = max(longest, samples[-1][1] - last)
            result.append(Gap(what, longest, len(samples), sum(1 for sample in samples if not sample[2])))
        return result
