# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verification level above a drill: an API server shows every object of a snapshot.  Private to this collection.

What it finds is never recorded as damage: whether an object can be decrypted and decoded depends on the keys and on the version of the API server as well.
"""

from __future__ import annotations

import socket

from ansible_collections.k8s_dr.etcd.plugins.module_utils._browse import session as browse_session
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.reading import OutOfReach, Unproven
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words

# Seconds after which systemd ends what a killed module left, beyond those that it may take.
_SPARE = 60
# Objects that a sentence names.
_NAMED = 3


def show(options):
    """What a Verification is given as `show`.  options: those of Session but path, port and times."""

    def at(path, left):
        seconds = max(1, int(left))
        found = dict(options, path=path, temporary=False, sha256="", port=_free_port(), ttl=seconds + _SPARE, verify=True, timeout=seconds)
        try:
            return _served(found)
        except browse_session.Unavailable as exc:
            raise OutOfReach(str(exc)) from exc
        except Refused as exc:
            raise Unproven("the verification level objects could not be tried: %s" % exc) from exc
        except OSError as exc:
            raise Unproven("the verification level objects could not be tried: %s" % os_error_words(exc)) from exc

    return at


def _served(options):
    if browse_session.state():
        raise Refused(
            "another snapshot is served on this host; run this again when that has ended, or end it with: "
            "ansible-playbook k8s_dr.etcd.browse -e etcd_browse_state=absent"
        )
    with browse_session.Session(options) as session:
        session.check()
        # what a killed module left
        browse_session.end()
        found = session.start()
    browse_session.end(found["sha256"])
    objects = found["objects"]
    missing = problem(objects)
    if missing:
        raise Unproven(missing)
    return dict(
        kubernetes_version=found["kubernetes_version"],
        completed=found["completed"],
        **{name: objects[name] for name in ("objects", "resources", "unserved")},
    )


def problem(objects):
    """What is wrong with the result of every_object.compare(), as a sentence, or None."""
    sentences = list(objects["differences"])
    number = objects["undecodable_objects"]
    if number:
        named = "; ".join(objects["undecodable"][:_NAMED])
        sentences.append(
            "%d object%s cannot be decrypted or decoded by this API server: %s%s"
            % (number, "s" if number > 1 else "", named, "; and %d more" % (number - _NAMED) if number > _NAMED else "")
        )
        sentences.append("give the EncryptionConfiguration that they were written with, or a kube-apiserver of the snapshot's version")
    return "not every object is shown: %s" % "; ".join(sentences) if sentences else None


def _free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
