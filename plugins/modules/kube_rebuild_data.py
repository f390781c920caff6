#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_rebuild_data
short_description: Restores a snapshot as the data of a new etcd
version_added: 0.1.0
description:
  - Restores a snapshot into the data directory of an etcd that does not run yet, as a cluster of one new member.
  - The data is restored beside its place, written to the disk, and renamed. The data directory is either empty or has all of it.
  - Fails when the directory has other data. It never replaces any.
  - Used by the role P(k8s_dr.etcd.cluster_rebuild#role).
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - What it writes is binary.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  path:
    description: Path of the decrypted snapshot on this host.
    type: path
    required: true
  sha256:
    description: Its SHA-256. It is written beside the data, so that a later run knows it.
    type: str
    required: true
  data_dir:
    description: Data directory of etcd. It is created with mode 0700; it may be a mount point.
    type: path
    default: /var/lib/etcd
  name:
    description: Name of the new member, C(--name) of etcd.
    type: str
    required: true
  initial_cluster:
    description: C(--initial-cluster) of etcd.
    type: str
    required: true
  peer_urls:
    description: C(--initial-advertise-peer-urls) of etcd.
    type: str
    required: true
  cluster_token:
    description: C(--initial-cluster-token) of the new cluster. It makes its id differ from that of the cluster from before.
    type: str
    required: true
  bump_revision:
    description: By how much the revision is raised, with everything before it marked compacted. V(0) leaves it.
    type: int
    default: 0
  etcd_version:
    description: Version of the etcd that will serve the data, if it is known.
    type: str
    default: ""
  etcdctl:
    description: Path of C(etcdctl), or of its directory. By default the module searches for it.
    type: path
  etcdutl:
    description: Path of C(etcdutl), or of its directory. By default the module searches for it.
    type: path
  timeout:
    description: Seconds that the restore may take.
    type: int
    default: 3600
notes:
  - Runs as root.
seealso:
  - module: k8s_dr.etcd.etcd_restore_transaction
"""

EXAMPLES = r"""
- name: Restore the data of a new control plane
  k8s_dr.etcd.kube_rebuild_data:
    path: /var/lib/k8s-dr-rebuild/snapshot.db
    sha256: 3fc9b689459d738f8c88a3a48aa9e33542016b7a4052e001aaa536fca74813cb
    name: cp1
    initial_cluster: cp1=https://192.0.2.11:2380
    peer_urls: https://192.0.2.11:2380
    cluster_token: rebuild-20260102T030405Z
"""

RETURN = r"""
data_dir:
  description: The data directory.
  returned: success
  type: str
  sample: /var/lib/etcd
seconds:
  description: Duration in seconds.
  returned: success
  type: float
  sample: 1.2
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._rebuild import data
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "data_dir": {"type": "path", "default": "/var/lib/etcd"},
            "name": {"type": "str", "required": True},
            "initial_cluster": {"type": "str", "required": True},
            "peer_urls": {"type": "str", "required": True},
            "cluster_token": {"type": "str", "required": True, "no_log": False},
            "bump_revision": {"type": "int", "default": 0},
            "etcd_version": {"type": "str", "default": ""},
            "etcdctl": {"type": "path"},
            "etcdutl": {"type": "path"},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params, start = dict(module.params), time.monotonic()
    params["data_dir"] = os.path.realpath(params["data_dir"])
    # what is restored beside its place, with every Secret, does not stay when the task is cancelled
    signals.raise_when_ended()
    os.umask(0o077)
    try:
        changed = data.restore(params, module.warn, module.check_mode)
    except (Refused, ToolError, signals.Ended) as exc:
        module.fail_json(msg="the snapshot was not restored: %s" % exc)
    except OSError as exc:
        module.fail_json(msg="the snapshot was not restored: %s" % os_error_words(exc))
    module.exit_json(changed=changed, data_dir=params["data_dir"], seconds=round(time.monotonic() - start, 2))


if __name__ == "__main__":
    main()
