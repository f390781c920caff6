#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rebuild_proof
short_description: Proves that the copy of a cluster in a drill serves everything in its snapshot
version_added: 0.1.0
description:
  - Asks everything from within the network of the drill, from which no other API server can be reached. Fails when there is no such network.
  - Waits until the API server of this control plane node is ready.
  - Lists every resource, for which the API server decrypts and decodes every object, and finds as many objects as the snapshot has. Only names leave it.
  - Has it accept a token of a service account. That is one that the snapshot has in a Secret, or else one that the API server signs with the key of the bundle.
  - Fails as soon as kubelet, etcd or the API server is in the network of the machine, and so not isolated.
  - Used by the role P(k8s_dr.etcd.cluster_rebuild#role), in a drill and before the controllers of the cluster could change anything.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - This module changes no object. Without a token in a Secret, the API server signs one that is valid for ten minutes, and that nothing keeps.
  diff_mode:
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  path:
    description: Path of the decrypted snapshot on this host.
    type: path
    required: true
  manifests_dir:
    description: Directory that kubelet reads static Pods from.
    type: path
    default: /etc/kubernetes/manifests
  start_timeout:
    description: Seconds to wait until the API server is ready.
    type: int
    default: 300
  timeout:
    description: Seconds that the rest may take.
    type: int
    default: 3600
notes:
  - Runs as root, with the first client certificate of the node that the API server accepts.
seealso:
  - module: k8s_dr.etcd.kube_rebuild_isolation
"""

EXAMPLES = r"""
- name: Prove that the copy serves everything
  k8s_dr.etcd.kube_rebuild_proof:
    path: /var/lib/k8s-dr-rebuild/snapshot.db
"""

RETURN = r"""
proof:
  description: What was found.
  returned: success
  type: dict
  contains:
    ready:
      description: Seconds until the API server was ready.
      type: float
    objects:
      description: Objects that the API server shows.
      type: int
    resources:
      description: Resources that have objects.
      type: int
    unserved:
      description: Numbers of objects in the snapshot of which this API server has no API, by resource.
      type: dict
    token:
      description: Whose token the API server accepted, and where the token was from.
      type: str
      sample: system:serviceaccount:shop:web, by a Secret from before
    seconds:
      description: Duration of the proof, without the wait for the API server.
      type: float
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import every_object, objects_level
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.reader import ApiError, Reader
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd import boltdb, mvcc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import snapshot_server
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.api import KubeApi, KubeError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.session import session_of_node
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube.static_pods import read_static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import isolation, objects, token
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words


class SnapshotFile:
    """The keys of a snapshot, as every_object.Stored asks for them."""

    def __init__(self, path, work, deadline):
        self._path, self._work, self._deadline = path, work, deadline

    def keys(self, prefix):
        first = prefix.encode()
        with mvcc.SnapshotKeys(self._path, self._work, self._deadline) as snapshot:
            snapshot.read()
            for key, *_numbers in snapshot:
                if bytes(key).startswith(first):
                    yield bytes(key).decode("utf-8", "replace")


def reader_of(api):
    """A Reader as the identity that the API server accepts."""
    api.request("GET", "/readyz")
    return Reader(api.identity.context(api.trust), api.port, api.host)


def why_not(api):
    """Half a sentence, or nothing: with another key for Secrets than they were encrypted with, it never becomes ready."""
    try:
        problem = reader_of(api).unreadable("/api/v1/secrets")
    except (KubeError, OSError):
        return ""
    return "; it says of Secrets: %s" % problem if problem else ""


def prove(params, work):
    start = time.monotonic()
    machines = isolation.enter()
    pod = read_static_pods(params["manifests_dir"]).get("kube-apiserver")
    if pod is None:
        raise Refused("there is no manifest of kube-apiserver in %s" % params["manifests_dir"])
    api = KubeApi(pod)
    try:
        objects.wait_until_ready(api, params["start_timeout"], lambda: isolation.check_outside(machines))
    except KubeError as exc:
        isolation.check_outside(machines)
        raise Refused("%s%s" % (exc, why_not(api))) from exc
    ready = time.monotonic()
    isolation.check_outside(machines)
    deadline = ready + params["timeout"]
    held = every_object.Stored(os.path.join(work, "names")).read(SnapshotFile(params["path"], work, deadline), snapshot_server.prefix_of(pod))
    reader = reader_of(api)
    found = every_object.compare(reader, held, completed=True, deadline=deadline, living=True)
    problem = objects_level.problem(found)
    if problem:
        raise Refused(problem)
    with session_of_node(pod) as session:
        accepted = token.accepted(session)
    return dict(
        {name: found[name] for name in ("objects", "resources", "unserved")},
        ready=round(ready - start, 1),
        token=accepted,
        seconds=round(time.monotonic() - ready, 1),
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "start_timeout": {"type": "int", "default": 300},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        found = prove(params, module.tmpdir)
    except (mvcc.Unreadable, mvcc.NoRoom) as exc:
        module.fail_json(msg="%s cannot be read: %s" % (params["path"], exc))
    except boltdb.OutOfTime:
        module.fail_json(msg="%s could not be read in %d s; raise `timeout`" % (params["path"], params["timeout"]))
    except (Refused, ApiError, KubeError, ValueError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=os_error_words(exc))
    module.exit_json(changed=False, proof=found)


if __name__ == "__main__":
    main()
