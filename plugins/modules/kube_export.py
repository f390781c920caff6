#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_export
short_description: Writes objects of a snapshot as YAML files on the controller
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Reads objects from an API server that serves a snapshot, and writes one file for each into O(dest) on the controller, such as
    C(shop/Deployment.apps_web.yaml). Objects without a namespace are in C(_cluster).
  - What belongs to the server or to the cluster is removed, as in M(k8s_dr.etcd.kube_recover), so that C(kubectl apply -R -f) takes the directory.
    References to owners are removed as well, because they need UIDs.
  - What M(k8s_dr.etcd.kube_recover) does not recover is not exported either, such as objects that a controller makes and those that have ended.
    RV(left_out) names them.
  - Files of earlier exports stay in O(dest).
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.selection
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - Encrypted files differ each time.
  platform:
    support: full
options:
  kubeconfig:
    description: Kubeconfig on this host for an API server that serves the snapshot. It needs a client certificate.
    type: path
    required: true
  select:
    description: Which objects to export, as in M(k8s_dr.etcd.kube_recover). Nothing else is exported, not even what these objects need.
    required: true
  dest:
    description:
      - Directory on the controller. A missing one is made with mode 0700.
      - The files have mode 0600.
    type: path
    required: true
  snapshot:
    description: SHA-256 of the snapshot, with the kubeconfig of M(k8s_dr.etcd.kube_snapshot_server). Nothing is exported when another one is served.
    type: str
    default: ""
  secrets:
    description: Whether to export Secrets. Otherwise RV(secrets_left_out) says how many there are.
    type: bool
    default: false
  recipients:
    description:
      - Public keys of age or SSH. If given, Secrets are encrypted to them on this host, which needs C(age), and their names end in C(.yaml.age).
    type: list
    elements: str
    default: []
  work_dir:
    description:
      - Directory on this host for the files until they are copied. A directory of mode 0700 is made in it, and removed again.
      - By default that is in memory, so that no Secret is written to a disk.
    type: path
    default: /run
  archive:
    description: File on this host that holds all files until they are copied. The action plugin of this module sets it.
    type: path
notes:
  - The archive is copied as M(k8s_dr.etcd.etcd_snapshot_transfer) does it.
seealso:
  - module: k8s_dr.etcd.kube_recover
"""

EXAMPLES = r"""
- name: Export a namespace, with its Secrets encrypted
  k8s_dr.etcd.kube_export:
    kubeconfig: /run/k8s-dr-browse/kubeconfig
    select:
      - namespace: shop
    dest: ~/shop
    secrets: true
    recipients:
      - age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kdfz4xk7s7v2c0q
"""

RETURN = r"""
dest:
  description: The directory on the controller.
  returned: success
  type: str
  sample: /home/me/shop
files:
  description: The files in it, sorted.
  returned: success
  type: list
  elements: str
  sample: [_cluster/Namespace_shop.yaml, shop/Deployment.apps_web.yaml]
written:
  description: Those of them that are new, have another content or had another mode, or in check mode would be written.
  returned: success
  type: list
  elements: str
left_out:
  description: Objects that are not exported although they are selected, each with V(object) and V(reason).
  returned: success
  type: list
  elements: dict
unreadable:
  description: >-
    Kinds of which not all objects can be read in the snapshot, each with V(object) and V(reason): their key is not there, or they need a conversion webhook.
    All others are exported.
  returned: success
  type: list
  elements: dict
secrets_left_out:
  description: How many Secrets were not exported, since O(secrets) is not set.
  returned: success
  type: int
lines:
  description: The result as text, one line each.
  returned: success
  type: list
  elements: str
"""

import contextlib
import io
import os
import tarfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.served import in_use
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.session import session_of_kubeconfig
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.export import Export
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.report import problems
from ansible_collections.k8s_dr.etcd.plugins.module_utils._recover.selection import SPEC, parse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import encryption
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.signals import Ended, raise_when_ended
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.work_dir import tidy


def add(tar, name, content):
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o600, len(content)
    tar.addfile(entry, io.BytesIO(content))


def encrypted(content, archive, recipients):
    """A Secret for these recipients, by way of files beside the archive."""
    plain, packed = archive + ".plain", archive + ".age"
    try:
        with open(os.open(plain, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as stream:
            stream.write(content)
        encryption.encrypt(plain, packed, "none", recipients)
        with open(packed, "rb") as stream:
            return stream.read()
    finally:
        for path in (plain, packed):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def run(params):
    entries = parse(params["select"])
    encryption.check("none", params["recipients"])
    # Secrets of an export whose controller died
    tidy(os.path.dirname(os.path.dirname(params["archive"])))
    names = []
    opened = in_use(params["kubeconfig"], params["snapshot"])
    with opened, session_of_kubeconfig(params["kubeconfig"]) as snapshot, tarfile.open(params["archive"], "x", format=tarfile.PAX_FORMAT) as tar:
        export = Export(snapshot, entries, params["secrets"])
        for name, text, is_secret in export.files():
            content = text.encode()
            if is_secret and params["recipients"]:
                name, content = name + ".age", encrypted(content, params["archive"], params["recipients"])
            add(tar, name, content)
            names.append(name)
    return {
        "files": sorted(names),
        "left_out": export.left_out,
        "unreadable": export.unreadable,
        "secrets_left_out": export.secrets_left_out,
        "lines": export.warnings + export.lines() + list(problems(export.unreadable)),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "select": dict(SPEC, required=True),
            "dest": {"type": "path", "required": True},
            "snapshot": {"type": "str", "default": ""},
            "secrets": {"type": "bool", "default": False},
            "recipients": {"type": "list", "elements": "str", "default": []},
            "work_dir": {"type": "path", "default": "/run"},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    raise_when_ended()
    os.umask(0o077)
    try:
        if not module.params["archive"]:
            raise Refused("this module runs by its action plugin only, which sets `archive`")
        module.exit_json(changed=False, **run(module.params))
    except (Refused, KubeError, encryption.EncryptionError, Ended) as exc:
        module.fail_json(msg="Nothing was exported: %s" % exc)
    except OSError as exc:
        module.fail_json(msg="Nothing was exported: %s" % os_error_words(exc))


if __name__ == "__main__":
    main()
