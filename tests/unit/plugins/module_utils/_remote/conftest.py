# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An rclone that needs no network, for all tests of this package."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._remote import store as remote_store

NAME = "etcd-cp1-20260102T030405Z.db"
# An rclone that keeps what is in `far:` in the directory STORE, and does what PLAN says before.
FAKE = r"""#!%s
import fnmatch, json, os, shutil, sys, time
store, argv = os.environ["STORE"], sys.argv[1:]
with open(store + ".calls", "a") as calls:
    calls.write(json.dumps([argv, sorted(n for n in os.environ if n.startswith("RCLONE_"))]) + "\n")
options = [one for one in argv if one.startswith("--")]
plain = [one for one in argv[1:] if not one.startswith("--")]
offset = next((int(one.split("=")[1]) for one in options if one.startswith("--offset=")), 0)
def there(name):
    return os.path.join(store, name[4:].lstrip("/")) if name.startswith("far:") else name
def die(code, *words):
    for word in words:
        sys.stderr.write(json.dumps({"level": "error", "msg": word}) + "\n")
    sys.exit(code)
plan = store + ".plan"
steps = json.load(open(plan)) if os.path.exists(plan) else []
step = next((one for one in steps if one[0] == argv[0]), None)
if step:
    steps.remove(step)
    json.dump(steps, open(plan, "w"))
    if step[1] == "hang":
        time.sleep(60)
    if step[1] == "error":
        die(1, *step[2])
if argv[0] == "lsjson":
    path = there(plain[0])
    def item(one):
        return {"Name": os.path.basename(one), "Size": os.path.getsize(one), "IsDir": os.path.isdir(one)}
    if "--stat" in options:
        print(json.dumps(item(path) if os.path.exists(path) else {"Name": "x", "Size": -1, "IsDir": True}))
    elif not os.path.isdir(path):
        die(3, "error listing: directory not found")
    elif "--dump=headers" in options:
        patterns = [one[10:] for one in options if one.startswith("--include=")]
        for one in sorted(os.listdir(path)):
            if any(fnmatch.fnmatch("/" + one, pattern) for pattern in patterns) and os.path.exists(store + ".locks"):
                until = json.load(open(store + ".locks")).get(one)
                header = "X-Amz-Object-Lock-Retain-Until-Date: %%s\r\n" %% until if until else ""
                sys.stderr.write(json.dumps({"level": "debug", "msg": "HEAD /backups/" + one + " HTTP/1.1\r\nHost: far\r\n\r\n"}) + "\n")
                sys.stderr.write(json.dumps({"level": "debug", "msg": "HTTP/1.1 200 OK\r\n%%s\r\n" %% header}) + "\n")
        print("[]")
    else:
        print(json.dumps([item(os.path.join(path, one)) for one in os.listdir(path)]))
elif argv[0] == "copyto":
    shutil.copyfile(plain[0], there(plain[1]))
    if step and step[1] == "damage":
        with open(there(plain[1]), "r+b") as stream:
            stream.write(b"X")
    sys.stderr.write(json.dumps({"level": "notice", "msg": "", "stats": {"bytes": 3}}) + "\n")
elif argv[0] == "copy":
    chosen = [one.split("=", 1) for one in options if one.startswith("--include")]
    chosen = [line for name, value in chosen for line in (open(value).read().splitlines() if name == "--include-from" else [value])]
    limit = next(int(one[11:-1]) for one in options if one.startswith("--max-size="))
    denied = step[2] if step and step[1] in ("deny", "lack") else []
    if step and step[1] == "replace":
        os.rename(os.path.join(store, step[2]), os.path.join(store, step[3]))
    for one in os.listdir(there(plain[0])):
        path = os.path.join(there(plain[0]), one)
        if any(fnmatch.fnmatch("/" + one, line) for line in chosen) and os.path.getsize(path) <= limit and one not in denied:
            shutil.copyfile(path, os.path.join(plain[1], one))
    if denied and step[1] == "deny":
        die(1, "AccessDenied: Access Denied, status code: 403")
    if denied:
        die(1, *["Failed to copy: " + one for one in denied])
elif argv[0] == "cat":
    with open(there(plain[0]), "rb") as stream:
        stream.seek(offset)
        data = stream.read()
    if step and step[1] == "break":
        sys.stdout.buffer.write(data[: step[2]])
        sys.stdout.flush()
        die(1, "read tcp 127.0.0.1: connection reset by peer")
    sys.stdout.buffer.write(data)
elif argv[0] == "deletefile":
    if not os.path.exists(there(plain[0])):
        die(4, "far: object not found")
    os.unlink(there(plain[0]))
elif argv[0] == "delete":
    for one in os.listdir(there(plain[0])):
        if any(fnmatch.fnmatch("/" + one, option[10:]) for option in options if option.startswith("--include=")):
            os.unlink(os.path.join(there(plain[0]), one))
elif argv[0] == "about":
    print(json.dumps({"free": 3}))
elif argv[0] == "config":
    print(open(store + ".conf").read() if os.path.exists(store + ".conf") else '{"far": {"type": "memory"}}')
else:
    die(1, "unknown command")
"""


class Far:
    """`far:` of that rclone: what is in it, what it does, and what it was asked."""

    def __init__(self, directory, program):
        self.store = directory / "store"
        self.store.mkdir()
        self.remote = remote_store.Remote("far:", binary=str(program), retry_sleep=0)

    def plan(self, *steps):
        (self.store.parent / "store.plan").write_text(json.dumps(steps))

    def planned(self):
        return json.loads((self.store.parent / "store.plan").read_text())

    def configure(self, **sections):
        (self.store.parent / "store.conf").write_text(json.dumps(sections))
        self.remote.rclone._sections = None

    def lock(self, **until):
        """{name: until when S3 Object Lock protects it}"""
        (self.store.parent / "store.locks").write_text(json.dumps(until))

    def calls(self):
        return [json.loads(line) for line in (self.store.parent / "store.calls").read_text().splitlines()]

    def add(self, data=b"snapshot", name=NAME, **changes):
        manifest = {"format": 1, "file": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "hash": None, "revision": 7, "verified": True}
        manifest.update(dict({"host": "cp1", "created": "2026-01-02T03:04:05Z"}, **changes))
        (self.store / name).write_bytes(data)
        (self.store / (name + ".json")).write_text(json.dumps(manifest))


@pytest.fixture
def far(tmp_path, monkeypatch):
    program = tmp_path / "rclone"
    program.write_text(FAKE % sys.executable)
    program.chmod(0o755)
    monkeypatch.setenv("STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RCLONE_CONFIG_FAR_TYPE", "local")
    return Far(tmp_path, program)
