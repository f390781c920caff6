# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile

import harness
import pytest

ETCD_YAML = """
apiVersion: v1
kind: Pod
metadata:
  labels:
    component: etcd
spec:
  containers:
  - command:
    - etcd
    image: registry.k8s.io/etcd:%s-0
"""


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def make_archive(version, path):
    """A release archive as upstream lays it out."""
    top = "etcd-v%s-linux-amd64" % version
    files = [harness.bin_dir(version) / name for name in ("etcd", "etcdctl", "etcdutl")]
    files = [file for file in files if file.exists()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(str(path), "w") as archive:
            for file in files:
                archive.write(str(file), "%s/%s" % (top, file.name))
    else:
        with tarfile.open(str(path), "w:gz", compresslevel=1) as archive:
            for file in files:
                archive.add(str(file), "%s/%s" % (top, file.name))
    return path


@pytest.fixture(scope="session")
def archive(version, tmp_path_factory):
    return make_archive(version, tmp_path_factory.mktemp("archive-" + version) / "etcd.tar.gz")


def names(directory):
    return sorted(os.listdir(str(directory)))


def install(tmp_path, check_mode=False, diff=False, environment=None, **options):
    options.setdefault("bin_dir", tmp_path / "bin")
    options.setdefault("manifests_dir", tmp_path / "manifests")
    return harness.run_module("etcd_client_install", check_mode=check_mode, diff=diff, environment=environment, **options)


def manifest(tmp_path, version):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "etcd.yaml").write_text(ETCD_YAML % version)


def test_tools_from_an_archive(archive, version, tmp_path):
    source = {"source": "archive", "archive": archive, "checksum": "sha256:" + sha256(archive)}
    expected = sorted(os.path.basename(path) for path in harness.tools(version).values())
    rc, result = install(tmp_path, check_mode=True, diff=True, **source)
    assert rc == 0 and result["changed"] and not (tmp_path / "bin").exists(), result
    assert [tool["name"] for tool in result["tools"]] == expected
    rc, result = install(tmp_path, **source)
    assert rc == 0 and result["changed"], result
    assert names(tmp_path / "bin") == expected
    for name in expected:
        path = tmp_path / "bin" / name
        assert sha256(path) == sha256(harness.bin_dir(version) / name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert result["tools"][0]["version"].startswith(version)
    for check_mode in (True, False):
        rc, again = install(tmp_path, check_mode=check_mode, **source)
        assert rc == 0 and not again["changed"], again
    (tmp_path / "bin" / "etcdctl").chmod(0o644)
    rc, result = install(tmp_path, **source)
    assert rc == 0 and [tool["changed"] for tool in result["tools"]] == [name == "etcdctl" for name in expected]


def test_tools_from_a_zip_file(tmp_path):
    version = harness.VERSIONS[-1]
    rc, result = install(tmp_path, source="archive", archive=make_archive(version, tmp_path / "etcd.zip"))
    assert rc == 0 and result["tools"][0]["version"].startswith(version), result


def test_an_archive_with_another_checksum_is_refused(archive, tmp_path):
    rc, result = install(tmp_path, source="archive", archive=archive, checksum="sha256:" + "0" * 64)
    assert rc == 1 and "was expected; nothing was installed" in result["msg"]
    (tmp_path / "page.html").write_text("404 not found")
    rc, result = install(tmp_path, source="archive", archive=tmp_path / "page.html")
    assert rc == 1 and "neither a tar nor a zip" in result["msg"]
    (tmp_path / "half.tar.gz").write_bytes(archive.read_bytes()[:3000000])
    rc, result = install(tmp_path, source="archive", archive=tmp_path / "half.tar.gz")
    assert rc == 1 and result["msg"]
    with tarfile.open(str(tmp_path / "other.tar"), "w") as other:
        other.add(str(tmp_path / "page.html"), "README.md")
    rc, result = install(tmp_path, source="archive", archive=tmp_path / "other.tar")
    assert rc == 1 and "holds no etcdctl" in result["msg"]
    rc, result = install(tmp_path, check_mode=True, source="archive", archive=tmp_path / "later.tar.gz")
    assert rc == 0 and result["changed"]
    rc, result = install(tmp_path, source="archive", archive=tmp_path / "later.tar.gz")
    assert rc == 1 and "later.tar.gz" in result["msg"]
    assert not (tmp_path / "bin").exists() or names(tmp_path / "bin") == []


@pytest.fixture
def read_only_usr(tmp_path, monkeypatch):
    """Modules see a /usr/local that is read-only, as on Flatcar, and an /opt of their own; the latter's path."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    opt, python = tmp_path / "opt", tmp_path / "python"
    opt.mkdir()
    mounts = "mount --bind /usr/local /usr/local && mount -o remount,bind,ro /usr/local && mount --bind %s /opt" % opt
    python.write_text('#!/bin/sh\nexec unshare -m sh -ec \'%s; exec %s "$@"\' sh "$@"\n' % (mounts, harness.MODULE_PYTHON or sys.executable))
    python.chmod(0o755)
    harness.module_path()
    monkeypatch.setattr(harness, "MODULE_PYTHON", str(python))
    return opt


def test_where_usr_is_read_only_tools_go_below_opt(tmp_path, read_only_usr):
    version = harness.VERSIONS[-1]
    archive = make_archive(version, tmp_path / "etcd.tar.gz")
    source = {"source": "archive", "archive": archive, "bin_dir": "/usr/local/bin"}
    expected = sorted("/opt/bin/" + os.path.basename(path) for path in harness.tools(version).values())
    rc, result = install(tmp_path, check_mode=True, **source)
    assert rc == 0 and result["changed"] and not (read_only_usr / "bin").exists(), result
    assert [tool["path"] for tool in result["tools"]] == expected
    rc, result = install(tmp_path, **source)
    assert rc == 0 and [tool["path"] for tool in result["tools"]] == expected, result
    assert names(read_only_usr / "bin") == [os.path.basename(path) for path in expected]
    rc, result = install(tmp_path, **source)
    assert rc == 0 and not result["changed"], result
    # those that look for them are given the place that they were wanted in, and a PATH without /opt/bin
    bare = {"PATH": "/usr/bin:/bin"}
    rc, found = harness.run_module("etcd_client_info", environment=bare, etcdctl="/usr/local/bin", etcdutl="/usr/local/bin")
    assert rc == 0 and found["tools"]["etcdctl"]["path"] == "/opt/bin/etcdctl", found
    # a given path is used, or reported as missing
    rc, result = install(tmp_path, source="archive", archive=archive, bin_dir="/usr/local/elsewhere")
    assert rc == 1 and "Read-only file system" in result["msg"], result


def test_a_tool_that_does_not_run_here_is_not_installed(tmp_path):
    (tmp_path / "etcdctl").write_text("#!/nonexistent/interpreter\n")
    (tmp_path / "etcdutl").write_text("#!/bin/sh\necho 'cannot execute' >&2; exit 126\n")
    with tarfile.open(str(tmp_path / "a.tar"), "w") as made:
        made.add(str(tmp_path / "etcdctl"), "etcdctl")
        made.add(str(tmp_path / "etcdutl"), "etcdutl")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "etcdctl").write_text("#!/bin/sh\necho mine\n")
    rc, result = install(tmp_path, source="archive", archive=tmp_path / "a.tar")
    assert rc == 1 and "does not run on this host" in result["msg"], result
    assert names(tmp_path / "bin") == ["etcdctl"]
    assert (tmp_path / "bin" / "etcdctl").read_text() == "#!/bin/sh\necho mine\n"


def test_replaced_tools_are_kept(archive, version, tmp_path):
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "etcdctl"
    path.write_text("#!/bin/sh\necho 'etcdctl version: 3.2.1'\n")
    path.chmod(0o755)
    foreign = sha256(path)
    rc, result = install(tmp_path, source="archive", archive=archive)
    assert rc == 0 and result["tools"][0]["backup"] == str(tmp_path / "bin" / "etcdctl-3.2.1"), result
    assert sha256(tmp_path / "bin" / "etcdctl-3.2.1") == foreign
    # the same one again needs no second copy, another one with that version does
    for text, backup in (("#!/bin/sh\necho 'etcdctl version: 3.2.1'\n", "etcdctl-3.2.1"), ("#!/bin/sh\necho 'etcdctl version: 3.2.1' #\n", "etcdctl-3.2.1.1")):
        path.unlink()
        path.write_text(text)
        path.chmod(0o755)
        rc, result = install(tmp_path, source="archive", archive=archive)
        assert rc == 0 and result["tools"][0]["backup"] == str(tmp_path / "bin" / backup), result
    path.unlink()
    path.write_text("not a tool")
    rc, result = install(tmp_path, source="archive", archive=archive, backup=False)
    assert rc == 0 and result["tools"][0]["backup"] is None
    assert "etcdctl-old" not in names(tmp_path / "bin")


def test_tools_that_suit_are_kept(archive, version, tmp_path):
    manifest(tmp_path, "3.5.16")
    source = {"source": "archive", "archive": archive, "keep_fitting": True}
    rc, result = install(tmp_path, **source)
    assert rc == 0, result
    rc, result = install(tmp_path, **source)
    assert rc == 0 and not result["changed"] and result["server_version"] == "3.5.16-0"
    # 3.4's cannot move the revision forward, which those of 3.5.16 can
    assert result["kept"] == (version != "3.4")
    rc, result = install(tmp_path, source="host")
    assert (rc == 0) == (version != "3.4"), result


def test_old_tools_do_not_suit_a_new_server(tmp_path):
    manifest(tmp_path, "3.6.1")
    (tmp_path / "bin").mkdir()
    shutil.copy(str(harness.bin_dir("3.4") / "etcdctl"), str(tmp_path / "bin"))
    environment = {"PATH": "/nonexistent"}
    rc, result = install(tmp_path, source="host", environment=environment)
    assert rc == 1 and "does not start on an etcd 3.6.1-0 server" in result["msg"], result


def test_a_server_of_unknown_version(archive, version, tmp_path):
    manifest(tmp_path, version)
    path = tmp_path / "manifests" / "etcd.yaml"
    path.write_text(path.read_text().replace(":%s-0" % version, "@sha256:00"))
    rc, result = install(tmp_path, source="archive", archive=archive, keep_fitting=True)
    assert rc == 0 and result["changed"], result
    rc, result = install(tmp_path, source="archive", archive=archive, keep_fitting=True)
    assert rc == 0 and not result["kept"] and result["server_version"] == "", result
    rc, result = install(tmp_path, source="host")
    assert rc == 1 and "its image registry.k8s.io/etcd@sha256:00 has no version in its tag" in result["msg"], result


def test_a_host_without_etcd_and_without_an_image(tmp_path):
    rc, result = install(tmp_path, image="registry.k8s.io/etcd:0.0.0-nosuch", timeout=20)
    assert rc == 1 and "cannot be copied out of its image" in result["msg"] and "containerd" not in names(tmp_path)
    # nor is there anything that says which image it would be
    rc, result = install(tmp_path)
    assert rc == 1 and "no static Pod of etcd says which image it is" in result["msg"], result
    assert not (tmp_path / "bin").exists()
    assert not [name for name in names("/run") if name.startswith("k8s_dr-etcd-image-")]


@pytest.fixture
def contained_etcd(version, tmp_path):
    """etcd in a root directory of its own, which is what a container is to the host's /proc."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a process a root directory of its own")
    root = tmp_path / "root"
    target = root / "usr" / "local" / "bin"
    target.mkdir(parents=True)
    for name in ("etcd", "etcdctl", "etcdutl"):
        if (harness.bin_dir(version) / name).exists():
            shutil.copy(str(harness.bin_dir(version) / name), str(target))
            listed = subprocess.run(["ldd", str(target / name)], capture_output=True, text=True, check=False).stdout
            for library in re.findall(r"(/\S+)", listed):
                destination = root / library.lstrip("/")
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, str(destination))
    (root / "tmp").mkdir()
    client, peer = ("http://127.0.0.1:%d" % port for port in harness.free_ports(2))
    argv = ["/usr/local/bin/etcd", "--data-dir", "/tmp/etcd", "--listen-client-urls", client, "--advertise-client-urls", client]
    argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer]
    with open(str(tmp_path / "log"), "wb") as log:
        process = subprocess.Popen(argv, preexec_fn=lambda: os.chroot(str(root)), cwd="/", stdout=log, stderr=log, env={})
    try:
        time.sleep(0.5)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield root
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_tools_from_the_running_etcd(contained_etcd, version, tmp_path):
    rc, result = install(tmp_path, check_mode=True)
    assert rc == 0 and result["changed"] and not (tmp_path / "bin").exists(), result
    rc, result = install(tmp_path)
    assert rc == 0 and result["changed"] and "the running etcd" in result["origin"], result
    assert names(tmp_path / "bin") == sorted(os.path.basename(path) for path in harness.tools(version).values())
    rc, result = install(tmp_path)
    assert rc == 0 and not result["changed"], result
    # a link inside would lead into the host's own files
    tool = contained_etcd / "usr" / "local" / "bin" / "etcdctl"
    tool.unlink()
    tool.symlink_to("/bin/true")
    rc, result = install(tmp_path)
    assert rc == 1 and "holds no etcdctl" in result["msg"], result
