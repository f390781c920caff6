# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: client_tools_line
short_description: Says which etcd tools a host uses
version_added: 0.1.0
author:
  - The k8s_dr founders (@k8s-dr)
description:
  - Used by the role P(k8s_dr.etcd.etcd_client#role).
positional: _input, predicted
options:
  _input:
    description: What M(k8s_dr.etcd.etcd_client_install) returned.
    type: dict
    required: true
  predicted:
    description: Whether the tools would only be installed, in check mode.
    type: bool
    required: true
"""

EXAMPLES = r"""
- name: Report which tools are used
  ansible.builtin.debug:
    msg: "{{ installed | k8s_dr.etcd.client_tools_line(false) }}"
"""

RETURN = r"""
_value:
  description: One sentence.
  type: str
"""


def client_tools_line(installed, predicted):
    """See RETURN."""
    if predicted:
        # What the module itself would not install comes with a package.
        return "etcd's tools would be installed from %s." % (installed["origin"] if installed.get("changed") else "the distribution")
    tools = " and ".join("%s %s" % (tool["path"], tool["version"]) for tool in installed["tools"])
    server = " (etcd %s)" % installed["server_version"] if installed["server_version"] else ""
    return "%s from %s suit the server%s." % (tools, installed["origin"], server)


class FilterModule:
    """Known to Ansible as k8s_dr.etcd.client_tools_line."""

    def filters(self):
        return {"client_tools_line": client_tools_line}
