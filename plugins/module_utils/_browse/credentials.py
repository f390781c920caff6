# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The certificates by which a reader, an API server and an etcd know each other, and no others.  Private to this collection.

Each is trusted by itself, so that there is no key which could sign another one.
"""

from __future__ import annotations

import base64
import json
import os
import shutil

from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import read_only_etcd
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.snapshot_server import READER
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, run_tool

# {name of the files: common name}.  Both servers have one, which is no user of etcd's: its gateway comes with it.
_NAMES = {"server": "k8s-dr-server", "reading": read_only_etcd.READING, "completing": read_only_etcd.COMPLETING, "reader": READER}
_CONFIG = """[req]
distinguished_name = nothing
[nothing]
[own]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1
"""


def find_openssl():
    """The path of openssl; Refused when it is not on this host."""
    found = shutil.which("openssl", path=os.environ.get("PATH", "") + ":/usr/bin:/bin")
    if found is None:
        raise Refused("there is no openssl on this host, which makes the certificates")
    return found


def make(openssl, directory, seconds):
    """Make keys and certificates that are valid for so long, in whole days: NAME.key and NAME.crt, and etcd-clients.crt with those that etcd lets in."""
    write(os.path.join(directory, "openssl.cnf"), _CONFIG)
    for name, common in _NAMES.items():
        argv = [openssl, "req", "-x509", "-config", "openssl.cnf", "-extensions", "own", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        argv += ["-nodes", "-subj", "/CN=" + common, "-days", "%d" % (seconds // 86400 + 1), "-keyout", name + ".key", "-out", name + ".crt"]
        try:
            result = run_tool(argv, 30, cwd=directory)
        except ToolError as exc:
            raise Refused(exc.message) from exc
        if result.rc != 0:
            raise Refused("the certificates cannot be made: `openssl req` %s: %s" % (result.how(), result.last_words()))
    write(os.path.join(directory, "etcd-clients.crt"), "".join(_text(directory, name + ".crt") for name in ("server", "reading", "completing")))


def kubeconfig(directory, server):
    """The text of a kubeconfig of the reader, with everything in it.  YAML reads JSON."""

    def data(name):
        return base64.b64encode(_text(directory, name).encode("ascii")).decode("ascii")

    name = "snapshot"
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": data("server.crt")}}],
        "users": [{"name": READER, "user": {"client-certificate-data": data("reader.crt"), "client-key-data": data("reader.key")}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": READER}}],
        "current-context": name,
    }
    return json.dumps(text, indent=1) + "\n"


def write(path, text):
    """Write a file of mode 0600 that was not there."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)


def _text(directory, name):
    with open(os.path.join(directory, name), encoding="ascii") as stream:
        return stream.read()
