#!/usr/bin/env python3
"""Write a container image of one layer, made from nothing but the named files.

The result is what `docker save` writes, so `ctr images import` reads it.  Programs bring the libraries that `ldd`
names: those of this machine, or for a program out of the tree --root those of that tree.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile


class Layer:
    """A tar file that makes parent directories and libraries come along."""

    def __init__(self, path, root):
        self.tar = tarfile.open(path, "w")  # pylint: disable=consider-using-with
        self.root = root
        self.seen = set()

    def parents(self, name):
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in self.seen:
                self.seen.add(directory)
                info = tarfile.TarInfo(directory)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                self.tar.addfile(info)

    def text(self, name, content):
        self.parents(name)
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o644
        self.tar.addfile(info, io.BytesIO(content.encode()))

    def program(self, source, name):
        name = name.lstrip("/")
        if name in self.seen:
            return
        self.seen.add(name)
        self.parents(name)
        source = os.path.realpath(source)
        info = tarfile.TarInfo(name)
        info.size = os.path.getsize(source)
        info.mode = 0o755
        with open(source, "rb") as stream:
            self.tar.addfile(info, stream)
        command, root = ["ldd", source], "/"
        if self.root and source.startswith(self.root + "/"):
            command, root = ["chroot", self.root, "ldd", source[len(self.root):]], self.root
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode:  # a static program
            return
        for library in re.findall(r"(/\S+) \(0x", listed.stdout):
            self.program(root + library, library)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="", help="tree with a system of its own")
    parser.add_argument("--entrypoint", help="program that the container runs")
    parser.add_argument("--arch", default="amd64")
    parser.add_argument("out")
    parser.add_argument("name", help="name and tag of the image")
    parser.add_argument("files", nargs="+", metavar="FILE:PATH")
    args = parser.parse_args()

    layer_path = args.out + ".layer"
    layer = Layer(layer_path, os.path.realpath(args.root) if args.root else None)
    for pair in args.files:
        source, _sep, name = pair.partition(":")
        layer.program(source, name)
    layer.text("etc/passwd", "root:x:0:0:root:/:/bin/sh\n")
    layer.text("etc/nsswitch.conf", "hosts: files dns\n")
    layer.parents("tmp/x")
    layer.tar.close()

    digest = hashlib.sha256()
    with open(layer_path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    config = json.dumps({
        "architecture": args.arch,
        "os": "linux",
        "created": "2021-01-13T00:00:00Z",
        "config": {
            "Entrypoint": [args.entrypoint] if args.entrypoint else None,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest.hexdigest()]},
        "history": [{"created": "2021-01-13T00:00:00Z", "created_by": "mkimage.py"}],
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [args.name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(args.out + ".partial", "w") as image:
        for name, content in ((config_name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            image.addfile(info, io.BytesIO(content))
        image.add(layer_path, "layer.tar")
    os.unlink(layer_path)
    os.rename(args.out + ".partial", args.out)


if __name__ == "__main__":
    main()
