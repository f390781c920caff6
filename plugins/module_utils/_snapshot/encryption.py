# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots compressed with zstd and encrypted to public keys with age, from file to file without another copy in between.

    packed = encrypt("snapshot.db", "encrypted", "zstd", ["age1..."])        # {"size", "sha256"} of what is stored
    plain = decrypt("encrypted", "snapshot.db", manifest, "identity.txt")  # {"size", "sha256"} of what was in it

A bundle is compressed and encrypted the same way: a tar with the snapshot and whatever else has to outlive the cluster, that pack() makes.

What ends this process ends the programs with it.  Private to this collection.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.durable import begin_writing
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ended_with_parent

COMPRESSIONS = ("none", "zstd")
DIRECTORIES = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/opt/bin", "/opt/homebrew/bin")
# Of a bundle: what the snapshot is called in it, and what anything in it may be called.
SNAPSHOT = "snapshot.db"
NAME = re.compile(r"^(?!.*(^|/)\.\.?(/|$))[^/\0][^\0]*[^/\0]$")
_CHUNK = 1024 * 1024
# The cluster that serves comes first.
_NICE = 10
# A plugin may wait for a person, and nobody is there.
_AGE_SECONDS = 30
# fcntl has it from Python 3.10 on
_F_SETPIPE_SZ = 1031
_STRETCH = 32 * 1024 * 1024
_PACKAGES = {"age": "age", "zstd": "zstd"}


class EncryptionError(Exception):
    """One sentence for the operator.  kind: tool, identity, corrupt, space or other."""

    def __init__(self, message, kind="other"):
        super().__init__(message)
        self.kind = kind


def find_program(name):
    found = shutil.which(name) or next((path for path in (os.path.join(one, name) for one in DIRECTORIES) if os.access(path, os.X_OK)), None)
    if not found:
        raise EncryptionError("there is no program %s on this host; install the package %s" % (name, _PACKAGES[name]), "tool")
    return found


def check(compression, recipients):
    """Raises EncryptionError for what cannot be compressed or encrypted so, before anything is done."""
    if compression not in COMPRESSIONS:
        raise EncryptionError("the compression is %s, which is none of: %s" % (str(compression)[:40], ", ".join(COMPRESSIONS)))
    for recipient in recipients:
        if "SECRET" in str(recipient) or "PRIVATE" in str(recipient):
            raise EncryptionError("a private key was given as a recipient; give the public one, and take the private one out of the inventory at once")
        if not isinstance(recipient, str) or not recipient.startswith(("age1", "ssh-")):
            raise EncryptionError(
                "%s is no public key: those of age begin with age1, those of SSH with ssh-ed25519 or ssh-rsa" % repr(str(recipient)[:70]), "identity"
            )
    if compression == "zstd":
        find_program("zstd")
    if recipients:
        _ask_age(recipients)


def _age(recipients):
    return [find_program("age"), "--encrypt"] + [word for recipient in recipients for word in ("--recipient", recipient)]


def _ask_age(recipients):
    """Encrypt nothing: which keys it takes, and which of them together, is known to this age and its plugins alone."""
    with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as out, _Program(_age(recipients), nothing, out) as age:
        for dummy in _follow(age, out.fileno(), time.monotonic() + _AGE_SECONDS):
            pass
        code, words = age.end()
    if code:
        words = words or "it ended with code %d" % code
        raise EncryptionError("age on this host does not encrypt to the recipients %s: %s" % (_names(recipients), words), "identity")


def description(compression, recipients):
    """What a manifest says of the packing; None where there is none.  Of a bundle it also has `bundle` and `packed`, as pack() returns them."""
    if compression == "none" and not recipients:
        return None
    return {"compression": compression, "encryption": "age" if recipients else "none", "recipients": list(recipients)}


def pack(snapshot, target, files):
    """Write a tar of the snapshot and of files: {name in it: path, or bytes}.  Returns {"bundle": names besides the snapshot, "packed": {"size", "sha256"}}."""
    names = sorted(files)
    with tarfile.open(target, "x", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, SNAPSHOT, snapshot)
        for name in names:
            _add(tar, name, files[name])
    size, digests = file_digests(target)
    return {"bundle": names, "packed": {"size": size, "sha256": digests["sha256"]}}


def _add(tar, name, source):
    # whose it was, and what mode it had, is not for another host
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = 0o600, int(time.time())
    if isinstance(source, bytes):
        entry.size = len(source)
        tar.addfile(entry, io.BytesIO(source))
        return
    with open(source, "rb") as stream:
        entry.size = os.fstat(stream.fileno()).st_size
        tar.addfile(entry, stream)


def suffix(compression, recipients, bundle=False):
    """What the name of a file ends with that is packed so."""
    return (".tar" if bundle else ".db") + (".zst" if compression == "zstd" else "") + (".age" if recipients else "")


def encrypt(source, target, compression, recipients, timeout=None):
    """Write `target` from `source`: {"size", "sha256"} of it.  The source must not change meanwhile."""
    check(compression, recipients)
    commands = []
    if compression == "zstd":
        commands.append([find_program("zstd"), "-T0", "-q", "-c"])
    if recipients:
        commands.append(_age(recipients))
    return _pipe(commands, source, target, timeout)


def decrypt(path, target, manifest, identity_file=None, timeout=None, files=None):
    """Write `target` from the encrypted file: {"size", "sha256"} of it, which are those that the manifest has of what is in it.

    manifest: a Manifest, or None where there is none.  files: a directory, which must not be there, for what else is in a bundle; it is made where
    there is something.  There is no target after an error, and no such directory.
    """
    packing, plain = (manifest.packing, manifest.plain) if manifest else ({}, {})
    commands = []
    if packing.get("encryption", "none") not in ("none", "age") or packing.get("compression", "none") not in COMPRESSIONS:
        raise EncryptionError("%s is packed in a way that this version does not know; use the one that took it, or a later one" % path)
    if manifest and manifest.is_encrypted:
        if not identity_file:
            raise EncryptionError("%s is encrypted to %s; give the file with a private key of it" % (path, _names(packing.get("recipients"))), "identity")
        if not os.path.isfile(identity_file):
            raise EncryptionError("there is no file %s with a private key to decrypt %s" % (identity_file, path), "identity")
        commands.append([find_program("age"), "--decrypt", "--identity", os.path.abspath(identity_file)])
    if packing.get("compression") == "zstd":
        commands.append([find_program("zstd"), "-d", "-q", "-c"])
    packed = target + ".tar" if packing.get("bundle") is not None else None
    try:
        if packed:
            whole = packing.get("packed") if isinstance(packing.get("packed"), dict) else {}
            found = _pipe(commands, path, packed, timeout, whole.get("size"))
            if (found["size"], found["sha256"]) != (whole.get("size"), whole.get("sha256")):
                raise EncryptionError("%s does not hold the bundle that was encrypted: what is in it has another size or another sha256" % path, "corrupt")
            found = _unpack(path, packed, target, packing["bundle"], files)
        else:
            found = _pipe(commands, path, target, timeout, plain.get("size"))
        if plain and (found["size"], found["sha256"]) != (plain.get("size"), plain.get("sha256")):
            raise EncryptionError("%s does not hold the snapshot that was encrypted: what is in it has another size or another sha256" % path, "corrupt")
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        if files:
            shutil.rmtree(files, ignore_errors=True)
        raise
    finally:
        if packed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(packed)
    return found


def _unpack(path, packed, target, names, files):
    """The snapshot of a bundle into `target`, and all else into `files`: {"size", "sha256"} of the snapshot."""
    found = None
    try:
        with tarfile.open(packed, "r:") as tar:
            for entry in tar:
                # what the tar says of where it goes is not believed: only names of the manifest, which are no way out of the directory
                if not entry.isreg() or entry.name not in [SNAPSHOT, *names] or not NAME.match(entry.name):
                    raise EncryptionError("%s holds something that its manifest does not name: %s" % (path, repr(entry.name)[:100]), "corrupt")
                if entry.name == SNAPSHOT:
                    found = _copy(tar.extractfile(entry), target)
                elif files:
                    where = os.path.join(files, entry.name)
                    os.makedirs(os.path.dirname(where), mode=0o700, exist_ok=True)
                    _copy(tar.extractfile(entry), where)
    except tarfile.TarError as exc:
        raise EncryptionError("%s is damaged: what is in it is no tar: %s" % (path, exc), "corrupt") from exc
    if found is None:
        raise EncryptionError("%s holds no snapshot" % path, "corrupt")
    return found


def _copy(stream, target):
    size, digest = 0, hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            size += len(chunk)
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _names(recipients):
    keys = [str(one) for one in recipients or []]
    return " and ".join(one if len(one) < 24 else one[:12] + "..." + one[-6:] for one in keys) or "keys that its manifest does not name"


def _pipe(commands, source, target, timeout, limit=None):
    """Send a file through programs into another one, that is 0600 and on disk when this returns.  limit: bytes that must not be exceeded."""
    size, begun, digest = 0, 0, hashlib.sha256()
    deadline = None if timeout is None else time.monotonic() + timeout
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(os.fdopen(descriptor, "r+b", buffering=0))
        stream = stack.enter_context(open(source, "rb"))
        running = []
        for command in commands:
            # The last one writes the file itself, and it is read here behind it: what goes through this process is slower.
            program = stack.enter_context(_Program(command, stream, out if command is commands[-1] else subprocess.PIPE))
            # that program alone reads it from now on, and is told when the one before ends
            stream.close()
            stream = program.stdout
            running.append(program)
        for chunk in _follow(running[-1], out.fileno(), deadline) if running else iter(lambda: stream.read(_CHUNK), b""):
            size += len(chunk)
            if limit is not None and size > limit:
                raise EncryptionError("%s holds more than the snapshot that was encrypted" % source, "corrupt")
            digest.update(chunk)
            if not running:
                out.write(chunk)
            if size - begun >= _STRETCH:
                begin_writing(out.fileno(), begun, size - begun)
                begun = size
        _judge(running, source, target)
        os.fsync(out.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _follow(program, descriptor, deadline):
    """What a program writes to a file, until it has ended; EncryptionError when it does not in time."""
    size = 0
    while True:
        # asked before the last look, or what comes in between would be missed
        ended = program.has_ended()
        while True:
            # the program writes at the offset of this same descriptor, which pread leaves alone
            chunk = os.pread(descriptor, _CHUNK, size)
            if not chunk:
                break
            size += len(chunk)
            yield chunk
        if ended:
            return
        if deadline is not None and time.monotonic() > deadline:
            raise EncryptionError("it was not done in time")
        time.sleep(0.005)


class _Program:
    """One program of a pipe; a context that does not outlive its block."""

    def __init__(self, command, stdin, stdout):
        self.name = os.path.basename(command[0])
        self._words = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=self._words,
            cwd="/",
            start_new_session=True,
            preexec_fn=ended_with_parent(_NICE),  # noqa: PLW1509 - modules have one thread
        )
        self.stdout = self._process.stdout
        if self.stdout:
            # Programs that wait for each other less often; an ordinary pipe does as well.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.stdout, _F_SETPIPE_SZ, _CHUNK)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self.stdout:
            self.stdout.close()
        self._words.close()

    def has_ended(self):
        return self._process.poll() is not None

    def end(self):
        """(exit code, what it said)"""
        code = self._process.wait()
        self._words.seek(0)
        lines = self._words.read(4096).decode("utf-8", "replace").splitlines()
        # which is of no use to an operator
        return code, " ".join(line.strip() for line in lines if "report unexpected" not in line)[:300].strip()


def _judge(running, source, target):
    """EncryptionError about the program that failed first in truth: one whose reader is gone ends by a signal and has nothing to say."""
    ended = [(program.name, *program.end()) for program in running]
    failed = [one for one in ended if one[1] != 0]
    if not failed:
        return
    # one that was killed, as where there was no memory, and not because its reader was gone: that says nothing about the file
    killed = next((one for one in failed if one[1] < 0 and one[1] != -signal.SIGPIPE), None)
    if killed:
        raise EncryptionError("%s was ended by signal %d on %s" % (killed[0], -killed[1], source))
    name, code, words = next((one for one in failed if one[1] > 0), failed[0])
    if "no space left" in words.lower():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
    if "no identity matched" in words:
        raise EncryptionError("%s is not encrypted to the private key that was given" % source, "identity")
    if name == "age" and re.search(r"identit|private key|secret key|no secret|reading \"", words):
        raise EncryptionError("the file with the private key cannot be used: %s" % words, "identity")
    if re.search(r"failed to (read|decrypt)|Decoding error|premature end|unsupported format|corrupt|EOF", words):
        raise EncryptionError("%s is damaged: %s" % (source, words), "corrupt")
    raise EncryptionError("%s failed on %s: %s" % (name, source, words or "it ended with code %d" % code))
