#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_snapshot_server
short_description: Serves a snapshot of etcd read-only, by the node's own kube-apiserver
version_added: 0.1.0
description:
  - Restores a snapshot away from the cluster, and serves it by a throw-away etcd and the kube-apiserver of this host, so that C(kubectl) reads it. The
    cluster goes on meanwhile.
  - Nothing can be written, in two independent ways. The API server accepts one client certificate, which was made for it, and lets that only get, list
    and watch. The etcd refuses the API server all writes but that of the ports in use, which no API shows. So it shows what was in the snapshot.
  - Where the snapshot lacks objects that this version of kube-apiserver cannot do without, as one of an older Kubernetes does, the API server may complete
    objects of those kinds, and RV(completed) is V(true). Such objects have a C(resourceVersion) above RV(revision).
  - Both programs run in a network namespace of their own, which reaches nothing. A port of C(127.0.0.1) leads to the API server, for the holder of the
    kubeconfig, which only root can read. A KMS plugin is reached by its socket.
  - A transient unit of systemd runs both. It ends after O(ttl), with O(state=absent) or with a reboot, and removes all files and keys. It does not
    depend on Ansible.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
  - k8s_dr.etcd.programs
  - k8s_dr.etcd.static_pods
attributes:
  check_mode:
    support: full
    details:
      - Finds and checks all that is needed, and restores and starts nothing. RV(revision) and RV(expires) are V(null) then, unless it is served already.
  diff_mode:
    support: none
    details:
      - What it shows is for C(kubectl).
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - A snapshot that is served stays so until the time that was set when it began, whatever O(ttl) is now. Another snapshot, or another O(port),
        O(kube_apiserver), O(encryption_config), O(etcd) or O(verify), replaces it, and so does the same one when less than O(timeout), and less than half
        of O(ttl), is left. What another module reads right now is not replaced.
options:
  state:
    description: V(present) serves the snapshot, V(absent) ends that and removes everything.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: Path of the plain snapshot on this host. Required with O(state=present).
    type: path
  temporary:
    description:
      - Whether O(path) is a copy that was made for this, in a directory of its own, whose name begins with C(.k8s-dr-). The module removes that directory
        as soon as the snapshot is restored, also when it fails, and systemd does where the host fails. Check mode leaves it.
    type: bool
    default: false
  sha256:
    description: SHA-256 of O(path), where it is known already. With O(state=absent) only this snapshot is ended, and only if no other run reads it.
    type: str
    default: ""
  replace:
    description: >-
      Whether to end what is served in another way already, such as another snapshot. If V(false), the module accepts the same snapshot at the same port, in
      whatever way it is served, and fails for another one.
    type: bool
    default: true
  ttl:
    description: Seconds after which it ends by itself.
    type: int
    default: 1800
  port:
    description: Port of C(127.0.0.1) at which the API server is reached.
    type: int
    default: 6440
  work_dir:
    description:
      - Directory in which the snapshot is restored, in a subdirectory of mode 0700. It needs 1.1 times the size of the snapshot and 700 MB, of which 500 MB
        stay free.
    type: path
    default: /var/lib
  kube_apiserver:
    description:
      - Path of C(kube-apiserver). Its version must be that of the snapshot's cluster, or later.
      - When not given it is that of the API server that runs on this host, else the one in its image, where the container runtime has it unpacked.
    type: path
  encryption_config:
    description:
      - Path of the EncryptionConfiguration that the objects in the snapshot were written with.
      - When not given it is that of the API server's manifest in O(manifests_dir).
    type: path
  verify:
    description:
      - Whether to list and decode every object, and to compare the number of each resource with the keys in etcd. This is more than a drill, in which no
        API server takes part. The result is RV(objects).
    type: bool
    default: false
  timeout:
    description:
      - Seconds until it must serve.
      - Default is 180, plus one for every 10 MB of the snapshot.
    type: int
notes:
  - Needs root, systemd and C(openssl).
  - One snapshot at a time is served on a host.
  - It needs memory of the size of the snapshot and 550 MB.
seealso:
  - module: k8s_dr.etcd.etcd_snapshot_drill
"""

EXAMPLES = r"""
- name: Serve a snapshot for half an hour
  k8s_dr.etcd.kube_snapshot_server:
    path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
  register: served

- name: Show what was in a namespace
  ansible.builtin.command:
    argv: [kubectl, --kubeconfig, "{{ served.kubeconfig }}", get, all, -n, shop]
  changed_when: false

- name: End it
  k8s_dr.etcd.kube_snapshot_server:
    state: absent
"""

RETURN = r"""
kubeconfig:
  description: Path of a kubeconfig on this host that only root can read, for RV(server).
  returned: success, with O(state=present)
  type: str
  sample: /run/k8s-dr-browse/kubeconfig
server:
  description: URL of the API server, from this host.
  returned: success, with O(state=present)
  type: str
  sample: https://127.0.0.1:6440
revision:
  description: Revision of the snapshot.
  returned: success, with O(state=present)
  type: int
  sample: 1248
expires:
  description: When it ends by itself.
  returned: success, with O(state=present)
  type: str
  sample: "2026-01-02T03:34:05Z"
sha256:
  description: SHA-256 of the snapshot.
  returned: success, with O(state=present)
  type: str
kubernetes_version:
  description: Version of kube-apiserver.
  returned: success, with O(state=present)
  type: str
  sample: 1.37.2
etcd_version:
  description: Version of the etcd that serves it.
  returned: success, with O(state=present)
  type: str
  sample: 3.7.3
replaced:
  description: SHA-256 of the snapshot that was served until then, and was ended for this one; V(null) when none was.
  returned: success, with O(state=present)
  type: str
completed:
  description: >-
    Whether the API server completed APIServices, FlowSchemas, PriorityLevelConfigurations, PriorityClasses, ServiceCIDRs and IPAddresses, because the
    snapshot lacked some that it cannot do without.
  returned: success, with O(state=present)
  type: bool
  sample: false
unreadable:
  description: >-
    Why not all Secrets, or other objects that every API server reads by itself, can be read, in its words, such as a key that is not in the
    EncryptionConfiguration; V(null) when all can. All that can be read is served.
  returned: success, with O(state=present)
  type: str
objects:
  description: Result of O(verify=true), otherwise V(null).
  returned: success, with O(state=present)
  type: dict
  contains:
    objects:
      description: Number of objects that were listed and decoded.
      type: int
      sample: 362
    resources:
      description: Number of resources that have such objects.
      type: int
      sample: 41
    undecodable:
      description: At most 20 objects that could not be decrypted or decoded, each with the words of the API server.
      type: list
      elements: str
      sample: []
    undecodable_objects:
      description: Number of all such objects.
      type: int
      sample: 0
    differences:
      description: One sentence for each resource of which the API server shows another number of objects than etcd has keys.
      type: list
      elements: str
      sample: []
    unserved:
      description: Number of objects by resource of which this API server has no API, such as one that a newer version has removed.
      type: dict
      sample: {}
seconds:
  description: Duration in seconds.
  returned: success, with O(state=present)
  type: float
  sample: 5.2
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import session as browse_session
from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse.served import InUse
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError

RETURNED = ("revision", "expires", "sha256", "kubernetes_version", "etcd_version", "completed", "unreadable", "objects")


def absent(sha256, check_mode):
    changed = browse_session.is_there(sha256)
    if changed and not check_mode:
        try:
            browse_session.end(sha256)
        except InUse:
            if not sha256:
                raise
            # this run does not need it any more, another one does
            changed = False
    return {"changed": changed}


def present(params, check_mode):
    try:
        return serve(params, check_mode)
    finally:
        # what is served already needs none, nor does what failed
        if not check_mode:
            browse_session.remove_copy(params)


def check_replacing(params, sha256):
    """Refused when a snapshot is served, with this SHA-256, that must stay."""
    if sha256 and not params["replace"]:
        raise Refused(
            "this host serves a snapshot already, with the SHA-256 %s; end that with: ansible-playbook k8s_dr.etcd.browse -e etcd_browse_state=absent" % sha256
        )


def serve(params, check_mode):
    began = time.monotonic()
    browse_session.directory_of_copy(params)
    session = browse_session.Session(params)
    found = browse_session.state()
    changed = not session.is_served(found)
    replaced = found["sha256"] if found and changed else None
    check_replacing(params, replaced)
    if changed:
        with session:
            # one without a state was left by a module that was killed
            session.check(replaces=not browse_session.has_ended())
            if not check_mode:
                # another run may have come first
                check_replacing(params, (browse_session.state() or {}).get("sha256"))
                browse_session.end()
                found = session.start()
    result = {name: (found or {}).get(name) if not (changed and check_mode) else None for name in RETURNED}
    return dict(
        result,
        changed=changed,
        replaced=replaced,
        kubeconfig=browse_session.KUBECONFIG,
        server=browse_session.url(params["port"]),
        seconds=round(time.monotonic() - began, 2),
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "path"},
            "temporary": {"type": "bool", "default": False},
            "sha256": {"type": "str", "default": ""},
            "replace": {"type": "bool", "default": True},
            "ttl": {"type": "int", "default": 1800},
            "port": {"type": "int", "default": 6440},
            "work_dir": {"type": "path", "default": "/var/lib"},
            "kube_apiserver": {"type": "path"},
            "encryption_config": {"type": "path"},
            "etcd": {"type": "path"},
            "etcdctl": {"type": "path"},
            "etcdutl": {"type": "path"},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "verify": {"type": "bool", "default": False},
            "timeout": {"type": "int"},
        },
        required_if=[("state", "present", ["path"])],
        supports_check_mode=True,
    )
    params = module.params
    for name, least, most in (("ttl", 1, 7 * 86400), ("port", 1, 65535), ("timeout", 1, 86400)):
        if params[name] is not None and not least <= params[name] <= most:
            module.fail_json(msg="`%s` must be from %d to %d" % (name, least, most))
    signals.raise_when_ended()
    what = "%s is not served" % params["path"] if params["state"] == "present" else "what is served was not ended"
    try:
        result = present(params, module.check_mode) if params["state"] == "present" else absent(params["sha256"], module.check_mode)
    except (Refused, signals.Ended) as exc:
        module.fail_json(msg="%s: %s" % (what, exc))
    except ToolError as exc:
        module.fail_json(msg="%s: %s" % (what, exc.message), **exc.details())
    except OSError as exc:
        module.fail_json(msg="%s: %s" % (what, os_error_words(exc)))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
