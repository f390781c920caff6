# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A place off-site as a store of files, through rclone: list, put, get, digest, delete, room.

    remote = Remote("s3:backups/prod", config="/etc/rclone.conf")
    remote.names()                                 # {name: size}
    remote.put("/var/backups/etcd/etcd-cp1-20260102T030405Z.db", size, sha256)
    remote.get("etcd-cp1-20260102T030405Z.db", "/srv/etcd-cp1-20260102T030405Z.db", size, sha256)
    remote.digest("etcd-cp1-20260102T030405Z.db", size)
    remote.delete("etcd-cp1-20260102T030405Z.db")

Which of its files are snapshots is in snapshots.py.  Private to this collection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
import urllib.parse

from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote.rclone_process import PASSING, Rclone, size_of
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.clock import utc
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError

# Up to this size rclone sends an object to S3 in one piece (its own default, 1.60 to 1.75), of which the server itself computes and checks the MD5.
# Of an object in parts it only keeps what the sender said.
ONE_PIECE = 200 * 1024 * 1024
_CHUNK = 1024 * 1024
_HOUR = 3600
_DAY = 24 * _HOUR
# Seconds that many small files may take.
_MANY = 600
# A name of a remote as rclone allows it, and its path; without a name it is a directory of this host.
_REMOTE = re.compile(r"^(?P<name>[\w.+@][\w.+@ -]*):(?P<path>[^\x00-\x1f]*)$")
# What rclone puts before the extension of an older version (lib/version/version.go of 1.60 and 1.75).
_VERSION = re.compile(r"-v\d{4}-\d\d-\d\d-\d{6}-\d{3}(?=\.[^.]*$)")
# The request for a file, before what the server answers about it.
_REQUEST = re.compile(r"^(?:HEAD|GET) (?P<path>[^ ?]*)\S* HTTP/", re.MULTILINE)
_RETAIN_UNTIL = re.compile(r"^x-amz-object-lock-retain-until-date: *(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*)", re.IGNORECASE | re.MULTILINE)
# What stands for other characters in a filter of rclone.
_PATTERN = re.compile(r"[*?\[\]{}\\]")


def plain_name(name):
    """The name of a file, of the name that rclone gives to an older version of it."""
    return _VERSION.sub("", name)


class Remote:
    """A place off-site that holds files.

    where: REMOTE:PATH as rclone's configuration names it, or a directory of this host such as a mounted share.  config, binary, timeout, idle, bwlimit:
    as Rclone has them.  retries: how often what broke off is begun again.  object_lock_days: so long S3 Object Lock is to protect what is sent; 0 for none.
    """

    def __init__(self, where, config=None, binary=None, timeout=None, idle=60, retries=3, retry_sleep=5, bwlimit=None, object_lock_days=0):
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
        self.rclone = Rclone(where, self.name, config, binary, timeout, idle, bwlimit)
        self.object_lock_days = object_lock_days
        if object_lock_days and not self.rclone.is_s3():
            raise RcloneError("%s is not S3, and nothing else has Object Lock; remove `object_lock_days`" % where, "config")
        self.retries = max(1, retries)
        self.retry_sleep = retry_sleep

    def mount(self):
        """Where the file system is mounted that holds it, of a directory of this host; None of anything else."""
        return procs.mount_of(self.where) if self.name is None else None

    def path(self, name=""):
        """How rclone names a file there."""
        if self.where.endswith((":", "/")) or not name:
            return self.where + name
        return "%s/%s" % (self.where, name)

    # -- looking ------------------------------------------------------------------------------------------------------

    def names(self, missing_ok=False, versions=False):
        """{name: size} of the files there.  missing_ok: no such directory is an empty one.  versions: all that S3 has of them, as plain_name() knows them."""
        argv = ["lsjson", "--files-only", "--no-modtime", "--no-mimetype"] + (["--s3-versions"] if versions else [])
        result = self.rclone.run(*argv, "--", self.path())
        if result.code != 0:
            error = self.rclone.error("%s cannot be listed" % self.where, result, "list")
            if error.kind == "absent" and missing_ok:
                return {}
            raise error
        return {entry["Name"]: entry["Size"] for entry in self.rclone.json(result) if not entry.get("IsDir")}

    def size(self, name):
        """Size of a file, or None when it is not there."""
        entry = self._stat(name)
        return entry["Size"] if entry else None

    def read(self, name, limit):
        """The bytes of a small file; RcloneError of kind `absent` when it is not there."""
        size = self._size_of(name)
        if size > limit:
            raise RcloneError("%s has %d bytes, more than it may have" % (self.path(name), size), "corrupt")
        parts = []
        self._stream(name, size, 0, parts.append, time.monotonic() + self.rclone.seconds(size))
        return b"".join(parts)

    def digest(self, name, size=None, progress=None):
        """(size, sha256) of what is really stored, by reading all of it.  size: what it has to have; another one is not read."""
        found = self._size_of(name)
        if size is not None and found != size:
            return found, None
        sha256 = hashlib.sha256()
        self._stream(name, found, 0, sha256.update, time.monotonic() + self.rclone.seconds(found), progress)
        return found, sha256.hexdigest()

    def _stat(self, name, *options, seconds=None):
        """What lsjson says of one file, or None."""
        result = self.rclone.run("lsjson", "--stat", "--no-modtime", "--no-mimetype", *options, "--", self.path(name), seconds=seconds)
        if result.code != 0:
            error = self.rclone.error("%s cannot be looked at" % self.path(name), result, "read")
            if error.kind == "absent":
                return None
            raise error
        entry = self.rclone.json(result)
        # where there are no directories, anything that is not there may be one
        return None if not entry or entry.get("IsDir") else entry

    def _size_of(self, name):
        entry = self._stat(name)
        if not entry:
            raise RcloneError("%s is not there" % self.path(name), "absent")
        return int(entry["Size"])

    # -- sending ------------------------------------------------------------------------------------------------------

    def put(self, path, size, sha256, verify="auto", progress=None, name=None, back=None):
        """Send a local file and make sure that it landed whole.  Returns {seconds, verified_by: md5|sha1|sha256|read}.

        The file is read before: what is not what its manifest says is never sent.  verify: as check() has it.
        progress: called with the bytes that were sent so far; back: with those that were read back.
        """
        name = name or os.path.basename(path)
        start, locked_from = time.monotonic(), time.time()
        found, digests = file_digests(path, ("sha256", "sha1", "md5"))
        if (found, digests.get("sha256")) != (size, sha256):
            raise RcloneError("%s is not the file that was taken (its size or its sha256 has changed), so it was not sent" % path, "local")
        # what went wrong on the way may go well at the second try
        for dummy in range(2):
            try:
                self._attempts(lambda deadline: self._send(path, name, size, deadline, progress), self.rclone.seconds(size))
            except RcloneError as exc:
                # an account that may only add files
                if exc.kind == "denied" and self._is_damaged(name, size, digests, verify):
                    words = "%s is not whole, and may not be replaced; remove it on the server. %s" % (self.path(name), exc)
                    raise RcloneError(words, "corrupt") from exc
                raise
            problem, how = self.check(name, size, digests, verify, back)
            if not problem:
                break
        if problem:
            raise RcloneError("%s was sent, but %s" % (os.path.basename(path), problem), "corrupt")
        self._check_lock(name, locked_from)
        return {"seconds": round(time.monotonic() - start, 2), "verified_by": how}

    def check(self, name, size, digests, verify="auto", progress=None):
        """(what is wrong with a file there or None, how that is known).

        digests: of what it has to be, by name; sha256 has to be among them.  verify: `auto` believes a digest that the server computed of what
        it stores (SFTP, and S3 of an object that was sent in one piece) and reads everything else back; `hash` believes any; `read` none.
        """
        where = self.path(name)
        kind = self._hash_to_ask(size, digests, verify)
        entry = self._stat(name, "--hash", "--hash-type=" + kind, seconds=self.rclone.seconds(size)) if kind else self._stat(name)
        if entry is None:
            return "%s is not there" % where, "size"
        if entry["Size"] != size:
            return "%s has %d bytes instead of %d" % (where, entry["Size"], size), "size"
        told = {key.lower().replace("-", ""): value for key, value in (entry.get("Hashes") or {}).items()}.get(kind)
        if told:
            return (None if told.lower() == digests[kind] else "%s is not what was sent: its %s is another one" % (where, kind)), kind
        sha256 = self.digest(name, size, progress)[1]
        return (None if sha256 == digests["sha256"] else "%s is not what was sent: it reads back differently" % where), "read"

    def _is_damaged(self, name, size, digests, verify):
        """Whether a file is there that is not whole; False where that cannot be read."""
        with contextlib.suppress(RcloneError):
            return self.size(name) is not None and self.check(name, size, digests, verify)[0] is not None
        return False

    def locks(self, *patterns):
        """{name: until when S3 Object Lock protects it} of the files there that match a pattern and have a lock; {} where the storage has none.

        The names are those that S3 has, which crypt changes.
        """
        if not self.rclone.is_s3():
            return {}
        found, asked = {}, [""]

        def listen(text):
            for request in _REQUEST.finditer(text):
                asked[0] = urllib.parse.unquote(request.group("path").rpartition("/")[2])
            for moment in _RETAIN_UNTIL.findall(text):
                found[asked[0]] = moment[:19] + "Z"

        # rclone 1.73 and earlier do not know of locks, but all of them show what the server answers about each file, one after the other
        argv = ["lsjson", "--files-only", "--no-mimetype", "--log-level=DEBUG", "--dump=headers"] + ["--include=" + pattern for pattern in patterns]
        result = self.rclone.run(*argv, "--", self.path(), said=listen, seconds=min(self.rclone.timeout or _MANY, _MANY))
        if result.code != 0:
            raise self.rclone.error("%s does not say what is locked there" % self.where, result, "list")
        return found

    def _hash_to_ask(self, size, digests, verify):
        if verify == "read" or self.name is None:
            return None
        storage = self.rclone.section().get("type")
        if verify == "auto" and not (storage == "sftp" or (storage == "s3" and size <= self._one_piece())):
            return None
        known = [one.lower().replace("-", "") for one in self.rclone.features().get("Hashes") or []]
        return next((kind for kind in ("sha256", "sha1", "md5") if kind in known and kind in digests), None)

    def _one_piece(self):
        """Up to which size an ETag is the MD5 that S3 computed: not with keys of KMS or of the customer, nor in directory buckets or wanted parts."""
        section = self.rclone.section()
        other = section.get("server_side_encryption", "").startswith("aws:kms") or section.get("directory_bucket") == "true"
        if other or section.get("sse_customer_algorithm"):
            return 0
        cutoff = size_of(section.get("upload_cutoff") or "%dB" % ONE_PIECE)
        return 0 if cutoff is None else min(cutoff, ONE_PIECE) - 1

    def _send(self, path, name, size, deadline, progress):
        argv = ["copyto", "--ignore-times", "--stats=2s", "--stats-log-level=NOTICE", "--", path, self.path(name)]
        result = self.rclone.run(*argv, seconds=max(1, deadline - time.monotonic()), progress=progress, environment=self._environment())
        if result.code != 0:
            what = "%s could not be sent to %s" % (name, self.where)
            error = self.rclone.error(what, result, "write")
            if error.kind == "other" and self._lacks_room(size):
                error = self.rclone.error(what, result, known="full")
            raise error
        if progress:
            progress(size)

    def _environment(self):
        """What rclone needs to send a file where nothing may be changed later, and ignores where it is too old for that."""
        section, wanted = self.rclone.section(), {}
        if section.get("type") == "sftp" and section.get("set_modtime") == "false":
            # 1.63 and later would rename it when it is there
            return {"RCLONE_INPLACE": "true"}
        if self.object_lock_days:
            # before 1.74 the bucket's default retention has to lock it
            wanted = {"object_lock_mode": "COMPLIANCE", "object_lock_retain_until_date": utc(time.time() + self.object_lock_days * _DAY)}
        return {"RCLONE_S3_" + option.upper(): value for option, value in self.rclone.unset(wanted).items()}

    def lock_problem(self, name, since):
        """How S3 Object Lock protects a file there for less than the days that are wanted, counted from `since` (seconds since the epoch); or None."""
        if not self.object_lock_days:
            return None
        until = min(self.locks("/" + name).values(), default=None)
        # the clocks of the two sides are not the same
        if until and until >= utc(since + self.object_lock_days * _DAY - _HOUR):
            return None
        return "S3 Object Lock " + ("protects it only until " + until if until else "does not protect it")

    def _check_lock(self, name, since):
        problem = self.lock_problem(name, since)
        if problem:
            raise RcloneError(
                "%s was sent, but %s. rclone 1.74 and later sets the lock; with an earlier one the bucket needs a default retention of at "
                "least %d days. The credentials have to be allowed s3:PutObjectRetention and s3:GetObjectRetention" % (name, problem, self.object_lock_days),
                "config",
            )

    def _lacks_room(self, size):
        """An SFTP server only says that it failed."""
        result = self.rclone.run("about", "--json", "--", self.path(), seconds=30)
        try:
            free = json.loads(result.output.decode("utf-8")).get("free") if result.code == 0 else None
        except ValueError:
            return False
        return isinstance(free, int) and free < size

    def _attempts(self, act, seconds):
        deadline = time.monotonic() + seconds
        for left in range(self.retries - 1, -1, -1):
            try:
                return act(deadline)
            except RcloneError as exc:
                # the others are the same at the next try
                if not left or exc.kind not in PASSING or time.monotonic() + self.retry_sleep >= deadline:
                    raise
            time.sleep(self.retry_sleep)
        return None

    # -- getting ------------------------------------------------------------------------------------------------------

    def get_small(self, pattern, limit, directory, versions=False):
        """Get all files of such names that have at most `limit` bytes: an RcloneResult, since what came is good whatever happened to others."""
        return self._get_small(["--include=/" + pattern] + (["--s3-versions"] if versions else []), limit, directory)

    def get_named(self, names, limit, directory):
        """As get_small(), those of these very names."""
        # there may be more of them than a command line takes
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="k8s-dr-etcd-") as stream:
            stream.writelines("/%s\n" % _PATTERN.sub(r"\\\g<0>", name) for name in names)
            stream.flush()
            return self._get_small(["--include-from=" + stream.name], limit, directory)

    def _get_small(self, which, limit, directory):
        argv = ["copy", *which, "--max-depth=1", "--max-size=%dB" % limit, "--transfers=4", "--ignore-checksum"]
        return self.rclone.run(*argv, "--", self.path(), directory, seconds=min(self.rclone.timeout or _MANY, _MANY))

    def get(self, name, target, size, sha256, progress=None):
        """Get a file and make sure that it is the one.  What an interrupted call left in `target` is gone on with.

        After an error of kind `corrupt` there is no target; after others it holds what came so far.  Returns the seconds.
        """
        start = time.monotonic()
        found = self._size_of(name)
        if found != size:
            raise RcloneError("%s has %d bytes, and had %d when it was taken" % (self.path(name), found, size), "corrupt")
        for fresh in (False, True):
            resumed, got = self._get(name, target, size, start + self.rclone.seconds(size), progress, fresh)
            if got == sha256:
                return round(time.monotonic() - start, 2)
            os.unlink(target)
            if not resumed:
                break
        raise RcloneError("%s is damaged: its sha256 is not what its manifest says" % self.path(name), "corrupt")

    def get_version(self, names, target, size, sha256):
        """Get the one of several versions that is the file; returns the seconds.  rclone 1.60 finds no older version by its name alone, so none is resumed."""
        start = time.monotonic()
        for name in names:
            with tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as directory:
                argv = ["copy", "--s3-versions", "--include=/" + name, "--max-depth=1", "--ignore-checksum", "--", self.path(), directory]
                result = self.rclone.run(*argv, seconds=self.rclone.seconds(size))
                if result.code != 0:
                    raise self.rclone.error("%s could not be read" % self.path(name), result, "read")
                found = os.path.join(directory, name)
                if os.path.exists(found) and file_digests(found) == (size, {"sha256": sha256}):
                    os.replace(found, target)
                    return round(time.monotonic() - start, 2)
        raise RcloneError("%s is damaged: the sha256 of none of its versions is what its manifest says" % self.path(plain_name(names[0])), "corrupt")

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
            result = self.rclone.run("cat", "--offset=%d" % before, "--", self.path(name), seconds=max(1, deadline - time.monotonic()), sink=take)
            if state["have"] == size:
                return
            failures = failures + 1 if state["have"] == before else 1
            error = self.rclone.error("%s could not be read" % self.path(name), result, "read")
            if result.code == 0:
                error = RcloneError("%s ended after %d of %d bytes" % (self.path(name), state["have"], size), "corrupt")
            if failures >= self.retries or error.kind not in PASSING or time.monotonic() >= deadline:
                raise error
            time.sleep(self.retry_sleep)

    # -- removing -----------------------------------------------------------------------------------------------------

    def delete(self, name, versions=False):
        """Delete one file; whether it was there.  RcloneError of kind `undeletable` where nothing may be deleted, `immutable` where it may not yet.

        versions: all that S3 has of it, instead of hiding it there with a delete marker.
        """
        if versions:
            # how rclone names the versions before the current one
            base, extension = os.path.splitext(name)
            argv = ["delete", "--s3-versions", "--max-depth=1", "--include=/" + name, "--include=/%s-v*%s" % (base, extension), "--", self.path()]
        else:
            argv = ["deletefile", "--", self.path(name)]
        result = self.rclone.run(*argv)
        if result.code == 0:
            return True
        error = self.rclone.error("%s cannot be removed" % self.path(name), result)
        if error.kind == "denied":
            raise RcloneError(
                "deletes are forbidden at %s: leave them to the storage's lifecycle rules, and set etcd_snapshot_off_site_keep to 0; or allow them (S3: "
                "%s). %s" % (self.where, "s3:DeleteObjectVersion, s3:ListBucketVersions" if versions else "s3:DeleteObject", error.message),
                "undeletable",
            )
        if error.kind != "absent":
            raise error
        return False
