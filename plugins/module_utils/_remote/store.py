# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots off-site, through rclone from 1.60 on: list, read, send, get, verify, remove.

    remote = Remote("s3:backups/prod", config="/etc/rclone.conf")
    remote.snapshots()                             # entries as snapshot_manifest.list_snapshots has them, newest first
    remote.read("etcd-cp1-20260102T030405Z.db.json")
    remote.put("/var/backups/etcd/etcd-cp1-20260102T030405Z.db", size, sha256)
    remote.get("etcd-cp1-20260102T030405Z.db", "/srv/etcd-cp1-20260102T030405Z.db", size, sha256)
    remote.digest("etcd-cp1-20260102T030405Z.db", size)
    remote.note("etcd-cp1-20260102T030405Z.db", sha256, levels)
    remote.remove("etcd-cp1-20260102T030405Z.db")  # and its manifest

What rclone is told is on its command line, which everybody on the host may read; what is secret is in its configuration file.

A snapshot is off-site when its manifest is: the file goes first, is verified there, and its manifest follows.  A file without
a manifest is what an interrupted upload left.

Private to this collection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._snapshot import manifest as snapshot_manifest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ended_with_parent, find_tool

# Up to this size rclone sends an object to S3 in one piece (its own default, 1.60 to 1.75), of which the server itself computes and checks the MD5.
# Of an object in parts it only keeps what the sender said.
ONE_PIECE = 200 * 1024 * 1024
# What S3 is told unless rclone's configuration says otherwise, which a flag would overrule.
_S3 = {
    # rclone would make a bucket that is not there, in whatever place and open to whom it may be
    "no_check_bucket": "true",
    # what one object needs of memory
    "upload_concurrency": "2",
}
_CHUNK = 1024 * 1024
# The cluster that serves comes first.
_NICE = 10
# Seconds that looking may take.
_LOOK = 120
_MAX_OUTPUT = 64 * 1024 * 1024
_MAX_MANIFEST = 256 * 1024 * 1024
# A name of a remote as rclone allows it, and its path; without a name it is a directory of this host.
_REMOTE = re.compile(r"^(?P<name>[\w.+@][\w.+@ -]*):(?P<path>[^\x00-\x1f]*)$")
# A rate of its option --bwlimit, in KiB/s without a unit. The option may have times (08:00,512k) and a rate for each direction (1M:512k).
_RATE = re.compile(r"(\d+(?:\.\d+)?)([BKMGT]?)(?:iB?)?$", re.IGNORECASE)
_UNITS = {"": 1024, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_TIME = re.compile(r"^[0-9/]{10} [0-9:]{8} ")
_OPTIONS = (
    "--use-json-log",
    "--log-level=NOTICE",
    "--ask-password=false",
    "--contimeout=15s",
    "--low-level-retries=4",
    "--retries=1",
    "--stats=0",
    # what one object needs of memory
    "--buffer-size=4Mi",
    "--multi-thread-streams=0",
)
# Object stores: what is written is there as a whole, or what was there before is.
_WHOLE_OR_NOT = ("s3", "azureblob", "b2", "google cloud storage", "oracleobjectstorage", "swift")
# What rclone's words stand for: (kind, expression, cause, remedy).  The first one that fits.
_TROUBLES = (
    ("config", ("didn't find section in config file",), "rclone's configuration has no remote of that name", ""),
    ("config", ("unable to decrypt configuration", "config.* encrypted", "password.*config"), "rclone's configuration is encrypted", ""),
    (
        "refused",
        # S3, Azure, Google
        ("RequestTimeTooSkewed", "Request date header too old", "token.*reasonable timeframe"),
        "the clocks of this host and of the storage are too far apart",
        "set this host's clock (timedatectl)",
    ),
    (
        "immutable",
        # S3 (AWS, versitygw), MinIO, Azure, Google
        ("protected by object lock", "object is WORM protected", "ImmutableDueTo", "retentionPolicyNotMet|retention policy", "ObjectUnderActiveHold"),
        "an object lock or a retention policy protects it",
        "it can be replaced or removed only when that ends",
    ),
    (
        "full",
        ("no space left", "quota ?exceeded", "exceed.{0,30}quota", "StorageFull", "insufficient[ _]?(storage|space)", "disk (is )?full", "507 ")
        + ("not enough space", "cap_exceeded", "quotaLimitReached"),
        "there is no room left",
        "free some, raise the quota, or keep fewer snapshots there (etcd_snapshot_off_site_keep)",
    ),
    (
        "refused",
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "unable to authenticate", "unauthorized", "status ?code: 401")
        + ("401 Forbidden", "AuthenticationFailed", "knownhosts", "no supported methods"),
        "access was refused",
        "check the credentials in rclone's configuration, and known_hosts_file of SFTP",
    ),
    ("denied", ("Access ?Denied", "forbidden", "status ?code: 403", "permission denied", "read-only file system"), "access was refused", ""),
    (
        "absent",
        ("NoSuchBucket", "(directory|object|file) not found", "no such file", "is a directory or doesn't exist", "bucket.*not.*exist"),
        "it is not there",
        "",
    ),
    (
        "unreachable",
        ("connection (refused|reset|lost|aborted)", "no such host", "i/o timeout", "broken pipe", "EOF", "no route", "network is unreachable")
        + ("deadline exceeded", "server closed", "handshake", "use of closed", "couldn't connect", "RequestError", "status ?code: 50[0-9]"),
        "it cannot be reached",
        "",
    ),
)
# What the credentials may lack, by what is done; docs/off-site.md has the table.
_NEEDS = {
    "list": "they need to be allowed to list (S3: s3:ListBucket)",
    "read": "they need to be allowed to read (S3: s3:GetObject, and s3:ListBucket where it is not there)",
    "write": "they need to be allowed to write and to read (S3: s3:PutObject, s3:GetObject, s3:ListBucket)",
}
# rclone compares what it sent with the ETag, which where a bucket encrypts with SSE-KMS by default is no MD5 (rclone 1.60.1 and 1.73.1,
# backend/s3/s3.go: etagIsNotMD5 only where the configuration says so).
_NO_MD5 = re.compile("corrupted on transfer: md5 hash(es)? differ")


class _Ended:
    """How one run of rclone ended."""

    def __init__(self, code, output, words):
        self.code = code
        self.output = output
        self.words = words


def budget(size, bwlimit=None):
    """Seconds that moving so many bytes may take: a slow line has 100 kB/s, and one that moves nothing is given up long before.

    bwlimit: as rclone has it.  With a timetable nobody can say how long it takes; its slowest hour counts.
    """
    words = [rate for word in (bwlimit or "").split() for rate in word.rpartition(",")[2].split(":")]
    limits = [float(match.group(1)) * _UNITS[match.group(2).upper()] for match in map(_RATE.match, words) if match]
    return 600 + int(size / min([limit for limit in limits if limit] + [100000]))


def trouble(words):
    """(kind, cause, remedy) of what rclone said last."""
    text = " ".join(words)
    for kind, expressions, cause, remedy in _TROUBLES:
        if re.search("|".join(expressions), text, re.IGNORECASE):
            return kind, cause, remedy
    return "other", "", ""


def clean_environment():
    """RCLONE_* of the caller changes what every option means, and rclone 1.60 reaches no S3 when AWS_CA_BUNDLE is set."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    if "AWS_CA_BUNDLE" in env:
        # which every version understands
        env.setdefault("SSL_CERT_FILE", env.pop("AWS_CA_BUNDLE"))
    env.update(LC_ALL="C", GOTRACEBACK="single", GOMAXPROCS="2")
    return env


class Remote:
    """A place off-site that holds snapshots.

    where: REMOTE:PATH as rclone's configuration names it, or a directory of this host such as a mounted share.  config: path of that
    configuration, root's own by default.  timeout: seconds that any one transfer may take, by its size when not given.  idle: seconds
    without a byte after which a connection counts as dead.  retries: how often what broke off is begun again.
    """

    def __init__(self, where, config=None, binary=None, timeout=None, idle=60, retries=3, retry_sleep=5, bwlimit=None):
        self.where = where
        match = _REMOTE.match(where)
        self.name = match.group("name") if match else None
        if match is None and not os.path.isabs(where):
            if where.startswith(":") or re.match(r"^[^:/]*,", where):
                raise RcloneError(
                    "the off-site place has settings in its name, which everybody on the host could read: write them into rclone's configuration", "config"
                )
            raise RcloneError("%s is no off-site place: give NAME:PATH with a NAME of rclone's configuration, or an absolute directory" % where, "config")
        if self.name is None and not os.path.isdir(where):
            raise RcloneError("%s is not a directory on this host; is it mounted?" % where, "absent")
        if config and not os.access(config, os.R_OK):
            raise RcloneError("%s (rclone's configuration) cannot be read on this host" % config, "config")
        self.config = config
        self.binary = find_tool("rclone", binary)
        if not self.binary:
            raise RcloneError("there is no rclone on this host: install it (on Debian and Ubuntu: apt-get install rclone)", "tool")
        self.timeout = timeout
        self.idle = idle
        self.retries = max(1, retries)
        self.retry_sleep = retry_sleep
        self.bwlimit = bwlimit
        self._sections = None
        self._known = None

    def mount(self):
        """Where the file system is mounted that holds it, of a directory of this host; None of anything else."""
        return procs.mount_of(self.where) if self.name is None else None

    def config_warning(self):
        """One sentence when others may read the credentials, or None."""
        if self.config and os.stat(self.config).st_mode & 0o077:
            return "others may read %s, which holds the credentials of %s; set its mode to 0600" % (self.config, self.where)
        return None

    def path(self, name=""):
        """How rclone names a file there."""
        if self.where.endswith((":", "/")) or not name:
            return self.where + name
        return "%s/%s" % (self.where, name)

    # -- looking ------------------------------------------------------------------------------------------------------

    def names(self, missing_ok=False):
        """{name: size} of the files there.  missing_ok: no such directory is an empty one."""
        ended = self._run(self._look(), "lsjson", "--files-only", "--no-modtime", "--no-mimetype", "--", self.path())
        if ended.code != 0:
            error = self._error("%s cannot be listed" % self.where, ended, "list")
            if error.kind == "absent" and missing_ok:
                return {}
            raise error
        return {entry["Name"]: entry["Size"] for entry in self._json(ended) if not entry.get("IsDir")}

    def size(self, name):
        """Size of a file, or None when it is not there."""
        entry = self._stat(name)
        return entry["Size"] if entry else None

    def read(self, name, limit=_MAX_MANIFEST):
        """The bytes of a small file; RcloneError of kind `absent` when it is not there."""
        size = self._size_of(name)
        if size > limit:
            raise RcloneError("%s has %d bytes, more than it may have" % (self.path(name), size), "corrupt")
        parts = []
        self._stream(name, size, 0, parts.append, time.monotonic() + self._seconds(size))
        return b"".join(parts)

    def digest(self, name, size=None, progress=None):
        """(size, sha256) of what is really stored, by reading all of it.  size: what it has to have; another one is not read."""
        found = self._size_of(name)
        if size is not None and found != size:
            return found, None
        sha256 = hashlib.sha256()
        self._stream(name, found, 0, sha256.update, time.monotonic() + self._seconds(found), progress)
        return found, sha256.hexdigest()

    def snapshots(self, missing_ok=True, sizes=None):
        """Every snapshot there, newest first, as snapshot_manifest.list_snapshots describes local ones; without having read them.

        Besides the manifest's fields each has `remote`, `path` (how rclone names it), `file`, `verified` and `problem`.  A manifest
        whose file is gone is listed too; `size` is then None.  sizes: what names() has said just now.
        """
        sizes = self.names(missing_ok) if sizes is None else sizes
        manifests = [name for name in sizes if name.startswith("etcd-") and name.endswith(snapshot_manifest.MANIFEST_SUFFIX)]
        files = {name[: -len(snapshot_manifest.MANIFEST_SUFFIX)] for name in manifests}
        files.update(name for name in sizes if name.startswith("etcd-") and name not in manifests)
        entries = []
        with _private_directory() as directory:
            unread = self._get_manifests(directory, manifests) if manifests else None
            for name in sorted(files):
                entries.append(self._describe(name, sizes, os.path.join(directory, name), unread))
        return sorted(entries, key=lambda entry: (entry.get("created") or "", entry["path"]), reverse=True)

    def manifest(self, name):
        """The manifest of a snapshot there; None when it has none, ManifestError when it cannot be one."""
        try:
            text = self.read(name + snapshot_manifest.MANIFEST_SUFFIX)
        except RcloneError as exc:
            if exc.kind == "absent":
                return None
            raise
        with _private_directory() as directory:
            path = os.path.join(directory, name)
            with open(snapshot_manifest.manifest_path(path), "wb") as stream:
                stream.write(text)
            try:
                return snapshot_manifest.read_manifest(path)
            except snapshot_manifest.ManifestError as exc:
                raise snapshot_manifest.ManifestError(str(exc).replace(path, self.path(name))) from None

    def _get_manifests(self, directory, names):
        """Copy all of them here; one sentence about those that cannot be read, or None.  Damage of one must not hide the others."""
        argv = ["copy", "--include=/etcd-*" + snapshot_manifest.MANIFEST_SUFFIX, "--max-depth=1", "--max-size=%dB" % _MAX_MANIFEST, "--transfers=4"]
        ended = self._run(min(self.timeout or 600, 600), *(argv + ["--ignore-checksum", "--", self.path(), directory]))
        if ended.code == 0:
            return None
        if not any(os.path.exists(os.path.join(directory, name)) for name in names):
            raise self._error("the manifests in %s cannot be read" % self.where, ended, "read")
        return self._error("its manifest cannot be read", ended, "read").message

    def _describe(self, name, sizes, local, unread=None):
        entry = {"remote": self.where, "path": self.path(name), "file": name, "size": sizes.get(name), "verified": False, "problem": None}
        where = entry["path"]
        if unread and snapshot_manifest.manifest_path(name) in sizes and not os.path.exists(snapshot_manifest.manifest_path(local)):
            entry["problem"] = "%s cannot be relied on: %s" % (where, unread)
            return entry
        try:
            manifest = snapshot_manifest.read_manifest(local)
        except snapshot_manifest.ManifestError as exc:
            entry["problem"] = str(exc).replace(local, where)
            return entry
        entry = dict(manifest, **entry)
        if name not in sizes:
            entry["problem"] = "%s is gone, and its manifest is still there" % where
        elif sizes[name] != manifest["size"]:
            entry["problem"] = "%s has %d bytes, and had %d when it was taken" % (where, sizes[name], manifest["size"])
        elif not manifest["verified"]:
            entry["problem"] = "%s was not verified when it was taken" % where
        elif snapshot_manifest.failed_level(manifest):
            entry["problem"] = "%s is not to be relied on: %s" % (where, snapshot_manifest.failed_level(manifest))
        else:
            entry["verified"] = True
        return entry

    # -- sending ------------------------------------------------------------------------------------------------------

    def put(self, path, size, sha256, verify="auto", progress=None, name=None, back=None):
        """Send a local file and make sure that it landed whole.  Returns {seconds, verified_by: md5|sha1|sha256|read}.

        The file is read before: what is not what its manifest says is never sent.  verify: as check() has it.
        progress: called with the bytes that were sent so far; back: with those that were read back.
        """
        name = name or os.path.basename(path)
        start = time.monotonic()
        found, digests = file_digests(path, ("sha256", "sha1", "md5"))
        if (found, digests.get("sha256")) != (size, sha256):
            raise RcloneError("%s is not the file that was taken (its size or its sha256 has changed), so it was not sent" % path, "local")
        self._attempts(lambda deadline: self._send(path, name, size, deadline, progress), self._seconds(size))
        problem, how = self.check(name, size, digests, verify, back)
        if problem:
            # what went wrong on the way may go well
            self._attempts(lambda deadline: self._send(path, name, size, deadline, progress), self._seconds(size))
            problem, how = self.check(name, size, digests, verify, back)
        if problem:
            raise RcloneError("%s was sent, but %s" % (os.path.basename(path), problem), "corrupt")
        return {"seconds": round(time.monotonic() - start, 2), "verified_by": how}

    def check(self, name, size, digests, verify="auto", progress=None):
        """(what is wrong with a file there or None, how that is known).

        digests: of what it has to be, by name; sha256 has to be among them.  verify: `auto` believes a digest that the server computed of what
        it stores (SFTP, and S3 of an object that was sent in one piece) and reads everything else back; `hash` believes any; `read` none.
        """
        where = self.path(name)
        kind = self._hash_to_ask(size, digests, verify)
        entry = self._stat(name, "--hash", "--hash-type=" + kind, seconds=self._seconds(size)) if kind else self._stat(name)
        if entry is None:
            return "%s is not there" % where, "size"
        if entry["Size"] != size:
            return "%s has %d bytes instead of %d" % (where, entry["Size"], size), "size"
        told = {key.lower().replace("-", ""): value for key, value in (entry.get("Hashes") or {}).items()}.get(kind)
        if told:
            return (None if told.lower() == digests[kind] else "%s is not what was sent: its %s is another one" % (where, kind)), kind
        sha256 = self.digest(name, size, progress)[1]
        return (None if sha256 == digests["sha256"] else "%s is not what was sent: it reads back differently" % where), "read"

    def _hash_to_ask(self, size, digests, verify):
        if verify == "read" or self.name is None:
            return None
        if verify == "auto" and not (self._remote_type() == "sftp" or (self._remote_type() == "s3" and size <= self._one_piece())):
            return None
        return next((kind for kind in ("sha256", "sha1", "md5") if kind in self._remote_hashes() and kind in digests), None)

    def _configuration(self):
        """The sections of rclone's configuration that this place is of, its own first: one for crypt names another one."""
        if self._sections is None:
            ended = self._run(self._look(), "config", "dump")
            if ended.code != 0:
                raise self._error("rclone's configuration cannot be read", ended)
            known = self._json(ended)
            names = [self.name] if self.name in known else []
            for name in names:
                # remote of crypt, alias, chunker, …; upstreams of union and combine
                text = " %s %s" % (known[name].get("remote", ""), known[name].get("upstreams", ""))
                names.extend(sorted(other for other in known if other not in names and re.search(r"[\s=\"']%s:" % re.escape(other), text)))
            self._sections = [known[name] for name in names]
        return self._sections

    def _remote_type(self):
        return (self._configuration() or [{}])[0].get("type", "")

    def _one_piece(self):
        """Up to which size an ETag is the MD5 that S3 computed: not with keys of KMS or of the customer, nor in directory buckets or wanted parts."""
        section = self._configuration()[0]
        other = section.get("server_side_encryption", "").startswith("aws:kms") or section.get("directory_bucket") == "true"
        if other or section.get("sse_customer_algorithm"):
            return 0
        match = _RATE.match(section.get("upload_cutoff") or "%dB" % ONE_PIECE)
        return min(float(match.group(1)) * _UNITS[match.group(2).upper()], ONE_PIECE) - 1 if match else 0

    def _remote_hashes(self):
        return [one.lower().replace("-", "") for one in self._backend().get("Hashes") or []]

    def _backend(self):
        """What rclone knows of the kind of storage."""
        if self._known is None:
            ended = self._run(self._look(), "backend", "features", "--", self.path())
            self._known = self._json(ended) if ended.code == 0 else {}
        return self._known

    def _send(self, path, name, size, deadline, progress):
        argv = ["copyto", "--ignore-times", "--stats=2s", "--stats-log-level=NOTICE", "--", path, self.path(name)]
        ended = self._run(max(1, deadline - time.monotonic()), *argv, progress=progress)
        if ended.code != 0:
            raise self._error("%s could not be sent to %s" % (os.path.basename(path), self.where), ended, "write", size)
        if progress:
            progress(size)

    def put_manifest(self, name, text):
        """Send the manifest of a snapshot, and read it back."""
        # rclone sends files, and this one has another name, or changes while it is sent
        with tempfile.NamedTemporaryFile(prefix="k8s-dr-etcd-") as stream:
            stream.write(text)
            stream.flush()
            self.put(stream.name, len(text), hashlib.sha256(text).hexdigest(), name=snapshot_manifest.manifest_path(name))

    def note(self, name, sha256, levels, check_mode=False):
        """Note time and result of levels in the manifest of a snapshot there, unless its file is another one by now (ManifestError).

        RcloneError of kind `tool` where rclone writes over what is there, and what breaks off midway would leave the snapshot with no manifest.
        """
        if self.name and self._remote_type() not in _WHOLE_OR_NOT and not (self._backend().get("Features") or {}).get("PartialUploads"):
            raise RcloneError("this rclone could lose the manifest where a connection breaks off; 1.63 and later keep it", "tool")
        if check_mode:
            return
        if self.name is None:
            snapshot_manifest.update_manifest(os.path.join(self.where, name), sha256=sha256, levels=levels)
            return
        manifest = self.manifest(name)
        if manifest is None:
            raise snapshot_manifest.ManifestError("%s has no manifest any more" % self.path(name))
        manifest = snapshot_manifest.changed(self.path(name), manifest, sha256, levels=levels)
        self.put_manifest(name, snapshot_manifest.text_of(manifest).encode("utf-8"))
        if self.size(name) is None:
            # it was removed meanwhile, and its manifest is not to come back
            self.delete(snapshot_manifest.manifest_path(name))

    # -- getting ------------------------------------------------------------------------------------------------------

    def get(self, name, target, size, sha256, progress=None):
        """Get a file and make sure that it is the one.  What an interrupted call left in `target` is gone on with.

        After an error of kind `corrupt` there is no target; after others it holds what came so far.  Returns the seconds.
        """
        start = time.monotonic()
        found = self._size_of(name)
        if found != size:
            raise RcloneError("%s has %d bytes, and had %d when it was taken" % (self.path(name), found, size), "corrupt")
        for fresh in (False, True):
            resumed, got = self._get(name, target, size, start + self._seconds(size), progress, fresh)
            if got == sha256:
                return round(time.monotonic() - start, 2)
            os.unlink(target)
            if not resumed:
                break
        raise RcloneError("%s is damaged: its sha256 is not what its manifest says" % self.path(name), "corrupt")

    def _get(self, name, target, size, deadline, progress, fresh):
        """(whether it went on with what was there, sha256)"""
        digest = hashlib.sha256()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0)
        with os.fdopen(os.open(target, flags, 0o600), "r+b") as stream:
            have = os.fstat(stream.fileno()).st_size
            if have > size:
                stream.truncate(0)
                have = 0
            while stream.tell() < have:
                digest.update(stream.read(min(_CHUNK, have - stream.tell())))

            def take(chunk):
                stream.write(chunk)
                digest.update(chunk)

            self._stream(name, size, have, take, deadline, progress)
            stream.flush()
            os.fsync(stream.fileno())
        return have > 0, digest.hexdigest()

    def _stream(self, name, size, have, sink, deadline, progress=None):
        """Hand the bytes from `have` to `size` to sink, going on where a connection broke off."""
        state = {"have": have}

        def take(chunk):
            if state["have"] + len(chunk) > size:
                raise RcloneError("%s grows while it is read" % self.path(name), "corrupt")
            sink(chunk)
            state["have"] += len(chunk)
            if progress:
                progress(state["have"])

        failures = 0
        while state["have"] < size:
            before = state["have"]
            ended = self._run(max(1, deadline - time.monotonic()), "cat", "--offset=%d" % before, "--", self.path(name), sink=take)
            if state["have"] == size:
                return
            failures = failures + 1 if state["have"] == before else 1
            error = self._error("%s could not be read" % self.path(name), ended, "read")
            if ended.code == 0:
                error = RcloneError("%s ended after %d of %d bytes" % (self.path(name), state["have"], size), "corrupt")
            if failures >= self.retries or error.kind not in ("unreachable", "timeout", "other", "corrupt") or time.monotonic() >= deadline:
                raise error
            time.sleep(self.retry_sleep)

    # -- removing -----------------------------------------------------------------------------------------------------

    def delete(self, name):
        """Delete one file; whether it was there.  RcloneError of kind `undeletable` where nothing may be deleted, `immutable` where it may not yet."""
        ended = self._run(self._look(), "deletefile", "--", self.path(name))
        if ended.code == 0:
            return True
        error = self._error("%s cannot be removed" % self.path(name), ended)
        if error.kind == "denied":
            raise RcloneError(
                "deletes are forbidden at %s: leave them to the storage's lifecycle rules, and set etcd_snapshot_off_site_keep to 0; or allow them (S3: "
                "s3:DeleteObject). %s" % (self.where, error.message),
                "undeletable",
            )
        if error.kind != "absent":
            raise error
        return False

    def remove(self, name):
        """Remove a snapshot, then its manifest, by which the next run finds what an interrupted one left."""
        self.delete(name)
        self.delete(name + snapshot_manifest.MANIFEST_SUFFIX)

    # -- running ------------------------------------------------------------------------------------------------------

    def _seconds(self, size):
        return self.timeout if self.timeout is not None else budget(size, self.bwlimit)

    def _look(self):
        return min(self.timeout or _LOOK, _LOOK)

    def _attempts(self, act, seconds):
        deadline = time.monotonic() + seconds
        for left in range(self.retries - 1, -1, -1):
            try:
                return act(deadline)
            except RcloneError as exc:
                # the others are the same at the next try
                if not left or exc.kind not in ("unreachable", "timeout", "corrupt", "other") or time.monotonic() + self.retry_sleep >= deadline:
                    raise
            time.sleep(self.retry_sleep)
        return None

    def _stat(self, name, *options, seconds=None):
        """What lsjson says of one file, or None."""
        ended = self._run(seconds or self._look(), "lsjson", "--stat", "--no-modtime", "--no-mimetype", *(list(options) + ["--", self.path(name)]))
        if ended.code != 0:
            error = self._error("%s cannot be looked at" % self.path(name), ended, "read")
            if error.kind == "absent":
                return None
            raise error
        entry = self._json(ended)
        # where there are no directories, anything that is not there may be one
        return None if not entry or entry.get("IsDir") else entry

    def _size_of(self, name):
        entry = self._stat(name)
        if not entry:
            raise RcloneError("%s is not there" % self.path(name), "absent")
        return int(entry["Size"])

    def _json(self, ended):
        try:
            return json.loads(ended.output.decode("utf-8"))
        except ValueError as exc:
            raise RcloneError("rclone printed something that is not JSON about %s" % self.where) from exc

    def _error(self, what, ended, need=None, size=None):
        """need: what the credentials have to be allowed for it, of _NEEDS.  size: of what was sent."""
        words = ended.words[-1] if ended.words else "rclone ended with code %s" % ended.code
        if ended.code is None:
            return RcloneError("%s: it was not done in time" % what, "timeout")
        kind, cause, remedy = trouble(ended.words)
        if kind == "denied" and need:
            remedy = _NEEDS[need]
        if size is not None and kind == "other" and self._lacks_room(size):
            kind, cause, remedy = next((kind, cause, remedy) for kind, dummy, cause, remedy in _TROUBLES if kind == "full")
        if _NO_MD5.search(" ".join(ended.words)) and any(section.get("type") == "s3" for section in self._configuration()):
            # what S3 gets in one piece it compares itself, so another try would end the same
            kind, cause = "config", "what the storage has for an ETag is no MD5, as where a bucket encrypts with SSE-KMS by default"
            remedy = "set server_side_encryption = aws:kms, and sse_kms_key_id to the bucket's key, in the section of rclone's configuration"
        # which tells a support team something, and an operator nothing
        detail = re.sub(r",? ?(request|host) id: [^,\s]*", "", re.sub(r"\s+", " ", words)).strip().rstrip(".,")[-300:]
        return RcloneError("%s: %s%s" % (what, "%s (%s)" % (cause, detail) if cause else detail, "; " + remedy if remedy else ""), kind)

    def _lacks_room(self, size):
        """An SFTP server only says that it failed."""
        ended = self._run(30, "about", "--json", "--", self.path())
        try:
            free = json.loads(ended.output.decode("utf-8")).get("free") if ended.code == 0 else None
        except ValueError:
            return False
        return isinstance(free, int) and free < size

    def _argv(self, args):
        argv = [self.binary, args[0]] + list(_OPTIONS) + ["--timeout=%ds" % self.idle]
        if self.config:
            argv.append("--config=" + self.config)
        if self.name and args[0] != "config":
            set_there = {option for section in self._configuration() if section.get("type") == "s3" for option in section}
            argv += ["--s3-%s=%s" % (option.replace("_", "-"), value) for option, value in sorted(_S3.items()) if option not in set_there]
        if self.bwlimit:
            argv.append("--bwlimit=%s" % self.bwlimit)
        return argv + list(args[1:])

    def _run(self, seconds, *args, sink=None, progress=None):
        """Run rclone without a shell, bounded in time.  sink: is given what it prints, piece by piece."""
        argv, output, log = self._argv(args), [], _Log(progress)
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=clean_environment(),
                cwd="/",
                start_new_session=True,
                preexec_fn=ended_with_parent(_NICE),  # noqa: PLW1509 - modules have one thread
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise RcloneError("%s cannot be run: %s" % (self.binary, getattr(exc, "strerror", None) or exc), "tool") from exc
        try:
            in_time = _drain(process, time.monotonic() + seconds, sink or _collector(output), log.feed)
            return _Ended(process.wait() if in_time else None, b"".join(output), log.words)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
            process.stderr.close()


class _Log:
    """What rclone says in its JSON log: the words of its errors, and how far it is."""

    def __init__(self, progress):
        self.words = []
        self.progress = progress
        self._rest = b""

    def feed(self, chunk):
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()[-65536:]
        for line in lines:
            self._line(line.decode("utf-8", "replace").strip())

    def _line(self, line):
        try:
            record = json.loads(line)
            level, text = record.get("level"), str(record.get("msg", ""))
        except (ValueError, AttributeError):
            # up to 1.6x that is how it ends when it cannot even begin; what has no time belongs to the line before
            record, level, text = {}, "error", _TIME.sub("", line)
            if self.words and not _TIME.match(line):
                text = self.words.pop() + " " + text
        stats = record.get("stats")
        if isinstance(stats, dict):
            if self.progress and isinstance(stats.get("bytes"), int):
                self.progress(stats["bytes"])
        elif text and (level in ("error", "critical", "emergency", "alert", "fatal") or text.startswith("Failed to ")):
            self.words = (self.words + [text])[-20:]


def _collector(parts):
    total = [0]

    def take(chunk):
        total[0] += len(chunk)
        if total[0] > _MAX_OUTPUT:
            raise RcloneError("rclone printed more than it may")
        parts.append(chunk)

    return take


def _drain(process, deadline, take_output, take_log):
    """Read both pipes to their ends; False when the time was over before."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, take_output)
        selector.register(process.stderr, selectors.EVENT_READ, take_log)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _events in selector.select(left):
                chunk = os.read(key.fd, _CHUNK)
                if chunk:
                    key.data(chunk)
                else:
                    selector.unregister(key.fileobj)
    return True


@contextlib.contextmanager
def _private_directory():
    directory = tempfile.mkdtemp(prefix="k8s-dr-etcd-")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
