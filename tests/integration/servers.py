# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real servers on loopback that hold snapshots off-site, and the rclone that reaches them.

    S3     versitygw, an S3 gateway over a directory, built from its Go module by tests/tools/programs: objects are files in
           `data/BUCKET`, their ETags and other metadata in a directory beside it, since not every file system of a test has
           extended attributes.  It is started with its port, its root credentials in the environment, and the two directories.
    SFTP   Debian 12's OpenSSH, unpacked by tests/tools/programs.  It wants a user of its own and runs as root, so it is started
           in namespaces of its own, with an /etc/passwd that has that user and the one who logs in with a key.

Each is a context; kill() and start() make an outage.  `config(path)` writes what rclone has to know, `where` is the place in it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import harness

PROGRAMS = harness.ROOT / "tests" / "tools" / "programs"


@functools.lru_cache(maxsize=None)
def program(name):
    """The path of a program that tests/tools/programs knows; one that it cannot get is an error, not a skip."""
    result = subprocess.run([str(PROGRAMS), name], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError("%s is not at hand: %s" % (name, result.stderr.strip()[-500:]))
    return result.stdout.split(None, 1)[1].strip()


class Server:
    """What both have in common.  directory: holds all of it; data: where what is stored is to be; host: its address."""

    def __init__(self, directory, data=None, host="127.0.0.1"):
        self.host = host
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data = pathlib.Path(data or self.directory / "data")
        self.data.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "log"
        self.port = harness.free_ports(1)[0]
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exc):
        self.kill()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(os.environ, **self.environment()),
                start_new_session=True,
                preexec_fn=harness._die_with_parent,
            )
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection((self.host, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.kill()
        raise RuntimeError("%s did not start: %s" % (type(self).__name__, self.log.read_text(errors="replace")[-2000:]))

    def kill(self):
        """End it with every connection that it has."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def environment(self):
        return {}

    def rclone(self, *args, name="rclone"):
        # it reaches no S3 when this is set
        env = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
        return subprocess.run([program(name), *args], capture_output=True, text=True, check=True, timeout=60, env=env)


class S3(Server):
    """locked: the bucket has Object Lock, and so versions.  versitygw 1.8.0 gives no default retention to objects (auth/object_lock.go), so it has none."""

    access, secret, bucket = "k8sdr", "k8s-dr-secret", "backups"
    where = "far:backups/prod"

    def __init__(self, directory, data=None, host="127.0.0.1", locked=False):
        super().__init__(directory, data, host)
        self.locked = locked
        self.metadata, self.versions = self.directory / "metadata", self.directory / "versions"
        for path in (self.metadata, self.versions):
            path.mkdir(exist_ok=True)

    def command(self):
        versions = ["--versioning-dir", str(self.versions)] if self.locked else []
        return [program("versitygw"), "--port", "%s:%d" % (self.host, self.port), "posix", "--sidecar", str(self.metadata), *versions, str(self.data)]

    def advance(self, days):
        """As if so many days had passed: each lock ends as much earlier."""
        for path in self.directory.rglob("object-retention"):
            lock = json.loads(path.read_text())
            end = datetime.datetime.fromisoformat(lock["RetainUntilDate"].replace("Z", "+00:00")) - datetime.timedelta(days)
            path.write_text(json.dumps(dict(lock, RetainUntilDate=end.strftime("%Y-%m-%dT%H:%M:%SZ"))))

    def retain(self, path, days):
        """Lock an object, as AWS does with a bucket's default retention."""
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days)
        lock = {"Mode": "COMPLIANCE", "RetainUntilDate": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
        (self.metadata / path.strip("/") / "meta" / "object-retention").write_text(json.dumps(lock))

    def everything(self):
        """Names of all that is stored, of versions that are not the current ones and of delete markers as well."""
        options = ["--config", self.config(self.directory / "own.conf"), "--s3-versions", "--s3-version-deleted"]
        listed = self.rclone("lsf", *options, self.where, name="rclone-new").stdout
        return sorted(listed.split())

    def environment(self):
        return {"ROOT_ACCESS_KEY": self.access, "ROOT_SECRET_KEY": self.secret}

    def start(self):
        super().start()
        if not (self.data / self.bucket).exists():
            lock = ["--s3-bucket-object-lock-enabled"] if self.locked else []
            name = "rclone-new" if self.locked else "rclone"
            self.rclone("--config", self.config(self.directory / "own.conf"), "mkdir", *lock, "far:" + self.bucket, name=name)

    def config(self, path, wrong=False):
        secret = "somebody-elses" if wrong else self.secret
        text = "[far]\ntype = s3\nprovider = Other\naccess_key_id = %s\nsecret_access_key = %s\n" % (self.access, secret)
        return write(path, text + "endpoint = http://%s:%d\nregion = us-east-1\nforce_path_style = true\n" % (self.host, self.port))

    def stored(self, name):
        """The file that an object is."""
        return self.data / self.bucket / "prod" / name


class Proxy(http.server.ThreadingHTTPServer):
    """In front of an S3, which answers all that the rule does not.

    rule(action, path): None, or (status, error code, message) instead of the answer.  etag: another one for each object.  action is the permission that
    AWS has for it; actions holds what was asked for.  retention: days that each new object is locked.
    """

    daemon_threads = True

    def __init__(self, far, rule=None, etag=None, retention=None):
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.far, self.rule, self.etag, self.actions = far, rule or (lambda action, path: None), etag, set()
        self.where, self.stored, self.secret, self.retention = far.where, far.stored, far.secret, retention

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exc):
        self.shutdown()
        self.server_close()

    def config(self, path, wrong=False):
        text = pathlib.Path(self.far.config(path, wrong)).read_text()
        return write(path, text.replace(":%d\n" % self.far.port, ":%d\n" % self.server_address[1]))


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        """Log nothing."""

    def answer(self):
        path, _mark, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        of_object = len(path.strip("/").split("/")) > 1
        action = {"PUT": "PutObject", "POST": "PutObject", "DELETE": "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"}.get(self.command)
        action = "s3:" + (action or ("GetObject" if of_object else "ListBucket"))
        self.server.actions.add(action)
        fault = self.server.rule(action, path)
        if fault:
            text = "<Error><Code>%s</Code><Message>%s</Message></Error>" % fault[1:]
            return self.reply(fault[0], [("Content-Type", "application/xml")], text.encode())
        # what is signed is what goes on, the name of the host included
        connection = http.client.HTTPConnection(self.server.far.host, self.server.far.port, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in ("connection", "transfer-encoding")]
            if self.server.retention and self.command == "PUT" and of_object and answer.status == 200:
                self.server.far.retain(path, self.server.retention)
            if self.server.etag and of_object:
                headers = [(name, '"%s"' % self.server.etag if name.lower() == "etag" else value) for name, value in headers]
            return self.reply(answer.status, headers, answer.read())

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer


# What changes or removes a file, of the requests that OpenSSH 9.2 knows (sftp-server.c).
APPEND_ONLY = "remove,rmdir,rename,posix-rename,setstat,fsetstat,lsetstat,hardlink,symlink,copy-data"


class Sftp(Server):
    user, where = "far", "far:prod"

    def __init__(self, directory, data=None, shell=True, append_only=False):
        """append_only: the account may add files, and neither change, replace nor remove one; docs/off-site.md has the same setting of sshd."""
        super().__init__(directory, data)
        for name in ("host", "client", "stranger"):
            if not (self.directory / name).exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / name)], check=True)
        self.data.chmod(0o755)
        os.chown(self.data, 4242, 4242)
        # a user that is not root has to get to what is his, whatever the umask is
        self.directory.chmod(0o711)
        users = "root:x:0:0::/root:/bin/sh\nsshd:*:4241:4241::/run/sshd:/bin/false\n%s:*:4242:4242::%s:/bin/sh\n"
        self.passwd = write(self.directory / "passwd", users % (self.user, self.data), 0o644)
        write(self.directory / "known_hosts", "[127.0.0.1]:%d %s" % (self.port, (self.directory / "host.pub").read_text()))
        keys = write(self.directory / "authorized_keys", (self.directory / "client.pub").read_text(), 0o644)
        text = "ListenAddress 127.0.0.1\nPort %d\nHostKey %s\nAuthorizedKeysFile %s\n" % (self.port, self.directory / "host", keys)
        text += "PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nMaxStartups 100\n"
        text += "Subsystem sftp internal-sftp\n"
        self.append_only = append_only
        if append_only:
            # those that sftp makes with that umask cannot be written into
            self.stored("").mkdir()
            os.chown(self.stored(""), 4242, 4242)
        command = "internal-sftp" + (" -u 0222 -P " + APPEND_ONLY if append_only else "")
        self.settings = write(self.directory / "sshd_config", text + ("" if shell and not append_only else "ForceCommand %s\n" % command))

    def command(self):
        script = 'mkdir -p -m 0755 /run/sshd && mount --bind "$1" /etc/passwd && exec "$2" -D -e -f "$3"'
        # Connections have sessions of their own; with its process namespace all of them end.
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", self.passwd, program("sshd"), self.settings]

    def environment(self):
        root = pathlib.Path(program("sshd")).parents[2]
        return {"LD_LIBRARY_PATH": ":".join(sorted({str(path.parent) for path in root.rglob("libwrap.so.0")}))}

    def config(self, path, wrong=False):
        key = self.directory / ("stranger" if wrong else "client")
        text = "[far]\ntype = sftp\nhost = 127.0.0.1\nport = %d\nuser = %s\nkey_file = %s\n" % (self.port, self.user, key)
        text += "set_modtime = false\n" if self.append_only else ""
        return write(path, text + "known_hosts_file = %s\n" % (self.directory / "known_hosts"))

    def stored(self, name):
        return self.data / "prod" / name


def write(path, text, mode=0o600):
    path = pathlib.Path(path)
    path.write_text(text)
    path.chmod(mode)
    return str(path)
