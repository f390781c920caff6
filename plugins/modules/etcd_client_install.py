#!/usr/bin/python
# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_client_install
short_description: Installs etcdctl and etcdutl out of the node's own etcd image or out of an archive
version_added: 0.1.0
description:
  - Copies C(etcdctl), and C(etcdutl) where there is one, into O(bin_dir).
  - With O(source=image) they come out of the etcd image that the node already has, so they always have the server's version, and nothing is downloaded.
    They are copied out of the running etcd container, whatever the container runtime; when etcd is down, containerd, docker or podman
    is asked for the image.
  - With O(source=archive) they come out of a release archive of etcd on the node.
  - A tool is put in place only after it has been seen to run on this host, and all at once.
  - Fails when the tools together cannot take, check and restore snapshots for the server.
author:
  - The k8s_dr founders (@k8s-dr)
extends_documentation_fragment:
  - k8s_dr.etcd.attributes
attributes:
  check_mode:
    support: full
    details:
      - When etcd is down, the image is mounted for a moment to see what is in it, in check mode too. Nothing of that stays.
      - An archive that is not on the node yet is taken to hold tools that are not installed yet.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
options:
  source:
    description:
      - Where the tools come from.
      - With V(host) nothing is installed, and the module fails when the host has no tools that suit the server.
    type: str
    choices: [image, archive, host]
    default: image
  image:
    description:
      - Reference of the image, as the container runtime knows it.
      - By default the running etcd is looked into, and when none runs, the image that etcd's static Pod names.
    type: str
  archive:
    description: Path of the archive on the node, a tar file with any compression that Python knows, or a zip file. Required with O(source=archive).
    type: path
  checksum:
    description: SHA-256 that the archive must have, as C(sha256:...) or without the prefix.
    type: str
  manifests_dir:
    description: Where kubelet finds the static Pods of the control plane, of which etcd's names the image and the server's version.
    type: path
    default: /etc/kubernetes/manifests
  bin_dir:
    description:
      - Directory for the tools.
      - Where V(/usr/local/bin) cannot be written, as on systems with a read-only C(/usr) (Flatcar), they go to C(/opt/bin) instead. Every module of this
        collection looks for them there, whatever C(PATH) is.
    type: path
    default: /usr/local/bin
  keep_fitting:
    description:
      - Change nothing when the host already has tools, in O(bin_dir) or elsewhere, that can take, check and restore snapshots for the server's version.
    type: bool
    default: false
  backup:
    description: Keep a tool that is replaced beside the new one, under a name with its version, such as C(etcdctl-3.4.23).
    type: bool
    default: true
  timeout:
    description: Seconds that one request to the container runtime may take.
    type: int
    default: 120
seealso:
  - module: k8s_dr.etcd.etcd_client_info
"""

EXAMPLES = r"""
- name: Install the tools of the etcd that runs here
  k8s_dr.etcd.etcd_client_install:

- name: Install the tools unless the host has some that suit its etcd
  k8s_dr.etcd.etcd_client_install:
    keep_fitting: true

- name: Install the tools of an archive
  k8s_dr.etcd.etcd_client_install:
    source: archive
    archive: /var/cache/etcd-v3.5.16-linux-amd64.tar.gz
    checksum: sha256:b414b27a5ad05f7cb01395c447c85d3227e3fb1c176e51757a283b817f645ccc
"""

RETURN = r"""
tools:
  description: The tools that were installed, or would be, or that were kept.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: V(etcdctl) or V(etcdutl).
      type: str
      sample: etcdctl
    path:
      description: Its path.
      type: str
      sample: /usr/local/bin/etcdctl
    version:
      description: Its version. V(null) in check mode for a tool that is not installed yet.
      type: str
      sample: 3.5.16
    sha256:
      description: Its SHA-256. V(null) in check mode when the archive is not there yet.
      type: str
      sample: 8d7ab3f1c0a6a1b7c9f4b0d5a3b0b3f3d4d1d5a0a0f7e6d5c4b3a29180706050
    changed:
      description: Whether this run installed it, or would.
      type: bool
    backup:
      description: Path of the tool that it replaced, or V(null).
      type: str
client:
  description:
    - What these tools can do, as RV(k8s_dr.etcd.etcd_client_info#module:tools) says it.
    - In check mode, if tools would be installed, the abilities of the host's current tools.
  returned: success, and on failure with O(source=host)
  type: dict
  sample: {etcdctl: null, etcdutl: null, save: null, status: null, restore: null, bump_revision: false, misfits: []}
kept:
  description: Whether the host's own tools were kept, with O(keep_fitting=true) or O(source=host).
  returned: success
  type: bool
origin:
  description: Where the tools came from, in words.
  returned: success
  type: str
  sample: the running etcd (process 465)
server_version:
  description: Version of the server, from the image in etcd's static Pod. Empty if unknown.
  returned: always
  type: str
  sample: 3.5.16-0
"""

import contextlib
import glob
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.k8s_dr.etcd.plugins.module_utils._etcd.tools import (
    Tool,
    find_tools,
    server_version,
    survey,
    unfit,
)
from ansible_collections.k8s_dr.etcd.plugins.module_utils._kube import static_pods
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system import procs, signals
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.digest import file_digests, stream_digests
from ansible_collections.k8s_dr.etcd.plugins.module_utils._system.process import BIN_DIR, ToolError, bin_dir, run_tool

NAMES = ("etcdctl", "etcdutl")
# Where images have them: upstream's and kubeadm's, distributions', Bitnami's, and an archive's that was laid flat.
PLACES = ("usr/local/bin", "usr/bin", "bin", "opt/bitnami/etcd/bin", "usr/local/etcd", "")
RUNTIME_DIRS = os.pathsep.join(("/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin", "/bin", "/opt/bin", "/opt/cni/bin"))
MOUNT = "/run/k8s_dr-etcd-image-"
NEW = ".k8s_dr-new"


class Unavailable(Exception):
    """This way of getting at the tools is not open; the text says why."""


def open_below(root, path):
    """A file below a root that is not ours: no component may be a link, since a link would lead into our own file system."""
    with contextlib.ExitStack() as stack:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        parts = path.split("/")
        for part in parts[:-1]:
            descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        found = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise FileNotFoundError(path)
        return os.fdopen(found, "rb")


def find_below(root):
    """{name: open file} of the tools below a root."""
    found = {}
    for name in NAMES:
        for place in PLACES:
            try:
                found[name] = open_below(root, "%s/%s" % (place, name) if place else name)
                break
            except OSError:
                continue
    return found


@contextlib.contextmanager
def running_etcd(data_dir):
    """The root of the running etcd's container, the same on every runtime; never that of an etcd that serves other data."""
    own_root = os.stat("/")
    for process in procs.processes():
        root = "/proc/%d/root" % process.pid
        if process.name != "etcd" or process.serves_other(data_dir):
            continue
        try:
            is_own = os.path.samestat(os.stat(root), own_root)
        except OSError:
            continue
        if not is_own:
            yield root, "the running etcd (process %d)" % process.pid
            return
    raise Unavailable("no container with etcd is running here")


def runtime(name, *args, **kwargs):
    """Run ctr, docker or podman."""
    path = shutil.which(name, path=RUNTIME_DIRS)
    if not path:
        raise Unavailable("there is no %s here" % name)
    result = run_tool([path] + list(args), kwargs["timeout"])
    if result.rc != 0:
        raise Unavailable("%s %s: %s" % (name, result.how(), result.last_words()))
    return result.stdout.strip()


def unmount(target, timeout):
    for argv in (["ctr", "-n", "k8s.io", "images", "unmount", "--rm", target], ["umount", "-l", target]):
        if not os.path.ismount(target):
            break
        with contextlib.suppress(Unavailable, ToolError):
            runtime(*argv, timeout=timeout)
    with contextlib.suppress(OSError):
        os.rmdir(target)


@contextlib.contextmanager
def containerd(image, timeout):
    for left in glob.glob(MOUNT + "*"):
        # what a run that was killed could not unmount
        if not os.path.exists("/proc/%s" % left[len(MOUNT) :].split("-")[0]):
            unmount(left, timeout)
    target = tempfile.mkdtemp(prefix="%s%d-" % (MOUNT, os.getpid()), dir="/")
    try:
        runtime("ctr", "-n", "k8s.io", "images", "mount", image, target, timeout=timeout)
        yield target, "the image %s in containerd" % image
    finally:
        unmount(target, timeout)


@contextlib.contextmanager
def docker(image, timeout):
    with tempfile.TemporaryDirectory(prefix="etcd-image-") as root:
        # It is created and never started; --pull never is not known to older ones, so ask for the image first.
        runtime("docker", "image", "inspect", "--format", "{{.Id}}", image, timeout=timeout)
        container = runtime("docker", "create", image, "etcd", timeout=timeout)
        try:
            for place in PLACES:
                for name in NAMES:
                    with contextlib.suppress(Unavailable):
                        directory = os.path.join(root, place)
                        os.makedirs(directory, exist_ok=True)
                        runtime("docker", "cp", "%s:/%s/%s" % (container, place, name), os.path.join(directory, name), timeout=timeout)
        finally:
            with contextlib.suppress(Unavailable):
                runtime("docker", "rm", container, timeout=timeout)
        yield root, "the image %s in docker" % image


@contextlib.contextmanager
def podman(image, timeout):
    """podman and cri-o keep their images in one place."""
    root = runtime("podman", "image", "mount", image, timeout=timeout)
    try:
        yield root, "the image %s in the storage of podman and cri-o" % image
    finally:
        with contextlib.suppress(Unavailable):
            runtime("podman", "image", "unmount", image, timeout=timeout)


@contextlib.contextmanager
def image_root(wanted, image, data_dir, timeout):
    """(a directory with the image's files, where that is from): the first way that is open.

    wanted: the image that was asked for by name, which need not be the one that runs.  data_dir: of the control plane's etcd, '' if unknown.
    """
    reasons = []
    image = wanted or image
    found = None
    with contextlib.ExitStack() as stack:
        for way in (containerd, docker, podman) if wanted else (running_etcd, containerd, docker, podman):
            if way is not running_etcd and not image:
                reasons.append("no static Pod of etcd says which image it is")
                break
            try:
                found = stack.enter_context(running_etcd(data_dir) if way is running_etcd else way(image, timeout))
                break
            except (Unavailable, ToolError, OSError) as exc:
                reasons.append(str(exc))
        if not found:
            raise Unavailable("etcd's tools cannot be copied out of its image: %s" % "; ".join(reasons))
        yield found


@contextlib.contextmanager
def archive_root(path, checksum):
    if checksum:
        wanted = checksum.rpartition(":")[2].lower()
        found = file_digests(path)[1]["sha256"]
        if found != wanted:
            raise Unavailable("%s has the sha256 %s, and %s was expected; nothing was installed" % (path, found, wanted))
    with tempfile.TemporaryDirectory(prefix="etcd-archive-") as root:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if os.path.basename(info.filename) in NAMES:
                        with archive.open(info) as stream:
                            _write(os.path.join(root, os.path.basename(info.filename)), stream)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                for info in archive:
                    if info.isreg() and os.path.basename(info.name) in NAMES:
                        _write(os.path.join(root, os.path.basename(info.name)), archive.extractfile(info))
        else:
            raise Unavailable("%s is neither a tar nor a zip file" % path)
        yield root, "the archive %s" % path


def _write(path, stream):
    with open(path, "wb") as target:
        shutil.copyfileobj(stream, target, 1024 * 1024)


def installed(path):
    """(sha256, mode) of what is there, or (None, None)."""
    try:
        with open(path, "rb") as stream:
            return stream_digests(stream)[1]["sha256"], stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except OSError:
        return None, None


def fitting(bin_dir, server_version):
    """The tools of this host that will do for the server; Unavailable when there are none, with the reason."""
    candidates = [[path if os.path.exists(path) else None for path in (os.path.join(bin_dir, name) for name in NAMES)], [None, None]]
    reason = None
    for etcdctl, etcdutl in candidates:
        try:
            tools = find_tools(etcdctl, etcdutl)
        except ToolError as exc:
            reason = reason or exc.message
            continue
        misfit = unfit(tools, server_version)
        if not misfit:
            return tools
        reason = reason or misfit
    raise Unavailable(reason)


def version_of(path):
    try:
        return Tool(path).version
    except ToolError:
        return "old"


def keep_old(path):
    """Keep what is at `path` under a name with its version; returns that name."""
    backup = "%s-%s" % (path, version_of(path))
    number = 0
    while True:
        name = backup if not number else "%s.%d" % (backup, number)
        try:
            # a second name for the same file, so that `path` is there at every instant
            os.link(path, name, follow_symlinks=False)
            return name
        except FileExistsError:
            if installed(name)[0] == installed(path)[0]:
                return name
            number += 1


def stage(stream, path, origin):
    """Copy a tool beside its place and see it run; returns (path of the copy, version)."""
    copy = tempfile.NamedTemporaryFile(dir=os.path.dirname(path), prefix=".%s-" % os.path.basename(path), suffix=NEW, delete=False)
    try:
        with copy:
            stream.seek(0)
            shutil.copyfileobj(stream, copy, 1024 * 1024)
            os.fchmod(copy.fileno(), 0o755)
            copy.flush()
            os.fsync(copy.fileno())
        try:
            tool = Tool(copy.name)
        except ToolError as exc:
            words = exc.result.last_words() if exc.result else exc.message
            raise Unavailable(
                "%s from %s does not run on this host (%s); install it from a package or an archive" % (os.path.basename(path), origin, words)
            ) from exc
        if tool.name != os.path.basename(path):
            raise Unavailable("what %s has as %s is %s" % (origin, os.path.basename(path), tool.name))
        return copy.name, tool.version
    except BaseException:
        os.unlink(copy.name)
        raise


def unsuitable(client, origin):
    """Why tools that were installed do not suit the server, or None."""
    if client["misfits"]:
        return client["misfits"][0] + "."
    if not (client["save"] and client["status"] and client["restore"]):
        return "The tools from %s cannot take, check and restore snapshots; set etcd_client_source to another source." % origin
    return None


def install(module, root, origin):
    """Plan from checksums, and carry it out unless in check mode: the list of tools."""
    bin_dir = module.params["bin_dir"]
    found = find_below(root)
    if "etcdctl" not in found:
        raise Unavailable("%s holds no etcdctl" % origin)
    tools, staged = [], []
    for name, stream in sorted(found.items()):
        path = os.path.join(bin_dir, name)
        stream.seek(0)
        digest = stream_digests(stream)[1]["sha256"]
        before = installed(path)
        tools.append({"name": name, "path": path, "sha256": digest, "changed": before != (digest, 0o755), "backup": None, "before": before[0]})
        tools[-1]["version"] = None if tools[-1]["changed"] else Tool(path).version
    if module.check_mode or not any(tool["changed"] for tool in tools):
        return tools
    os.makedirs(bin_dir, mode=0o755, exist_ok=True)
    for left in glob.glob(os.path.join(bin_dir, ".etcd*" + NEW)):
        os.unlink(left)
    try:
        for tool in tools:
            if tool["changed"]:
                copy, tool["version"] = stage(found[tool["name"]], tool["path"], origin)
                staged.append((tool, copy))
        while staged:
            tool, copy = staged[0]
            if module.params["backup"] and tool["before"] not in (None, tool["sha256"]):
                tool["backup"] = keep_old(tool["path"])
            os.rename(copy, tool["path"])
            staged.pop(0)
            if module.selinux_enabled():
                module.set_default_selinux_context(tool["path"], False)
    finally:
        for rest in staged:
            os.unlink(rest[1])
    return tools


def main():
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "choices": ["image", "archive", "host"], "default": "image"},
            "image": {"type": "str"},
            "archive": {"type": "path"},
            "checksum": {"type": "str"},
            "manifests_dir": {"type": "path", "default": "/etc/kubernetes/manifests"},
            "bin_dir": {"type": "path", "default": BIN_DIR},
            "keep_fitting": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 120},
        },
        required_if=[("source", "archive", ["archive"])],
        supports_check_mode=True,
    )
    signals.raise_when_ended()
    params = module.params
    params["bin_dir"] = bin_dir(params["bin_dir"])
    try:
        etcd = static_pods.read_static_pods(params["manifests_dir"]).get("etcd")
    except (OSError, ValueError):
        # a host without manifests may still get its tools
        etcd = None
    server = server_version(etcd) if etcd else ""
    try:
        result = run(module, etcd, server)
    except (Unavailable, ToolError) as exc:
        there = {"client": survey_of([], server, predicted=True)} if params["source"] == "host" else {}
        module.fail_json(msg=str(exc), server_version=server, **there)
    except signals.Ended as exc:
        module.fail_json(msg="etcd's tools were not installed: %s" % exc, server_version=server)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as exc:
        module.fail_json(msg="etcd's tools could not be installed: %s" % exc, server_version=server)
    # With tools from elsewhere installed that do not suit, `origin` tells this failure from that of a source that cannot be used.
    problem = None if result["changed"] and module.check_mode else unsuitable(result["client"], result["origin"])
    if problem:
        module.fail_json(msg=problem, server_version=server, **result)
    module.exit_json(server_version=server, **result)


def survey_of(tools, server_version, predicted):
    """What the installed tools can do; where they are only predicted, what those can do that the host has."""
    paths = {} if predicted else {tool["name"]: tool["path"] for tool in tools}
    return survey(*find_tools(paths.get("etcdctl"), paths.get("etcdutl")), server_version=server_version)


def run(module, etcd, server_version):
    params = module.params
    # an etcd of unknown version: only the tools in its own image are known to fit
    unknown = etcd is not None and not server_version
    if unknown and params["source"] == "host":
        raise Unavailable(
            "cannot check whether the tools of this host suit etcd: its image %s has no version in its tag, and it does not run; "
            "name it with one (NAME:3.6.16-0@sha256:...) in %s" % (etcd.image, etcd.path)
        )
    if (params["keep_fitting"] and not unknown) or params["source"] == "host":
        try:
            found = fitting(params["bin_dir"], server_version)
            tools = [
                {"name": tool.name, "path": tool.path, "sha256": installed(tool.path)[0], "version": tool.version, "changed": False, "backup": None}
                for tool in found
                if tool
            ]
            client = survey(*found, server_version=server_version)
            return {"changed": False, "tools": tools, "client": client, "kept": True, "origin": "this host"}
        except Unavailable:
            if params["source"] == "host":
                raise
    if params["source"] == "archive":
        if module.check_mode and not os.path.exists(params["archive"]):
            tool = {"name": "etcdctl", "path": os.path.join(params["bin_dir"], "etcdctl"), "sha256": None, "version": None}
            tool.update(changed=True, backup=None)
            client = survey_of([tool], server_version, predicted=True)
            return {"changed": True, "tools": [tool], "client": client, "kept": False, "origin": "the archive %s" % params["archive"]}
        root = archive_root(params["archive"], params["checksum"])
    else:
        root = image_root(params["image"], etcd.image if etcd else None, etcd.flags.get("data-dir", "") if etcd else "", params["timeout"])
    with root as (directory, origin):
        tools = install(module, directory, origin)
    diff = [
        {
            "before_header": tool["path"],
            "after_header": tool["path"],
            "before": "sha256 %s\n" % tool["before"] if tool["before"] else "",
            "after": "sha256 %s, from %s\n" % (tool["sha256"], origin),
        }
        for tool in tools
        if tool["changed"]
    ]
    for tool in tools:
        del tool["before"]
    client = survey_of(tools, server_version, predicted=module.check_mode and bool(diff))
    return {"changed": bool(diff), "tools": tools, "client": client, "kept": False, "origin": origin, "diff": diff}


if __name__ == "__main__":
    main()
