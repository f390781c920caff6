#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_client_info
short_description: Lists the etcd tools of a host and what they can do
version_added: 0.1.0
description:
  - Looks for C(etcdctl) and C(etcdutl) and asks each of them what it can do.
  - The module reads abilities from the help of the binary itself and does not infer them from its version, since from 3.6 on
    C(etcdctl snapshot status) prints its help and ends with code 0.
  - A host without any of the tools does not fail the module; everything is then V(null).
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.attributes.read_only
attributes:
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - This module changes nothing.
options:
  etcdctl:
    description:
      - Path of C(etcdctl). By default the module searches C(PATH) and the usual directories.
      - The module fails when it is given and is not a working C(etcdctl).
    type: path
  etcdutl:
    description:
      - Path of C(etcdutl), which etcd has from 3.5 on. By default the module searches for it.
      - The module fails when it is given and is not a working C(etcdutl).
    type: path
  server_version:
    description:
      - Version of the etcd server that the tools are to be used with, for example V(3.5.16) or V(3.5.16-0).
      - With it RV(tools.misfits) says why the tools must not be used for that server.
    type: str
  timeout:
    description: Seconds that one call of a tool may take.
    type: int
    default: 10
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_info
  - module: k8s_dr.etcd.etcd_cluster_info
"""

EXAMPLES = r"""
- name: Find out which etcd tools this host has
  k8s_dr.etcd.etcd_client_info:
    server_version: 3.5.16
  register: client

- name: Stop when this host cannot restore a snapshot
  ansible.builtin.assert:
    that:
      - client.tools.restore is not none
      - client.tools.misfits | length == 0
"""

RETURN = r"""
tools:
  description: The tools.
  returned: success
  type: dict
  contains:
    etcdctl:
      description: C(etcdctl), or V(null) when there is none that works.
      type: dict
      contains: &tool
        path:
          description: Its path.
          type: str
          sample: /usr/local/bin/etcdctl
        name:
          description: V(etcdctl) or V(etcdutl), as it calls itself.
          type: str
          sample: etcdctl
        version:
          description: Its version.
          type: str
          sample: 3.5.16
        save:
          description: Whether it can take a snapshot of a server.
          type: bool
        status:
          description: Whether it can read the status of a snapshot.
          type: bool
        restore:
          description: Whether it can restore a snapshot into a data directory.
          type: bool
        bump_revision:
          description: Whether its restore knows C(--bump-revision) and C(--mark-compacted).
          type: bool
    etcdutl:
      description: C(etcdutl), or V(null) when there is none that works.
      type: dict
      contains: *tool
    save:
      description: Path of the tool that takes snapshots, or V(null).
      type: str
      sample: /usr/local/bin/etcdctl
    status:
      description: Path of the tool that reads the status of snapshots, or V(null). C(etcdutl) comes first.
      type: str
      sample: /usr/local/bin/etcdutl
    restore:
      description: Path of the tool that restores snapshots, or V(null). C(etcdutl) comes first.
      type: str
      sample: /usr/local/bin/etcdutl
    bump_revision:
      description: Whether the tool of RV(tools.restore) can move the revision forward, so that watching clients notice the restore.
      type: bool
      sample: true
    misfits:
      description: One sentence for every reason not to use these tools for a server of O(server_version). Empty when it is not given.
      type: list
      elements: str
      sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import find_tools, survey
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError


def main():
    module = AnsibleModule(
        argument_spec={
            "etcdctl": {"type": "path"},
            "etcdutl": {"type": "path"},
            "server_version": {"type": "str"},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        etcdctl, etcdutl = find_tools(params["etcdctl"], params["etcdutl"], params["timeout"])
    except ToolError as exc:
        module.fail_json(msg=exc.message, **exc.details())
    for name, tool in (("etcdctl", etcdctl), ("etcdutl", etcdutl)):
        if tool and tool.name != name:
            module.fail_json(msg="%s is an %s, not an %s; give its path as `%s`" % (tool.path, tool.name, name, tool.name))
    module.exit_json(changed=False, tools=survey(etcdctl, etcdutl, params["server_version"]))


if __name__ == "__main__":
    main()
