#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_transfer
short_description: Copies a snapshot between a host and the controller, piece by piece
version_added: 0.1.0
description:
  - Copies a file of the host into a file of the controller, or with O(to=host) the other way, of mode 0600, which gets its name when it is complete.
  - M(ansible.builtin.fetch) reads a file as a whole wherever privileges are escalated, and needs five times its size of memory for that, on the control
    plane and on the controller. This module never holds more than one piece on either side, compresses it, and shows the progress every 15 seconds.
  - M(ansible.builtin.copy) first puts the whole file into the home of the user who logs in (C(~/.ansible/tmp)), which may have less room than a snapshot
    needs. This module stores one piece at a time, of at most 32 MiB, and checks the free space of the destination.
  - The copy equals its source; M(k8s_dr.etcd.etcd_snapshot_info) verifies that it is a valid snapshot. A file that changes meanwhile is refused.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - Compares both files when there are two, and says whether it would be copied.
  diff_mode:
    support: none
    details:
      - What it copies is binary.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - Without O(dest) each run makes a new copy.
options:
  path:
    description: The file to copy, on the host; with O(to=host) on the controller.
    type: path
    required: true
  dest:
    description:
      - Path of the copy on the controller, with O(to=host) on the host, in an existing directory. An existing file is replaced.
      - Without it, and not with O(to=host), the copy gets a new directory of its own below C(TMPDIR), of mode 0700, which the caller removes.
    type: path
  to:
    description: Where it is copied to.
    type: str
    choices: [controller, host]
    default: controller
  sha256:
    description:
      - SHA-256 that the file must have. When it has another one, the task fails and there is no copy.
    type: str
    default: ""
  timeout:
    description: Seconds that the copy may take.
    type: int
    default: 3600
  reserve:
    description: Bytes that must stay free on the host beside the copy. Used with O(to=host).
    type: int
    default: 0
  offset:
    description: Byte from which on a piece is read. Internal, set by the controller, not for tasks.
    type: int
  checksum:
    description: Whether to compute the checksum. Internal, set by the controller, not for tasks.
    type: bool
    default: false
  piece:
    description: File on the host that holds the next piece, from O(offset) on. Internal, set by the controller with O(to=host), not for tasks.
    type: path
  piece_sha256:
    description: SHA-256 of what O(piece) holds. Internal, set by the controller with O(to=host), not for tasks.
    type: str
    default: ""
  last:
    description: Whether O(piece) is the last one. Internal, set by the controller with O(to=host), not for tasks.
    type: bool
    default: false
  discard:
    description: Whether to remove an incomplete copy. Internal, set by the controller with O(to=host), not for tasks.
    type: bool
    default: false
notes:
  - Over SSH a piece takes about a second, and holds 4 MiB of what does not compress, or up to 64 MiB of what does, as most databases of Kubernetes.
seealso:
  - module: ansible.builtin.fetch
  - module: k8s_dr.etcd.etcd_snapshot
"""

EXAMPLES = r"""
- name: Fetch the snapshot to the controller
  k8s_dr.etcd.etcd_snapshot_transfer:
    path: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
    dest: /srv/backups/etcd-cp1-20260102T030405Z.db

- name: Copy a snapshot of the controller to the host
  k8s_dr.etcd.etcd_snapshot_transfer:
    to: host
    path: /srv/backups/etcd-cp1-20260102T030405Z.db
    dest: /var/backups/etcd/etcd-cp1-20260102T030405Z.db
"""

RETURN = r"""
dest:
  description: Path of the copy.
  returned: success
  type: str
  sample: /srv/backups/etcd-cp1-20260102T030405Z.db
size:
  description: Its size in bytes.
  returned: success
  type: int
  sample: 938016
sha256:
  description: Its SHA-256; V(null) in check mode without a copy.
  returned: success
  type: str
  sample: 2e99758548972a8e8822ad47fa1017ff72f06f3ff6a016851f45c398732bc50c
seconds:
  description: Duration in seconds.
  returned: success
  type: float
  sample: 1.4
"""

import base64
import hashlib
import os
import stat
import zlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import sha256_of_file, stream_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.space import free_bytes

# A piece has so many bytes as it is sent, or as it is read, whichever comes first.
PACKED = 4 * 1024 * 1024
PLAIN = 64 * 1024 * 1024
# What is sent to a host lies there as a file of its own until it is taken over.
SENT = 32 * 1024 * 1024
_CHUNK = 256 * 1024


def version_of(stream):
    """Another one with every change of an open file."""
    found = os.fstat(stream.fileno())
    return "%d %d %d" % (found.st_ino, found.st_size, found.st_mtime_ns)


def check_version(stream, version):
    if version_of(stream) != version:
        raise ValueError("changed while it was read, so nothing of it was kept")


def read_piece(stream, offset, limit=PACKED, digests=()):
    """(bytes that were read, what they are compressed); the digests are of what was read."""
    stream.seek(offset)
    packer, parts, packed, plain = zlib.compressobj(1), [], 0, 0
    while packed < limit and plain < PLAIN:
        chunk = stream.read(_CHUNK)
        if not chunk:
            break
        plain += len(chunk)
        for digest in digests:
            digest.update(chunk)
        parts.append(packer.compress(chunk))
        packed += len(parts[-1])
    return plain, b"".join([*parts, packer.flush()])


def unfinished(dest):
    return dest + ".partial"


def take_piece(dest, piece, offset, sha256):
    """Append what a piece holds, which has this SHA-256, so that it goes on from `offset`; the bytes that are there then."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if offset == 0 else 0)
    unpacker, digest = zlib.decompressobj(), hashlib.sha256()

    def write(plain):
        digest.update(plain)
        target.write(plain)

    with os.fdopen(os.open(unfinished(dest), flags, 0o600), "wb") as target, open(piece, "rb") as stream:
        if offset == 0:
            os.fchmod(target.fileno(), 0o600)
        if os.fstat(target.fileno()).st_size != offset:
            raise ValueError("%s does not end where the next piece begins: another process writes it" % unfinished(dest))
        target.seek(offset)
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            while chunk:
                write(unpacker.decompress(chunk, _CHUNK))
                chunk = unpacker.unconsumed_tail
        write(unpacker.flush())
        size = target.tell()
    if digest.hexdigest() != sha256:
        raise ValueError("a piece of it did not arrive as it was sent: its checksum differs")
    os.unlink(piece)
    return size


def finish(dest):
    """Give the copy its name."""
    with open(unfinished(dest), "rb") as stream:
        os.fsync(stream.fileno())
    os.rename(unfinished(dest), dest)
    descriptor = os.open(os.path.dirname(dest), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def receive(params):
    """The host's side of `to: host`."""
    dest = os.path.abspath(params["dest"])
    if params["discard"]:
        if os.path.lexists(unfinished(dest)):
            os.unlink(unfinished(dest))
        return {"version": ""}
    if params["piece"]:
        size = take_piece(dest, params["piece"], params["offset"], params["piece_sha256"])
        if params["last"]:
            finish(dest)
        return {"version": "", "size": size}
    # free_bytes() would look above a directory that is not there, and nothing can be written into that
    os.stat(os.path.dirname(dest))
    sha256 = sha256_of_file(dest) if os.path.isfile(dest) else None
    return {"version": "", "free": free_bytes(os.path.dirname(dest)), "sha256": sha256}


def main():
    # The action plugin of the same name writes dest, and asks for one piece after the other.
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dest": {"type": "path"},
            "to": {"type": "str", "choices": ["controller", "host"], "default": "controller"},
            "timeout": {"type": "int", "default": 3600},
            "reserve": {"type": "int", "default": 0},
            "offset": {"type": "int"},
            "checksum": {"type": "bool", "default": False},
            "piece": {"type": "path"},
            "sha256": {"type": "str", "default": ""},
            "piece_sha256": {"type": "str", "default": ""},
            "last": {"type": "bool", "default": False},
            "discard": {"type": "bool", "default": False},
        },
        required_if=[("to", "host", ("dest",))],
        supports_check_mode=True,
    )
    path, offset = module.params["path"], module.params["offset"]
    if module.params["to"] == "host":
        try:
            result = receive(module.params)
        except (OSError, ValueError, zlib.error) as exc:
            words = exc.strerror if isinstance(exc, OSError) else str(exc)
            module.fail_json(msg="%s cannot be written on the host: %s" % (module.params["dest"], words))
        module.exit_json(changed=False, **result)
    try:
        # opening a FIFO would wait for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                module.fail_json(msg="%s is not a regular file" % path)
            result = {"size": found.st_size, "version": version_of(stream)}
            if offset is not None:
                plain, packed = read_piece(stream, offset)
                # the controller compares the version with that of the piece before
                check_version(stream, result["version"])
                result.update(plain=plain, packed=base64.b64encode(packed).decode("ascii"))
            elif module.params["checksum"]:
                result["sha256"] = stream_digests(stream)[1]["sha256"]
    except ValueError as exc:
        module.fail_json(msg="%s %s" % (path, exc))
    except OSError as exc:
        module.fail_json(msg="%s cannot be read: %s" % (path, exc.strerror))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
