# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures of snapshots: made on the host that takes one, checked wherever the public keys are given.  Private to this collection.

    manifest = sign(manifest, "/etc/k8s-dr-signing/key", directory)
    Signers(["CLUSTER ssh-ed25519 AAAA..."]).problem(manifest, path)      # one sentence, or None

What is signed is a statement, the JSON text of all that the manifest says and that never changes.  The manifest holds it as it was signed, beside the
signature, so levels and copies that are recorded later invalidate nothing.  CLUSTER is the SHA-256 of the cluster's etcd CA, as in `fingerprints`.

The program is OpenSSH's ssh-keygen.  `-Y sign` and `-Y verify` came with 8.1, `-Y check-novalidate` with 8.2, valid-after, valid-before and verify-time with
8.7 (ssh-keygen.c and sshsig.c of the tags V_8_1_P1 to V_9_2_P1, and of 10.5).  Debian 11 has 8.4, Debian 12 has 9.2; RHEL 8 has 8.0, RHEL 9 has 8.7.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shlex
import stat
import tempfile

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.directory import plain_name
from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot.manifest import Manifest, ManifestError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import Refused, os_error_words
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ToolError, find_tool, run_tool

SPEC = {"signers": {"type": "list", "elements": "str", "default": []}}
# No signature for another use is one of a snapshot.
NAMESPACE = "snapshot@k8s-dr.etcd"
# What is recorded later, what is too long to be there twice, and the signature itself.
_NOT_SIGNED = ("levels", "level", "off_site", "inventory", "signature")
# In the place of an object inventory, which names thousands of objects.
_INVENTORY = "inventory_sha256"
# What only some manifests have, and must not get afterwards.
_OPTIONAL = ("packing", "plain")
# Seconds that ssh-keygen may take.
_SECONDS = 30
_KEY_TYPE = r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w.@-]+"
_LINE = re.compile(r"^[^\s#\"]+[ \t]+(?:\S.*[ \t])?%s[ \t]+[A-Za-z0-9+/]{20,}=*(?:[ \t].*)?$" % _KEY_TYPE)
_CLUSTER = re.compile(r"[0-9a-f]{64}\Z")
# What ssh-keygen says of a line of the file with the public keys: that the line is wrong, or that its key is not for this.
_WRONG_LINE = re.compile(r":(\d+): ((?:invalid|missing|bad) [^\r\n]*)")
_NOT_ALLOWED = re.compile(r":\d+: (key (?:has expired|is not yet valid|is not permitted)[^\r\n]*)")
_REFUSED = "Could not verify signature"
_UNSUPPORTED = re.compile(r"^(?:unknown|illegal|invalid) option|^Unsupported operation|^usage:", re.MULTILINE | re.IGNORECASE)
_TOO_OLD = "its ssh-keygen is too old: it has to be of OpenSSH 8.2 or later"


def _program():
    found = find_tool("ssh-keygen")
    if not found:
        raise Refused("there is no program ssh-keygen on this host; install the package openssh-client (Debian, Ubuntu) or openssh (RHEL)")
    return found


def _run(*args, stdin=None):
    # times in the lines of `signers` are UTC on every host
    try:
        return run_tool(["env", "TZ=UTC", _program(), *args], _SECONDS, stdin=stdin)
    except ToolError as exc:
        raise Refused(exc.message) from exc


def _trouble(result):
    """Why ssh-keygen gave no answer."""
    if _UNSUPPORTED.search(result.stderr):
        return _TOO_OLD
    return "ssh-keygen %s: %s" % (result.how(), result.last_words())


# ---- signing


def _sign(statement, key):
    return _run("-Y", "sign", "-f", key, "-n", NAMESPACE, statement)


def check_key(path):
    """Refused when a file cannot be the private key that signs: root's alone, and without a passphrase."""
    nothing, quoted = "No snapshot was taken", shlex.quote(path)
    try:
        found = os.stat(path)
    except OSError as exc:
        raise Refused("the key that signs snapshots, %s, cannot be read: %s. %s" % (path, exc.strerror, nothing)) from exc
    if not stat.S_ISREG(found.st_mode):
        raise Refused("the key that signs snapshots, %s, is not a regular file. %s" % (path, nothing))
    if found.st_uid not in (0, os.geteuid()):
        raise Refused("the key that signs snapshots, %s, belongs to another user than root. %s. Run: chown root %s" % (path, nothing, quoted))
    if found.st_mode & 0o077:
        raise Refused(
            "others may read the key that signs snapshots, %s (mode %04o), and sign with it. %s. Make another key, or run: chmod 600 %s"
            % (path, stat.S_IMODE(found.st_mode), nothing, quoted)
        )
    result = _run("-y", "-P", "", "-f", path)
    if result.rc != 0 and "passphrase" in result.stderr:
        raise Refused(
            "the key that signs snapshots, %s, has a passphrase, which no run can enter. %s. Run: ssh-keygen -p -N '' -f %s" % (path, nothing, quoted)
        )
    if result.rc != 0:
        raise Refused("%s is not a private key that can sign snapshots: %s. %s" % (path, _trouble(result), nothing))
    # what is older than 8.1 reads the key, and signs nothing
    try:
        with tempfile.TemporaryDirectory(prefix="k8s-dr-etcd-") as directory:
            statement = os.path.join(directory, "statement")
            with open(statement, "w", encoding="ascii") as stream:
                stream.write("a trial\n")
            result = _sign(statement, path)
    except OSError as exc:
        raise Refused("the key that signs snapshots, %s, could not be tried: %s. %s" % (path, os_error_words(exc), nothing)) from exc
    if result.rc != 0:
        raise Refused("%s cannot sign snapshots: %s. %s" % (path, _trouble(result), nothing))


def check_cluster(fingerprints):
    """Refused when the cluster is not known that a signature has to name."""
    if not _CLUSTER.match(str(fingerprints.get("etcd_ca"))):
        raise Refused("a signature names the cluster by its etcd CA, which cannot be read on this host. No snapshot was taken")


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8")).hexdigest()


def sign(manifest, key, directory):
    """The manifest with a signature.  directory: for temporary files, which the caller removes."""
    facts = {name: value for name, value in manifest.values.items() if name not in _NOT_SIGNED}
    facts[_INVENTORY] = _digest(manifest.values.get("inventory"))
    statement, path = json.dumps(facts, sort_keys=True), os.path.join(directory, "statement")
    with open(path, "x", encoding="utf-8") as stream:
        stream.write(statement)
    result = _sign(path, key)
    if result.rc != 0:
        raise Refused("no snapshot was kept, since it could not be signed with %s: %s" % (key, _trouble(result)))
    with open(path + ".sig", encoding="ascii") as stream:
        return Manifest(dict(manifest.values, signature={"statement": statement, "ssh": stream.read()}))


# ---- checking


def signers_of(lines):
    """The Signers of an option `signers`, or None where it is empty, and no signature is asked for."""
    lines = [line.strip() for line in lines or [] if line.strip()]
    return Signers(lines) if lines else None


class Signers:
    """The public keys whose signatures are accepted, and of which cluster each.

    lines: as ssh-keygen(1) has them under ALLOWED SIGNERS, with the SHA-256 of an etcd CA as the principal.  Refused for others.
    """

    def __init__(self, lines):
        for number, line in enumerate(lines, 1):
            if "PRIVATE" in line:
                raise Refused("a private key was given in `signers`; give the public one, and take the private one out of the inventory at once")
            if re.match(_KEY_TYPE + r"\s", line):
                raise Refused("line %d of `signers` has no cluster: write the SHA-256 of its etcd CA, and a space, before the key" % number)
            if not _LINE.match(line):
                raise Refused("line %d of `signers` is not CLUSTER [OPTIONS] KEYTYPE KEY: %s" % (number, line[:70]))
        self.text = "".join(line + "\n" for line in lines)
        # what is older than 8.7 knows neither these options nor a time to verify for
        self._timed = bool(re.search(r"\bvalid-(after|before)=", self.text, re.IGNORECASE))
        self._found = []
        _program()

    def problem(self, manifest, where):
        """Why a snapshot is not accepted, whose manifest this is and which lies at `where`: one sentence, or None."""
        found = self._problem(manifest, where)
        if found:
            self._found.append(found)
        return found

    def skipped(self, entries, path):
        """At most three sentences about snapshots that are not accepted, of a list with the newest first, and are newer than `path`."""
        newer = itertools.takewhile(lambda entry: entry["path"] != path, entries)
        return [entry["problem"] for entry in newer if entry["problem"] in self._found][:3]

    def _problem(self, manifest, where):
        signature = manifest.values.get("signature")
        if not isinstance(signature, dict) or not all(isinstance(signature.get(part), str) for part in ("statement", "ssh")):
            return "%s is not signed, so anyone who can write there may have made it; without `signers` it is accepted" % where
        try:
            statement = signature["statement"].encode("utf-8")
            facts = json.loads(signature["statement"])
            signed = Manifest(facts, "the statement")
            cluster = facts["fingerprints"]["etcd_ca"]
            if not _CLUSTER.match(cluster):
                raise ValueError("no cluster")
        except (ValueError, KeyError, TypeError, RecursionError, ManifestError):
            return "the signature of %s is damaged: what it signs is not a manifest" % where
        return self._refusal(statement, signature["ssh"], cluster, signed.created, where) or _change(manifest, signed, where)

    def _refusal(self, statement, signature, cluster, created, where):
        """Why the statement is not one of a signer, or None."""
        try:
            return self._asked(statement, signature, cluster, created, where)
        except OSError as exc:
            # a full or read-only /tmp says nothing of the snapshot
            raise Refused("the signature of %s could not be checked: %s" % (where, os_error_words(exc))) from exc

    def _asked(self, statement, signature, cluster, created, where):
        with tempfile.TemporaryDirectory(prefix="k8s-dr-etcd-") as directory:
            paths = {name: os.path.join(directory, name) for name in ("signers", "signature", "statement")}
            for name, content in (("signers", self.text.encode("utf-8")), ("signature", signature.encode("utf-8", "replace")), ("statement", statement)):
                with open(paths[name], "wb") as stream:
                    stream.write(content)

            def ask(*args):
                with open(paths["statement"], "rb") as stream:
                    return _run("-Y", *args, "-n", NAMESPACE, "-s", paths["signature"], stdin=stream)

            # when it was signed: a key that is retired later has signed what came before
            moment = ["-O", "verify-time=" + re.sub(r"\D", "", created)] if self._timed else []
            result = ask("verify", "-f", paths["signers"], "-I", cluster, *moment)
            if result.rc == 0:
                return None
            wrong = _WRONG_LINE.search(result.stderr)
            if wrong:
                raise Refused("line %s of `signers` is wrong: %s (valid-after and valid-before need OpenSSH 8.7 or later)" % wrong.groups())
            if _REFUSED not in result.stdout:
                raise Refused("the signature of %s could not be checked: %s" % (where, _trouble(result)))
            made = ask("check-novalidate")
        key = re.search(r"SHA256:\S+", made.stdout) if made.rc == 0 else None
        if not key:
            return "the signature of %s does not fit what was signed: one of the two was changed" % where
        why = _NOT_ALLOWED.search(result.stderr)
        return "%s is signed with the key %s, which `signers` does not allow for the cluster %s: %s" % (
            where,
            key.group(),
            cluster[:12],
            why.group(1) if why else "no line has both",
        )


def _change(manifest, signed, where):
    """One sentence about what a manifest says otherwise than what was signed, or None."""
    if signed.is_packed and not manifest.is_packed:
        # of a snapshot that was decrypted, what was signed of the one that is stored
        signed = signed.of_decrypted(plain_name(signed.file))
    if manifest.file != signed.file:
        return "%s was signed under the name %s" % (where, signed.file)
    for name in sorted({*signed.values, *_OPTIONAL} - {_INVENTORY}):
        if manifest.values.get(name) != signed.values.get(name):
            return "the manifest of %s was changed after it was signed: its `%s` is another one" % (where, name)
    if _digest(manifest.values.get("inventory")) != signed.values.get(_INVENTORY):
        return "the manifest of %s was changed after it was signed: its `inventory` is another one" % where
    return None
