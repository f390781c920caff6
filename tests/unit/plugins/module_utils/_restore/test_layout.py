# Copyright (c) 2026, the k8s_dr founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What follows from the path of a data directory, and of the manifests."""

from __future__ import annotations

import os

import pytest
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore import layout
from ansible_collections.k8s_dr.etcd.plugins.module_utils._restore.layout import DataLayout, held_directory, held_static_pods


@pytest.fixture
def mount(monkeypatch):
    """Have a path be a mount point."""
    points = {"/"}

    def mount_of(path):
        while path not in points:
            path = os.path.dirname(path)
        return path

    monkeypatch.setattr(layout, "mount_of", mount_of)
    return lambda path: points.add(str(path))


@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_is_swapped_as_a_whole_and_has_its_restores_beside_it(tmp_path, exists):
    """A deleted directory is restored, too."""
    data_dir = tmp_path / "etcd"
    if exists:
        data_dir.mkdir()
    found = DataLayout(str(data_dir))
    assert not found.mount_point
    assert (found.data_dir, found.live) == (str(data_dir), str(data_dir))
    assert found.database == str(data_dir / "member/snap/db")
    assert found.transactions_dir == str(tmp_path / "etcd.restore")


def test_of_a_mount_point_what_is_inside_is_swapped(tmp_path, mount):
    """It cannot be renamed, and its parent is another file system."""
    mount(tmp_path / "etcd")
    found = DataLayout(str(tmp_path / "etcd"))
    assert found.mount_point
    assert (found.data_dir, found.live) == (str(tmp_path / "etcd"), str(tmp_path / "etcd/member"))
    assert found.database == str(tmp_path / "etcd/member/snap/db")
    assert found.transactions_dir == str(tmp_path / "etcd/.restore")


@pytest.mark.parametrize("mounted", [True, False])
def test_a_symbolic_link_is_what_it_leads_to(tmp_path, mount, mounted):
    """Renamed itself, it would leave the data where it is."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "etcd").symlink_to("disk")
    if mounted:
        mount(disk)
    found, real = DataLayout(str(tmp_path / "etcd")), DataLayout(str(disk))
    assert found.data_dir == str(disk) and found.mount_point == mounted
    assert vars(found) == vars(real)
    assert vars(DataLayout(str(disk) + "/")) == vars(real)


@pytest.mark.parametrize(("mounted", "crosses"), [((), False), (("etcd",), False), (("etcd.restore",), True)])
def test_data_can_be_renamed_within_one_file_system_only(tmp_path, mount, mounted, crosses):
    for name in mounted:
        mount(tmp_path / name)
    assert DataLayout(str(tmp_path / "etcd")).crosses_file_systems() is crosses


def test_cluster_ids_are_remembered_once_and_in_order(tmp_path, mount):
    mount(tmp_path)
    found = DataLayout(str(tmp_path))
    assert found.cluster_ids() == []
    os.mkdir(found.transactions_dir)
    for cluster_id in ("a1", "b2", "", "a1"):
        found.remember_cluster_id(cluster_id)
    assert found.cluster_ids() == ["a1", "b2"]
    assert (tmp_path / ".restore/cluster-ids").read_text() == "a1\nb2\n"


@pytest.mark.parametrize("mounted", [True, False])
def test_manifests_that_are_kept_from_kubelet_are_still_known(tmp_path, mount, mounted):
    """An unfinished restore of a data directory that is not the usual one is found by what etcd's manifest says of it."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    assert held_static_pods(str(manifests)) == {}
    if mounted:
        mount(manifests)
    held = tmp_path / ("manifests/.restore-x" if mounted else "manifests.restore-x")
    assert held_directory(str(manifests), "x") == str(held)
    held.mkdir()
    (held / "etcd.yaml").write_text("metadata:\n  labels:\n    component: etcd\nspec:\n  containers:\n  - command:\n    - etcd\n    - --data-dir=/srv/etcd\n")
    (tmp_path / "link").symlink_to(manifests)
    # however the directory is written
    for spelled in (str(manifests), str(manifests) + "/", str(tmp_path / "link")):
        assert held_directory(spelled, "x") == str(held)
        assert held_static_pods(spelled)["etcd"].flags["data-dir"] == "/srv/etcd"


def test_a_mount_point_is_known_even_when_it_is_a_bind_mount(tmp_path, monkeypatch):
    """A bind mount has the same device as its parent; only the kernel's table shows it, and spaces in it are escaped."""
    real_open = open
    table = tmp_path / "mountinfo"
    table.write_text("1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:0 /x %s/my\\040etcd rw - ext4 /dev/vda rw\n" % tmp_path)
    monkeypatch.setattr("builtins.open", lambda path, *args, **kw: real_open(table if path == "/proc/self/mountinfo" else path, *args, **kw))
    assert DataLayout(str(tmp_path / "my etcd")).mount_point
    assert not DataLayout(str(tmp_path / "etcd")).mount_point
    assert held_directory(str(tmp_path / "my etcd"), "1") == str(tmp_path / "my etcd/.restore-1")
