# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running rclone, from 1.60 on: its options and its configuration, bounded in time, and what its words stand for.

What rclone is told is on its command line, which everybody on the host may read; what is secret is in its configuration file.

Private to this collection.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import time

from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.errors import RcloneError
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import ended_with_parent, find_tool

# Errors that the next try may not have.
PASSING = ("unreachable", "timeout", "corrupt", "other")
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
# A size, or a rate of the option --bwlimit, in KiB without a unit.
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([BKMGT]?)(?:iB?)?$", re.IGNORECASE)
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
        "config",
        # S3 (AWS, versitygw)
        ("missing Object ?Lock ?Configuration",),
        "the bucket has no Object Lock",
        "use a bucket that was made with it",
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


class RcloneResult:
    """How one run of rclone ended: its code, None when its time was over; what it printed; the words of its errors."""

    def __init__(self, code, output, words):
        self.code = code
        self.output = output
        self.words = words


def size_of(text):
    """Bytes of a size as rclone writes it; None of what is no number, such as `off`."""
    match = _SIZE.match(text)
    return float(match.group(1)) * _UNITS[match.group(2).upper()] if match else None


def budget(size, bwlimit=None):
    """Seconds that moving so many bytes may take: a slow line has 100 kB/s, and one that moves nothing is given up long before.

    bwlimit: as rclone has it, perhaps with times (08:00,512k) and a rate for each direction (1M:512k).  Of a timetable the slowest hour counts.
    """
    limits = [size_of(rate) for word in (bwlimit or "").split() for rate in word.rpartition(",")[2].split(":")]
    return 600 + int(size / min([limit for limit in limits if limit] + [100000]))


def trouble(words, known=None):
    """(kind, cause, remedy) of what rclone said last.  known: the kind, where more than its words tells it."""
    text = " ".join(words)
    for kind, expressions, cause, remedy in _TROUBLES:
        if kind == known or (known is None and re.search("|".join(expressions), text, re.IGNORECASE)):
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


class Rclone:
    """rclone, as it is run for one place.

    where: REMOTE:PATH or a directory of this host.  name: REMOTE, the section of rclone's configuration, or None.  config: path of that configuration,
    root's own by default.  timeout: seconds that any one transfer may take, by its size when not given.  idle: seconds without a byte after which a
    connection counts as dead.
    """

    def __init__(self, where, name, config=None, binary=None, timeout=None, idle=60, bwlimit=None):
        if config and not os.access(config, os.R_OK):
            raise RcloneError("%s (rclone's configuration) cannot be read on this host" % config, "config")
        self.where = where
        self.name = name
        self.config = config
        self.binary = find_tool("rclone", binary)
        if not self.binary:
            raise RcloneError("there is no rclone on this host: install it (on Debian and Ubuntu: apt-get install rclone)", "tool")
        self.timeout = timeout
        self.idle = idle
        self.bwlimit = bwlimit
        self._sections = None
        self._features = None

    def config_warning(self):
        """One sentence when others may read the credentials, or None."""
        if self.config and os.stat(self.config).st_mode & 0o077:
            return "others may read %s, which holds the credentials of %s; set its mode to 0600" % (self.config, self.where)
        return None

    def seconds(self, size):
        """What moving so many bytes may take."""
        return self.timeout if self.timeout is not None else budget(size, self.bwlimit)

    def run(self, *args, seconds=None, sink=None, progress=None, said=None, environment=None):
        """Run rclone without a shell, bounded in time: an RcloneResult.

        seconds: what looking may take when not given.  sink: is given what it prints, piece by piece.  progress: is called with the bytes so far.
        said: is given each text of its log.  environment: what it has of RCLONE_*, which an older rclone ignores where it knows no such option.
        """
        argv, output, log = self._argv(args), [], _Log(progress, said)
        deadline = time.monotonic() + (min(self.timeout or _LOOK, _LOOK) if seconds is None else seconds)
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(clean_environment(), **(environment or {})),
                cwd="/",
                start_new_session=True,
                preexec_fn=ended_with_parent(_NICE),  # noqa: PLW1509 - modules have one thread
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise RcloneError("%s cannot be run: %s" % (self.binary, getattr(exc, "strerror", None) or exc), "tool") from exc
        try:
            in_time = _drain(process, deadline, sink or _collector(output), log.feed)
            return RcloneResult(process.wait() if in_time else None, b"".join(output), log.words)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
            process.stderr.close()

    def _argv(self, args):
        argv = [self.binary, args[0]] + list(_OPTIONS) + ["--timeout=%ds" % self.idle]
        if self.config:
            argv.append("--config=" + self.config)
        if self.name and args[0] != "config":
            argv += ["--s3-%s=%s" % (option.replace("_", "-"), value) for option, value in sorted(self.unset(_S3).items())]
        if self.bwlimit:
            argv.append("--bwlimit=%s" % self.bwlimit)
        return argv + list(args[1:])

    def json(self, result):
        """What it printed."""
        try:
            return json.loads(result.output.decode("utf-8"))
        except ValueError as exc:
            raise RcloneError("rclone printed something that is not JSON about %s" % self.where) from exc

    def configuration(self):
        """The sections of rclone's configuration that this place is of, its own first: one for crypt names another one."""
        if self._sections is None:
            result = self.run("config", "dump")
            if result.code != 0:
                raise self.error("rclone's configuration cannot be read", result)
            known = self.json(result)
            names = [self.name] if self.name in known else []
            for name in names:
                # remote of crypt, alias, chunker, …; upstreams of union and combine
                text = " %s %s" % (known[name].get("remote", ""), known[name].get("upstreams", ""))
                names.extend(sorted(other for other in known if other not in names and re.search(r"[\s=\"']%s:" % re.escape(other), text)))
            self._sections = [known[name] for name in names]
        return self._sections

    def unset(self, options):
        """Those of {option of S3: value} of which rclone's configuration says nothing."""
        set_there = {option for section in self.configuration() if section.get("type") == "s3" for option in section}
        return {option: value for option, value in options.items() if option not in set_there}

    def is_s3(self):
        """Whether what is stored there is stored in S3."""
        return self.name is not None and any(section.get("type") == "s3" for section in self.configuration())

    def section(self):
        """The place's own section; an empty one where the configuration has none."""
        return (self.configuration() or [{}])[0]

    def features(self):
        """What rclone knows of the kind of storage."""
        if self._features is None:
            result = self.run("backend", "features", "--", self.where)
            self._features = self.json(result) if result.code == 0 else {}
        return self._features

    def error(self, what, result, need=None, known=None):
        """The RcloneError of a run that failed.

        what: the beginning of its sentence.  need: what the credentials have to be allowed for it, of _NEEDS.  known: as trouble() has it.
        """
        if result.code is None:
            return RcloneError("%s: it was not done in time" % what, "timeout")
        kind, cause, remedy = trouble(result.words, known)
        if kind == "denied" and need:
            remedy = _NEEDS[need]
        if _NO_MD5.search(" ".join(result.words)) and self.is_s3():
            # what S3 gets in one piece it compares itself, so another try would end the same
            kind, cause = "config", "what the storage has for an ETag is no MD5, as where a bucket encrypts with SSE-KMS by default"
            remedy = "set server_side_encryption = aws:kms, and sse_kms_key_id to the bucket's key, in the section of rclone's configuration"
        words = result.words[-1] if result.words else "rclone ended with code %s" % result.code
        # which tells a support team something, and an operator nothing
        detail = re.sub(r",? ?(request|host) id: [^,\s]*", "", re.sub(r"\s+", " ", words)).strip().rstrip(".,")[-300:]
        return RcloneError("%s: %s%s" % (what, "%s (%s)" % (cause, detail) if cause else detail, "; " + remedy if remedy else ""), kind)


class _Log:
    """What rclone says in its JSON log: the words of its errors, and how far it is."""

    def __init__(self, progress, said=None):
        self.words = []
        self.progress = progress
        self.said = said
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
        if self.said:
            self.said(text)
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
